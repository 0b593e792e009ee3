"""`Runner`: the host of one strategy, without IO: events and the time in, intents out.

The live algo process and the back-test both drive this very class, so a strategy cannot tell them apart.
"""

from __future__ import annotations

import math
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgspec
import numpy as np

from strategies.base import Number, Strategy
from strategies.loader import check_parameters
from trading.bars import Bar, BarBuilder, interval_ns
from trading.errors import BadInput, TradeError, UnknownThing
from trading.ids import AccountId, AlgoId, ClientOrderId, ExecutionId, InstrumentId, Nanos, client_order_id
from trading.instruments import Instrument
from trading.orders import (
    ZERO,
    CancelOrder,
    Fill,
    ModifyOrder,
    Order,
    OrderType,
    PlaceOrder,
    Side,
    TimeInForce,
    order_from,
)
from trading.positions import Position
from trading.ticks import TickArray

#: A bar is given out this long after its end where no later trade comes, so that late ones still count.
BAR_GRACE: Final = 250_000_000
#: Closed bars kept for `Strategy.history` per instrument and interval, if `warm_up` does not ask for more.
_KEPT_BARS: Final = 200
#: Execution ids remembered, to count a fill once that is told twice after a restart.
_KEPT_EXECUTIONS: Final = 4096
_LEVELS: Final = ("debug", "info", "warning", "error")
_LONGEST_LINE: Final = 4000


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of an algo's log."""

    at: Nanos
    level: str
    text: str


class StrategyFailed(TradeError):
    """A callback of a strategy raised; the algo must not go on.  ``traceback_text`` is for its author."""

    def __init__(self, callback: str, traceback_text: str) -> None:
        last = traceback_text.strip().rsplit("\n", 1)[-1]
        super().__init__("strategy_failed", f"{callback} raised {last}")
        self.args = (callback, traceback_text)
        self.callback = callback
        self.traceback_text = traceback_text


Output = PlaceOrder | ModifyOrder | CancelOrder | LogLine


class _Saved(msgspec.Struct, kw_only=True):
    strategy: str
    next_intent: int
    now: int
    positions: list[Position]
    orders: list[Order]
    executions: list[ExecutionId]
    filled: dict[ClientOrderId, Decimal]
    ended: list[ClientOrderId]
    ahead: list[Order]
    builders: dict[str, dict[str, Any]]
    bars: list[tuple[InstrumentId, str, list[Bar]]]
    state: dict[str, Any]


class Runner:
    """Runs one strategy.  Every method that takes ``now`` returns what to send and to log, in order.

    After a callback raised, `failed` says so: books are still kept, but no callback runs any more.  Raises
    `BadInput` for wrong parameters or instruments.
    """

    def __init__(
        self,
        strategy_class: type[Strategy[Any]],
        parameters: Mapping[str, Any],
        algo: AlgoId,
        account: AccountId,
        instruments: Sequence[Instrument],
    ) -> None:
        if not instruments:
            raise BadInput("instruments", "an algo needs at least one instrument")
        self.instruments = tuple(instruments)
        self._by_id = {i.id: i for i in instruments}
        self._by_number = {i.number: i for i in instruments}
        if len(self._by_id) < len(instruments) or len(self._by_number) < len(instruments):
            raise BadInput("instruments", "the same instrument or number is given twice")
        if min(self._by_number) < 1:
            raise BadInput("instruments", "an instrument has no number; numbers start at 1")
        self._is_mine = np.zeros(max(self._by_number) + 2, dtype=bool)
        self._is_mine[list(self._by_number)] = True
        self.algo = algo
        self.account = account
        self.now = Nanos(0)
        #: Number of the next intent.  Set it above every one the session has seen; it never falls.
        self.next_intent = 1
        self.failed: StrategyFailed | None = None
        self.started = False
        self.stopped = False
        self._restored = False
        self._out: list[Output] = []
        self._orders: dict[ClientOrderId, Order] = {}
        self._positions: dict[InstrumentId, Position] = {}
        self._executions: dict[ExecutionId, None] = {}
        #: By order, the quantity of the fills that were told.
        self._filled: dict[ClientOrderId, Decimal] = {}
        self._ended: dict[ClientOrderId, None] = {}
        #: Orders that speak of fills not told yet.
        self._ahead: dict[ClientOrderId, Order] = {}
        self._builders: dict[str, BarBuilder] = {}
        self._bars: dict[tuple[InstrumentId, str], deque[Bar]] = {}
        self._warm_up: dict[str, int] = {}
        self.strategy = strategy_class(check_parameters(strategy_class, parameters), self)
        self._wants_ticks = (
            strategy_class.on_ticks is not Strategy.on_ticks or strategy_class.on_tick is not Strategy.on_tick
        )
        self._call("set_up", self._set_up)

    def __repr__(self) -> str:
        state = (
            "failed" if self.failed else "stopped" if self.stopped else "running" if self.started else "new"
        )
        return (
            f"<Runner {self.algo} {type(self.strategy).__name__} {state} next={self.next_intent} "
            f"open={len(self._orders)}>"
        )

    def _set_up(self) -> None:
        self.strategy.set_up()
        self._warm_up = dict(self.strategy.warm_up())
        for interval in self._warm_up:
            interval_ns(interval, "warm_up")
        self._builders = {
            interval: BarBuilder(interval_ns(interval, "bars"), grace=BAR_GRACE)
            for interval in dict.fromkeys(self.strategy.bars)
        }

    # Driven by the host

    def wanted_history(self) -> dict[str, int]:
        """By interval, how many closed bars of each instrument `start` should be given."""
        return dict(self._warm_up)

    def start(
        self, now: Nanos, history: Mapping[tuple[InstrumentId, str], Sequence[Bar]] | None = None
    ) -> list[Output]:
        """Begin: `on_start`, unless it was restored.  ``history`` has closed bars, oldest first."""
        self._advance(now)
        for (instrument, interval), bars in (history or {}).items():
            for bar in bars:
                self._keep_bar(instrument, interval, bar)
        self.started = True
        if not self._restored:
            self._call("on_start", self.strategy.on_start)
        return self._take()

    def ticks(self, ticks: TickArray, now: Nanos) -> list[Output]:
        """Take a batch: those of other instruments are passed over; bars that it closes come first."""
        self._advance(now)
        if not self._running or not len(ticks):
            return self._take()
        last = len(self._is_mine) - 1
        mine = self._is_mine[np.clip(ticks["instrument"], 0, last)]
        if not mine.all():
            ticks = ticks[mine]
            if not len(ticks):
                return self._take()
        for interval, builder in self._builders.items():
            self._give_bars(interval, builder.add(ticks))
        if self._wants_ticks:
            self._call("on_ticks", self.strategy.on_ticks, ticks)
        return self._take()

    def order(self, order: Order, now: Nanos) -> list[Output]:
        """An own order has changed; ``order`` is kept, so give a copy that nobody changes.

        Where it speaks of fills that have not been told yet, it waits for them: a strategy never sees an
        order done while its position lacks what the order made.
        """
        self._advance(now)
        if order.filled_quantity > self._filled.get(order.client_order_id, ZERO):
            self._ahead[order.client_order_id] = order
            return self._take()
        self._ahead.pop(order.client_order_id, None)
        self._tell_order(order)
        return self._take()

    def fill(self, order: Order, fill: Fill, now: Nanos) -> list[Output]:
        """An own order was filled; told twice, it counts once.  ``order`` is as it stands after the fill."""
        self._advance(now)
        if fill.execution_id in self._executions:
            return self._take()
        self._executions[fill.execution_id] = None
        if len(self._executions) > _KEPT_EXECUTIONS:
            del self._executions[next(iter(self._executions))]
        key = order.client_order_id
        filled = self._filled.pop(key, ZERO) + fill.quantity
        self._filled[key] = filled
        if len(self._filled) > _KEPT_EXECUTIONS:
            del self._filled[next(iter(self._filled))]
        self._position(self.instrument(order.instrument)).apply(order.side, fill)
        if order.filled_quantity <= filled:
            self._note_order(order)
        if self._running:
            self._call("on_fill", self.strategy.on_fill, order, fill)
        ahead = self._ahead.get(key)
        if ahead is not None and ahead.filled_quantity <= filled:
            del self._ahead[key]
            self._tell_order(ahead)
        return self._take()

    def clock(self, now: Nanos) -> list[Output]:
        """Time has passed: closes the bars that are due.  Call it about every second."""
        self._advance(now)
        if self._running:
            for interval, builder in self._builders.items():
                self._give_bars(interval, builder.close_until(now))
        return self._take()

    def stop(self, now: Nanos) -> list[Output]:
        """End the run: `on_stop`, whose intents are still to be sent; later events only keep the books."""
        self._advance(now)
        if self._running:
            self._call("on_stop", self.strategy.on_stop)
        self.stopped = True
        return self._take()

    def snapshot(self) -> bytes:
        """Everything it knows, for `restore`.  Raises `StrategyFailed` where the strategy's part fails."""
        saved = _Saved(
            strategy=type(self.strategy).__name__,
            next_intent=self.next_intent,
            now=self.now,
            positions=list(self._positions.values()),
            orders=list(self._orders.values()),
            executions=list(self._executions),
            filled=self._filled,
            ended=list(self._ended),
            ahead=list(self._ahead.values()),
            builders={interval: builder.snapshot() for interval, builder in self._builders.items()},
            bars=[(instrument, interval, list(bars)) for (instrument, interval), bars in self._bars.items()],
            state={},
        )
        encoded = b""

        def encode() -> None:
            nonlocal encoded
            saved.state = self.strategy.snapshot()
            encoded = msgspec.msgpack.encode(saved)

        self._call("snapshot", encode)
        if self.failed is not None:
            raise self.failed
        return encoded

    def restore(self, raw: bytes) -> None:
        """Go on from a `snapshot`, before `start`, which then skips `on_start`.

        Raises `BadInput` for bytes that are no snapshot of this strategy and these instruments, and
        `StrategyFailed` where the strategy's part fails; the runner is of no use then.
        """
        try:
            saved = msgspec.msgpack.decode(raw, type=_Saved)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadInput("snapshot", f"it cannot be read ({error}); start afresh") from error
        if saved.strategy != type(self.strategy).__name__:
            raise BadInput("snapshot", f"it is of {saved.strategy}, not {type(self.strategy).__name__}")
        strange = {p.instrument for p in saved.positions if p.quantity} - self._by_id.keys()
        if strange:
            raise BadInput(
                "snapshot", f"it holds {', '.join(sorted(strange))}, which this algo may not trade"
            )
        self.next_intent = max(self.next_intent, saved.next_intent)
        self.now = Nanos(saved.now)
        self._positions = {p.instrument: p for p in saved.positions}
        self._orders = {o.client_order_id: o for o in saved.orders}
        self._executions = dict.fromkeys(saved.executions)
        self._filled = dict(saved.filled)
        self._ended = dict.fromkeys(saved.ended)
        self._ahead = {o.client_order_id: o for o in saved.ahead}
        for interval, state in saved.builders.items():
            if interval in self._builders:
                self._builders[interval].restore(state)
        for instrument, interval, bars in saved.bars:
            for bar in bars:
                self._keep_bar(instrument, interval, bar)
        self._restored = True
        self._call("restore", self.strategy.restore, saved.state)
        if self.failed is not None:
            raise self.failed

    # Asked by the strategy (see `strategies.base.Host`)

    def instrument(self, which: Instrument | InstrumentId | str) -> Instrument:
        """One of its instruments; raises `UnknownThing`."""
        key = which.id if isinstance(which, Instrument) else InstrumentId(which)
        found = self._by_id.get(key)
        if found is None:
            raise UnknownThing("instrument", key, f"this algo has {', '.join(self._by_id)}")
        return found

    def by_number(self, number: int) -> Instrument:
        """The instrument that ``number`` stands for in tick arrays."""
        return self._by_number[number]

    def place(
        self,
        side: Side,
        instrument: Instrument,
        quantity: Number,
        limit: Number | None,
        stop: Number | None,
        time_in_force: TimeInForce,
        reduce_only: bool,
    ) -> ClientOrderId:
        """Note an intent; it is sent when the callback returns."""
        key = client_order_id(f"{self.algo}-{self.next_intent}")
        amount = _decimal(quantity, "quantity")
        instrument.check_quantity(amount)
        limit_price = _price(instrument, limit, "limit")
        stop_price = _price(instrument, stop, "stop")
        if stop_price is None:
            kind = OrderType.MARKET if limit_price is None else OrderType.LIMIT
        else:
            kind = OrderType.STOP if limit_price is None else OrderType.STOP_LIMIT
        intent = PlaceOrder(
            account=self.account,
            client_order_id=key,
            instrument=instrument.id,
            side=side,
            type=kind,
            quantity=amount,
            limit_price=limit_price,
            stop_price=stop_price,
            time_in_force=TimeInForce(time_in_force),
            reduce_only=reduce_only,
            algo=self.algo,
            created_at=self.now,
        )
        self.next_intent += 1
        self._orders[key] = order_from(intent, "", self.now)
        self._out.append(intent)
        return key

    def modify(
        self, key: ClientOrderId, quantity: Number | None, limit: Number | None, stop: Number | None
    ) -> bool:
        """Note a change of an open order; False where there is nothing to change any more."""
        order = self._orders.get(key)
        if order is None or order.cancelling:
            return False
        instrument = self.instrument(order.instrument)
        amount = None if quantity is None else _decimal(quantity, "quantity")
        if amount is not None:
            instrument.check_quantity(amount)
        change = ModifyOrder(
            account=self.account,
            client_order_id=key,
            quantity=amount,
            limit_price=_price(instrument, limit, "limit"),
            stop_price=_price(instrument, stop, "stop"),
        )
        if change.quantity is None and change.limit_price is None and change.stop_price is None:
            raise BadInput("modify", "say a quantity, limit or stop to change")
        self._out.append(change)
        return True

    def cancel(self, key: ClientOrderId) -> bool:
        """Note a cancel of an open order; False where it has ended or one is under way."""
        order = self._orders.get(key)
        if order is None or order.cancelling:
            return False
        self._orders[key] = msgspec.structs.replace(order, cancelling=True)
        self._out.append(CancelOrder(account=self.account, client_order_id=key))
        return True

    def position(self, instrument: Instrument) -> Position:
        """A copy of the position that own fills have made."""
        return msgspec.structs.replace(self._position(instrument))

    def open_orders(self) -> list[Order]:
        """Own orders that may still fill, oldest first."""
        return list(self._orders.values())

    def history(self, instrument: Instrument, interval: str, count: int) -> list[Bar]:
        """The last ``count`` closed bars that are known, oldest first."""
        if interval not in self._warm_up and interval not in self._builders:
            raise BadInput("interval", f"{interval!r} is neither in warm_up() nor in bars; name it there")
        if count < 1:
            raise BadInput("count", f"{count} is below 1")
        return list(self._bars.get((instrument.id, interval), ()))[-count:]

    def log(self, text: str, level: str) -> None:
        """Note a line of the algo's log."""
        if level not in _LEVELS:
            raise BadInput("level", f"{level!r} is not one of {', '.join(_LEVELS)}")
        self._out.append(LogLine(at=self.now, level=level, text=str(text)[:_LONGEST_LINE]))

    # Within

    @property
    def _running(self) -> bool:
        return self.started and not self.stopped and self.failed is None

    def _advance(self, now: Nanos) -> None:
        self.now = max(self.now, now)

    def _take(self) -> list[Output]:
        out, self._out = self._out, []
        return out

    def _call(self, name: str, callback: Callable[..., None], *args: Any) -> None:
        if self.failed is not None:
            return
        done, self._out = self._out, []
        before = dict(self._orders)
        try:
            callback(*args)
        except (Exception, SystemExit):  # noqa: BLE001 - a strategy may raise anything, and fails alone
            self.failed = StrategyFailed(name, traceback.format_exc())
            # What it had half decided is not sent; the numbers it used are not used again.
            self._orders = before
            self._out = [line for line in self._out if isinstance(line, LogLine)]
            self._out.append(LogLine(at=self.now, level="error", text=self.failed.traceback_text))
        self._out = done + self._out

    def _give_bars(self, interval: str, closed: list[tuple[int, Bar]]) -> None:
        for number, bar in closed:
            instrument = self._by_number[number]
            if self._keep_bar(instrument.id, interval, bar):
                self._call("on_bar", self.strategy.on_bar, instrument, bar, interval)

    def _keep_bar(self, instrument: InstrumentId, interval: str, bar: Bar) -> bool:
        """Keep a closed bar; False where it or a later one is known already."""
        kept = self._bars.get((instrument, interval))
        if kept is None:
            longest = max(self._warm_up.get(interval, 0), _KEPT_BARS)
            kept = self._bars[instrument, interval] = deque(maxlen=longest)
        if kept and bar.opened_at <= kept[-1].opened_at:
            return False
        kept.append(bar)
        return True

    def _tell_order(self, order: Order) -> None:
        self._note_order(order)
        if self._running:
            self._call("on_order", self.strategy.on_order, order)

    def _note_order(self, order: Order) -> None:
        key = order.client_order_id
        if order.state.is_final:
            self._orders.pop(key, None)
            self._ended[key] = None
            if len(self._ended) > _KEPT_EXECUTIONS:
                del self._ended[next(iter(self._ended))]
        elif key not in self._ended:
            # What comes after its end is an older word that was overtaken.
            self._orders[key] = order

    def _position(self, instrument: Instrument) -> Position:
        found = self._positions.get(instrument.id)
        if found is None:
            found = self._positions[instrument.id] = Position(
                account=self.account, instrument=instrument.id, multiplier=instrument.multiplier
            )
        return found


def _decimal(value: Number, field: str) -> Decimal:
    """``value`` as the Decimal a person would read it as: ``0.1`` is 0.1."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int | float | str):
        raise BadInput(field, f"{value!r} is not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(field, f"{value} is not a finite number")
    try:
        return value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation:
        raise BadInput(field, f"{value!r} is not a number") from None


def _price(instrument: Instrument, value: Number | None, field: str) -> Decimal | None:
    if value is None:
        return None
    price = _decimal(value, field)
    instrument.check_price(price, field)
    return price

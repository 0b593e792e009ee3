"""`Runner`: the host of one strategy, without IO: events and the time in, intents out.

The live algo process and the back-test both drive this very class, so a strategy cannot tell them apart.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from strategies.base import Strategy, Tick
from strategies.books import Books, BooksState
from strategies.last_ticks import LastTicks
from strategies.loader import check_parameters
from strategies.numbers import Number, decimal_of, price_of
from strategies.outputs import LogLine, Output, StrategyFailed
from trading.bar_join import BarJoin
from trading.bars import Bar, BarBuilder, interval_ns
from trading.checks import check_trail
from trading.closing import closes
from trading.conflation import newest
from trading.errors import BadInput, UnknownThing
from trading.ids import AccountId, AlgoId, ClientOrderId, ExecutionId, InstrumentId, Nanos, client_order_id
from trading.instruments import Instrument
from trading.orders import (
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
from trading.spans import Span, ceiling, floor
from trading.ticks import TickArray, live

__all__ = ["LogLine", "Output", "Runner", "StrategyFailed"]

#: A bar is given out this long after its end where no later trade comes, so that late ones still count.
BAR_GRACE: Final = 250_000_000
#: Closed bars kept for `Strategy.history` per instrument and interval, if `warm_up` does not ask for more.
_KEPT_BARS: Final = 200
#: Leaves eleven digits for the number in a key.
_LONGEST_ALGO: Final = 36
_LEVELS: Final = ("debug", "info", "warning", "error")
_LONGEST_LINE: Final = 4000
_MOST_FIELDS: Final = 50
_LONGEST_FIELD: Final = 1000


class _Saved(msgspec.Struct, kw_only=True):
    strategy: str
    next_intent: int
    now: int
    books: BooksState
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
        if len(algo) > _LONGEST_ALGO:
            raise BadInput("algo", f"{algo!r} is longer than {_LONGEST_ALGO}; its orders' keys must fit 48")
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
        #: Ticks that were left out because the strategy was behind.
        self.conflated = 0
        self.failed: StrategyFailed | None = None
        self.started = False
        self.stopped = False
        self._restored = False
        self._out: list[Output] = []
        self._books = Books(account)
        self._last = LastTicks()
        self._builders: dict[str, BarBuilder] = {}
        self._bars: dict[tuple[InstrumentId, str], deque[Bar]] = {}
        self._warm_up: dict[str, int] = {}
        #: Up to when history was given at the start.
        self._history_until: dict[tuple[InstrumentId, str], int] = {}
        self._joins: dict[tuple[InstrumentId, str], BarJoin] = {}
        self.strategy = strategy_class(check_parameters(strategy_class, parameters), self)
        self._wants_ticks = (
            strategy_class.on_ticks is not Strategy.on_ticks or strategy_class.on_tick is not Strategy.on_tick
        )
        self._call("set_up", self._set_up)

    def __repr__(self) -> str:
        state = "failed" if self.failed else "stopped" if self.stopped else "running" if self.started else "new"
        return (
            f"<Runner {self.algo} {type(self.strategy).__name__} {state} next={self.next_intent} "
            f"open={len(self._books.orders)}>"
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
            self._history_until[instrument, interval] = floor(now, interval_ns(interval))
            for bar in bars:
                self._keep_bar(instrument, interval, bar)
        self.started = True
        # What `set_up` logged: it knew no time.
        self._out = [
            msgspec.structs.replace(each, at=self.now) if isinstance(each, LogLine) and not each.at else each
            for each in self._out
        ]
        if not self._restored:
            self._call("on_start", self.strategy.on_start)
        return self._take()

    def know(self, rows: TickArray) -> None:
        """Take last values (`trading.last_values`) of those who have listened for longer, for `Strategy.last`."""
        self._last.seed(rows[self._own(rows)])

    def listening(self, now: Nanos) -> None:
        """Every tick from ``now`` on will come.

        The bar that is under way is then not built of ticks, for its first ones are missing: it is the first of
        `wanted_bars` where there was history, and left out where there was none.
        """
        for interval, builder in self._builders.items():
            for instrument in self.instruments:
                key = (instrument.id, interval)
                known = self._history_until.get(key, ceiling(now, builder.interval))
                self._joins[key] = BarJoin(builder.interval, Nanos(known), now)

    def wanted_bars(self) -> list[tuple[Instrument, str, Span]]:
        """What history should be asked for, each once its span is over, and given to `fill_bars`."""
        return [
            (self._by_id[instrument], interval, wanted)
            for (instrument, interval), join in self._joins.items()
            if (wanted := join.wanted()) is not None
        ]

    def fill_bars(
        self, instrument: InstrumentId, interval: str, bars: Sequence[Bar], until: Nanos, now: Nanos
    ) -> list[Output]:
        """Take all closed bars of history that open before ``until``; live ones that waited for them come after."""
        self._advance(now)
        for bar in self._joins[instrument, interval].fill(bars, until):
            self._give_bar(self._by_id[instrument], interval, bar)
        return self._take()

    def ticks(self, ticks: TickArray, now: Nanos, *, waited: bool = False) -> list[Output]:
        """Take a batch: those of other instruments are passed over; bars that it closes come first.

        So are trades filled in after a gap: they are of the past, and must not pass for the price now.
        ``waited``: they gathered while the strategy was busy, so one that wants to `conflate` sees the newest only.
        """
        self._advance(now)
        if not self._running or not len(ticks):
            return self._take()
        mine = self._own(ticks)
        if not mine.all():
            ticks = ticks[mine]
            if not len(ticks):
                return self._take()
        ticks = live(ticks)
        for interval, builder in self._builders.items():
            self._give_bars(interval, builder.add(ticks))
        given = ticks
        if waited and self.strategy.conflate:
            given = newest(ticks)
            self.conflated += len(ticks) - len(given)
        if self._wants_ticks and len(given):
            self._call("on_ticks", self.strategy.on_ticks, given)
        # Not before: what is yet to be given must not be seen, or the back-test would look ahead.
        self._last.take(ticks)
        return self._take()

    def _own(self, ticks: TickArray) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = self._is_mine[np.clip(ticks["instrument"], 0, len(self._is_mine) - 1)]
        return found

    def order(self, order: Order, now: Nanos) -> list[Output]:
        """An own order has changed; ``order`` is kept, so give a copy that nobody changes.

        Where it speaks of fills that have not been told yet, it waits for them: a strategy never sees an
        order done while its position lacks what the order made.
        """
        self._advance(now)
        if self._books.note_order(order) and self._running:
            self._call("on_order", self.strategy.on_order, order)
        return self._take()

    def fill(self, order: Order, fill: Fill, now: Nanos) -> list[Output]:
        """An own order was filled; told twice, it counts once.  ``order`` is as it stands after the fill."""
        self._advance(now)
        if not self._books.note_fill(self.instrument(order.instrument), order, fill):
            return self._take()
        if self._running:
            self._call("on_fill", self.strategy.on_fill, order, fill)
        waited = self._books.waited(order.client_order_id)
        if waited is not None and self._running:
            self._call("on_order", self.strategy.on_order, waited)
        return self._take()

    def knows(self, execution: ExecutionId) -> bool:
        """Whether a fill was told before (of the latest few thousand)."""
        return self._books.knows(execution)

    def clock(self, now: Nanos) -> list[Output]:
        """Time has passed: closes the bars that are due.  Call it about every second."""
        self._advance(now)
        if self._running:
            for interval, builder in self._builders.items():
                self._give_bars(interval, builder.close_until(now))
        return self._take()

    def change_parameters(self, parameters: Mapping[str, Any], now: Nanos) -> list[Output]:
        """Give the strategy other parameters between two events, and call `on_parameters`.

        Raises `BadInput`, having changed nothing, for such as it does not take.
        """
        self._advance(now)
        checked = check_parameters(type(self.strategy), parameters)
        before, self.strategy.parameters = self.strategy.parameters, checked
        if self._running:
            self._call("on_parameters", self.strategy.on_parameters, before)
        return self._take()

    def stop(self, now: Nanos, *, leave_orders: bool = False) -> list[Output]:
        """End the run: `on_stop`, whose intents are still to be sent; later events only keep the books.

        ``leave_orders``: what it asks to cancel now is not cancelled.
        """
        self._advance(now)
        if self._running:
            leaving = {key for key, order in self._books.orders.items() if order.cancelling}
            self._call("on_stop", self.strategy.on_stop)
            if leave_orders:
                self._out = [each for each in self._out if not isinstance(each, CancelOrder)]
                for key, order in self._books.orders.items():
                    if order.cancelling and key not in leaving:
                        self._books.orders[key] = msgspec.structs.replace(order, cancelling=False)
        self.stopped = True
        return self._take()

    def snapshot(self) -> bytes:
        """Everything it knows, for `restore`.  Raises `StrategyFailed` where the strategy's part fails."""
        saved = _Saved(
            strategy=type(self.strategy).__name__,
            next_intent=self.next_intent,
            now=self.now,
            books=self._books.state(),
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
        strange = {p.instrument for p in saved.books.positions if p.quantity} - self._by_id.keys()
        if strange:
            raise BadInput("snapshot", f"it holds {', '.join(sorted(strange))}, which this algo may not trade")
        self.next_intent = max(self.next_intent, saved.next_intent)
        self.now = Nanos(saved.now)
        self._books.restore(saved.books)
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
        trail: Number | None = None,
        trail_percent: Number | None = None,
    ) -> ClientOrderId:
        """Note an intent; it is sent when the callback returns."""
        key = client_order_id(f"{self.algo}-{self.next_intent}")
        amount = decimal_of(quantity, "quantity")
        instrument.check_quantity(amount)
        limit_price = price_of(instrument, limit, "limit")
        stop_price = price_of(instrument, stop, "stop")
        trail_price = price_of(instrument, trail, "trail")
        percent = None if trail_percent is None else decimal_of(trail_percent, "trail_percent")
        if trail_price is not None or percent is not None:
            kind = OrderType.TRAILING_STOP
            if limit_price is not None or stop_price is not None:
                raise BadInput("trail", "a trailing stop has neither limit nor stop; leave them out")
            check_trail(kind, trail_price, percent, instrument)
        elif stop_price is None:
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
            trail_price=trail_price,
            trail_percent=percent,
            time_in_force=TimeInForce(time_in_force),
            reduce_only=reduce_only,
            algo=self.algo,
            created_at=self.now,
        )
        self.next_intent += 1
        self._books.orders[key] = order_from(intent, "", self.now)
        self._out.append(intent)
        return key

    def modify(
        self,
        key: ClientOrderId,
        quantity: Number | None,
        limit: Number | None,
        stop: Number | None,
        trail: Number | None = None,
        trail_percent: Number | None = None,
    ) -> bool:
        """Note a change of an open order; False where there is nothing of its own to change (any more)."""
        order = self._books.orders.get(key)
        if order is None or order.cancelling or closes(order):
            return False
        instrument = self.instrument(order.instrument)
        amount = None if quantity is None else decimal_of(quantity, "quantity")
        if amount is not None:
            instrument.check_quantity(amount)
        change = ModifyOrder(
            account=self.account,
            client_order_id=key,
            quantity=amount,
            limit_price=price_of(instrument, limit, "limit"),
            stop_price=price_of(instrument, stop, "stop"),
            trail_price=price_of(instrument, trail, "trail"),
            trail_percent=None if trail_percent is None else decimal_of(trail_percent, "trail_percent"),
        )
        asked = (change.quantity, change.limit_price, change.stop_price, change.trail_price, change.trail_percent)
        if asked == (None,) * len(asked):
            raise BadInput("modify", "say a quantity, limit, stop or trail to change")
        if change.trail_price is not None or change.trail_percent is not None:
            check_trail(order.type, change.trail_price, change.trail_percent, instrument)
        self._out.append(change)
        return True

    def cancel(self, key: ClientOrderId) -> bool:
        """Note a cancel of an open order; False where it has ended, one is under way, or a kill closes with it."""
        order = self._books.orders.get(key)
        if order is None or order.cancelling or closes(order):
            return False
        self._books.orders[key] = msgspec.structs.replace(order, cancelling=True)
        self._out.append(CancelOrder(account=self.account, client_order_id=key))
        return True

    def position(self, instrument: Instrument) -> Position:
        """A copy of the position that own fills have made."""
        return msgspec.structs.replace(self._books.position(instrument))

    def open_orders(self) -> list[Order]:
        """Own orders that may still fill, oldest first."""
        return list(self._books.orders.values())

    def history(self, instrument: Instrument, interval: str, count: int) -> list[Bar]:
        """The last ``count`` closed bars that are known, oldest first."""
        if interval not in self._warm_up and interval not in self._builders:
            raise BadInput("interval", f"{interval!r} is neither in warm_up() nor in bars; name it there")
        if count < 1:
            raise BadInput("count", f"{count} is below 1")
        return list(self._bars.get((instrument.id, interval), ()))[-count:]

    def last(self, instrument: Instrument) -> Tick | None:
        """The last trade and quote that are known."""
        row = self._last.get(instrument.number)
        return None if row is None else Tick(instrument, *row.tolist()[1:])

    def log(self, text: str, level: str, fields: Mapping[str, Any]) -> None:
        """Note a line of the algo's log.  Fields that are no plain values are noted as text."""
        if level not in _LEVELS:
            raise BadInput("level", f"{level!r} is not one of {', '.join(_LEVELS)}")
        if len(fields) > _MOST_FIELDS:
            raise BadInput("fields", f"{len(fields)} fields are too many, {_MOST_FIELDS} are the most")
        plain = {name: _plain(value) for name, value in fields.items()}
        self._out.append(LogLine(at=self.now, level=level, text=str(text)[:_LONGEST_LINE], fields=plain))

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
        before = dict(self._books.orders)
        try:
            callback(*args)
        except (Exception, SystemExit):  # noqa: BLE001 - a strategy may raise anything, and fails alone
            self.failed = StrategyFailed(name, traceback.format_exc())
            # What it had half decided is not sent; the numbers it used are not used again.
            self._books.orders = before
            self._out = [line for line in self._out if isinstance(line, LogLine)]
            self._out.append(LogLine(at=self.now, level="error", text=self.failed.traceback_text))
        self._out = done + self._out

    def _give_bars(self, interval: str, closed: list[tuple[int, Bar]]) -> None:
        for number, bar in closed:
            instrument = self._by_number[number]
            join = self._joins.get((instrument.id, interval))
            for each in (bar,) if join is None else join.live(bar):
                self._give_bar(instrument, interval, each)

    def _give_bar(self, instrument: Instrument, interval: str, bar: Bar) -> None:
        if self._keep_bar(instrument.id, interval, bar) and self._running:
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


def _plain(value: Any) -> Any:
    """A field of a line as JSON has it; exact numbers stay exact, as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | np.integer):
        whole = int(value)
        return whole if abs(whole) < 2**53 else str(whole)
    if isinstance(value, float | np.floating) and np.isfinite(value):
        return float(value)
    return str(value)[:_LONGEST_FIELD].encode("utf-8", "replace").decode()

"""The `Strategy` base class: callbacks to fill in, actions to call, views to look at.

Callbacks run one at a time and must return soon: all are plain functions, and what they ask for is sent when
they return.  Nothing is sent for a callback that raises.  A strategy reads no clock and draws no unseeded
random numbers, so that the back-test is the live run: the time is `Strategy.now`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, ClassVar, Final, Generic, NamedTuple, Protocol, TypeVar, get_args

import pydantic

from strategies.numbers import Number
from trading.amounts import FORM, is_amount
from trading.bars import Bar
from trading.ids import ClientOrderId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.orders import Fill, Order, Side, TimeInForce
from trading.positions import Position
from trading.ticks import BUYER_MAKER, QUOTE, TRADE, TickArray

#: Marks a parameter that may change while the strategy runs: ``n: Annotated[int, UPDATABLE] = Field(1, gt=0)``.
UPDATABLE: Final[Any] = pydantic.Field(json_schema_extra={"x-updatable": True})


class StrategyParameters(pydantic.BaseModel):
    """Base of a strategy's parameters; names that do not exist are refused."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _is_plain_number(cls, given: Any, info: pydantic.ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        is_number = not {Decimal, int, float}.isdisjoint((annotation, *get_args(annotation)))
        is_text = str in (annotation, *get_args(annotation))
        if isinstance(given, str) and is_number and not is_text and not is_amount(given):
            raise ValueError(f"{given[:40]!r} is not a number; {FORM}")
        return given


class Tick(NamedTuple):
    """One market event, as in `trading.ticks`; prices and sizes that do not apply are NaN."""

    instrument: Instrument
    flags: int
    price: float
    size: float
    bid: float
    bid_size: float
    ask: float
    ask_size: float
    exchange_at: int
    received_at: int
    sequence: int

    @property
    def is_trade(self) -> bool:
        """Whether it has a price and size that were traded."""
        return bool(self.flags & TRADE)

    @property
    def is_quote(self) -> bool:
        """Whether it has the best bid and offer."""
        return bool(self.flags & QUOTE)

    @property
    def sold(self) -> bool:
        """Whether the seller was the aggressor of this trade."""
        return bool(self.flags & BUYER_MAKER)


class Host(Protocol):
    """What runs a strategy: `strategies.runner.Runner`, live and in the back-test."""

    instruments: tuple[Instrument, ...]
    now: Nanos

    def instrument(self, which: Instrument | InstrumentId | str) -> Instrument:
        """One of its instruments."""

    def by_number(self, number: int) -> Instrument:
        """The instrument that ``number`` stands for in tick arrays."""

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
        """Note an intent."""

    def modify(
        self,
        key: ClientOrderId,
        quantity: Number | None,
        limit: Number | None,
        stop: Number | None,
        trail: Number | None = None,
        trail_percent: Number | None = None,
    ) -> bool:
        """Note a change."""

    def cancel(self, key: ClientOrderId) -> bool:
        """Note a cancel."""

    def position(self, instrument: Instrument) -> Position:
        """What own fills have made."""

    def open_orders(self) -> list[Order]:
        """Own orders that may still fill."""

    def history(self, instrument: Instrument, interval: str, count: int) -> list[Bar]:
        """Closed bars."""

    def last(self, instrument: Instrument) -> Tick | None:
        """Last trade and quote."""

    def log(self, text: str, level: str, fields: Mapping[str, Any]) -> None:
        """Note a line."""


P = TypeVar("P", bound=pydantic.BaseModel)


class Strategy(Generic[P]):
    """Base of all strategies: ``class Mine(Strategy[MyParameters]): Parameters = MyParameters``.

    Life: `set_up`; then `on_start`, or `restore` where it resumes from a snapshot; market, order and fill
    callbacks; `on_stop`.
    """

    #: The pydantic model of its parameters, with descriptions and bounds.
    Parameters: ClassVar[type[pydantic.BaseModel]] = StrategyParameters
    #: Intervals of the bars it wants (``("1s", "5m")``).  Where parameters decide, `set_up` assigns it.
    bars: tuple[str, ...] = ()
    #: Whether ticks that had to wait are left out, but for the newest trade and quote of each instrument.  Bars are
    #: made of all of them.
    conflate: bool = False

    def __init__(self, parameters: P, host: Host) -> None:
        self.parameters = parameters
        self._host = host

    # Callbacks

    def set_up(self) -> None:
        """Make indicators and state from `parameters` and `instruments`; no orders yet."""

    def warm_up(self) -> Mapping[str, int]:
        """How many closed bars of each interval `history` should have at `on_start`."""
        return {}

    def on_start(self) -> None:
        """A fresh run begins.  Not called after `restore`."""

    def on_ticks(self, ticks: TickArray) -> None:
        """A batch of ticks of its instruments, in order of arrival; by default each goes to `on_tick`."""
        by_number = self._host.by_number
        for number, *rest in ticks.tolist():
            self.on_tick(Tick(by_number(number), *rest))

    def on_tick(self, tick: Tick) -> None:
        """One tick."""

    def on_bar(self, instrument: Instrument, bar: Bar, interval: str) -> None:
        """A bar has closed; it comes before the tick that closed it."""

    def on_order(self, order: Order) -> None:
        """An own order has changed; do not change ``order``."""

    def on_fill(self, order: Order, fill: Fill) -> None:
        """An own order was filled in part or whole; `position` has it already."""

    def on_parameters(self, before: P) -> None:
        """`parameters` have just changed, in those that are `UPDATABLE` only; ``before`` are the ones until now."""

    def on_stop(self) -> None:
        """The run ends; what is asked for here is still sent.  By default it takes its open orders back.

        Where its orders are to be left open, cancels that are asked for here are not sent.
        """
        self.cancel_all()

    def snapshot(self) -> dict[str, Any]:
        """Its own state in plain values (dicts, lists, strings, numbers), for `restore` after a restart."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state that `snapshot` gave; called after `set_up`, in place of `on_start`."""

    # Actions

    def buy(
        self,
        instrument: Instrument | InstrumentId,
        quantity: Number,
        *,
        limit: Number | None = None,
        stop: Number | None = None,
        trail: Number | None = None,
        trail_percent: Number | None = None,
        time_in_force: TimeInForce = TimeInForce.GTC,
        reduce_only: bool = False,
    ) -> ClientOrderId:
        """Buy: at market, or by a limit, stop or stop-limit order as ``limit`` and ``stop`` say.

        ``trail`` (money) or ``trail_percent`` makes it a trailing stop: it buys once the market has risen that far
        from its lowest price since.

        Returns the key of the order.  Raises `BadInput`, naming the field and the step, for a quantity or
        price off the instrument's grid; `Instrument.round_price` and `round_quantity` put it there.
        """
        which = self._host.instrument(instrument)
        return self._host.place(
            Side.BUY, which, quantity, limit, stop, time_in_force, reduce_only, trail, trail_percent
        )

    def sell(
        self,
        instrument: Instrument | InstrumentId,
        quantity: Number,
        *,
        limit: Number | None = None,
        stop: Number | None = None,
        trail: Number | None = None,
        trail_percent: Number | None = None,
        time_in_force: TimeInForce = TimeInForce.GTC,
        reduce_only: bool = False,
    ) -> ClientOrderId:
        """Sell; as `buy`."""
        which = self._host.instrument(instrument)
        return self._host.place(
            Side.SELL, which, quantity, limit, stop, time_in_force, reduce_only, trail, trail_percent
        )

    def close(self, instrument: Instrument | InstrumentId) -> ClientOrderId | None:
        """Flatten at market, less what open reduce-only orders will do; None where nothing is left."""
        which = self._host.instrument(instrument)
        held = self._host.position(which).quantity
        side = Side.SELL if held > 0 else Side.BUY
        left = abs(held)
        for order in self.open_orders(which):
            if order.reduce_only and order.side is side:
                left -= order.open_quantity
        if left <= 0:
            return None
        return self._host.place(side, which, left, None, None, TimeInForce.GTC, True)

    def cancel(self, order: ClientOrderId | Order) -> bool:
        """Take an own order back, by its key or itself; False where it has ended or a cancel is under way.

        Orders with which a kill, or a person, closes what the algo holds are in its name, but not its to take back.
        """
        return self._host.cancel(_key(order))

    def cancel_all(self, instrument: Instrument | InstrumentId | None = None) -> int:
        """Take all own open orders (of one instrument) back; returns of how many."""
        return sum(self._host.cancel(order.client_order_id) for order in self.open_orders(instrument))

    def modify(
        self,
        order: ClientOrderId | Order,
        *,
        quantity: Number | None = None,
        limit: Number | None = None,
        stop: Number | None = None,
        trail: Number | None = None,
        trail_percent: Number | None = None,
    ) -> bool:
        """Change an own open order; ``quantity`` is the new total.  False where it ended or is leaving."""
        return self._host.modify(_key(order), quantity, limit, stop, trail, trail_percent)

    # Views

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """What it was given to trade."""
        return self._host.instruments

    @property
    def now(self) -> Nanos:
        """The time of this callback, UTC nanoseconds."""
        return self._host.now

    def instrument(self, which: InstrumentId | str) -> Instrument:
        """One of `instruments` by its id; raises `UnknownThing`."""
        return self._host.instrument(which)

    def position(self, instrument: Instrument | InstrumentId) -> Position:
        """The position that this algo's own fills have made; a copy."""
        return self._host.position(self._host.instrument(instrument))

    def open_orders(self, instrument: Instrument | InstrumentId | None = None) -> list[Order]:
        """Own orders that may still fill, oldest first; do not change them."""
        orders = self._host.open_orders()
        if instrument is None:
            return orders
        wanted = self._host.instrument(instrument).id
        return [order for order in orders if order.instrument == wanted]

    def history(self, instrument: Instrument | InstrumentId, interval: str, count: int) -> list[Bar]:
        """Up to ``count`` closed bars, oldest first: those of `warm_up`, then those of `bars` since."""
        return self._host.history(self._host.instrument(instrument), interval, count)

    def last(self, instrument: Instrument | InstrumentId) -> Tick | None:
        """The last trade and the last quote in one, as they stood before the ticks that are being given just now.

        `on_start` has what the feed knew by then, so nobody has to wait for the next tick; None where nothing has
        come.  It may be old: ``received_at`` says when its later half came.
        """
        return self._host.last(self._host.instrument(instrument))

    def log(self, text: str, level: str = "info", **fields: Any) -> None:
        """Write a line to the algo's log; ``level`` is debug, info, warning or error, ``fields`` go with it by name."""
        self._host.log(text, level, fields)


def _key(order: ClientOrderId | Order) -> ClientOrderId:
    return order.client_order_id if isinstance(order, Order) else order

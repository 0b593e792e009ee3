"""Matching of own orders against the quotes and trades of an outside market.

`MatchingBook` plays the venue for one instrument: the outside market is what the feed shows (best bid and
offer, and prints), our orders meet it and never each other.

* An order that crosses the quote on arrival takes the opposite side's size; what it takes is gone for the
  next one until that side of the quote changes (the same price and size again is the same liquidity).  What
  it could not get waits for the next quote, or ends if it is IOC; FOK takes all or ends.
* An order that has rested fills at its own limit: when a quote comes to or through it, for that quote's size;
  when a print goes through it, or hits its price from the other side, for the print's size.  Several share in
  price-time priority.
* ``fill_ratio`` is the share of any such size that is ours to have, floored to lots.
* Stops watch prints; until the first print, the quote.  A triggered stop is a market order, a triggered
  stop-limit a limit order.  Only market orders slip.
* A trailing stop keeps the best price it has watched since it came (its high water) and stands its trail behind
  that; it only ever moves in its order's favour.  Triggered, it is a market order.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from trading.checks import check_trail
from trading.errors import BadInput, Conflict, UnknownThing
from trading.ids import Nanos
from trading.instruments import Instrument
from trading.orders import ZERO, OrderState, OrderType, Side, TimeInForce

_PRICED_STOPS: Final = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})
_STOPS: Final = _PRICED_STOPS | {OrderType.TRAILING_STOP}
_AUCTION: Final = frozenset({TimeInForce.AT_OPEN, TimeInForce.AT_CLOSE})
_LIMITS: Final = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
_PRICES: Final = ("limit_price", "stop_price", "trail_price", "trail_percent")
_AT_ONCE: Final = frozenset({TimeInForce.IOC, TimeInForce.FOK})


class BookOrder(msgspec.Struct, kw_only=True):
    """An order as the book keeps it; the book changes ``remaining``, ``triggered``, ``high_water`` and what `amend`
    names.
    """

    id: str
    side: Side
    type: OrderType
    quantity: Decimal
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.DAY
    #: What is still to fill; at most ``quantity``.
    remaining: Decimal
    #: A stop that has been set off.
    triggered: bool = False
    #: Time priority; 0 means when it is placed.
    arrived: int = 0
    #: Distance of a trailing stop: in money, or in percent of the best price.
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    #: The best price it has followed: the highest for a sell, the lowest for a buy; None before the first.
    high_water: Decimal | None = None


def stop_of(order: BookOrder, instrument: Instrument) -> Decimal | None:
    """Where an order's stop stands now; None where it has none (yet)."""
    if order.type is not OrderType.TRAILING_STOP or order.high_water is None:
        return order.stop_price
    trail = order.trail_price
    if trail is None:
        trail = order.high_water * (order.trail_percent or ZERO) / 100
    return instrument.round_price(order.high_water + trail * order.side.sign)


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """A fill of ``quantity`` at ``price``.  ``maker``: the order rested and the market came to it."""

    order_id: str
    quantity: Decimal
    price: Decimal
    maker: bool
    at: Nanos


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """The order left the book unfilled in part or whole; ``state`` is CANCELLED or EXPIRED."""

    order_id: str
    state: OrderState
    reason: str


class Triggered(msgspec.Struct, frozen=True, kw_only=True):
    """A stop was set off and works as a market or limit order from now on."""

    order_id: str


class Trailed(msgspec.Struct, frozen=True, kw_only=True):
    """A trailing stop has followed the market to a new best price."""

    order_id: str
    high_water: Decimal


Outcome = Execution | Ended | Triggered | Trailed


class _Touch:
    """One side of the outside quote, and how much of it is still ours to take."""

    __slots__ = ("left", "price", "size")

    def __init__(self) -> None:
        self.price: Decimal | None = None
        self.size: Decimal = ZERO
        self.left: Decimal = ZERO


class _Resting:
    """An order in the book, its place in the queue, and whether it has ever stood without crossing."""

    __slots__ = ("order", "rested", "sequence")

    def __init__(self, order: BookOrder, sequence: int) -> None:
        self.order = order
        self.sequence = sequence
        self.rested = False


class MatchingBook:
    """Own orders of one instrument against its outside market.  Deterministic; times are only echoed."""

    def __init__(self, instrument: Instrument, *, slippage_ticks: int = 0, fill_ratio: Decimal = Decimal(1)) -> None:
        if slippage_ticks < 0:
            raise BadInput("slippage_ticks", f"{slippage_ticks} is below 0; 0 means no slippage")
        if not (fill_ratio.is_finite() and 0 < fill_ratio <= 1):
            raise BadInput("fill_ratio", f"{fill_ratio} is not above 0 and at most 1")
        self.instrument = instrument
        self._slippage = slippage_ticks * instrument.tick_size
        self._ratio = fill_ratio
        self._orders: dict[str, _Resting] = {}
        self._bid = _Touch()
        self._ask = _Touch()
        self._last: Decimal | None = None
        self._sequence = 0

    def __repr__(self) -> str:
        return (
            f"<MatchingBook {self.instrument.id} bid={self._bid.price} ask={self._ask.price} "
            f"last={self._last} orders={len(self._orders)}>"
        )

    @property
    def has_orders(self) -> bool:
        """Whether any order stands in the book."""
        return bool(self._orders)

    def orders(self) -> list[BookOrder]:
        """The orders that stand in the book, oldest first."""
        return [r.order for r in sorted(self._orders.values(), key=lambda r: (r.order.arrived, r.sequence))]

    def place(self, order: BookOrder, at: Nanos) -> list[Outcome]:
        """Take ``order`` in and match it.  Raises `BadInput`, or `Conflict` for an id that stands already."""
        self._check(order)
        if order.id in self._orders:
            raise Conflict("duplicate_order", f"order {order.id} stands in the book already")
        if not order.arrived:
            order.arrived = at
        out: list[Outcome] = []
        entry = self._enter(order)
        if order.type in _STOPS and not order.triggered:
            self._trigger(out, at)
        else:
            self._work(entry, out, at)
        return out

    def cancel(self, order_id: str, at: Nanos) -> list[Outcome]:
        """Take an order out.  Raises `UnknownThing` where it does not stand in the book (any more)."""
        self._find(order_id)
        del self._orders[order_id]
        return [Ended(order_id=order_id, state=OrderState.CANCELLED, reason="")]

    def amend(
        self,
        order_id: str,
        quantity: Decimal | None,
        limit_price: Decimal | None,
        stop_price: Decimal | None,
        at: Nanos,
        *,
        trail_price: Decimal | None = None,
        trail_percent: Decimal | None = None,
    ) -> list[Outcome]:
        """Change an order; None leaves a field.  ``quantity`` is the new total, filled part included.

        Only less quantity at the same prices keeps the time priority.  Raises `UnknownThing` or `BadInput`.
        """
        entry = self._find(order_id)
        order = entry.order
        filled = order.quantity - order.remaining
        changed = msgspec.structs.replace(order)
        if quantity is not None:
            if quantity <= filled:
                raise BadInput(
                    "quantity",
                    f"{quantity} is not above the {filled} already filled; cancel the order instead",
                )
            changed.quantity, changed.remaining = quantity, quantity - filled
        if limit_price is not None:
            if order.type not in _LIMITS:
                raise BadInput("limit_price", f"a {order.type} order has none")
            changed.limit_price = limit_price
        if stop_price is not None:
            if order.type not in _PRICED_STOPS:
                raise BadInput("stop_price", f"a {order.type} order has none")
            if order.triggered and stop_price != order.stop_price:
                raise BadInput("stop_price", "the stop has been triggered already")
            changed.stop_price = stop_price
        if trail_price is not None or trail_percent is not None:
            if order.triggered:
                raise BadInput("trail_price", "the stop has been triggered already")
            changed.trail_price, changed.trail_percent = trail_price, trail_percent
        self._check(changed)
        moved = any(getattr(changed, field) != getattr(order, field) for field in _PRICES)
        grown = changed.quantity > order.quantity
        order.quantity, order.remaining = changed.quantity, changed.remaining
        for field in _PRICES:
            setattr(order, field, getattr(changed, field))
        if moved or grown:
            order.arrived = at
            entry = self._enter(order)
        out: list[Outcome] = []
        if order.type in _STOPS and not order.triggered:
            self._trigger(out, at)
        else:
            self._work(entry, out, at)
        return out

    def on_quote(self, bid: Decimal, bid_size: Decimal, ask: Decimal, ask_size: Decimal, at: Nanos) -> list[Outcome]:
        """The outside best bid and offer are now these; NaN, or a price or size of 0, means no such side."""
        self._renew(self._bid, bid, bid_size)
        self._renew(self._ask, ask, ask_size)
        out: list[Outcome] = []
        if self._orders:
            for entry in self._queue():
                self._work(entry, out, at)
            if self._last is None:
                self._trigger(out, at)
        return out

    def on_trade(self, price: Decimal, size: Decimal, buyer_maker: bool, at: Nanos) -> list[Outcome]:
        """``size`` was traded outside at ``price``; with ``buyer_maker`` the seller was the aggressor.

        Where a feed does not tell the aggressor, orders at the very price may stay unfilled; orders that the
        print went through fill whoever it was.
        """
        if not price.is_finite() or price <= 0:
            raise BadInput("price", f"a print at {price} is not a price")
        out: list[Outcome] = []
        self._last = price
        if self._orders:
            left = self._ours(size)
            for entry in self._queue():
                if left <= 0:
                    break
                left -= self._meet_print(entry, price, left, buyer_maker, out, at)
            self._trigger(out, at)
        return out

    def expire_day(self, at: Nanos) -> list[Outcome]:
        """The session has ended: everything that is not good till cancelled leaves."""
        gone = [o.id for o in self.orders() if o.time_in_force is not TimeInForce.GTC]
        for order_id in gone:
            del self._orders[order_id]
        return [Ended(order_id=order_id, state=OrderState.EXPIRED, reason="the session has ended") for order_id in gone]

    def _enter(self, order: BookOrder) -> _Resting:
        self._sequence += 1
        entry = self._orders[order.id] = _Resting(order, self._sequence)
        return entry

    def _find(self, order_id: str) -> _Resting:
        entry = self._orders.get(order_id)
        if entry is None:
            raise UnknownThing("order", order_id, "it does not stand in the book of " + self.instrument.id)
        return entry

    def _check(self, order: BookOrder) -> None:
        self.instrument.check_quantity(order.quantity)
        if not (order.remaining.is_finite() and 0 < order.remaining <= order.quantity):
            raise BadInput("remaining", f"{order.remaining} is not above 0 and at most {order.quantity}")
        for field, price, needed in (
            ("limit_price", order.limit_price, order.type in _LIMITS),
            ("stop_price", order.stop_price, order.type in _PRICED_STOPS),
        ):
            if needed and price is None:
                raise BadInput(field, f"a {order.type} order needs one")
            if price is not None:
                if not needed:
                    raise BadInput(field, f"a {order.type} order has none")
                self.instrument.check_price(price, field)
        check_trail(order.type, order.trail_price, order.trail_percent, self.instrument)
        if order.time_in_force in _AUCTION:
            raise BadInput("time_in_force", f"{order.time_in_force}: this book has no auctions; use day or gtc")

    def _ours(self, size: Decimal) -> Decimal:
        if not size.is_finite() or size <= 0:
            return ZERO
        lot = self.instrument.lot_size
        return size * self._ratio // lot * lot

    def _renew(self, touch: _Touch, price: Decimal, size: Decimal) -> None:
        if not (price.is_finite() and size.is_finite()) or price <= 0 or size <= 0:
            touch.price, touch.size, touch.left = None, ZERO, ZERO
        elif price != touch.price or size != touch.size:
            touch.price, touch.size, touch.left = price, size, self._ours(size)

    def _queue(self) -> list[_Resting]:
        """Working orders, each side in its priority: market orders, then the best price, then time."""
        working = [r for r in self._orders.values() if r.order.type not in _STOPS or r.order.triggered]
        if len(working) < 2:
            return working

        def rank(r: _Resting) -> tuple[bool, Decimal, int, int]:
            limit = r.order.limit_price
            aggression = ZERO if limit is None else -limit * r.order.side.sign
            return (limit is not None, aggression, r.order.arrived, r.sequence)

        return sorted(working, key=rank)

    def _work(self, entry: _Resting, out: list[Outcome], at: Nanos) -> None:
        """Match a working order against the quote as it stands."""
        order = entry.order
        touch = self._ask if order.side is Side.BUY else self._bid
        limit = order.limit_price
        crosses = touch.price is not None and (limit is None or (touch.price - limit) * order.side.sign <= 0)
        takes = min(order.remaining, touch.left) if crosses else ZERO
        if order.time_in_force is TimeInForce.FOK and takes < order.remaining:
            takes = ZERO
        if takes > 0 and touch.price is not None:
            touch.left -= takes
            if limit is None:
                slipped = touch.price + self._slippage * order.side.sign
                self._fill(entry, takes, max(slipped, self.instrument.tick_size), False, out, at)
            elif entry.rested:
                self._fill(entry, takes, limit, True, out, at)
            else:
                self._fill(entry, takes, touch.price, False, out, at)
        if order.remaining > 0 and order.time_in_force in _AT_ONCE:
            del self._orders[order.id]
            whole = "the whole" if order.time_in_force is TimeInForce.FOK else "the rest of the"
            seen = "no quote on the other side" if touch.price is None else f"the quote is {touch.price}"
            out.append(
                Ended(
                    order_id=order.id,
                    state=OrderState.EXPIRED,
                    reason=f"{order.time_in_force}: {whole} quantity could not fill at once; {seen}",
                )
            )
        elif not crosses:
            entry.rested = True

    def _meet_print(
        self,
        entry: _Resting,
        price: Decimal,
        left: Decimal,
        buyer_maker: bool,
        out: list[Outcome],
        at: Nanos,
    ) -> Decimal:
        """Fill a resting limit from a print; returns what it took."""
        order = entry.order
        # One that crosses the quote without having rested takes from the quote alone: the prints that follow
        # are others taking what it has taken.
        if order.limit_price is None or not entry.rested:
            return ZERO
        beyond = (order.limit_price - price) * order.side.sign
        hit_from_other_side = buyer_maker is (order.side is Side.BUY)
        if beyond < 0 or (beyond == 0 and not hit_from_other_side):
            return ZERO
        if not hit_from_other_side:
            touch = self._ask if order.side is Side.BUY else self._bid
            if touch.price is not None and (touch.price - order.limit_price) * order.side.sign <= 0:
                return ZERO
        takes = min(order.remaining, left)
        self._fill(entry, takes, order.limit_price, True, out, at)
        return takes

    def _trigger(self, out: list[Outcome], at: Nanos) -> None:
        set_off = []
        for entry in self._orders.values():
            order = entry.order
            if order.type not in _STOPS or order.triggered:
                continue
            seen = self._last
            if seen is None:
                seen = self._ask.price if order.side is Side.BUY else self._bid.price
            if seen is None:
                continue
            if order.type is OrderType.TRAILING_STOP:
                known = order.high_water
                if known is None or (seen - known) * order.side.sign < 0:
                    order.high_water = seen
                    out.append(Trailed(order_id=order.id, high_water=seen))
            stop = stop_of(order, self.instrument)
            if stop is not None and (seen - stop) * order.side.sign >= 0:
                set_off.append(entry)
        # A stop nearer the market went off first; each takes its turn at the quote in that order.
        set_off.sort(
            key=lambda r: (
                (stop_of(r.order, self.instrument) or ZERO) * r.order.side.sign,
                r.order.arrived,
                r.sequence,
            )
        )
        for entry in set_off:
            entry.order.triggered = True
            out.append(Triggered(order_id=entry.order.id))
            self._work(entry, out, at)

    def _fill(
        self,
        entry: _Resting,
        quantity: Decimal,
        price: Decimal,
        maker: bool,
        out: list[Outcome],
        at: Nanos,
    ) -> None:
        order = entry.order
        order.remaining -= quantity
        if order.remaining <= 0:
            del self._orders[order.id]
        out.append(Execution(order_id=order.id, quantity=quantity, price=price, maker=maker, at=at))

"""Money at risk: what would be lost if every protective stop were hit; all of it where there is none.

An open stop, stop-limit or trailing stop of the other side protects what is held, and what open entries would add,
up to its own quantity; the nearest stops count first.  A stop-limit counts as if it filled at its stop, a trailing
stop at its full distance from the last price (its true distance is never larger).  Open entries count as if filled;
an order that takes profit is no entry.  Long and short are judged apart; the worse of them is the money at risk.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from trading.orders import ZERO, Order, OrderType, PlaceOrder, Side

#: ``(side, open quantity, type, stop price, trail price, trail percent)``
Working = tuple[Side, Decimal, OrderType, Decimal | None, Decimal | None, Decimal | None]


def working(order: Order | PlaceOrder, quantity: Decimal) -> Working:
    """What counts of an order, ``quantity`` of it still open."""
    return order.side, quantity, order.type, order.stop_price, order.trail_price, order.trail_percent


#: Types that protect; all others count as entries.
STOPS: Final = frozenset({OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP})


def money_at_risk(
    held: Decimal,
    price: Decimal,
    multiplier: Decimal,
    orders: Iterable[Working],
    buys: Decimal = ZERO,
    sells: Decimal = ZERO,
) -> Decimal:
    """Of one algo in one instrument, that holds ``held`` (signed) at the last ``price``.

    ``buys`` and ``sells`` are open quantities of orders without a stop, besides ``orders``.
    """
    entries = {Side.BUY: buys, Side.SELL: sells}
    #: Distance from the price and quantity of stops.
    stops: dict[Side, list[tuple[Decimal, Decimal]]] = {Side.BUY: [], Side.SELL: []}
    for side, quantity, type_, stop, trail, percent in orders:
        distance = _distance(side, type_, price, stop, trail, percent)
        if distance is None:
            entries[side] += quantity
        else:
            stops[side].append((distance, quantity))
    long = max(held, ZERO) + max(entries[Side.BUY] - max(-held, ZERO), ZERO)
    short = max(-held, ZERO) + max(entries[Side.SELL] - max(held, ZERO), ZERO)
    # What stops do not protect, they open.
    more_short = max(sum((q for _, q in stops[Side.SELL]), ZERO) - long, ZERO)
    more_long = max(sum((q for _, q in stops[Side.BUY]), ZERO) - short, ZERO)
    lost_long = _loss(long, price, stops[Side.SELL]) + more_long * price
    lost_short = _loss(short, price, stops[Side.BUY]) + more_short * price
    return max(lost_long, lost_short) * multiplier


def _distance(
    side: Side,
    type_: OrderType,
    price: Decimal,
    stop: Decimal | None,
    trail: Decimal | None,
    percent: Decimal | None,
) -> Decimal | None:
    """How far the price must go against the holder until this stop is hit; None if the order is no stop."""
    if type_ is OrderType.TRAILING_STOP:
        return trail if trail is not None else price * (percent or ZERO) / 100
    if type_ in STOPS:
        assert stop is not None, "a stop order has its price"
        return max(price - stop if side is Side.SELL else stop - price, ZERO)
    return None


def _loss(quantity: Decimal, price: Decimal, stops: list[tuple[Decimal, Decimal]]) -> Decimal:
    lost = ZERO
    for distance, protected in sorted(stops):
        if not quantity:
            break
        covered = min(quantity, protected)
        lost += covered * distance
        quantity -= covered
    return lost + quantity * price

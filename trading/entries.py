"""Which open orders could make a position larger.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from trading.ids import InstrumentId
from trading.orders import ZERO, Order, Side


def entries(orders: Iterable[Order], positions: Mapping[InstrumentId, Decimal]) -> list[Order]:
    """Those of an account's open orders that could, judged as the session judges exits.

    Orders that reduce come first come first served: as many as what is held takes, the oldest first, are exits, and so
    are those that are reduce-only.  ``positions``: what the account holds, signed; all of its open orders are needed,
    whoever asked for them.
    """
    left: dict[tuple[InstrumentId, Side], Decimal] = {}
    found = []
    for order in sorted(orders, key=lambda each: (not each.reduce_only, each.created_at)):
        held = positions.get(order.instrument, ZERO)
        key = (order.instrument, order.side)
        if key not in left:
            reduces = held != 0 and (held > 0) != (order.side is Side.BUY)
            left[key] = abs(held) if reduces else ZERO
        if order.reduce_only or order.open_quantity <= left[key]:
            left[key] = max(left[key] - order.open_quantity, ZERO)
        else:
            found.append(order)
    return sorted(found, key=lambda each: each.created_at)

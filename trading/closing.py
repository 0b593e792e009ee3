"""In whose names a position is closed: one part for each algo that holds of it, and one for what no algo holds.

What an algo holds stays in its own books until an order of its own closes it: closed in nobody's name, it would be
closed by the algo once more.  Where algos hold against each other no more is closed than the account holds, and they
keep what evens out.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Final

from trading.account_book import AccountBook
from trading.errors import BadInput
from trading.ids import AlgoId, InstrumentId
from trading.instruments import Instrument
from trading.orders import ZERO, Order, OrderType, PlaceOrder

#: What the keys of closing orders begin with: of a kill, or of flattening by hand.
PREFIXES: Final = ("kill-", "flat-")

#: Who closes how much; None: nobody in particular.
Part = tuple[AlgoId | None, Decimal]


def closes(order: Order | PlaceOrder) -> bool:
    """Whether a kill, or a hand, closes a position with an order: whoever stops trading does not take it back.

    Nor does the algo in whose name it closes, whatever it does with orders of its own.
    """
    return order.client_order_id.startswith(PREFIXES) and order.reduce_only and order.type is OrderType.MARKET


def parts_of(book: AccountBook, instrument: InstrumentId, fits: Callable[[Decimal], bool]) -> list[Part]:
    """Quantities, above 0, that together close what the account holds of ``instrument``; [] where it holds nothing.

    ``fits`` tells whether the venue takes an order of a quantity.  Parts that it would not take are put together, in
    the name of the largest among them, and where that does not do, with parts that it would: so nothing that could be
    closed whole is left for being small.
    """
    whole = book.positions.get(instrument)
    if whole is None or not whole.quantity:
        return []
    parts: list[Part] = []
    left = abs(whole.quantity)
    for (algo, of), own in sorted(book.algo_positions.items()):
        if of == instrument and own.quantity * whole.quantity > 0 and left:
            part = min(abs(own.quantity), left)
            parts.append((algo, part))
            left -= part
    if left:
        parts.append((None, left))
    small = [part for part in parts if not fits(part[1])]
    taken = [part for part in parts if fits(part[1])]
    while small and taken and not fits(_sum(small)):
        least = min(taken, key=_quantity)
        taken.remove(least)
        small.append(least)
    return [*taken, in_one(small)] if small else taken


def in_one(parts: list[Part]) -> Part:
    """All of them in the name of the largest."""
    return max(parts, key=_quantity)[0], _sum(parts)


def takes(instrument: Instrument, quantity: Decimal, price: Decimal) -> bool:
    """Whether an order of ``quantity`` keeps the venue's rules at ``price`` (0: none is known)."""
    try:
        instrument.check_quantity(quantity)
    except BadInput:
        return False
    return instrument.notional(quantity, price) >= instrument.min_notional


def _quantity(part: Part) -> Decimal:
    return part[1]


def _sum(parts: list[Part]) -> Decimal:
    return sum((quantity for _, quantity in parts), ZERO)

"""In whose names a position is closed: one part for each algo that holds of it, and one for what no algo holds.

What an algo holds stays in its own books until an order of its own closes it: closed in nobody's name, it would be
closed by the algo once more.  Where algos hold against each other no more is closed than the account holds, and they
keep what evens out.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

import msgspec

from trading.account_book import AccountBook
from trading.ids import AlgoId, InstrumentId
from trading.instruments import Instrument
from trading.orders import ZERO, Order, OrderType

#: What the keys of closing orders begin with: of a kill, or of flattening by hand.
PREFIXES: Final = ("kill-", "flat-")
_KEY: Final = re.compile(r"(?:kill|flat)-[^-]+-.+\.[0-9a-z]{6}(?:\.\d+)?")

#: Who closes how much; None: nobody in particular.
Part = tuple[AlgoId | None, Decimal]


class Rules(msgspec.Struct, frozen=True):
    """What a venue takes of an instrument (None: anything) at a price (0: none is known)."""

    instrument: Instrument | None = None
    price: Decimal = ZERO

    def fits(self, quantity: Decimal) -> bool:
        """Whether one order of ``quantity`` keeps them."""
        if self.instrument is None:
            return True
        worth = self.instrument.notional(quantity, self.price)
        return self.most(quantity) == quantity and worth >= self.instrument.min_notional

    def most(self, quantity: Decimal) -> Decimal:
        """As much of ``quantity`` as is whole lots, and enough of them; 0 where none is.

        What it is worth may be too little: not known for sure, and some venues take that of an order that only reduces.
        """
        if self.instrument is None:
            return quantity
        most = self.instrument.round_quantity(quantity)
        return most if most >= max(self.instrument.min_quantity, self.instrument.lot_size) else ZERO


def is_closing_key(key: str) -> bool:
    """Whether a kill or a flattening made a key: an algo that only has such a name makes no such keys."""
    return _KEY.fullmatch(key) is not None


def closes(order: Order) -> bool:
    """Whether a kill, or a hand, closes a position with an order: whoever stops trading does not take it back."""
    return order.reduce_only and order.type is OrderType.MARKET and is_closing_key(order.client_order_id)


def standing_exits(book: AccountBook, instrument: InstrumentId) -> dict[AlgoId | None, Decimal]:
    """How much of what the account holds open orders would close already, by whose they are."""
    whole = book.positions.get(instrument)
    exits: dict[AlgoId | None, Decimal] = {}
    for key, order in book.open.items():
        if order.instrument == instrument and whole is not None and order.side.sign * whole.quantity < 0:
            exits[order.algo] = exits.get(order.algo, ZERO) + book.counted.get(key, order.open_quantity)
    return exits


def parts_of(book: AccountBook, instrument: InstrumentId, rules: Rules) -> list[Part]:
    """Quantities, above 0, that together close what the account holds of ``instrument``, apart from what orders that
    are open already would close; [] where there is nothing that could be closed.

    Parts that the venue would not take are put together, in the name of the largest among them, and where that does
    not do, with parts that it would: so nothing that could be closed whole is left for being small.  What does not fit
    at all (less than a lot) is left, and keeps nothing else from being closed.
    """
    whole = book.positions.get(instrument)
    if whole is None or not whole.quantity:
        return []
    exits = standing_exits(book, instrument)
    parts: list[Part] = []
    left = abs(whole.quantity) - sum(exits.values(), ZERO)
    for (algo, of), own in sorted(book.algo_positions.items()):
        part = min(abs(own.quantity) - exits.get(algo, ZERO), left)
        if of == instrument and own.quantity * whole.quantity > 0 and part > 0:
            parts.append((algo, part))
            left -= part
    if left > 0:
        parts.append((None, left))
    return _that_fit(parts, rules)


def _that_fit(parts: list[Part], rules: Rules) -> list[Part]:
    fitting = [part for part in parts if rules.fits(part[1])]
    rest = [part for part in parts if not rules.fits(part[1])]
    taken, small = [*fitting], [*rest]
    while small and taken and not rules.fits(_sum(small)):
        least = min(taken, key=_quantity)
        taken.remove(least)
        small.append(least)
    if not small or rules.fits(_sum(small)):
        return [*taken, in_one(small)] if small else taken
    # Not even the whole fits: each that does by itself, and as much of the others as does.
    most = rules.most(_sum(rest))
    return [*fitting, (in_one(rest)[0], most)] if most > 0 else fitting


def in_one(parts: list[Part]) -> Part:
    """All of them in the name of the largest."""
    return max(parts, key=_quantity)[0], _sum(parts)


def _quantity(part: Part) -> Decimal:
    return part[1]


def _sum(parts: list[Part]) -> Decimal:
    return sum((quantity for _, quantity in parts), ZERO)

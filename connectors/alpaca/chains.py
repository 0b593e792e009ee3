"""Which of Alpaca's orders are one order of ours.

A replacement is a new order at Alpaca: ``replaces`` names the one before, ``replaced_by`` the one after.  To the
rest of the system the chain is one order, named by its first id, the *root*, and standing as its *head*: the member
that works, which is the last one that has truly replaced the one before it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from connectors.alpaca.wire import ENDED, OrderRow, tag_of
from trading.ids import BrokerOrderId

#: Orders remembered; the oldest are let go, as lists show them again where they matter.
REMEMBERED: Final = 20_000


class Chains:
    """The links and last rows of orders, learned from everything that shows an order.  Forgets the oldest."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, OrderRow] = OrderedDict()
        self._replaces: dict[str, str] = {}
        self._replaced_by: dict[str, str] = {}
        #: Replacements whose new numbers have been told.
        self._announced: set[str] = set()
        #: Forgotten orders that a remembered one replaces.
        self._let_go: set[str] = set()

    def __repr__(self) -> str:
        return f"<Chains orders={len(self._rows)} links={len(self._replaces)}>"

    def learn(self, row: OrderRow) -> None:
        """Take in an order as seen somewhere; one that is older than what is known adds only its links."""
        known = self._rows.get(row.id)
        if known is None or _is_newer(row, known):
            self._rows[row.id] = row
            self._rows.move_to_end(row.id)
        if row.replaces:
            self._link(row.replaces, row.id, row.status == "rejected")
        if row.replaced_by:
            self._link(row.id, row.replaced_by, False)
        while len(self._rows) > REMEMBERED:
            self._forget(next(iter(self._rows)))

    def root_of(self, order_id: str) -> BrokerOrderId:
        """The first order of the chain, as far as it is known."""
        seen = {order_id}
        while (before := self._replaces.get(order_id)) is not None and before not in seen:
            order_id = before
            seen.add(order_id)
        return BrokerOrderId(order_id)

    def head_of(self, order_id: str) -> str:
        """The order of the chain that works now (or has ended), as far as it is known."""
        current = str(self.root_of(order_id))
        seen = {current}
        while True:
            row = self._rows.get(current)
            after = (row.replaced_by if row is not None else None) or self._replaced_by.get(current)
            if after is None or after in seen or not (row is None or row.status == "replaced"):
                return current
            current = after
            seen.add(current)

    def tag_of(self, order_id: str) -> str:
        """The tag of the order that a chain is; "" where none of its known members has one."""
        current: str | None = self.root_of(order_id)
        seen: set[str] = set()
        while current is not None and current not in seen:
            seen.add(current)
            row = self._rows.get(current)
            if row is not None and (tag := tag_of(row.client_order_id)):
                return tag
            current = self._replaced_by.get(current)
        row = self._rows.get(order_id)
        return "" if row is None else tag_of(row.client_order_id)

    def row(self, order_id: str) -> OrderRow | None:
        """An order as last seen."""
        return self._rows.get(order_id)

    def successor(self, order_id: str) -> str | None:
        """The order that replaces this one, or is to replace it."""
        return self._replaced_by.get(order_id)

    def is_replacement(self, order_id: str) -> bool:
        """Whether it stands in for another one."""
        return order_id in self._replaces

    def was_replaced(self, order_id: str) -> bool:
        """Whether another one stands in for it by now."""
        row = self._rows.get(order_id)
        return row is not None and row.status == "replaced"

    def announce(self, order_id: str) -> bool:
        """True the first time for a replacement: its new numbers are to be told once."""
        if order_id in self._announced:
            return False
        self._announced.add(order_id)
        return True

    def missing(self) -> list[str]:
        """Orders that chains lead to and that have not been seen: ask for them by id."""
        ends = {*self._replaces.values(), *self._replaced_by.values()}
        return sorted(end for end in ends if end not in self._rows and end not in self._let_go)

    def _link(self, before: str, after: str, rejected: bool) -> None:
        self._replaces[after] = before
        if not rejected:
            self._replaced_by[before] = after
        elif self._replaced_by.get(before) == after:
            del self._replaced_by[before]

    def _forget(self, order_id: str) -> None:
        del self._rows[order_id]
        self._announced.discard(order_id)
        before = self._replaces.pop(order_id, None)
        if before is not None and before not in self._rows:
            self._replaced_by.pop(before, None)
            self._let_go.discard(before)
        after = self._replaced_by.get(order_id)
        if after is not None and after in self._rows:
            # It still names its chain; it need not be asked for again.
            self._let_go.add(order_id)
        elif after is not None:
            del self._replaced_by[order_id]
            self._replaces.pop(after, None)


def _is_newer(row: OrderRow, known: OrderRow) -> bool:
    if row.changed_at != known.changed_at:
        return row.changed_at > known.changed_at
    # At one instant an end, and what has filled, come after what has not.
    return (row.status in ENDED, row.filled_qty or 0) >= (known.status in ENDED, known.filled_qty or 0)

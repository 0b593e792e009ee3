"""How much of every shared limit is in use, kept up to date order by order.

The use of an instrument counts the worst case: the position plus everything that open orders may still add
on one side.  A buy and a sell that are both open do not cancel out.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from trading.ids import AccountId, InstrumentId
from trading.limits import CLUSTER, GROSS_EXPOSURE, POSITION, account_scope, resource
from trading.orders import ZERO, Side


class Line(msgspec.Struct):
    """One instrument in one account."""

    multiplier: Decimal
    position: Decimal = ZERO
    open_buys: Decimal = ZERO
    open_sells: Decimal = ZERO
    #: Largest absolute quantity that may come to be held.
    worst: Decimal = ZERO
    #: ``worst`` in money at ``mark``.
    value: Decimal = ZERO
    mark: Decimal = ZERO

    def worst_with(self, side: Side, quantity: Decimal) -> Decimal:
        """``worst`` if one more order of this size were open."""
        buys, sells = self.open_buys, self.open_sells
        if side is Side.BUY:
            buys += quantity
        else:
            sells += quantity
        return max(abs(self.position + buys), abs(self.position - sells), abs(self.position))

    def reduces(self, side: Side, quantity: Decimal) -> bool:
        """Whether an order, after all open ones of its side, could only make the position smaller."""
        if self.position == 0 or (self.position > 0) == (side is Side.BUY):
            return False
        resting = self.open_buys if side is Side.BUY else self.open_sells
        return resting + quantity <= abs(self.position)


class ExposureBook:
    """Use of every resource by the accounts of one session."""

    def __init__(self) -> None:
        self._lines: dict[tuple[AccountId, InstrumentId], Line] = {}
        self._by_instrument: dict[InstrumentId, list[tuple[AccountId, Line]]] = {}
        #: resource -> amount in use.
        self.used: dict[str, Decimal] = {}
        self.marks: dict[InstrumentId, Decimal] = {}

    def line(self, account: AccountId, instrument: InstrumentId, multiplier: Decimal) -> Line:
        """The line of an instrument, made when first asked for."""
        line = self._lines.get((account, instrument))
        if line is None:
            line = Line(multiplier=multiplier, mark=self.marks.get(instrument, ZERO))
            self._lines[(account, instrument)] = line
            self._by_instrument.setdefault(instrument, []).append((account, line))
        return line

    def lines(self) -> dict[tuple[AccountId, InstrumentId], Line]:
        """All lines (do not change them)."""
        return self._lines

    def set_position(self, account: AccountId, instrument: InstrumentId, line: Line, quantity: Decimal) -> None:
        """Say what is held now."""
        line.position = quantity
        self._settle(account, instrument, line)

    def add_open(self, account: AccountId, instrument: InstrumentId, line: Line, side: Side, change: Decimal) -> None:
        """Say that open orders of one side grew or shrank by ``change``."""
        if side is Side.BUY:
            line.open_buys += change
        else:
            line.open_sells += change
        self._settle(account, instrument, line)

    def set_mark(self, instrument: InstrumentId, price: Decimal) -> None:
        """Value everything held of an instrument at ``price`` from now on."""
        if self.marks.get(instrument) == price:
            return
        self.marks[instrument] = price
        for account, line in self._by_instrument.get(instrument, ()):
            line.mark = price
            self._settle(account, instrument, line)

    def needs(
        self,
        account: AccountId,
        instrument: InstrumentId,
        line: Line,
        side: Side,
        quantity: Decimal,
        price: Decimal,
    ) -> tuple[Decimal, Decimal]:
        """``(quantity, money)`` by which an order would raise the worst case; zero for one that reduces."""
        worst = line.worst_with(side, quantity)
        more = worst - line.worst
        if more <= 0:
            return ZERO, ZERO
        return more, worst * (line.mark or price) * line.multiplier - line.value

    def _settle(self, account: AccountId, instrument: InstrumentId, line: Line) -> None:
        worst = max(abs(line.position + line.open_buys), abs(line.position - line.open_sells), abs(line.position))
        value = worst * line.mark * line.multiplier
        if worst != line.worst:
            self._add(resource(CLUSTER, POSITION, instrument), worst - line.worst)
            self._add(resource(account_scope(account), POSITION, instrument), worst - line.worst)
            line.worst = worst
        if value != line.value:
            self._add(resource(CLUSTER, GROSS_EXPOSURE, ""), value - line.value)
            self._add(resource(account_scope(account), GROSS_EXPOSURE, ""), value - line.value)
            line.value = value

    def _add(self, name: str, change: Decimal) -> None:
        self.used[name] = self.used.get(name, ZERO) + change

"""Positions: signed quantity, average cost, realised and unrealised profit, all in Decimal.

Average-cost accounting: fills that enlarge a position move its average; fills that shrink it realise profit
against that average; a fill through zero closes the old side and opens the rest at its own price.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from trading.ids import AccountId, AlgoId, InstrumentId, Nanos
from trading.orders import ZERO, Fill, Side


class Position(msgspec.Struct, kw_only=True):
    """Net holding of one instrument in one account, or (``algo`` set) of what one algo traded of it there."""

    account: AccountId
    instrument: InstrumentId
    #: Value of one unit of quantity at price 1.
    multiplier: Decimal = Decimal(1)
    #: Signed: above 0 long, below 0 short.
    quantity: Decimal = ZERO
    #: Average price of the open quantity; 0 when flat.
    average_cost: Decimal = ZERO
    #: Profit taken, before fees.
    realised: Decimal = ZERO
    fees: Decimal = ZERO
    #: Sum of the quantities bought and sold, for turnover.
    traded: Decimal = ZERO
    updated_at: Nanos = Nanos(0)
    algo: AlgoId | None = None

    @property
    def profit(self) -> Decimal:
        """Profit taken, after fees."""
        return self.realised - self.fees

    def apply(self, side: Side, fill: Fill) -> None:
        """Account for one execution."""
        change = fill.quantity if side is Side.BUY else -fill.quantity
        before = self.quantity
        after = before + change
        if before == 0 or (before > 0) == (change > 0):
            self.average_cost = (self.average_cost * abs(before) + fill.price * fill.quantity) / abs(after)
        else:
            closed = min(abs(before), fill.quantity)
            profit = (fill.price - self.average_cost) * closed * self.multiplier
            self.realised += profit if before > 0 else -profit
            if after == 0:
                self.average_cost = ZERO
            elif (after > 0) != (before > 0):
                self.average_cost = fill.price
        self.quantity = after
        self.fees += fill.fee
        self.traded += fill.quantity
        self.updated_at = max(self.updated_at, fill.at)

    def unrealised(self, mark: Decimal) -> Decimal:
        """Profit that closing at ``mark`` would take, before fees."""
        return (mark - self.average_cost) * self.quantity * self.multiplier

    def exposure(self, mark: Decimal) -> Decimal:
        """Signed notional at ``mark``."""
        return self.quantity * mark * self.multiplier

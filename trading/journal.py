"""What one decision, or a group of them, adds to the journal in one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum

import msgspec

from trading.ids import AccountId, ClientOrderId, ExecutionId, InstrumentId, Nanos
from trading.orders import EventKind, Fill, Order, OrderEvent, Side
from trading.positions import Position


class BreakKind(StrEnum):
    """What differs.  All but `CASH` concern an instrument and make it reduce-only."""

    POSITION = "position"
    #: An order filled beyond its quantity.
    OVERFILL = "overfill"
    #: An order that works here is not in the broker's book.
    ORDER_MISSING = "order_missing"
    #: The broker says more of an order has filled than its trade book shows.
    MISSING_EXECUTION = "missing_execution"
    #: The account's cash; it has no instrument.
    CASH = "cash"


class Settlement(StrEnum):
    """How a break was resolved."""

    #: Both sides came to say the same by themselves.
    AGREED = "agreed"
    #: Somebody took the broker's side for ours.
    ACCEPTED = "accepted"
    #: Somebody knows why: the difference is tolerated while it stays as it is.
    EXPLAINED = "explained"


#: What a break is about: there is at most one open break of each.
BreakKey = tuple[InstrumentId, BreakKind, ClientOrderId | None]


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """A difference between our book and the broker's.  ``resolved_at`` 0 while it is open."""

    id: str
    account: AccountId
    #: "" where the break is of the whole account.
    instrument: InstrumentId
    kind: BreakKind
    ours: str
    theirs: str
    opened_at: Nanos
    resolved_at: Nanos = Nanos(0)
    resolution: str = ""
    #: The order that it is about, where it is about one.
    client_order_id: ClientOrderId | None = None
    settlement: Settlement | None = None
    #: Who resolved it; "" while it is open or where it resolved itself.
    resolved_by: str = ""
    #: It was explained, and the difference is still there.
    tolerated: bool = False

    @property
    def key(self) -> BreakKey:
        """What it is about."""
        return self.instrument, self.kind, self.client_order_id

    @property
    def difference(self) -> Decimal | None:
        """Theirs less ours; None where the sides are not quantities."""
        if self.kind is BreakKind.ORDER_MISSING:
            return None
        return Decimal(self.theirs) - Decimal(self.ours)


class CashBook(msgspec.Struct, kw_only=True):
    """Cash of an account by our own reckoning: what the broker once said, and every execution since."""

    account: AccountId
    currency: str
    amount: Decimal
    #: When the broker's figure was last taken for ours.
    based_at: Nanos
    #: Why it cannot be reckoned on from there; "" where it can.
    off: str = ""

    def take(self, side: Side, fill: Fill, multiplier: Decimal, currency: str) -> None:
        """Account for one execution of an instrument that is priced in ``currency`` ("" unknown)."""
        self.amount += cash_effect(side, fill, multiplier)
        if currency and currency != self.currency:
            self.off = f"executions are paid in {currency}, the account is kept in {self.currency}"
        elif fill.fee and fill.fee_currency not in ("", self.currency):
            self.off = f"fees are paid in {fill.fee_currency}, the account is kept in {self.currency}"


def cash_effect(side: Side, fill: Fill, multiplier: Decimal) -> Decimal:
    """What an execution adds to cash on its trade date, its fee included."""
    return -side.sign * fill.quantity * fill.price * multiplier - fill.fee


class JournalBatch(msgspec.Struct):
    """Rows of one transaction, in the order in which they are written."""

    #: New orders; their keys must be new in the account.
    orders: list[Order] = msgspec.field(default_factory=list)
    #: Present state of older orders that changed.
    heads: list[Order] = msgspec.field(default_factory=list)
    events: list[OrderEvent] = msgspec.field(default_factory=list)
    #: Of accounts, and of algos in them.
    positions: list[Position] = msgspec.field(default_factory=list)
    breaks: list[Break] = msgspec.field(default_factory=list)
    #: Cash as of the end of this batch, where the broker's figure was taken for ours.
    cash: list[CashBook] = msgspec.field(default_factory=list)


class AccountHistory(msgspec.Struct):
    """What a session needs to take up an account again."""

    account: AccountId
    loaded_at: Nanos
    #: Open orders of any age and all orders changed since the moment asked for.
    orders: list[Order]
    positions: list[Position]
    #: Executions known to the journal among the broker's recent ones.
    executions: set[ExecutionId]
    #: Breaks still open.
    breaks: list[Break]
    #: How far back ended orders and executions are complete; 0: not said.
    since: Nanos = Nanos(0)
    #: Larger quantities that the broker was asked for and whose outcome the journal does not have.
    rising: dict[ClientOrderId, Decimal] = msgspec.field(default_factory=dict)
    #: Breaks that were explained and whose difference was still there.
    tolerated: list[Break] = msgspec.field(default_factory=list)
    #: Cash with all journaled executions; None before the first report.
    cash: CashBook | None = None
    #: Orders of which executions were accepted that the trade book did not show.
    adjusted: set[ClientOrderId] = msgspec.field(default_factory=set)
    #: What algos hold and have taken in the account.
    algo_positions: list[Position] = msgspec.field(default_factory=list)


def rising_of(orders: Iterable[Order], events: Iterable[OrderEvent]) -> dict[ClientOrderId, Decimal]:
    """`AccountHistory.rising` of one account, from its open orders and their events, oldest first."""
    asked: dict[ClientOrderId, Decimal] = {}
    for event in events:
        if event.kind is EventKind.MODIFY_REQUESTED and event.quantity is not None:
            asked[event.client_order_id] = event.quantity
        elif event.kind is EventKind.MODIFY_REJECTED:
            asked.pop(event.client_order_id, None)
    rising = {}
    for order in orders:
        wanted = asked.get(order.client_order_id)
        if wanted is not None and wanted > order.quantity and not order.state.is_final:
            rising[order.client_order_id] = wanted
    return rising

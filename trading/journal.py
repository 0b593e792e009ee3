"""What one decision, or a group of them, adds to the journal in one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from trading.ids import AccountId, ClientOrderId, ExecutionId, InstrumentId, Nanos
from trading.orders import EventKind, Order, OrderEvent
from trading.positions import Position


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """A difference between our book and the broker's.  ``resolved_at`` 0 while it is open."""

    id: str
    account: AccountId
    instrument: InstrumentId
    kind: str
    ours: str
    theirs: str
    opened_at: Nanos
    resolved_at: Nanos = Nanos(0)
    resolution: str = ""


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

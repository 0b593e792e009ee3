"""What one decision, or a group of them, adds to the journal in one transaction."""

from __future__ import annotations

import msgspec

from trading.ids import AccountId, ExecutionId, InstrumentId, Nanos
from trading.orders import Order, OrderEvent
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

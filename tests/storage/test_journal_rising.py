from __future__ import annotations

from decimal import Decimal

from storage.database import Database
from storage.journal import Journal
from storage.leases import Leases
from tests.storage.samples import ACCOUNT, event, order
from trading.ids import Nanos
from trading.journal import JournalBatch
from trading.orders import EventKind, OrderState

OWNER = "session/u1"


async def test_larger_sizes_without_an_outcome_are_loaded_and_settled_ones_are_not(db: Database) -> None:
    assert await Leases(db).take(OWNER, "test", 10) == 1
    journal = Journal(db)
    orders = [order(key, state=OrderState.SUBMITTED) for key in ("asked", "refused", "done", "smaller")]
    asked, refused, done, smaller = orders
    done.quantity = Decimal(3)
    events = [
        event(asked, EventKind.MODIFY_REQUESTED, quantity=Decimal(3)),
        event(refused, EventKind.MODIFY_REQUESTED, quantity=Decimal(3)),
        event(refused, EventKind.MODIFY_REJECTED),
        event(done, EventKind.MODIFY_REQUESTED, quantity=Decimal(3)),
        event(smaller, EventKind.MODIFY_REQUESTED, quantity=Decimal(1)),
    ]
    await journal.append(OWNER, 1, 1, journal.prepare(JournalBatch(orders=orders, events=events)))
    history = await journal.load(ACCOUNT, Nanos(0))
    assert history.rising == {"asked": Decimal(3)}

"""Nothing is deleted before its time, and what is left still verifies."""

from __future__ import annotations

import time

import psycopg
import pytest

from storage.audit import verify
from storage.database import Database
from storage.desired import Desired
from storage.journal import Journal
from storage.leases import Leases
from storage.retention import LEAST_DAYS, RETENTION_DAYS, retire
from tests.storage.samples import event, fill, order
from trading.errors import BadInput
from trading.journal import JournalBatch
from trading.orders import EventKind, OrderState, apply

DAY = 86_400_000_000_000


async def written(db: Database, ages: dict[str, int], *, open_: frozenset[str] = frozenset()) -> None:
    """Orders of these ages in days: each filled, or open."""
    journal, epoch = Journal(db), await Leases(db).take("session/u1", "test", 60)
    number = 0
    for key, age in ages.items():
        at = time.time_ns() - age * DAY
        placed = order(key, account="a1", created_at=at, updated_at=at)
        number += 1
        batch = JournalBatch(orders=[placed], events=[event(placed, EventKind.PENDING, at)])
        await journal.append("session/u1", epoch, number, journal.prepare(batch))
        if key in open_:
            continue
        done = event(placed, EventKind.FILLED, at + 5, fill=fill(f"x-{key}", quantity=placed.quantity))
        apply(placed, done)
        assert placed.state is OrderState.FILLED
        number += 1
        await journal.append("session/u1", epoch, number, journal.prepare(JournalBatch(heads=[placed], events=[done])))


def keys(url: str, table: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {row[0] for row in connection.execute(f"SELECT client_order_id FROM {table}".encode())}


async def test_only_what_is_old_and_over_goes_and_the_rest_verifies(db: Database, database_url: str) -> None:
    old = RETENTION_DAYS + 1
    ages = {"ancient": old + 500, "resting": old, "old": old, "young": RETENTION_DAYS - 1, "new": 0}
    await written(db, ages, open_=frozenset({"resting"}))
    gone = retire(database_url, RETENTION_DAYS, "op")
    assert (gone.orders, gone.order_events, gone.fills) == (2, 4, 2)
    for table in ("orders", "order_events"):
        assert keys(database_url, table) == {"resting", "young", "new"}
    assert keys(database_url, "fills") == {"young", "new"}
    assert verify(database_url).findings == []
    subjects = [a.action for a in await Desired(db).audit_of()]
    assert "retire" in subjects
    again = retire(database_url, RETENTION_DAYS, "op")
    assert (again.orders, again.order_events, again.fills, again.audit) == (0, 0, 0, 0)


async def test_tampering_beside_what_was_retired_still_shows(db: Database, database_url: str) -> None:
    await written(db, {"old": RETENTION_DAYS + 1, "new": 0})
    retire(database_url, RETENTION_DAYS, "op")
    with psycopg.connect(database_url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE order_events SET reason = 'x' WHERE client_order_id = 'new'")
    assert verify(database_url).findings


async def test_old_commands_go_and_limits_stay(db: Database, database_url: str) -> None:
    desired = Desired(db)
    async with db.connection() as connection:
        for age in (RETENTION_DAYS + 2, 3):
            await connection.execute(
                "INSERT INTO audit (at, actor, action, subject) VALUES (%s, 'a', 'b', 'c')",
                (time.time_ns() - age * DAY,),
            )
        await connection.execute("INSERT INTO limits VALUES ('cluster', 'position', '', 1, 5, 1, 'op')")
    assert retire(database_url, RETENTION_DAYS, "op").audit == 1
    assert len(await desired.limits()) == 1
    assert verify(database_url).findings == []


async def test_less_than_a_year_is_refused(database_url: str) -> None:
    with pytest.raises(BadInput, match="days"):
        retire(database_url, LEAST_DAYS - 1, "op")


async def test_saying_so_is_not_enough_for_the_application(db: Database) -> None:
    await written(db, {"old": RETENTION_DAYS + 1})
    async with db.connection() as connection:
        await connection.execute("SET quarterdeck.retiring = 'on'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("DELETE FROM order_events")

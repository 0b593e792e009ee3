"""Alerts are told once while they are open, and nobody who reads by change misses one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from storage.alerts import AlertFilter, Alerts
from storage.database import Database
from storage.desired import Desired
from storage.migrate import known_migrations
from trading.errors import BadInput, Conflict, UnknownThing
from trading.ids import AccountId, Nanos, UserId


def about(subject: str = "o-1", **changes: Any) -> dict[str, Any]:
    return {
        "kind": "large_order",
        "severity": "warning",
        "user": "asha",
        "account": "a-1",
        "algo": None,
        "subject": subject,
        "text": "an order of 9 times the usual",
        "at": Nanos(1_000),
        **changes,
    }


async def test_the_same_alert_is_counted_while_it_is_open(db: Database) -> None:
    alerts = Alerts(db)
    first = await alerts.raise_alert(**about())
    again = await alerts.raise_alert(**about(at=Nanos(2_000), severity="critical", text="worse"))
    assert (again.id, again.at, again.last_at, again.times) == (first.id, 1_000, 2_000, 2)
    assert (again.severity, again.text) == ("critical", "worse")
    milder = await alerts.raise_alert(**about(at=Nanos(1_500), severity="info"))
    assert (milder.severity, milder.last_at, milder.times) == ("critical", 2_000, 3)
    assert (await alerts.raise_alert(**about(account=None))).id != first.id
    assert (await alerts.raise_alert(**about(kind="session"))).id != first.id


async def test_after_it_is_acknowledged_it_is_raised_anew(db: Database) -> None:
    alerts = Alerts(db)
    first = await alerts.raise_alert(**about())
    closed = await alerts.acknowledge(first.id, "admin")
    assert (closed.acknowledged_by, closed.acknowledged_at > 0) == ("admin", True)
    with pytest.raises(Conflict, match="admin has acknowledged"):
        await alerts.acknowledge(first.id, "asha")
    with pytest.raises(UnknownThing):
        await alerts.acknowledge("alert-none", "asha")
    assert (await alerts.raise_alert(**about())).id != first.id
    (entry,) = await Desired(db).audit_of(first.id)
    assert (entry.actor, entry.action) == ("admin", "acknowledge_alert")


async def test_who_did_it_adds_up_while_it_is_open(db: Database) -> None:
    alerts = Alerts(db)
    first = await alerts.raise_alert(**about(persons=("olga", "bo")))
    again = await alerts.raise_alert(**about(persons=("ann", "bo")))
    assert (first.id, first.persons, again.persons) == (again.id, ("olga", "bo"), ("ann", "bo", "olga"))


async def test_those_who_are_open_when_persons_come_to_be_kept_get_theirs_from_the_text(db: Database) -> None:
    alerts = Alerts(db)
    texts = {
        "order big-user 7 of user olga is worth 9 USDT: 9 times": ("olga",),
        "user bo.b trades between 03:00 and 04:00 UTC": ("bo.b",),
        "order k of algo momo is worth 9 USDT": (),
    }
    for n, text in enumerate(texts):
        await alerts.raise_alert(**about(f"o-{n}", text=text))
    backfill = known_migrations()["0044_alert_persons"].partition(";")[2]
    async with db.connection() as connection:
        await connection.execute(backfill.encode())
    found, _ = await alerts.page(AlertFilter())
    assert {each.text: each.persons for each in found} == texts


async def test_pages_are_newest_first_and_filtered(db: Database) -> None:
    alerts = Alerts(db)
    for n in range(5):
        await alerts.raise_alert(**about(f"o-{n}", at=Nanos(n + 1)))
    await alerts.raise_alert(**about("s", user="ravi", account=None, kind="session", at=Nanos(9)))
    first, cursor = await alerts.page(AlertFilter(), limit=4)
    assert [each.subject for each in first] == ["s", "o-4", "o-3", "o-2"]
    rest, end = await alerts.page(AlertFilter(), cursor, limit=4)
    assert ([each.subject for each in rest], end) == (["o-1", "o-0"], None)
    await alerts.acknowledge(first[1].id, "admin")
    assert len((await alerts.page(AlertFilter(open=True)))[0]) == 5
    assert [each.subject for each in (await alerts.page(AlertFilter(open=False)))[0]] == ["o-4"]
    assert [each.subject for each in (await alerts.page(AlertFilter(kind="session")))[0]] == ["s"]
    assert [each.subject for each in (await alerts.page(AlertFilter(user=UserId("ravi"))))[0]] == ["s"]
    granted = AlertFilter(user=UserId("ravi"), accounts=[AccountId("a-1")])
    assert len((await alerts.page(granted))[0]) == 6
    assert await alerts.count_open(granted) == 5
    with pytest.raises(BadInput):
        await alerts.page(AlertFilter(), "***")


async def test_a_reader_by_change_misses_none_of_many_at_once(database_url: str) -> None:
    writers = [Database(database_url, size=3, name=f"writer {n}") for n in range(3)]
    for writer in writers:
        await writer.open()
    alerts = Alerts(writers[0])
    seen: list[str] = []
    done = asyncio.Event()

    async def read() -> None:
        newest = 0
        while True:
            last = done.is_set()
            for each in await alerts.changed_after(newest, limit=7):
                newest = each.change
                seen.append(each.subject)
            if last and newest == await alerts.newest_change():
                return

    reader = asyncio.create_task(read())

    async def write(n: int, first: int) -> None:
        # One borrower for each connection: waiting for one is not what is tested.
        for k in range(first, 40, 3):
            await Alerts(writers[n]).raise_alert(**about(f"{n}-{k}"))

    await asyncio.gather(*(write(n, first) for n in range(3) for first in range(3)))
    done.set()
    await reader
    assert sorted(seen) == sorted(f"{n}-{k}" for n in range(3) for k in range(40))
    for writer in writers:
        await writer.close()


async def test_hostile_text_is_kept_as_text(db: Database) -> None:
    raised = await Alerts(db).raise_alert(**about("o\x00'; DROP TABLE alerts; --", text="<script>\x00" + "x" * 9_000))
    assert raised.subject == "o\ufffd'; DROP TABLE alerts; --"
    assert raised.text.startswith("<script>\ufffdx")
    assert len(raised.text) == 2000

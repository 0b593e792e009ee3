"""A row a minute, kept for a day, whatever the clocks of machines say."""

from __future__ import annotations

import time

from storage.database import Database
from storage.node_history import KEPT, MINUTE, Minute, NodeHistory
from trading.ids import Nanos, NodeName

EDGE, HOME = NodeName("edge"), NodeName("home")


def minute(at: int, **metrics: float) -> Minute:
    return Minute(at=Nanos(at), metrics=metrics)


async def test_minutes_are_read_back_in_order_and_written_once(db: Database) -> None:
    history = NodeHistory(db)
    now = time.time_ns()
    first = now - now % MINUTE - 10 * MINUTE
    await history.append(EDGE, [])
    await history.append(EDGE, [minute(first + n * MINUTE, cpu_percent=float(n), load_1=0.5) for n in range(5)])
    await history.append(HOME, [minute(first, cpu_percent=99.0)])
    # The same minute again, as after a write whose answer was lost.
    await history.append(EDGE, [minute(first, cpu_percent=7.0, load_1=0.5)])
    found = await history.minutes(EDGE, Nanos(first), Nanos(now), 100)
    assert [each.metrics["cpu_percent"] for each in found] == [7.0, 1.0, 2.0, 3.0, 4.0]
    part = await history.minutes(EDGE, Nanos(first + MINUTE), Nanos(first + 4 * MINUTE), 2, ["load_1", "nothing"])
    assert part == [minute(first + n * MINUTE, load_1=0.5) for n in (1, 2)]
    assert await history.minutes(NodeName("other"), Nanos(0), Nanos(now), 100) == []


async def test_what_is_older_than_a_day_goes_with_the_next_row_of_anybody(db: Database) -> None:
    history = NodeHistory(db)
    now = time.time_ns()
    ages = [KEPT + 2 * MINUTE, KEPT + MINUTE, KEPT - MINUTE, 0]
    async with db.connection() as connection:
        for age in ages:
            await connection.execute(
                "INSERT INTO node_history (node, at, metrics) VALUES (%s, %s, '{}')", (EDGE, now - age)
            )
    await history.append(HOME, [minute(now, cpu_percent=1.0)])
    found = await history.minutes(EDGE, Nanos(0), Nanos(now + 1), 100)
    assert [each.at for each in found] == [now - age for age in ages[2:]]


async def test_a_machine_whose_clock_is_a_year_ahead_deletes_nothing(db: Database) -> None:
    history = NodeHistory(db)
    now = time.time_ns()
    await history.append(EDGE, [minute(now, cpu_percent=1.0)])
    await history.append(HOME, [minute(now + 365 * KEPT, cpu_percent=1.0)])
    assert len(await history.minutes(EDGE, Nanos(0), Nanos(now + 1), 100)) == 1


async def test_a_day_of_many_machines_stays_a_day(db: Database) -> None:
    history = NodeHistory(db)
    now = time.time_ns()
    start = now - now % MINUTE - 2 * KEPT
    # Two days, written in larger and larger pieces: what each piece leaves is a day at most.
    rows = [minute(start + n * MINUTE, cpu_percent=float(n % 100)) for n in range(2 * 1_440)]
    for part in range(0, len(rows), 480):
        await history.append(EDGE, rows[part : part + 480])
    async with db.connection() as connection:
        cursor = await connection.execute("SELECT count(*), min(at) FROM node_history")
        row = await cursor.fetchone()
    assert row is not None
    assert 1_439 <= row[0] <= 1_441
    assert row[1] >= now - KEPT - MINUTE


async def test_the_clock_is_compared_with_the_databases(db: Database) -> None:
    skew = await NodeHistory(db).skew()
    # The same machine: nothing but what the question took can be between.
    assert 0 < skew.error_ns < 250_000_000
    assert abs(skew.ns) <= skew.error_ns + 5_000_000

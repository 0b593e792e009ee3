"""Bars on a server that has TimescaleDB: a hypertable, and hours kept as a continuous aggregate that never lags.

Needs such a server: TIMESCALE_URL names one, by a user who may make databases and extensions.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from cluster.history import History
from cluster.session_days import SessionDays
from storage.bars import DAY, Bars, Cover, Source, StoredBar
from storage.database import Database
from storage.migrate import migrate
from tests.storage import test_history as ordinary
from tests.storage.test_history import BTC, Provider
from trading.bar_deriving import HOUR, MINUTE, derive
from trading.bars import Bar
from trading.ids import Nanos
from trading.spans import Span

SERVER = os.environ.get("TIMESCALE_URL", "")
pytestmark = pytest.mark.skipif(not SERVER, reason="no server with TimescaleDB: TIMESCALE_URL names none")


@pytest.fixture
def hyper_url() -> Iterator[str]:
    base = SERVER.rstrip("/")
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS hours WITH (FORCE)")
        connection.execute("CREATE DATABASE hours")
        with psycopg.connect(f"{base}/hours", autocommit=True) as inside:
            inside.execute("CREATE EXTENSION timescaledb")
        migrate(f"{base}/hours")
        yield f"{base}/hours"
        connection.execute("DROP DATABASE hours WITH (FORCE)")


@pytest.fixture
async def hyper(hyper_url: str) -> AsyncIterator[Database]:
    database = Database(hyper_url, size=4, name="test")
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def refresh(url: str) -> None:
    """What TimescaleDB does every ten minutes, some minutes after the last change."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE stale_bar_hours SET changed_at = changed_at - 120000000000")
        (job,) = connection.execute(
            "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate'"
        ).fetchall()
        connection.execute("CALL run_job(%s)", job)


def minute(number: int, at: int, price: float, source: Source = Source.BUILT, revision: int = 0) -> StoredBar:
    made = Bar(opened_at=Nanos(at), open=price, high=price + 2, low=price - 1, close=price + 1, volume=0.5, trades=3)
    return StoredBar(instrument=number, width=MINUTE, bar=made, source=source, revision=revision)


async def test_bars_are_kept_in_a_hypertable_as_on_any_server(hyper: Database, hyper_url: str) -> None:
    with psycopg.connect(hyper_url) as connection:
        tables = connection.execute("SELECT hypertable_name FROM timescaledb_information.hypertables").fetchall()
    assert ("bars",) in tables
    bars, start = Bars(hyper), 20_000 * DAY
    cover = Cover(instrument=1, width=MINUTE, span=Span(start, start + 2 * MINUTE))
    some = [minute(1, start, 10.0), minute(1, start + MINUTE, 11.0), minute(2, start, 5.0)]
    assert await bars.save(some, [cover]) == 3
    assert await bars.save(some) == 0
    assert await bars.save([minute(1, start, 12.0, revision=1), minute(1, start + MINUTE, 9.0, Source.PROVIDER)]) == 2
    assert await bars.save([minute(1, start + MINUTE, 1.0, revision=9)]) == 0
    assert [each.open for each in await bars.read(1, MINUTE, Span(0, 2**62))] == [12.0, 9.0]
    assert await bars.retire(MINUTE, 2) == 3
    assert await bars.covered(1, MINUTE, Span(0, 2**62)) == []


async def test_hours_are_what_their_minutes_say_at_every_moment(hyper: Database, hyper_url: str) -> None:
    bars, rnd = Bars(hyper), random.Random(7)
    now = time.time_ns()
    # Old hours, those about the end of what is aggregated, and those under way.
    first = now // HOUR * HOUR - 60 * HOUR
    assert await bars.keeps_hours()
    amended = settled = 0
    for step in range(40):
        span = rnd.choice([(0, 60), (50, 60), (55, 61)])
        at = first + rnd.randrange(*span) * HOUR + rnd.randrange(60) * MINUTE
        some = [
            minute(rnd.choice((1, 2)), at + n * MINUTE, rnd.uniform(50, 90), rnd.choice([*Source]), step)
            for n in range(rnd.randrange(1, 90))
        ]
        amended += await bars.save(some)
        if rnd.random() < 0.3:
            refresh(hyper_url)
        if rnd.random() < 0.3:
            settled += await bars.settle_hours()
        for number in (1, 2):
            window = Span(first + rnd.randrange(30) * HOUR, first + 62 * HOUR)
            hours = await bars.read_hours(number, window)
            minutes = await bars.read(number, MINUTE, window)
            expected = derive(minutes, HOUR)
            assert [each.opened_at for each in hours] == [each.opened_at for each in expected], step
            for got, right in zip(hours, expected, strict=True):
                assert (got.open, got.high, got.low, got.close, got.trades) == (
                    right.open, right.high, right.low, right.close, right.trades,
                ), (step, number)  # fmt: skip
                assert got.volume == pytest.approx(right.volume)
    assert amended > 500
    assert settled > 20


async def test_hours_that_were_refreshed_are_read_from_the_aggregate_again(hyper: Database, hyper_url: str) -> None:
    bars = Bars(hyper)
    old = time.time_ns() // HOUR * HOUR - 100 * HOUR
    await bars.save([minute(1, old, 10.0), minute(1, time.time_ns() // MINUTE * MINUTE, 11.0)])

    def stale() -> list[tuple[int]]:
        with psycopg.connect(hyper_url, autocommit=True) as connection:
            return connection.execute("SELECT opened_at FROM stale_bar_hours").fetchall()

    assert stale() == [(old,)], "an hour under way is read from its minutes anyhow"
    assert await bars.settle_hours() == 0, "nothing was refreshed yet"
    refresh(hyper_url)
    assert await bars.settle_hours() == 1
    assert stale() == []
    (hour, *_) = await bars.read_hours(1, Span(old, old + HOUR))
    assert (hour.open, hour.high, hour.close) == (10.0, 12.0, 11.0)


@pytest.mark.parametrize("interval", ["1h", "4h", "1d", "15m"])
async def test_history_answers_as_on_any_server(hyper: Database, db: Database, hyper_url: str, interval: str) -> None:
    here, there = Provider(), Provider()
    start, end = Nanos(ordinary.START), Nanos(ordinary.START + 2 * DAY + 5 * HOUR)
    pages = [
        await History(Bars(database), provider.history, SessionDays().within, lambda: Nanos(ordinary.NOW)).page(
            BTC, interval, start, end
        )
        for database, provider in ((hyper, here), (db, there))
    ]
    refresh(hyper_url)
    assert pages[0] == pages[1]
    assert here.asked == there.asked

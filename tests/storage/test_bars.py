"""Bars are written once however often they come, and what is covered is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.bars import DAY, Bars, Cover, Source, StoredBar
from storage.database import APPLICATION, Database
from storage.migrate import migrate
from trading.bar_deriving import MINUTE, SECOND
from trading.bars import Bar
from trading.errors import BadInput
from trading.ids import Nanos
from trading.spans import Span, merged

START = 1_700_000_040_000_000_000 - 1_700_000_040_000_000_000 % DAY


def bar(minute: int, price: float = 10.0, width: int = MINUTE) -> Bar:
    at = Nanos(START + minute * width)
    return Bar(opened_at=at, open=price, high=price + 1, low=price - 0.1, close=price, volume=0.3, trades=2)


def stored(
    minute: int, price: float = 10.0, source: Source = Source.BUILT, revision: int = 0, number: int = 1
) -> StoredBar:
    return StoredBar(instrument=number, width=MINUTE, bar=bar(minute, price), source=source, revision=revision)


ALWAYS = Span(0, 2**62)


async def test_bars_come_back_as_they_were_written_and_twice_is_once(db: Database) -> None:
    bars = Bars(db)
    some = [stored(n, 10 + n / 7) for n in range(300)] + [stored(0, 5.0, number=2)]
    assert await bars.save(some) == 301
    assert await bars.save(some) == 0
    assert await bars.save(list(reversed(some))) == 0
    assert await bars.read(1, MINUTE, ALWAYS) == [each.bar for each in some[:300]]
    span = Span(START + 10 * MINUTE, START + 12 * MINUTE)
    assert await bars.read(1, MINUTE, span) == [bar(10, 10 + 10 / 7), bar(11, 10 + 11 / 7)]
    assert await bars.read(1, MINUTE, ALWAYS, 2) == [bar(0), bar(1, 10 + 1 / 7)]
    assert await bars.read(2, MINUTE, ALWAYS) == [bar(0, 5.0)]
    assert await bars.read(1, SECOND, ALWAYS) == []


async def test_a_later_revision_stands_and_the_providers_bar_above_all(db: Database) -> None:
    bars = Bars(db)
    await bars.save([stored(0, 1.0)])
    await bars.save([stored(0, 2.0, revision=2), stored(0, 3.0, revision=1)])
    assert await bars.read(1, MINUTE, ALWAYS) == [bar(0, 2.0)]
    assert await bars.save([stored(0, 9.0, revision=1)]) == 0
    await bars.save([stored(0, 4.0, Source.PROVIDER)])
    await bars.save([stored(0, 5.0, revision=7)])
    assert await bars.read(1, MINUTE, ALWAYS) == [bar(0, 4.0)]
    await bars.save([stored(0, 6.0, Source.PROVIDER)])
    assert await bars.read(1, MINUTE, ALWAYS) == [bar(0, 6.0)]


writes = st.lists(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(Source), st.integers(0, 2)).map(
            # What a revision says is decided by what it is, as it is with one builder and one provider.
            lambda at: stored(at[0], 10.0 * at[1] + at[2], at[1], at[2])
        ),
        max_size=6,
    ),
    max_size=5,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), story=writes)
async def test_the_order_and_number_of_writes_change_nothing(
    db: Database, data: st.DataObject, story: list[list[StoredBar]]
) -> None:
    bars = Bars(db)
    async with db.connection() as connection:
        # The application may not delete bars; each example is another instrument.
        row = await (await connection.execute("SELECT coalesce(max(instrument), 0) + 2 FROM bars")).fetchone()
    assert row is not None
    first, second = int(row[0]), int(row[0]) + 1

    def of(number: int, batch: list[StoredBar]) -> list[StoredBar]:
        return [
            StoredBar(instrument=number, width=each.width, bar=each.bar, source=each.source, revision=each.revision)
            for each in batch
        ]

    shuffled = data.draw(st.permutations(story + story))
    for batch in story:
        await bars.save(of(first, batch))
    for batch in shuffled:
        await bars.save(of(second, batch))
    best: dict[int, StoredBar] = {}
    for each in (each for batch in story for each in batch):
        known = best.get(each.bar.opened_at)
        if known is None or (each.source, each.revision) > (known.source, known.revision):
            best[each.bar.opened_at] = each
    expected = [best[at].bar for at in sorted(best)]
    assert await bars.read(first, MINUTE, ALWAYS) == expected
    assert await bars.read(second, MINUTE, ALWAYS) == expected


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spans=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda p: Span(*p)), max_size=8))
async def test_spans_that_touch_become_one(db: Database, spans: list[Span]) -> None:
    bars = Bars(db)
    async with db.connection() as connection:
        await connection.execute("DELETE FROM bar_coverage")
    for span in spans:
        await bars.save(
            [], [Cover(instrument=1, width=MINUTE, span=span), Cover(instrument=2, width=SECOND, span=span)]
        )
    assert await bars.covered(1, MINUTE, ALWAYS) == merged(spans)
    assert await bars.covered(2, SECOND, ALWAYS) == merged(spans)
    assert await bars.covered(1, SECOND, ALWAYS) == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spans=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda p: Span(*p)), max_size=4),
    spoilt=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda p: Span(*p)), max_size=4),
)
async def test_what_is_spoilt_is_covered_no_more(db: Database, spans: list[Span], spoilt: list[Span]) -> None:
    bars = Bars(db)
    async with db.connection() as connection:
        await connection.execute("DELETE FROM bar_coverage")
    await bars.save(
        [],
        [Cover(instrument=1, width=MINUTE, span=span) for span in spans],
        [Cover(instrument=1, width=MINUTE, span=span) for span in spoilt],
    )
    left = {at for s in spans for at in range(*s)} - {at for s in spoilt for at in range(*s)}
    assert {at for s in await bars.covered(1, MINUTE, ALWAYS) for at in range(*s)} == left


async def test_racing_writers_neither_wait_for_ever_nor_lose_anything(db: Database) -> None:
    writers = [Bars(db) for _ in range(6)]

    async def write(which: int) -> None:
        order = range(200) if which % 2 else reversed(range(200))
        some = [stored(n, 1.0) for n in order]
        span = Span(START + which * MINUTE, START + (which + 1) * MINUTE)
        await writers[which].save(some, [Cover(instrument=1, width=MINUTE, span=span)])

    await asyncio.gather(*(write(n) for n in range(6)))
    assert len(await writers[0].read(1, MINUTE, ALWAYS)) == 200
    assert await writers[0].covered(1, MINUTE, ALWAYS) == [Span(START, START + 6 * MINUTE)]


async def test_only_one_at_a_time_fetches_and_a_claim_ends_by_itself(db: Database) -> None:
    bars = Bars(db)
    taken = await asyncio.gather(*(bars.claim(1, MINUTE, 30.0) for _ in range(8)))
    (mine,) = [each for each in taken if each is not None]
    assert await bars.claim(2, MINUTE, 30.0) is not None
    await bars.release(1, MINUTE, "somebody else")
    assert await bars.claim(1, MINUTE, 30.0) is None
    await bars.release(1, MINUTE, mine)
    assert await bars.claim(1, MINUTE, 0.05) is not None
    await asyncio.sleep(0.1)
    assert await bars.claim(1, MINUTE, 30.0) is not None


async def test_partitions_are_there_before_they_are_needed_and_go_whole(db: Database, database_url: str) -> None:
    bars = Bars(db)
    today = time.time_ns() // DAY * DAY
    old, older = today - 20 * DAY, today - 21 * DAY
    rows = [
        StoredBar(instrument=1, width=SECOND, bar=Bar(opened_at=Nanos(at), open=1, high=1, low=1, close=1, volume=1),
                  source=Source.BUILT)
        for at in (older, old, today)
    ]  # fmt: skip
    await bars.save(rows, [Cover(instrument=1, width=SECOND, span=Span(older, old + 5))])
    await bars.save([], [Cover(instrument=2, width=SECOND, span=Span(older, today))])
    with psycopg.connect(database_url) as connection:
        names = {r[0] for r in connection.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'bars_1s_%'")}
        rights = {r[0] for r in connection.execute("SELECT name FROM table_rights WHERE name LIKE 'bars_1s_%'")}
    assert len(names) == 5  # three days with bars, two ahead
    assert names == rights
    assert await bars.retire(SECOND, 20) == 1
    assert await bars.read(1, SECOND, ALWAYS) == [each.bar for each in rows[1:]]
    assert await bars.covered(1, SECOND, ALWAYS) == [Span(old, old + 5)]
    assert await bars.covered(2, SECOND, ALWAYS) == [Span(old, today)]
    # A writer that knew the partitions to be there finds them gone, and makes them again.
    assert await Bars(db).retire(SECOND, 2) == 1
    assert await bars.covered(1, SECOND, ALWAYS) == []
    await bars.save(rows[1:2])
    assert await bars.read(1, SECOND, ALWAYS) == [each.bar for each in rows[1:]]
    with pytest.raises(BadInput, match="days"):
        await bars.retire(SECOND, 1)


async def test_the_application_drops_nothing_young_and_deletes_no_bar(db: Database) -> None:
    await Bars(db).save([stored(0)])
    for statement in ("DELETE FROM bars", "TRUNCATE bars", "DROP TABLE bars", "DELETE FROM bars_1m_202311"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with db.connection() as connection:
                await connection.execute(statement.encode())
    async with db.connection() as connection:
        with pytest.raises(psycopg.Error, match="keep a day"):
            await connection.execute("SELECT drop_bars(%s, %s)", (MINUTE, time.time_ns()))
        with pytest.raises(psycopg.Error, match="no partitions"):
            await connection.execute("SELECT make_bar_partitions(%s, 0, %s)", (SECOND, 2**62))


async def test_what_is_no_stored_bar_is_refused_whole(db: Database) -> None:
    bars = Bars(db)
    off = StoredBar(instrument=1, width=MINUTE, bar=bar(1, width=SECOND), source=Source.BUILT)
    five = StoredBar(instrument=1, width=5 * MINUTE, bar=bar(0), source=Source.BUILT)
    for wrong in (off, five):
        with pytest.raises(BadInput, match="bars"):
            await bars.save([stored(0), wrong])
    assert await bars.read(1, MINUTE, ALWAYS) == []


@pytest.fixture
def hypertable_url(server_url: str) -> Iterator[str]:
    """A database that seems to have TimescaleDB: its function is there and notes what it is asked."""
    base = server_url.rpartition("/")[0]
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE hyper TEMPLATE template0")
        with psycopg.connect(f"{base}/hyper") as inside:
            inside.execute(
                "CREATE TABLE asked (t regclass, c name, n bigint); CREATE FUNCTION create_hypertable(t regclass, "
                "c name, chunk_time_interval bigint) RETURNS void LANGUAGE sql AS 'INSERT INTO asked VALUES ($1,$2,$3)'"
            )
        yield f"{base}/hyper"
        connection.execute("DROP DATABASE hyper WITH (FORCE)")


async def test_a_hypertable_is_made_where_the_server_has_them_and_works_the_same(hypertable_url: str) -> None:
    migrate(hypertable_url)
    with psycopg.connect(hypertable_url) as connection:
        asked = connection.execute("SELECT t::text, c, n FROM asked").fetchall()
        assert asked == [("bars", "opened_at", 7 * DAY)]
        assert connection.execute("SELECT has_table_privilege(%s, 'bars', 'DELETE')", (APPLICATION,)).fetchone() == (
            False,
        )
    database = Database(hypertable_url, size=2, name="test")
    await database.open()
    try:
        bars = Bars(database)
        cover = Cover(instrument=1, width=MINUTE, span=Span(START, START + 2 * MINUTE))
        assert await bars.save([stored(0), stored(1)], [cover]) == 2
        assert await bars.save([stored(0), stored(1)]) == 0
        assert await bars.retire(MINUTE, 2) == 2
        assert await bars.covered(1, MINUTE, ALWAYS) == []
    finally:
        await database.close()

"""A connection that breaks: surely nothing was done, or nobody knows."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from storage.database import Commits, Database, commits
from tests.support.relay import Cut, Relay, relayed
from trading.errors import InDoubt, NotReady


@pytest.fixture
async def relay(database_url: str) -> AsyncIterator[Relay]:
    async with relayed(database_url) as made:
        yield made


@pytest.fixture
async def far(relay: Relay) -> AsyncIterator[Database]:
    database = Database(relay.url, size=2, name="far", role="")
    await database.open()
    async with database.connection() as connection:
        await connection.execute("CREATE TABLE things (name text PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)")
    yield database
    await database.close()


async def add(database: Database, name: str) -> None:
    async with database.connection() as connection, connection.transaction():
        await connection.execute(f"INSERT INTO things VALUES ('{name}')")


async def names(database: Database) -> list[str]:
    async with database.snapshot() as connection:
        return [row[0] for row in await (await connection.execute("SELECT name FROM things ORDER BY 1")).fetchall()]


@pytest.mark.parametrize(("where", "stands"), [(Cut.COMMIT, False), (Cut.ANSWER, True)])
async def test_a_commit_that_got_no_answer_is_in_doubt(relay: Relay, far: Database, where: Cut, stands: bool) -> None:
    relay.cut(where, "'lost'")
    with pytest.raises(InDoubt) as caught:
        await add(far, "lost")
    assert (caught.value.code, relay.cuts) == ("outcome_unknown", 1)
    assert await names(far) == (["lost"] if stands else [])


async def test_what_breaks_before_its_commit_surely_did_nothing(relay: Relay, far: Database) -> None:
    relay.cut(Cut.STATEMENT, "'lost'")
    with pytest.raises(NotReady) as caught:
        await add(far, "lost")
    assert not isinstance(caught.value, InDoubt)
    assert await names(far) == []


async def test_a_commit_that_is_refused_is_not_in_doubt_nor_is_what_breaks_after_it(
    relay: Relay, far: Database
) -> None:
    await add(far, "twice")
    with pytest.raises(Exception, match="duplicate key"):
        await add(far, "twice")
    relay.cut(Cut.STATEMENT, "'alone'")
    with pytest.raises(NotReady) as caught:
        async with far.connection() as connection:
            await connection.execute("SELECT 'alone'")
    assert not isinstance(caught.value, InDoubt)


async def test_reading_is_never_in_doubt(relay: Relay, far: Database) -> None:
    relay.cut(Cut.COMMIT, "FROM things")
    with pytest.raises(NotReady) as caught:
        await names(far)
    assert relay.cuts == 1
    assert not isinstance(caught.value, InDoubt)


async def test_whether_anything_was_committed_is_told_to_who_asks(far: Database) -> None:
    seen = Commits()
    token = commits.set(seen)
    try:
        await names(far)
        with pytest.raises(Exception, match="nonsense"):
            await add(far, "no'); SELECT nonsense; --")
        assert not seen.any
        async with far.connection() as connection, connection.transaction():
            async with connection.transaction():
                await connection.execute("INSERT INTO things VALUES ('inner')")
            assert not seen.any
        assert seen.any
    finally:
        commits.reset(token)
    assert await names(far) == ["inner"]

"""A key is taken once, whoever asks at once; its answer is sealed; what was cut off is told so."""

from __future__ import annotations

import asyncio
import os

import psycopg
import pytest

from storage import idempotency
from storage.database import Database
from storage.idempotency import Answer, Found, Idempotency, Standing
from trading.errors import NeedsOperator

KEY = os.urandom(32)
ANSWER = Answer(
    status=201,
    headers=[("content-type", "application/json")],
    body=b'{"key": "qd_verysecret"}',
    standing=Standing(rights=frozenset({"view"}), grants={"paper-1": "trade"}),
)


@pytest.fixture
def keys(db: Database) -> Idempotency:
    return Idempotency(db, lambda: KEY)


async def age(database_url: str, **ns: int) -> None:
    """Make all rows older by so much."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        for column, by in ns.items():
            await connection.execute(f"UPDATE idempotency SET {column} = {column} - {by}")


async def test_of_many_at_once_one_takes_the_key_and_all_get_its_answer(keys: Idempotency) -> None:
    tries = await asyncio.gather(*(keys.claim(b"id", "asha", b"request") for _ in range(20)))
    (mine,) = [each for each in tries if each.found is Found.NEW]
    assert {each.found for each in tries} == {Found.NEW, Found.RUNNING}
    assert await keys.finish(b"id", mine.claim, 201, ANSWER)
    assert not await keys.finish(b"id", mine.claim, 500, None)
    again = await keys.claim(b"id", "asha", b"request")
    assert (again.found, again.status, again.answer) == (Found.DONE, 201, ANSWER)
    assert (await keys.claim(b"id", "asha", b"another")).found is Found.OTHER
    assert (await keys.claim(b"id2", "bo", b"request")).found is Found.NEW


async def test_what_was_cut_off_is_not_done_again_unless_it_does_no_harm(keys: Idempotency, database_url: str) -> None:
    first = await keys.claim(b"id", "asha", b"request")
    silent = int(idempotency.SILENT_S * 1e9) + 1
    await age(database_url, beat_at=silent)
    assert (await keys.claim(b"id", "asha", b"request")).found is Found.CUT_OFF
    await keys.beat([first.claim], [b"id"])
    assert (await keys.claim(b"id", "asha", b"request")).found is Found.RUNNING
    assert (await keys.claim(b"id", "asha", b"request", again=True)).found is Found.RUNNING
    await age(database_url, beat_at=silent)
    second = await keys.claim(b"id", "asha", b"request", again=True)
    assert second.found is Found.NEW
    # The first try, which lived after all, does not speak for the second.
    assert not await keys.finish(b"id", first.claim, 201, ANSWER)
    await keys.beat([first.claim], [b"id"])
    assert await keys.finish(b"id", second.claim, 201, ANSWER)
    await age(database_url, beat_at=silent)
    assert (await keys.claim(b"id", "asha", b"request", again=True)).found is Found.DONE


async def test_a_key_is_free_again_after_a_day_and_when_nothing_was_done(keys: Idempotency, database_url: str) -> None:
    first = await keys.claim(b"id", "asha", b"request")
    await keys.give_back(b"id", first.claim)
    second = await keys.claim(b"id", "asha", b"another")
    assert second.found is Found.NEW
    await keys.finish(b"id", second.claim, 200, ANSWER)
    await keys.give_back(b"id", second.claim)
    assert (await keys.claim(b"id", "asha", b"another")).found is Found.DONE
    await keys.claim(b"young", "asha", b"request")
    assert await keys.sweep() == 0
    await age(database_url, began_at=idempotency.KEPT_S * 10**9 + 1)
    assert (await keys.claim(b"id", "asha", b"third")).found is Found.NEW
    assert await keys.sweep() == 1


async def test_answers_are_sealed_and_bound_to_their_row(db: Database, keys: Idempotency, database_url: str) -> None:
    for id in (b"one", b"two"):
        claimed = await keys.claim(id, "asha", b"request")
        assert await keys.finish(id, claimed.claim, 201, ANSWER)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        rows = await (await connection.execute("SELECT answer FROM idempotency")).fetchall()
        assert len({bytes(row[0]) for row in rows}) == 2
        assert all(b"qd_" not in bytes(row[0]) and b"application" not in bytes(row[0]) for row in rows)
        await connection.execute(
            "UPDATE idempotency SET answer = (SELECT answer FROM idempotency WHERE id = 'one') WHERE id = 'two'"
        )
    assert (await keys.claim(b"one", "asha", b"request")).answer == ANSWER
    moved = await keys.claim(b"two", "asha", b"request")
    assert (moved.found, moved.status, moved.answer) == (Found.ANSWER_LOST, 201, None)
    other = Idempotency(db, lambda: os.urandom(32))
    assert (await other.claim(b"one", "asha", b"request")).found is Found.ANSWER_LOST


async def test_without_the_decks_key_the_status_is_kept_and_the_answer_is_not(db: Database) -> None:
    def unreadable() -> bytes:
        raise NeedsOperator("secret.key may be read by others", "chmod 600 it")

    keys = Idempotency(db, unreadable)
    claimed = await keys.claim(b"id", "asha", b"request")
    assert await keys.finish(b"id", claimed.claim, 201, ANSWER)
    again = await keys.claim(b"id", "asha", b"request")
    assert (again.found, again.status) == (Found.ANSWER_LOST, 201)


@pytest.mark.parametrize(
    ("now", "includes"),
    [
        (Standing(rights=frozenset({"view", "trade"}), grants={"a": "view", "b": "trade"}), True),
        (Standing(rights=frozenset({"view", "trade"}), grants={"a": "trade", "b": "trade", "c": "view"}), True),
        (Standing(rights=frozenset({"view", "trade"}), grants={"a": "view", "b": "view"}), False),
        (Standing(rights=frozenset({"view", "trade"}), grants={"b": "trade"}), False),
        (Standing(rights=frozenset({"view"}), grants={"a": "view", "b": "trade"}), False),
        (Standing(rights=frozenset({"view", "trade"}), grants={}, operator=True), True),
    ],
)
def test_who_may_do_all_that_they_might(now: Standing, includes: bool) -> None:
    then = Standing(rights=frozenset({"view", "trade"}), grants={"a": "view", "b": "trade"})
    assert now.includes(then) is includes
    operators = Standing(rights=frozenset({"view"}), grants={}, operator=True)
    assert now.includes(operators) is now.operator

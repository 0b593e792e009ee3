from __future__ import annotations

import asyncio
import time

import pytest

from storage import passwords
from storage.database import Database
from storage.desired import Desired
from storage.passwords import Passwords, check_strength, make_one_time_password
from storage.records import UserRecord
from trading.errors import BadInput, NotReady, UnknownThing
from trading.ids import Nanos, UserId

ASHA = UserId("asha")


@pytest.fixture
async def people(db: Database) -> Passwords:
    await Desired(db).create_user(UserRecord(id=ASHA, roles=("viewer",), created_at=Nanos(1)), "test")
    return Passwords(db)


async def test_only_the_password_is_right(people: Passwords) -> None:
    await people.set(ASHA, "seven otters", "test", one_time=False)
    assert await people.verify("asha", "seven otters")
    for user, password in (("asha", "Seven otters"), ("asha", ""), ("bo", "seven otters"), ("asha", "x" * 100_000)):
        assert not await people.verify(user, password)
    with pytest.raises(UnknownThing):
        await people.set(UserId("bo"), "seven otters", "test", one_time=False)


async def test_nobody_takes_as_long_as_somebody(people: Passwords) -> None:
    await people.set(ASHA, "seven otters", "test", one_time=False)
    await people.verify("nobody", "x")

    async def best(user: str) -> float:
        times = []
        for _ in range(7):
            # Of the processor: how much else it has to do is no part of it.
            began = time.process_time()
            assert not await people.verify(user, "wrong")
            times.append(time.process_time() - began)
        return min(times)

    known, unknown = await best("asha"), await best("nobody")
    assert 0.5 < known / unknown < 2


async def test_the_loop_runs_on_meanwhile(people: Passwords) -> None:
    await people.set(ASHA, "seven otters", "test", one_time=False)
    most = 0
    # Again where others had the cores, so that the loop had no turn for another reason.
    for _ in range(5):
        task = asyncio.create_task(people.verify("asha", "seven otters"))
        turns = 0
        while not task.done():
            await asyncio.sleep(0.002)
            turns += 1
        most = max(most, turns)
    assert most > 5


async def test_a_flood_is_turned_away_and_leaves_nothing_behind(
    people: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr(passwords, "_asked", threading.BoundedSemaphore(3))
    found = await asyncio.gather(*(people.verify("asha", "x") for _ in range(12)), return_exceptions=True)
    assert sum(isinstance(each, NotReady) for each in found) >= 5
    assert sum(each is False for each in found) >= 3
    assert await people.verify("asha", "x") is False


async def test_an_older_hash_is_made_anew(people: Passwords, db: Database) -> None:
    from argon2 import PasswordHasher

    await people.set(ASHA, "seven otters", "test", one_time=False)
    weak = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash("seven otters")
    async with db.connection() as connection:
        await connection.execute("UPDATE passwords SET hash = %s", (weak,))
    assert await people.verify("asha", "seven otters")
    async with db.connection() as connection:
        row = await (await connection.execute("SELECT hash FROM passwords")).fetchone()
    assert row is not None
    assert "m=65536,t=3" in row[0]
    assert await people.verify("asha", "seven otters")


async def test_what_we_make_is_strong_and_never_the_same() -> None:
    made = {make_one_time_password() for _ in range(100)}
    assert len(made) == 100
    await check_strength(made.pop(), "asha")
    with pytest.raises(BadInput, match="guessed"):
        await check_strength("qwertyuiop123", "asha")

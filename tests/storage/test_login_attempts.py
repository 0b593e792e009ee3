from __future__ import annotations

import asyncio

import pytest

from storage import login_attempts
from storage.database import Database
from storage.login_attempts import MOST_BY_ADDRESS, MOST_BY_USER, LoginAttempts, network_of


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Seconds, to be set."""
    now = [1_000_000]

    class _Time:
        @staticmethod
        def time_ns() -> int:
            return now[0] * 1_000_000_000

    monkeypatch.setattr(login_attempts, "time", _Time)
    return now


async def test_the_fifth_failure_locks_a_user_out_longer_each_time(db: Database, clock: list[int]) -> None:
    attempts = LoginAttempts(db)
    for number in range(MOST_BY_USER):
        attempt = await attempts.begin("asha", f"192.0.2.{number}")
        assert not attempt.locked_until
        assert attempt.locks == (("user",) if number == MOST_BY_USER - 1 else ())
    for pause in (60, 120, 240, 480, 900, 900):
        clock[0] += pause - 1
        assert (await attempts.begin("asha", "192.0.2.99")).by == "user"
        assert (await attempts.locked(["asha", "bo"])).keys() == {"asha"}
        clock[0] += 1
        assert not (await attempts.begin("asha", "192.0.2.99")).locked_until
    assert not (await attempts.begin("bo", "192.0.2.99")).locked_until


async def test_many_at_once_gain_nothing(db: Database) -> None:
    many = Database(db.url, size=12, name="test")
    await many.open()
    try:
        attempts = LoginAttempts(many)
        # Connected beforehand, so that the first ones truly come at once.
        all_there = asyncio.Barrier(12)

        async def connect() -> None:
            async with many.connection():
                await all_there.wait()

        await asyncio.gather(*(connect() for _ in range(12)))
        # One for each connection: waiting for one is not what is tested.
        tries = (
            asyncio.gather(*(attempts.begin("asha", f"192.0.2.{12 * k + n}") for n in range(12))) for k in range(5)
        )
        found = [each for together in tries for each in await together]
    finally:
        await many.close()
    assert sum(not each.locked_until for each in found) == MOST_BY_USER


async def test_an_address_is_locked_out_whomever_it_tries(db: Database) -> None:
    attempts = LoginAttempts(db)
    for number in range(MOST_BY_ADDRESS):
        # An account of one's own in between does not help.
        own = await attempts.begin("me", "2001:db8::7")
        await attempts.succeeded(own, whole=True)
        assert not (await attempts.begin(f"u{number}", f"2001:db8::{number}")).locked_until
    assert (await attempts.begin("other", "2001:db8::ffff")).by == "address"
    assert not (await attempts.begin("other", "2001:db8:0:1::7")).locked_until


async def test_success_forgets_failures_but_a_password_alone_does_not(db: Database) -> None:
    attempts = LoginAttempts(db)
    for _ in range(MOST_BY_USER - 1):
        await attempts.begin("asha", "a")
    last = await attempts.begin("asha", "a")
    await attempts.succeeded(last, whole=False)
    assert await attempts.locked(["asha"]) == {}
    assert (await attempts.begin("asha", "a")).locks == ("user",)
    await attempts.unlock("asha", "admin")
    for _ in range(MOST_BY_USER - 1):
        await attempts.begin("asha", "a")
    await attempts.succeeded(await attempts.begin("asha", "a"), whole=True)
    for _ in range(MOST_BY_USER - 1):
        assert not (await attempts.begin("asha", "b")).locks


async def _asha_signs_in_from(db: Database, network: str) -> None:
    from storage.desired import Desired
    from storage.records import UserRecord
    from trading.ids import Nanos, UserId

    await Desired(db).create_user(UserRecord(id=UserId("asha"), roles=("viewer",), created_at=Nanos(1)), "test")
    async with db.connection() as connection:
        await connection.execute("INSERT INTO sign_ins VALUES ('asha', 1, %s)", (network,))


async def test_outsiders_do_not_lock_out_who_comes_from_where_they_always_do(db: Database) -> None:
    await _asha_signs_in_from(db, "192.0.2.0/24")
    attempts = LoginAttempts(db)
    for number in range(MOST_BY_USER):
        await attempts.begin("asha", f"203.0.113.{number}")
    assert not (await attempts.begin("asha", "198.51.100.1")).may_be_made
    for number in range(MOST_BY_USER):
        attempt = await attempts.begin("asha", f"192.0.2.{number}")
        assert (attempt.may_be_made, attempt.quiet, attempt.by) == (True, True, "user")
        assert attempt.locks == (("user",) if number == MOST_BY_USER - 1 else ())
    assert not (await attempts.begin("asha", "192.0.2.99")).may_be_made
    assert (await attempts.locked(["asha", "bo"])).keys() == {"asha"}
    await attempts.unlock("asha", "test")
    for address in ("198.51.100.1", "192.0.2.99"):
        assert not (await attempts.begin("asha", address)).locked_until


async def test_what_fails_where_the_user_is_known_is_counted_there_whatever_else_is_locked(db: Database) -> None:
    await _asha_signs_in_from(db, "192.0.2.0/24")
    attempts = LoginAttempts(db)
    for _ in range(MOST_BY_USER):
        attempt = await attempts.begin("asha", "192.0.2.1")
        assert not attempt.locked_until
    assert attempt.locks == ("user",)
    # Its own failures buy nobody further tries.
    assert not (await attempts.begin("asha", "192.0.2.1")).may_be_made
    await attempts.unlock("asha", "test")
    for _ in range(MOST_BY_USER):
        last = await attempts.begin("asha", "192.0.2.1")
    await attempts.succeeded(last, whole=False)
    again = await attempts.begin("asha", "192.0.2.1")
    assert (again.may_be_made, again.quiet) == (True, False), "a success takes back its own, and the lock-out with it"


async def test_a_stranger_sees_no_difference_between_who_is_known_there_and_who_is_not(
    db: Database, clock: list[int]
) -> None:
    """Whatever is tried: lock-outs begin and end alike, and what was tried counts alike for what comes after."""
    await _asha_signs_in_from(db, "192.0.2.0/24")
    attempts = LoginAttempts(db)

    async def seen(name: str, network: str) -> list[tuple[int, str]]:
        told = []
        for turn in range(90):
            # Tries at this name and at others, some within lock-outs, some after.
            clock[0] += (turn * 17) % 30
            address = f"{network}.{turn % 3}"
            for each in (name, f"filler-{turn}"):
                found = await attempts.begin(each, address)
                told.append((max(0, found.locked_until - clock[0] * 1_000_000_000), found.by))
        return told

    started = clock[0]
    known = await seen("asha", "192.0.2")
    async with db.connection() as connection:
        await connection.execute("DELETE FROM login_attempts")
    clock[0] = started
    unknown = await seen("nobody", "192.0.2")
    assert known == unknown
    assert {by for _, by in known} == {"", "user", "address"}


async def test_who_gets_in_during_a_lock_out_ends_it_for_nobody_else(db: Database) -> None:
    await _asha_signs_in_from(db, "192.0.2.0/24")
    attempts = LoginAttempts(db)
    for number in range(MOST_BY_USER):
        await attempts.begin("asha", f"203.0.113.{number}")
    for _ in range(MOST_BY_USER - 1):
        await attempts.begin("asha", "192.0.2.1")
    mine = await attempts.begin("asha", "192.0.2.1")
    await attempts.succeeded(mine, whole=True)
    assert not (await attempts.begin("asha", "203.0.113.1")).may_be_made
    assert (await attempts.begin("asha", "192.0.2.1")).locks == ()


async def test_failures_are_forgotten_in_time_and_swept(db: Database, clock: list[int]) -> None:
    attempts = LoginAttempts(db)
    for _ in range(MOST_BY_USER - 1):
        await attempts.begin("asha", "a")
    clock[0] += login_attempts.FORGET_S + 1
    assert (await attempts.begin("asha", "a")).locks == ()
    clock[0] += login_attempts.FORGET_S + login_attempts.LONGEST_S + 1
    await attempts.sweep()
    async with db.connection() as connection:
        rows = await (await connection.execute("SELECT 1 FROM login_attempts")).fetchall()
    assert rows == []


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
        ("(local)", "(local)"),
    ],
)
def test_networks(address: str, network: str) -> None:
    assert network_of(address) == network

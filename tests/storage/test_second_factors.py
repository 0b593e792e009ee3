from __future__ import annotations

import asyncio
import time

import pyotp
import pytest

from storage.database import Database
from storage.desired import Desired
from storage.records import UserRecord
from storage.second_factors import SecondFactors, Verdict
from storage.secrets import Secrets
from trading.errors import UnknownThing
from trading.ids import Nanos, UserId

ASHA = UserId("asha")


@pytest.fixture
async def store(db: Database) -> Secrets:
    await Desired(db).create_user(UserRecord(id=ASHA, roles=("trader",), created_at=Nanos(1)), "test")
    return Secrets(db, bytes(32))


def code(secret: str, steps: int = 0) -> str:
    """The code of so many steps from now."""
    return pyotp.TOTP(secret).generate_otp(int(time.time()) // 30 + steps)


async def test_of_one_code_sent_many_times_at_once_one_is_taken(db: Database, store: Secrets) -> None:
    factors = SecondFactors(db)
    secret = pyotp.random_base32()
    await factors.put(store, ASHA, secret)
    given = code(secret)
    found = await asyncio.gather(*(factors.verify(store, ASHA, given) for _ in range(8)))
    assert sorted(found) == [Verdict.REPLAYED] * 7 + [Verdict.RIGHT]


async def test_neighbours_count_and_nothing_before_what_was_taken(
    db: Database, store: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = SecondFactors(db)
    secret = pyotp.random_base32()
    await factors.put(store, ASHA, secret)
    # So that no step ends meanwhile.
    moment = time.time()
    monkeypatch.setattr(time, "time", lambda: moment)
    for steps, verdict in (
        (2, Verdict.WRONG),
        (-2, Verdict.WRONG),
        (-1, Verdict.RIGHT),
        (1, Verdict.RIGHT),
        (0, Verdict.REPLAYED),
    ):
        assert await factors.verify(store, ASHA, code(secret, steps)) is verdict, steps
    for wrong in ("", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "\0"):
        assert await factors.verify(store, ASHA, wrong) is Verdict.WRONG
    assert await factors.verify(store, UserId("bo"), code(secret)) is Verdict.WRONG


async def test_an_older_factor_counts_until_another_is_confirmed(db: Database, store: Secrets) -> None:
    factors = SecondFactors(db)
    with pytest.raises(UnknownThing):
        await factors.confirm(store, ASHA, "123456")
    first, _ = await factors.begin(store, ASHA)
    assert await factors.confirm(store, ASHA, "000000" if code(first) != "000000" else "111111") is None
    codes = await factors.confirm(store, ASHA, code(first))
    assert codes is not None
    second, address = await factors.begin(store, ASHA)
    assert second in address
    assert await factors.verify(store, ASHA, code(first, 1)) is Verdict.RIGHT
    more = await factors.confirm(store, ASHA, code(second))
    assert more is not None
    assert not set(codes) & set(more)
    assert await factors.verify(store, ASHA, code(first, 1)) is Verdict.WRONG
    assert await factors.use_recovery_code(ASHA, codes[0]) is None
    assert await factors.use_recovery_code(ASHA, more[0]) == 9
    assert await factors.use_recovery_code(ASHA, more[0]) is None

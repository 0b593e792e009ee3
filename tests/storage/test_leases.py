from __future__ import annotations

import asyncio

import pytest

from storage.database import Database
from storage.leases import Leases
from trading.errors import BadInput, Fenced
from trading.ids import Epoch


async def test_each_take_gives_a_higher_epoch_and_fences_the_last(db: Database) -> None:
    leases = Leases(db)
    assert await leases.current("session/u1") == 0
    assert await leases.take("session/u1", "a", 5) == 1
    await leases.renew("session/u1", Epoch(1), 5)
    assert await leases.take("session/u1", "b", 5) == 2
    with pytest.raises(Fenced) as caught:
        await leases.renew("session/u1", Epoch(1), 5)
    assert caught.value.seen == 2
    with pytest.raises(Fenced):
        await leases.release("session/u1", Epoch(1))
    await leases.renew("session/u1", Epoch(2), 5)
    assert await leases.current("session/u1") == 2


async def test_racing_takes_get_different_epochs(db: Database) -> None:
    leases = Leases(db)
    epochs = await asyncio.gather(*(leases.take("risk/main", f"h{n}", 5) for n in range(12)))
    assert sorted(epochs) == list(range(1, 13))


async def test_a_released_lease_has_expired_and_its_epoch_is_not_given_again(db: Database) -> None:
    leases = Leases(db)
    await leases.take("risk/main", "a", 60)
    (held,) = await leases.all()
    assert held.holder == "a"
    assert held.expires_at > await leases.now()
    await leases.release("risk/main", Epoch(1))
    (held,) = await leases.all()
    assert held.expires_at <= await leases.now()
    assert await leases.take("risk/main", "b", 60) == 2


async def test_whoever_is_gone_is_fenced_and_its_successor_is_not(db: Database) -> None:
    leases = Leases(db)
    assert await leases.end("worker/f/0", Epoch(0), "c") == 0, "nobody ever took it"
    for holder in "ab":
        await leases.take("worker/f/0", holder, 60)
    assert await leases.end("worker/f/0", Epoch(1), "c") == 1
    await leases.renew("worker/f/0", Epoch(2), 60)
    assert await leases.end("worker/f/0", Epoch(2), "c") == 2
    with pytest.raises(Fenced):
        await leases.renew("worker/f/0", Epoch(2), 60)
    (held,) = await leases.all()
    assert (held.holder, held.expires_at <= await leases.now()) == ("c", True)
    assert await leases.take("worker/f/0", "b", 60) == 4
    assert await leases.end("worker/f/0", Epoch(0), "c") == 4
    with pytest.raises(Fenced):
        await leases.renew("worker/f/0", Epoch(4), 60)


async def test_renewing_moves_the_expiry_by_the_databases_clock(db: Database) -> None:
    leases = Leases(db)
    await leases.take("risk/main", "a", 1)
    await leases.renew("risk/main", Epoch(1), 100)
    (held,) = await leases.all()
    left = held.expires_at - await leases.now()
    assert 95e9 < left <= 100e9


async def test_a_lease_nobody_took_cannot_be_renewed(db: Database) -> None:
    with pytest.raises(Fenced):
        await Leases(db).renew("risk/main", Epoch(1), 5)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), 100_000])
async def test_a_senseless_time_to_live_is_bad_input(db: Database, ttl: float) -> None:
    with pytest.raises(BadInput, match="ttl_s"):
        await Leases(db).take("risk/main", "a", ttl)

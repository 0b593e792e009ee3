"""Curves: kept by their writer only, thinned out when read, coarser when old."""

from __future__ import annotations

from decimal import Decimal

import pytest

from storage.database import Database
from storage.equity import KEPT, Equity, Sample
from storage.leases import Leases
from trading.errors import BadInput, Fenced
from trading.ids import Nanos

D = Decimal
S = 1_000_000_000


def samples(count: int, scope: str = "algo:a") -> list[Sample]:
    return [Sample(scope=scope, at=Nanos(n * S), pnl=D(n)) for n in range(1, count + 1)]


async def test_a_curve_has_the_last_of_each_part_and_the_newest(db: Database) -> None:
    equity, epoch = Equity(db), await Leases(db).take("watch", "test", 60)
    await equity.save("watch", epoch, [*samples(1000), *samples(3, "algo:b")])
    curve = await equity.curve("algo:a", Nanos(0), Nanos(10**18), 10)
    assert [int(point.pnl) for point in curve] == list(range(100, 1001, 100))
    assert [point.at for point in curve] == [Nanos(int(point.pnl) * S) for point in curve]
    assert len(await equity.curve("algo:a", Nanos(0), Nanos(10**18), 5000)) == 1000
    part = await equity.curve("algo:a", Nanos(10 * S), Nanos(13 * S), 100)
    assert [int(point.pnl) for point in part] == [10, 11, 12]
    assert await equity.curve("algo:none", Nanos(0), Nanos(5), 10) == []
    last = await equity.last()
    assert {scope: int(sample.pnl) for scope, sample in last.items()} == {"algo:a": 1000, "algo:b": 3}
    for since, until, points in ((0, 5, 1), (0, 5, 5001), (5, 5, 10)):
        with pytest.raises(BadInput):
            await equity.curve("algo:a", Nanos(since), Nanos(until), points)


async def test_only_the_holder_of_the_lease_writes_and_a_moment_stands(db: Database) -> None:
    equity, leases = Equity(db), Leases(db)
    old = await leases.take("watch", "a", 60)
    new = await leases.take("watch", "b", 60)
    with pytest.raises(Fenced):
        await equity.save("watch", old, samples(1))
    await equity.save("watch", new, [Sample(scope="account:x", at=Nanos(5), pnl=D(1), equity=D("2.5"))])
    await equity.save("watch", new, [Sample(scope="account:x", at=Nanos(5), pnl=D(9))])
    (point,) = await equity.curve("account:x", Nanos(0), Nanos(9), 2)
    assert (point.pnl, point.equity) == (D(1), D("2.5"))


async def test_the_finer_a_sample_the_sooner_it_goes(db: Database) -> None:
    equity, epoch = Equity(db), await Leases(db).take("watch", "test", 60)
    now = Nanos(10**18)
    made = [
        Sample(scope=f"{grain}-{side}", at=Nanos(now - kept + side), pnl=D(1), grain=grain)
        for grain, kept in enumerate(KEPT)
        for side in (-1, 1)
    ]
    await equity.save("watch", epoch, made)
    assert await equity.fade(now) == 3
    assert sorted(await equity.last()) == ["0-1", "1-1", "2-1"]
    assert await equity.fade(now) == 0

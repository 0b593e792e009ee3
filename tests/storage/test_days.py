"""What algos hold, and the day's losses, come back after a restart."""

from __future__ import annotations

from decimal import Decimal

import pytest

from storage.database import Database
from storage.days import Days
from storage.journal import Journal
from storage.leases import Leases
from storage.records import MaximaRecord
from tests.storage.samples import ACCOUNT, INSTRUMENT
from trading.day_profit import Day, Reached
from trading.errors import Fenced
from trading.ids import AlgoId, Nanos
from trading.journal import JournalBatch
from trading.positions import Position

D = Decimal


def day(latest: int, instrument: str = "") -> Day:
    return Day(
        scope="user:u1",
        instrument=instrument,
        began_at=Nanos(86_400_000_000_000),
        opening=D("1.5"),
        high=D(9),
        latest=D(latest),
        at=Nanos(5),
        reached={"daily_loss": Reached(amount=D("7.25"), limit=D(7), limit_changed_at=3, at=Nanos(4))},
    )


async def test_days_come_back_as_they_were_saved_last(db: Database) -> None:
    days, epoch = Days(db), await Leases(db).take("session/u1", "test", 10)
    await days.save("session/u1", epoch, [day(1), day(2, INSTRUMENT)])
    await days.save("session/u1", epoch, [day(3)])
    found = {each.instrument: each for each in await days.load(["user:u1", "user:nobody"])}
    assert found == {"": day(3), INSTRUMENT: day(2, INSTRUMENT)}


async def test_an_older_incarnation_saves_no_day(db: Database) -> None:
    days, leases = Days(db), Leases(db)
    old = await leases.take("session/u1", "test", 10)
    await leases.take("session/u1", "test", 10)
    with pytest.raises(Fenced):
        await days.save("session/u1", old, [day(1)])
    assert await days.load(["user:u1"]) == []


def top(day: int, gross: int, loss: int) -> MaximaRecord:
    zero = D(0)
    return MaximaRecord(
        day=Nanos(day),
        scope="user:u1",
        instrument="",
        gross=D(gross),
        long=zero,
        short=zero,
        money_at_risk=zero,
        loss=D(loss),
        drawdown=zero,
        open_orders=gross,
        sampled_at=Nanos(9),
    )


async def test_each_measure_keeps_its_own_highest_of_a_day(db: Database) -> None:
    days, epoch = Days(db), await Leases(db).take("risk/main", "test", 10)
    await days.save_maxima(epoch, [top(100, 5, 9), top(200, 1, 1)])
    await days.save_maxima(epoch, [top(100, 7, 2)])
    assert await days.maxima(Nanos(0), None) == [top(100, 7, 9), top(200, 1, 1)]
    assert await days.maxima(Nanos(101), ["user:u1"]) == [top(200, 1, 1)]
    assert await days.maxima(Nanos(0), ["user:u2"]) == []
    with pytest.raises(Fenced):
        await days.save_maxima(epoch - 1, [top(200, 8, 8)])


async def test_what_an_algo_holds_is_kept_apart_from_its_accounts_position(db: Database) -> None:
    journal, epoch = Journal(db), await Leases(db).take("session/u1", "test", 10)
    whole = Position(account=ACCOUNT, instrument=INSTRUMENT, quantity=D(5))
    own = Position(account=ACCOUNT, instrument=INSTRUMENT, quantity=D(7), algo=AlgoId("g"), realised=D("1.25"))
    await journal.append("session/u1", epoch, 1, journal.prepare(JournalBatch(positions=[whole, own])))
    history = await journal.load(ACCOUNT, Nanos(0))
    assert history.positions == [whole]
    assert history.algo_positions == [own]
    own.quantity = D(2)
    await journal.append("session/u1", epoch, 2, journal.prepare(JournalBatch(positions=[own])))
    history = await journal.load(ACCOUNT, Nanos(0))
    assert (history.positions, history.algo_positions) == ([whole], [own])

"""Surveillance as a plain object, on a real PostgreSQL and Redis: none missed, none told twice, whatever ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from actors.shell import Shell
from actors.surveillance import TradeSurveillance
from cluster.equity import due, grain_of
from storage.alerts import AlertFilter, AlertRecord, Alerts
from storage.database import Database
from storage.days import Days
from storage.desired import Desired
from storage.equity import Equity, Sample
from storage.hot import Hot
from storage.instruments import Instruments
from storage.journal import Journal
from storage.leases import Leases
from storage.surveillance import Surveillance
from storage.surveillance_terms import SurveillanceTerms
from storage.tasks import end_tasks
from tests.storage.conftest import database_url, db, redis_url, server_url
from tests.storage.samples import ACCOUNT, INSTRUMENT, TRADING_ACCOUNT, USER, event, fill, order
from tests.storage.test_keeping import instrument
from trading import monitoring
from trading.day_profit import Day
from trading.errors import Fenced, NotReady
from trading.ids import CauseId, Nanos
from trading.journal import JournalBatch
from trading.orders import EventKind, Order, OrderType, Side

__all__ = ["database_url", "db", "redis_url", "server_url"]

D = Decimal
S = 1_000_000_000
#: After the surveillance began: what happens then is told.
LATER = 4_000_000_000 * S


class Session:
    """Journals orders of the account."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._epoch = 0
        self._batch = 0

    async def journal(self, batch: JournalBatch) -> None:
        if not self._epoch:
            self._epoch = await Leases(self._db).take("session/u1", "test", 600)
        self._batch += 1
        journal = Journal(self._db)
        await journal.append("session/u1", self._epoch, self._batch, journal.prepare(batch))

    async def place(self, *orders: Order) -> None:
        await self.journal(
            JournalBatch(
                orders=list(orders), events=[event(each, EventKind.PENDING, each.created_at) for each in orders]
            )
        )

    async def habit(self, count: int = 30, at: int = LATER) -> None:
        """Orders of about 27,000 USDT."""
        await self.place(*(sized(f"usual-{n}", D(1), at + n * 60 * S) for n in range(count)))


def sized(key: str, quantity: Decimal, at: int, **more: Any) -> Order:
    return order(key, at=at, quantity=quantity, **more)


@pytest.fixture
async def session(db: Database) -> Session:
    desired = Desired(db)
    await desired.create_user(USER, "test")
    await desired.create_account(TRADING_ACCOUNT, "test")
    await Instruments(db).upsert([instrument("BTCUSDT")])
    return Session(db)


Begin = Callable[[], Awaitable[TradeSurveillance]]


@pytest.fixture
async def begin(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Begin]:
    """Makes one that has its epoch and does nothing by itself."""
    from cluster.settings import DeckSettings

    deck = DeckSettings(data_dir=tmp_path, DATABASE_URL=database_url, REDIS_URL=redis_url)  # type: ignore[call-arg]
    monkeypatch.setattr("actors.shell.settings", lambda: deck)
    monkeypatch.setattr("actors.shell.process.set_up_logging", lambda _: None)

    async def idle(_: Shell) -> None:
        return

    monkeypatch.setattr(Shell, "_live", idle)
    made: list[TradeSurveillance] = []

    async def one() -> TradeSurveillance:
        watch = TradeSurveillance()
        made.append(watch)
        watch._began = True
        await watch.start()
        return watch

    yield one
    for watch in made:
        await end_tasks(watch._tasks)
        await watch.stop()


async def told(db: Database) -> list[AlertRecord]:
    found, _ = await Alerts(db).page(AlertFilter(), limit=1000)
    return found


async def test_an_order_unlike_the_others_raises_an_alert_of_its_owner(
    db: Database, session: Session, begin: Begin
) -> None:
    watch = await begin()
    await watch.watch()
    await session.habit()
    await session.place(sized("big", D(20), LATER + 10**13))
    await watch.watch()
    (alert,) = await told(db)
    assert (alert.kind, alert.user, alert.account, alert.algo, alert.subject) == (
        "large_order",
        "u1",
        ACCOUNT,
        "momo-1",
        INSTRUMENT,
    )
    assert alert.text.startswith("order big of algo momo-1 is worth 540002.00")
    assert (alert.at, alert.times) == (LATER + 10**13, 1)
    await watch.watch()
    assert [each.times for each in await told(db)] == [1]
    assert watch.facts() == {"accounts": 1, "events": 31, "alerts": 1}


async def test_a_sell_far_below_the_market_is_as_large_as_it_trades(
    db: Database, session: Session, begin: Begin
) -> None:
    watch = await begin()
    await watch.watch()
    await session.habit()
    early = sized("early", D(20), LATER + 10**13, side=Side.SELL, limit_price=D(1))
    await session.place(early)
    await watch.watch()
    (alert,) = await told(db)
    assert alert.text.startswith("order early of algo momo-1 is worth 540002.00"), "the first price asked for"
    paid = fill("x-1", "1", "60000", at=LATER + 10**13 + S)
    await session.journal(JournalBatch(events=[event(early, EventKind.FILLED, LATER + 10**13 + S, fill=paid)]))
    await session.place(
        sized("stop", D(10), LATER + 10**13 + 2 * S, type=OrderType.STOP, limit_price=None, stop_price=D(1))
    )
    watch = await begin()
    await watch.watch()
    (alert,) = await told(db)
    assert (alert.times, alert.text.partition(":")[0]) == (2, "order stop of algo momo-1 is worth 600000.00 USDT")


async def test_who_acted_in_anothers_account_is_kept_with_the_alert(
    db: Database, session: Session, begin: Begin
) -> None:
    watch = await begin()
    await watch.watch()
    await session.habit()
    orders = [sized(f"big-{who}", D(20), LATER + 10**13, algo=None) for who in ("olga", "omar")]
    blind = sized("blind", D(20), LATER + 10**13, algo=None, limit_price=None, type=OrderType.MARKET)
    events = [
        event(
            each, EventKind.PENDING, LATER + 10**13, cause=CauseId(f"api/{each.client_order_id.removeprefix('big-')}/k")
        )
        for each in [*orders, blind]
    ]
    await session.journal(JournalBatch(orders=[*orders, blind], events=events))
    turns = [sized(f"t-{n}", D(1), LATER + 10**13, algo=None, side=Side.SELL if n % 2 else Side.BUY) for n in range(8)]
    places = [event(each, EventKind.PENDING, LATER + 10**13, cause=CauseId("api/olga/t")) for each in turns]
    await session.journal(JournalBatch(orders=turns, events=places))
    for n, each in enumerate(turns):
        paid = fill(f"x-{n}", "2" if n else "1", at=LATER + 10**13 + n)
        filled = event(each, EventKind.FILLED, LATER + 10**13 + n, fill=paid)
        await session.journal(JournalBatch(events=[filled]))
    await watch.watch()
    found = {(each.kind, each.algo): each for each in await told(db)}
    assert found["large_order", None].user == "u1"
    assert found["large_order", None].persons == ("blind", "olga", "omar")
    assert found["position_flips", None].persons == ("olga",)


async def test_terms_that_are_set_hold_from_the_next_look_on(
    db: Database, session: Session, begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    watch, terms = await begin(), SurveillanceTerms(db)
    await watch.watch()
    await session.habit()
    await terms.put(None, {"times": 1000}, "op")
    await session.place(sized("big-1", D(20), LATER + 10**13))
    await watch.watch()
    assert await told(db) == [], "the deck's terms let it pass"
    await terms.put(ACCOUNT, {"times": 10}, "op")
    await session.place(sized("big-2", D(20), LATER + 10**13 + 1))
    await watch.watch()
    assert [each.times for each in await told(db)] == [1], "the account's own do not"
    async with db.connection() as connection:
        await connection.execute("""UPDATE surveillance_terms SET terms = '{"of_another_release": 1}'""")
    for key in ("big-3", "big-4"):
        await session.place(sized(key, D(20), LATER + 10**13 + 2))
        await watch.watch()
    assert [each.times for each in await told(db)] == [3], "by the defaults"
    assert len([each for each in caplog.messages if "cannot be used" in each]) == 2, "told once"


async def test_a_new_incarnation_goes_on_where_the_old_one_stood_and_the_old_one_is_fenced(
    db: Database, session: Session, begin: Begin
) -> None:
    first = await begin()
    await first.watch()
    await session.habit()
    await first.watch()
    await session.place(sized("big-1", D(20), LATER + 10**13))
    second = await begin()
    with pytest.raises(Fenced):
        await first.watch()
    assert await told(db) == []
    await second.watch()
    assert [each.times for each in await told(db)] == [1]
    third = await begin()
    await third.watch()
    assert [each.times for each in await told(db)] == [1]
    await session.place(sized("big-2", D(20), LATER + 10**13 + 1))
    await third.watch()
    assert [each.times for each in await told(db)] == [2]


@pytest.mark.parametrize("was_written", [True, False])
async def test_whether_it_was_written_or_not_when_the_database_broke_nothing_is_missed_or_doubled(
    db: Database, session: Session, begin: Begin, monkeypatch: pytest.MonkeyPatch, was_written: bool
) -> None:
    watch = await begin()
    await watch.watch()
    await session.habit()
    await session.place(sized("big", D(20), LATER + 10**13))
    real = Surveillance.save

    async def breaks(self: Surveillance, *args: Any) -> None:
        if was_written:
            await real(self, *args)
        raise NotReady("the connection broke")

    monkeypatch.setattr(Surveillance, "save", breaks)
    with pytest.raises(NotReady):
        await watch.watch()
    monkeypatch.setattr(Surveillance, "save", real)
    await watch.watch()
    assert [each.times for each in await told(db)] == [1]
    places = await Surveillance(db).load()
    assert sum(places[ACCOUNT].state.instruments[INSTRUMENT].sizes.counts.values()) == 31


async def test_what_was_there_before_is_learnt_from_and_not_told(db: Database, session: Session, begin: Begin) -> None:
    await session.habit(at=1_000)
    await session.place(sized("old", D(20), 10**13))
    watch = await begin()
    await watch.watch()
    assert await told(db) == []
    await session.place(sized("new", D(20), LATER))
    await watch.watch()
    assert len(await told(db)) == 1


async def test_what_happens_often_at_once_is_one_alert_with_how_often(
    db: Database, session: Session, begin: Begin
) -> None:
    watch = await begin()
    await watch.watch()
    await session.habit()
    await session.place(*(sized(f"big-{n}", D(20), LATER + 10**13 + n) for n in range(9)))
    await watch.watch()
    (alert,) = await told(db)
    assert (alert.times, alert.at, alert.last_at) == (9, LATER + 10**13, LATER + 10**13 + 8)
    assert alert.text.startswith("order big-8 ")
    assert alert.change == await Alerts(db).newest_change()


async def test_small_batches_tell_the_same_as_large_ones(
    db: Database, session: Session, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.surveillance.AT_ONCE", 7)
    monkeypatch.setattr("actors.surveillance.OF_ONE", 3)
    watch = await begin()
    await watch.watch()
    await session.habit()
    for n in range(3):
        await session.place(sized(f"big-{n}", D(20), LATER + 10**13 + n))
    await watch.watch()
    assert [each.times for each in await told(db)] == [3]
    assert watch.facts()["events"] == 33


async def test_the_share_of_equity_and_the_flips_of_a_position(
    db: Database, redis_url: str, session: Session, begin: Begin
) -> None:
    hot = Hot(redis_url)
    account = {
        "account": ACCOUNT, "connected": True, "reconciled": True, "cash": "30000", "currency": "USDT",
        "realised": "0", "unrealised": "0", "fees": "0", "profit": "0", "gross_exposure": "0", "open_orders": 0,
        "open_breaks": 0,
    }  # fmt: skip
    await hot.put("portfolio:u1", {"user": "u1", "at": 1, "accounts": [account], "positions": []}, 60)
    watch = await begin()
    await watch.watch()
    orders = [sized(f"f-{n}", D("0.5"), LATER + n * S, side=Side.BUY if n % 2 == 0 else Side.SELL) for n in range(8)]
    await session.place(*orders, sized("whole", D(2), LATER + 20 * S, algo=None))
    for n, each in enumerate(orders):
        filled = fill(f"x-{n}", "0.5" if n in (0, 7) else "1.0", at=LATER + n * S)
        told_of = event(each, EventKind.FILLED, LATER + n * S, fill=filled)
        await session.journal(JournalBatch(events=[told_of]))
    await watch.watch()
    await hot.delete("portfolio:u1")
    await hot.close()
    by_kind = {each.kind: each for each in await told(db)}
    assert set(by_kind) == {"large_order", "position_flips"}
    assert by_kind["large_order"].severity == "critical"
    assert "180 % of the account's equity" in by_kind["large_order"].text
    assert "6 times within 10 minutes" in by_kind["position_flips"].text


async def test_profit_is_sampled_as_sessions_and_central_risk_saved_it(
    db: Database, session: Session, begin: Begin
) -> None:
    from cluster.process import now

    epoch = await Leases(db).take("session/u9", "test", 60)
    scopes = ("user:u1", "account:acc-1", "algo:momo-1")
    for latest in (5, 7):
        days = [
            Day(scope=scope, began_at=Nanos(1), opening=D(0), high=D(9), latest=D(latest), at=now()) for scope in scopes
        ]
        await Days(db).save("session/u9", epoch, days)
        watch = await begin()
        await watch._sample()
        await watch._sample()
        await asyncio.sleep(0.002)
    for scope in scopes:
        curve = await Equity(db).curve(scope, Nanos(0), Nanos(2**62), 100)
        assert [point.pnl for point in curve] == [D(5), D(7)]
    await watch._fade()


MINUTE = 60 * S


def test_samples_are_made_of_what_changed_and_every_five_minutes() -> None:
    def day(latest: int, at: int, **more: Any) -> Day:
        return Day(scope="algo:a", began_at=Nanos(0), opening=D(0), high=D(0), latest=D(latest), at=Nanos(at), **more)

    at = Nanos(100 * 60 * MINUTE + MINUTE)
    last = {"algo:a": Sample(scope="algo:a", at=Nanos(at - 10 * S), pnl=D(5))}
    assert [(s.pnl, s.grain) for s in due([day(6, at)], [], last, at)] == [(D(6), 0)]
    assert due([day(5, at)], [], last, at) == []
    assert due([day(6, at - 11 * MINUTE)], [], last, at) == []
    assert due([day(6, at, instrument="T:A")], [], last, at) == []
    later = Nanos(at + 5 * MINUTE)
    assert [(s.pnl, s.grain) for s in due([day(5, later)], [], last, later)] == [(D(5), 1)]
    assert [s.grain for s in due([day(5, at)], [], {}, at)] == [2]
    assert (grain_of(Nanos(60 * MINUTE), Nanos(60 * MINUTE - 1)), grain_of(Nanos(4 * MINUTE), Nanos(0))) == (2, 0)


async def test_an_event_that_makes_no_sense_is_told_and_passed_over(
    db: Database, session: Session, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = monitoring.observe

    def observe(state: Any, seen: Any, *more: Any) -> Any:
        if seen.client_order_id == "odd":
            raise OverflowError("its price has no logarithm")
        return real(state, seen, *more)

    monkeypatch.setattr("actors.surveillance.observe", observe)
    watch = await begin()
    await watch.watch()
    await session.habit()
    await session.place(sized("odd", D(1), LATER + 10**13), sized("big", D(20), LATER + 10**13 + 1))
    await watch.watch()
    # What came after it is judged.
    assert {each.kind for each in await told(db)} == {"surveillance", "large_order"}
    assert watch.facts()["events"] == 32

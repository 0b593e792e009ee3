"""The watch of a feed worker with a provider and a store that are played: gaps filled by bars, trouble, hours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from actors import feed_gaps, feed_watch
from actors.feed_holes import FeedHoles
from actors.feed_watch import FeedWatch, MarketHours, edges_in
from cluster.process import now
from connectors.base import FeedLimits, LastValue, PastTrades
from storage.records import FeedGap
from storage.tasks import end_tasks
from tests.connectors.support import instrument, until
from trading.bars import Bar
from trading.calendars import Sessions
from trading.errors import BadInput, NotReady, TradeError
from trading.freshness_terms import FreshnessSettings
from trading.gaps import Edge
from trading.ids import FeedId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.ticks import QUOTE, SNAPSHOT, TRADE, TickArray, TickBuffer, decode

SECOND = 1_000_000_000
ONE = instrument("ONE", 1)
TWO = instrument("TWO", 2)


class Store:
    """Gaps in memory; away while it is told to be."""

    def __init__(self) -> None:
        self.gaps: dict[int, FeedGap] = {}
        self.is_away = False

    async def add(self, gaps: Sequence[FeedGap]) -> list[FeedGap]:
        self._check()
        made = [msgspec.structs.replace(gap, number=len(self.gaps) + n) for n, gap in enumerate(gaps, 1)]
        self.gaps |= {gap.number: gap for gap in made}
        return made

    async def settle(self, gap: FeedGap) -> None:
        self._check()
        self.gaps[gap.number] = gap

    def _check(self) -> None:
        if self.is_away:
            raise NotReady("the database is away", 0.1)


class Provider:
    """Market data that says what it is told to."""

    def __init__(self) -> None:
        self.limits = FeedLimits(
            instruments_per_worker=10, max_workers=1, messages_per_s=5, channels=("trade", "quote"),
            instruments_per_poll=1,
        )  # fmt: skip
        self.past: PastTrades | None = None
        self.trouble: list[TradeError] = []
        self.bars: list[Bar] = []
        self.asked: list[tuple[str, Any]] = []
        self.values: dict[InstrumentId, LastValue] = {}

    async def trades(
        self, instrument: Instrument, start: Nanos, end: Nanos, numbers: tuple[int, int] | None = None
    ) -> PastTrades | None:
        self.asked.append(("trades", (start, end)))
        if self.trouble:
            raise self.trouble.pop(0)
        return self.past

    async def history(self, instrument: Instrument, interval: str, start: Nanos, end: Nanos) -> Sequence[Bar]:
        self.asked.append((interval, (start, end)))
        return [bar for bar in self.bars if start <= bar.opened_at < end]

    async def last_values(self, instruments: Sequence[Instrument]) -> Sequence[LastValue]:
        self.asked.append(("last", [each.id for each in instruments]))
        return [self.values[each.id] for each in instruments if each.id in self.values]


class Out:
    """What the worker publishes for the watch."""

    def __init__(self) -> None:
        self.polled: list[TickArray] = []
        self.filled: list[TickArray] = []
        self.bars: list[tuple[int, Bar, bool]] = []

    def show_polled(self, ticks: TickArray) -> None:
        self.polled.append(ticks)

    def fill_in(self, ticks: TickArray) -> int:
        self.filled.append(ticks)
        return len(ticks)

    def fill_hole(self, ticks: TickArray) -> TickArray:
        self.filled.append(ticks)
        return ticks

    def bar(self, instrument: int, bar: Bar, final: bool) -> None:
        self.bars.append((instrument, bar, final))

    def channels_of(self, instrument: InstrumentId) -> tuple[str, ...]:
        return ("trade", "quote")

    def looked(self, at: Nanos) -> None:
        self.looked_at = at


class Connection:
    """Remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def resubscribe(self, instruments: Sequence[Instrument]) -> None:
        self.asked.append([each.id for each in instruments])

    def reconnect(self, reason: str) -> None:
        self.asked.append(reason)


class Scene:
    def __init__(self) -> None:
        self.store, self.provider, self.out, self.connection = Store(), Provider(), Out(), Connection()
        store: Any = self.store
        hot: Any = None
        self.watch = FeedWatch(FeedId("main"), 3, self.out, store, FeedHoles(FeedId("main"), 3, hot))
        played: Any = (self.provider, self.connection)
        self.watch.serve(*played)
        self.filling = asyncio.create_task(self.watch.gaps.fill())

    def tick(self, number: int, sequence: int, at: int | None = None) -> None:
        buffer = TickBuffer()
        when = now() if at is None else at
        buffer.trade(number, 100.0, 1.0, 0, when, when, sequence)
        self.watch.take(decode(buffer.take()))

    async def gap(self) -> FeedGap:
        """A stream that was gone for a moment; returns what became of the gap."""
        self.watch.want([ONE], {})
        self.watch.opened()
        self.tick(1, 5)
        await self.watch.look()
        self.watch.closed("cut")
        self.watch.opened()
        self.tick(1, 9)
        await self.watch.look()
        await until(lambda: bool(self.store.gaps) and self.store.gaps[1].state != "waiting", 10, "it to be filled")
        return self.store.gaps[1]


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(feed_gaps, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(feed_gaps, "PATIENCE_S", 0.2)
    monkeypatch.setattr(feed_gaps, "AROUND_NS", 0)
    made = Scene()
    yield made
    await end_tasks([made.filling])


async def test_a_worker_is_needed_until_its_gaps_are_settled(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    told, asked = asyncio.Event(), asyncio.Event()

    async def slowly(*_: object) -> PastTrades:
        asked.set()
        await told.wait()
        return PastTrades(ticks=trades(6, 7, 8), since=Nanos(0))

    monkeypatch.setattr(scene.provider, "trades", slowly)
    assert scene.watch.gaps.owed == 0
    filled = asyncio.create_task(scene.gap())
    async with asyncio.timeout(20):
        await asked.wait()
    assert scene.watch.gaps.owed == 1
    told.set()
    assert (await filled).state == "filled"
    await until(lambda: scene.watch.gaps.owed == 0, 10, "nothing to be owed")


def trades(*sequences: int) -> TickArray:
    buffer = TickBuffer()
    for n in sequences:
        buffer.trade(1, 100.0, 1.0, 0, now(), 0, n)
    return decode(buffer.take())


async def test_a_gap_is_filled_with_exactly_what_was_not_streamed(scene: Scene) -> None:
    scene.provider.past = PastTrades(ticks=trades(4, 5, 6, 7, 8, 9, 10), since=Nanos(0))
    gap = await scene.gap()
    assert (gap.state, gap.trades, gap.shard, gap.reason) == ("filled", 3, 3, "the stream was gone: cut")
    assert scene.out.filled[0]["sequence"].tolist() == [6, 7, 8]
    assert abs(int(scene.out.filled[0]["received_at"][0]) - now()) < 10 * SECOND
    assert (scene.watch.gaps.filled_trades, scene.watch.gaps.counts) == (3, {ONE.id: 1})


async def test_what_was_not_published_is_filled_in_by_its_times_where_nothing_is_numbered(scene: Scene) -> None:
    scene.watch.want([ONE], {})
    scene.watch.opened()
    buffer = TickBuffer()
    for second in range(1, 10):
        buffer.trade(1, 100.0, 1.0, 0, second * SECOND, second * SECOND + 7, 0)
    every = decode(buffer.take())
    scene.provider.past = PastTrades(ticks=every, since=Nanos(0))
    scene.watch.published(every[:2])
    scene.watch.withheld(every[2:4], "not published: the bus was away")
    scene.watch.withheld(every[4:5], "not published: the bus was away")
    await scene.watch.look()
    assert not scene.store.gaps, "it is not over yet"
    scene.watch.published(every[5:])
    # Another gap of the same instrument has edges of its own.
    scene.watch.gaps.edges.open(1, Edge(0, Nanos(8 * SECOND)))
    await scene.watch.look()
    await until(lambda: [gap.state for gap in scene.store.gaps.values()] == ["filled"], 10, "it to be filled")
    assert scene.store.gaps[1].reason == "not published: the bus was away"
    assert (scene.out.filled[0]["exchange_at"] // SECOND).tolist() == [3, 4, 5]
    assert scene.watch.gaps.edges.waiting, "the other one is still open"


async def test_what_a_provider_does_not_reach_back_to_is_said(scene: Scene) -> None:
    scene.provider.past = PastTrades(ticks=trades(7, 8), since=Nanos(now() + SECOND))
    gap = await scene.gap()
    assert (gap.state, gap.trades) == ("partly", 2)
    assert "reach back" in gap.detail


async def test_where_there_are_no_trades_of_the_past_its_minutes_are_published_once_they_have_closed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def at_once(seconds: float) -> None:
        slept.append(seconds)
        await sleep(min(seconds, 0.01))

    monkeypatch.setattr(feed_watch.asyncio, "sleep", at_once)
    minute = now() // (60 * SECOND) * 60 * SECOND
    scene.provider.bars = [Bar(opened_at=Nanos(minute + n * 60 * SECOND), open=1, high=1, low=1, close=1, volume=1)
                           for n in (-1, 0, 1, 2)]  # fmt: skip
    gap = await scene.gap()
    assert gap.state == "filled"
    assert gap.bars == len(scene.out.bars) in (1, 2)
    assert {number for number, _, final in scene.out.bars if final} == {1}
    assert scene.out.bars[0][1].opened_at in (minute, minute + 60 * SECOND)
    assert any(seconds > 0 for seconds in slept), "the minute under way was waited for"


async def test_a_provider_that_does_not_answer_is_asked_again_and_one_that_never_does_is_told(scene: Scene) -> None:
    scene.provider.past = PastTrades(ticks=trades(6), since=Nanos(0))
    scene.provider.trouble = [NotReady("slow down", 0.1), NotReady("slow down", 0.1)]
    assert (await scene.gap()).state == "filled"
    assert len(scene.provider.asked) == 3


@pytest.mark.parametrize(
    ("trouble", "asked"), [(BadInput("symbol", "unknown"), 1), (NotReady("away", 0.1), feed_gaps.ATTEMPTS)]
)
async def test_a_gap_that_cannot_be_filled_says_why(scene: Scene, trouble: TradeError, asked: int) -> None:
    scene.provider.trouble = [trouble] * 20
    gap = await scene.gap()
    assert (gap.state, gap.detail, scene.watch.gaps.unfilled) == ("failed", str(trouble), 1)
    assert len(scene.provider.asked) == asked


async def test_without_a_database_a_gap_waits_and_is_neither_lost_nor_filled_unwritten(scene: Scene) -> None:
    scene.provider.past = PastTrades(ticks=trades(6), since=Nanos(0))
    scene.watch.want([ONE], {})
    scene.watch.opened()
    scene.tick(1, 5)
    await scene.watch.look()
    scene.watch.closed("cut")
    scene.watch.opened()
    scene.tick(1, 9)
    scene.store.is_away = True
    for _ in range(3):
        with pytest.raises(NotReady):
            await scene.watch.look()
    assert not scene.provider.asked
    scene.store.is_away = False
    await scene.watch.look()
    await until(lambda: [gap.state for gap in scene.store.gaps.values()] == ["filled"], 5, "it filled, once")


async def test_what_is_let_go_is_filled_no_more(scene: Scene) -> None:
    scene.watch.want([ONE], {ONE.number: (Nanos(now() - SECOND), Edge(0, Nanos(0)))})
    scene.watch.opened()
    scene.tick(1, 9)
    scene.filling.cancel()
    await scene.watch.look()
    scene.watch.drop([ONE])
    scene.filling = asyncio.create_task(scene.watch.gaps.fill())
    await until(lambda: scene.store.gaps[1].state == "failed", 5, "the end of it")
    assert "no longer carried" in scene.store.gaps[1].detail
    assert scene.store.gaps[1].reason == "the worker before this one ended"


async def test_a_gap_of_what_is_let_go_before_anybody_looked_is_on_record(scene: Scene) -> None:
    scene.watch.want([ONE], {})
    scene.watch.opened()
    scene.tick(1, 5)
    await scene.watch.look()
    scene.watch.closed("cut")
    scene.watch.opened()
    scene.tick(1, 9)
    scene.watch.drop([ONE])
    await scene.watch.look()
    await until(lambda: bool(scene.store.gaps) and scene.store.gaps[1].state == "failed", 5, "the end of it")
    gap = scene.store.gaps[1]
    assert (gap.reason, "no longer carried" in gap.detail) == ("the stream was gone: cut", True)


async def test_silence_is_answered_step_by_step_and_polled_values_are_news_only(scene: Scene) -> None:
    quick = FreshnessSettings(least_s=0.1, first_s=0.2, step_s=0.1, again_s=30.0)
    scene.watch.tune(quick, {})
    scene.watch.want([ONE, TWO], {})
    scene.watch.opened()
    began = now()
    scene.tick(1, 5, began)
    scene.provider.values[ONE.id] = LastValue(instrument=ONE.id, price=101.0, size=2.0, bid=100.0, traded_at=began)
    for _ in range(10):
        scene.tick(2, 7)
        await scene.watch.look()
        await asyncio.sleep(0.05)
    assert scene.connection.asked == [[ONE.id]]
    assert scene.watch.resubscribed == 1
    await scene.watch.poll()
    assert scene.provider.asked == [("last", [ONE.id])]
    (ticks,) = scene.out.polled
    # Its trade is known; a quote without a time is as of now.
    assert ticks["flags"].tolist() == [QUOTE | SNAPSHOT]
    assert np.isnan(ticks["ask"][0])
    assert str(scene.watch.report(ONE.id, now()).state) == "live", "the venue has nothing newer"
    later = Nanos(began + 5 * SECOND)
    scene.provider.values[ONE.id] = LastValue(instrument=ONE.id, price=102.0, size=2.0, traded_at=later)
    await scene.watch.poll()
    assert scene.out.polled[1]["flags"].tolist() == [TRADE | SNAPSHOT]
    assert scene.out.polled[1]["price"].tolist() == [102.0]
    await scene.watch.look()
    assert str(scene.watch.report(ONE.id, now()).state) == "stale"
    assert not scene.watch.is_whole(ONE.id)
    scene.watch.drop([ONE])
    await scene.watch.look()
    await scene.watch.poll()
    assert len(scene.provider.asked) == 2


async def test_markets_are_open_by_their_calendar_and_one_that_is_not_known_counts_as_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    async def sessions_of(name: str) -> Sessions:
        asked.append(name)
        if name != "XNYS":
            raise NotReady(f"the hours of calendar {name} are not known", 60.0)
        day = 86_400 * SECOND
        return Sessions(name, [10 * day, 11 * day, 400_000 * day // 1000], [10 * day + 9, 11 * day + 9, 10**18 * 5])

    monkeypatch.setattr(feed_watch, "sessions_of", sessions_of)
    monkeypatch.setattr(feed_watch, "now", lambda: Nanos(10 * 86_400 * SECOND))
    hours = MarketHours()
    await hours.learn({"24x7", "XNYS", "XBOM"})
    await hours.learn({"24x7", "XNYS", "XBOM"})
    assert sorted(asked) == ["XBOM", "XNYS"], "what is known, or was just tried, is not worked out again"
    at = Nanos(11 * 86_400 * SECOND)
    assert hours.at(at)["XNYS"].is_open
    assert hours.at(at)["XNYS"].since == at
    assert not hours.at(Nanos(at + 100))["XNYS"].is_open
    assert hours.at(at)["24x7"].is_open
    assert "XBOM" not in hours.at(at)


async def test_how_far_it_has_come_is_told_to_the_worker_after_it(scene: Scene) -> None:
    scene.watch.want([ONE, TWO], {})
    scene.tick(1, 7, at := now())
    assert edges_in(scene.watch.edges()) == {1: (at, Edge(7, at))}
    assert edges_in(b"") == {}


async def test_a_venue_whose_clock_is_behind_is_not_taken_for_quiet(scene: Scene) -> None:
    """Its quotes have no time, so that the last tick has that of receipt; trades are compared with trades."""
    scene.watch.tune(FreshnessSettings(least_s=0.1, first_s=0.1, step_s=0.05, again_s=30.0), {})
    scene.watch.want([ONE, TWO], {})
    scene.watch.opened()
    behind = now() - 60 * SECOND
    buffer = TickBuffer()
    buffer.trade(1, 100.0, 1.0, 0, behind, now(), 5)
    buffer.quote(1, 99.0, 1.0, 101.0, 1.0, 0, 0, now(), 0)
    scene.watch.take(decode(buffer.take()))
    for _ in range(8):
        scene.tick(2, 7)
        await scene.watch.look()
        await asyncio.sleep(0.05)
    scene.provider.values[ONE.id] = LastValue(instrument=ONE.id, price=101.0, traded_at=Nanos(behind + 9 * SECOND))
    await scene.watch.poll()
    await scene.watch.look()
    assert str(scene.watch.report(ONE.id, now()).state) == "stale"
    assert scene.out.polled[0]["price"].tolist() == [101.0]


async def test_an_answer_that_comes_after_the_stream_went_on_hides_no_gap(scene: Scene) -> None:
    scene.provider.past = PastTrades(ticks=trades(6, 7, 8), since=Nanos(0))
    scene.watch.tune(FreshnessSettings(least_s=0.1, first_s=0.1, step_s=0.05, again_s=30.0), {})
    scene.watch.want([ONE, TWO], {})
    scene.watch.opened()
    scene.tick(1, 5)
    for _ in range(8):
        scene.tick(2, 7)
        await scene.watch.look()
        await asyncio.sleep(0.05)
    assert str(scene.watch.report(ONE.id, now()).state) == "stale"
    # The stream goes on, and has brought what the answer tells of, before anybody looked.
    scene.tick(1, 9, at := now())
    scene.provider.values[ONE.id] = LastValue(instrument=ONE.id, price=100.0, traded_at=at)
    await scene.watch.poll()
    await scene.watch.look()
    await until(lambda: bool(scene.store.gaps) and scene.store.gaps[1].state == "filled", 5, "the gap filled")
    assert scene.out.filled[0]["sequence"].tolist() == [6, 7, 8]


async def test_a_gap_that_a_poll_clears_is_not_taken_for_a_later_one(scene: Scene) -> None:
    scene.watch.tune(FreshnessSettings(least_s=0.1, first_s=0.1, step_s=0.05, again_s=30.0), {})
    scene.watch.want([ONE, TWO], {})
    scene.watch.opened()
    scene.tick(1, 5, at := now())
    scene.provider.values[ONE.id] = LastValue(instrument=ONE.id, price=100.0, traded_at=at)
    for _ in range(8):
        scene.tick(2, 7)
        await scene.watch.look()
        await asyncio.sleep(0.05)
    await scene.watch.poll()
    assert scene.watch.report(ONE.id, now()).reason.startswith("quiet")
    scene.tick(1, 6)
    await scene.watch.look()
    scene.watch.closed("cut")
    scene.watch.opened()
    scene.provider.past = PastTrades(ticks=trades(5, 6, 7, 8, 9), since=Nanos(0))
    scene.tick(1, 9)
    await scene.watch.look()
    await until(lambda: len(scene.store.gaps) >= 1 and scene.store.gaps[1].state == "filled", 5, "the gap filled")
    assert scene.out.filled[0]["sequence"].tolist() == [7, 8]
    assert [gap.reason for gap in scene.store.gaps.values()] == ["the stream was gone: cut"]


async def test_a_silence_in_which_ticks_were_missed_is_no_habit(scene: Scene) -> None:
    scene.watch.tune(FreshnessSettings(gaps=0.05, least_s=0.1, first_s=0.1, step_s=0.05, again_s=30.0), {})
    scene.watch.want([ONE, TWO], {})
    scene.watch.opened()
    began = now() - 100 * SECOND
    for n in range(60):
        scene.tick(1, n, Nanos(began + n * SECOND))
    usual = scene.watch.freshness.habits.usual_gap(1)
    assert usual is not None
    assert usual < 2 * SECOND
    for _ in range(4):
        scene.tick(2, 7)
        await scene.watch.look()
        await asyncio.sleep(0.05)
    assert str(scene.watch.report(ONE.id, now()).state) == "stale"
    missed = Nanos(began + 61 * SECOND)
    scene.provider.values[ONE.id] = LastValue(instrument=ONE.id, price=100.0, traded_at=missed)
    await scene.watch.look()
    await scene.watch.poll()
    scene.tick(1, 99)
    assert scene.watch.freshness.habits.usual_gap(1) == usual

"""A feed worker's way onto a bus that fails, and what it owes: each trade is streamed once, filled in, or told of."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from actors import feed_holes, feed_outlet
from actors.feed_holes import FeedHoles
from actors.feed_outlet import FeedOutlet
from actors.feed_quality import FeedQuality
from actors.feed_watch import FeedWatch
from cluster.process import now
from connectors.base import FeedLimits, PastTrades
from storage.records import FeedGap
from storage.tasks import end_tasks
from tests.connectors.support import instrument, until
from trading.arbitration import Arbiter
from trading.bars import Bar
from trading.continuity import Mark
from trading.errors import NotReady, TradeError
from trading.handover import Handover
from trading.ids import FeedId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.last_values import LastValues
from trading.ticks import BACKFILLED, Senders, TickArray, TickBuffer, decode, unpack_batch

SECOND = 1_000_000_000
ONE = instrument("ONE", 1)
TWO = instrument("TWO", 2)
MAIN = FeedId("main")


def trades(*sequences: int, number: int = 1, flags: int = 0, price: float = 100.0) -> TickArray:
    buffer = TickBuffer()
    at = now()
    for n in sequences:
        buffer.trade(number, price, 1.0, flags, at, at, n)
    return decode(buffer.take())


class Redis:
    """Keys, lists and readers, as far as a worker uses them; ``fault`` says how the next publishes go wrong."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lists: dict[str, list[bytes]] = {}
        self.delivered: list[bytes] = []
        self.readers = 1
        self.fault = ""
        self.asked = self.failed = 0
        #: Of the connection; what went out before is in doubt only where it was lost (`test_feed_worker`).
        self.losses, self.lost_at = 0, float("inf")

    async def publish(self, channel: str, payload: bytes) -> int:
        raise AssertionError(f"{channel}: trades that are numbered are noted as they go out")

    async def publish_noted(self, channel: str, payload: bytes, key: str, note: bytes) -> tuple[int, int]:
        await asyncio.sleep(0)
        if self.fault == "away":
            self.failed += 1
            raise NotReady("redis is away", 0.1)
        self.delivered.append(payload)
        self.lists.setdefault(key, []).append(note)
        if self.fault == "no answer":
            raise NotReady("redis did not answer", 0.1)
        return self.readers, len(self.lists[key])

    async def put_and_trim(self, key: str, value: Any, ttl_s: float, notes: str, count: int) -> None:
        self.values[key] = value
        self.lists[notes] = self.lists.get(notes, [])[count:]

    async def get(self, key: str, kind: type[bytes]) -> bytes | None:
        return self.values.get(key)

    async def scan(self, prefix: str, kind: type[bytes]) -> dict[str, bytes]:
        return {key: value for key, value in self.values.items() if key.startswith(prefix)}

    async def notes(self, key: str) -> list[bytes]:
        return list(self.lists.get(key, ()))

    async def listeners(self, channel: str) -> int:
        self.asked += 1
        return self.readers

    async def delete(self, key: str) -> None:
        self.values.pop(key, None)
        self.lists.pop(key, None)


class Provider:
    """A venue that numbers its trades and tells those of the past."""

    def __init__(self) -> None:
        self.limits = FeedLimits(
            instruments_per_worker=10, max_workers=1, messages_per_s=5, channels=("trade",), consecutive_trades=True
        )
        self.past: dict[int, TickArray] = {}
        self.trouble: list[TradeError] = []
        self.since = Nanos(0)

    async def trades(
        self, instrument: Instrument, start: Nanos, end: Nanos, numbers: tuple[int, int] | None = None
    ) -> PastTrades | None:
        if self.trouble:
            raise self.trouble.pop(0)
        return PastTrades(ticks=self.past[instrument.number], since=self.since)


class Store:
    """Gaps in memory."""

    def __init__(self) -> None:
        self.gaps: dict[int, FeedGap] = {}

    async def add(self, gaps: Sequence[FeedGap]) -> list[FeedGap]:
        made = [msgspec.structs.replace(gap, number=len(self.gaps) + n) for n, gap in enumerate(gaps, 1)]
        self.gaps |= {gap.number: gap for gap in made}
        return made

    async def settle(self, gap: FeedGap) -> None:
        self.gaps[gap.number] = gap


class NeverFenced:
    async def may_publish(self) -> None:
        pass


class Worker:
    """Outlet, watch and holes of one incarnation, put together as `FeedWorker` does."""

    def __init__(self, redis: Redis, provider: Provider, epoch: int = 1) -> None:
        played: Any = redis
        fence: Any = NeverFenced()
        unread: Any = None
        self.store: Any = Store()
        market: Any = provider
        self.holes = FeedHoles(MAIN, 0, played)
        self.handover = Handover()
        self.watch = FeedWatch(MAIN, 0, self, self.store, self.holes)
        self.outlet = FeedOutlet(
            *(MAIN, 0, played, fence, self.handover, LastValues(), FeedQuality(MAIN, 0, unread), self.watch),
            *(Arbiter(), played),
        )
        self.outlet.epoch = epoch
        self.watch.serve(market, unread)
        self.running = [asyncio.create_task(self.outlet.publish()), asyncio.create_task(self.watch.gaps.fill())]

    def carry(self, mark: Mark | None = None) -> None:
        self.watch.want([ONE, TWO], {})
        self.holes.continuity.begin(1, mark)

    def came(self, *sequences: int, price: float = 100.0) -> None:
        self.outlet.ticks.extend(trades(*sequences, price=price))
        self.outlet.wake()

    async def out(self) -> None:
        await self.outlet.flushed(5.0)

    async def kill(self) -> None:
        await end_tasks(self.running)

    def looked(self, at: Nanos) -> None:
        pass

    def show_polled(self, ticks: TickArray) -> None:
        self.outlet.show_polled(ticks)

    def fill_in(self, ticks: TickArray) -> int:
        raise AssertionError("what is numbered is filled in by its numbers")

    def fill_hole(self, ticks: TickArray) -> TickArray:
        return self.outlet.fill_hole(ticks)

    def bar(self, instrument: int, bar: Bar, final: bool) -> None:
        raise AssertionError("trades are told, minutes are not needed")

    def channels_of(self, instrument: InstrumentId) -> tuple[str, ...]:
        return ("trade",)

    async def filled(self, count: int = 1) -> list[FeedGap]:
        await self.watch.look()
        gaps = self.store.gaps
        await until(
            lambda: len(gaps) >= count and all(gap.state != "waiting" for gap in gaps.values()), 5, "gaps settled"
        )
        return list(gaps.values())


def read(redis: Redis) -> tuple[list[int], list[int]]:
    """What a reader gets: trades streamed and filled in, in order; each batch once."""
    senders, streamed, filled = Senders(), [], []
    for raw in redis.delivered:
        epoch, batch, shard, ticks = unpack_batch(raw)
        if senders.missed(epoch, batch, shard) is None:
            continue
        for flags, sequence in zip(ticks["flags"].tolist(), ticks["sequence"].tolist(), strict=True):
            (filled if flags & BACKFILLED else streamed).append(sequence)
    return streamed, filled


@pytest.fixture
async def redis(monkeypatch: pytest.MonkeyPatch) -> Redis:
    monkeypatch.setattr(feed_outlet, "_PAUSE_S", 0.005)
    # Patient: what a test means to be too late makes it less so.
    monkeypatch.setattr(feed_outlet, "HOLD_S", 60.0)
    monkeypatch.setattr(feed_outlet, "READERS_S", 60.0)
    monkeypatch.setattr(feed_holes, "FIRST_PAUSE_S", 0.01)
    return Redis()


@pytest.fixture
def provider() -> Provider:
    made = Provider()
    made.past[1] = trades(*range(1, 200), flags=BACKFILLED)
    return made


@contextlib.asynccontextmanager
async def worker_on(redis: Redis, provider: Provider, epoch: int = 1) -> AsyncIterator[Worker]:
    made = Worker(redis, provider, epoch)
    try:
        yield made
    finally:
        await made.kill()


async def test_a_trade_that_lacks_is_seen_with_the_next_and_filled_in(redis: Redis, provider: Provider) -> None:
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(5, 6, 9, 10)
        await worker.out()
        (gap,) = await worker.filled()
        await worker.out()
        assert (gap.state, gap.trades, gap.reason) == ("filled", 2, "trades 7 to 8 did not come")
    assert read(redis) == ([5, 6, 9, 10], [7, 8])


async def test_bad_trades_lack_nowhere_and_are_not_filled_in(redis: Redis, provider: Provider) -> None:
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(1, 2)
        worker.came(3, price=-1.0)
        worker.came(4, 6)
        await worker.out()
        (gap,) = await worker.filled()
        await worker.out()
        assert gap.reason == "trades 5 to 5 did not come"
    assert read(redis) == ([1, 2, 4, 6], [5])


@pytest.mark.parametrize("fault", ["away", "no answer"])
async def test_a_short_absence_of_the_bus_loses_and_doubles_nothing(
    redis: Redis, provider: Provider, fault: str
) -> None:
    """Whether a batch that was not answered came out cannot be known: it goes out again under its number."""
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(1)
        await worker.out()
        redis.fault = fault
        worker.came(2, 3)
        await asyncio.sleep(0.02)
        worker.came(4)
        await asyncio.sleep(0.02)
        redis.fault = ""
        await worker.out()
        assert worker.outlet.unpublished == 0
        assert not worker.holes.continuity.has_holes(1)
    assert read(redis) == ([1, 2, 3, 4], [])


async def test_what_waited_for_the_bus_for_too_long_is_a_gap_and_filled_in(
    redis: Redis, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_outlet, "HOLD_S", 0.1)
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(1)
        await worker.out()
        redis.fault = "away"
        for n in range(2, 40):
            worker.came(n)
            await asyncio.sleep(0.01)
        redis.fault = ""
        worker.came(40)
        await worker.out()
        gaps = await worker.filled()
        await worker.out()
        streamed, filled = read(redis)
        assert worker.outlet.unpublished == len(filled) > 0
        assert sorted(streamed + filled) == list(range(1, 41))
        assert {gap.reason for gap in gaps} == {"not published: the bus was away"}
        assert sum(gap.trades for gap in gaps) == len(filled)


async def test_readers_that_the_bus_lost_are_waited_for_but_not_for_ever(
    redis: Redis, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(1)
        await worker.out()
        redis.fault = "away"
        worker.came(2)
        await until(lambda: redis.failed > 0)
        redis.readers, redis.fault = 0, ""
        asked = redis.asked
        await until(lambda: redis.asked > asked)
        assert read(redis) == ([1], []), "nobody is there to hear it"
        redis.readers = 1
        await worker.out()
        assert read(redis) == ([1, 2], [])
        monkeypatch.setattr(feed_outlet, "READERS_S", 0.05)
        redis.fault, redis.failed = "away", 0
        worker.came(3)
        await until(lambda: redis.failed > 0)
        redis.readers, redis.fault = 0, ""
        await worker.out()
        assert read(redis) == ([1, 2, 3], [])


async def test_whoever_goes_on_after_a_kill_publishes_nothing_twice(redis: Redis, provider: Provider) -> None:
    """Killed between two notes of how far it had come: the batches since are noted, too."""
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(1, 2)
        await worker.out()
        await worker.holes.save({})
        worker.came(3, 4, 7)
        await worker.out()
    async with worker_on(redis, provider, epoch=2) as after:
        marks = await after.holes.read(Nanos(0))
        assert marks[1].next == 8
        for number, holes in (await after.holes.take_over()).items():
            assert number == ONE.number
            for hole in holes:
                after.watch.owe(ONE, hole)
        after.carry(marks[1])
        after.came(10, 11)
        await after.out()
        gaps = await after.filled(1)
        await after.out()
        await after.filled(1)
        await after.out()
        assert {gap.state for gap in gaps} == {"filled"}
    streamed, filled = read(redis)
    assert streamed == [1, 2, 3, 4, 7, 10, 11]
    assert sorted(filled) == [5, 6, 8, 9]


async def test_what_a_killed_worker_had_let_another_take_over_is_its_own_up_to_the_cut(
    redis: Redis, provider: Provider
) -> None:
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(1, 2)
        await worker.out()
        await worker.holes.save({1: 6})
    async with worker_on(redis, provider, epoch=2) as after:
        assert (await after.holes.read(Nanos(0)))[1].begin == 6
        for holes in (await after.holes.take_over()).values():
            for hole in holes:
                after.watch.owe(ONE, hole)
        (gap,) = await after.filled()
        await after.out()
        assert (gap.state, gap.reason) == ("filled", "the worker before this one ended")
    assert read(redis) == ([1, 2], [3, 4, 5])


async def test_what_is_told_of_a_worker_before_outlives_the_first_word_of_the_one_after_it(
    redis: Redis, provider: Provider
) -> None:
    """Its instruments may go to another worker, which asks a moment later."""
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(1, 2)
        await worker.out()
        await worker.holes.save({})
    async with worker_on(redis, provider, epoch=2) as after:
        await after.holes.take_over()
        await after.holes.save({})
        await after.holes.save({})
        assert (await after.holes.read(Nanos(0)))[1].next == 3
        assert await after.holes.read(Nanos(now() + SECOND)) == {}, "of another feed by this name"
        await after.holes.forget()
        assert await after.holes.read(Nanos(0)) == {}


async def test_what_a_provider_does_not_tell_is_named_by_its_numbers(redis: Redis, provider: Provider) -> None:
    provider.past[1] = trades(7, 8, flags=BACKFILLED)
    provider.since = Nanos(now() + SECOND)
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(4, 9)
        await worker.out()
        (gap,) = await worker.filled()
        await worker.out()
        assert (gap.state, gap.trades) == ("partly", 2)
        assert gap.detail.startswith("trades 5 to 6:")
        provider.past[1] = trades(7, flags=BACKFILLED)
        worker.came(12)
        await worker.out()
        gap = (await worker.filled(2))[1]
        assert (gap.state, gap.trades) == ("failed", 0)
        assert gap.detail.startswith("trades 10 to 11:")
        assert not worker.holes.continuity.has_holes(1)
    assert read(redis) == ([4, 9, 12], [7, 8])


async def test_a_provider_that_does_not_answer_or_does_not_know_yet_is_asked_again(
    redis: Redis, provider: Provider
) -> None:
    provider.trouble = [NotReady("busy", 1.0)]
    told = provider.past[1]
    provider.past[1] = trades(1, 2, flags=BACKFILLED)

    async def later() -> None:
        await asyncio.sleep(0.03)
        provider.past[1] = told

    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(1, 4)
        await worker.out()
        known = asyncio.create_task(later())
        (gap,) = await worker.filled()
        await known
        await worker.out()
        assert (gap.state, gap.trades) == ("filled", 2)
    assert read(redis) == ([1, 4], [2, 3])


async def test_what_was_to_be_filled_in_when_the_bus_went_away_is_owed_again(
    redis: Redis, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_outlet, "HOLD_S", 0.1)
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(1, 5)
        await worker.out()
        redis.fault = "away"
        (gap,) = await worker.filled()
        assert gap.trades == 3
        await until(lambda: worker.outlet.unpublished == 3, 5, "they are let go")
        redis.fault = ""
        worker.came(6)
        await worker.out()
        assert worker.holes.continuity.has_holes(1)
        gaps = await worker.filled(2)
        await worker.out()
        assert [each.trades for each in gaps] == [3, 3]
    assert read(redis) == ([1, 5, 6], [2, 3, 4])


@pytest.mark.parametrize("is_back", [True, False])
async def test_a_gap_that_nobody_had_told_of_is_told_when_the_instrument_is_let_go(
    redis: Redis, provider: Provider, *, is_back: bool
) -> None:
    """Its time names the quotes that lie in it, too: they are not to be had any more."""
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.watch.opened()
        worker.came(1, 2)
        await worker.out()
        await worker.watch.look()
        before = now()
        worker.watch.closed("cut")
        worker.watch.opened()
        if is_back:
            worker.came(5)
            await worker.out()
        worker.holes.continuity.end(1, cut=0 if is_back else 5)
        worker.watch.drop([ONE])
        (gap,) = await worker.filled()
        await worker.out()
        assert (gap.state, gap.trades, gap.reason) == ("filled", 2, "the stream was gone: cut")
        assert gap.since <= before <= gap.until
    assert read(redis) == ([1, 2, 5] if is_back else [1, 2], [3, 4])


async def test_what_lacks_of_an_instrument_that_was_let_go_is_still_filled_in(redis: Redis, provider: Provider) -> None:
    async with worker_on(redis, provider) as worker:
        worker.carry()
        worker.came(1, 2)
        await worker.out()
        worker.holes.continuity.end(1, cut=5)
        worker.watch.drop([ONE])
        (gap,) = await worker.filled()
        await worker.out()
        assert (gap.state, gap.trades, gap.reason) == ("filled", 2, "trades lacked when it was let go")
    assert read(redis) == ([1, 2], [3, 4])

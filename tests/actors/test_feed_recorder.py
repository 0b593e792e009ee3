"""The recorder as a plain object, on a real PostgreSQL, Redis and disk: no Ray."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from actors.feed_recorder import FeedRecorder
from actors.feed_worker import FeedWorker
from actors.shell import Shell
from cluster import streams
from connectors.binance.simulator import BinanceSimulator
from connectors.binance.synthetic import SyntheticSettings, SyntheticSource
from connectors.recordings import Problems
from connectors.registry import market_data
from connectors.tick_files import read_ticks
from storage.bars import Bars
from storage.bus import Bus
from storage.database import Database
from storage.desired import Desired
from storage.hot import Hot
from storage.instruments import Instruments
from storage.records import FeedRecord
from storage.tasks import end_tasks
from tests.storage.conftest import database_url, redis_url, server_url
from tests.storage.test_keeping import instrument
from trading.bar_building import GRACE, BarRevision, Built
from trading.bar_deriving import MINUTE, SECOND
from trading.ids import FeedId, InstrumentId, Nanos
from trading.seen import Beat
from trading.spans import Span
from trading.ticks import TRADE, TickBuffer, pack_batch

__all__ = ["database_url", "redis_url", "server_url"]

START = 1_700_000_040 * SECOND
BTC = InstrumentId("BINANCE:BTCUSDT")


class Worker:
    """Plays shard 0 of the feed: a trade a second, told to have been seen whole from the beginning."""

    def __init__(self, bus: Bus, number: int) -> None:
        self.bus = bus
        self.number = number
        self.batch = 0

    async def trade(self, *times: int, received_at: int = 0, lost: bool = False) -> None:
        buffer = TickBuffer()
        for at in times:
            buffer.trade(self.number, 100.0 + at // SECOND % 60, 2.0, 0, at, received_at or at + 1, 0)
        self.batch += 1
        if not lost:
            await self.bus.publish(streams.ticks("main"), pack_batch(1, self.batch, 0, buffer.take()))

    async def beat(self, at: int) -> None:
        beat = Beat(0, 1, self.batch, Nanos(at), ((self.number, Nanos(START - MINUTE)),))
        await self.bus.publish(streams.beats("main"), msgspec.msgpack.encode(beat))

    async def seconds(self, first: int, last: int) -> None:
        for second in range(first, last):
            await self.trade(START + second * SECOND + 5)
            await self.beat(START + (second + 1) * SECOND)


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[Bus]:
    bus = Bus(redis_url)
    yield bus
    await bus.close()


@pytest.fixture
async def number(database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A deck with a feed of one instrument; its number."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("QUARTERDECK_DATA_DIR", str(tmp_path))
    # The bars here are of 2023.
    monkeypatch.setenv("QUARTERDECK_SECOND_BAR_DAYS", "100000")
    monkeypatch.setenv("QUARTERDECK_MINUTE_BAR_DAYS", "100000")
    monkeypatch.setenv("QUARTERDECK_TICK_DAYS", "100000")
    db = Database(database_url, size=1)
    await db.open()
    (btc,) = await Instruments(db).upsert([instrument("BTCUSDT")])
    record = FeedRecord(
        id=FeedId("main"), provider="binance-usdm", settings={}, channels=("trade",), workers=1, instruments=(BTC,),
        created_at=Nanos(1),
    )  # fmt: skip
    await Desired(db).create_feed(record, "test")
    await db.close()
    return btc.number


async def running() -> FeedRecorder:
    recorder = FeedRecorder("main")
    async with asyncio.timeout(20):
        while recorder.state != "ready":
            await asyncio.sleep(0.02)
        hot = Hot(os.environ["REDIS_URL"])
        while not await hot.listeners(streams.beats("main")):
            await asyncio.sleep(0.02)
        await hot.close()
        await asyncio.sleep(0.3)  # where the one before it is still listed as listening
    return recorder


async def heard(recorder: FeedRecorder, at: int) -> None:
    """Wait until the recorder has heard a worker's beat of ``at``."""
    async with asyncio.timeout(20):
        while recorder.seen.complete_until() < at:
            await asyncio.sleep(0.01)


async def ended(actor: Shell) -> None:
    await actor.stop()
    await end_tasks(actor._tasks)


async def test_bars_are_stored_covered_and_told_and_ticks_recorded(
    number: int, bus: Bus, database_url: str, tmp_path: Path
) -> None:
    told = await bus.subscribe([streams.built("main")])
    recorder = await running()
    worker = Worker(bus, number)
    await worker.beat(START)
    await worker.seconds(0, 130)
    await heard(recorder, START + 130 * SECOND)
    await ended(recorder)
    db = Database(database_url, size=1)
    await db.open()
    bars, always = Bars(db), Span(0, 2**62)
    # Whole from the grace after its first beat on; the first whole minute is the second one.
    grace = GRACE // SECOND
    seconds = await bars.read(number, SECOND, always)
    assert [bar.opened_at for bar in seconds] == [START + n * SECOND for n in range(grace, 130)]
    assert {(bar.volume, bar.trades) for bar in seconds} == {(2.0, 1)}
    first = -(-(START + GRACE) // MINUTE) * MINUTE
    (minute,) = await bars.read(number, MINUTE, always)
    assert (minute.opened_at, minute.trades, minute.volume) == (first, 60, 120.0)
    covered = Span(START + GRACE, START + 130 * SECOND - GRACE)
    assert await bars.covered(number, SECOND, always) == [covered]
    assert await bars.covered(number, MINUTE, always) == [Span(first, first + MINUTE)]
    await db.close()
    published: list[BarRevision] = []
    while len(published) < len(seconds) + 1:
        async with asyncio.timeout(20):
            _, raw = await anext(told)
        published += msgspec.msgpack.decode(raw, type=Built).bars
    assert [each.bar for each in published if each.width == SECOND] == seconds
    await told.close()
    (path,) = (tmp_path / "ticks" / "main" / "2023-11-14").glob("*.parquet")
    problems = Problems()
    assert len(read_ticks(path, {BTC: number}, problems)) == 130
    assert problems.found == []


async def test_what_was_lost_is_not_covered_and_what_came_too_late_is_taken_back(
    number: int, bus: Bus, database_url: str
) -> None:
    recorder = await running()
    worker = Worker(bus, number)
    await worker.beat(START)
    await worker.seconds(0, 30)
    await worker.trade(START + 30 * SECOND + 5, lost=True)
    await worker.beat(START + 31 * SECOND)
    await worker.seconds(31, 60)
    await heard(recorder, START + 60 * SECOND)
    await recorder._save()
    db = Database(database_url, size=1)
    await db.open()
    bars, always = Bars(db), Span(0, 2**62)
    one, other = await bars.covered(number, SECOND, always)
    assert one.start == START + GRACE
    assert one.end <= START + 30 * SECOND - GRACE
    assert other == Span(START + 31 * SECOND + GRACE, START + 60 * SECOND - GRACE)
    assert [bar.opened_at for bar in await bars.read(number, SECOND, Span(START + 30 * SECOND, other.start))] == []
    late = START + 40 * SECOND
    await worker.trade(late + 7, received_at=late + SECOND + GRACE)
    await worker.seconds(60, 75)
    await heard(recorder, START + 75 * SECOND)
    await recorder._save()
    assert late not in {at for span in await bars.covered(number, SECOND, always) for at in range(*span, SECOND)}
    assert [tape.late for tape in recorder.tapes] == [1, 0]
    assert recorder.facts()["lost"] == 1
    await db.close()
    await ended(recorder)


async def test_from_the_venues_wire_to_bars_that_are_known_whole(
    number: int, database_url: str, tmp_path: Path
) -> None:
    """A real worker on a simulated venue, and a recorder, without Ray: what is stored is what came over the wire."""
    venue = BinanceSimulator(SyntheticSource(SyntheticSettings(symbols=3, ticks_per_s=60)))
    await venue.start()
    db = Database(database_url, size=1)
    await db.open()
    desired = Desired(db)
    await desired.delete_feed(FeedId("main"), "test")
    market = market_data("binance-spot", {"base_url": venue.url})
    listed = await Instruments(db).upsert(await market.instruments())
    await market.close()
    ids = tuple(each.id for each in listed)
    record = FeedRecord(
        id=FeedId("main"), provider="binance-spot", settings={"base_url": venue.url}, channels=("trade",), workers=1,
        instruments=ids, created_at=Nanos(1),
    )  # fmt: skip
    await desired.create_feed(record, "test")
    recorder = await running()
    worker = FeedWorker("main", 0)
    async with asyncio.timeout(20):
        while worker.state != "ready":
            await asyncio.sleep(0.02)
    await worker.carry(ids, False)
    bars, always = Bars(db), Span(0, 2**62)
    async with asyncio.timeout(60):
        while True:
            covered = {each.number: await bars.covered(each.number, SECOND, always) for each in listed}
            if all(spans and spans[0].end - spans[0].start >= 3 * SECOND for spans in covered.values()):
                break
            await asyncio.sleep(0.2)
    await ended(worker)
    await ended(recorder)
    await venue.stop()
    assert worker.stats().garbage == 0
    recorded = list((tmp_path / "ticks" / "main").rglob("*.parquet"))
    problems = Problems()
    ticks = np.concatenate([read_ticks(path, {each.id: each.number for each in listed}, problems) for path in recorded])
    for each in listed:
        (span,) = await bars.covered(each.number, SECOND, always)
        own = ticks[(ticks["instrument"] == each.number) & (ticks["flags"] & TRADE > 0)]
        stored = await bars.read(each.number, SECOND, span)
        slots = own["exchange_at"] // SECOND * SECOND
        wanted = [int(slot) for slot in np.unique(slots) if span.start <= slot < span.end]
        assert [bar.opened_at for bar in stored] == wanted
        for bar in stored:
            inside = own[slots == bar.opened_at]
            assert (bar.trades, bar.high, bar.low) == (len(inside), inside["price"].max(), inside["price"].min())
            assert bar.volume == pytest.approx(float(inside["size"].sum()))
    await db.close()

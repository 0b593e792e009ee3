"""A feed worker on a simulated venue that misbehaves, with a real PostgreSQL and Redis and without Ray.

Whatever the venue does, every trade comes out once: streamed, or filled in and marked so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors import feed_gaps, feed_worker
from actors.feed_worker import FeedWorker
from cluster import process, streams
from connectors.binance.simulator import BinanceSimulator
from connectors.binance.synthetic import SyntheticSettings, SyntheticSource
from connectors.registry import market_data
from storage.bus import Bus
from storage.database import Database
from storage.desired import Desired
from storage.feed_quality import FeedGaps, FeedTunings
from storage.hot import Hot
from storage.instruments import Instruments
from storage.records import FeedGap, FeedRecord
from storage.tasks import end_tasks
from tests.connectors.support import until
from tests.storage.conftest import database_url, db, redis_url, server_url
from tests.support.patience import PATIENCE
from trading.feed_tuning import Tuning
from trading.ids import FeedId, InstrumentId, Nanos
from trading.ticks import BACKFILLED, SNAPSHOT, TRADE, unpack_batch

__all__ = ["database_url", "db", "redis_url", "server_url"]

FEED = FeedId("main")
#: Short, so that a test need not wait for minutes.
QUICK = Tuning(freshness={"least_s": 1.0, "first_s": 2.0, "pending_s": 2.0, "step_s": 1.0, "again_s": 3.0})
SYMBOLS = 4


@pytest.fixture
def its_own_process(
    monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str, tmp_path: Path
) -> Iterator[None]:
    """What an actor changes in its process, put back afterwards; and it may not end this one."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("QUARTERDECK_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(feed_worker, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(feed_worker, "POLL_EVERY_S", 0.2)
    monkeypatch.setattr(feed_worker, "TUNING_EVERY_S", 0.2)
    monkeypatch.setattr(feed_worker, "QUARANTINE_EVERY_S", 0.2)
    monkeypatch.setattr(feed_gaps, "PATIENCE_S", 3.0)

    def end(reason: str, code: int = 0) -> None:
        raise AssertionError(f"the actor ends its process: {reason}")

    monkeypatch.setattr(process, "end", end)
    root = logging.getLogger("quarterdeck")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = before


class Scene:
    """A venue, a worker on it, and everything that came out."""

    def __init__(self, venue: BinanceSimulator, db: Database, redis_url: str) -> None:
        self.venue = venue
        self.desired, self.gaps = Desired(db), FeedGaps(db)
        self.tunings = FeedTunings(db)
        self.instruments = Instruments(db)
        self.bus, self.hot = Bus(redis_url), Hot(redis_url)
        self.worker: FeedWorker
        self.ids: tuple[InstrumentId, ...] = ()
        self.numbers: dict[InstrumentId, int] = {}
        #: Number of instrument -> trades that came out: (sequence, whether it was filled in).
        self.trades: dict[int, list[tuple[int, bool]]] = defaultdict(list)
        #: Ticks that came out, by how they came.
        self.counts = {"stream": 0, "filled": 0, "polled": 0}
        self._hearing: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        market = market_data("binance-spot", {"base_url": self.venue.url})
        listed = await self.instruments.upsert(await market.instruments())
        await market.close()
        self.numbers = {each.id: each.number for each in listed}
        self.ids = tuple(sorted(self.numbers))
        record = FeedRecord(
            id=FEED,
            provider="binance-spot",
            settings={"base_url": self.venue.url},
            channels=("trade", "quote"),
            workers=1,
            instruments=self.ids,
            created_at=Nanos(time.time_ns()),
        )
        await self.desired.create_feed(record, "test")
        await self.tunings.put(FEED, None, QUICK, "test")
        heard = await self.bus.subscribe([streams.ticks(FEED)], [], size=100_000)

        async def hear() -> None:
            async for channel, raw in heard:
                assert channel, "the bus was lost"
                self._take(raw)

        self._hearing = asyncio.create_task(hear())
        await self.start()
        await until(lambda: self.states() == ["live"] * SYMBOLS, 30, "all live")
        # Some seconds, so that each has a habit.
        await asyncio.sleep(1.5)

    def _take(self, raw: bytes) -> None:
        for row in unpack_batch(raw)[3].tolist():
            number, flags, sequence = row[0], row[1], row[-1]
            is_filled = bool(flags & BACKFILLED)
            self.counts["filled" if is_filled else "polled" if flags & SNAPSHOT else "stream"] += 1
            if flags & TRADE and not flags & SNAPSHOT:
                self.trades[number].append((sequence, is_filled))

    async def start(self) -> None:
        self.worker = FeedWorker(FEED, 0)
        await until(lambda: self.worker.state == "ready", 30, "the worker")
        await self.worker.carry(self.ids, False)

    async def end(self) -> None:
        await self.worker.stop()
        await end_tasks([*self.worker._tasks])

    async def close(self) -> None:
        await self.end()
        if self._hearing is not None:
            await end_tasks([self._hearing])
        await self.bus.close()
        await self.hot.close()

    def command(self, name: str, **wish: Any) -> None:
        answer = self.venue.http("POST", f"/simulator/{name}", {}, msgspec.json.encode(wish))
        assert answer.status == 200, answer.body

    def silence(self, id_: InstrumentId, *, begin: bool = True) -> None:
        symbol = id_.partition(":")[2].lower()
        for kind in ("trade", "bookTicker"):
            self.command("pause" if begin else "resume", stream=f"{symbol}@{kind}")

    def states(self) -> list[str]:
        return [each.state for each in self.worker.stats().instruments]

    def stats(self, id_: InstrumentId) -> Any:
        return next(each for each in self.worker.stats().instruments if each.id == id_)

    async def written(self) -> list[FeedGap]:
        return (await self.gaps.page(FEED, None, None, None, 1000, None))[0]

    async def all_filled(self, count: int) -> list[FeedGap]:
        """Wait until there are so many gaps and all of them are filled."""
        deadline = time.monotonic() + 30 * PATIENCE
        while True:
            found = await self.written()
            if len(found) >= count and all(gap.state == "filled" for gap in found):
                return found
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.1)

    async def all_out(self) -> None:
        """Hold the market, and wait until all that it sent has come out."""
        self.command("hold")
        before = -1
        while before != (now := sum(self.counts.values())):
            before = now
            await asyncio.sleep(0.5)

    def check_each_trade_once(self) -> None:
        for number, seen in self.trades.items():
            sequences = sorted(sequence for sequence, _ in seen)
            assert len(set(sequences)) == len(sequences), f"instrument {number}: a trade came twice"
            first, last = sequences[0], sequences[-1]
            assert sequences == list(range(first, last + 1)), f"instrument {number}: a trade is missing"

    def check_accounts(self, bad: int = 0) -> None:
        """Every tick that came from the socket is accounted for, and every one that went out has its source."""
        stats = self.worker.stats()
        assert stats.unpublished == stats.garbage == 0
        assert stats.quarantined == bad == sum(stats.refused_ticks.values())
        assert stats.received - stats.quarantined - stats.withheld == self.counts["stream"]
        assert (stats.backfilled, stats.polled) == (self.counts["filled"], self.counts["polled"])
        assert stats.ticks == sum(self.counts.values())

    def sent(self) -> int:
        return sum(each["sent"] for each in self.venue.stats()["streams"].values())


@pytest.fixture
async def scene(its_own_process: None, db: Database, redis_url: str) -> AsyncIterator[Scene]:
    venue = BinanceSimulator(SyntheticSource(SyntheticSettings(symbols=SYMBOLS, ticks_per_s=240)))
    await venue.start()
    # Its clock stands still until somebody subscribes: from then on it is behind ours.
    await asyncio.sleep(3.0)
    made = Scene(venue, db, redis_url)
    try:
        await made.begin()
        yield made
    finally:
        await made.close()
        await venue.stop()


async def test_a_silent_part_of_a_subscription_is_found_asked_for_again_polled_and_filled_in(scene: Scene) -> None:
    quiet = scene.ids[1]
    scene.silence(quiet)
    await until(lambda: scene.stats(quiet).state == "stale", 30, "it stale")
    assert scene.stats(quiet).reason.startswith("silent for")
    assert [each.state for each in scene.worker.stats().instruments if each.id != quiet] == ["live"] * (SYMBOLS - 1)
    await until(lambda: scene.worker.stats().resubscribed > 0, 30, "a new subscription")
    await until(lambda: scene.stats(quiet).polled and scene.worker.stats().polled > 0, 30, "polls")
    number = scene.numbers[quiet]
    rows = scene.worker.last_values.all()
    assert rows["flags"][rows["instrument"] == number][0] & SNAPSHOT
    scene.silence(quiet, begin=False)
    await until(lambda: scene.stats(quiet).state == "live", 30, "it live again")
    await until(lambda: not scene.stats(quiet).polled, 30, "no more polls")
    (gap,) = await scene.all_filled(1)
    assert (gap.instrument, gap.shard, gap.reason) == (quiet, 0, "it fell silent")
    assert gap.until - gap.since > 1.0e9
    assert gap.trades == sum(filled for _, filled in scene.trades[number]) > 0
    assert scene.stats(quiet).gaps == 1
    await scene.all_out()
    scene.check_each_trade_once()
    scene.check_accounts()
    assert scene.worker.stats().received == scene.sent()


async def test_a_stream_that_is_silent_as_a_whole_is_given_up_and_one_that_is_cut_comes_back(scene: Scene) -> None:
    for each in scene.ids:
        scene.silence(each)
    await until(lambda: scene.worker.stats().given_up >= 1, 30, "a new connection")
    await until(lambda: set(scene.states()) == {"stale"}, 30, "all stale")
    for each in scene.ids:
        scene.silence(each, begin=False)
    await until(lambda: scene.states() == ["live"] * SYMBOLS, 30, "all live again")
    silent = await scene.all_filled(SYMBOLS)
    assert {gap.instrument for gap in silent} == set(scene.ids)
    await until(lambda: scene.states() == ["live"] * SYMBOLS, 30, "all live still")
    reconnects = scene.worker.stats().reconnects
    scene.command("drop")
    await until(lambda: scene.worker.stats().reconnects > reconnects, 30, "the loss to be seen")
    await until(lambda: scene.worker.stats().connected, 30, "the stream again")
    cut = await scene.all_filled(2 * SYMBOLS)
    assert {gap.instrument for gap in cut if gap.reason.startswith("the stream was gone")} == set(scene.ids), cut
    await scene.all_out()
    scene.check_each_trade_once()
    scene.check_accounts()


def bad_trade(symbol: str, price: str, sequence: int, at: int) -> str:
    stream = f"{symbol.lower()}@trade"
    return (
        f'{{"stream":"{stream}","data":{{"e":"trade","E":{at},"s":"{symbol}","t":{sequence},"p":"{price}",'
        f'"q":"1.0","T":{at},"m":true,"M":true}}}}'
    )


async def test_bad_ticks_are_kept_from_everybody_and_shown_and_the_filter_is_tuned_while_it_runs(scene: Scene) -> None:
    victim = scene.ids[0]
    number, symbol = scene.numbers[victim], victim.partition(":")[2]
    await until(lambda: scene.stats(victim).ticks > 150, 30, "a known price")
    good = float(scene.worker.last_values.all()["price"][0])
    assert good > 0
    for price in ("0.00000001", "99999999.0", "-5.0"):
        scene.command("garbage", text=bad_trade(symbol, price, 1, time.time_ns() // 1_000_000))
    await until(lambda: scene.worker.stats().quarantined == 3, 30, "three refused")
    assert scene.worker.stats().refused_ticks == {"not_positive": 1, "out_of_band": 2}
    assert scene.stats(victim).quarantined == 3
    key = f"quarantine:{FEED}:0:{victim}"

    async def shown() -> Any:
        return await scene.hot.get(key, dict)

    async with asyncio.timeout(20):
        while (held := await shown()) is None or len(held["last"]) < 3:
            await asyncio.sleep(0.05)
    assert held["counts"] == {"not_positive": 1, "out_of_band": 2}
    assert [tick["price"] for tick in held["last"]] == [1e-08, 99999999.0, -5.0]
    assert held["last"][0]["reference"] > 0
    # Its own settings let through what the feed's refuse; the others go on as they were.
    await scene.tunings.put(FEED, victim, Tuning(filter={"off": ["out_of_band"]}), "test")
    await until(lambda: "out_of_band" in scene.worker.quality.filter.settings_of(number).off, 30, "the settings")
    assert scene.worker.quality.filter.settings.off == ()
    last = max(sequence for sequence, _ in scene.trades[number])
    # By the venue's clock, or all that follows would seem to run backwards.
    at = scene.worker.watch.freshness.habits.trade(number)[1] // 1_000_000
    scene.command("garbage", text=bad_trade(symbol, "99999999.0", last + 10_000_000, at))
    await until(lambda: (last + 10_000_000, False) in scene.trades[number], 30, "it to come through")
    scene.trades[number].remove((last + 10_000_000, False))
    assert scene.worker.stats().quarantined == 3
    await scene.all_out()
    scene.check_each_trade_once()
    scene.check_accounts(bad=3)
    assert scene.worker.stats().received == scene.sent() + 4
    skew = scene.stats(victim).skew_ms
    assert skew is not None
    assert -1_000 < skew < 60_000


async def test_what_a_worker_that_ended_did_not_publish_is_filled_in_by_the_next_one(scene: Scene) -> None:
    await scene.end()
    await asyncio.sleep(1.5)
    await scene.start()
    await until(lambda: scene.states() == ["live"] * SYMBOLS, 30, "all live again")
    gaps = await scene.all_filled(SYMBOLS)
    assert {gap.reason for gap in gaps} == {"the worker before this one ended"}
    assert all(gap.trades for gap in gaps), gaps
    await scene.all_out()
    for number, seen in scene.trades.items():
        sequences = [sequence for sequence, _ in seen]
        assert set(range(min(sequences), max(sequences) + 1)) == set(sequences), f"{number}: a trade is missing"
        # Up to half a second before it ended may be filled in though it came out.
        assert len(sequences) - len(set(sequences)) < 60
    stream = [[sequence for sequence, filled in seen if not filled] for seen in scene.trades.values()]
    assert all(len(set(own)) == len(own) for own in stream)

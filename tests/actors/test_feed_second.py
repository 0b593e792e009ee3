"""A feed worker whose instruments have a second provider, on two servers of one market, without Ray.

Whichever of the two sends nothing, and whichever worker ends meanwhile: every trade comes out in order and once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from actors.feed_worker import FeedWorker
from cluster import streams
from connectors.registry import market_data
from storage.bus import Bus
from storage.database import Database
from storage.desired import Desired
from storage.feed_quality import FeedTunings
from storage.instruments import Instruments
from storage.records import FeedRecord
from storage.tasks import end_tasks
from tests.actors.test_feed_healing import its_own_process
from tests.connectors.support import until
from tests.storage.conftest import database_url, db, redis_url, server_url
from tests.support.patience import PATIENCE
from tests.support.twin_markets import TwinMarkets
from trading.feed_plan import Phase
from trading.feed_tuning import Tuning
from trading.ids import FeedId, InstrumentId, Nanos
from trading.seconds import SecondSource
from trading.seen import Beat
from trading.ticks import BACKFILLED, SECOND, SNAPSHOT, TRADE, unpack_batch

__all__ = ["database_url", "db", "its_own_process", "redis_url", "server_url"]

OWN, OTHER = FeedId("own"), FeedId("other")
QUICK = Tuning(freshness={"least_s": 1.0, "first_s": 1.5, "pending_s": 2.0, "step_s": 1.0, "again_s": 2.0})
SYMBOLS = 2
#: From the last tick of the first provider: the patience of one without a habit, a look, and a second on top.
TAKEN_OVER_S = 1.5 + 0.1 + 1.0


class Scene:
    """Feed `own` whose instruments have their seconds in feed `other`, each feed on its own server of one market."""

    def __init__(self, twins: TwinMarkets, db: Database, redis_url: str) -> None:
        self.twins = twins
        self.desired, self.instruments = Desired(db), Instruments(db)
        self.tunings, self.bus = FeedTunings(db), Bus(redis_url)
        self.ids: tuple[InstrumentId, ...] = ()
        self.numbers: dict[InstrumentId, int] = {}
        self.workers: dict[str, FeedWorker] = {}
        #: Everything that came out of `own`: (number, flags, venue time, price, size, sequence, when it came here).
        self.out: list[tuple[int, int, int, float, float, int, float]] = []
        #: Venue time, price and size of every trade of `other`, by number.
        self.truth: dict[int, list[tuple[int, float, float]]] = {}
        #: When a beat of `own` came, and what it called whole.
        self.beats: list[tuple[float, set[int]]] = []
        self._hearing: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        market = market_data(self.twins.provider, self.twins.source(0)["settings"])
        listed = await self.instruments.upsert(await market.instruments())
        await market.close()
        self.numbers = {each.id: each.number for each in listed}
        self.ids = tuple(sorted(self.numbers))
        for which, (feed, seconds) in enumerate(
            ((OTHER, {}), (OWN, {each: SecondSource(OTHER, each) for each in self.ids}))
        ):
            record = FeedRecord(
                id=feed,
                **self.twins.source(1 - which),
                channels=("trade", "quote"),
                workers=1,
                instruments=self.ids,
                created_at=Nanos(time.time_ns()),
                seconds=seconds,
            )
            await self.desired.create_feed(record, "test")
            await self.tunings.put(feed, None, QUICK, "test")
        heard = await self.bus.subscribe(
            [streams.ticks(OWN), streams.ticks(OTHER), streams.beats(OWN)], [], size=100_000
        )

        async def hear() -> None:
            async for channel, raw in heard:
                assert channel, "the bus was lost"
                if channel == streams.beats(OWN):
                    beat = msgspec.msgpack.decode(raw, type=Beat)
                    self.beats.append((time.monotonic(), {number for number, _ in beat.whole}))
                else:
                    self._take(channel, raw)

        self._hearing = asyncio.create_task(hear())
        await self.start(OTHER)
        await self.start(OWN)
        await until(lambda: all(self.twins.subscribed(n) == 2 * SYMBOLS for n in (0, 1)), 30, "all subscribed")
        self.twins.go()
        await until(lambda: self.states(OWN) == self.states(OTHER) == ["live"] * SYMBOLS, 30, "all live")
        await asyncio.sleep(0.5)
        # Before the market began, the second may have taken over from a first that had not come; it goes back.
        for id_ in self.ids:
            await self.in_use(id_, used=False)

    def _take(self, channel: str, raw: bytes) -> None:
        for number, flags, price, size, *_, at, _, sequence in unpack_batch(raw)[3].tolist():
            if channel == streams.ticks(OWN):
                self.out.append((number, flags, at, price, size, sequence, time.monotonic()))
            elif flags & TRADE and not flags & (SNAPSHOT | BACKFILLED):
                self.truth.setdefault(number, []).append((at, price, size))

    async def start(self, feed: FeedId, shard: int = 0, *, carry: bool = True) -> FeedWorker:
        made = FeedWorker(feed, shard)
        self.workers[f"{feed}/{shard}"] = made
        await until(lambda: made.state == "ready", 30, "the worker")
        if carry:
            await made.carry(self.ids, False)
        return made

    @property
    def worker(self) -> FeedWorker:
        return self.workers[f"{OWN}/0"]

    async def end(self, key: str, *, orderly: bool = True) -> None:
        """End a worker; one that is not ended orderly says no more and takes its last word with it."""
        gone = self.workers.pop(key)
        tasks = [*gone._tasks]
        if not orderly:
            await end_tasks(tasks)
        await gone.stop()
        await end_tasks(tasks)

    async def close(self) -> None:
        for key in [*self.workers]:
            await self.end(key)
        if self._hearing is not None:
            await end_tasks([self._hearing])
        await self.bus.close()

    def states(self, feed: FeedId) -> list[str]:
        return [each.state for each in self.workers[f"{feed}/0"].stats().instruments]

    def second(self, id_: InstrumentId, shard: int = 0) -> Any:
        stats = self.workers[f"{OWN}/{shard}"].stats().instruments
        return next(each for each in stats if each.id == id_).second

    async def in_use(self, id_: InstrumentId, shard: int = 0, *, used: bool = True) -> None:
        await until(lambda: self.second(id_, shard).in_use is used, 30, f"the second in use: {used}")

    def came(self, id_: InstrumentId, *, since: float = 0.0) -> list[tuple[int, int, float]]:
        """(flags, venue time, when it came) of the trades that came out, those that were filled in aside."""
        number = self.numbers[id_]
        skipped = SNAPSHOT | BACKFILLED
        return [
            (flags, at, came)
            for n, flags, at, *_, came in self.out
            if n == number and flags & TRADE and not flags & skipped and came >= since
        ]

    async def all_out(self) -> None:
        """Hold both markets, and wait until all that they sent has come out."""
        self.twins.go(going=False)
        before = -1
        while before != (now := len(self.out)):
            before = now
            await asyncio.sleep(0.4)

    def lost_and_doubled(self, id_: InstrumentId) -> tuple[Counter[Any], Counter[Any]]:
        """Trades that did not come out, and those that did too often, within the time that both markets were heard."""
        number, skipped = self.numbers[id_], SNAPSHOT | BACKFILLED
        out = [row[2:5] for row in self.out if row[0] == number and row[1] & TRADE and not row[1] & skipped]
        truth = self.truth[number]
        first, last = (choose((end(out)[0], end(truth)[0])) for choose, end in ((max, min), (min, max)))
        ours, theirs = (Counter(each for each in seen if first < each[0] < last) for seen in (out, truth))
        assert theirs.total() > 20
        return theirs - ours, ours - theirs


@pytest.fixture
def twins() -> Iterator[TwinMarkets]:
    with TwinMarkets(SYMBOLS, 160) as running:
        yield running


@pytest.fixture
async def scene(its_own_process: None, twins: TwinMarkets, db: Database, redis_url: str) -> AsyncIterator[Scene]:
    made = Scene(twins, db, redis_url)
    try:
        await made.begin()
        yield made
    finally:
        await made.close()


async def test_the_second_takes_over_within_a_second_of_the_verdict_and_the_first_comes_back(scene: Scene) -> None:
    quiet, other = scene.ids
    assert scene.second(quiet).feed == OTHER
    before = {id_: scene.second(id_).switches for id_ in scene.ids}
    silent = time.monotonic()
    scene.twins.silence(0, quiet)
    await scene.in_use(quiet)
    await asyncio.sleep(1.5)
    trades = scene.came(quiet)
    last = max(came for flags, _, came in trades if not flags & SECOND)
    first = min(came for flags, _, came in trades if flags & SECOND and came > silent)
    print(f"taken over {first - last:.2f} s after the last tick")
    assert first - last < TAKEN_OVER_S * PATIENCE
    assert all(flags & SECOND for flags, _, came in trades if came > first)
    # A machine that stands still for longer makes a silent instrument of any.
    by_second = any(flags & SECOND for flags, *_ in scene.came(other, since=silent))
    assert not by_second or scene.second(other).switches > before[other]
    assert all(row[5] == 0 for row in scene.out if row[1] & SECOND), "no sequence of another stream"
    await until(lambda: scene.beats[-1][0] > first, 10, "a beat meanwhile")
    again = time.monotonic()
    scene.twins.silence(0, quiet, begin=False)
    await scene.in_use(quiet, used=False)
    await until(lambda: scene.beats[-1][1] >= {scene.numbers[quiet]}, 10, "it whole again")
    await until(lambda: not scene.came(quiet)[-1][0] & SECOND, 10, "ticks of the first")
    whole = [number for at, beat in scene.beats if first < at < again for number in beat]
    assert scene.numbers[quiet] not in whole, "what comes from a second is not called whole"
    await scene.all_out()
    for id_ in scene.ids:
        assert scene.lost_and_doubled(id_) == (Counter(), Counter())
        times = [at for _, at, _ in scene.came(id_)]
        assert times == sorted(times)
    stats = scene.worker.stats()
    assert (stats.by_second, stats.second_lost) == (0, 0)
    switches = {id_: scene.second(id_).switches - before[id_] for id_ in scene.ids}
    assert switches[quiet] == 2 or (switches[quiet] > 2 and switches[other]), "there and back, once"
    # What came from the socket, and from the other feed, is accounted for.
    polled, filled = (sum(bool(row[1] & flag) for row in scene.out) for flag in (SNAPSHOT, BACKFILLED))
    seconds = sum(bool(row[1] & SECOND) for row in scene.out)
    assert (stats.from_second, stats.backfilled) == (seconds, filled)
    streamed = stats.received - stats.quarantined - stats.withheld
    assert streamed == len(scene.out) - seconds - filled - stats.polled
    assert polled >= stats.polled


async def test_a_worker_that_is_started_again_goes_on_with_the_second_and_doubles_nothing(scene: Scene) -> None:
    quiet, _ = scene.ids
    scene.twins.silence(0, quiet)
    await scene.in_use(quiet)
    await asyncio.sleep(0.8)
    await scene.end(f"{OWN}/0", orderly=False)
    ended = time.monotonic()
    await scene.start(OWN)
    started = time.monotonic()
    await until(lambda: bool(scene.came(quiet, since=ended + 0.05)), 10, "ticks of the second")
    flags, _, came = scene.came(quiet, since=ended + 0.05)[0]
    assert flags & SECOND
    print(f"its first tick came {came - started:.2f} s after its start")
    # It goes on with the second, and does not switch to it once more because the first is found wanting.
    how = scene.second(quiet)
    assert (how.in_use, how.switches) == (True, 0)
    scene.twins.silence(0, quiet, begin=False)
    await scene.in_use(quiet, used=False)
    await asyncio.sleep(0.5)
    await scene.all_out()
    _, doubled = scene.lost_and_doubled(quiet)
    assert doubled == Counter()


async def test_the_second_that_ends_meanwhile_goes_on_when_it_is_back(scene: Scene) -> None:
    quiet, _ = scene.ids
    scene.twins.silence(0, quiet)
    await scene.in_use(quiet)
    await scene.end(f"{OTHER}/0", orderly=False)
    await scene.start(OTHER)
    back = time.monotonic()
    await until(lambda: bool(scene.came(quiet, since=back)), 10, "ticks of the second")
    assert scene.second(quiet).in_use
    # Both are silent: nothing comes, the first is taken as soon as it has anything.
    scene.twins.silence(1, quiet)
    await asyncio.sleep(1.5)
    assert scene.second(quiet).in_use
    scene.twins.silence(0, quiet, begin=False)
    await scene.in_use(quiet, used=False)
    await scene.all_out()
    times = [at for _, at, _ in scene.came(quiet)]
    assert times == sorted(times)


async def test_a_move_while_the_second_is_in_use_loses_and_doubles_nothing(scene: Scene) -> None:
    quiet, other = scene.ids
    scene.twins.silence(0, quiet)
    await scene.in_use(quiet)
    taker = await scene.start(OWN, 1, carry=False)
    await taker.carry([quiet, other], True)

    async def firsts() -> dict[InstrumentId, Any]:
        report = await taker.report()
        assert report is not None
        return {id_: how.firsts for id_, how in report.carried.items()}

    deadline = time.monotonic() + 10 * PATIENCE
    while len((await firsts())[other]) < 2:
        assert time.monotonic() < deadline, "the new worker has no ticks"
        await asyncio.sleep(0.05)
    # Long enough that the new worker has kept ticks of the second beyond those that came out.
    await asyncio.sleep(0.5)
    cuts = await scene.worker.cut(await firsts())
    await asyncio.sleep(0.3)
    assert await scene.worker.cut(await firsts()) == cuts
    await taker.activate(cuts)
    assert scene.second(quiet, 1).in_use
    report = await scene.worker.report()
    assert report is not None
    assert {how.phase for how in report.carried.values()} == {Phase.ENDING}
    deadline = time.monotonic() + 10 * PATIENCE
    while not all(how.passed for how in report.carried.values()):
        assert time.monotonic() < deadline, "the old worker has not seen the cut"
        await asyncio.sleep(0.05)
        report = await scene.worker.report()
        assert report is not None
    await scene.worker.release([quiet, other])
    await asyncio.sleep(0.5)
    scene.twins.silence(0, quiet, begin=False)
    await scene.in_use(quiet, 1, used=False)
    await asyncio.sleep(0.5)
    await scene.all_out()
    for id_ in scene.ids:
        assert scene.lost_and_doubled(id_) == (Counter(), Counter())


async def test_seconds_are_taken_up_and_given_up_while_it_streams(scene: Scene) -> None:
    quiet, _ = scene.ids
    scene.twins.silence(0, quiet)
    await scene.in_use(quiet)
    await scene.desired.update_feed(OWN, {"seconds": {}}, "test")
    await until(lambda: scene.second(quiet) is None, 10, "no second")
    # What was on its way then has come.
    await asyncio.sleep(0.5)
    ended = time.monotonic()
    await asyncio.sleep(1.0)
    assert scene.came(quiet, since=ended) == []
    await scene.desired.update_feed(OWN, {"seconds": {quiet: SecondSource(OTHER, quiet)}}, "test")
    await until(lambda: scene.second(quiet) is not None, 10, "a second")
    await scene.in_use(quiet)
    await until(lambda: bool(scene.came(quiet, since=ended)), 10, "its ticks")

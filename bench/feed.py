"""The tick path against its floor: ``python -m bench.feed [--json]``.

Pipeline: simulator process → FeedWorker → Redis → AlgoHost → ``Strategy.on_ticks``, each in its own process, as
in a deck.  Floor: a bare ``websockets`` receive loop with typed msgspec decoding (`bench.bare`), fed by the same
simulator process.  Both take turns, each with the next few seconds of one seeded market played as fast as it
can; per second means from the simulator's start command to the last message delivered.  ``ratio`` is the median
of the turns' ratios.  ``lost`` compares what the simulator wrote with what the strategies themselves counted and what
the filter refused (``quarantined``: at full speed a minute of the market passes in seconds, and a jump looks wilder).

Near 1 the ratio says that the simulator was the bottleneck of both.  ``cpu_us_per_tick`` tells how far away the
stages were from being it: a stage of x µs can take 1,000,000 / x ticks/s with a core of its own.

``tick_to_strategy_ms`` is taken at a steady pace with a strategy that looks at each tick in ``on_tick``.  It is
the host's own histogram and begins at ``received_at``, when the worker had read the bytes from its socket: the
wire's times are whole milliseconds of market time, so nothing earlier can be compared with our clock.  What a
tick waits unread in the worker's socket is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from bench.counting import STRATEGIES
from bench.deck import BenchDeck, bench_deck, ready
from bench.market import Market, simulated_market

TURNS = 3
FULL_SPEED_S = 3.0
PACES = (1_000, 10_000, 25_000)
PACED_S = 4.0
FEED = "bench"


class Bench:
    """One deck with a feed of one worker, and the market that feeds it."""

    def __init__(self, deck: BenchDeck, market: Market) -> None:
        from storage.database import Database
        from storage.desired import Desired
        from storage.hot import Hot

        self.market = market
        self.database = Database(deck.settings.database_url)
        self.desired = Desired(self.database)
        self.hot = Hot(deck.settings.redis_url)
        self.instruments: tuple[Any, ...] = ()
        self.streams = ""
        self.epochs: dict[str, int] = {}
        #: Stage -> its process, while it runs.
        self.stages = {"simulator": psutil.Process(market.pid), "redis": psutil.Process(deck.redis_pid)}
        #: Stage -> CPU microseconds per tick of each turn.
        self.costs: dict[str, list[float]] = {}

    # Up

    async def prepare(self) -> None:
        """Instruments, a user with a paper account, a feed and two algos; the actors below an algo."""
        from cluster import names, runtime
        from cluster.names import ActorName, Kind
        from cluster.specs import ActorSpec
        from connectors.registry import market_data
        from storage.artefacts import Artefacts
        from storage.feed_quality import FeedTunings
        from storage.instruments import Instruments
        from storage.records import AccountRecord, AlgoRecord, FeedRecord, StrategyVersion, UserRecord
        from storage.strategies import Strategies
        from strategies.loader import load_source
        from trading.feed_tuning import Tuning
        from trading.ids import AccountId, AlgoId, Epoch, FeedId, Nanos, NodeName, UserId

        await self.database.open()
        at = Nanos(time.time_ns())
        settings = {"base_url": self.market.url}
        provider = market_data(self.market.provider, settings)
        listed = await provider.instruments()
        await provider.close()
        await Instruments(self.database).upsert(listed)
        self.instruments = tuple(i.id for i in listed)
        self.streams = "/".join(
            f"{i.provider_symbol.lower()}@{kind}" for i in listed for kind in ("trade", "bookTicker")
        )
        await self.desired.create_user(UserRecord(id=UserId("bench"), roles=("trader",), created_at=at), by="bench")
        account = AccountRecord(
            id=AccountId("bench-paper"),
            user=UserId("bench"),
            connector="paper",
            settings={"cash": "1000000", "feed": "none"},
            enabled=True,
            created_at=at,
        )
        await self.desired.create_account(account, by="bench")
        feed = FeedRecord(
            id=FeedId(FEED),
            provider=self.market.provider,
            settings=settings,
            channels=("trade", "quote"),
            workers=1,
            instruments=(),
            created_at=at,
        )
        await self.desired.create_feed(feed, by="bench")
        # Market time runs ahead of our clock at full speed, and stands still between turns: neither is wrong here.
        calm = {"least_s": 3_600.0, "most_s": 7_200.0, "first_s": 3_600.0, "pending_s": 3_600.0}
        tuning = Tuning(filter={"off": ["ahead", "backwards"]}, freshness=calm)
        await FeedTunings(self.database).put(feed.id, None, tuning, by="bench")
        for name, source in STRATEGIES.items():
            loaded = load_source(source, name)
            await Strategies(self.database).submit(
                StrategyVersion(
                    strategy=name,
                    version=loaded.version,
                    kind="file",
                    file_name=f"{name}.py",
                    artefact=await Artefacts(self.database).put(source.encode()),
                    size=len(source.encode()),
                    asked_entry="",
                    entry=loaded.entry,
                    schema=loaded.schema,
                    requirements=(),
                    pins=(),
                    checked={},
                    submitted_by="bench",
                    submitted_at=at,
                ),
                by="bench",
            )
            await self.desired.create_algo(
                AlgoRecord(
                    id=AlgoId(name),
                    user=UserId("bench"),
                    account=AccountId("bench-paper"),
                    strategy=name,
                    strategy_version=loaded.version,
                    parameters={},
                    instruments=self.instruments,
                    feed=FeedId(FEED),
                    node=NodeName(""),
                    want="running",
                    state="waiting",
                    reason="",
                    epoch=Epoch(0),
                    created_at=at,
                    updated_at=at,
                ),
                by="bench",
            )
        for kind, id_, shard in (
            (Kind.RISK, "main", None),
            (Kind.CONNECTION, "bench-paper", None),
            (Kind.SESSION, "bench", None),
            (Kind.COORDINATOR, FEED, None),
            (Kind.WORKER, FEED, 0),
        ):
            args = (id_,) if shard is None else (id_, shard)
            runtime.spawn(ActorSpec(name=ActorName(kind, id_, shard), args=args))
        for name in (names.session("bench"), names.coordinator(FEED), names.worker(FEED, 0)):
            pid = await ready(name)
        self.stages["worker"] = psutil.Process(pid)

    async def start_algo(self, name: str) -> None:
        """Start an algo under a new epoch."""
        from cluster import names, runtime
        from cluster.names import ActorName, Kind
        from cluster.specs import ActorSpec
        from trading.ids import AlgoId

        epoch = self.epochs[name] = int(await self.desired.new_algo_epoch(AlgoId(name)))
        runtime.spawn(ActorSpec(name=ActorName(Kind.ALGO, name, epoch), args=(name, epoch)))
        self.stages["algo"] = psutil.Process(await ready(names.algo(name, epoch)))

    async def stop_algo(self, name: str) -> int:
        """Stop it in good order; returns how many ticks the strategy itself counted."""
        from cluster import names, runtime
        from cluster.calls import Peer
        from storage.algo_log import AlgoLog
        from trading.ids import AlgoId

        actor = names.algo(name, self.epochs[name])
        await Peer(actor).call("stop", timeout=20.0)
        runtime.kill(actor)
        for line in await AlgoLog(self.database).tail(AlgoId(name)):
            if line.text.startswith("counted "):
                return int(line.text.removeprefix("counted "))
        raise RuntimeError(f"the strategy of {name} did not say what it counted")

    async def carry(self, wanted: bool) -> None:
        """Let the feed carry everything, or nothing, and wait until the simulator has seen it."""
        from cluster import names
        from cluster.calls import Peer
        from trading.ids import FeedId

        await self.desired.update_feed(FeedId(FEED), {"instruments": self.instruments if wanted else ()}, by="bench")
        await Peer(names.coordinator(FEED)).call("poke")
        expected = len(self.streams.split("/")) if wanted else 0
        await until(lambda: self.market.stats()["subscribed"] == expected, 20.0, f"{expected} subscribed streams")

    # Measured

    async def stats(self, name: str) -> Any:
        """The algo's latest figures."""
        from actors.algo_host import AlgoStats

        found = await self.hot.get(f"algo:{name}", AlgoStats)
        if found is None or found.epoch != self.epochs[name]:
            raise RuntimeError(f"{name} has told nothing of itself yet")
        return found

    async def refused(self) -> int:
        """Ticks that the worker's filter kept out so far."""
        from actors.feed_stats import WorkerStats

        # It tells twice a second.
        await asyncio.sleep(1.5)
        found = await self.hot.get(f"worker:{FEED}:0", WorkerStats)
        if found is None:
            raise RuntimeError("the worker has told nothing of itself lately")
        return found.quarantined

    async def settled(self, name: str, ticks: int) -> Any:
        """Its figures once ``ticks`` have been delivered; what has not come after three silent seconds is lost."""
        while True:
            stats = await self.stats(name)
            if stats.tick_age_s is not None:
                if stats.ticks > ticks:
                    raise RuntimeError(f"{stats.ticks - ticks} more ticks were delivered than sent")
                if stats.tick_age_s > (0.2 if stats.ticks == ticks else 3.0):
                    return stats
            await asyncio.sleep(0.1)

    def note_costs(self, before: dict[str, float], ticks: int, stages: Sequence[str]) -> None:
        """Keep what the stages spent on a turn of so many ticks."""
        after = self.spent()
        for stage in stages:
            self.costs.setdefault(stage, []).append((after[stage] - before[stage]) * 1e6 / ticks)

    def spent(self) -> dict[str, float]:
        """CPU seconds of each stage until now."""
        times = {stage: process.cpu_times() for stage, process in self.stages.items()}
        return {stage: spent.user + spent.system for stage, spent in times.items()}

    async def run_for(self, seconds: float) -> tuple[int, int]:
        """Let the market run; returns when it began (ns) and how many messages it sent."""
        before = self.market.stats()["sent"]
        began = time.time_ns()
        self.market.run()
        await asyncio.sleep(seconds)
        return began, self.market.hold() - before

    async def pipeline(self) -> tuple[float, int]:
        """Ticks per second through the pipeline, and how many of them never came."""
        await self.carry(True)
        self.market.set_pace(None)
        before, spent = (await self.stats("counter")).ticks, self.spent()
        began, sent = await self.run_for(FULL_SPEED_S)
        stats = await self.settled("counter", before + sent)
        self.note_costs(spent, sent, ("simulator", "worker", "redis", "algo"))
        last_at = stats.at - int(stats.tick_age_s * 1e9)
        delivered = stats.ticks - before
        await self.carry(False)
        return delivered / ((last_at - began) / 1e9), sent - delivered

    async def bare(self) -> float:
        """Messages per second through the bare loop."""
        self.market.set_pace(None)
        url = "ws" + self.market.url.removeprefix("http") + "/stream?streams=" + self.streams
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.bare", url, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):
                if await process.stdout.readline() != b"ready\n":
                    raise RuntimeError("the bare loop did not connect")
                self.stages["bare"] = psutil.Process(process.pid)
                spent = self.spent()
                began, sent = await self.run_for(FULL_SPEED_S)
                self.note_costs(spent, sent, ("bare",))
                del self.stages["bare"]
                process.stdin.write(b"stop\n")
                found = json.loads(await process.stdout.readline())
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        if found["count"] != sent:
            raise RuntimeError(f"the bare loop got {found['count']} of {sent} messages")
        return float(found["count"] / ((found["last_at"] - began) / 1e9))

    async def latency(self, ticks_per_s: int) -> tuple[float, float, int]:
        """p50 and p99 of tick to strategy in milliseconds at a pace, and how many ticks never came."""
        from trading.histogram import Histogram

        self.market.set_pace(ticks_per_s)
        before = await self.stats("watcher")
        _, sent = await self.run_for(PACED_S)
        after = await self.settled("watcher", before.ticks + sent)
        counts = {b: n - before.tick_to_strategy.get(b, 0) for b, n in after.tick_to_strategy.items()}
        histogram = Histogram(counts)
        p50, p99 = histogram.quantile(0.5), histogram.quantile(0.99)
        if p50 is None or p99 is None:
            raise RuntimeError(f"nothing was delivered at {ticks_per_s} ticks/s")
        return p50, p99, sent - (after.ticks - before.ticks)

    async def measure(self) -> dict[str, Any]:
        """All figures of one run."""
        load = os.getloadavg()[0]
        await self.prepare()
        await self.start_algo("counter")
        # The first moments of a market are spent on its history and on cold caches.
        await self.warm("counter")
        turns = []
        lost, refused = 0, await self.refused()
        self.costs.clear()
        for turn in range(TURNS):
            if turn % 2:
                bare = await self.bare()
                per_s, missing = await self.pipeline()
            else:
                per_s, missing = await self.pipeline()
                bare = await self.bare()
            turns.append((per_s, bare))
            lost += missing
        delivered = (await self.stats("counter")).ticks
        counted = await self.stop_algo("counter")
        if counted != delivered:
            raise RuntimeError(f"the host says {delivered} ticks, the strategy counted {counted}")
        await self.start_algo("watcher")
        await self.carry(True)
        self.market.set_pace(PACES[0])
        _, sent = await self.run_for(1.0)
        lost += sent - (await self.settled("watcher", sent)).ticks
        samples: dict[int, list[tuple[float, float]]] = {pace: [] for pace in PACES}
        for _ in range(TURNS):
            for pace in PACES:
                p50, p99, missing = await self.latency(pace)
                samples[pace].append((p50, p99))
                lost += missing
        await self.stop_algo("watcher")
        refused = await self.refused() - refused
        await self.database.close()
        await self.hot.close()
        median = statistics.median
        return {
            "pipeline_per_s": round(median(p for p, _ in turns)),
            "bare_per_s": round(median(b for _, b in turns)),
            "ratio": round(median(p / b for p, b in turns), 3),
            "lost": lost - refused,
            "quarantined": refused,
            "tick_to_strategy_ms": {
                str(pace): {
                    "p50": round(median(p50 for p50, _ in got), 3),
                    "p99": round(median(p99 for _, p99 in got), 3),
                }
                for pace, got in samples.items()
            },
            "cpu_us_per_tick": {stage: round(median(spent), 2) for stage, spent in self.costs.items()},
            # Who else was at work: with all cores busy beforehand, latencies are those of the scheduler.
            "load_before": round(load, 2),
            "turns": [{"pipeline_per_s": round(p), "bare_per_s": round(b)} for p, b in turns],
        }

    async def warm(self, name: str) -> None:
        """Half a second at full speed through the pipeline, not counted."""
        await self.carry(True)
        self.market.set_pace(None)
        _, sent = await self.run_for(0.5)
        await self.settled(name, sent)


async def until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something that shows from outside."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        await asyncio.sleep(0.05)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with simulated_market() as market, bench_deck() as deck:
        found = asyncio.run(Bench(deck, market).measure())
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:22} {value}")


if __name__ == "__main__":
    main()

"""Workers come and go while all ticks flow: ``python -m bench.rebalance [--json]``.

A feed of 9,000 instruments at 9,000 ticks/s changes from 3 workers to 5 and then to 2.  Its coordinator, workers,
Redis and PostgreSQL are those of a deck; the provider is Binance's simulator with its limits lifted, in which every
tick is numbered (`bench.numbered`).  A reader on the bus notes each tick it gets and which worker published it.

``lost``: ticks that the provider sent to anybody and the reader never got.  ``duplicates``: ticks that it got more
than once.  ``moves``: how often an instrument's ticks went over to another worker, as the reader saw it;
``minimum_moves``: the fewest with which the even splits can be reached.  ``seconds``: from each change of the number
of workers until all was where it should be, together; the start of new workers' processes is part of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import psutil

from bench.deck import BenchDeck, bench_deck, ready
from bench.market import Market

INSTRUMENTS = 9_000
TICKS_PER_S = 9_000
WORKERS = (3, 5, 2)
#: Before the first change, between changes and after the last.
PAUSE_S = 3.0
SETTLE_S = 120.0
FEED = "bench"
#: Streams that a worker may ask for: enough for all instruments in every channel.
LIFTED = {"streams_per_connection": 8 * INSTRUMENTS, "messages_per_s": 100}


class Reader:
    """All that is published of a feed."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        #: Of each tick: instrument, sequence, shard.
        self._parts: list[tuple[Any, Any, int]] = []
        self.ticks = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen from now on."""
        from cluster import streams
        from storage.bus import LOST, Bus
        from trading.ticks import unpack_batch

        subscription = await Bus(self._redis_url).subscribe([streams.ticks(FEED)], [], size=1_000_000)

        async def listen() -> None:
            async for message in subscription:
                if message is LOST:
                    raise RuntimeError("the reader itself was cut off")
                _, _, shard, ticks = unpack_batch(message[1])
                self._parts.append((ticks["instrument"].copy(), ticks["sequence"].copy(), shard))
                self.ticks += len(ticks)

        self._task = asyncio.create_task(listen())

    def check(self) -> None:
        """Raise what ended it."""
        if self._task is not None and self._task.done():
            self._task.result()

    def judge(self) -> tuple[int, int, int]:
        """``(different ticks, duplicates, moves)`` of all that came."""
        numbers = np.concatenate([part[0] for part in self._parts]).astype(np.int64)
        sequences = np.concatenate([part[1] for part in self._parts])
        shards = np.concatenate([np.full(len(part[0]), part[2]) for part in self._parts])
        order = np.lexsort((sequences, numbers))
        numbers, sequences, shards = numbers[order], sequences[order], shards[order]
        is_same = numbers[1:] == numbers[:-1]
        duplicates = int((is_same & (sequences[1:] == sequences[:-1])).sum())
        moves = int((is_same & (shards[1:] != shards[:-1])).sum())
        return len(numbers) - duplicates, duplicates, moves


class Rebalance:
    """One deck with one feed whose workers come and go."""

    def __init__(self, deck: BenchDeck, market: Market) -> None:
        from storage.database import Database
        from storage.desired import Desired
        from storage.hot import Hot

        self.market = market
        self.database = Database(deck.settings.database_url)
        self.desired = Desired(self.database)
        self.hot = Hot(deck.settings.redis_url)
        self.reader = Reader(deck.settings.redis_url)

    async def prepare(self) -> tuple[Any, ...]:
        """Instruments, the feed, its coordinator and first workers; returns the instruments once all are streamed."""
        from cluster import runtime
        from cluster.names import ActorName, Kind
        from cluster.specs import ActorSpec
        from connectors.registry import market_data
        from storage.instruments import Instruments
        from storage.records import FeedRecord
        from trading.ids import FeedId, Nanos

        await self.database.open()
        settings = {"base_url": self.market.url, **LIFTED}
        provider = market_data(self.market.provider, settings)
        listed = await provider.instruments()
        await provider.close()
        await Instruments(self.database).upsert(listed)
        instruments = tuple(each.id for each in listed)
        feed = FeedRecord(
            id=FeedId(FEED),
            provider=self.market.provider,
            settings=settings,
            channels=("trade",),
            workers=WORKERS[0],
            instruments=instruments,
            created_at=Nanos(time.time_ns()),
        )
        await self.desired.create_feed(feed, by="bench")
        runtime.spawn(ActorSpec(name=ActorName(Kind.COORDINATOR, FEED), args=(FEED,)))
        self._spawn(range(WORKERS[0]))
        await self._settled(1)
        return instruments

    def _spawn(self, shards: Sequence[int]) -> None:
        from cluster import runtime
        from cluster.names import ActorName, Kind
        from cluster.specs import ActorSpec

        for shard in shards:
            runtime.spawn(ActorSpec(name=ActorName(Kind.WORKER, FEED, shard), args=(FEED, shard)))

    async def resize(self, before: int, after: int) -> tuple[float, Any]:
        """Change the number of workers; returns the seconds until all was in its place, and the places."""
        from cluster import runtime
        from cluster.names import ActorName, Kind
        from trading.ids import FeedId

        began = time.monotonic()
        record = await self.desired.update_feed(FeedId(FEED), {"workers": after}, by="bench")
        self._spawn(range(before, after))
        view = await self._settled(record.generation)
        seconds = time.monotonic() - began
        for shard in range(after, before):
            runtime.kill(ActorName(Kind.WORKER, FEED, shard))
        return seconds, view.assignment

    async def _settled(self, generation: int) -> Any:
        """Wait until everything is where it should be for this generation, and only there."""
        from actors.feed_coordinator import FeedView
        from cluster import names
        from cluster.calls import Peer

        coordinator = names.coordinator(FEED)
        await ready(coordinator)
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            self.reader.check()
            view: FeedView | None = await Peer(coordinator).call("view", timeout=10.0)
            if view is not None and view.generation >= generation:
                left = (view.pending_steps, view.moving, view.uncarried, view.draining, view.silent, view.unknown)
                if not any(left) and self.market.stats()["subscribed"] == INSTRUMENTS:
                    return view
            await asyncio.sleep(0.2)
        raise TimeoutError(f"not settled within {SETTLE_S:g} s: {repr(view)[:500]}")

    async def measure(self) -> dict[str, Any]:
        """All figures of one run."""
        from actors.feed_coordinator import FeedView
        from cluster import names
        from cluster.calls import Peer
        from trading.sharding import least_moves

        load = os.getloadavg()[0]
        instruments = await self.prepare()
        await self.reader.start()
        first: FeedView = await Peer(names.coordinator(FEED)).call("view")
        places = first.assignment
        self.market.run()
        began = time.monotonic()
        coordinator = psutil.Process(await ready(names.coordinator(FEED))).cpu_times()
        await asyncio.sleep(PAUSE_S)
        later = psutil.Process(await ready(names.coordinator(FEED))).cpu_times()
        at_rest = later.user + later.system - coordinator.user - coordinator.system
        minimum, steps = 0, []
        for before, after in itertools.pairwise(WORKERS):
            minimum += least_moves(places, instruments, after)
            seconds, places = await self.resize(before, after)
            steps.append(seconds)
            await asyncio.sleep(PAUSE_S)
        self.market.hold()
        elapsed = time.monotonic() - began
        stats = self.market.stats()
        # A tick that two workers got is one tick.
        sent = int(stats["messages"])
        await until(lambda: self.reader.ticks >= sent, 10.0)
        self.reader.check()
        got, duplicates, moves = self.reader.judge()
        await self.database.close()
        await self.hot.close()
        return {
            "lost": sent - got,
            "duplicates": duplicates,
            "moves": moves,
            "minimum_moves": minimum,
            "moves_beyond_minimum": moves - minimum,
            "seconds": round(sum(steps), 2),
            "seconds_each": [round(step, 2) for step in steps],
            "ticks": sent,
            "ticks_per_s": round(sent / elapsed),
            # Share of a core that steering takes while there is nothing to do.
            "coordinator_core_at_rest": round(at_rest / PAUSE_S, 3),
            "instruments": len(instruments),
            "workers": list(WORKERS),
            "load_before": round(load, 2),
        }


async def until(true: Callable[[], bool], seconds: float) -> None:
    """Wait for it so long at most; what has not come by then is lost."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        await asyncio.sleep(0.1)


@contextlib.contextmanager
def numbered_market(*options: str) -> Iterator[Market]:
    """The market of `bench.numbered`, in a process of its own, holding still."""
    command = [sys.executable, "-m", "bench.numbered", *options]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the market did not start: see above")
        told = json.loads(line)
        market = Market(told["url"], told["provider"], process.pid)
        try:
            yield market
        finally:
            market.close()
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with numbered_market(str(INSTRUMENTS), str(TICKS_PER_S)) as market, bench_deck() as deck:
        found = asyncio.run(Rebalance(deck, market).measure())
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:16} {value}")


if __name__ == "__main__":
    main()

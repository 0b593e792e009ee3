"""Everything that is published of a feed, as a reader on the bus gets it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict

from cluster import streams
from storage.bus import Bus
from tests.support.patience import PATIENCE
from trading.ticks import BACKFILLED, TRADE, unpack_batch


class Tap:
    """Listens on a thread of its own."""

    def __init__(self, redis_url: str, feed: str) -> None:
        #: (instrument number, TRADE or 0) -> sequences in the order in which they came; those that were streamed, and
        #: those that were filled in later, marked so.
        self.sequences: dict[tuple[int, int], list[int]] = defaultdict(list)
        self.filled: dict[tuple[int, int], list[int]] = defaultdict(list)
        self.ticks = 0
        #: (shard, epoch) -> when its last batch came, and instrument number -> when the first tick of it came.
        self.last_from: dict[tuple[int, int], float] = {}
        self.first_of: dict[tuple[int, int], dict[int, float]] = defaultdict(dict)
        self._ready = threading.Event()

        async def listen() -> None:
            subscription = await Bus(redis_url).subscribe([streams.ticks(feed)], [], size=100_000)
            self._ready.set()
            async for channel, raw in subscription:
                if not channel:
                    continue
                at = time.monotonic()
                epoch, _, shard, ticks = unpack_batch(raw)
                self.last_from[(shard, epoch)] = at
                first_of = self.first_of[(shard, epoch)]
                for number, flags, sequence in zip(
                    ticks["instrument"].tolist(), ticks["flags"].tolist(), ticks["sequence"].tolist(), strict=True
                ):
                    if flags & BACKFILLED:
                        self.filled[(number, flags & TRADE)].append(sequence)
                        continue
                    self.sequences[(number, flags & TRADE)].append(sequence)
                    first_of.setdefault(number, at)
                # Last: who waits for the count finds the ticks.
                self.ticks += len(ticks)

        threading.Thread(target=lambda: asyncio.run(listen()), daemon=True).start()
        assert self._ready.wait(10 * PATIENCE), f"the tap could not subscribe within {10 * PATIENCE} s"

    def doubled(self) -> int:
        """Ticks that were streamed more than once."""
        return sum(len(seen) - len(set(seen)) for seen in self.sequences.values())

    def missing_trades(self) -> int:
        """Trades that never came between the first and the last that did, for their ids are consecutive."""
        trades = [seen for (_, kind), seen in self.sequences.items() if kind]
        return sum(max(seen) - min(seen) + 1 - len(set(seen)) for seen in trades)

    def streamed(self) -> int:
        """Ticks that came by the stream."""
        return sum(len(seen) for seen in list(self.sequences.values()))

    def forget_who(self) -> None:
        """Forget who has published what until now: whoever carried an instrument before may be the next again."""
        self.first_of.clear()

    def published(self, number: int, since: float, *, but: tuple[int, int]) -> float | None:
        """When an instrument was first published by a worker's incarnation that had not published it before ``since``,
        other than ``but``; None: by nobody yet."""
        begins = [
            first[number]
            for incarnation, first in list(self.first_of.items())
            if incarnation != but and first.get(number, 0.0) > since
        ]
        return min(begins, default=None)

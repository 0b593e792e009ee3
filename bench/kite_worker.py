"""What a feed worker spends on 3,000 instruments in full mode at one frame a second, over a real socket.

The simulator runs in a process of its own, its tokens all change within each second.  Here runs the connector on
uvloop, and with what it decodes everything that a feed worker does up to the bus: filter, habits of silence, hand-over,
last values four times a second, batches of ticks and depth framed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import uvloop

from connectors.base import BookDelta
from connectors.kite.market import KiteMarket
from trading.bars import Bar
from trading.depth import DepthArray, pack_depth
from trading.habits import Habits
from trading.handover import Handover
from trading.ids import InstrumentId
from trading.last_values import LastValues
from trading.quarantine import good
from trading.tick_filter import TickFilter
from trading.ticks import TickBuffer, decode, pack_batch

INSTRUMENTS: Final = 3_000
SECONDS: Final = 5.0
_LARGEST_BATCH: Final = 4_096
_WITHIN_S: Final = 30.0


class WorkerSink:
    """A feed's sink that does a worker's work and sends nothing."""

    def __init__(self) -> None:
        self.ticks = TickBuffer()
        self._handover = Handover()
        self._filter = TickFilter()
        self._habits = Habits()
        self.last_values = LastValues()
        self.books = 0
        self.bytes = 0
        self.is_open = False
        self.wrong: list[str] = []

    def wake(self) -> None:
        """Publish what came."""
        raw = decode(self.ticks.take())
        self._habits.take(raw)
        ticks = self._handover.admit(good(raw, self._filter.judge(raw)))
        for start in range(0, len(ticks), _LARGEST_BATCH):
            part = ticks[start : start + _LARGEST_BATCH]
            self.last_values.take(part)
            self.bytes += len(pack_batch(1, 1, 0, part.tobytes()))

    def depth(self, books: DepthArray) -> None:
        """Publish depth."""
        self.books += len(books)
        self.bytes += len(pack_depth(1, 1, 0, self._handover.shown(books)))

    def bar(self, instrument: int, bar: Bar, final: bool) -> None:
        """Kite sends none."""
        self.wrong.append("a bar")

    def book(self, delta: BookDelta) -> None:
        """Kite sends none."""
        self.wrong.append("a change of a book")

    def opened(self) -> None:
        """The stream is open."""
        self.is_open = True

    def closed(self, reason: str) -> None:
        """The stream is lost, which spoils the figure."""
        self.wrong.append(reason)

    def garbage(self, raw: bytes, reason: str) -> None:
        """A frame makes no sense, which spoils the figure."""
        self.wrong.append(reason)

    def refused(self, instrument: InstrumentId, reason: str) -> None:
        """An instrument is refused, which spoils the figure."""
        self.wrong.append(reason)


@contextlib.contextmanager
def simulator() -> Iterator[dict[str, Any]]:
    """The simulator in a process of its own; yields what it says of itself."""
    command = [sys.executable, "-m", "cluster", "simulate", "kite", "--port", "0", "--seed", "7", "--frames", "1"]
    # Ten changes of each instrument in a second: hardly one is left out of a frame.
    command += ["--shares", str(INSTRUMENTS + 10), "--rate", str(10 * INSTRUMENTS), "--unlimited"]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                raise RuntimeError(f"the simulator did not start: {errors.read()[-500:]}")
            yield dict(json.loads(line))
        finally:
            process.terminate()
            process.wait(10)


async def measure(told: dict[str, Any]) -> dict[str, float]:
    """Share of a core, and packets a second that came."""
    ((key, token),) = told["access_tokens"].items()
    market = KiteMarket({"base_url": told["url"]}, {"api_key": key, "access_token": token})
    listed = [each for each in await market.instruments() if each.id.startswith("NSE:SHARE")][:INSTRUMENTS]
    sink = WorkerSink()
    feed = market.feed(sink)
    await feed.subscribe(
        [msgspec.structs.replace(each, number=n) for n, each in enumerate(listed, 1)], ["trade", "quote", "depth"]
    )
    running = asyncio.create_task(feed.run())
    try:
        async with asyncio.timeout(_WITHIN_S):
            # Everything is subscribed and has been seen once.
            while not sink.is_open or sink.books < 3 * INSTRUMENTS:
                await asyncio.sleep(0.05)
        before, began, spent = feed.codec.packets, time.monotonic(), time.process_time()
        while time.monotonic() - began < SECONDS:
            await asyncio.sleep(0.25)
            sink.last_values.changed()
        elapsed = time.monotonic() - began
        spent = time.process_time() - spent
        packets = feed.codec.packets - before
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await market.close()
    if sink.wrong:
        raise RuntimeError(f"the stream did not stay whole: {sink.wrong[0]}")
    if packets < 0.6 * INSTRUMENTS * elapsed:
        raise RuntimeError(f"only {packets} packets came in {elapsed:.1f} s: the simulator is too slow here")
    return {"core": spent / elapsed, "packets_per_s": packets / elapsed}


def worker() -> dict[str, float]:
    """Run it."""
    with simulator() as told:
        return uvloop.run(measure(told))

"""The panel's stream with a client that does not read: ``python -m bench.panel [--json]``.

50 clients with 20 instruments each on `/v1/stream`, in front of an API in a process of its own.  Ticks come over the
bus as from a feed's worker.  A delay is what passes from the tick's receipt to the client's decoding of the update that
shows it; most of it is the client's pace (20 messages a second).  In the turns *with frozen* one of the 50 has stopped
reading; the figures are those of the other 49, the same ones in both kinds of turn.  ``ratio`` is the median of the
turns' p99 with it over that without it; ``frozen_skipped`` are the updates that were left out for it, told to it when
it read on, and ``api_growth_mb`` what the API's memory grew by over all turns with it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
from websockets.asyncio.client import ClientConnection, connect

CLIENTS = 50
EACH = 20
INSTRUMENTS = 100
TICKS_PER_S = 2_000
TURNS = 3
TURN_S = 5.0
FEED = "bench"


class _Update(msgspec.Struct):
    n: int
    skipped: int
    key: str
    body: dict[str, Any]


class _Message(msgspec.Struct):
    updates: list[_Update] = []


_message = msgspec.json.Decoder(_Message).decode


def serve(port: int) -> None:
    """The API alone, as ``python -m api`` runs it but without a cluster."""
    import uvicorn

    from api.app import create_app
    from cluster.settings import settings

    uvicorn.run(
        create_app(settings(), connect=False), port=port, loop="uvloop", log_level="warning", access_log=False,
        ws_per_message_deflate=False,
    )  # fmt: skip


class Panel:
    """The API's clients and the ticks that they look at."""

    def __init__(self, redis_url: str, port: int, key: str, numbers: dict[str, int]) -> None:
        from storage.bus import Bus

        self.bus = Bus(redis_url)
        self.port = port
        self.key = key
        self.numbers = numbers
        self.names = {number: name for name, number in numbers.items()}
        #: When the tick with this sequence was received, in UTC nanoseconds.
        self.sent_at: dict[int, int] = {}
        self.delays: list[float] | None = None
        self._sequence = 0

    async def publish(self) -> None:
        """Ticks at a steady pace, as a worker publishes them."""
        from cluster import streams
        from trading.ticks import TickBuffer, pack_batch

        rng = np.random.default_rng(3)
        batch, owed, at = 0, 0.0, time.monotonic()
        numbers = list(self.names)
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            owed, at = owed + (now - at) * TICKS_PER_S, now
            if owed < 1:
                continue
            buffer = TickBuffer()
            received_at = time.time_ns()
            for row in rng.integers(0, len(numbers), int(owed)).tolist():
                self._sequence += 1
                self.sent_at[self._sequence] = received_at
                buffer.trade(numbers[row], 100.0 + self._sequence % 7, 1.0, 0, received_at, received_at, self._sequence)
            owed -= int(owed)
            batch += 1
            await self.bus.publish(streams.ticks(FEED), pack_batch(1, batch, 0, buffer.take()))

    def hello(self, place: int) -> str:
        """The first message of a client."""
        names = list(self.numbers)
        mine = [names[(place * 7 + n) % len(names)] for n in range(EACH)]
        return json.dumps({"key": self.key, "topics": [f"ticks:{FEED}/{name}" for name in mine]})

    async def read(self, client: ClientConnection) -> None:
        """Take what comes and note how old it is."""
        async for text in client:
            now = time.time_ns()
            updates = _message(text).updates
            if self.delays is not None:
                self.delays += [(now - self.sent_at[each.body["sequence"]]) / 1e6 for each in updates]

    @contextlib.asynccontextmanager
    async def frozen(self) -> AsyncIterator[list[int]]:
        """One more client that says what it wants and then reads nothing; at the end it reads on, and the list has how
        many updates were left out for it."""
        raw = socket.socket()
        # A small window, so that what is sent piles up where it comes from, and soon.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", self.port))
        raw.setblocking(False)
        skipped: list[int] = []
        async with connect(f"ws://127.0.0.1:{self.port}/v1/stream", sock=raw, compression=None) as client:
            await client.send(self.hello(0))
            await client.recv()
            client.transport.pause_reading()
            yield skipped
            client.transport.resume_reading()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    async for text in client:
                        skipped += [each.skipped for each in _message(text).updates]

    async def turn(self) -> float:
        """p99 of the delays over a turn, in ms."""
        await asyncio.sleep(1.0)
        self.delays = []
        await asyncio.sleep(TURN_S)
        delays, self.delays = self.delays, None
        return float(np.percentile(delays, 99))


async def measure(panel: Panel, api: psutil.Process) -> dict[str, Any]:
    """Turns without and with the frozen client."""
    alone: list[float] = []
    beside: list[float] = []
    skipped = 0
    publishing = asyncio.create_task(panel.publish())
    async with contextlib.AsyncExitStack() as stack:
        readers = []
        for place in range(1, CLIENTS):
            url = f"ws://127.0.0.1:{panel.port}/v1/stream"
            client = await stack.enter_async_context(connect(url, compression=None))
            await client.send(panel.hello(place))
            await client.recv()
            readers.append(asyncio.create_task(panel.read(client)))
        await panel.turn()
        before = api.memory_info().rss
        for _ in range(TURNS):
            alone.append(await panel.turn())
            async with panel.frozen() as left_out:
                beside.append(await panel.turn())
            skipped += sum(left_out)
        grown = api.memory_info().rss - before
        for task in (publishing, *readers):
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(publishing, *readers, return_exceptions=True)
    await panel.bus.close()
    return {
        "clients": CLIENTS,
        "instruments_each": EACH,
        "ticks_per_s": TICKS_PER_S,
        "p99_ms_alone": round(statistics.median(alone), 2),
        "p99_ms_with_frozen": round(statistics.median(beside), 2),
        "ratio": round(statistics.median(b / a for a, b in zip(alone, beside, strict=True)), 3),
        "frozen_skipped": skipped,
        "api_growth_mb": round(grown / 2**20, 1),
    }


async def prepare(database_url: str) -> tuple[str, dict[str, int]]:
    """A key, and a feed of instruments."""
    from storage.database import Database
    from storage.desired import Desired
    from storage.first_run import first_run
    from storage.instruments import Instruments
    from storage.records import FeedRecord
    from trading.ids import FeedId, InstrumentId, Nanos
    from trading.instruments import Instrument

    key = await first_run(database_url)
    assert key is not None
    database = Database(database_url, size=1)
    await database.open()
    listed = await Instruments(database).upsert(
        [
            Instrument(
                id=InstrumentId(f"BENCH:S{n:03d}"), provider_symbol=f"S{n:03d}", provider="binance-spot",
                tick_size=Decimal("0.01"), lot_size=Decimal(1), currency="USDT",
            )
            for n in range(INSTRUMENTS)
        ]
    )  # fmt: skip
    feed = FeedRecord(
        id=FeedId(FEED), provider="binance-spot", settings={}, channels=("trade",), workers=1,
        instruments=tuple(each.id for each in listed), created_at=Nanos(time.time_ns()),
    )  # fmt: skip
    await Desired(database).create_feed(feed, "bench")
    await database.close()
    return key, {each.id: each.number for each in listed}


@contextlib.contextmanager
def api_process(
    database_url: str, redis_url: str, home: str, *, module: str = "bench.panel", path: str = "/healthz"
) -> Iterator[tuple[int, psutil.Process]]:
    """What ``module`` serves (the API) in a process of its own, answering at ``path``: its port and process."""
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url, "QUARTERDECK_DATA_DIR": home,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", module, "--serve", str(port)], env=environment, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}{path}", timeout=2)
                break
            except httpx.HTTPError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SystemExit("the API did not start") from None
                time.sleep(0.2)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(10)


def run() -> dict[str, Any]:
    """Everything, from servers to figures."""
    from storage.embedded import EmbeddedPostgres, EmbeddedRedis
    from storage.migrate import migrate

    with tempfile.TemporaryDirectory(prefix="qd-panel-") as folder:
        home = Path(folder)
        postgres, redis = EmbeddedPostgres(home / "postgres"), EmbeddedRedis(home / "redis")
        try:
            database_url, redis_url = postgres.start(), redis.start()
            migrate(database_url)
            key, numbers = asyncio.run(prepare(database_url))
            with api_process(database_url, redis_url, folder) as (port, process):
                return asyncio.run(measure(Panel(redis_url, port, key, numbers), process))
        finally:
            redis.stop()
            postgres.stop()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve)
        return
    found = run()
    print(json.dumps(found) if chosen.json else json.dumps(found, indent=2))


if __name__ == "__main__":
    main()

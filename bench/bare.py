"""The floor of the feed bench: a bare ``websockets`` receive loop with typed msgspec decoding, nothing else.

``python -m bench.bare URL``: connects (with every stream in the URL), says ``ready`` on standard output, counts
and decodes until told to stop by a line on standard input, then prints ``{"count": …, "last_at": …}``.  It runs
in a process of its own and on uvloop, as the actors do, and takes messages as bytes: the fastest plain loop.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import msgspec
import uvloop
from websockets.asyncio.client import connect


class _Trade(msgspec.Struct, gc=False):
    t: int
    p: float
    q: float
    T: int
    m: bool


class _Quote(msgspec.Struct, gc=False):
    u: int
    b: float
    B: float
    a: float
    A: float


class _TradeMessage(msgspec.Struct, gc=False):
    stream: str
    data: _Trade


class _QuoteMessage(msgspec.Struct, gc=False):
    stream: str
    data: _Quote


async def count(url: str) -> dict[str, float]:
    """Decode everything that comes until standard input says stop."""
    trade = msgspec.json.Decoder(_TradeMessage, strict=False).decode
    quote = msgspec.json.Decoder(_QuoteMessage, strict=False).decode
    counted, last_at = 0, 0
    stop = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    async with connect(url, open_timeout=10) as socket:
        print("ready", flush=True)

        async def receive() -> None:
            nonlocal counted, last_at
            while True:
                raw = await socket.recv(decode=False)
                (trade if b"@trade" in raw[:40] else quote)(raw)
                counted += 1
                last_at = time.time_ns()

        work = asyncio.ensure_future(receive())
        async with asyncio.timeout(120):
            done, _ = await asyncio.wait([work, asyncio.ensure_future(stop)], return_when=asyncio.FIRST_COMPLETED)
            # What was sent before the stop is in the socket: wait until nothing more comes.
            before = -1
            while work not in done and before != counted:
                before = counted
                await asyncio.sleep(0.3)
        if work.done():
            work.result()
        work.cancel()
    return {"count": counted, "last_at": last_at}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(count(sys.argv[1]))), flush=True)

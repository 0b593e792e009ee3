"""A market in which every tick is numbered, served by Binance's simulator without its limits.

Each symbol's trades bear the ids 1, 2, 3 …, and the symbols take turns, so that all of them tick at the same pace:
``python -m bench.numbered SYMBOLS TICKS_PER_S`` prints its address and serves until it is terminated.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from connectors.binance.product import SPOT
from connectors.binance.simulator import BinanceSimulator
from connectors.binance.source import Event, MinuteBar, SymbolSpec

#: What the limits are lifted to.
STREAMS = 1_000_000
MESSAGES_PER_S = 1_000


class NumberedSource:
    """Trades of all symbols in turn (`connectors.binance.source.Source`)."""

    def __init__(self, symbols: int, ticks_per_s: float) -> None:
        self.product = SPOT
        self._specs = [
            SymbolSpec(f"N{index:05}USDT", f"N{index:05}", "USDT", Decimal("0.01"), Decimal("0.01"))
            for index in range(symbols)
        ]
        self._every = int(1e9 / ticks_per_s)
        self._start = 0

    def prepare(self, now: int) -> Sequence[SymbolSpec]:
        """The symbols; fixes the start."""
        self._start = now
        return self._specs

    def history(self, symbol: str) -> Sequence[MinuteBar]:
        """None: it begins when it begins."""
        return ()

    def describe(self) -> dict[str, Any]:
        """What it is."""
        return {"kind": "numbered", "symbols": len(self._specs)}

    def events(self) -> Iterator[Event]:
        """Trades for ever, in rounds of one per symbol."""
        streams = [f"{spec.symbol.lower()}@trade" for spec in self._specs]
        at, line, number = self._start, 0, 0
        while True:
            number += 1
            for stream, spec in zip(streams, self._specs, strict=True):
                at += self._every
                line += 1
                ms = at // 1_000_000
                text = (
                    f'{{"stream":"{stream}","data":{{"e":"trade","E":{ms},"s":"{spec.symbol}","t":{number},'
                    f'"p":"100.{number % 100:02}","q":"1.00","T":{ms},"m":true,"M":true}}}}'
                )
                yield Event(at, stream, text.encode(), line)


async def serve(symbols: int, ticks_per_s: float) -> None:
    """Serve until SIGTERM, held until it is told to start."""
    simulator = BinanceSimulator(
        NumberedSource(symbols, ticks_per_s),
        hold=True,
        restamp=True,
        streams_per_connection=STREAMS,
        messages_per_s=MESSAGES_PER_S,
    )
    await simulator.start()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(json.dumps({"url": simulator.url, "provider": simulator.product.provider}), flush=True)
    await stop.wait()
    await simulator.stop()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))

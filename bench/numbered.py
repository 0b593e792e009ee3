"""A market in which every tick is numbered, served by Binance's simulator without its limits.

Each symbol's trades bear the ids 1, 2, 3 …, and so do its quotes, if there are any; the symbols take turns, so that
all of them tick at the same pace: ``python -m bench.numbered SYMBOLS TICKS_PER_S`` prints its address and serves until
it is terminated.  With ``--quotes`` every second tick is a quote; with ``--bad-every N`` one of N trades has a price
that no feed may pass on (`is_bad` says which).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from connectors.binance.product import SPOT
from connectors.binance.simulator import BinanceSimulator
from connectors.binance.source import Event, MinuteBar, SymbolSpec

#: What the limits are lifted to.
STREAMS = 1_000_000
MESSAGES_PER_S = 1_000
WEIGHT_PER_MINUTE = 10_000_000
#: Prices of bad trades: nothing, less than nothing, and far from all others.
BAD_PRICES = ("0.00", "-7.00", "99999.00")


def is_bad(symbol: int, number: int, bad_every: int) -> bool:
    """Whether trade ``number`` of the symbol with this place in the list has a bad price (0: none has)."""
    return bool(bad_every) and (number + 101 * symbol) % bad_every == 0


def is_far(number: int) -> bool:
    """Whether a bad trade's price is only far from all others: history, which is taken as it is, vouches for it."""
    return BAD_PRICES[number % len(BAD_PRICES)] == "99999.00"


class NumberedSource:
    """Ticks of all symbols in turn (`connectors.binance.source.Source`)."""

    def __init__(self, symbols: int, ticks_per_s: float, *, quotes: bool = False, bad_every: int = 0) -> None:
        self.product = SPOT
        self._specs = [
            SymbolSpec(f"N{index:05}USDT", f"N{index:05}", "USDT", Decimal("0.01"), Decimal("0.01"))
            for index in range(symbols)
        ]
        self._every = int(1e9 / ticks_per_s)
        self._quotes = quotes
        self._bad_every = bad_every
        self._start = 0

    def prepare(self, now: int) -> Sequence[SymbolSpec]:
        """The symbols; fixes the start."""
        self._start = now
        return self._specs

    def begin(self, now: int) -> None:
        """Nothing: the simulator moves the times to when they are sent."""

    def history(self, symbol: str) -> Sequence[MinuteBar]:
        """None: it begins when it begins."""
        return ()

    def describe(self) -> dict[str, Any]:
        """What it is."""
        return {"kind": "numbered", "symbols": len(self._specs), "quotes": self._quotes, "bad_every": self._bad_every}

    def events(self) -> Iterator[Event]:
        """Ticks for ever, in rounds of one per symbol and kind."""
        at, line, number = self._start, 0, 0
        while True:
            number += 1
            for index, spec in enumerate(self._specs):
                at += self._every
                line += 1
                yield self._trade(at, line, index, spec.symbol, number)
                if self._quotes:
                    at += self._every
                    line += 1
                    yield self._quote(at, line, spec.symbol, number)

    def _trade(self, at: int, line: int, index: int, symbol: str, number: int) -> Event:
        # Up and down by small steps: no move here is one that a filter has to think about.
        price = f"100.{abs(number % 60 - 30):02}"
        if is_bad(index, number, self._bad_every):
            price = BAD_PRICES[number % len(BAD_PRICES)]
        stream, ms = f"{symbol.lower()}@trade", at // 1_000_000
        text = (
            f'{{"stream":"{stream}","data":{{"e":"trade","E":{ms},"s":"{symbol}","t":{number},'
            f'"p":"{price}","q":"1.00","T":{ms},"m":true,"M":true}}}}'
        )
        return Event(at, stream, text.encode(), line)

    def _quote(self, at: int, line: int, symbol: str, number: int) -> Event:
        stream = f"{symbol.lower()}@bookTicker"
        text = (
            f'{{"stream":"{stream}","data":{{"u":{number},"s":"{symbol}","b":"99.99","B":"1.00",'
            f'"a":"101.01","A":"{1 + number % 7}.00"}}}}'
        )
        return Event(at, stream, text.encode(), line)


async def serve(source: NumberedSource) -> None:
    """Serve until SIGTERM, held until it is told to start."""
    simulator = BinanceSimulator(
        source,
        hold=True,
        restamp=True,
        streams_per_connection=STREAMS,
        messages_per_s=MESSAGES_PER_S,
        weight_per_minute=WEIGHT_PER_MINUTE,
    )
    await simulator.start()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(json.dumps({"url": simulator.url, "provider": simulator.product.provider}), flush=True)
    await stop.wait()
    await simulator.stop()


def main() -> None:
    """Serve what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("symbols", type=int)
    parser.add_argument("ticks_per_s", type=float)
    parser.add_argument("--quotes", action="store_true")
    parser.add_argument("--bad-every", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(
        serve(NumberedSource(options.symbols, options.ticks_per_s, quotes=options.quotes, bad_every=options.bad_every))
    )


if __name__ == "__main__":
    main()

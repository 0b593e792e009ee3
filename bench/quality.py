"""What the quality of ticks costs: ``python -m bench.quality [--json]``.  One core, no Ray, no IO.

The bad tick filter and the habits of silence look at every tick between decoding and publishing.  The floor is the
decoding itself: the codec's typed msgspec decoding of recorded-like Binance messages into the tick buffer, without any
socket.  At 100,000 ticks a second batches gather while a publish is under way, so batches of a thousand count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from connectors.binance.codec import Codec
from trading.habits import Habits
from trading.ids import Nanos
from trading.tick_filter import TickFilter
from trading.ticks import QUOTE, TICK, TRADE, TickArray, TickBuffer, decode

INSTRUMENTS = 100
COUNT = 60_000
BATCHES = (1, 4, 16, 64, 256, 1_024, 4_096)
ROUNDS = 3
MESSAGES = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1700000000001,"T":1700000000000,"s":"BTCUSDT",'
    b'"t":5123107839,"p":"61800.10","q":"0.012","X":"MARKET","m":true}}',
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":5123107839020,"s":"BTCUSDT","b":"61800.20",'
    b'"B":"2.507","a":"61800.30","A":"2.510","T":1700000000000,"E":1700000000001}}',
)


class Sink:
    """Takes what the codec decodes."""

    def __init__(self) -> None:
        self.ticks = TickBuffer()


def market(count: int) -> TickArray:
    """Trades and quotes of many instruments on calm random walks, 100,000 a second."""
    random = np.random.default_rng(1)
    ticks = np.zeros(count, dtype=TICK)
    ticks["instrument"] = random.integers(1, INSTRUMENTS + 1, count)
    is_quote = random.random(count) < 0.6
    ticks["flags"] = np.where(is_quote, QUOTE, TRADE)
    price = 100.0 * np.exp(np.cumsum(random.normal(0, 1e-5, count)))
    for field in ("price", "size", "bid", "bid_size", "ask", "ask_size"):
        ticks[field] = np.nan
    ticks["price"][~is_quote] = price[~is_quote]
    ticks["size"][~is_quote] = 1.0 + random.exponential(1.0, int((~is_quote).sum()))
    ticks["bid"][is_quote], ticks["ask"][is_quote] = price[is_quote] - 0.01, price[is_quote] + 0.01
    ticks["bid_size"][is_quote] = ticks["ask_size"][is_quote] = 5.0
    ticks["received_at"] = 1_700_000_000 * 10**9 + np.arange(count) * 10_000
    ticks["exchange_at"] = ticks["received_at"] - 2_000_000
    return ticks


def per_tick(work: Callable[[], int]) -> float:
    """Microseconds of this process for each tick."""
    began = time.process_time()
    count = work()
    return (time.process_time() - began) / count * 1e6


def decoding() -> int:
    """Decode messages into ticks, and these into one array."""
    codec, sink = Codec(), Sink()
    for stream in ("btcusdt@trade", "btcusdt@bookTicker"):
        codec.add(stream, 1)
    for n in range(COUNT):
        codec.decode(MESSAGES[n & 1], Nanos(n), sink)  # type: ignore[arg-type]
    return len(decode(sink.ticks.take()))


def looking(take: Callable[[TickArray], object], ticks: TickArray, size: int) -> int:
    """Give ticks in batches of one size, at most some thousand batches."""
    count = min(len(ticks), size * 2_000)
    for start in range(0, count, size):
        take(ticks[start : start + size])
    return count


def measure() -> dict[str, Any]:
    """All figures, medians of several rounds in turn."""
    warm, ticks = np.split(market(4 * COUNT), [3 * COUNT])
    found: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        found.setdefault("decode", []).append(per_tick(decoding))
        for size in BATCHES:
            filter_, habits = TickFilter(), Habits()
            filter_.judge(warm)
            habits.take(warm)
            found.setdefault(f"filter {size}", []).append(
                per_tick(lambda f=filter_, s=size: looking(f.judge, ticks, s))
            )  # type: ignore[misc]
            found.setdefault(f"habits {size}", []).append(per_tick(lambda h=habits, s=size: looking(h.take, ticks, s)))  # type: ignore[misc]
            if filter_.quarantine.counts():
                raise RuntimeError(f"good ticks were refused: {filter_.quarantine.counts()}")
    median = {name: statistics.median(values) for name, values in found.items()}
    floor = median["decode"]
    return {
        "decode_us": round(floor, 3),
        "filter_us": {str(size): round(median[f"filter {size}"], 3) for size in BATCHES},
        "habits_us": {str(size): round(median[f"habits {size}"], 3) for size in BATCHES},
        "filter_ratio": {str(size): round(median[f"filter {size}"] / floor, 3) for size in BATCHES},
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = measure()
    if options.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:16} {value}")


if __name__ == "__main__":
    main()

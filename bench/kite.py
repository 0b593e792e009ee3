"""Kite's ticker decoded, against the parser of the official SDK: ``python -m bench.kite [--json]``.

Both get the same frames of 500 full packets (184 bytes, five levels a side), one after another in turn, in one
process and on one core: ours puts ticks and depths into a feed's sink, the SDK makes its list of dicts.  In each frame
every instrument has traded since the frame before, which is the most work for ours.  ``ratio`` compares the best rounds
of each; ``with_indices`` is the same with one packet in fifty an index's, ``mixed`` with all five sizes of packets in
random order.  ``worker_core`` is the share of a core that a feed worker's data path needs for 3,000 instruments in full
mode at one frame a second, from the socket to batches framed for the bus (`bench.kite_worker`).

The SDK is installed into an environment of its own when first wanted; only its parser is used, and of its packages only
`kiteconnect` and what that imports are put behind ours on the path.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from bench.kite_sdk import make_environment, site_packages
from bench.kite_worker import worker
from connectors.kite.codec import SIZES, Codec, Listed
from trading.depth import DepthArray
from trading.ids import Nanos
from trading.ticks import TickBuffer

PACKETS: Final = 500
FRAMES: Final = 20
ROUNDS: Final = 7
_ALL: Final = frozenset({"trade", "quote", "depth"})


class Sink:
    """Takes what is decoded as a feed worker does."""

    def __init__(self) -> None:
        self.ticks = TickBuffer()
        self.books: list[DepthArray] = []

    def depth(self, books: DepthArray) -> None:
        """Keep a batch of depths."""
        self.books.append(books)

    def clear(self) -> None:
        """Drop what came, as the SDK's list is dropped."""
        self.ticks = TickBuffer()
        self.books.clear()


def token_of(index: int, is_index: bool = False) -> int:
    """A token at NSE, or of an index."""
    return (1_000 + index) << 8 | (9 if is_index else 1)


def packet(size: int, index: int, turn: int, chance: random.Random) -> bytes:
    """One packet as the ticker has it."""
    price = chance.randrange(10_000, 500_000)
    words = [token_of(index, size in (28, 32)), price]
    if size in (28, 32):
        words += [price + 100, price - 100, price, price - 5, 5]
        words += [1_700_000_000 + turn] if size == 32 else []
    elif size >= 44:
        words += [
            chance.randrange(1, 500),
            price,
            10_000 + 100 * turn,
            5_000,
            6_000,
            price,
            price + 9,
            price - 9,
            price,
        ]
    if size == 184:
        words += [1_700_000_000 + turn, 0, 0, 0, 1_700_000_000 + turn]
        for level in range(10):
            step = 5 * (level % 5 + 1)
            words += [
                chance.randrange(1, 9_999),
                price + (step if level >= 5 else -step),
                chance.randrange(1, 99) << 16,
            ]
    return struct.pack(f">{len(words)}I", *words)


def frame(turn: int, sizes: Sequence[int], chance: random.Random) -> bytes:
    """A frame of one packet per size."""
    packets = [packet(size, index, turn, chance) for index, size in enumerate(sizes)]
    return struct.pack(">H", len(packets)) + b"".join(struct.pack(">H", len(each)) + each for each in packets)


def codec_for(sizes: Sequence[int]) -> Codec:
    """A codec that knows the instruments of such frames."""
    codec = Codec()
    codec.put((token_of(i, size in (28, 32)), Listed(number=i + 1, channels=_ALL)) for i, size in enumerate(sizes))
    return codec


def seconds(work: Callable[[bytes], object], frames: Sequence[bytes]) -> float:
    """CPU seconds for all frames."""
    began = time.process_time_ns()
    for each in frames:
        work(each)
    return (time.process_time_ns() - began) / 1e9


def compare(sdk: Callable[[bytes], object], frames: Sequence[bytes], sizes: Sequence[int]) -> tuple[float, float]:
    """Packets per second of ours and of the SDK's, each the best of its rounds, taken in turn."""
    codec, sink = codec_for(sizes), Sink()

    def ours(raw: bytes) -> None:
        wrong = codec.decode(raw, Nanos(1), sink)  # type: ignore[arg-type]
        if wrong:
            raise RuntimeError(wrong)
        sink.clear()

    best = {"ours": float("inf"), "sdk": float("inf")}
    for _ in range(ROUNDS):
        # The SDK needs about as long for one frame as we for a hundred.
        best["sdk"] = min(best["sdk"], seconds(sdk, frames[:4]) / 4)
        for _ in range(5):
            codec.forget()
            ours(frames[0])
            best["ours"] = min(best["ours"], seconds(ours, frames[1:]) / (len(frames) - 1))
    expected = ROUNDS * 5 * len(frames) * len(sizes)
    if codec.packets != expected:
        raise RuntimeError(f"{codec.packets} packets were decoded, {expected} were sent")
    return len(sizes) / best["ours"], len(sizes) / best["sdk"]


def measure() -> dict[str, Any]:
    """All figures."""
    sys.path.append(str(site_packages(make_environment())))
    from kiteconnect import KiteTicker

    parse = KiteTicker("key", "token")._parse_binary
    chance = random.Random(7)
    full = [184] * PACKETS
    frames = [frame(turn, full, chance) for turn in range(FRAMES)]
    parsed = parse(frames[0])
    if len(parsed) != PACKETS or len(parsed[0]["depth"]["buy"]) != 5:
        raise RuntimeError("the SDK does not understand the frames")
    ours, theirs = compare(parse, frames, full)
    mixed = [chance.choice(SIZES) for _ in range(PACKETS)]
    usual = [32 if chance.random() < 0.02 else 184 for _ in range(PACKETS)]
    ours_usual, theirs_usual = compare(parse, [frame(turn, usual, chance) for turn in range(FRAMES)], usual)
    ours_mixed, theirs_mixed = compare(parse, [frame(turn, mixed, chance) for turn in range(FRAMES)], mixed)
    carried = worker()
    return {
        "ours_packets_per_s": round(ours),
        "sdk_packets_per_s": round(theirs),
        "ratio": round(ours / theirs, 1),
        "with_indices": {
            "ours_packets_per_s": round(ours_usual),
            "sdk_packets_per_s": round(theirs_usual),
            "ratio": round(ours_usual / theirs_usual, 1),
        },
        "mixed": {
            "ours_packets_per_s": round(ours_mixed),
            "sdk_packets_per_s": round(theirs_mixed),
            "ratio": round(ours_mixed / theirs_mixed, 1),
        },
        "worker_core": round(carried["core"], 4),
        "worker_packets_per_s": round(carried["packets_per_s"]),
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
            print(f"{name:22} {value}")


if __name__ == "__main__":
    main()

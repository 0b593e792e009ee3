"""What is usual: sizes and rates, learnt by measures that a few odd values do not move, and that fade."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from trading.surveillance_terms import MOST_COUNTED

#: Buckets of a size to each doubling.
_PER_OCTAVE: Final = 4


class Sizes(msgspec.Struct, kw_only=True):
    """Sizes by bucket of their logarithm: middle and spread do not move for a few odd ones."""

    counts: dict[int, int] = {}
    total: int = 0

    def add(self, size: float, memory: int) -> None:
        """Learn one."""
        bucket = bucket_of(size)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.total += 1
        if self.total >= 2 * memory:
            self.counts = {each: count // 2 for each, count in self.counts.items() if count > 1}
            self.total = sum(self.counts.values())

    def middle(self) -> float:
        """The median, as a bucket."""
        return _median(self.counts)

    def spread(self) -> float:
        """The median distance from the median, made comparable to a standard deviation; at least half a doubling."""
        middle = self.middle()
        distances: dict[float, int] = {}
        for bucket, count in self.counts.items():
            distance = abs(bucket - middle)
            distances[distance] = distances.get(distance, 0) + count
        return max(1.4826 * _median(distances), _PER_OCTAVE / 2)


class Rate(msgspec.Struct, kw_only=True):
    """How often something happens within a while, and how often is usual."""

    times: list[int] = []
    #: Of past whiles in which it happened at all; they fade by a tenth each.
    usual: float = 0.0
    began_at: int = 0
    counted: int = 0

    def add(self, at: int, within: int) -> int:
        """It happened; how often within the while that ends now."""
        if at >= self.began_at + within:
            if self.counted:
                self.usual = self.counted if not self.usual else 0.9 * self.usual + 0.1 * self.counted
            self.began_at, self.counted = at, 0
        self.counted += 1
        self.times = [each for each in self.times if at - each < within][1 - MOST_COUNTED :]
        self.times.append(at)
        return len(self.times)


def bucket_of(size: float) -> int:
    """The bucket of a size above 0."""
    return math.floor(_PER_OCTAVE * math.log2(size))


def size_of(bucket: float) -> float:
    """A size in the middle of a bucket."""
    return math.exp2((bucket + 0.5) / _PER_OCTAVE)


def _median(counts: Mapping[int, int] | Mapping[float, int]) -> float:
    half, seen = (sum(counts.values()) + 1) // 2, 0
    pairs: list[tuple[float, int]] = [(float(value), count) for value, count in counts.items()]
    for value, count in sorted(pairs):
        seen += count
        if seen >= half:
            return value
    return 0.0

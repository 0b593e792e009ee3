"""Latency histograms that can be added up: logarithmic buckets, 8 to the octave (9 % wide)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_PER_OCTAVE = 8
_BUCKETS = 40 * _PER_OCTAVE


class Histogram:
    """Counts of durations in nanoseconds, from 1 ns to 18 minutes."""

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self._counts = np.zeros(_BUCKETS, dtype=np.int64)
        for bucket, count in (counts or {}).items():
            self._counts[int(bucket)] += count

    def add(self, durations: npt.NDArray[np.int64] | int) -> None:
        """Count one duration or an array of them; what is below 1 ns counts as 1 ns."""
        values = np.maximum(np.atleast_1d(np.asarray(durations, dtype=np.float64)), 1.0)
        buckets = np.minimum((np.log2(values) * _PER_OCTAVE).astype(np.intp), _BUCKETS - 1)
        self._counts += np.bincount(buckets, minlength=_BUCKETS)

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add what another histogram's `counts` gave."""
        for bucket, count in counts.items():
            self._counts[int(bucket)] += count

    def counts(self) -> dict[int, int]:
        """Bucket -> count of the buckets in use, for the wire."""
        used = np.flatnonzero(self._counts)
        return dict(zip(used.tolist(), self._counts[used].tolist(), strict=True))

    @property
    def total(self) -> int:
        """How many were counted."""
        return int(self._counts.sum())

    def quantile(self, q: float) -> float | None:
        """Upper edge, in milliseconds, of the bucket that holds the quantile; None while it is empty."""
        total = self.total
        if not total:
            return None
        rank = max(1, math.ceil(q * total - 1e-9))
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank, side="left"))
        return float(round(2 ** ((bucket + 1) / _PER_OCTAVE) / 1e6, 6))

"""Quantiles of a duration, kept per slot over about the last so many values.

A log histogram per slot, four buckets to the octave: a value is known to within 12.5 %, whatever its size,
from a microsecond to two hours, of either sign.  Old values fade: once a slot has seen twice ``memory`` values all
its counts are halved.  A batch costs some nanoseconds a value.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

#: Below 2**10 ns a duration counts as none; from 2**43 ns (2.4 hours) on all are alike.
_LOW, _HIGH = 10, 43
_PER_OCTAVE: Final = 4
_SIDE: Final = (_HIGH - _LOW) * _PER_OCTAVE
_BUCKETS: Final = 2 * _SIDE + 1
#: A double's bits from the exponent's lowest down to the second of the fraction: a logarithm in quarter octaves.
_SHIFT: Final = np.int64(50)
#: Of the counts' own type: numpy adds it twenty times as quick as an integer.
_ONE: Final = np.float32(1)
_BASE: Final = int(np.float64(2.0**_LOW).view(np.int64) >> _SHIFT) - 1


def _edge(code: int) -> float:
    """Lower edge in ns of the ``code``-th bucket of a side, from 1."""
    octave, quarter = divmod(code - 1, _PER_OCTAVE)
    return float(2.0 ** (_LOW + octave) * (1 + quarter / _PER_OCTAVE))


class RunningQuantiles:
    """Quantiles of durations in nanoseconds, one running estimate per slot (0, 1, 2 …)."""

    def __init__(self, memory: int = 1024) -> None:
        self._most = 2.0 * memory
        self._counts = np.zeros((16, _BUCKETS), dtype=np.float32)
        self._totals = np.zeros(16, dtype=np.float64)

    def add(self, slots: npt.NDArray[np.int32], values: npt.NDArray[np.int64]) -> None:
        """Count values in, ``values[i]`` for ``slots[i]``."""
        if not len(slots):
            return
        self._reach(int(slots.max()))
        size = np.minimum(np.abs(values), 1 << _HIGH).astype(np.float64)
        codes = np.clip((size.view(np.int64) >> _SHIFT) - _BASE, 0, _SIDE)
        places = slots * np.intp(_BUCKETS) + (_SIDE + np.where(values < 0, -codes, codes))
        np.add.at(self._counts.reshape(-1), places, _ONE)
        self._totals += np.bincount(slots, minlength=len(self._totals))
        full = self._totals[slots] >= self._most
        if full.any():
            for slot in set(slots[full].tolist()):
                self._fade(slot)

    def add_one(self, slot: int, value: int) -> None:
        """Count one value in; for a few it is quicker than `add`."""
        self._reach(slot)
        fraction, exponent = math.frexp(min(abs(value), 1 << _HIGH))
        code = (exponent - 1 - _LOW) * _PER_OCTAVE + int((2 * fraction - 1) * _PER_OCTAVE) + 1
        code = min(max(code, 0), _SIDE)
        self._counts[slot, _SIDE - code if value < 0 else _SIDE + code] += 1
        self._totals[slot] += 1
        if self._totals[slot] >= self._most:
            self._fade(slot)

    def quantile(self, slot: int, q: float) -> int | None:
        """The ``q`` quantile in ns, to within an eighth (or a microsecond); None before the first value."""
        if slot >= len(self._totals) or not self._totals[slot]:
            return None
        sums = np.cumsum(self._counts[slot].astype(np.float64))
        index = int(np.searchsorted(sums, max(q * sums[-1], 1e-9), side="left")) - _SIDE
        if index == 0:
            return 0
        code = abs(index)
        middle = int((_edge(code) + _edge(code + 1)) / 2)
        return middle if index > 0 else -middle

    def total(self, slot: int) -> float:
        """The weight of what is remembered: the count of values, faded."""
        return float(self._totals[slot]) if slot < len(self._totals) else 0.0

    def clear(self, slot: int) -> None:
        """Forget all values of a slot."""
        if slot < len(self._totals):
            self._counts[slot] = 0
            self._totals[slot] = 0

    def _fade(self, slot: int) -> None:
        self._counts[slot] *= 0.5
        self._totals[slot] = float(self._counts[slot].sum(dtype=np.float64))

    def _reach(self, slot: int) -> None:
        if slot >= len(self._totals):
            more = max(slot + 1, 2 * len(self._totals)) - len(self._totals)
            self._counts = np.concatenate([self._counts, np.zeros((more, _BUCKETS), dtype=np.float32)])
            self._totals = np.concatenate([self._totals, np.zeros(more, dtype=np.float64)])

"""Rates and clock skew of a worker's instruments, worked out every few seconds: of thousands it takes its time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from trading.habits import Habits
from trading.tick_filter import TickFilter

EVERY_S: Final = 2.0
_MS: Final = 1e6


class Figures(msgspec.Struct, frozen=True):
    """Of one instrument: ticks per second; receipt less venue time in ms, median and 99 in a hundred."""

    rate: float = 0.0
    skew_ms: float | None = None
    skew_p99_ms: float | None = None


_NONE: Final = Figures()


class FeedFigures:
    """The figures as of the last look."""

    def __init__(self, filter_: TickFilter) -> None:
        self._filter = filter_
        self._at = 0.0
        self._counts: dict[int, int] = {}
        self._known: dict[int, Figures] = {}
        #: Median over the instruments.
        self.skew_ms: float | None = None

    def of(self, number: int) -> Figures:
        """The figures of one instrument."""
        return self._known.get(number, _NONE)

    def forget(self, number: int) -> None:
        """It is no longer carried."""
        self._known.pop(number, None)
        self._counts.pop(number, None)

    def look(self, numbers: Sequence[int], habits: Habits) -> None:
        """Work them out anew, if it is time."""
        at = time.monotonic()
        elapsed = at - self._at
        if elapsed < EVERY_S:
            return
        self._at = at
        for number in numbers:
            count = habits.ticks(number)
            before = self._counts.get(number, count)
            self._counts[number] = count
            if count == before and number in self._known:
                # No tick, no news of its clock.
                self._known[number] = msgspec.structs.replace(self._known[number], rate=0.0)
                continue
            skew, p99 = (self._filter.skew(number, q) for q in (0.5, 0.99))
            self._known[number] = Figures(
                rate=round((count - before) / elapsed, 2),
                skew_ms=None if skew is None else round(skew / _MS, 3),
                skew_p99_ms=None if p99 is None else round(p99 / _MS, 3),
            )
        known = [each.skew_ms for each in self._known.values() if each.skew_ms is not None]
        self.skew_ms = round(statistics.median(known), 3) if known else None

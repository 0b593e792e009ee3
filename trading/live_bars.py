"""Bars of one instrument and interval as they close, for those who look on: nothing missing without being told.

Fed with the bars of seconds or minutes that the feed's recorder built (`trading.bar_building`), each with the time
since when the recorder has seen everything.  So a bar whose time is not joined to what was given before proves a hole,
and a hole is told as such: history has, or fetches, what belongs there.  Longer intervals are derived; one that a hole
reaches into is not given at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from trading.bar_building import GRACE, BarRevision
from trading.bar_deriving import DAY, derive, stored_width
from trading.bars import Bar, interval_ns
from trading.errors import BadInput
from trading.ids import Nanos
from trading.spans import Span, ceiling, floor

#: Our clock may be so far from the recorder's, in ns.
SKEW: Final = 1_000_000_000
#: Closed bars of the provider that are remembered, so that ours do not replace them.
_KEPT: Final = 64


class LiveBar(msgspec.Struct, frozen=True, kw_only=True):
    """A bar as it stands; it replaces the one that opened at the same time.

    ``closed``: all its parts are known to be in it (a trade that comes late may amend it all the same).  ``own``: it is
    the provider's, and no other.
    """

    bar: Bar
    closed: bool
    own: bool = False


def live_width(interval: str) -> int:
    """Width of an interval in ns; `BadInput` where no live bars of it are made (days and longer)."""
    width = interval_ns(interval)
    if width >= DAY:
        raise BadInput("interval", f"{interval!r}: live bars are shorter than a day")
    if DAY % width:
        raise BadInput("interval", f"{interval!r} does not divide a day")
    return width


class LiveBars:
    """What is given of one instrument's bars of ``width`` ns to somebody who began to listen at ``now``."""

    def __init__(self, width: int, now: Nanos) -> None:
        self.width = width
        self.base = stored_width(width)
        #: Everything that opens before was given, or told to be missing.
        self._expected = floor(now + SKEW, self.base)
        #: Bars that open then or later are given whole, or told to be missing.
        self.since = ceiling(self._expected, width)
        #: By opening, the parts of the derived bar under way.
        self._parts: dict[int, Bar] = {}
        #: Parts of what opens before are not kept any more.
        self._kept_from = 0
        self._given: Bar | None = None
        self._closed = True
        #: Openings of bars that are the provider's own.
        self._own: dict[int, None] = {}

    def __repr__(self) -> str:
        return f"<LiveBars {self.width} ns since={self.since} expected={self._expected} parts={len(self._parts)}>"

    def take(self, revision: BarRevision) -> list[LiveBar | Span]:
        """A stored-width bar that the recorder gave: what is to be shown, a `Span` for what is missing."""
        if revision.width != self.base:
            return []
        opened = int(revision.bar.opened_at)
        told: list[LiveBar | Span] = []
        if opened >= self._expected:
            if revision.since > self._expected:
                told += self._missing(int(revision.since))
            self._expected = max(self._expected, opened + self.base)
        if opened < self.since or opened in self._own:
            return told
        if self.width == self.base:
            return [*told, LiveBar(bar=revision.bar, closed=True)]
        return told + self._derive(revision.bar)

    def own(self, bar: Bar, final: bool) -> list[LiveBar | Span]:
        """A bar of this very width that the venue built; ``final``: it will not change."""
        if bar.opened_at < self.since or bar.opened_at % self.width:
            return []
        if final:
            self._own[int(bar.opened_at)] = None
            if len(self._own) > _KEPT:
                del self._own[next(iter(self._own))]
        elif bar.opened_at in self._own:
            return []
        return [LiveBar(bar=bar, closed=final, own=True)]

    def broken(self, now: Nanos) -> list[LiveBar | Span]:
        """The listener was cut off until ``now``."""
        return self._missing(floor(now + SKEW, self.base))

    def spoilt(self, width: int, opened: int) -> list[LiveBar | Span]:
        """A bar of the recorder lacks a trade that came too late: only the provider knows it."""
        if width != self.base or opened < self.since:
            return []
        start = floor(opened, self.width)
        self._forget(start)
        return [Span(start, start + self.width)]

    def _missing(self, until: int) -> list[LiveBar | Span]:
        if until <= self._expected:
            return []
        start = max(floor(self._expected, self.width), self.since)
        self._expected = until
        self.since = max(self.since, ceiling(until, self.width))
        self._parts.clear()
        self._given, self._closed = None, True
        return [Span(start, self.since)] if start < self.since else []

    def _forget(self, start: int) -> None:
        for opened in [each for each in self._parts if floor(each, self.width) == start]:
            del self._parts[opened]
        if self._given is not None and self._given.opened_at == start:
            self._given, self._closed = None, True
        self.since = max(self.since, start + self.width)

    def _derive(self, part: Bar) -> list[LiveBar | Span]:
        told: list[LiveBar | Span] = []
        start = floor(part.opened_at, self.width)
        under_way = None if self._given is None else int(self._given.opened_at)
        if under_way is not None and start > under_way and not self._closed:
            # A later one, and nothing missing between: there was no trade in the rest of it.
            assert self._given is not None
            told.append(LiveBar(bar=self._given, closed=True))
        if under_way is None or start > under_way:
            # Those within the grace may still be amended.
            self._kept_from = max(self._kept_from, start - self.width - ceiling(GRACE, self.width))
            for opened in [each for each in self._parts if each < self._kept_from]:
                del self._parts[opened]
        elif start < self._kept_from:
            return told
        self._parts[int(part.opened_at)] = part
        (bar,) = derive(_within(self._parts, start, self.width), self.width)
        last = part.opened_at + self.base == start + self.width
        if under_way is None or start >= under_way:
            self._closed = last or (self._closed and start == under_way)
            self._given = bar
            return [*told, LiveBar(bar=bar, closed=self._closed)]
        return [*told, LiveBar(bar=bar, closed=True)]


def _within(parts: dict[int, Bar], start: int, width: int) -> Sequence[Bar]:
    return [parts[opened] for opened in sorted(parts) if start <= opened < start + width]

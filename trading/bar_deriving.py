"""Bars of longer intervals, derived from shorter ones; which are stored and which derived.

Bars of a second and of a minute are stored.  All others are made from them: those of ``Ns`` from seconds, those of
``Nm`` and ``Nh`` from minutes, both aligned to UTC.  A day is UTC's around the clock, and the session's of the
instrument's calendar otherwise: from its first opening to its last close, breaks within it included, what is traded
before and after left out.  Its bar opens when the session does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from trading.bars import Bar, interval_ns, resample
from trading.errors import BadInput
from trading.ids import Nanos
from trading.spans import Span

SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
#: Widths that are stored, and their names.
STORED: Final = {SECOND: "1s", MINUTE: "1m"}


def stored_width(width: int) -> int:
    """The width of the stored bars that bars of ``width`` ns are made of."""
    return MINUTE if width % MINUTE == 0 else SECOND


def check_width(interval: str, calendar: str) -> int:
    """Width of ``interval`` in ns; `BadInput` where there are no such bars for an instrument of this calendar."""
    width = interval_ns(interval)
    if width >= DAY and width % DAY:
        raise BadInput("interval", f"{interval!r} is longer than a day and no number of days: write such as 1d or 2d")
    if width > DAY and calendar != "24x7":
        raise BadInput("interval", f"{interval!r}: sessions of {calendar} make bars of one day, 1d, at most")
    return width


def derive(bars: Sequence[Bar], width: int, base: int = 0) -> list[Bar]:
    """Bars of ``width`` ns, aligned to UTC, from stored ones (or those of ``base`` ns), oldest first.

    Prices and counts are as if they had been built from the ticks; a volume is a sum of sums and may differ from that
    in its last bits.
    """
    base = base or stored_width(width)
    return resample(bars, base, width // base)


def derive_days(bars: Sequence[Bar], days: Sequence[Span]) -> list[Bar]:
    """One bar for each session that has any of ``bars`` (shorter ones, oldest first); ``days`` oldest first."""
    starts = [day.start for day in days]
    groups: dict[int, list[Bar]] = {}
    for bar in bars:
        row = bisect_right(starts, bar.opened_at) - 1
        if row >= 0 and bar.opened_at < days[row].end:
            groups.setdefault(row, []).append(bar)
    return [_whole(days[row].start, group) for row, group in groups.items()]


def _whole(opened: int, group: Sequence[Bar]) -> Bar:
    volume = 0.0
    for bar in group:
        volume += bar.volume
    return Bar(
        opened_at=Nanos(opened),
        open=group[0].open,
        high=max(bar.high for bar in group),
        low=min(bar.low for bar in group),
        close=group[-1].close,
        volume=volume,
        trades=sum(bar.trades for bar in group),
    )

"""Spans of time: which part of an instrument's history is known, and which is not.

A span is ``[start, end)`` in UTC nanoseconds.  Where a bar is absent inside a covered span, nothing was traded;
outside, nobody has looked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """``[start, end)``, UTC nanoseconds."""

    start: int
    end: int


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same time in as few spans as can be, oldest first; empty ones are left out."""
    whole: list[Span] = []
    for span in sorted(span for span in spans if span.start < span.end):
        if whole and span.start <= whole[-1].end:
            whole[-1] = Span(whole[-1].start, max(whole[-1].end, span.end))
        else:
            whole.append(Span(*span))
    return whole


def missing(covered: Iterable[Span], wanted: Span) -> list[Span]:
    """What of ``wanted`` is in none of ``covered``, oldest first."""
    gaps: list[Span] = []
    at = wanted.start
    for span in merged(covered):
        if span.start >= wanted.end:
            break
        if span.start > at:
            gaps.append(Span(at, span.start))
        at = max(at, span.end)
    if at < wanted.end:
        gaps.append(Span(at, wanted.end))
    return gaps


def within(spans: Iterable[Span], bounds: Span) -> list[Span]:
    """What of ``spans`` lies in ``bounds``, merged."""
    return merged(Span(max(span.start, bounds.start), min(span.end, bounds.end)) for span in spans)


def covers(covered: Sequence[Span], wanted: Span) -> bool:
    """Whether all of ``wanted`` is covered."""
    return not missing(covered, wanted)


def whole_intervals(span: Span, width: int) -> Span:
    """The intervals of ``width`` ns, aligned to the epoch, that lie in ``span`` whole; empty where none does."""
    start = ceiling(span.start, width)
    return Span(start, max(start, floor(span.end, width)))


def floor(at: int, width: int) -> int:
    """The last multiple of ``width`` that is not after ``at``."""
    return at - at % width


def ceiling(at: int, width: int) -> int:
    """The first multiple of ``width`` that is not before ``at``."""
    return -(-at // width) * width

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from trading.spans import Span, covers, merged, missing, whole_intervals, within

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: Span(*pair)), max_size=8)


def instants(some: list[Span]) -> set[int]:
    return {at for span in some for at in range(span.start, span.end)}


@given(spans)
def test_merging_keeps_the_time_and_leaves_no_two_that_touch(some: list[Span]) -> None:
    whole = merged(some)
    assert instants(whole) == instants(some)
    assert all(one.end < other.start for one, other in pairwise(whole))


@given(spans, st.integers(0, 60), st.integers(0, 60))
def test_what_is_missing_and_what_is_there_make_the_whole(some: list[Span], start: int, end: int) -> None:
    wanted = Span(start, end)
    gaps = missing(some, wanted)
    assert instants(gaps) == instants([wanted]) - instants(some)
    assert instants(within(some, wanted)) == instants([wanted]) & instants(some)
    assert covers(some, wanted) == (not instants(gaps))
    assert covers([*some, *gaps], wanted)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(1, 20))
def test_whole_intervals_lie_in_the_span_and_none_is_left_out(start: int, end: int, width: int) -> None:
    inner = whole_intervals(Span(start, end), width)
    expected = {at for at in range(0, 101, width) if start <= at and at + width <= end}
    assert set(range(inner.start, inner.end, width)) == expected

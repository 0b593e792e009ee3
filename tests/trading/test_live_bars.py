from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.bar_building import BarRevision
from trading.bar_deriving import MINUTE, SECOND, derive
from trading.bars import Bar
from trading.errors import BadInput
from trading.ids import Nanos
from trading.live_bars import LiveBar, LiveBars, live_width
from trading.spans import Span, ceiling, covers, floor

HOUR = 60 * MINUTE
NOON = 12 * HOUR


def minute(n: int, *, since: int = 0, price: float = 0.0, revision: int = 0) -> BarRevision:
    """The bar of the n-th minute after noon, of a recorder that has seen everything from minute ``since`` on."""
    value = price or 100.0 + n
    bar = Bar(opened_at=Nanos(NOON + n * MINUTE), open=value, high=value + 1, low=value - 1, close=value, volume=2.0,
              trades=3)  # fmt: skip
    return BarRevision(instrument=1, width=MINUTE, revision=revision, bar=bar, since=NOON + since * MINUTE)


def closed(bar: Bar) -> LiveBar:
    return LiveBar(bar=bar, closed=True)


def test_bars_come_as_they_close_and_again_when_amended() -> None:
    live = LiveBars(MINUTE, Nanos(NOON + 30 * SECOND))
    assert live.since == NOON
    assert live.take(minute(0, since=-9)) == [closed(minute(0).bar)]
    assert live.take(minute(2, since=-9)) == [closed(minute(2).bar)]
    amended = minute(2, since=-9, price=7.0, revision=1)
    assert live.take(amended) == [closed(amended.bar)]


def test_what_closed_before_one_listened_is_not_given() -> None:
    live = LiveBars(MINUTE, Nanos(NOON + 30 * SECOND))
    assert live.take(minute(-1, since=-9)) == []
    five = LiveBars(5 * MINUTE, Nanos(NOON + 30 * SECOND))
    assert five.since == NOON
    six = LiveBars(5 * MINUTE, Nanos(NOON + 70 * SECOND))
    assert six.since == NOON + 5 * MINUTE
    assert six.take(minute(2, since=-9)) == []


def test_a_hole_is_told_and_no_bar_made_of_what_it_reaches_into() -> None:
    live = LiveBars(MINUTE, Nanos(NOON))
    assert live.take(minute(0, since=0)) == [closed(minute(0).bar)]
    assert live.take(minute(4, since=3)) == [Span(NOON + MINUTE, NOON + 3 * MINUTE), closed(minute(4).bar)]
    five = LiveBars(5 * MINUTE, Nanos(NOON))
    (first,) = five.take(minute(0, since=0))
    assert isinstance(first, LiveBar)
    assert not first.closed
    assert five.take(minute(4, since=3)) == [Span(NOON, NOON + 5 * MINUTE)]
    (next_one,) = five.take(minute(5, since=3))
    assert isinstance(next_one, LiveBar)
    assert next_one.bar.opened_at == NOON + 5 * MINUTE


def test_a_longer_bar_closes_with_its_last_part_or_with_a_later_one() -> None:
    five = LiveBars(5 * MINUTE, Nanos(NOON))
    told = [five.take(minute(n, since=0)) for n in (0, 1, 4)]
    assert [each.closed for (each,) in told if isinstance(each, LiveBar)] == [False, False, True]
    assert told[-1] == [closed(derive([minute(n).bar for n in (0, 1, 4)], 5 * MINUTE)[0])]
    (under_way,) = five.take(minute(6, since=0))
    assert isinstance(under_way, LiveBar)
    before, after = five.take(minute(11, since=0))
    assert before == closed(under_way.bar)
    assert after == LiveBar(bar=derive([minute(11).bar], 5 * MINUTE)[0], closed=False)
    (amended,) = five.take(minute(6, since=0, price=55.0, revision=1))
    assert amended == closed(derive([minute(6, price=55.0).bar], 5 * MINUTE)[0])


def test_being_cut_off_is_a_hole_only_where_a_bar_may_have_closed_meanwhile() -> None:
    live = LiveBars(MINUTE, Nanos(NOON))
    live.take(minute(0, since=0))
    assert live.broken(Nanos(NOON + 90 * SECOND)) == []
    assert live.broken(Nanos(NOON + 2 * MINUTE + SECOND)) == [Span(NOON + MINUTE, NOON + 2 * MINUTE)]
    assert live.take(minute(2, since=0)) == [closed(minute(2).bar)]


def test_a_bar_that_turned_out_wrong_is_told_as_missing() -> None:
    live = LiveBars(MINUTE, Nanos(NOON))
    live.take(minute(0, since=0))
    assert live.spoilt(SECOND, NOON) == []
    assert live.spoilt(MINUTE, NOON) == [Span(NOON, NOON + MINUTE)]
    assert live.spoilt(MINUTE, NOON - MINUTE) == []


def test_the_providers_own_bar_stands() -> None:
    live = LiveBars(MINUTE, Nanos(NOON))
    own = minute(0, price=9.0).bar
    assert live.own(own, False) == [LiveBar(bar=own, closed=False, own=True)]
    assert live.own(own, True) == [LiveBar(bar=own, closed=True, own=True)]
    assert live.take(minute(0, since=0)) == []
    assert live.own(own, False) == []
    assert live.take(minute(1, since=0)) == [closed(minute(1).bar)]


@pytest.mark.parametrize("interval", ["1d", "2d", "7m", "25h", "x", "0s"])
def test_intervals_that_no_live_bars_are_made_of_are_refused(interval: str) -> None:
    with pytest.raises(BadInput):
        live_width(interval)


@given(
    width=st.sampled_from([MINUTE, 2 * MINUTE, 5 * MINUTE]),
    began=st.integers(0, 240),
    traded=st.sets(st.integers(0, 30)),
    losses=st.sets(st.integers(1, 30), max_size=4),
    amended=st.sets(st.integers(0, 30)),
)
def test_bars_given_and_holes_told_make_up_the_truth(
    width: int, began: int, traded: set[int], losses: set[int], amended: set[int]
) -> None:
    """The recorder begins anew at each of ``losses``: the bar of that minute and of the one after are not whole."""
    live = LiveBars(width, Nanos(NOON + began * SECOND))
    shown: dict[int, LiveBar] = {}
    holes: list[Span] = []
    since = -9
    truth: dict[int, Bar] = {}
    last = began // 60

    def take(revision: BarRevision) -> None:
        for each in live.take(revision):
            if isinstance(each, Span):
                holes.append(each)
            else:
                shown[each.bar.opened_at] = each

    for n in range(31):
        if n in losses:
            since = n + 2
        if n in traded:
            truth[n] = minute(n).bar
        if n in traded and n >= since and NOON + (n + 1) * MINUTE > NOON + (began + 1) * SECOND:
            take(minute(n, since=since))
            last = n
            if n in amended:
                truth[n] = minute(n, price=50.0).bar
                take(minute(n, since=since, price=50.0, revision=1))
    right = {bar.opened_at: bar for bar in derive([truth[n] for n in sorted(truth)], width)} if truth else {}
    for opened, each in shown.items():
        if each.closed and not covers(holes, Span(opened, opened + width)):
            assert each.bar == right[opened]
    first = ceiling(floor(NOON + began * SECOND + SECOND, MINUTE), width)
    for opened in right:
        if first <= opened and opened + width <= NOON + (last + 1) * MINUTE:
            assert (opened in shown) or covers(holes, Span(opened, opened + width))


def test_an_amendment_whose_other_parts_are_gone_makes_no_bar_of_itself_alone() -> None:
    live = LiveBars(2 * MINUTE, Nanos(NOON))
    for n in range(12):
        live.take(minute(n, since=0))
    (amended,) = live.take(minute(9, since=0, price=5.0, revision=1))
    assert isinstance(amended, LiveBar)
    assert amended.bar.trades == 6
    assert live.take(minute(1, since=0, price=5.0, revision=1)) == []

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.bar_building import BarTape
from trading.bar_deriving import DAY, MINUTE, SECOND, check_width, derive, derive_days, stored_width
from trading.bars import Bar
from trading.errors import BadInput
from trading.ids import Nanos
from trading.spans import Span
from trading.ticks import BACKFILLED, SNAPSHOT, TickArray, TickBuffer, decode

#: (instrument, exchange time, receive time, price, size)
Row = tuple[int, int, int, float, float]


def trades(*rows: Row, flags: int = 0) -> TickArray:
    buffer = TickBuffer()
    for number, at, received_at, price, size in rows:
        buffer.trade(number, price, size, flags, at, received_at, 0)
    return decode(buffer.take())


def at(*rows: tuple[int, int, float, float]) -> TickArray:
    """Trades received as they happen."""
    return trades(*((number, when, when, price, size) for number, when, price, size in rows))


@st.composite
def streams(draw: st.DrawFn) -> list[Row]:
    """Trades in order of arrival; some happened a good while before."""
    rows = []
    now = 100
    for _ in range(draw(st.integers(0, 40))):
        now += draw(st.integers(0, 6))
        happened = now - draw(st.sampled_from([0, 0, 0, 1, 4, 9, 25]))
        size = draw(st.sampled_from([0.1, 0.7, 1e9, 3.0, 1e-9]))
        rows.append((draw(st.integers(1, 3)), happened, now, float(draw(st.integers(1, 9))), size))
    return rows


def naive(rows: list[Row], width: int, grace: int) -> tuple[dict[tuple[int, int], Bar], int]:
    """Bars by the definition, and how many trades were late."""
    own: dict[tuple[int, int], list[Row]] = {}
    late = 0
    for row in rows:
        opened = row[1] - row[1] % width
        if row[2] >= opened + width + grace:
            late += 1
        else:
            own.setdefault((opened, row[0]), []).append(row)
    bars = {}
    for key, group in own.items():
        volume = 0.0
        for row in group:
            volume += row[4]
        in_time = sorted(group, key=lambda row: row[1])
        prices = [row[3] for row in group]
        bars[key] = Bar(
            opened_at=Nanos(key[0]),
            open=in_time[0][3],
            high=max(prices),
            low=min(prices),
            close=in_time[-1][3],
            volume=volume,
            trades=len(group),
        )
    return bars, late


def played(rows: list[Row], cuts: list[int], closes: list[int], grace: int = 8) -> tuple[list[Any], BarTape]:
    """What a tape gives out where the stream is cut before these rows, and closed at these times."""
    tape = BarTape(10, grace=grace)
    told: list[Any] = []
    waiting: list[Row] = []
    times = sorted(closes, reverse=True)
    for index, row in enumerate(rows):
        while times and times[-1] <= row[2]:
            tape.add(trades(*waiting))
            waiting = []
            told += tape.close_until(Nanos(times.pop()))
        if index in cuts:
            tape.add(trades(*waiting))
            waiting = []
        waiting.append(row)
    tape.add(trades(*waiting))
    told += tape.close_until(Nanos(10**6))
    return told, tape


cuts = st.lists(st.integers(0, 40), max_size=40)
closes = st.lists(st.integers(90, 300), max_size=10)


@given(streams(), cuts, closes)
def test_any_split_of_the_stream_gives_the_same_bars_to_the_last_bit(
    rows: list[Row], where: list[int], when: list[int]
) -> None:
    whole, tape = played(rows, [], when)
    split, other = played(rows, where, when)
    one_by_one, third = played(rows, list(range(41)), when)
    assert whole == split == one_by_one
    assert tape.late == other.late == third.late


@given(streams(), cuts, closes)
def test_bars_are_those_of_the_definition_whenever_they_are_closed(
    rows: list[Row], where: list[int], when: list[int]
) -> None:
    told, tape = played(rows, where, when)
    last = {(each.bar.opened_at, each.instrument): each.bar for each in told}
    expected, late = naive(rows, 10, 8)
    assert last == expected
    assert tape.late == late
    numbers: dict[tuple[int, int], list[int]] = {}
    for each in told:
        numbers.setdefault((each.bar.opened_at, each.instrument), []).append(each.revision)
    # Revisions are numbered without a gap, and each is given out once.
    assert all(given == list(range(len(given))) for given in numbers.values())


@given(streams(), st.integers(2, 4))
def test_derived_bars_are_those_built_wide(rows: list[Row], factor: int) -> None:
    # A second here is a unit; nothing is late, so that both see the same trades.
    in_time = [(number, happened * SECOND, got * SECOND, price, float(round(size))) for number, happened, got, price,
               size in rows]  # fmt: skip
    width = factor * 10 * SECOND
    narrow, wide = BarTape(SECOND, grace=10**18), BarTape(width, grace=10**18)
    narrow.add(trades(*in_time))
    wide.add(trades(*in_time))
    small, large = narrow.close_until(Nanos(10**15)), wide.close_until(Nanos(10**15))
    for number in (1, 2, 3):
        mine = [each.bar for each in small if each.instrument == number]
        assert derive(mine, width) == [each.bar for each in large if each.instrument == number]


def test_a_late_trade_within_the_grace_amends_the_bar_and_beyond_it_is_counted() -> None:
    tape = BarTape(10, grace=5)
    tape.add(at((1, 12, 7.0, 2.0)))
    assert tape.close_until(Nanos(19)) == []
    (first,) = tape.close_until(Nanos(20))
    assert (first.revision, first.bar.close, first.bar.trades) == (0, 7.0, 1)
    tape.add(trades((1, 19, 24, 9.0, 1.0)))
    (amended,) = tape.close_until(Nanos(24))
    assert (amended.revision, amended.bar.opened_at, amended.bar.close, amended.bar.volume) == (1, 10, 9.0, 3.0)
    tape.add(trades((1, 11, 25, 1.0, 1.0)))
    assert tape.close_until(Nanos(40)) == []
    assert tape.late == 1
    assert tape.spoilt() == {(1, 10)}
    assert tape.spoilt() == set()
    assert tape.unfinished(1) == []


def test_what_is_handed_in_after_its_grace_is_late_even_if_it_came_in_time() -> None:
    tape = BarTape(10, grace=5)
    tape.close_until(Nanos(25))
    tape.add(trades((1, 12, 13, 7.0, 2.0)))
    assert tape.late == 1


def test_quotes_snapshots_backfills_and_senseless_prices_make_no_bar() -> None:
    buffer = TickBuffer()
    buffer.quote(1, 9.0, 1.0, 10.0, 1.0, 0, 5, 5, 0)
    buffer.trade(1, 5.0, 1.0, SNAPSHOT, 5, 5, 0)
    buffer.trade(1, 5.0, 1.0, BACKFILLED, 5, 10**6, 0)
    for price in (0.0, -1.0, math.nan, math.inf):
        buffer.trade(1, price, 1.0, 0, 5, 5, 0)
    tape = BarTape(10)
    tape.grace = 5
    tape.add(decode(buffer.take()))
    assert tape.unfinished(1) == []
    assert tape.late == 1


def test_receive_time_stands_in_and_a_missing_size_is_none() -> None:
    tape = BarTape(10)
    tape.add(trades((1, 0, 37, 5.0, math.nan)))
    (bar,) = tape.unfinished(1)
    assert (bar.opened_at, bar.volume, bar.trades) == (30, 0.0, 1)


def test_a_day_is_its_session_with_its_break_and_without_what_is_traded_outside() -> None:
    def bar(minute: int, price: float) -> Bar:
        return Bar(opened_at=Nanos(minute * MINUTE), open=price, high=price + 1, low=price - 1, close=price, volume=2.0,
                   trades=1)  # fmt: skip

    days = [Span(100 * MINUTE, 110 * MINUTE), Span(200 * MINUTE, 210 * MINUTE), Span(300 * MINUTE, 310 * MINUTE)]
    bars = [bar(99, 50.0), bar(100, 1.0), bar(105, 7.0), bar(109, 3.0), bar(110, 90.0), bar(305, 2.0)]
    first, last = derive_days(bars, days)
    assert first == Bar(opened_at=Nanos(100 * MINUTE), open=1.0, high=8.0, low=0.0, close=3.0, volume=6.0, trades=3)
    assert (last.opened_at, last.open, last.trades) == (300 * MINUTE, 2.0, 1)


@pytest.mark.parametrize(
    ("interval", "calendar", "base"), [("90s", "24x7", SECOND), ("4h", "XNYS", MINUTE), ("1d", "XNYS", MINUTE)]
)
def test_every_width_has_a_stored_one_that_it_is_made_of(interval: str, calendar: str, base: int) -> None:
    assert stored_width(check_width(interval, calendar)) == base


@pytest.mark.parametrize(("interval", "calendar"), [("36h", "24x7"), ("2d", "XNYS"), ("5x", "24x7")])
def test_a_width_that_has_no_meaning_is_refused(interval: str, calendar: str) -> None:
    with pytest.raises(BadInput):
        check_width(interval, calendar)
    assert check_width("2d", "24x7") == 2 * DAY

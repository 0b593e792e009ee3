from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.bars import Bar, BarBuilder, interval_ns, resample
from trading.errors import BadInput
from trading.ids import Nanos
from trading.ticks import BACKFILLED, SNAPSHOT, TickArray, TickBuffer, decode


def trades(*rows: tuple[int, int, float, float], flags: int = 0) -> TickArray:
    buffer = TickBuffer()
    for number, at, price, size in rows:
        buffer.trade(number, price, size, flags, at, at + 3, 0)
    return decode(buffer.take())


class NaiveBuilder:
    """Bars by the definition: every trade asked one by one."""

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.open: dict[int, list[tuple[int, float, float]]] = {}
        self.done: list[tuple[int, Bar]] = []
        self.floor: dict[int, int] = {}
        self.late = 0

    def add(self, number: int, at: int, price: float, size: float) -> None:
        slot = at // self.interval
        if slot < self.floor.get(number, -1):
            self.late += 1
            return
        if self.open.get(number) and slot > self.floor[number]:
            self.close(number)
        self.floor[number] = slot
        self.open.setdefault(number, []).append((at, price, size))

    def close(self, number: int) -> None:
        own = self.open.pop(number)
        prices = [p for _, p, _ in own]
        slot = own[0][0] // self.interval
        bar = Bar(
            opened_at=Nanos(slot * self.interval),
            open=prices[0],
            high=max(prices),
            low=min(prices),
            close=prices[-1],
            volume=float(sum(s for _, _, s in own)),
            trades=len(own),
        )
        self.done.append((number, bar))
        self.floor[number] = slot + 1

    def close_until(self, now: int) -> None:
        for number in list(self.open):
            if (self.open[number][0][0] // self.interval + 1) * self.interval <= now:
                self.close(number)


ticks = st.tuples(st.integers(1, 3), st.integers(1, 60), st.integers(1, 50).map(float), st.integers(0, 9).map(float))
steps = st.lists(st.lists(ticks, max_size=30) | st.integers(0, 70), max_size=6)


@given(steps)
def test_bars_equal_the_definition_however_ticks_are_batched(story: list[Any]) -> None:
    builder, one_by_one, naive = BarBuilder(10), BarBuilder(10), NaiveBuilder(10)
    got: list[tuple[int, Bar]] = []
    slow: list[tuple[int, Bar]] = []
    for step in story:
        if isinstance(step, int):
            got += builder.close_until(Nanos(step))
            slow += one_by_one.close_until(Nanos(step))
            naive.close_until(step)
            continue
        got += builder.add(trades(*step))
        for row in step:
            slow += one_by_one.add(trades(row))
            naive.add(*row)
    for number in (1, 2, 3):
        # Between instruments the order of closing is free; within one it is time.
        mine = [bar for n, bar in got if n == number]
        assert mine == [bar for n, bar in naive.done if n == number]
        assert mine == [bar for n, bar in slow if n == number]
        assert builder.unfinished(number) == one_by_one.unfinished(number)
    assert builder.late == naive.late == one_by_one.late


@given(steps, steps)
def test_restored_builder_goes_on_as_if_it_had_never_stopped(first: list[Any], rest: list[Any]) -> None:
    def feed(builder: BarBuilder, story: list[Any]) -> list[tuple[int, Bar]]:
        out: list[tuple[int, Bar]] = []
        for step in story:
            out += builder.close_until(Nanos(step)) if isinstance(step, int) else builder.add(trades(*step))
        return out

    whole, half, other = BarBuilder(10), BarBuilder(10), BarBuilder(10)
    feed(half, first)
    other.restore(half.snapshot())
    feed(whole, first)
    assert feed(other, rest) == feed(whole, rest)
    assert other.snapshot() == whole.snapshot()


def test_bar_closes_without_a_tick_after_its_grace() -> None:
    builder = BarBuilder(10, grace=5)
    builder.add(trades((1, 12, 7.0, 2.0)))
    assert builder.close_until(Nanos(24)) == []
    ((number, bar),) = builder.close_until(Nanos(25))
    assert (number, bar.opened_at, bar.volume) == (1, 10, 2.0)
    builder.add(trades((1, 19, 7.0, 2.0)))
    assert builder.late == 1
    assert builder.unfinished(1) is None


def test_receive_time_stands_in_where_the_venue_sends_none() -> None:
    buffer = TickBuffer()
    buffer.trade(1, 5.0, 1.0, 0, 0, 37, 0)
    builder = BarBuilder(10)
    builder.add(decode(buffer.take()))
    bar = builder.unfinished(1)
    assert bar is not None
    assert bar.opened_at == 30


def test_quotes_snapshots_and_senseless_prices_make_no_bar() -> None:
    buffer = TickBuffer()
    buffer.quote(1, 9.0, 1.0, 10.0, 1.0, 0, 5, 5, 0)
    buffer.trade(1, 5.0, 1.0, SNAPSHOT, 5, 5, 0)
    for price in (0.0, -1.0, math.nan, math.inf):
        buffer.trade(1, price, 1.0, 0, 5, 5, 0)
    builder = BarBuilder(10)
    builder.add(decode(buffer.take()))
    assert builder.unfinished(1) is None
    builder.add(trades((1, 5, 4.0, math.nan), flags=BACKFILLED))
    bar = builder.unfinished(1)
    assert bar is not None
    assert (bar.close, bar.volume, bar.trades) == (4.0, 0.0, 1)


@given(st.lists(ticks, min_size=1, max_size=60), st.integers(1, 4))
def test_resampled_bars_equal_bars_built_wide(rows: list[tuple[int, int, float, float]], factor: int) -> None:
    rows = sorted((1, at, price, size) for _, at, price, size in rows)
    narrow, wide = BarBuilder(5), BarBuilder(5 * factor)
    small = [b for _, b in narrow.add(trades(*rows)) + narrow.close_until(Nanos(10**6))]
    large = [b for _, b in wide.add(trades(*rows)) + wide.close_until(Nanos(10**6))]
    assert resample(small, 5, factor) == large


def test_resampling_refuses_bars_off_the_grid_or_out_of_order() -> None:
    bar = Bar(opened_at=Nanos(10), open=1, high=1, low=1, close=1, volume=1)
    for bars, interval in (([bar], 3), ([bar, bar], 5)):
        with pytest.raises(BadInput):
            resample(bars, interval, 2)


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("5m", 300), ("2h", 7200), ("1d", 86400)])
def test_interval_text_is_read(text: str, seconds: int) -> None:
    assert interval_ns(text) == seconds * 10**9


@pytest.mark.parametrize("text", ["", "m", "0m", "-1m", "1.5m", "1w", "99999s", "1"])
def test_bad_interval_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        interval_ns(text)


def test_many_ticks_are_counted_whole() -> None:
    rows = np.random.default_rng(7)
    at = np.sort(rows.integers(1, 10**6, 5000)).tolist()
    builder = BarBuilder(1000)
    bars = builder.add(trades(*((1, t, 10.0, 1.0) for t in at))) + builder.close_until(Nanos(2 * 10**6))
    assert sum(bar.trades for _, bar in bars) == 5000
    assert builder.late == 0

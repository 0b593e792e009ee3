"""What lies in a gap is what was not streamed: nothing twice, nothing left out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trading.gaps import Edge, Gaps
from trading.ids import Nanos
from trading.ticks import BACKFILLED, SNAPSHOT, TickArray, TickBuffer, decode

SECOND = 1_000_000_000


def trades(sequences: list[int], *, numbered: bool = True, flags: int = 0, number: int = 1) -> TickArray:
    """Trades, number ``n`` at second ``n`` of the venue."""
    buffer = TickBuffer()
    for n in sequences:
        buffer.trade(number, 100.0, 1.0, flags, n * SECOND, n * SECOND + 5, n if numbered else 0)
    return decode(buffer.take())


def edge(n: int, numbered: bool) -> Edge:
    return Edge(n if numbered else 0, Nanos(n * SECOND))


@given(
    cuts=st.lists(st.integers(2, 98), min_size=2, max_size=8, unique=True).map(sorted),
    numbered=st.booleans(),
    is_quick=st.booleans(),
)
def test_streamed_and_filled_in_are_every_trade_once(cuts: list[int], numbered: bool, is_quick: bool) -> None:
    """The stream has gaps between every other pair of cuts; they are filled at once, or all at the end."""
    gaps, got, owed = Gaps(), [], []
    history = trades(list(range(1, 101)), numbered=numbered, flags=BACKFILLED)
    last, is_down = 0, False
    for begin, end in pairwise([1, *cuts, 101]):
        if is_down:
            gaps.open(1, edge(last, numbered))
            owed.append((last, end))
        else:
            for n in range(begin, end):
                tick = trades([n], numbered=numbered)
                gaps.take(tick)
                got += (tick["exchange_at"] // SECOND).tolist()
                last = n
        is_down = not is_down
        while owed and gaps.is_over(1) and is_quick:
            owed.pop(0)
            got += (gaps.missing(1, history, Nanos(0), Nanos(0))["exchange_at"] // SECOND).tolist()
            gaps.close(1)
    for _, until in owed:
        after = Nanos(until * SECOND)
        got += (gaps.missing(1, history, Nanos(0), after)["exchange_at"] // SECOND).tolist()
        gaps.close(1)
    assert sorted(got) == list(range(1, 101))
    assert not gaps.waiting


def test_snapshots_quotes_and_others_end_no_gap() -> None:
    gaps = Gaps()
    gaps.open(1, edge(5, True))
    gaps.take(trades([9], flags=SNAPSHOT))
    gaps.take(trades([9], flags=BACKFILLED))
    gaps.take(trades([9], number=2))
    quote = TickBuffer()
    quote.quote(1, 99.0, 1.0, 101.0, 1.0, 0, 9 * SECOND, 9 * SECOND, 9)
    gaps.take(decode(quote.take()))
    assert not gaps.is_over(1)
    gaps.take(trades([8]))
    assert gaps.is_over(1)
    assert gaps.missing(1, trades(list(range(1, 12))), Nanos(0), Nanos(0))["sequence"].tolist() == [6, 7]
    gaps.forget(1)
    assert not gaps.waiting


def test_without_trades_at_its_ends_the_times_of_the_gap_bound_it() -> None:
    gaps = Gaps()
    gaps.open(1, Edge(0, Nanos(0)))
    told = trades(list(range(1, 12)))
    assert gaps.begin(1, Nanos(3 * SECOND)) == 3 * SECOND
    missing = gaps.missing(1, told, Nanos(3 * SECOND), Nanos(7 * SECOND))
    assert missing["sequence"].tolist() == [4, 5, 6]
    assert len(gaps.missing(2, told, Nanos(3 * SECOND), Nanos(7 * SECOND))) == 3
    gaps.open(2, Edge(2, Nanos(2 * SECOND)))
    assert gaps.begin(2, Nanos(3 * SECOND)) == 2 * SECOND
    assert np.array_equal(gaps.missing(2, told, Nanos(0), Nanos(5 * SECOND))["sequence"], [3, 4])


def test_a_gap_in_which_nothing_was_missed_makes_room_for_the_next_one() -> None:
    gaps = Gaps()
    gaps.open(1, edge(5, True))
    gaps.cancel(1)
    assert not gaps.waiting
    gaps.open(1, edge(5, True))
    gaps.take(trades([6]))
    gaps.cancel(1)
    assert gaps.is_over(1), "one that a trade has ended is to be filled"
    assert gaps.waiting
    gaps.open(1, edge(6, True))
    gaps.cancel(1)
    assert gaps.missing(1, trades([5, 6, 7]), Nanos(0), Nanos(0))["sequence"].tolist() == []
    gaps.close(1)
    assert not gaps.waiting

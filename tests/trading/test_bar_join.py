from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trading.bar_join import BarJoin
from trading.bars import Bar
from trading.ids import Nanos
from trading.spans import Span

WIDTH = 10


def bar(slot: int) -> Bar:
    at = slot * WIDTH
    return Bar(opened_at=Nanos(at), open=at, high=at, low=at, close=at, volume=1.0)


@given(
    known=st.integers(0, 12),
    live_from=st.integers(0, 120),
    traded=st.sets(st.integers(0, 25)),
    fills=st.lists(st.tuples(st.integers(0, 25), st.integers(0, 25)), max_size=4),
)
def test_every_bar_comes_once_and_in_order_whenever_history_answers(
    known: int, live_from: int, traded: set[int], fills: list[tuple[int, int]]
) -> None:
    """``fills``: after so many live bars history answers with all that opens before this slot."""
    join = BarJoin(WIDTH, Nanos(known * WIDTH), Nanos(live_from))
    first = live_from // WIDTH
    got: list[Bar] = []
    for slot in range(first, 26):
        for _, until in (each for each in fills if each[0] == slot and each[1] <= slot):
            got += join.fill([bar(n) for n in sorted(traded) if n < until], Nanos(until * WIDTH))
        if slot in traded:
            # The first one is only what was left of its interval.
            whole = slot * WIDTH >= live_from
            got += join.live(bar(slot) if whole else Bar(opened_at=bar(slot).opened_at, open=-1, high=-1, low=-1,
                                                         close=-1, volume=0.1))  # fmt: skip
    wanted = join.wanted()
    if wanted is not None:
        assert got == [bar(n) for n in sorted(traded) if known <= n < wanted.start // WIDTH]
        got += join.fill([bar(n) for n in sorted(traded) if n * WIDTH < wanted.end], Nanos(wanted.end))
    assert join.wanted() is None
    assert got == [bar(n) for n in sorted(traded) if n >= known]


def test_the_interval_in_which_one_began_to_listen_is_asked_of_history() -> None:
    join = BarJoin(WIDTH, Nanos(40), Nanos(43))
    assert join.wanted() == Span(40, 50)
    assert join.live(bar(4)) == []
    assert join.live(bar(5)) == []
    assert join.fill([bar(3), bar(4)], Nanos(50)) == [bar(4), bar(5)]
    assert join.live(bar(6)) == [bar(6)]
    assert join.live(bar(6)) == []


def test_whoever_listens_from_the_very_beginning_needs_no_history() -> None:
    join = BarJoin(WIDTH, Nanos(40), Nanos(40))
    assert join.wanted() is None
    assert join.live(bar(4)) == [bar(4)]

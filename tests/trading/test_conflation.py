from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trading.conflation import newest
from trading.last_values import LastValues
from trading.ticks import BACKFILLED, QUOTE, TRADE, TickArray, TickBuffer, decode

Event = tuple[int, bool, bool]


def made(events: list[Event]) -> TickArray:
    """(Instrument, trade or quote, filled in from history); sequence and price number them."""
    buffer = TickBuffer()
    for n, (number, is_trade, old) in enumerate(events):
        flags = BACKFILLED if old else 0
        if is_trade:
            buffer.trade(number, 1.0 + n, 1.0, flags, n, n, n)
        else:
            buffer.quote(number, 1.0 + n, 1.0, 2.0 + n, 1.0, flags, n, n, n)
    return decode(buffer.take())


EVENTS = st.lists(
    st.tuples(st.integers(1, 4), st.booleans(), st.sampled_from([False, False, False, True])), max_size=30
)


@given(EVENTS)
def test_of_each_instrument_and_kind_the_last_one_is_kept(events: list[Event]) -> None:
    kept = newest(made(events))
    last: dict[tuple[int, bool], int] = {}
    for n, (number, is_trade, old) in enumerate(events):
        before = last.get((number, is_trade))
        if before is None or not old or events[before][2]:
            last[number, is_trade] = n
    assert kept["sequence"].tolist() == sorted(last.values())


@given(EVENTS)
def test_last_values_of_what_is_kept_are_those_of_all(events: list[Event]) -> None:
    events = [(number, is_trade, False) for number, is_trade, _ in events]
    whole, some = LastValues(), LastValues()
    ticks = made(events)
    if len(ticks):
        whole.take(ticks)
        some.take(newest(ticks))
    rows = [each[np.argsort(each["instrument"])] for each in (whole.all(), some.all())]
    assert rows[0].tobytes() == rows[1].tobytes()


def test_a_tick_that_is_both_is_kept_for_either() -> None:
    ticks = made([(1, True, False), (1, False, False), (1, True, False)]).copy()
    ticks["flags"][1] |= TRADE
    assert newest(ticks)["sequence"].tolist() == [1, 2]
    ticks["flags"][2] |= QUOTE
    assert newest(ticks)["sequence"].tolist() == [2]


@given(before=EVENTS, between=EVENTS, after=EVENTS, late=st.integers(0, 30))
def test_who_joins_late_has_the_values_of_who_was_there_from_the_start(
    before: list[Event], between: list[Event], after: list[Event], late: int
) -> None:
    """It listens after ``before``, and is given a snapshot taken after ``between``, once it has read ``late`` of it."""
    live = [(number, is_trade, False) for number, is_trade, _ in (*before, *between, *after)]
    ticks = made(live)
    first, second = len(before), len(before) + len(between)
    there, joined = LastValues(), LastValues()
    there.take(ticks[:second])
    snapshot = there.all()
    read = min(first + late, len(ticks))
    joined.take(ticks[first:read])
    joined.seed(snapshot)
    joined.take(ticks[read:])
    there.take(ticks[second:])
    numbers = {number for number, _, _ in live}
    for number in numbers:
        mine, right = joined.get(number), there.get(number)
        assert mine is not None
        assert right is not None
        kinds = right["flags"] & (TRADE | QUOTE)
        assert mine["flags"] & (TRADE | QUOTE) == kinds
        for kind, names in ((TRADE, ("price", "size")), (QUOTE, ("bid", "ask"))):
            if kinds & kind:
                assert [mine[name] for name in names] == [right[name] for name in names]


def test_nothing_was_there_and_nothing_came() -> None:
    last = LastValues()
    last.seed(np.empty(0, dtype=made([(1, True, False)]).dtype))
    assert last.get(1) is None
    assert len(last.all()) == 0

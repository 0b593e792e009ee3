from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trading.depth import DEPTH
from trading.handover import LAG_NS, Handover
from trading.ticks import QUOTE, TRADE, TickArray, TickBuffer, decode

BTC = 5
Event = tuple[int, int]  # kind, sequence


def ticks(events: list[Event], received_at: int = 1_000) -> TickArray:
    buffer = TickBuffer()
    for kind, sequence in events:
        if kind == TRADE:
            buffer.trade(BTC, 1.0, 1.0, 0, 0, received_at, sequence)
        else:
            buffer.quote(BTC, 1.0, 1.0, 2.0, 1.0, 0, 0, received_at, sequence)
    return decode(buffer.take())


def events(found: TickArray) -> list[Event]:
    return list(zip((found["flags"] & (TRADE | QUOTE)).tolist(), found["sequence"].tolist(), strict=True))


def test_a_new_worker_that_lags_does_not_repeat_what_the_old_one_published() -> None:
    old, new = Handover(), Handover()
    assert len(old.admit(ticks([(TRADE, n) for n in range(1, 11)]))) == 10
    new.mute(BTC)
    new.admit(ticks([(TRADE, 5)]))
    cuts = old.cut(BTC, new.firsts(BTC))
    assert cuts == {TRADE: 11}
    assert len(new.activate(BTC, cuts)) == 0
    assert events(new.admit(ticks([(TRADE, n) for n in range(6, 14)]))) == [(TRADE, n) for n in (11, 12, 13)]


def test_books_of_what_is_kept_back_or_let_go_are_not_shown() -> None:
    handover = Handover()
    books = np.zeros(4, dtype=DEPTH)
    books["instrument"] = [1, 2, 3, 1]
    assert handover.shown(books) is books
    handover.mute(2)
    handover.forget(3)
    assert handover.shown(books)["instrument"].tolist() == [1, 1]
    handover.activate(2, {})
    handover.carry(3)
    assert handover.shown(books)["instrument"].tolist() == [1, 2, 3, 1]


def test_a_third_worker_takes_over_no_earlier_than_the_second_would_have_begun() -> None:
    second, third = Handover(), Handover()
    second.mute(BTC)
    second.activate(BTC, {TRADE: 11})
    third.mute(BTC)
    third.admit(ticks([(TRADE, 7)]))
    assert second.cut(BTC, third.firsts(BTC)) == {TRADE: 11}


def test_a_venue_whose_numbers_begin_again_is_not_silenced_for_long() -> None:
    new = Handover()
    new.mute(BTC)
    new.admit(ticks([(TRADE, 5_000)], 1_000))
    new.activate(BTC, {TRADE: 6_000})
    assert len(new.admit(ticks([(TRADE, 1)], 2_000))) == 0
    assert len(new.admit(ticks([(TRADE, 2)], 1_001 + LAG_NS))) == 1


def test_an_instrument_taken_again_has_forgotten_its_last_move() -> None:
    new = Handover()
    new.mute(BTC)
    new.activate(BTC, {TRADE: 100})
    new.forget(BTC)
    new.carry(BTC)
    assert len(new.admit(ticks([(TRADE, 3)]))) == 1


@given(st.data())
def test_every_tick_is_published_once_however_far_the_workers_lag(data: st.DataObject) -> None:
    kinds = [TRADE, QUOTE, *data.draw(st.lists(st.sampled_from((TRADE, QUOTE)), min_size=4, max_size=40))]
    counters = {TRADE: 100, QUOTE: 7_000}
    stream: list[Event] = []
    for kind in kinds:
        counters[kind] += 1
        stream.append((kind, counters[kind]))
    # The new worker hears the stream from here; the old one has read that far when it is asked for the cut.
    joined = data.draw(st.integers(2, len(stream) - 1))
    old_at = data.draw(st.integers(joined, len(stream)))
    new_at = data.draw(st.integers(joined + 1, len(stream)))
    old, new = Handover(), Handover()
    published = events(old.admit(ticks(stream[:old_at])))
    new.mute(BTC)
    assert events(new.admit(ticks(stream[joined:new_at]))) == []
    cuts = old.cut(BTC, new.firsts(BTC))
    more = data.draw(st.integers(new_at, len(stream)))
    new.admit(ticks(stream[new_at:more]))
    published += events(new.activate(BTC, cuts))
    for each in stream[more:]:
        published += events(new.admit(ticks([each])))
    published += events(old.admit(ticks(stream[old_at:])))
    assert sorted(published) == sorted(stream)

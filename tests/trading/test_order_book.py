from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading.ids import Nanos
from trading.order_book import FIRST_PAUSE, LONGEST_PAUSE, MOST_LEVELS, BookChange, OrderBook, Side

SECOND = 1_000_000_000
Shot = tuple[int, dict[float, float], dict[float, float]]


def change(first: int, last: int, *, previous: int | None = None, bid: float = 100.0, size: float = 1.0) -> BookChange:
    return BookChange(first=first, last=last, previous=previous, bids=((bid, size),), asks=())


def synced(last: int = 10) -> OrderBook:
    """A good book at 10, the stream of which was first heard at 9."""
    book = OrderBook()
    book.change(change(last - 1, last), Nanos(0))
    assert book.wants_snapshot(Nanos(0))
    book.asked(Nanos(0))
    assert book.snapshot(last, [(100.0, 5.0), (99.0, 6.0)], [(101.0, 7.0)], Nanos(0))
    return book


class Venue:
    """A market's book with every state it ever had, and its changes."""

    def __init__(self, chained: bool, moves: list[tuple[int, int, int]]) -> None:
        bids = {100.0 - n: 1.0 for n in range(5)}
        asks = {101.0 + n: 1.0 for n in range(5)}
        at = 1_000
        self.states: list[Shot] = [(at, dict(bids), dict(asks))]
        self.changes: list[BookChange] = []
        for offset, size, skip in moves:
            side, price = (bids, 100.0 - offset) if offset >= 0 else (asks, 100.0 - offset)
            if size:
                side[price] = float(size)
            else:
                side.pop(price, None)
            # Numbers between are other instruments' where the venue chains.
            first = at + 1 + (skip if chained else 0)
            last = first + skip
            told = ((price, float(size)),)
            self.changes.append(
                BookChange(first=first, last=last, previous=at if chained else None,
                           bids=told if offset >= 0 else (), asks=told if offset < 0 else ())
            )  # fmt: skip
            at = last
            self.states.append((at, dict(bids), dict(asks)))


def shown(book: OrderBook) -> tuple[dict[float, float], dict[float, float]]:
    return dict(book.bids(100)), dict(book.asks(100))


MOVES = st.lists(
    st.tuples(st.integers(-6, 6).filter(bool), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=30
)


@settings(max_examples=300)
@given(chained=st.booleans(), moves=MOVES, data=st.data())
def test_whatever_is_lost_doubled_or_overtaken_the_book_is_the_true_one_or_says_that_it_is_not(
    chained: bool, moves: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    venue = Venue(chained, moves)
    by_last = {last: (bids, asks) for last, bids, asks in venue.states}
    book = OrderBook()
    now = 0
    stream = list(enumerate(venue.changes))
    for place in data.draw(st.lists(st.integers(0, max(0, len(stream) - 2)), max_size=3), label="overtaken"):
        if place + 1 < len(stream):
            stream[place], stream[place + 1] = stream[place + 1], stream[place]
    sent = 0
    for number, each in stream:
        now += SECOND
        sent = max(sent, number + 1)
        copies = data.draw(st.sampled_from([1, 1, 1, 1, 0, 2]), label="copies")
        for _ in range(copies):
            book.change(each, Nanos(now))
        if book.wants_snapshot(Nanos(now)) and data.draw(st.booleans(), label="answered"):
            book.asked(Nanos(now))
            # A cache at the venue may be behind.
            behind = data.draw(st.integers(0, 2), label="behind")
            last, bids, asks = venue.states[max(0, sent - behind)]
            book.snapshot(last, bids.items(), asks.items(), Nanos(now))
        if book.good:
            assert shown(book) == tuple(by_last[book.last])
        else:
            assert shown(book) == ({}, {})
            assert book.reason
    # Nothing is lost any more: it ends in the true book.
    last, bids, asks = venue.states[-1]
    final = BookChange(first=last + 1, last=last + 1, previous=last if chained else None, bids=(), asks=())
    for _ in range(3):
        now += 2 * LONGEST_PAUSE
        book.change(final, Nanos(now))
        if book.wants_snapshot(Nanos(now)):
            book.asked(Nanos(now))
            book.snapshot(last, bids.items(), asks.items(), Nanos(now))
    assert book.good
    assert shown(book) == (bids, asks)
    assert book.last == last + 1


def test_spot_changes_follow_by_number() -> None:
    book = synced()
    assert book.change(change(11, 12, bid=100.5), Nanos(1))
    assert book.bids(2) == [(100.5, 1.0), (100.0, 5.0)]
    assert not book.change(change(11, 12, bid=7.0), Nanos(1))
    # Begins in what is known and reaches beyond it.
    assert book.change(change(12, 13, bid=100.5, size=0.0), Nanos(1))
    assert book.bids(1) == [(100.0, 5.0)]
    assert book.good
    book.change(change(15, 15), Nanos(1))
    assert not book.good
    assert book.bids(1) == []
    assert "missing after 13" in book.reason


def test_futures_changes_follow_by_the_number_before() -> None:
    book = OrderBook()
    book.change(change(90, 95, previous=80), Nanos(0))
    book.change(change(98, 105, previous=95, bid=99.5), Nanos(0))
    assert book.snapshot(100, [(99.0, 1.0)], [(101.0, 1.0)], Nanos(0))
    assert book.bids(1) == [(99.5, 1.0)]
    assert book.change(change(120, 125, previous=105), Nanos(0))
    assert book.good
    book.change(change(126, 130, previous=124), Nanos(0))
    assert not book.good


def test_only_the_first_change_after_a_snapshot_may_reach_across_it() -> None:
    book = OrderBook()
    book.change(change(98, 105, previous=90), Nanos(0))
    assert book.snapshot(100, [(99.0, 1.0)], [(101.0, 1.0)], Nanos(0))
    book.change(change(104, 110, previous=103), Nanos(0))
    assert not book.good


def test_the_first_change_after_a_snapshot_may_end_where_it_does() -> None:
    book = OrderBook()
    book.change(change(98, 100, previous=95, bid=99.5, size=3.0), Nanos(0))
    assert book.snapshot(100, [(99.5, 3.0)], [(101.0, 1.0)], Nanos(0))
    assert book.change(change(110, 111, previous=100), Nanos(0))
    assert book.good


def test_a_snapshot_that_is_too_old_is_asked_for_again_ever_more_seldom() -> None:
    book = OrderBook()
    now, pauses = 0, []
    book.change(change(50, 51), Nanos(now))
    for _ in range(12):
        asked_at = now
        book.asked(Nanos(now))
        assert not book.snapshot(40, [], [], Nanos(now))
        now = int(book.ask_at() or 0)
        pauses.append(now - asked_at)
        assert not book.wants_snapshot(Nanos(now - 1))
        assert book.wants_snapshot(Nanos(now))
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == LONGEST_PAUSE
    assert book.snapshot(51, [(100.0, 1.0)], [], Nanos(now))


def test_a_book_that_was_good_for_long_gets_its_snapshot_at_once() -> None:
    book = synced()
    book.change(change(20, 21), Nanos(100 * SECOND))
    assert book.wants_snapshot(Nanos(100 * SECOND))


def test_a_crossed_book_is_given_up() -> None:
    book = synced()
    assert book.change(change(11, 11, bid=101.0), Nanos(1))
    assert not book.good
    assert (book.crossings, book.resyncs) == (1, 1)
    assert "crossed" in book.reason
    again = OrderBook()
    again.change(change(1, 1), Nanos(0))
    assert not again.snapshot(1, [(101.0, 1.0)], [(101.0, 1.0)], Nanos(0))


def test_a_stream_that_was_cut_ends_the_book() -> None:
    book = synced()
    assert book.broken(Nanos(1))
    assert not book.broken(Nanos(1))
    assert book.ask_at() is None
    book.change(change(30, 31), Nanos(2))
    assert book.ask_at() is not None


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3))))
def test_a_side_is_a_sorted_table(steps: list[tuple[int, int]]) -> None:
    side, table = Side(-1), {}
    for price, size in steps:
        side.put([(float(price), float(size))])
        if size:
            table[float(price)] = float(size)
        else:
            table.pop(float(price), None)
    assert side.top(99) == sorted(table.items(), reverse=True)
    assert side.best() == (max(table) if table else None)


def test_a_side_forgets_the_farthest_levels() -> None:
    side = Side(1)
    side.put((float(n), 1.0) for n in range(MOST_LEVELS + 10))
    assert len(side) == MOST_LEVELS
    assert side.best() == pytest.approx(0.0)

"""What lacks of numbered trades is known at once, is filled in once, and is known after a kill as well."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.patience import PATIENCE
from trading.continuity import MOST_MISSING, Continuity, Hole, Mark, Marks, less, note_of
from trading.ids import Nanos
from trading.ticks import BACKFILLED, SNAPSHOT, TickArray, TickBuffer, decode

SECOND = 1_000_000_000


def trades(*each: tuple[int, int], flags: int = 0) -> TickArray:
    """Trades as (instrument, number), number ``n`` at second ``n`` of the venue and a bit later here."""
    buffer = TickBuffer()
    for number, n in each:
        buffer.trade(number, 100.0, 1.0, flags, n * SECOND, n * SECOND + 5, n)
    return decode(buffer.take())


def mark(following: int) -> Mark:
    return Mark(following, Nanos((following - 1) * SECOND), Nanos((following - 1) * SECOND + 5))


def runs(holes: list[Hole]) -> list[tuple[int, int]]:
    return [(hole.first, hole.last) for hole in holes]


def split(ticks: TickArray, cuts: list[int]) -> list[TickArray]:
    places = sorted({min(cut, len(ticks)) for cut in cuts})
    return [part for part in np.split(ticks, places) if len(part)]


@given(
    came=st.dictionaries(
        st.integers(1, 4), st.sets(st.integers(1, 60), min_size=1).map(sorted), min_size=1, max_size=4
    ),
    mixed=st.randoms(use_true_random=False),
    cuts=st.lists(st.integers(1, 200), max_size=12),
)
def test_holes_are_exactly_what_did_not_come_however_trades_are_batched(
    came: dict[int, list[int]], mixed: object, cuts: list[int]
) -> None:
    left = {number: list(own) for number, own in came.items()}
    order = []
    while left:
        number = mixed.choice(sorted(left))  # type: ignore[attr-defined]
        order.append((number, left[number].pop(0)))
        if not left[number]:
            del left[number]
    continuity = Continuity()
    for number in came:
        continuity.begin(number, mark(1))
    found = [each for part in split(trades(*order), cuts) for each in continuity.take(part)]
    for number, own in came.items():
        missing = set(range(1, own[-1] + 1)) - set(own)
        told = [n for hole_of, hole in found if hole_of == number for n in range(hole.first, hole.last + 1)]
        assert sorted(told) == sorted(missing)
        for hole in continuity.claim(number):
            before = [n for n in own if n < hole.first]
            assert (hole.since, hole.begin) == ((before[-1] * SECOND + 5, before[-1] * SECOND) if before else (5, 0))
            assert hole.until == (hole.last + 1) * SECOND + 5


@settings(max_examples=200)
@given(
    came=st.sets(st.integers(1, 60), min_size=2).map(sorted),
    filled=st.sets(st.integers(1, 60)),
    saved=st.integers(0, 30),
    killed=st.integers(1, 30),
    cut=st.one_of(st.just(0), st.integers(55, 65)),
    size=st.integers(1, 7),
)
def test_whoever_goes_on_after_a_kill_owes_exactly_what_was_not_published(
    came: list[int], filled: set[int], saved: int, killed: int, cut: int, size: int
) -> None:
    """Published are batches of streamed trades, and what of the holes so far is filled in between them."""
    worker, published, notes = Continuity(), set(), []
    worker.begin(1, mark(1))
    dump = worker.dump({1: cut})
    steps = [came[start : start + size] for start in range(0, len(came), size)][:killed]
    for step, own in enumerate(steps):
        batch = trades(*((1, n) for n in own))
        worker.take(batch)
        notes.append(note_of(batch))
        published |= set(own)
        owed = [n for hole in worker.claim(1) for n in range(hole.first, hole.last + 1)]
        if late := [n for n in owed if n in filled]:
            batch = trades(*((1, n) for n in late), flags=BACKFILLED)
            worker.take(batch)
            notes.append(note_of(batch))
            published |= set(late)
        if step == saved:
            dump, notes = worker.dump({1: cut}), []
    marks = Marks(dump)
    marks.replay(notes)
    following = max(n for own in steps for n in own) + 1
    assert marks.marks[1].next == following
    assert marks.marks[1].begin == max(following, cut)
    owes = {n for hole in marks.left_over().get(1, []) for n in range(hole.first, hole.last + 1)}
    assert owes == set(range(1, max(following, cut))) - published


def test_notes_that_the_dump_knows_already_change_nothing() -> None:
    """The list in Redis is cut a moment after the dump is made."""
    worker, notes = Continuity(), []
    worker.begin(1, mark(1))
    for start in range(1, 901, 300):
        batch = trades(*((1, n) for n in range(start, start + 300)))
        worker.take(batch)
        notes.append(note_of(batch))
    marks = Marks(worker.dump({}))
    marks.replay(notes)
    assert marks.marks[1].next == 901
    assert marks.left_over() == {}


def test_what_an_instrument_let_go_lacks_before_the_cut_is_a_hole() -> None:
    continuity = Continuity()
    continuity.begin(1, mark(5))
    continuity.take(trades((1, 5), (1, 6)))
    hole = continuity.end(1, cut=10)
    assert hole is not None
    assert runs([hole]) == runs(continuity.claim(1)) == [(7, 9)]
    assert continuity.end(1, cut=10) is None, "once"
    continuity.begin(1, mark(10))
    continuity.take(trades((1, 10)))
    assert not continuity.has_holes(1)


def test_what_was_kept_out_for_being_bad_is_no_hole() -> None:
    continuity = Continuity()
    continuity.begin(1, mark(1))
    continuity.refuse(trades((1, 3), (1, 4), (1, 9), (2, 2)))
    continuity.take(trades((1, 1), (1, 2), (1, 5), (1, 7)))
    assert runs(continuity.claim(1)) == [(6, 6)]
    continuity.take(trades((1, 8), (1, 10)))
    assert not continuity.has_holes(1)


def test_late_trades_close_their_hole_and_single_wild_numbers_open_none() -> None:
    continuity = Continuity()
    continuity.begin(1, mark(1))
    continuity.take(trades((1, 1), (1, 4), (1, 3), (1, 1), (1, 5)))
    assert runs(continuity.claim(1)) == [(2, 2)]
    assert continuity.take(trades((1, 5 + MOST_MISSING + 10), (1, 6), (1, 7))) == []


def test_a_venue_that_numbers_anew_is_followed_after_a_while() -> None:
    continuity = Continuity()
    continuity.begin(1, mark(900))
    buffer = TickBuffer()
    for n in [*range(1, 201), 203]:
        buffer.trade(1, 100.0, 1.0, 0, (n + 900) * SECOND, (n + 900) * SECOND + 5, n)
    continuity.take(decode(buffer.take()))
    assert runs(continuity.claim(1)) == [(201, 202)]


def test_trades_that_come_late_now_and_then_are_no_new_numbering() -> None:
    continuity = Continuity()
    continuity.begin(1, mark(1))
    buffer = TickBuffer()
    for n in range(1, 400):
        for each in (n, max(1, n - 1)):
            buffer.trade(1, 100.0, 1.0, 0, n * SECOND, n * SECOND + (each < n), each)
    ticks = decode(buffer.take())
    for start in range(0, len(ticks), 3):
        assert continuity.take(ticks[start : start + 3]) == []


def test_snapshots_and_quotes_tell_nothing_of_numbers() -> None:
    continuity = Continuity()
    continuity.begin(1, mark(3))
    buffer = TickBuffer()
    buffer.quote(1, 1.0, 1.0, 2.0, 1.0, 0, 0, SECOND, 77)
    buffer.trade(1, 1.0, 1.0, 0, SECOND, SECOND, 0)
    ticks = np.concatenate([trades((1, 9), flags=SNAPSHOT), decode(buffer.take())])
    assert continuity.take(ticks) == []
    assert len(note_of(ticks)) == 0
    continuity.take(trades((1, 3)))
    assert not continuity.has_holes(1)


@given(
    first=st.integers(1, 20),
    length=st.integers(1, 20),
    known=st.sets(st.integers(1, 45)),
    lost=st.sets(st.integers(1, 45)),
)
def test_each_trade_of_a_hole_is_claimed_filled_lost_or_given_up_and_never_two_of_these(
    first: int, length: int, known: set[int], lost: set[int]
) -> None:
    continuity = Continuity()
    hole = Hole(first, first + length - 1, Nanos(1), Nanos(2), Nanos(1))
    every = set(range(hole.first, hole.last + 1))
    continuity.adopt(1, [hole])
    assert runs(continuity.claim(1)) == [(hole.first, hole.last)]
    assert continuity.claim(1) == []
    assert {n for run in less(hole, known) for n in range(run.first, run.last + 1)} == every - known
    continuity.take(trades(*((1, n) for n in sorted(known)), flags=BACKFILLED))
    continuity.lose(trades(*((1, n) for n in sorted(lost)), flags=BACKFILLED))
    again = {n for run in continuity.claim(1) for n in range(run.first, run.last + 1)}
    assert again == (every - known) & lost
    left = {
        n for own in Marks(continuity.dump({})).left_over().values() for h in own for n in range(h.first, h.last + 1)
    }
    assert left == every - known
    continuity.give_up(1, Hole(hole.first, hole.first, Nanos(0), Nanos(0), Nanos(0)))
    left = {
        n for own in Marks(continuity.dump({})).left_over().values() for h in own for n in range(h.first, h.last + 1)
    }
    assert left == every - known - {hole.first}


def test_a_batch_costs_next_to_nothing() -> None:
    """Looked at as a whole: the bound is wide, one trade after the other would take ten times as long."""
    continuity = Continuity()
    rounds = 40
    for number in range(1, 501):
        continuity.begin(number, mark(1))
    batches = [
        trades(*((number, n) for n in (2 * r + 1, 2 * r + 2) for number in range(1, 501))) for r in range(rounds)
    ]
    began = time.process_time()
    for batch in batches:
        assert continuity.take(batch) == []
        note_of(batch)
    per_tick = (time.process_time() - began) / (rounds * 1000)
    print(f"{per_tick * 1e9:.0f} ns a tick")
    assert per_tick < 1e-6 * PATIENCE

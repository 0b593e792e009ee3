from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trading.ids import Nanos
from trading.seen import STALE, Beat, Seen
from trading.spans import Span


def beat(batch: int, at: int, *whole: tuple[int, int], shard: int = 0, epoch: int = 1) -> Beat:
    return Beat(shard, epoch, batch, Nanos(at), tuple((number, Nanos(since)) for number, since in whole))


def test_a_bar_is_whole_once_its_interval_was_seen_from_before_it_began() -> None:
    seen = Seen(grace=2)
    assert not seen.beat(beat(5, 100, (1, 50)))
    assert seen.batch(1, 6, 0)
    assert seen.beat(beat(6, 120, (1, 50)))
    assert not seen.whole(1, 100, 10)
    assert seen.whole(1, 110, 10)
    assert not seen.whole(1, 120, 10)
    assert not seen.whole(2, 110, 10)
    assert seen.settled(5) == {1: Span(105, 115)}
    assert seen.beat(beat(6, 131, (1, 50), (2, 130)))
    assert seen.settled(10) == {1: Span(110, 120)}
    assert seen.lost == 0


def test_a_lost_batch_ends_what_was_seen() -> None:
    seen = Seen(grace=0)
    seen.beat(beat(0, 100, (1, 0)))
    seen.beat(beat(0, 120, (1, 0)))
    assert seen.batch(1, 2, 0)
    assert seen.lost == 1
    assert not seen.beat(beat(2, 130, (1, 0)))
    assert seen.beat(beat(2, 150, (1, 0)))
    assert seen.settled(10) == {1: Span(130, 150)}
    # A beat that speaks of batches that are not here.
    assert not seen.beat(beat(4, 160, (1, 0)))
    assert seen.lost == 3
    assert seen.settled(10) == {}
    assert seen.past() == [(1, Span(100, 120)), (1, Span(130, 150))]
    assert seen.past() == []


def test_a_reconnection_of_the_worker_or_of_the_listener_ends_what_was_seen() -> None:
    seen = Seen(grace=0)
    seen.beat(beat(0, 100, (1, 0), (2, 0)))
    seen.beat(beat(0, 120, (1, 0), (2, 0)))
    seen.beat(beat(0, 140, (1, 131), (2, 0)))
    assert seen.settled(10) == {2: Span(100, 140)}
    seen.broken()
    assert not seen.beat(beat(0, 150, (1, 131), (2, 0)))
    seen.beat(beat(0, 170, (1, 131), (2, 0)))
    assert seen.settled(10) == {1: Span(150, 170), 2: Span(150, 170)}


def test_an_older_incarnation_is_not_heard_and_a_newer_one_begins_anew() -> None:
    seen = Seen(grace=0)
    seen.beat(beat(0, 100, (1, 0)))
    assert seen.batch(2, 1, 0)
    assert not seen.batch(1, 1, 0)
    assert not seen.beat(beat(3, 110, (1, 0)))
    assert not seen.beat(beat(1, 120, (1, 0), epoch=2))
    seen.beat(beat(1, 140, (1, 0), epoch=2))
    assert seen.settled(10) == {1: Span(120, 140)}


def test_a_trade_that_came_too_late_takes_back_what_was_seen_of_its_instrument() -> None:
    seen = Seen(grace=0)
    for at in (100, 120):
        seen.beat(beat(0, at, (1, 0), (2, 0)))
    seen.spoil(1)
    seen.spoil(3)
    assert seen.settled(10) == {2: Span(100, 120)}
    seen.beat(beat(0, 140, (1, 0), (2, 0)))
    assert seen.settled(10) == {1: Span(120, 140), 2: Span(100, 140)}


def test_where_not_every_trade_comes_bars_are_whole_but_nothing_is_covered() -> None:
    seen = Seen(grace=0)
    for at in (100, 120, 140):
        seen.beat(Beat(0, 1, 0, Nanos(at), ((1, Nanos(0)),), every_trade=False))
        seen.beat(beat(0, at, (2, 0), shard=1))
    assert seen.whole(1, 110, 10)
    assert seen.settled(10) == {2: Span(100, 140)}
    seen.spoil(1)
    assert seen.past() == []


def test_what_is_complete_waits_for_every_worker_but_for_one_that_has_gone_silent() -> None:
    seen = Seen(grace=0)
    assert seen.complete_until() == 0
    for at in (100, 120):
        seen.beat(beat(0, at, (1, 0)))
        seen.beat(beat(0, at - 7, (2, 0), shard=1))
    assert seen.complete_until() == 113
    assert seen.settled(1) == {1: Span(100, 113), 2: Span(93, 113)}
    seen.beat(beat(0, 120 + STALE, (1, 0)))
    assert seen.complete_until() == 120 + STALE
    assert seen.settled(1)[2] == Span(93, 113)
    seen.forget()
    assert seen.settled(1) == {}


@given(st.lists(st.sampled_from(["batch", "lose", "beat", "restart", "cut"]), max_size=40))
def test_no_interval_with_a_loss_in_it_ever_counts_as_whole(story: list[str]) -> None:
    seen = Seen(grace=0)
    now, sequence, epoch = 0, 0, 1
    losses: list[int] = []
    for step in story:
        now += 7
        if step == "restart":
            epoch, sequence = epoch + 1, 0
            losses.append(now)
        elif step == "cut":
            seen.broken()
            losses.append(now)
        elif step == "beat":
            seen.beat(beat(sequence, now, (1, 0), epoch=epoch))
        else:
            sequence += 1
            if step == "lose":
                losses.append(now)
            else:
                seen.batch(epoch, sequence, 0)
        for opened in range(0, now, 5):
            if seen.whole(1, opened, 5):
                assert not [at for at in losses if opened <= at < opened + 5]

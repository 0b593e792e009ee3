from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trading.ids import Nanos
from trading.seen import Beat, Seen
from trading.spans import Span


def beat(batch: int, at: int, *whole: tuple[int, int], shard: int = 0, epoch: int = 1) -> Beat:
    return Beat(shard, epoch, batch, Nanos(at), tuple((number, Nanos(since)) for number, since in whole))


def test_a_bar_is_whole_once_its_interval_was_seen_from_before_it_began() -> None:
    seen = Seen(grace=2)
    assert seen.beat(beat(5, 100, (1, 50))) is None
    assert seen.batch(1, 6, 0)
    assert seen.beat(beat(6, 120, (1, 50))) == 120
    assert not seen.whole(1, 100, 10)
    assert seen.whole(1, 110, 10)
    assert not seen.whole(1, 120, 10)
    assert not seen.whole(2, 110, 10)
    assert seen.settled(5) == {1: Span(105, 115)}
    assert seen.beat(beat(6, 131, (1, 50), (2, 130))) == 131
    assert seen.settled(10) == {1: Span(110, 120)}
    assert seen.lost == 0


def test_a_lost_batch_ends_what_was_seen() -> None:
    seen = Seen(grace=0)
    seen.beat(beat(0, 100, (1, 0)))
    seen.beat(beat(0, 120, (1, 0)))
    assert seen.batch(1, 2, 0)
    assert seen.lost == 1
    assert seen.beat(beat(2, 130, (1, 0))) is None
    assert seen.beat(beat(2, 150, (1, 0))) == 150
    assert seen.settled(10) == {1: Span(130, 150)}
    # A beat that speaks of batches that are not here.
    assert seen.beat(beat(4, 160, (1, 0))) is None
    assert seen.lost == 3
    assert seen.settled(10) == {}


def test_a_reconnection_of_the_worker_or_of_the_listener_ends_what_was_seen() -> None:
    seen = Seen(grace=0)
    seen.beat(beat(0, 100, (1, 0), (2, 0)))
    seen.beat(beat(0, 120, (1, 0), (2, 0)))
    seen.beat(beat(0, 140, (1, 131), (2, 0)))
    assert seen.settled(10) == {2: Span(100, 140)}
    seen.broken()
    assert seen.beat(beat(0, 150, (1, 131), (2, 0))) is None
    seen.beat(beat(0, 170, (1, 131), (2, 0)))
    assert seen.settled(10) == {1: Span(150, 170), 2: Span(150, 170)}


def test_an_older_incarnation_is_not_heard_and_a_newer_one_begins_anew() -> None:
    seen = Seen(grace=0)
    seen.beat(beat(0, 100, (1, 0)))
    assert seen.batch(2, 1, 0)
    assert not seen.batch(1, 1, 0)
    assert seen.beat(beat(3, 110, (1, 0))) is None
    assert seen.beat(beat(1, 120, (1, 0), epoch=2)) is None
    seen.beat(beat(1, 140, (1, 0), epoch=2))
    assert seen.settled(10) == {1: Span(120, 140)}


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

"""Instruments move between workers, and every tick is published once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from tests.trading.feed_world import SECOND, FeedWorld
from trading.feed_plan import (
    MOVE_NS,
    Carried,
    Carry,
    Move,
    Phase,
    Release,
    Retune,
    WorkerReport,
    ignored,
    next_steps,
)
from trading.ids import Epoch, InstrumentId, Nanos
from trading.sharding import assign
from trading.ticks import QUOTE, TRADE

A = InstrumentId("T:00")


def carried(phase: Phase, since: int = 0, passed: bool = False, **more: object) -> Carried:
    return Carried(phase=phase, since=Nanos(since), firsts=more.pop("firsts", {}), passed=passed, **more)  # type: ignore[arg-type]


def workers(**by_shard: Carried | None) -> dict[int, WorkerReport]:
    return {
        int(name[1:]): WorkerReport(shard=int(name[1:]), epoch=Epoch(1), carried={} if how is None else {A: how})
        for name, how in by_shard.items()
    }


@pytest.mark.parametrize(
    ("wanted", "here", "steps"),
    [
        (0, workers(w0=None), [Carry(0, (A,), False)]),
        (0, workers(w0=carried(Phase.LIVE)), []),
        (1, workers(w0=carried(Phase.LIVE), w1=None), [Carry(1, (A,), True)]),
        (1, workers(w0=carried(Phase.LIVE), w1=carried(Phase.MUTED)), []),
        (
            1,
            workers(w0=carried(Phase.LIVE, kinds=(TRADE, QUOTE)), w1=carried(Phase.MUTED, firsts={QUOTE: 4})),
            [],
        ),
        (
            1,
            workers(w0=carried(Phase.LIVE, kinds=(QUOTE,)), w1=carried(Phase.MUTED, firsts={QUOTE: 4})),
            [Move(A, 0, 1, {QUOTE: 4})],
        ),
        (1, workers(w0=carried(Phase.ENDING), w1=carried(Phase.MUTED)), [Move(A, 0, 1, {})]),
        (1, workers(w0=None, w1=carried(Phase.MUTED)), [Move(A, None, 1, {})]),
        (1, workers(w0=carried(Phase.ENDING), w1=carried(Phase.LIVE)), []),
        (1, workers(w0=carried(Phase.ENDING, passed=True), w1=carried(Phase.LIVE)), [Release(0, (A,))]),
        # The old worker is wanted again before the new one took over: that is finished first.
        (0, workers(w0=carried(Phase.ENDING), w1=carried(Phase.MUTED)), [Move(A, 0, 1, {})]),
        (2, workers(w0=carried(Phase.ENDING), w1=carried(Phase.MUTED), w2=None), [Move(A, 0, 1, {})]),
        (2, workers(w0=carried(Phase.ENDING), w1=carried(Phase.MUTED)), [Move(A, 0, 1, {})]),
        (0, workers(w0=carried(Phase.ENDING), w1=carried(Phase.LIVE)), []),
        (0, workers(w0=carried(Phase.ENDING, passed=True), w1=carried(Phase.LIVE)), [Release(0, (A,))]),
        (1, workers(w0=carried(Phase.LIVE)), []),
    ],
)
def test_next_step(wanted: int, here: dict[int, WorkerReport], steps: list[object]) -> None:
    assert next_steps({wanted: (A,)}, here, Nanos(SECOND)) == steps


def test_silent_instrument_moves_after_a_while() -> None:
    here = workers(w0=carried(Phase.LIVE), w1=carried(Phase.MUTED))
    assert next_steps({1: (A,)}, here, Nanos(MOVE_NS)) == []
    assert next_steps({1: (A,)}, here, Nanos(MOVE_NS + 1)) == [Move(A, 0, 1, {})]


def test_instrument_that_is_not_wanted_any_more_is_let_go_everywhere() -> None:
    here = workers(w0=carried(Phase.LIVE), w1=carried(Phase.MUTED))
    assert next_steps({0: ()}, here, Nanos(0)) == [Release(0, (A,)), Release(1, (A,))]


def test_nothing_is_done_on_the_word_of_a_worker_that_does_not_answer() -> None:
    here = workers(w0=carried(Phase.LIVE), w1=carried(Phase.LIVE))
    assert next_steps({1: (A,)}, here, Nanos(0)) == [Release(0, (A,))]
    assert next_steps({1: (A,)}, here, Nanos(0), heard={0}) == []
    here = workers(w0=carried(Phase.LIVE), w1=carried(Phase.MUTED, firsts={QUOTE: 4}))
    assert next_steps({1: (A,)}, here, Nanos(0)) == [Move(A, 0, 1, {QUOTE: 4})]
    assert next_steps({1: (A,)}, here, Nanos(0), heard={1}) == []
    assert next_steps({0: (A,)}, workers(w0=None), Nanos(0), heard={1}) == []
    # It may have been cut since: then the muted one is all there is.
    here = workers(w0=carried(Phase.LIVE), w1=carried(Phase.MUTED), w2=None)
    assert next_steps({2: (A,)}, here, Nanos(0)) == [Carry(2, (A,), True), Release(1, (A,))]
    assert next_steps({2: (A,)}, here, Nanos(0), heard={1, 2}) == [Carry(2, (A,), True)]
    assert next_steps({1: (A,)}, here, Nanos(0), heard={1, 2}, barred={(A, 1)}) == []


def test_nobody_is_given_more_than_fits_and_what_nobody_carries_comes_first() -> None:
    b, c = InstrumentId("T:01"), InstrumentId("T:02")
    here = workers(w0=None, w1=carried(Phase.LIVE))
    assert next_steps({0: (A, b, c)}, here, Nanos(0), limit=2) == [Carry(0, (b, c), False)]
    assert next_steps({0: (A, b)}, here, Nanos(0), limit=2) == [Carry(0, (b,), False), Carry(0, (A,), True)]


def test_channels_follow_what_is_wanted_where_it_is_live() -> None:
    here = workers(w0=carried(Phase.LIVE, channels=("trade",)))
    assert next_steps({0: (A,)}, here, Nanos(0), channels={A: ("trade",)}) == []
    both = ("trade", "quote")
    assert next_steps({0: (A,)}, here, Nanos(0), channels={A: both}) == [Retune(0, (A,), both)]
    assert next_steps({0: (A,)}, workers(w0=None), Nanos(0), channels={A: both}) == [Carry(0, (A,), False, both)]


def test_kind_that_is_wanted_no_more_is_not_waited_for() -> None:
    here = workers(w0=carried(Phase.LIVE, kinds=(TRADE, QUOTE)), w1=carried(Phase.MUTED, firsts={TRADE: 4}))
    assert next_steps({1: (A,)}, here, Nanos(0), channels={A: ("trade", "quote")}) == []
    assert next_steps({1: (A,)}, here, Nanos(0), channels={A: ("trade",)}) == [Move(A, 0, 1, {TRADE: 4})]


@pytest.mark.parametrize(
    ("last_at", "firsts", "now", "is_found"),
    [(9, {}, 9, True), (1, {}, 9, False), (9, {QUOTE: 1}, 9, False), (5, {}, 5, False)],
)
def test_subscription_passed_over_shows_by_the_ticks_of_another_worker(
    last_at: int, firsts: dict[int, int], now: int, is_found: bool
) -> None:
    here = workers(w0=carried(Phase.LIVE, last_at=last_at * SECOND), w1=carried(Phase.MUTED, firsts=firsts))
    assert ignored(here.values(), Nanos(now * SECOND)) == ({(A, 1)} if is_found else set())
    barred = next_steps({1: (A,)}, here, Nanos(now * SECOND), barred={(A, 1)})
    assert barred == [Release(1, (A,))]


def exactly_once(world: FeedWorld) -> None:
    counts = Counter(t for published in world.all for t in published)
    assert {t: n for t, n in counts.items() if n > 1} == {}
    missing = {
        (number, kind, s)
        for (number, kind), last in world.sequence.items()
        for s in range(1, last + 1)
        if (number, kind, s) not in counts
    }
    assert missing == set()
    for published in world.all:
        last: dict[tuple[int, int], int] = {}
        for number, kind, sequence in published:
            assert sequence > last.get((number, kind), 0)
            last[(number, kind)] = sequence


def started(seed: int, instruments: int, shards: int) -> FeedWorld:
    """A feed in which every instrument has been seen by everybody who carries it."""
    world = FeedWorld(seed, instruments, shards)
    for step in world.steps():
        world.take(step)
    world.settle()
    for number in world.ids.values():
        for kind in (TRADE, QUOTE):
            world.happen(number, kind)
    for worker in world.workers.values():
        worker.read(1000)
    return world


def stir(world: FeedWorld, steps: int, lose: float, change: Callable[[FeedWorld], None]) -> None:
    """Ticks, readings and rounds of the coordinator in any order; some steps get lost."""
    rnd = world.random
    for _ in range(steps):
        roll = rnd.random()
        if roll < 0.45:
            world.happen(rnd.choice(list(world.ids.values())), rnd.choice((TRADE, QUOTE)))
        elif roll < 0.75 and world.workers:
            rnd.choice(list(world.workers.values())).read(rnd.randint(1, 8))
        elif roll < 0.97:
            for step in world.steps():
                if rnd.random() >= lose:
                    world.take(step, lose)
            world.ensure()
        else:
            change(world)
        for id_ in world.ids:
            assert world.live(id_), f"{id_} is carried by nobody"
        world.now = Nanos(world.now + SECOND // 1000)


@pytest.mark.parametrize("seed", range(40))
def test_every_tick_is_published_once_while_workers_come_and_go(seed: int) -> None:
    world = started(seed, 6, 3)

    def change(world: FeedWorld) -> None:
        world.wanted_workers = world.random.choice((1, 2, 3, 5))
        world.ensure()

    stir(world, 400, 0.3, change)
    world.settle()
    exactly_once(world)


@pytest.mark.parametrize("seed", range(20))
def test_any_state_leads_to_where_everything_should_be(seed: int) -> None:
    world = started(seed, 8, 3)

    def change(world: FeedWorld) -> None:
        """Worse: workers die with what they keep, a coordinator starts that knows nothing."""
        roll = world.random.random()
        if roll < 0.4:
            world.wanted_workers = world.random.choice((1, 2, 3, 5))
        elif roll < 0.7:
            world.assignment = {}
        else:
            world.kill(world.random.randrange(world.wanted_workers))
        world.ensure()
        world.settle()

    stir(world, 200, 0.3, change)
    world.settle()
    assert world.steps() == []
    assert {s: set(w.carried) for s, w in world.workers.items()} == {
        s: set(mine) for s, mine in world.assignment.items()
    }


def test_workers_from_three_to_five_to_two_leave_nobody_out() -> None:
    world = started(1, 20, 3)
    for count in (5, 2):
        world.wanted_workers = count
        world.settle()
        sizes = sorted(len(w.carried) for w in world.workers.values())
        assert (len(sizes), sum(sizes), sizes[-1] - sizes[0] <= 1) == (count, 20, True)
    exactly_once(world)


def test_feed_comes_back_to_the_split_that_sharding_wants() -> None:
    world = started(2, 7, 2)
    assert world.assignment == assign(world.assignment, world.ids, 2)


def test_who_is_to_take_over_is_asked_for_other_channels_too() -> None:
    here = workers(
        w0=carried(Phase.LIVE, kinds=(TRADE,), channels=("trade",)),
        w1=carried(Phase.MUTED, channels=("trade",)),
        w2=carried(Phase.ENDING, channels=("trade",)),
    )
    steps = next_steps({1: [A]}, here, Nanos(SECOND), channels={A: ("trade", "quote")})
    assert [step for step in steps if isinstance(step, Retune)] == [
        Retune(0, (A,), ("trade", "quote")),
        Retune(1, (A,), ("trade", "quote")),
    ]

"""The mesh keeps every wanted instrument carried, whatever comes and goes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.trading.mesh_world import SECOND, MeshWorld
from trading.errors import BadInput
from trading.feed_mesh import GONE_NS, RETRY_NS, START_NS, FeedMesh, Fence
from trading.feed_plan import Carry, Phase, Release
from trading.ids import Epoch, InstrumentId, Nanos
from trading.sharding import least_moves

IDS = [InstrumentId(f"T:{n:02}") for n in range(16)]


def started(count: int, workers: int, **more: int) -> MeshWorld:
    world = MeshWorld(workers=workers, **more)
    world.subscriptions.subscribe("feed", IDS[:count], ["trade", "quote"], workers)
    world.settle()
    return world


def where(world: MeshWorld) -> dict[InstrumentId, list[tuple[int, Phase]]]:
    found: dict[InstrumentId, list[tuple[int, Phase]]] = {}
    for shard, worker in sorted(world.workers.items()):
        for instrument, held in worker.carried.items():
            found.setdefault(instrument, []).append((shard, held.phase))
    return found


def at_rest(world: MeshWorld, *, even: bool = True) -> None:
    """Every wanted instrument once, in its channels, at an even split; nothing else."""
    wanted = world.subscriptions.wanted()
    found = where(world)
    assert found.keys() == wanted.keys()
    assert all([phase for _, phase in here] == [Phase.LIVE] for here in found.values())
    for worker in world.workers.values():
        for instrument, held in worker.carried.items():
            assert held.channels == wanted[instrument]
    sizes = [len(worker.carried) for worker in world.workers.values()]
    if even:
        assert max(sizes, default=0) - min(sizes, default=0) <= 1


@pytest.mark.parametrize(("before", "after"), [(2, 4), (4, 2), (1, 4), (4, 3), (3, 4)])
def test_resize_moves_as_few_as_can_be_and_each_before_its_break(before: int, after: int) -> None:
    world = started(7, before, per_worker=8)
    was = {shard: tuple(worker.carried) for shard, worker in world.workers.items()}
    world.wanted_workers = after
    world.settle()
    at_rest(world)
    assert world.moves_seen == least_moves(was, IDS[:7], after)


def test_start_of_all_workers_is_waited_for_rather_than_moving_later() -> None:
    world = MeshWorld(workers=3)
    world.subscriptions.subscribe("feed", IDS[:9], ["trade"], 3)
    for shard in (0, 1, 2):
        world.spawn()
        for later in range(shard + 1, 3):
            world.workers[later].cut_off = True
        for worker in list(world.workers.values())[: shard + 1]:
            worker.cut_off = False
        world.round()
        world.now += 2 * SECOND
    world.settle()
    at_rest(world)
    assert world.moves_seen == 0


def test_worker_that_never_comes_is_not_waited_for_for_ever() -> None:
    world = MeshWorld(workers=2, per_worker=8)
    world.subscriptions.subscribe("feed", IDS[:6], ["trade"], 2)
    world.round()
    world.spawn()
    world.workers[1].cut_off = True
    world.round()
    assert len(world.workers[0].carried) == 3
    world.now += START_NS + SECOND
    world.round()
    assert len(world.workers[0].carried) == 6
    # What never was heard of may live all the same: whatever lease it has is over.
    assert 1 not in world.workers
    world.settle()
    at_rest(world)


def test_successor_of_a_worker_that_is_gone_needs_no_fence() -> None:
    world = started(4, 2)
    world.kill(1, known=True)
    world.mesh.heard(world.workers[0].report(), Nanos(world.now))
    assert Fence(1, Epoch(1)) in world.mesh.look(Nanos(world.now))[0]
    world.spawn()
    for worker in world.workers.values():
        world.mesh.heard(worker.report(), Nanos(world.now))
    assert not any(isinstance(step, Fence) for step in world.mesh.look(Nanos(world.now))[0])


def test_instruments_of_a_dead_worker_are_carried_by_others_within_seconds() -> None:
    world = started(6, 3)
    world.kill(1, known=False)
    began = world.now
    while set(where(world)) != set(IDS[:6]):
        world.round()
        world.now += SECOND // 4
        assert world.now - began <= GONE_NS + SECOND
    assert world.view is not None
    assert world.view.gone == (1,)
    world.settle()
    at_rest(world)


def test_instruments_of_a_worker_known_to_be_dead_are_carried_by_others_at_once() -> None:
    world = started(6, 3)
    world.kill(1, known=True)
    world.round()
    assert set(where(world)) == set(IDS[:6])


def test_worker_that_was_cut_off_is_fenced_before_others_carry_its_instruments() -> None:
    world = started(4, 2)
    world.workers[1].cut_off = True
    world.now += GONE_NS + 1
    world.mesh.heard(world.workers[0].report(), Nanos(world.now))
    steps, _ = world.mesh.look(Nanos(world.now))
    assert [type(step) for step in steps] == [Fence, Carry]
    assert steps[0] == Fence(1, world.workers[1].report().epoch)
    # Until it is done, and no longer.
    assert world.mesh.look(Nanos(world.now))[0][0] == steps[0]
    world.mesh.fenced(steps[0])
    assert not any(isinstance(step, Fence) for step in world.mesh.look(Nanos(world.now))[0])
    # What it says when it is back is of no use; its successor's word is.
    world.mesh.heard(world.workers[1].report(), Nanos(world.now))
    assert world.mesh.look(Nanos(world.now))[1].gone == (1,)


def test_what_the_survivors_have_no_room_for_is_stranded_until_the_worker_is_back() -> None:
    world = started(8, 2, per_worker=4, max_workers=2)
    world.kill(0, known=True)
    view = world.round()
    assert len(view.stranded) == 4
    assert view.spare == 0
    assert not world.settle().stranded
    at_rest(world)


def test_worker_that_should_end_carries_on_while_nobody_else_has_room() -> None:
    world = started(8, 3, per_worker=4, max_workers=3)
    world.wanted_workers = 2
    world.kill(0, known=True)
    kept = set(world.workers[2].carried)
    assert kept
    for _ in range(5):
        view = world.round()
        world.now += SECOND // 10
    assert kept <= set(where(world))
    assert 2 in view.draining
    world.settle()
    at_rest(world)


def test_move_that_the_new_worker_gets_no_ticks_for_does_not_happen() -> None:
    world = started(4, 1)
    victim = IDS[3]
    world.lies = {(instrument, 1) for instrument in IDS}
    world.wanted_workers = 2
    for _ in range(60):
        world.spawn()
        world.round()
        for instrument in IDS[:4]:
            world.tick(instrument)
        world.now += SECOND // 2
    assert all((0, Phase.LIVE) in here for here in where(world).values())
    assert world.view is not None
    assert (victim, 1) in world.view.passed_over
    world.lies.clear()
    world.now += RETRY_NS
    world.settle()
    at_rest(world)


def test_instrument_that_one_worker_gets_no_ticks_of_lets_another_one_move() -> None:
    world = started(4, 1)
    world.lies = {(IDS[3], 1)}
    world.wanted_workers = 2
    for _ in range(80):
        world.spawn()
        world.round()
        for instrument in IDS[:4]:
            world.tick(instrument)
        world.now += SECOND // 2
    assert Counter(len(worker.carried) for worker in world.workers.values()) == {2: 2}
    assert where(world)[IDS[3]] == [(0, Phase.LIVE)]


def test_silent_instrument_moves_all_the_same() -> None:
    world = started(4, 1)
    world.wanted_workers = 2
    for _ in range(60):
        world.spawn()
        world.round()
        world.now += SECOND // 2
    at_rest(world)


def test_mode_follows_the_widest_wish_without_a_move() -> None:
    world = MeshWorld(workers=2)
    world.subscriptions.subscribe("algo", IDS[:4], ["trade"], 2)
    world.settle()
    world.subscriptions.subscribe("panel", IDS[:1], ["quote"], 2)
    world.settle()
    at_rest(world)
    world.subscriptions.unsubscribe("panel")
    world.settle()
    at_rest(world)
    assert world.moves_seen == 0


def test_full_workers_change_places_within_the_limit() -> None:
    world = started(8, 2, per_worker=4, max_workers=2)
    world.subscriptions.unsubscribe("feed", IDS[:4])
    world.subscriptions.subscribe("feed", IDS[8:12], ["trade", "quote"], 2)
    world.settle()
    at_rest(world)
    assert max(world.most_held.values()) == 4


def test_feed_that_is_switched_off_is_let_go_everywhere() -> None:
    world = started(6, 3)
    world.wanted_workers = 0
    view = world.settle()
    assert not world.workers
    assert view.assignment == {}


def test_coordinator_that_forgot_everything_changes_nothing_at_rest() -> None:
    world = started(7, 3)
    before = where(world)
    world.mesh = FeedMesh(world.capacity)
    view = world.round()
    assert (view.steps, view.moving, where(world)) == (0, (), before)


def test_coordinator_that_forgot_everything_gives_nothing_away_before_all_have_answered() -> None:
    world = started(5, 2)
    before = where(world)
    world.lies = {(instrument, 0) for instrument in IDS} - {(i, 0) for i in world.workers[0].carried}
    world.mesh = FeedMesh(world.capacity)
    world.workers[1].cut_off = True
    view = world.round()
    assert (view.unknown, view.steps, where(world)) == ((1,), 0, before)
    world.workers[1].cut_off = False
    view = world.round()
    assert (view.unknown, view.steps, where(world)) == ((), 0, before)


def test_worker_that_answers_that_it_is_not_ready_is_not_waited_for() -> None:
    world = started(5, 2)
    world.kill(1, known=False)
    world.spawn()
    mesh = world.mesh = FeedMesh(world.capacity)
    mesh.want(world.subscriptions.wanted(), 2, {0, 1})
    mesh.heard(world.workers[0].report(), Nanos(world.now))
    mesh.starting(1)
    assert mesh.look(Nanos(world.now))[1].unknown == ()
    world.settle()
    at_rest(world)


def test_worker_from_before_that_never_answers_is_fenced_in_the_end() -> None:
    world = started(6, 3)
    world.wanted_workers = 2
    world.workers[2].cut_off = True
    world.mesh = FeedMesh(world.capacity)
    world.round()
    world.now += START_NS + SECOND
    world.round()
    assert 2 not in world.workers
    world.settle()
    at_rest(world)


def test_process_that_has_ended_is_not_asked_after() -> None:
    world = started(6, 2, per_worker=8)
    world.kill(1, known=False)
    world.mesh = FeedMesh(world.capacity)
    assert world.round().unknown == ()


def test_where_two_publish_the_one_that_has_no_ticks_is_let_go() -> None:
    world = started(2, 2)
    (instrument,) = world.workers[1].carried
    world.lies = {(instrument, 0)}
    world.take(Carry(0, (instrument,), False, ("trade", "quote")))
    for shard in (0, 1):
        # Whichever it should be with.
        world.mesh = FeedMesh(world.capacity)
        world.mesh.want(world.subscriptions.wanted(), 2, {0, 1})
        for worker in world.workers.values():
            world.mesh.heard(worker.report(), Nanos(world.now))
        world.mesh._assignment = {shard: (instrument,)}
        assert Release(0, (instrument,)) in world.mesh.look(Nanos(world.now))[0]


def test_more_than_fits_is_refused_and_changes_nothing() -> None:
    mesh = FeedMesh(MeshWorld().capacity)
    mesh.want({IDS[0]: ["trade"]}, 1)
    with pytest.raises(BadInput, match="use at least 2"):
        mesh.want(dict.fromkeys(IDS[:5], ("trade",)), 1)
    with pytest.raises(BadInput, match="1 to 4"):
        mesh.want({}, 5)
    assert mesh.shards() == (0,)


class Life(RuleBasedStateMachine):
    """Clients, resizes, deaths, lost calls and a lying provider, in any order."""

    @initialize(seed=st.integers(0, 1000), workers=st.integers(1, 3), count=st.integers(0, 9))
    def begin(self, seed: int, workers: int, count: int) -> None:
        """A feed at rest: without that most of what happens would happen to nothing."""
        self.world = MeshWorld(seed=seed, workers=workers)
        self.clients: dict[str, dict[InstrumentId, set[str]]] = {}
        self.subscribe("a", IDS[:count], {"trade"})
        self.world.settle()

    def subscribe(self, client: str, instruments: list[InstrumentId], channels: set[str]) -> None:
        wanted = {i for own in self.clients.values() for i in own}
        fits = len(wanted | set(instruments)) <= 4 * self.world.wanted_workers
        before = self.world.subscriptions.wanted()
        try:
            change = self.world.subscriptions.subscribe(client, instruments, channels, self.world.wanted_workers)
        except BadInput:
            assert not fits
            assert self.world.subscriptions.wanted() == before
        else:
            assert fits
            assert set(change.added) == set(instruments) - wanted
            for instrument in instruments:
                self.clients.setdefault(client, {})[instrument] = channels

    @rule(
        client=st.sampled_from("abc"),
        instruments=st.lists(st.sampled_from(IDS), min_size=1, max_size=5, unique=True),
        channels=st.sets(st.sampled_from(["trade", "quote"]), min_size=1),
    )
    def wish(self, client: str, instruments: list[InstrumentId], channels: set[str]) -> None:
        self.subscribe(client, instruments, channels)

    @rule(client=st.sampled_from("abc"), count=st.integers(0, 4))
    def unsubscribe(self, client: str, count: int) -> None:
        own = self.clients.get(client, {})
        gone = list(own)[:count]
        self.world.subscriptions.unsubscribe(client, gone)
        for instrument in gone:
            del own[instrument]

    def resize(self, workers: int) -> None:
        if len(self.world.subscriptions.wanted()) <= 4 * workers:
            self.world.wanted_workers = workers

    @rule(
        what=st.sampled_from(["die", "die for sure", "cut off or back", "lie", "coordinator restarts"]),
        shard=st.integers(0, 3),
        instrument=st.sampled_from(IDS),
    )
    def trouble(self, what: str, shard: int, instrument: InstrumentId) -> None:
        world = self.world
        worker = world.workers.get(shard)
        if what == "lie":
            # From now on; what is carried already goes on.
            carried = set() if worker is None else worker.carried.keys()
            world.lies |= {(i, shard) for i in IDS[IDS.index(instrument) :] if i not in carried}
        elif what == "coordinator restarts":
            world.mesh = FeedMesh(world.capacity)
        elif what == "cut off or back":
            if worker is not None:
                worker.cut_off = not worker.cut_off
        else:
            world.kill(shard, known=what == "die for sure")

    @rule(
        lose=st.sampled_from([0.0, 0.0, 0.3]),
        rounds=st.integers(1, 8),
        apart=st.sampled_from([0, 1, 5]),
        spawns=st.booleans(),
    )
    def go_round(self, lose: float, rounds: int, apart: int, spawns: bool) -> None:
        for _ in range(rounds):
            if spawns:
                self.world.spawn()
            for instrument in self.world.subscriptions.wanted():
                self.world.tick(instrument)
            self.world.round(lose)
            self.world.now += apart * SECOND // 2

    @rule(workers=st.integers(1, 4), rounds=st.integers(1, 3))
    def resize_amid_moves(self, workers: int, rounds: int) -> None:
        self.resize(workers)
        self.go_round(0.0, rounds, 1, True)

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def wishes_are_those_of_the_clients(self) -> None:
        for instrument in IDS:
            asked = [own[instrument] for own in self.clients.values() if instrument in own]
            union = set().union(*asked)
            assert set(self.world.subscriptions.channels(instrument)) == union
            assert len(self.world.subscriptions.clients(instrument)) == len(asked)

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def limits_hold_and_nothing_is_dropped(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        for worker in self.world.workers.values():
            worker.cut_off = False
        self.world.lies.clear()
        # What was passed over is tried again.
        self.world.now += RETRY_NS
        self.world.settle()
        at_rest(self.world)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)

"""The mesh steers workers with real handovers: every tick is published once while workers come and go."""

from __future__ import annotations

import msgspec
import pytest

from tests.trading.feed_world import SECOND, FeedWorld, Worker
from tests.trading.test_feed_plan import exactly_once, stir
from trading.feed_mesh import FeedMesh, Fence
from trading.feed_plan import FeedStep, WorkerReport
from trading.ids import Epoch, InstrumentId, Nanos
from trading.sharding import least_moves
from trading.subscriptions import Capacity
from trading.ticks import QUOTE, TRADE

CAPACITY = Capacity(provider="p", instruments_per_worker=8, max_workers=5, channels=("trade", "quote"))


class SteeredWorld(FeedWorld):
    """As `FeedWorld`, with the mesh as its coordinator."""

    def __init__(self, seed: int, instruments: int, workers: int) -> None:
        self.mesh = FeedMesh(CAPACITY)
        self.incarnations: list[Worker] = []
        self.moving: tuple[InstrumentId, ...] = ()
        super().__init__(seed, instruments, workers)

    def epoch(self, worker: Worker) -> Epoch:
        if not any(worker is known for known in self.incarnations):
            self.incarnations.append(worker)
        return Epoch(1 + next(n for n, known in enumerate(self.incarnations) if known is worker))

    def reports(self) -> dict[int, WorkerReport]:
        found = super().reports()
        return {s: msgspec.structs.replace(r, epoch=self.epoch(self.workers[s])) for s, r in found.items()}

    def steps(self) -> list[FeedStep]:
        self.mesh.want(dict.fromkeys(self.ids, ("trade", "quote")), self.wanted_workers, self.workers.keys())
        reports = self.reports()
        for report in reports.values():
            self.mesh.heard(report, self.now)
        steps, view = self.mesh.look(self.now)
        self.assignment, self.moving = view.assignment, view.moving
        for step in steps:
            # Only those that have ended.
            if isinstance(step, Fence):
                assert step.shard not in reports or reports[step.shard].epoch > step.epoch
                self.mesh.fenced(step)
        return [step for step in steps if not isinstance(step, Fence)]


def rest(world: SteeredWorld) -> None:
    """Until the last one that was cut is let go too."""
    for _ in range(20):
        world.settle()
        if not world.moving:
            return
        for number in world.ids.values():
            for kind in (TRADE, QUOTE):
                world.happen(number, kind)
        for worker in world.workers.values():
            worker.read(1000)
        world.now = Nanos(world.now + SECOND)
    raise AssertionError(f"still moving: {world.moving}")


def started(seed: int, instruments: int, shards: int) -> SteeredWorld:
    world = SteeredWorld(seed, instruments, shards)
    for step in world.steps():
        world.take(step)
    world.settle()
    for number in world.ids.values():
        for kind in (TRADE, QUOTE):
            world.happen(number, kind)
    for worker in world.workers.values():
        worker.read(1000)
    return world


@pytest.mark.parametrize("seed", range(30))
def test_every_tick_is_published_once_while_the_mesh_is_resized_amid_moves(seed: int) -> None:
    world = started(seed, 6, 3)

    def change(world: FeedWorld) -> None:
        world.wanted_workers = world.random.choice((1, 2, 3, 5))
        world.ensure()

    stir(world, 300, 0.3, change)
    rest(world)
    exactly_once(world)
    sizes = sorted(len(worker.carried) for worker in world.workers.values())
    assert (sum(sizes), sizes[-1] - sizes[0] <= 1) == (6, True)


@pytest.mark.parametrize("seed", range(10))
def test_coordinator_that_restarts_amid_moves_finishes_them(seed: int) -> None:
    world = started(seed, 6, 3)

    def change(world: FeedWorld) -> None:
        assert isinstance(world, SteeredWorld)
        world.wanted_workers = world.random.choice((1, 2, 4))
        world.ensure()
        for step in world.steps():
            world.take(step)
        world.mesh = FeedMesh(CAPACITY)

    stir(world, 300, 0.3, change)
    rest(world)
    exactly_once(world)


def test_workers_from_three_to_five_to_two_move_no_more_than_they_must() -> None:
    world = started(1, 16, 3)
    for count in (5, 2):
        before = {shard: tuple(worker.carried) for shard, worker in world.workers.items()}
        world.wanted_workers = count
        rest(world)
        after = {shard: set(worker.carried) for shard, worker in world.workers.items()}
        stayed = sum(len(after.get(shard, set()) & set(mine)) for shard, mine in before.items())
        assert 16 - stayed == least_moves(before, list(world.ids), count)
    exactly_once(world)

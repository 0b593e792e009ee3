"""Feed workers on one venue: each has its own stream with its own lag, and its own `Handover`."""

from __future__ import annotations

import random
from collections import deque

import msgspec

from trading.feed_plan import Carried, Carry, FeedStep, Move, Phase, Release, WorkerReport, next_steps
from trading.handover import Cuts, Handover
from trading.ids import Epoch, InstrumentId, Nanos
from trading.sharding import assign
from trading.ticks import QUOTE, TRADE, TickArray, TickBuffer, decode

SECOND = 1_000_000_000


def tick(number: int, kind: int, sequence: int) -> TickArray:
    buffer = TickBuffer()
    if kind == TRADE:
        buffer.trade(number, 1.0, 1.0, 0, 0, sequence, sequence)
    else:
        buffer.quote(number, 1.0, 1.0, 2.0, 1.0, 0, 0, sequence, sequence)
    return decode(buffer.take())


class Worker(msgspec.Struct):
    """As the real one: what it carries, its stream, and what it publishes."""

    shard: int
    handover: Handover = msgspec.field(default_factory=Handover)
    carried: dict[InstrumentId, Nanos] = msgspec.field(default_factory=dict)
    stream: deque[TickArray] = msgspec.field(default_factory=deque)
    published: list[tuple[int, int, int]] = msgspec.field(default_factory=list)

    def publish(self, ticks: TickArray) -> None:
        for row in ticks:
            kind = TRADE if row["flags"] & TRADE else QUOTE
            self.published.append((int(row["instrument"]), kind, int(row["sequence"])))

    def read(self, count: int) -> None:
        for _ in range(min(count, len(self.stream))):
            self.publish(self.handover.admit(self.stream.popleft()))


class FeedWorld:
    """Venue, workers and the coordinator's rounds, with everything in any order."""

    def __init__(self, seed: int, instruments: int, workers: int) -> None:
        self.random = random.Random(seed)
        self.now = Nanos(SECOND)
        self.ids = {InstrumentId(f"T:{n:02}"): n for n in range(instruments)}
        self.wanted_workers = workers
        self.workers: dict[int, Worker] = {}
        self.assignment: dict[int, tuple[InstrumentId, ...]] = {}
        self.sequence: dict[tuple[int, int], int] = {}
        #: What every worker that was ever there has published, in order.
        self.all: list[list[tuple[int, int, int]]] = []
        self.ensure()

    def ensure(self) -> None:
        """The Supervisor: workers that are wanted run; others end once they are empty."""
        for shard in range(self.wanted_workers):
            if shard not in self.workers:
                self.workers[shard] = Worker(shard)
                self.all.append(self.workers[shard].published)
        for shard in [s for s in self.workers if s >= self.wanted_workers and not self.workers[s].carried]:
            del self.workers[shard]

    def kill(self, shard: int) -> None:
        self.workers.pop(shard, None)

    def happen(self, number: int, kind: int) -> None:
        """The venue has a tick; it is on its way to everybody who carries the instrument."""
        sequence = self.sequence[(number, kind)] = self.sequence.get((number, kind), 0) + 1
        id_ = InstrumentId(f"T:{number:02}")
        for worker in self.workers.values():
            if id_ in worker.carried:
                worker.stream.append(tick(number, kind, sequence))

    def reports(self) -> dict[int, WorkerReport]:
        return {
            shard: WorkerReport(shard=shard, epoch=Epoch(1), carried={i: self.how(worker, i) for i in worker.carried})
            for shard, worker in self.workers.items()
        }

    def how(self, worker: Worker, id_: InstrumentId) -> Carried:
        number, hand, since = self.ids[id_], worker.handover, worker.carried[id_]
        if hand.is_muted(number):
            return Carried(phase=Phase.MUTED, since=since, firsts=hand.firsts(number), passed=False)
        if hand.is_ending(number):
            return Carried(phase=Phase.ENDING, since=since, firsts={}, passed=hand.has_passed(number))
        return Carried(phase=Phase.LIVE, since=since, firsts={}, passed=False, kinds=hand.kinds(number))

    def steps(self) -> list[FeedStep]:
        """As the coordinator: what is assigned stays, what is carried is kept, and then the next steps."""
        reports = self.reports()
        workers = self.wanted_workers
        current = {s: list(mine) for s, mine in self.assignment.items() if s < workers}
        placed = {i for mine in current.values() for i in mine}
        for shard, report in reports.items():
            for id_, how in report.carried.items():
                if id_ not in placed and shard < workers and how.phase is Phase.LIVE:
                    current.setdefault(shard, []).append(id_)
                    placed.add(id_)
        self.assignment = assign(current, self.ids, workers)
        return next_steps(self.assignment, reports, self.now)

    def take(self, step: FeedStep, lose: float = 0.0) -> None:
        """Carry a step out; a part of it may get lost."""
        match step:
            case Carry(shard, instruments, muted):
                worker = self.workers.get(shard)
                if worker is not None:
                    for id_ in instruments:
                        if id_ not in worker.carried:
                            worker.carried[id_] = self.now
                            # What was under way when it was let go has come (and was not wanted) by now.
                            number = self.ids[id_]
                            worker.stream = deque(t for t in worker.stream if t["instrument"][0] != number)
                            (worker.handover.mute if muted else worker.handover.carry)(self.ids[id_])
            case Release(shard, instruments):
                worker = self.workers.get(shard)
                for id_ in instruments if worker is not None else ():
                    if worker.carried.pop(id_, None) is not None:
                        worker.handover.forget(self.ids[id_])
            case Move(id_, source, target, firsts):
                cuts: Cuts = {}
                if source is not None:
                    worker = self.workers.get(source)
                    if worker is None or id_ not in worker.carried:
                        return
                    worker.carried[id_] = self.now
                    cuts = worker.handover.cut(self.ids[id_], firsts)
                    if self.random.random() < lose:
                        return
                worker = self.workers.get(target)
                if worker is not None:
                    worker.publish(worker.handover.activate(self.ids[id_], cuts))

    def live(self, id_: InstrumentId) -> bool:
        """Whether somebody carries the instrument so that no tick of it gets lost."""
        return any(id_ in worker.carried for worker in self.workers.values())

    def settle(self) -> int:
        """Rounds until there is nothing left to do."""
        for n in range(200):
            self.ensure()
            steps = self.steps()
            if not steps and set(self.workers) == set(range(self.wanted_workers)):
                for worker in self.workers.values():
                    worker.read(10**6)
                return n
            for step in steps:
                self.take(step)
            for number in self.ids.values():
                for kind in (TRADE, QUOTE):
                    self.happen(number, kind)
            for worker in self.workers.values():
                worker.read(10**6)
            self.now = Nanos(self.now + SECOND)
        raise AssertionError(f"no fixed point: {self.steps()}")

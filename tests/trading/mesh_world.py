"""Feed workers and a provider that may lie, as `FeedMesh` sees them: what they carry, and the steps they take."""

from __future__ import annotations

import random

import msgspec

from trading.feed_mesh import FeedMesh, Fence, MeshStep, MeshView
from trading.feed_plan import Carried, Carry, Move, Phase, Release, Retune, WorkerReport
from trading.ids import Epoch, InstrumentId, Nanos
from trading.subscriptions import Capacity, Subscriptions
from trading.ticks import QUOTE, TRADE

SECOND = 1_000_000_000
KIND = {"trade": TRADE, "quote": QUOTE}


class Held(msgspec.Struct):
    phase: Phase
    since: int
    channels: tuple[str, ...]
    firsts: dict[int, int] = msgspec.field(default_factory=dict)
    kinds: set[int] = msgspec.field(default_factory=set)
    last_at: int = 0
    passed: bool = False


class SimWorker(msgspec.Struct):
    shard: int
    epoch: int
    carried: dict[InstrumentId, Held] = msgspec.field(default_factory=dict)
    #: Its calls do not come through.
    cut_off: bool = False

    def report(self) -> WorkerReport:
        return WorkerReport(
            shard=self.shard,
            epoch=Epoch(self.epoch),
            carried={
                instrument: Carried(
                    phase=held.phase,
                    since=Nanos(held.since),
                    firsts=dict(held.firsts) if held.phase is Phase.MUTED else {},
                    passed=held.passed,
                    kinds=tuple(sorted(held.kinds)),
                    last_at=Nanos(held.last_at),
                    channels=held.channels,
                )
                for instrument, held in self.carried.items()
            },
        )


class MeshWorld:
    """Everything around the mesh; the test says what happens, and in which order."""

    def __init__(self, *, per_worker: int = 4, max_workers: int = 4, seed: int = 0, workers: int = 1) -> None:
        self.capacity = Capacity(
            provider="p",
            instruments_per_worker=per_worker,
            max_workers=max_workers,
            channels=("trade", "quote"),
        )
        self.subscriptions = Subscriptions(self.capacity)
        self.mesh = FeedMesh(self.capacity)
        self.workers: dict[int, SimWorker] = {}
        self.wanted_workers = workers
        self.now = 100 * SECOND
        self.random = random.Random(seed)
        #: The provider takes these subscriptions and sends nothing.
        self.lies: set[tuple[InstrumentId, int]] = set()
        self.epochs: dict[int, int] = {}
        self.view: MeshView | None = None
        #: Carried by a worker that lives, with ticks coming: must stay so while it is wanted.
        self.owed: set[InstrumentId] = set()
        self.moves_seen = 0
        self.most_held: dict[int, int] = {}

    def spawn(self) -> None:
        """The Supervisor: what is wanted runs; what is not, and carries nothing, ends."""
        for shard in range(self.wanted_workers):
            if shard not in self.workers:
                self.epochs[shard] = self.epochs.get(shard, 0) + 1
                self.workers[shard] = SimWorker(shard, self.epochs[shard])
        for shard in [s for s, w in self.workers.items() if s >= self.wanted_workers and not w.carried]:
            del self.workers[shard]

    def kill(self, shard: int, *, known: bool) -> None:
        worker = self.workers.pop(shard, None)
        if worker is not None:
            self.owed -= worker.carried.keys()
            if known:
                self.mesh.lost(shard)

    def tick(self, instrument: InstrumentId) -> None:
        """The market has a trade and a quote; the provider sends them where it was asked, unless it lies."""
        for worker in self.workers.values():
            held = worker.carried.get(instrument)
            if held is None or (instrument, worker.shard) in self.lies:
                continue
            kinds = {KIND[channel] for channel in held.channels}
            if held.phase is Phase.MUTED:
                for kind in kinds:
                    held.firsts.setdefault(kind, self.now)
            elif held.phase is Phase.LIVE:
                held.kinds |= kinds
            else:
                held.passed = True
            held.last_at = self.now

    def round(self, lose: float = 0.0) -> MeshView:
        """One round of the shell; a step, or an answer, gets lost with some probability."""
        self.mesh.want(self.subscriptions.wanted(), self.wanted_workers, self.workers.keys())
        for shard in self.mesh.shards():
            worker = self.workers.get(shard)
            if worker is not None and not worker.cut_off and self.random.random() >= lose:
                self.mesh.heard(worker.report(), Nanos(self.now))
        steps, self.view = self.mesh.look(Nanos(self.now))
        for step in steps:
            if self.random.random() >= lose:
                self.take(step)
            elif isinstance(step, Fence):
                break
        self.check()
        return self.view

    def take(self, step: MeshStep) -> None:
        match step:
            case Fence(shard, epoch):
                worker = self.workers.get(shard)
                if worker is not None and (not epoch or worker.epoch <= epoch):
                    # Its lease is over: it ends, wherever it is.
                    self.kill(shard, known=False)
                self.mesh.fenced(step)
            case Carry(shard, instruments, muted, channels):
                worker = self.reach(shard)
                for instrument in instruments if worker else ():
                    phase = Phase.MUTED if muted else Phase.LIVE
                    assert worker is not None
                    worker.carried.setdefault(instrument, Held(phase, self.now, channels))
                    self.count(worker)
            case Retune(shard, instruments, channels):
                worker = self.reach(shard)
                for instrument in instruments:
                    if worker is not None and instrument in worker.carried:
                        worker.carried[instrument].channels = channels
            case Release(shard, instruments):
                worker = self.reach(shard)
                for instrument in instruments:
                    if worker is not None:
                        worker.carried.pop(instrument, None)
            case Move(instrument, source, target, _):
                if source is not None:
                    giver = self.reach(source)
                    if giver is None or instrument not in giver.carried:
                        return
                    if giver.carried[instrument].phase is Phase.LIVE:
                        giver.carried[instrument].phase = Phase.ENDING
                        giver.carried[instrument].since = self.now
                    if self.random.random() < 0.1:
                        return
                taker = self.reach(target)
                if taker is not None and instrument in taker.carried:
                    held = taker.carried[instrument]
                    if held.phase is Phase.MUTED:
                        held.phase, held.kinds = Phase.LIVE, set(held.firsts)
                        self.moves_seen += 1

    def reach(self, shard: int) -> SimWorker | None:
        worker = self.workers.get(shard)
        return None if worker is None or worker.cut_off else worker

    def count(self, worker: SimWorker) -> None:
        self.most_held[worker.shard] = max(self.most_held.get(worker.shard, 0), len(worker.carried))
        assert len(worker.carried) <= self.capacity.instruments_per_worker, "the provider's limit is passed"

    def served(self, instrument: InstrumentId) -> bool:
        """Whether every tick of it reaches readers: somebody publishes, or keeps what comes after the cut."""
        return bool(self.phases(instrument) & {Phase.LIVE, Phase.MUTED})

    def phases(self, instrument: InstrumentId) -> set[Phase]:
        """How it is carried where the provider does not lie."""
        return {
            worker.carried[instrument].phase
            for worker in self.workers.values()
            if instrument in worker.carried and (instrument, worker.shard) not in self.lies
        }

    def check(self) -> None:
        """The invariants that hold at every moment."""
        wanted = self.subscriptions.wanted() if self.wanted_workers else {}
        self.owed &= wanted.keys()
        for instrument in self.owed:
            assert self.served(instrument), f"{instrument} was carried and is not any more"
        # One that takes over has to be told from one that nobody knows to tick yet.
        self.owed |= {instrument for instrument in wanted if Phase.LIVE in self.phases(instrument)}
        for worker in self.workers.values():
            assert len(worker.carried) <= self.capacity.instruments_per_worker
        self.subscriptions.validate()

    def settle(self, rounds: int = 400) -> MeshView:
        """Quiet rounds with a lively market until there is nothing more to do."""
        for _ in range(rounds):
            self.spawn()
            view = self.round()
            for instrument in self.subscriptions.wanted():
                self.tick(instrument)
            self.now += SECOND // 2
            if (
                not view.busy
                and not view.gone
                and not view.silent
                and set(self.workers) == set(range(self.wanted_workers))
            ):
                return view
        raise AssertionError(f"no rest: {view}")

"""A cluster in memory that carries out what the Supervisor decides."""

from __future__ import annotations

import random

from msgspec.structs import replace

from cluster.names import ActorName, Kind
from cluster.reconcile import (
    Action,
    Capacity,
    Desired,
    Fence,
    Memory,
    Observed,
    Remove,
    Seen,
    ShowAlgo,
    Spawn,
    StartAlgo,
    StopAlgo,
    reconcile,
)
from storage.records import AccountRecord, AlgoRecord, FeedRecord, NodeRecord
from trading.ids import AccountId, AlgoId, Epoch, FeedId, InstrumentId, Nanos, NodeName, UserId

SECOND = 1_000_000_000


def account(id_: str, user: str, *, enabled: bool = True) -> AccountRecord:
    return AccountRecord(
        id=AccountId(id_), user=UserId(user), connector="paper", settings={}, enabled=enabled, created_at=Nanos(0)
    )


def feed(id_: str, workers: int, *, enabled: bool = True) -> FeedRecord:
    return FeedRecord(
        id=FeedId(id_),
        provider="p",
        settings={},
        channels=("trade",),
        workers=workers,
        instruments=(InstrumentId("T:A"),),
        created_at=Nanos(0),
        enabled=enabled,
    )


def algo(id_: str, node: str = "", *, want: str = "running", state: str = "waiting", epoch: int = 0) -> AlgoRecord:
    return AlgoRecord(
        id=AlgoId(id_),
        user=UserId("u"),
        account=AccountId("a"),
        strategy="s",
        parameters={},
        instruments=(),
        feed=FeedId("f"),
        node=NodeName(node),
        want=want,
        state=state,
        reason="",
        epoch=Epoch(epoch),
        created_at=Nanos(0),
        updated_at=Nanos(0),
    )


class Cluster:
    """What is desired and what runs.  `round` decides and carries out; actions may get lost."""

    def __init__(self, *nodes: str) -> None:
        self.now = Nanos(1000 * SECOND)
        self.alive = {NodeName(n) for n in nodes}
        self.nodes = {NodeName(n): NodeRecord(name=NodeName(n), labels={}, registered_at=Nanos(0)) for n in nodes}
        self.accounts: dict[str, AccountRecord] = {}
        self.feeds: dict[str, FeedRecord] = {}
        self.algos: dict[AlgoId, AlgoRecord] = {}
        self.actors: dict[ActorName, Seen] = {}
        self.memory = Memory()
        #: Created and not visible yet.
        self.coming: dict[ActorName, Seen] = {}
        self.starts: list[tuple[AlgoId, int]] = []
        self.slow = False
        self.capacities: dict[NodeName, Capacity] = {}
        self.unfit: dict[NodeName, str] = {}

    def desire(self, *records: AccountRecord | FeedRecord | AlgoRecord) -> None:
        for record in records:
            match record:
                case AccountRecord():
                    self.accounts[record.id] = record
                case FeedRecord():
                    self.feeds[record.id] = record
                case AlgoRecord():
                    self.algos[record.id] = record

    def set(self, id_: str, **changes: object) -> None:
        self.algos[AlgoId(id_)] = replace(self.algos[AlgoId(id_)], **changes)

    def look(self) -> tuple[Desired, Observed]:
        desired = Desired(
            accounts=tuple(self.accounts.values()),
            feeds=tuple(self.feeds.values()),
            algos=tuple(self.algos.values()),
            nodes=tuple(self.nodes.values()),
        )
        nodes = tuple(sorted(self.alive))
        return desired, Observed(actors=dict(self.actors), nodes=nodes, capacities=self.capacities, unfit=self.unfit)

    def round(self, lose: float = 0.0, rnd: random.Random | None = None) -> list[Action]:
        """One round; returns the actions that would change something."""
        desired, observed = self.look()
        actions = reconcile(desired, observed, self.memory, self.now)
        known = self.algos
        actions = [
            a
            for a in actions
            if not (
                isinstance(a, ShowAlgo) and (known[a.algo.id].state, known[a.algo.id].reason) == (a.state, a.reason)
            )
        ]
        starts = [a.algo.id for a in actions if isinstance(a, StartAlgo)]
        assert len(starts) == len(set(starts))
        for action in actions:
            if rnd is None or rnd.random() >= lose:
                self.take(action)
        self.now = Nanos(self.now + SECOND // 2)
        if not self.slow:
            self.appear()
        return actions

    def shows_already(self, action: Action) -> bool:
        if not isinstance(action, ShowAlgo):
            return False
        record = self.algos[action.algo.id]
        return (record.state, record.reason) == (action.state, action.reason)

    def appear(self) -> None:
        self.actors.update(self.coming)
        self.coming.clear()

    def take(self, action: Action) -> None:
        match action:
            case Spawn(spec):
                assert spec.name not in self.actors, f"{spec.name} was created twice"
                self.memory.created[spec.name] = self.now
                self.coming[spec.name] = Seen(name=spec.name, answers=True, state="ready", node=spec.node)
            case StartAlgo(record, node):
                assert node in self.alive
                epoch = Epoch(self.algos[record.id].epoch + 1)
                self.starts.append((record.id, epoch))
                self.set(record.id, epoch=epoch, placed=node, state="starting", reason=f"on node {node}")
                name = ActorName(Kind.ALGO, record.id, epoch)
                self.memory.created[name] = self.now
                self.coming[name] = Seen(
                    name=name, answers=True, state="ready", node=node, generation=record.generation
                )
            case StopAlgo(name, _) | Remove(name, _, _):
                self.actors.pop(name, None)
            case Fence(record, reason):
                epoch = Epoch(self.algos[record.id].epoch + 1)
                self.set(record.id, epoch=epoch, placed="", state="waiting", reason=reason)
            case ShowAlgo(record, state, reason):
                if self.algos[record.id].epoch == record.epoch:
                    self.set(record.id, state=state, reason=reason)

    def settle(self, rounds: int = 60) -> None:
        for _ in range(rounds):
            if not self.round():
                return
        raise AssertionError("no fixed point")

    def crash(self, id_: str) -> None:
        self.actors = {n: s for n, s in self.actors.items() if not (n.kind is Kind.ALGO and n.id == id_)}

    def silence(self, node: str) -> None:
        """A machine falls silent; Ray still lists it."""
        for name, seen in self.actors.items():
            if seen.node == node:
                self.see(name, answers=False)

    def speak(self, node: str) -> None:
        """What is left of it is back."""
        for name, seen in self.actors.items():
            if seen.node == node:
                self.see(name, answers=True)

    def name(self, id_: str) -> ActorName:
        return ActorName(Kind.ALGO, id_, self.algos[AlgoId(id_)].epoch)

    def see(self, name: ActorName, **changes: object) -> None:
        self.actors[name] = replace(self.actors[name], **changes)

    def of(self, kind: Kind) -> list[str]:
        return sorted(str(n) for n in self.actors if n.kind is kind)


def running(*nodes: str, **algos: str) -> Cluster:
    cluster = Cluster(*(nodes or ("n1", "n2")))
    cluster.desire(*(algo(id_, node) for id_, node in algos.items()))
    cluster.settle()
    return cluster

"""The Supervisor's decisions, and a cluster in memory that carries them out."""

from __future__ import annotations

import random

from msgspec.structs import replace

from cluster.names import ActorName, Kind
from cluster.reconcile import (
    APPEAR_NS,
    GIVEN_UP_NS,
    NEVER_HEARD_NS,
    SILENT_NS,
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
    until_given_up,
    wanted_actors,
)
from storage.records import AccountRecord, AlgoRecord, FeedRecord, NodeRecord, OverCpu, Placement
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


def test_everything_desired_is_created_once_and_then_nothing_more() -> None:
    cluster = Cluster("n1", "n2")
    cluster.desire(account("a", "u"), account("b", "u"), account("c", "v", enabled=False), feed("f", 2), algo("x"))
    cluster.settle()
    assert sorted(map(str, cluster.actors)) == [
        "algo/x/1",
        "connection/a",
        "connection/b",
        "coordinator/f",
        "node/n1",
        "node/n2",
        "recorder/f",
        "risk/main",
        "session/u",
        "surveillance/main",
        "worker/f/0",
        "worker/f/1",
    ]
    assert cluster.algos[AlgoId("x")].state == "running"
    assert cluster.round() == []


def test_what_is_not_wanted_any_more_is_removed() -> None:
    cluster = running()
    cluster.desire(account("a", "u"), feed("f", 2))
    cluster.settle()
    cluster.desire(account("a", "u", enabled=False), feed("f", 2, enabled=False))
    cluster.settle()
    assert {n.kind for n in cluster.actors} == {Kind.RISK, Kind.NODE}


def test_actor_that_does_not_show_yet_is_not_created_again() -> None:
    cluster = Cluster("n1")
    cluster.slow = True
    assert [type(a) for a in cluster.round()] == [Spawn, Spawn]
    assert cluster.round() == []


def test_actor_that_never_shows_is_created_again() -> None:
    cluster = Cluster("n1")
    cluster.slow = True
    cluster.round()
    cluster.coming.clear()
    cluster.now = Nanos(cluster.now + APPEAR_NS + 1)
    assert [type(a) for a in cluster.round()] == [Spawn, Spawn]


def test_no_epoch_is_started_twice_and_any_state_heals() -> None:
    for seed in range(60):
        rnd = random.Random(seed)
        cluster = Cluster("n1", "n2", "n3")
        cluster.desire(account("a", "u"), feed("f", 3), *(algo(f"x{n}", rnd.choice(("", "n2"))) for n in range(4)))
        for _ in range(120):
            disturb(cluster, rnd)
            cluster.round(0.2, rnd)
        cluster.slow, cluster.alive = False, set(cluster.nodes)
        cluster.nodes = {n: replace(record, cordoned=False) for n, record in cluster.nodes.items()}
        for id_, record in cluster.algos.items():
            if record.state == "failed":
                cluster.set(id_, state="waiting")
        for name in list(cluster.actors):
            cluster.see(name, answers=True, busy=False, heart_age_s=0.0)
        for _ in range(200):
            cluster.round()
        assert cluster.round() == []
        assert len(cluster.starts) == len(set(cluster.starts))
        for id_, record in cluster.algos.items():
            assert record.state == ("running" if record.want == "running" else "stopped"), (seed, record)
            mine = [n for n in cluster.actors if n.kind is Kind.ALGO and n.id == id_]
            assert mine == ([cluster.name(id_)] if record.want == "running" else [])
        expected = set(wanted_actors(cluster.look()[0], sorted(cluster.alive)))
        assert {n for n in cluster.actors if n.kind is not Kind.ALGO} == expected


def disturb(cluster: Cluster, rnd: random.Random) -> None:
    id_ = rnd.choice(list(cluster.algos))
    roll = rnd.random()
    if roll < 0.08:
        cluster.crash(id_)
    elif roll < 0.12:
        cluster.set(id_, want=rnd.choice(("running", "stopped")))
    elif roll < 0.16:
        changed = cluster.algos[id_].generation + 1
        cluster.set(id_, generation=changed, restart_generation=changed)
    elif roll < 0.20:
        cluster.alive ^= {rnd.choice(list(cluster.nodes))}
    elif roll < 0.24:
        node = rnd.choice(list(cluster.nodes))
        cluster.nodes[node] = replace(cluster.nodes[node], cordoned=rnd.random() < 0.5)
    elif roll < 0.28:
        cluster.desire(feed("f", rnd.randint(1, 4)))
    elif roll < 0.34 and cluster.actors:
        cluster.see(rnd.choice(list(cluster.actors)), answers=rnd.random() < 0.5)
    elif roll < 0.38:
        cluster.slow = not cluster.slow
    elif roll < 0.42 and cluster.actors:
        cluster.actors.pop(rnd.choice(list(cluster.actors)))
    elif roll < 0.44:
        cluster.memory = Memory()  # the Supervisor itself was restarted


def test_crashed_algo_waits_longer_each_time_and_fails_in_a_loop() -> None:
    cluster = running(x="")
    waits = []
    for _ in range(4):
        cluster.crash("x")
        before = cluster.now
        while cluster.name("x") not in cluster.actors:
            cluster.round()
        waits.append(cluster.now - before)
        cluster.settle()
    assert waits == sorted(waits)
    assert waits[-1] > waits[0]
    cluster.crash("x")
    cluster.round()
    record = cluster.algos[AlgoId("x")]
    assert (record.state, "5 times" in record.reason) == ("failed", True)


def test_one_end_counts_once_however_often_it_is_looked_at() -> None:
    cluster = running(x="")
    cluster.crash("x")
    for _ in range(10):
        desired, observed = cluster.look()
        (shown,) = [a for a in reconcile(desired, observed, cluster.memory, cluster.now) if isinstance(a, ShowAlgo)]
        assert shown.state == "waiting"


def test_failed_algo_stays_failed_until_it_is_started_again_and_then_has_all_its_tries() -> None:
    cluster = running(x="")
    for _ in range(4):
        cluster.crash("x")
        while cluster.name("x") not in cluster.actors:
            cluster.round()
        cluster.settle()
    cluster.crash("x")
    cluster.settle()
    assert cluster.algos[AlgoId("x")].state == "failed"
    assert cluster.round() == []
    cluster.set("x", state="waiting")
    cluster.settle()
    cluster.crash("x")
    cluster.round()
    assert cluster.algos[AlgoId("x")].state == "waiting"


def test_algo_that_reports_its_failure_is_shown_with_it_and_removed() -> None:
    cluster = running(x="")
    cluster.see(cluster.name("x"), state="failed", reason="ValueError: no")
    cluster.settle()
    record = cluster.algos[AlgoId("x")]
    assert (record.state, record.reason, cluster.of(Kind.ALGO)) == ("failed", "ValueError: no", [])


def test_stopped_algo_ends_in_order_and_is_stopped() -> None:
    cluster = running(x="")
    cluster.desire(feed("f", 1))
    cluster.settle()
    cluster.set("x", want="stopped")
    desired, observed = cluster.look()
    actions = reconcile(desired, observed, cluster.memory, cluster.now)
    assert StopAlgo(cluster.name("x"), "asked to stop") in actions
    cluster.settle()
    assert (cluster.algos[AlgoId("x")].state, cluster.of(Kind.ALGO)) == ("stopped", [])


def test_changed_algo_is_stopped_and_started_under_a_new_epoch() -> None:
    cluster = running(x="")
    cluster.set("x", generation=2, restart_generation=2)
    cluster.settle()
    assert cluster.of(Kind.ALGO) == ["algo/x/2"]
    assert cluster.actors[cluster.name("x")].generation == 2


def test_what_a_running_algo_takes_up_itself_does_not_replace_it() -> None:
    cluster = running(x="")
    cluster.set("x", generation=3)
    assert cluster.round() == []
    cluster.set("x", generation=5, restart_generation=4)
    cluster.settle()
    assert cluster.of(Kind.ALGO) == ["algo/x/2"]


def test_a_paused_algo_runs_and_says_by_whom_also_after_a_crash_and_on_another_node() -> None:
    cluster = running("n1", "n2", x="")
    cluster.set("x", paused_by="asha", paused_because="prices look wrong")
    cluster.settle()
    said = "paused by asha: prices look wrong; only orders that reduce pass"
    assert (cluster.algos[AlgoId("x")].state, cluster.algos[AlgoId("x")].reason) == ("paused", said)
    cluster.crash("x")
    cluster.settle()
    assert (cluster.of(Kind.ALGO), cluster.algos[AlgoId("x")].state) == (["algo/x/2"], "paused")
    cluster.alive.discard(cluster.algos[AlgoId("x")].placed)
    cluster.crash("x")
    cluster.settle()
    assert (cluster.of(Kind.ALGO), cluster.algos[AlgoId("x")].state) == (["algo/x/3"], "paused")
    cluster.see(cluster.name("x"), answers=False)
    cluster.settle()
    assert cluster.algos[AlgoId("x")].state == "paused", "as it was last seen"
    cluster.see(cluster.name("x"), answers=True)
    cluster.set("x", paused_by="")
    cluster.settle()
    assert (cluster.algos[AlgoId("x")].state, cluster.algos[AlgoId("x")].reason) == ("running", "")


def test_an_algo_that_takes_more_cpu_than_allowed_says_so_or_is_ended_if_that_is_set() -> None:
    cluster = running("n1", x="", y="")
    cluster.set("y", placement=Placement(cpu_limit=0.5, over_cpu=OverCpu.END))
    for id_ in ("x", "y"):
        cluster.see(cluster.name(id_), over_cpu=True, cpu_share=1.234)
    cluster.settle()
    assert cluster.of(Kind.ALGO) == ["algo/x/1"]
    assert cluster.algos[AlgoId("x")].state == "running"
    assert cluster.algos[AlgoId("x")].reason.startswith("takes more CPU than the 0.9 cores")
    assert cluster.algos[AlgoId("y")].state == "failed"
    assert cluster.algos[AlgoId("y")].reason == "its process took 1.23 cores, 0.5 are allowed it"


def test_algo_of_a_missing_node_waits_with_words_and_starts_when_it_comes() -> None:
    cluster = Cluster("n1")
    cluster.nodes[NodeName("n2")] = NodeRecord(name=NodeName("n2"), labels={}, registered_at=Nanos(0))
    cluster.desire(algo("x", "n2"), algo("y", "n9"))
    cluster.settle()
    assert cluster.algos[AlgoId("x")].reason == "node n2 is not here now"
    assert cluster.algos[AlgoId("y")].reason == "no node is named n9"
    cluster.alive.add(NodeName("n2"))
    cluster.settle()
    assert cluster.algos[AlgoId("x")].state == "running"


def test_cordoned_node_takes_no_new_algo_and_keeps_its_own() -> None:
    cluster = running("n1", x="n1")
    cluster.nodes[NodeName("n1")] = replace(cluster.nodes[NodeName("n1")], cordoned=True)
    cluster.desire(algo("y", "n1"), algo("z"))
    cluster.settle()
    states = {str(i): (a.state, a.reason) for i, a in cluster.algos.items()}
    assert states == {
        "x": ("running", ""),
        "y": ("waiting", "node n1 is cordoned"),
        "z": ("waiting", "node n1 is cordoned"),
    }


def drain(cluster: Cluster, node: str, *, draining: bool = True) -> None:
    cluster.nodes[NodeName(node)] = replace(cluster.nodes[NodeName(node)], draining=draining)


def nodes_of(cluster: Cluster) -> dict[str, str]:
    return {str(n.id): str(s.node) for n, s in cluster.actors.items() if n.kind is Kind.ALGO}


def test_a_node_that_runs_other_code_takes_no_new_algo_and_keeps_its_own() -> None:
    cluster = Cluster("a")
    cluster.desire(algo("x"))
    cluster.settle()
    cluster.unfit[NodeName("a")] = "it runs another build of Quarterdeck"
    cluster.desire(algo("y"))
    cluster.settle()
    assert (cluster.algos[AlgoId("x")].state, cluster.algos[AlgoId("x")].epoch) == ("running", 1)
    assert cluster.algos[AlgoId("y")].state == "waiting"
    assert cluster.algos[AlgoId("y")].reason == "node a is not used: it runs another build of Quarterdeck"
    del cluster.unfit[NodeName("a")]
    cluster.settle()
    assert cluster.algos[AlgoId("y")].state == "running"


def test_a_node_that_is_emptied_gives_its_algos_to_others_one_incarnation_at_a_time() -> None:
    cluster = running("n1", "n2", "n3", x="", y="", z="")
    assert nodes_of(cluster) == {"x": "n1", "y": "n2", "z": "n3"}
    drain(cluster, "n1")
    actions = cluster.round()
    assert StopAlgo(ActorName(Kind.ALGO, "x", 1), "moving, for node n1 is being emptied") in actions
    assert not any(isinstance(each, StartAlgo) for each in actions)
    cluster.settle()
    assert nodes_of(cluster) == {"x": "n2", "y": "n2", "z": "n3"}
    assert cluster.algos[AlgoId("x")].epoch == 2


def test_what_can_go_nowhere_else_stays_on_a_node_that_is_emptied_and_says_why() -> None:
    cluster = running("n1", "n2", x="n1", y="")
    drain(cluster, "n1")
    drain(cluster, "n2")
    cluster.settle()
    assert nodes_of(cluster) == {"x": "n1", "y": "n2"}
    words = {str(i): (a.state, a.reason) for i, a in cluster.algos.items()}
    assert words["x"] == (
        "running", "node n1 is being emptied, but it cannot go elsewhere: node n1 is cordoned",
    )  # fmt: skip
    assert words["y"][1].endswith("node n1 is cordoned; node n2 is cordoned")
    drain(cluster, "n1", draining=False)
    cluster.settle()
    assert nodes_of(cluster) == {"x": "n1", "y": "n1"}


def silence(cluster: Cluster, node: str) -> None:
    """The machine has no network: nothing on it answers, and Ray has not noticed."""
    for name, seen in list(cluster.actors.items()):
        if seen.node == node or name == ActorName(Kind.NODE, node):
            cluster.see(name, answers=False, state="", node=NodeName(""))


def test_a_silent_node_is_given_up_after_a_while_and_its_algos_fenced_and_started_elsewhere() -> None:
    cluster = running("n1", "n2", x="", y="")
    silence(cluster, "n1")
    began = cluster.now
    while "x" not in {n for n, at in nodes_of(cluster).items() if at == "n2"}:
        assert cluster.now - began < 10 * SECOND
        assert cluster.algos[AlgoId("x")].epoch == 1
        cluster.round()
    assert cluster.now - began >= GIVEN_UP_NS
    cluster.settle()
    assert cluster.of(Kind.ALGO) == ["algo/x/2", "algo/y/1"]
    assert not cluster.memory.crashes
    # Nothing new is put there while it is silent.
    cluster.desire(algo("w"))
    cluster.settle()
    assert nodes_of(cluster)["w"] == "n2"


def test_a_silent_agent_alone_moves_nothing() -> None:
    cluster = running("n1", "n2", x="", y="")
    cluster.see(ActorName(Kind.NODE, "n1"), answers=False)
    for _ in range(40):
        cluster.round()
    assert nodes_of(cluster) == {"x": "n1", "y": "n2"}


def test_it_is_known_when_a_silent_node_can_be_given_up() -> None:
    cluster = running("n1", "n2", x="")
    assert until_given_up(cluster.memory, cluster.now) is None
    silence(cluster, "n1")
    asked = cluster.now
    cluster.round()
    assert until_given_up(cluster.memory, Nanos(asked + SECOND)) == GIVEN_UP_NS - SECOND
    assert until_given_up(cluster.memory, Nanos(asked + GIVEN_UP_NS)) is None


def test_a_pause_of_the_supervisor_gives_no_node_up() -> None:
    cluster = running("n1", "n2", x="", y="")
    silence(cluster, "n1")
    cluster.round()
    cluster.now = Nanos(cluster.now + 60 * SECOND - GIVEN_UP_NS)
    cluster.round()
    assert cluster.algos[AlgoId("x")].epoch == 1


def test_an_algo_whose_node_is_gone_starts_elsewhere_without_counting_as_a_crash() -> None:
    cluster = running("n1", "n2", x="", y="")
    for _ in range(8):
        where = NodeName(nodes_of(cluster)["x"])
        cluster.alive.discard(where)
        cluster.actors = {n: s for n, s in cluster.actors.items() if s.node != where}
        cluster.settle()
        cluster.alive.add(where)
        cluster.settle()
    assert cluster.algos[AlgoId("x")].state == "running"
    assert not cluster.memory.crashes


def test_what_nobody_created_is_named_again_in_the_next_round() -> None:
    cluster = Cluster("n1")
    cluster.desire(account("a", "u"))
    first = cluster.round(lose=1.0, rnd=random.Random(1))
    assert cluster.round() == first, "the round before was cut short"


def test_one_that_waits_because_its_node_is_silent_is_fenced_once_and_starts_anew() -> None:
    cluster = running("n1", "n2", x="n1")
    old = cluster.name("x")
    silence(cluster, "n1")
    for _ in range(40):
        cluster.round()
    assert (cluster.algos[AlgoId("x")].epoch, cluster.algos[AlgoId("x")].state) == (2, "waiting")
    assert old not in cluster.actors, "what is left of it is removed as soon as it can be reached"
    cluster.see(ActorName(Kind.NODE, "n1"), answers=True, state="ready", node=NodeName("n1"))
    cluster.settle()
    assert (cluster.algos[AlgoId("x")].epoch, cluster.algos[AlgoId("x")].state) == (3, "running")
    assert cluster.name("x") in cluster.actors


def test_without_another_node_an_algo_waits_and_says_for_what() -> None:
    cluster = running("n1", "n2", x="n1")
    cluster.alive.discard(NodeName("n1"))
    cluster.crash("x")
    cluster.settle()
    assert cluster.algos[AlgoId("x")].state == "waiting"
    assert cluster.algos[AlgoId("x")].reason == "node n1 is not here now"


def test_room_is_counted_with_what_starts_in_the_same_round() -> None:
    cluster = Cluster("n1", "n2")
    cluster.capacities = {NodeName(n): Capacity(cpus=1.0, memory_mb=1_100) for n in ("n1", "n2")}
    cluster.desire(*(algo(f"x{n}") for n in range(5)))
    cluster.settle()
    assert sorted(nodes_of(cluster).values()) == ["n1", "n1", "n2", "n2"]
    (left,) = (a for a in cluster.algos.values() if a.state == "waiting")
    assert left.reason == "node n1 has 76 MiB left, 512 are needed; node n2 has 76 MiB left, 512 are needed"


def test_an_algo_that_takes_more_memory_than_it_may_is_ended_and_says_so() -> None:
    cluster = running("n1", x="", y="")
    cluster.see(cluster.name("x"), memory_mb=513)
    cluster.see(cluster.name("y"), memory_mb=512)
    cluster.settle()
    assert cluster.of(Kind.ALGO) == ["algo/y/1"]
    assert cluster.algos[AlgoId("x")].state == "failed"
    assert cluster.algos[AlgoId("x")].reason == "its process took 513 MiB, 512 are allowed it"


def test_algos_without_a_node_spread_also_when_they_come_one_by_one() -> None:
    cluster = running("n1", "n2", "n3")
    for n in range(6):
        cluster.desire(algo(f"x{n}"))
        cluster.settle()
    nodes = sorted(s.node for n, s in cluster.actors.items() if n.kind is Kind.ALGO)
    assert nodes == ["n1", "n1", "n2", "n2", "n3", "n3"]


def test_spread_counts_algos_that_do_not_show_yet() -> None:
    cluster = running("n1", "n2")
    cluster.slow = True
    for n in range(2):
        cluster.desire(algo(f"x{n}"))
        cluster.round()
    assert sorted(s.node for n, s in cluster.coming.items() if n.kind is Kind.ALGO) == ["n1", "n2"]


def test_old_incarnations_are_removed() -> None:
    cluster = running(x="")
    old = ActorName(Kind.ALGO, "x", 0)
    stranger = ActorName(Kind.ALGO, "gone", 3)
    for name in (old, stranger):
        cluster.actors[name] = Seen(name=name, answers=True, state="ready")
    cluster.settle()
    assert cluster.of(Kind.ALGO) == ["algo/x/1"]


def test_worker_that_is_not_wanted_any_more_drains_before_it_goes() -> None:
    cluster = running()
    cluster.desire(feed("f", 3))
    cluster.settle()
    last = ActorName(Kind.WORKER, "f", 2)
    cluster.see(last, busy=True)
    cluster.desire(feed("f", 2))
    assert cluster.round() == []
    cluster.see(last, answers=False, busy=False)  # it may still carry something
    assert cluster.round() == []
    cluster.see(last, answers=True)
    cluster.settle()
    assert cluster.of(Kind.WORKER) == ["worker/f/0", "worker/f/1"]


def test_silent_actor_is_replaced_after_a_minute_and_not_before() -> None:
    cluster = running()
    risk = ActorName(Kind.RISK, "main")
    cluster.see(risk, answers=False)
    cluster.round()
    cluster.now = Nanos(cluster.now + SILENT_NS - SECOND)
    assert cluster.round() == []
    cluster.now = Nanos(cluster.now + 2 * SECOND)
    (action,) = cluster.round()
    assert isinstance(action, Remove)
    assert not action.gently
    cluster.settle()
    assert cluster.actors[risk].answers


def test_actor_that_answers_again_is_left_alone() -> None:
    cluster = running()
    risk = ActorName(Kind.RISK, "main")
    cluster.see(risk, answers=False)
    cluster.round()
    cluster.see(risk, answers=True)
    cluster.round()
    cluster.now = Nanos(cluster.now + SILENT_NS)
    cluster.see(risk, answers=False)
    assert cluster.round() == []


def test_blocked_and_silent_algos_are_shown_as_such() -> None:
    cluster = running(x="")
    cluster.see(cluster.name("x"), heart_age_s=7.0)
    cluster.round()
    assert "blocked" in cluster.algos[AlgoId("x")].reason
    cluster.see(cluster.name("x"), answers=False, heart_age_s=0.0)
    cluster.round()
    assert "does not answer" in cluster.algos[AlgoId("x")].reason


def test_supervisor_is_never_removed_by_itself() -> None:
    cluster = running()
    name = ActorName(Kind.SUPERVISOR, "main")
    cluster.actors[name] = Seen(name=name, answers=False)
    cluster.now = Nanos(cluster.now + 10 * SILENT_NS)
    cluster.round()
    cluster.now = Nanos(cluster.now + 10 * SILENT_NS)
    assert cluster.round() == []


def test_workers_of_a_feed_run_on_its_machines_in_turn() -> None:
    spread = replace(feed("f", 5), nodes=(NodeName("n2"), NodeName("n1")))
    cluster = Cluster("head", "n1", "n2")
    cluster.desire(spread, feed("g", 1))
    cluster.settle()
    where = {str(name): seen.node for name, seen in cluster.actors.items() if name.kind is Kind.WORKER}
    assert where == {
        "worker/f/0": "n2",
        "worker/f/1": "n1",
        "worker/f/2": "n2",
        "worker/f/3": "n1",
        "worker/f/4": "n2",
        "worker/g/0": "",
    }


def test_an_algo_whose_feed_was_deleted_says_so() -> None:
    cluster = Cluster("n1")
    cluster.desire(feed("f", 1), algo("x"))
    cluster.settle()
    cluster.set("x", want="stopped", feed=FeedId("f"))
    del cluster.feeds[FeedId("f")]
    cluster.round()
    assert (cluster.algos[AlgoId("x")].state, cluster.algos[AlgoId("x")].reason) == (
        "stopping",
        "its feed f was deleted",
    )
    cluster.settle()
    assert cluster.algos[AlgoId("x")].reason == "its feed f was deleted"


def test_one_that_has_never_answered_is_given_longer_for_its_machine_may_start_many() -> None:
    cluster = Cluster("n1")
    cluster.desire(account("a", "u"))
    cluster.round()
    session = ActorName(Kind.SESSION, "u")
    cluster.see(session, answers=False)
    cluster.round()
    cluster.now = Nanos(cluster.now + 2 * SILENT_NS)
    assert not any(isinstance(action, Remove) for action in cluster.round())
    cluster.now = Nanos(cluster.now + NEVER_HEARD_NS)
    assert any(isinstance(action, Remove) and action.name == session for action in cluster.round())

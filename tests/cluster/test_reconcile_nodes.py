"""The Supervisor's decisions about where algos run: machines that come, are emptied, fall silent or are full."""

from __future__ import annotations

from msgspec.structs import replace

from cluster.names import ActorName, Kind
from cluster.reconcile import GIVEN_UP_NS, Capacity, StartAlgo, StopAlgo, until_given_up
from storage.records import NodeRecord
from tests.cluster.reconciling import SECOND, Cluster, algo, running
from trading.ids import AlgoId, Nanos, NodeName


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

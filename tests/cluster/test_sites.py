"""Where sessions, connections and feed workers run, and when they go elsewhere."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cluster.names import ActorName, Kind
from cluster.placement import Machine
from cluster.reconcile import GIVEN_UP_NS, Remove, Spawn
from cluster.sites import Site, sites, why_leave
from storage.records import NodeRecord
from tests.cluster.reconciling import SECOND, Cluster, account, feed
from trading.ids import AccountId, Nanos, NodeName

CONNECTION, SESSION = ActorName(Kind.CONNECTION, "a"), ActorName(Kind.SESSION, "u")
HEAD, EDGE, HOME = NodeName("head"), NodeName("edge"), NodeName("home")


def machine(name: str, *, alive: bool = True, cordoned: bool = False, draining: bool = False, **labels: str) -> Machine:
    return Machine(name=NodeName(name), alive=alive, cordoned=cordoned or draining, draining=draining, labels=labels)


def test_only_those_that_ask_for_a_machine_leave_the_head() -> None:
    asking = [replace(account("a", "u"), selector="region=eu"), account("b", "u"), account("c", "v")]
    found = sites(asking, [feed("f", 2), replace(feed("g", 3), nodes=(EDGE, HOME))])
    assert found == {
        CONNECTION: Site(selector="region=eu", accounts=(AccountId("a"),)),
        SESSION: Site(selector="region=eu", accounts=(AccountId("a"), AccountId("b"))),
        ActorName(Kind.WORKER, "g", 0): Site(nodes=(EDGE, HOME)),
        ActorName(Kind.WORKER, "g", 1): Site(nodes=(HOME, EDGE)),
        ActorName(Kind.WORKER, "g", 2): Site(nodes=(EDGE, HOME)),
    }
    assert sites([replace(asking[0], enabled=False)], [replace(feed("g", 3, enabled=False), nodes=(EDGE,))]) == {}


def test_central_risk_goes_where_a_label_says_and_back_to_the_head_where_that_is_lost() -> None:
    labels = {"carries": "risk"}
    nodes = [NodeRecord(name=name, labels=labels, registered_at=Nanos(0)) for name in (HOME, EDGE)]
    risk = sites([], [], nodes, "head")[ActorName(Kind.RISK, "main")]
    assert risk == Site(nodes=(EDGE, HOME, HEAD), last_resort=True)
    assert risk.choose([machine("head"), machine("edge", alive=False)])[0] == HEAD
    head, edge, home = machine("head"), machine("edge"), machine("home")
    assert why_leave(risk, HEAD, {HEAD: head, EDGE: edge}, {}) == "another node is to carry it"
    assert why_leave(risk, HEAD, {HEAD: head, EDGE: machine("edge", alive=False)}, {}) == ""
    assert why_leave(risk, HOME, {HEAD: head, EDGE: edge, HOME: home}, {}) == "", "it stays where it is"
    assert sites([], [], [replace(nodes[0], labels={})], "head") == {}


def test_a_session_goes_only_where_all_of_its_accounts_may_be() -> None:
    both = Site(accounts=(AccountId("a"), AccountId("b")), selector="ssd")
    one, two = machine("one", ssd="y", accounts="a"), machine("two", ssd="y", accounts="b")
    assert both.choose([one, two]) == (None, "no node takes all of a, b")
    assert both.choose([one, machine("three", ssd="y", accounts="b+a")]) == ("three", "")
    assert both.choose([machine("four")]) == (None, "node four does not match ssd")
    assert both.choose([]) == (None, "no node is registered")


@pytest.mark.parametrize(
    ("here", "why"),
    [
        (machine("edge", ssd="y"), ""),
        (machine("edge", ssd="y", cordoned=True), ""),
        (machine("edge", ssd="y", draining=True), "node edge is being emptied"),
        (machine("edge"), "node edge does not fit any more"),
        (machine("edge", cordoned=True), "node edge does not fit any more"),
        (machine("edge", ssd="y", accounts="other"), "node edge does not fit any more"),
        (machine("edge", ssd="y", alive=False), "node edge is gone"),
    ],
)
def test_who_must_leave_goes_only_if_there_is_another_place(here: Machine, why: str) -> None:
    site = Site(selector="ssd", accounts=(AccountId("a"),))
    other = machine("other", ssd="y")
    assert why_leave(site, EDGE, {here.name: here, other.name: other}, {}) == why
    assert why_leave(site, EDGE, {here.name: here, HEAD: machine("head")}, {}) == ""


def test_where_a_place_is_not_known_nobody_is_moved() -> None:
    assert why_leave(Site(selector="ssd"), NodeName(""), {}, {}) == ""


def test_a_worker_prefers_its_own_machine_and_waits_where_none_is_there() -> None:
    site = Site(nodes=(HOME, EDGE))
    assert site.choose([machine("edge"), machine("home")])[0] == HOME
    assert site.choose([machine("edge"), machine("home", alive=False)])[0] == EDGE
    assert site.choose([machine("head")]) == (None, "none of its nodes is here and takes it: home, edge")


def test_a_machine_that_runs_other_code_takes_nothing_new_and_keeps_what_it_has() -> None:
    here = replace(machine("edge", ssd="y"), unfit="it runs another build")
    for site in (Site(selector="ssd", accounts=(AccountId("a"),)), Site(nodes=(EDGE, HOME))):
        assert site.choose([here])[0] is None
        assert site.choose([here, machine("home", ssd="y")])[0] == HOME
        assert why_leave(site, EDGE, {EDGE: here, HOME: machine("home", ssd="y")}, {}) == ""


def labelled(*names: str) -> Cluster:
    cluster = Cluster(*names)
    for name in names[1:]:
        cluster.nodes[NodeName(name)] = NodeRecord(name=NodeName(name), labels={"ssd": "y"}, registered_at=Nanos(0))
    return cluster


def spawned(cluster: Cluster, name: ActorName) -> list[str]:
    return [action.spec.node for action in cluster.round() if isinstance(action, Spawn) and action.spec.name == name]


def test_a_connection_goes_where_it_is_wanted_and_on_when_its_machine_falls_silent() -> None:
    cluster = labelled("head", "edge", "home")
    cluster.desire(replace(account("a", "u"), selector="ssd"))
    assert spawned(cluster, CONNECTION) == ["edge"]
    cluster.settle()
    assert {cluster.actors[each].node for each in (CONNECTION, SESSION)} == {EDGE}
    cluster.silence("edge")
    for _ in range(8):
        actions = cluster.round()
        cluster.now = Nanos(cluster.now + SECOND)
        if any(isinstance(each, Remove) for each in actions):
            break
    gone = {each.name: each for each in actions if isinstance(each, Remove)}
    assert (gone[CONNECTION].gently, gone[SESSION].gently) == (False, False)
    assert "has not answered" in gone[CONNECTION].reason
    assert cluster.now > 1000 * SECOND + GIVEN_UP_NS
    cluster.settle()
    assert {cluster.actors[each].node for each in (CONNECTION, SESSION)} == {HOME}
    # When the machine is back, they stay.
    cluster.speak("edge")
    cluster.settle()
    assert {cluster.actors[each].node for each in (CONNECTION, SESSION)} == {HOME}


def test_without_another_machine_it_waits_for_its_own_and_says_so() -> None:
    cluster = labelled("head", "edge")
    cluster.desire(replace(account("a", "u"), selector="ssd"))
    cluster.settle()
    cluster.silence("edge")
    for _ in range(10):
        assert not [each for each in cluster.round() if isinstance(each, Remove) and each.name == CONNECTION]
        cluster.now = Nanos(cluster.now + SECOND)
    cluster.actors.pop(CONNECTION)
    cluster.alive.discard(EDGE)
    cluster.round()
    assert cluster.memory.waiting[CONNECTION] == "node edge is not here now; node head does not match ssd"

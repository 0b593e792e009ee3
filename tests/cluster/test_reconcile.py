"""The Supervisor's decisions: what is wanted exists once, whatever is lost, silent or late."""

from __future__ import annotations

import random

from msgspec.structs import replace

from cluster.names import ActorName, Kind
from cluster.reconcile import APPEAR_NS, NEVER_HEARD_NS, SILENT_NS, Memory, Remove, Seen, Spawn, wanted_actors
from tests.cluster.reconciling import SECOND, Cluster, account, algo, feed, running
from trading.ids import AlgoId, Nanos, NodeName


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


def test_what_nobody_created_is_named_again_in_the_next_round() -> None:
    cluster = Cluster("n1")
    cluster.desire(account("a", "u"))
    first = cluster.round(lose=1.0, rnd=random.Random(1))
    assert cluster.round() == first, "the round before was cut short"


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

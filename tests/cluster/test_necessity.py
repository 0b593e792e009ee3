"""Which algos a machine cannot be taken from."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from cluster.necessity import needed_by
from storage.records import AlgoRecord, NodeRecord, Placement
from tests.cluster.reconciling import account, feed
from trading.ids import AccountId, AlgoId, FeedId, Nanos, NodeName, UserId

EDGE, HOME, LAB = NodeName("edge"), NodeName("home"), NodeName("lab")
ALL = frozenset({EDGE, HOME, LAB})


def node(name: NodeName, region: str, **more: Any) -> NodeRecord:
    return NodeRecord(name=name, labels={"region": region}, registered_at=Nanos(1), **more)


def algo(id: str, selector: str = "", pinned: str = "", *, want: str = "running", state: str = "running") -> AlgoRecord:
    return AlgoRecord(
        id=AlgoId(id), user=UserId("u"), account=AccountId("a"), strategy="s", parameters={}, instruments=(),
        feed=FeedId("f"), node=NodeName(pinned), want=want, state=state, reason="", epoch=1, created_at=Nanos(0),
        updated_at=Nanos(0), placement=Placement(selector=selector),
    )  # type: ignore[arg-type]  # fmt: skip


NODES = [node(EDGE, "eu"), node(HOME, "eu"), node(LAB, "us")]


def test_only_algos_that_nobody_else_takes_need_it() -> None:
    algos = [algo("anywhere"), algo("eu", "region=eu"), algo("us", "region=us"), algo("pinned", pinned="edge")]
    assert needed_by(EDGE, NODES, ALL, {}, algos) == ["algo pinned"]
    assert needed_by(LAB, NODES, ALL, {}, algos) == ["algo us"]


def test_a_machine_that_is_away_cordoned_or_unfit_is_no_help() -> None:
    algos = [algo("b", "region=eu"), algo("a", "region=eu")]
    assert needed_by(EDGE, NODES, ALL, {}, algos) == []
    assert needed_by(EDGE, NODES, frozenset({EDGE, LAB}), {}, algos) == ["algo a", "algo b"]
    assert needed_by(EDGE, NODES, ALL, {HOME: "it runs another build"}, algos) == ["algo a", "algo b"]
    for mark in ("cordoned", "draining"):
        marked = [node(EDGE, "eu"), node(HOME, "eu", **{mark: True})]
        assert needed_by(EDGE, marked, ALL, {}, algos) == ["algo a", "algo b"]


def test_connections_sessions_and_workers_that_ask_for_it_need_it_too() -> None:
    accounts = [replace(account("p-1", "u"), selector="region=eu"), account("p-2", "v")]
    feeds = [replace(feed("f", 2), nodes=(LAB,)), replace(feed("g", 2), nodes=(LAB, HOME)), feed("h", 1)]
    assert needed_by(LAB, NODES, ALL, {}, [], accounts, feeds) == ["worker f"]
    assert needed_by(EDGE, NODES, ALL, {}, [], accounts, feeds) == []
    away = frozenset({EDGE, LAB})
    assert needed_by(EDGE, NODES, away, {}, [], accounts, feeds) == ["connection p-1", "session u"]
    assert needed_by(LAB, NODES, away, {}, [], accounts, feeds) == ["worker f", "worker g"]
    gone = [replace(accounts[0], enabled=False)]
    assert needed_by(EDGE, NODES, away, {}, [], gone, [replace(feeds[0], enabled=False)]) == []


def test_what_need_not_run_or_cannot_run_there_needs_nothing() -> None:
    algos = [
        algo("stopped", "region=eu", want="stopped"), algo("failed", "region=eu", state="failed"),
        algo("moon", "region=moon"),
    ]  # fmt: skip
    assert needed_by(EDGE, [node(EDGE, "eu")], ALL, {}, algos) == []
    # It is asked for as it would be, whatever it is now.
    assert needed_by(EDGE, [node(EDGE, "eu", cordoned=True)], frozenset(), {}, [algo("eu", "region=eu")]) == ["algo eu"]

"""Machines over REST: labels, cordon, draining, removal; and where algos may run."""

from __future__ import annotations

import asyncio
import time
from platform import python_version
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from api.formats import parse_time, time_text
from cluster.code_version import CodeVersion, installed
from cluster.node_facts import ClockFacts, Egress, NodeFacts, ProcessFacts
from storage.node_history import MINUTE, Minute
from storage.records import NodeRecord
from tests.api.playing import Stage, algo_body
from trading.ids import Nanos, NodeName


@pytest.fixture
async def key(stage: Stage) -> str:
    key = await stage.trading()
    await stage.fed()
    for name, labels in (("edge", {"region": "eu"}), ("home", {"region": "us"})):
        node = NodeRecord(name=NodeName(name), labels=labels, registered_at=Nanos(1))
        await stage.services.desired.create_node(node, "test")
    return key


async def change(stage: Stage, path: str, body: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    answer = await stage.ask("PATCH", path, body, key=key)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_node_is_labelled_cordoned_and_emptied_and_each_is_audited(stage: Stage, key: str) -> None:
    seen = await stage.get("/v1/nodes/edge")
    made = await change(stage, "/v1/nodes/edge", {"labels": {"region": "eu", "ssd": "yes"}, "cordoned": True})
    assert (made["labels"], made["cordoned"], made["draining"]) == ({"region": "eu", "ssd": "yes"}, True, False)
    made = await change(stage, "/v1/nodes/edge", {"cordoned": False, "draining": True})
    assert (made["cordoned"], made["draining"]) == (False, True)
    again = await change(stage, "/v1/nodes/edge", {"draining": True})
    assert again["generation"] == made["generation"]
    # Two at once: the second is told what is there now.
    late = {"labels": {}, "generation": seen["generation"]}
    await stage.refused(409, "generation_changed", "PATCH", "/v1/nodes/edge", late)
    for body, field in (({"labels": {"a b": "x"}}, "labels"), ({"labels": {"a": "x,y"}}, "labels")):
        assert (await stage.refused(422, "bad_input", "PATCH", "/v1/nodes/edge", body))["field"] == field
    await stage.refused(404, "unknown_node", "PATCH", "/v1/nodes/nowhere", {"cordoned": True})
    await stage.refused(403, "forbidden", "PATCH", "/v1/nodes/edge", {"cordoned": True}, key=key)
    assert len(await stage.services.desired.audit_of("edge")) == 3


async def test_a_node_is_forgotten_once_it_is_gone_and_nothing_needs_it(stage: Stage, key: str) -> None:
    await stage.services.hot.put("cluster", view("edge"), 60)
    await stage.refused(409, "node_is_here", "DELETE", "/v1/nodes/edge")
    await stage.services.hot.put("cluster", view(), 60)
    await stage.make("/v1/algos", algo_body(start=True, placement={"selector": "region=eu"}), key=key)
    await stage.make("/v1/algos", algo_body("lunar", start=True, placement={"selector": "region=moon"}), key=key)
    said = await stage.refused(409, "node_is_needed", "DELETE", "/v1/nodes/edge")
    assert "momo-1" in said["detail"]
    assert "lunar" not in said["detail"]
    assert (await stage.ask("DELETE", "/v1/nodes/home")).status_code == 204
    assert (await stage.ask("DELETE", "/v1/nodes/edge?force=true")).status_code == 204
    assert (await stage.get("/v1/nodes"))["items"] == []


async def test_where_an_algo_may_run_is_checked_shown_and_changed(stage: Stage, key: str) -> None:
    asked = {"selector": "region in (eu, us),!slow", "packing": "pack", "apart": "require", "cpus": 0.5}
    made = await stage.make("/v1/algos", algo_body(placement=asked), key=key)
    assert made["placement"] == {**asked, "memory_mb": 512, "cpu_limit": 0.9, "over_cpu": "nice"}
    assert made["placed"] == ""
    moved = await change(
        stage, "/v1/algos/momo-1", {"placement": {"selector": "region=us"}, "generation": made["generation"]}, key
    )
    assert moved["placement"]["selector"] == "region=us"
    late = {"node": "edge", "generation": made["generation"]}
    await stage.refused(409, "generation_changed", "PATCH", "/v1/algos/momo-1", late, key=key)
    for wrong, field in (
        ({"selector": "region="}, "selector"),
        ({"cpus": 0}, "cpus"),
        ({"memory_mb": 1}, "memory_mb"),
        ({"packing": "loose"}, "placement.packing"),
    ):
        said = await stage.refused(422, "bad_input", "POST", "/v1/algos", algo_body("b", placement=wrong), key=key)
        assert said["field"] == field


def told(name: str, **changes: Any) -> dict[str, Any]:
    """What a machine's agent tells."""
    facts = NodeFacts(
        name=name, at=Nanos(time.time_ns()), host="h", cpus=2, cpu_percent=12.5, load=(0.1, 0.2, 0.3),
        memory_total_mb=8_000, memory_used_mb=2_000, disk_total_mb=90_000, disk_free_mb=40_000, python=python_version(),
        platform="Linux", uptime_s=5, packages=installed(["ray"]), code=CodeVersion().now(),
        clock=ClockFacts(skew_ms=1.5, error_ms=0.5, measured_at=Nanos(time.time_ns())),
        processes=(ProcessFacts(pid=1, title="AlgoHost", memory_mb=80.0, descriptors=50, cpu_s=0.1),
                   ProcessFacts(pid=2, title="AlgoHost", memory_mb=20.0, descriptors=50, cpu_s=0.1)),
        egress=Egress(address="203.0.113.7", told_by="ip.example", at=Nanos(1)),
    )  # fmt: skip
    return dict(msgspec.to_builtins(replace(facts, **changes)))


def view(*nodes: str, unfit: dict[str, str] | None = None) -> dict[str, Any]:
    """The cluster as the Supervisor shows it."""
    return {"at": time.time_ns(), "epoch": 1, "nodes": list(nodes), "actors": [], "missing": [], "unfit": unfit or {}}


async def health(stage: Stage, name: str) -> tuple[str, str]:
    shown = await stage.get(f"/v1/nodes/{name}")
    return shown["health"], "; ".join(shown["reasons"])


async def test_health_is_judged_from_what_is_told_and_seen(stage: Stage, key: str) -> None:
    hot = stage.services.hot
    assert await health(stage, "edge") == ("silent", "its agent has not told anything yet")
    await hot.put("node:edge", told("edge"), 60)
    await hot.put("cluster", view("edge"), 60)
    assert await health(stage, "edge") == ("ok", "")
    assert (await health(stage, "home"))[0] == "gone"
    shown = (await stage.get("/v1/nodes/edge"))["facts"]
    assert shown["kinds"] == {"AlgoHost": {"count": 2, "memory_mb": 100.0, "descriptors": 100, "cpu_percent": 0.0}}
    assert (shown["egress"]["address"], shown["clock"]["skew_ms"]) == ("203.0.113.7", 1.5)
    await hot.put("node:edge", told("edge", code="0.1.0+old", disk_free_mb=5), 60)
    state, why = await health(stage, "edge")
    assert state == "degraded"
    assert "another build" in why
    assert "5 MiB of its disk" in why
    await hot.put("node:edge", told("edge"), 60)
    await hot.put("cluster", view("edge", "edge", unfit={"edge": "2 machines call themselves edge"}), 60)
    assert await health(stage, "edge") == ("degraded", "2 machines call themselves edge")
    # Silent: what it told is too old to be shown as how it is.
    await hot.put("node:edge", told("edge", at=time.time_ns() - 30 * 10**9), 60)
    state, why = await health(stage, "edge")
    assert (state, why[:32]) == ("silent", "its agent has not answered since")
    assert (await stage.get("/v1/nodes/edge"))["facts"] is None
    # A machine whose clock is wrong is heard all the same.
    await hot.put("cluster", view("edge"), 60)
    clock = ClockFacts(skew_ms=-30_000.0, error_ms=1.0, measured_at=Nanos(1))
    await hot.put("node:edge", told("edge", at=time.time_ns() - 30 * 10**9, clock=clock), 60)
    state, why = await health(stage, "edge")
    assert (state, why[:24]) == ("degraded", "its clock is 30000 ms be")
    # What cannot be read hides nothing.
    await hot.put("node:edge", {"name": "edge", "cpus": "many"}, 60)
    state, why = await health(stage, "edge")
    assert state == "degraded"
    assert "cannot be read" in why


async def test_the_history_of_a_node_is_read_by_metric_and_in_pages(stage: Stage, key: str) -> None:
    now = time.time_ns()
    first = now - now % MINUTE - 9 * MINUTE
    rows = [
        Minute(at=Nanos(first + n * MINUTE), metrics={"cpu_percent": float(n), "load_1": 0.5, "algos": 2.0})
        for n in range(5)
    ]
    await stage.services.node_history.append(NodeName("edge"), rows)
    page = await stage.get("/v1/nodes/edge/history", key=key)
    assert [each["metrics"]["cpu_percent"] for each in page["items"]] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert page["next"] is None
    since = quote(time_text(first + MINUTE))
    page = await stage.get(f"/v1/nodes/edge/history?since={since}&metric=cpu_percent&metric=algos&limit=3")
    assert [each["metrics"] for each in page["items"]] == [{"cpu_percent": float(n), "algos": 2.0} for n in (1, 2, 3)]
    assert parse_time(page["items"][0]["at"]) == first + MINUTE
    rest = await stage.get(f"/v1/nodes/edge/history?metric=cpu_percent&cursor={quote(page['next'])}")
    assert [each["metrics"] for each in rest["items"]] == [{"cpu_percent": 4.0}]
    assert (await stage.get("/v1/nodes/home/history"))["items"] == []
    path = "/v1/nodes/edge/history"
    assert (await stage.refused(422, "bad_input", "GET", f"{path}?metric=speed"))["field"] == "metric"
    assert (await stage.refused(422, "bad_input", "GET", f"{path}?cursor=x"))["field"] == "cursor"
    await stage.refused(404, "unknown_node", "GET", "/v1/nodes/nowhere/history")


async def test_the_last_node_of_an_algo_is_not_emptied_or_forgotten_unforced(stage: Stage, key: str) -> None:
    hot = stage.services.hot
    await stage.make("/v1/algos", algo_body(start=True, placement={"selector": "region in (eu, us)"}), key=key)
    await hot.put("cluster", view("edge", "home"), 60)
    # Two take it: either may go.
    assert (await change(stage, "/v1/nodes/edge", {"draining": True}))["draining"]
    # Now one is left.
    said = await stage.refused(409, "node_is_needed", "PATCH", "/v1/nodes/home", {"draining": True})
    assert "momo-1" in said["detail"]
    await change(stage, "/v1/nodes/edge", {"draining": False})
    for trouble in (view("home"), view("edge", "home", unfit={"edge": "it runs another build"})):
        await hot.put("cluster", trouble, 60)
        await stage.refused(409, "node_is_needed", "PATCH", "/v1/nodes/home", {"draining": True})
    # A cordon moves nothing, so nothing is asked; nor when it is taken back.
    await change(stage, "/v1/nodes/home", {"cordoned": True})
    await change(stage, "/v1/nodes/home", {"cordoned": False})
    await hot.put("cluster", view(), 60)
    await stage.refused(409, "node_is_needed", "DELETE", "/v1/nodes/home")
    assert (await change(stage, "/v1/nodes/home?force=true", {"draining": True}))["draining"]
    assert (await stage.ask("DELETE", "/v1/nodes/home?force=true")).status_code == 204
    # A failed algo does not run, so nobody has to stay for it.
    (algo,) = await stage.services.desired.algos()
    await stage.services.desired.set_algo_state(algo.id, algo.epoch, "failed", "it crashed")
    assert (await stage.ask("DELETE", "/v1/nodes/edge")).status_code == 204


async def test_of_the_last_two_nodes_only_one_is_taken_away_whoever_asks_at_once(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(start=True, placement={"selector": "region in (eu, us)"}), key=key)
    await stage.services.hot.put("cluster", view("edge", "home"), 60)
    for _ in range(5):
        answers = await asyncio.gather(
            *(stage.ask("PATCH", f"/v1/nodes/{name}", {"draining": True}) for name in ("edge", "home"))
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        for name in ("edge", "home"):
            await change(stage, f"/v1/nodes/{name}", {"draining": False})


async def test_nothing_needed_is_taken_away_while_nobody_knows_which_machines_are_here(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(start=True, placement={"selector": "region in (eu, us)"}), key=key)
    await stage.refused(503, "not_ready", "PATCH", "/v1/nodes/home", {"draining": True})
    assert (await change(stage, "/v1/nodes/home?force=true", {"draining": True}))["draining"]


async def test_what_a_forgotten_node_told_is_forgotten_too(stage: Stage, key: str) -> None:
    await stage.services.hot.put("node:edge", told("edge"), 60)
    await stage.services.hot.put("cluster", view(), 60)
    assert (await stage.ask("DELETE", "/v1/nodes/edge")).status_code == 204
    assert await stage.services.hot.get("node:edge", dict) is None


async def test_metrics_tell_how_machines_are(stage: Stage, key: str) -> None:
    await stage.services.hot.put("node:edge", told("edge", disk_free_mb=10), 60)
    await stage.services.hot.put("cluster", view("edge"), 60)
    text = (await stage.http.get("/metrics")).text
    found = {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["quarterdeck_node_health", ("degraded", "edge")] == 1
    assert found["quarterdeck_node_health", ("edge", "ok")] == 0
    assert found["quarterdeck_node_health", ("gone", "home")] == 1
    assert found["quarterdeck_node_cpu_percent", ("edge",)] == 12.5
    assert found["quarterdeck_node_disk_free_bytes", ("edge",)] == 10 * 2**20
    assert found["quarterdeck_node_clock_skew_seconds", ("edge",)] == 0.0015
    assert found["quarterdeck_node_processes", ("AlgoHost", "edge")] == 2
    assert ("quarterdeck_node_cpu_percent", ("home",)) not in found

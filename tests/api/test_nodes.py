"""Machines over REST: labels, cordon, draining, removal; and where algos may run."""

from __future__ import annotations

import time
from typing import Any

import pytest

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
    view = {"at": time.time_ns(), "epoch": 1, "nodes": ["edge"], "actors": [], "missing": []}
    await stage.services.hot.put("cluster", view, 60)
    await stage.refused(409, "node_is_here", "DELETE", "/v1/nodes/edge")
    await stage.services.hot.put("cluster", {**view, "nodes": []}, 60)
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

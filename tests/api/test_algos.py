from __future__ import annotations

import time
from typing import Any

import pytest

from storage.records import NodeRecord
from tests.api.playing import Stage, algo_body
from trading.histogram import Histogram
from trading.ids import AlgoId, Epoch, Nanos, NodeName

MOMO = AlgoId("momo-1")


@pytest.fixture
async def key(stage: Stage) -> str:
    key = await stage.trading()
    await stage.fed()
    return key


async def test_an_algo_is_made_started_stopped_and_removed(stage: Stage, key: str) -> None:
    made = await stage.make("/v1/algos", algo_body(), key=key)
    assert (made["want"], made["state"], made["user"]) == ("stopped", "stopped", "asha")
    started = (await stage.ask("POST", "/v1/algos/momo-1/start", key=key)).json()
    assert started["want"] == "running"
    again = (await stage.ask("POST", "/v1/algos/momo-1/start", key=key)).json()
    assert again["generation"] == started["generation"]
    await stage.refused(409, "algo_is_running", "DELETE", "/v1/algos/momo-1", key=key)
    restarted = (await stage.ask("POST", "/v1/algos/momo-1/restart", key=key)).json()
    assert restarted["generation"] == started["generation"] + 1
    stopped = (await stage.ask("POST", "/v1/algos/momo-1/stop", key=key)).json()
    assert stopped["want"] == "stopped"
    again = (await stage.ask("POST", "/v1/algos/momo-1/stop", key=key)).json()
    assert again["generation"] == stopped["generation"]
    await stage.services.desired.set_algo_state(MOMO, Epoch(0), "stopping", "")
    await stage.refused(409, "algo_is_running", "DELETE", "/v1/algos/momo-1", key=key)
    await stage.services.desired.set_algo_state(MOMO, Epoch(0), "stopped", "")
    assert (await stage.ask("DELETE", "/v1/algos/momo-1", key=key)).status_code == 204
    await stage.refused(404, "unknown_algo", "GET", "/v1/algos/momo-1", key=key)
    entries = await stage.services.desired.audit_of("momo-1")
    assert {entry.actor for entry in entries} == {"asha", "supervisor"}


@pytest.mark.parametrize("want", ["running", "stopped"])
@pytest.mark.parametrize("verb", ["start", "restart"])
async def test_starting_a_failed_algo_clears_it_and_fences_what_failed(
    stage: Stage, key: str, want: str, verb: str
) -> None:
    await stage.make("/v1/algos", algo_body(start=want == "running"), key=key)
    desired = stage.services.desired
    epoch = await desired.new_algo_epoch(MOMO)
    await desired.set_algo_state(MOMO, epoch, "failed", "ZeroDivisionError")
    shown = (await stage.ask("POST", f"/v1/algos/momo-1/{verb}", key=key)).json()
    assert (shown["want"], shown["state"]) == ("running", "waiting")
    assert shown["epoch"] == epoch + 1


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"id": "a" * 37}, "bad_input", "id"),
        ({"id": "Bad Id"}, "bad_input", "id"),
        ({"strategy": "nothing"}, "unknown_strategy", "strategy"),
        ({"account": "nothing"}, "unknown_account", "account"),
        ({"feed": "nothing"}, "unknown_feed", "feed"),
        ({"node": "nowhere"}, "unknown_node", "node"),
        ({"instruments": ["BINANCE:DOGEUSDT"]}, "not_in_feed", "instruments"),
        ({"instruments": ["doge"]}, "bad_input", "instruments"),
        ({"instruments": []}, "bad_input", "instruments"),
        ({"parameters": {"fast": 0}}, "bad_input", "parameters.fast"),
        ({"parameters": {"fast": 9, "slow": 3}}, "bad_input", "parameters"),
        ({"parameters": {"colour": 3}}, "bad_input", "parameters.colour"),
    ],
)
async def test_a_wrong_algo_is_refused_by_field(
    stage: Stage, key: str, changes: dict[str, Any], code: str, field: str
) -> None:
    said = await stage.refused(422, code, "POST", "/v1/algos", algo_body(**changes), key=key)
    assert said["field"] == field
    assert (await stage.get("/v1/algos"))["items"] == []


async def test_an_id_of_36_characters_is_taken(stage: Stage, key: str) -> None:
    assert (await stage.make("/v1/algos", algo_body("a" * 36), key=key))["id"] == "a" * 36


async def test_parameters_and_node_change_with_a_new_generation(stage: Stage, key: str) -> None:
    made = await stage.make("/v1/algos", algo_body(start=True), key=key)
    node = NodeRecord(name=NodeName("edge"), labels={}, registered_at=Nanos(1))
    await stage.services.desired.create_node(node, "test")
    changed = await stage.ask("PATCH", "/v1/algos/momo-1", {"parameters": {"fast": 8}, "node": "edge"}, key=key)
    assert (changed.json()["parameters"], changed.json()["node"]) == ({"fast": 8}, "edge")
    assert changed.json()["generation"] == made["generation"] + 1
    same = await stage.ask("PATCH", "/v1/algos/momo-1", {"node": "edge"}, key=key)
    assert same.json()["generation"] == changed.json()["generation"]
    for body, field in (({"parameters": {"fast": 0}}, "parameters.fast"), ({"node": "nowhere"}, "node")):
        answer = await stage.ask("PATCH", "/v1/algos/momo-1", body, key=key)
        assert answer.status_code == 422
        assert answer.json()["field"] == field


async def test_an_algo_of_a_disabled_account_does_not_start(stage: Stage, key: str) -> None:
    await stage.ask("PATCH", "/v1/accounts/paper-1", {"enabled": False})
    said = await stage.refused(422, "bad_input", "POST", "/v1/algos", algo_body(start=True), key=key)
    assert said["field"] == "account"
    await stage.make("/v1/algos", algo_body(), key=key)
    await stage.refused(409, "account_is_disabled", "POST", "/v1/algos/momo-1/start", key=key)


def _stats(epoch: int, **changes: Any) -> dict[str, Any]:
    latency = Histogram()
    for _ in range(100):
        latency.add(1_000_000)
    return {
        "id": "momo-1",
        "epoch": epoch,
        "node": "edge",
        "state": "ready",
        "reason": "",
        "at": time.time_ns(),
        "ticks": 812,
        "batches_lost": 0,
        "intents": 3,
        "orders_acked": 2,
        "fills": 1,
        "denied": 1,
        "open_orders": 1,
        "tick_age_s": 0.4,
        "positions": {"BINANCE:BTCUSDT": "0.01"},
        "realised": "-1.25",
        "tick_to_strategy": latency.counts(),
        "intent_to_ack": {},
        **changes,
    }


async def test_an_algo_shows_how_its_present_incarnation_goes(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    epoch = await stage.services.desired.new_algo_epoch(MOMO)
    await stage.services.desired.set_algo_state(MOMO, epoch, "running", "")
    await stage.services.hot.put("algo:momo-1", _stats(epoch), 60)
    live = (await stage.get("/v1/algos/momo-1", key=key))["live"]
    assert (live["ticks"], live["realised"], live["node"]) == (812, "-1.25", "edge")
    assert live["tick_to_strategy_ms"]["count"] == 100
    assert live["tick_to_strategy_ms"]["p50"] == pytest.approx(1.0, rel=0.1)
    assert live["intent_to_ack_ms"] == {"count": 0, "p50": None, "p99": None}
    assert (await stage.get("/v1/algos", key=key))["items"][0]["live"] == live
    await stage.services.desired.new_algo_epoch(MOMO)
    assert (await stage.get("/v1/algos/momo-1", key=key))["live"] is None


async def test_a_node_shows_its_facts_and_the_algos_on_it(stage: Stage, key: str) -> None:
    for name in ("edge", "head"):
        await stage.services.desired.create_node(
            NodeRecord(name=NodeName(name), labels={"host": "h"}, registered_at=Nanos(1)), "test"
        )
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    epoch = await stage.services.desired.new_algo_epoch(MOMO)
    await stage.services.desired.set_algo_state(MOMO, epoch, "running", "")
    await stage.services.hot.put("algo:momo-1", _stats(epoch), 60)
    facts = {
        "name": "edge",
        "at": time.time_ns(),
        "host": "h",
        "cpus": 2,
        "cpu_percent": 1.5,
        "load": [0.1, 0.2, 0.3],
        "memory_total_mb": 1,
        "memory_used_mb": 1,
        "disk_free_mb": 1,
        "python": "3.11",
        "platform": "Linux",
        "uptime_s": 5,
        "processes": [{"pid": 1, "title": "AlgoHost", "memory_mb": 1.0, "descriptors": 3, "cpu_s": 0.1}],
    }
    await stage.services.hot.put("node:edge", facts, 60)
    edge, head = (await stage.get("/v1/nodes"))["items"]
    assert edge["algos"] == [{"id": "momo-1", "state": "running", "reason": ""}]
    assert edge["facts"]["processes"][0]["title"] == "AlgoHost"
    assert (head["algos"], head["facts"]) == ([], None)
    other = await stage.person("bo", "viewer")
    seen = await stage.get("/v1/nodes/edge", key=other)
    assert (seen["algos"], seen["facts"]["processes"]) == ([], [])
    await stage.refused(404, "unknown_node", "GET", "/v1/nodes/nowhere")


async def test_logs_are_read_onwards(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(), key=key)
    log = stage.services.algo_log
    await log.append(MOMO, Epoch(1), [(Nanos(time.time_ns()), "info", f"line {n}") for n in range(5)])
    page = await stage.get("/v1/algos/momo-1/logs?limit=2", key=key)
    assert [line["text"] for line in page["items"]] == ["line 3", "line 4"]
    await log.append(MOMO, Epoch(1), [(Nanos(time.time_ns()), "error", "line 5")])
    later = await stage.get(f"/v1/algos/momo-1/logs?after={page['next']}", key=key)
    assert [line["text"] for line in later["items"]] == ["line 5"]
    none = await stage.get(f"/v1/algos/momo-1/logs?after={later['next']}", key=key)
    assert none == {"items": [], "next": later["next"]}

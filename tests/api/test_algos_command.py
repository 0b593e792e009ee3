"""The commands of algos, against a real API."""

from __future__ import annotations

import time
from typing import Any

import pytest

from storage.records import NodeRecord
from tests.api.playing import Stage, algo_body
from tests.api.test_strategies_command import Terminal
from trading.ids import AlgoId, Epoch, Nanos, NodeName


@pytest.fixture
async def at(stage: Stage, served: str) -> Terminal:
    await stage.trading()
    await stage.fed()
    edge = NodeRecord(name=NodeName("edge"), labels={}, registered_at=Nanos(1))
    await stage.services.desired.create_node(edge, "test")
    return Terminal(f"http://{served}", stage.operator_key)


async def make(stage: Stage, name: str, **more: Any) -> None:
    await stage.make("/v1/algos", algo_body(name, strategy="market-maker", parameters={}, **more))


async def test_many_are_commanded_by_their_labels_and_each_refusal_is_told(stage: Stage, at: Terminal) -> None:
    created = ["algos", "create", "one", "--strategy", "market-maker", "--account", "paper-1", "--feed", "crypto"]
    await at.says(*created, "--instrument", "BINANCE:BTCUSDT", "--label", "desk=alpha")
    await make(stage, "two")
    assert (await at.told("algos", "label", "two", "desk=alpha", "book=7"))["labels"] == {"desk": "alpha", "book": "7"}
    assert (await at.told("algos", "label", "two", "book-"))["labels"] == {"desk": "alpha"}
    started = await at.told("algos", "start", "--selector", "desk=alpha")
    assert [(each["id"], each["algo"]["want"]) for each in started["results"]] == [
        ("one", "running"),
        ("two", "running"),
    ]
    paused = await at.says("algos", "pause", "one", "two", "--because", "lunch")
    assert paused.count("running") == 2
    assert (await at.told("algos", "show", "one"))["paused_because"] == "lunch"
    said = await at.says("algos", "resume", "one", "none", code=1)
    assert "refused" in said
    assert "no algo named" in said
    moved = await at.told("algos", "move", "one", "--to", "edge")
    assert (moved["node"], moved["applied"]) == ("edge", "restart")
    stopped = await at.told("algos", "stop", "one", "--leave-orders")
    assert (stopped["stop_orders"], stopped["want"]) == ("leave", "stopped")
    assert "orders" in await at.says("algos", "stop", "one", "--leave-orders", "--flatten", code=2)
    assert "--selector" in await at.says("algos", "start", code=2)
    assert [each["id"] for each in (await at.told("algos", "list", "--selector", "want=running"))["items"]] == ["two"]


async def test_parameters_are_tuned_by_name_and_how_it_took_effect_is_told(stage: Stage, at: Terminal) -> None:
    await make(stage, "one", start=True)
    assert (await at.told("algos", "tune", "one", "notional=900"))["applied"] == "live"
    tuned = await at.told("algos", "tune", "one", "allow_short=false")
    assert (tuned["applied"], tuned["parameters"]) == ("restart", {"notional": 900, "allow_short": False})
    assert "notional" in await at.says("algos", "tune", "one", "notional=-1", code=2)


async def test_the_log_is_filtered_and_events_are_told(stage: Stage, at: Terminal) -> None:
    await make(stage, "one")
    now = time.time_ns()
    rows = [(Nanos(now - 3_600 * 10**9), "error", "old"), (Nanos(now), "info", "new"), (Nanos(now), "warning", "odd")]
    await stage.services.algo_log.append(AlgoId("one"), Epoch(1), rows, [{}, {"n": 3}, {}])
    assert "new n=3" in await at.says("algos", "log", "one")

    async def texts(*words: str) -> list[str]:
        return [line["text"] for line in (await at.told("algos", "log", "one", *words))["items"]]

    assert await texts("--since", "10m") == ["new", "odd"]
    assert await texts("--level", "warning") == ["old", "odd"]
    assert await texts("--text", "NE") == ["new"]
    assert "since" in await at.says("algos", "log", "one", "--since", "yesterday", code=2)
    assert "it was created (by admin)" in await at.says("algos", "events", "one")

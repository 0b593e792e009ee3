"""The commands of machines, against a real API."""

from __future__ import annotations

import time

from storage.node_history import MINUTE, Minute
from storage.records import NodeRecord
from tests.api.playing import Stage, algo_body
from tests.api.test_nodes import told, view
from tests.api.test_strategies_command import Terminal
from trading.ids import Nanos, NodeName


async def test_machines_are_listed_described_and_emptied_by_commands(stage: Stage, served: str) -> None:
    key = await stage.trading()
    await stage.fed()
    services = stage.services
    for name in ("edge", "home"):
        node = NodeRecord(name=NodeName(name), labels={"place": name}, registered_at=Nanos(1))
        await services.desired.create_node(node, "test")
    await services.hot.put("node:edge", told("edge", disk_free_mb=5), 60)
    await services.hot.put("cluster", view("edge"), 60)
    at = Terminal(f"http://{served}", stage.operator_key)

    listed = await at.says("nodes")
    assert listed == await at.says("nodes", "list")
    for words in ("degraded", "5 MiB of its disk are free", "2000 of 8000", "gone", "not part of the cluster"):
        assert words in listed
    # An option that would not reach the command is refused, not lost.
    assert "write it after `list`" in await at.says("nodes", "--url", "http://elsewhere", "list", code=2)

    shown = await at.says("nodes", "show", "edge")
    for words in ("place=edge", "203.0.113.7 (says ip.example)", "+1.5 ms", "AlgoHost", "Python", "ray 2."):
        assert words in shown
    assert "AlgoHost" not in await at.says("nodes", "show", "home")
    assert (await at.told("nodes", "show", "edge"))["health"] == "degraded"

    now = time.time_ns()
    rows = [
        Minute(at=Nanos(now - now % MINUTE - n * MINUTE), metrics={"cpu_percent": 10.0 + n, "algos": 1.0})
        for n in range(3)
    ]
    await services.node_history.append(NodeName("edge"), rows)
    kept = await at.told("nodes", "history", "edge", "--metric", "cpu_percent")
    assert [each["metrics"] for each in kept["items"]] == [{"cpu_percent": each} for each in (12.0, 11.0, 10.0)]
    assert "speed" in await at.says("nodes", "history", "edge", "--metric", "speed", code=2)

    await stage.make("/v1/algos", algo_body(start=True, placement={"selector": "place=edge"}), key=key)
    assert "momo-1" in await at.says("nodes", "drain", "edge", code=1)
    assert (await at.told("nodes", "drain", "edge", "--force"))["draining"]
    assert "draining" in await at.says("nodes")
    assert (await at.told("nodes", "drain", "edge", "--off"))["draining"] is False

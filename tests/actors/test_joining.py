"""A machine joins the running deck with one command, carries an algo, comes back by itself, and leaves when removed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.deck import DeckUnderTest
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NODE = "joined"
MAKER = {"half_spread_bps": 1, "reprice_ticks": 1, "requote_after": 0.2}


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "cluster", *words]


def node(deck: DeckUnderTest) -> dict[str, Any]:
    return next((dict(each) for each in deck.api.get("/nodes")["items"] if each["name"] == NODE), {})


def algo(deck: DeckUnderTest) -> dict[str, Any]:
    return dict(deck.api.get("/algos/guest"))


def raylets(pid: int) -> list[int]:
    """Ray's processes of this kind below a process; others come and go meanwhile."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() == "raylet":
                found.append(process.pid)
    return found


def test_a_machine_joins_carries_an_algo_comes_back_and_leaves(deck: DeckUnderTest, alice: str, tmp_path: Path) -> None:
    home = tmp_path / "node"
    made = deck.api.post("/nodes/tokens", {"node": NODE, "labels": {"region": "moon"}})
    words = [*made["command"].split(" ")[1:], "--data-dir", str(home), "--node-ip", "127.0.0.1"]
    looked = subprocess.run(command(*words, "--check"), capture_output=True, text=True, timeout=180)
    assert looked.returncode == 0, looked.stdout + looked.stderr
    assert "This machine can join" in looked.stdout
    log = (tmp_path / "join.log").open("w+")
    joined = subprocess.Popen(command(*words), stdout=log, stderr=log, start_new_session=True)
    try:
        deck.wait("the machine with its facts", lambda: node(deck).get("facts"), 90)
        labels = node(deck)["labels"]
        assert {"region": "moon", "os": "Linux", "egress": "127.0.0.1"}.items() <= labels.items()
        deck.api.post(
            "/algos",
            {"id": "guest", "strategy": "market-maker", "account": alice, "feed": "main", "parameters": MAKER,
             "instruments": ["BINANCE:BTCUSDT"], "placement": {"selector": "region=moon"}, "start": True},
        )  # fmt: skip
        deck.wait("the algo trading there", lambda: (algo(deck)["live"] or {}).get("orders_acked"), 60)
        before = algo(deck)
        assert (before["placed"], before["live"]["node"]) == (NODE, NODE)

        # All of Ray there is killed: the command starts it again, and the algo goes on.
        (raylet,) = raylets(joined.pid)
        os.kill(raylet, signal.SIGKILL)
        deck.wait(
            "the algo under a new epoch",
            # A new epoch is written before it is said where it begins.
            lambda: (now := algo(deck))["state"] == "running" and now["epoch"] > before["epoch"] and now["placed"],
            90,
        )
        assert algo(deck)["placed"] == NODE

        with pytest.raises(Exception, match="drain it first"):
            deck.api.delete(f"/nodes/{NODE}")
        deck.api.post("/algos/guest/stop")
        deck.wait("the stop", lambda: algo(deck)["state"] == "stopped", 40)
        deck.api.delete(f"/nodes/{NODE}")
        assert joined.wait(timeout=40 * PATIENCE) == 0
        log.seek(0)
        assert f"node {NODE} was removed from the cluster" in log.read()
        assert not (home / "node.json").exists()
        deck.wait("its end in Ray", lambda: NODE not in deck.api.get("/cluster")["nodes"], 60)
        again = subprocess.run(command(*words), capture_output=True, text=True, timeout=180)
        assert again.returncode != 0
        assert "was removed from the cluster" in again.stderr
    finally:
        if joined.poll() is None:
            os.killpg(joined.pid, signal.SIGTERM)
            joined.wait(timeout=30)
        log.close()
    deck.api.delete("/algos/guest")

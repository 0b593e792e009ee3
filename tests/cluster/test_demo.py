"""``quarterdeck demo`` as a user runs it: a process, its one JSON object, and nothing left behind."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.data import USDM_RECORDING, needs
from tests.support.patience import PATIENCE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def of_demos() -> dict[int, str]:
    """Processes that work in a demo's directory (another demo may run on this machine)."""
    lines = ((p.pid, " ".join(p.info["cmdline"] or [])) for p in psutil.process_iter(["cmdline"]))
    return {pid: line for pid, line in lines if "quarterdeck-demo" in line}


def left_behind(folders: set[Path], others: dict[int, str]) -> list[str]:
    """Folders of a demo, or of its Ray, that were not there before, and its processes."""
    lines = [" ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    fresh = {path.name for path in set(Path(tempfile.gettempdir()).iterdir()) - folders}
    # Where a process works in one of Ray, it belongs to another deck that runs on this machine.
    of_ray = {name for name in fresh if "qd-ray" in name and not any(name in line for line in lines)}
    strays = [line for pid, line in of_demos().items() if pid not in others]
    return [*sorted(of_ray | {name for name in fresh if "quarterdeck-demo" in name}), *strays]


def run_demo(*options: str) -> dict[str, Any]:
    """Run it to its end; returns what it printed last."""
    others = of_demos()
    folders = set(Path(tempfile.gettempdir()).iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "demo", "--json", *options],
        capture_output=True,
        text=True,
        timeout=220 * PATIENCE,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 10 * PATIENCE
    while (left := left_behind(folders, others)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left, f"files or processes were left behind: {left}"
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_the_demo_trades_a_synthetic_market_and_leaves_nothing_behind() -> None:
    totals = run_demo("--seconds", "15")
    assert totals["algos_running"] == 5
    assert totals["ticks_sent"] > 1000
    assert totals["ticks_lost"] == 0
    assert totals["ticks_delivered"] == totals["ticks_sent"]
    assert totals["orders"] > 0
    assert totals["fills"] > 0
    assert totals["open_breaks"] == 0
    assert totals["tick_to_strategy_ms"]["p50"] > 0
    assert totals["intent_to_ack_ms"]["p50"] > 0


def test_a_recording_is_delivered_to_the_last_message() -> None:
    recording = needs(USDM_RECORDING)
    totals = run_demo("--seconds", "20", "--recording", str(recording))
    with gzip.open(recording, "rt") as lines:
        span = [line for number, line in enumerate(lines, 1) if totals["first_line"] <= number <= totals["last_line"]]
    wanted = sum('@trade"' in line or '@bookTicker"' in line for line in span)
    assert totals["ticks_sent"] == wanted
    assert totals["ticks_delivered"] == wanted
    assert totals["ticks_lost"] == 0
    assert totals["algos_running"] == 5
    assert totals["fills"] > 0
    assert totals["open_breaks"] == 0


def test_a_recording_that_is_not_there_is_a_clear_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cluster", "demo", "--json", "--recording", "/nowhere/at/all.gz"],
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "/nowhere/at/all.gz" in done.stderr

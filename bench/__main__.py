"""All benches, with the targets beside the figures: ``python -m bench``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

#: No bench may take longer.
LONGEST_S: Final = 300


class Row(NamedTuple):
    """A figure to show: how to find it, how to write it, and the target it must keep (if it has one)."""

    bench: str
    title: str
    path: tuple[str, ...]
    form: str
    target: str = ""
    kept: Callable[[float], bool] | None = None


ROWS: Final = (
    Row("feed", "pipeline, ticks/s", ("pipeline_per_s",), ",.0f"),
    Row("feed", "bare websockets + msgspec, messages/s", ("bare_per_s",), ",.0f"),
    Row("feed", "pipeline / bare", ("ratio",), ".2f", "≥ 0.60", lambda x: x >= 0.6),
    Row("feed", "ticks lost", ("lost",), ",.0f", "0", lambda x: x == 0),
    Row("feed", "tick to strategy at 1,000/s, p50 ms", ("tick_to_strategy_ms", "1000", "p50"), ".2f"),
    Row("feed", "tick to strategy at 1,000/s, p99 ms", ("tick_to_strategy_ms", "1000", "p99"), ".2f"),
    Row("feed", "tick to strategy at 10,000/s, p50 ms", ("tick_to_strategy_ms", "10000", "p50"), ".2f"),
    Row(
        "feed",
        "tick to strategy at 10,000/s, p99 ms",
        ("tick_to_strategy_ms", "10000", "p99"),
        ".2f",
        "≤ 5",
        lambda x: x <= 5,
    ),
    Row("feed", "tick to strategy at 25,000/s, p50 ms", ("tick_to_strategy_ms", "25000", "p50"), ".2f"),
    Row("feed", "tick to strategy at 25,000/s, p99 ms", ("tick_to_strategy_ms", "25000", "p99"), ".2f"),
    Row("quality", "decoding, µs a tick", ("decode_us",), ".2f"),
    Row("quality", "bad tick filter / decoding, batches of 256", ("filter_ratio", "256"), ".2f"),
    Row(
        "quality",
        "bad tick filter / decoding, batches of 1,024",
        ("filter_ratio", "1024"),
        ".2f",
        "≤ 0.20",
        lambda x: x <= 0.20,
    ),
    Row("rebalance", "9,000 instruments, 3 to 5 to 2 workers: ticks lost", ("lost",), ",.0f", "0", lambda x: x == 0),
    Row("rebalance", "ticks doubled", ("duplicates",), ",.0f", "0", lambda x: x == 0),
    Row("rebalance", "moves", ("moves",), ",.0f"),
    Row("rebalance", "moves beyond the fewest", ("moves_beyond_minimum",), ",.0f", "0", lambda x: x == 0),
    Row("rebalance", "seconds", ("seconds",), ".1f"),
    Row("risk", "budget checks/s, one core", ("checks_per_s",), ",.0f", "≥ 50,000", lambda x: x >= 50_000),
    Row("risk", "checks / bare arithmetic", ("ratio",), ".3f"),
    Row(
        "kill",
        "200 orders of 20 accounts: last cancel at the broker, s",
        ("last_cancel_s",),
        ".2f",
        "≤ 1",
        lambda x: x <= 1,
    ),
    Row("kill", "that / bare cancels", ("ratio",), ".2f"),
    Row("kite", "full packets decoded/s", ("ours_packets_per_s",), ",.0f"),
    Row("kite", "the official SDK's parser, packets/s", ("sdk_packets_per_s",), ",.0f"),
    Row("kite", "ours / SDK", ("ratio",), ".0f", "≥ 150", lambda x: x >= 150),
    Row(
        "kite", "3,000 instruments, full mode: share of a core", ("worker_core",), ".3f", "≤ 0.25", lambda x: x <= 0.25
    ),
    Row("panel", "50 clients x 20 instruments: p99 ms", ("p99_ms_alone",), ".1f"),
    Row("panel", "one of them frozen: p99 ms of the others", ("p99_ms_with_frozen",), ".1f"),
    Row("panel", "with / without", ("ratio",), ".2f", "≤ 1.25", lambda x: x <= 1.25),
    Row("panel_reads", "/v1/deck with 2,000 open orders: p99 ms", ("deck_p99_ms",), ".1f", "≤ 50", lambda x: x <= 50),
    Row("panel_reads", "that / a bare route", ("deck_ratio",), ".2f"),
    Row(
        "panel_reads",
        "200 panels connected, any read: p99 ms",
        ("reads_200_p99_ms",),
        ".1f",
        "≤ 200",
        lambda x: x <= 200,
    ),
    Row("panel_reads", "that / a bare route", ("reads_ratio",), ".1f"),
    Row("orders", "one Ray call, p50 ms", ("ray_call_ms", "p50"), ".2f"),
    Row("orders", "intent to wire, p50 ms", ("intent_to_wire_ms", "p50"), ".2f"),
    Row("orders", "intent to wire, p99 ms", ("intent_to_wire_ms", "p99"), ".2f"),
    Row("orders", "intent to wire / Ray call", ("ratio_p50",), ".2f", "≤ 3", lambda x: x <= 3),
    Row("orders", "orders/s, 50 in flight", ("orders_per_s",), ",.0f", "≥ 4,000", lambda x: x >= 4_000),
    Row(
        "orders",
        "orders/s of 20 sessions, 200 in flight",
        ("orders_per_s_20",),
        ",.0f",
        "≥ 1,500",
        lambda x: x >= 1_500,
    ),
    Row("orders", "open orders of a restarted session", ("restart", "orders"), ",.0f"),
    Row("orders", "its first order after its process, s", ("restart", "seconds"), ".2f", "≤ 3", lambda x: x <= 3),
    Row("orders", "naive orders/s, 50 in flight", ("naive_orders_per_s",), ",.0f"),
    Row("orders", "ours / naive", ("ratio_throughput",), ".2f", "≥ 4", lambda x: x >= 4),
    Row("nodes", "start of an algo, REST to on_start, p50 s", ("start_s", "p50"), ".2f", "≤ 2", lambda x: x <= 2),
    Row("nodes", "start of an algo, p95 s", ("start_s", "p95"), ".2f"),
    Row("nodes", "20 algos at once on 4 nodes, the last one's s", ("at_once_s",), ".1f", "≤ 15", lambda x: x <= 15),
    Row("nodes", "60 algos: the Supervisor's round, ms", ("round_ms",), ".0f"),
    Row("nodes", "60 algos: memory of one, MB", ("algo_mb",), ".0f"),
    Row("browser", "first paint of the deck, ms", ("first_paint_ms",), ",.0f", "≤ 1,500", lambda x: x <= 1_500),
    Row("browser", "interactive, ms", ("interactive_ms",), ",.0f", "≤ 2,500", lambda x: x <= 2_500),
    Row("browser", "an empty page in the same browser, ms", ("blank_ms",), ",.0f"),
    Row("browser", "2,000 orders, 2,000 ticks/s: frames/s", ("frames_per_s",), ".0f", "≥ 30", lambda x: x >= 30),
    Row("browser", "worst second", ("frames_worst_second",), ".0f"),
    Row("browser", "frames/s with nothing moving", ("idle_frames_per_s",), ".0f"),
    Row("browser", "tick to screen, p99 ms", ("tick_to_screen_p99_ms",), ".0f", "≤ 300", lambda x: x <= 300),
)


def run(bench: str) -> dict[str, Any]:
    """The figures of one bench, measured in a process of its own; SystemExit where it failed."""
    command = [sys.executable, "-m", f"bench.{bench}", "--json"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LONGEST_S, check=True)
        return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except subprocess.TimeoutExpired:
        raise SystemExit(f"bench.{bench} took longer than {LONGEST_S} s") from None
    except (subprocess.CalledProcessError, IndexError, ValueError) as error:
        raise SystemExit(f"bench.{bench} failed: {error}") from None


def figure(found: dict[str, Any], path: tuple[str, ...]) -> float:
    """The figure at ``path``."""
    value: Any = found
    for name in path:
        value = value[name]
    return float(value)


def main() -> None:
    """Run all and print; ends with 1 where a target is missed."""
    console = Console()
    table = Table("bench", "what", "figure", "target", "", title="Quarterdeck on this machine")
    table.columns[2].justify = table.columns[3].justify = "right"
    missed = 0
    for bench in dict.fromkeys(row.bench for row in ROWS):
        console.print(f"running bench.{bench} …", style="dim")
        try:
            found = run(bench)
        except SystemExit as error:
            # The others are worth having all the same.
            console.print(str(error), style="red")
            missed += 1
            continue
        for row in (row for row in ROWS if row.bench == bench):
            value = figure(found, row.path)
            verdict = "" if row.kept is None else "[green]kept" if row.kept(value) else "[red]missed"
            missed += row.kept is not None and not row.kept(value)
            table.add_row(row.bench, row.title, format(value, row.form), row.target, verdict)
        table.add_section()
    console.print(table)
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()

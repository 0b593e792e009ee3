"""``python -m tests.simulation.run N --seed S``: play N seeds on all cores and say what was found.

A seed that fails is made small and printed with the timeline that is left; ``--seed S 1`` plays it again, byte for
byte.  Seeds that have found
a bug are kept in ``regressions.txt`` and are played first.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.simulation.play import WHOLE, Result, play
from tests.simulation.shrink import shrink

REGRESSIONS = Path(__file__).with_name("regressions.txt")


def regressions() -> list[int]:
    """Seeds that found a bug once."""
    lines = (line.partition("#")[0].strip() for line in REGRESSIONS.read_text().splitlines())
    return [int(line) for line in lines if line]


def play_all(seeds: Iterable[int], processes: int) -> Iterable[Result]:
    """Play seeds in several processes, in any order."""
    with multiprocessing.get_context("spawn").Pool(processes, maxtasksperchild=20_000) as pool:
        for result in pool.imap_unordered(play, seeds, chunksize=25):
            if not result.violations:
                result.trace = []
            yield result


def told(result: Result, lines: int = 120) -> str:
    """A failing run in words: what is wrong, and the timeline of the smallest run that goes wrong in that way."""
    cut, small = shrink(result.seed)
    if not small.violations:
        # It failed in another process and not here: then at least what that one saw.
        cut, small = WHOLE, result
    left = small.acts - len(cut.without)
    return "\n".join(
        [
            f"seed {result.seed}:",
            *(f"  {v}" for v in result.violations[:10]),
            f"  the same after {left} of {result.acts} acts (tests.simulation.shrink.shrink({result.seed})):",
            *(f"  {v}" for v in small.violations[:5]),
            *small.trace[-lines:],
        ]
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--report", type=Path, help="write the figures to this file as JSON")
    chosen = parser.parse_args()
    seeds = [*regressions(), *range(chosen.seed, chosen.seed + chosen.count)]
    began = time.monotonic()
    faults: Counter[str] = Counter()
    failed: list[int] = []
    played = orders = fills = steps = 0
    for result in play_all(seeds, chosen.processes):
        played += 1
        orders, fills, steps = orders + result.orders, fills + result.fills, steps + result.steps
        faults.update(result.faults)
        if result.violations:
            failed.append(result.seed)
            print(told(result), flush=True)
        if played % 5_000 == 0:
            print(f"{played} runs, {played / (time.monotonic() - began):.0f}/s, {len(failed)} failed", flush=True)
    seconds = time.monotonic() - began
    figures = {
        "runs": played,
        "failed": sorted(failed),
        "runs_per_s": round(played / seconds, 1),
        "processes": chosen.processes,
        "seconds": round(seconds, 1),
        "orders_at_broker": orders,
        "fills": fills,
        "steps": steps,
        "faults": dict(faults.most_common()),
    }
    print(json.dumps(figures, indent=2))
    if chosen.report is not None:
        chosen.report.write_text(json.dumps(figures, indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

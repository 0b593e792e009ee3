"""``python -m tests.chaos.run --episodes 300 --seed 1``: the long run.  A line an episode, a JSON report at the end."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path

from tests.chaos.episode import Chaos, Verdict
from tests.support.deck import DeckUnderTest

#: Longer episodes show where the time went.
SLOW_S = 15.0
#: Episodes after which everything is taken back, judged and put away.
CHAPTER = 50


async def _run(chaos: Chaos, seeds: list[int], keep_going: bool) -> None:
    try:
        for number, seed in enumerate(seeds, 1):
            verdict = await chaos.episode(seed)
            _show(f"{number:4d}/{len(seeds)} seed {seed}", verdict)
            if verdict.violations and not keep_going:
                return
            if number % CHAPTER == 0 and number < len(seeds):
                verdict = await chaos.turn_page()
                _show("end of a chapter", verdict)
                if verdict.violations and not keep_going:
                    return
        _show("all together", await chaos.judge_all())
    finally:
        await chaos.close()


def _show(title: str, verdict: Verdict) -> None:
    said = "ok" if not verdict.violations else f"{len(verdict.violations)} VIOLATIONS"
    print(f"{title} {verdict.seconds:5.1f} s {said}: {', '.join(verdict.faults)}", flush=True)
    if verdict.violations or verdict.seconds > SLOW_S:
        for line in (*verdict.violations[:20], *verdict.timeline):
            print(f"      {line}", flush=True)


def main() -> int:
    """Run episodes; 1 where one was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--episodes", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1, help="of the first episode; the next has the next")
    parser.add_argument("--report", type=Path, default=Path("chaos-report.json"))
    parser.add_argument("--keep-going", action="store_true", help="after a violation (the deck is spoilt then)")
    parser.add_argument("--keep-deck", action="store_true", help="leave the deck's files for a look")
    wanted = parser.parse_args()
    began = time.monotonic()
    deck = DeckUnderTest()
    try:
        chaos = Chaos(deck, f"c{wanted.seed}")
        asyncio.run(_run(chaos, list(range(wanted.seed, wanted.seed + wanted.episodes)), wanted.keep_going))
        report = {**chaos.report(), "wall_s": round(time.monotonic() - began, 1)}
    finally:
        if wanted.keep_deck:
            print(f"the deck's files are in {deck.home}")
        deck.stop(keep=wanted.keep_deck)
    wanted.report.write_text(json.dumps(report, indent=1, default=str))
    print(json.dumps({k: v for k, v in report.items() if k != "failures"}, indent=1, default=str))
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

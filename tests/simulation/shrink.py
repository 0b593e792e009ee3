"""A failing run made small: the fewest acts of the player after which the same thing goes wrong.

Without some of its acts it is another run, and counts only where it fails in the same way.  Like every run it is the
same each time it is played.
"""

from __future__ import annotations

import re
import time
from typing import Any

from msgspec.structs import replace

from tests.simulation.play import WHOLE, Cut, Result, play

#: Enough for every act of the longest run to be left out once.
PATIENCE_S = 30.0


def shrink(seed: int, patience_s: float = PATIENCE_S) -> tuple[Cut, Result]:
    """The smallest failing run found from ``seed`` in the time given, and what cut it."""
    chances: list[Any] = []
    best, result = WHOLE, play(seed, WHOLE, chances)
    wrong = kinds(result)
    if not wrong:
        return best, result
    until = time.monotonic() + patience_s
    for acts in range(1, result.acts + 1):
        cut = Cut(acts, chances=tuple(chances))
        tried = play(seed, cut)
        if kinds(tried) & wrong:
            best, result = cut, tried
            break
        if time.monotonic() > until:
            break
    smaller = True
    while smaller:
        smaller = False
        for act in sorted(set(range(min(best.acts, result.acts))) - best.without, reverse=True):
            cut = replace(best, without=best.without | {act})
            tried = play(seed, cut)
            if kinds(tried) & wrong:
                best, result, smaller = cut, tried, True
            if time.monotonic() > until:
                return best, result
    return best, result


def kinds(result: Result) -> set[str]:
    """What is wrong, whoever it happened to and however much it was."""
    return {re.sub(r"[\w/#'-]*\d[\w.'-]*", "…", violation) for violation in result.violations}

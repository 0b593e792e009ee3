"""Algos in words: their events, and which ones stand in somebody's way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from api.security import Caller
from storage.records import AlgoEvent, AlgoRecord

_CHANGES: Final = {
    "parameters": "its parameters changed",
    "strategy_version": "it went to another version of its strategy",
    "node": "its node changed",
    "placement": "where it may run changed",
    "labels": "its labels changed",
    "paused": "it was paused",
    "resumed": "it was resumed",
    "restart": "it was asked to restart",
    "created": "it was created",
    "deleted": "it was deleted",
    "known": "the history begins",
    "stop_orders": "what becomes of its orders when it stops changed",
    "stop_position": "what becomes of its position when it stops changed",
}


def in_words(event: AlgoEvent) -> str:
    """What happened, and by whom."""
    told = []
    for part in event.what:
        if part == "want":
            told.append(f"it was asked to be {event.want}")
        elif part == "epoch":
            told.append(f"incarnation {event.epoch} was started" + (f" on node {event.node}" if event.node else ""))
        elif part in ("state", "reason"):
            said = event.state + (f": {event.reason}" if event.reason else "")
            if said not in told:
                told.append(said)
        else:
            told.append(_CHANGES.get(part, part))
    return ", ".join(told) + (f" (by {event.by})" if event.by else "")


def names_for(caller: Caller, algos: Sequence[AlgoRecord], most: int = 10) -> str:
    """Names of those that the caller sees; how many more of them there are, and how many that are not theirs to see."""
    seen = sorted(algo.id for algo in algos if caller.sees_algo(algo))
    words: list[str] = [*seen[:most]]
    if len(seen) > most:
        words.append(f"{len(seen) - most} more")
    if len(seen) < len(algos):
        words.append(f"{len(algos) - len(seen)} that you do not see")
    return ", ".join(words)

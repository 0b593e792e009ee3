"""An algo's events in words."""

from __future__ import annotations

from typing import Final

from storage.records import AlgoEvent

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

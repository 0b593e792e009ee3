"""Channels of the bus and what travels on them."""

from __future__ import annotations

from typing import Any

import msgspec

from trading.ids import Nanos

#: Changes for the panel and REST streams: a JSON list of `Change`.
CHANGES = "changes"


def ticks(feed: str) -> str:
    """Tick batches of a feed, from all its workers (`trading.ticks.pack_batch`)."""
    return f"ticks:{feed}"


def last(feed: str) -> str:
    """Last values of a feed's instruments that changed, a few times a second (bytes of a TICK array)."""
    return f"last:{feed}"


#: Pattern for `last` of every feed.
LAST_OF_ALL = "last:*"


def beats(feed: str) -> str:
    """Once a second each worker's word on its stream: msgpack of `trading.seen.Beat`."""
    return f"beats:{feed}"


def built(feed: str) -> str:
    """Bars of seconds and minutes that the recorder built, and their amendments: msgpack of
    `trading.bar_building.Built`.  Those that were not seen whole are left out."""
    return f"built:{feed}"


#: Patterns for `built` and `bars` of every feed.
BUILT_OF_ALL = "built:*"
BARS_OF_ALL = "bars:*"


def bars(feed: str) -> str:
    """Bars that the venue built: msgpack of (instrument number, final, `trading.bars.Bar`, interval)."""
    return f"bars:{feed}"


def books(feed: str) -> str:
    """Order book changes: msgpack of `connectors.base.BookDelta`."""
    return f"books:{feed}"


def depth(feed: str) -> str:
    """Whole books of a few levels, of all instruments that came together (`trading.depth.pack_depth`)."""
    return f"depth:{feed}"


def algo_log(algo: str) -> str:
    """Word that an algo's log has new lines: the number of the last."""
    return f"algo-log:{algo}"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something changed: what kind of thing, which one, whose (for access), its new state.

    ``account``: the account that it is of, where the body does not say; "" for none.
    """

    topic: str
    key: str
    user: str
    at: Nanos
    body: Any
    account: str = ""


def encode_changes(changes: list[Change]) -> bytes:
    """One message for the bus."""
    return msgspec.json.encode(changes)


def decode_changes(raw: bytes) -> list[Change]:
    """What `encode_changes` made."""
    return msgspec.json.decode(raw, type=list[Change])

"""A feed's instruments as its workers tell of them, read once for all who look at any part of them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, get_args

import msgspec
from pydantic import Field

from api.formats import Body
from trading.ids import FeedId

#: What is shown is at most so many seconds older than what it was read from.
FRESH_S: Final = 0.8
#: Feeds that nobody has looked at for so long are forgotten.
_FORGET_S: Final = 60.0

#: A row: what the worker tells of one instrument, and its ``shard``.
Row = Mapping[str, Any]

SortedBy = Literal["id", "shard", "state", "age_s", "rate", "ticks", "quarantined", "gaps"]
Sort = Literal[
    "id", "shard", "state", "age_s", "rate", "ticks", "quarantined", "gaps",
    "-id", "-shard", "-state", "-age_s", "-rate", "-ticks", "-quarantined", "-gaps",
]  # fmt: skip


class WindowWanted(Body):
    """Which part of a feed's instruments: of those that pass the filters, in this order, rows from ``offset`` on."""

    #: Somewhere in the name, the state or the reason, in any case.
    search: str = Field("", max_length=100)
    state: Literal["", "pending", "live", "stale", "failed"] = ""
    #: ``-``: the largest first.  What is not known comes last either way, what is alike by name.
    sort: Sort = "id"
    offset: int = Field(0, ge=0, le=1_000_000)
    limit: int = Field(100, ge=1, le=1_000)


class Window(msgspec.Struct, frozen=True):
    """The rows, how many pass the filters, and how many there are in each state, whether they pass or not."""

    rows: list[Row]
    total: int
    states: dict[str, int]


class FeedRows:
    """Keeps the last reading of each feed for as long as it is fresh.  The constructor does no IO."""

    def __init__(self) -> None:
        self._read: dict[FeedId, tuple[float, list[Row]]] = {}
        self._reading: dict[FeedId, asyncio.Lock] = {}

    async def of(self, feed: FeedId, read: Callable[[], Awaitable[list[Row]]]) -> list[Row]:
        """All rows by name, read by ``read`` where the last reading is not fresh any more."""
        for other in [name for name, (at, _) in self._read.items() if time.monotonic() - at > _FORGET_S]:
            del self._read[other]
            self._reading.pop(other, None)
        async with self._reading.setdefault(feed, asyncio.Lock()):
            known = self._read.get(feed)
            if known is not None and time.monotonic() - known[0] < FRESH_S:
                return known[1]
            began = time.monotonic()
            rows = await read()
            self._read[feed] = (began, rows)
            return rows


def window_of(rows: list[Row], wanted: WindowWanted) -> Window:
    """The part of ``rows`` (by name) that is wanted."""
    search = wanted.search.strip().casefold()
    found = [
        row
        for row in rows
        if (not wanted.state or row["state"] == wanted.state)
        and (not search or any(search in str(row[field]).casefold() for field in ("id", "state", "reason")))
    ]
    field, largest = wanted.sort.removeprefix("-"), wanted.sort.startswith("-")
    assert field in get_args(SortedBy), "pydantic has checked it"
    known = [row for row in found if row.get(field) is not None]
    # Stable both ways: what is alike stays in the order of names.
    known.sort(key=lambda row: row[field], reverse=largest)
    ordered = [*known, *(row for row in found if row.get(field) is None)]
    return Window(
        rows=ordered[wanted.offset : wanted.offset + wanted.limit],
        total=len(ordered),
        states=dict(sorted(Counter(str(row["state"]) for row in rows).items())),
    )

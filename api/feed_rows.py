"""A feed's instruments as its workers tell of them, read once for all who look at any part of them."""

from __future__ import annotations

import asyncio
import operator
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
import pydantic

from api.formats import Body
from trading.ids import FeedId

#: What is shown is at most so many seconds older than what it was read from.
FRESH_S: Final = 0.8
#: Feeds that nobody has looked at for so long are forgotten.
_FORGET_S: Final = 60.0

#: A row: what the worker tells of one instrument, and its ``shard``; with ``last``, its last tick, where that is asked
#: for.
Row = Mapping[str, Any]

Field = Literal[
    "id", "shard", "state", "reason", "age_s", "rate", "ticks", "quarantined", "gaps", "patience_s", "skew_ms",
    "last", "bid", "ask", "standby",
]  # fmt: skip
FIELDS: Final[tuple[Field, ...]] = get_args(Field)
_TEXTS: Final = frozenset[str]({"id", "state", "reason", "standby"})
_PRICES: Final = {"last": "price", "bid": "bid", "ask": "ask"}
_NAMES: Final = "|".join(FIELDS)
#: As the panel's tables take it: `<=5`, or a part of the text.
_BOUND: Final = re.compile(r"(<=|>=|<|>|=)\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))")
_PASSES: Final[Mapping[str, Callable[[Decimal, Decimal], bool]]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq,
}  # fmt: skip

Condition = Annotated[str, pydantic.Field(pattern=rf"^({_NAMES}):", max_length=120)]


class WindowWanted(Body):
    """Which part of a feed's instruments: of those that pass the filters, in this order, rows from ``offset`` on."""

    #: Somewhere in the name, the state or the reason, in any case.
    search: str = pydantic.Field("", max_length=100)
    state: Literal["", "pending", "live", "stale", "failed"] = ""
    #: Each ``<field>:<text>``: the text is somewhere in the field, in any case; of a number also ``<field>:>=5``.
    #: All of them hold.  ``standby`` is the feed of its second provider; ``last``, ``bid``, ``ask`` are prices.
    where: list[Condition] = pydantic.Field([], max_length=len(FIELDS))
    #: ``-``: the largest first.  What is not known comes last either way, what is alike by name.
    sort: str = pydantic.Field("id", pattern=rf"^-?({_NAMES})$")
    offset: int = pydantic.Field(0, ge=0, le=1_000_000)
    limit: int = pydantic.Field(100, ge=1, le=1_000)

    def needs_prices(self) -> bool:
        """Whether every row must have its last tick."""
        return not _PRICES.keys().isdisjoint(
            [self.sort.removeprefix("-"), *(each.partition(":")[0] for each in self.where)]
        )


class Window(msgspec.Struct, frozen=True):
    """The rows, how many pass the filters, and how many there are in each state, whether they pass or not."""

    rows: list[Row]
    total: int
    states: dict[str, int]


_Key = tuple[FeedId, bool]


class FeedRows:
    """Keeps the last reading of each feed for as long as it is fresh.  The constructor does no IO."""

    def __init__(self) -> None:
        self._read: dict[_Key, tuple[float, list[Row]]] = {}
        self._reading: dict[_Key, asyncio.Lock] = {}

    async def of(self, feed: FeedId, read: Callable[[], Awaitable[list[Row]]], *, prices: bool = False) -> list[Row]:
        """All rows by name, read by ``read`` where the last reading is not fresh any more; those with ``prices``, which
        cost more, are read for themselves."""
        key = (feed, prices)
        for other in [name for name, (at, _) in self._read.items() if time.monotonic() - at > _FORGET_S]:
            del self._read[other]
            self._reading.pop(other, None)
        async with self._reading.setdefault(key, asyncio.Lock()):
            known = self._read.get(key)
            if known is not None and time.monotonic() - known[0] < FRESH_S:
                return known[1]
            began = time.monotonic()
            rows = await read()
            self._read[key] = (began, rows)
            return rows


def value_of(row: Row, field: str) -> str | float | None:
    """What ``row`` has in one of the `FIELDS`; None where that is not known."""
    if field in _PRICES:
        last = row.get("last")
        return None if last is None else getattr(last, _PRICES[field])
    if field == "standby":
        second = row.get("second")
        return None if second is None else second["feed"]
    return row.get(field)


def passes(row: Row, condition: str) -> bool:
    """Whether ``row`` is as a condition of `WindowWanted.where` wants it."""
    field, _, text = condition.partition(":")
    text = text.strip()
    if not text:
        return True
    value = value_of(row, field)
    if value is None:
        return False
    bound = None if field in _TEXTS else _BOUND.fullmatch(text)
    if bound is not None:
        return _PASSES[bound[1]](Decimal(str(value)), Decimal(bound[2]))
    # As it is shown: 20.0 ticks a second are 20.
    shown = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return text.casefold() in shown.casefold()


def window_of(rows: list[Row], wanted: WindowWanted) -> Window:
    """The part of ``rows`` (by name) that is wanted."""
    search = wanted.search.strip().casefold()
    found = [
        row
        for row in rows
        if (not wanted.state or row["state"] == wanted.state)
        and (not search or any(search in str(row[field]).casefold() for field in ("id", "state", "reason")))
        and all(passes(row, each) for each in wanted.where)
    ]
    field, largest = wanted.sort.removeprefix("-"), wanted.sort.startswith("-")
    keyed = [(value, row) for row in found if (value := value_of(row, field)) is not None]
    # Stable both ways: what is alike stays in the order of names.
    keyed.sort(key=lambda each: each[0], reverse=largest)
    ordered = [*(row for _, row in keyed), *(row for row in found if value_of(row, field) is None)]
    return Window(
        rows=ordered[wanted.offset : wanted.offset + wanted.limit],
        total=len(ordered),
        states=dict(sorted(Counter(str(row["state"]) for row in rows).items())),
    )

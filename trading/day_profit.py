"""Profit since the day began, level by level, and what is reached when too much is lost.

The day begins at 00:00 UTC, or later by the limit `DAY_START`.  A day's opening is the last profit that was seen
before it began.  A loss that reaches its limit stays reached until the next day, or until the limit is set again:
what has come back by then is no reason to trade on by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

import msgspec

from trading.ids import Nanos
from trading.limits import DAILY_LOSS, DRAWDOWN, LimitTree, Violation

DAY_NS: Final = 86_400_000_000_000


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """A loss that reached its limit: how much was lost then, and which setting of the limit it was."""

    amount: Decimal
    limit: Decimal
    limit_changed_at: int
    at: Nanos


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """One level's day.  Profits are over all time: realised + unrealised - fees."""

    scope: str
    #: "" for the whole level, else one instrument of it.
    instrument: str = ""
    #: When the day began.
    began_at: Nanos
    opening: Decimal
    #: Highest and last profit seen in the day.
    high: Decimal
    latest: Decimal
    at: Nanos
    reached: dict[str, Reached] = msgspec.field(default_factory=dict)

    @property
    def profit(self) -> Decimal:
        """Profit since the day began."""
        return self.latest - self.opening

    @property
    def drawdown(self) -> Decimal:
        """What has been lost since the day's best moment."""
        return self.high - self.latest


def day_of(at: Nanos, starts_ns: int) -> Nanos:
    """When the day around ``at`` began."""
    return Nanos((at - starts_ns) // DAY_NS * DAY_NS + starts_ns)


class DayBook:
    """The days of all levels that one owner watches."""

    def __init__(self) -> None:
        self._days: dict[tuple[str, str], Day] = {}
        self._unsaved: set[tuple[str, str]] = set()

    def restore(self, days: Iterable[Day]) -> None:
        """Take up what was saved; later figures win."""
        for day in days:
            key = (day.scope, day.instrument)
            known = self._days.get(key)
            if known is None or known.at < day.at:
                self._days[key] = day

    def get(self, scope: str, instrument: str = "") -> Day | None:
        """A level's day as it was last seen."""
        return self._days.get((scope, instrument))

    def see(
        self,
        scope: str,
        total: Decimal,
        tree: LimitTree,
        now: Nanos,
        instrument: str = "",
        opening: Decimal | None = None,
    ) -> Day:
        """Take in a level's profit over all time, or since ``opening`` where each day begins with that."""
        began_at = day_of(now, tree.day_start_ns)
        key = (scope, instrument)
        known = self._days.get(key)
        if known is None:
            day = Day(
                scope=scope,
                instrument=instrument,
                began_at=began_at,
                opening=total if opening is None else opening,
                high=total if opening is None else max(total, opening),
                latest=total,
                at=now,
            )
        elif known.began_at < began_at:
            opening = known.latest if opening is None else opening
            day = Day(
                scope=scope,
                instrument=instrument,
                began_at=began_at,
                opening=opening,
                high=max(opening, total),
                latest=total,
                at=now,
            )
        elif total != known.latest:
            day = msgspec.structs.replace(known, latest=total, high=max(known.high, total), at=now)
        else:
            day = known
        if not instrument:
            day = self._judged(day, tree, now)
        if day is not known:
            self._days[key] = day
            self._unsaved.add(key)
        return day

    def _judged(self, day: Day, tree: LimitTree, now: Nanos) -> Day:
        """The day with what it has reached by now; what was reached of a limit that is no more is let go."""
        reached = {}
        for kind, amount in ((DAILY_LOSS, -day.profit), (DRAWDOWN, day.drawdown)):
            limit = tree.get(day.scope, kind)
            if limit is None:
                continue
            before = day.reached.get(kind)
            if before is not None and before.limit_changed_at == limit.changed_at:
                reached[kind] = before
            elif amount > 0 and amount >= limit.value:
                reached[kind] = Reached(amount=amount, limit=limit.value, limit_changed_at=limit.changed_at, at=now)
        return day if reached == day.reached else msgspec.structs.replace(day, reached=reached)

    def take_unsaved(self) -> list[Day]:
        """Days that changed since the last call."""
        changed = [self._days[key] for key in sorted(self._unsaved)]
        self._unsaved.clear()
        return changed

    def not_saved(self, days: Iterable[Day]) -> None:
        """Saving failed: give them out again."""
        self._unsaved.update((day.scope, day.instrument) for day in days)


def reached_of(day: Day) -> tuple[Violation, ...]:
    """What refuses entries on the day's level."""
    return tuple(
        Violation(kind=kind, scope=day.scope, value=what.amount, limit=what.limit)
        for kind, what in sorted(day.reached.items())
    )

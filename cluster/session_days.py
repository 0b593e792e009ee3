"""Trading days of venues over any span, from exchange_calendars, for daily bars.

Worked out in a process of its own, for it needs pandas.  ``python -m cluster.session_days XNYS 2024-01-01 2024-12-31``
prints ``[[open, close], …]``, UTC nanoseconds, as JSON.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from cluster.venue_calendar import venue_calendar
from trading.errors import NotReady
from trading.spans import Span

PATIENCE_S: Final = 60.0
_MOST_KEPT: Final = 64


class SessionDays:
    """Asks once for each calendar and year, and remembers."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], list[Span]] = {}
        self._asking = asyncio.Lock()

    async def within(self, calendar: str, wanted: Span) -> list[Span]:
        """The trading days that open in ``wanted``, oldest first, each from its first opening to its last close.

        Raises `NotReady` where the calendar is not known.
        """
        days: list[Span] = []
        last = _utc(max(wanted.start, wanted.end - 1)).year
        for year in range(_utc(wanted.start).year, last + 1):
            async with self._asking:
                known = self._known.get((calendar, year))
                if known is None:
                    known = await _ask(calendar, year)
                    if len(self._known) >= _MOST_KEPT:
                        self._known.clear()
                    self._known[calendar, year] = known
            days += [day for day in known if wanted.start <= day.start < wanted.end]
        return days


def _utc(at: int) -> datetime:
    return datetime.fromtimestamp(at // 1_000_000_000, UTC)


async def _ask(calendar: str, year: int) -> list[Span]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cluster.session_days", calendar, f"{year}-01-01", f"{year}-12-31"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            said, trouble = await process.communicate()
    except TimeoutError:
        raise NotReady(f"the days of calendar {calendar} were not worked out within {PATIENCE_S:g} s", 60.0) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        why = trouble.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise NotReady(f"the days of calendar {calendar} in {year} are not known: {why[-1]}", 60.0)
    return msgspec.json.decode(said, type=list[Span])


def _days(calendar: str, first: str, last: str) -> list[Span]:
    # A day more on either side: a session may open on the evening before, by UTC.
    start, end = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (first, last))
    beyond = timedelta(days=4)
    known = venue_calendar(calendar, (start - beyond).date(), end.date(), (end + beyond).date())
    bounds = Span(int(start.timestamp()) * 10**9, int((end + timedelta(days=1)).timestamp()) * 10**9)
    rows = known.schedule[["open", "close"]].itertuples(index=False)
    days = [Span(*(int(at.as_unit("ns").value) for at in row)) for row in rows]
    return [day for day in days if bounds.start <= day.start < bounds.end]


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_days(*sys.argv[1:4])))

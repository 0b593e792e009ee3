"""Opening hours of venues, from exchange_calendars.

Worked out in a process of its own: it needs pandas, which a session must not carry.

``python -m actors.hours XNYS`` prints them as JSON: the last week and the next year, as far as they are known.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta

import msgspec

from cluster.venue_calendar import venue_calendar
from trading.calendars import Sessions
from trading.errors import NotReady

PATIENCE_S = 60.0


class Hours(msgspec.Struct):
    """Opening and closing times, UTC nanoseconds."""

    opens: list[int]
    closes: list[int]


async def sessions_of(calendar: str) -> Sessions:
    """The hours of a calendar (ISO 10383 code of the venue, such as XNYS).  Raises `NotReady` where it is not known."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "actors.hours", calendar),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            said, trouble = await process.communicate()
    except TimeoutError:
        process.kill()
        raise NotReady(f"the hours of calendar {calendar} were not worked out within {PATIENCE_S:g} s", 60.0) from None
    if process.returncode:
        why = trouble.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise NotReady(f"the hours of calendar {calendar} are not known: {why[-1]}", 60.0)
    hours = msgspec.json.decode(said, type=Hours)
    return Sessions(calendar, hours.opens, hours.closes)


def _hours(calendar: str) -> Hours:
    today = datetime.now(UTC).date()
    known = venue_calendar(calendar, today - timedelta(days=8), today, today + timedelta(days=366))
    hours = Hours(opens=[], closes=[])
    for row in known.schedule[["open", "break_start", "break_end", "close"]].itertuples(index=False):
        # A day with a lunch break is two spans; NaT, where there is none, does not equal itself.
        opened, *rest, closed = (int(at.as_unit("ns").value) for at in row if at == at)
        hours.opens += [opened, *rest[1:]]
        hours.closes += [*rest[:1], closed]
    return hours


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_hours(sys.argv[1])))

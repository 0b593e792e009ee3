"""When the simulated Alpaca trades.  Pure: sessions are given, the time is passed in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta
from datetime import time as clock_time
from typing import Final, Protocol
from zoneinfo import ZoneInfo

import msgspec

from trading.ids import Nanos

_SECOND: Final = 1_000_000_000
_NEW_YORK: Final = ZoneInfo("America/New_York")
_OPENS: Final = clock_time(9, 30)
_CLOSES: Final = clock_time(16, 0)
DAY: Final = 86_400 * 1_000_000_000
_MINUTE: Final = 60 * 1_000_000_000


class Trading(msgspec.Struct, frozen=True):
    """One trading session: orders meet the market from ``opens`` until ``closes``."""

    opens: Nanos
    closes: Nanos


class Hours(Protocol):
    """A market's sessions."""

    #: Whether sessions begin and end with an auction, with its cut-off times.
    has_auctions: bool

    def at(self, now: Nanos) -> Trading:
        """The session that is on, or else the next one."""

    def between(self, start: Nanos, end: Nanos) -> list[Trading]:
        """Sessions that open in ``start <= opens < end``."""


class AlwaysOpen:
    """Sessions of 24 hours, one after the other; each day ends at midnight UTC."""

    has_auctions = False

    def at(self, now: Nanos) -> Trading:
        start = now // DAY * DAY
        return Trading(Nanos(start), Nanos(start + DAY))

    def between(self, start: Nanos, end: Nanos) -> list[Trading]:
        first = -(-start // DAY) * DAY
        return [Trading(Nanos(day), Nanos(day + DAY)) for day in range(first, end, DAY)]


class Listed:
    """Sessions from a list, such as an exchange's calendar."""

    has_auctions = True

    def __init__(self, sessions: Sequence[Trading]) -> None:
        self._sessions = sorted(sessions, key=lambda s: s.opens)
        self._closes = [session.closes for session in self._sessions]

    def at(self, now: Nanos) -> Trading:
        """As `Hours.at`; IndexError beyond the end of the list."""
        return self._sessions[bisect_right(self._closes, now)]

    def between(self, start: Nanos, end: Nanos) -> list[Trading]:
        return [session for session in self._sessions if start <= session.opens < end]


def weekdays(first: Nanos, days: int) -> Listed:
    """New York's regular hours, 9:30 to 16:00 from Monday to Friday, for ``days`` days from ``first``; no holidays."""
    start = datetime.fromtimestamp(first // _SECOND, _NEW_YORK).date()
    sessions = []
    for n in range(days):
        day = start + timedelta(days=n)
        if day.weekday() < 5:
            opens, closes = (
                Nanos(int(datetime.combine(day, at, _NEW_YORK).timestamp()) * _SECOND) for at in (_OPENS, _CLOSES)
            )
            sessions.append(Trading(opens, closes))
    return Listed(sessions)


def takes_open_orders(session: Trading, hours: Hours, now: Nanos) -> bool:
    """Orders for the opening auction are taken until two minutes before it."""
    return not hours.has_auctions or now < session.opens - 2 * _MINUTE


def takes_close_orders(session: Trading, hours: Hours, now: Nanos) -> bool:
    """Orders for the closing auction are taken until ten minutes before it."""
    return not hours.has_auctions or now < session.closes - 10 * _MINUTE

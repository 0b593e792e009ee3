"""Calendars of venues whose holidays are known for a short while only."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import exchange_calendars
import pytest

from actors.hours import sessions_of
from cluster.session_days import SessionDays
from trading.errors import NotReady
from trading.ids import Nanos
from trading.spans import Span

#: India publishes its holidays year by year.
INDIA = "XBOM"


def bound() -> date:
    known = type(exchange_calendars.get_calendar(INDIA, start="2024-01-01", end="2024-02-01")).bound_max()
    return known.date() if known is not None else date.max


def ns(day: date) -> Nanos:
    return Nanos(int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**9)


@pytest.mark.skipif(bound() < date.today() + timedelta(days=7), reason="this library knows no hours of India any more")
async def test_hours_are_known_as_far_as_the_venue_has_published_them() -> None:
    sessions = await sessions_of(INDIA)
    assert sessions.covers(ns(date.today()))
    assert sessions.next_close(ns(date.today())) < ns(bound() + timedelta(days=1))


async def test_days_beyond_what_is_published_are_not_said_to_be_without_trade() -> None:
    year = bound().year
    if bound() < date.max:
        with pytest.raises(NotReady, match="holidays of XBOM are known to"):
            await SessionDays().within(INDIA, Span(ns(date(year + 1, 1, 1)), ns(date(year + 1, 2, 1))))
    days = await SessionDays().within(INDIA, Span(ns(date(year, 1, 1)), ns(date(year, 2, 1))))
    assert 15 <= len(days) <= 23

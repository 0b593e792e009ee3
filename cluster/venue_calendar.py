"""The calendar of a venue out of exchange_calendars, as far as it is known.  Loads pandas, so not for every process."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar


def venue_calendar(name: str, start: date, needed: date, end: date) -> ExchangeCalendar:
    """The calendar ``name`` from ``start`` to ``end``, or to where its holidays are known, if that is sooner.

    Some venues announce their holidays a year ahead, so the library knows them to the end of this year only.  Raises
    ``ValueError`` where they are not known to ``needed``.
    """
    import exchange_calendars

    # A short one, which the library ends where it must.
    short = exchange_calendars.get_calendar(name, start=str(min(start, date.today() - timedelta(days=30))))
    limit = type(short).bound_max()
    if limit is not None:
        if limit.date() < needed:
            raise ValueError(
                f"holidays of {name} are known to {limit.date()}: a later exchange_calendars may know more"
            )
        end = min(end, limit.date())
    return exchange_calendars.get_calendar(name, start=str(start), end=str(end))

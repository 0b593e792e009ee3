"""``/v1/history``: closed bars, stored or fetched once from the provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict

from api import csv_text
from api.formats import Cursor, GivenInstant, Instant, Shown
from api.routes import exports
from api.security import Viewer
from api.services import Deck
from cluster.history import MOST_BARS, HistoryPage
from storage.paging import decode_cursor, encode_cursor
from trading.bars import Bar
from trading.errors import BadInput, UnknownThing
from trading.ids import Nanos, instrument_id
from trading.instruments import Instrument

router = APIRouter(prefix="/v1", tags=["history"])

#: Pages of a file are longer than those of a list.
_FILE_PAGE: Final = 5_000


class BarShown(Shown):
    """Prices over an interval; JSON numbers, for they feed charts and indicators, not orders."""

    opened_at: Instant
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int


class GapShown(Shown):
    """A span that is not known whole: that a bar is absent in it says nothing.  Elsewhere it says: no trade."""

    start: Instant
    end: Instant
    reason: str


class HistoryShown(Shown):
    """Bars, oldest first.  ``next`` is the cursor of the following part, null at the end; a part may be empty.

    Live bars that open at ``until`` or later continue the last part: none is missing between, none comes twice.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [
                        {
                            "opened_at": "2026-01-31T09:15:00.000000000+00:00",
                            "open": 82100.5,
                            "high": 82131.0,
                            "low": 82090.1,
                            "close": 82120.0,
                            "volume": 14.25,
                            "trades": 231,
                        }
                    ],
                    "next": None,
                    "gaps": [],
                    "until": "2026-01-31T09:16:00.000000000+00:00",
                }
            ]
        }
    )

    items: list[BarShown]
    next: str | None
    gaps: list[GapShown]
    until: Instant


@dataclass(frozen=True)
class Wanted:
    """What is asked for."""

    instrument: Instrument
    interval: str
    start: Nanos
    end: Nanos


async def _wanted(
    _: Viewer,
    deck: Deck,
    instrument: Annotated[str, Query(max_length=100, description="VENUE:SYMBOL")],
    start: Annotated[GivenInstant, Query(description="Bars that open at or after")],
    end: Annotated[GivenInstant | None, Query(description="Bars that open before; now if left out")] = None,
    interval: Annotated[str, Query(max_length=10, description="A number and s, m, h or d, such as 5m")] = "1m",
) -> Wanted:
    id_ = instrument_id(instrument)
    found = await deck.instruments.get([id_])
    if not found:
        raise UnknownThing("instrument", instrument, "POST /v1/instruments/import fetches a provider's list")
    return Wanted(found[0], interval, Nanos(start), deck.history.now() if end is None else Nanos(end))


WantedBars = Annotated[Wanted, Depends(_wanted)]


@router.get("/history", response_model=HistoryShown)
async def get_history(
    wanted: WantedBars,
    deck: Deck,
    limit: Annotated[int, Query(ge=1, le=MOST_BARS, description="Bars in a part")] = 1000,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Closed bars of an instrument.

    What is not stored is fetched from the provider, once, and stored.  Bars of seconds and minutes are kept, others are
    made of them: hours aligned to UTC, days as the sessions of the instrument's calendar.
    """
    page = await deck.history.page(wanted.instrument, wanted.interval, _from(wanted, cursor), wanted.end, limit)
    return {"items": page.bars, "next": _cursor_of(page), "gaps": page.gaps, "until": page.until}


@router.get("/history.csv", response_class=StreamingResponse, responses=exports.CSV)
async def export_history(wanted: WantedBars, deck: Deck) -> StreamingResponse:
    """All bars that fit, oldest first, as CSV.  Gaps are told by `/v1/history` only."""

    async def read(cursor: str | None) -> tuple[list[Bar], str | None]:
        start = _from(wanted, cursor)
        page = await deck.history.page(wanted.instrument, wanted.interval, start, wanted.end, _FILE_PAGE)
        return page.bars, _cursor_of(page)

    return await exports.answer("history.csv", csv_text.BAR, read)


def _cursor_of(page: HistoryPage) -> str | None:
    return None if page.next is None else encode_cursor(page.next, 0)


def _from(wanted: Wanted, cursor: str | None) -> Nanos:
    if cursor is None:
        return wanted.start
    at, _ = decode_cursor(cursor)
    if not wanted.start <= at < wanted.end:
        raise BadInput("cursor", "it is of another question: take `next` of the page before, and ask the same")
    return Nanos(at)

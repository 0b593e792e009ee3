"""``/v1/orders.csv``, ``/v1/fills.csv``: the whole history as a file, streamed page by page.

Memory holds one page however long the history is, and no database connection is held while a slow client reads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from api import csv_text
from api.csv_text import Column
from api.routes.holdings import WantedFills
from api.routes.orders import WantedOrders
from api.services import Deck
from storage.paging import MAX_PAGE
from trading.errors import NotReady

log = logging.getLogger("quarterdeck")

router = APIRouter(prefix="/v1")

#: A page: the rows after a cursor and the cursor of the next page.
ReadPage = Callable[[str | None], Awaitable[tuple[list[Any], str | None]]]

#: Rows turned into text at once: other requests, orders among them, get their turn in between.
_AT_ONCE: Final = 100
#: A file that has begun waits so many seconds for a database that is away, then it breaks off.
_PATIENCE_S: Final = 30.0

CSV: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "A header line, then a line for each row; one that breaks off is no whole answer",
        "content": {"text/csv": {"schema": {"type": "string"}}},
    }
}


@router.get("/orders.csv", tags=["orders"], response_class=StreamingResponse, responses=CSV)
async def export_orders(filters: WantedOrders, deck: Deck) -> StreamingResponse:
    """All orders that fit, newest first, as CSV."""
    return await answer(
        "orders.csv", csv_text.ORDER, lambda cursor: deck.journal.orders(filters, cursor, limit=MAX_PAGE)
    )


@router.get("/fills.csv", tags=["holdings"], response_class=StreamingResponse, responses=CSV)
async def export_fills(filters: WantedFills, deck: Deck) -> StreamingResponse:
    """All executions that fit, newest first, as CSV."""
    return await answer("fills.csv", csv_text.FILL, lambda cursor: deck.journal.fills(filters, cursor, limit=MAX_PAGE))


async def answer(filename: str, columns: Sequence[Column], read: ReadPage) -> StreamingResponse:
    """A file of all that ``read`` gives, page after page."""
    # What is wrong is found by the first page, while the answer can still be a problem.
    rows, following = await read(None)
    return StreamingResponse(
        _file(columns, read, rows, following),
        media_type="text/csv; charset=utf-8; header=present",
        headers={"Content-Disposition": f'attachment; filename="{filename}"', "Cache-Control": "no-store"},
    )


async def _file(
    columns: Sequence[Column], read: ReadPage, rows: list[Any], following: str | None
) -> AsyncIterator[bytes]:
    yield csv_text.heading(columns).encode()
    while True:
        for at in range(0, len(rows), _AT_ONCE):
            yield csv_text.lines(columns, rows[at : at + _AT_ONCE]).encode()
            await asyncio.sleep(0)
        if following is None:
            return
        rows, following = await _patiently(read, following)


async def _patiently(read: ReadPage, cursor: str) -> tuple[list[Any], str | None]:
    """The next page, asked for again while the database is away.  Raises `NotReady` at last: the client sees the
    answer break off, for a file that ends too early must not look whole."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await read(cursor)
        except NotReady as error:
            if time.monotonic() >= until:
                log.warning("an export broke off: %s", error)
                raise
            await asyncio.sleep(min(error.retry_after, 1.0))

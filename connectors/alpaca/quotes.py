"""Last values and trades of the past from Alpaca's market data REST resources.

Source: the data API's OpenAPI document: ``/v2/stocks/snapshots`` answers an object by symbol with ``latestTrade`` and
``latestQuote``, ``/v2/stocks/trades`` pages of trades between ``start`` and ``end``, both inclusive.  The
stream's trades have no counter, so their times tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from connectors.alpaca.client import AlpacaClient
from connectors.alpaca.report import rows_in
from connectors.alpaca.wire import Request, nanos, rfc3339
from connectors.base import LastValue
from trading.errors import Unreachable
from trading.ids import Nanos
from trading.instruments import Instrument
from trading.ticks import BACKFILLED, TickArray, TickBuffer, decode

_PAGE: Final = 10_000
_MOST_PAGES: Final = 50


class _Trade(msgspec.Struct):
    t: str
    p: float
    s: float


class _Quote(msgspec.Struct):
    t: str
    bp: float
    bs: float
    ap: float
    as_: float = msgspec.field(name="as")


class _Snapshot(msgspec.Struct):
    latestTrade: _Trade | None = None
    latestQuote: _Quote | None = None


class _Page(msgspec.Struct):
    trades: dict[str, list[_Trade]] | None = None
    next_page_token: str | None = None


async def snapshots(client: AlpacaClient, instruments: Sequence[Instrument], feed: str) -> list[LastValue]:
    """The last trade and quote of instruments; those that Alpaca does not know are left out."""
    symbols = ",".join(instrument.provider_symbol for instrument in instruments)
    answer = await client.read(Request("GET", "/v2/stocks/snapshots", (("symbols", symbols), ("feed", feed))))
    rows: dict[str, _Snapshot | None] = rows_in(answer, dict[str, _Snapshot | None], "snapshots")
    found = []
    for instrument in instruments:
        row = rows.get(instrument.provider_symbol)
        if row is not None:
            found.append(_last_value(instrument, row))
    return found


def _last_value(instrument: Instrument, row: _Snapshot) -> LastValue:
    value = LastValue(instrument=instrument.id)
    if (trade := row.latestTrade) is not None:
        value = msgspec.structs.replace(value, price=trade.p, size=trade.s, traded_at=nanos(trade.t))
    if (quote := row.latestQuote) is not None:
        value = msgspec.structs.replace(value, quoted_at=nanos(quote.t))
        # A side without orders is 0 on the wire.
        if quote.bp:
            value = msgspec.structs.replace(value, bid=quote.bp, bid_size=quote.bs)
        if quote.ap:
            value = msgspec.structs.replace(value, ask=quote.ap, ask_size=quote.as_)
    return value


async def trades(client: AlpacaClient, instrument: Instrument, start: Nanos, end: Nanos, feed: str) -> TickArray:
    """Trades of ``start <= exchange_at < end``, oldest first."""
    symbol = instrument.provider_symbol
    query = (
        ("symbols", symbol),
        ("start", rfc3339(start)),
        ("end", rfc3339(end)),
        ("limit", str(_PAGE)),
        ("feed", feed),
        ("sort", "asc"),
    )
    buffer = TickBuffer()
    token = ""
    for _ in range(_MOST_PAGES):
        asked = (*query, ("page_token", token)) if token else query
        page = rows_in(await client.read(Request("GET", "/v2/stocks/trades", asked)), _Page, "trades")
        for row in (page.trades or {}).get(symbol, ()):
            at = nanos(row.t)
            if start <= at < end:
                buffer.trade(instrument.number, row.p, row.s, BACKFILLED, at, 0, 0)
        if not page.next_page_token:
            return decode(buffer.take())
        token = page.next_page_token
    raise Unreachable("alpaca", f"more than {_MOST_PAGES} pages of trades of {symbol}: ask for a shorter span")

"""Last values and the latest trades from Binance's public REST resources.

Sources: "Recent trades list" and "Symbol order book ticker" of the spot and USD-M REST documentation: trades are
``{"id", "price", "qty", "time", "isBuyerMaker", …}`` in milliseconds, oldest first, at most 1000 and without a key;
their ids are those of ``<symbol>@trade``.  "Old trade lookup" (``/historicalTrades``) tells any from ``fromId`` on, a
thousand at once; at USD-M it wants a key.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from connectors.base import LastValue, PastTrades
from connectors.binance.rest import Rest
from trading.errors import BadInput, Unreachable
from trading.ids import Nanos
from trading.instruments import Instrument
from trading.ticks import BACKFILLED, BUYER_MAKER, TickBuffer, decode

_MS: Final = 1_000_000
_MOST_TRADES: Final = 1_000


class _Trade(msgspec.Struct):
    id: int
    price: str
    qty: str
    time: int
    isBuyerMaker: bool


class _Book(msgspec.Struct):
    bidPrice: str
    bidQty: str
    askPrice: str
    askQty: str
    #: USD-M only.
    time: int = 0


async def recent_trades(rest: Rest, instrument: Instrument, start: Nanos, end: Nanos) -> PastTrades:
    """Trades of ``start <= exchange_at < end`` out of the last thousand."""
    buffer = TickBuffer()
    rows = await _trades(rest, instrument, _MOST_TRADES)
    for row in rows:
        if start <= row.time * _MS < end:
            _put(buffer, instrument, row)
    first = Nanos(rows[0].time * _MS) if len(rows) == _MOST_TRADES else start
    return PastTrades(ticks=decode(buffer.take()), since=max(start, first))


async def old_trades(rest: Rest, instrument: Instrument, first: int, last: int) -> PastTrades:
    """The trades with ids from ``first`` to ``last``, page by page (spot)."""
    buffer = TickBuffer()
    since, following = Nanos(0), first
    while following <= last:
        limit = min(_MOST_TRADES, last - following + 1)
        body = await rest.get(
            "/historicalTrades", {"symbol": instrument.provider_symbol, "fromId": following, "limit": limit}
        )
        rows: list[_Trade] = [row for row in _read(body, list[_Trade], "historicalTrades") if row.id >= following]
        if not rows:
            break
        if following == first and rows[0].id > first:
            # It does not reach back so far.
            since = Nanos(rows[0].time * _MS)
        for row in rows:
            if row.id <= last:
                _put(buffer, instrument, row)
        following = rows[-1].id + 1
    return PastTrades(ticks=decode(buffer.take()), since=since)


def _put(buffer: TickBuffer, instrument: Instrument, row: _Trade) -> None:
    flags = BACKFILLED | (BUYER_MAKER if row.isBuyerMaker else 0)
    buffer.trade(instrument.number, float(row.price), float(row.qty), flags, row.time * _MS, 0, row.id)


async def last_value(rest: Rest, instrument: Instrument) -> LastValue | None:
    """The last trade and the quote of an instrument; None where Binance does not know it."""
    try:
        trades = await _trades(rest, instrument, 1)
        body = await rest.get("/ticker/bookTicker", {"symbol": instrument.provider_symbol})
    except BadInput:
        return None
    book: _Book = _read(body, _Book, "bookTicker")
    found: dict[str, Any] = {"instrument": instrument.id, "quoted_at": Nanos(book.time * _MS)}
    if float(book.bidPrice):
        found |= {"bid": float(book.bidPrice), "bid_size": float(book.bidQty)}
    if float(book.askPrice):
        found |= {"ask": float(book.askPrice), "ask_size": float(book.askQty)}
    if trades:
        last = trades[-1]
        found |= {"price": float(last.price), "size": float(last.qty), "traded_at": Nanos(last.time * _MS)}
    return LastValue(**found)


async def _trades(rest: Rest, instrument: Instrument, limit: int) -> list[_Trade]:
    body = await rest.get("/trades", {"symbol": instrument.provider_symbol, "limit": limit})
    rows: list[_Trade] = _read(body, list[_Trade], "trades")
    return rows


def _read(body: bytes, kind: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise Unreachable(what, f"not what Binance documents: {error}") from error

"""Closed bars from ``/v2/stocks/bars``, page by page.

Source: the data API's OpenAPI document: ``timeframe`` is ``1Min`` to ``59Min``, ``1Hour`` to ``23Hour``, ``1Day``,
``1Week``; ``start`` and ``end`` are both inclusive and compared with the bar's opening; pages by ``next_page_token``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from connectors.alpaca.client import AlpacaClient
from connectors.alpaca.report import rows_in
from connectors.alpaca.wire import Request, nanos, rfc3339
from trading.bars import Bar, interval_ns
from trading.errors import BadInput, Unreachable
from trading.ids import Nanos
from trading.instruments import Instrument

_PAGE: Final = 10_000
_MOST_BARS: Final = 200_000
_INTERVAL: Final = re.compile(r"(\d{1,2})([mhd])")
_UNITS: Final = {"m": ("Min", 59), "h": ("Hour", 23), "d": ("Day", 1)}


class BarRow(msgspec.Struct, gc=False):
    """A bar of the wire."""

    t: str
    o: float
    h: float
    l: float  # noqa: E741 - the wire's name
    c: float
    v: float
    n: int = 0


class _Page(msgspec.Struct):
    bars: dict[str, list[BarRow]] | None = None
    next_page_token: str | None = None


def timeframe(interval: str) -> str:
    """Alpaca's word for an interval.  Raises `BadInput` for one it has not."""
    match = _INTERVAL.fullmatch(interval)
    if match is not None:
        unit, most = _UNITS[match[2]]
        if 1 <= int(match[1]) <= most:
            return f"{int(match[1])}{unit}"
    raise BadInput("interval", f"{interval[:20]!r} is not offered by Alpaca: use 1m to 59m, 1h to 23h or 1d")


async def bars(
    client: AlpacaClient, instrument: Instrument, interval: str, start: Nanos, end: Nanos, feed: str, now: Nanos
) -> Sequence[Bar]:
    """Closed bars with ``start <= opened_at < end``, oldest first.

    Raises `BadInput` for an interval Alpaca has not, a span that ends before it starts or one that is too long.
    """
    word, length = timeframe(interval), interval_ns(interval)
    if end <= start:
        raise BadInput("end", "it must be later than start")
    if (end - start) // length > _MOST_BARS:
        raise BadInput("start", f"more than {_MOST_BARS} bars of {interval}: ask for a shorter span")
    symbol = instrument.provider_symbol
    query = (
        ("symbols", symbol),
        ("timeframe", word),
        ("start", rfc3339(start)),
        ("end", rfc3339(end - 1)),
        ("limit", str(_PAGE)),
        ("adjustment", "raw"),
        ("feed", feed),
        ("sort", "asc"),
    )
    found: list[Bar] = []
    token = ""
    while True:
        asked = (*query, ("page_token", token)) if token else query
        page = rows_in(await client.read(Request("GET", "/v2/stocks/bars", asked)), _Page, "bars")
        for row in (page.bars or {}).get(symbol, ()):
            bar = _bar(row)
            if start <= bar.opened_at < end and bar.opened_at + length <= now:
                found.append(bar)
        if not page.next_page_token:
            return found
        if page.next_page_token == token:
            raise Unreachable("alpaca", f"the pages of {symbol} do not advance")
        token = page.next_page_token


def _bar(row: BarRow) -> Bar:
    return Bar(opened_at=nanos(row.t), open=row.o, high=row.h, low=row.l, close=row.c, volume=row.v, trades=row.n)

"""Closed bars from Binance's klines, page by page.

Source: "Kline/Candlestick Data" of the REST documentation: rows ``[open time, open, high, low, close, volume,
close time, quote volume, trades, …]``, oldest first; ``startTime`` and ``endTime`` are milliseconds, both
inclusive and compared with the open time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from connectors.binance.product import Product, check_interval
from connectors.binance.rest import Rest
from trading.bars import Bar
from trading.errors import BadInput, Unreachable
from trading.ids import Nanos
from trading.instruments import Instrument

_MS: Final = 1_000_000
_MOST_BARS: Final = 200_000

_rows = msgspec.json.Decoder(list[list[Any]]).decode


class _Time(msgspec.Struct):
    serverTime: int


async def server_time(rest: Rest) -> int:
    """The venue's clock, in milliseconds."""
    return msgspec.json.decode(await rest.get("/time"), type=_Time).serverTime


async def klines(
    rest: Rest, product: Product, instrument: Instrument, interval: str, start: Nanos, end: Nanos
) -> Sequence[Bar]:
    """Closed bars with ``start <= opened_at < end``, oldest first.

    Raises `BadInput` for an interval Binance has not, a span that ends before it starts or one that is too
    long.
    """
    length = check_interval(product, interval)
    if end <= start:
        raise BadInput("end", "it must be later than start")
    if (end - start) // (length * _MS) > _MOST_BARS:
        raise BadInput("start", f"more than {_MOST_BARS} bars of {interval}: ask for a shorter span")
    first = -(-start // _MS)
    last = -(-end // _MS) - 1
    bars: list[Bar] = []
    # By the venue's own clock, for ours may be off: a bar that still changes must not pass for a closed one.
    now = await server_time(rest)
    while first <= last:
        body = await rest.get(
            "/klines",
            {
                "symbol": instrument.provider_symbol,
                "interval": interval,
                "startTime": first,
                "endTime": last,
                "limit": product.klines_per_page,
            },
        )
        page = parse_klines(body)
        bars.extend(bar for closes_at, bar in page if closes_at < now)
        if len(page) < product.klines_per_page:
            break
        following = page[-1][1].opened_at // _MS + 1
        if following <= first:
            raise Unreachable("klines", f"the page from {first} does not advance")
        first = following
    return bars


def parse_klines(body: bytes) -> list[tuple[int, Bar]]:
    """``(close time in ms, bar)`` of each row; `Unreachable` where the body is not a page of klines."""
    try:
        return [
            (
                int(row[6]),
                Bar(
                    opened_at=Nanos(int(row[0]) * _MS),
                    open=float(row[1]),
                    high=float(row[2]),
                    low=float(row[3]),
                    close=float(row[4]),
                    volume=float(row[5]),
                    trades=int(row[8]),
                ),
            )
            for row in _rows(body)
        ]
    except (msgspec.DecodeError, IndexError, TypeError, ValueError) as error:
        raise Unreachable("klines", f"not what Binance documents: {error}") from error

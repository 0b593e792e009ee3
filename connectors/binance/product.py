"""What differs between Binance's products: hosts, paths, limits, which streams live where.

Sources: "WebSocket Streams" of the spot API documentation; "Websocket Market Streams" and "Important
WebSocket Change Notice" of the USD-M futures documentation (developers.binance.com).  `<symbol>@trade` of
USD-M is not in that documentation; it exists, and is served by the ``/public`` route: connections without a
route, which carry ``/public`` only, kept delivering it when the legacy addresses were retired on 2026-04-23.
"""

from __future__ import annotations

from typing import Final

import msgspec

from trading.errors import BadInput


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """One of Binance's markets."""

    provider: str
    venue: str
    rest_host: str
    #: Path that all REST resources start with.
    rest_path: str
    stream_host: str
    #: Routes of the stream host; ("",) where there is only one.
    routes: tuple[str, ...]
    streams_per_connection: int
    #: Control messages, pings and pongs that a connection may send per second.
    messages_per_s: int
    #: The server pings this often.
    ping_every_s: float
    #: The server gives up after this long without a pong.
    pong_within_s: float
    klines_per_page: int
    #: Request weight per minute and address.
    weight_per_minute: int
    #: Whether there are klines of a second.
    seconds: bool = False

    def route(self, stream: str) -> str:
        """The route that serves ``stream`` (``btcusdt@kline_1m``)."""
        if len(self.routes) == 1:
            return self.routes[0]
        kind = stream.partition("@")[2]
        high_frequency = kind.startswith(("bookTicker", "depth", "rpiDepth", "trade")) or stream == "!bookTicker"
        return "public" if high_frequency else "market"


SPOT: Final = Product(
    provider="binance-spot",
    venue="BINANCE",
    rest_host="https://api.binance.com",
    rest_path="/api/v3",
    stream_host="wss://stream.binance.com:9443",
    routes=("",),
    streams_per_connection=1024,
    messages_per_s=5,
    ping_every_s=20.0,
    pong_within_s=60.0,
    klines_per_page=1000,
    weight_per_minute=6000,
    seconds=True,
)

USDM: Final = Product(
    provider="binance-usdm",
    venue="BINANCE-USDM",
    rest_host="https://fapi.binance.com",
    rest_path="/fapi/v1",
    stream_host="wss://fstream.binance.com",
    routes=("public", "market"),
    # The documentation says 200 on one host and 1024 on another; what is allowed by both is safe.
    streams_per_connection=200,
    messages_per_s=10,
    ping_every_s=180.0,
    pong_within_s=600.0,
    klines_per_page=1500,
    weight_per_minute=2400,
)

PRODUCTS: Final = {product.provider: product for product in (SPOT, USDM)}

#: Kline intervals of all products, in milliseconds.  ``1M`` has no fixed length and is not offered.
INTERVALS: Final = {
    "1m": 60_000,
    "3m": 180_000,
    "5m": 300_000,
    "15m": 900_000,
    "30m": 1_800_000,
    "1h": 3_600_000,
    "2h": 7_200_000,
    "4h": 14_400_000,
    "6h": 21_600_000,
    "8h": 28_800_000,
    "12h": 43_200_000,
    "1d": 86_400_000,
    "3d": 259_200_000,
    "1w": 604_800_000,
}


def intervals(product: Product) -> dict[str, int]:
    """The product's kline intervals, in milliseconds."""
    return {"1s": 1_000, **INTERVALS} if product.seconds else INTERVALS


def check_interval(product: Product, interval: str, field: str = "interval") -> int:
    """Length of a kline interval in milliseconds; BadInput where the product has no such."""
    known = intervals(product)
    length = known.get(interval)
    if length is None:
        raise BadInput(field, f"{interval[:20]!r} is not offered by {product.provider}: use one of {', '.join(known)}")
    return length

"""Binance as a `connectors.base.MarketData`."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from connectors.base import Clock, FeedLimits, FeedSink, LastValue, PastTrades
from connectors.binance.feed import CHANNELS, BinanceFeed
from connectors.binance.history import klines
from connectors.binance.link import Tuning
from connectors.binance.product import SPOT, Product, check_interval
from connectors.binance.quotes import last_value, old_trades, recent_trades
from connectors.binance.rest import Rest
from connectors.binance.symbols import parse_exchange_info
from connectors.recordings import Tap
from trading.bars import Bar
from trading.errors import BadInput
from trading.ids import Nanos
from trading.instruments import Instrument

log = logging.getLogger(__name__)

_DIFFS: Final = "depth@100ms"


class MarketSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and how Binance is reached; the defaults are its public servers."""

    #: Points REST and streams at one server, e.g. the simulator's ``http://127.0.0.1:9999``.
    base_url: str = ""
    #: ``trade`` (every trade) or ``aggTrade`` (one per taker order and price).
    trade_stream: str = "trade"
    #: ``depth``, ``depth@100ms``, ``depth@0ms``, ``depth5`` … of the venue's documentation.
    depth_stream: str = "depth@100ms"
    bar_interval: str = "1m"
    #: Seconds after which a connection is replaced by a fresh one; the venue cuts at 24 h.
    replace_after_s: float = 23 * 3600.0
    #: For a server of one's own: streams that a connection carries, control messages a second, weight of requests a
    #: minute; 0: as the venue's.
    streams_per_connection: int = 0
    messages_per_s: int = 0
    weight_per_minute: int = 0


def now() -> Nanos:
    """This machine's clock."""
    return Nanos(time.time_ns())


class BinanceMarket:
    """Market data of one of Binance's products."""

    def __init__(self, product: Product, settings: Mapping[str, Any], clock: Clock = now) -> None:
        try:
            chosen = msgspec.convert(dict(settings), MarketSettings)
        except msgspec.ValidationError as error:
            raise BadInput("settings", f"{error}; {product.provider} knows {_known()}") from error
        check_interval(product, chosen.bar_interval, "bar_interval")
        if chosen.trade_stream not in ("trade", "aggTrade"):
            raise BadInput("trade_stream", f"{chosen.trade_stream[:20]!r}: use trade or aggTrade")
        if not chosen.depth_stream.startswith("depth"):
            raise BadInput("depth_stream", f"{chosen.depth_stream[:20]!r}: use depth, depth@100ms, depth5 …")
        if chosen.base_url and not chosen.base_url.startswith(("http://", "https://")):
            raise BadInput("base_url", f"{chosen.base_url[:80]!r}: write http://host:port")
        if not 1 <= chosen.replace_after_s <= 86_000:
            raise BadInput("replace_after_s", f"{chosen.replace_after_s:g}: use 1 to 86000 seconds")
        product = _lifted(product, chosen)
        self.name = product.provider
        self.product = product
        self._settings = chosen
        self._clock = clock
        self._rest = Rest(product, chosen.base_url or product.rest_host)
        self._streams = {
            "trade": chosen.trade_stream,
            "quote": "bookTicker",
            "depth": chosen.depth_stream,
            "bar": f"kline_{chosen.bar_interval}",
            # Made of differences, which partial books are not.
            "book": chosen.depth_stream if f"{chosen.depth_stream}@".startswith("depth@") else _DIFFS,
        }
        # As many instruments as fit when every channel is asked for.
        busiest = max(
            sum(product.route(f"x@{stream}") == route for stream in {*self._streams.values()})
            for route in product.routes
        )
        self.limits = FeedLimits(
            instruments_per_worker=product.streams_per_connection // busiest,
            max_workers=20,
            messages_per_s=product.messages_per_s,
            channels=CHANNELS,
            every_trade=True,
            # USD-M leaves trades of the insurance fund and of auto-deleveraging out of what it tells, but numbers them.
            consecutive_trades=product.venue == SPOT.venue or chosen.trade_stream == "aggTrade",
            instruments_per_poll=5,
            bar_interval=chosen.bar_interval,
        )

    def __repr__(self) -> str:
        return f"<BinanceMarket {self.name} at {self._settings.base_url or self.product.rest_host}>"

    async def instruments(self) -> Sequence[Instrument]:
        """Everything the venue trades now; what cannot be used is left out and logged."""
        listing = parse_exchange_info(await self._rest.get("/exchangeInfo"), self.product)
        if listing.skipped:
            log.info("%s: %d symbols left out, e.g. %s", self.name, len(listing.skipped), listing.skipped[0])
        return listing.instruments

    def feed(self, sink: FeedSink, tuning: Tuning | None = None, tap: Tap | None = None) -> BinanceFeed:
        """A new streaming connection."""
        host = self.product.stream_host
        if self._settings.base_url:
            host = "ws" + self._settings.base_url.removeprefix("http")
        return BinanceFeed(
            self.product,
            host,
            sink,
            self._clock,
            self._streams,
            tuning or Tuning(replace_after=self._settings.replace_after_s),
            tap,
            self._rest,
        )

    def tapped_feed(self, sink: FeedSink, tap: Tap) -> BinanceFeed:
        """A feed that also shows its raw messages (`connectors.recordings.RecordableMarket`)."""
        return self.feed(sink, tap=tap)

    async def history(self, instrument: Instrument, interval: str, start: Nanos, end: Nanos) -> Sequence[Bar]:
        """Closed bars with ``start <= opened_at < end``, oldest first."""
        return await klines(self._rest, self.product, instrument, interval, start, end)

    async def trades(
        self, instrument: Instrument, start: Nanos, end: Nanos, numbers: tuple[int, int] | None = None
    ) -> PastTrades | None:
        """Trades of ``start <= exchange_at < end`` out of the last thousand, at spot any by their ``numbers``.

        None of aggregated streams, which have other ids.
        """
        if self._settings.trade_stream != "trade":
            return None
        if numbers is not None and self.product.venue == SPOT.venue:
            return await old_trades(self._rest, instrument, *numbers)
        return await recent_trades(self._rest, instrument, start, end)

    async def last_values(self, instruments: Sequence[Instrument]) -> Sequence[LastValue]:
        """The last trade and the quote of each, one after the other within the weight limit."""
        found = [await last_value(self._rest, instrument) for instrument in instruments]
        return [each for each in found if each is not None]

    async def close(self) -> None:
        """Give back the HTTP connections; feeds end when their `run` is cancelled."""
        await self._rest.close()


def _lifted(product: Product, chosen: MarketSettings) -> Product:
    """The product with the limits of the settings, which the venue's own servers would not keep to."""
    for field in ("streams_per_connection", "messages_per_s", "weight_per_minute"):
        limit = getattr(chosen, field)
        if limit and not chosen.base_url:
            raise BadInput(field, f"{product.provider} sets its own limits: leave it out, or give a base_url")
        if not 0 <= limit <= 10_000_000:
            raise BadInput(field, f"{limit}: use 1 to 10000000, or 0 for the venue's own")
        if limit:
            product = msgspec.structs.replace(product, **{field: limit})
    return product


def _known() -> str:
    return ", ".join(field.name for field in msgspec.structs.fields(MarketSettings))

"""Alpaca as a `connectors.base.MarketData`."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from connectors.alpaca.capabilities import data_settings
from connectors.alpaca.client import AlpacaClient
from connectors.alpaca.feed import CHANNELS, AlpacaFeed
from connectors.alpaca.history import bars
from connectors.alpaca.quotes import snapshots, trades
from connectors.alpaca.report import rows_in
from connectors.alpaca.symbols import PROVIDER, instrument_from
from connectors.alpaca.wire import AssetRow, Request
from connectors.base import Clock, FeedLimits, FeedSink, LastValue, PastTrades
from trading.bars import Bar
from trading.ids import Nanos
from trading.instruments import Instrument

log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 20.0


def now() -> Nanos:
    """This machine's clock."""
    return Nanos(time.time_ns())


class AlpacaMarket:
    """Shares by market data v2, under one account's key."""

    def __init__(self, settings: Mapping[str, Any], credentials: Mapping[str, str], clock: Clock = now) -> None:
        self.name = PROVIDER
        self._settings = data_settings(settings)
        self._credentials = credentials
        self._clock = clock
        self._trading = AlpacaClient(self._settings.trading_host, credentials, _TIMEOUT_S)
        self._data = AlpacaClient(self._settings.host, credentials, _TIMEOUT_S)
        # One connection for each key: a second one would be refused.
        self.limits = FeedLimits(
            instruments_per_worker=self._settings.symbols,
            max_workers=1,
            messages_per_s=10,
            channels=tuple(CHANNELS),
            instruments_per_poll=100,
        )

    def __repr__(self) -> str:
        return f"<AlpacaMarket {self._settings.feed} at {self._settings.host}>"

    async def instruments(self) -> Sequence[Instrument]:
        """Every share that can be traded now; what cannot be written as an instrument is left out and logged."""
        query = (("status", "active"), ("asset_class", "us_equity"))
        rows = rows_in(await self._trading.read(Request("GET", "/v2/assets", query)), list[AssetRow], "assets")
        made = [(row, instrument_from(row)) for row in rows]
        skipped = [row.symbol for row, instrument in made if instrument is None]
        if skipped:
            log.info("alpaca: %d assets left out, e.g. %s", len(skipped), skipped[0])
        return [instrument for _, instrument in made if instrument is not None]

    def feed(self, sink: FeedSink) -> AlpacaFeed:
        """A new streaming connection."""
        settings = self._settings
        return AlpacaFeed(settings.stream_url, self._credentials, sink, self._clock, settings.symbols)

    async def history(self, instrument: Instrument, interval: str, start: Nanos, end: Nanos) -> Sequence[Bar]:
        """Closed bars with ``start <= opened_at < end``, oldest first."""
        return await bars(self._data, instrument, interval, start, end, self._settings.feed, self._clock())

    async def trades(
        self, instrument: Instrument, start: Nanos, end: Nanos, numbers: tuple[int, int] | None = None
    ) -> PastTrades | None:
        """Trades of ``start <= exchange_at < end``, oldest first."""
        ticks = await trades(self._data, instrument, start, end, self._settings.feed)
        return PastTrades(ticks=ticks, since=start)

    async def last_values(self, instruments: Sequence[Instrument]) -> Sequence[LastValue]:
        """The last trade and quote of each."""
        return await snapshots(self._data, instruments, self._settings.feed)

    async def close(self) -> None:
        """Give back the HTTP connections; feeds end when their `run` is cancelled."""
        await self._trading.close()
        await self._data.close()

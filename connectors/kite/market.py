"""Kite as a `connectors.base.MarketData`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from connectors.base import Clock, FeedLimits, FeedSink, LastValue, PastTrades
from connectors.kite.client import KiteClient
from connectors.kite.codec import MODES
from connectors.kite.feed import CHANNELS, MOST_CONNECTIONS, MOST_TOKENS, KiteFeed, Tuning
from connectors.kite.history import bars
from connectors.kite.symbols import EXCHANGES, PROVIDER, parse_instruments
from connectors.kite.wire import LastPrice, Quote, Session, data_in, ist_day, last_value
from trading.bars import Bar
from trading.errors import BadInput
from trading.ids import InstrumentId, Nanos
from trading.instruments import Instrument

log = logging.getLogger(__name__)

_HOST: Final = "https://api.kite.trade"
_STREAM: Final = "wss://ws.kite.trade"
#: Instruments that one request may name.
_MOST_QUOTES: Final = 500
_MOST_PRICES: Final = 1_000
_Row = TypeVar("_Row")


class MarketSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where and how Kite is reached; the defaults are its public servers."""

    #: Account whose credentials (api_key, api_secret, access_token) are used.
    account: str = ""
    #: Points REST and ticker at one server, e.g. the simulator's ``http://127.0.0.1:9555``.
    base_url: str = ""
    #: ``ltp``, ``quote`` or ``full``; "" is the least that shows the channels asked for.
    mode: str = ""
    #: Exchanges whose instruments are listed; () for all of them (some hundred thousand).
    exchanges: tuple[str, ...] = ()


def market_settings(settings: Mapping[str, Any]) -> MarketSettings:
    """Settings of a feed, checked.  Raises `BadInput`."""
    try:
        chosen = msgspec.convert(dict(settings), MarketSettings)
    except msgspec.ValidationError as error:
        known = ", ".join(field.name for field in msgspec.structs.fields(MarketSettings))
        raise BadInput("settings", f"{error}; Kite knows {known}") from error
    if chosen.mode and chosen.mode not in MODES:
        raise BadInput("mode", f"{chosen.mode[:20]!r} is unknown: use {', '.join(MODES)}")
    if chosen.base_url and not chosen.base_url.startswith(("http://", "https://")):
        raise BadInput("base_url", f"{chosen.base_url[:80]!r}: write http://host:port")
    for exchange in chosen.exchanges:
        if exchange not in EXCHANGES:
            raise BadInput("exchanges", f"{exchange[:20]!r} is unknown: use {', '.join(EXCHANGES)}")
    return chosen


def now() -> Nanos:
    """This machine's clock."""
    return Nanos(time.time_ns())


class KiteMarket:
    """Market data under one API key.  ``credentials`` may change while it lives: they are read for each use."""

    def __init__(self, settings: Mapping[str, Any], credentials: Mapping[str, str], clock: Clock = now) -> None:
        self.name = PROVIDER
        self._settings = market_settings(settings)
        self._credentials = credentials
        self._clock = clock
        self._client = KiteClient(self._settings.base_url or _HOST, credentials)
        self.limits = FeedLimits(
            instruments_per_worker=MOST_TOKENS,
            max_workers=MOST_CONNECTIONS,
            messages_per_s=10,
            instruments_per_poll=_MOST_QUOTES,
            # A mode that shows less offers less.
            channels=CHANNELS if self._settings.mode in ("", "full") else CHANNELS[:1],
        )

    def __repr__(self) -> str:
        return f"<KiteMarket at {self._settings.base_url or _HOST}>"

    async def instruments(self) -> Sequence[Instrument]:
        """Everything Kite lists today; what has expired or cannot be used is left out and logged."""
        today = ist_day(self._clock())
        found: list[Instrument] = []
        for path in [f"/instruments/{each}" for each in self._settings.exchanges] or ["/instruments"]:
            listing = await asyncio.to_thread(parse_instruments, await self._client.read(path), today)
            found += listing.instruments
            if listing.skipped:
                log.info("kite: %d instruments left out, e.g. %s", len(listing.skipped), listing.skipped[0])
        return found

    def feed(
        self, sink: FeedSink, tuning: Tuning | None = None, on_order: Callable[[bytes], None] | None = None
    ) -> KiteFeed:
        """A new streaming connection."""
        base = self._settings.base_url.rstrip("/")
        url = "ws" + base.removeprefix("http") if base else _STREAM
        return KiteFeed(url, self._credentials, sink, self._clock, self.tokens, self._settings.mode, tuning, on_order)

    async def history(self, instrument: Instrument, interval: str, start: Nanos, end: Nanos) -> Sequence[Bar]:
        """Closed bars with ``start <= opened_at < end``, oldest first."""
        return await bars(self._client, instrument, interval, start, end, self._clock())

    async def trades(
        self, instrument: Instrument, start: Nanos, end: Nanos, numbers: tuple[int, int] | None = None
    ) -> PastTrades | None:
        """None: Kite tells candles of the past and no trades."""
        return None

    async def last_values(self, instruments: Sequence[Instrument]) -> Sequence[LastValue]:
        """The state of each by ``/quote``."""
        quotes = await self.quotes([instrument.id for instrument in instruments])
        return [last_value(id_, quote) for id_, quote in quotes.items()]

    async def quotes(self, instruments: Sequence[InstrumentId]) -> dict[InstrumentId, Quote]:
        """The state of each instrument now; those that Kite does not know are not in it."""
        return await self._quoted("/quote", instruments, Quote, _MOST_QUOTES)

    async def tokens(self, instruments: Sequence[InstrumentId]) -> dict[InstrumentId, int]:
        """The token that each instrument has now; those that Kite does not know are not in it."""
        rows = await self._quoted("/quote/ltp", instruments, LastPrice, _MOST_PRICES)
        return {instrument: row.instrument_token for instrument, row in rows.items()}

    async def _quoted(
        self, path: str, instruments: Sequence[InstrumentId], kind: type[_Row], most: int
    ) -> dict[InstrumentId, _Row]:
        found: dict[InstrumentId, _Row] = {}
        for start in range(0, len(instruments), most):
            query = [("i", each) for each in instruments[start : start + most]]
            body = await self._client.read(path, query, "quote")
            found |= data_in(body, dict[str, kind], "quotes")  # type: ignore[valid-type]
        return found

    async def exchange(self, request_token: str) -> Session:
        """Finish a log-in: the session of a ``request_token``."""
        return await self._client.exchange(request_token)

    async def close(self) -> None:
        """Give back the HTTP connections; feeds end when their `run` is cancelled."""
        await self._client.close()

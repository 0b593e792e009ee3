"""Where an algo's bars of the past come from: the store, and the provider for what is missing there.

A provider that takes a key is asked through its feed's worker, for a broker's key never enters an algo's process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cluster import names
from cluster.calls import Peer
from cluster.history import Fetch, History
from cluster.process import now
from cluster.session_days import SessionDays
from connectors.registry import market_data
from storage.bars import Bars
from storage.database import Database
from storage.desired import Desired
from storage.records import FeedRecord
from trading.bars import Bar, interval_ns
from trading.ids import FeedId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.spans import Span

#: A worker asks its provider page by page.
WORKER_S: Final = 20.0


class AlgoHistory:
    """History as one algo asks for it."""

    def __init__(self, database: Database, desired: Desired) -> None:
        self._bars = Bars(database)
        self._desired = desired
        self._days = SessionDays()
        self._made: tuple[FeedRecord, History] | None = None

    async def before(
        self, feed: FeedId, instruments: Sequence[Instrument], wanted: Mapping[str, int]
    ) -> dict[tuple[InstrumentId, str], Sequence[Bar]]:
        """For each interval and instrument the last ``wanted`` closed bars, oldest first.  Raises `TradeError`."""
        found: dict[tuple[InstrumentId, str], Sequence[Bar]] = {}
        for interval, count in wanted.items():
            until = now()
            since = max(0, until - interval_ns(interval) * (count + 1))
            for instrument in instruments:
                found[instrument.id, interval] = await self.closed(feed, instrument, interval, Span(since, until))
        return found

    async def closed(self, feed: FeedId, instrument: Instrument, interval: str, span: Span) -> list[Bar]:
        """All closed bars that open in ``span``, oldest first.  Raises `TradeError`."""
        history = self._of(await self._desired.feed(feed))
        return await history.closed(instrument, interval, Nanos(span.start), Nanos(span.end))

    def _of(self, feed: FeedRecord) -> History:
        if self._made is None or self._made[0] != feed:
            fetch = _from_worker(feed) if feed.settings.get("account") else _from_provider(feed)
            self._made = (feed, History(self._bars, fetch, self._days.within, now))
        return self._made[1]


def _from_worker(feed: FeedRecord) -> Fetch:
    worker = Peer(names.worker(feed.id, 0))

    async def fetch(instrument: Instrument, interval: str, start: Nanos, end: Nanos) -> Sequence[Bar]:
        bars: Sequence[Bar] = await worker.call("history", instrument, interval, start, end, timeout=WORKER_S)
        return bars

    return fetch


def _from_provider(feed: FeedRecord) -> Fetch:
    async def fetch(instrument: Instrument, interval: str, start: Nanos, end: Nanos) -> Sequence[Bar]:
        market = market_data(feed.provider, feed.settings)
        try:
            return await market.history(instrument, interval, start, end)
        finally:
            await market.close()

    return fetch

"""History as an algo gets it, on a real PostgreSQL and a simulated venue: no Ray."""

from __future__ import annotations

import time

from actors.algo_history import AlgoHistory
from connectors.binance.simulator import BinanceSimulator
from connectors.binance.synthetic import SyntheticSettings, SyntheticSource
from connectors.registry import market_data
from storage.database import Database
from storage.desired import Desired
from storage.instruments import Instruments
from storage.records import FeedRecord
from tests.storage.conftest import database_url, db, server_url
from trading.bar_deriving import MINUTE
from trading.ids import FeedId, Nanos
from trading.spans import Span

__all__ = ["database_url", "db", "server_url"]


async def test_an_algo_begins_with_bars_that_the_next_one_finds_stored(db: Database) -> None:
    venue = BinanceSimulator(SyntheticSource(SyntheticSettings(symbols=2)))
    await venue.start()
    try:
        settings = {"base_url": venue.url}
        market = market_data("binance-spot", settings)
        listed = await Instruments(db).upsert(await market.instruments())
        await market.close()
        record = FeedRecord(
            id=FeedId("main"), provider="binance-spot", settings=settings, channels=("trade",), workers=1,
            instruments=tuple(each.id for each in listed), created_at=Nanos(1),
        )  # fmt: skip
        await Desired(db).create_feed(record, "test")
        began = time.time_ns()
        found = await AlgoHistory(db, Desired(db)).before(FeedId("main"), listed, {"1m": 30, "5m": 12})
        until = began - began % MINUTE
        for each in listed:
            minutes = found[each.id, "1m"]
            assert len(minutes) >= 30
            assert minutes[-1].opened_at >= until - MINUTE
            fives = found[each.id, "5m"]
            assert len(fives) >= 12
            by_time = {bar.opened_at: bar for bar in minutes}
            last = fives[-1]
            parts = [by_time[Nanos(last.opened_at + n * MINUTE)] for n in range(5)]
            assert (last.open, last.close) == (parts[0].open, parts[-1].close)
            assert last.trades == sum(part.trades for part in parts)
    finally:
        await venue.stop()
    # The venue is gone: what was fetched is stored.
    span = Span(until - 20 * MINUTE, until - 5 * MINUTE)
    for each in listed:
        bars = await AlgoHistory(db, Desired(db)).closed(FeedId("main"), each, "1m", span)
        assert bars == [bar for bar in found[each.id, "1m"] if span.start <= bar.opened_at < span.end]
        assert len(bars) == 15

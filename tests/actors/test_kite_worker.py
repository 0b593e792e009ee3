"""A feed worker on Kite's wire, with a real PostgreSQL and Redis and the simulator, in this process (no Ray)."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from actors.feed_worker import FeedWorker
from cluster import process, streams
from connectors.kite.market import KiteMarket
from connectors.kite.simulator import KiteSimulator
from storage.bus import Bus
from storage.database import Database
from storage.desired import Desired
from storage.instruments import Instruments
from storage.records import AccountRecord, FeedRecord, UserRecord
from storage.secrets import Secrets, load_key, secret_name
from storage.tasks import end_tasks
from tests.connectors.support import until
from tests.storage.conftest import database_url, db, redis_url, server_url
from trading.depth import prices, unpack_depth
from trading.ids import AccountId, FeedId, InstrumentId, Nanos, UserId
from trading.ticks import QUOTE, TRADE, unpack_batch

__all__ = ["database_url", "db", "redis_url", "server_url"]
INFY, NIFTY = InstrumentId("NSE:INFY"), InstrumentId("NSE:NIFTY 50")
ACCOUNT = secret_name("asha-kite")


@pytest.fixture
def its_own_process(
    monkeypatch: pytest.MonkeyPatch, database_url: str, redis_url: str, tmp_path: Path
) -> Iterator[None]:
    """What an actor changes in its process, put back afterwards; and it may not end this one."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("QUARTERDECK_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", base64.urlsafe_b64encode(bytes(32)).decode())

    def end(reason: str, code: int = 0) -> None:
        raise AssertionError(f"the actor ends its process: {reason}")

    monkeypatch.setattr(process, "end", end)
    root = logging.getLogger("quarterdeck")
    before = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = before


@pytest.fixture
async def kite() -> AsyncIterator[KiteSimulator]:
    simulator = KiteSimulator(hold=True, frames_per_s=100, limits=False)
    await simulator.start()
    yield simulator
    await simulator.stop()


@pytest.mark.usefixtures("its_own_process")
async def test_ticks_and_depth_reach_the_bus_and_a_new_token_is_taken_up_without_a_restart(
    monkeypatch: pytest.MonkeyPatch, db: Database, redis_url: str, tmp_path: Path, kite: KiteSimulator
) -> None:
    monkeypatch.setattr("actors.feed_worker.CREDENTIALS_EVERY_S", 0.2)
    secrets, desired, at = Secrets(db, load_key(tmp_path)), Desired(db), Nanos(time.time_ns())
    credentials = kite.credentials()
    market = KiteMarket({"base_url": kite.url}, credentials)
    await Instruments(db).upsert(await market.instruments())
    await market.close()
    await desired.create_user(UserRecord(id=UserId("asha"), roles=("trader",), created_at=at), by="test")
    account = AccountRecord(
        id=AccountId("asha-kite"), user=UserId("asha"), connector="kite", settings={}, enabled=False, created_at=at
    )
    await desired.create_account(account, by="test")
    await secrets.put(ACCOUNT, credentials)
    settings = {"account": "asha-kite", "base_url": kite.url}
    feed = FeedRecord(
        id=FeedId("india"),
        provider="kite",
        settings=settings,
        channels=("trade", "quote", "depth"),
        workers=1,
        instruments=(INFY, NIFTY),
        created_at=at,
    )
    await desired.create_feed(feed, by="test")
    bus = Bus(redis_url)
    heard = await bus.subscribe([streams.ticks("india"), streams.depth("india")])
    got: dict[str, list[bytes]] = {streams.ticks("india"): [], streams.depth("india"): []}

    async def hear() -> None:
        async for channel, payload in heard:
            got[channel].append(payload)

    hearing = asyncio.create_task(hear())
    worker = FeedWorker("india", 0)
    try:
        await until(lambda: worker.state == "ready", what="the worker")
        await worker.carry([INFY, NIFTY], False)
        await until(lambda: len(got[streams.depth("india")]) >= 1, what="depth on the bus")
        await until(lambda: len(worker.stats().instruments) == 2, what="the instruments")
        await until(lambda: {i.state for i in worker.stats().instruments} == {"live"}, what="both live")
        number = worker.carrier.listed[INFY].number
        epoch, batch, shard, books = unpack_depth(got[streams.depth("india")][0])
        assert (epoch, batch, shard) == (worker.epoch, 1, 0)
        assert books["instrument"].tolist() == [number]
        assert prices(books, "bids")[0, 0] < 1500 < prices(books, "asks")[0, 0]
        ticks = [tick for raw in got[streams.ticks("india")] for tick in unpack_batch(raw)[3]]
        assert {int(tick["flags"]) & (TRADE | QUOTE) for tick in ticks if tick["instrument"] == number} == {1, 2}

        for log_in in kite.log_ins.values():
            log_in.end()
        for line in list(kite.tickers):
            line.abort()
        await until(lambda: "HTTP 403" in worker.stats().reason, what="the reason is shown")
        assert not worker.stats().connected
        assert "connect/login?api_key=simulatedkey" in worker.stats().reason
        assert credentials["access_token"] not in msgspec.json.encode(worker.stats()).decode()
        await secrets.put(ACCOUNT, kite.credentials())
        await until(lambda: worker.stats().connected, what="the new token is taken up")
        assert worker.state == "ready"
        kite.market.by_id["NSE:INFY"].trade(150_500, 40, kite.clock())
        kite.changed(kite.market.by_id["NSE:INFY"])

        def last_price() -> float:
            rows = worker.last_values.all()
            return float(rows["price"][rows["instrument"] == number][0])

        await until(lambda: last_price() == 1505.0, what="a tick after it")
    finally:
        await worker.stop()
        await end_tasks([*worker._tasks, hearing])
        await heard.close()
        await bus.close()

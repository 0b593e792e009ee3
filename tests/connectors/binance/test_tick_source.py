"""Tables of ticks replayed over Binance's wire come out as the ticks they were."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import numpy as np
import pytest

from connectors.binance.simulator import BinanceSimulator
from connectors.binance.tick_source import TickFileSource
from connectors.registry import market_data
from connectors.tick_files import write_ticks
from tests.connectors.support import Sink
from trading.errors import BadInput
from trading.ids import InstrumentId
from trading.ticks import BUYER_MAKER, TickArray, TickBuffer, decode

SECOND = 1_000_000_000


def ticks(count: int = 50) -> TickArray:
    """Trades and quotes of two instruments, 1 ms apart."""
    buffer = TickBuffer()
    for n in range(count):
        at = 1_700_000_000 * SECOND + n * 1_000_000
        number = 1 + n % 2
        if n % 3:
            buffer.quote(number, 100.5 + n, 0.25, 101.0 + n, 1.5, 0, at, at, n + 1)
        else:
            buffer.trade(number, 100.75 + n, 0.00001, BUYER_MAKER if n % 2 else 0, at, at, n + 1)
    return decode(buffer.take()).copy()


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("venue", ["BINANCE", "BINANCE-USDM"])
async def test_what_was_in_the_table_is_decoded_again(tmp_path: Path, ending: str, venue: str) -> None:
    written = ticks()
    path = tmp_path / f"ticks.{ending}"
    write_ticks(path, written, {1: InstrumentId(f"{venue}:BTCUSDT"), 2: InstrumentId(f"{venue}:ETHUSDT")})
    simulator = BinanceSimulator(TickFileSource(path), speed=None, hold=True)
    await simulator.start()
    market = market_data(simulator.product.provider, {"base_url": simulator.url})
    sink = Sink()
    feed = market.feed(sink)
    running = asyncio.create_task(feed.run())
    try:
        listed = sorted(await market.instruments(), key=lambda i: i.id)
        numbered = [msgspec.structs.replace(i, number=n) for n, i in enumerate(listed, 1)]
        assert [i.id for i in numbered] == [f"{venue}:BTCUSDT", f"{venue}:ETHUSDT"]
        await feed.subscribe(numbered, ("trade", "quote"))
        async with asyncio.timeout(20):
            while simulator.stats()["subscribed"] < 4:
                await asyncio.sleep(0.02)
            simulator.http("POST", "/simulator/start", {}, b"{}")
            while len(sink.all()) < len(written):
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await market.close()
        await simulator.stop()
    got = sink.all()
    for number in (1, 2):
        for field in ("price", "size", "bid", "bid_size", "ask", "ask_size", "sequence", "flags"):
            assert np.array_equal(
                got[field][got["instrument"] == number],
                written[field][written["instrument"] == number],
                equal_nan=field not in ("sequence", "flags"),
            ), (number, field)


def test_a_table_of_another_venue_or_without_a_good_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ticks.csv"
    write_ticks(path, ticks(4), {1: InstrumentId("NSE:INFY"), 2: InstrumentId("NSE:TCS")})
    with pytest.raises(BadInput, match="NSE"):
        TickFileSource(path).prepare(0)
    empty = tmp_path / "empty.csv"
    empty.write_text(path.read_text().splitlines()[0] + "\nnot,a,row\n")
    with pytest.raises(BadInput, match="line 2"):
        TickFileSource(empty).prepare(0)

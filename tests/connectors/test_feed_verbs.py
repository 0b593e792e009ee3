"""What every provider's connection and market data must do for a feed that heals: the same for all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from connectors.alpaca.market import AlpacaMarket
from connectors.alpaca.simulator import AlpacaSimulator
from connectors.base import FeedConnection, MarketData
from connectors.binance import quotes
from connectors.binance.market import BinanceMarket
from connectors.binance.product import SPOT, USDM, Product
from connectors.binance.simulator import BinanceSimulator
from connectors.binance.synthetic import SyntheticSettings, SyntheticSource
from connectors.kite.market import KiteMarket
from connectors.kite.simulator import KiteSimulator
from tests.connectors.support import Sink, until
from trading.errors import BadInput
from trading.ids import Nanos
from trading.instruments import Instrument
from trading.ticks import BACKFILLED, TRADE

SECOND = 1_000_000_000


class Venue(msgspec.Struct):
    """A simulator that streams by itself, and a connector on it."""

    market: MarketData
    channels: tuple[str, ...]
    #: What the simulator streams to its clients now: as many as are subscribed.
    subscribed: Callable[[], int]
    #: How often it was asked to begin a subscription.
    connections: Callable[[], int]
    tells_trades: bool
    stop: Callable[[], Awaitable[None]]


async def _binance(product: Product) -> Venue:
    source = SyntheticSource(SyntheticSettings(symbols=3, ticks_per_s=300, futures=product is USDM))
    simulator = BinanceSimulator(source, restamp=True)
    await simulator.start()
    return Venue(
        BinanceMarket(product, {"base_url": simulator.url}),
        ("trade", "quote"),
        lambda: int(simulator.stats()["subscribed"]),
        lambda: int(simulator.stats()["connected"]),
        True,
        simulator.stop,
    )


async def _alpaca() -> Venue:
    simulator = AlpacaSimulator(symbols=3, requests_per_minute=None, ticks_per_s=200.0)
    await simulator.start()
    credentials = {"key": "PKSIMULATED", "secret": "simulated-secret"}
    market = AlpacaMarket({"base_url": simulator.url}, credentials)
    return Venue(market, ("trade", "quote"), lambda: 0, lambda: 0, True, simulator.stop)


async def _kite() -> Venue:
    simulator = KiteSimulator(limits=False, shares=3, ticks_per_s=200, frames_per_s=100)
    await simulator.start()
    market = KiteMarket({"base_url": simulator.url}, simulator.credentials())
    return Venue(
        market,
        ("trade", "quote"),
        lambda: sum(len(ticker.modes) for ticker in simulator.tickers.values()),
        lambda: simulator.counts["tickers"],
        False,
        simulator.stop,
    )


VENUES: dict[str, Callable[[], Awaitable[Venue]]] = {
    "binance-spot": lambda: _binance(SPOT),
    "binance-usdm": lambda: _binance(USDM),
    "alpaca": _alpaca,
    "kite": _kite,
}


@pytest.fixture(params=list(VENUES))
async def venue(request: pytest.FixtureRequest) -> AsyncIterator[Venue]:
    made = await VENUES[request.param]()
    yield made
    await made.market.close()
    await made.stop()


async def listed(venue: Venue) -> list[Instrument]:
    found = [each for each in await venue.market.instruments() if "NIFTY" not in each.id and "USDINR" not in each.id]
    return [msgspec.structs.replace(each, number=n) for n, each in enumerate(found[:2], 1)]


@asynccontextmanager
async def streaming(venue: Venue, instruments: list[Instrument]) -> AsyncIterator[tuple[FeedConnection, Sink]]:
    sink = Sink()
    feed = venue.market.feed(sink)
    task = asyncio.create_task(feed.run())
    await feed.subscribe(instruments, venue.channels)
    await until(lambda: {each.number for each in instruments} <= heard(sink), 15, "ticks of all")
    try:
        yield feed, sink
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def heard(sink: Sink, since: int = 0) -> set[int]:
    """Instruments of which ticks have come since a time."""
    ticks = sink.all()
    return set(ticks["instrument"][ticks["received_at"] >= since].tolist())


async def test_a_subscription_is_begun_again_on_the_same_connection(venue: Venue) -> None:
    instruments = await listed(venue)
    async with streaming(venue, instruments) as (feed, sink):
        streams, connections = venue.subscribed(), venue.connections()
        await feed.resubscribe(instruments[:1])
        at = time.time_ns()
        await until(lambda: {1, 2} <= heard(sink, at), 15, "ticks of both")
        await until(lambda: venue.subscribed() == streams, 5, "as many streams as before")
        assert venue.connections() == connections
        assert sink.opens == 1
        assert feed.wanted() == {each.id for each in instruments}
        unknown = msgspec.structs.replace(instruments[0], id="X:NOBODY", number=9, provider_symbol="1")
        await feed.resubscribe([unknown])
        assert feed.wanted() == {each.id for each in instruments}


async def test_a_connection_is_given_up_and_comes_back_with_everything(venue: Venue) -> None:
    instruments = await listed(venue)
    async with streaming(venue, instruments) as (feed, sink):
        feed.reconnect("nothing comes")
        await until(lambda: sink.opens == 2, 15, "the next connection")
        assert sink.closes == ["nothing comes"]
        at = time.time_ns()
        await until(lambda: {1, 2} <= heard(sink, at), 15, "ticks of both")
        assert not sink.refusals


async def test_reconnecting_what_is_not_connected_does_nothing(venue: Venue) -> None:
    feed = venue.market.feed(Sink())
    feed.reconnect("for nothing")
    await feed.resubscribe(await listed(venue))
    assert feed.wanted() == frozenset()


async def test_last_values_are_told_on_request(venue: Venue) -> None:
    instruments = await listed(venue)
    async with streaming(venue, instruments) as (_, sink):
        await until(lambda: bool((sink.all()["flags"] & TRADE).any()), 10, "a trade")
        await asyncio.sleep(1.0)
        values = {each.instrument: each for each in await venue.market.last_values(instruments)}
        assert set(values) == {each.id for each in instruments}
        for each in values.values():
            assert each.price > 0
            assert 0 < each.bid <= each.ask
            assert abs(each.traded_at - time.time_ns()) < 30 * SECOND
        nobody = msgspec.structs.replace(instruments[0], id="NSE:NOBODY", number=9, provider_symbol="NOBODY")
        assert list(await venue.market.last_values([nobody])) == []


async def test_trades_of_the_past_are_those_that_were_streamed(venue: Venue) -> None:
    instruments = await listed(venue)
    async with streaming(venue, instruments) as (_, sink):
        await asyncio.sleep(2.0)
        start, end = Nanos(time.time_ns() - 60 * SECOND), Nanos(time.time_ns() + SECOND)
        told = await venue.market.trades(instruments[0], start, end)
        await asyncio.sleep(0.5)
    if not venue.tells_trades:
        assert told is None
        return
    assert told is not None
    assert told.since == start
    ticks = sink.all()
    streamed = ticks[(ticks["instrument"] == 1) & (ticks["flags"] & TRADE > 0)]
    assert set(told.ticks["flags"].tolist()) <= {TRADE | BACKFILLED, TRADE | BACKFILLED | 4}
    fields = ["exchange_at", "price", "size", "sequence"]
    past = [tuple(row) for row in told.ticks[fields].tolist()]
    assert len(past) > 20
    assert past == sorted(past, key=lambda row: row[0])
    # Streaming began after the market did; since then they are the same, one by one.
    own = [tuple(row) for row in streamed[fields].tolist()]
    common = [row for row in past if row[0] >= own[0][0]]
    assert own[: len(common)] == common
    later = Nanos(int(told.ticks["exchange_at"][5]))
    some = await venue.market.trades(instruments[0], later, Nanos(later + 1))
    assert some is not None
    assert set(some.ticks["exchange_at"].tolist()) == {later}


async def test_trades_are_told_by_their_numbers_page_by_page(venue: Venue, monkeypatch: pytest.MonkeyPatch) -> None:
    if not venue.market.limits.consecutive_trades:
        return
    monkeypatch.setattr(quotes, "_MOST_TRADES", 7)
    instruments = await listed(venue)
    async with streaming(venue, instruments) as (_, sink):
        await until(lambda: int((sink.all()["flags"] & TRADE > 0).sum()) > 60, 10, "some trades")
        ticks = sink.all()
        streamed = ticks[(ticks["instrument"] == 1) & (ticks["flags"] & TRADE > 0)]
        first, last = int(streamed["sequence"][0]), int(streamed["sequence"][-1])
        assert streamed["sequence"].tolist() == list(range(first, last + 1)), "numbered without a hole"
        told = await venue.market.trades(instruments[0], Nanos(0), Nanos(0), (first + 1, last - 1))
        assert told is not None
        assert told.since == 0
        fields = ["exchange_at", "price", "size", "sequence"]
        assert told.ticks[fields].tolist() == streamed[fields].tolist()[1:-1]
        beyond = await venue.market.trades(instruments[0], Nanos(0), Nanos(0), (last + 10**6, last + 10**6 + 5))
        assert beyond is not None
        assert (len(beyond.ticks), beyond.since) == (0, 0)
        before = await venue.market.trades(instruments[0], Nanos(0), Nanos(0), (first - 10**5, first))
        assert before is not None
        assert before.since > 0, "it does not reach back so far"


async def test_trades_of_the_past_wanted_of_aggregated_streams_are_not_to_be_had() -> None:
    market = BinanceMarket(SPOT, {"base_url": "http://127.0.0.1:9", "trade_stream": "aggTrade"})
    one = Instrument(
        id="BINANCE:X", provider_symbol="X", provider="binance-spot", tick_size=1, lot_size=1, currency="USDT", number=1
    )  # type: ignore[arg-type]
    assert await market.trades(one, Nanos(0), Nanos(1)) is None
    await market.close()
    with pytest.raises(BadInput):
        BinanceMarket(SPOT, {"trade_stream": "none"})


def test_every_provider_says_how_many_may_be_asked_for_at_once() -> None:
    made: list[Any] = [BinanceMarket(SPOT, {}), AlpacaMarket({}, {}), KiteMarket({}, {})]
    assert [each.limits.instruments_per_poll for each in made] == [5, 100, 500]

"""Market data of the connector against the simulator, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest

from connectors.alpaca.feed import AlpacaFeed
from connectors.alpaca.market import AlpacaMarket
from connectors.alpaca.simulator import AlpacaSimulator
from connectors.alpaca.wire import Request, as_json
from tests.connectors.support import Sink, until
from trading.errors import BadInput, NeedsOperator
from trading.ids import Nanos
from trading.instruments import Instrument
from trading.ticks import QUOTE, TRADE

CREDENTIALS = {"key": "PKSIMULATED", "secret": "simulated-secret"}
MINUTE = 60_000_000_000


@asynccontextmanager
async def market(settings: dict[str, Any] | None = None, **of: Any) -> AsyncIterator[tuple[AlpacaSimulator, Any]]:
    simulator = AlpacaSimulator(**{"hold": True, "requests_per_minute": None, "symbols": 3} | of)
    await simulator.start()
    made = AlpacaMarket({"base_url": simulator.url} | (settings or {}), CREDENTIALS)
    try:
        yield simulator, made
    finally:
        await made.close()
        await simulator.stop()


def act(simulator: AlpacaSimulator, command: str, **wish: Any) -> None:
    response = simulator.http(Request("POST", f"/simulator/{command}", body=as_json(wish)), {}).response
    assert response is not None
    assert response.status == 200, response.raw


async def numbered(of: AlpacaMarket) -> list[Instrument]:
    return [msgspec.structs.replace(each, number=n) for n, each in enumerate(await of.instruments(), 1)]


@asynccontextmanager
async def running(feed: AlpacaFeed) -> AsyncIterator[None]:
    task = asyncio.create_task(feed.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_assets_are_listed_as_instruments() -> None:
    async with market() as (_, made):
        listed = await made.instruments()
        assert [i.id for i in listed] == ["ALPACA:AAPL", "ALPACA:MSFT", "ALPACA:SPY"]
        assert all(i.provider == "alpaca" and i.currency == "USD" for i in listed)


async def test_trades_and_quotes_stream_with_their_times() -> None:
    async with market() as (simulator, made):
        sink = Sink()
        feed = made.feed(sink)
        apple, microsoft, _ = await numbered(made)
        async with running(feed):
            await feed.subscribe([apple, microsoft], ["trade", "quote"])
            await until(lambda: sink.opens == 1, what="the stream opens")
            await until(lambda: len(simulator.data_streams) == 1)
            stream = next(iter(simulator.data_streams.values()))
            await until(lambda: stream.wants("quotes", "MSFT"), what="the subscription")
            before = time.time_ns()
            act(simulator, "quote", symbol="MSFT", bid=400.5, ask=400.75, bid_size=3, ask_size=4)
            act(simulator, "trade", symbol="AAPL", price=191.25, size=7)
            act(simulator, "trade", symbol="SPY", price=500, size=1)
            await until(lambda: len(sink.all()) == 2, what="two ticks")
            ticks = sink.all()
        quote, trade = ticks[0], ticks[1]
        assert (quote["instrument"], quote["flags"], trade["instrument"], trade["flags"]) == (2, QUOTE, 1, TRADE)
        assert (quote["bid"], quote["bid_size"], quote["ask"], quote["ask_size"]) == (400.5, 3, 400.75, 4)
        assert (trade["price"], trade["size"]) == (191.25, 7)
        assert np.all(ticks["exchange_at"] >= before)
        assert np.all(ticks["received_at"] >= ticks["exchange_at"])
        assert feed.wanted() == {apple.id, microsoft.id}


async def test_a_lost_connection_is_opened_again_with_all_that_was_wanted() -> None:
    async with market() as (simulator, made):
        sink = Sink()
        feed = made.feed(sink)
        apple, microsoft, spy = await numbered(made)
        async with running(feed):
            await feed.subscribe([apple], ["trade"])
            await until(lambda: sink.opens == 1, what="the stream opens")
            await feed.subscribe([microsoft, spy], ["trade"])
            await feed.unsubscribe([apple])
            act(simulator, "drop", streams="data")
            await until(lambda: sink.opens == 2, what="the stream opens again")
            assert len(sink.closes) == 1
            await until(
                lambda: any(s.wanted["trades"] == {"MSFT", "SPY"} for s in simulator.data_streams.values()),
                what="the subscriptions",
            )
            act(simulator, "trade", symbol="MSFT", price=401)
            act(simulator, "trade", symbol="AAPL", price=191)
            await until(lambda: len(sink.all()) == 1, what="a tick")
            assert sink.all()["instrument"][0] == 2
            assert feed.reconnects >= 1


async def test_channels_come_and_go_however_quickly() -> None:
    async with market() as (simulator, made):
        sink = Sink()
        feed = made.feed(sink)
        apple, microsoft, *_ = await numbered(made)

        def wanted(**channels: set[str]) -> bool:
            (stream,) = simulator.data_streams.values()
            return all(stream.wanted[channel] == symbols for channel, symbols in channels.items())

        async with running(feed):
            await feed.subscribe([apple, microsoft], ["trade", "quote"])
            await until(lambda: sink.opens == 1, what="the stream opens")
            await until(lambda: wanted(trades={"AAPL", "MSFT"}, quotes={"AAPL", "MSFT"}), what="the subscriptions")
            await feed.unsubscribe([apple], ["quote"])
            assert feed.wanted() == {apple.id, microsoft.id}
            await until(lambda: wanted(trades={"AAPL", "MSFT"}, quotes={"MSFT"}), what="quotes of one ended")
            # Asked for again before the answer to the end of it has come.
            await feed.unsubscribe([microsoft], ["trade"])
            await feed.subscribe([microsoft], ["trade"])
            await feed.unsubscribe([apple], ["trade"])
            await until(lambda: wanted(trades={"MSFT"}, quotes={"MSFT"}), what="the last channel of the other ended")
            assert feed.wanted() == {microsoft.id}


async def test_garbage_is_reported_and_unasked_messages_are_passed_over() -> None:
    async with market() as (simulator, made):
        sink = Sink()
        feed = made.feed(sink)
        (apple, *_) = await numbered(made)
        async with running(feed):
            await feed.subscribe([apple], ["trade"])
            await until(lambda: sink.opens == 1, what="the stream opens")
            (line,) = simulator.data_streams
            status = {"T": "s", "S": "AAPL", "sc": "T", "t": "2025-03-10T16:00:00Z"}
            good = {"T": "t", "S": "AAPL", "p": 1.5, "s": 2, "t": "2025-03-10T16:00:00Z", "i": 1}
            line.send(as_json([status, good, {"T": "t", "S": "AAPL", "p": "much"}]), binary=False)
            line.send(b"[[", binary=False)
            await until(lambda: len(sink.garbages) == 2, what="two pieces of garbage")
            assert len(sink.all()) == 1
            assert sink.all()["price"][0] == 1.5


async def test_minute_bars_of_the_venue_are_passed_on() -> None:
    async with market() as (simulator, made):
        sink = Sink()
        feed = made.feed(sink)
        (apple, *_) = await numbered(made)
        async with running(feed):
            await feed.subscribe([apple], ["bar"])
            await until(lambda: sink.opens == 1, what="the stream opens")
            (stream,) = simulator.data_streams.values()
            await until(lambda: stream.wants("bars", "AAPL"))
            listing = simulator.market.listings["AAPL"]
            stream.send([{"T": "b", "S": "AAPL", **listing.bars[-1].row}])
            await until(lambda: len(sink.bars) == 1, what="a bar")
        number, bar, final = sink.bars[0]
        assert (number, final, bar.opened_at) == (1, True, listing.bars[-1].opened)
        assert bar.low <= bar.close <= bar.high


async def test_only_one_connection_is_let_in_and_a_second_waits_its_turn() -> None:
    async with market() as (simulator, made):
        first, second = Sink(), Sink()
        (apple, *_) = await numbered(made)
        feeds = [made.feed(first), made.feed(second)]
        async with running(feeds[0]):
            await feeds[0].subscribe([apple], ["trade"])
            await until(lambda: first.opens == 1, what="the first opens")
            async with running(feeds[1]):
                await feeds[1].subscribe([apple], ["trade"])
                await until(lambda: feeds[1].reconnects >= 1, what="the second is refused")
                assert second.opens == 0
        assert simulator.stats()["data_streams"] <= 1


async def test_bad_subscriptions_are_refused_before_anything_changes() -> None:
    async with market({"symbols": 2}) as (_, made):
        listed = await numbered(made)
        feed = made.feed(Sink())
        with pytest.raises(BadInput, match="the plan allows 2"):
            await feed.subscribe(listed, ["trade"])
        with pytest.raises(BadInput, match="trade, quote, bar"):
            await feed.subscribe(listed[:1], ["depth"])
        with pytest.raises(BadInput, match="no number"):
            await feed.subscribe([msgspec.structs.replace(listed[0], number=0)], ["trade"])
        assert feed.wanted() == frozenset()
        assert made.limits.max_workers == 1


async def test_history_gives_closed_bars_of_every_page() -> None:
    async with market() as (simulator, made):
        (apple, *_) = await numbered(made)
        end = Nanos(time.time_ns())
        start = Nanos(end - 100 * MINUTE)
        act(simulator, "trade", symbol="AAPL", price=190.5)
        found = await made.history(apple, "1m", start, end)
        have = [b for b in simulator.market.listings["AAPL"].bars if start <= b.opened and b.opened + MINUTE <= end]
        assert [b.opened_at for b in found] == [b.opened for b in have]
        assert [(b.open, b.high, b.low, b.close, b.volume) for b in found] == [
            (b.open, b.high, b.low, b.close, b.volume) for b in have
        ]
        fives = await made.history(apple, "5m", start, end)
        assert len(fives) in (19, 20)
        assert all(b.opened_at % (5 * MINUTE) == 0 for b in fives)


@pytest.mark.parametrize("interval", ["1s", "60m", "2d", "1w", "m", ""])
async def test_intervals_that_alpaca_lacks_are_refused(interval: str) -> None:
    async with market() as (_, made):
        (apple, *_) = await numbered(made)
        with pytest.raises(BadInput):
            await made.history(apple, interval, Nanos(0), Nanos(MINUTE))


async def test_without_a_key_there_is_no_market_and_the_remedy_is_named() -> None:
    made = AlpacaMarket({"base_url": "http://127.0.0.1:1"}, {})
    with pytest.raises(NeedsOperator, match="credentials"):
        await made.instruments()
    await made.close()

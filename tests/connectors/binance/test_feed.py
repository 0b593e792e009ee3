"""The feed against the simulator, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from connectors.binance.feed import BinanceFeed
from connectors.binance.link import Tuning
from connectors.binance.market import BinanceMarket
from connectors.binance.product import USDM
from connectors.binance.simulator import BinanceSimulator
from connectors.binance.source import RecordingSource, Source
from connectors.binance.synthetic import SyntheticSettings, SyntheticSource
from tests.connectors.support import Sink, data_file, instrument, until
from trading.bar_deriving import SECOND
from trading.errors import BadInput
from trading.ids import Nanos
from trading.instruments import Instrument
from trading.ticks import QUOTE, TICK, TRADE, TickArray, decode

QUICK = Tuning(first_backoff=0.05, longest_backoff=0.2, overlap=0.15)


class Setting:
    """A simulator, a feed on it, and what the feed said."""

    def __init__(self, simulator: BinanceSimulator, market: BinanceMarket, feed: BinanceFeed, sink: Sink) -> None:
        self.simulator = simulator
        self.market = market
        self.feed = feed
        self.sink = sink
        self.listed: list[Instrument] = []

    async def command(self, name: str, **body: Any) -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=5) as client:
            answer = await client.post(f"{self.simulator.url}/simulator/{name}", json=body)
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

    def tick_messages(self) -> int:
        """Trades and quotes that had a subscriber, a copy to two connections counted once."""
        streams = self.simulator.stats()["streams"]
        return sum(one["messages"] for name, one in streams.items() if name.endswith(("@trade", "@bookTicker")))


@contextlib.asynccontextmanager
async def setting(
    source: Source,
    speed: float | None = 1.0,
    tuning: Tuning = QUICK,
    settings: dict[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[Setting]:
    simulator = BinanceSimulator(source, speed=speed, **more)
    await simulator.start()
    market = BinanceMarket(simulator.product, {"base_url": simulator.url, **(settings or {})})
    sink = Sink()
    feed = market.feed(sink, tuning)
    running = asyncio.create_task(feed.run())
    made = Setting(simulator, market, feed, sink)
    try:
        made.listed = [
            msgspec.structs.replace(one, number=number) for number, one in enumerate(await market.instruments(), 1)
        ]
        yield made
        assert not running.done(), running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await market.close()
        await simulator.stop()


def synthetic(**settings: Any) -> SyntheticSource:
    base: dict[str, Any] = {"symbols": 4, "ticks_per_s": 2000.0, "history_minutes": 200, "futures": True}
    return SyntheticSource(SyntheticSettings(**(base | settings)))


def check_sequences(ticks: TickArray, kind: int) -> None:
    """Per instrument: in order, nothing twice."""
    chosen = ticks[(ticks["flags"] & kind) != 0]
    for number in set(chosen["instrument"].tolist()):
        own = chosen[chosen["instrument"] == number]["sequence"]
        assert (own[1:] > own[:-1]).all()


@pytest.mark.parametrize("futures", [True, False])
async def test_every_message_sent_is_decoded(futures: bool) -> None:
    source = synthetic(duration_s=1.0, ticks_per_s=20_000.0, futures=futures)
    async with setting(source) as s:
        await s.feed.subscribe(s.listed, ["trade", "quote", "depth", "bar"])
        await asyncio.wait_for(s.simulator.finished(), 20)
        stats = s.simulator.stats()
        await until(lambda: sum(s.feed.counts().values()) == stats["sent"], what="all received")
        ticks = s.sink.all()
        assert len(ticks) == s.tick_messages() > 10_000
        assert stats["sent"] == stats["messages"]
        assert s.feed.counts() == {name: one["sent"] for name, one in stats["streams"].items()}
        assert len(s.sink.books) > 10
        assert s.sink.bars
        assert s.sink.opens == 1
        assert not s.sink.garbages
        assert s.feed.unknown == 0
        # Sequences without a hole: nothing was lost before it was counted either.
        for number in range(1, 5):
            own = ticks[(ticks["instrument"] == number) & ((ticks["flags"] & TRADE) != 0)]["sequence"]
            assert own.tolist() == list(range(own[0], own[0] + len(own)))


@pytest.mark.parametrize(("name", "expected"), [("usdm", 87402), ("spot", 37797)])
async def test_a_recording_is_delivered_whole(name: str, expected: int) -> None:
    path = data_file(f"market/crypto_binance_raw_ws/examples_{name}_btcusdt_20240808.gz")
    async with setting(RecordingSource(path), speed=None) as s:
        assert [one.provider_symbol for one in s.listed] == ["BTCUSDT"]
        await s.feed.subscribe(s.listed, ["trade", "quote"])
        await asyncio.wait_for(s.simulator.finished(), 30)
        await until(lambda: sum(s.feed.counts().values()) == expected, what=str(s.feed.counts()))
        ticks = s.sink.all()
        assert len(ticks) == expected
        check_sequences(ticks, TRADE)
        check_sequences(ticks, QUOTE)
        replay = s.simulator.stats()["replay"]
        assert (replay["first_line"], replay["finished"]) == (1, True)


async def test_instruments_come_and_go_while_it_streams() -> None:
    async with setting(synthetic()) as s:
        first, second = s.listed[0], s.listed[1]
        await s.feed.subscribe([first], ["trade", "quote"])
        await until(lambda: s.feed.counts().get("btcusdt@bookTicker", 0) > 20)
        await s.feed.subscribe([second], ["trade", "quote"])
        await until(lambda: s.feed.counts().get("ethusdt@bookTicker", 0) > 20)
        assert s.feed.wanted() == {first.id, second.id}
        await s.feed.unsubscribe([first])
        assert s.feed.wanted() == {second.id}
        await until(lambda: "btcusdt@trade" not in s.feed.counts(), what="the reply to UNSUBSCRIBE")
        s.sink.all()
        s.sink.raw.clear()
        before = s.feed.counts()["ethusdt@bookTicker"]
        await until(lambda: s.feed.counts()["ethusdt@bookTicker"] > before + 20)
        assert set(s.sink.all()["instrument"].tolist()) == {2}
        assert s.sink.opens == 1
        assert not s.sink.closes


async def test_channels_of_an_instrument_come_and_go() -> None:
    async with setting(synthetic()) as s:
        first, second = s.listed[0], s.listed[1]
        await s.feed.subscribe([first], ["trade", "quote"])
        await s.feed.unsubscribe([first, second], ["quote", "depth"])
        assert s.feed.wanted() == {first.id}
        await until(lambda: list(s.feed.counts()) == ["btcusdt@trade"], what="the reply to UNSUBSCRIBE")
        await s.feed.subscribe([first], ["quote"])
        await until(lambda: s.feed.counts().get("btcusdt@bookTicker", 0) > 5, what="quotes again")
        await s.feed.unsubscribe([first], ["trade"])
        await s.feed.unsubscribe([first], ["quote"])
        assert s.feed.wanted() == set()


async def test_subscribing_twice_changes_nothing() -> None:
    async with setting(synthetic()) as s:
        await s.feed.subscribe(s.listed[:1], ["trade"])
        await s.feed.subscribe(s.listed[:1], ["trade"])
        await s.feed.unsubscribe(s.listed[1:])
        await until(lambda: s.feed.counts()["btcusdt@trade"] > 5)
        assert s.feed.wanted() == {s.listed[0].id}
        assert list(s.feed.counts()) == ["btcusdt@trade"]


async def test_a_dropped_connection_comes_back_with_all_its_streams() -> None:
    async with setting(synthetic()) as s:
        await s.feed.subscribe(s.listed, ["trade", "quote"])
        await until(lambda: sum(s.feed.counts().values()) > 200)
        assert (await s.command("drop"))["dropped"] == 1
        await until(lambda: s.sink.opens == 2, what="opened again")
        assert len(s.sink.closes) == 1
        before = s.feed.counts()
        await until(lambda: all(count > before[name] for name, count in s.feed.counts().items()))
        assert s.feed.reconnects == 1


async def test_garbage_is_reported_and_the_stream_goes_on() -> None:
    async with setting(synthetic()) as s:
        await s.feed.subscribe(s.listed[:1], ["trade", "quote"])
        await until(lambda: sum(s.feed.counts().values()) > 20)
        await s.command("garbage", text="{not json")
        await until(lambda: bool(s.sink.garbages))
        assert s.sink.garbages[0][0] == b"{not json"
        before = sum(s.feed.counts().values())
        await until(lambda: sum(s.feed.counts().values()) > before + 20)
        assert not s.sink.closes


@pytest.mark.parametrize("why", ["age", "shutdown"])
async def test_a_connection_is_replaced_without_losing_or_repeating_a_message(why: str) -> None:
    tuning = QUICK if why == "shutdown" else msgspec.structs.replace(QUICK, replace_after=0.5)
    async with setting(synthetic(duration_s=2.5, open_burst=1.0), tuning=tuning) as s:
        await s.feed.subscribe(s.listed, ["trade", "quote"])
        await until(lambda: sum(s.feed.counts().values()) > 200)
        if why == "shutdown":
            await s.command("shutdown", after_s=0.8)
        await until(lambda: s.feed.replacements >= 1, what="replaced")
        await asyncio.wait_for(s.simulator.finished(), 20)
        await until(lambda: sum(s.feed.counts().values()) == s.tick_messages(), what=repr(s.feed))
        ticks = s.sink.all()
        assert len(ticks) == s.tick_messages()
        check_sequences(ticks, TRADE)
        check_sequences(ticks, QUOTE)
        assert not s.sink.closes
        stats = s.simulator.stats()
        assert stats["sent"] > stats["messages"], "both connections were subscribed for a moment"


async def test_many_streams_are_asked_for_within_the_venues_limits() -> None:
    source = synthetic(symbols=300, ticks_per_s=500.0, futures=False, history_minutes=0)
    async with setting(source) as s:
        began = asyncio.get_running_loop().time()
        await until(lambda: True)
        running = s.feed
        await s.feed.subscribe(s.listed, ["trade", "quote"])
        await until(lambda: s.sink.opens == 1, what="opened")
        # 600 streams are three messages, a quarter of a second apart.
        assert asyncio.get_running_loop().time() - began >= 0.5
        assert len(running.wanted()) == 300
        assert s.simulator.stats()["events"].get("closed_for_rate", 0) == 0
        assert not s.sink.closes


async def test_refused_streams_are_found_and_named() -> None:
    async with setting(synthetic(), streams_per_connection=3) as s:
        await s.feed.subscribe(s.listed, ["trade"])
        await until(lambda: len(s.sink.refusals) == 1, what="one of four refused")
        refused, reason = s.sink.refusals[0]
        assert "too many streams" in reason
        assert s.feed.wanted() == {one.id for one in s.listed} - {refused}
        await until(lambda: len(s.feed.counts()) == 3 and all(s.feed.counts().values()))


async def test_more_streams_than_a_connection_carries_are_refused_before_anything_changes() -> None:
    market = BinanceMarket(BinanceSimulator(synthetic())._source.product, {})
    feed = market.feed(Sink())
    many = [instrument(f"X{i}USDT", i) for i in range(1, 202)]
    with pytest.raises(BadInput, match="use more workers"):
        await feed.subscribe(many, ["trade"])
    assert feed.wanted() == frozenset()


@pytest.mark.parametrize(
    ("one", "channels", "said"),
    [
        (instrument(), ["tape"], "channels"),
        (instrument(number=0), ["trade"], "no number"),
        (instrument(provider="binance-spot"), ["trade"], "not of binance-usdm"),
    ],
)
async def test_wrong_subscriptions_are_refused_with_the_reason(one: Instrument, channels: list[str], said: str) -> None:
    feed = BinanceMarket(synthetic().product, {}).feed(Sink())
    with pytest.raises(BadInput, match=said):
        await feed.subscribe([one], channels)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"base_url": "ftp://x"}, "base_url"),
        ({"bar_interval": "7m"}, "bar_interval"),
        ({"trade_stream": "tape"}, "trade_stream"),
        ({"depth_stream": "book"}, "depth_stream"),
        ({"replace_after_s": 0}, "replace_after_s"),
        ({"base": "http://x"}, "settings"),
    ],
)
def test_wrong_settings_name_the_field(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        BinanceMarket(synthetic().product, settings)
    assert caught.value.field == field


async def test_an_unreachable_server_is_tried_until_it_is_there() -> None:
    simulator = BinanceSimulator(synthetic())
    await simulator.start()
    url = simulator.url
    await simulator.stop()
    market = BinanceMarket(simulator.product, {"base_url": url})
    sink = Sink()
    feed = market.feed(sink, QUICK)
    await feed.subscribe([instrument()], ["trade"])
    running = asyncio.create_task(feed.run())
    await until(lambda: feed.reconnects >= 2)
    again = BinanceSimulator(synthetic(), port=int(url.rpartition(":")[2]))
    await again.start()
    try:
        await until(lambda: sum(feed.counts().values()) > 5)
        assert sink.opens == 1
        assert not sink.closes, "what never was open cannot close"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await again.stop()


async def test_seconds_of_the_spot_market_are_its_trades_and_usd_m_has_none() -> None:
    async with setting(synthetic(symbols=1, ticks_per_s=200, futures=False)) as it:
        (one,) = it.listed
        await it.feed.subscribe([one], ["trade"])
        await until(lambda: it.simulator.stats()["messages"] > 900)
        await it.command("hold")
        await until(lambda: sum(map(len, it.sink.raw)) // TICK.itemsize == it.tick_messages())
        ticks = decode(b"".join(it.sink.raw))
        # The first and the last second are not whole.
        opened = ticks["exchange_at"] // SECOND * SECOND
        start, end = int(opened[0]) + SECOND, int(opened[-1])
        bars = await it.market.history(one, "1s", Nanos(start), Nanos(end))
        assert [bar.opened_at for bar in bars] == [at for at in np.unique(opened).tolist() if start <= at < end]
        assert len(bars) > 1
        for bar in bars:
            prices = ticks["price"][opened == bar.opened_at]
            assert (bar.open, bar.high, bar.low, bar.close) == (prices[0], prices.max(), prices.min(), prices[-1])
            assert bar.trades == len(prices)
    futures = BinanceMarket(USDM, {})
    with pytest.raises(BadInput, match="'1s' is not offered by binance-usdm"):
        await futures.history(instrument("BTCUSDT"), "1s", Nanos(start), Nanos(end))
    await futures.close()

"""Market data of the connector against the simulator, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from connectors.kite.feed import MOST_TOKENS, KiteFeed, Tuning
from connectors.kite.market import KiteMarket
from connectors.kite.simulated_login import App, Refusal
from connectors.kite.simulated_market import Listing
from connectors.kite.simulated_wire import Request
from connectors.kite.simulator import KiteSimulator
from tests.connectors.kite.making import frame, instrument, ltp
from tests.connectors.support import Sink, until
from tests.support.patience import PATIENCE
from trading.depth import prices
from trading.errors import BadInput
from trading.ids import Nanos
from trading.instruments import Instrument
from trading.ticks import QUOTE, SNAPSHOT, TRADE

QUICK = Tuning(silence=0.6, first_backoff=0.02, longest_backoff=0.1, refused_for=30.0, pace=0.0, look_up_again=0.2)
SOME = ["trade", "quote", "depth"]


@asynccontextmanager
async def market(
    settings: dict[str, Any] | None = None, **of: Any
) -> AsyncIterator[tuple[KiteSimulator, KiteMarket, dict[str, str]]]:
    simulator = KiteSimulator(
        **{"hold": True, "limits": False, "shares": 4, "frames_per_s": 200, "heartbeat_s": 0.1} | of
    )
    await simulator.start()
    credentials = simulator.credentials()
    made = KiteMarket({"base_url": simulator.url} | (settings or {}), credentials)
    try:
        yield simulator, made, credentials
    finally:
        await made.close()
        await simulator.stop()


@asynccontextmanager
async def running(feed: KiteFeed) -> AsyncIterator[None]:
    task = asyncio.create_task(feed.run())
    try:
        yield
        assert not task.done(), "it never ends by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def act(simulator: KiteSimulator, command: str, **wish: Any) -> None:
    response = simulator.http(Request("POST", f"/simulator/{command}", (), {}, msgspec.json.encode(wish)))
    assert response.status == 200, response.body


async def numbered(of: KiteMarket) -> dict[str, Instrument]:
    return {each.id: msgspec.structs.replace(each, number=n) for n, each in enumerate(await of.instruments(), 1)}


def modes(simulator: KiteSimulator) -> list[dict[int, str]]:
    return [ticker.modes for ticker in simulator.tickers.values()]


async def test_trades_quotes_and_depth_stream_with_their_times() -> None:
    async with market() as (simulator, made, _):
        sink, listed = Sink(), await numbered(made)
        infy = listed["NSE:INFY"]
        feed = made.feed(sink, QUICK)
        async with running(feed):
            await feed.subscribe([infy], SOME)
            await until(lambda: len(sink.depths) >= 1, what="the first full packet")
            assert sink.opens == 1
            first = sink.all()
            assert {int(flags) for flags in first["flags"]} <= {TRADE | SNAPSHOT, QUOTE}
            sink.raw.clear()
            sink.depths.clear()
            before = time.time_ns()
            act(simulator, "book", instrument="NSE:INFY", bids=[[1500.05, 10, 2]], asks=[[1500.1, 20, 3]])
            act(simulator, "trade", instrument="NSE:INFY", price=1500.1, size=7)
            await until(lambda: len(sink.all()) >= 2, what="a trade and a quote")
            ticks = sink.all()
            (trade,) = ticks[(ticks["flags"] & TRADE) != 0]
            quote = ticks[ticks["flags"] == QUOTE][-1]
        assert (trade["instrument"], trade["flags"], trade["price"], trade["size"]) == (infy.number, TRADE, 1500.1, 7)
        assert (quote["bid"], quote["bid_size"], quote["ask"], quote["ask_size"]) == (1500.05, 10, 1500.1, 20)
        # The wire's times are whole seconds.
        assert 0 <= before - trade["exchange_at"] < 1_500_000_000
        assert trade["received_at"] >= before
        book = sink.depths[-1]
        assert prices(book, "bids")[0, 0] == 1500.05
        assert book["asks"]["orders"][0].tolist() == [3, 0, 0, 0, 0]
        assert feed.wanted() == {"NSE:INFY"}


async def test_every_instrument_is_in_the_mode_that_its_channels_need() -> None:
    async with market() as (simulator, made, _):
        sink, listed = Sink(), await numbered(made)
        feed = made.feed(sink, QUICK)
        infy, nifty, share = listed["NSE:INFY"], listed["NSE:NIFTY 50"], listed["NSE:SHARE0"]
        async with running(feed):
            await feed.subscribe([infy, nifty], ["trade"])
            await feed.subscribe([share], ["trade", "quote"])
            want = {408065: "quote", 256265: "quote", 2560001: "full"}
            await until(lambda: modes(simulator) == [want], what="the modes")
            await feed.subscribe([infy], ["depth"])
            await until(lambda: modes(simulator) == [{**want, 408065: "full"}], what="more is shown of one")
            await feed.unsubscribe([infy], ["depth", "quote"])
            await until(lambda: modes(simulator) == [want], what="less is shown of it again")
            await feed.unsubscribe([nifty, nifty])
            await until(lambda: 256265 not in modes(simulator)[0], what="one is taken away")
            assert feed.wanted() == {infy.id, share.id}
            await feed.unsubscribe([share], ["trade"])
            assert feed.wanted() == {infy.id, share.id}
            await feed.unsubscribe([share], ["quote"])
            await until(lambda: 2560001 not in modes(simulator)[0], what="its last channel is taken away")
            assert feed.wanted() == {infy.id}
            await feed.subscribe([share], ["trade"])
            assert feed.wanted() == {infy.id, share.id}


async def test_a_mode_of_the_settings_is_kept() -> None:
    async with market({"mode": "ltp"}) as (simulator, made, _):
        sink, listed = Sink(), await numbered(made)
        feed = made.feed(sink, QUICK)
        async with running(feed):
            await feed.subscribe([listed["NSE:INFY"]], ["trade"])
            await until(lambda: modes(simulator) == [{408065: "ltp"}], what="the mode")
            act(simulator, "trade", instrument="NSE:INFY", price=1501, size=7)
            await until(lambda: len(sink.all()) and sink.all()["price"][-1] == 1501.0, what="the price")
            assert sink.all()["size"][-1] == 0.0
        with pytest.raises(BadInput, match="mode ltp has no quotes"):
            await feed.subscribe([listed["NSE:INFY"]], ["quote"])
        assert made.limits.channels == ("trade",)


async def test_a_lost_connection_is_opened_again_with_every_token_and_its_mode() -> None:
    async with market() as (simulator, made, _):
        sink, listed = Sink(), await numbered(made)
        feed = made.feed(sink, QUICK)
        infy, nifty, bse = listed["NSE:INFY"], listed["NSE:NIFTY 50"], listed["BSE:INFY"]
        async with running(feed):
            await feed.subscribe([infy], SOME)
            await feed.subscribe([nifty, bse], ["trade"])
            await until(lambda: len(simulator.tickers) == 1 and len(modes(simulator)[0]) == 3, what="the tokens")
            want = {408065: "full", 256265: "quote", 128053508: "quote"}
            for turn in range(2, 4):
                act(simulator, "drop")
                await until(lambda turn=turn: sink.opens == turn, what="it opens again")
                await until(lambda: modes(simulator) == [want], what="the tokens and their modes")
            assert len(sink.closes) == 2
            sink.all()
            sink.raw.clear()
            act(simulator, "trade", instrument="BSE:INFY", price=1501, size=4)
            await until(lambda: 1501.0 in sink.all()["price"].tolist(), what="a tick")
            assert feed.reconnects == 2


async def test_silence_is_found_out() -> None:
    async with market() as (simulator, made, _):
        sink, listed = Sink(), await numbered(made)
        # Not so quick that a busy machine's own silence counts.
        feed = made.feed(sink, msgspec.structs.replace(QUICK, silence=0.6 * PATIENCE))
        async with running(feed):
            await feed.subscribe([listed["NSE:INFY"]], ["trade"])
            await until(lambda: sink.opens == 1, what="it opens")
            # Heartbeats alone keep it: no price moves for longer than the silence allowed.
            await asyncio.sleep(1.0 * PATIENCE)
            assert sink.closes == []
            act(simulator, "mute")
            await until(lambda: sink.opens == 2, what="it opens again")
            assert "silent for" in sink.closes[0]


async def test_garbage_is_counted_and_the_connection_kept() -> None:
    async with market() as (simulator, made, _):
        sink, listed = Sink(), await numbered(made)
        feed = made.feed(sink, QUICK)
        async with running(feed):
            await feed.subscribe([listed["NSE:INFY"]], ["trade"])
            await until(lambda: feed.codec.packets >= 1, what="a packet")
            whole = frame(ltp(408065, 12345), ltp(408065, 12346))
            for raw in (whole[:-3], whole + b"!", b"\xff\xfe\xfd", b"\x00\x01\x00\x99"):
                act(simulator, "raw", hex=raw.hex())
            for line in simulator.tickers:
                line.send(b'{"type":', binary=False)
            act(simulator, "raw", hex=frame(ltp(408065, 11111)).hex())
            await until(lambda: 111.11 in sink.all()["price"].tolist(), what="the good frame after the bad ones")
            assert len(sink.garbages) == 5
            assert not {123.45, 123.46} & set(sink.all()["price"].tolist())
            assert (sink.opens, sink.closes) == (1, [])


async def test_the_words_of_the_server_are_heard() -> None:
    orders: list[bytes] = []
    async with market() as (simulator, made, _):
        sink, listed = Sink(), await numbered(made)
        feed = made.feed(sink, QUICK, orders.append)
        async with running(feed):
            await feed.subscribe([listed["NSE:INFY"]], ["trade"])
            await until(lambda: feed.codec.packets >= 1, what="a packet")
            act(simulator, "text", type="order", data={"order_id": "220303000308932"})
            act(simulator, "text", type="error", data="Something is wrong")
            act(simulator, "text", type="message", data="hello")
            act(simulator, "text", type="quite_new", data={"a": [1]})
            await until(lambda: feed.complaints == 1 and feed.order_updates == 1, what="the messages")
            assert orders == [b'{"order_id":"220303000308932"}']
            assert (sink.garbages, sink.refusals, sink.closes) == ([], [], [])


async def test_a_session_that_ended_names_the_remedy_and_a_new_token_is_taken_up() -> None:
    async with market() as (simulator, made, credentials):
        sink, listed = Sink(), await numbered(made)
        feed = made.feed(sink, QUICK)
        async with running(feed):
            await feed.subscribe([listed["NSE:INFY"]], ["trade"])
            await until(lambda: sink.opens == 1, what="it opens")
            act(simulator, "logout")
            act(simulator, "drop")
            await until(lambda: len(sink.closes) == 2, what="the refusal is told")
            assert "HTTP 403" in sink.closes[1]
            assert "connect/login?api_key=simulatedkey" in sink.closes[1]
            assert credentials["access_token"] not in str(sink.closes), "no secret in a reason"
            assert credentials["api_secret"] not in str(sink.closes)
            await asyncio.sleep(0.3)
            assert simulator.counts["refused_403"] == 1, "the same token is not tried over and over"
            credentials.update(simulator.credentials())
            await until(lambda: sink.opens == 2, what="the new token is taken up")
            await until(lambda: modes(simulator) == [{408065: "quote"}], what="the tokens")


async def test_a_new_token_replaces_the_old_one_while_the_connection_lives() -> None:
    async with market() as (simulator, made, credentials):
        sink, listed = Sink(), await numbered(made)
        feed = made.feed(sink, QUICK)
        async with running(feed):
            await feed.subscribe([listed["NSE:INFY"]], ["trade"])
            await until(lambda: sink.opens == 1, what="it opens")
            credentials.update(simulator.credentials())
            await until(lambda: sink.opens == 2, what="it opens again")
            assert "new access token" in sink.closes[0]


async def test_without_a_token_it_says_what_is_missing() -> None:
    simulator = KiteSimulator(hold=True)
    await simulator.start()
    credentials: dict[str, str] = {}
    made = KiteMarket({"base_url": simulator.url}, credentials)
    sink = Sink()
    feed = made.feed(sink, QUICK)
    try:
        async with running(feed):
            await feed.subscribe([instrument()], ["trade"])
            await until(lambda: len(sink.closes) == 1, what="the reason")
            assert "no api_key and no access_token" in sink.closes[0]
            credentials.update(simulator.credentials())
            await until(lambda: sink.opens == 1, what="it opens")
    finally:
        await made.close()
        await simulator.stop()


async def test_three_connections_to_a_key_and_the_fourth_waits() -> None:
    async with market(apps=[App(), App(api_key="other", api_secret="s")]) as (simulator, made, _):
        listed = await numbered(made)
        sinks = [Sink() for _ in range(4)]
        feeds = [made.feed(sink, QUICK) for sink in sinks]
        for feed in feeds:
            await feed.subscribe([listed["NSE:INFY"]], ["trade"])
        async with running(feeds[0]), running(feeds[1]), running(feeds[2]):
            await until(lambda: all(sink.opens for sink in sinks[:3]), what="three open")
            async with running(feeds[3]):
                await until(lambda: len(sinks[3].closes) == 1, what="the fourth is refused")
                assert "a key has 3 connections (HTTP 429)" in sinks[3].closes[0]
                assert sinks[3].opens == 0
                another = KiteMarket({"base_url": simulator.url}, simulator.credentials("other"))
                fifth = Sink()
                other = another.feed(fifth, QUICK)
                await other.subscribe([listed["NSE:INFY"]], ["trade"])
                async with running(other):
                    await until(lambda: fifth.opens == 1, what="another key has its own three")
                await another.close()
        assert made.limits.max_workers == 3


async def test_what_kite_does_not_list_any_more_is_refused() -> None:
    async with market() as (simulator, made, _):
        sink, listed = Sink(), await numbered(made)
        infy = listed["NSE:INFY"]
        strange = instrument("NSE:NOSUCH", 999 << 8 | 1, 90)
        reused = msgspec.structs.replace(listed["NSE:SHARE0"], provider_symbol=listed["NSE:SHARE1"].provider_symbol)
        expired = instrument("NFO:NIFTYOLDFUT", 13073922, 91)
        feed = made.feed(sink, QUICK)
        async with running(feed):
            await feed.subscribe([infy, strange, reused, expired], ["trade"])
            await until(lambda: len(sink.refusals) == 3, what="three refusals")
            said = dict(sink.refusals)
            assert "expired or was never there" in said[strange.id]
            assert "expired or was never there" in said[expired.id]
            assert "its token is 2560001 now, not 2560257" in said[reused.id]
            assert feed.wanted() == {infy.id}
            await until(lambda: modes(simulator) == [{408065: "quote"}], what="they are not streamed")
            assert set(sink.all()["instrument"].tolist()) <= {infy.number}, "nor were they ever"


async def test_two_instruments_cannot_have_one_token() -> None:
    async with market() as (simulator, made, _):
        sink, infy = Sink(), instrument()
        old = instrument("NSE:OLDNAME", number=2)
        feed = made.feed(sink, QUICK)
        async with running(feed):
            await feed.subscribe([infy, old], ["trade"])
            await feed.subscribe([old], ["trade"])
            assert [id_ for id_, _ in sink.refusals] == [old.id] * 2
            await feed.unsubscribe([old])
            assert feed.wanted() == {infy.id}
            await until(lambda: modes(simulator) == [{408065: "quote"}], what="the one that has it")


async def test_a_look_up_that_fails_is_tried_again_and_stops_no_stream() -> None:
    async with market(limits=True) as (simulator, made, _):
        sink = Sink()
        infy, strange = instrument(), instrument("NSE:NOSUCH", 999 << 8 | 1, 90)
        real, failures = simulator._quotes, []

        def broken(kind: str, request: Request) -> Any:
            if len(failures) < 1:
                failures.append(request.path)
                raise Refusal(400, "InputException", "not today")
            return real(kind, request)

        simulator._quotes = broken  # type: ignore[method-assign]
        feed = made.feed(sink, QUICK)
        async with running(feed):
            await feed.subscribe([infy, strange], ["trade"])
            await until(lambda: feed.codec.packets >= 1, what="a packet")
            await until(lambda: len(sink.refusals) == 1, what="the refusal", within=15)
            assert failures


async def test_a_bug_ends_the_run_and_is_not_swallowed() -> None:
    async def broken(ids: Any) -> Any:
        raise ZeroDivisionError("a bug")

    feed = KiteFeed("ws://127.0.0.1:1", {}, Sink(), lambda: Nanos(0), broken, tuning=QUICK)
    await feed.subscribe([instrument()], ["trade"])
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(feed.run(), 5)
    assert isinstance(caught.value.exceptions[0], ZeroDivisionError)


async def test_bad_subscriptions_are_refused_before_anything_changes() -> None:
    async with market() as (_, made, _):
        listed = await numbered(made)
        infy = listed["NSE:INFY"]
        feed = made.feed(Sink(), QUICK)
        with pytest.raises(BadInput, match="trade, quote, depth"):
            await feed.subscribe([infy], ["bar"])
        with pytest.raises(BadInput, match="no number"):
            await feed.subscribe([infy, msgspec.structs.replace(infy, number=0)], ["trade"])
        with pytest.raises(BadInput, match="not one of Kite's"):
            await feed.subscribe([msgspec.structs.replace(infy, provider_symbol="INFY")], ["trade"])
        with pytest.raises(BadInput, match="not one of Kite's"):
            await feed.subscribe([msgspec.structs.replace(infy, provider="alpaca")], ["trade"])
        many = [instrument(f"NSE:S{n}", n << 8 | 1, n) for n in range(1, MOST_TOKENS + 2)]
        with pytest.raises(BadInput, match="3001 on one connection, Kite carries 3000"):
            await feed.subscribe(many, ["trade"])
        assert feed.wanted() == frozenset()


async def test_three_thousand_instruments_stream_and_the_broker_refuses_more() -> None:
    async with market(shares=MOST_TOKENS + 10) as (simulator, made, _):
        sink, listed = Sink(), await numbered(made)
        shares = [each for id_, each in listed.items() if id_.startswith("NSE:SHARE")]
        feed = made.feed(sink, QUICK)
        async with running(feed):
            await feed.subscribe(shares[:MOST_TOKENS], SOME)
            await until(lambda: [len(each) for each in modes(simulator)] == [MOST_TOKENS], what="all tokens")
            await until(lambda: len({n for d in sink.depths for n in d["instrument"].tolist()}) == MOST_TOKENS)
            # What the broker counts may differ from what we do: somebody else's token is on our connection.
            next(iter(simulator.tickers.values())).modes[408065] = "ltp"
            await feed.unsubscribe(shares[:5])
            await until(lambda: len(modes(simulator)[0]) == MOST_TOKENS - 4)
            await feed.subscribe(shares[MOST_TOKENS : MOST_TOKENS + 5], SOME)
            await until(lambda: len(sink.refusals) == 5, what="the last five are refused")
            assert "Can't subscribe to more than 3000 instruments" in sink.refusals[0][1]
            assert len(feed.wanted()) == MOST_TOKENS - 5
            assert (sink.opens, sink.closes) == (1, [])


async def test_a_server_that_is_away_is_waited_for_with_growing_pauses() -> None:
    simulator = KiteSimulator(hold=True)
    await simulator.start()
    credentials, url = simulator.credentials(), simulator.url
    await simulator.stop()
    made = KiteMarket({"base_url": url}, credentials)
    sink = Sink()
    feed = made.feed(sink, QUICK)
    async with running(feed):
        await feed.subscribe([instrument()], ["trade"])
        await until(lambda: feed.reconnects >= 3, what="tries")
        assert len(sink.closes) == 1, "the same reason is told once"
        assert credentials["access_token"] not in sink.closes[0]
    await made.close()


def test_listings_of_the_simulator_show_what_they_are() -> None:
    assert repr(Listing(408065, "INFY", "NSE", 150_000)) == "<Listing NSE:INFY 1500>"

"""The simulator speaks the documented wire, judged by an independent client library."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from connectors.binance.market import BinanceMarket
from connectors.binance.product import SPOT, USDM
from connectors.binance.simulator import BinanceSimulator
from connectors.binance.source import RecordingSource, restamped
from connectors.binance.synthetic import SyntheticSettings, SyntheticSource
from tests.connectors.support import data_file, until
from tests.support.patience import PATIENCE
from trading.errors import BadInput, NotReady
from trading.ids import Nanos
from trading.instruments import Instrument

START = 1_700_000_000_000_000_000


def source(**settings: Any) -> SyntheticSource:
    base: dict[str, Any] = {"symbols": 3, "ticks_per_s": 2000.0, "history_minutes": 300, "start_at": START}
    return SyntheticSource(SyntheticSettings(**(base | settings)))


@contextlib.asynccontextmanager
async def running(made: SyntheticSource | RecordingSource, **options: Any) -> AsyncIterator[BinanceSimulator]:
    simulator = BinanceSimulator(made, **options)
    await simulator.start()
    try:
        yield simulator
    finally:
        await simulator.stop()


def ws(simulator: BinanceSimulator, path: str) -> connect:
    url = "ws" + simulator.url.removeprefix("http") + path
    return connect(url, compression=None, ping_interval=None, close_timeout=0.2)


async def hear(socket: ClientConnection, within: float = 5.0 * PATIENCE) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), within))


async def ask(socket: ClientConnection, **message: Any) -> Any:
    """The reply to a control message; stream events in between are passed over."""
    await socket.send(json.dumps(message))
    while True:
        said = await hear(socket)
        if "stream" not in said and "e" not in said:
            return said


def test_the_same_seed_gives_the_same_bytes() -> None:
    def first(made: SyntheticSource, count: int = 5000) -> list[Any]:
        specs = made.prepare(0)
        return [list(islice(made.events(), count)), [made.history(spec.symbol) for spec in specs]]

    assert first(source(seed=5)) == first(source(seed=5))
    assert first(source(seed=5)) != first(source(seed=6))
    made = source(seed=5)
    made.prepare(0)
    assert list(islice(made.events(), 100)) == list(islice(made.events(), 100))


@pytest.mark.parametrize("futures", [True, False])
def test_the_synthetic_market_is_sound(futures: bool) -> None:
    made = source(futures=futures, symbols=8, ticks_per_s=5000.0, open_burst=4.0, burst_s=1.0, duration_s=8.0)
    made.prepare(0)
    last_due = 0
    updates: dict[str, int] = {}
    counts = [0] * 8
    for event in made.events():
        assert event.due >= last_due
        last_due = event.due
        said = json.loads(event.payload)
        assert said["stream"] == event.stream
        data = said["data"]
        if event.stream.endswith("@bookTicker"):
            assert 0 < float(data["b"]) < float(data["a"])
            assert float(data["B"]) > 0
            assert data["u"] == updates.get(data["s"], 1_000_000) + 1
            updates[data["s"]] = data["u"]
            assert ("E" in data) is futures
        elif event.stream.endswith("@trade"):
            assert float(data["p"]) > 0
            assert float(data["q"]) > 0
        else:
            assert data["U"] <= data["u"] == updates[data["s"]]
        counts[int((event.due - START) / 1e9)] += 1
    assert counts[0] > 2 * counts[7], "the open is busier"
    assert 4000 < counts[7] < 6500


async def test_raw_and_combined_streams_carry_the_same_payload() -> None:
    async with running(source(futures=False)) as simulator:
        async with ws(simulator, "/ws/btcusdt@trade/ethusdt@trade") as raw:
            said = await hear(raw)
            assert said["e"] == "trade"
            assert "stream" not in said
        async with ws(simulator, "/stream?streams=btcusdt@trade/btcusdt@bookTicker") as combined:
            said = await hear(combined)
            assert set(said) == {"stream", "data"}
            assert said["stream"] in ("btcusdt@trade", "btcusdt@bookTicker")


@pytest.mark.parametrize(
    ("route", "stream", "heard"),
    [
        ("/public", "btcusdt@bookTicker", True),
        ("/public", "btcusdt@trade", True),
        ("/market", "btcusdt@trade", False),
        ("/market", "btcusdt@kline_1m", True),
        ("/public", "btcusdt@kline_1m", False),
        ("", "btcusdt@bookTicker", True),
        ("", "btcusdt@kline_1m", False),
    ],
)
async def test_futures_streams_flow_on_their_own_route_only_and_are_silent_elsewhere(
    route: str, stream: str, heard: bool
) -> None:
    options = {"wait_for_first_subscriber": False}
    async with (
        running(source(futures=True), **options) as simulator,
        ws(simulator, f"{route}/stream") as socket,
    ):
        assert await ask(socket, method="SUBSCRIBE", params=[stream], id=1) == {"result": None, "id": 1}
        if heard:
            assert (await hear(socket))["stream"] == stream
        else:
            with pytest.raises(TimeoutError):
                await hear(socket, 0.6)
        assert (await ask(socket, method="LIST_SUBSCRIPTIONS", id=2))["result"] == [stream]


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        ({"method": "SUBSCRBE", "params": [], "id": 1}, 2, "unknown variant `SUBSCRBE`"),
        ({"params": [], "id": 1}, 2, "missing field `method`"),
        ({"method": "SUBSCRIBE", "params": "x", "id": 1}, 2, "params"),
        ({"method": "SUBSCRIBE", "params": [], "id": [1]}, 2, "request ID"),
        ({"method": "SET_PROPERTY", "params": ["speed", True], "id": 1}, 0, "Unknown property"),
        ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 1}, 1, "expected Boolean"),
        ({"method": "GET_PROPERTY", "params": [], "id": 1}, 2, "property name"),
        ({"method": "GET_PROPERTY", "params": ["combined", 1], "id": 1}, 2, "too many parameters"),
    ],
)
async def test_bad_control_messages_get_the_documented_errors(message: dict[str, Any], code: int, said: str) -> None:
    async with running(source()) as simulator, ws(simulator, "/ws") as socket:
        answer = await ask(socket, **message)
        assert answer["code"] == code
        assert said in answer["msg"]
        await socket.send("{not json")
        assert (await hear(socket))["code"] == 3


async def test_properties_switch_between_raw_and_combined() -> None:
    async with running(source()) as simulator, ws(simulator, "/ws/btcusdt@trade") as socket:
        assert (await ask(socket, method="GET_PROPERTY", params=["combined"], id=1))["result"] is False
        await ask(socket, method="SET_PROPERTY", params=["combined", True], id=2)
        assert (await hear(socket))["stream"] == "btcusdt@trade"


async def test_unsubscribed_streams_stop_at_the_reply() -> None:
    async with running(source()) as simulator, ws(simulator, "/stream?streams=btcusdt@trade") as socket:
        await hear(socket)
        assert (await ask(socket, method="UNSUBSCRIBE", params=["btcusdt@trade"], id=9))["id"] == 9
        with pytest.raises(TimeoutError):
            await hear(socket, 0.3)


async def test_too_many_control_messages_close_with_policy_violation() -> None:
    async with running(source()) as simulator, ws(simulator, "/ws") as socket:
        for number in range(SPOT.messages_per_s + 1):
            await socket.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
        with pytest.raises(ConnectionClosed) as caught:  # noqa: PT012
            while True:
                await hear(socket)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "Too many requests")


async def test_more_streams_than_allowed_are_refused() -> None:
    async with running(source(), streams_per_connection=2) as simulator, ws(simulator, "/ws") as socket:
        params = ["a@trade", "b@trade", "c@trade"]
        assert "too many streams" in (await ask(socket, method="SUBSCRIBE", params=params, id=1))["msg"]
        assert (await ask(socket, method="SUBSCRIBE", params=params[:2], id=2))["result"] is None


async def test_the_server_pings_and_cuts_who_does_not_answer() -> None:
    async with running(source(), ping_every_s=0.1, pong_within_s=1.0, messages_per_s=50) as simulator:
        async with ws(simulator, "/ws") as socket:
            await asyncio.sleep(1.5)
            assert (await ask(socket, method="LIST_SUBSCRIPTIONS", id=1))["result"] == []
        reader, writer = await asyncio.open_connection("127.0.0.1", int(simulator.url.rpartition(":")[2]))
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        writer.write(f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n".encode())
        assert b"101" in await reader.readline()
        await asyncio.wait_for(reader.read(), 5 * PATIENCE)
        writer.close()
        assert simulator.stats()["events"]["closed_for_silence"] == 1


async def test_connections_end_after_their_time() -> None:
    async with running(source(), disconnect_after_s=0.3) as simulator, ws(simulator, "/ws") as socket:
        with pytest.raises(ConnectionClosed):
            await hear(socket)
        assert simulator.stats()["events"]["closed_for_age"] == 1


async def test_a_slow_client_is_disconnected_and_the_others_are_not() -> None:
    made = source(ticks_per_s=60_000.0, symbols=1)
    async with running(made, write_limit=200_000) as simulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(simulator.url.rpartition(":")[2]), limit=1)
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        path = "/stream?streams=btcusdt@trade/btcusdt@bookTicker"
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n".encode()
        )
        async with ws(simulator, "/stream?streams=btcusdt@trade") as socket:
            await hear(socket)
            slow = lambda: simulator.stats()["events"].get("closed_for_slowness", 0)  # noqa: E731
            async with asyncio.timeout(30):
                while not slow():
                    await hear(socket)
            await hear(socket)
        del reader
        writer.close()


async def test_replay_keeps_its_pace_and_changes_it() -> None:
    async with (
        running(source(duration_s=1000.0), speed=4.0) as simulator,
        ws(simulator, "/ws/btcusdt@trade") as socket,
    ):
        await hear(socket)
        async with httpx.AsyncClient() as client:

            async def market_time() -> tuple[float, float, float]:
                """Seconds of market time, and the two moments between which it was read."""
                asked = time.monotonic()
                answer = await client.get(f"{simulator.url}/simulator/stats")
                return asked, answer.json()["replay"]["market_time"] / 1e9, time.monotonic()

            async def pace_is(speed: float) -> None:
                """As much market time has gone by as the clock allows, however slowly this machine answers."""
                asked, began, answered = await market_time()
                await asyncio.sleep(1.0)
                asked_again, now, answered_again = await market_time()
                # It moves in steps, which come late on a busy machine.
                assert speed * (asked_again - answered - 0.3) < now - began < speed * (answered_again - asked + 0.3)

            await pace_is(4.0)
            answer = await client.post(f"{simulator.url}/simulator/rate", json={"speed": 0.5})
            assert answer.json() == {"speed": 0.5}
            await pace_is(0.5)
            bad = await client.post(f"{simulator.url}/simulator/rate", json={"speed": -1})
            assert bad.status_code == 400
            assert "speed" in bad.json()["msg"]
            assert (await client.post(f"{simulator.url}/simulator/nonsense")).status_code == 404


async def test_a_paused_stream_is_silent_until_it_is_resumed() -> None:
    async with running(source()) as simulator, ws(simulator, "/ws/btcusdt@trade") as socket:
        await hear(socket)
        async with httpx.AsyncClient() as client:
            await client.post(f"{simulator.url}/simulator/pause", json={"stream": "btcusdt@trade"})
            with pytest.raises(TimeoutError):  # noqa: PT012
                while True:
                    await hear(socket, 0.3)
            await client.post(f"{simulator.url}/simulator/resume", json={"stream": "btcusdt@trade"})
            await hear(socket)


async def test_an_ignored_stream_is_accepted_and_silent_for_who_asks_from_now_on() -> None:
    async with running(source()) as simulator, ws(simulator, "/ws/btcusdt@trade") as before:
        await hear(before)
        async with httpx.AsyncClient() as client:
            await client.post(f"{simulator.url}/simulator/ignore", json={"streams": ["btcusdt@trade"]})
            async with ws(simulator, "/ws/btcusdt@trade") as after:
                with pytest.raises(TimeoutError):
                    await hear(after, 0.5)
            await hear(before)
            await client.post(f"{simulator.url}/simulator/ignore", json={"streams": []})
        async with ws(simulator, "/ws/btcusdt@trade") as again:
            await hear(again)
        assert simulator.stats()["events"]["ignored"] == 1


async def test_waiting_for_the_first_subscriber_starts_at_line_one() -> None:
    async with running(source()) as simulator:
        await asyncio.sleep(0.1)
        assert simulator.stats()["replay"]["started"] is False
        async with ws(simulator, "/ws/btcusdt@trade") as socket:
            await hear(socket)
            replay = simulator.stats()["replay"]
            assert (replay["started"], replay["first_line"]) == (True, 1)


@pytest.mark.parametrize("futures", [True, False])
async def test_listing_and_history_come_over_rest_and_run_into_the_live_market(futures: bool) -> None:
    async with running(source(futures=futures, duration_s=130.0), speed=None) as simulator:
        market = BinanceMarket(USDM if futures else SPOT, {"base_url": simulator.url})
        listed = await market.instruments()
        assert [one.provider_symbol for one in listed] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
        assert all(one.tick_size > 0 and one.lot_size > 0 for one in listed)
        btc = listed[0]
        before = await market.history(btc, "1m", Nanos(START - 3600 * 10**9), Nanos(START))
        assert len(before) == 59, "the one under way at the start is no closed bar"
        simulator.http("POST", "/simulator/start", {}, b"{}")
        await asyncio.wait_for(simulator.finished(), 30)
        end = simulator.stats()["replay"]["market_time"]
        bars = await market.history(btc, "1m", Nanos(START - 3600 * 10**9), Nanos(end))
        assert bars[:59] == before
        assert len(bars) >= 61
        assert all(b.opened_at - a.opened_at == 60 * 10**9 for a, b in pairwise(bars))
        assert all(one.low <= min(one.open, one.close) <= max(one.open, one.close) <= one.high for one in bars)
        jumps = [abs(b.open - a.close) / a.close for a, b in pairwise(bars)]
        assert max(jumps) < 0.01
        hours = await market.history(btc, "1h", Nanos(START - 4 * 3600 * 10**9), Nanos(end))
        assert len(hours) >= 3
        await market.close()


async def test_history_is_paged_without_a_hole() -> None:
    async with running(source(history_minutes=3600, futures=True)) as simulator:
        market = BinanceMarket(USDM, {"base_url": simulator.url})
        btc = (await market.instruments())[0]
        bars = await market.history(btc, "1m", Nanos(START - 3500 * 60 * 10**9), Nanos(START))
        assert len(bars) == 3499
        assert all(b.opened_at - a.opened_at == 60 * 10**9 for a, b in pairwise(bars))
        for interval, start, end, field in (
            ("7m", 0, 1, "interval"),
            ("1m", START, START, "end"),
            ("1m", 0, START, "start"),
        ):
            with pytest.raises(BadInput) as caught:
                await market.history(btc, interval, Nanos(start), Nanos(end))
            assert caught.value.field == field
        unknown = msgspec.structs.replace(btc, provider_symbol="NOPE")
        with pytest.raises(BadInput, match="Invalid symbol"):
            await market.history(unknown, "1m", Nanos(START - 10**12), Nanos(START))
        await market.close()


async def test_rate_limits_are_waited_out_and_a_ban_is_told() -> None:
    async with running(source()) as simulator:
        market = BinanceMarket(SPOT, {"base_url": simulator.url})
        simulator.http("POST", "/simulator/limit", {}, b'{"requests":1,"status":429,"retry_after":1}')
        began = asyncio.get_running_loop().time()
        assert await market.instruments()
        assert asyncio.get_running_loop().time() - began >= 1.0
        simulator.http("POST", "/simulator/limit", {}, b'{"requests":1,"status":418,"retry_after":300}')
        with pytest.raises(NotReady) as caught:
            await market.instruments()
        assert 200 < caught.value.retry_after <= 300
        assert "banned" in str(caught.value)
        await market.close()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v3/ping", 200, None),
        ("/api/v3/klines?interval=1m", 400, -1102),
        ("/api/v3/klines?symbol=NOPE&interval=1m", 400, -1121),
        ("/api/v3/klines?symbol=BTCUSDT&interval=7m", 400, -1120),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=5000", 400, -1130),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime=x", 400, -1100),
        ("/fapi/v1/ping", 404, -5000),
        ("/api/v3/nonsense", 404, -5000),
    ],
)
async def test_rest_errors_are_binances(path: str, status: int, code: int | None) -> None:
    async with running(source()) as simulator, httpx.AsyncClient() as client:
        answer = await client.get(simulator.url + path)
        assert answer.status_code == status
        assert answer.json().get("code") == code


async def test_a_recording_is_served_with_its_own_instruments_bars_and_book() -> None:
    path: Path = data_file("market/crypto_binance_raw_ws/examples_usdm_btcusdt_20240808.gz")
    made = RecordingSource(path)
    async with running(made, speed=None, wait_for_first_subscriber=False) as simulator:
        market = BinanceMarket(USDM, {"base_url": simulator.url})
        (btc,) = await market.instruments()
        assert isinstance(btc, Instrument)
        assert (str(btc.tick_size), str(btc.lot_size), btc.currency) == ("0.1", "0.001", "USDT")
        await asyncio.wait_for(simulator.finished(), 30)
        replay = simulator.stats()["replay"]
        assert (replay["first_line"], replay["last_line"]) == (1, 93954)
        at = replay["market_time"]
        bars = await market.history(btc, "1m", Nanos(at - 600 * 10**9), Nanos(at))
        assert sum(bar.trades for bar in bars) > 15_000
        async with httpx.AsyncClient() as client:
            book = (await client.get(f"{simulator.url}/fapi/v1/depth?symbol=BTCUSDT&limit=5")).json()
        assert len(book["bids"]) == len(book["asks"]) == 5
        assert float(book["bids"][0][0]) > float(book["bids"][1][0])
        assert float(book["asks"][0][0]) < float(book["asks"][1][0])
        await market.close()


async def test_restamping_moves_times_to_now() -> None:
    payload = b'{"stream":"x@trade","data":{"e":"trade","E":1723161255343,"T":1723161255342,"p":"1723161255343"}}'
    assert json.loads(restamped(payload, 1000))["data"] == {
        "e": "trade",
        "E": 1723161256343,
        "T": 1723161256342,
        "p": "1723161255343",
    }


async def test_a_port_in_use_and_bad_options_are_named() -> None:
    async with running(source()) as simulator:
        port = int(simulator.url.rpartition(":")[2])
        with pytest.raises(BadInput, match="use another"):
            await BinanceSimulator(source(), port=port).start()
    with pytest.raises(BadInput, match="speed"):
        BinanceSimulator(source(), speed=0.0)
    with pytest.raises(BadInput, match="port"):
        BinanceSimulator(source(), port=99999)
    for field, value in (("symbols", 0), ("ticks_per_s", 0.0), ("correlation", 2.0), ("duration_s", 0.0)):
        with pytest.raises(BadInput) as caught:
            source(**{field: value})
        assert caught.value.field == field


async def test_kline_streams_close_their_bars() -> None:
    made = source(futures=False, duration_s=200.0)
    async with (
        running(made, speed=60.0) as simulator,
        ws(simulator, "/stream?streams=btcusdt@kline_1m") as socket,
    ):
        closed = []
        async with asyncio.timeout(30):
            while len(closed) < 2:
                kline = (await hear(socket))["data"]["k"]
                if kline["x"]:
                    closed.append(kline)
        assert closed[1]["t"] - closed[0]["t"] == 60_000
        await until(lambda: simulator.stats()["replay"]["finished"])

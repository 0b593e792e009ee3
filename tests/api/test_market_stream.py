"""Ticks, books and bars over `/v1/stream`: a real Redis and a real socket; the feed's worker is played."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from api.formats import parse_time
from api.market_client import MOST_TOPICS
from api.routes import stream as route
from cluster import streams
from tests.api.playing import Stage
from tests.support.patience import PATIENCE
from trading.bar_building import BarRevision, Built
from trading.bars import Bar
from trading.depth import DEPTH, pack_depth
from trading.ids import Nanos
from trading.last_values import LastValues
from trading.ticks import TickBuffer, decode, pack_batch

MINUTE = 60_000_000_000


class Worker:
    """Plays the feed ``main`` and its recorder on the bus."""

    def __init__(self, stage: Stage, ids: list[str], numbers: dict[str, int]) -> None:
        self.bus = stage.services.bus
        self.hot = stage.services.hot
        self.ids = ids
        self.numbers = numbers
        self.batch = 0

    async def trade(self, *prices: float, of: int = 0, lost: bool = False) -> None:
        buffer = TickBuffer()
        for price in prices:
            buffer.trade(self.numbers[self.ids[of]], price, 2.0, 0, 5, time.time_ns(), int(price))
        await self.send(buffer, lost=lost)

    async def quote(self, bid: float, ask: float) -> None:
        buffer = TickBuffer()
        buffer.quote(self.numbers[self.ids[0]], bid, 1.0, ask, 3.0, 0, 0, time.time_ns(), 0)
        await self.send(buffer)

    async def send(self, buffer: TickBuffer, *, lost: bool = False) -> None:
        self.batch += 1
        if not lost:
            await self.bus.publish(streams.ticks("main"), pack_batch(1, self.batch, 0, buffer.take()))

    async def keep(self, price: float) -> None:
        """Last values, as a worker keeps them for who comes late."""
        last = LastValues()
        buffer = TickBuffer()
        buffer.trade(self.numbers[self.ids[0]], price, 1.0, 0, 5, time.time_ns(), 1)
        last.take(decode(buffer.take()))
        await self.hot.put("last:main:0", last.all().tobytes(), ttl_s=60)

    async def bars(self, *opened: int, since: int, spoilt: tuple[int, ...] = (), revision: int = 0) -> None:
        number = self.numbers[self.ids[0]]
        bars = [
            BarRevision(instrument=number, width=MINUTE, revision=revision, since=since,
                        bar=Bar(opened_at=Nanos(at), open=1, high=2, low=1, close=2, volume=3, trades=revision))
            for at in opened
        ]  # fmt: skip
        built = Built(bars=bars, spoilt=[(number, MINUTE, at) for at in spoilt])
        await self.bus.publish(streams.built("main"), msgspec.msgpack.encode(built))


@pytest.fixture
async def worker(stage: Stage, venue: str) -> Worker:
    body = {"provider": "binance-spot", "settings": {"base_url": venue}}
    answer = await stage.ask("POST", "/v1/instruments/import", body)
    assert answer.status_code == 200, answer.text
    listed = await stage.services.instruments.all()
    ids = [str(each.id) for each in listed]
    await stage.make("/v1/feeds", {"id": "main", **body, "instruments": ids[:3]})
    return Worker(stage, ids, {str(each.id): each.number for each in listed})


@asynccontextmanager
async def listening(stage: Stage, served: str, **hello: Any) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
    async with connect(f"ws://{served}/v1/stream") as socket:
        await socket.send(json.dumps({"key": stage.operator_key, **hello}))
        yield socket, await read(socket)


async def read(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(20):
        message: dict[str, Any] = json.loads(await socket.recv())
        return message


async def updates(socket: ClientConnection, count: int) -> list[dict[str, Any]]:
    """The next ``count`` updates, however they are cut into messages."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        found += (await read(socket))["updates"]
    assert len(found) == count
    return found


async def refused(stage: Stage, served: str, **hello: Any) -> str:
    async with connect(f"ws://{served}/v1/stream") as socket:
        await socket.send(json.dumps({"key": stage.operator_key, **hello}))
        async with asyncio.timeout(20):
            await socket.wait_closed()
        assert socket.close_code == route.BAD_HELLO
        return socket.close_reason or ""


async def test_ticks_come_as_the_newest_values_and_what_is_left_out_is_counted(
    stage: Stage, served: str, worker: Worker
) -> None:
    topic = f"ticks:main/{worker.ids[0]}"
    async with listening(stage, served, topics=[topic]) as (socket, greeting):
        assert greeting["topics"] == [topic]
        assert greeting["limits"]["topics"] == MOST_TOPICS
        await worker.trade(100.0)
        (first,) = await updates(socket, 1)
        assert (first["topic"], first["key"], first["skipped"]) == (topic, worker.ids[0], 0)
        assert (first["body"]["price"], first["body"]["bid"]) == (100.0, None)
        await worker.trade(101.0, 102.0, 103.0)
        (second,) = await updates(socket, 1)
        assert (second["body"]["price"], second["skipped"]) == (103.0, 2)
        assert second["n"] == first["n"] + 3
        await worker.quote(99.0, 104.0)
        (third,) = await updates(socket, 1)
        assert (third["body"]["price"], third["body"]["bid"], third["body"]["ask"]) == (103.0, 99.0, 104.0)
        assert third["gaps"] == 0
        await worker.trade(1.0, lost=True)
        await worker.trade(105.0)
        (fourth,) = await updates(socket, 1)
        assert (fourth["gaps"], fourth["body"]["price"]) == (1, 105.0)
        await worker.trade(7.0, of=1)
        await worker.trade(106.0)
        (fifth,) = await updates(socket, 1)
        assert fifth["body"]["price"] == 106.0


async def test_who_comes_late_has_the_last_values_first_and_then_the_stream(
    stage: Stage, served: str, worker: Worker
) -> None:
    await worker.keep(50.0)
    topic = f"ticks:main/{worker.ids[0]}"
    async with listening(stage, served, topics=[topic]) as (socket, _):
        (first,) = await updates(socket, 1)
        assert first["body"]["price"] == 50.0
        await worker.trade(51.0)
        (second,) = await updates(socket, 1)
        assert (second["body"]["price"], second["n"]) == (51.0, first["n"] + 1)
        async with listening(stage, served, topics=[topic]) as (late, _):
            (same,) = await updates(late, 1)
            assert same == second


async def test_a_client_comes_back_and_is_told_what_it_missed(stage: Stage, served: str, worker: Worker) -> None:
    topic = f"ticks:main/{worker.ids[0]}"
    async with listening(stage, served, topics=[topic]) as (socket, greeting):
        await worker.trade(100.0)
        (seen,) = await updates(socket, 1)
    await worker.trade(101.0)
    await worker.trade(102.0)
    await stage.services.bus.publish("elsewhere", b"")
    hello = {"topics": [topic], "instance": greeting["instance"], "places": {topic: seen["n"]}}
    (kept,) = stage.services.market._topics.values()
    async with asyncio.timeout(20):
        while kept.line.newest < seen["n"] + 2:
            await asyncio.sleep(0.01)
    async with listening(stage, served, **hello) as (socket, _):
        (fresh,) = await updates(socket, 1)
        assert (fresh["body"]["price"], fresh["skipped"], fresh["n"]) == (102.0, 1, seen["n"] + 2)
    async with listening(stage, served, **{**hello, "places": {topic: fresh["n"]}}) as (socket, _):
        await worker.trade(103.0)
        (next_one,) = await updates(socket, 1)
        assert (next_one["body"]["price"], next_one["skipped"]) == (103.0, 0)
    async with listening(stage, served, **{**hello, "instance": "another"}) as (socket, _):
        (whole,) = await updates(socket, 1)
        assert whole["skipped"] == 0


async def test_bars_come_in_order_with_holes_told_and_longer_ones_derived(
    stage: Stage, served: str, worker: Worker
) -> None:
    one, five = (f"bars:{worker.ids[0]}/{interval}" for interval in ("1m", "5m"))
    async with listening(stage, served, topics=[one, five]) as (socket, greeting):
        first = parse_time(greeting["since"][one])
        assert first % MINUTE == 0
        assert abs(first - time.time_ns()) < MINUTE + 2_000_000_000
        start = parse_time(greeting["since"][five])
        assert start % (5 * MINUTE) == 0
        assert start >= first
        await worker.bars(first, since=first - 9 * MINUTE)
        told = await updates(socket, 1 if start > first else 2)
        assert told[0]["topic"] == one
        assert (parse_time(told[0]["body"]["opened_at"]), told[0]["body"]["closed"]) == (first, True)
        # The recorder began anew at the beginning of the five minutes.
        minutes = [start + 5 * MINUTE + n * MINUTE for n in range(5)]
        await worker.bars(*minutes, since=minutes[0])
        seen: list[dict[str, Any]] = []
        # (Of the five-minute bar under way, only what is the newest when it is sent.)
        while not any(each["topic"] == five and each["body"].get("closed") for each in seen):
            seen += (await read(socket))["updates"]
    by_topic = {topic: [each["body"] for each in seen if each["topic"] == topic] for topic in (one, five)}
    hole = by_topic[one][0]["missing"]
    assert (parse_time(hole["start"]), parse_time(hole["end"])) == (first + MINUTE, minutes[0])
    assert [parse_time(body["opened_at"]) for body in by_topic[one][1:]] == minutes
    assert by_topic[five][0]["missing"]["end"] == hole["end"]
    last = by_topic[five][-1]
    assert (parse_time(last["opened_at"]), last["volume"], last["closed"]) == (minutes[0], 15.0, True)


async def test_an_amended_bar_replaces_the_first_and_a_wrong_one_is_taken_back(
    stage: Stage, served: str, worker: Worker
) -> None:
    topic = f"bars:{worker.ids[0]}/1m"
    async with listening(stage, served, topics=[topic]) as (socket, greeting):
        first = parse_time(greeting["since"][topic])
        await worker.bars(first, since=first)
        assert (await updates(socket, 1))[0]["body"]["trades"] == 0
        await worker.bars(first, since=first, revision=1)
        assert (await updates(socket, 1))[0]["body"]["trades"] == 1
        await worker.bars(since=first, spoilt=(first,))
        assert (await updates(socket, 1))[0]["body"]["missing"]["start"] == greeting["since"][topic]
        async with listening(stage, served, topics=[topic]) as (late, _):
            (only,) = await updates(late, 1)
            assert "missing" in only["body"]


async def test_the_venues_own_bars_come_on_the_same_topic(stage: Stage, served: str, worker: Worker) -> None:
    topic = f"bars:{worker.ids[0]}/1m"
    async with listening(stage, served, topics=[topic]) as (socket, greeting):
        first = parse_time(greeting["since"][topic])
        bar = Bar(opened_at=Nanos(first), open=1, high=2, low=1, close=2, volume=3, trades=4)
        for final in (False, True):
            told = msgspec.msgpack.encode((worker.numbers[worker.ids[0]], final, bar, "1m"))
            await stage.services.bus.publish(streams.bars("main"), told)
            (update,) = await updates(socket, 1)
            assert (update["body"]["closed"], update["body"]["trades"]) == (final, 4)


async def test_books_come_whole(stage: Stage, served: str, worker: Worker) -> None:
    topic = f"depth:main/{worker.ids[0]}"
    books = np.zeros(2, dtype=DEPTH)
    books["instrument"] = [worker.numbers[worker.ids[1]], worker.numbers[worker.ids[0]]]
    books["scale"] = 100
    books["bids"]["price"][:, :2] = [10_001, 10_000]
    books["bids"]["size"][:, :2] = [15, 70]
    books["bids"]["places"] = 1
    books["asks"]["price"][:, 0] = 10_003
    books["asks"]["size"][:, 0] = 4
    async with listening(stage, served, topics=[topic]) as (socket, _):
        await stage.services.bus.publish(streams.depth("main"), pack_depth(1, 1, 0, books))
        (update,) = await updates(socket, 1)
    assert update["body"]["bids"] == [[100.01, 1.5, 0], [100.0, 7.0, 0]]
    assert update["body"]["asks"] == [[100.03, 4.0, 0]]


async def test_topics_are_added_and_given_up_while_it_runs(stage: Stage, served: str, worker: Worker) -> None:
    one, two = (f"ticks:main/{id_}" for id_ in worker.ids[:2])
    async with listening(stage, served, topics=[one]) as (socket, _):
        await socket.send(json.dumps({"subscribe": [two], "unsubscribe": [one]}))
        assert (await read(socket))["topics"] == [two]
        await worker.trade(5.0)
        await worker.trade(6.0, of=1)
        (update,) = await updates(socket, 1)
        assert (update["topic"], update["body"]["price"]) == (two, 6.0)
        await socket.send(json.dumps({"subscribe": ["ticks:nowhere/X:Y"]}))
        assert "nowhere" in (await read(socket))["error"]
        await socket.send("nonsense")
        assert (await read(socket))["error"]
        await worker.trade(7.0, of=1)
        assert (await updates(socket, 1))[0]["body"]["price"] == 7.0


async def test_a_client_gets_messages_at_its_own_pace_and_the_newest_values_in_them(
    stage: Stage, served: str, worker: Worker
) -> None:
    topic = f"ticks:main/{worker.ids[0]}"
    async with (
        listening(stage, served, topics=[topic], per_second=2) as (slow, _),
        listening(stage, served, topics=[topic], per_second=50) as (quick, _),
    ):
        began = time.monotonic()
        for price in range(1, 101):
            await worker.trade(float(price))
            await asyncio.sleep(0.01)
        seen: dict[str, list[dict[str, Any]]] = {"slow": [], "quick": []}
        for name, socket in (("slow", slow), ("quick", quick)):
            while not seen[name] or seen[name][-1]["body"]["price"] < 100:
                seen[name] += (await read(socket))["updates"]
        elapsed = time.monotonic() - began
    assert len(seen["slow"]) <= 2 * elapsed + 2
    assert len(seen["quick"]) > 2 * len(seen["slow"])
    for told in seen.values():
        assert sum(each["skipped"] + 1 for each in told) == 100
    assert (await stage.ask("GET", "/metrics")).text.count("\nquarterdeck_market_stream_conflated_total ") == 1


async def test_a_client_that_does_not_read_holds_up_nobody_and_is_sent_away(
    stage: Stage, served: str, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience_s = 1.0 * PATIENCE
    monkeypatch.setattr(route, "SEND_S", patience_s)
    names = [f"ticks:main/{id_}" for id_ in worker.ids]
    async with listening(stage, served, topics=names, per_second=50) as (quick, _):
        frozen, writer = await asyncio.open_connection(*served.split(":"), limit=1024)
        writer.transport.get_extra_info("socket").setsockopt(1, 8, 4096)
        writer.write(
            f"GET /v1/stream HTTP/1.1\r\nHost: {served}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b"101" in await frozen.readline()
        hello = json.dumps({"key": stage.operator_key, "topics": names, "per_second": 50}).encode()
        mask = b"\x00" * 4
        writer.write(b"\x81" + bytes([0x80 | 126]) + len(hello).to_bytes(2, "big") + mask + hello)
        market = stage.services.market
        async with asyncio.timeout(20):
            while market.clients._value.get() < 2:
                await asyncio.sleep(0.01)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        worst = 0.0
        price = 0
        async with asyncio.timeout(60):
            while market.clients._value.get() > 1:
                price += 1
                for of in range(len(names)):
                    await worker.trade(float(price), of=of)
                sent_at = time.monotonic()
                while True:
                    found = (await read(quick))["updates"]
                    if any(each["topic"] == names[0] and each["body"]["price"] == price for each in found):
                        break
                worst = max(worst, time.monotonic() - sent_at)
        assert market.too_slow._value.get() == 1
        print(f"at worst {worst:.2f} s late")
        # None of the frozen client's waits, which are so long.
        assert worst < 0.9 * patience_s
        writer.close()


async def test_topics_that_cannot_be_are_refused_with_the_reason(stage: Stage, served: str, worker: Worker) -> None:
    first = worker.ids[0]
    for topic, word in (
        (f"ticks:nowhere/{first}", "nowhere"),
        ("ticks:main/NO:SUCH", "NO:SUCH"),
        ("ticks:main", "write"),
        (f"bars:{first}/1d", "shorter than a day"),
        (f"bars:{first}", "is not an interval"),
        ("depth:main/lower", "lower"),
        ("ticks:main/" + "X" * 200, "longer"),
    ):
        assert word in await refused(stage, served, topics=[topic]), topic
    many = [f"bars:{first}/{n}s" for n in range(1, 40)]
    assert "does not divide" in await refused(stage, served, topics=many)


async def test_a_client_has_a_limited_number_of_topics(stage: Stage, served: str, worker: Worker) -> None:
    widths = [n for n in range(1, 86_400) if 86_400 % n == 0 and n < 10_000]
    many = [f"bars:{id_}/{n}s" for id_ in worker.ids for n in widths][: MOST_TOPICS + 1]
    assert len(many) == MOST_TOPICS + 1
    assert f"may have {MOST_TOPICS}" in await refused(stage, served, topics=many)
    async with listening(stage, served, topics=many[:-1]) as (socket, greeting):
        assert len(greeting["since"]) == MOST_TOPICS
        await socket.send(json.dumps({"subscribe": many[-1:]}))
        assert "0 more fit" in (await read(socket))["error"]


async def test_topics_that_nobody_wants_are_forgotten(
    stage: Stage, served: str, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api import market

    monkeypatch.setattr(market, "LINGER_S", 0.0)
    deck = stage.services.market
    topics = [f"ticks:main/{worker.ids[0]}", f"depth:main/{worker.ids[0]}", f"bars:{worker.ids[0]}/1m"]
    async with listening(stage, served, topics=topics) as (socket, _):
        await worker.trade(1.0)
        await updates(socket, 1)
        assert deck._tidy() == (set(), set())
    async with asyncio.timeout(20):
        while any(topic.clients for topic in deck._topics.values()):
            await asyncio.sleep(0.01)
    unneeded = deck._tidy()
    assert unneeded == ({streams.ticks("main"), streams.depth("main")}, {streams.BUILT_OF_ALL, streams.BARS_OF_ALL})
    assert (deck._topics, deck._ticks, deck._books, dict(deck._bars)) == ({}, {}, {}, {})


async def test_what_makes_no_sense_on_the_bus_is_passed_over(stage: Stage, served: str, worker: Worker) -> None:
    first = worker.ids[0]
    topics = [f"ticks:main/{first}", f"depth:main/{first}", f"bars:{first}/1m"]
    bus = stage.services.bus
    async with listening(stage, served, topics=topics) as (socket, _):
        for channel in (streams.ticks("main"), streams.depth("main"), streams.built("main"), streams.bars("main")):
            for raw in (b"", b"\xc1 nonsense", b"\x00" * 200):
                await bus.publish(channel, raw)
        await worker.trade(5.0)
        (update,) = await updates(socket, 1)
        assert update["body"]["price"] == 5.0
    assert stage.services.market._garbage >= 8


async def test_the_bus_away_for_a_while_is_told_as_a_gap(
    stage: Stage, served: str, worker: Worker, redis_url: str
) -> None:
    topic = f"ticks:main/{worker.ids[0]}"
    async with listening(stage, served, topics=[topic]) as (socket, _):
        await worker.trade(5.0)
        (before,) = await updates(socket, 1)
        subscription = stage.services.market._subscription
        assert subscription is not None
        assert subscription._wire is not None
        subscription._wire.abort()
        async with asyncio.timeout(20):
            while not subscription.losses:
                await asyncio.sleep(0.01)
        await worker.trade(6.0)
        (after,) = await updates(socket, 1)
    assert (before["gaps"], after["gaps"], after["body"]["price"]) == (0, 1, 6.0)

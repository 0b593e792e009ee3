from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from api import security
from api.routes import stream as route
from api.stream import Hub
from cluster.streams import CHANGES, Change, encode_changes
from storage.bus import Bus
from tests.api.playing import Stage, algo_body
from tests.storage.samples import event, order
from trading.ids import Nanos
from trading.orders import EventKind


def _change(n: int, user: str = "asha", topic: str = "portfolio") -> Change:
    body = {"user": user, "at": n, "accounts": [], "positions": []}
    return Change(topic=topic, key=f"{user}-{n}", user=user, at=Nanos(n), body=body)


@asynccontextmanager
async def _listening(served: str, **hello: Any) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
    async with connect(f"ws://{served}/v1/stream") as socket:
        await socket.send(json.dumps(hello))
        yield socket, await _next(socket)


async def _next(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(20):
        message: dict[str, Any] = json.loads(await socket.recv())
        return message


async def _closed(socket: ClientConnection) -> tuple[int, str]:
    try:
        while True:
            await _next(socket)
    except ConnectionClosed:
        return socket.close_code or 0, socket.close_reason or ""


async def test_changes_from_the_bus_arrive_numbered_in_our_formats(stage: Stage, served: str) -> None:
    placed = order("k-1", account="paper-1")
    told = {"order": msgspec.to_builtins(placed), "event": msgspec.to_builtins(event(placed, EventKind.PENDING))}
    changes = [
        Change(topic="orders", key="paper-1/k-1", user="asha", at=Nanos(1), body=told),
        _change(2),
    ]
    async with _listening(served, key=stage.operator_key) as (socket, greeting):
        async with asyncio.timeout(20):
            while not await stage.services.bus.publish(CHANGES, encode_changes(changes)):
                await asyncio.sleep(0.02)
        one, two = await _next(socket), await _next(socket)
    assert greeting["instance"] == stage.services.hub.instance
    assert [one["sequence"], two["sequence"]] == [greeting["sequence"] + 1, greeting["sequence"] + 2]
    assert (one["topic"], one["key"]) == ("orders", "paper-1/k-1")
    assert one["at"] == "1970-01-01T00:00:00.000000001+00:00"
    assert one["body"]["order"]["quantity"] == "1.50"
    assert one["body"]["order"]["created_at"].startswith("1970-01-01T00:00:00")
    assert one["body"]["event"]["kind"] == "pending"
    assert two["body"]["at"].endswith("+00:00")


async def test_everyone_gets_the_own_changes_of_the_topics_asked_for(stage: Stage, served: str) -> None:
    key = await stage.person("asha", "viewer")
    hub = stage.services.hub
    async with (
        _listening(served, key=key) as (own, _),
        _listening(served, key=stage.operator_key) as (all_of_them, _),
        _listening(served, key=stage.operator_key, topics=["algos"]) as (other_topic, _),
    ):
        hub.add([_change(1, "bo"), _change(2, "asha"), Change(topic="algos", key="x", user="bo", at=Nanos(3), body={})])
        assert (await _next(own))["key"] == "asha-2"
        assert [(await _next(all_of_them))["key"] for _ in range(3)] == ["bo-1", "asha-2", "x"]
        assert (await _next(other_topic))["key"] == "x"


async def test_a_client_resumes_where_it_was(stage: Stage, served: str) -> None:
    hub = stage.services.hub
    async with _listening(served, key=stage.operator_key) as (socket, _):
        hub.add([_change(1), _change(2)])
        seen = await _next(socket)
    hub.add([_change(3)])
    hello = {"key": stage.operator_key, "after": seen["sequence"], "instance": hub.instance}
    async with _listening(served, **hello) as (socket, greeting):
        assert "reset" not in greeting
        assert [(await _next(socket))["key"] for _ in range(2)] == ["asha-2", "asha-3"]


@pytest.mark.parametrize("other", [{"after": 5}, {"after": 2**60}, {"instance": "another"}])
async def test_a_client_that_cannot_resume_is_told_to_begin_anew(
    stage: Stage, served: str, other: dict[str, Any]
) -> None:
    hub = stage.services.hub
    hub.add([_change(1)])
    hello = {"key": stage.operator_key, "after": hub.newest, "instance": hub.instance, **other}
    async with _listening(served, **hello) as (socket, greeting):
        assert greeting["reset"] is True
        hub.add([_change(2)])
        assert (await _next(socket))["key"] == "asha-2"


async def test_the_ring_forgets_the_oldest() -> None:
    hub = Hub(Bus("redis://127.0.0.1:1/0"), size=3)
    start = hub.newest
    hub.add(_change(n) for n in range(5))
    assert not hub.has(start + 1)
    assert hub.has(start + 2)
    assert [entry.sequence - start for entry in hub.after(start + 2)] == [3, 4, 5]
    assert [entry.sequence - start for entry in hub.after(start + 4)] == [5]
    assert list(hub.after(hub.newest)) == []
    assert not hub.has(hub.newest + 1)


async def test_a_client_that_the_ring_overtakes_is_sent_away(stage: Stage, served: str) -> None:
    hub = stage.services.hub
    async with _listening(served, key=stage.operator_key) as (socket, _):
        hub.add(_change(n) for n in range(6_000))
        code, reason = await _closed(socket)
    assert code == route.TOO_SLOW
    assert "too slow" in reason


async def test_a_gap_on_the_bus_reaches_every_client_in_its_place(stage: Stage, served: str) -> None:
    hub = stage.services.hub
    async with _listening(served, key=stage.operator_key) as (socket, _):
        hub.add([_change(1), None, _change(2)])
        first, gap, second = [await _next(socket) for _ in range(3)]
    assert gap["reset"] is True
    assert (first["key"], second["key"]) == ("asha-1", "asha-2")


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ('{"key": "qd_wrong"}', route.UNAUTHORIZED),
        ("{}", route.UNAUTHORIZED),
        ("nonsense", route.BAD_HELLO),
        ('{"key": 7}', route.BAD_HELLO),
        ('{"colour": 7}', route.BAD_HELLO),
        ('{"after": -1}', route.BAD_HELLO),
        (b"\x00", route.BAD_HELLO),
    ],
)
async def test_a_wrong_first_message_ends_with_the_reason(served: str, hello: str | bytes, code: int) -> None:
    async with connect(f"ws://{served}/v1/stream") as socket:
        await socket.send(hello)
        closed, reason = await _closed(socket)
    assert closed == code
    assert reason


async def test_an_unknown_topic_is_refused(stage: Stage, served: str) -> None:
    async with connect(f"ws://{served}/v1/stream") as socket:
        await socket.send(json.dumps({"key": stage.operator_key, "topics": ["smells"]}))
        code, reason = await _closed(socket)
    assert code == route.BAD_HELLO
    assert "smells" in reason
    assert "orders" in reason


async def test_silence_before_the_first_message_ends(served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "HELLO_S", 0.1)
    async with connect(f"ws://{served}/v1/stream") as socket:
        assert (await _closed(socket))[0] == route.BAD_HELLO


async def test_the_key_may_come_in_a_header(stage: Stage, served: str) -> None:
    headers = {"X-API-Key": stage.operator_key}
    async with connect(f"ws://{served}/v1/stream", additional_headers=headers) as socket:
        await socket.send("{}")
        assert (await _next(socket))["instance"]


async def test_a_revoked_key_ends_the_stream(stage: Stage, served: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "CHECK_S", 0.1)
    monkeypatch.setattr(security, "KEY_CACHE_S", 0.0)
    made = await stage.make("/v1/keys", {})
    async with _listening(served, key=made["key"]) as (socket, _):
        await stage.services.keys.revoke(made["id"], "test")
        assert (await _closed(socket))[0] == route.UNAUTHORIZED


async def test_a_client_that_leaves_is_let_go(stage: Stage, served: str) -> None:
    async with _listening(served, key=stage.operator_key):
        assert stage.services.hub.clients.total() == 1
    async with asyncio.timeout(20):
        while stage.services.hub.clients:
            await asyncio.sleep(0.01)


async def test_algos_and_feeds_tell_of_themselves(stage: Stage, served: str) -> None:
    key = await stage.trading()
    async with _listening(served, key=key, topics=["algos", "feeds"]) as (socket, _):
        await stage.fed()
        feed = await _next(socket)
        assert (feed["topic"], feed["key"], feed["body"]["workers"]) == ("feeds", "crypto", 2)
        await stage.make("/v1/algos", algo_body())
        algo = await _next(socket)
        assert (algo["topic"], algo["key"], algo["body"]["state"]) == ("algos", "momo-1", "stopped")
        assert abs(time.time_ns() / 1e9 - _seconds(algo["at"])) < 30
        await stage.ask("DELETE", "/v1/algos/momo-1")
        assert (await _next(socket))["body"] is None


def _seconds(text: str) -> float:
    from api.formats import parse_time

    return parse_time(text) / 1e9


async def test_one_user_has_so_many_streams_and_no_more(
    stage: Stage, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "MOST_STREAMS", 2)
    key = await stage.person("asha", "viewer")
    async with _listening(served, key=key), _listening(served, key=key):
        async with connect(f"ws://{served}/v1/stream") as socket:
            await socket.send(json.dumps({"key": key}))
            assert await _closed(socket) == (route.TOO_MANY, "asha has 2 streams open: close some")
        async with _listening(served, key=stage.operator_key):
            assert stage.services.hub.clients == {"asha": 2, "admin": 1}
    async with asyncio.timeout(20):
        while stage.services.hub.clients:
            await asyncio.sleep(0.02)

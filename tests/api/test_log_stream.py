"""An algo's log is followed over the WebSocket, from REST's last line on, by those who may."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cluster import streams
from cluster.client import ApiClient
from cluster.log_follow import follow
from tests.api.playing import Stage, algo_body
from trading.errors import NeedsOperator
from trading.ids import AlgoId, Epoch, Nanos

MOMO = AlgoId("momo-1")
TOPIC = "algo-log:momo-1"


@pytest.fixture
async def key(stage: Stage) -> str:
    key = await stage.trading()
    await stage.fed()
    await stage.make("/v1/algos", algo_body(), key=key)
    return key


async def say(stage: Stage, *texts: str, tell: bool = True) -> int:
    rows = [(Nanos(time.time_ns()), "info", text) for text in texts]
    written = await stage.services.algo_log.append(MOMO, Epoch(1), rows, [{"n": n} for n in range(len(rows))])
    if tell:
        await stage.services.bus.publish(streams.algo_log(MOMO), str(written[-1].number).encode())
    return written[-1].number


@asynccontextmanager
async def listening(served: str, **hello: Any) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://{served}/v1/stream") as socket:
        await socket.send(json.dumps({"topics": [TOPIC], **hello}))
        yield socket


async def heard(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(20):
        message: dict[str, Any] = json.loads(await socket.recv())
        return message


async def test_lines_come_as_they_are_written_and_from_where_one_was(stage: Stage, served: str, key: str) -> None:
    place = await say(stage, "before")
    async with listening(served, key=key) as socket:
        assert (await heard(socket))["topics"] == [TOPIC]
        await say(stage, "one", "two")
        first, second = await heard(socket), await heard(socket)
        assert [each["body"]["text"] for each in (first, second)] == ["one", "two"]
        assert (first["topic"], first["key"], second["body"]["fields"]) == (TOPIC, "momo-1", {"n": 1})
        await say(stage, "three", tell=False)
        assert (await heard(socket))["body"]["text"] == "three", "Redis lost the word of it"
    async with listening(served, key=key, places={TOPIC: place}) as socket:
        assert [(await heard(socket)).get("body", {}).get("text") for _ in range(4)] == [None, "one", "two", "three"]


async def test_a_log_is_its_owners(stage: Stage, served: str, key: str) -> None:
    other = await stage.person("bo", "trader")
    for hello in ({"key": other}, {"key": key, "topics": ["algo-log:none"]}, {"key": key, "topics": [TOPIC] * 21}):
        async with listening(served, **hello) as socket:
            with pytest.raises(ConnectionClosed):
                await heard(socket)
            assert socket.close_code == 4422


async def test_the_command_follows_and_is_told_when_it_may_not(stage: Stage, served: str, key: str) -> None:
    place = await say(stage, "before")
    await say(stage, "one")
    lines = follow(ApiClient(f"http://{served}", key), "momo-1", place)
    next_line: Callable[[], dict[str, Any]] = lambda: next(lines)  # noqa: E731
    assert (await asyncio.to_thread(next_line))["text"] == "one"
    await say(stage, "two")
    assert (await asyncio.to_thread(next_line))["text"] == "two"
    await asyncio.to_thread(lines.close)  # type: ignore[attr-defined]
    with pytest.raises(NeedsOperator, match="no algo named"):
        await asyncio.to_thread(lambda: next(follow(ApiClient(f"http://{served}", key), "none", 0)))

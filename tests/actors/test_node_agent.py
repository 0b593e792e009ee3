"""A machine's agent by itself: real PostgreSQL and Redis, no Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import pytest

from actors.node_agent import NodeAgent
from cluster.node_facts import METRICS, NodeFacts
from storage.database import Database
from storage.embedded import EmbeddedPostgres, EmbeddedRedis
from storage.hot import Hot
from storage.migrate import migrate
from storage.node_history import Minute, NodeHistory
from tests.support.patience import PATIENCE
from trading.errors import NotReady
from trading.ids import Nanos, NodeName

EDGE = NodeName("edge")


@pytest.fixture
async def agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[NodeAgent, EmbeddedPostgres, EmbeddedRedis]]:
    """An agent whose minutes are a second long, with servers of its own."""
    postgres, redis = EmbeddedPostgres(tmp_path / "pg"), EmbeddedRedis(tmp_path / "redis")
    monkeypatch.setattr("actors.node_agent.MINUTE", 1_000_000_000)
    monkeypatch.setattr("actors.node_agent.KEEP_EVERY_S", 0.2)
    try:
        url = await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(migrate, url)
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("REDIS_URL", await asyncio.to_thread(redis.start))
        monkeypatch.setenv("QUARTERDECK_DATA_DIR", str(tmp_path))
        made = NodeAgent("edge")
        yield made, postgres, redis
        for task in list(made._tasks):
            task.remove_done_callback(made._done)
            task.cancel()
        await made.stop()
    finally:
        await asyncio.to_thread(redis.stop)
        await asyncio.to_thread(postgres.stop)


async def until(what: str, ready: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds * PATIENCE
    while not await ready():
        assert time.monotonic() < deadline, f"{what} was not so within {seconds * PATIENCE:g} s"
        await asyncio.sleep(0.1)


async def test_an_agent_tells_how_its_machine_is_and_keeps_minutes_while_a_server_is_away(
    agent: tuple[NodeAgent, EmbeddedPostgres, EmbeddedRedis],
) -> None:
    one, postgres, redis = agent
    database = Database(postgres.url, size=2, name="test")
    history, hot = NodeHistory(database), Hot(redis.url)

    async def kept() -> list[Minute]:
        try:
            await database.open()
            return await history.minutes(EDGE, Nanos(0), Nanos(time.time_ns() + 1), 1_000)
        except NotReady:
            return []

    async def told() -> NodeFacts | None:
        try:
            return await hot.get("node:edge", NodeFacts)
        except NotReady:
            return None

    async def has_told() -> bool:
        return await told() is not None

    async def has_kept(count: int) -> bool:
        return len(await kept()) >= count

    await until("facts", has_told)
    facts = await told()
    assert facts is not None
    assert facts.clock is not None
    assert abs(facts.clock.skew_ms) <= facts.clock.error_ms + 20
    assert one.facts()["code"] == facts.code != ""
    await until("three minutes", lambda: has_kept(3))
    rows = await kept()
    assert rows[-1].metrics.keys() <= METRICS.keys()
    assert {"cpu_percent", "memory_used_mb", "disk_free_mb", "clock_skew_ms"} <= rows[-1].metrics.keys()

    # PostgreSQL is away: facts go on, minutes wait and are all there afterwards.
    before = facts.at
    await asyncio.to_thread(postgres.stop)
    await until("minutes that wait", lambda: _true(one.facts()["waiting_minutes"] >= 2))
    facts = await told()
    assert facts is not None
    assert facts.at > before
    await asyncio.to_thread(postgres.start)
    await until("no minute that waits", lambda: _true(one.facts()["waiting_minutes"] == 0), 30)
    minutes = [each.at for each in await kept()]
    # A look that took long may skip a second; an outage of seconds would leave a hole as long.
    assert max(b - a for a, b in pairwise(minutes)) <= 3_000_000_000

    # Redis is away: minutes go on.
    count = len(minutes)
    await asyncio.to_thread(redis.stop)
    await until("more minutes", lambda: has_kept(count + 3))
    await database.close()
    await hot.close()


async def _true(value: bool) -> bool:
    return value

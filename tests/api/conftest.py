"""The API on a real PostgreSQL and Redis, without Ray: sessions are played by `tests.api.playing`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import redis.asyncio
import uvicorn

from api.app import create_app
from api.services import Services
from cluster.settings import DeckSettings
from connectors.binance.simulator import BinanceSimulator
from connectors.binance.synthetic import SyntheticSettings, SyntheticSource
from storage.first_run import first_run
from tests.api.playing import PlayedSession, Stage
from tests.storage.conftest import database_url, redis_url, server_url
from trading.ids import UserId

__all__ = ["database_url", "redis_url", "server_url"]


@pytest.fixture
async def empty_redis(redis_url: str) -> str:
    """Redis with nothing in it."""
    client = redis.asyncio.Redis.from_url(redis_url)
    await client.flushall()
    await client.aclose()
    return redis_url


@pytest.fixture
async def stage(database_url: str, empty_redis: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """A running application with an operator's client."""
    key = await first_run(database_url)
    assert key is not None
    deck = DeckSettings(data_dir=tmp_path, DATABASE_URL=database_url, REDIS_URL=empty_redis)  # type: ignore[call-arg]
    played: dict[str, PlayedSession] = {}

    def session(user: UserId) -> PlayedSession:
        return played.setdefault(user, PlayedSession(user, services))

    app = create_app(deck, connect=False, sessions=session)
    services: Services = app.state.services
    async with app.router.lifespan_context(app):
        async with asyncio.timeout(20):
            while services.database_trouble or not services.hub.watching:
                await asyncio.sleep(0.02)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://deck") as client:
            yield Stage(app=app, services=services, http=client, operator_key=key, played=played)


@pytest.fixture
async def served(stage: Stage) -> AsyncIterator[str]:
    """The same application on a socket; yields ``host:port``."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(stage.app, lifespan="off", log_level="warning"))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(20):
            while not server.started:
                await asyncio.sleep(0.01)
        yield "{}:{}".format(*listener.getsockname())
        server.should_exit = True
        await task


@pytest.fixture
async def venue() -> AsyncIterator[str]:
    """A simulated Binance that lists 20 symbols; yields its URL."""
    simulator = BinanceSimulator(SyntheticSource(SyntheticSettings(symbols=20)))
    await simulator.start()
    try:
        yield simulator.url
    finally:
        await simulator.stop()

"""Hot state: last values and snapshots that may be lost at any time, for the journal can tell them again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from storage.database import address_of
from storage.resp import refused
from trading.errors import BadInput, Invariant, NeedsOperator, NotReady

T = TypeVar("T")
PREFIX = "qd:"
MIN_VERSION = (6, 0)
_LIMIT_S = 2.0


class Hot:
    """Values by key, each with a time to live, as JSON.  The constructor does no IO."""

    def __init__(self, redis_url: str) -> None:
        self._address = address_of(redis_url)
        self._client = _client(redis_url)

    def __repr__(self) -> str:
        return f"Hot({self._address})"

    async def put(self, key: str, value: Any, ttl_s: float) -> None:
        """Write ``value`` (anything msgspec encodes); it is gone after ``ttl_s`` seconds.  `NotReady`."""
        if ttl_s <= 0:
            raise BadInput("ttl_s", f"{ttl_s} must be above 0")
        async with _mapped(self._address):
            await self._client.set(PREFIX + key, msgspec.json.encode(value), px=max(1, int(ttl_s * 1000)))

    async def put_many(self, values: dict[str, Any], ttl_s: float) -> None:
        """As `put`, for several keys in one round trip."""
        if ttl_s <= 0:
            raise BadInput("ttl_s", f"{ttl_s} must be above 0")
        if not values:
            return
        async with _mapped(self._address), self._client.pipeline(transaction=False) as pipeline:
            for key, value in values.items():
                pipeline.set(PREFIX + key, msgspec.json.encode(value), px=max(1, int(ttl_s * 1000)))
            await pipeline.execute()

    async def get(self, key: str, type: type[T]) -> T | None:
        """Read a value written as ``type``, or None where there is none (any more).  `NotReady`."""
        async with _mapped(self._address):
            raw = await self._client.get(PREFIX + key)
        return None if raw is None else _decode(key, raw, type)

    async def scan(self, prefix: str, type: type[T]) -> dict[str, T]:
        """All values whose key starts with ``prefix``, by key.  `NotReady`."""
        pattern = PREFIX + "".join(f"\\{c}" if c in "*?[]\\^" else c for c in prefix) + "*"
        async with _mapped(self._address):
            keys = [key async for key in self._client.scan_iter(match=pattern, count=500)]
            raws = await self._client.mget(keys) if keys else []
        found: dict[str, T] = {}
        for full, raw in zip(keys, raws, strict=True):
            if raw is not None:
                key = full.decode().removeprefix(PREFIX)
                found[key] = _decode(key, raw, type)
        return dict(sorted(found.items()))

    async def notes(self, key: str) -> list[bytes]:
        """The list at ``key``, to which `storage.bus.Bus.publish_noted` adds.  `NotReady`."""
        async with _mapped(self._address):
            found = await self._client.lrange(PREFIX + key, 0, -1)
        return [note.encode() if isinstance(note, str) else note for note in found]

    async def put_and_trim(self, key: str, value: Any, ttl_s: float, notes: str, count: int) -> None:
        """As `put`, and in the same instant take the first ``count`` from the list at ``notes``, which lives as long.
        `NotReady`."""
        ttl_ms = max(1, int(ttl_s * 1000))
        async with _mapped(self._address), self._client.pipeline(transaction=True) as pipeline:
            pipeline.set(PREFIX + key, msgspec.json.encode(value), px=ttl_ms)
            pipeline.ltrim(PREFIX + notes, count, -1)
            pipeline.pexpire(PREFIX + notes, ttl_ms)
            await pipeline.execute()

    async def listeners(self, channel: str) -> int:
        """How many listen to a channel of the bus now.  `NotReady`."""
        async with _mapped(self._address):
            found = await self._client.pubsub_numsub(channel)
        return int(found[0][1]) if found else 0

    async def delete(self, key: str) -> None:
        """Remove; nothing happens where there is none.  `NotReady`."""
        async with _mapped(self._address):
            await self._client.delete(PREFIX + key)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def check_redis(url: str) -> None:
    """Raise `NotReady` when Redis cannot be reached, `NeedsOperator` for a wrong password or version."""
    address = address_of(url)
    try:
        client = _client(url)
    except ValueError as error:
        raise NeedsOperator("REDIS_URL cannot be understood", "write redis://:password@host:port/0") from error
    try:
        async with _mapped(address):
            version = str((await client.info("server"))["redis_version"])
    finally:
        await client.aclose()
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
        raise NeedsOperator(
            f"Redis at {address} is version {version}",
            "use version {}.{} or later, or unset REDIS_URL to use the embedded one".format(*MIN_VERSION),
        )


def _client(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=_LIMIT_S,
        socket_connect_timeout=_LIMIT_S,
        # Once: an idle connection may have died with a server that is back. All we do may be repeated.
        retry=Retry(NoBackoff(), 1),
        protocol=2,
    )


@asynccontextmanager
async def _mapped(address: str) -> AsyncIterator[None]:
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        raise NeedsOperator(
            f"Redis at {address} refuses us: {error}", "correct user and password in REDIS_URL"
        ) from error
    except redis.exceptions.ResponseError as error:
        raise refused(address, str(error)) from error
    except (redis.exceptions.RedisError, OSError, TimeoutError) as error:
        raise NotReady(f"Redis at {address} is not available: {error}") from error


def _decode(key: str, raw: bytes | str, type: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=type)
    except msgspec.DecodeError as error:
        raise Invariant(f"the hot value {key!r} is not a {type.__name__}: {error}") from error

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from storage.hot import Hot
from trading.errors import BadInput, Invariant, NotReady
from trading.ids import AccountId, InstrumentId
from trading.positions import Position


@pytest.fixture
async def hot(redis_url: str) -> AsyncIterator[Hot]:
    made = Hot(redis_url)
    yield made
    await made.close()


async def test_values_come_back_as_their_type(hot: Hot) -> None:
    position = Position(account=AccountId("a1"), instrument=InstrumentId("X:Y"), quantity=Decimal("1.50"))
    await hot.put("position/a1/X:Y", position, 60)
    assert await hot.get("position/a1/X:Y", Position) == position
    assert await hot.get("position/none", Position) is None
    await hot.delete("position/a1/X:Y")
    assert await hot.get("position/a1/X:Y", Position) is None


async def test_scan_finds_a_prefix_literally(hot: Hot) -> None:
    await hot.put_many({"node/a": 1, "node/b": 2, "nodes": 3, "n*de/x": 4}, 60)
    assert await hot.scan("node/", int) == {"node/a": 1, "node/b": 2}
    assert await hot.scan("n*de", int) == {"n*de/x": 4}
    assert await hot.scan("nothing", int) == {}
    for key in ("node/a", "node/b", "nodes", "n*de/x"):
        await hot.delete(key)


async def test_a_value_is_gone_after_its_time(hot: Hot) -> None:
    await hot.put("brief", "x", 0.05)
    await hot.put("lasting", "x", 60)
    async with asyncio.timeout(20):
        while await hot.get("brief", str) is not None:
            await asyncio.sleep(0.01)
    assert await hot.get("lasting", str) == "x"
    await hot.delete("lasting")
    with pytest.raises(BadInput, match="ttl_s"):
        await hot.put("brief", "x", 0)


async def test_a_value_of_another_type_is_a_bug_and_named(hot: Hot) -> None:
    await hot.put("odd", {"a": 1}, 60)
    with pytest.raises(Invariant, match="odd"):
        await hot.get("odd", int)
    with pytest.raises(Invariant, match="odd"):
        await hot.scan("odd", int)
    await hot.delete("odd")


async def test_an_absent_redis_is_not_ready() -> None:
    away = Hot("redis://127.0.0.1:1/0")
    with pytest.raises(NotReady, match=r"Redis at 127\.0\.0\.1:1"):
        await away.get("a", int)
    await away.close()

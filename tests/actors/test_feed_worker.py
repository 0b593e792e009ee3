"""Parts of a feed worker that need no cluster: what goes onto the bus, and credentials that change under it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from actors.feed_holes import FeedHoles
from actors.feed_outlet import MOST_DEPTHS, FeedOutlet
from actors.feed_worker import FeedWorker
from cluster import streams
from storage.bus import LOST, Bus
from storage.embedded import EmbeddedRedis
from storage.hot import Hot
from storage.records import FeedRecord
from storage.tasks import end_tasks
from trading.arbitration import Arbiter
from trading.depth import DEPTH, DepthArray, unpack_depth
from trading.errors import NotReady
from trading.handover import Handover
from trading.ids import FeedId, Nanos
from trading.last_values import LastValues
from trading.tick_filter import TickFilter
from trading.ticks import TRADE, Senders, TickArray, TickBuffer, decode, unpack_batch


class FakeBus:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.is_away = False
        self.losses = 0

    async def publish(self, channel: str, payload: bytes) -> None:
        if self.is_away:
            raise NotReady("redis is away", 0.1)
        self.sent.append((channel, payload))


class NeverFenced:
    async def may_publish(self) -> None:
        pass


def outlet_on(
    bus: FakeBus | Bus, handover: Handover, arbiter: Arbiter | None = None, given: Hot | None = None
) -> FeedOutlet:
    """An outlet without a watch: what is tested here passes by it."""
    quality: Any = SimpleNamespace(filter=TickFilter())
    hot: Any = given
    watch: Any = SimpleNamespace(gaps=SimpleNamespace(holes=FeedHoles(FeedId("india"), 1, hot)), published=lambda _: ())
    fence: Any = NeverFenced()
    onto: Any = bus
    outlet = FeedOutlet(
        *(FeedId("india"), 1, onto, fence, handover, LastValues(), quality, watch), *(arbiter or Arbiter(), hot)
    )
    outlet.epoch = 7
    return outlet


def books(*numbers: int) -> DepthArray:
    made = np.zeros(len(numbers), dtype=DEPTH)
    made["instrument"] = numbers
    made["scale"] = 100
    return made


async def published(outlet: FeedOutlet, bus: FakeBus, count: int) -> None:
    task = asyncio.create_task(outlet.publish_depth())
    async with asyncio.timeout(20):
        while len(bus.sent) < count:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    await end_tasks([task])
    assert len(bus.sent) == count


async def test_depth_goes_out_numbered_without_what_is_muted_or_let_go() -> None:
    bus, handover = FakeBus(), Handover()
    outlet = outlet_on(bus, handover)
    handover.mute(2)
    handover.forget(4)
    outlet.depth(books(1, 2, 3, 4))
    outlet.depth(books(2))
    outlet.depth(books(5))
    await published(outlet, bus, 2)
    read = [unpack_depth(raw) for _, raw in bus.sent]
    assert {channel for channel, _ in bus.sent} == {"depth:india"}
    assert [(epoch, number, shard) for epoch, number, shard, _ in read] == [(7, 1, 1), (7, 2, 1)]
    assert [found["instrument"].tolist() for *_, found in read] == [[1, 3], [5]]


async def test_while_redis_is_away_old_depth_gives_way_to_new_and_is_counted() -> None:
    bus = FakeBus()
    outlet = outlet_on(bus, Handover())
    for number in range(MOST_DEPTHS + 3):
        outlet.depth(books(number, number))
    assert outlet.unpublished == 6
    bus.is_away = True
    task = asyncio.create_task(outlet.publish_depth())
    await asyncio.sleep(0.02)
    await end_tasks([task])
    assert outlet.unpublished == 8, "what could not be sent is counted too"
    bus.is_away = False
    outlet.depth(books(99))
    await published(outlet, bus, MOST_DEPTHS)
    assert unpack_depth(bus.sent[-2][1])[3]["instrument"].tolist() == [MOST_DEPTHS + 2] * 2


def trades(*numbers: int) -> TickArray:
    buffer = TickBuffer()
    for number in numbers:
        at = 1_700_000_000_000_000_000 + number
        buffer.trade(number, 100.0, 1.0, 0, at, at, 0)
    return decode(buffer.take())


async def test_what_a_second_sends_goes_out_only_where_it_is_this_workers_to_publish() -> None:
    handover = Handover()
    outlet = outlet_on(FakeBus(), handover)
    handover.mute(2)
    handover.cut(3, {TRADE: 5})
    handover.forget(4)
    outlet.publish_second(trades(1, 2, 3, 4))
    assert outlet.from_second == 1
    outlet.publish_second(trades(2, 3, 4))
    assert outlet.from_second == 1


async def test_polls_show_nothing_of_what_comes_from_a_second_and_what_it_kept_back_is_withheld() -> None:
    arbiter = Arbiter()
    outlet = outlet_on(FakeBus(), Handover(), arbiter)
    arbiter.pair(1)
    arbiter.adopt(1, Nanos(1_700_000_000_000_000_000))
    outlet.show_polled(trades(1, 2))
    assert outlet.polled == 1
    outlet.publish_first(trades(1, 2))
    assert outlet.withheld == 1
    later = Nanos(1_700_000_000_000_000_000 + 3600 * 1_000_000_000)
    for at in (later, Nanos(2 * later)):
        outlet.publish_kept(arbiter.judge(1, is_stale=False, now=at))
    assert outlet.withheld == 0


async def listeners(hot: Hot, channel: str) -> int:
    try:
        return await hot.listeners(channel)
    except NotReady:
        return 0


async def test_what_a_server_took_just_before_it_died_is_sent_again_and_used_once(tmp_path: Path) -> None:
    """It may have died with it on the way to readers: here the second batch had nobody to go to."""
    server = EmbeddedRedis(tmp_path)
    bus, hot = Bus(server.start()), Hot(server.url)
    outlet = outlet_on(bus, Handover(), given=hot)
    publishing = asyncio.create_task(outlet.publish())
    channel = streams.ticks(FeedId("india"))
    reader = await bus.subscribe([channel])
    senders, seen, lost = Senders(), list[int](), 0

    async def sees(count: int) -> None:
        nonlocal lost
        async with asyncio.timeout(20):
            while len(seen) < count:
                message = await anext(reader)
                if message is LOST:
                    continue
                epoch, batch, shard, ticks = unpack_batch(message[1])
                missed = senders.missed(epoch, batch, shard)
                if missed is not None:
                    lost += missed
                    seen.extend(ticks["instrument"].tolist())

    try:
        outlet.line_up(trades(1))
        await sees(1)
        await reader.remove([channel])
        outlet.line_up(trades(2))
        await outlet.flushed(5)
        await reader.add([channel])
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(20):
            while not await listeners(hot, channel):
                await asyncio.sleep(0.05)
        outlet.line_up(trades(3))
        outlet.line_up(trades(4))
        await sees(4)
    finally:
        await end_tasks([publishing])
        await reader.close()
        await bus.close()
        await hot.close()
        await asyncio.to_thread(server.stop)
    assert (seen, lost) == ([1, 2, 3, 4], 0)


async def test_credentials_change_in_the_mapping_that_the_connection_holds() -> None:
    worker: Any = object.__new__(FeedWorker)
    held = worker._log_in = {"api_key": "k", "access_token": "old", "request_token": "r"}
    given = {"api_key": "k", "access_token": "new"}

    async def credentials(record: FeedRecord) -> dict[str, str]:
        return dict(given)

    worker._credentials = credentials
    record = FeedRecord(
        id=FeedId("india"),
        provider="kite",
        settings={"account": "asha-kite"},
        channels=("trade",),
        workers=1,
        instruments=(),
        created_at=Nanos(0),
    )
    await worker._renew_log_in(record)
    assert worker._log_in is held
    assert held == given

"""Parts of a feed worker that need no cluster: depth onto the bus, and credentials that change under it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import numpy as np

from actors.feed_worker import MOST_DEPTHS, FeedWorker
from cluster.process import elapsed
from storage.records import FeedRecord
from trading.depth import DEPTH, DepthArray, unpack_depth
from trading.errors import NotReady
from trading.handover import Handover
from trading.ids import FeedId, Nanos


class FakeBus:
    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.is_away = False

    async def publish(self, channel: str, payload: bytes) -> None:
        if self.is_away:
            raise NotReady("redis is away", 0.1)
        self.sent.append((channel, payload))


def bare_worker() -> Any:
    """A worker that was never started: only what these parts use."""
    worker: Any = object.__new__(FeedWorker)
    worker.feed, worker.shard, worker.epoch = FeedId("india"), 1, 7
    worker.handover, worker.bus = Handover(), FakeBus()
    worker._depths, worker._deepened, worker._depth_batch = deque(), asyncio.Event(), 0
    worker._unpublished = 0
    worker._unfenced_at = elapsed()
    worker._log_in = {}
    return worker


def books(*numbers: int) -> DepthArray:
    made = np.zeros(len(numbers), dtype=DEPTH)
    made["instrument"] = numbers
    made["scale"] = 100
    return made


async def published(worker: Any, count: int) -> None:
    task = asyncio.create_task(worker._publish_depth())
    async with asyncio.timeout(5):
        while len(worker.bus.sent) < count or worker._depths:
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_depth_goes_out_numbered_without_what_is_muted_or_let_go() -> None:
    worker = bare_worker()
    worker.handover.mute(2)
    worker.handover.forget(4)
    worker.depth(books(1, 2, 3, 4))
    worker.depth(books(2))
    worker.depth(books(5))
    await published(worker, 2)
    read = [unpack_depth(raw) for _, raw in worker.bus.sent]
    assert {channel for channel, _ in worker.bus.sent} == {"depth:india"}
    assert [(epoch, number, shard) for epoch, number, shard, _ in read] == [(7, 1, 1), (7, 2, 1)]
    assert [found["instrument"].tolist() for *_, found in read] == [[1, 3], [5]]


async def test_while_redis_is_away_old_depth_gives_way_to_new_and_is_counted() -> None:
    worker = bare_worker()
    for number in range(MOST_DEPTHS + 3):
        worker.depth(books(number, number))
    assert len(worker._depths) == MOST_DEPTHS
    assert worker._unpublished == 6
    worker.bus.is_away = True
    task = asyncio.create_task(worker._publish_depth())
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert worker._unpublished == 8, "what could not be sent is counted too"
    worker.bus.is_away = False
    worker._deepened.set()
    await published(worker, MOST_DEPTHS - 1)
    assert unpack_depth(worker.bus.sent[-1][1])[3]["instrument"].tolist() == [MOST_DEPTHS + 2] * 2


async def test_credentials_change_in_the_mapping_that_the_connection_holds() -> None:
    worker = bare_worker()
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

"""What a feed worker reads of a feed that stands by: which ticks are of use, what is missing, which feeds are read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from actors.feed_second import FeedSecond
from cluster import streams
from storage.bus import LOST
from storage.tasks import end_tasks
from tests.api.playing import instrument
from tests.connectors.support import until
from trading.arbitration import Arbiter
from trading.errors import NotReady
from trading.feed_plan import Phase
from trading.freshness import Freshness
from trading.ids import FeedId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.seconds import SecondSource
from trading.ticks import BACKFILLED, BUYER_MAKER, SECOND, SNAPSHOT, TRADE, TickArray, TickBuffer, pack_batch

A, B, X, Y = (InstrumentId(f"T:{name}") for name in "ABXY")
NUMBERS = {A: 1, B: 2, X: 11, Y: 12}
G, H = FeedId("g"), FeedId("h")
NOW = Nanos(1_700_000_000_000_000_000)


def listed(id_: InstrumentId) -> Instrument:
    return msgspec.structs.replace(instrument(id_), number=NUMBERS[id_])


class FakeSubscription:
    def __init__(self, channels: Iterable[str]) -> None:
        self.channels = set(channels)
        self.queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        while True:
            yield await self.queue.get()

    async def add(self, channels: Iterable[str]) -> None:
        self.channels |= set(channels)

    async def remove(self, channels: Iterable[str]) -> None:
        self.channels -= set(channels)

    async def close(self) -> None:
        self.channels.clear()


class Parts:
    """Everything around the reading, played."""

    def __init__(self) -> None:
        self.seconds: dict[InstrumentId, SecondSource] = {}
        self.carried: set[InstrumentId] = {A, B}
        self.out: list[TickArray] = []
        self.subscription: FakeSubscription | None = None
        self.words: dict[str, list[int]] = {}
        self.is_away = False
        freshness = Freshness()
        for id_ in (A, B):
            freshness.want(id_, NUMBERS[id_], "24x7", NOW)
        self.freshness = freshness
        self.arbiter = Arbiter()
        self.listed: dict[InstrumentId, Instrument] = {}
        parts: Any = self
        watch: Any = SimpleNamespace(freshness=freshness)
        self.second = FeedSecond(FeedId("f"), 0, parts, parts, parts, self.arbiter, parts, parts, watch)

    # The store, the carrier, the outlet, the hot store and the bus in one.

    async def of(self, feed: FeedId) -> dict[InstrumentId, SecondSource]:
        return dict(self.seconds)

    async def learn(self) -> None:
        self.listed = {id_: listed(id_) for id_ in NUMBERS}

    def __contains__(self, id_: InstrumentId) -> bool:
        return id_ in self.carried

    def phase(self, number: int) -> Phase:
        return Phase.LIVE

    def publish_second(self, ticks: TickArray) -> None:
        if len(ticks):
            self.out.append(ticks)

    async def scan(self, prefix: str, type: Any) -> dict[str, list[int]]:
        if self.is_away:
            raise NotReady("redis is away")
        return {key: numbers for key, numbers in self.words.items() if key.startswith(prefix)}

    async def put(self, key: str, value: list[int], ttl_s: float) -> None:
        self.words[key] = value

    async def subscribe(self, channels: list[str], patterns: list[str], *, size: int) -> FakeSubscription:
        self.subscription = FakeSubscription(channels)
        return self.subscription

    def send(self, feed: FeedId, batch: int, *flags: int, number: int = 11, epoch: int = 3) -> None:
        assert self.subscription is not None
        buffer = TickBuffer()
        for each in flags:
            buffer.trade(number, 100.0, 1.0, each, NOW + batch, NOW + batch, 50 + batch)
        self.subscription.queue.put_nowait((streams.ticks(feed), pack_batch(epoch, batch, 0, buffer.take())))

    def let_go(self, id_: InstrumentId) -> None:
        self.carried.discard(id_)
        self.freshness.drop(id_)
        self.second.end([listed(id_)])

    def take(self, id_: InstrumentId) -> None:
        self.carried.add(id_)
        self.freshness.want(id_, NUMBERS[id_], "24x7", NOW)

    async def settle(self) -> None:
        assert self.subscription is not None
        await until(self.subscription.queue.empty, 5, "everything read")
        await asyncio.sleep(0)


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    made = Parts()
    tasks = [asyncio.create_task(made.second.listen()), asyncio.create_task(made.second.follow())]
    try:
        yield made
    finally:
        await end_tasks(tasks)


async def paired(parts: Parts) -> FakeSubscription:
    parts.seconds = {A: SecondSource(G, X)}
    await parts.second.take_up()
    await until(lambda: parts.subscription is not None, 5, "a subscription")
    assert parts.subscription is not None
    return parts.subscription


async def test_batches_of_the_second_that_are_missing_or_of_no_use(parts: Parts) -> None:
    subscription = await paired(parts)
    parts.arbiter.adopt(1, NOW)
    parts.send(G, 1, BUYER_MAKER)
    parts.send(G, 2, SNAPSHOT, BACKFILLED, SECOND)
    parts.send(G, 3, 0, number=12)
    parts.send(G, 6, 0)
    parts.send(G, 5, 0)
    parts.send(G, 9, 0, epoch=2)
    parts.send(H, 1, 0)
    subscription.queue.put_nowait(LOST)
    await parts.settle()
    rows = [row for ticks in parts.out for row in ticks.tolist()]
    # Ours by number, marked, and without the sequence of another stream.
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        (1, TRADE | BUYER_MAKER | SECOND, 0),
        (1, TRADE | SECOND, 0),
    ]
    assert parts.second.lost == 2 + 1, "two batches, and the bus was gone once"
    assert parts.second.report(1) is not None
    assert parts.second.report(2) is None


async def test_only_the_feeds_that_are_needed_are_read(parts: Parts) -> None:
    await parts.second.take_up()
    await asyncio.sleep(0.01)
    assert parts.subscription is None, "a feed without seconds reads nothing"
    subscription = await paired(parts)
    assert subscription.channels == {streams.ticks(G)}
    parts.seconds = {A: SecondSource(H, Y), B: SecondSource(G, X)}
    await parts.second.take_up()
    await until(lambda: subscription.channels == {streams.ticks(G), streams.ticks(H)}, 5, "both feeds")
    parts.arbiter.adopt(1, NOW)
    parts.arbiter.adopt(2, NOW)
    parts.send(G, 1, 0)
    parts.send(H, 1, 0, number=12)
    await parts.settle()
    assert [ticks["instrument"].tolist() for ticks in parts.out] == [[2], [1]]
    # What is carried no longer needs no second.
    parts.let_go(B)
    await until(lambda: subscription.channels == {streams.ticks(H)}, 5, "one feed")
    assert parts.arbiter.paired() == [1]


async def test_what_was_in_use_goes_on_only_where_it_was_and_nobody_hands_it_over(parts: Parts) -> None:
    parts.seconds = {A: SecondSource(G, X), B: SecondSource(H, Y)}
    await parts.second.take_up()
    parts.words = {"second:f:1": [1]}
    await parts.second.begin([listed(A), listed(B)], False)
    assert parts.arbiter.by_second() == [1]
    await parts.second.tell()
    assert parts.words["second:f:0"] == [1]
    # One that is handed over goes on as the one before says, whatever was said of it.
    parts.let_go(A)
    parts.take(A)
    await parts.second.begin([listed(A)], True)
    parts.second.resume(1, {TRADE: 7, SECOND: 0, SECOND | TRADE: NOW})
    assert parts.arbiter.by_second() == []
    await parts.second.tell()
    assert parts.words["second:f:0"] == []
    # One whose worker has ended is not told of; and while Redis is away nothing is known.
    parts.let_go(A)
    parts.take(A)
    await parts.second.begin([listed(A)], True)
    parts.second.resume(1, {})
    assert parts.arbiter.by_second() == [1]
    parts.is_away = True
    await parts.second.begin([listed(B)], False)
    assert parts.arbiter.by_second() == [1]


async def test_whoever_hands_over_says_the_same_twice_and_decides_no_more(parts: Parts) -> None:
    await paired(parts)
    parts.arbiter.adopt(1, NOW)
    parts.send(G, 1, 0)
    await parts.settle()
    told = parts.second.cut(1)
    assert told == {SECOND: 1, SECOND | TRADE: NOW + 1}
    assert parts.arbiter.paired() == []
    await parts.second.take_up()
    assert (parts.second.cut(1), parts.arbiter.paired()) == (told, [])
    assert parts.second.cut(2) == {}

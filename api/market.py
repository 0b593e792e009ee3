"""Ticks, books and bars for WebSocket clients: one subscription on the bus, one line of numbered updates a topic.

Clients read the lines by their own places in them (`trading.line`): of ticks and books the newest is kept, of bars the
last few.  What came in between is not sent, but counted for each client.  So a client that does not read costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
import prometheus_client

from api.topics import MarketTopic
from api.updates import Update, bar_update, book_update, tick_fields
from cluster import streams
from storage.bus import LOST, Bus, Subscription
from storage.hot import Hot
from trading.bar_building import Built
from trading.bars import Bar, interval_ns
from trading.depth import unpack_depth
from trading.errors import BadInput, NeedsOperator, NotReady
from trading.ids import FeedId, Nanos
from trading.last_values import LastValues
from trading.line import Line
from trading.live_bars import LiveBar, LiveBars
from trading.spans import Span
from trading.ticks import Senders, decode, unpack_batch

log = logging.getLogger("quarterdeck")

#: Bars of a topic that are kept for clients that come late or come back.
BARS_KEPT: Final = 200
#: A topic that nobody wants any more is kept for so long, for those who come back.
LINGER_S: Final = 60.0
#: Batches from the bus that may wait.
WAITING: Final = 8_192
_TIDY_S: Final = 5.0

_built = msgspec.msgpack.Decoder(Built).decode
_venue_bar = msgspec.msgpack.Decoder(tuple[int, bool, Bar, str]).decode


class Topic:
    """A topic that somebody wants, or wanted lately."""

    def __init__(self, topic: MarketTopic, first: int, now: Nanos) -> None:
        self.topic = topic
        self.line: Line[int, Update] = Line(BARS_KEPT if topic.kind == "bars" else 1, first)
        self.live = LiveBars(topic.width, now) if topic.kind == "bars" else None
        self.clients = 0
        self.left_at = 0.0

    @property
    def since(self) -> int | None:
        """Bars that open then or later are told, or told to be missing; None for other kinds."""
        return None if self.live is None else self.live.since


class _Ticks:
    """The wanted instruments of one feed."""

    def __init__(self) -> None:
        self.last = LastValues()
        self.senders = Senders()
        self.lines: dict[int, Topic] = {}
        self.is_wanted = np.zeros(2, dtype=np.bool_)
        #: How often something may have been missed: batches that were lost, and times without the bus.
        self.gaps = 0

    def want(self, topic: Topic) -> None:
        number = topic.topic.number
        self.lines[number] = topic
        if number + 2 > len(self.is_wanted):
            # The last place stands for all numbers beyond.
            self.is_wanted = np.zeros(number + 2, dtype=np.bool_)
            self.is_wanted[list(self.lines)] = True
        self.is_wanted[number] = True

    def unwant(self, number: int) -> None:
        self.lines.pop(number, None)
        self.last.forget(number)
        self.is_wanted[number] = False


class Market:
    """The topics, fed from the bus.  `run` it."""

    def __init__(self, bus: Bus, hot: Hot, clock: Callable[[], int] = time.time_ns) -> None:
        self._bus = bus
        self._hot = hot
        self._clock = clock
        self._topics: dict[str, Topic] = {}
        self._ticks: dict[str, _Ticks] = {}
        self._books: dict[str, dict[int, Topic]] = {}
        self._bars: dict[int, list[Topic]] = defaultdict(list)
        self._subscription: Subscription | None = None
        self._news = asyncio.Event()
        self._tidied_at = 0.0
        self._garbage = 0
        self.registry = prometheus_client.CollectorRegistry()
        self.clients = prometheus_client.Gauge(
            "quarterdeck_market_stream_clients", "WebSocket clients of market data", registry=self.registry
        )
        self.sent = self._counter("sent", "Updates sent to clients")
        self.conflated = self._counter("conflated", "Updates that newer ones replaced before a client could take them")
        self.too_slow = self._counter("too_slow", "Clients sent away for not reading")
        self._lost = self._counter("lost", "Batches of ticks lost on the way from the bus")
        topics = prometheus_client.Gauge("quarterdeck_market_stream_topics", "Topics kept", registry=self.registry)
        topics.set_function(lambda: len(self._topics))

    def __repr__(self) -> str:
        return f"<Market {len(self._topics)} topics>"

    def _counter(self, name: str, what: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(f"quarterdeck_market_stream_{name}", what, registry=self.registry)

    # What clients call

    async def join(self, wanted: Sequence[MarketTopic]) -> list[Topic]:
        """Want topics; `leave` them again.  Each has its last value at once, where there is one."""
        joined, fresh = [], []
        for each in wanted:
            topic = self._topics.get(each.text)
            if topic is None:
                topic = self._add(each)
                fresh.append(topic)
            topic.clients += 1
            joined.append(topic)
        if fresh:
            try:
                await self._listen(fresh)
                await self._seed(fresh)
            except NotReady as error:
                log.info("topics have no last values yet: %s", error)
            except BaseException:
                self.leave(joined)
                raise
        self._wake()
        return joined

    def leave(self, topics: Iterable[Topic]) -> None:
        """Want topics no more."""
        for topic in topics:
            topic.clients -= 1
            topic.left_at = time.monotonic()

    async def news(self, wait_s: float) -> None:
        """Return when there is something new in any topic, or after ``wait_s`` seconds."""
        try:
            async with asyncio.timeout(wait_s):
                await self._news.wait()
        except TimeoutError:
            return

    # Topics

    def _add(self, wanted: MarketTopic) -> Topic:
        # From the clock, so that a place of a client is never one in a line that was made anew since.
        topic = Topic(wanted, time.time_ns() // 1_000, Nanos(self._clock()))
        self._topics[wanted.text] = topic
        if wanted.kind == "ticks":
            self._ticks.setdefault(wanted.feed, _Ticks()).want(topic)
        elif wanted.kind == "depth":
            self._books.setdefault(wanted.feed, {})[wanted.number] = topic
        else:
            self._bars[wanted.number].append(topic)
        return topic

    def _names(self, topics: Iterable[Topic]) -> tuple[set[str], set[str]]:
        channels: set[str] = set()
        patterns: set[str] = set()
        for each in topics:
            topic = each.topic
            if topic.kind == "ticks":
                channels.add(streams.ticks(topic.feed))
            elif topic.kind == "depth":
                channels.add(streams.depth(topic.feed))
            else:
                patterns |= {streams.BUILT_OF_ALL, streams.BARS_OF_ALL}
        return channels, patterns

    async def _listen(self, topics: Sequence[Topic]) -> None:
        if self._subscription is None:
            raise NotReady("the bus is away")
        await self._subscription.add(*self._names(topics))

    async def _seed(self, topics: Sequence[Topic]) -> None:
        """Last values of ticks, after the stream is heard: so there is no gap between them and it."""
        by_feed: dict[FeedId, list[Topic]] = defaultdict(list)
        for topic in topics:
            if topic.topic.kind == "ticks":
                by_feed[topic.topic.feed].append(topic)
        for feed, fresh in by_feed.items():
            rows = [decode(raw) for raw in (await self._hot.scan(f"last:{feed}:", bytes)).values()]
            ticks = self._ticks.get(feed)
            if not rows or ticks is None:
                continue
            numbers = np.array([each.topic.number for each in fresh], dtype=np.int32)
            every = np.concatenate(rows)
            ticks.last.seed(every[np.isin(every["instrument"], numbers)])
            for each in fresh:
                if each.line.after(None).updates or ticks.last.get(each.topic.number) is None:
                    continue
                self._show_tick(ticks, each, 1)
        self._wake()

    def _tidy(self) -> tuple[set[str], set[str]]:
        """Forget topics that nobody wants any more; returns the names on the bus that are not needed now."""
        old = time.monotonic() - LINGER_S
        gone = [each for each in self._topics.values() if not each.clients and each.left_at < old]
        for each in gone:
            topic = each.topic
            del self._topics[topic.text]
            if topic.kind == "ticks":
                ticks = self._ticks[topic.feed]
                ticks.unwant(topic.number)
                if not ticks.lines:
                    del self._ticks[topic.feed]
            elif topic.kind == "depth":
                books = self._books[topic.feed]
                del books[topic.number]
                if not books:
                    del self._books[topic.feed]
            else:
                self._bars[topic.number].remove(each)
                if not self._bars[topic.number]:
                    del self._bars[topic.number]
        needed = self._names(self._topics.values())
        unneeded = self._names(gone)
        return unneeded[0] - needed[0], unneeded[1] - needed[1]

    # What comes in

    async def run(self) -> None:
        """Take what the bus brings, for ever."""
        delay = 0.2
        while True:
            try:
                self._subscription = await self._bus.subscribe(*self._names(self._topics.values()), size=WAITING)
            except (NotReady, NeedsOperator) as error:
                log.info("market data cannot be read yet: %s", error)
                await asyncio.sleep(delay)
                delay = min(delay * 1.7, 3.0)
                continue
            subscription = self._subscription
            tidying = asyncio.create_task(self._keep_tidy(subscription))
            try:
                await self._catch_up(subscription)
                dropped = 0
                rested_at = time.monotonic()
                async for item in subscription:
                    if item is LOST or subscription.dropped != dropped:
                        dropped = subscription.dropped
                        self._broken()
                    if item is not LOST:
                        self._take(*item)
                    if time.monotonic() - rested_at > 0.005:
                        # A queue that is never empty would starve the clients.
                        await asyncio.sleep(0)
                        rested_at = time.monotonic()
            finally:
                tidying.cancel()
                self._subscription = None
                self._broken()
                await subscription.close()

    async def _catch_up(self, subscription: Subscription) -> None:
        """What was joined while the first connection was made."""
        try:
            await subscription.add(*self._names(self._topics.values()))
            await self._seed(list(self._topics.values()))
        except NotReady as error:
            log.info("topics have no last values yet: %s", error)

    async def _keep_tidy(self, subscription: Subscription) -> None:
        while True:
            await asyncio.sleep(_TIDY_S)
            try:
                await subscription.remove(*self._tidy())
            except NotReady as error:
                log.debug("not left yet: %s", error)

    def _take(self, channel: str, raw: bytes) -> None:
        kind, _, feed = channel.partition(":")
        try:
            if kind == "ticks":
                self._take_ticks(feed, raw)
            elif kind == "depth":
                self._take_depth(feed, raw)
            elif kind == "built":
                self._take_built(_built(raw))
            else:
                self._take_venue_bar(*_venue_bar(raw))
        except (ValueError, BadInput) as error:
            if not self._garbage:
                log.warning("a message on %s makes no sense: %s", channel, error)
            self._garbage += 1

    def _take_ticks(self, feed: str, raw: bytes) -> None:
        ticks = self._ticks.get(feed)
        if ticks is None:
            return
        epoch, sequence, shard, batch = unpack_batch(raw)
        missed = ticks.senders.missed(epoch, sequence, shard)
        if missed is None:
            return
        if missed:
            self._lost.inc(missed)
            ticks.gaps += 1
        own = batch[ticks.is_wanted.take(batch["instrument"], mode="clip")]
        if not len(own):
            return
        ticks.last.take(own)
        for number, count in Counter(own["instrument"].tolist()).items():
            self._show_tick(ticks, ticks.lines[number], count)
        self._wake()

    def _show_tick(self, ticks: _Ticks, topic: Topic, count: int) -> None:
        row = ticks.last.get(topic.topic.number)
        assert row is not None
        # Read only while it is the newest of its line, so the row in place is the one that is meant.
        topic.line.put(0, Update(lambda: tick_fields(topic.topic, row, ticks.gaps)), count)

    def _take_depth(self, feed: str, raw: bytes) -> None:
        wanted = self._books.get(feed)
        if not wanted:
            return
        _, _, _, books = unpack_depth(raw)
        for row, number in enumerate(books["instrument"].tolist()):
            topic = wanted.get(number)
            if topic is not None:
                topic.line.put(0, book_update(topic.topic, books[row : row + 1].copy()))
        self._wake()

    def _take_built(self, built: Built) -> None:
        for width, opened, number in ((w, o, n) for n, w, o in built.spoilt):
            for topic in self._bars.get(number, ()):
                assert topic.live is not None
                self._show_bars(topic, topic.live.spoilt(width, opened))
        for each in built.bars:
            for topic in self._bars.get(each.instrument, ()):
                assert topic.live is not None
                self._show_bars(topic, topic.live.take(each))

    def _take_venue_bar(self, number: int, final: bool, bar: Bar, interval: str) -> None:
        for topic in self._bars.get(number, ()):
            if topic.topic.width == interval_ns(interval):
                assert topic.live is not None
                self._show_bars(topic, topic.live.own(bar, final))

    def _show_bars(self, topic: Topic, told: Sequence[LiveBar | Span]) -> None:
        for each in told:
            # A hole is told in the place of the first bar that is missing in it, and replaced with it.
            key = each.start if isinstance(each, Span) else int(each.bar.opened_at)
            topic.line.put(key, bar_update(topic.topic, each))
        if told:
            self._wake()

    def _broken(self) -> None:
        now = Nanos(self._clock())
        for ticks in self._ticks.values():
            ticks.gaps += 1
        for topics in self._bars.values():
            for topic in topics:
                assert topic.live is not None
                self._show_bars(topic, topic.live.broken(now))

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

"""The way of a feed worker's ticks onto the bus, and what else it says there.

A batch is whatever has arrived: when idle a tick leaves at once, while a publish is under way arrivals gather.

While the bus is away the batch under way is sent again under its number until it is known to be out, for readers use
each number once; what arrives waits for some seconds, and is let go after that: a gap, to be filled in from history.
What went out just before may have died with the server on its way to readers, so it is sent again, too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec
import numpy as np

from actors.feed_fence import FenceLook
from actors.feed_quality import FeedQuality
from actors.feed_watch import FeedWatch
from cluster import streams
from cluster.process import elapsed, now
from connectors.base import BookDelta
from storage.bus import Bus
from storage.hot import Hot
from trading.arbitration import Arbiter, Source
from trading.bars import Bar
from trading.depth import DepthArray, pack_depth
from trading.errors import NotReady
from trading.handover import Handover
from trading.ids import FeedId, Nanos
from trading.last_values import LastValues
from trading.quarantine import good
from trading.seen import Beat
from trading.ticks import TickArray, TickBuffer, decode, live, pack_batch

log = logging.getLogger("quarterdeck")

#: What gathered while Redis was slow goes out in pieces that a reader can take in one go.
LARGEST_BATCH: Final = 4_096
#: Batches of depth that wait for Redis; newer ones make the older worthless.
MOST_DEPTHS: Final = 32
#: Bars and changes of books that wait for Redis.
MOST_ASIDE: Final = 10_000
#: While the bus is away ticks wait for so long; readers may then take so long to be there again.
HOLD_S: Final = 5.0
READERS_S: Final = 2.0
#: What a server took in this time before it went away may not have reached its readers.
IN_DOUBT_S: Final = 1.0
_PAUSE_S: Final = 0.05


class FeedOutlet:
    """Publishes what one worker may publish."""

    def __init__(
        self,
        feed: FeedId,
        shard: int,
        bus: Bus,
        fence: FenceLook,
        handover: Handover,
        last_values: LastValues,
        quality: FeedQuality,
        watch: FeedWatch,
        arbiter: Arbiter,
        hot: Hot,
    ) -> None:
        self.feed = feed
        self.shard = shard
        self.epoch = 0
        self.ticks = TickBuffer()
        self._bus = bus
        self._fence = fence
        self._handover = handover
        self._last_values = last_values
        self._quality = quality
        self._watch = watch
        self._hot = hot
        #: How many listened to the last batch.
        self._listeners = 0
        self._arbiter = arbiter
        self._arrived = asyncio.Event()
        #: Ticks to be published next, in this order.
        self._urgent: deque[TickArray] = deque()
        #: Ticks that were ever lined up, and those of them that are out or were let go.
        self._lined_up = self._done_with = 0
        #: By number since when everything of an instrument has been sent; what is not here has not come yet since the
        #: stream was opened, or is not live.
        self._whole: dict[int, Nanos] = {}
        #: All that had been received by then has been published.
        self._published_until = Nanos(0)
        self._publishing = False
        #: Batches that went out lately, with the time; and how many losses of the bus have been made good.
        self._lately: deque[tuple[float, bytes]] = deque()
        self._losses = 0
        self._side_channel: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(maxsize=MOST_ASIDE)
        self._depths: deque[DepthArray] = deque()
        self._deepened = asyncio.Event()
        self._depth_batch = 0
        #: Counted since the worker began (`actors.feed_stats`).
        #: ``batches`` are those that were begun, ``sent`` the number of the last one that is out.
        self.sent = self.batches = self.published = self.unpublished = self.withheld = self.backfilled = self.polled = 0
        self.from_second = 0
        self.rate = 0.0
        self._rate_from = (time.monotonic(), 0)

    def __repr__(self) -> str:
        return f"<FeedOutlet {self.feed}/{self.shard}: {self.batches} batches, {self.published} ticks>"

    # What comes in

    def wake(self) -> None:
        """New ticks are in the buffer."""
        self._arrived.set()

    def line_up(self, ticks: TickArray) -> None:
        """Publish ticks next; whoever calls has seen to it that they are good and this worker's to publish."""
        if len(ticks):
            self._lined_up += len(ticks)
            self._urgent.append(ticks)
            self._arrived.set()

    def digest(self) -> None:
        """Look at what came, keep bad ticks out, and line up what is this worker's to publish."""
        raw = self.ticks.take()
        if not raw:
            return
        ticks = decode(raw)
        self._watch.take(ticks)
        sifted = self._quality.sift(ticks)
        if len(sifted) < len(ticks):
            self._watch.gaps.holes.refused(self._quality.kept_out)
        admitted = self._handover.admit(sifted)
        self.withheld += len(sifted) - len(admitted)
        self.publish_first(admitted)

    def publish_first(self, ticks: TickArray) -> None:
        """Ticks of the stream that are this worker's to publish; of those that have a second, what comes out."""
        passing = self._arbiter.take(Source.FIRST, ticks)
        if len(passing) < len(ticks):
            # What the second has brought instead does not lack.
            passed = set(zip(passing["instrument"].tolist(), passing["sequence"].tolist(), strict=True))
            each = zip(ticks["instrument"].tolist(), ticks["sequence"].tolist(), strict=True)
            self._watch.gaps.holes.refused(ticks[[tick not in passed for tick in each]])
        self.withheld += len(ticks) - len(passing)
        self.line_up(passing)

    def publish_kept(self, ticks: TickArray) -> None:
        """Ticks of the stream that were withheld while the second was in use."""
        self.withheld -= len(ticks)
        self.line_up(ticks)

    def publish_second(self, ticks: TickArray) -> None:
        """Ticks of a second provider that come out, of what is this worker's to publish."""
        ticks = self._handover.owned(ticks)
        self.from_second += len(ticks)
        self.line_up(ticks)

    def show_polled(self, ticks: TickArray) -> None:
        """Last values from a poll, of what is this worker's to publish and does not come from a second provider."""
        if by_second := self._arbiter.by_second():
            ticks = ticks[~np.isin(ticks["instrument"], np.array(by_second, dtype=np.int32))]
        self.polled += self._outside_the_stream(ticks)

    def fill_in(self, ticks: TickArray) -> int:
        """Trades of a gap; returns how many of them were good and are this worker's to publish."""
        filled = self._outside_the_stream(ticks)
        self.backfilled += filled
        return filled

    def fill_hole(self, ticks: TickArray) -> TickArray:
        """Trades that this worker owes, whoever carries the instrument by now; returns those that were good."""
        ticks = good(ticks, self._quality.filter.judge(ticks))
        self.backfilled += len(ticks)
        self.line_up(ticks)
        return ticks

    def _outside_the_stream(self, ticks: TickArray) -> int:
        ticks = self._handover.owned(good(ticks, self._quality.filter.judge(ticks)))
        self.line_up(ticks)
        return len(ticks)

    def bar(self, instrument: int, bar: Bar, final: bool, interval: str) -> None:
        """A bar of this interval that the venue built."""
        self._aside(streams.bars(self.feed), msgspec.msgpack.encode((instrument, final, bar, interval)))

    def book(self, delta: BookDelta) -> None:
        """A change of an order book."""
        self._aside(streams.books(self.feed), msgspec.msgpack.encode(delta))

    def _aside(self, channel: str, payload: bytes) -> None:
        if self._side_channel.full():
            self._side_channel.get_nowait()
            self.unpublished += 1
        self._side_channel.put_nowait((channel, payload))

    def depth(self, books: DepthArray) -> None:
        """Whole books of a few levels."""
        if len(self._depths) == MOST_DEPTHS:
            self.unpublished += len(self._depths.popleft())
        self._depths.append(books)
        self._deepened.set()

    def torn(self) -> None:
        """The stream is another one from here on: nothing is whole from before."""
        self._whole.clear()

    def forget(self, number: int) -> None:
        """An instrument is no longer carried."""
        self._whole.pop(number, None)
        self._last_values.forget(number)

    # Out to the bus

    async def publish(self) -> None:
        """Publish ticks as they come, for ever."""
        channel = streams.ticks(self.feed)
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            self._publishing = True
            began = now()
            self.digest()
            # All of it goes out in this round: nobody need be woken for it.
            self._arrived.clear()
            while self._urgent:
                ticks = self._urgent.popleft()
                if len(ticks) > LARGEST_BATCH:
                    self._urgent.appendleft(ticks[LARGEST_BATCH:])
                await self._publish_batch(channel, ticks[:LARGEST_BATCH])
            self._published_until = began
            self._publishing = False

    async def _publish_batch(self, channel: str, ticks: TickArray) -> None:
        self.batches += 1
        # What is filled in is older than what is there.
        self._last_values.take(live(ticks))
        batch = pack_batch(self.epoch, self.batches, self.shard, ticks.tobytes())
        note = self._watch.gaps.holes.note(ticks)
        began = 0.0
        while True:
            try:
                await self._fence.may_publish()
                if began or self._bus.losses != self._losses:
                    await self._make_good(channel)
                if note is None:
                    self._listeners = await self._bus.publish(channel, batch)
                else:
                    self._listeners, notes = await self._bus.publish_noted(channel, batch, *note)
                    self._watch.gaps.holes.noted(notes)
            except NotReady as error:
                if not began:
                    began = elapsed()
                    log.warning("ticks are not published: %s", error)
                if elapsed() - began > HOLD_S:
                    self._let_go(ticks)
                    return
                self._hold()
                await asyncio.sleep(_PAUSE_S)
            else:
                break
        if began:
            log.info("ticks are published again after %.1f s", elapsed() - began)
        at = time.monotonic()
        self._lately.append((at, batch))
        while self._lately[0][0] < at - IN_DOUBT_S:
            self._lately.popleft()
        self.sent = self.batches
        self._done_with += len(ticks)
        self.published += len(ticks)
        for number in self._watch.published(ticks):
            # What lacks ends what is whole.
            self._whole.pop(number, None)

    async def _make_good(self, channel: str) -> None:
        """Readers are back after a loss of the bus, and have what it took just before.  Raises `NotReady`."""
        losses = self._bus.losses
        await self._wait_for_readers(channel)
        for at, batch in self._lately:
            if at >= self._bus.lost_at - IN_DOUBT_S:
                # Whoever had it knows its number.
                await self._bus.publish(channel, batch)
        self._losses = losses

    async def _wait_for_readers(self, channel: str) -> None:
        """Those that listened before the bus went away come back one by one; nothing is kept for who is late."""
        deadline = elapsed() + READERS_S
        while elapsed() < deadline:
            if await self._hot.listeners(channel) >= self._listeners:
                return
            await asyncio.sleep(_PAUSE_S)

    def _hold(self) -> None:
        """Take in what came, and let go of what has waited for too long."""
        self.digest()
        oldest = now() - int(HOLD_S * 1e9)
        while self._urgent and int(self._urgent[0]["received_at"][-1]) < oldest:
            self._let_go(self._urgent.popleft())

    def _let_go(self, ticks: TickArray) -> None:
        self._done_with += len(ticks)
        self.unpublished += len(ticks)
        self._watch.withheld(ticks, "not published: the bus was away")

    async def flushed(self, within_s: float) -> None:
        """Wait until all that has come by now is out.  Raises `NotReady`."""
        self.digest()
        deadline = elapsed() + within_s
        target = self._lined_up
        while self._done_with < target:
            if elapsed() > deadline:
                raise NotReady(f"what came is not published within {within_s:g} s", 1.0)
            await asyncio.sleep(0.005)

    async def publish_side(self) -> None:
        """Publish bars and changes of books, for ever."""
        while True:
            channel, payload = await self._side_channel.get()
            try:
                await self._bus.publish(channel, payload)
            except NotReady:
                self.unpublished += 1
                await asyncio.sleep(_PAUSE_S)

    async def publish_depth(self) -> None:
        """Publish books of a few levels, for ever."""
        channel = streams.depth(self.feed)
        while True:
            await self._deepened.wait()
            self._deepened.clear()
            while self._depths:
                books = self._handover.shown(self._depths.popleft())
                if not len(books):
                    continue
                self._depth_batch += 1
                try:
                    await self._fence.may_publish()
                    await self._bus.publish(channel, pack_depth(self.epoch, self._depth_batch, self.shard, books))
                except NotReady:
                    self.unpublished += len(books)
                    await asyncio.sleep(_PAUSE_S)

    async def publish_last(self) -> None:
        """Publish the last values that changed.  Raises `NotReady`."""
        changed = self._last_values.changed()
        if len(changed):
            await self._fence.may_publish()
            await self._bus.publish(streams.last(self.feed), changed.tobytes())

    async def publish_beat(self, streaming: Iterable[tuple[int, Nanos]], every_trade: bool) -> None:
        """Say what is whole.  Raises `NotReady`.

        ``streaming``: numbers of instruments whose trades come on an open stream, each with the time from which on a
        tick must have come before it counts.
        """
        idle = not self._publishing and not self._arrived.is_set() and not len(self.ticks)
        at = now() if idle else self._published_until
        whole = {
            number: self._whole.get(number, at)
            for number, since in streaming
            if (self._last_values.seen_at(number) or 0) >= since
        }
        self._whole = whole
        beat = Beat(self.shard, self.epoch, self.sent, at, tuple(whole.items()), every_trade)
        await self._bus.publish(streams.beats(self.feed), msgspec.msgpack.encode(beat))

    def ticks_of(self, number: int) -> int:
        """Ticks of an instrument that were published or tried to be."""
        return self._last_values.count(number)

    def measure(self) -> None:
        """Work out the rate since it was measured the last time."""
        at, before = self._rate_from
        seconds = time.monotonic() - at
        self.rate = (self.published - before) / seconds if seconds > 0 else 0.0
        self._rate_from = (time.monotonic(), self.published)

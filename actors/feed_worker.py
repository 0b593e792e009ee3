"""One shard of a feed: a streaming connection, its instruments, their ticks onto the bus.

A batch is whatever has arrived: when idle a tick leaves at once, while a publish is under way arrivals gather.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from actors.feed_figures import FeedFigures
from actors.feed_quality import FeedQuality
from actors.feed_stats import InstrumentStats, WorkerStats
from actors.feed_watch import FeedWatch, edges_in
from actors.shell import Shell, patiently
from cluster import names, process, streams
from cluster.feeds import fence_key
from cluster.process import elapsed, now
from connectors.base import BookDelta, FeedConnection, MarketData
from connectors.registry import market_data
from storage.bus import Bus
from storage.desired import Desired
from storage.feed_quality import FeedGaps, FeedTunings
from storage.instruments import Instruments
from storage.leases import Leases
from storage.records import FeedRecord
from storage.secrets import Secrets, load_key, secret_name
from trading.bars import Bar
from trading.depth import DepthArray, pack_depth
from trading.errors import BadInput, Fenced, NeedsOperator, NotReady, TradeError, UnknownThing
from trading.feed_plan import Carried, Phase, WorkerReport
from trading.gaps import Edge
from trading.handover import Cuts, Handover
from trading.ids import Epoch, FeedId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.last_values import LastValues
from trading.quarantine import good
from trading.seen import Beat
from trading.ticks import TickArray, TickBuffer, decode, live, pack_batch

log = logging.getLogger("quarterdeck")

LEASE_S = 10.0
LEASE_EVERY_S = 1.0
#: Nothing is published on a look for a fence that began longer ago; whoever fences waits as long.
FENCE_S = 1.0
FENCE_EVERY_S = 0.3
LAST_EVERY_S = 0.25
STATS_EVERY_S = 0.5
BEAT_EVERY_S = 1.0
#: What gathered while Redis was slow goes out in pieces that a reader can take in one go.
LARGEST_BATCH = 4_096
#: A token that ends each day is looked for this often.
CREDENTIALS_EVERY_S = 5.0
LOOK_EVERY_S = 0.5
POLL_EVERY_S = 1.0
TUNING_EVERY_S = 1.0
QUARANTINE_EVERY_S = 1.0
#: Batches of depth that wait for Redis; newer ones make the older worthless.
MOST_DEPTHS = 32


class FeedWorker(Shell):
    """One WebSocket (or the few that the provider's split hosts need) and its instruments."""

    def __init__(self, feed: str, shard: int) -> None:
        self.feed = FeedId(feed)
        self.shard = shard
        self.ticks = TickBuffer()
        super().__init__(names.worker(feed, shard))
        self.bus = Bus(self.deck.redis_url)
        self.leases = Leases(self.database)
        self.desired = Desired(self.database)
        self.instruments = Instruments(self.database)
        self.handover = Handover()
        self.last_values = LastValues()
        self._listed: dict[InstrumentId, Instrument] = {}
        self.quality = FeedQuality(self.feed, shard, FeedTunings(self.database))
        self.gaps = FeedGaps(self.database)
        self.watch = FeedWatch(self.feed, shard, self, self.gaps)
        self.figures = FeedFigures(self.quality.filter)
        self._carried: dict[InstrumentId, Nanos] = {}
        #: In which channels the provider was asked for them.
        self._asked: dict[InstrumentId, tuple[str, ...]] = {}
        #: What the provider is to be asked, in this order, at its own pace: (take, instruments, channels).
        self._asking: asyncio.Queue[tuple[bool, list[Instrument], tuple[str, ...] | None]] = asyncio.Queue()
        #: When the last look began that found no fence.
        self._unfenced_at = 0.0
        self._refused: dict[InstrumentId, str] = {}
        self._market: MarketData | None = None
        self._connection: FeedConnection | None = None
        self._channels: tuple[str, ...] = ()
        self._arrived = asyncio.Event()
        self._urgent: list[TickArray] = []
        self._connected = False
        self._why = "connecting"
        self._opened_at = 0
        #: Since when everything of an instrument has been sent; what is not here has not come yet since the stream
        #: was opened, or is not live.
        self._whole: dict[InstrumentId, Nanos] = {}
        #: All that had been received by then has been published.
        self._published_until = Nanos(0)
        self._publishing = False
        self._batch = self._published = self._garbage = self._reconnects = self._unpublished = 0
        self._withheld = self._backfilled = self._polled = 0
        self._rate_from = (time.monotonic(), 0)
        self._rate = 0.0
        self._running: list[asyncio.Task[None]] = []
        self._side_channel: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(maxsize=10_000)
        self._depths: deque[DepthArray] = deque()
        self._deepened = asyncio.Event()
        self._depth_batch = 0
        #: How far the feed's workers had come with an instrument, by number, before this one had it; and prices then.
        self._before: dict[int, tuple[Nanos, Edge]] = {}
        self._last_prices: dict[int, float] = {}
        self._made_at = Nanos(0)
        #: What the provider logs in with; the connection reads it anew each time, so it changes in place.
        self._log_in: dict[str, str] = {}

    async def start(self) -> None:
        """Take an epoch and connect; instruments come from the coordinator."""
        await self.database.open()
        record = await self.desired.feed(self.feed)
        self.epoch = await self.leases.take(self.name, self.deck.node, LEASE_S)
        self._unfenced_at = elapsed()
        self._channels, self._made_at = record.channels, record.created_at
        await self._learn()
        self._log_in = await self._credentials(record)
        market = market_data(record.provider, record.settings, self._log_in)
        connection = market.feed(self)
        for task in self._running:
            task.cancel()
        if self._market is not None:
            await self._market.close()
        self._market, self._connection = market, connection
        self.watch.serve(market, connection)
        await self.gaps.abandon(self.feed, self.shard, "the worker ended before it was filled")
        await self._tune()
        # Before the values of this worker take the place of those of the one before it.
        await self._read_last()
        self._running = [
            self.spawn(connection.run(), "stream"),
            self.spawn(self._ask(connection), "subscriptions"),
            self.spawn(patiently("lease", self._renew, every=LEASE_EVERY_S), "lease"),
            self.spawn(patiently("fence", self._look_for_fence, every=FENCE_EVERY_S), "fence"),
            self.spawn(self._publish(), "publish"),
            self.spawn(self._publish_side(), "publish bars and books"),
            self.spawn(self._publish_depth(), "publish depth"),
            self.spawn(patiently("last values", self._publish_last, every=LAST_EVERY_S), "last values"),
            self.spawn(patiently("beat", self._publish_beat, every=BEAT_EVERY_S), "beat"),
            self.spawn(patiently("stats", self._publish_stats, every=STATS_EVERY_S), "stats"),
            self.spawn(patiently("freshness", self.watch.look, every=LOOK_EVERY_S), "freshness"),
            self.spawn(patiently("polls", self.watch.poll, every=POLL_EVERY_S), "polls"),
            self.spawn(self.watch.fill(), "gaps"),
            self.spawn(patiently("settings", self._tune, every=TUNING_EVERY_S), "settings"),
            self.spawn(patiently("quarantine", self._show_quarantine, every=QUARANTINE_EVERY_S), "quarantine"),
        ]
        if record.settings.get("account"):

            async def renew() -> None:
                await self._renew_log_in(record)

            self._running.append(self.spawn(patiently("credentials", renew, every=CREDENTIALS_EVERY_S), "credentials"))

    async def _credentials(self, record: FeedRecord) -> dict[str, str]:
        """Of the account that the feed's settings name; {} where none is named."""
        account = record.settings.get("account")
        if not account:
            return {}
        try:
            return await Secrets(self.database, load_key(self.deck.home)).get(secret_name(str(account)))
        except UnknownThing as error:
            raise NeedsOperator(
                f"account {account}, whose key feed {self.feed} uses, has no credentials",
                f"give them: PUT /v1/accounts/{account}/credentials",
            ) from error

    async def _renew_log_in(self, record: FeedRecord) -> None:
        """Take up credentials that were given since; a broker's token may end each day."""
        given = await self._credentials(record)
        if given != self._log_in:
            log.info("there are new credentials")
            # In one step of the loop, so that nobody sees a half of each.
            self._log_in.clear()
            self._log_in.update(given)

    async def finish(self) -> None:
        """Close the sockets, and say no more of what was carried."""
        for task in self._running:
            task.cancel()
        if self._market is not None:
            await self._market.close()
        try:
            await self.hot.delete(f"worker:{self.feed}:{self.shard}")
        except TradeError as error:
            log.debug("what it said of itself stays until it is too old: %s", error)

    async def _tune(self) -> None:
        """Take up settings of the filter and of patience that were set since."""
        if await self.quality.take_up_settings():
            self.watch.tune(self.quality.freshness, self.quality.own_freshness)

    async def _show_quarantine(self) -> None:
        await self.quality.show(self.hot, {i.number: i.id for i in self._listed.values()})

    async def _read_last(self) -> None:
        """Take note of how far the feed's workers had come: half a second old at most, and kept for an hour."""
        for raw in (await self.hot.scan(f"edges:{self.feed}:", bytes)).values():
            for number, edge in edges_in(raw).items():
                # What is older was of another feed by this name.
                if edge[0] > max(self._made_at, self._before.get(number, edge)[0] - 1):
                    self._before[number] = edge
        for raw in (await self.hot.scan(f"last:{self.feed}:", bytes)).values():
            self._last_prices |= {
                int(row["instrument"]): float(row["price"]) for row in decode(raw) if row["price"] > 0
            }

    async def _begin(self, fresh: Sequence[Instrument], muted: bool) -> None:
        """Watch instruments from now on; of those that nobody hands over a gap is open since they were published."""
        if fresh and not muted:
            try:
                await self._read_last()
            except NotReady as error:
                log.warning("what was published last is not known, a gap will not be filled: %s", error)
        # What was let go meanwhile is not begun.
        fresh = [instrument for instrument in fresh if instrument.id in self._carried]
        self.quality.know(fresh, self._last_prices)
        self.watch.want(fresh, {} if muted else self._before)

    def _end(self, gone: Sequence[Instrument]) -> None:
        """Instruments are no longer carried."""
        self.quality.forget(gone)
        self.watch.drop(gone)
        for instrument in gone:
            self.figures.forget(instrument.number)
            self._before.pop(instrument.number, None)
            self._last_prices.pop(instrument.number, None)

    async def _learn(self) -> None:
        self._listed = {i.id: i for i in await self.instruments.all()}

    # What the coordinator calls

    async def carry(self, instruments: Sequence[InstrumentId], muted: bool, channels: Sequence[str] = ()) -> None:
        """Take instruments, in these channels (none: the feed's); ``muted`` ones are kept back until activated."""
        self._ready()
        asked = tuple(channels) or self._channels
        if any(i not in self._listed for i in instruments):
            await self._learn()
        fresh = []
        for id_ in instruments:
            instrument = self._listed.get(id_)
            if instrument is None:
                self._refused[id_] = "not among the listed instruments"
                continue
            if id_ in self._carried:
                continue
            self._carried[id_] = now()
            self._asked[id_] = asked
            if muted:
                self.handover.mute(instrument.number)
            else:
                self.handover.carry(instrument.number)
            fresh.append(instrument)
        await self._begin(fresh, muted)
        # What was let go meanwhile is not asked for.
        fresh = [instrument for instrument in fresh if instrument.id in self._carried]
        if fresh:
            self._asking.put_nowait((True, fresh, asked))

    async def retune(self, instruments: Sequence[InstrumentId], channels: Sequence[str]) -> None:
        """Stream other channels of instruments: those that are new are asked for, then the others ended."""
        self._ready()
        wanted = tuple(channels)
        changes: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Instrument]] = {}
        for id_ in instruments:
            if id_ in self._carried:
                had = self._asked[id_]
                self._asked[id_] = wanted
                new = tuple(channel for channel in wanted if channel not in had)
                over = tuple(channel for channel in had if channel not in wanted)
                changes.setdefault((new, over), []).append(self._listed[id_])
        for (new, over), those in changes.items():
            if new:
                self._asking.put_nowait((True, those, new))
            if over:
                self._asking.put_nowait((False, those, over))

    async def release(self, instruments: Sequence[InstrumentId]) -> None:
        """Stop carrying instruments."""
        self._ready()
        gone = []
        for id_ in instruments:
            self._refused.pop(id_, None)
            self._whole.pop(id_, None)
            self._asked.pop(id_, None)
            if self._carried.pop(id_, None) is not None:
                gone.append(self._listed[id_])
        for instrument in gone:
            self.handover.forget(instrument.number)
            self.last_values.forget(instrument.number)
        self._end(gone)
        if gone:
            self._asking.put_nowait((False, gone, None))

    async def cut(self, firsts: Mapping[InstrumentId, Cuts]) -> dict[InstrumentId, Cuts]:
        """Agree where another worker takes over instruments; those that are not carried here are left out."""
        self._ready()
        cuts = {}
        for id_, first in firsts.items():
            if id_ in self._carried:
                number = self._listed[id_].number
                if not self.handover.is_ending(number):
                    self._carried[id_] = now()
                cuts[id_] = self.handover.cut(number, first)
        return cuts

    async def activate(self, cuts: Mapping[InstrumentId, Cuts]) -> None:
        """Publish instruments from their cuts on."""
        self._ready()
        for id_, cut in cuts.items():
            if id_ in self._carried and len(kept := self.handover.activate(self._listed[id_].number, cut)):
                self._urgent.append(kept)
        if self._urgent:
            self._arrived.set()

    async def _ask(self, connection: FeedConnection) -> None:
        """Ask the provider for what is carried, and let go what is not: it sets the pace, nobody waits for it."""
        while True:
            take, instruments, channels = await self._asking.get()
            if not take:
                await connection.unsubscribe(instruments, channels)
                continue
            # What was let go meanwhile is not asked for any more.
            instruments = [each for each in instruments if each.id in self._carried]
            try:
                await connection.subscribe(instruments, channels or ())
            except BadInput:
                # None of them was taken: find those that cannot be.
                for instrument in instruments:
                    try:
                        await connection.subscribe([instrument], channels or ())
                    except BadInput as error:
                        self.refused(instrument.id, str(error))

    async def history(self, instrument: Instrument, interval: str, start: int, end: int) -> Sequence[Bar]:
        """Closed bars of the provider, for algos: a provider's key never enters their processes."""
        self._ready()
        assert self._market is not None
        return await self._market.history(instrument, interval, Nanos(start), Nanos(end))

    async def report(self) -> WorkerReport | None:
        """What is truly carried, and how; None while it is not ready, for then nothing is."""
        if self.state != "ready" or self._connection is None:
            return None
        return WorkerReport(
            shard=self.shard,
            epoch=Epoch(self.epoch),
            carried={id_: self._how(id_, since) for id_, since in self._carried.items()},
        )

    def _how(self, id_: InstrumentId, since: Nanos) -> Carried:
        number = self._listed[id_].number
        firsts: Cuts = {}
        kinds: tuple[int, ...] = ()
        passed = False
        if self.handover.is_muted(number):
            phase, firsts = Phase.MUTED, self.handover.firsts(number)
        elif self.handover.is_ending(number):
            phase, passed = Phase.ENDING, self.handover.has_passed(number)
        else:
            phase, kinds = Phase.LIVE, self.handover.kinds(number)
        return Carried(
            phase=phase,
            since=since,
            firsts=firsts,
            passed=passed,
            kinds=kinds,
            last_at=self.last_values.seen_at(number) or Nanos(0),
            channels=self._asked[id_],
        )

    # Its right to publish

    async def _renew(self) -> None:
        await self.leases.renew(self.name, Epoch(self.epoch), LEASE_S)

    async def _look_for_fence(self) -> None:
        """End this process where it has been given up: others carry its instruments.

        The word is in Redis, so that whoever can publish can read it, PostgreSQL or no PostgreSQL.
        """
        began = elapsed()
        fenced = await self.hot.get(fence_key(self.name), int)
        if fenced is not None and fenced >= self.epoch:
            raise Fenced(self.name, self.epoch, fenced)
        self._unfenced_at = began

    async def _may_publish(self) -> None:
        """Look before publishing where that was long ago, as after a sleep of the machine.  Raises `NotReady`."""
        if elapsed() - self._unfenced_at > FENCE_S:
            try:
                await self._look_for_fence()
            except Fenced as error:
                process.end(str(error))

    def _ready(self) -> FeedConnection:
        self.require_ready()
        if self._connection is None:
            raise NotReady(f"{self.name} is connecting", 1.0)
        return self._connection

    # What the connection puts in (FeedSink)

    def wake(self) -> None:
        """New ticks are in the buffer."""
        self._arrived.set()

    def bar(self, instrument: int, bar: Bar, final: bool) -> None:
        """A bar that the venue built."""
        assert self._market is not None
        told = (instrument, final, bar, self._market.limits.bar_interval)
        self._aside(streams.bars(self.feed), msgspec.msgpack.encode(told))

    def book(self, delta: BookDelta) -> None:
        """A change of an order book."""
        self._aside(streams.books(self.feed), msgspec.msgpack.encode(delta))

    def depth(self, books: DepthArray) -> None:
        """Whole books of a few levels."""
        if len(self._depths) == MOST_DEPTHS:
            self._unpublished += len(self._depths.popleft())
        self._depths.append(books)
        self._deepened.set()

    def opened(self) -> None:
        """The stream is open and everything was asked for again."""
        if not self._connected:
            log.info("the stream is open")
        self._connected, self._why = True, ""
        self._opened_at = now()
        self._whole.clear()
        self.watch.opened()

    def closed(self, reason: str) -> None:
        """The stream is gone and reconnects by itself."""
        if self._connected:
            log.warning("the stream is gone: %s", reason)
            self._reconnects += 1
        self._connected, self._why = False, reason
        self._whole.clear()
        # What came before belongs before the gap.
        self._digest()
        self._arrived.set()
        self.watch.closed(reason)

    def garbage(self, raw: bytes, reason: str) -> None:
        """A frame that makes no sense; counted, the first ones shown."""
        self._garbage += 1
        if self._garbage <= 10:
            log.warning("a frame makes no sense (%s): %r", reason, raw[:200])

    def refused(self, instrument: InstrumentId, reason: str) -> None:
        """The provider refused an instrument."""
        if self._refused.get(instrument) != reason:
            log.warning("%s is refused: %s", instrument, reason)
        self._refused[instrument] = reason
        self.watch.refused(instrument, reason)

    # What the watch puts in (Publisher)

    def show_polled(self, ticks: TickArray) -> None:
        """Last values from a poll, of what is this worker's to publish."""
        self._polled += len(self._outside_the_stream(ticks))

    def fill_in(self, ticks: TickArray) -> int:
        """Trades of a gap; returns how many of them were good and are this worker's to publish."""
        filled = len(self._outside_the_stream(ticks))
        self._backfilled += filled
        return filled

    def channels_of(self, instrument: InstrumentId) -> tuple[str, ...]:
        """In which channels the provider was asked for an instrument; none where it is not carried."""
        return self._asked.get(instrument, ())

    def _outside_the_stream(self, ticks: TickArray) -> TickArray:
        verdicts = self.quality.filter.judge(ticks)
        ticks = self.handover.owned(good(ticks, verdicts))
        if len(ticks):
            self._urgent.append(ticks)
            self._arrived.set()
        return ticks

    # Out to the bus

    async def _publish(self) -> None:
        channel = streams.ticks(self.feed)
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            self._publishing = True
            began = now()
            self._digest()
            parts, self._urgent = self._urgent, []
            for ticks in parts:
                for start in range(0, len(ticks), LARGEST_BATCH):
                    await self._publish_batch(channel, ticks[start : start + LARGEST_BATCH])
            self._published_until = began
            self._publishing = False

    def _digest(self) -> None:
        """Look at what came, keep bad ticks out, and line up what is this worker's to publish."""
        raw = self.ticks.take()
        if not raw:
            return
        ticks = decode(raw)
        self.watch.take(ticks)
        sifted = self.quality.sift(ticks)
        admitted = self.handover.admit(sifted)
        self._withheld += len(sifted) - len(admitted)
        if len(admitted):
            self._urgent.append(admitted)

    async def _publish_batch(self, channel: str, ticks: TickArray) -> None:
        self._batch += 1
        # What is filled in is older than what is there.
        self.last_values.take(live(ticks))
        try:
            await self._may_publish()
            await self.bus.publish(channel, pack_batch(self.epoch, self._batch, self.shard, ticks.tobytes()))
        except NotReady as error:
            # Nobody can be reached: ticks stop, readers see the gap by the batch numbers.
            if not self._unpublished:
                log.warning("ticks are not published: %s", error)
            self._unpublished += len(ticks)
            await asyncio.sleep(0.05)
        else:
            self._published += len(ticks)

    def _aside(self, channel: str, payload: bytes) -> None:
        if self._side_channel.full():
            self._side_channel.get_nowait()
            self._unpublished += 1
        self._side_channel.put_nowait((channel, payload))

    async def _publish_side(self) -> None:
        while True:
            channel, payload = await self._side_channel.get()
            try:
                await self.bus.publish(channel, payload)
            except NotReady:
                self._unpublished += 1
                await asyncio.sleep(0.05)

    async def _publish_depth(self) -> None:
        channel = streams.depth(self.feed)
        while True:
            await self._deepened.wait()
            self._deepened.clear()
            while self._depths:
                books = self.handover.shown(self._depths.popleft())
                if not len(books):
                    continue
                self._depth_batch += 1
                try:
                    await self._may_publish()
                    await self.bus.publish(channel, pack_depth(self.epoch, self._depth_batch, self.shard, books))
                except NotReady:
                    self._unpublished += len(books)
                    await asyncio.sleep(0.05)

    async def _publish_last(self) -> None:
        changed = self.last_values.changed()
        if len(changed):
            await self._may_publish()
            await self.bus.publish(streams.last(self.feed), changed.tobytes())

    async def _publish_beat(self) -> None:
        """Say what is whole: where trades come, the stream is open, and a tick has come since it was opened."""
        if self._market is None:
            return
        idle = not self._publishing and not self._arrived.is_set() and not len(self.ticks)
        at = now() if idle else self._published_until
        whole = []
        for id_, since in self._carried.items():
            number = self._listed[id_].number
            seen_at = self.last_values.seen_at(number) or 0
            brings_trades = self._connected and "trade" in self._asked[id_] and self.watch.is_whole(id_)
            is_live = brings_trades and self._how(id_, since).phase is Phase.LIVE
            if is_live and seen_at >= max(since, self._opened_at):
                whole.append((number, self._whole.setdefault(id_, at)))
            else:
                self._whole.pop(id_, None)
        beat = Beat(self.shard, self.epoch, self._batch, at, tuple(whole), self._market.limits.every_trade)
        await self.bus.publish(streams.beats(self.feed), msgspec.msgpack.encode(beat))

    async def _publish_stats(self) -> None:
        at, before = self._rate_from
        seconds = time.monotonic() - at
        self._rate = (self._published - before) / seconds if seconds > 0 else 0.0
        self._rate_from = (time.monotonic(), self._published)
        self.figures.look([self._listed[id_].number for id_ in self._carried], self.watch.freshness.habits)
        await self.hot.put(f"worker:{self.feed}:{self.shard}", self.stats(), ttl_s=30)
        await self.hot.put(f"last:{self.feed}:{self.shard}", self.last_values.all().tobytes(), ttl_s=3600)
        await self.hot.put(f"edges:{self.feed}:{self.shard}", self.watch.edges(), ttl_s=3600)

    def stats(self) -> WorkerStats:
        """Counts, rates and ages."""
        at = now()
        return WorkerStats(
            feed=self.feed,
            shard=self.shard,
            epoch=self.epoch,
            node=self.deck.node,
            connected=self._connected,
            reason=self._why,
            at=at,
            ticks=self._published,
            rate=round(self._rate, 1),
            batches=self._batch,
            garbage=self._garbage,
            reconnects=self._reconnects,
            unpublished=self._unpublished,
            received=self.quality.received,
            quarantined=self.quality.refused,
            withheld=self._withheld,
            backfilled=self._backfilled,
            polled=self._polled,
            resubscribed=self.watch.resubscribed,
            given_up=self.watch.reconnects,
            gaps=sum(self.watch.gaps.values()),
            unfilled_gaps=self.watch.unfilled,
            refused_ticks=self.quality.filter.quarantine.counts(),
            states=self.watch.freshness.counts(),
            skew_ms=self.figures.skew_ms,
            instruments=tuple(
                self._instrument_stats(id_, since, at)
                for id_, since in self._carried.items()
                if id_ in self.watch.freshness
            ),
        )

    def _instrument_stats(self, id_: InstrumentId, since: Nanos, at: Nanos) -> InstrumentStats:
        number = self._listed[id_].number
        report = self.watch.report(id_, at)
        figures = self.figures.of(number)
        return InstrumentStats(
            id=id_,
            phase=str(self._how(id_, since).phase),
            ticks=self.last_values.count(number),
            age_s=report.age_s,
            state=str(report.state),
            reason=report.reason,
            since=report.since,
            patience_s=report.patience_s,
            rate=figures.rate,
            gaps=self.watch.gaps.get(id_, 0),
            quarantined=self.quality.filter.quarantine.count(number),
            skew_ms=figures.skew_ms,
            skew_p99_ms=figures.skew_p99_ms,
            polled=report.polled,
        )

    def facts(self) -> dict[str, Any]:
        return {
            "connected": self._connected,
            "why": self._why,
            "instruments": len(self._carried),
            "ticks": self._published,
        }

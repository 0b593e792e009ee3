"""One shard of a feed: a streaming connection, its instruments, their ticks onto the bus.

Its parts each do one thing: `FeedCarrier` what the coordinator commands, `FeedQuality` keeps bad ticks out, `FeedWatch`
heals, `FeedSecond` reads second providers, `FeedOutlet` publishes, `FeedStats` tells.  Here they are put together and
given life.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from actors.feed_carrier import FeedCarrier
from actors.feed_fence import FenceLook
from actors.feed_holes import FeedHoles
from actors.feed_outlet import FeedOutlet
from actors.feed_quality import FeedQuality
from actors.feed_second import FeedSecond
from actors.feed_stats import FeedStats, StreamState, WorkerStats
from actors.feed_watch import FeedWatch, edges_in
from actors.shell import Shell, patiently
from cluster import names
from cluster.process import now
from connectors.base import BookDelta, FeedConnection, MarketData
from connectors.registry import market_data
from storage.bus import Bus
from storage.desired import Desired
from storage.feed_quality import FeedGaps, FeedTunings
from storage.feed_seconds import FeedSeconds
from storage.instruments import Instruments
from storage.leases import Leases
from storage.records import FeedRecord
from storage.secrets import Secrets, load_key
from trading.arbitration import Arbiter, Source
from trading.bars import Bar
from trading.continuity import Mark
from trading.depth import DepthArray
from trading.errors import NotReady, TradeError
from trading.feed_plan import Phase, WorkerReport
from trading.gaps import Edge
from trading.handover import Cuts, Handover
from trading.ids import Epoch, FeedId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.last_values import LastValues
from trading.ticks import TRADE, TickArray, decode

log = logging.getLogger("quarterdeck")

LEASE_S = 10.0
LEASE_EVERY_S = 1.0
FENCE_EVERY_S = 0.3
LAST_EVERY_S = 0.25
STATS_EVERY_S = 0.5
BEAT_EVERY_S = 1.0
#: A token that ends each day is looked for this often.
CREDENTIALS_EVERY_S = 5.0
LOOK_EVERY_S = 0.5
POLL_EVERY_S = 1.0
TUNING_EVERY_S = 1.0
QUARANTINE_EVERY_S = 1.0
#: What came of instruments that are let go is published within this, or they are not let go yet.
FLUSH_S = 1.0


class FeedWorker(Shell):
    """One WebSocket (or the few that the provider's split hosts need) and its instruments."""

    def __init__(self, feed: str, shard: int) -> None:
        self.feed = FeedId(feed)
        self.shard = shard
        super().__init__(names.worker(feed, shard))
        self.bus = Bus(self.deck.redis_url)
        self.leases = Leases(self.database)
        self.desired = Desired(self.database)
        self.fence = FenceLook(self.name, self.hot)
        self.handover = Handover()
        self.last_values = LastValues()
        self.quality = FeedQuality(self.feed, shard, FeedTunings(self.database))
        self.gaps = FeedGaps(self.database)
        self.holes = FeedHoles(self.feed, shard, self.hot)
        self.watch = FeedWatch(self.feed, shard, self, self.gaps, self.holes)
        self.arbiter = Arbiter()
        self.outlet = FeedOutlet(
            *(self.feed, shard, self.bus, self.fence, self.handover, self.last_values, self.quality, self.watch),
            *(self.arbiter, self.hot),
        )
        self.ticks = self.outlet.ticks
        self.carrier = FeedCarrier(Instruments(self.database), self.handover, self._streamed_at, self)
        self.second = FeedSecond(
            *(self.feed, shard, self.bus, self.hot, FeedSeconds(self.database)),
            *(self.arbiter, self.carrier, self.outlet, self.watch),
        )
        self.stream = StreamState()
        self._stats = FeedStats(self.stream, self.carrier, self.outlet, self.watch, self.quality, self.second)
        self._market: MarketData | None = None
        self._connection: FeedConnection | None = None
        self._running: list[asyncio.Task[None]] = []
        #: How far the feed's workers had come with an instrument, by number, before this one had it; and prices then.
        self._before: dict[int, tuple[Nanos, Edge]] = {}
        #: And with trades that are numbered.
        self._marks: dict[int, Mark] = {}
        self._last_prices: dict[int, float] = {}
        self._made_at = Nanos(0)
        #: What the provider logs in with; the connection reads it anew each time, so it changes in place.
        self._log_in: dict[str, str] = {}

    async def start(self) -> None:
        """Take an epoch and connect; instruments come from the coordinator."""
        await self.database.open()
        record = await self.desired.feed(self.feed)
        self.epoch = await self.leases.take(self.name, self.deck.node, LEASE_S)
        self.fence.began(self.epoch)
        self.outlet.epoch = self.epoch
        self.carrier.channels, self._made_at = record.channels, record.created_at
        await self.carrier.learn()
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
        self.second.tune(self.quality.freshness)
        await self.second.take_up()
        # Before the values of this worker take the place of those of the one before it.
        await self._read_last()
        await self._take_over()
        self._running = [
            self.spawn(connection.run(), "stream"),
            self.spawn(self.carrier.ask(connection), "subscriptions"),
            self.spawn(patiently("lease", self._renew, every=LEASE_EVERY_S), "lease"),
            self.spawn(patiently("fence", self.fence.look, every=FENCE_EVERY_S), "fence"),
            self.spawn(self.outlet.publish(), "publish"),
            self.spawn(self.outlet.publish_side(), "publish bars and books"),
            self.spawn(self.outlet.publish_depth(), "publish depth"),
            self.spawn(patiently("last values", self.outlet.publish_last, every=LAST_EVERY_S), "last values"),
            self.spawn(patiently("beat", self._publish_beat, every=BEAT_EVERY_S), "beat"),
            self.spawn(patiently("stats", self._publish_stats, every=STATS_EVERY_S), "stats"),
            self.spawn(patiently("freshness", self.watch.look, every=LOOK_EVERY_S), "freshness"),
            self.spawn(patiently("polls", self.watch.poll, every=POLL_EVERY_S), "polls"),
            self.spawn(self.watch.gaps.fill(), "gaps"),
            self.spawn(patiently("settings", self._tune, every=TUNING_EVERY_S), "settings"),
            self.spawn(patiently("seconds", self.second.take_up, every=TUNING_EVERY_S), "seconds"),
            self.spawn(self.second.listen(), "ticks of seconds"),
            self.spawn(self.second.follow(), "feeds of seconds"),
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
        return await Secrets(self.database, load_key(self.deck.home)).log_in(str(account))

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
            # What it still has, or owes, somebody else goes on with.
            is_done = not self.carrier.carried and not self.holes.continuity.owes
            await (self.holes.forget() if is_done else self.mark())
        except TradeError as error:
            log.debug("what it said of itself stays until it is too old: %s", error)

    async def _tune(self) -> None:
        """Take up settings of the filter and of patience that were set since."""
        if await self.quality.take_up_settings():
            self.watch.tune(self.quality.freshness, self.quality.own_freshness)
            self.second.tune(self.quality.freshness)

    async def _show_quarantine(self) -> None:
        await self.quality.show(self.hot, {i.number: i.id for i in self.carrier.listed.values()})

    async def _read_last(self) -> None:
        """Take note of how far the feed's workers had come: half a second old at most, and kept for an hour."""
        for raw in (await self.hot.scan(f"edges:{self.feed}:", bytes)).values():
            for number, edge in edges_in(raw).items():
                # What is older was of another feed by this name.
                if edge[0] > max(self._made_at, self._before.get(number, edge)[0] - 1):
                    self._before[number] = edge
        self._marks = await self.holes.read(self._made_at)
        for raw in (await self.hot.scan(f"last:{self.feed}:", bytes)).values():
            self._last_prices |= {
                int(row["instrument"]): float(row["price"]) for row in decode(raw) if row["price"] > 0
            }

    async def _take_over(self) -> None:
        """Fill in what a worker by this number before this one owes."""
        by_number = {each.number: each for each in self.carrier.listed.values()}
        for number, holes in (await self.holes.take_over()).items():
            for hole in holes:
                if number in by_number:
                    self.watch.owe(by_number[number], hole)

    async def _renew(self) -> None:
        await self.leases.renew(self.name, Epoch(self.epoch), LEASE_S)

    # What the coordinator calls

    async def carry(self, instruments: Sequence[InstrumentId], muted: bool, channels: Sequence[str] = ()) -> None:
        """Take instruments, in these channels (none: the feed's); ``muted`` ones are kept back until activated."""
        self._ready()
        await self.carrier.carry(instruments, muted, channels)

    async def retune(self, instruments: Sequence[InstrumentId], channels: Sequence[str]) -> None:
        """Stream other channels of instruments: those that are new are asked for, then the others ended."""
        self._ready()
        for id_ in instruments:
            if id_ in self.carrier and "trade" in channels and "trade" not in self.carrier.channels_of(id_):
                # What nobody had asked for does not lack.
                self.holes.continuity.begin(self.carrier.listed[id_].number)
        await self.carrier.retune(instruments, channels)

    async def release(self, instruments: Sequence[InstrumentId]) -> None:
        """Stop carrying instruments."""
        self._ready()
        await self.carrier.release(instruments)

    async def cut(self, firsts: Mapping[InstrumentId, Cuts]) -> dict[InstrumentId, Cuts]:
        """Agree where another worker takes over instruments; those that are not carried here are left out."""
        self._ready()
        return await self.carrier.cut(firsts)

    async def activate(self, cuts: Mapping[InstrumentId, Cuts]) -> None:
        """Publish instruments from their cuts on."""
        self._ready()
        await self.carrier.activate(cuts)

    async def report(self) -> WorkerReport | None:
        """What is truly carried, and how; None while it is not ready, for then nothing is."""
        if self.state != "ready" or self._connection is None:
            return None
        return self.carrier.report(self.shard, self.epoch)

    async def history(self, instrument: Instrument, interval: str, start: int, end: int) -> Sequence[Bar]:
        """Closed bars of the provider, for algos: a provider's key never enters their processes."""
        self._ready()
        assert self._market is not None
        return await self._market.history(instrument, interval, Nanos(start), Nanos(end))

    def _ready(self) -> None:
        self.require_ready()
        if self._connection is None:
            raise NotReady(f"{self.name} is connecting", 1.0)

    # What the carrier tells (Host)

    async def begin(self, fresh: Sequence[Instrument], muted: bool) -> None:
        """Watch instruments from now on; of those that nobody hands over a gap is open since they were published."""
        if fresh and not muted:
            try:
                await self._read_last()
            except NotReady as error:
                log.warning("what was published last is not known, a gap will not be filled: %s", error)
        # What was let go meanwhile is not begun.
        fresh = [instrument for instrument in fresh if instrument.id in self.carrier]
        self.quality.know(fresh, self._last_prices)
        self.watch.want(fresh, {} if muted else self._before)
        if not muted:
            for instrument in fresh:
                self.holes.continuity.begin(instrument.number, self._marks.get(instrument.number))
            try:
                # What is published from here on is noted as this worker's: where that began must be known with it.
                await self.mark()
            except NotReady as error:
                log.warning("how far it has come is not on record yet: %s", error)
        await self.second.begin(fresh, muted)

    async def flushed(self) -> None:
        """All that came is published.  Raises `NotReady`."""
        await self.outlet.flushed(FLUSH_S)

    async def mark(self) -> None:
        """How far it has come is noted.  Raises `NotReady`."""
        if self.holes.is_numbered:
            cuts = {number: self.handover.cuts_of(number).get(TRADE, 0) for _, number, _ in self.carrier.numbers()}
            await self.holes.save(cuts)

    def end(self, gone: Sequence[Instrument], cuts: Mapping[int, Cuts]) -> None:
        """Instruments are no longer carried; ``cuts``, by number: from which on another worker has them."""
        for instrument in gone:
            self.holes.continuity.end(instrument.number, cuts[instrument.number].get(TRADE, 0))
        self.quality.forget(gone)
        self.watch.drop(gone)
        self.second.end(gone)
        for instrument in gone:
            self.outlet.forget(instrument.number)
            self._stats.figures.forget(instrument.number)
            self._before.pop(instrument.number, None)
            self._marks.pop(instrument.number, None)
            self._last_prices.pop(instrument.number, None)

    def hand_over(self, number: int) -> Cuts:
        """Another worker takes an instrument over; returns how far its two providers have come out."""
        return self.second.cut(number)

    def take_over(self, number: int, cuts: Cuts, kept: TickArray) -> None:
        """Publish an instrument from ``cuts`` on."""
        self.second.resume(number, cuts)
        cut = cuts.get(TRADE)
        self.holes.continuity.begin(number, None if cut is None else Mark(cut, Nanos(0), now()))
        self.outlet.publish_first(kept)

    def refused(self, instrument: InstrumentId, reason: str) -> None:
        """The provider refused an instrument."""
        if self.carrier.refused.get(instrument) != reason:
            log.warning("%s is refused: %s", instrument, reason)
        self.carrier.refused[instrument] = reason
        self.watch.refused(instrument, reason)

    # What the connection puts in (FeedSink)

    def wake(self) -> None:
        """New ticks are in the buffer."""
        self.outlet.wake()

    def bar(self, instrument: int, bar: Bar, final: bool) -> None:
        """A bar that the venue built."""
        assert self._market is not None
        self.outlet.bar(instrument, bar, final, self._market.limits.bar_interval)

    def book(self, delta: BookDelta) -> None:
        """A change of an order book."""
        self.outlet.book(delta)

    def depth(self, books: DepthArray) -> None:
        """Whole books of a few levels."""
        self.outlet.depth(books)

    def opened(self) -> None:
        """The stream is open and everything was asked for again."""
        if not self.stream.connected:
            log.info("the stream is open")
        self.stream.connected, self.stream.reason = True, ""
        self.stream.opened_at = now()
        self.outlet.torn()
        self.watch.opened()

    def closed(self, reason: str) -> None:
        """The stream is gone and reconnects by itself."""
        if self.stream.connected:
            log.warning("the stream is gone: %s", reason)
            self.stream.reconnects += 1
        self.stream.connected, self.stream.reason = False, reason
        self.outlet.torn()
        # What came before belongs before the gap.
        self.outlet.digest()
        self.outlet.wake()
        self.watch.closed(reason)

    def garbage(self, raw: bytes, reason: str) -> None:
        """A frame that makes no sense; counted, the first ones shown."""
        self.stream.garbage += 1
        if self.stream.garbage <= 10:
            log.warning("a frame makes no sense (%s): %r", reason, raw[:200])

    # What the watch puts in (Publisher)

    def show_polled(self, ticks: TickArray) -> None:
        """Last values from a poll, of what is this worker's to publish."""
        self.outlet.show_polled(ticks)

    def fill_in(self, ticks: TickArray) -> int:
        """Trades of a gap; returns how many of them were good and are this worker's to publish."""
        return self.outlet.fill_in(ticks)

    def fill_hole(self, ticks: TickArray) -> TickArray:
        """Trades that this worker owes; returns those that were good."""
        return self.outlet.fill_hole(ticks)

    def channels_of(self, instrument: InstrumentId) -> tuple[str, ...]:
        """In which channels the provider was asked for an instrument; none where it is not carried."""
        return self.carrier.channels_of(instrument)

    def looked(self, at: Nanos) -> None:
        """The states of the subscriptions are those of now."""
        self.second.judge(at)

    # What it tells

    def _streamed_at(self, number: int) -> Nanos | None:
        """When the last tick came: of those that come from a second, by the stream nevertheless."""
        if number in self.arbiter and self.arbiter.active(number) is Source.SECOND:
            return self.watch.freshness.habits.last_at(number)
        return self.last_values.seen_at(number)

    async def _publish_beat(self) -> None:
        if self._market is not None:
            await self.outlet.publish_beat(self._streaming(), self._market.limits.every_trade)

    def _streaming(self) -> Iterator[tuple[int, Nanos]]:
        """What can be whole: where trades come, the stream is open, and a tick has come since this."""
        if not self.stream.connected:
            return
        for id_, number, since in self.carrier.numbers():
            brings_trades = "trade" in self.carrier.channels_of(id_) and self.watch.is_whole(id_)
            is_own = self.carrier.phase(number) is Phase.LIVE and self.arbiter.active(number) is Source.FIRST
            if brings_trades and is_own:
                yield number, max(since, self.stream.opened_at)

    async def _publish_stats(self) -> None:
        self._stats.look()
        await self.hot.put(f"worker:{self.feed}:{self.shard}", self.stats(), ttl_s=30)
        await self.hot.put(f"last:{self.feed}:{self.shard}", self.last_values.all().tobytes(), ttl_s=3600)
        await self.hot.put(f"edges:{self.feed}:{self.shard}", self.watch.edges(), ttl_s=3600)
        await self.mark()
        await self.second.tell()

    def stats(self) -> WorkerStats:
        """Counts, rates and ages."""
        return self._stats.worker(self.deck.node, now())

    def facts(self) -> dict[str, Any]:
        return {
            "connected": self.stream.connected,
            "why": self.stream.reason,
            "instruments": len(self.carrier.carried),
            # It is not removed before it has filled in what it owes.
            "owed": self.watch.gaps.owed,
            "ticks": self.outlet.published,
        }

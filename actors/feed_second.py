"""A feed worker's second providers: other feeds that stand by for instruments that it carries.

The other feed streams the instrument all the time, for this feed is one of its clients; here its ticks are read from
the bus and given to `trading.arbitration` beside those of this worker's own stream.  What comes out of the second is
marked SECOND and bears no sequence, and passes by the hand-over, as polls do.

Of the other feed only its own stream counts: what it polled, filled in, or has of a second itself is passed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from actors.feed_carrier import FeedCarrier
from actors.feed_outlet import FeedOutlet
from actors.feed_watch import FeedWatch
from actors.shell import listen
from cluster import streams
from cluster.process import now
from storage.bus import LOST, Bus, Subscription
from storage.feed_seconds import FeedSeconds
from storage.hot import Hot
from trading.arbitration import Arbiter, ArbiterSettings, Position, Source
from trading.errors import NotReady
from trading.feed_plan import Phase
from trading.freshness_terms import FreshnessSettings, State
from trading.handover import Cuts
from trading.ids import FeedId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.seconds import SecondSource
from trading.ticks import BACKFILLED, QUOTE, SECOND, SNAPSHOT, TRADE, Senders, TickArray, empty, unpack_batch

log = logging.getLogger("quarterdeck")

#: Batches of other feeds that may wait here.
WAITING: Final = 4096
#: Which instruments came from their second is known to the next worker for so long.
IN_USE_FOR_S: Final = 60.0
_NOT_ITS_STREAM: Final = np.uint32(BACKFILLED | SNAPSHOT | SECOND)
#: Beside a cut: whose ticks come out (the place of the flag alone), and until when those of each kind have come out.
_ACTIVE: Final = SECOND


class SecondStats(msgspec.Struct, frozen=True, kw_only=True):
    """An instrument's second provider and how it goes."""

    feed: FeedId
    instrument: InstrumentId
    #: Whether its ticks come out, and since when they do, or do not any more (0: since this worker carries it).
    in_use: bool
    since: Nanos
    switches: int
    #: Ticks that were left out: the other provider had sent them; later ones were out already.
    doubles: int
    late: int
    #: When it was last heard; 0: never.
    heard_at: Nanos


class _Reading:
    """What is read of one other feed."""

    def __init__(self) -> None:
        self.senders = Senders()
        #: Number there -> number here.
        self.numbers: dict[int, int] = {}
        self.theirs: npt.NDArray[np.int32] = np.empty(0, dtype=np.int32)
        self.ours: npt.NDArray[np.int32] = np.empty(0, dtype=np.int32)

    def read(self, numbers: Mapping[int, int]) -> None:
        """Read these from now on."""
        self.numbers = dict(sorted(numbers.items()))
        self.theirs = np.array(list(self.numbers), dtype=np.int32)
        self.ours = np.array(list(self.numbers.values()), dtype=np.int32)

    def taken(self, ticks: TickArray) -> TickArray:
        """What of a batch is of use, as ours."""
        is_ours = np.isin(ticks["instrument"], self.theirs) & ((ticks["flags"] & _NOT_ITS_STREAM) == 0)
        if not is_ours.any():
            return empty()
        chosen: TickArray = ticks[is_ours].copy()
        chosen["instrument"] = self.ours[np.searchsorted(self.theirs, chosen["instrument"])]
        chosen["flags"] |= np.uint32(SECOND)
        chosen["sequence"] = 0
        return chosen


class FeedSecond:
    """The second providers of one worker's instruments."""

    def __init__(
        self,
        feed: FeedId,
        shard: int,
        bus: Bus,
        hot: Hot,
        store: FeedSeconds,
        arbiter: Arbiter,
        carrier: FeedCarrier,
        outlet: FeedOutlet,
        watch: FeedWatch,
    ) -> None:
        self.feed = feed
        self.shard = shard
        self.arbiter = arbiter
        self._bus = bus
        self._hot = hot
        self._store = store
        self._carrier = carrier
        self._outlet = outlet
        self._watch = watch
        self._seconds: dict[InstrumentId, SecondSource] = {}
        #: What is paired now, by number.
        self._paired: dict[int, tuple[InstrumentId, SecondSource]] = {}
        #: Of instruments that another worker takes over: how far they had come here.
        self._handed: dict[int, Cuts] = {}
        #: Numbers of instruments that came from their second at the workers before this one.
        self._were_in_use: set[int] = set()
        self._reading: dict[str, _Reading] = {}
        self._changed = asyncio.Event()
        self._subscription: Subscription | None = None
        self._listening = asyncio.Event()
        #: Batches of other feeds that did not come here.
        self.lost = 0
        #: Whether the last word said that something is in use.
        self._told = False

    def __repr__(self) -> str:
        return f"<FeedSecond {self.feed}/{self.shard} {self.arbiter!r}>"

    # Settings

    def tune(self, settings: FreshnessSettings) -> None:
        """The first takes over again after it was good for as long as makes the watch send the second away."""
        self.arbiter.tune(ArbiterSettings(hold_s=settings.again_s, silent_s=settings.least_s))

    async def take_up(self) -> None:
        """Read which instruments have a second.  Raises `NotReady`."""
        found = await self._store.of(self.feed)
        if found != self._seconds:
            if any(source.instrument not in self._carrier.listed for source in found.values()):
                await self._carrier.learn()
            self._seconds = found
            log.info("%d instruments have a second provider", len(found))
            self._pair()

    def _pair(self) -> None:
        """Pair what is carried here and has a second, and nothing else."""
        wanted: dict[int, tuple[InstrumentId, SecondSource]] = {}
        numbers: dict[str, dict[int, int]] = {}
        for id_, source in self._seconds.items():
            first, second = self._carrier.listed.get(id_), self._carrier.listed.get(source.instrument)
            if id_ not in self._carrier or first is None or second is None or first.number in self._handed:
                continue
            if id_ in self._watch.freshness:
                wanted[first.number] = (id_, source)
                numbers.setdefault(streams.ticks(source.feed), {})[second.number] = first.number
        for number, known in list(self._paired.items()):
            if wanted.get(number) != known:
                self._unpair(number)
        for number, (id_, _) in wanted.items():
            if number not in self._paired:
                self.arbiter.pair(number)
                self._watch.freshness.second(id_, True)
        self._paired = wanted
        for channel in {*self._reading, *numbers}:
            self._reading.setdefault(channel, _Reading()).read(numbers.get(channel, {}))
        self._changed.set()

    def _unpair(self, number: int) -> None:
        id_, _ = self._paired.pop(number)
        self.arbiter.unpair(number)
        if id_ in self._watch.freshness:
            self._watch.freshness.second(id_, False)

    # What is carried

    async def begin(self, fresh: Sequence[Instrument], muted: bool) -> None:
        """Instruments are carried from now on; those that nobody hands over go on with the second they were at."""
        if not any(instrument.id in self._seconds for instrument in fresh):
            return
        numbers = {instrument.number for instrument in fresh}
        try:
            for in_use in (await self._hot.scan(f"second:{self.feed}:", list[int])).values():
                self._were_in_use |= numbers.intersection(in_use)
        except NotReady as error:
            log.warning("which seconds were in use is not known: %s", error)
        self._pair()
        if not muted:
            for instrument in fresh:
                self._adopt(instrument.number)

    def _adopt(self, number: int) -> None:
        was_in_use = number in self._were_in_use
        self._were_in_use.discard(number)
        if was_in_use and number in self._paired:
            log.warning("%s goes on with its second provider", self._paired[number][0])
            self.arbiter.adopt(number, now())

    def end(self, gone: Sequence[Instrument]) -> None:
        """Instruments are no longer carried."""
        for instrument in gone:
            self._handed.pop(instrument.number, None)
            self._were_in_use.discard(instrument.number)
        if any(instrument.number in self._paired for instrument in gone):
            self._pair()

    def cut(self, number: int) -> Cuts:
        """Let another worker go on; returns from where, to be told to it beside the cut."""
        known = self._handed.get(number)
        if known is None:
            if number not in self._paired:
                return {}
            position = self.arbiter.position(number)
            known = {SECOND | kind: at for kind, at in position.at.items()}
            known[_ACTIVE] = int(position.active)
            self._handed[number] = known
            self._pair()
        return dict(known)

    def resume(self, number: int, cuts: Cuts) -> None:
        """Go on from where another worker was; ``cuts`` may say so."""
        if number not in self._paired:
            return
        if _ACTIVE not in cuts:
            self._adopt(number)
            return
        self._were_in_use.discard(number)
        at = {kind: cuts[SECOND | kind] for kind in (TRADE, QUOTE) if SECOND | kind in cuts}
        self._outlet.publish_second(self.arbiter.resume(number, Position(Source(cuts[_ACTIVE]), at), now()))

    # Deciding

    def judge(self, at: Nanos) -> None:
        """How the first providers go was looked at just now: switch where it is due."""
        for number, (id_, source) in self._paired.items():
            if self._carrier.phase(number) is not Phase.LIVE:
                continue
            active, freshness = self.arbiter.active(number), self._watch.freshness
            is_bad = freshness.state(id_) is not State.LIVE
            # One that has not come yet is not taken for bad at once, unless the second has been in use.
            is_stale = is_bad and (active is Source.SECOND or freshness.needs_second(id_))
            out = self.arbiter.judge(number, is_stale=is_stale, now=at)
            if self.arbiter.active(number) is Source.SECOND:
                if active is Source.FIRST:
                    log.warning("%s comes from feed %s now", id_, source.feed)
                self._outlet.publish_second(out)
            elif active is Source.SECOND:
                log.info("%s comes from its own feed again", id_)
                self._outlet.publish_kept(out)

    async def tell(self) -> None:
        """Say what is in use, for a worker that may have to go on from here.  Raises `NotReady`."""
        in_use = self.arbiter.by_second()
        if in_use or self._told:
            await self._hot.put(f"second:{self.feed}:{self.shard}", in_use, ttl_s=IN_USE_FOR_S)
            self._told = bool(in_use)

    def report(self, number: int) -> SecondStats | None:
        """How the second of an instrument goes; None where it has none."""
        paired = self._paired.get(number)
        if paired is None:
            return None
        source, report = paired[1], self.arbiter.report(number)
        return SecondStats(
            feed=source.feed,
            instrument=source.instrument,
            in_use=report.active is Source.SECOND,
            since=report.since,
            switches=report.switches,
            doubles=report.doubles,
            late=report.late,
            heard_at=report.heard_at,
        )

    # Reading

    async def listen(self) -> None:
        """Read the other feeds' ticks, for ever; nothing is connected before there is something to read."""
        while not self._wanted():
            self._changed.clear()
            await self._changed.wait()
        self._subscription = await listen(self._bus, sorted(self._wanted()), [], size=WAITING)
        self._listening.set()
        try:
            async for message in self._subscription:
                if message is LOST:
                    self.lost += 1
                    log.warning("ticks of second providers may be missing: the bus was gone")
                else:
                    self._take(*message)
        finally:
            await self._subscription.close()
            self._subscription = None
            self._listening.clear()

    async def follow(self) -> None:
        """Listen to exactly the feeds that are needed, for ever."""
        await self._listening.wait()
        had: set[str] = set()
        while True:
            assert self._subscription is not None, "both tasks begin and end together"
            wanted = self._wanted()
            try:
                await self._subscription.add(wanted)
                await self._subscription.remove(had - wanted)
            except NotReady as error:
                log.info("the second providers' feeds are listened to once Redis is back: %s", error)
            for channel in had - wanted - self._wanted():
                del self._reading[channel]
            had = wanted
            while self._wanted() == had:
                self._changed.clear()
                await self._changed.wait()

    def _wanted(self) -> set[str]:
        return {channel for channel, reading in self._reading.items() if reading.numbers}

    def _take(self, channel: str, raw: bytes) -> None:
        reading = self._reading.get(channel)
        if reading is None or not reading.numbers:
            return
        epoch, sequence, shard, ticks = unpack_batch(raw)
        missed = reading.senders.missed(epoch, sequence, shard)
        if missed is None:
            return
        self.lost += missed
        chosen = reading.taken(ticks)
        if not len(chosen):
            return
        before = self.arbiter.switches
        self._outlet.publish_second(self.arbiter.take(Source.SECOND, chosen))
        if self.arbiter.switches > before:
            log.warning("what was silent comes from %s now: %d instruments", channel, self.arbiter.switches - before)

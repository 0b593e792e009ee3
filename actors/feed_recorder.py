"""The recorder of a feed: its ticks to Parquet, its bars of seconds and minutes to PostgreSQL.

Apart from the workers, so that neither a slow disk nor a slow database ever holds up a tick.  It listens as every other
reader does; what it did not see whole makes no bar, and no span is called covered for it: then history asks the
provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from actors.shell import Shell, listen, patiently
from cluster import names, streams
from cluster.process import now
from connectors.tick_archive import DAY, TickArchive
from storage.bars import Bars, Cover, Source, StoredBar
from storage.bus import Bus
from storage.desired import Desired
from storage.instruments import Instruments
from storage.leases import Leases
from trading.bar_building import GRACE, BarRevision, BarTape, Built
from trading.bar_deriving import MINUTE, SECOND
from trading.errors import NotReady
from trading.ids import Epoch, FeedId, InstrumentId, Nanos
from trading.seen import Beat, Seen
from trading.spans import Span, whole_intervals
from trading.ticks import unpack_batch

log = logging.getLogger("quarterdeck")

LEASE_S: Final = 10.0
SAVE_EVERY_S: Final = 2.0
LEAST_PAUSE_S: Final = 0.2
WRITE_EVERY_S: Final = 1.0
TIDY_EVERY_S: Final = 60.0
#: A day is finished so long after midnight, when nothing of it is under way any more.
AFTER_MIDNIGHT: Final = 5 * MINUTE
WAITING_BATCHES: Final = 16_384
#: Bars that wait for a database that is away; beyond, they are given up, and their time is not covered.
MOST_WAITING: Final = 200_000
#: Bars stored in one transaction.
AT_ONCE: Final = 20_000

_beat = msgspec.msgpack.Decoder(Beat).decode


class FeedRecorder(Shell):
    """Builds, stores and records what one feed brings."""

    def __init__(self, feed: str) -> None:
        self.feed = FeedId(feed)
        super().__init__(names.recorder(feed))
        self.bus = Bus(self.deck.redis_url)
        self.desired = Desired(self.database)
        self.leases = Leases(self.database)
        self.instruments = Instruments(self.database)
        self.bars = Bars(self.database)
        self.seen = Seen(GRACE)
        self.tapes = (BarTape(SECOND), BarTape(MINUTE))
        self.archive = TickArchive(self.deck.home / "ticks" / feed)
        self._names: dict[int, InstrumentId] = {}
        self._waiting: deque[StoredBar] = deque()
        #: By instrument and width, the span that is stored as covered.
        self._covered: dict[tuple[int, int], Span] = {}
        #: Bars that lack a trade which came too late: the provider has to be asked for them after all.
        self._spoilt: list[Cover] = []
        #: The same, for those who look on.
        self._spoilt_untold: list[tuple[int, int, int]] = []
        #: Something stored is wrong, which must not outlive this process.
        self._urgent = asyncio.Event()
        #: Days (since 1970) on which recorded ticks and stored bars were last tidied up.
        self._tidied_on = self._retired_on = 0
        self._stored = self._given_up = self._garbage = 0
        self._began = False

    async def start(self) -> None:
        """Take the feed's folder and begin to listen."""
        await self.database.open()
        await self.desired.feed(self.feed)
        self.epoch = await self.leases.take(self.name, self.deck.node, LEASE_S)
        await self._learn()
        if self.deck.tick_days:
            await asyncio.to_thread(self.archive.open)
        if not self._began:
            self._began = True
            self.spawn(self._listen(), "ticks")
            self.spawn(patiently("bars", self._save_when_due, every=LEAST_PAUSE_S), "bars")
            self.spawn(patiently("lease", self._renew, every=LEASE_S / 5), "lease")
            self.spawn(patiently("old bars", self._retire, every=TIDY_EVERY_S), "old bars")
            if self.deck.tick_days:
                self.spawn(patiently("recorded ticks", self._record, every=WRITE_EVERY_S), "recorded ticks")

    async def finish(self) -> None:
        """Keep what has come so far."""
        if not self._began:
            return
        try:
            await self._save()
            if self.deck.tick_days:
                await asyncio.to_thread(self.archive.close_groups, self._names)
        except NotReady as error:
            log.warning("what came last was not kept: %s", error)
        self.archive.close()
        await self.bus.close()

    async def _renew(self) -> None:
        await self.leases.renew(self.name, Epoch(self.epoch), LEASE_S)

    async def _learn(self) -> None:
        self._names = {each.number: each.id for each in await self.instruments.all()}

    # What comes in

    async def _listen(self) -> None:
        channels = [streams.ticks(self.feed), streams.beats(self.feed)]
        subscription = await listen(self.bus, channels, [], size=WAITING_BATCHES)
        async for channel, raw in subscription:
            if not channel:
                self.seen.broken()
            elif channel == channels[0]:
                self._take_ticks(raw)
            else:
                await self._take_beat(raw)

    def _take_ticks(self, raw: bytes) -> None:
        try:
            epoch, sequence, shard, ticks = unpack_batch(raw)
        except ValueError as error:
            self._note_garbage(error)
            return
        if self.seen.batch(epoch, sequence, shard):
            for tape in self.tapes:
                tape.add(ticks)
                for number, opened in tape.spoilt():
                    self.seen.spoil(number)
                    span = Span(opened, opened + tape.width)
                    self._spoilt.append(Cover(instrument=number, width=tape.width, span=span))
                    self._spoilt_untold.append((number, tape.width, opened))
                    self._urgent.set()
            if self.deck.tick_days:
                self.archive.add(ticks)

    async def _take_beat(self, raw: bytes) -> None:
        try:
            beat = _beat(raw)
        except msgspec.DecodeError as error:
            self._note_garbage(error)
            return
        self.seen.beat(beat)
        until = self.seen.complete_until()
        closed = [each for tape in self.tapes for each in tape.close_until(until)]
        whole = [each for each in closed if self.seen.whole(each.instrument, each.bar.opened_at, each.width)]
        if not whole and not self._spoilt_untold:
            return
        told = [replace(each, since=self.seen.whole_since(each.instrument, each.width)) for each in whole]
        self._waiting.extend(_stored(each) for each in whole)
        if len(self._waiting) > MOST_WAITING:
            log.warning("%d bars are given up: the database has been away for too long", len(self._waiting))
            self._given_up += len(self._waiting)
            self._waiting.clear()
            self.seen.forget()
        spoilt, self._spoilt_untold = self._spoilt_untold, []
        try:
            await self.bus.publish(streams.built(self.feed), msgspec.msgpack.encode(Built(bars=told, spoilt=spoilt)))
        except NotReady as error:
            log.debug("bars are not published now: %s", error)

    def _note_garbage(self, error: Exception) -> None:
        if not self._garbage:
            log.warning("a message on the bus makes no sense: %s", error)
        self._garbage += 1

    # What is kept

    async def _save_when_due(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SAVE_EVERY_S):
                await self._urgent.wait()
        self._urgent.clear()
        await self._save()

    async def _save(self) -> None:
        """Store the bars that wait, then what they cover: taken at one moment, so that nothing covered is missing."""
        bars, spoilt = list(self._waiting), list(self._spoilt)
        past = [
            Cover(instrument=number, width=tape.width, span=whole_intervals(span, tape.width))
            for number, span in self.seen.past()
            for tape in self.tapes
        ]
        covers = [
            Cover(instrument=number, width=tape.width, span=span)
            for tape in self.tapes
            for number, span in self.seen.settled(tape.width).items()
            if self._covered.get((number, tape.width)) != span
        ]
        for start in range(0, len(bars), AT_ONCE):
            part = bars[start : start + AT_ONCE]
            await self.bars.save(part)
            self._stored += len(part)
            # Given up meanwhile, they are not there any more.
            for each in part:
                if self._waiting and self._waiting[0] is each:
                    self._waiting.popleft()
        if past or covers or spoilt:
            await self.bars.save([], [*past, *covers], spoilt)
            del self._spoilt[: len(spoilt)]
            self._covered.update({(each.instrument, each.width): each.span for each in covers})

    async def _record(self) -> None:
        at = now()
        if self.archive.is_due(at):
            if self.archive.numbers() - self._names.keys():
                await self._learn()
            await asyncio.to_thread(self.archive.close_groups, self._names)
        today = (at - AFTER_MIDNIGHT) // DAY
        if today > self._tidied_on:
            await asyncio.to_thread(self.archive.finish_days, Nanos(at - AFTER_MIDNIGHT))
            await asyncio.to_thread(self.archive.drop_before, Nanos(at - self.deck.tick_days * DAY))
            self._tidied_on = int(today)

    async def _retire(self) -> None:
        await self.bars.settle_hours()
        today = now() // DAY
        if today == self._retired_on:
            return
        for width, days in ((SECOND, self.deck.second_bar_days), (MINUTE, self.deck.minute_bar_days)):
            await self.bars.retire(width, days)
        self._retired_on = today

    def facts(self) -> dict[str, Any]:
        return {
            "bars": self._stored,
            "waiting": len(self._waiting),
            "given_up": self._given_up,
            "late": sum(tape.late for tape in self.tapes),
            "lost": self.seen.lost,
            "ticks": self.archive.written,
            "ticks_given_up": self.archive.given_up,
        }


def _stored(each: BarRevision) -> StoredBar:
    return StoredBar(
        instrument=each.instrument, width=each.width, bar=each.bar, source=Source.BUILT, revision=each.revision
    )

"""A feed worker's gaps: told in PostgreSQL from their end on, and filled from the provider's history, one by one.

What lacks in a gap `FeedHoles` knows to the trade where trades are numbered; else the trades at its two ends say it
(`trading.gaps`).  What is filled in goes out marked BACKFILLED, and never takes the place of a later value.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import msgspec
import numpy as np

from actors.feed_holes import FeedHoles
from cluster.process import now
from connectors.base import MarketData
from storage.feed_quality import FeedGaps
from storage.records import FeedGap
from trading.bars import Bar
from trading.continuity import Hole
from trading.errors import BadInput, NotReady, TradeError
from trading.gaps import Gaps
from trading.ids import FeedId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.ticks import TickArray

log = logging.getLogger("quarterdeck")

_SECOND: Final = 1_000_000_000
_MINUTE: Final = 60 * _SECOND
#: A gap is filled once a trade has ended it, but at the latest after this.
PATIENCE_S: Final = 10.0
#: How often, and how long apart at first, a provider is asked again that does not answer.
ATTEMPTS: Final = 5
FIRST_PAUSE_S: Final = 1.0
#: Venues' clocks and the way from there: history is asked for a little more than the gap.
AROUND_NS: Final = 5 * _SECOND
#: Ticks tell that a gap is over, and come without asking.
_LOOK_S: Final = 0.05
NO_QUOTES: Final = "quotes of the past are not to be had"


class Outlet(Protocol):
    """Where trades and bars of the past are published."""

    def fill_in(self, ticks: TickArray) -> int:
        """Publish trades of the past; returns how many of them were good."""

    def fill_hole(self, ticks: TickArray) -> TickArray:
        """Publish trades of the past that nobody else may publish; returns those that were good."""

    def bar(self, instrument: int, bar: Bar, final: bool) -> None:
        """Publish a bar of the provider."""

    def channels_of(self, instrument: InstrumentId) -> tuple[str, ...]:
        """In which channels an instrument is carried; none where it is not."""


class GapFiller:
    """The gaps of one worker's instruments; ``carried`` are those that it carries now."""

    def __init__(
        self,
        feed: FeedId,
        shard: int,
        outlet: Outlet,
        store: FeedGaps,
        holes: FeedHoles,
        carried: Mapping[InstrumentId, Instrument],
    ) -> None:
        self.feed = feed
        self.shard = shard
        self.holes = holes
        #: The trades at the ends of gaps, where trades are not numbered.
        self.edges = Gaps()
        self._outlet = outlet
        self._store = store
        self._carried = carried
        self._market: MarketData | None = None
        #: Let go, but what lacks of them is still filled in here.
        self._released: dict[InstrumentId, Instrument] = {}
        #: Of what was not published since anything was: from when to when, by the venue's time, and why.
        self._kept_back: dict[InstrumentId, tuple[Instrument, Nanos, Nanos, str]] = {}
        #: Gaps that are over and not written yet; those to be filled.
        self._fresh: list[FeedGap] = []
        self._waiting: deque[FeedGap] = deque()
        #: Gaps whose own times say what lacks in them.
        self._by_time: set[tuple[InstrumentId, Nanos, Nanos]] = set()
        self._work = asyncio.Event()
        self._is_filling = False
        #: Gaps of each instrument, as long as it is carried.
        self.counts: dict[InstrumentId, int] = {}
        #: Trades and bars filled in; gaps that could not be filled.
        self.filled_trades = self.filled_bars = self.unfilled = 0

    def __repr__(self) -> str:
        return f"<GapFiller {self.feed}/{self.shard} {len(self._fresh)} to write, {len(self._waiting)} to fill>"

    @property
    def owed(self) -> int:
        """Gaps that are not settled yet: until they are, this worker is needed."""
        return len(self._fresh) + len(self._waiting) + self._is_filling

    def serve(self, market: MarketData) -> None:
        """Whose history it is."""
        self._market = market

    # What happens

    def open(self, instrument: Instrument, since: Nanos, until: Nanos, reason: str) -> None:
        """A gap is over."""
        self.counts[instrument.id] = self.counts.get(instrument.id, 0) + 1
        if instrument.id not in self._carried:
            self._released[instrument.id] = instrument
        self._fresh.append(
            FeedGap(feed=self.feed, shard=self.shard, instrument=instrument.id, since=since, until=until, reason=reason)
        )

    def lacks(self, instrument: Instrument, hole: Hole, reason: str) -> None:
        """Numbered trades lack: a gap of their own, unless one is told of that they belong to."""
        if not self._is_told(instrument.id):
            self.open(instrument, hole.since or hole.until or now(), hole.until or now(), reason)
        elif instrument.id not in self._carried:
            self._released[instrument.id] = instrument

    def let_go(self, instrument: Instrument, pending: tuple[Nanos, Nanos | None] | None, reason: str) -> None:
        """An instrument is no longer carried; what lacks of it is nobody else's to fill in.

        ``pending``: a gap of which nobody has told yet, from the last tick before it to the first one after it, if any.
        """
        if pending is not None:
            self.open(instrument, pending[0], pending[1] or now(), reason)
        elif not self._is_told(instrument.id):
            holes = self.holes.continuity.holes(instrument.number)
            if holes:
                since = min(hole.since for hole in holes) or now()
                self.open(instrument, since, now(), reason or "trades lacked when it was let go")
        if not self.holes.is_numbered:
            # Whose trades are whose cannot be told any more: it is on record as not filled.
            self._released.pop(instrument.id, None)
        elif self._is_told(instrument.id):
            self._released[instrument.id] = instrument
        self.edges.forget(instrument.number)
        self.counts.pop(instrument.id, None)

    def withhold(self, instrument: Instrument, ticks: TickArray, reason: str) -> None:
        """Ticks of an instrument were not published, and will not be."""
        at = np.where(ticks["exchange_at"] > 0, ticks["exchange_at"], ticks["received_at"])
        _, since, until, _ = self._kept_back.get(instrument.id, (instrument, 2**63 - 1, 0, ""))
        span = Nanos(min(since, int(at.min()) - 1)), Nanos(max(until, int(at.max()) + 1))
        self._kept_back[instrument.id] = (instrument, *span, reason)

    def published(self) -> None:
        """Ticks go out: what was withheld until now is a gap that is over."""
        for instrument, since, until, reason in self._kept_back.values():
            self._by_time.add((instrument.id, since, until))
            self.open(instrument, since, until, reason)
        self._kept_back.clear()

    async def write_down(self) -> None:
        """A gap is on record before anybody fills it; without a database it waits.  Raises `NotReady`."""
        if self._fresh:
            fresh = self._fresh[:]
            written = await self._store.add(fresh)
            del self._fresh[: len(fresh)]
            self._waiting.extend(written)
            self._work.set()

    def _is_told(self, id_: InstrumentId) -> bool:
        return any(gap.instrument == id_ for gap in (*self._fresh, *self._waiting))

    # Filling

    async def fill(self) -> None:
        """Fill gaps, one after the other, for ever."""
        while True:
            await self._work.wait()
            if not self._waiting:
                self._work.clear()
                continue
            gap = self._next()
            if gap is None:
                await asyncio.sleep(_LOOK_S)
                continue
            self._waiting.remove(gap)
            self._is_filling = True
            instrument = self._instrument(gap)
            if instrument is None:
                done = msgspec.structs.replace(gap, state="failed", detail="the instrument is no longer carried here")
            else:
                done = await self._filled(gap, instrument)
                if not self._has_times(gap):
                    self.edges.close(instrument.number)
                if not self._is_told(gap.instrument):
                    self._released.pop(gap.instrument, None)
            self._by_time.discard((gap.instrument, gap.since, gap.until))
            self.unfilled += done.state == "failed"
            await self._settle(done)
            self._is_filling = False

    def _instrument(self, gap: FeedGap) -> Instrument | None:
        return self._carried.get(gap.instrument) or self._released.get(gap.instrument)

    def _has_times(self, gap: FeedGap) -> bool:
        return (gap.instrument, gap.since, gap.until) in self._by_time

    def _next(self) -> FeedGap | None:
        """The oldest gap of which it is known which trade came first after it, or that none does for a while: one that
        is not over holds up no other."""
        at = now()
        asked: set[InstrumentId] = set()
        for gap in self._waiting:
            instrument = self._carried.get(gap.instrument)
            if instrument is None:
                return gap
            is_late = at >= gap.until + int(PATIENCE_S * _SECOND)
            if gap.instrument not in asked and (is_late or self._is_over(gap, instrument)):
                return gap
            # The gaps of one instrument are filled in turn.
            asked.add(gap.instrument)
        return None

    def _is_over(self, gap: FeedGap, instrument: Instrument) -> bool:
        if "trade" not in self._outlet.channels_of(instrument.id):
            return True
        if self.holes.is_numbered:
            return self.holes.is_over(gap, instrument.number)
        return self._has_times(gap) or self.edges.is_over(instrument.number)

    async def _settle(self, gap: FeedGap) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                await self._store.settle(gap)
            except NotReady as error:
                log.warning("what became of a gap is not written down yet: %s", error)
                await asyncio.sleep(pause)
                pause = min(30.0, pause * 2)
            else:
                return

    async def _filled(self, gap: FeedGap, instrument: Instrument) -> FeedGap:
        """Fill one gap; returns what has become of it."""
        brings_trades = "trade" in self._outlet.channels_of(gap.instrument) or gap.instrument in self._released
        if not brings_trades and not self.holes.continuity.has_holes(instrument.number):
            return msgspec.structs.replace(gap, state="partly", detail=NO_QUOTES)
        if not self.holes.is_numbered:
            return await self._patiently(gap, lambda: self._fill(gap, instrument))
        done = await self.holes.fill(gap, instrument, self._outlet.fill_hole)
        if done is None:
            return await self._patiently(gap, lambda: self._fill_with_bars(gap, instrument))
        self.filled_trades += done.trades
        return done

    async def _patiently(self, gap: FeedGap, attempt_it: Callable[[], Awaitable[FeedGap]]) -> FeedGap:
        pause, trouble = FIRST_PAUSE_S, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(pause)
                pause *= 2
            try:
                return await attempt_it()
            except BadInput as error:
                trouble = str(error)
                break
            except TradeError as error:
                trouble = str(error)
        log.warning("a gap of %s is not filled: %s", gap.instrument, trouble)
        return msgspec.structs.replace(gap, state="failed", detail=trouble)

    async def _fill(self, gap: FeedGap, instrument: Instrument) -> FeedGap:
        assert self._market is not None
        has_times = self._has_times(gap)
        begin = gap.since if has_times else self.edges.begin(instrument.number, gap.since)
        start = Nanos(begin - AROUND_NS)
        end = Nanos(max(gap.until, now()) + AROUND_NS)
        told = await self._market.trades(instrument, start, end)
        if told is None:
            return await self._fill_with_bars(gap, instrument)
        if has_times:
            at = told.ticks["exchange_at"]
            missing = told.ticks[(at > gap.since) & (at < gap.until)].copy()
        else:
            missing = self.edges.missing(instrument.number, told.ticks, gap.since, gap.until).copy()
        missing["received_at"] = now()
        filled = self._outlet.fill_in(missing)
        self.filled_trades += filled
        if told.since <= begin:
            return msgspec.structs.replace(gap, state="filled", trades=filled)
        detail = f"the provider's trades reach back to {told.since} ns only: bars of before are in /v1/history"
        return msgspec.structs.replace(gap, state="partly", trades=filled, detail=detail)

    async def _fill_with_bars(self, gap: FeedGap, instrument: Instrument) -> FeedGap:
        """The provider's own bars of all minutes that the gap touches and that have closed."""
        assert self._market is not None
        start = Nanos(gap.since // _MINUTE * _MINUTE)
        end = Nanos(-(-gap.until // _MINUTE) * _MINUTE)
        if (wait := end + AROUND_NS - now()) > 0:
            await asyncio.sleep(wait / 1e9)
        bars = await self._market.history(instrument, "1m", start, end)
        for bar in bars:
            self._outlet.bar(instrument.number, bar, True)
        self.filled_bars += len(bars)
        return msgspec.structs.replace(gap, state="filled", bars=len(bars), detail="by the provider's minutes")

"""A feed worker's watch over its subscriptions: what `trading.freshness` orders is done here.

Subscribing and connecting again, polls by REST, and the filling of gaps from the provider's history.  What is filled in
goes out marked BACKFILLED, what is polled marked SNAPSHOT; both pass by the hand-over, for they are no part of the
stream's sequence, and never take the place of a later value.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
import numpy as np

from actors.feed_holes import FeedHoles
from actors.hours import sessions_of
from cluster.process import now
from connectors.base import FeedConnection, LastValue, MarketData
from storage.feed_quality import FeedGaps
from storage.records import FeedGap
from trading.bars import Bar
from trading.calendars import Sessions
from trading.continuity import Hole
from trading.errors import BadInput, NotReady, TradeError
from trading.freshness import Freshness
from trading.freshness_terms import FreshnessSettings, Hours, Report, State
from trading.gaps import Edge, Gaps
from trading.healing import (
    BackFill,
    Healing,
    Poll,
    Reconnect,
    Resubscribe,
    StopPolling,
    StopSecond,
    UseSecond,
)
from trading.ids import FeedId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.ticks import QUOTE, SNAPSHOT, TICK, TRADE, TickArray, empty

log = logging.getLogger("quarterdeck")

_SECOND: Final = 1_000_000_000
_MINUTE: Final = 60 * _SECOND
AROUND_THE_CLOCK: Final = "24x7"
#: A calendar that could not be worked out is tried again after this.
CALENDAR_AGAIN_S: Final = 60.0
#: A gap is filled once a trade has ended it, but at the latest after this.
PATIENCE_S: Final = 10.0
#: How often, and how long apart at first, a provider is asked again that does not answer.
ATTEMPTS: Final = 5
FIRST_PAUSE_S: Final = 1.0
#: Venues' clocks and the way from there: history is asked for a little more than the gap.
AROUND_NS: Final = 5 * _SECOND


class Publisher(Protocol):
    """The worker, as far as the watch needs it."""

    def show_polled(self, ticks: TickArray) -> None:
        """Publish last values that a poll brought."""

    def fill_in(self, ticks: TickArray) -> int:
        """Publish trades of the past; returns how many of them were good."""

    def fill_hole(self, ticks: TickArray) -> TickArray:
        """Publish trades of the past that nobody else may publish; returns those that were good."""

    def bar(self, instrument: int, bar: Bar, final: bool) -> None:
        """Publish a bar of the provider."""

    def channels_of(self, instrument: InstrumentId) -> tuple[str, ...]:
        """In which channels an instrument is carried; none where it is not."""

    def looked(self, at: Nanos) -> None:
        """The states are those of now."""


class MarketHours:
    """Whether markets are open, by calendar."""

    def __init__(self) -> None:
        self._known: dict[str, Sessions] = {}
        self._again_at: dict[str, float] = {}

    async def learn(self, calendars: set[str]) -> None:
        """Work out the calendars that are not known, or run out."""
        loop = asyncio.get_running_loop()
        for name in calendars - {AROUND_THE_CLOCK}:
            known = self._known.get(name)
            if (known is not None and known.covers(now())) or loop.time() < self._again_at.get(name, 0.0):
                continue
            try:
                self._known[name] = await sessions_of(name)
            except NotReady as error:
                # Until then it counts as closed: nothing is healed by guess.
                self._again_at[name] = loop.time() + CALENDAR_AGAIN_S
                log.warning("%s", error)

    def at(self, at: Nanos) -> dict[str, Hours]:
        """All that are known, as of now."""
        found = {AROUND_THE_CLOCK: Hours(is_open=True)}
        for name, sessions in self._known.items():
            if sessions.covers(at):
                since = sessions.session_start(at)
                found[name] = Hours(is_open=since is not None, since=since or Nanos(0))
        return found


def edges_in(raw: bytes) -> dict[int, tuple[Nanos, Edge]]:
    """By instrument number when the last tick came, and its last trade; those without a tick are left out."""
    rows = np.frombuffer(raw, dtype="<i8").reshape(-1, 4).tolist()
    return {number: (Nanos(last), Edge(sequence, Nanos(at))) for number, last, sequence, at in rows if last}


class FeedWatch:
    """Watches one worker's subscriptions; `look` every second or half."""

    def __init__(self, feed: FeedId, shard: int, publisher: Publisher, gaps: FeedGaps, holes: FeedHoles) -> None:
        self.feed = feed
        self.shard = shard
        self.freshness = Freshness()
        self.hours = MarketHours()
        self._publisher = publisher
        self._store = gaps
        self._gaps = Gaps()
        self.holes = holes
        self._market: MarketData | None = None
        self._connection: FeedConnection | None = None
        self._carried: dict[InstrumentId, Instrument] = {}
        self._by_number: dict[int, Instrument] = {}
        self._polled: dict[InstrumentId, None] = {}
        #: Let go, but what lacks of them is still filled in here.
        self._released: dict[InstrumentId, Instrument] = {}
        #: Of what was not published since anything was: from when to when, and why.
        self._kept_back: dict[InstrumentId, tuple[Nanos, Nanos, str]] = {}
        #: Gaps that are over and not written yet; those to be filled.
        self._fresh: list[FeedGap] = []
        self._waiting: deque[FeedGap] = deque()
        self._work = asyncio.Event()
        #: Why an instrument's stream broke, until its gap is over.
        self._broke: dict[InstrumentId, str] = {}
        self.gaps: dict[InstrumentId, int] = {}
        self.resubscribed = self.reconnects = self.polls = 0
        #: Trades and bars filled in; gaps that could not be filled.
        self.filled_trades = self.filled_bars = self.unfilled = 0

    def serve(self, market: MarketData, connection: FeedConnection) -> None:
        """What it works with from now on."""
        self._market, self._connection = market, connection
        self.holes.serve(market)

    # What happens

    def edges(self) -> bytes:
        """How far each instrument has come, for the worker that may have to go on from there (`edges_in`)."""
        habits = self.freshness.habits
        rows = [
            (instrument.number, habits.last_at(instrument.number) or 0, *habits.trade(instrument.number))
            for instrument in self._carried.values()
        ]
        return np.array(rows, dtype="<i8").tobytes()

    def want(self, instruments: Sequence[Instrument], seen: Mapping[int, tuple[Nanos, Edge]]) -> None:
        """Instruments are carried from now on.

        ``seen``: by number when the last tick came to a worker before this one, and its last trade, where none has
        handed the instrument over.  What came since is a gap.
        """
        at = now()
        for instrument in instruments:
            self._carried[instrument.id] = instrument
            self._by_number[instrument.number] = instrument
            last = seen.get(instrument.number)
            since = None if last is None else last[0]
            self.freshness.want(
                instrument.id, instrument.number, instrument.calendar, at, can_poll=True, gap_from=since
            )
            if last is not None:
                self._gaps.open(instrument.number, last[1])
                self._broke[instrument.id] = "the worker before this one ended"

    def drop(self, instruments: Sequence[Instrument]) -> None:
        """Instruments are no longer carried."""
        for instrument in instruments:
            reason = self._broke.pop(instrument.id, "")
            if self._carried.pop(instrument.id, None) and self.holes.continuity.has_holes(instrument.number):
                # What lacks before another worker took over is nobody else's to fill in.
                self._released[instrument.id] = instrument
                self._open_gap(instrument, now(), now(), reason or "trades lacked when it was let go")
            self._gaps.forget(instrument.number)
            self.gaps.pop(instrument.id, None)
            self.freshness.drop(instrument.id)

    def opened(self) -> None:
        """The stream is open."""
        self.freshness.opened(now())

    def closed(self, reason: str) -> None:
        """The stream is gone; all that had come by then was taken before."""
        self.freshness.closed(now(), reason)
        self._note_gaps(f"the stream was gone: {reason}")

    def refused(self, id_: InstrumentId, reason: str) -> None:
        """The provider refuses an instrument."""
        self.freshness.refused(id_, reason, now())
        self._note_gaps(f"refused: {reason}")

    def take(self, ticks: TickArray) -> None:
        """Ticks have come by the stream, good and bad."""
        self.freshness.take(ticks)
        if self._gaps.waiting:
            # Where trades are numbered, what was published tells more (`published`).
            self._gaps.take(ticks)

    def tune(self, settings: FreshnessSettings, own: Mapping[InstrumentId, FreshnessSettings]) -> None:
        """Put settings in force."""
        self.freshness.tune(settings, own)

    def _note_gaps(self, reason: str) -> None:
        for id_ in self.freshness.gaps():
            instrument = self._carried.get(id_)
            if instrument is not None:
                self._broke[id_] = reason
                self._gaps.open(instrument.number, Edge(*self.freshness.habits.trade(instrument.number)))

    def published(self, ticks: TickArray) -> list[int]:
        """Ticks are out: what lacks before them is a gap, at once and whatever the habit.

        Returns the numbers of the instruments of which something lacks.
        """
        for id_, (since, until, why) in self._kept_back.items():
            if id_ in self._carried:
                self._open_gap(self._carried[id_], since, until, why)
        self._kept_back.clear()
        found = self.holes.published(ticks)
        for number, hole in found:
            instrument = self._by_number.get(number)
            if instrument is not None and instrument.id not in self._broke and not self._has_gap(instrument.id):
                reason = f"trades {hole.first} to {hole.last} did not come"
                self._open_gap(instrument, hole.since or hole.until, hole.until, reason)
        return [number for number, _ in found]

    def withheld(self, ticks: TickArray, reason: str) -> None:
        """Ticks of the stream were not published, and will not be."""
        self.holes.lost(ticks)
        numbers, received = ticks["instrument"], ticks["received_at"]
        for number in np.unique(numbers).tolist():
            instrument = self._by_number.get(number)
            if instrument is not None:
                mine = received[numbers == number]
                since, until, _ = self._kept_back.get(instrument.id, (2**63 - 1, 0, ""))
                span = Nanos(min(since, int(mine.min()))), Nanos(max(until, int(mine.max())))
                self._kept_back[instrument.id] = (*span, reason)

    def owe(self, instrument: Instrument, hole: Hole) -> None:
        """A worker by this number before this one owes trades."""
        self._released[instrument.id] = instrument
        if not self._has_gap(instrument.id):
            reason = "the worker before this one ended"
            self._open_gap(instrument, hole.since or hole.until or now(), hole.until or now(), reason)

    def _open_gap(self, instrument: Instrument, since: Nanos, until: Nanos, reason: str) -> None:
        """A gap that is over; one that touches it and that nobody has begun to fill is made longer."""
        self.gaps[instrument.id] = self.gaps.get(instrument.id, 0) + 1
        self._fresh.append(
            FeedGap(feed=self.feed, shard=self.shard, instrument=instrument.id, since=since, until=until, reason=reason)
        )

    def _has_gap(self, id_: InstrumentId) -> bool:
        """Whether a gap is told of, and not filled yet, that what lacks belongs to."""
        return any(gap.instrument == id_ for gap in (*self._fresh, *self._waiting))

    # What is known

    def report(self, id_: InstrumentId, at: Nanos) -> Report:
        """How one subscription goes."""
        return self.freshness.report(id_, at)

    def is_whole(self, id_: InstrumentId) -> bool:
        """Whether the stream of an instrument goes as it should."""
        return id_ in self.freshness and self.freshness.state(id_) is State.LIVE

    # Healing

    async def look(self) -> None:
        """Bring the states up to now and do what heals."""
        await self.hours.learn({instrument.calendar for instrument in self._carried.values()})
        at = now()
        steps = self.freshness.look(at, self.hours.at(at))
        self._note_gaps("it fell silent")
        # Before anything that takes its time.
        self._publisher.looked(at)
        for step in steps:
            await self._do(step)
        await self._write_down()

    async def _do(self, step: Healing) -> None:
        connection = self._connection
        match step:
            case Resubscribe(ids):
                log.warning("subscribing again to %d silent instruments, e.g. %s", len(ids), ids[0])
                self.resubscribed += len(ids)
                if connection is not None:
                    await connection.resubscribe(self._known(ids))
            case Reconnect(reason):
                log.warning("connecting again: %s", reason)
                self.reconnects += 1
                if connection is not None:
                    connection.reconnect(reason)
            case Poll(ids):
                log.warning("polling %d silent instruments, e.g. %s", len(ids), ids[0])
                self._polled.update(dict.fromkeys(ids))
            case StopPolling(ids):
                for id_ in ids:
                    self._polled.pop(id_, None)
            case BackFill(id_, since, until):
                reason = self._broke.pop(id_, "")
                if id_ in self._carried:
                    self._open_gap(self._carried[id_], since, until, reason)
            case UseSecond(ids):
                log.warning("%d silent instruments may come from their second provider, e.g. %s", len(ids), ids[0])
            case StopSecond(ids):
                log.info("%d instruments need no second provider, e.g. %s", len(ids), ids[0])

    def _known(self, ids: Sequence[InstrumentId]) -> list[Instrument]:
        return [self._carried[id_] for id_ in ids if id_ in self._carried]

    async def _write_down(self) -> None:
        """A gap is on record before anybody fills it; without a database it waits."""
        if self._fresh:
            fresh = self._fresh[:]
            written = await self._store.add(fresh)
            del self._fresh[: len(fresh)]
            self._waiting.extend(written)
            self._work.set()

    # Polls

    async def poll(self) -> None:
        """Ask for the last values of what is polled, in pieces, at the provider's pace."""
        assert self._market is not None
        each = self._market.limits.instruments_per_poll
        ids = [id_ for id_ in self._polled if id_ in self._carried]
        for start in range(0, len(ids), each):
            asked = self._known(ids[start : start + each])
            if not asked:
                continue
            self.polls += 1
            values = await self._market.last_values(asked)
            at = now()
            for value in values:
                self._take_answer(value, at)
            self._publisher.show_polled(self._ticks(values, at))

    def _take_answer(self, value: LastValue, at: Nanos) -> None:
        """Compare like with like: venue and stream by the venue's clock, which may be far from ours."""
        instrument = self._carried.get(value.instrument)
        if instrument is None:
            return
        _, last_trade = self.freshness.habits.trade(instrument.number)
        channels = self._publisher.channels_of(instrument.id)
        told: list[tuple[Nanos, Nanos | None]] = []
        if "trade" in channels:
            told.append((value.traded_at, last_trade or None))
        if "quote" in channels and value.quoted_at:
            told.append((value.quoted_at, self.freshness.habits.venue_at(instrument.number)))
        if told:
            venue_at, known = max(told, key=lambda each: each[0] - (each[1] or 0))
            if self.freshness.polled(value.instrument, venue_at, at, known):
                self._gaps.cancel(instrument.number)
                self._broke.pop(value.instrument, None)

    def _ticks(self, values: Sequence[LastValue], at: Nanos) -> TickArray:
        """What is news among polled values, as ticks."""
        rows = []
        for value in values:
            instrument = self._carried.get(value.instrument)
            if instrument is None:
                continue
            last = self.freshness.habits.venue_at(instrument.number) or 0
            channels = self._publisher.channels_of(instrument.id)
            last_trade = self.freshness.habits.trade(instrument.number)[1] or last
            is_trade = value.price == value.price and value.traded_at > last_trade and "trade" in channels
            is_quote = (value.bid == value.bid or value.ask == value.ask) and "quote" in channels
            # A quote without a time is as of now.
            is_quote = is_quote and (not value.quoted_at or value.quoted_at > last)
            nan = float("nan")
            if is_trade:
                rows.append(
                    (
                        *(instrument.number, TRADE | SNAPSHOT, value.price, value.size),
                        *(nan, nan, nan, nan, value.traded_at, at, 0),
                    )
                )
            if is_quote:
                rows.append(
                    (
                        *(instrument.number, QUOTE | SNAPSHOT, nan, nan),
                        *(value.bid, value.bid_size, value.ask, value.ask_size, value.quoted_at, at, 0),
                    )
                )
        return np.array(rows, dtype=TICK) if rows else empty()

    # Gaps

    async def fill(self) -> None:
        """Fill gaps, one after the other, for ever."""
        while True:
            await self._work.wait()
            if not self._waiting:
                self._work.clear()
                continue
            gap = self._next()
            if gap is None:
                # Ticks tell, and come without asking.
                await asyncio.sleep(0.05)
                continue
            self._waiting.remove(gap)
            instrument = self._instrument(gap)
            if instrument is None:
                done = msgspec.structs.replace(gap, state="failed", detail="the instrument is no longer carried here")
            else:
                done = await self._filled(gap, instrument)
                self._gaps.close(instrument.number)
                if not self._has_gap(gap.instrument):
                    self._released.pop(gap.instrument, None)
            self.unfilled += done.state == "failed"
            await self._settle(done)

    def _instrument(self, gap: FeedGap) -> Instrument | None:
        return self._carried.get(gap.instrument) or self._released.get(gap.instrument)

    def _next(self) -> FeedGap | None:
        """The oldest gap of which it is known which trade came first after it, or that none does for a while: one that
        is not over holds up no other."""
        at = now()
        asked: set[InstrumentId] = set()
        for gap in self._waiting:
            instrument = self._instrument(gap)
            if instrument is None or gap.instrument not in self._carried:
                return gap
            is_late = at >= gap.until + int(PATIENCE_S * _SECOND)
            if gap.instrument not in asked and (is_late or self._is_over(gap, instrument)):
                return gap
            # The gaps of one instrument are filled in turn.
            asked.add(gap.instrument)
        return None

    def _is_over(self, gap: FeedGap, instrument: Instrument) -> bool:
        if not self.holes.is_numbered:
            return self._gaps.is_over(instrument.number)
        brings_trades = "trade" in self._publisher.channels_of(instrument.id)
        return not brings_trades or self.holes.is_over(gap, instrument.number)

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
        if self.holes.is_numbered:
            return await self._fill_numbered(gap, instrument)
        if "trade" not in self._publisher.channels_of(gap.instrument):
            return msgspec.structs.replace(gap, state="partly", detail="quotes of the past are not to be had")
        return await self._patiently(gap, lambda: self._fill(gap, instrument))

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

    async def _fill_numbered(self, gap: FeedGap, instrument: Instrument) -> FeedGap:
        lacks = self.holes.continuity.has_holes(instrument.number)
        if not lacks and "trade" not in self._publisher.channels_of(gap.instrument):
            return msgspec.structs.replace(gap, state="partly", detail="quotes of the past are not to be had")
        done = await self.holes.fill(gap, instrument, self._publisher.fill_hole)
        if done is None:
            return await self._patiently(gap, lambda: self._fill_with_bars(gap, instrument))
        self.filled_trades += done.trades
        return done

    async def _fill(self, gap: FeedGap, instrument: Instrument) -> FeedGap:
        assert self._market is not None
        begin = self._gaps.begin(instrument.number, gap.since)
        start = Nanos(begin - AROUND_NS)
        end = Nanos(max(gap.until, now()) + AROUND_NS)
        told = await self._market.trades(instrument, start, end)
        if told is None:
            return await self._fill_with_bars(gap, instrument)
        missing = self._gaps.missing(instrument.number, told.ticks, gap.since, gap.until).copy()
        missing["received_at"] = now()
        filled = self._publisher.fill_in(missing)
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
            self._publisher.bar(instrument.number, bar, True)
        self.filled_bars += len(bars)
        return msgspec.structs.replace(gap, state="filled", bars=len(bars), detail="by the provider's minutes")

"""A feed worker's watch over its subscriptions: what `trading.freshness` orders is done here.

Subscribing and connecting again, and polls by REST; gaps are told to `GapFiller`.  What is polled goes out marked
SNAPSHOT and passes by the hand-over, for it is no part of the stream's sequence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from actors.feed_gaps import GapFiller, Outlet
from actors.feed_holes import FeedHoles
from actors.hours import sessions_of
from cluster.process import now
from connectors.base import FeedConnection, LastValue, MarketData
from storage.feed_quality import FeedGaps
from trading.calendars import Sessions
from trading.continuity import Hole
from trading.errors import NotReady
from trading.freshness import Freshness
from trading.freshness_terms import FreshnessSettings, Hours, Report, State
from trading.gaps import Edge
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


class Publisher(Outlet, Protocol):
    """The worker, as far as the watch needs it."""

    def show_polled(self, ticks: TickArray) -> None:
        """Publish last values that a poll brought."""

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
        self._market: MarketData | None = None
        self._connection: FeedConnection | None = None
        self._carried: dict[InstrumentId, Instrument] = {}
        self.gaps = GapFiller(feed, shard, publisher, gaps, holes, self._carried)
        self._by_number: dict[int, Instrument] = {}
        self._polled: dict[InstrumentId, None] = {}
        #: Why an instrument's stream broke, until its gap is over.
        self._broke: dict[InstrumentId, str] = {}
        self.resubscribed = self.reconnects = self.polls = 0

    def serve(self, market: MarketData, connection: FeedConnection) -> None:
        """What it works with from now on."""
        self._market, self._connection = market, connection
        self.gaps.serve(market)
        self.gaps.holes.serve(market)

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
                self.gaps.edges.open(instrument.number, last[1])
                self._broke[instrument.id] = "the worker before this one ended"

    def drop(self, instruments: Sequence[Instrument]) -> None:
        """Instruments are no longer carried."""
        for instrument in instruments:
            reason = self._broke.pop(instrument.id, "")
            pending = self.freshness.pending_gap(instrument.id)
            if self._carried.pop(instrument.id, None) is not None:
                self.gaps.let_go(instrument, pending, reason)
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
        if self.gaps.edges.waiting:
            # Where trades are numbered, what was published tells more (`published`).
            self.gaps.edges.take(ticks)

    def tune(self, settings: FreshnessSettings, own: Mapping[InstrumentId, FreshnessSettings]) -> None:
        """Put settings in force."""
        self.freshness.tune(settings, own)

    def _note_gaps(self, reason: str) -> None:
        for id_ in self.freshness.gaps():
            instrument = self._carried.get(id_)
            if instrument is not None:
                self._broke[id_] = reason
                self.gaps.edges.open(instrument.number, Edge(*self.freshness.habits.trade(instrument.number)))

    def published(self, ticks: TickArray) -> list[int]:
        """Ticks are out: what lacks before them is a gap, at once and whatever the habit.

        Returns the numbers of the instruments of which something lacks.
        """
        self.gaps.published()
        found = self.gaps.holes.published(ticks)
        for number, hole in found:
            instrument = self._by_number.get(number)
            # A gap that is not over yet is about to be told of.
            if instrument is not None and instrument.id not in self._broke:
                self.gaps.lacks(instrument, hole, f"trades {hole.first} to {hole.last} did not come")
        return [number for number, _ in found]

    def withheld(self, ticks: TickArray, reason: str) -> None:
        """Ticks were not published, and will not be."""
        self.gaps.holes.lost(ticks)
        for number in np.unique(ticks["instrument"]).tolist():
            instrument = self._by_number.get(number)
            if instrument is not None:
                self.gaps.withhold(instrument, ticks[ticks["instrument"] == number], reason)

    def owe(self, instrument: Instrument, hole: Hole) -> None:
        """A worker by this number before this one owes trades."""
        self._by_number[instrument.number] = instrument
        self.gaps.lacks(instrument, hole, "the worker before this one ended")

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
        await self.gaps.write_down()

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
                    self.gaps.open(self._carried[id_], since, until, reason)
            case UseSecond(ids):
                log.warning("%d silent instruments may come from their second provider, e.g. %s", len(ids), ids[0])
            case StopSecond(ids):
                log.info("%d instruments need no second provider, e.g. %s", len(ids), ids[0])

    def _known(self, ids: Sequence[InstrumentId]) -> list[Instrument]:
        return [self._carried[id_] for id_ in ids if id_ in self._carried]

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
                self.gaps.edges.cancel(instrument.number)
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

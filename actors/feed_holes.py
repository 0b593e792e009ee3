"""A feed worker's holes: trades that the venue numbered and this worker did not publish, filled in from history.

Where numbers are consecutive (`FeedLimits.consecutive_trades`) this says what a gap lacks, to the trade: `FeedWatch`
keeps the gaps as they are told, and comes here to fill them.  What was published, and what lacks, is noted in Redis in
the same instant as the ticks go out, so whoever goes on after a killed worker publishes nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import numpy as np

from cluster.process import elapsed, now
from connectors.base import MarketData
from storage.hot import Hot
from storage.records import FeedGap
from trading.continuity import Continuity, Hole, Mark, Marks, less, note_of
from trading.errors import BadInput, NotReady, TradeError
from trading.ids import FeedId, Nanos
from trading.instruments import Instrument
from trading.ticks import TickArray

log = logging.getLogger("quarterdeck")

_SECOND: Final = 1_000_000_000
#: History is asked for a little more than the hole.
AROUND_NS: Final = 5 * _SECOND
#: How often, and how long apart at first, a provider is asked again that does not answer, or does not know yet.
ATTEMPTS: Final = 5
FIRST_PAUSE_S: Final = 1.0
#: Trades that are asked for at once for several holes.
MOST_AT_ONCE: Final = 1_000
#: What a worker left is kept for so long, for whoever carries its instruments next.
KEPT_S: Final = 3600.0
#: What a worker before this one left is told on for so long: its instruments have been given to others by then.
LEFT_S: Final = 120.0


def marks_key(feed: str, shard: int) -> str:
    """Where a worker notes how far it has come."""
    return f"marks:{feed}:{shard}"


def notes_key(feed: str, shard: int) -> str:
    """Where it notes what it has published since."""
    return f"notes:{feed}:{shard}"


class FeedHoles:
    """What one worker published of numbered trades, and what it owes."""

    def __init__(self, feed: FeedId, shard: int, hot: Hot) -> None:
        self.feed = feed
        self.shard = shard
        self.continuity = Continuity()
        #: Whether the provider's trades are numbered without holes.
        self.is_numbered = False
        self._hot = hot
        self._market: MarketData | None = None
        #: What workers by this number left of instruments that others carry, or will.
        self._left: dict[int, Mark] = {}
        self._left_until = 0.0
        #: Notes in Redis, as of the last batch that was published.
        self._notes = 0

    def __repr__(self) -> str:
        return f"<FeedHoles {self.feed}/{self.shard} {self.continuity}>"

    def serve(self, market: MarketData) -> None:
        """Whose trades these are, and who is asked for those that lack."""
        self._market = market
        self.is_numbered = market.limits.consecutive_trades

    # Publishing

    def note(self, ticks: TickArray) -> tuple[str, bytes] | None:
        """What has to be noted as ``ticks`` go out, and where; None: nothing."""
        note = note_of(ticks) if self.is_numbered else b""
        return (notes_key(self.feed, self.shard), note) if note else None

    def noted(self, notes: int) -> None:
        """So many notes are there now."""
        self._notes = notes

    def published(self, ticks: TickArray) -> list[tuple[int, Hole]]:
        """Ticks are out; returns the holes that they show."""
        return self.continuity.take(ticks) if self.is_numbered else []

    def lost(self, ticks: TickArray) -> None:
        """Ticks were lined up and could not be published."""
        if self.is_numbered:
            self.continuity.lose(ticks)

    def refused(self, ticks: TickArray) -> None:
        """Bad ticks were kept out."""
        if self.is_numbered:
            self.continuity.refuse(ticks)

    # How far it has come

    async def save(self, cuts: Mapping[int, int]) -> None:
        """Note how far it has come; ``cuts``: numbers from which on instruments are another worker's.  `NotReady`."""
        if self._left and elapsed() > self._left_until:
            self._left = {}
        left = {number: mark for number, mark in self._left.items() if number not in self.continuity.carried}
        dump = self.continuity.dump(dict(cuts), left)
        await self._hot.put_and_trim(
            marks_key(self.feed, self.shard), dump, KEPT_S, notes_key(self.feed, self.shard), self._notes
        )
        self._notes = 0

    async def forget(self) -> None:
        """It has handed all over and ends.  `NotReady`."""
        for key in (marks_key(self.feed, self.shard), notes_key(self.feed, self.shard)):
            await self._hot.delete(key)

    async def read(self, made_at: Nanos) -> dict[int, Mark]:
        """How far the feed's workers have come, by instrument number; what is older than the feed is not its.
        `NotReady`."""
        found: dict[int, Mark] = {}
        for key in await self._hot.scan(f"marks:{self.feed}:", bytes):
            for number, mark in (await self._marks_of(int(key.rpartition(":")[2]))).marks.items():
                known = found.get(number)
                if mark.received_at >= made_at and (known is None or mark.begin > known.begin):
                    found[number] = mark
        return found

    async def take_over(self) -> dict[int, list[Hole]]:
        """What the worker by this number before this one owes; how far it had come is kept for who carries it next.
        `NotReady`."""
        if not self.is_numbered:
            return {}
        marks = await self._marks_of(self.shard)
        self._left, self._left_until = marks.marks, elapsed() + LEFT_S
        self._notes = len(await self._hot.notes(notes_key(self.feed, self.shard)))
        owed = marks.left_over()
        for number, holes in owed.items():
            self.continuity.adopt(number, holes)
        return owed

    async def _marks_of(self, shard: int) -> Marks:
        dump = await self._hot.get(marks_key(self.feed, shard), bytes)
        marks = Marks(dump or b"")
        if notes := await self._hot.notes(notes_key(self.feed, shard)):
            marks.replay(notes)
        return marks

    # Filling

    def is_over(self, gap: FeedGap, number: int) -> bool:
        """Whether it is known what lacks in a gap: a trade has gone out since."""
        return self.continuity.has_holes(number) or self.continuity.received_at(number) >= gap.until

    async def fill(
        self, gap: FeedGap, instrument: Instrument, publish: Callable[[TickArray], TickArray]
    ) -> FeedGap | None:
        """Fill in all that lacks of an instrument; returns what has become of the gap, None where the provider tells no
        trades of the past.  ``publish`` returns those that were good."""
        number = instrument.number
        owed = self.continuity.claim(number)
        lacking = owed
        trades, pause, trouble = 0, FIRST_PAUSE_S, ""
        for attempt in range(ATTEMPTS if owed else 0):
            if attempt:
                await asyncio.sleep(pause)
                pause *= 2
            try:
                told = await self._trades(instrument, lacking)
            except BadInput as error:
                trouble = str(error)
                break
            except TradeError as error:
                trouble = str(error)
                continue
            if told is None:
                self._give_up(number, owed)
                return None
            ticks, since = told
            good = publish(ticks)
            trades += len(good)
            # Bad ones have come, too: they are in quarantine.
            self._give_up(number, _of(lacking, set(ticks["sequence"].tolist()) - set(good["sequence"].tolist())))
            known = set(ticks["sequence"].tolist())
            lacking = [run for hole in lacking for run in less(hole, known)]
            trouble = "the provider does not tell them"
            if not lacking or since > min(hole.begin for hole in lacking):
                # It does not reach back so far.
                break
        if lacking:
            self._give_up(number, lacking)
            lost = ", ".join(f"{hole.first} to {hole.last}" for hole in lacking[:20])
            log.warning("trades %s of %s are not to be had: %s", lost, instrument.id, trouble)
            state = "partly" if trades else "failed"
            return msgspec.structs.replace(gap, state=state, trades=trades, detail=f"trades {lost}: {trouble}")
        return msgspec.structs.replace(gap, state="filled", trades=trades)

    async def _trades(self, instrument: Instrument, holes: list[Hole]) -> tuple[TickArray, Nanos] | None:
        """Those of the past that lie in the holes, and since when the provider tells all."""
        if self._market is None:
            raise NotReady("it is not connected yet")
        start = min(hole.begin for hole in holes)
        parts, since = [], Nanos(0)
        for numbers in _together(holes):
            told = await self._market.trades(
                instrument, Nanos(max(0, start - AROUND_NS)), Nanos(now() + AROUND_NS), numbers
            )
            if told is None:
                return None
            parts.append(told.ticks)
            since = max(since, told.since)
        # Where numbers are not asked for, each answer has them all.
        found = np.concatenate(parts)
        found = found[np.unique(found["sequence"], return_index=True)[1]]
        wanted = np.zeros(len(found), dtype=np.bool_)
        for hole in holes:
            wanted |= (found["sequence"] >= hole.first) & (found["sequence"] <= hole.last)
        ticks = found[wanted]
        ticks["received_at"] = now()
        return ticks, since

    def _give_up(self, number: int, holes: list[Hole]) -> None:
        for hole in holes:
            self.continuity.give_up(number, hole)


def _together(holes: list[Hole]) -> list[tuple[int, int]]:
    """First and last numbers to ask for at once: holes that lie close together in one go."""
    spans: list[tuple[int, int]] = []
    for first, last in sorted((hole.first, hole.last) for hole in holes):
        if spans and last - spans[-1][0] < MOST_AT_ONCE:
            spans[-1] = spans[-1][0], max(last, spans[-1][1])
        else:
            spans.append((first, last))
    return spans


def _of(holes: list[Hole], sequences: set[int]) -> list[Hole]:
    """Each of these trades, as a hole of its own."""
    return [
        msgspec.structs.replace(hole, first=each, last=each)
        for hole in holes
        for each in sorted(sequences)
        if hole.first <= each <= hole.last
    ]

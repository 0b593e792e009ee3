"""History of bars: what is stored, completed from the provider where nobody has looked yet.

A span is fetched once: it is then stored and known whole, also where nothing was traded in it.  Whoever else wants it
meanwhile, in whichever process, waits for the one who fetches.  Bars younger than a minute are given but not taken for
final: a provider may still add to them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from storage.bars import Bars, Cover, Source, StoredBar
from trading.bar_deriving import DAY, HOUR, SECOND, STORED, check_width, derive, derive_days, stored_width
from trading.bars import Bar
from trading.errors import BadInput, NotReady, Unreachable
from trading.ids import Nanos
from trading.instruments import Instrument
from trading.spans import Span, ceiling, floor, missing, within

#: Closed bars of a provider: instrument, interval, start, end (`connectors.base.MarketData.history`).
Fetch = Callable[[Instrument, str, Nanos, Nanos], Awaitable[Sequence[Bar]]]
#: Trading days of a calendar that open in a span.
TradingDays = Callable[[str, Span], Awaitable[Sequence[Span]]]

#: A provider's bars this young may still be added to.
SETTLED_AFTER: Final = 60 * SECOND
#: What may not be final is asked for again after so many seconds at the earliest.
ASKED_AGAIN: Final = 5 * SECOND
#: All fetching for one page ends after so many seconds; what came by then is stored.
FETCH_S: Final = 25.0
#: A claim outlives the fetch that it is for, so no two ever fetch the same.
CLAIM_S: Final = FETCH_S + 20.0
POLL_S: Final = 0.1
#: Intervals asked of a provider at once, and stored before the next are asked for.
CHUNK: Final = 10_000
#: Stored intervals that one page may be made of.
MOST_INTERVALS: Final = 50_000
MOST_BARS: Final = 10_000
_MOST_KEPT: Final = 10_000


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A span that is not known whole: a bar that is absent in it says nothing."""

    start: Nanos
    end: Nanos
    reason: str


class HistoryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Bars, oldest first."""

    bars: list[Bar]
    gaps: list[Gap]
    #: Where the next page starts; None: this was the last.
    next: Nanos | None
    #: All closed bars that open before are in this page or those before it.  Live bars that open then or later continue
    #: it: none is missing between, none comes twice.
    until: Nanos


class History:
    """Answers with closed bars.  For one event loop."""

    def __init__(
        self,
        bars: Bars,
        fetch: Fetch,
        trading_days: TradingDays,
        clock: Callable[[], Nanos] = lambda: Nanos(time.time_ns()),
    ) -> None:
        self._bars = bars
        self._fetch = fetch
        self._trading_days = trading_days
        self._clock = clock
        #: By instrument and width, what was asked for last though it may not be final, and when.
        self._asked: dict[tuple[int, int], tuple[Span, int]] = {}

    def now(self) -> Nanos:
        """The time by which bars count as closed."""
        return self._clock()

    async def page(
        self, instrument: Instrument, interval: str, start: Nanos, end: Nanos, limit: int = 1000
    ) -> HistoryPage:
        """Closed bars with ``start <= opened_at < end``, ``limit`` at most, from ``start`` on.

        A page may have fewer bars, or none, and yet a next one.  Raises `BadInput` for an interval that there is not,
        `NotReady` where the provider does not answer: what it gave until then is stored.
        """
        width = check_width(interval, instrument.calendar)
        if not 0 <= start < end or end >= 2**62:
            raise BadInput("end", "it must be later than start")
        if not 1 <= limit <= MOST_BARS:
            raise BadInput("limit", f"{limit} is not between 1 and {MOST_BARS}")
        if width >= DAY and instrument.calendar != "24x7":
            return await self._sessions(instrument, start, end, limit)
        now = self._clock()
        base = stored_width(width)
        first = ceiling(start, width)
        last = max(first, min(ceiling(end, width), floor(now, width)))
        # Years of hours are kept whole by some servers; else they are made of as many minutes.
        kept = HOUR if width % HOUR == 0 and await self._bars.keeps_hours() else base
        budget = max(1, MOST_INTERVALS * kept // width)
        found: list[Bar] = []
        gaps: list[Gap] = []
        at = first
        while at < last and len(found) < limit and budget > 0:
            window = Span(at, min(last, at + min(limit - len(found), budget) * width))
            bars, unknown = await self._whole(instrument, base, window, now, kept)
            found += bars if width == kept else derive(bars, width, kept)
            gaps += unknown
            budget -= (window.end - window.start) // width
            at = window.end
        return HistoryPage(bars=found, gaps=_joined(gaps), next=Nanos(at) if at < last else None, until=Nanos(at))

    async def closed(self, instrument: Instrument, interval: str, start: Nanos, end: Nanos) -> list[Bar]:
        """All closed bars with ``start <= opened_at < end``, as `page` gives them: what algos begin with."""
        found: list[Bar] = []
        at: Nanos | None = start
        while at is not None and at < end:
            page = await self.page(instrument, interval, at, end, MOST_BARS)
            found += page.bars
            at = page.next
        return found

    async def _sessions(self, instrument: Instrument, start: int, end: int, limit: int) -> HistoryPage:
        now = self._clock()
        base = stored_width(DAY)
        over = [d for d in await self._trading_days(instrument.calendar, Span(start, min(end, now))) if d.end <= now]
        days = over[:limit]
        while len(days) > 1 and (days[-1].end - days[0].start) // base > MOST_INTERVALS:
            days = days[: len(days) // 2]
        rest = over[len(days) :]
        until = rest[0].start if rest else max(start, min(end, now))
        if not days:
            return HistoryPage(bars=[], gaps=[], next=None, until=Nanos(until))
        window = Span(floor(days[0].start, base), ceiling(days[-1].end, base))
        bars, gaps = await self._whole(instrument, base, window, now)
        inside = [Gap(start=Nanos(s.start), end=Nanos(s.end), reason=gap.reason)
                  for gap in gaps for day in days for s in within([Span(gap.start, gap.end)], day)]  # fmt: skip
        return HistoryPage(
            bars=derive_days(bars, days),
            gaps=_joined(inside),
            next=Nanos(rest[0].start) if rest else None,
            until=Nanos(until),
        )

    async def _whole(
        self, instrument: Instrument, width: int, wanted: Span, now: int, kept: int = 0
    ) -> tuple[list[Bar], list[Gap]]:
        """The stored bars of a span, fetched where they were missing, and what is not known whole all the same.

        ``kept``: the width in which they are given, an hour or that of the stored ones.
        """
        trouble = await self._complete(instrument, width, wanted, now)
        # Coverage first: bars are never stored after what covers them.
        covered = await self._bars.covered(instrument.number, width, wanted)
        if kept == HOUR:
            bars = await self._bars.read_hours(instrument.number, wanted)
        else:
            bars = await self._bars.read(instrument.number, width, wanted)
        young = floor(now - SETTLED_AFTER, width)
        gaps = []
        for span in missing(covered, wanted):
            if trouble:
                gaps.append(Gap(start=Nanos(span.start), end=Nanos(span.end), reason=trouble))
                continue
            for piece, reason in (
                (Span(span.start, min(span.end, young)), "not fetched"),
                (Span(max(span.start, young), span.end), "not final: the provider may still add to it"),
            ):
                if piece.start < piece.end:
                    gaps.append(Gap(start=Nanos(piece.start), end=Nanos(piece.end), reason=reason))
        return bars, gaps

    async def _complete(self, instrument: Instrument, width: int, wanted: Span, now: int) -> str:
        """Fetch what is missing; returns why that cannot be, "" where nothing is in the way."""
        key = (instrument.number, width)
        try:
            async with asyncio.timeout(FETCH_S):
                while self._to_fetch(key, await self._missing(key, wanted), now):
                    holder = await self._bars.claim(*key, CLAIM_S)
                    if holder is None:
                        await asyncio.sleep(POLL_S)
                        continue
                    try:
                        # Again, for whoever had the claim before may have fetched it.
                        for gap in self._to_fetch(key, await self._missing(key, wanted), now):
                            await self._take(instrument, width, gap, now)
                    finally:
                        await self._bars.release(*key, holder)
                    break
        except BadInput as error:
            return f"the provider cannot say: {error.detail}"
        except Unreachable as error:
            # To ask for history has no outcome that could be unknown: it can simply be asked for again.
            raise NotReady(f"{instrument.provider} did not give its history: {error.detail}", 2.0) from error
        except TimeoutError:
            raise NotReady(
                f"history of {instrument.id} was not complete within {FETCH_S:g} s; what came is stored, ask again", 1.0
            ) from None
        return ""

    async def _missing(self, key: tuple[int, int], wanted: Span) -> list[Span]:
        return missing(await self._bars.covered(*key, wanted), wanted)

    def _to_fetch(self, key: tuple[int, int], gaps: Sequence[Span], now: int) -> list[Span]:
        """Without what was asked for a moment ago."""
        asked = self._asked.get(key)
        if asked is None or now - asked[1] >= ASKED_AGAIN:
            return list(gaps)
        return [piece for gap in gaps for piece in missing([asked[0]], gap)]

    async def _take(self, instrument: Instrument, width: int, gap: Span, now: int) -> None:
        """Fetch a span piece by piece, and store each before the next."""
        settled = floor(now - SETTLED_AFTER, width)
        for start in range(gap.start, gap.end, CHUNK * width):
            piece = Span(start, min(gap.end, start + CHUNK * width))
            given = await self._fetch(instrument, STORED[width], Nanos(piece.start), Nanos(piece.end))
            bars = [
                StoredBar(instrument=instrument.number, width=width, bar=bar, source=Source.PROVIDER)
                for bar in given
                if piece.start <= bar.opened_at < piece.end and bar.opened_at + width <= now
            ]
            cover = Cover(instrument=instrument.number, width=width, span=Span(piece.start, min(piece.end, settled)))
            await self._bars.save(bars, [cover])
            if piece.end > settled:
                if len(self._asked) >= _MOST_KEPT:
                    self._asked.clear()
                self._asked[instrument.number, width] = (Span(max(piece.start, settled), piece.end), now)


def _joined(gaps: Sequence[Gap]) -> list[Gap]:
    """Gaps that touch and have the same reason, as one."""
    joined: list[Gap] = []
    for gap in gaps:
        if joined and joined[-1].end == gap.start and joined[-1].reason == gap.reason:
            joined[-1] = msgspec.structs.replace(joined[-1], end=gap.end)
        else:
            joined.append(gap)
    return joined

"""Channel ``book``: whole order books, kept from Binance's diff stream and its snapshots, shown as depths.

Sources: "How to manage a local order book correctly" of the spot and of the USD-M documentation, and "Order Book" of
their REST parts (``GET /depth``: ``lastUpdateId``, ``bids``, ``asks`` as pairs of strings).  `trading.order_book`
decides; here its snapshots are fetched and its books given to the feed's sink.  What the snapshot does not reach
(levels beyond the thousand nearest) is known only once it changes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec
import numpy as np

from connectors.base import BookDelta, Clock, FeedSink
from connectors.binance.rest import Rest
from trading.bars import Bar
from trading.depth import DEPTH, LEVELS, DepthArray
from trading.errors import TradeError
from trading.ids import InstrumentId, Nanos
from trading.instruments import Instrument
from trading.order_book import BookChange, OrderBook

log = logging.getLogger(__name__)

#: Levels of a snapshot; weight 50 (spot), 20 (USD-M).
SNAPSHOT_LEVELS: Final = 1_000
_LARGEST: Final = 0xFFFF_FFFF
_MOST_PLACES: Final = 9


class _Snapshot(msgspec.Struct, rename={"last": "lastUpdateId"}):
    last: int
    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]


_snapshot = msgspec.json.Decoder(_Snapshot, strict=False).decode


class _Kept:
    """One instrument's book and how it is shown."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.book = OrderBook()
        self.price_places = _places(instrument.tick_size)
        self.size_places = _places(instrument.lot_size)
        self.exchange_at = self.received_at = 0
        self.shown_good = False


class Books:
    """Stands before a feed's sink: keeps the books that were asked for, passes all else on (`FeedSink`)."""

    def __init__(self, sink: FeedSink, rest: Rest, clock: Clock) -> None:
        self.ticks = sink.ticks
        self._sink = sink
        self._rest = rest
        self._clock = clock
        #: By instrument number.
        self._kept: dict[int, _Kept] = {}
        #: Instruments whose changes are wanted themselves.
        self._passed: set[int] = set()
        self._dirty: set[int] = set()
        self._flushing = False
        self._needed = asyncio.Event()

    def __repr__(self) -> str:
        good = sum(each.book.good for each in self._kept.values())
        return f"<Books {good} of {len(self._kept)} good, {self.resyncs} given up>"

    @property
    def resyncs(self) -> int:
        """How often a book was given up."""
        return sum(each.book.resyncs for each in self._kept.values())

    @property
    def crossings(self) -> int:
        """How often a book was given up because it was crossed."""
        return sum(each.book.crossings for each in self._kept.values())

    def want(self, instrument: Instrument, channels: Sequence[str]) -> None:
        """Keep the book of an instrument, or pass its changes on, as its channels say."""
        if "book" in channels and instrument.number not in self._kept:
            self._kept[instrument.number] = _Kept(instrument)
        if "depth" in channels:
            self._passed.add(instrument.number)

    def unwant(self, number: int) -> None:
        """Do neither any more."""
        self._kept.pop(number, None)
        self._passed.discard(number)
        self._dirty.discard(number)

    async def run(self) -> None:
        """Fetch the snapshots that are needed, until cancelled."""
        while True:
            self._needed.clear()
            now = self._clock()
            waits = [at for each in self._kept.values() if (at := each.book.ask_at()) is not None]
            due = [each for each in self._kept.values() if each.book.wants_snapshot(now)]
            for each in due:
                await self._fetch(each)
            if due:
                continue
            try:
                async with asyncio.timeout((min(waits) - now) / 1e9 + random.uniform(0, 0.05) if waits else None):
                    await self._needed.wait()
            except TimeoutError:
                continue

    async def _fetch(self, kept: _Kept) -> None:
        instrument, book = kept.instrument, kept.book
        if not book.wants_snapshot(self._clock()):
            return
        book.asked(self._clock())
        try:
            parameters: dict[str, str | int] = {"symbol": instrument.provider_symbol, "limit": SNAPSHOT_LEVELS}
            found = _snapshot(await self._rest.get("/depth", parameters))
        except (TradeError, msgspec.DecodeError) as error:
            log.warning("no snapshot of the book of %s: %s", instrument.id, error)
            return
        if self._kept.get(instrument.number) is not kept:
            return
        if book.snapshot(found.last, found.bids, found.asks, self._clock()):
            self._show(instrument.number)
        else:
            log.debug("the book of %s: %s", instrument.id, book.reason)

    # What the links put in

    def book(self, delta: BookDelta) -> None:
        """A change of an order book."""
        kept = self._kept.get(delta.instrument)
        if kept is not None:
            change = BookChange(
                first=delta.first_sequence, last=delta.last_sequence, previous=delta.previous_sequence,
                bids=delta.bids, asks=delta.asks,
            )  # fmt: skip
            kept.exchange_at, kept.received_at = delta.exchange_at, delta.received_at
            was_good = kept.book.good
            if kept.book.change(change, delta.received_at):
                self._show(delta.instrument)
            if not kept.book.good:
                if was_good:
                    log.warning("the book of %s begins anew: %s", kept.instrument.id, kept.book.reason)
                self._needed.set()
        if kept is None or delta.instrument in self._passed:
            self._sink.book(delta)

    def broken(self) -> None:
        """The stream is gone: no book is known any more."""
        now = self._clock()
        for number, kept in self._kept.items():
            if kept.book.broken(now):
                self._show(number)

    def _show(self, number: int) -> None:
        self._dirty.add(number)
        if not self._flushing:
            # Once for all that came in the same read.
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        shown = [self._kept[number] for number in self._dirty if number in self._kept]
        self._dirty.clear()
        if shown:
            self._sink.depth(_depths(shown))

    def wake(self) -> None:
        """New ticks are in the buffer."""
        self._sink.wake()

    def bar(self, instrument: int, bar: Bar, final: bool) -> None:
        """A bar that the venue built."""
        self._sink.bar(instrument, bar, final)

    def depth(self, books: DepthArray) -> None:
        """Whole books that came as such."""
        self._sink.depth(books)

    def opened(self) -> None:
        """The stream is open."""
        self._sink.opened()

    def closed(self, reason: str) -> None:
        """The stream is gone."""
        self.broken()
        self._sink.closed(reason)

    def garbage(self, raw: bytes, reason: str) -> None:
        """A frame that makes no sense."""
        self._sink.garbage(raw, reason)

    def refused(self, instrument: InstrumentId, reason: str) -> None:
        """The provider refused an instrument."""
        self._sink.refused(instrument, reason)


def _depths(shown: Sequence[_Kept]) -> DepthArray:
    books = np.zeros(len(shown), dtype=DEPTH)
    for row, kept in zip(books, shown, strict=True):
        bids, asks = kept.book.bids(LEVELS), kept.book.asks(LEVELS)
        places = kept.price_places
        highest = max((price for price, _ in (*bids, *asks)), default=0.0)
        while places and highest * 10**places > _LARGEST:
            # Beyond nine or ten digits a price is rounded.
            places -= 1
        scale = 10**places
        row["instrument"], row["scale"] = kept.instrument.number, scale
        row["exchange_at"], row["received_at"] = kept.exchange_at, Nanos(kept.received_at)
        for side, levels in (("bids", bids), ("asks", asks)):
            for place, (price, size) in enumerate(levels):
                digits = kept.size_places
                while digits and size * 10**digits > _LARGEST:
                    digits -= 1
                level = row[side][place]
                level["price"] = min(_LARGEST, round(price * scale))
                level["size"], level["places"] = min(_LARGEST, round(size * 10**digits)), digits
    return books


def _places(step: Decimal) -> int:
    exponent = step.normalize().as_tuple().exponent
    return max(0, min(_MOST_PLACES, -exponent)) if isinstance(exponent, int) else 0

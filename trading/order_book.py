"""An order book kept from a snapshot and the changes that follow it, never shown while it may be wrong.

Two ways in which venues number their changes are known.  *Consecutive*: each begins at the number after the last one of
the change before (Binance's spot market).  *Chained*: each names the last number of the change before (its futures).
What does not follow, a change that was lost or has overtaken another, or a book whose best bid is not below its best
offer, ends the book: changes are kept until a new snapshot comes, which is asked for ever more seldom.

Changes come in, what to do comes out: `wants_snapshot` says when to ask for one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final

import msgspec

from trading.ids import Nanos

#: Changes kept while there is no snapshot.
MOST_WAITING: Final = 2_000
#: Levels a side that are kept: a price that walks leaves far ones behind that nobody takes away.
MOST_LEVELS: Final = 5_000
FIRST_PAUSE: Final = 250_000_000
LONGEST_PAUSE: Final = 30_000_000_000
#: A book that was good for so long has earned a quick snapshot.
FORGIVEN_AFTER: Final = 60_000_000_000

Level = tuple[float, float]


class BookChange(msgspec.Struct, frozen=True, kw_only=True):
    """Changed levels: (price, new size), size 0 takes the level away.

    ``first`` … ``last`` are the venue's numbers that it covers, ``previous`` the last one of the change before where
    the venue says that (else None).
    """

    first: int
    last: int
    previous: int | None
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class Side:
    """One side's levels, the best first."""

    def __init__(self, sign: int) -> None:
        #: -1 for bids, so that keys rise from the best on.
        self._sign = sign
        self._keys: list[float] = []
        self._sizes: dict[float, float] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, levels: Iterable[Level]) -> None:
        """Set levels; size 0 takes one away, also one that is not there."""
        for price, size in levels:
            key = price * self._sign
            if size > 0:
                if key not in self._sizes:
                    insort(self._keys, key)
                self._sizes[key] = size
            elif self._sizes.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
        while len(self._keys) > MOST_LEVELS:
            del self._sizes[self._keys.pop()]

    def best(self) -> float | None:
        """The best price."""
        return self._keys[0] * self._sign if self._keys else None

    def top(self, count: int) -> list[Level]:
        """The best ``count`` levels, best first."""
        return [(key * self._sign, self._sizes[key]) for key in self._keys[:count]]


class OrderBook:
    """The book of one instrument."""

    def __init__(self) -> None:
        self._bids, self._asks = Side(-1), Side(1)
        #: Number of the last change in the book.
        self.last = 0
        #: Whether the book is the venue's, as far as changes have come.
        self.good = False
        #: Why it is not.
        self.reason = "no snapshot yet"
        #: How often it was given up, and how often of these it was crossed.
        self.resyncs = 0
        self.crossings = 0
        #: No change has come since the snapshot.
        self._fresh = False
        self._waiting: list[BookChange] = []
        self._good_at = 0
        self._ask_at = 0
        self._pause = FIRST_PAUSE

    def __repr__(self) -> str:
        state = "good" if self.good else f"resyncing: {self.reason}"
        return f"<OrderBook {state} last={self.last} waiting={len(self._waiting)} resyncs={self.resyncs}>"

    def bids(self, count: int) -> list[Level]:
        """The best bids, best first; none while the book is not known to be good."""
        return self._bids.top(count) if self.good else []

    def asks(self, count: int) -> list[Level]:
        """The best offers, best first; as `bids`."""
        return self._asks.top(count) if self.good else []

    def change(self, change: BookChange, now: Nanos) -> bool:
        """Take a change; whether what is shown is another than before."""
        if not self.good:
            self._keep(change)
            return False
        if change.last <= self.last and not (self._fresh and change.previous is not None and change.last == self.last):
            return False
        if not self._follows(change):
            self._give_up(f"a change is missing after {self.last}", now)
            self._keep(change)
            return True
        self._apply(change)
        return self._check(now) or True

    def wants_snapshot(self, now: Nanos) -> bool:
        """Whether to ask for a snapshot now; then say `asked`.  Only once changes come: an older one would not do."""
        return not self.good and bool(self._waiting) and now >= self._ask_at

    def ask_at(self) -> Nanos | None:
        """When `wants_snapshot` is next true, None while it is not needed."""
        return None if self.good or not self._waiting else Nanos(self._ask_at)

    def asked(self, now: Nanos) -> None:
        """A snapshot was asked for; without a good book the next one is asked for after a longer pause."""
        self._ask_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def snapshot(self, last: int, bids: Iterable[Level], asks: Iterable[Level], now: Nanos) -> bool:
        """Take the venue's book as it was after its change ``last``; whether the book is good now."""
        if self.good:
            return True
        waiting = sorted(self._waiting, key=lambda each: each.last)
        self._bids, self._asks = Side(-1), Side(1)
        self._bids.put(bids)
        self._asks.put(asks)
        self.last, self._fresh = last, True
        for place, change in enumerate(waiting):
            old = change.last < self.last or (change.last == self.last and not self._fresh)
            if old or (change.last == self.last and change.previous is None):
                continue
            if not self._follows(change):
                self.reason = f"the snapshot, or a change after it, does not reach {change.first}"
                # What came before is of no use to a later snapshot, which is the only kind that can come.
                self._waiting = waiting[place:]
                return False
            self._apply(change)
        self._waiting.clear()
        self.good, self.reason, self._good_at = True, "", now
        self._check(now)
        return self.good

    def broken(self, now: Nanos) -> bool:
        """The stream of changes was cut; whether what is shown is another than before."""
        shown = self.good
        if shown:
            self._give_up("the stream was cut", now)
        self._waiting.clear()
        return shown

    def _follows(self, change: BookChange) -> bool:
        if change.previous is None:
            return change.first <= self.last + 1
        if change.previous == self.last:
            return True
        return self._fresh and change.first <= self.last <= change.last

    def _apply(self, change: BookChange) -> None:
        self._bids.put(change.bids)
        self._asks.put(change.asks)
        self.last, self._fresh = change.last, False

    def _check(self, now: Nanos) -> bool:
        """Whether it is crossed, and so was given up."""
        bid, ask = self._bids.best(), self._asks.best()
        if bid is None or ask is None or bid < ask:
            return False
        self.crossings += 1
        self._give_up(f"crossed: {bid:g} is bid and {ask:g} offered", now)
        return True

    def _keep(self, change: BookChange) -> None:
        self._waiting.append(change)
        if len(self._waiting) > MOST_WAITING:
            del self._waiting[: MOST_WAITING // 2]

    def _give_up(self, reason: str, now: Nanos) -> None:
        self.good, self.reason = False, reason
        self.resyncs += 1
        if now - self._good_at >= FORGIVEN_AFTER:
            self._pause = FIRST_PAUSE
            self._ask_at = 0
        self._waiting.clear()

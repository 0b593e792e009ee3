"""What lies in a gap: which of the trades that history tells were not streamed.

A shell drives it so: ``open`` when ticks of an instrument may be missing from now on, with what its last trade was;
``take`` with every batch while a gap is open; once it is over and history has been asked, ``missing`` picks the trades
that lie strictly between the last one before and the first one after, and ``close`` ends it.  Order is the venue's
sequence, or its time where it has none.
"""

from __future__ import annotations

import msgspec
import numpy as np

from trading.ids import Nanos
from trading.ticks import BACKFILLED, SNAPSHOT, TRADE, TickArray


class Edge(msgspec.Struct, frozen=True):
    """A trade at one end of a gap; 0: the venue sends no such thing."""

    sequence: int
    at: Nanos


class _Gap(msgspec.Struct):
    before: Edge
    after: Edge | None = None


class Gaps:
    """The open gaps of one stream, by instrument number, each filled in turn."""

    def __init__(self) -> None:
        self._open: dict[int, list[_Gap]] = {}

    def __repr__(self) -> str:
        return f"<Gaps of {len(self._open)} instruments>"

    @property
    def waiting(self) -> bool:
        """Whether any gap is open."""
        return bool(self._open)

    def open(self, number: int, last: Edge) -> None:
        """Ticks may be missing from now on; a gap that no trade has ended goes on."""
        known = self._open.setdefault(number, [])
        if not known or known[-1].after is not None:
            known.append(_Gap(last))

    def take(self, ticks: TickArray) -> None:
        """Trades have come: the first of an instrument ends its gap."""
        waiting = [number for number, known in self._open.items() if known[-1].after is None]
        if not waiting:
            return
        is_own = np.isin(ticks["instrument"], np.array(waiting, dtype=np.int32))
        # A snapshot repeats what was before.
        flags = ticks["flags"] & np.uint32(TRADE | SNAPSHOT | BACKFILLED)
        for row in np.flatnonzero(is_own & (flags == TRADE)).tolist():
            gap = self._open[int(ticks["instrument"][row])][-1]
            if gap.after is None:
                gap.after = Edge(int(ticks["sequence"][row]), Nanos(int(ticks["exchange_at"][row])))

    def is_over(self, number: int) -> bool:
        """Whether a trade has come since the oldest gap (or there is none)."""
        known = self._open.get(number)
        return not known or known[0].after is not None

    def begin(self, number: int, since: Nanos) -> Nanos:
        """Venue time from which on history has to be asked for the oldest gap."""
        known = self._open.get(number)
        before = known[0].before.at if known else Nanos(0)
        return min(since, before) if before else since

    def missing(self, number: int, ticks: TickArray, since: Nanos, until: Nanos) -> TickArray:
        """The trades that were not streamed in the oldest gap; ``since`` and ``until`` bound it where no trade does."""
        known = self._open.get(number)
        before, after = (known[0].before, known[0].after) if known else (Edge(0, Nanos(0)), None)
        at, sequence = ticks["exchange_at"], ticks["sequence"]
        is_later = sequence > before.sequence if before.sequence else at > (before.at or since)
        if after is None:
            is_earlier = at < until
        else:
            is_earlier = sequence < after.sequence if after.sequence else at < (after.at or until)
        return ticks[is_later & is_earlier]

    def close(self, number: int) -> None:
        """The oldest gap is filled as far as it can be."""
        known = self._open.get(number)
        if known:
            del known[0]
            if not known:
                del self._open[number]

    def cancel(self, number: int) -> None:
        """Nothing was missed in the gap that is still open."""
        known = self._open.get(number)
        if known and known[-1].after is None:
            del known[-1]
            if not known:
                del self._open[number]

    def forget(self, number: int) -> None:
        """The instrument is no longer carried."""
        self._open.pop(number, None)

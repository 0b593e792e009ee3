"""How long each instrument is usually silent, learnt from its own ticks.

Kept in arrays, so that a batch costs next to nothing.  Gaps between ticks go into `RunningQuantiles`, at most one a
second for an instrument: a burst of a hundred ticks must not hide the minute of silence that usually follows it.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

from trading.ids import Nanos
from trading.running_quantiles import RunningQuantiles
from trading.slots import Slots
from trading.ticks import BACKFILLED, SNAPSHOT, TRADE, TickArray

#: Columns: last receipt, venue time of the last tick, first receipt since armed, from when on gaps count, ticks, when
#: the last gap was counted, and sequence and venue time of the last trade.
_LAST, _VENUE, _FIRST, _SINCE, _COUNT, _COUNTED, _SEQUENCE, _TRADED = range(8)
#: Batches up to this long are quicker tick by tick.
_SMALL: Final = 32
_ROW: Final = struct.Struct("<8q")
_APART_NS: Final = 1_000_000_000
#: So many gaps make a habit.
_ENOUGH: Final = 16
_QUANTILE: Final = 0.99


class Habits:
    """The last ticks and usual gaps of a stream's instruments."""

    def __init__(self) -> None:
        self._slots = Slots()
        #: The rows as bytes, and the same memory as an array.
        self._bytes = bytearray(16 * _ROW.size)
        self._rows = _view(self._bytes)
        self._gaps = RunningQuantiles(memory=512)

    def __repr__(self) -> str:
        return f"<Habits {len(self._slots)} instruments>"

    def take(self, ticks: TickArray) -> None:
        """Take a batch; back-filled ticks tell nothing of how a stream goes."""
        if len(ticks) <= _SMALL:
            for number, flags, _, _, _, _, _, _, at, received, sequence in ticks.tolist():
                if not flags & BACKFILLED:
                    self._take_one(number, flags, at, received, sequence)
            return
        told = (ticks["flags"] & np.uint32(BACKFILLED)) == 0
        if not told.all():
            ticks = ticks[told]
        if not len(ticks):
            return
        slots = self._slots.many(ticks["instrument"])
        self._reach()
        rows, received = self._rows, ticks["received_at"]
        # Each instrument once; of several writes to one place the last one stays.
        firsts = np.zeros(len(self._slots), dtype=np.int64)
        firsts[slots[::-1]] = received[::-1]
        seen = np.flatnonzero(firsts).astype(np.int32)
        first = firsts[seen]
        before = rows[seen, _LAST]
        # A gap counts from tick to tick of one session and connection; what a snapshot ends is no usual gap.
        usual = (before > rows[seen, _SINCE]) & (first >= before) & (first - rows[seen, _COUNTED] >= _APART_NS)
        is_snapshot = (ticks["flags"] & np.uint32(SNAPSHOT)) != 0
        if is_snapshot.any():
            plain = np.zeros(len(self._slots), dtype=np.bool_)
            plain[slots[~is_snapshot]] = True
            usual &= plain[seen]
        self._gaps.add(seen[usual], (first - before)[usual])
        rows[seen[usual], _COUNTED] = first[usual]
        fresh = rows[seen, _FIRST] == 0
        rows[seen[fresh], _FIRST] = first[fresh]
        rows[slots, _LAST] = received
        rows[slots, _VENUE] = np.where(ticks["exchange_at"] > 0, ticks["exchange_at"], received)
        rows[:, _COUNT] += np.bincount(slots, minlength=len(rows))
        is_trade = (ticks["flags"] & np.uint32(TRADE)) != 0
        traded = slots[is_trade]
        rows[traded, _SEQUENCE] = ticks["sequence"][is_trade]
        rows[traded, _TRADED] = ticks["exchange_at"][is_trade]

    def _take_one(self, number: int, flags: int, at: int, received: int, sequence: int) -> None:
        slot = self._slots.get(number)
        if slot is None:
            slot = self._row(number)
        raw, row = self._bytes, slot * _ROW.size
        last, _, first, since, count, counted, *trade = _ROW.unpack_from(raw, row)
        if since < last <= received and received - counted >= _APART_NS and not flags & SNAPSHOT:
            self._gaps.add_one(slot, received - last)
            counted = received
        if flags & TRADE:
            trade = [sequence, at]
        venue_at = at if at > 0 else received
        _ROW.pack_into(raw, row, received, venue_at, first or received, since, count + 1, counted, *trade)

    def last_at(self, number: int) -> Nanos | None:
        """When the last tick was received; None before the first."""
        return self._time(number, _LAST)

    def venue_at(self, number: int) -> Nanos | None:
        """The venue's time of the last tick (of receipt where it sends none)."""
        return self._time(number, _VENUE)

    def first_at(self, number: int) -> Nanos | None:
        """When the first tick since `arm` was received; None where none was."""
        return self._time(number, _FIRST)

    def trade(self, number: int) -> tuple[int, Nanos]:
        """Sequence and venue time of the last trade; (0, 0) before the first and where the venue sends neither."""
        slot = self._slots.get(number)
        if slot is None:
            return 0, Nanos(0)
        sequence, at = self._rows[slot, _SEQUENCE : _TRADED + 1].tolist()
        return sequence, Nanos(at)

    def ticks(self, number: int) -> int:
        """Ticks so far."""
        slot = self._slots.get(number)
        return 0 if slot is None else int(self._rows[slot, _COUNT])

    def arm(self, number: int) -> None:
        """Look out for the first tick from now on."""
        slot = self._row(number)
        self._rows[slot, _FIRST] = 0

    def cut(self, number: int, at: Nanos) -> None:
        """A gap that began until ``at`` is not a usual one: the market was closed, or the stream down."""
        slot = self._row(number)
        self._rows[slot, _SINCE] = at

    def usual_gap(self, number: int) -> int | None:
        """A gap in ns that one in a hundred exceeds; None while too few are known."""
        slot = self._slots.get(number)
        return None if slot is None or self._gaps.total(slot) < _ENOUGH else self._gaps.quantile(slot, _QUANTILE)

    def forget(self, number: int) -> None:
        """The instrument is no longer carried."""
        slot = self._slots.get(number)
        if slot is not None:
            self._rows[slot] = 0
            self._gaps.clear(slot)

    def _row(self, number: int) -> int:
        slot = self._slots.one(number)
        self._reach()
        return slot

    def _time(self, number: int, column: int) -> Nanos | None:
        slot = self._slots.get(number)
        return None if slot is None or not self._rows[slot, column] else Nanos(int(self._rows[slot, column]))

    def _reach(self) -> None:
        while len(self._rows) < len(self._slots):
            self._bytes = self._bytes + bytearray(len(self._bytes))
            self._rows = _view(self._bytes)


def _view(raw: bytearray) -> npt.NDArray[np.int64]:
    return np.frombuffer(raw, dtype="<i8").reshape(-1, 8)

"""The last values of each instrument: what a late joiner needs, how old each is, how many ticks came."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np

from trading.ids import Nanos
from trading.ticks import QUOTE, TICK, TRADE, TickArray, empty

#: Batches up to this long are quicker tick by tick.
_SMALL: Final = 16
_SIZE: Final = TICK.itemsize
#: Parts of a row, each with its place in it: flags, the trade, the quote, times and sequence.
_FLAGS, _TRADE, _QUOTE, _TIMES = struct.Struct("<I"), struct.Struct("<2d"), struct.Struct("<4d"), struct.Struct("<3q")
_FLAGS_AT, _TRADE_AT, _QUOTE_AT, _TIMES_AT = 4, 8, 24, 56
assert TICK.fields is not None
assert [TICK.fields[name][1] for name in ("flags", "price", "bid", "exchange_at")] == [4, 8, 24, 56]
#: The fields of each kind.
_FIELDS: Final = ((TRADE, ("price", "size")), (QUOTE, ("bid", "bid_size", "ask", "ask_size")))


class LastValues:
    """One TICK row per instrument with the last trade and the last quote in it."""

    def __init__(self) -> None:
        self._slot: dict[int, int] = {}
        #: The rows as bytes, and the same memory as an array.
        self._bytes = bytearray(16 * _SIZE)
        self._rows = np.frombuffer(self._bytes, dtype=TICK)
        self._counts = np.zeros(16, dtype=np.int64)
        self._dirty = np.zeros(16, dtype=np.bool_)

    def take(self, ticks: TickArray) -> None:
        """Take a batch; later ticks win."""
        if len(ticks) <= _SMALL:
            for tick in ticks.tolist():
                self._take_one(*tick)
            return
        slots = self._slots(ticks["instrument"])
        np.add.at(self._counts, slots, 1)
        flags = ticks["flags"]
        for kind, fields in _FIELDS:
            mask = (flags & kind) != 0
            if mask.any():
                chosen = slots[mask]
                for field in fields:
                    self._rows[field][chosen] = ticks[field][mask]
                self._rows["flags"][chosen] |= kind
        for field in ("exchange_at", "received_at", "sequence"):
            self._rows[field][slots] = ticks[field]
        # What kinds of value there are adds up; how a tick came (BACKFILLED …) is the last one's alone.
        kinds = self._rows["flags"][slots] & np.uint32(TRADE | QUOTE)
        self._rows["flags"][slots] = kinds | (flags & ~np.uint32(TRADE | QUOTE))
        self._dirty[slots] = True

    def _take_one(
        self,
        number: int,
        flags: int,
        price: float,
        size: float,
        bid: float,
        bid_size: float,
        ask: float,
        ask_size: float,
        exchange_at: int,
        received_at: int,
        sequence: int,
    ) -> None:
        slot = self._slot.get(number)
        if slot is None:
            self._add(number)
            slot = self._slot[number]
        raw, row = self._bytes, slot * _SIZE
        if flags & TRADE:
            _TRADE.pack_into(raw, row + _TRADE_AT, price, size)
        if flags & QUOTE:
            _QUOTE.pack_into(raw, row + _QUOTE_AT, bid, bid_size, ask, ask_size)
        known = _FLAGS.unpack_from(raw, row + _FLAGS_AT)[0] & (TRADE | QUOTE)
        _FLAGS.pack_into(raw, row + _FLAGS_AT, flags | known)
        _TIMES.pack_into(raw, row + _TIMES_AT, exchange_at, received_at, sequence)
        self._counts[slot] += 1
        self._dirty[slot] = True

    def seed(self, rows: TickArray) -> None:
        """Fill in what has not come yet, from `all` of somebody who has listened for longer.

        Listen first, then seed: a value that has come since is newer than a row, or stands in the stream behind it.  So
        whoever joins late has a value at once, and the stream goes on from there without a gap.
        """
        for row in rows[np.argsort(-rows["received_at"], kind="stable")]:
            number = int(row["instrument"])
            known = self._slot.get(number)
            first = known is None or not self._counts[known]
            if known is None:
                self._add(number)
            slot = self._slot[number]
            for kind, fields in _FIELDS:
                if row["flags"] & kind and not self._rows["flags"][slot] & kind:
                    for field in fields:
                        self._rows[field][slot] = row[field]
                    self._rows["flags"][slot] |= kind
            if first:
                for field in ("exchange_at", "received_at", "sequence"):
                    self._rows[field][slot] = row[field]
                self._rows["flags"][slot] |= row["flags"] & ~np.uint32(TRADE | QUOTE)
                self._counts[slot] = 1
            self._dirty[slot] = True

    def get(self, number: int) -> np.void | None:
        """The row of an instrument, None before the first value.  It changes in place: copy what is to stay."""
        slot = self._slot.get(number)
        if slot is None or not self._counts[slot]:
            return None
        row: np.void = self._rows[slot]
        return row

    def _slots(self, numbers: np.ndarray[tuple[int], np.dtype[np.int32]]) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        listed = numbers.tolist()
        try:
            return np.array([self._slot[n] for n in listed], dtype=np.intp)
        except KeyError:
            for number in listed:
                if number not in self._slot:
                    self._add(number)
            return np.array([self._slot[n] for n in listed], dtype=np.intp)

    def _add(self, number: int) -> None:
        slot = len(self._slot)
        if slot == len(self._rows):
            self._bytes = self._bytes + bytearray(slot * _SIZE)
            self._rows = np.frombuffer(self._bytes, dtype=TICK)
            self._counts = np.concatenate([self._counts, np.zeros(slot, dtype=np.int64)])
            self._dirty = np.concatenate([self._dirty, np.zeros(slot, dtype=np.bool_)])
        self._slot[number] = slot
        self._rows["instrument"][slot] = number
        self._clear(slot)

    def changed(self) -> TickArray:
        """Rows that changed since the last call."""
        picked = np.flatnonzero(self._dirty)
        if not len(picked):
            return empty()
        self._dirty[picked] = False
        return self._rows[picked].copy()

    def all(self) -> TickArray:
        """Every row that has a value."""
        return self._rows[: len(self._slot)][self._counts[: len(self._slot)] > 0].copy()

    def seen_at(self, number: int) -> Nanos | None:
        """When the last tick came, None before the first."""
        slot = self._slot.get(number)
        if slot is None or not self._counts[slot]:
            return None
        return Nanos(int(self._rows["received_at"][slot]))

    def count(self, number: int) -> int:
        """Ticks taken so far."""
        slot = self._slot.get(number)
        return 0 if slot is None else int(self._counts[slot])

    def forget(self, number: int) -> None:
        """Start afresh with an instrument that is no longer carried (its slot stays its own)."""
        slot = self._slot.get(number)
        if slot is not None:
            self._counts[slot] = 0
            self._dirty[slot] = False
            self._rows["flags"][slot] = 0
            self._clear(slot)

    def _clear(self, slot: int) -> None:
        row = self._rows[slot : slot + 1]
        for field in ("price", "size", "bid", "bid_size", "ask", "ask_size"):
            row[field] = np.nan

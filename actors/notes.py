"""Order changes for algos, kept in rings and read by cursor.

An algo asks for what came after the last change it has.  After a restart of the session the cursor belongs to
another epoch: the page then says `reset` and carries the algo's open orders as they stand.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from trading.ids import AlgoId, Epoch
from trading.instructions import Note
from trading.orders import Order

RING = 256


class NotePage(msgspec.Struct, frozen=True, kw_only=True):
    """Changes after a cursor."""

    epoch: Epoch
    cursor: int
    reset: bool
    open_orders: tuple[Order, ...]
    notes: tuple[Note, ...]


class _Ring:
    def __init__(self) -> None:
        self.notes: deque[Note] = deque(maxlen=RING)
        self.cursor = 0
        self.news = asyncio.Event()


class NoteRings:
    """One ring per algo."""

    def __init__(self, epoch: Epoch) -> None:
        self.epoch = epoch
        self._rings: dict[AlgoId, _Ring] = {}

    def add(self, notes: tuple[Note, ...]) -> None:
        """File changes under their algos; those without one are nobody's here."""
        for note in notes:
            algo = note.order.algo
            if algo is None:
                continue
            ring = self._rings.setdefault(algo, _Ring())
            ring.notes.append(note)
            ring.cursor += 1
            ring.news.set()

    async def read(
        self, algo: AlgoId, epoch: Epoch, cursor: int, open_orders: tuple[Order, ...], wait_s: float
    ) -> NotePage:
        """Changes after ``cursor``, waiting up to ``wait_s`` for the first."""
        ring = self._rings.setdefault(algo, _Ring())
        oldest = ring.cursor - len(ring.notes)
        if epoch != self.epoch or not oldest <= cursor <= ring.cursor:
            return NotePage(epoch=self.epoch, cursor=ring.cursor, reset=True, open_orders=open_orders, notes=())
        if cursor == ring.cursor:
            ring.news.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await ring.news.wait()
            except TimeoutError:
                pass
            oldest = ring.cursor - len(ring.notes)
            if cursor < oldest:
                return NotePage(epoch=self.epoch, cursor=ring.cursor, reset=True, open_orders=open_orders, notes=())
        notes = tuple(list(ring.notes)[cursor - oldest :])
        return NotePage(epoch=self.epoch, cursor=ring.cursor, reset=False, open_orders=(), notes=notes)

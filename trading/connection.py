"""A broker connection's core: who may act, how fast, and what the broker said, numbered.

Updates are kept in a ring and read by cursor: the reader (the session) asks for what came after the last one
it has, so nothing is pushed into a void and a restart on either side shows as a gap instead of a loss.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

from trading.broker import BrokerUpdate
from trading.errors import Fenced
from trading.ids import Epoch, Nanos
from trading.instructions import Lane
from trading.throttle import RateBudget

RING = 2_000


class UpdatePage(msgspec.Struct, frozen=True):
    """Updates after a cursor.  ``gap``: some were missed, so the whole view must be fetched."""

    epoch: Epoch
    cursor: int
    gap: bool
    connected: bool
    updates: tuple[BrokerUpdate, ...]


class ConnectionCore:
    """Decides for one broker connection."""

    def __init__(self, epoch: Epoch, session_epoch: Epoch, budget: RateBudget) -> None:
        self.epoch = epoch
        self.session_epoch = session_epoch
        self.budget = budget
        self.connected = False
        self.fenced = 0
        self._ring: deque[BrokerUpdate] = deque(maxlen=RING)
        #: Number of the last update ever put into the ring.
        self.cursor = 0

    def admit(self, session_epoch: Epoch) -> None:
        """Raise `Fenced` unless the session that asks is the newest seen."""
        if session_epoch < self.session_epoch:
            self.fenced += 1
            raise Fenced("session", session_epoch, self.session_epoch)
        self.session_epoch = session_epoch

    def pace(self, lane: Lane, count: int, now: Nanos) -> float:
        """Seconds to wait before ``count`` requests may go out (0: now, and they are counted)."""
        return self.budget.take(count, now, is_exit=lane is Lane.CANCEL)

    def take(self, updates: Iterable[BrokerUpdate]) -> None:
        """Number what the broker said."""
        for update in updates:
            self._ring.append(update)
            self.cursor += 1

    def lost(self) -> None:
        """The stream was cut: every reader has a gap, however soon it is back."""
        self.connected = False
        self._ring.clear()
        self.cursor += 1

    def read(self, epoch: Epoch, cursor: int, limit: int = 2_000) -> UpdatePage:
        """What came after ``cursor`` of incarnation ``epoch``; a reader of another incarnation has a gap."""
        oldest = self.cursor - len(self._ring)
        if epoch != self.epoch or cursor < oldest or cursor > self.cursor:
            return UpdatePage(self.epoch, self.cursor, True, self.connected, ())
        skip = cursor - oldest
        updates = tuple(self._ring[i] for i in range(skip, min(len(self._ring), skip + limit)))
        return UpdatePage(self.epoch, cursor + len(updates), False, self.connected, updates)

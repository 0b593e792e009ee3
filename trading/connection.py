"""A broker connection's core: who may act, how fast, and what the broker said, numbered.

Updates are kept in a ring and read by cursor: the reader (the session) asks for what came after the last one
it has, so nothing is pushed into a void and a restart on either side shows as a gap instead of a loss.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from trading.broker import BrokerUpdate
from trading.errors import Fenced
from trading.ids import Epoch, Nanos
from trading.instructions import Lane
from trading.throttle import RateBudget

RING = 2_000
#: A connection that stood still this long may have a successor already: nobody starts one sooner.
STALL_NS: Final = 1_500_000_000


class UpdatePage(msgspec.Struct, frozen=True):
    """Updates after a cursor.  ``gap``: some were missed, so the whole view must be fetched."""

    epoch: Epoch
    cursor: int
    gap: bool
    connected: bool
    updates: tuple[BrokerUpdate, ...]


class ConnectionCore:
    """Decides for one broker connection.

    ``owned_until`` is when its lease ends, by a clock that only goes forward (0: never taken): from then on another
    copy may act, so nothing that opens risk is sent any more.  A cancel still is: it can be repeated by anybody, and
    must go out while the database that renews leases is away.  A process that was stopped and goes on cannot tell what
    has happened meanwhile: it counts its lease as lost until it has been renewed.
    """

    def __init__(self, epoch: Epoch, session_epoch: Epoch, budget: RateBudget) -> None:
        self.epoch = epoch
        self.session_epoch = session_epoch
        self.budget = budget
        self.owned_until = 0
        self._beat_at = 0
        #: It has stood still and not asked for its lease since.
        self._stalled = False
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

    def owned(self, since: int, until: int) -> None:
        """The lease was renewed: asked for at ``since``, it ends at ``until``, by the clock that only goes forward."""
        self._beat_at = max(self._beat_at, since)
        self._stalled = False
        self.owned_until = until

    def unowned(self) -> None:
        """The lease could not be renewed because the database is away: nobody else can take it either."""
        self._stalled = False

    def beat(self, at: int) -> None:
        """It is ``at`` by the clock that only goes forward; to be called often."""
        if at - self._beat_at > STALL_NS:
            self.owned_until, self._stalled = 0, True
        self._beat_at = at

    def must_ask(self, at: int) -> bool:
        """Whether it has stood still and must ask for its lease before it sends anything."""
        self.beat(at)
        return self._stalled

    def why_not_send(self, lane: Lane, at: int, until: Nanos, now: Nanos) -> str:
        """Why a request of this lane may not go to the broker any more; "" where it may.

        ``at`` is by the clock of ``owned_until``; ``until`` is the asker's own time limit.
        """
        self.beat(at)
        if lane is Lane.CANCEL:
            return "not sent: the connection stood still, so another copy may be acting" if self._stalled else ""
        if at >= self.owned_until:
            return "not sent: the connection could not renew its lease, so another copy may be acting"
        if now > until:
            return "not sent: its time was up"
        return ""

    def pace(self, lane: Lane, count: int, now: Nanos, *, reduces: bool = False) -> float:
        """Seconds to wait before ``count`` requests may go out (0: now, and they are counted).

        ``reduces``: orders that can only make positions smaller, which may use what is kept for exits, as cancels may.
        """
        return self.budget.take(count, now, is_exit=reduces or lane is Lane.CANCEL)

    def payable(self, lane: Lane, now: Nanos, *, reduces: bool = False) -> int:
        """How many requests of a lane could go out now."""
        return self.budget.payable(now, is_exit=reduces or lane is Lane.CANCEL)

    def take(self, updates: Iterable[BrokerUpdate]) -> None:
        """Number what the broker said."""
        for update in updates:
            self._ring.append(update)
            self.cursor += 1

    def lost(self) -> None:
        """The stream was cut, or what it said could not be read: every reader has a gap, however soon it is back."""
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

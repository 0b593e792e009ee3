"""Trading hours: what is open, and when it opens and closes next.

A `Sessions` table is handed in; who fills it (from exchange_calendars or a file) is not known here.  A day
with a break is two rows.  A table covers a span of time; a question beyond it is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trading.errors import BadInput, NotReady
from trading.ids import Nanos


class Sessions:
    """The opening hours of one calendar, as ``[open, close)`` spans of UTC nanoseconds, oldest first."""

    def __init__(
        self,
        name: str,
        opens: Sequence[int] | npt.NDArray[np.int64],
        closes: Sequence[int] | npt.NDArray[np.int64],
    ) -> None:
        self.name = name
        self._opens = np.asarray(opens, dtype=np.int64)
        self._closes = np.asarray(closes, dtype=np.int64)
        if self._opens.shape != self._closes.shape or self._opens.ndim != 1 or not len(self._opens):
            raise BadInput("sessions", f"calendar {name} needs as many opens as closes, and at least one")
        if (self._opens >= self._closes).any() or (self._opens[1:] < self._closes[:-1]).any():
            raise BadInput("sessions", f"calendar {name}: each session must end after it starts and before the next")

    def __repr__(self) -> str:
        return f"<Sessions {self.name} {len(self._opens)} from {self._opens[0]} to {self._closes[-1]}>"

    def covers(self, at: Nanos) -> bool:
        """Whether the table says anything of ``at``, and of the day after it."""
        return int(self._opens[0]) <= at < int(self._closes[-1]) - 86_400_000_000_000

    def is_open(self, at: Nanos) -> bool:
        """Whether ``at`` is within a session.  Raises `NotReady` beyond the table."""
        row = self._row(at)
        return row >= 0 and at < int(self._closes[row])

    def next_open(self, at: Nanos) -> Nanos:
        """The first opening at or after ``at``.  Raises `NotReady` beyond the table."""
        self._row(at)
        row = int(np.searchsorted(self._opens, at, side="left"))
        if row == len(self._opens):
            raise self._beyond(at)
        return Nanos(int(self._opens[row]))

    def next_close(self, at: Nanos) -> Nanos:
        """The first close after ``at``.  Raises `NotReady` beyond the table."""
        self._row(at)
        return Nanos(int(self._closes[int(np.searchsorted(self._closes, at, side="right"))]))

    def session_start(self, at: Nanos) -> Nanos | None:
        """When the session around ``at`` opened; None while closed.  Raises `NotReady` beyond the table."""
        return Nanos(int(self._opens[self._row(at)])) if self.is_open(at) else None

    def _row(self, at: int) -> int:
        """Index of the last session opened at or before ``at``; -1 before the first."""
        row = int(np.searchsorted(self._opens, at, side="right")) - 1
        if row < 0 or at >= int(self._closes[-1]):
            raise self._beyond(at)
        return row

    def _beyond(self, at: int) -> NotReady:
        return NotReady(
            f"calendar {self.name} is known from {self._opens[0]} to {self._closes[-1]} ns, not at {at}; "
            "load a longer span",
            retry_after=60.0,
        )


def is_open(sessions: Sessions | None, at: Nanos) -> bool:
    """Whether trading is open at ``at``; None stands for ``24x7``, which always is."""
    return sessions is None or sessions.is_open(at)


def day_ended(sessions: Sessions | None, since: Nanos, until: Nanos) -> bool:
    """Whether day orders placed at ``since`` have outlived their session at ``until``.

    Around the clock a day ends at 00:00 UTC.
    """
    if sessions is None:
        day = 86_400_000_000_000
        return until // day > since // day
    return sessions.next_close(since) <= until

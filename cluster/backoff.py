"""When to try again, and when to stop trying.  Pure."""

from __future__ import annotations

import msgspec

from trading.ids import Nanos

_SECOND = 1_000_000_000
FIRST_NS = _SECOND // 2
MOST_NS = 30 * _SECOND
#: This many ends within the window are a crash loop.
LOOP_COUNT = 5
LOOP_WINDOW_NS = 120 * _SECOND


class Attempts(msgspec.Struct, frozen=True):
    """Recent ends of one thing, oldest first."""

    ends: tuple[Nanos, ...] = ()

    def ended(self, at: Nanos) -> Attempts:
        """One more end; those outside the window are forgotten."""
        return Attempts((*(e for e in self.ends if at - e < LOOP_WINDOW_NS), at))

    @property
    def next_at(self) -> Nanos:
        """Not before this may the next start be tried."""
        if not self.ends:
            return Nanos(0)
        return Nanos(self.ends[-1] + min(MOST_NS, FIRST_NS * 2 ** (len(self.ends) - 1)))

    def is_loop(self) -> bool:
        """Whether it keeps ending: a person should look."""
        return len(self.ends) >= LOOP_COUNT

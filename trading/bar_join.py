"""One line of closed bars out of history and a live stream: none missing between, none twice.

Whoever begins to listen in the middle of an interval builds a bar of what is left of it.  That one is never given out:
history is asked for it once it has closed, and what closes live meanwhile waits behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

from trading.bars import Bar
from trading.ids import Nanos
from trading.spans import Span, ceiling


class BarJoin:
    """The seam of one instrument and interval of ``width`` ns.

    All bars that open before ``known_until`` were given before; live ones were built of everything since ``live_from``.
    """

    def __init__(self, width: int, known_until: Nanos, live_from: Nanos) -> None:
        self.width = width
        #: All bars that open before were given.
        self.given_until = int(known_until)
        #: Live bars that open then or later are whole.
        self.whole_from = ceiling(live_from, width)
        self._waiting: dict[int, Bar] = {}

    def __repr__(self) -> str:
        return f"<BarJoin given until {self.given_until} whole from {self.whole_from} waiting={len(self._waiting)}>"

    def wanted(self) -> Span | None:
        """What history has to be asked for, when the last interval in it has closed; None once the seam is shut."""
        return Span(self.given_until, self.whole_from) if self.given_until < self.whole_from else None

    def live(self, bar: Bar) -> list[Bar]:
        """Take a bar that closed live; returns what is to be given out now, oldest first."""
        if bar.opened_at < self.whole_from or bar.opened_at < self.given_until:
            return []
        self._waiting[bar.opened_at] = bar
        return self._due()

    def fill(self, bars: Sequence[Bar], until: Nanos) -> list[Bar]:
        """Take all bars of history that open before ``until``; returns what is to be given out now, oldest first."""
        fresh = [bar for bar in bars if self.given_until <= bar.opened_at < until]
        for bar in fresh:
            self._waiting.pop(bar.opened_at, None)
        self.given_until = max(self.given_until, int(until))
        return fresh + self._due()

    def _due(self) -> list[Bar]:
        if self.given_until < self.whole_from:
            return []
        due = [self._waiting.pop(at) for at in sorted(self._waiting)]
        due = [bar for bar in due if bar.opened_at >= self.given_until]
        if due:
            self.given_until = due[-1].opened_at + self.width
        return due

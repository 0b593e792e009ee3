"""The last trade and quote of each of a strategy's instruments.

Most strategies never ask, and some get a hundred thousand ticks a second: so batches are only laid aside, and looked
at many at a time.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trading.last_values import LastValues
from trading.ticks import TickArray, decode

#: Batches laid aside before they are looked at.
_MOST: Final = 256
#: And ticks in them.
_MOST_TICKS: Final = 16_384


class LastTicks:
    """What `Strategy.last` knows."""

    def __init__(self) -> None:
        self._values = LastValues()
        #: As bytes: to join them takes a twentieth of what joining arrays does.
        self._aside: list[bytes] = []
        self._ticks = 0

    def __repr__(self) -> str:
        return f"<LastTicks {len(self._values.all())} instruments, {len(self._aside)} batches aside>"

    def take(self, ticks: TickArray) -> None:
        """Take a batch, in order of arrival."""
        self._aside.append(ticks.tobytes())
        self._ticks += len(ticks)
        if len(self._aside) >= _MOST or self._ticks >= _MOST_TICKS:
            self._look()

    def seed(self, rows: TickArray) -> None:
        """Take last values of somebody who has listened for longer; of each instrument the latest stands."""
        self._look()
        rows = rows[np.argsort(rows["received_at"], kind="stable")]
        seen = [self._values.seen_at(number) or 0 for number in rows["instrument"].tolist()]
        self._values.take(rows[rows["received_at"] > np.array(seen, dtype=np.int64)])

    def get(self, number: int) -> np.void | None:
        """The row of an instrument, None where nothing is known."""
        self._look()
        return self._values.get(number)

    def _look(self) -> None:
        if self._aside:
            aside, self._aside, self._ticks = self._aside, [], 0
            self._values.take(decode(b"".join(aside)))

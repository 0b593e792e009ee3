"""Bars: open, high, low, close and volume over an interval."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from trading.errors import BadInput
from trading.ids import Nanos
from trading.ticks import SNAPSHOT, TRADE, TickArray

_UNITS = {"s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000, "d": 86_400_000_000_000}


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """Prices over ``[opened_at, opened_at + interval)``; floats, for bars feed indicators and not orders."""

    opened_at: Nanos
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int = 0


def interval_ns(text: str, field: str = "interval") -> int:
    """Length of ``1s``, ``5m``, ``1h``, ``1d`` … in nanoseconds; BadInput where it is not one."""
    unit = _UNITS.get(text[-1:])
    count = text[:-1]
    if unit is None or not count.isdecimal() or not (0 < int(count) <= 10_000):
        raise BadInput(field, f"{text[:20]!r} is not an interval: write a number and s, m, h or d, such as 1m")
    return int(Decimal(count)) * unit


#: Batches up to this long are quicker tick by tick than through numpy.
_SMALL: Final = 12
_NUMBER, _OPENED, _OPEN, _HIGH, _LOW, _CLOSE, _VOLUME, _TRADES = range(8)


class BarBuilder:
    """Builds bars of one interval from trades of any number of instruments.

    A trade belongs to the interval of its exchange time, or of its receive time where the venue sends none.
    Quotes, snapshots after a subscription and trades without a positive price are passed over.  A bar closes
    when a trade of a later interval comes, or when `close_until` finds that it ended ``grace`` ns ago.  A
    trade for a bar that has closed is *late*: counted and dropped, for bars once given out do not change.
    Intervals without a trade have no bar.
    """

    def __init__(self, interval: int, *, grace: int = 0) -> None:
        if interval <= 0 or grace < 0:
            raise BadInput("interval", f"{interval} ns with {grace} ns of grace: use an interval above 0")
        self.interval = interval
        self.grace = grace
        #: Trades dropped because their bar had closed.
        self.late = 0
        self._open: dict[int, list[Any]] = {}
        #: By instrument, the end of the last bar given out.
        self._closed: dict[int, int] = {}

    def __repr__(self) -> str:
        return f"<BarBuilder {self.interval} ns open={len(self._open)} late={self.late}>"

    def add(self, ticks: TickArray) -> list[tuple[int, Bar]]:
        """Count a batch in; returns the bars it closed as (instrument number, bar), in order of closing."""
        flags = ticks["flags"]
        prices = ticks["price"]
        ticks = ticks[((flags & (TRADE | SNAPSHOT)) == TRADE) & (prices > 0) & np.isfinite(prices)]
        closed: list[tuple[int, Bar]] = []
        if len(ticks) == 0:
            return closed
        at = np.where(ticks["exchange_at"] > 0, ticks["exchange_at"], ticks["received_at"])
        opened = at - at % self.interval
        sizes = np.nan_to_num(ticks["size"], nan=0.0, posinf=0.0, neginf=0.0)
        if len(ticks) <= _SMALL:
            columns = (ticks["instrument"], opened, ticks["price"], sizes)
            for number, start, price, size in zip(*(c.tolist() for c in columns), strict=True):
                self._count_run(number, start, price, price, price, price, [size], closed)
            return closed
        for number in dict.fromkeys(ticks["instrument"].tolist()):
            mine = ticks["instrument"] == number
            self._add_one(number, opened[mine], ticks["price"][mine], sizes[mine], closed)
        return closed

    def _add_one(
        self,
        number: int,
        opened: npt.NDArray[np.int64],
        prices: npt.NDArray[np.float64],
        sizes: npt.NDArray[np.float64],
        closed: list[tuple[int, Bar]],
    ) -> None:
        running = np.maximum.accumulate(opened)
        on_time = opened == running
        if not on_time.all():
            self.late += int(len(opened) - on_time.sum())
            opened, prices, sizes = opened[on_time], prices[on_time], sizes[on_time]
        starts = np.flatnonzero(np.diff(opened, prepend=opened[0] - 1))
        highs = np.maximum.reduceat(prices, starts).tolist()
        lows = np.minimum.reduceat(prices, starts).tolist()
        bounds = [*starts.tolist(), len(opened)]
        for i, (first, end) in enumerate(pairwise(bounds)):
            self._count_run(
                number,
                int(opened[first]),
                float(prices[first]),
                highs[i],
                lows[i],
                float(prices[end - 1]),
                sizes[first:end].tolist(),
                closed,
            )

    def _count_run(
        self,
        number: int,
        opened: int,
        first: float,
        high: float,
        low: float,
        last: float,
        sizes: list[float],
        closed: list[tuple[int, Bar]],
    ) -> None:
        """Count trades of one interval in, given in their order."""
        row = self._open.get(number)
        if opened < (row[_OPENED] if row else self._closed.get(number, 0)):
            self.late += len(sizes)
            return
        if row is not None and opened > row[_OPENED]:
            closed.append(self._close(row))
            row = None
        if row is None:
            row = self._open[number] = [number, opened, first, high, low, last, 0.0, 0]
        row[_HIGH] = max(row[_HIGH], high)
        row[_LOW] = min(row[_LOW], low)
        row[_CLOSE] = last
        # One by one, so that the sum does not depend on how the ticks were batched.
        for size in sizes:
            row[_VOLUME] += size
        row[_TRADES] += len(sizes)

    def close_until(self, now: Nanos) -> list[tuple[int, Bar]]:
        """Close the bars that ended ``grace`` ns before ``now``; returns them oldest first."""
        due = [row for row in self._open.values() if row[_OPENED] + self.interval + self.grace <= now]
        due.sort(key=lambda row: (row[_OPENED], row[_NUMBER]))
        return [self._close(row) for row in due]

    def _close(self, row: list[Any]) -> tuple[int, Bar]:
        number = row[_NUMBER]
        del self._open[number]
        self._closed[number] = row[_OPENED] + self.interval
        return number, _bar(row)

    def unfinished(self, number: int) -> Bar | None:
        """The bar under way, as it stands."""
        row = self._open.get(number)
        return None if row is None else _bar(row)

    def snapshot(self) -> dict[str, Any]:
        """Its state in plain values, for `restore`."""
        return {
            "open": [list(row) for row in self._open.values()],
            "closed": [list(pair) for pair in self._closed.items()],
            "late": self.late,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `snapshot` of a builder with the same interval."""
        self._open = {row[_NUMBER]: list(row) for row in state["open"]}
        self._closed = dict(state["closed"])
        self.late = state["late"]


def _bar(row: list[Any]) -> Bar:
    _, opened, first, high, low, last, volume, trades = row
    return Bar(opened_at=Nanos(opened), open=first, high=high, low=low, close=last, volume=volume, trades=trades)


def resample(bars: Iterable[Bar], interval: int, factor: int) -> list[Bar]:
    """Bars of ``factor * interval`` ns from bars of ``interval`` ns, oldest first.

    Groups are aligned to the epoch, so gaps shift nothing; the first and last may be incomplete.  Raises
    `BadInput` for bars out of order or off the grid of ``interval``.
    """
    if interval <= 0 or factor < 1:
        raise BadInput("factor", f"{factor} bars of {interval} ns do not make one; use at least 1 of above 0")
    wide = interval * factor
    rows: list[list[Any]] = []
    before = -1
    for bar in bars:
        if bar.opened_at % interval or bar.opened_at <= before:
            raise BadInput(
                "bars",
                f"a bar at {bar.opened_at} is off the grid of {interval} ns or not after the one before",
            )
        before = bar.opened_at
        opened = bar.opened_at - bar.opened_at % wide
        if not rows or rows[-1][_OPENED] != opened:
            rows.append([0, opened, bar.open, bar.high, bar.low, bar.close, 0.0, 0])
        row = rows[-1]
        row[_HIGH] = max(row[_HIGH], bar.high)
        row[_LOW] = min(row[_LOW], bar.low)
        row[_CLOSE] = bar.close
        row[_VOLUME] += bar.volume
        row[_TRADES] += bar.trades
    return [_bar(row) for row in rows]

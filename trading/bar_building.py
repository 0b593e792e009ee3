"""Bars for the record: built from tick arrays of many instruments at once, and amended by ticks that come late.

What counts, and when:

* A trade belongs to the interval of its exchange time, or of its receive time where the venue sends none.  Quotes,
  snapshots after a subscription and trades without a positive price are passed over, as in `trading.bars.BarBuilder`.
* A bar is given out once its interval has ended.  A trade *received* less than ``grace`` ns after the end still
  belongs to it: the bar is amended and given out again, as a revision with a higher number.
* A trade received later than that is *late*: counted and dropped.  So is one that was filled in from history after a
  gap: such a gap is not covered, and the provider's own bars fill it.
* The first price is that of the earliest exchange time, the last that of the latest; of trades at one instant the
  first to arrive opens and the last to arrive closes.  So a trade that comes out of turn stands where it belongs.

All of that is said by the ticks themselves: how a stream is cut into batches changes nothing, to the last bit.
(Intervals without a trade have no bar; `trading.seen` knows whether anybody looked.)

`trading.bars.BarBuilder` is for strategies: there a bar, once given out, never changes.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from trading.bars import Bar
from trading.errors import BadInput
from trading.ids import Nanos
from trading.ticks import SNAPSHOT, TRADE, TickArray

#: How long after its end a bar can be amended, if nothing else is said.
GRACE: Final = 5_000_000_000


class BarRevision(msgspec.Struct, frozen=True, kw_only=True):
    """A bar as it stands; ``revision`` is 0 when it is first given out and rises when it was amended."""

    instrument: int
    width: int
    revision: int
    bar: Bar
    #: All bars of the instrument and width that open then or later, up to this one, were given out.  0: not known.
    since: int = 0


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What a recorder tells at once: bars, and which (instrument, width, opening) turned out to be wrong."""

    bars: list[BarRevision]
    spoilt: list[tuple[int, int, int]]


class _Cell(msgspec.Struct):
    """A bar under way or in its grace."""

    first_at: int
    open: float
    high: float
    low: float
    last_at: int
    close: float
    volume: float
    trades: int
    #: How often it was given out.
    given: int = 0
    #: Whether anything has come since.
    changed: bool = True


class BarTape:
    """Builds bars of ``width`` ns; amends them for ``grace`` ns after their end."""

    def __init__(self, width: int, *, grace: int = GRACE) -> None:
        if width <= 0 or grace < 0:
            raise BadInput("width", f"{width} ns with {grace} ns of grace: use a width above 0")
        self.width = width
        self.grace = grace
        #: Trades dropped because their bar could not be amended any more.
        self.late = 0
        #: (instrument number, opening) of the bars that these should have been in.
        self._spoilt: set[tuple[int, int]] = set()
        #: By (opening, instrument number).
        self._cells: dict[tuple[int, int], _Cell] = {}
        #: Bars that ended this long ago, or longer, are done.
        self._done_until = 0

    def __repr__(self) -> str:
        return f"<BarTape {self.width} ns cells={len(self._cells)} late={self.late}>"

    def add(self, ticks: TickArray) -> None:
        """Count a batch in."""
        flags, prices = ticks["flags"], ticks["price"]
        ticks = ticks[((flags & (TRADE | SNAPSHOT)) == TRADE) & (prices > 0) & np.isfinite(prices)]
        if not len(ticks):
            return
        at = np.where(ticks["exchange_at"] > 0, ticks["exchange_at"], ticks["received_at"])
        opened = at - at % self.width
        last_chance = opened + (self.width + self.grace)
        in_time = (ticks["received_at"] < last_chance) & (last_chance > self._done_until)
        if not in_time.all():
            self.late += int(len(ticks) - np.count_nonzero(in_time))
            self._spoilt.update(zip(ticks["instrument"][~in_time].tolist(), opened[~in_time].tolist(), strict=True))
            ticks, at, opened = ticks[in_time], at[in_time], opened[in_time]
            if not len(ticks):
                return
        self._count(ticks["instrument"], at, opened, ticks["price"], ticks["size"])

    def _count(
        self,
        numbers: npt.NDArray[np.int32],
        at: npt.NDArray[np.int64],
        opened: npt.NDArray[np.int64],
        prices: npt.NDArray[np.float64],
        sizes: npt.NDArray[np.float64],
    ) -> None:
        # Stable: of trades at one instant the order is that of arrival.
        order = np.lexsort((at, numbers))
        own, slots, times, paid = numbers[order], opened[order], at[order], prices[order]
        changes = (own[1:] != own[:-1]) | (slots[1:] != slots[:-1])
        starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
        ends = np.append(starts[1:], len(order)) - 1
        keys = list(zip(slots[starts].tolist(), own[starts].tolist(), strict=True))
        cells = [self._cells.get(key) for key in keys]

        # Added one by one in order of arrival, so that the sum does not depend on how the ticks were batched.
        volumes = np.array([0.0 if cell is None else cell.volume for cell in cells])
        run_of = np.empty(len(order), dtype=np.intp)
        run_of[order] = np.repeat(np.arange(len(starts)), ends - starts + 1)
        np.add.at(volumes, run_of, np.nan_to_num(sizes, nan=0.0, posinf=0.0, neginf=0.0))

        runs = zip(
            times[starts].tolist(),
            paid[starts].tolist(),
            np.maximum.reduceat(paid, starts).tolist(),
            np.minimum.reduceat(paid, starts).tolist(),
            times[ends].tolist(),
            paid[ends].tolist(),
            volumes.tolist(),
            (ends - starts + 1).tolist(),
            strict=True,
        )
        for key, cell, run in zip(keys, cells, runs, strict=True):
            if cell is None:
                self._cells[key] = _Cell(*run)
            else:
                _amend(cell, *run)

    def close_until(self, now: Nanos) -> list[BarRevision]:
        """The bars that had ended at ``now`` and are new or amended, oldest first.

        ``now`` is the time up to which all ticks received are counted in: a tick that is added later for a bar whose
        grace is over at ``now`` is late.
        """
        told: list[BarRevision] = []
        done: list[tuple[int, int]] = []
        for key, cell in self._cells.items():
            opened, number = key
            end = opened + self.width
            if end > now:
                continue
            if cell.changed:
                told.append(
                    BarRevision(instrument=number, width=self.width, revision=cell.given, bar=_bar(opened, cell))
                )
                cell.given += 1
                cell.changed = False
            if end + self.grace <= now:
                done.append(key)
        for key in done:
            del self._cells[key]
        self._done_until = max(self._done_until, now)
        told.sort(key=lambda each: (each.bar.opened_at, each.instrument))
        return told

    def spoilt(self) -> set[tuple[int, int]]:
        """(Instrument number, opening) of the bars that lack a late trade, each told once: they are not the truth."""
        told, self._spoilt = self._spoilt, set()
        return told

    def unfinished(self, number: int) -> list[Bar]:
        """The bars of an instrument that may still change, as they stand, oldest first."""
        mine = sorted((opened, cell) for (opened, owner), cell in self._cells.items() if owner == number)
        return [_bar(opened, cell) for opened, cell in mine]


def _amend(
    cell: _Cell,
    first_at: int,
    first: float,
    high: float,
    low: float,
    last_at: int,
    last: float,
    volume: float,
    trades: int,
) -> None:
    if first_at < cell.first_at:
        cell.first_at, cell.open = first_at, first
    if last_at >= cell.last_at:
        cell.last_at, cell.close = last_at, last
    cell.high = max(cell.high, high)
    cell.low = min(cell.low, low)
    cell.volume = volume
    cell.trades += trades
    cell.changed = True


def _bar(opened: int, cell: _Cell) -> Bar:
    return Bar(
        opened_at=Nanos(opened),
        open=cell.open,
        high=cell.high,
        low=cell.low,
        close=cell.close,
        volume=cell.volume,
        trades=cell.trades,
    )

"""Bad ticks are found in each batch before anything uses it.

A shell (a feed worker) drives it so::

    verdicts = filter.judge(ticks)          # one Reason per tick, 0 is good
    ticks = good(ticks, verdicts)           # all that goes on to readers,
    earlier = filter.returned()             # after what was refused before and turned out to be real

between decoding and publishing, on what the worker itself publishes.  `tune` and `tune_one` take settings from
REST at any time; `know` takes an instrument's price tick and `seed` a last price from before a restart;
`quarantine` holds the refused ticks and counts, `shifts` how often a move was confirmed, `skew` how far receipt is
behind the venue's clock.  Ticks that showed a move (or a size) before it was confirmed are given back when it is, for
a real move must cost no trade; those that a clock was wrong about are not, they are old by then.  It has no clock:
ticks bring their times of receipt.

What a bad tick is, `trading.tick_judgement` says, one tick after the other.  That is slow in Python, so a batch is
first looked at as a whole: trades (and quotes) of an instrument of which every one is within the narrowest band it
could have, in order and of plausible size, are good without further ado; only the others are judged one by one.
In a short batch the same is asked of each tick by itself, of memory kept in plain lists (`_Hot`) until a long batch
needs it.  All ways give the same verdicts and leave the same memory, however ticks are batched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trading.quarantine import FilterSettings, Quarantine, Reason
from trading.running_quantiles import RunningQuantiles
from trading.slots import SlotArray, Slots
from trading.tick_judgement import (
    AT,
    CANDIDATES,
    COUNT,
    LEAD,
    RECEIVED,
    REF,
    SIZE,
    SIZE_WEIGHT,
    STEP,
    STEP_WEIGHT,
    WARM_UP,
    Bounds,
    bounds,
    judge,
)
from trading.ticks import BACKFILLED, QUOTE, SNAPSHOT, TICK, TRADE, TickArray, empty

#: Batches up to this long are quicker tick by tick than as a whole.
SMALL: Final = 96
#: What decides how a tick is looked at.
_KIND: Final = TRADE | QUOTE | SNAPSHOT | BACKFILLED
#: Refused ticks that are kept to be given back, of an instrument's trades or quotes.
_MOST_HELD: Final = 10_000
#: Times of receipt less venue time are counted in when so many wait.
_UNTOLD: Final = 512
#: Columns of the bounds that whole batches are compared with.
_FLOOR, _FLOOR_PRICE, _STEPS, _MEANS, _LIMIT, _AHEAD = range(6)
#: Batches are judged in pieces of this many ticks.
_LONGEST: Final = 4096
#: By number of ticks since: what is left of a mean step and a mean size, and the weight of a new value in them.
_LEFT: Final = (1.0 - np.array([STEP_WEIGHT, SIZE_WEIGHT])) ** np.arange(_LONGEST + 1)[:, None]
_WEIGHTS: Final = np.array([STEP_WEIGHT, SIZE_WEIGHT]) * _LEFT
_OTHER_TIME: Final = SNAPSHOT | BACKFILLED
#: Why ticks are refused that are given back once it turns out to be real.
_RETURNED: Final = (Reason.OUT_OF_BAND, Reason.HUGE_SIZE)
#: As what a tick is judged, by its flags.
_PARTS: Final = ((), (TRADE,), (QUOTE,), (TRADE, QUOTE))

_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]
#: The memory of an instrument's trades or quotes as plain lists, and what it is compared with.
_Hot = tuple[list[float], list[int], Bounds]
#: A refused tick with its place in the piece under way and the reason.
_Held = tuple[int, tuple[Any, ...], Reason]


class TickFilter:
    """Judges the ticks of one worker; see the module for how it is driven."""

    def __init__(self, settings: FilterSettings | None = None, *, keep: int = 64) -> None:
        self._settings = (settings or FilterSettings()).check()
        self._own: dict[int, FilterSettings] = {}
        self._tick_sizes: dict[int, float] = {}
        self._slots = Slots()
        self._bounds: list[Bounds] = []
        # Rows 2 * slot for trades, 2 * slot + 1 for quotes; the limits by slot.
        self._floats = _fresh_floats(32)
        self._ints = np.zeros((32, 8), dtype=np.int64)
        self._limits = np.zeros((16, 6), dtype=np.float64)
        #: Rows of these that are in use one by one, by row; the arrays' are old while they are here.
        self._hot: dict[int, _Hot] = {}
        self._skew = RunningQuantiles()
        #: Slot and receipt less venue time of good ticks, not counted in yet.
        self._untold: tuple[list[int], list[int]] = ([], [])
        #: Of the batch under way: place, tick, reason, reference, width.
        self._refused: list[tuple[int, tuple[Any, ...], Reason, float, float]] = []
        #: By row of the memory, the ticks of its candidate with their places in the piece under way (-1: before it).
        self._held: dict[int, list[_Held]] = {}
        #: Places in the piece under way that were refused and are good after all.
        self._redeemed: list[int] = []
        self._returned: list[tuple[Any, ...]] = []
        self.quarantine = Quarantine(keep)
        #: Moves out of the band, clocks and sizes that turned out to be real.
        self.shifts = 0
        self.judged = 0

    def __repr__(self) -> str:
        return f"<TickFilter {self.judged} judged {self.quarantine.counts()} {self.shifts} shifts>"

    # Settings

    @property
    def settings(self) -> FilterSettings:
        """Those of the feed."""
        return self._settings

    def settings_of(self, number: int) -> FilterSettings:
        """Those in force for an instrument."""
        return self._own.get(number, self._settings)

    def tune(self, settings: FilterSettings) -> None:
        """Put settings in force for every instrument without its own.  Raises `BadInput`."""
        self._settings = settings.check()
        for slot in range(len(self._bounds)):
            self._bind(slot)

    def tune_one(self, number: int, settings: FilterSettings | None) -> None:
        """Give an instrument settings of its own, or (None) those of the feed again.  Raises `BadInput`."""
        if settings is None:
            self._own.pop(number, None)
        else:
            self._own[number] = settings.check()
        self._bind(self._slot(number))

    def know(self, number: int, tick_size: float) -> None:
        """Take note of an instrument's price tick: the band is never narrower than a few of them."""
        self._tick_sizes[number] = tick_size
        self._bind(self._slot(number))

    def seed(self, number: int, price: float) -> None:
        """Compare the first ticks with ``price``, the last one known from before; nothing where ticks have come."""
        slot = self._slot(number)
        self._cool()
        rows = self._floats[2 * slot : 2 * slot + 2, REF]
        rows[np.isnan(rows)] = price

    def forget(self, number: int) -> None:
        """Start afresh with an instrument that is no longer carried; its settings stay."""
        slot = self._slots.get(number)
        if slot is not None:
            self._cool()
            self._tell()
            for key in (2 * slot, 2 * slot + 1):
                self._held.pop(key, None)
            self._floats[2 * slot : 2 * slot + 2] = _fresh_floats(2)
            self._ints[2 * slot : 2 * slot + 2] = 0
            self._skew.clear(slot)

    def returned(self) -> TickArray:
        """Ticks that were refused in earlier batches and turned out to be real, in their order; told once."""
        told, self._returned = self._returned, []
        return np.array(told, dtype=TICK) if told else empty()

    # Figures

    def skew(self, number: int, q: float) -> int | None:
        """The ``q`` quantile of receipt less venue time in ns over about the last thousand good ticks; None: none yet.

        Below zero the venue's clock is ahead of ours.
        """
        slot = self._slots.get(number)
        self._tell()
        return None if slot is None else self._skew.quantile(slot, q)

    # Judging

    def judge(self, ticks: TickArray) -> npt.NDArray[np.uint8]:
        """Judge a batch in order and remember it; one `Reason` per tick, 0 for a good one.

        ValueError for an instrument number that cannot be one.
        """
        verdicts = np.zeros(len(ticks), dtype=np.uint8)
        self.judged += len(ticks)
        if len(ticks) <= SMALL:
            self._judge_few(ticks, verdicts)
            self._end_piece()
            return verdicts
        for start in range(0, len(ticks), _LONGEST):
            piece = slice(start, start + _LONGEST)
            self._judge_many(ticks[piece], verdicts[piece])
            self._end_piece()
        return verdicts

    def _end_piece(self) -> None:
        if self._refused:
            self._quarantine_refused()
        self._redeemed.clear()
        if self._held:
            # Nobody has the places of the next piece yet.
            for key, held in self._held.items():
                self._held[key] = [(-1, tick, reason) for _, tick, reason in held]

    def _judge_few(self, ticks: TickArray, verdicts: npt.NDArray[np.uint8]) -> None:
        hot, slot_of = self._hot, self._slots.get
        slots, behind = self._untold
        for row, tick in enumerate(ticks.tolist()):
            number, flags, price, size, bid, bid_size, ask, ask_size, at, received, _ = tick
            slot = slot_of(number)
            known = None
            low = smallest = math.nan
            kind = flags & _KIND
            if slot is None:
                slot = self._slot(number)
            elif kind == TRADE:
                known = hot.get(2 * slot)
                low, smallest = price, size
            elif kind == QUOTE and bid <= ask:
                known = hot.get(2 * slot + 1)
                low, price = bid, 0.5 * (bid + ask)
                smallest, size = (bid_size, ask_size) if bid_size <= ask_size else (ask_size, bid_size)
            # What is not a number compares as untrue, and what is not surely good goes the long way.
            if known is not None and low > 0 and smallest >= 0:
                floats, ints, b = known
                reference, mean, usual, _ = floats
                step = abs(price - reference)
                if (
                    (step <= b.floor_price or step <= b.floor * reference or step <= b.steps * mean)
                    and size <= b.size_means * usual
                    and size <= b.size_limit
                    and ints[COUNT] >= WARM_UP
                    and ints[AT] <= at
                    and at - received <= b.ahead_ns + ints[LEAD]
                    and not ints[CANDIDATES]
                    and size != math.inf
                ):
                    floats[REF] = price
                    floats[STEP] = mean + STEP_WEIGHT * (step - mean)
                    floats[SIZE] = usual + SIZE_WEIGHT * (size - usual)
                    ints[COUNT] += 1
                    ints[AT], ints[RECEIVED] = at, received
                    if at > 0:
                        slots.append(slot)
                        behind.append(received - at)
                    continue
            self._judge_one(row, tick, TRADE | QUOTE, verdicts)
            if not verdicts[row] and at > 0 and not flags & _OTHER_TIME:
                slots.append(slot)
                behind.append(received - at)
        if len(slots) >= _UNTOLD:
            self._tell()

    def _judge_many(self, ticks: TickArray, verdicts: npt.NDArray[np.uint8]) -> None:
        slots = self._slots.many(ticks["instrument"])
        self._bind_new()
        self._cool()
        self._tell()
        kinds = ticks["flags"] & np.uint32(TRADE | QUOTE)
        if kinds.min() and kinds.max() < TRADE | QUOTE:
            keys = 2 * slots + (kinds == QUOTE)
            unsure = self._at_a_glance(ticks, keys, kinds == TRADE)
            if len(unsure):
                self._one_by_one(zip(unsure.tolist(), ticks[unsure].tolist(), strict=True), TRADE | QUOTE, verdicts)
        else:
            # Ticks that are a trade and a quote, or neither, are rare enough (or all like that) to go by kind.
            for kind in (TRADE, QUOTE):
                rows = np.flatnonzero(kinds & np.uint32(kind))
                if len(rows):
                    keys = 2 * slots[rows] + (kind == QUOTE)
                    is_trade = np.full(len(rows), kind == TRADE)
                    unsure = rows[self._at_a_glance(ticks[rows], keys, is_trade)]
                    self._one_by_one(zip(unsure.tolist(), ticks[unsure].tolist(), strict=True), kind, verdicts)
            neither = np.flatnonzero(kinds == 0)
            self._one_by_one(zip(neither.tolist(), ticks[neither].tolist(), strict=True), 0, verdicts)
        at = ticks["exchange_at"]
        told = (verdicts == 0) & (at > 0) & ((ticks["flags"] & np.uint32(_OTHER_TIME)) == 0)
        told[self._redeemed] = False
        if told.all():
            self._skew.add(slots, ticks["received_at"] - at)
        else:
            self._skew.add(slots[told], ticks["received_at"][told] - at[told])

    def _one_by_one(
        self, rows: Iterable[tuple[int, tuple[Any, ...]]], kinds: int, verdicts: npt.NDArray[np.uint8]
    ) -> None:
        """Judge ticks, each with its place, by the definition: as those of ``kinds`` that they are."""
        for row, tick in rows:
            self._judge_one(row, tick, kinds, verdicts)

    def _judge_one(self, row: int, tick: tuple[Any, ...], kinds: int, verdicts: npt.NDArray[np.uint8]) -> None:
        slot = self._slot(tick[0])
        flags = tick[1]
        if not flags & (TRADE | QUOTE):
            self._refuse(verdicts, row, tick, Reason.NOT_A_NUMBER, math.nan, math.nan)
        for kind in _PARTS[flags & kinds & (TRADE | QUOTE)]:
            key = 2 * slot + (kind == QUOTE)
            known = self._hot.get(key)
            if known is None:
                known = self._hot[key] = (self._floats[key].tolist(), self._ints[key].tolist(), self._bounds[slot])
            floats, ints, limits = known
            reference, candidates = floats[REF], ints[CANDIDATES]
            reason, width, is_shift = judge(tick, kind, limits, floats, ints)
            self.shifts += is_shift
            if reason:
                self._refuse(verdicts, row, tick, reason, reference, width)
                if reason in _RETURNED and flags & (TRADE | QUOTE) == kind:
                    self._hold(key, (row, tick, reason), ints[CANDIDATES] > candidates)
                elif reason > Reason.CROSSED:
                    self._held.pop(key, None)
            elif candidates and not flags & BACKFILLED:
                self._redeem(self._held.pop(key, ()) if is_shift else (), verdicts)
                self._held.pop(key, None)

    def _hold(self, key: int, refused: _Held, goes_on: bool) -> None:
        """Keep a tick of a candidate, to give it back should the candidate be real."""
        held = self._held.setdefault(key, [])
        if not goes_on:
            held.clear()
        held.append(refused)
        if len(held) > _MOST_HELD:
            del held[0]

    def _redeem(self, held: Sequence[_Held], verdicts: npt.NDArray[np.uint8]) -> None:
        """What was refused is real."""
        for row, tick, reason in held:
            if row < 0:
                self._returned.append(tick)
                self.quarantine.release(tick, reason)
                continue
            verdicts[row] = Reason.GOOD
            self._redeemed.append(row)
        if self._redeemed:
            places = set(self._redeemed)
            self._refused = [each for each in self._refused if each[0] not in places]

    def _refuse(
        self,
        verdicts: npt.NDArray[np.uint8],
        row: int,
        tick: tuple[Any, ...],
        reason: Reason,
        reference: float,
        width: float,
    ) -> None:
        if not verdicts[row]:
            verdicts[row] = reason
            self._refused.append((row, tick, reason, reference, width))

    def _quarantine_refused(self) -> None:
        """Put what was refused in a batch into quarantine in the order in which it came."""
        for _, tick, reason, reference, width in sorted(self._refused, key=lambda refused: refused[0]):
            self.quarantine.put(tick, reason, reference, width)
        self._refused.clear()

    def _at_a_glance(self, ticks: TickArray, keys: SlotArray, is_trade: _Bools) -> npt.NDArray[np.intp]:
        """Remember what is surely good; returns the places of the ticks still to be judged, in order."""
        # Short integers are sorted by radix, three times as quick.
        order = np.argsort(keys.astype(np.int16) if len(self._ints) <= 32_767 else keys, kind="stable")
        keys, picked = keys[order], ticks.take(order)
        is_first = np.empty(len(keys), dtype=np.bool_)
        is_first[0] = True
        np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
        starts = np.flatnonzero(is_first)
        lengths = np.diff(starts, append=len(keys))
        ends = starts + lengths - 1
        mine = keys[starts]
        floats, ints, limits = self._floats[mine], self._ints[mine], self._limits[mine >> 1]

        price, size, sure = _values(picked, is_trade[order])
        before = np.empty_like(price)
        before[1:] = price[:-1]
        before[starts] = floats[:, REF]
        at, received = picked["exchange_at"], picked["received_at"]
        at_before = np.empty_like(at)
        at_before[1:] = at[:-1]
        at_before[starts] = ints[:, AT]
        with np.errstate(invalid="ignore"):
            step = np.abs(price - before)
        # The means can only have shrunk by so much within the batch: what passes the narrowest band passes.
        left_over = _LEFT[lengths]
        edges = np.empty((len(mine), 4))
        edges[:, 0] = np.maximum(limits[:, _FLOOR_PRICE], limits[:, _STEPS] * floats[:, STEP] * left_over[:, 0])
        edges[:, 1] = limits[:, _FLOOR]
        # While no size is known the limit is 0, so that the first one starts the mean, one by one.
        edges[:, 2] = np.minimum(limits[:, _LIMIT], limits[:, _MEANS] * floats[:, SIZE] * left_over[:, 1])
        edges[:, 3] = limits[:, _AHEAD] + ints[:, LEAD]
        edges = np.repeat(edges, lengths, axis=0)
        sure &= step <= np.maximum(edges[:, 0], edges[:, 1] * before)
        sure &= ~(size > edges[:, 2])
        sure &= (at >= at_before) & (at - received <= edges[:, 3])
        sure &= (picked["flags"] & np.uint32(_OTHER_TIME)) == 0
        good = np.logical_and.reduceat(sure, starts) & (ints[:, COUNT] >= WARM_UP) & (ints[:, CANDIDATES] == 0)

        weights = _WEIGHTS[np.repeat(ends, lengths) - np.arange(len(keys))]
        steps = left_over[:, 0] * floats[:, STEP] + np.add.reduceat(weights[:, 0] * step, starts)
        sizes = left_over[:, 1] * floats[:, SIZE] + np.add.reduceat(weights[:, 1] * size, starts)
        if (unknown := np.isnan(sizes)).any():
            # A size that is known only now and then is left out of the mean, one by one.
            good &= ~unknown | (np.add.reduceat(np.isnan(size), starts, dtype=np.int64) == lengths)
            sizes = np.where(unknown, floats[:, SIZE], sizes)
        floats[:, REF], floats[:, STEP], floats[:, SIZE] = price[ends], steps, sizes
        ints[:, COUNT] += lengths
        ints[:, AT], ints[:, RECEIVED] = at[ends], received[ends]
        if good.all():
            self._floats[mine], self._ints[mine] = floats, ints
            return order[:0]
        self._floats[mine[good]], self._ints[mine[good]] = floats[good], ints[good]
        return np.sort(order[~np.repeat(good, lengths)])

    # Memory

    def _cool(self) -> None:
        """Put what is in use one by one back into the arrays."""
        if self._hot:
            keys = list(self._hot)
            self._floats[keys] = [floats for floats, _, _ in self._hot.values()]
            self._ints[keys] = [ints for _, ints, _ in self._hot.values()]
            self._hot.clear()

    def _tell(self) -> None:
        """Count in how far behind their venue's clock ticks came."""
        slots, behind = self._untold
        if slots:
            self._skew.add(np.array(slots, dtype=np.int32), np.array(behind, dtype=np.int64))
            slots.clear()
            behind.clear()

    def _slot(self, number: int) -> int:
        slot = self._slots.one(number)
        if slot >= len(self._bounds):
            self._bind_new()
        return slot

    def _bind_new(self) -> None:
        while len(self._bounds) < len(self._slots):
            self._bounds.append(_UNBOUND)
            self._bind(len(self._bounds) - 1)

    def _bind(self, slot: int) -> None:
        """Work out what the instrument of a slot is compared with."""
        self._cool()
        while slot >= len(self._limits):
            self._limits = np.concatenate([self._limits, np.zeros_like(self._limits)])
            self._floats = np.concatenate([self._floats, _fresh_floats(len(self._floats))])
            self._ints = np.concatenate([self._ints, np.zeros_like(self._ints)])
        number = self._slots.number(slot)
        b = bounds(self.settings_of(number), self._tick_sizes.get(number, 0.0))
        self._bounds[slot] = b
        self._limits[slot] = (b.floor, b.floor_price, b.steps, b.size_means, b.size_limit, b.ahead_ns)


def _values(picked: TickArray, is_trade: _Bools) -> tuple[_Floats, _Floats, _Bools]:
    """Price and size of ticks that are either trade or quote, and whether these are good in themselves."""
    bid, ask, bid_size, ask_size = picked["bid"], picked["ask"], picked["bid_size"], picked["ask_size"]
    lowest = np.where(is_trade, picked["price"], bid)
    highest = np.where(is_trade, lowest, ask)
    size = np.where(is_trade, picked["size"], np.maximum(bid_size, ask_size))
    smallest = np.where(is_trade, size, np.minimum(bid_size, ask_size))
    sure = (lowest > 0) & (lowest <= highest) & (highest < np.inf) & ~(smallest < 0) & ~(size == np.inf)
    if np.isnan(size).any():
        # One of two sizes known: one by one.
        sure &= is_trade | (np.isnan(bid_size) == np.isnan(ask_size))
    return 0.5 * (lowest + highest), size, sure


def _fresh_floats(rows: int) -> _Floats:
    fresh = np.zeros((rows, 4), dtype=np.float64)
    fresh[:, REF] = np.nan
    return fresh


_UNBOUND: Final = bounds(FilterSettings(), 0.0)

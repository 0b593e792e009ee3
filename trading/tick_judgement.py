"""One tick judged after the other: the definition of a bad tick.

`trading.tick_filter` asks this for every tick that it cannot see to be good at a glance.  What is remembered of
the trades (or quotes) of an instrument is one row of floats and one of integers, so that the same memory serves
whole batches at once.

The band around the last good price is ``band_steps`` mean absolute steps wide, never less than its floor, and wider
after a silence.  Only good ticks move the mean, so a bad one cannot widen the band.  What is outside may be real
all the same: a *candidate* gathers ticks that are wrong in the same way and agree with each other; enough of them
over long enough, with no good tick between, and they are what is true now.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from trading.quarantine import FilterSettings, Reason
from trading.ticks import BACKFILLED, SNAPSHOT, TRADE

#: Columns of the floats: last good price, mean absolute step, mean size, price of the candidate.
REF, STEP, SIZE, CANDIDATE = range(4)
#: Columns of the integers: good ticks so far, the venue's time and the receipt of the last one, the candidate's
#: ticks, its first receipt, its last venue time and its reason, and by how much the venue's clock may be ahead.
COUNT, AT, RECEIVED, CANDIDATES, SINCE, CANDIDATE_AT, WRONG, LEAD = range(8)

#: Good ticks after which the means no longer are plain averages.
WARM_UP: Final = 64
#: Weight of a new value in the mean step and in the mean size.
STEP_WEIGHT: Final = 1.0 / 64.0
SIZE_WEIGHT: Final = 1.0 / 512.0

_FLAGS, _PRICE, _QUANTITY, _BID, _BID_SIZE, _ASK, _ASK_SIZE, _AT, _RECEIVED = range(1, 10)
_NAN: Final = math.nan


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """`FilterSettings` as they are compared with, for one instrument."""

    off: frozenset[Reason]
    floor: float
    #: The same as a price.
    floor_price: float
    steps: float
    first: float
    widen_s: float
    shift_ticks: int
    shift_ns: int
    backwards_ns: int
    ahead_ns: int
    clock_shift_ns: int
    size_means: float
    size_limit: float


def bounds(settings: FilterSettings, tick_size: float) -> Bounds:
    """What an instrument with this price tick (0: not known) is compared with."""
    words = {reason.word: reason for reason in Reason}
    return Bounds(
        off=frozenset(words[word] for word in settings.off),
        floor=settings.band_floor,
        floor_price=settings.band_ticks * tick_size,
        steps=settings.band_steps,
        first=settings.first_band,
        widen_s=settings.widen_s,
        shift_ticks=settings.shift_ticks,
        shift_ns=round(settings.shift_s * 1e9),
        backwards_ns=round(settings.backwards_s * 1e9),
        ahead_ns=round(settings.ahead_s * 1e9),
        clock_shift_ns=round(settings.clock_shift_s * 1e9),
        size_means=settings.size_means,
        size_limit=settings.size_limit or math.inf,
    )


def judge(
    tick: tuple[Any, ...], kind: int, b: Bounds, floats: list[float], ints: list[int]
) -> tuple[Reason, float, bool]:
    """Judge one tick as a trade or quote and remember it.

    Returns what is wrong, how wide the band was, and whether the tick confirmed that what seemed wrong is real.

    ``tick`` has its fields in the order of `trading.ticks.TICK`.  The width is NaN where it was not asked for.
    Back-filled ticks are of another time: only their own values are looked at and nothing is remembered.
    """
    reason, price, size = _values(tick, kind, b.off)
    if reason:
        return reason, _NAN, False
    flags, at, received = tick[_FLAGS], tick[_AT], tick[_RECEIVED]
    if flags & BACKFILLED:
        return Reason.GOOD, _NAN, False
    width = _width(b, price, floats, ints, received)
    reason = Reason.GOOD
    if at and not flags & SNAPSHOT:
        if at < ints[AT] - b.backwards_ns:
            reason = Reason.BACKWARDS
        elif at - received > b.ahead_ns + ints[LEAD]:
            reason = Reason.AHEAD
    if reason in b.off:
        reason = Reason.GOOD
    if not reason and Reason.HUGE_SIZE not in b.off and _is_huge(size, b, floats, ints):
        reason = Reason.HUGE_SIZE
    # A reference that is not a number (none yet) compares as good.
    is_outside = abs(price - floats[REF]) > width and Reason.OUT_OF_BAND not in b.off
    if not reason and is_outside:
        reason = Reason.OUT_OF_BAND
    if not reason:
        _remember(price, size, at, received, floats, ints)
        return Reason.GOOD, width, False
    is_confirmed = _confirmed(reason, price, at, received, width, b, floats, ints)
    # Of a clock or a size that is confirmed the price must be plausible all the same.
    if not is_confirmed or (is_outside and reason is not Reason.OUT_OF_BAND):
        return reason, width, False
    _shift(reason, price, size, at, received, floats, ints)
    return Reason.GOOD, width, True


def _values(tick: tuple[Any, ...], kind: int, off: frozenset[Reason]) -> tuple[Reason, float, float]:
    """What is wrong with a tick's own values, its price and its size (NaN: not known)."""
    if kind == TRADE:
        price, size = tick[_PRICE], tick[_QUANTITY]
        lowest, smallest = price, size
        is_number = math.isfinite(price) and not math.isinf(size)
    else:
        bid, ask = tick[_BID], tick[_ASK]
        sizes = (tick[_BID_SIZE], tick[_ASK_SIZE])
        # One side may be missing: NaN says so.
        if math.isnan(bid):
            price = lowest = ask
        elif math.isnan(ask):
            price = lowest = bid
        else:
            price, lowest = 0.5 * (bid + ask), min(bid, ask)
        is_number = math.isfinite(price) and not any(map(math.isinf, sizes))
        known = [each for each in sizes if not math.isnan(each)]
        size, smallest = (max(known), min(known)) if known else (_NAN, _NAN)
        if is_number and bid > ask and Reason.CROSSED not in off:
            return (
                (Reason.NOT_POSITIVE if lowest <= 0 and Reason.NOT_POSITIVE not in off else Reason.CROSSED),
                _NAN,
                _NAN,
            )
    if not is_number:
        return Reason.NOT_A_NUMBER, _NAN, _NAN
    if lowest <= 0 and Reason.NOT_POSITIVE not in off:
        return Reason.NOT_POSITIVE, _NAN, _NAN
    if smallest < 0 and Reason.NEGATIVE_SIZE not in off:
        return Reason.NEGATIVE_SIZE, _NAN, _NAN
    return Reason.GOOD, price, size


def _width(b: Bounds, price: float, floats: list[float], ints: list[int], received: int) -> float:
    reference = floats[REF]
    if math.isnan(reference):
        return _NAN
    width = max(b.floor * abs(reference), b.floor_price, b.steps * floats[STEP])
    if ints[COUNT] < WARM_UP:
        width = max(width, b.first * abs(reference))
    silence = (received - ints[RECEIVED]) / 1e9
    return width * math.sqrt(1.0 + silence / b.widen_s) if silence > 0 and ints[RECEIVED] else width


def _is_huge(size: float, b: Bounds, floats: list[float], ints: list[int]) -> bool:
    if size > b.size_limit:
        return True
    return ints[COUNT] >= WARM_UP and floats[SIZE] > 0 and size > b.size_means * floats[SIZE]


def _remember(price: float, size: float, at: int, received: int, floats: list[float], ints: list[int]) -> None:
    count = ints[COUNT] = ints[COUNT] + 1
    if count > 1 and not math.isnan(floats[REF]):
        weight = max(STEP_WEIGHT, 1.0 / (count - 1)) if count <= WARM_UP else STEP_WEIGHT
        floats[STEP] += weight * (abs(price - floats[REF]) - floats[STEP])
    if not math.isnan(size):
        weight = 1.0 / count if count <= WARM_UP else SIZE_WEIGHT
        # The first size that is known may come late.
        floats[SIZE] += (weight if floats[SIZE] else 1.0) * (size - floats[SIZE])
    floats[REF] = price
    ints[AT] = max(ints[AT], at)
    ints[RECEIVED] = received
    ints[CANDIDATES] = 0


def _confirmed(
    reason: Reason, price: float, at: int, received: int, width: float, b: Bounds, floats: list[float], ints: list[int]
) -> bool:
    """Whether this tick is the one that makes a candidate true; it is counted in else."""
    is_clock = reason in (Reason.BACKWARDS, Reason.AHEAD)
    agrees = ints[CANDIDATES] > 0 and ints[WRONG] == reason
    if agrees and reason is Reason.OUT_OF_BAND:
        agrees = abs(price - floats[CANDIDATE]) <= max(width, b.floor * abs(price))
    if agrees and is_clock:
        agrees = at >= ints[CANDIDATE_AT] - b.backwards_ns
    if agrees:
        ints[CANDIDATES] += 1
    else:
        ints[CANDIDATES], ints[SINCE], ints[WRONG] = 1, received, reason
    floats[CANDIDATE], ints[CANDIDATE_AT] = price, at
    over = b.clock_shift_ns if is_clock else b.shift_ns
    return ints[CANDIDATES] >= b.shift_ticks and received - ints[SINCE] >= over


def _shift(
    reason: Reason, price: float, size: float, at: int, received: int, floats: list[float], ints: list[int]
) -> None:
    """Take the candidate for true: go on from it."""
    if reason is Reason.BACKWARDS:
        ints[AT] = at
    elif reason is Reason.AHEAD:
        ints[LEAD] = at - received
    elif reason is Reason.HUGE_SIZE:
        floats[SIZE] = size
    if reason is Reason.OUT_OF_BAND:
        # The jump itself is no step of the kind that is usual here.
        floats[REF] = price
    _remember(price, size, at, received, floats, ints)

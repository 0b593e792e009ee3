"""Ticks that are not used: why, and the last of them for a person to look at.

Nothing here decides; `trading.tick_filter` does and puts what it refuses in here.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from trading.errors import BadInput
from trading.ids import Nanos
from trading.ticks import TickArray


class Reason(IntEnum):
    """What is wrong with a tick.  The numbers are the verdicts of `TickFilter.judge`; 0 is a good tick."""

    GOOD = 0
    #: No number where one must be: an infinite price or size, a quote without either side, neither trade nor quote.
    NOT_A_NUMBER = 1
    #: A price of zero or below.
    NOT_POSITIVE = 2
    #: A negative size.
    NEGATIVE_SIZE = 3
    #: A bid above the offer.
    CROSSED = 4
    #: The venue's time runs backwards.
    BACKWARDS = 5
    #: The venue's time is ahead of the time of receipt.
    AHEAD = 6
    #: A size beyond what is plausible for the instrument.
    HUGE_SIZE = 7
    #: A price too far from the last good one.
    OUT_OF_BAND = 8

    @property
    def word(self) -> str:
        """As it is shown and set over REST: ``out_of_band``."""
        return self.name.lower()


REASONS: Final = tuple(reason for reason in Reason if reason)


class FilterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How strict a filter is; of a feed, or of one instrument.  Checked by `check`."""

    #: Checks that are not made, by word (``crossed`` for a consolidated tape, ``not_positive`` for spreads).
    off: tuple[str, ...] = ()
    #: The band is never narrower than this share of the price, nor than so many price ticks.
    band_floor: float = 0.005
    band_ticks: float = 3.0
    #: The band in mean absolute steps between ticks.
    band_steps: float = 12.0
    #: Until an instrument has had `warm_up` good ticks of a kind, the band is at least this share of the price.
    first_band: float = 0.10
    #: The band widens with the square root of the silence before the tick: twice as wide after three times this.
    widen_s: float = 60.0
    #: A move out of the band is real once so many ticks in a row agree on it, over at least so long.
    shift_ticks: int = 5
    shift_s: float = 0.05
    #: Venue time may be this much behind that of the last tick of the kind, or ahead of the time of receipt.
    backwards_s: float = 1.0
    ahead_s: float = 5.0
    #: A clock that is off for so long, and runs forward, is taken as it is.
    clock_shift_s: float = 30.0
    #: The largest plausible size in mean sizes, and outright (0: no such limit).
    size_means: float = 10_000.0
    size_limit: float = 0.0

    def check(self) -> FilterSettings:
        """Return itself; `BadInput` where a value makes no sense."""
        words = {reason.word for reason in REASONS}
        for word in self.off:
            if word not in words:
                raise BadInput("off", f"{word[:30]!r} is no check: use {', '.join(sorted(words))}")
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if field.name in ("off", "shift_ticks"):
                continue
            if not (0 <= value < float("inf")):
                raise BadInput(field.name, f"{value} is out of range: use a number of 0 or more")
        for name in ("band_floor", "widen_s", "size_means"):
            if not getattr(self, name):
                raise BadInput(name, "0 would refuse everything: use a number above 0")
        if not 1 <= self.shift_ticks <= 1000:
            raise BadInput("shift_ticks", f"{self.shift_ticks} is out of range: use 1 to 1000")
        return self


class Quarantined(msgspec.Struct, frozen=True, kw_only=True):
    """One refused tick, with what it was compared with (NaN where that does not apply)."""

    reason: str
    instrument: int
    flags: int
    price: float
    size: float
    bid: float
    bid_size: float
    ask: float
    ask_size: float
    exchange_at: Nanos
    received_at: Nanos
    sequence: int
    #: The last good price (of a quote: its middle) and how far from it was allowed.
    reference: float
    width: float


class Quarantine:
    """The last refused ticks of each instrument, and how many there were by reason."""

    def __init__(self, keep: int = 64) -> None:
        self._keep = keep
        self._rings: dict[int, deque[Quarantined]] = {}
        self._counts: dict[int, npt.NDArray[np.int64]] = {}

    def __repr__(self) -> str:
        return f"<Quarantine {self.counts()}>"

    def put(self, tick: tuple[Any, ...], reason: Reason, reference: float, width: float) -> None:
        """Take a tick in, its fields in the order of `trading.ticks.TICK`."""
        number = tick[0]
        ring = self._rings.get(number)
        if ring is None:
            ring = self._rings[number] = deque(maxlen=self._keep)
            self._counts[number] = np.zeros(len(Reason), dtype=np.int64)
        self._counts[number][reason] += 1
        ring.append(_quarantined(tick, reason, reference, width))

    def release(self, tick: tuple[Any, ...], reason: Reason) -> None:
        """Let a tick go that turned out to be real: it counts as refused no longer."""
        number = tick[0]
        ring = self._rings[number]
        self._counts[number][reason] -= 1
        for place in range(len(ring) - 1, -1, -1):
            # It may have made room for others since.
            if _is(ring[place], tick):
                del ring[place]
                break
        if not self._counts[number].any():
            self.clear(number)

    def of(self, number: int) -> list[Quarantined]:
        """The last refused ticks of an instrument, oldest first."""
        return list(self._rings.get(number, ()))

    def counts(self, number: int | None = None) -> dict[str, int]:
        """Refused ticks by reason, of one instrument or of all; reasons that never were are left out."""
        all_counts = self._counts.values() if number is None else [c for n, c in self._counts.items() if n == number]
        total = sum(all_counts, start=np.zeros(len(Reason), dtype=np.int64))
        return {reason.word: int(total[reason]) for reason in REASONS if total[reason]}

    def count(self, number: int) -> int:
        """Refused ticks of an instrument."""
        counts = self._counts.get(number)
        return 0 if counts is None else int(counts.sum())

    def numbers(self) -> list[int]:
        """Instruments that had a refused tick."""
        return sorted(self._rings)

    def clear(self, number: int) -> None:
        """Empty the ring of an instrument and set its counts to nothing."""
        self._rings.pop(number, None)
        self._counts.pop(number, None)


def _is(held: Quarantined, tick: tuple[Any, ...]) -> bool:
    _, flags, price, _, bid, _, ask, _, _, received_at, sequence = tick
    return (held.received_at, held.sequence, held.flags) == (received_at, sequence, flags) and all(
        one == other or (one != one and other != other)
        for one, other in ((held.price, price), (held.bid, bid), (held.ask, ask))
    )


def _quarantined(tick: tuple[Any, ...], reason: Reason, reference: float, width: float) -> Quarantined:
    number, flags, price, size, bid, bid_size, ask, ask_size, exchange_at, received_at, sequence = tick
    return Quarantined(
        reason=reason.word,
        instrument=number,
        flags=flags,
        price=price,
        size=size,
        bid=bid,
        bid_size=bid_size,
        ask=ask,
        ask_size=ask_size,
        exchange_at=exchange_at,
        received_at=received_at,
        sequence=sequence,
        reference=reference,
        width=width,
    )


def good(ticks: TickArray, verdicts: npt.NDArray[np.uint8]) -> TickArray:
    """The ticks that may be used; no copy where all may."""
    bad = verdicts != Reason.GOOD
    return ticks[~bad] if bad.any() else ticks

"""One stream of ticks out of two providers of the same instrument.

The first provider is preferred.  When it is stale the second takes over from where the first left off; when the first
has been good for a while without a break it takes over again.  Ticks of the one that stands by are kept, so that the
switch loses nothing; what both sent comes out once, and the time of an instrument's trades (and of its quotes) never
runs backwards.

A shell drives it so: ``pair`` for instruments that have a second provider, every batch of either goes through
``take(source, ticks)``, and after each look of `trading.freshness` at the first provider ``judge`` for each paired
instrument; what these return is published.  Instruments that are not paired pass from the first provider untouched.

Sequences of two providers cannot be compared, so time decides: the venue's, else that of receipt.  Providers round
it differently; ticks of the other source within one step of ``resolution_ns`` that have the same values are the same.
A provider with coarser times can therefore lose, at a switch to it, ticks of the very step in which the switch falls.

Where another shell takes an instrument over, ``position`` says how far it has come here and whose ticks come out;
``resume`` goes on from there.  Where the one before has ended without a word, ``adopt`` goes on with the second: what
comes now is what nobody has published.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

import msgspec
import numpy as np

from trading.errors import BadInput
from trading.ids import Nanos
from trading.ticks import QUOTE, TRADE, TickArray, empty

_SECOND = 1_000_000_000
_FLAGS, _PRICE, _AT, _RECEIVED = 1, 2, 8, 9


class Source(IntEnum):
    """Which of the two providers."""

    FIRST = 0
    SECOND = 1

    @property
    def other(self) -> Source:
        """The other one."""
        return Source(1 - self)


class ArbiterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When to switch.  Checked by `check`."""

    #: The first provider must have been good for so long before it takes over again.
    hold_s: float = 30.0
    #: Unless the second one has been silent for so long.
    silent_s: float = 5.0
    #: Times of the two providers are the same within this.
    resolution_ns: int = 1_000_000
    #: Ticks kept of the one that stands by; older ones go.
    keep: int = 5_000

    def check(self) -> ArbiterSettings:
        """Return itself; `BadInput` where a value makes no sense."""
        for name in ("hold_s", "silent_s", "resolution_ns", "keep"):
            if not 0 < getattr(self, name) < 1e12:
                raise BadInput(name, f"{getattr(self, name)} is out of range: use a number above 0")
        return self


class Position(msgspec.Struct, frozen=True):
    """How far an instrument has come out: the time of the last tick of each kind, and whose ticks come out."""

    active: Source
    at: Mapping[int, int]


class PairReport(msgspec.Struct, frozen=True, kw_only=True):
    """How one pair goes."""

    active: Source
    #: When the one that is active took over; 0: it has been from the begin.
    since: Nanos
    switches: int
    #: Ticks that the other provider had sent, and those that came when later ones were out.
    doubles: int
    late: int
    #: When the second provider was last heard; 0: never.
    heard_at: Nanos


class _Kind:
    """How far the trades (or quotes) of an instrument have come out."""

    __slots__ = ("at", "seen", "step")

    def __init__(self) -> None:
        self.at = 0
        self.step = -1
        #: What came out in the last step of time, by source.
        self.seen: tuple[Counter[Any], Counter[Any]] = (Counter(), Counter())


class _Pair:
    __slots__ = (
        *("active", "doubles", "good_since", "heard_at", "is_stale", "kept", "kinds", "late", "number", "since"),
        "switches",
    )

    def __init__(self, number: int, keep: int) -> None:
        self.number = number
        self.active = Source.FIRST
        self.is_stale = False
        self.good_since = 0
        #: When the second provider was last heard.
        self.heard_at = 0
        self.kinds = {TRADE: _Kind(), QUOTE: _Kind()}
        self.kept: deque[TickArray] = deque(maxlen=keep)
        self.since = self.switches = self.doubles = self.late = 0


class Arbiter:
    """Chooses between two providers, instrument by instrument; see the module for how it is driven."""

    def __init__(self, settings: ArbiterSettings | None = None) -> None:
        self.settings = (settings or ArbiterSettings()).check()
        self._pairs: dict[int, _Pair] = {}
        self._numbers = np.empty(0, dtype=np.int32)
        #: Counted over all pairs that there were.
        self.switches = self.doubles = self.late = 0

    def __repr__(self) -> str:
        return f"<Arbiter {len(self._pairs)} pairs, {len(self.by_second())} by the second, {self.switches} switches>"

    def __contains__(self, number: int) -> bool:
        return number in self._pairs

    def tune(self, settings: ArbiterSettings) -> None:
        """Put settings in force; of ``keep`` with pairs that are made from now on.  Raises `BadInput`."""
        self.settings = settings.check()

    def pair(self, number: int) -> None:
        """An instrument has a second provider."""
        self._pairs.setdefault(number, _Pair(number, self.settings.keep))
        self._numbers = np.array(sorted(self._pairs), dtype=np.int32)

    def unpair(self, number: int) -> None:
        """It has none any more: what the first provider sends passes."""
        self._pairs.pop(number, None)
        self._numbers = np.array(sorted(self._pairs), dtype=np.int32)

    def paired(self) -> list[int]:
        """Instruments that have a second provider."""
        return list(self._pairs)

    def by_second(self) -> list[int]:
        """Instruments whose ticks come from the second provider now."""
        return [number for number, pair in self._pairs.items() if pair.active is Source.SECOND]

    def report(self, number: int) -> PairReport:
        """How a pair goes."""
        pair = self._pairs[number]
        return PairReport(
            active=pair.active,
            since=Nanos(pair.since),
            switches=pair.switches,
            doubles=pair.doubles,
            late=pair.late,
            heard_at=Nanos(pair.heard_at),
        )

    def position(self, number: int) -> Position:
        """How far an instrument has come out, for whoever goes on from here."""
        pair = self._pairs[number]
        return Position(pair.active, {kind: state.at for kind, state in pair.kinds.items() if state.at})

    def resume(self, number: int, position: Position, now: Nanos) -> TickArray:
        """Go on from another's position; returns what has come since and is to be published.

        Of ticks of the second of one instant some may have come out and some not: none of them comes out any more.
        The first's are told apart by their sequence elsewhere (`trading.handover`).
        """
        pair = self._pairs[number]
        if position.active is Source.FIRST:
            is_news = [any(at > position.at.get(kind, 0) for kind, at in _times(tick)) for tick in pair.kept]
            kept = [tick for tick, is_new in zip(pair.kept, is_news, strict=True) if is_new]
            pair.kept.clear()
            pair.kept.extend(kept)
            return empty()
        for kind, at in position.at.items():
            pair.kinds[kind].at = at + 1
        return self._begin_with_second(pair, now)

    def adopt(self, number: int, now: Nanos) -> None:
        """The second provider was in use where the instrument was before: it goes on with what comes now."""
        pair = self._pairs[number]
        pair.kept.clear()
        self._begin_with_second(pair, now)

    def _begin_with_second(self, pair: _Pair, now: Nanos) -> TickArray:
        pair.active, pair.since, pair.is_stale = Source.SECOND, now, True
        kept = list(pair.kept)
        pair.kept.clear()
        return _joined(tick for tick in kept if self._passes(pair, pair.active, tick, was_kept=True))

    def active(self, number: int) -> Source:
        """Whose ticks come out."""
        pair = self._pairs.get(number)
        return Source.FIRST if pair is None else pair.active

    def judge(self, number: int, *, is_stale: bool, now: Nanos) -> TickArray:
        """How the first provider goes, as of now; returns what has to be published because of a switch."""
        pair = self._pairs.get(number)
        if pair is None:
            return empty()
        if not is_stale and (pair.is_stale or not pair.good_since):
            pair.good_since = now
        pair.is_stale = is_stale
        if pair.active is Source.FIRST:
            return self._switch(pair, now) if is_stale and self._has_news(pair) else empty()
        if is_stale:
            return empty()
        s = self.settings
        has_held = now - pair.good_since >= s.hold_s * _SECOND
        is_silent = now - pair.heard_at >= s.silent_s * _SECOND and self._has_news(pair)
        return self._switch(pair, now) if has_held or is_silent else empty()

    def take(self, source: Source, ticks: TickArray) -> TickArray:
        """Ticks of one provider in order; returns those to be published."""
        if not self._pairs:
            return ticks if source is Source.FIRST else empty()
        is_paired = np.isin(ticks["instrument"], self._numbers)
        if not is_paired.any():
            return ticks if source is Source.FIRST else empty()
        if source is Source.FIRST:
            passing = ~is_paired
            for row in np.flatnonzero(is_paired).tolist():
                passing[row] = bool(len(self._offer(source, ticks[row : row + 1])))
            return ticks[passing]
        return _joined(self._offer(source, ticks[row : row + 1]) for row in np.flatnonzero(is_paired).tolist())

    def _offer(self, source: Source, tick: TickArray) -> TickArray:
        """One tick of a paired instrument; returns what comes out because of it."""
        pair = self._pairs[int(tick["instrument"][0])]
        if source is Source.SECOND:
            pair.heard_at = max(pair.heard_at, int(tick["received_at"][0]))
        if source is pair.active:
            return tick if self._passes(pair, source, tick) else empty()
        pair.kept.append(tick.copy())
        while len(pair.kept) > 1 and all(at < pair.kinds[kind].at for kind, at in _times(pair.kept[0])):
            pair.kept.popleft()
        if source is Source.SECOND and pair.is_stale and self._has_news(pair):
            return self._switch(pair, Nanos(pair.heard_at))
        return empty()

    def _has_news(self, pair: _Pair) -> bool:
        """Whether the one that stands by has anything that is not out."""
        return bool(pair.kept) and any(at > pair.kinds[kind].at for kind, at in _times(pair.kept[-1]))

    def _switch(self, pair: _Pair, now: Nanos) -> TickArray:
        """The one that stands by takes over; returns what it has beyond what is out."""
        pair.active, pair.since = pair.active.other, now
        pair.switches += 1
        self.switches += 1
        kept = list(pair.kept)
        pair.kept.clear()
        return _joined(tick for tick in kept if self._passes(pair, pair.active, tick, was_kept=True))

    def _passes(self, pair: _Pair, source: Source, tick: TickArray, *, was_kept: bool = False) -> bool:
        """Whether a tick comes out, and if so take note of it."""
        times = _times(tick)
        if any(at < pair.kinds[kind].at for kind, at in times):
            # What was kept is mostly what the other one had sent already.
            if not was_kept:
                self.late += 1
                pair.late += 1
            return False
        row = tick.tolist()[0]
        for kind, at in times:
            state = pair.kinds[kind]
            step = at // self.settings.resolution_ns
            if step == state.step:
                theirs = state.seen[source.other]
                value = _value(row, kind)
                if theirs[value]:
                    theirs[value] -= 1
                    self.doubles += 1
                    pair.doubles += 1
                    return False
        for kind, at in times:
            state = pair.kinds[kind]
            step = at // self.settings.resolution_ns
            if step != state.step:
                state.step = step
                state.seen[0].clear()
                state.seen[1].clear()
            state.seen[source][_value(row, kind)] += 1
            state.at = at
        return True


def _times(tick: TickArray) -> list[tuple[int, int]]:
    """What a tick is, each with its time."""
    row = tick.tolist()[0]
    at = row[_AT] if row[_AT] > 0 else row[_RECEIVED]
    return [(kind, at) for kind in (TRADE, QUOTE) if row[_FLAGS] & kind]


def _value(row: tuple[Any, ...], kind: int) -> tuple[float | None, ...]:
    fields = row[_PRICE : _PRICE + 2] if kind == TRADE else row[_PRICE + 2 : _PRICE + 6]
    # NaN is unlike itself.
    return tuple(None if field != field else field for field in fields)


def _joined(parts: Iterable[TickArray]) -> TickArray:
    listed = list(parts)
    return np.concatenate(listed) if listed else empty()

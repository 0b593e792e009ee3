"""Moving an instrument from one feed worker to another without losing or doubling a tick.

The new worker subscribes *muted*: it keeps what arrives.  Once its first tick of an instrument is in, the old
worker is asked for a *cut*: for each kind of tick the sequence at which the new one takes over, not before the
old one's last published tick nor before the new one's first.  The old worker goes on publishing what lies
before the cut and stops once it has seen the cut; the new one publishes what it kept from the cut on, and of
what arrives later what does not lie before the cut (its own stream may lag).  Where a venue sends no sequence the
time of receipt stands in for it.  The kinds of one instrument are subscribed together.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trading.depth import DepthArray
from trading.ticks import QUOTE, TRADE, TickArray, empty

#: A muted instrument keeps at most this many ticks; the oldest go first (and only matter if the move takes long).
KEEP = 20_000
#: A stream does not lag further than this: a sequence that is still below then has begun anew at the venue.
LAG_NS = 10_000_000_000
_KINDS = (TRADE, QUOTE)
#: So many ticks are noted quicker one by one.
_FEW = 8

#: kind (TRADE or QUOTE) -> sequence.
Cuts = dict[int, int]


def sequences(ticks: TickArray) -> npt.NDArray[np.int64]:
    """What orders the ticks of one instrument and kind: the venue's sequence, else the time of receipt."""
    own = ticks["sequence"]
    return np.where(own != 0, own, ticks["received_at"])


class Handover:
    """One worker's side: what of the arriving ticks may be published."""

    def __init__(self) -> None:
        #: (instrument number, kind) -> sequence of the last tick published.
        self._last: dict[tuple[int, int], int] = {}
        self._kept: dict[int, list[TickArray]] = {}
        self._firsts: dict[int, Cuts] = {}
        self._cuts: dict[int, Cuts] = {}
        self._passed: dict[int, set[int]] = {}
        #: Taken over from another worker: what lies before these was published there.
        self._floors: dict[int, Cuts] = {}
        #: When the first tick after the take-over came.
        self._floor_since: dict[int, int] = {}
        #: Let go: what still arrives is another worker's.
        self._gone: set[int] = set()
        #: By instrument number, whether its ticks have to be looked at one by one; the last place is nobody's.
        self._special: npt.NDArray[np.bool_] = np.zeros(64, dtype=np.bool_)

    def carry(self, number: int) -> None:
        """Publish the ticks of an instrument from now on (instruments never heard of are published too)."""
        self._gone.discard(number)
        self._refresh(number)

    def mute(self, number: int) -> None:
        """Keep the ticks of an instrument back until `activate`."""
        self._gone.discard(number)
        self._kept.setdefault(number, [])
        self._firsts.setdefault(number, {})
        self._refresh(number)

    def firsts(self, number: int) -> Cuts:
        """Sequence of the first kept tick of each kind (empty: none yet)."""
        return dict(self._firsts.get(number, {}))

    def kinds(self, number: int) -> tuple[int, ...]:
        """The kinds of tick that have been published here, or by the worker before this one."""
        floors = self._floors.get(number, {})
        return tuple(kind for kind in _KINDS if (number, kind) in self._last or kind in floors)

    def is_muted(self, number: int) -> bool:
        """Whether the instrument is kept back."""
        return number in self._kept

    def is_ending(self, number: int) -> bool:
        """Whether another worker takes over."""
        return number in self._cuts

    def cuts_of(self, number: int) -> Cuts:
        """Where another worker takes over (empty: nobody does)."""
        return dict(self._cuts.get(number, {}))

    def has_passed(self, number: int) -> bool:
        """Whether everything before the cut has been published: the instrument can be let go."""
        return number in self._cuts and self._passed[number] >= set(self._cuts[number])

    def cut(self, number: int, firsts: Cuts) -> Cuts:
        """Agree where the other worker takes over."""
        known = self._cuts.get(number)
        if known is not None:
            return dict(known)
        cuts = {}
        for kind in _KINDS:
            last = self._last.get((number, kind))
            floor = self._floors.get(number, {}).get(kind)
            if floor is not None:
                last = max(floor - 1, last or 0)  # what lies before was published by the worker before this one
            first = firsts.get(kind)
            if first is not None:
                cuts[kind] = first if last is None else max(first, last + 1)
            elif last is not None:
                cuts[kind] = last + 1
        self._cuts[number] = cuts
        # A kind of which neither side knows when the next tick comes must not hold up the end.
        self._passed[number] = {k for k in cuts if k not in firsts or cuts[k] > firsts[k]}
        self._refresh(number)
        return dict(cuts)

    def activate(self, number: int, cuts: Cuts) -> TickArray:
        """Stop keeping back; returns the kept ticks from the cut on, to be published now."""
        kept = self._kept.pop(number, None)
        self._firsts.pop(number, None)
        if kept is None:
            return empty()
        if cuts:
            self._floors[number] = dict(cuts)
            if kept:
                self._floor_since[number] = int(kept[-1]["received_at"][0])
        self._refresh(number)
        if not kept:
            return empty()
        ticks = np.concatenate(kept)
        ticks = ticks[self._from_cut(ticks, cuts)]
        self._note(ticks)
        return ticks

    def forget(self, number: int) -> None:
        """The instrument is no longer carried."""
        for state in (self._kept, self._firsts, self._cuts, self._passed, self._floors, self._floor_since):
            state.pop(number, None)
        self._gone.add(number)
        for kind in _KINDS:
            self._last.pop((number, kind), None)
        self._refresh(number)

    def admit(self, ticks: TickArray) -> TickArray:
        """What of ``ticks`` may be published now."""
        special = self._special.take(ticks["instrument"], mode="clip")
        if special.any():
            allowed = ~special
            for index in np.flatnonzero(special):
                allowed[index] = self._allows(ticks[index : index + 1])
            ticks = ticks[allowed]
        self._note(ticks)
        return ticks

    def owned(self, ticks: TickArray) -> TickArray:
        """What of ``ticks`` that are no part of the stream may be published: not of what is kept back or let go."""
        hidden = [*self._kept, *self._cuts, *self._gone]
        if not hidden:
            return ticks
        return ticks[~np.isin(ticks["instrument"], np.array(hidden, dtype=np.int32))]

    def shown(self, books: DepthArray) -> DepthArray:
        """What of ``books`` may be published now: not what is kept back, nor what was let go.

        Of an instrument that moves both workers may show the book for a moment, which loses and doubles nothing.
        """
        hidden = [*self._kept, *self._gone]
        if not hidden:
            return books
        return books[~np.isin(books["instrument"], np.array(hidden, dtype=np.int32))]

    def _allows(self, tick: TickArray) -> bool:
        number = int(tick["instrument"][0])
        kind = TRADE if tick["flags"][0] & TRADE else QUOTE
        sequence = int(sequences(tick)[0])
        if number in self._gone:
            return False
        kept = self._kept.get(number)
        if kept is not None:
            kept.append(tick.copy())
            self._firsts[number].setdefault(kind, sequence)
            if len(kept) > KEEP:
                del kept[: KEEP // 10]
            return False
        if not self._is_from_floor(number, kind, sequence, int(tick["received_at"][0])):
            return False
        cuts = self._cuts.get(number)
        if cuts is None:
            return True
        cut = cuts.get(kind)
        if cut is None:
            return False  # neither side had seen this kind: it is the new worker's from its first tick on
        if sequence < cut:
            return True
        self._passed[number].add(kind)
        return False

    def _is_from_floor(self, number: int, kind: int, sequence: int, received_at: int) -> bool:
        floors = self._floors.get(number)
        if floors is None or kind not in floors:
            return True
        since = self._floor_since.setdefault(number, received_at)
        if sequence < floors[kind] and received_at - since <= LAG_NS:
            return False
        # In sequence from here on: this kind needs no more looking.
        del floors[kind]
        if not floors:
            del self._floors[number]
            self._floor_since.pop(number, None)
            self._refresh(number)
        return True

    def _from_cut(self, ticks: TickArray, cuts: Cuts) -> npt.NDArray[np.bool_]:
        keep = np.ones(len(ticks), dtype=np.bool_)
        order = sequences(ticks)
        for kind, cut in cuts.items():
            keep &= ~(((ticks["flags"] & kind) != 0) & (order < cut))
        return keep

    def _note(self, ticks: TickArray) -> None:
        if len(ticks) <= _FEW:
            for number, flags, *_, received_at, sequence in ticks.tolist():
                self._last[number, flags & (TRADE | QUOTE)] = sequence or received_at
            return
        numbers = ticks["instrument"].tolist()
        kinds = (ticks["flags"] & np.uint32(TRADE | QUOTE)).tolist()
        self._last.update(zip(zip(numbers, kinds, strict=True), sequences(ticks).tolist(), strict=True))

    def _refresh(self, number: int) -> None:
        if number + 1 >= len(self._special):
            more = np.zeros(max(number + 2, 2 * len(self._special)) - len(self._special), dtype=np.bool_)
            self._special = np.concatenate([self._special, more])
        states = (self._kept, self._cuts, self._floors, self._gone)
        self._special[number] = any(number in state for state in states)

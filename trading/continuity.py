"""Which trades were published, where a venue numbers them consecutively: a hole is seen with the very next trade.

A shell (a feed worker) drives it so: ``begin`` when it publishes an instrument from now on, with the number that must
come first where that is known (the cut of a hand-over, or how far the worker before it had come); ``refuse`` with what
the filter kept out; ``take`` with every batch *once it has been published*, filled-in trades too.  `take` returns the
holes that the batch shows.  ``claim`` gives the holes of an instrument to whoever fills them, each once; what is filled
in closes them as it is published, ``give_up`` those that cannot be filled.  ``end`` when the instrument is let go: what
was this worker's to publish before the cut and never came is a hole, too.

``dump`` tells all of this, so that a worker can go on where another was killed: `Marks` reads it, and what was
published after it was dumped.  Whatever loses a trade on its way (the provider, the connection, a full buffer, a bus
that was away, a process that was killed) shows as a hole here, for only what was published counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import numpy as np

from trading.ids import Nanos
from trading.ticks import BACKFILLED, SNAPSHOT, TRADE, TickArray

_KIND: Final = TRADE | SNAPSHOT | BACKFILLED
#: A number that far ahead is no hole: the venue counts anew, or the tick is garbage.
MOST_MISSING: Final = 1_000_000
#: So many trades in a row below what was published show that the venue counts anew.
_ANEW: Final = 100
#: Refused trades that are remembered of an instrument until one after them is published.
_MOST_REFUSED: Final = 20_000
_NEXT, _AT, _RECEIVED = range(3)
#: Batches up to this long are quicker trade by trade.
_SMALL: Final = 64
#: Rows of a dump: how far an instrument has come (number, next, venue time, receipt, cut); a hole (number, first,
#: last, since, until, venue time before it).
_STATE, _HOLE = 0, 1
_WIDTH: Final = 7


class Hole(msgspec.Struct, frozen=True):
    """Trades ``first`` to ``last`` were not published."""

    first: int
    last: int
    #: Receipt of the last trade published before, and of the first one after (0: not known).
    since: Nanos
    until: Nanos
    #: Venue time of the trade before (0: not known).
    begin: Nanos

    def __len__(self) -> int:
        return self.last - self.first + 1


class Mark(msgspec.Struct, frozen=True):
    """How far a worker had come with an instrument."""

    #: The number that must come next, and of the trade before it venue time and receipt.
    next: int
    at: Nanos
    received_at: Nanos
    #: From this number on it is another worker's (0: it is nobody else's).
    cut: int = 0

    @property
    def begin(self) -> int:
        """Where whoever carries it from now on begins: what lies before a cut stays with the worker that had it."""
        return max(self.next, self.cut)


#: No marks.
NOBODYS: Final[Mapping[int, Mark]] = {}


class Continuity:
    """The numbered trades of one worker."""

    def __init__(self) -> None:
        #: By instrument number what must come next (0: any), and of the last trade venue time and receipt.
        self._last: dict[int, list[int]] = {}
        #: By instrument number: holes that nobody fills yet, and those that somebody does.
        self._open: dict[int, list[Hole]] = {}
        self._claimed: dict[int, list[Hole]] = {}
        self._refused: dict[int, set[int]] = {}
        #: By number, trades in a row that came with numbers below what was published.
        self._below: dict[int, int] = {}
        #: Numbers of what this worker publishes.
        self.carried: set[int] = set()

    def __repr__(self) -> str:
        holes = sum(len(each) for each in self._open.values())
        return f"<Continuity {len(self.carried)} instruments, {holes} holes>"

    def begin(self, number: int, mark: Mark | None = None) -> None:
        """Publish an instrument from here on; without a mark the first trade that is published begins it."""
        self.carried.add(number)
        self._last[number] = [0, 0, 0] if mark is None else [mark.begin, mark.at, mark.received_at]
        self._below.pop(number, None)

    def end(self, number: int, cut: int = 0) -> Hole | None:
        """Let an instrument go; returns the hole before ``cut``, from which on it is another worker's."""
        if number not in self.carried:
            return None
        self.carried.discard(number)
        expected, at, received = self._last.pop(number)
        hole = None
        if cut and expected:
            hole = self._hole(number, expected, cut - 1, Nanos(received), Nanos(0), Nanos(at))
        self._refused.pop(number, None)
        return hole

    def refuse(self, ticks: TickArray) -> None:
        """Ticks were kept out for being bad: they are no holes."""
        is_one = ((ticks["flags"] & np.uint32(_KIND)) == TRADE) & (ticks["sequence"] > 0)
        for number, sequence in zip(
            ticks["instrument"][is_one].tolist(), ticks["sequence"][is_one].tolist(), strict=True
        ):
            known = self._refused.setdefault(number, set())
            if len(known) < _MOST_REFUSED:
                known.add(sequence)

    def take(self, ticks: TickArray) -> list[tuple[int, Hole]]:
        """Ticks have been published; returns the holes that they show, with the instruments' numbers."""
        if len(ticks) > _SMALL:
            kinds = ticks["flags"] & np.uint32(_KIND)
            if self._claimed and (is_old := kinds == (TRADE | BACKFILLED)).any():
                self._fill(ticks[is_old])
            is_one = (kinds == TRADE) & (ticks["sequence"] > 0)
            return self._take_many(ticks if is_one.all() else ticks[is_one])
        found: list[tuple[int, Hole]] = []
        known = self._last
        for number, flags, at, received, sequence in zip(
            *(ticks[field].tolist() for field in ("instrument", "flags", "exchange_at", "received_at", "sequence")),
            strict=True,
        ):
            kind = flags & _KIND
            if kind == TRADE and sequence > 0:
                last = known.get(number)
                if last is None or last[_NEXT] == sequence or not last[_NEXT]:
                    known[number] = [sequence + 1, at, received]
                    if self._below:
                        self._below.pop(number, None)
                else:
                    found += self._take_odd(number, last, at, received, sequence)
            elif kind == TRADE | BACKFILLED and number in self._claimed:
                left = [run for hole in self._claimed[number] for run in less(hole, {sequence})]
                self._keep(number, left)
        return found

    def _take_many(self, ticks: TickArray) -> list[tuple[int, Hole]]:
        """As `take`, for trades that were streamed: a batch without a hole is seen to be so as a whole."""
        if not len(ticks):
            return []
        order = np.argsort(ticks["instrument"], kind="stable")
        numbers, sequences = ticks["instrument"][order], ticks["sequence"][order]
        is_first = np.empty(len(numbers), dtype=np.bool_)
        is_first[0] = True
        np.not_equal(numbers[1:], numbers[:-1], out=is_first[1:])
        firsts = np.flatnonzero(is_first)
        mine = numbers[firsts].tolist()
        known = self._last
        following = np.array([known[number][_NEXT] if number in known else 0 for number in mine], dtype=np.int64)
        expected = np.empty(len(numbers), dtype=np.int64)
        expected[1:] = sequences[:-1] + 1
        expected[firsts] = np.where(following, following, sequences[firsts])
        found: list[tuple[int, Hole]] = []
        odd: set[int] = set()
        if (is_odd := sequences != expected).any():
            odd = set(numbers[is_odd].tolist())
            these = ticks[order[np.isin(numbers, np.array(sorted(odd), dtype=np.int32))]]
            for start in range(0, len(these), _SMALL):
                found += self.take(these[start : start + _SMALL])
        lasts = order[np.append(firsts[1:], len(numbers)) - 1]
        for number, *row in zip(
            mine, (ticks["sequence"][lasts] + 1).tolist(), ticks["exchange_at"][lasts].tolist(),
            ticks["received_at"][lasts].tolist(), strict=True,
        ):  # fmt: skip
            if number not in odd:
                known[number] = row
                self._below.pop(number, None)
        return found

    def _take_odd(self, number: int, last: list[int], at: int, received: int, sequence: int) -> list[tuple[int, Hole]]:
        """A trade that is not the one that must come next."""
        expected, before_at, before = last
        if not self._is_credible(number, sequence, expected, is_newer=received > before):
            self._came_late(number, sequence)
            return []
        found = []
        if expected < sequence <= expected + MOST_MISSING:
            for first, end in self._not_refused(number, expected, sequence):
                hole = self._hole(number, first, end, Nanos(before), Nanos(received), Nanos(before_at))
                if hole is not None:
                    found.append((number, hole))
        self._below.pop(number, None)
        self._last[number] = [sequence + 1, at, received]
        if (refused := self._refused.get(number)) and min(refused) <= sequence:
            self._refused[number] = {each for each in refused if each > sequence}
        return found

    def _came_late(self, number: int, sequence: int) -> None:
        """A trade that was taken for missing was only late."""
        for holes in (self._open, self._claimed):
            mine = holes.get(number)
            if mine and any(hole.first <= sequence <= hole.last for hole in mine):
                left = [run for hole in mine for run in less(hole, {sequence})]
                if left:
                    holes[number] = left
                else:
                    del holes[number]

    def _is_credible(self, number: int, sequence: int, expected: int, *, is_newer: bool) -> bool:
        """Whether it goes on from this number: not from a late one, nor from one far ahead that stays alone."""
        if expected < sequence <= expected + MOST_MISSING:
            return True
        self._below[number] = self._below.get(number, 0) + is_newer
        return self._below[number] >= _ANEW

    def _not_refused(self, number: int, first: int, end: int) -> list[tuple[int, int]]:
        """``[first, end)`` less the trades that were kept out, as runs."""
        refused = sorted(each for each in self._refused.get(number, ()) if first <= each < end)
        runs = []
        for each in [*refused, end]:
            if first < each:
                runs.append((first, each - 1))
            first = each + 1
        return runs

    def _hole(self, number: int, first: int, last: int, since: Nanos, until: Nanos, begin: Nanos) -> Hole | None:
        if last < first:
            return None
        hole = Hole(first, last, since, until, begin)
        self._open.setdefault(number, []).append(hole)
        return hole

    # Holes

    def has_holes(self, number: int) -> bool:
        """Whether trades are missing that nobody fills in yet."""
        return number in self._open

    def holes(self, number: int) -> list[Hole]:
        """What lacks of an instrument and nobody fills in yet."""
        return list(self._open.get(number, ()))

    @property
    def owes(self) -> bool:
        """Whether any trades are missing, also those that somebody fills in just now."""
        return bool(self._open or self._claimed)

    def claim(self, number: int) -> list[Hole]:
        """The holes of an instrument, to be filled by whoever asks; each is given once."""
        mine = self._open.pop(number, [])
        if mine:
            self._claimed.setdefault(number, []).extend(mine)
        return mine

    def give_up(self, number: int, hole: Hole) -> None:
        """A hole that was claimed is not filled any further."""
        left = []
        for each in self._claimed.get(number, ()):
            if hole.last < each.first or hole.first > each.last:
                left.append(each)
                continue
            before = msgspec.structs.replace(each, last=hole.first - 1)
            after = msgspec.structs.replace(each, first=hole.last + 1)
            left += [run for run in (before, after) if run.first <= run.last]
        self._keep(number, left)

    def lose(self, ticks: TickArray) -> None:
        """Trades were to be filled in and did not get out: they lack again, for anybody to claim."""
        is_old = (ticks["flags"] & np.uint32(_KIND)) == (TRADE | BACKFILLED)
        for number in set(ticks["instrument"][is_old].tolist()) & self._claimed.keys():
            known = set(ticks["sequence"][is_old & (ticks["instrument"] == number)].tolist())
            left = [run for hole in self._claimed[number] for run in less(hole, known)]
            again = [run for hole in self._claimed[number] for run in _common(hole, known)]
            self._keep(number, left)
            if again:
                self._open.setdefault(number, []).extend(again)

    def adopt(self, number: int, holes: Iterable[Hole]) -> None:
        """Holes that a worker before this one left."""
        for hole in holes:
            self._open.setdefault(number, []).append(hole)

    def _fill(self, ticks: TickArray) -> None:
        for number in set(ticks["instrument"].tolist()) & self._claimed.keys():
            known = set(ticks["sequence"][ticks["instrument"] == number].tolist())
            self._keep(number, [run for hole in self._claimed[number] for run in less(hole, known)])

    def _keep(self, number: int, holes: list[Hole]) -> None:
        if holes:
            self._claimed[number] = holes
        else:
            self._claimed.pop(number, None)

    # What is known

    def received_at(self, number: int) -> Nanos:
        """Receipt of the last trade that was published (0: none was)."""
        last = self._last.get(number)
        return Nanos(0 if last is None else last[_RECEIVED])

    def dump(self, cuts: Mapping[int, int], left: Mapping[int, Mark] = NOBODYS) -> bytes:
        """All that is known, for `Marks`; ``cuts``: from which numbers on instruments are another worker's; ``left``:
        how far others had come with what is not carried here."""
        rows = [
            (_STATE, number, mark.begin, int(mark.at), int(mark.received_at), 0, 0) for number, mark in left.items()
        ]
        for number in self.carried:
            expected, at, received = self._last[number]
            if expected:
                rows.append((_STATE, number, expected, at, received, cuts.get(number, 0), 0))
        for holes in (self._open, self._claimed):
            for number, own in holes.items():
                rows += [(_HOLE, number, h.first, h.last, int(h.since), int(h.until), int(h.begin)) for h in own]
        return np.array(rows, dtype="<i8").tobytes()


class Marks:
    """What a worker left: read from its last dump and the notes on what it published since then (`note_of`)."""

    def __init__(self, dump: bytes = b"") -> None:
        self.marks: dict[int, Mark] = {}
        self.holes: dict[int, list[Hole]] = {}
        for kind, number, *row in np.frombuffer(dump, dtype="<i8").reshape(-1, _WIDTH).tolist():
            if kind == _STATE:
                self.marks[number] = Mark(row[0], Nanos(row[1]), Nanos(row[2]), row[3])
            else:
                self.holes.setdefault(number, []).append(Hole(row[0], row[1], *(Nanos(at) for at in row[2:])))

    def __repr__(self) -> str:
        return f"<Marks of {len(self.marks)} instruments, {sum(map(len, self.holes.values()))} with holes>"

    def replay(self, notes: Iterable[bytes]) -> None:
        """These batches were published after the dump, in this order."""
        again = Continuity()
        for number, mark in self.marks.items():
            again.begin(number, msgspec.structs.replace(mark, cut=0))
        for number, holes in self.holes.items():
            again.adopt(number, holes)
            again.claim(number)
        for note in notes:
            trades = np.frombuffer(note, dtype=NOTE)
            # An instrument of which the dump knew nothing begins with what was published.
            for number in set(trades["instrument"].tolist()) - again.carried:
                again.begin(number)
            for number, _ in again.take(trades):
                again.claim(number)
        after = Marks(again.dump({number: mark.cut for number, mark in self.marks.items()}))
        self.marks, self.holes = after.marks, after.holes

    def left_over(self) -> dict[int, list[Hole]]:
        """Holes that nobody else fills: those that the worker left, and what lies before the cuts."""
        found = {number: list(holes) for number, holes in self.holes.items()}
        for number, mark in self.marks.items():
            if mark.next < mark.cut:
                hole = Hole(mark.next, mark.cut - 1, mark.received_at, Nanos(0), mark.at)
                found.setdefault(number, []).append(hole)
        return found


#: What is noted of a trade that was published.
NOTE: Final = np.dtype(
    [("instrument", "<i4"), ("flags", "<u4"), ("exchange_at", "<i8"), ("received_at", "<i8"), ("sequence", "<i8")]
)


def note_of(ticks: TickArray) -> bytes:
    """What has to be noted with a batch that is published, for `Marks.replay`."""
    is_one = ((ticks["flags"] & np.uint32(TRADE | SNAPSHOT)) == TRADE) & (ticks["sequence"] > 0)
    mine = ticks[is_one]
    note = np.empty(len(mine), dtype=NOTE)
    for name in NOTE.names or ():
        note[name] = mine[name]
    return note.tobytes()


def _common(hole: Hole, known: set[int]) -> list[Hole]:
    """What of a hole is among these."""
    lacking = [(run.first, run.last) for run in less(hole, known)]
    runs, first = [], hole.first
    for begin, end in [*lacking, (hole.last + 1, hole.last + 1)]:
        if first < begin:
            runs.append(msgspec.structs.replace(hole, first=first, last=begin - 1))
        first = end + 1
    return runs


def less(hole: Hole, known: set[int]) -> list[Hole]:
    """What is left of a hole when these have come."""
    inside = sorted(each for each in known if hole.first <= each <= hole.last)
    runs, first = [], hole.first
    for each in [*inside, hole.last + 1]:
        if first < each:
            runs.append(msgspec.structs.replace(hole, first=first, last=each - 1))
        first = each + 1
    return runs

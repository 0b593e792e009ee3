"""What a listener has seen whole of each instrument: only that makes a bar, or its absence, the truth.

A feed worker says about once a second, in a `Beat`, since when its stream has been open without a break and how many
batches it has sent.  Whoever has all these batches has seen everything up to the beat.  A lost batch, a reconnection
on either side or a new incarnation of the worker ends what was seen, and it begins anew.
"""

from __future__ import annotations

from typing import Final

import msgspec

from trading.ids import Nanos
from trading.spans import Span, ceiling, whole_intervals
from trading.ticks import Senders


class Beat(msgspec.Struct, frozen=True, array_like=True):
    """A worker's word on its stream, sent after batch number ``batch``; times by the worker's clock."""

    shard: int
    epoch: int
    batch: int
    at: Nanos
    #: (number, since when every trade of it has been sent); instruments that are not live are left out.
    whole: tuple[tuple[int, Nanos], ...]
    #: Whether these trades are all that count in the provider's own bars.  If not, what was seen makes bars, but an
    #: absent one says nothing.
    every_trade: bool = True


#: A worker whose last beat is this much older than the newest one is not waited for.
STALE: Final = 10_000_000_000


class Seen:
    """What of each instrument was seen without a gap, until now.

    ``grace`` is how long a trade may be under way: a span begins that long after the stream did, and what counts as
    settled ends that long before the last beat.
    """

    def __init__(self, grace: int) -> None:
        self.grace = grace
        #: Batches that were lost on the way here.
        self.lost = 0
        self._senders = Senders()
        #: Shard -> epoch and number of its last batch here.
        self._last: dict[int, tuple[int, int]] = {}
        #: Shards whose batches are not complete since their last beat.
        self._torn: set[int] = set()
        #: Shard -> time of the first beat after the last loss.
        self._from: dict[int, int] = {}
        #: Shard -> time of the last beat up to which everything is here.
        self._heard: dict[int, int] = {}
        self._spans: dict[int, Span] = {}
        #: Instruments of which not every trade comes.
        self._sampled: set[int] = set()
        #: What was seen before it began anew.
        self._past: list[tuple[int, Span]] = []

    def __repr__(self) -> str:
        return f"<Seen {len(self._spans)} instruments lost={self.lost} torn={sorted(self._torn)}>"

    def batch(self, epoch: int, sequence: int, shard: int) -> bool:
        """Take note of a batch; False: it is of an older incarnation, or came before, and must not be used."""
        known = self._last.get(shard)
        missed = self._senders.missed(epoch, sequence, shard)
        if missed is None:
            return False
        if missed or known is None or epoch != known[0]:
            self.lost += missed
            self._torn.add(shard)
        self._last[shard] = (epoch, sequence)
        return True

    def broken(self) -> None:
        """The listener itself was cut off: nothing is known to be whole until each worker's next beat."""
        self._torn.update(self._last)
        self._torn.update(self._from)

    def spoil(self, number: int) -> None:
        """A trade of an instrument came too late to count: what is seen of it begins anew.

        Whoever keeps what was seen before has to take out the interval of that trade.
        """
        span = self._end(number)
        if span is not None:
            self._spans[number] = Span(span.end, span.end)

    def _end(self, number: int) -> Span | None:
        span = self._spans.pop(number, None)
        if span is not None and number not in self._sampled and span.end - span.start > 2 * self.grace:
            self._past.append((number, Span(span.start + self.grace, span.end - self.grace)))
        return span

    def past(self) -> list[tuple[int, Span]]:
        """What was seen whole, and is settled, before a loss; told once."""
        told, self._past = self._past, []
        return told

    def forget(self) -> None:
        """What was seen was not kept: nothing of it is known to be whole."""
        self.broken()
        self._spans.clear()
        self._past.clear()

    def beat(self, beat: Beat) -> bool:
        """Take a worker's word; whether all that it had sent is here.

        False where it is not, or where it is an older incarnation: then what it carries is not whole from before.
        """
        known = self._last.get(beat.shard)
        if known is not None and beat.epoch < known[0]:
            return False
        self._heard[beat.shard] = beat.at
        if known is None or known[0] != beat.epoch or known[1] < beat.batch:
            # The first that is heard of this worker, or batches that it has sent are not here.
            if known is not None and known[0] == beat.epoch:
                self.lost += beat.batch - known[1]
            self._senders.missed(beat.epoch, beat.batch, beat.shard)
            self._last[beat.shard] = (beat.epoch, beat.batch)
            self._torn.add(beat.shard)
        if beat.shard in self._torn:
            self._torn.discard(beat.shard)
            self._from[beat.shard] = beat.at
            for number, _ in beat.whole:
                self._end(number)
            return False
        numbers = {number for number, _ in beat.whole}
        self._sampled = self._sampled - numbers if beat.every_trade else self._sampled | numbers
        from_here = self._from[beat.shard]
        for number, since in beat.whole:
            start = max(int(since), from_here)
            span = self._spans.get(number)
            if span is not None and start <= span.end:
                self._spans[number] = Span(span.start, max(span.end, beat.at))
            else:
                self._end(number)
                self._spans[number] = Span(start, max(start, beat.at))
        return True

    def complete_until(self) -> Nanos:
        """The time up to which what was received by the workers is here or lost; one that has gone silent aside."""
        newest = max(self._heard.values(), default=0)
        return Nanos(min((at for at in self._heard.values() if at > newest - STALE), default=0))

    def whole(self, number: int, opened: int, width: int) -> bool:
        """Whether the interval has been seen from before its begin until after its end."""
        span = self._spans.get(number)
        return span is not None and span.start + self.grace <= opened and opened + width <= span.end

    def whole_since(self, number: int, width: int) -> int:
        """Since when all intervals have been seen whole; ask it of an instrument of which one is `whole`."""
        return ceiling(self._spans[number].start + self.grace, width)

    def settled(self, width: int) -> dict[int, Span]:
        """By instrument, the whole intervals in which nothing more can change; those without any are left out."""
        found = {}
        until = self.complete_until()
        for number, span in self._spans.items():
            if number in self._sampled:
                continue
            inner = whole_intervals(Span(span.start + self.grace, min(span.end, until) - self.grace), width)
            if inner.start < inner.end:
                found[number] = inner
        return found

"""What a feed worker says of itself a few times a second, for REST and metrics."""

from __future__ import annotations

import msgspec

from actors.feed_carrier import FeedCarrier
from actors.feed_figures import FeedFigures
from actors.feed_outlet import FeedOutlet
from actors.feed_quality import FeedQuality
from actors.feed_second import FeedSecond, SecondStats
from actors.feed_watch import FeedWatch
from trading.ids import InstrumentId, Nanos


class StreamState(msgspec.Struct):
    """How a worker's stream goes: counts since the worker began."""

    connected: bool = False
    reason: str = "connecting"
    opened_at: Nanos = Nanos(0)
    garbage: int = 0
    reconnects: int = 0


class InstrumentStats(msgspec.Struct, frozen=True, kw_only=True):
    """How one instrument goes: ticks so far, age of the last one in seconds (None: none yet), its state and why."""

    id: InstrumentId
    phase: str
    ticks: int
    age_s: float | None
    #: ``pending``, ``live``, ``stale``, ``failed`` (`trading.freshness`), with the reason and since when.
    state: str
    reason: str
    since: Nanos
    #: Silence that is still usual, in seconds.
    patience_s: float
    #: Ticks per second over the last seconds.
    rate: float
    #: Times that ticks may have been missing, since this worker carries it.
    gaps: int
    #: Refused as bad.
    quarantined: int
    #: Receipt less venue time in milliseconds, median and 99 in a hundred; None: not known.
    skew_ms: float | None
    skew_p99_ms: float | None
    #: Whether it is asked for by REST meanwhile.
    polled: bool
    #: Its second provider; None where it has none.
    second: SecondStats | None


class WorkerStats(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker goes; rates are per second over the last half second or so."""

    feed: str
    shard: int
    epoch: int
    node: str
    connected: bool
    reason: str
    at: Nanos
    ticks: int
    rate: float
    batches: int
    garbage: int
    reconnects: int
    unpublished: int
    #: Ticks that came from the stream, bad ones among them, and ticks that were filled in or polled.
    received: int
    quarantined: int
    #: Good ticks that are another worker's to publish, or kept back for a move.
    withheld: int
    backfilled: int
    polled: int
    #: Ticks that were published of second providers, instruments that come from one now, switches between the two,
    #: ticks that both had sent, and batches of second providers that did not come here.
    from_second: int
    by_second: int
    second_switches: int
    second_doubles: int
    second_lost: int
    resubscribed: int
    #: Connections that were given up for their silence.
    given_up: int
    gaps: int
    unfilled_gaps: int
    #: Refused ticks by reason, and instruments by state.
    refused_ticks: dict[str, int]
    states: dict[str, int]
    #: Median of receipt less venue time over the instruments, in milliseconds.
    skew_ms: float | None
    instruments: tuple[InstrumentStats, ...]


class FeedStats:
    """Gathers them from the parts of one worker."""

    def __init__(
        self,
        stream: StreamState,
        carrier: FeedCarrier,
        outlet: FeedOutlet,
        watch: FeedWatch,
        quality: FeedQuality,
        second: FeedSecond,
    ) -> None:
        self._stream = stream
        self._carrier = carrier
        self._outlet = outlet
        self._watch = watch
        self._quality = quality
        self._second = second
        self.figures = FeedFigures(quality.filter)

    def look(self) -> None:
        """Work out rates and skews anew, if it is time."""
        self._outlet.measure()
        self.figures.look([number for _, number, _ in self._carrier.numbers()], self._watch.freshness.habits)

    def worker(self, node: str, at: Nanos) -> WorkerStats:
        """Counts, rates and ages."""
        stream, outlet, watch, quality = self._stream, self._outlet, self._watch, self._quality
        return WorkerStats(
            feed=outlet.feed,
            shard=outlet.shard,
            epoch=outlet.epoch,
            node=node,
            connected=stream.connected,
            reason=stream.reason,
            at=at,
            ticks=outlet.published,
            rate=round(outlet.rate, 1),
            batches=outlet.batches,
            garbage=stream.garbage,
            reconnects=stream.reconnects,
            unpublished=outlet.unpublished,
            received=quality.received,
            quarantined=quality.refused,
            withheld=outlet.withheld,
            backfilled=outlet.backfilled,
            polled=outlet.polled,
            from_second=outlet.from_second,
            by_second=len(self._second.arbiter.by_second()),
            second_switches=self._second.arbiter.switches,
            second_doubles=self._second.arbiter.doubles,
            second_lost=self._second.lost,
            resubscribed=watch.resubscribed,
            given_up=watch.reconnects,
            gaps=sum(watch.gaps.counts.values()),
            unfilled_gaps=watch.gaps.unfilled,
            refused_ticks=quality.filter.quarantine.counts(),
            states=watch.freshness.counts(),
            skew_ms=self.figures.skew_ms,
            instruments=tuple(
                self._instrument(id_, number, at)
                for id_, number, _ in self._carrier.numbers()
                if id_ in watch.freshness
            ),
        )

    def _instrument(self, id_: InstrumentId, number: int, at: Nanos) -> InstrumentStats:
        report = self._watch.report(id_, at)
        figures = self.figures.of(number)
        return InstrumentStats(
            id=id_,
            phase=str(self._carrier.phase(number)),
            ticks=self._outlet.ticks_of(number),
            age_s=report.age_s,
            state=str(report.state),
            reason=report.reason,
            since=report.since,
            patience_s=report.patience_s,
            rate=figures.rate,
            gaps=self._watch.gaps.counts.get(id_, 0),
            quarantined=self._quality.filter.quarantine.count(number),
            skew_ms=figures.skew_ms,
            skew_p99_ms=figures.skew_p99_ms,
            polled=report.polled,
            second=self._second.report(number),
        )

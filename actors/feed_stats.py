"""What a feed worker says of itself a few times a second, for REST and metrics."""

from __future__ import annotations

import msgspec

from trading.ids import InstrumentId, Nanos


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

"""A feed coordinator's core: who carries what, and the next steps towards who should.

Level-triggered: every call compares the wanted assignment with what the workers say they truly carry and names
the next step for each instrument.  A lost step is simply named again.  Moves are make-before-break, see
`trading.handover`.  `trading.feed_mesh` drives it with what is remembered from one look to the next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from trading.handover import Cuts
from trading.ids import Epoch, InstrumentId, Nanos
from trading.ticks import QUOTE, TRADE

#: A move does not wait longer for the first ticks of an instrument that is silent.  No stream lags by so much.
MOVE_NS: Final = 10_000_000_000
#: A subscription of which nothing has come for so long, while another worker had ticks for at least `SETTLE_NS` of it,
#: was passed over by the provider.
IGNORED_NS: Final = 8_000_000_000
SETTLE_NS: Final = 3_000_000_000
#: The channel in which a kind of tick comes.
CHANNEL_OF: Final = {TRADE: "trade", QUOTE: "quote"}


class Phase(StrEnum):
    """How a worker carries an instrument."""

    LIVE = "live"
    MUTED = "muted"
    ENDING = "ending"


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument at one worker, by the worker's own word."""

    phase: Phase
    since: Nanos
    #: MUTED: the first sequences kept.
    firsts: Cuts
    #: ENDING: everything before the cut has been published.
    passed: bool
    #: LIVE: the kinds of tick that come.
    kinds: tuple[int, ...] = ()
    #: When the last tick came from the provider; 0: none yet.
    last_at: Nanos = Nanos(0)
    #: What the provider was asked for; () where the worker does not say.
    channels: tuple[str, ...] = ()


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker truly carries."""

    shard: int
    epoch: Epoch
    carried: dict[InstrumentId, Carried]


class Carry(msgspec.Struct, frozen=True):
    """Take instruments, publishing at once or ``muted`` until activated."""

    shard: int
    instruments: tuple[InstrumentId, ...]
    muted: bool
    #: What to ask the provider for; () means what the feed streams.
    channels: tuple[str, ...] = ()


class Retune(msgspec.Struct, frozen=True):
    """Stream other channels of instruments that are carried: ask for those that are new, then end the others."""

    shard: int
    instruments: tuple[InstrumentId, ...]
    channels: tuple[str, ...]


class Move(msgspec.Struct, frozen=True):
    """Cut an instrument at ``source`` where ``target`` takes over, then activate it there."""

    instrument: InstrumentId
    source: int | None
    target: int
    firsts: Cuts


class Release(msgspec.Struct, frozen=True):
    """Stop carrying instruments."""

    shard: int
    instruments: tuple[InstrumentId, ...]


FeedStep = Carry | Retune | Move | Release


def next_steps(
    wanted: Mapping[int, Sequence[InstrumentId]],
    workers: Mapping[int, WorkerReport],
    now: Nanos,
    *,
    channels: Mapping[InstrumentId, tuple[str, ...]] | None = None,
    limit: int | None = None,
    heard: Collection[int] | None = None,
    barred: Collection[tuple[InstrumentId, int]] = (),
) -> list[FeedStep]:
    """The steps that can be taken now.  Empty: the workers carry what they should.

    ``channels`` are those wanted of each instrument; ``limit`` the most that a worker may carry at any moment, with
    what comes and goes; ``heard`` the workers whose report is of now (None: all), for nothing is done on the word of
    another; ``barred`` names workers that are not given an instrument that another one carries.
    """
    asked = channels or {}
    fresh = workers.keys() if heard is None else set(heard)
    target_of = {instrument: shard for shard, mine in wanted.items() for instrument in mine}
    carriers: dict[InstrumentId, dict[int, Carried]] = {}
    for shard, report in workers.items():
        for instrument, how in report.carried.items():
            carriers.setdefault(instrument, {})[shard] = how
    carry: list[tuple[bool, int, InstrumentId]] = []
    retune: dict[tuple[int, tuple[str, ...]], list[InstrumentId]] = {}
    release: dict[int, list[InstrumentId]] = {}
    moves: list[FeedStep] = []
    for instrument, target in target_of.items():
        here = carriers.get(instrument, {})
        live = _longest(here, Phase.LIVE, target)
        if live is None and (move := _unfinished(instrument, here)) is not None:
            # Cut, or its carrier gone, and not taken over yet: that first, wherever it was meant to go.
            moves.append(move)
            continue
        if live is not None and (lacks := asked.get(instrument, ())):
            # Whoever is to take over as well: a kind that it does not ask for would be missing from the cut on.
            for shard, how in here.items():
                if how.phase is not Phase.ENDING and how.channels not in ((), lacks):
                    retune.setdefault((shard, lacks), []).append(instrument)
        if live is not None and live in fresh:
            # Where it was on its way to before, nothing is needed of it any more.  By the carrier's word of now: it
            # may have been cut since it was last heard, and then the muted one has all that came after.
            for shard, how in here.items():
                if how.phase is Phase.MUTED and shard != target:
                    release.setdefault(shard, []).append(instrument)
        if target not in fresh:
            continue
        mine = here.get(target)
        is_barred = live is not None and live != target and (instrument, target) in barred
        if mine is None:
            if not is_barred:
                carry.append((live is not None, target, instrument))
        elif mine.phase is Phase.ENDING:
            # It had been given away but is wanted here again: start afresh once all before the cut is out.
            if live is None or _is_over(mine, now):
                release.setdefault(target, []).append(instrument)
        elif mine.phase is Phase.MUTED:
            if is_barred and live not in fresh:
                continue
            if is_barred:
                release.setdefault(target, []).append(instrument)
            elif _has_begun(mine, here, live, asked.get(instrument, ())) or now - mine.since > MOVE_NS:
                moves.append(Move(instrument, live, target, mine.firsts))
        elif (live := _with_ticks(here, mine)) is not None:
            # Both publish, which no move brings about; the one that has the ticks is kept, and it moves as others do.
            if live in fresh:
                release.setdefault(target, []).append(instrument)
        else:
            for shard, how in here.items():
                if shard != target and (how.phase is Phase.LIVE or (how.phase is Phase.ENDING and _is_over(how, now))):
                    release.setdefault(shard, []).append(instrument)
    for instrument, here in carriers.items():
        if instrument not in target_of:
            for shard in here:
                release.setdefault(shard, []).append(instrument)
    steps: list[FeedStep] = _that_fit(carry, workers, limit, asked)
    steps += [Retune(shard, tuple(mine), lacks) for (shard, lacks), mine in sorted(retune.items())]
    steps += moves
    steps += [Release(shard, tuple(mine)) for shard, mine in sorted(release.items())]
    return [step for step in steps if _shards(step) <= fresh]


def ignored(reports: Iterable[WorkerReport], now: Nanos) -> set[tuple[InstrumentId, int]]:
    """Instruments that a worker asked for and got nothing of, while another one gets ticks of them all along.

    The provider has passed the subscription over in silence, so the move must not go on.
    """
    live_at: dict[InstrumentId, Nanos] = {}
    muted: list[tuple[InstrumentId, int, Nanos]] = []
    for report in reports:
        for instrument, how in report.carried.items():
            if how.phase is Phase.LIVE:
                live_at[instrument] = max(how.last_at, live_at.get(instrument, Nanos(0)))
            elif how.phase is Phase.MUTED and not how.firsts:
                muted.append((instrument, report.shard, how.since))
    return {
        (instrument, shard)
        for instrument, shard, since in muted
        if now - since > IGNORED_NS and live_at.get(instrument, 0) - since > SETTLE_NS
    }


def _has_begun(mine: Carried, here: Mapping[int, Carried], live: int | None, channels: tuple[str, ...]) -> bool:
    """Whether the muted carrier has every kind: of one that is not there the old worker may have the only ticks."""
    if live is None or not mine.firsts:
        return False
    # A kind that is wanted no more does not come, and need not.
    over = {kind for kind in here[live].kinds if channels and CHANNEL_OF[kind] not in channels}
    return mine.firsts.keys() >= set(here[live].kinds) - over


def _that_fit(
    carry: Iterable[tuple[bool, int, InstrumentId]],
    workers: Mapping[int, WorkerReport],
    limit: int | None,
    channels: Mapping[InstrumentId, tuple[str, ...]],
) -> list[FeedStep]:
    """Those that workers have room for now; first those that nobody carries.  The others wait for a release."""
    taken = {shard: len(report.carried) for shard, report in workers.items()}
    groups: dict[tuple[int, bool, tuple[str, ...]], list[InstrumentId]] = {}
    for muted, shard, instrument in sorted(carry, key=lambda each: each[0]):
        if limit is not None and taken[shard] >= limit:
            continue
        taken[shard] += 1
        groups.setdefault((shard, muted, channels.get(instrument, ())), []).append(instrument)
    return [Carry(shard, tuple(mine), muted, of) for (shard, muted, of), mine in sorted(groups.items())]


def _shards(step: FeedStep) -> set[int]:
    if isinstance(step, Move):
        return {step.target} if step.source is None else {step.source, step.target}
    return {step.shard}


def _with_ticks(here: Mapping[int, Carried], mine: Carried) -> int | None:
    """Another worker that publishes what ``mine`` has no tick of."""
    if mine.last_at:
        return None
    return next((shard for shard, how in here.items() if how.phase is Phase.LIVE and how.last_at), None)


def _is_over(ending: Carried, now: Nanos) -> bool:
    return ending.passed or now - ending.since > MOVE_NS


def _longest(here: Mapping[int, Carried], phase: Phase, but: int | None = None) -> int | None:
    """The worker that has carried in this way for longest, ``but`` last of all."""
    found = [(shard == but, how.since, shard) for shard, how in here.items() if how.phase is phase]
    return min(found)[2] if found else None


def _unfinished(instrument: InstrumentId, here: Mapping[int, Carried]) -> Move | None:
    """What lets a muted carrier take over from one that was cut or is gone; None where no carrier is muted."""
    # The one that has kept for longest: another may have begun after the cut.
    muted = _longest(here, Phase.MUTED)
    if muted is None:
        return None
    ending = [(how.since, shard) for shard, how in here.items() if how.phase is Phase.ENDING]
    return Move(instrument, max(ending)[1] if ending else None, muted, here[muted].firsts)

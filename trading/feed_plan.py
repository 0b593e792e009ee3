"""A feed coordinator's core: who carries what, and the next steps towards who should.

Level-triggered: every call compares the wanted assignment with what the workers say they truly carry and names
the next step for each instrument.  A lost step is simply named again.  Moves are make-before-break, see
`trading.handover`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from trading.handover import Cuts
from trading.ids import Epoch, InstrumentId, Nanos

#: A move does not wait longer for the first ticks of an instrument that is silent.  No stream lags by so much.
MOVE_NS: Final = 10_000_000_000


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


FeedStep = Carry | Move | Release


def next_steps(
    wanted: Mapping[int, Sequence[InstrumentId]], workers: Mapping[int, WorkerReport], now: Nanos
) -> list[FeedStep]:
    """The steps that can be taken now.  Empty: the workers carry what they should."""
    target_of = {instrument: shard for shard, mine in wanted.items() for instrument in mine}
    carriers: dict[InstrumentId, dict[int, Carried]] = {}
    for shard, report in workers.items():
        for instrument, how in report.carried.items():
            carriers.setdefault(instrument, {})[shard] = how
    carry: dict[tuple[int, bool], list[InstrumentId]] = {}
    release: dict[int, list[InstrumentId]] = {}
    moves: list[FeedStep] = []
    for instrument, target in target_of.items():
        here = carriers.get(instrument, {})
        live = _longest(here, Phase.LIVE, target)
        if live is None and (move := _unfinished(instrument, here)) is not None:
            # Cut, or its carrier gone, and not taken over yet: that first, wherever it was meant to go.
            moves.append(move)
            continue
        if target not in workers:
            continue
        mine = here.get(target)
        others = {s: how for s, how in here.items() if s != target}
        if mine is None:
            carry.setdefault((target, live is not None), []).append(instrument)
        elif mine.phase is Phase.ENDING:
            # It had been given away but is wanted here again: start afresh once all before the cut is out.
            if live is None or _is_over(mine, now):
                release.setdefault(target, []).append(instrument)
        elif mine.phase is Phase.MUTED:
            # With every kind there: of one that is not, the old worker may have ticks that the new one never gets.
            is_there = bool(mine.firsts) and live is not None and mine.firsts.keys() >= set(here[live].kinds)
            if is_there or now - mine.since > MOVE_NS:
                moves.append(Move(instrument, live, target, mine.firsts))
        else:
            for shard, how in others.items():
                if how.phase is not Phase.ENDING or _is_over(how, now):
                    release.setdefault(shard, []).append(instrument)
    for instrument, here in carriers.items():
        if instrument not in target_of:
            for shard in here:
                release.setdefault(shard, []).append(instrument)
    steps: list[FeedStep] = [Carry(shard, tuple(mine), muted) for (shard, muted), mine in sorted(carry.items())]
    steps += moves
    steps += [Release(shard, tuple(mine)) for shard, mine in sorted(release.items())]
    return steps


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

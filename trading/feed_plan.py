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

#: A move does not wait longer for the first tick of an instrument that is silent on both sides.
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
        if target not in workers:
            continue
        here = carriers.get(instrument, {})
        others = {s: how for s, how in here.items() if s != target}
        live = next((s for s, how in others.items() if how.phase is Phase.LIVE), None)
        mine = here.get(target)
        if mine is None:
            carry.setdefault((target, live is not None), []).append(instrument)
        elif mine.phase is Phase.MUTED:
            if live is None or mine.firsts or now - mine.since > MOVE_NS:
                moves.append(Move(instrument, live, target, mine.firsts))
        elif mine.phase is Phase.ENDING:
            # It had been given away but is wanted here again: start afresh once the others are out of it.
            release.setdefault(target, []).append(instrument)
        if mine is not None and mine.phase is Phase.LIVE:
            for shard, how in others.items():
                if how.phase is not Phase.ENDING or how.passed or now - how.since > MOVE_NS:
                    release.setdefault(shard, []).append(instrument)
    for instrument, here in carriers.items():
        if instrument not in target_of:
            for shard in here:
                release.setdefault(shard, []).append(instrument)
    steps: list[FeedStep] = [Carry(shard, tuple(mine), muted) for (shard, muted), mine in sorted(carry.items())]
    steps += moves
    steps += [Release(shard, tuple(mine)) for shard, mine in sorted(release.items())]
    return steps

"""Which feed worker carries which instrument: an even split, moving as little as can be.

Sizes differ by at most one.  A *move* takes an instrument from one worker to another; the least possible
number of moves is made when workers or instruments come and go.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from trading.errors import BadInput
from trading.ids import InstrumentId


def assign(
    current: Mapping[int, Sequence[InstrumentId]],
    wanted: Collection[InstrumentId],
    workers: int | Collection[int],
    limit: int | None = None,
) -> dict[int, tuple[InstrumentId, ...]]:
    """Split ``wanted`` over the workers, keeping as much of ``current`` in place as can be.

    ``workers`` is their number, for ``0 … workers - 1``, or says which there are.  An instrument that several
    workers carry (a move under way) stays with the one that carries fewest.  Where ``limit`` instruments to a
    worker cannot hold all, what is carried nowhere is left out first.  The answer depends on nothing but the
    arguments' contents.  Raises `BadInput` where there are no workers.
    """
    shards = sorted(set(range(workers) if isinstance(workers, int) else workers))
    if not shards:
        raise BadInput("workers", f"{len(shards)} workers cannot carry anything; ask for at least 1")
    missing = set(wanted)
    small, larger = _sizes(len(missing), len(shards), limit)
    kept: dict[int, list[InstrumentId]] = {worker: [] for worker in shards}
    for worker in sorted(kept, key=lambda w: (len(current.get(w, ())), w)):
        for instrument in current.get(worker, ()):
            if instrument in missing:
                missing.remove(instrument)
                kept[worker].append(instrument)
    # The places that hold one more go to those that would else have to give most away: each keeps one more.
    fullest = sorted(kept, key=lambda w: (-len(kept[w]), w))
    room = {worker: small + (place < larger) for place, worker in enumerate(fullest)}
    moving: set[InstrumentId] = set()
    for worker, carried in kept.items():
        moving.update(carried[room[worker] :])
        del carried[room[worker] :]
    homeless = iter([*sorted(moving), *sorted(missing)])
    for worker, carried in kept.items():
        carried.extend(islice(homeless, room[worker] - len(carried)))
    return {worker: tuple(carried) for worker, carried in kept.items()}


def _sizes(instruments: int, workers: int, limit: int | None) -> tuple[int, int]:
    """How many each worker holds, and how many workers hold one more."""
    small, larger = divmod(instruments, workers)
    return (small, larger) if limit is None or small + (larger > 0) <= limit else (limit, 0)


def least_moves(
    current: Mapping[int, Sequence[InstrumentId]], wanted: Collection[InstrumentId], workers: int | Collection[int]
) -> int:
    """The fewest `moves` with which any even split can be reached from ``current``.

    With ``n`` instruments on ``w`` workers ``n mod w`` of them hold ``n div w + 1``, the others ``n div w``.  A worker
    that carries ``h`` of the wanted ones keeps at most as many as it may hold, so most stay in place when the
    workers that carry most are those that hold one more; what is carried somewhere and cannot stay moves.  `assign`
    needs exactly as many.  For instruments that one worker carries; raises `BadInput` where there are no workers.
    """
    shards = set(range(workers) if isinstance(workers, int) else workers)
    if not shards:
        raise BadInput("workers", "no workers cannot carry anything; ask for at least 1")
    sought = set(wanted)
    held = {worker: sum(instrument in sought for instrument in own) for worker, own in current.items()}
    small, larger = divmod(len(sought), len(shards))
    most = sorted((held.get(worker, 0) for worker in shards), reverse=True)
    stay = sum(min(count, small + (place < larger)) for place, count in enumerate(most))
    return sum(held.values()) - stay


def moves(
    before: Mapping[int, Sequence[InstrumentId]], after: Mapping[int, Sequence[InstrumentId]]
) -> dict[InstrumentId, tuple[int, int]]:
    """Instruments that change worker, each with the worker it leaves and the one it goes to."""
    home = {instrument: worker for worker, carried in before.items() for instrument in carried}
    return {
        instrument: (home[instrument], worker)
        for worker, carried in after.items()
        for instrument in carried
        if instrument in home and instrument not in before.get(worker, ())
    }


def check_capacity(
    instruments: int, workers: int, *, instruments_per_worker: int, max_workers: int, provider: str
) -> None:
    """Raise `BadInput`, saying what would fit, unless the provider allows this many on this many workers."""
    if workers < 1:
        raise BadInput("workers", f"{workers} workers cannot carry anything; ask for at least 1")
    most = instruments_per_worker * max_workers
    if workers > max_workers:
        raise BadInput("workers", f"{workers} is beyond the {max_workers} connections that {provider} allows")
    if instruments > most:
        raise BadInput(
            "instruments",
            f"{provider} carries at most {most} instruments ({max_workers} workers of "
            f"{instruments_per_worker}); take away {instruments - most} of {instruments}",
        )
    needed = -(-instruments // instruments_per_worker)
    if workers < needed:
        raise BadInput(
            "workers",
            f"{instruments} instruments need at least {needed} workers at {provider} "
            f"({instruments_per_worker} on each); {workers} would carry {workers * instruments_per_worker}",
        )

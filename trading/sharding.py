"""Which feed worker carries which instrument: an even split, moving as little as can be.

Sizes differ by at most one.  A *move* takes an instrument from one worker to another; the least possible
number of moves is made when workers or instruments come and go.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from trading.errors import BadInput
from trading.ids import InstrumentId


def assign(
    current: Mapping[int, Sequence[InstrumentId]], wanted: Collection[InstrumentId], workers: int
) -> dict[int, tuple[InstrumentId, ...]]:
    """Split ``wanted`` over workers ``0 … workers - 1``, keeping as much of ``current`` in place as can be.

    An instrument that several workers carry (a move under way) stays with the one that carries fewest.  The
    answer depends on nothing but the arguments' contents.  Raises `BadInput` where ``workers`` is below 1.
    """
    if workers < 1:
        raise BadInput("workers", f"{workers} workers cannot carry anything; ask for at least 1")
    missing = set(wanted)
    small, larger = divmod(len(missing), workers)
    kept: dict[int, list[InstrumentId]] = {worker: [] for worker in range(workers)}
    for worker in sorted(kept, key=lambda w: (len(current.get(w, ())), w)):
        for instrument in current.get(worker, ()):
            if instrument in missing:
                missing.remove(instrument)
                kept[worker].append(instrument)
    # The places that hold one more go to those that would else have to give most away: each keeps one more.
    fullest = sorted(kept, key=lambda w: (-len(kept[w]), w))
    room = {worker: small + (place < larger) for place, worker in enumerate(fullest)}
    for worker, carried in kept.items():
        missing.update(carried[room[worker] :])
        del carried[room[worker] :]
    homeless = iter(sorted(missing))
    for worker, carried in kept.items():
        carried.extend(next(homeless) for _ in range(room[worker] - len(carried)))
    return {worker: tuple(carried) for worker, carried in kept.items()}


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

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.errors import BadInput
from trading.ids import InstrumentId
from trading.sharding import assign, check_capacity, least_moves, moves

names = st.integers(0, 25).map(lambda n: InstrumentId(f"T:{n:02}"))


@st.composite
def carried(draw: st.DrawFn) -> dict[int, tuple[InstrumentId, ...]]:
    instruments = draw(st.lists(names, unique=True, max_size=14))
    split: dict[int, list[InstrumentId]] = {}
    for instrument in instruments:
        split.setdefault(draw(st.integers(0, 5)), []).append(instrument)
    return {worker: tuple(own) for worker, own in split.items()}


def fewest_moves(current: dict[int, tuple[InstrumentId, ...]], wanted: frozenset[InstrumentId], workers: int) -> int:
    """By trying every choice of which workers hold one more."""
    small, larger = divmod(len(wanted), workers)
    held = [sum(i in wanted for i in current.get(w, ())) for w in range(workers)]
    known = sum(i in wanted for own in current.values() for i in own)
    best_kept = max(
        sum(min(held[w], small + (w in chosen)) for w in range(workers))
        for chosen in combinations(range(workers), larger)
    )
    return known - best_kept


@given(carried(), st.frozensets(names, max_size=16), st.integers(1, 6))
def test_split_is_even_complete_and_moves_the_true_minimum(
    current: dict[int, tuple[InstrumentId, ...]], wanted: frozenset[InstrumentId], workers: int
) -> None:
    split = assign(current, wanted, workers)
    assert set(split) == set(range(workers))
    assert Counter(i for own in split.values() for i in own) == Counter(wanted)
    sizes = [len(own) for own in split.values()]
    assert max(sizes) - min(sizes) <= 1
    assert len(moves(current, split)) == fewest_moves(current, wanted, workers)


@given(carried(), st.frozensets(names, max_size=16), st.integers(1, 6))
def test_assigning_again_moves_nothing(
    current: dict[int, tuple[InstrumentId, ...]], wanted: frozenset[InstrumentId], workers: int
) -> None:
    split = assign(current, wanted, workers)
    assert assign(split, wanted, workers) == split


@given(
    st.dictionaries(st.integers(0, 3), st.frozensets(st.integers(0, 5), max_size=6), max_size=4),
    st.frozensets(st.integers(0, 5), max_size=6),
    st.sets(st.integers(0, 3), min_size=1, max_size=3),
)
def test_least_moves_is_the_least_of_all_even_splits(
    numbers: dict[int, frozenset[int]], sought: frozenset[int], workers: set[int]
) -> None:
    """By trying every even split there is."""
    seen: set[int] = set()
    current = {}
    for worker, own in numbers.items():
        current[worker] = tuple(InstrumentId(f"T:{n:02}") for n in sorted(own - seen))
        seen |= own
    wanted = sorted(InstrumentId(f"T:{n:02}") for n in sought)
    shards = sorted(workers)
    fewest = None
    for homes in product(shards, repeat=len(wanted)):
        sizes = [homes.count(shard) for shard in shards]
        if max(sizes) - min(sizes) <= 1:
            split = {s: tuple(i for i, home in zip(wanted, homes, strict=True) if home == s) for s in shards}
            count = len(moves(current, split))
            fewest = count if fewest is None else min(fewest, count)
    assert least_moves(current, wanted, workers) == fewest
    assert len(moves(current, assign(current, wanted, workers))) == fewest


@given(carried(), st.frozensets(names, max_size=16), st.sets(st.integers(0, 5), min_size=1), st.integers(1, 4))
def test_limit_leaves_out_what_is_carried_nowhere_first(
    current: dict[int, tuple[InstrumentId, ...]],
    wanted: frozenset[InstrumentId],
    workers: set[int],
    limit: int,
) -> None:
    split = assign(current, wanted, workers, limit)
    placed = Counter(i for own in split.values() for i in own)
    assert max(map(len, split.values())) <= limit
    assert max(placed.values(), default=1) == 1
    assert len(placed) == min(len(wanted), limit * len(workers))
    before = {i for worker in workers for i in current.get(worker, ()) if i in wanted}
    left_out = wanted - placed.keys()
    if left_out & before:
        assert placed.keys() <= before
    if len(wanted) <= limit * len(workers):
        assert split == assign(current, wanted, workers)


def test_instrument_carried_twice_lands_once_and_is_no_move() -> None:
    a, b, c = (InstrumentId(f"T:{x}") for x in "ABC")
    current = {0: (a, b, c), 1: (c,)}
    split = assign(current, [a, b, c], 2)
    assert split == {0: (a, b), 1: (c,)}
    assert moves(current, split) == {}


def test_result_does_not_depend_on_the_order_of_a_set() -> None:
    instruments = [InstrumentId(f"T:{n}") for n in range(20)]
    assert assign({}, instruments, 3) == assign({}, frozenset(instruments), 3) == assign({}, instruments[::-1], 3)


def test_no_workers_is_refused() -> None:
    with pytest.raises(BadInput, match="at least 1"):
        assign({}, [], 0)
    with pytest.raises(BadInput, match="workers"):
        least_moves({}, [], 0)


@pytest.mark.parametrize(
    ("instruments", "workers", "says"),
    [
        (5, 0, "at least 1"),
        (5, 9, "beyond the 3 connections"),
        (31, 3, "take away 1 of 31"),
        (25, 2, "need at least 3 workers"),
    ],
)
def test_what_the_provider_cannot_carry_is_refused_with_what_would_fit(
    instruments: int, workers: int, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        check_capacity(instruments, workers, instruments_per_worker=10, max_workers=3, provider="p")


def test_exactly_full_fits() -> None:
    check_capacity(30, 3, instruments_per_worker=10, max_workers=3, provider="p")

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.running_quantiles import RunningQuantiles
from trading.slots import Slots

durations = st.integers(-(10**13), 10**13)


@given(st.lists(durations, min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_quantile_is_that_of_the_values_to_within_an_eighth(values: list[int], q: float) -> None:
    one, many = RunningQuantiles(), RunningQuantiles()
    for value in values:
        one.add_one(3, value)
    many.add(np.full(len(values), 3, dtype=np.int32), np.array(values, dtype=np.int64))
    found = one.quantile(3, q)
    assert found is not None
    assert found == many.quantile(3, q)
    rank = max(1, int(np.ceil(q * len(values) - 1e-9)))
    true = sorted(values)[rank - 1]
    capped = max(-(1 << 43), min(1 << 43, true))
    assert abs(found - capped) <= max(abs(capped) * 0.13, 1100)


@given(st.lists(st.tuples(st.integers(0, 40), durations), max_size=100))
def test_slots_know_nothing_of_each_other(values: list[tuple[int, int]]) -> None:
    together = RunningQuantiles()
    if values:
        slots, durations_ = zip(*values, strict=True)
        together.add(np.array(slots, dtype=np.int32), np.array(durations_, dtype=np.int64))
    for slot in range(41):
        alone = RunningQuantiles()
        for other, value in values:
            if other == slot:
                alone.add_one(0, value)
        assert together.quantile(slot, 0.7) == alone.quantile(0, 0.7)
        assert together.total(slot) == alone.total(0)


def test_old_values_fade() -> None:
    quantiles = RunningQuantiles(memory=100)
    slots = np.zeros(50, dtype=np.int32)
    for _ in range(100):
        quantiles.add(slots, np.full(50, 1_000_000))
    for _ in range(12):
        quantiles.add(slots, np.full(50, 9_000_000))
    assert quantiles.total(0) <= 250
    assert quantiles.quantile(0, 0.5) == pytest.approx(9_000_000, rel=0.13)
    quantiles.clear(0)
    assert quantiles.quantile(0, 0.5) is None


@given(st.lists(st.integers(0, 5000), max_size=60))
def test_each_number_has_one_slot_for_good(numbers: list[int]) -> None:
    slots, other = Slots(), Slots()
    given_out = slots.many(np.array(numbers, dtype=np.int32)).tolist()
    assert given_out == [other.one(number) for number in numbers]
    assert sorted(set(given_out)) == list(range(len(set(numbers))))
    assert len(slots) == len(set(numbers))
    for number, slot in zip(numbers, given_out, strict=True):
        assert slots.get(number) == slot
        assert slots.number(slot) == number
    assert slots.get(5001) is None


@pytest.mark.parametrize("number", [-1, 1 << 24])
def test_number_that_cannot_be_one_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="cannot be the number"):
        Slots().one(number)
    with pytest.raises(ValueError, match="cannot be the number"):
        Slots().many(np.array([3, number]))

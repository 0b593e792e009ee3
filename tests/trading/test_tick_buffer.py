from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trading.ticks import TICK, TickBuffer, decode


def some(count: int, first: int) -> np.ndarray:  # type: ignore[type-arg]
    ticks = np.zeros(count, dtype=TICK)
    ticks["instrument"] = np.arange(first, first + count)
    return ticks


@given(st.lists(st.integers(0, 7) | st.none(), max_size=20))
def test_single_ticks_and_arrays_come_out_in_order_and_are_counted(pieces: list[int | None]) -> None:
    buffer, want = TickBuffer(), []
    for piece in pieces:
        number = len(want)
        if piece is None:
            buffer.trade(number, 1.0, 2.0, 0, 0, 0, 0)
            want.append(number)
        else:
            buffer.extend(some(piece, number))
            want += range(number, number + piece)
        assert len(buffer) == len(want)
    assert decode(buffer.take())["instrument"].tolist() == want
    assert len(buffer) == 0
    assert buffer.take() == b""


def test_an_array_is_copied_so_that_it_may_be_written_over() -> None:
    buffer, ticks = TickBuffer(), some(3, 5)
    buffer.extend(ticks)
    ticks["instrument"] = 0
    assert decode(buffer.take())["instrument"].tolist() == [5, 6, 7]

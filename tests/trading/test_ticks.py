from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.ticks import BUYER_MAKER, QUOTE, TRADE, Senders, TickBuffer, decode, pack_batch, unpack_batch


def two_ticks() -> bytes:
    buffer = TickBuffer()
    buffer.trade(7, 100.5, 2.0, BUYER_MAKER, 10, 20, 30)
    buffer.quote(8, 99.0, 1.0, 101.0, 3.0, 0, 11, 21, 31)
    return buffer.take()


def test_ticks_come_out_of_the_buffer_as_they_went_in() -> None:
    ticks = decode(two_ticks())
    assert ticks["instrument"].tolist() == [7, 8]
    assert ticks["flags"].tolist() == [TRADE | BUYER_MAKER, QUOTE]
    assert ticks["price"][0] == 100.5
    assert np.isnan(ticks["price"][1])
    assert ticks["ask"][1] == 101.0
    assert ticks["received_at"].tolist() == [20, 21]


def test_a_buffer_that_was_taken_is_empty() -> None:
    buffer = TickBuffer()
    buffer.extend(decode(two_ticks()))
    assert len(buffer) == 2
    assert buffer.take() == two_ticks()
    assert len(buffer) == 0
    assert buffer.take() == b""


def test_a_batch_comes_out_of_its_frame() -> None:
    epoch, sequence, shard, ticks = unpack_batch(pack_batch(5, 6, 2, two_ticks()))
    assert (epoch, sequence, shard) == (5, 6, 2)
    assert ticks.tobytes() == two_ticks()


@pytest.mark.parametrize("raw", [b"", b"short", pack_batch(5, 6, 2, two_ticks())[:-1]])
def test_bytes_that_are_no_batch_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="tick batch"):
        unpack_batch(raw)


def test_the_batches_before_the_first_were_not_for_this_reader() -> None:
    assert Senders().missed(epoch=3, sequence=500, shard=0) == 0


def test_a_hole_in_the_numbers_of_one_shard_is_counted_once() -> None:
    senders = Senders()
    assert senders.missed(3, 1, 0) == 0
    assert senders.missed(3, 1, 1) == 0
    assert senders.missed(3, 5, 0) == 3
    assert senders.missed(3, 6, 0) == 0
    assert senders.missed(3, 2, 1) == 0


def test_a_new_incarnation_begins_again_at_one() -> None:
    senders = Senders()
    assert senders.missed(3, 9, 0) == 0
    assert senders.missed(4, 1, 0) == 0
    other = Senders()
    assert other.missed(3, 9, 0) == 0
    assert other.missed(4, 3, 0) == 2


def test_batches_of_a_replaced_incarnation_are_not_used() -> None:
    senders = Senders()
    assert senders.missed(3, 9, 0) == 0
    assert senders.missed(4, 1, 0) == 0
    assert senders.missed(3, 10, 0) is None
    assert senders.missed(4, 2, 0) == 0


def test_a_repeated_batch_is_not_used() -> None:
    senders = Senders()
    assert senders.missed(3, 9, 0) == 0
    assert senders.missed(3, 9, 0) is None
    assert senders.missed(3, 8, 0) is None


@given(st.sets(st.integers(1, 60), min_size=1), st.sets(st.integers(1, 60)))
def test_used_and_missed_batches_add_up_to_what_was_sent(first: set[int], second: set[int]) -> None:
    senders = Senders()
    used = missed = 0
    for epoch, arrived in ((1, first), (2, second)):
        for sequence in sorted(arrived):
            found = senders.missed(epoch, sequence, 0)
            assert found is not None
            used, missed = used + 1, missed + found
    sent = max(first) - min(first) + 1 + max(second, default=0)
    assert used + missed == sent

"""The one form of an amount."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.amounts import is_amount


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_what_a_decimal_prints_is_an_amount(amount: Decimal) -> None:
    assert is_amount(str(amount))


@given(st.text(max_size=8) | st.text("0123456789eE+-._ ٣५", max_size=8))
def test_an_amount_is_plain_and_decimal_reads_it_as_it_looks(text: str) -> None:
    if is_amount(text):
        assert text.isascii()
        assert not set(text) & set("_ ")
        assert Decimal(text).is_finite()


@pytest.mark.parametrize("text", ["1_0", "١٢", " 1", "1\n", "NaN", "Infinity", "", ".", "1e", "e1", "1,5"])
def test_what_is_read_more_freely_elsewhere_is_none(text: str) -> None:
    assert not is_amount(text)

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from api.formats import Amount, page_of, parse_time, time_text
from trading.errors import BadInput

#: What `Decimal` takes, and a person may have meant otherwise.
WRITTEN_OTHERWISE = [
    "1_0", "1__0", "١٢", "５", "१०", "1٫5", " 5", "5 ", "5\n", "\t5", "NaN", "nan1", "Infinity", "-inf", "sNaN", "1,5",
    "1,000", "0x10", "1e", "e5", ".", "+", "--1", "1.2.3", "1e1.5", "½", "²", "", "abc",
]  # fmt: skip


class Holder(BaseModel):
    amount: Amount


@given(st.integers(min_value=0, max_value=4_000_000_000_000_000_000))
def test_a_time_survives_the_way_out_and_back(at: int) -> None:
    assert parse_time(time_text(at)) == at


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000+00:00"),
        (-1, "1969-12-31T23:59:59.999999999+00:00"),
        (2**63 - 1, "2262-04-11T23:47:16.854775807+00:00"),
        (-62_135_596_800 * 10**9, "0001-01-01T00:00:00.000000000+00:00"),
        (253_402_300_799 * 10**9 + 5, "9999-12-31T23:59:59.000000005+00:00"),
    ],
)
def test_a_year_has_four_digits(at: int, text: str) -> None:
    assert time_text(at) == text


@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_times_mean_what_python_says(moment: datetime) -> None:
    whole = int(moment.replace(microsecond=0).timestamp())
    assert parse_time(moment.isoformat()) == whole * 10**9 + moment.microsecond * 1_000


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-01-31T09:15:00Z", "2026-01-31T09:15:00+00:00"),
        ("2026-01-31T14:45:00+05:30", "2026-01-31T09:15:00Z"),
        ("2026-01-31T14:45:00 05:30", "2026-01-31T09:15:00Z"),
        ("2026-01-31T04:15:00.5-0500", "2026-01-31T09:15:00.500Z"),
    ],
)
def test_offsets_are_honoured(text: str, same: str) -> None:
    assert parse_time(text) == parse_time(same)


@pytest.mark.parametrize("text", ["2026-01-31T09:15:00", "2026-01-31", "yesterday", "2026-02-30T00:00:00Z", 17, None])
def test_a_time_without_offset_or_sense_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"offset|no such time"):
        parse_time(text)


@pytest.mark.parametrize("text", ["1969-12-31T23:59:59Z", "2262-04-12T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_time_that_is_no_number_of_nanoseconds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="between 1970 and 2262"):
        parse_time(text)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=8))
def test_a_decimal_survives_the_way_out_and_back(amount: Decimal) -> None:
    shown = Holder(amount=amount).model_dump(mode="json")
    assert isinstance(shown["amount"], str)
    assert "E" not in shown["amount"]
    assert Holder.model_validate_json(Holder(amount=amount).model_dump_json()).amount == amount


@pytest.mark.parametrize(
    "raw", ["0.1", "1.0", "true", '"NaN"', '"Infinity"', '"abc"', '""', '"1e999999999"', '"1e-99"', "null", "[1]"]
)
def test_what_is_no_exact_number_is_refused(raw: str) -> None:
    with pytest.raises(ValidationError):
        Holder.model_validate_json(f'{{"amount": {raw}}}')


@pytest.mark.parametrize("text", WRITTEN_OTHERWISE)
def test_a_number_in_another_form_is_refused_with_the_one_that_is_meant(text: str) -> None:
    with pytest.raises(ValidationError, match=r'is not a number; write it in digits, such as "0\.01"'):
        Holder.model_validate({"amount": text})


@pytest.mark.parametrize("text", ["1", "-1", "+1.5", "0.00000001", "1E-8", "1e-8", "0E-8", "1E+3", ".5", "5.", "007"])
def test_what_programs_write_of_a_decimal_is_read(text: str) -> None:
    assert Holder.model_validate({"amount": text}).amount == Decimal(text)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=12))
def test_a_decimal_is_read_however_it_was_printed(amount: Decimal) -> None:
    for text in (str(amount), f"{amount:f}", f"{amount:E}"):
        assert Holder.model_validate({"amount": text}).amount == amount


def test_an_amount_is_taken_whole_or_refused() -> None:
    assert Holder.model_validate_json(f'{{"amount": "{"0" * 98}15"}}').amount == 15
    for long in ("0" * 99 + "15", "1" + " " * 100, "9" * 101):
        with pytest.raises(ValidationError, match="more than 100 characters"):
            Holder.model_validate_json(f'{{"amount": "{long}"}}')
    with pytest.raises(ValidationError, match="more than 100 characters"):
        Holder.model_validate({"amount": 10**100})


@given(st.sets(st.text(min_size=1, max_size=8)), st.integers(min_value=1, max_value=7))
def test_pages_show_everything_once_in_order(names: set[str], limit: int) -> None:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = page_of(names, lambda name: name, limit, cursor)
        assert len(page["items"]) <= limit
        seen += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == sorted(names)


def test_a_cursor_that_is_not_ours_is_refused() -> None:
    with pytest.raises(BadInput, match="not a cursor"):
        page_of(["a"], str, 1, "€")

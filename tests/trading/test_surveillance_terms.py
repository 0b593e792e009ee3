"""Terms of surveillance: what an account sets is on top of the deck's, and what makes no sense names its field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.errors import BadInput
from trading.surveillance_terms import MOST_COUNTED, Terms, settled

NAMES = [field.name for field in msgspec.structs.fields(Terms)]


def test_what_is_not_set_is_the_decks_and_then_the_default() -> None:
    made = settled({"flips": 9, "cancels": 30}, {"cancels": 40, "times": 2.5})
    assert (made.flips, made.cancels, made.times, made.spreads) == (9, 40, 2.5, Terms().spreads)
    assert settled({}) == Terms() == Terms().check()


@pytest.mark.parametrize(
    ("whole", "own", "field"),
    [
        ({"flip": 3}, {}, "flip"),
        ({"flips": 2.5}, {}, "flips"),
        ({"flips": "many"}, {}, "flips"),
        ({"flips": True}, {}, "flips"),
        ({"times": 0.5}, {}, "times"),
        ({"share": float("nan")}, {}, "share"),
        ({"spreads": float("inf")}, {}, "spreads"),
        ({}, {"cancels": MOST_COUNTED + 1}, "cancels"),
        ({"critical_share": 0.4}, {}, "share"),
        ({"memory": 30}, {"enough_orders": 31}, "enough_orders"),
        ({"memory_days": 5}, {}, "enough_days"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(whole: dict[str, Any], own: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        settled(whole, own)
    assert caught.value.field == field


@given(st.dictionaries(st.sampled_from([*NAMES, "other"]), st.one_of(st.integers(-5, 10**6), st.floats(), st.text())))
def test_terms_are_sound_or_refused(values: dict[str, Any]) -> None:
    try:
        made = settled(values)
    except BadInput:
        return
    assert "other" not in values
    assert made.check() is made
    assert all(getattr(made, name) == value for name, value in values.items())

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.selectors import MOST_LABELS, Requirement, Selector, check_labels, read_selector
from trading.errors import BadInput

keys = st.sampled_from(["region", "ssd", "quarterdeck/owner", "x-1"])
values = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_.:@+-]{0,8}[A-Za-z0-9])?", fullmatch=True)
requirements = st.builds(
    Requirement, keys, st.none() | st.lists(values, min_size=1, max_size=3, unique=True).map(tuple), st.booleans()
)


@given(st.lists(requirements, max_size=4).map(tuple), st.dictionaries(keys, values))
def test_a_selector_is_read_back_as_written_and_holds_where_each_part_does(
    parts: tuple[Requirement, ...], labels: dict[str, str]
) -> None:
    selector = Selector(parts)
    assert read_selector(str(selector)) == selector
    failing = [each for each in parts if not each.holds(labels)]
    assert selector.matches(labels) == (not failing)
    assert selector.failing(labels) == (failing[0] if failing else None)


@pytest.mark.parametrize(
    ("text", "labels", "holds"),
    [
        ("", {}, True),
        ("region=eu", {"region": "eu"}, True),
        ("region==eu", {"region": "us"}, False),
        ("region != eu", {}, True),
        (" region in ( eu , us ) , ssd ", {"region": "us", "ssd": "yes"}, True),
        ("region notin (eu)", {"region": "eu"}, False),
        ("!ssd", {"ssd": "no"}, False),
    ],
)
def test_the_words_mean_what_they_say(text: str, labels: dict[str, str], holds: bool) -> None:
    assert read_selector(text).matches(labels) is holds


@pytest.mark.parametrize(
    "text", ["=eu", "region=", "region in ()", "region in (a", "a,,b", "a b", "a=b=c", ",", "-a=1"]
)
def test_what_makes_no_sense_is_refused_by_field(text: str) -> None:
    with pytest.raises(BadInput) as told:
        read_selector(text, "where")
    assert told.value.field == "where"


def test_labels_are_checked_by_name() -> None:
    good = {"region": "eu-west-1", "egress": "203.0.113.7", "accounts": "paper-1+kite"}
    assert check_labels(good) == good
    for bad in ({"": "x"}, {"a b": "x"}, {"a": ""}, {"a": "x,y"}, {"a": "x" * 64}):
        with pytest.raises(BadInput):
            check_labels(bad)
    with pytest.raises(BadInput):
        check_labels({f"l{n}": "x" for n in range(MOST_LABELS + 1)})

"""Which instrument of another feed may stand by for one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api.playing import instrument
from trading import seconds
from trading.errors import BadInput
from trading.ids import FeedId, InstrumentId
from trading.seconds import SecondSource

A, B = InstrumentId("T:A"), InstrumentId("T:B")
FEEDS = [FeedId(name) for name in ("f", "g", "h")]
PLACES = [(feed, each) for feed in FEEDS for each in (A, B)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tick_size": Decimal("0.5")}, "tick size 0.5"),
        ({"currency": "INR"}, "currency INR"),
        ({"multiplier": Decimal(2)}, "multiplier 2"),
    ],
)
def test_prices_of_both_must_mean_the_same(change: dict[str, Any], says: str) -> None:
    one = instrument("T:A")
    seconds.check_twins(one, msgspec.structs.replace(one, id=B, lot_size=Decimal(7)), "instrument")
    with pytest.raises(BadInput, match=says) as refused:
        seconds.check_twins(one, msgspec.structs.replace(one, id=B, **change), "instrument")
    assert refused.value.args[0] == "instrument"


def test_a_feed_is_a_client_by_a_name_that_nobody_can_choose() -> None:
    client = seconds.client_of(FEEDS[0])
    assert seconds.is_second_client(client)
    assert not seconds.is_second_client("f")
    assert seconds.channels_of(("bar", "quote", "trade")) == ("quote", "trade")


def test_one_stands_by_for_one() -> None:
    source = SecondSource(FEEDS[1], A)
    seconds.check_each_once({A: source, B: SecondSource(FEEDS[2], A)}, "seconds")
    with pytest.raises(BadInput, match="is the second of T:A already"):
        seconds.check_each_once({A: source, B: source}, "seconds")


@given(links=st.dictionaries(st.sampled_from(PLACES), st.sampled_from(PLACES)), start=st.sampled_from(PLACES))
def test_a_circle_is_found_exactly_where_there_is_one(
    links: dict[tuple[FeedId, InstrumentId], tuple[FeedId, InstrumentId]], start: tuple[FeedId, InstrumentId]
) -> None:
    all_: dict[FeedId, dict[InstrumentId, SecondSource]] = {}
    for (feed, each), target in links.items():
        all_.setdefault(feed, {})[each] = SecondSource(*target)
    at: tuple[FeedId, InstrumentId] | None = start
    is_circle = False
    for _ in range(len(PLACES)):
        at = None if at is None else links.get(at)
        is_circle |= at == start
    if is_circle:
        with pytest.raises(BadInput, match="circle"):
            seconds.check_no_circle(*start, all_, "feed")
    else:
        seconds.check_no_circle(*start, all_, "feed")

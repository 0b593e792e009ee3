"""Settings of an instrument lie on top of the feed's, and these on the defaults."""

from __future__ import annotations

from typing import Any

import pytest

from trading.errors import BadInput
from trading.feed_tuning import NOTHING, Tuning, settled
from trading.freshness import Freshness
from trading.freshness_terms import FreshnessSettings, Hours
from trading.healing import BackFill, Resubscribe
from trading.ids import InstrumentId, Nanos
from trading.quarantine import FilterSettings
from trading.ticks import TickArray, TickBuffer, decode

SECOND = 1_000_000_000
OPEN = {"24x7": Hours(is_open=True)}


def test_each_level_sets_what_it_names() -> None:
    feed = Tuning(filter={"band_floor": 0.01, "off": ["crossed"]}, freshness={"least_s": 9})
    own = Tuning(filter={"band_floor": 0.02}, freshness={"most_s": 100})
    filter_, freshness = settled(feed, own)
    assert filter_ == FilterSettings(band_floor=0.02, off=("crossed",))
    assert freshness == FreshnessSettings(least_s=9, most_s=100)
    assert settled(feed)[0] == FilterSettings(band_floor=0.01, off=("crossed",))
    assert settled(NOTHING) == (FilterSettings(), FreshnessSettings())


@pytest.mark.parametrize(
    ("tuning", "field"),
    [
        (Tuning(filter={"band": 1}), "filter.band"),
        (Tuning(filter={"band_floor": "wide"}), "filter.band_floor"),
        (Tuning(filter={"off": "crossed"}), "filter.off"),
        (Tuning(filter={"off": ["dark"]}), "off"),
        (Tuning(filter={"widen_s": 0}), "widen_s"),
        (Tuning(freshness={"least_s": None}), "freshness.least_s"),
        (Tuning(freshness={"least_s": -1}), "least_s"),
        (Tuning(freshness={"attempts": 1.5}), "freshness.attempts"),
        (Tuning(freshness={"least_s": 100, "most_s": 10}), "least_s"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tuning: Tuning, field: str) -> None:
    with pytest.raises(BadInput) as refused:
        settled(tuning)
    assert refused.value.args[0] == field


def tick(number: int, at: float) -> TickArray:
    buffer = TickBuffer()
    buffer.trade(number, 100.0, 1.0, 0, int(at * SECOND), int(at * SECOND), 0)
    return decode(buffer.take())


def states(freshness: Freshness, *names: str) -> list[Any]:
    return [str(freshness.state(InstrumentId(name))) for name in names]


def test_patience_of_one_instrument_leaves_the_others_alone_and_can_be_changed_while_it_is_watched() -> None:
    freshness = Freshness(FreshnessSettings(first_s=60))
    freshness.tune(FreshnessSettings(first_s=20), {InstrumentId("A"): FreshnessSettings(first_s=3, least_s=1)})
    for number, name in enumerate("AB", 1):
        freshness.want(InstrumentId(name), number, "24x7", Nanos(0))
        freshness.take(tick(number, 1))
    freshness.opened(Nanos(0))
    freshness.look(Nanos(2 * SECOND), OPEN)
    assert states(freshness, "A", "B") == ["live", "live"]
    steps = freshness.look(Nanos(10 * SECOND), OPEN)
    assert states(freshness, "A", "B") == ["stale", "live"]
    assert steps == [Resubscribe((InstrumentId("A"),))]
    assert freshness.gaps() == [InstrumentId("A")]
    assert freshness.gaps() == []
    freshness.tune(FreshnessSettings(first_s=5), {})
    freshness.look(Nanos(11 * SECOND), OPEN)
    assert states(freshness, "A", "B") == ["stale", "stale"]


def test_what_a_worker_before_did_not_publish_is_a_gap_until_the_first_tick() -> None:
    freshness = Freshness()
    freshness.want(InstrumentId("A"), 1, "24x7", Nanos(10 * SECOND), gap_from=Nanos(4 * SECOND))
    freshness.opened(Nanos(11 * SECOND))
    assert freshness.look(Nanos(12 * SECOND), OPEN) == []
    freshness.take(tick(1, 13))
    assert freshness.look(Nanos(14 * SECOND), OPEN) == [
        BackFill(InstrumentId("A"), Nanos(4 * SECOND), Nanos(13 * SECOND))
    ]

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from cluster.live_parameters import changed, need_restart
from strategies import UPDATABLE, StrategyParameters


class Parameters(StrategyParameters):
    size: Annotated[int, UPDATABLE] = Field(3, ge=1)
    side: str = "buy"


SCHEMA = Parameters.model_json_schema()


@pytest.mark.parametrize(
    ("before", "after", "names", "restart"),
    [
        ({}, {}, set(), set()),
        ({}, {"size": 3, "side": "buy"}, set(), set()),
        ({"size": 4}, {}, {"size"}, set()),
        ({"size": 4}, {"size": 5}, {"size"}, set()),
        ({"size": 4}, {"size": 5, "side": "sell"}, {"size", "side"}, {"side"}),
        ({"side": "sell"}, {}, {"side"}, {"side"}),
        ({}, {"unheard_of": 1}, {"unheard_of"}, {"unheard_of"}),
    ],
)
def test_only_marked_parameters_change_live(
    before: dict[str, Any], after: dict[str, Any], names: set[str], restart: set[str]
) -> None:
    assert changed(SCHEMA, before, after) == names
    assert need_restart(SCHEMA, names) == restart


def test_without_a_schema_everything_takes_a_restart() -> None:
    assert need_restart({}, changed({}, {"size": 1}, {"size": 2})) == {"size"}

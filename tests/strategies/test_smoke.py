from __future__ import annotations

from typing import Any

import pytest

from strategies.base import Strategy, StrategyParameters
from strategies.loader import BUILTIN, load_builtin
from strategies.smoke import DEFAULT, smoke
from trading.errors import BadInput


class Sized(StrategyParameters):
    size: int


class Trades(Strategy[Sized]):
    """Buys and sells in turn, at each bar."""

    Parameters = Sized
    bars = ("1m",)

    def set_up(self) -> None:
        self.bought = False

    def on_bar(self, instrument: Any, bar: Any, interval: str) -> None:
        act = self.sell if self.bought else self.buy
        self.bought = not self.bought
        act(instrument, self.parameters.size)


class WarmsUp(Strategy[StrategyParameters]):
    """Needs closed bars from the first moment on."""

    def warm_up(self) -> dict[str, int]:
        return {"5m": 30, "1d": 10}

    def on_start(self) -> None:
        for instrument in self.instruments:
            bars = self.history(instrument, "5m", 30)
            assert len(bars) == 30
            assert bars[-1].opened_at + 300_000_000_000 <= self.now
            assert len(self.history(instrument, "1d", 10)) == 10


class Raises(Strategy[StrategyParameters]):
    def on_tick(self, tick: Any) -> None:
        raise RuntimeError(f"no {tick.instrument.id} for me")


class RaisesInSetUp(Strategy[StrategyParameters]):
    def set_up(self) -> None:
        self.instrument("NSE:INFY")


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_the_built_in_ones_pass_and_each_time_the_same_way(name: str) -> None:
    strategy = load_builtin(name).strategy_class
    report = smoke(strategy, {})
    assert report.instruments == DEFAULT
    assert (report.ticks, report.bars) == (1200, 240)
    assert smoke(strategy, {}) == report


def test_what_it_does_is_counted() -> None:
    report = smoke(Trades, {"size": 1}, ["NSE:INFY"])
    assert report.instruments == ("NSE:INFY",)
    assert report.orders == report.fills > 100


def test_history_is_there_for_who_warms_up() -> None:
    assert smoke(WarmsUp, {}).skipped == ""


def test_a_parameter_without_a_default_is_asked_for() -> None:
    assert smoke(Trades, {}).skipped == "parameter size has no default: give parameters to have it tried"
    with pytest.raises(BadInput) as refused:
        smoke(Trades, {"size": "many"})
    assert refused.value.field == "parameters.size"


@pytest.mark.parametrize(
    ("strategy", "instruments", "field", "says"),
    [
        (Raises, (), "smoke", r"raised over made-up ticks of SMOKE:AAA, SMOKE:BBB: .*no SMOKE:AAA for me"),
        (RaisesInSetUp, (), "smoke", "set_up raised: .*NSE:INFY"),
        (WarmsUp, ("infy",), "instruments", "infy"),
        (WarmsUp, tuple(f"A:{n}" for n in range(11)), "instruments", "at most 10"),
    ],
)
def test_a_strategy_that_fails_over_it_is_refused_with_the_place(
    strategy: Any, instruments: tuple[str, ...], field: str, says: str
) -> None:
    with pytest.raises(BadInput, match=says) as refused:
        smoke(strategy, {}, instruments)
    assert refused.value.field == field

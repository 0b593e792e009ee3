"""Moving-average cross: long while the fast average is above the slow one, short (or flat) while below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from strategies.builtin.target import TargetParameters, TargetStrategy
from strategies.indicators import EMA
from trading.bars import Bar
from trading.instruments import Instrument


class CrossParameters(TargetParameters):
    """Parameters of the moving-average cross."""

    fast: int = Field(10, ge=1, le=10_000, description="Bars of the fast exponential average")
    slow: int = Field(30, ge=2, le=10_000, description="Bars of the slow exponential average")

    @model_validator(mode="after")
    def _in_order(self) -> CrossParameters:
        if self.fast >= self.slow:
            raise ValueError(f"fast ({self.fast}) must be below slow ({self.slow})")
        return self


class MovingAverageCross(TargetStrategy[CrossParameters]):
    """Trades the cross of two exponential averages of closes; waits for a cross before its first order."""

    Parameters = CrossParameters

    def set_up(self) -> None:
        """Make the averages."""
        super().set_up()
        self._fast = {i.id: EMA(self.parameters.fast) for i in self.instruments}
        self._slow = {i.id: EMA(self.parameters.slow) for i in self.instruments}
        self._above: dict[str, bool] = {}

    def warm_up(self) -> Mapping[str, int]:
        """Enough bars to know the averages at the start."""
        return {self.parameters.interval: 3 * self.parameters.slow}

    def on_start(self) -> None:
        """Learn from history; its crosses are not traded."""
        for instrument in self.instruments:
            for bar in self.history(instrument, self.parameters.interval, 3 * self.parameters.slow):
                self._crossed(instrument, bar.close)

    def decide(self, instrument: Instrument, bar: Bar) -> None:
        """Follow a cross."""
        if self._crossed(instrument, bar.close):
            above = self._above[instrument.id]
            self.log(f"{instrument.id}: the fast average crossed {'above' if above else 'below'} at {bar.close}")
            self.aim(instrument, 1 if above else -1, bar.close)

    def _crossed(self, instrument: Instrument, close: float) -> bool:
        fast = self._fast[instrument.id].update(close)
        slow = self._slow[instrument.id].update(close)
        if not self._slow[instrument.id].ready or fast == slow:
            return False
        before = self._above.get(instrument.id)
        self._above[instrument.id] = fast > slow
        return before is not None and before is not (fast > slow)

    def snapshot(self) -> dict[str, Any]:
        """Averages and sides besides the targets."""
        return {
            **super().snapshot(),
            "fast": {i: average.snapshot() for i, average in self._fast.items()},
            "slow": {i: average.snapshot() for i, average in self._slow.items()},
            "above": self._above,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a `snapshot`."""
        super().restore(state)
        for kept, averages in ((state["fast"], self._fast), (state["slow"], self._slow)):
            for instrument, average in averages.items():
                if instrument in kept:
                    average.restore(kept[instrument])
        self._above = dict(state["above"])

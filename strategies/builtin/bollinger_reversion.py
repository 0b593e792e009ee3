"""Mean reversion on Bollinger bands: against a close beyond a band, out again at the middle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from strategies.builtin.target import TargetParameters, TargetStrategy
from strategies.indicators import Bollinger
from trading.bars import Bar
from trading.instruments import Instrument


class ReversionParameters(TargetParameters):
    """Parameters of the Bollinger reversion."""

    period: int = Field(20, ge=2, le=10_000, description="Bars of the bands")
    width: float = Field(2.0, gt=0, le=10, description="Standard deviations from the middle to a band")


class BollingerReversion(TargetStrategy[ReversionParameters]):
    """Buys a close below the lower band, sells one above the upper, and is flat again at the middle."""

    Parameters = ReversionParameters

    def set_up(self) -> None:
        """Make the bands."""
        super().set_up()
        self._bands = {i.id: Bollinger(self.parameters.period, self.parameters.width) for i in self.instruments}

    def warm_up(self) -> Mapping[str, int]:
        """Enough bars to know the bands at the start."""
        return {self.parameters.interval: self.parameters.period}

    def on_start(self) -> None:
        """Learn from history."""
        for instrument in self.instruments:
            for bar in self.history(instrument, self.parameters.interval, self.parameters.period):
                self._bands[instrument.id].update(bar.close)

    def decide(self, instrument: Instrument, bar: Bar) -> None:
        """Compare the close with the bands as they stood before it: it must not widen its own measure."""
        bands = self._bands[instrument.id]
        ready, (lower, middle, upper) = bands.ready, bands.value
        bands.update(bar.close)
        if not ready or lower == upper:
            return
        aimed = self.aimed(instrument)
        if bar.close < lower and aimed <= 0:
            self.aim(instrument, 1, bar.close)
        elif bar.close > upper and aimed >= 0:
            self.aim(instrument, -1, bar.close)
        elif aimed * (bar.close - middle) > 0:
            self.aim(instrument, 0, bar.close)

    def snapshot(self) -> dict[str, Any]:
        """Bands besides the targets."""
        return {**super().snapshot(), "bands": {i: b.snapshot() for i, b in self._bands.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a `snapshot`."""
        super().restore(state)
        for instrument, bands in self._bands.items():
            if instrument in state["bands"]:
                bands.restore(state["bands"][instrument])

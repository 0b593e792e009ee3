"""Base of strategies that want a certain position: one market order at a time moves there."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, TypeVar

from pydantic import Field, field_validator

from strategies.base import UPDATABLE, Strategy, StrategyParameters
from strategies.builtin.caution import Caution
from trading.bars import Bar, interval_ns
from trading.errors import BadInput
from trading.ids import InstrumentId
from trading.instruments import Instrument
from trading.orders import ZERO, Order


class TargetParameters(StrategyParameters):
    """Parameters that all of them have."""

    interval: str = Field("1m", description="Length of a bar: a number and s, m, h or d")
    notional: Annotated[Decimal, UPDATABLE] = Field(
        Decimal(1000),
        gt=0,
        le=Decimal(10**9),
        description="Value of a full position, in the instrument's currency",
    )
    allow_short: bool = Field(True, description="Whether to sell short; off for spot accounts")

    @field_validator("interval")
    @classmethod
    def _is_interval(cls, text: str) -> str:
        try:
            interval_ns(text)
        except BadInput as wrong:
            raise ValueError(wrong.detail) from wrong
        return text


TP = TypeVar("TP", bound=TargetParameters)


class TargetStrategy(Strategy[TP]):
    """Says +1, 0 or -1 by `aim`; the position follows, at most ``notional`` at the price of the decision."""

    Parameters = TargetParameters

    def set_up(self) -> None:
        """Have no target for any instrument."""
        self.bars = (self.parameters.interval,)
        self._targets: dict[InstrumentId, Decimal] = {}
        self._caution = Caution()
        self._told: set[InstrumentId] = set()

    def aim(self, instrument: Instrument, direction: int, price: float) -> None:
        """Want a full long (+1), full short (-1) or no (0) position from now on."""
        if direction < 0 and not self.parameters.allow_short:
            direction = 0
        size = instrument.round_quantity(self.parameters.notional / (Decimal(str(price)) * instrument.multiplier))
        if direction and (size <= 0 or size < instrument.min_quantity):
            if instrument.id not in self._told:
                self._told.add(instrument.id)
                self.log(
                    f"{instrument.id}: a notional of {self.parameters.notional} is below the smallest order "
                    f"at {price}; raise `notional` to trade it",
                    "warning",
                )
            return
        self._targets[instrument.id] = direction * size
        self._move(instrument)

    def aimed(self, instrument: Instrument) -> int:
        """The direction wanted: +1, 0 or -1."""
        target = self._targets.get(instrument.id, ZERO)
        return (target > 0) - (target < 0)

    def on_bar(self, instrument: Instrument, bar: Bar, interval: str) -> None:
        """Decide, then take up what could not be sent before."""
        self.decide(instrument, bar)
        self._move(instrument)

    def decide(self, instrument: Instrument, bar: Bar) -> None:
        """Look at a closed bar and call `aim`."""
        raise NotImplementedError

    def on_order(self, order: Order) -> None:
        """Go on once the order has ended; hold back where it was refused."""
        if self._caution.note(order, self.now):
            self.log(f"{order.instrument}: {order.state}: {order.reason}; holding back", "warning")
        elif order.state.is_final:
            self._move(self.instrument(order.instrument))

    def _move(self, instrument: Instrument) -> None:
        target = self._targets.get(instrument.id)
        if target is None or self.open_orders(instrument) or self._caution.holds(instrument.id, self.now):
            return
        step = instrument.round_quantity(abs(target - self.position(instrument).quantity))
        if step < instrument.min_quantity or step <= 0:
            return
        if target > self.position(instrument).quantity:
            self.buy(instrument, step)
        else:
            self.sell(instrument, step)

    def snapshot(self) -> dict[str, Any]:
        """Targets and what was refused."""
        return {
            "targets": {instrument: str(target) for instrument, target in self._targets.items()},
            "caution": self._caution.snapshot(),
            "told": sorted(self._told),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a `snapshot`."""
        self._targets = {InstrumentId(i): Decimal(target) for i, target in state["targets"].items()}
        self._caution.restore(state["caution"])
        self._told = {InstrumentId(i) for i in state["told"]}

"""Holding back after an order was denied or rejected: twice as long each time, until one is accepted."""

from __future__ import annotations

from typing import Any, Final

from trading.ids import InstrumentId, Nanos
from trading.orders import Order, OrderState

_FIRST: Final = 1_000_000_000
_LONGEST: Final = 60_000_000_000
_REFUSED: Final = frozenset({OrderState.DENIED, OrderState.REJECTED})
_ACCEPTED: Final = frozenset({OrderState.SUBMITTED, OrderState.PARTIALLY_FILLED, OrderState.FILLED})


class Caution:
    """By instrument, until when nothing new is sent."""

    def __init__(self) -> None:
        self._until: dict[str, tuple[int, int]] = {}

    def holds(self, instrument: InstrumentId, now: Nanos) -> bool:
        """Whether to send nothing new yet."""
        return now < self._until.get(instrument, (0, 0))[0]

    def note(self, order: Order, now: Nanos) -> bool:
        """Learn from an order's change; True where it was denied or rejected."""
        if order.state in _REFUSED:
            wait = min(2 * self._until.get(order.instrument, (0, _FIRST // 2))[1], _LONGEST)
            self._until[order.instrument] = (now + wait, wait)
            return True
        if order.state in _ACCEPTED:
            self._until.pop(order.instrument, None)
        return False

    def snapshot(self) -> dict[str, Any]:
        """Its state in plain values."""
        return {instrument: list(pair) for instrument, pair in self._until.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a `snapshot`."""
        self._until = {instrument: (until, wait) for instrument, (until, wait) in state.items()}

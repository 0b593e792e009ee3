"""What comes out of a running strategy: intents, log lines, and the failure of a callback."""

from __future__ import annotations

from typing import Any

import msgspec

from trading.errors import TradeError
from trading.ids import Nanos
from trading.orders import CancelOrder, ModifyOrder, PlaceOrder


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of an algo's log; ``level`` is debug, info, warning or error, ``fields`` are plain values by name."""

    at: Nanos
    level: str
    text: str
    fields: dict[str, Any] = {}


class StrategyFailed(TradeError):
    """A callback of a strategy raised; the algo must not go on.  ``traceback_text`` is for its author."""

    def __init__(self, callback: str, traceback_text: str) -> None:
        last = traceback_text.strip().rsplit("\n", 1)[-1]
        super().__init__("strategy_failed", f"{callback} raised {last}")
        self.args = (callback, traceback_text)
        self.callback = callback
        self.traceback_text = traceback_text


Output = PlaceOrder | ModifyOrder | CancelOrder | LogLine

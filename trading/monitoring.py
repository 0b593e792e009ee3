"""Transaction monitoring: what in orders and executions is unlike whom it comes from."""

from __future__ import annotations

from typing import Final

LARGE_ORDER: Final = "large_order"
UNUSUAL_HOUR: Final = "unusual_hour"
POSITION_FLIPS: Final = "position_flips"
CANCEL_BURST: Final = "cancel_burst"

#: Kinds of alerts about how somebody trades.
KINDS_OF_TRADING: Final = frozenset({LARGE_ORDER, UNUSUAL_HOUR, POSITION_FLIPS, CANCEL_BURST})

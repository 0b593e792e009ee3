"""What makes an order more eager: a price at which it trades sooner, or at which it trades where it would not have.

A resting order that is moved to the market is as good as a new one there, though nothing of it has become larger.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from trading.orders import ModifyOrder, Order, OrderType

_STOPS: Final = (OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP)


def is_more_eager(change: ModifyOrder, order: Order) -> bool:
    """Whether ``change`` moves any price of ``order`` towards a trade, whatever else it does.

    The limit of a buy up, that of a sell down; the stop of a buy down, that of a sell up; a trailing stop's distance
    made smaller.  Measured against the order as the broker last confirmed it.
    """
    sign = order.side.sign
    return (
        _rises(order.limit_price, change.limit_price, sign)
        or _rises(order.stop_price, change.stop_price, -sign)
        or _rises(order.trail_price, change.trail_price, -1)
        or _rises(order.trail_percent, change.trail_percent, -1)
    )


def only_its_stop_is_nearer(change: ModifyOrder, order: Order) -> bool:
    """Whether ``order`` is a stop whose stop, or distance, is all that ``change`` moves towards a trade."""
    return is_stop(order) and not _rises(order.limit_price, change.limit_price, order.side.sign)


def is_stop(order: Order) -> bool:
    """Whether it waits for the market to come to its stop."""
    return order.type in _STOPS


def _rises(before: Decimal | None, after: Decimal | None, sign: int) -> bool:
    """Whether ``after`` (None: stays) is beyond ``before`` in the direction of ``sign``."""
    if after is None:
        return False
    # Of an adopted order the broker may not have told: what is not known cannot be shown to be less eager.
    return before is None or (after - before) * sign > 0

"""What one unit of an order is worth: at its worst, to limits; by its own prices, while the market has told none.

A buy never pays more than its limit.  All else trades at the market's price: a sell limit far below the market fills
near the market, and so does a stop that the market has passed already.  Whoever places an order chooses its prices, so
they alone value nothing but a buy with a limit.
"""

from __future__ import annotations

from decimal import Decimal

from trading.orders import ZERO, ModifyOrder, Order, Side


def worst_price(side: Side, limit: Decimal | None, stop: Decimal | None, mark: Decimal | None) -> Decimal | None:
    """The most that one unit of an order may trade at; None where only a price of the market (``mark``) could tell."""
    if side is Side.BUY and limit is not None:
        return limit
    return None if mark is None else max(own_price(side, limit, stop), mark)


def own_price(side: Side, limit: Decimal | None, stop: Decimal | None) -> Decimal:
    """What an open order itself says of its worth; 0 where it has no price."""
    if side is Side.BUY and limit is not None:
        return limit
    return max(limit or ZERO, stop or ZERO)


def prices_after(change: ModifyOrder, order: Order) -> tuple[Decimal | None, Decimal | None]:
    """Limit and stop price of an order once it is changed."""
    return change.limit_price or order.limit_price, change.stop_price or order.stop_price

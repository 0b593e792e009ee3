"""Does an intent make sense?  Every field against the others and against the instrument's rules."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from trading.errors import BadInput
from trading.ids import client_order_id
from trading.instruments import Instrument
from trading.orders import ModifyOrder, Order, OrderType, PlaceOrder, TimeInForce

_HAS_LIMIT: Final = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
_HAS_STOP: Final = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})
_AT_ONCE: Final = frozenset({TimeInForce.IOC, TimeInForce.FOK})


def check_intent(intent: PlaceOrder, instrument: Instrument, reference: Decimal | None) -> None:
    """Raise `BadInput` naming the field and the fix unless ``intent`` could be an order.

    ``reference`` is the last known price, for the smallest notional of an order without a limit price.
    """
    client_order_id(intent.client_order_id)
    instrument.check_quantity(intent.quantity)
    _check_price(intent.limit_price, "limit_price", intent.type, intent.type in _HAS_LIMIT, instrument)
    _check_price(intent.stop_price, "stop_price", intent.type, intent.type in _HAS_STOP, instrument)
    if intent.time_in_force in _AT_ONCE and intent.type in _HAS_STOP:
        raise BadInput(
            "time_in_force",
            f"{intent.time_in_force} cannot wait for a stop; use day or gtc with {intent.type}",
        )
    price = intent.limit_price or intent.stop_price or reference
    if instrument.min_notional and price is not None and not intent.reduce_only:
        notional = instrument.notional(intent.quantity, price)
        if notional < instrument.min_notional:
            raise BadInput(
                "quantity",
                f"{notional:f} is below the smallest order value {instrument.min_notional} of {instrument.id}",
            )


def check_modify(change: ModifyOrder, order: Order, instrument: Instrument) -> None:
    """Raise `BadInput` unless ``change`` can be made to ``order``."""
    if change.quantity is None and change.limit_price is None and change.stop_price is None:
        raise BadInput("quantity", "nothing to change: give quantity, limit_price or stop_price")
    if change.quantity is not None:
        instrument.check_quantity(change.quantity)
        if change.quantity <= order.filled_quantity:
            raise BadInput(
                "quantity",
                f"{change.quantity} is not above the {order.filled_quantity} already filled; cancel the order instead",
            )
    if change.limit_price is not None:
        _check_price(change.limit_price, "limit_price", order.type, order.type in _HAS_LIMIT, instrument)
    if change.stop_price is not None:
        _check_price(change.stop_price, "stop_price", order.type, order.type in _HAS_STOP, instrument)


def same_content(intent: PlaceOrder, order: Order, modified: bool) -> bool:
    """Whether ``intent`` asks for what ``order`` was placed for; ``modified`` orders may differ in their numbers."""
    numbers = (intent.quantity, intent.limit_price, intent.stop_price)
    return (modified or numbers == (order.quantity, order.limit_price, order.stop_price)) and (
        intent.instrument == order.instrument
        and intent.side is order.side
        and intent.type is order.type
        and intent.time_in_force is order.time_in_force
        and intent.reduce_only == order.reduce_only
    )


def _check_price(price: Decimal | None, field: str, type_: OrderType, needed: bool, instrument: Instrument) -> None:
    if price is None:
        if needed:
            raise BadInput(field, f"a {type_} order needs one")
        return
    if not needed:
        raise BadInput(field, f"a {type_} order has none; leave it out or choose another type")
    instrument.check_price(price, field)

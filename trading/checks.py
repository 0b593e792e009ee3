"""Does an intent make sense?  Every field against the others and against the instrument's rules."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from trading.broker import Capabilities
from trading.errors import BadInput
from trading.instruments import Instrument
from trading.orders import ModifyOrder, Order, OrderType, PlaceOrder, TimeInForce

_HAS_LIMIT: Final = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
_HAS_STOP: Final = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})
_WAITS: Final = frozenset({OrderType.STOP, OrderType.STOP_LIMIT, OrderType.TRAILING_STOP})
_AT_ONCE: Final = frozenset({TimeInForce.IOC, TimeInForce.FOK})
_AUCTION: Final = frozenset({TimeInForce.AT_OPEN, TimeInForce.AT_CLOSE})
_CHANGES: Final = ("quantity", "limit_price", "stop_price", "trail_price", "trail_percent")


def check_intent(intent: PlaceOrder, instrument: Instrument, reference: Decimal | None) -> None:
    """Raise `BadInput` naming the field and the fix unless ``intent`` could be an order.

    ``reference`` is the last known price, for the smallest notional of an order without a limit price.
    """
    instrument.check_quantity(intent.quantity)
    _check_price(intent.limit_price, "limit_price", intent.type, intent.type in _HAS_LIMIT, instrument)
    _check_price(intent.stop_price, "stop_price", intent.type, intent.type in _HAS_STOP, instrument)
    check_trail(intent.type, intent.trail_price, intent.trail_percent, instrument)
    if intent.time_in_force in _AT_ONCE and intent.type in _WAITS:
        raise BadInput(
            "time_in_force",
            f"{intent.time_in_force} cannot wait for a stop; use day or gtc with {intent.type}",
        )
    if intent.time_in_force in _AUCTION and intent.type in _WAITS:
        raise BadInput(
            "time_in_force",
            f"an auction ({intent.time_in_force}) has no stops; use day or gtc with {intent.type}",
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
    if all(getattr(change, field) is None for field in _CHANGES):
        raise BadInput("quantity", f"nothing to change: give {', '.join(_CHANGES[:-1])} or {_CHANGES[-1]}")
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
    if change.trail_price is not None or change.trail_percent is not None:
        check_trail(order.type, change.trail_price, change.trail_percent, instrument)
        if (change.trail_price is None) != (order.trail_price is None):
            has, given = ("trail_price", "trail_percent") if order.trail_price else ("trail_percent", "trail_price")
            raise BadInput(given, f"the order trails by {has}; give that, or cancel it and place another")


def check_offered(intent: PlaceOrder, can: Capabilities) -> None:
    """Raise `BadInput` unless the broker takes orders of this type and time in force."""
    if intent.type not in can.order_types:
        raise BadInput(
            "type",
            f"the broker of {intent.account} takes no {intent.type} orders; use one of {_listed(can.order_types)}",
        )
    if intent.time_in_force not in can.times_in_force:
        raise BadInput(
            "time_in_force",
            f"the broker of {intent.account} does not take {intent.time_in_force}; "
            f"use one of {_listed(can.times_in_force)}",
        )


def check_trail(
    type_: OrderType, trail_price: Decimal | None, trail_percent: Decimal | None, instrument: Instrument
) -> None:
    """Raise `BadInput` unless a trailing stop has exactly one distance, and any other order none."""
    if type_ is not OrderType.TRAILING_STOP:
        for field, given in (("trail_price", trail_price), ("trail_percent", trail_percent)):
            if given is not None:
                raise BadInput(field, f"a {type_} order has none; leave it out or use type trailing_stop")
        return
    if trail_price is not None and trail_percent is not None:
        raise BadInput("trail_percent", "give trail_price or trail_percent, not both")
    if trail_price is not None:
        instrument.check_price(trail_price, "trail_price")
    elif trail_percent is None:
        raise BadInput("trail_price", "a trailing_stop order needs trail_price or trail_percent")
    elif not trail_percent.is_finite() or not 0 < trail_percent < 100:
        raise BadInput("trail_percent", f"{trail_percent} is not above 0 and below 100")


def same_content(intent: PlaceOrder, order: Order, modified: bool) -> bool:
    """Whether ``intent`` asks for what ``order`` was placed for; ``modified`` orders may differ in their numbers."""
    numbers = all(getattr(intent, field) == getattr(order, field) for field in _CHANGES)
    return (modified or numbers) and (
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


def _listed(names: frozenset[OrderType] | frozenset[TimeInForce]) -> str:
    return ", ".join(sorted(names))

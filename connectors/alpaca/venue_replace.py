"""Replacing orders at the simulated Alpaca.  Pure.

A replacement is a new order that takes the old one's place, at once or after a while; where the old one ends first, the
new one is rejected.  It takes over what has filled: its ``qty`` is the total.  (Alpaca documents ``qty must be >
filled_qty``; that ``filled_qty`` carries over has been reported by others who trade there.)
"""

from __future__ import annotations

from typing import Any

from connectors.alpaca.venue_checks import (
    BAD_FIELD,
    UNPROCESSABLE,
    Refusal,
    check_price,
    check_qty,
    check_trail,
    number_in,
    object_in,
)
from connectors.alpaca.venue_ledger import VenueOrder, row_of
from connectors.alpaca.venue_means import Means
from connectors.alpaca.wire import LONGEST_CLIENT_ID
from trading.ids import Nanos
from trading.orders import ZERO, OrderType, TimeInForce


class Replacing(Means):
    """``PATCH /v2/orders/{order_id}``."""

    #: Nanoseconds between the answer to a replace and the replacement.
    replace_takes = 0

    def replace(self, order_id: str, body: bytes, now: Nanos) -> dict[str, Any]:
        """``PATCH /v2/orders/{order_id}``: the new order.  Raises `Refusal`.

        The replacement takes over what the old order has filled: its ``qty`` is the total.
        """
        old = self.find(order_id)
        given = object_in(body)
        if old.status == "replaced" or old.replaced_by is not None:
            raise Refusal(422, UNPROCESSABLE, "order already replaced")
        if old.is_ended:
            raise Refusal(422, UNPROCESSABLE, "order is not open")
        status = "pending_cancel" if order_id in self.cancelling else old.status
        status = "pending_replace" if order_id in self.replacing else status
        if status in ("accepted", "pending_new", "pending_cancel", "pending_replace"):
            raise Refusal(422, UNPROCESSABLE, f"cannot replace order in {status} status")
        if old.notional is not None:
            raise Refusal(422, UNPROCESSABLE, "notional orders cannot be replaced")
        new = self._replacement(old, given, now)
        self.ledger.add(new)
        shown = row_of(new)
        if not self.replace_takes:
            self._replaced(old, new, now)
            return shown
        self.replacing.add(old.id)
        self.tell_under_way("pending_replace", old, now)
        self.later(Nanos(now + self.replace_takes), lambda at: self._replaced(old, new, at))
        return shown

    def _replacement(self, old: VenueOrder, given: dict[str, Any], now: Nanos) -> VenueOrder:
        client_id = given.get("client_order_id") or self.ledger.new_id()
        if len(client_id) > LONGEST_CLIENT_ID:
            raise Refusal(422, BAD_FIELD, f"client_order_id must be no more than {LONGEST_CLIENT_ID} characters")
        if client_id in self.ledger.by_client_id:
            raise Refusal(422, BAD_FIELD, "client_order_id must be unique")
        qty = number_in(given, "qty") or old.qty
        limit = number_in(given, "limit_price") or old.limit_price
        stop = number_in(given, "stop_price") or old.stop_price
        trail = number_in(given, "trail")
        try:
            tif = TimeInForce(given.get("time_in_force") or old.time_in_force)
        except ValueError as error:
            raise Refusal(422, BAD_FIELD, f"invalid time_in_force: {given['time_in_force']}") from error
        asset = self.assets[old.symbol]
        check_price(limit, "limit_price", asset)
        if given.get("stop_price"):
            check_price(stop, "stop_price", asset)
        if given.get("limit_price") and "limit" not in old.type:
            raise Refusal(422, UNPROCESSABLE, f"limit_price cannot be set on a {old.type} order")
        if given.get("stop_price") and old.type not in (OrderType.STOP, OrderType.STOP_LIMIT):
            raise Refusal(422, UNPROCESSABLE, f"stop_price cannot be set on a {old.type} order")
        if trail is not None and old.type is not OrderType.TRAILING_STOP:
            raise Refusal(422, UNPROCESSABLE, "trail can only be set on trailing stop orders")
        trail_price = trail if trail is not None and old.trail_price is not None else old.trail_price
        trail_percent = trail if trail is not None and old.trail_percent is not None else old.trail_percent
        was = (old.qty, old.limit_price, old.stop_price, old.trail_price, old.trail_percent, old.time_in_force)
        if (qty, limit, stop, trail_price, trail_percent, tif) == was:
            raise Refusal(422, UNPROCESSABLE, "order parameters are not changed")
        if qty != old.qty and old.order_class:
            raise Refusal(422, UNPROCESSABLE, "qty cannot be changed for advanced orders")
        if qty <= old.filled_qty:
            raise Refusal(422, UNPROCESSABLE, "qty must be > filled_qty")
        check_qty(qty)
        check_trail(trail_price, trail_percent, asset)
        cost = ZERO
        if old.parent is None or old.reserved:
            cost = self.check_means(old.symbol, old.side, qty - old.filled_qty, limit or stop, without=old)
        return VenueOrder(
            id=self.ledger.new_id(),
            client_order_id=client_id,
            asset_id=old.asset_id,
            asset_class=old.asset_class,
            symbol=old.symbol,
            side=old.side,
            type=old.type,
            time_in_force=tif,
            qty=qty,
            arrived_at=now,
            limit_price=limit,
            stop_price=stop,
            trail_price=trail_price,
            trail_percent=trail_percent,
            hwm=old.hwm,
            filled_qty=old.filled_qty,
            filled_value=old.filled_value,
            status="pending_new",
            order_class=old.order_class,
            extended_hours=old.extended_hours,
            updated_at=now,
            replaces=old.id,
            parent=old.parent,
            legs=list(old.legs),
            # Until then both count: together they hold back the larger of the two.
            reserved=max(cost - old.reserved, ZERO),
        )

    def _replaced(self, old: VenueOrder, new: VenueOrder, now: Nanos) -> None:
        """The replacement reaches the venue: it takes the old order's place, or is rejected where that has ended."""
        self.replacing.discard(old.id)
        if new.is_ended:
            return
        if old.is_ended or new.qty <= old.filled_qty:
            self.tell("order_replace_rejected", old, now)
            self.end(new, "rejected", now)
            return
        was_watched = old.status == "held"
        self.withdraw(old, now)
        new.filled_qty, new.filled_value, new.hwm = old.filled_qty, old.filled_value, old.hwm
        new.reserved, old.reserved = new.reserved + old.reserved, ZERO
        old.status, old.replaced_at, old.replaced_by = "replaced", now, new.id
        if old.parent is not None:
            legs = self.ledger.orders[old.parent].legs
            legs[legs.index(old.id)] = new.id
        for leg in new.legs:
            self.ledger.orders[leg].parent = new.id
        self.tell("replaced", old, now)
        if was_watched:
            self.watch(new, now)
        else:
            self.enter(new, now)

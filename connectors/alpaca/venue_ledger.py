"""What the simulated Alpaca knows of one account: orders, executions, positions, cash.  It never forgets.

Plain Python for tests to read: it is the truth that the other books are judged by.  Every change of an order is
kept with its time, so that lists can be shown as they were a while ago.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from connectors.alpaca.wire import ENDED, plain, rfc3339
from trading.ids import Nanos
from trading.orders import ZERO, OrderType, Side, TimeInForce


class VenueOrder(msgspec.Struct, kw_only=True):
    """One order at Alpaca, as it stands."""

    id: str
    client_order_id: str
    asset_id: str
    asset_class: str
    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    qty: Decimal
    #: When its request arrived.
    arrived_at: Nanos
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    hwm: Decimal | None = None
    filled_qty: Decimal = ZERO
    #: Sum of quantity times price over what has filled.
    filled_value: Decimal = ZERO
    status: str = "pending_new"
    order_class: str = ""
    extended_hours: bool = False
    updated_at: Nanos = Nanos(0)
    filled_at: Nanos | None = None
    expired_at: Nanos | None = None
    canceled_at: Nanos | None = None
    failed_at: Nanos | None = None
    replaced_at: Nanos | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    #: The order whose leg this is, and the legs of this one.
    parent: str | None = None
    legs: list[str] = msgspec.field(default_factory=list)
    #: Money held back for what it may open.
    reserved: Decimal = ZERO

    @property
    def is_ended(self) -> bool:
        """Whether it will not trade any more."""
        return self.status in ENDED

    @property
    def left(self) -> Decimal:
        """What may still fill: nothing once it has ended."""
        return ZERO if self.is_ended else self.qty - self.filled_qty


class VenueFill(msgspec.Struct, frozen=True, kw_only=True):
    """One execution."""

    #: The stream's ``execution_id``.
    id: str
    #: The id of its activity, which has the execution's in it.
    activity_id: str
    order_id: str
    symbol: str
    side: Side
    qty: Decimal
    price: Decimal
    at: Nanos
    cum_qty: Decimal
    leaves_qty: Decimal


class Held(msgspec.Struct):
    """A position, signed."""

    qty: Decimal = ZERO
    average_price: Decimal = ZERO

    def apply(self, side: Side, qty: Decimal, price: Decimal) -> None:
        """Account for one execution."""
        signed = qty * side.sign
        after = self.qty + signed
        if self.qty * signed >= 0:
            self.average_price = (abs(self.qty) * self.average_price + qty * price) / abs(after)
        elif after * self.qty <= 0:
            self.average_price = price if after else ZERO
        self.qty = after


class Ledger:
    """The books of one account."""

    def __init__(self, account: str, cash: Decimal) -> None:
        self.account = account
        self.opening_cash = cash
        self.cash = cash
        self.orders: dict[str, VenueOrder] = {}
        #: client_order_id -> order id; Alpaca never gives one away twice.
        self.by_client_id: dict[str, str] = {}
        #: Those of ``orders`` that may still trade.
        self.live: dict[str, VenueOrder] = {}
        self.executions: list[VenueFill] = []
        self.positions: dict[str, Held] = {}
        #: order id -> how it looked from when on.
        self.versions: dict[str, list[tuple[Nanos, dict[str, Any]]]] = {}
        self._made = 0

    def __repr__(self) -> str:
        held = {symbol: str(p.qty) for symbol, p in self.positions.items() if p.qty}
        return f"<Ledger {self.account} cash={self.cash} orders={len(self.orders)} fills={len(self.executions)} {held}>"

    def new_id(self) -> str:
        """A UUID that no other order or execution of any account has, the same in every run."""
        self._made += 1
        made = hashlib.blake2b(f"{self.account}/{self._made}".encode(), digest_size=16).hexdigest()
        return f"{made[:8]}-{made[8:12]}-4{made[13:16]}-8{made[17:20]}-{made[20:]}"

    def add(self, order: VenueOrder) -> None:
        """Take in a new order."""
        self.orders[order.id] = order
        self.by_client_id[order.client_order_id] = order.id
        self.note(order, order.arrived_at)

    def note(self, order: VenueOrder, at: Nanos) -> dict[str, Any]:
        """Keep how an order looks from now on; returns that."""
        order.updated_at = at
        if order.is_ended:
            self.live.pop(order.id, None)
        else:
            self.live[order.id] = order
        row = row_of(order)
        self.versions.setdefault(order.id, []).append((at, row))
        return row

    def row_at(self, order_id: str, at: Nanos) -> dict[str, Any] | None:
        """How an order looked at a time; None before it was there."""
        return next((row for since, row in reversed(self.versions[order_id]) if since <= at), None)

    def held(self, symbol: str) -> Held:
        """The position in a symbol, flat ones too."""
        return self.positions.setdefault(symbol, Held())

    def open_orders(self) -> list[VenueOrder]:
        """Orders that may still trade, oldest first."""
        return [order for order in self.live.values() if not order.is_ended]

    def positions_at(self, at: Nanos) -> dict[str, Held]:
        """Positions as they were at a time."""
        if not self.executions or self.executions[-1].at <= at:
            return self.positions
        then: dict[str, Held] = {}
        for fill in self.executions:
            if fill.at <= at:
                then.setdefault(fill.symbol, Held()).apply(fill.side, fill.qty, fill.price)
        return then

    def chain(self, order_id: str) -> list[VenueOrder]:
        """An order with all that it replaced and all that replaced it, oldest first."""
        order = self.orders[order_id]
        while order.replaces is not None:
            order = self.orders[order.replaces]
        found = [order]
        while order.replaced_by is not None:
            order = self.orders[order.replaced_by]
            found.append(order)
        return found

    def dump(self, since: int = 0) -> dict[str, Any]:
        """Everything in plain values; orders that arrived and executions before ``since`` (UTC ns) are left out."""
        return {
            "account": self.account,
            "opening_cash": plain(self.opening_cash),
            "cash": plain(self.cash),
            "orders": [
                {**row_of(order), "arrived_at_ns": order.arrived_at, "parent": order.parent}
                for order in self.orders.values()
                if order.arrived_at >= since
            ],
            "executions": msgspec.to_builtins([fill for fill in self.executions if fill.at >= since]),
            "positions": {symbol: plain(held.qty) for symbol, held in self.positions.items() if held.qty},
        }


def row_of(order: VenueOrder, legs: Iterable[dict[str, Any]] | None = None) -> dict[str, Any]:
    """An order as its JSON object."""
    average = order.filled_value / order.filled_qty if order.filled_qty else None
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "created_at": rfc3339(order.arrived_at),
        "updated_at": rfc3339(order.updated_at),
        "submitted_at": rfc3339(order.arrived_at),
        "filled_at": _time(order.filled_at),
        "expired_at": _time(order.expired_at),
        "canceled_at": _time(order.canceled_at),
        "failed_at": _time(order.failed_at),
        "replaced_at": _time(order.replaced_at),
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "asset_id": order.asset_id,
        "symbol": order.symbol,
        "asset_class": order.asset_class,
        "notional": _number(order.notional),
        "qty": None if order.notional is not None else plain(order.qty),
        "filled_qty": plain(order.filled_qty),
        "filled_avg_price": None if average is None else plain(round(average, 9)),
        "order_class": order.order_class,
        "order_type": str(order.type),
        "type": str(order.type),
        "side": str(order.side),
        "time_in_force": str(order.time_in_force),
        "limit_price": _number(order.limit_price),
        "stop_price": _number(order.stop_price),
        "status": order.status,
        "extended_hours": order.extended_hours,
        "legs": None if legs is None else list(legs),
        "trail_percent": _number(order.trail_percent),
        "trail_price": _number(order.trail_price),
        "hwm": _number(order.hwm),
        "subtag": None,
        "source": None,
    }


def _number(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _time(at: Nanos | None) -> str | None:
    return None if at is None else rfc3339(at)

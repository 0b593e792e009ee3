"""What a broker tells us, in our words: the values that cross between a connector and the session."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

import msgspec

from trading.ids import AccountId, BrokerOrderId, ExecutionId, InstrumentId, Nanos
from trading.orders import ZERO, Fill, OrderState, OrderType, Side, TimeInForce


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker can do."""

    order_types: frozenset[OrderType]
    times_in_force: frozenset[TimeInForce]
    native_modify: bool
    #: The broker refuses a second order with the same tag, for ever.
    deduplicates: bool
    #: Seconds after which an order that never showed in its book cannot arrive any more.
    late_arrival_s: float
    #: Order requests a second that the broker takes for long, and how many at once.
    orders_per_s: float = 1_000_000.0
    order_burst: int = 1_000_000
    #: The cash it reports moves with each execution at once, by price and fee, and not only at settlement.
    trade_date_cash: bool = False


class OrderTicket(msgspec.Struct, frozen=True, kw_only=True):
    """An order on its way to the broker, as a connector needs it."""

    tag: str
    instrument: InstrumentId
    side: Side
    type: OrderType
    quantity: Decimal
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: TimeInForce
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    reduce_only: bool = False
    #: When the intent's author decided (for latency figures only; 0 unknown).
    created_at: Nanos = Nanos(0)


class AmendTicket(msgspec.Struct, frozen=True, kw_only=True):
    """A change of an order at the broker; None leaves a field as it is."""

    tag: str
    broker_order_id: BrokerOrderId | None
    instrument: InstrumentId
    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None


class CancelTicket(msgspec.Struct, frozen=True, kw_only=True):
    """An order to take back at the broker."""

    tag: str
    broker_order_id: BrokerOrderId | None
    instrument: InstrumentId


class Verdict(StrEnum):
    """How the broker answered a request.  `UNKNOWN`: no answer that proves either."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The broker's answer to one ticket."""

    tag: str
    verdict: Verdict
    broker_order_id: BrokerOrderId | None = None
    reason: str = ""
    raw: str = ""


class BrokerOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of the broker's order book.  ``tag`` is "" for orders placed by hand.

    A trailing stop has no ``stop_price``: where it stands follows from ``high_water`` and its trail.
    """

    broker_order_id: BrokerOrderId
    tag: str
    instrument: InstrumentId
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    filled_quantity: Decimal
    state: OrderState
    at: Nanos
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    average_price: Decimal = ZERO
    #: A stop that has been set off and works as a market or limit order now.
    triggered: bool = False
    reason: str = ""
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    #: Best price a trailing stop has seen: the highest for a sell, the lowest for a buy.
    high_water: Decimal | None = None


class BrokerFill(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of the broker's trade book."""

    broker_order_id: BrokerOrderId
    tag: str
    instrument: InstrumentId
    side: Side
    fill: Fill


class BrokerPosition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A net position at the broker, signed."""

    instrument: InstrumentId
    quantity: Decimal
    average_price: Decimal = ZERO


class BrokerReport(msgspec.Struct, frozen=True, kw_only=True):
    """The broker's whole view of an account, fetched after ``requested_at``."""

    account: AccountId
    requested_at: Nanos
    received_at: Nanos
    orders: tuple[BrokerOrder, ...]
    fills: tuple[BrokerFill, ...]
    positions: tuple[BrokerPosition, ...]
    cash: Decimal
    currency: str


class UpdateKind(StrEnum):
    """What an unasked message from the broker says of an order."""

    ACCEPTED = "accepted"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    MODIFIED = "modified"
    CANCEL_REJECTED = "cancel_rejected"
    MODIFY_REJECTED = "modify_rejected"


class BrokerUpdate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One unasked message from the broker about one order."""

    kind: UpdateKind
    tag: str
    instrument: InstrumentId
    at: Nanos
    broker_order_id: BrokerOrderId | None = None
    fill: Fill | None = None
    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    #: What the broker says has filled of the order in all; None: it does not say.
    filled_quantity: Decimal | None = None
    reason: str = ""
    raw: str = ""
    #: The broker's id of this very message, where it has one.
    message_id: ExecutionId | None = None


class StreamChange(msgspec.Struct, frozen=True, kw_only=True):
    """The stream of updates was lost, or is back.

    What a broker sent in between, or garbled, is only in its report; so is what came right before a loss.
    """

    is_up: bool
    reason: str = ""

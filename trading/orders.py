"""Orders, fills and the transition table.

An *intent* is what somebody wants (`PlaceOrder`); an *order* is an intent that has been journaled.  An order
changes only by an `OrderEvent`, and only along `TRANSITIONS`; anything else is refused and audited.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from trading.ids import (
    AccountId,
    AlgoId,
    BrokerOrderId,
    CauseId,
    ClientOrderId,
    ExecutionId,
    InstrumentId,
    Nanos,
)

ZERO: Final = Decimal(0)


class Side(StrEnum):
    """Which way an order trades."""

    BUY = "buy"
    SELL = "sell"

    @property
    def sign(self) -> int:
        """+1 for buy, -1 for sell."""
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> Side:
        """The other side."""
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(StrEnum):
    """How an order prices itself."""

    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"
    #: A stop that follows the market at a fixed distance and becomes a market order when it is hit.
    TRAILING_STOP = "trailing_stop"


class TimeInForce(StrEnum):
    """How long an order stands: the session, until cancelled, at once or not, all at once or not, or only for the
    auction that opens or closes the session.
    """

    DAY = "day"
    GTC = "gtc"
    IOC = "ioc"
    FOK = "fok"
    AT_OPEN = "opg"
    AT_CLOSE = "cls"


class OrderState(StrEnum):
    """Where an order stands.  `UNKNOWN`: handed over, outcome not known; resolved by evidence only."""

    PENDING = "pending"
    SUBMITTED = "submitted"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    #: Refused by us; never left the house.
    DENIED = "denied"

    @property
    def is_final(self) -> bool:
        """No further fill is expected (a late one is still kept if it comes)."""
        return self in _FINAL


_FINAL: Final = frozenset(
    {OrderState.FILLED, OrderState.CANCELLED, OrderState.REJECTED, OrderState.EXPIRED, OrderState.DENIED}
)


class EventKind(StrEnum):
    """What happened to an order, in the past tense.  `REFUSED`: an illegal move that was not made."""

    PENDING = "pending"
    DENIED = "denied"
    SUBMITTED = "submitted"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    CANCEL_REQUESTED = "cancel_requested"
    CANCEL_REJECTED = "cancel_rejected"
    MODIFY_REQUESTED = "modify_requested"
    MODIFIED = "modified"
    MODIFY_REJECTED = "modify_rejected"
    ADOPTED = "adopted"
    #: It had ended here, and the broker's book shows it alive.
    REVIVED = "revived"
    REFUSED = "refused"


class Fill(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One execution at the broker.  ``execution_id`` is the broker's own and unique in the account."""

    execution_id: ExecutionId
    quantity: Decimal
    price: Decimal
    #: When the broker says it happened.
    at: Nanos
    fee: Decimal = ZERO
    fee_currency: str = ""


class PlaceOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The intent to trade.  ``(account, client_order_id)`` is its key: sent twice, it acts once."""

    account: AccountId
    client_order_id: ClientOrderId
    instrument: InstrumentId
    side: Side
    type: OrderType
    quantity: Decimal
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    #: A trailing stop has one of these: how far it stays behind the best price, in money or in percent of it.
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.DAY
    #: May only make the position smaller.
    reduce_only: bool = False
    algo: AlgoId | None = None
    #: When the author decided (for latency figures only).
    created_at: Nanos = Nanos(0)
    cause: CauseId = CauseId("")


class ModifyOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Change an open order; fields left None stay.  ``quantity`` is the new total, filled part included."""

    account: AccountId
    client_order_id: ClientOrderId
    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    cause: CauseId = CauseId("")
    #: `Order.updated_at` of the order that was looked at: it is changed only if that is still so.  None: however it is.
    seen: Nanos | None = None


class CancelOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Take an open order back."""

    account: AccountId
    client_order_id: ClientOrderId
    cause: CauseId = CauseId("")


class OrderEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One journaled change of an order: what, when, by whom, why, caused by what, and the broker's own words."""

    kind: EventKind
    account: AccountId
    client_order_id: ClientOrderId
    at: Nanos
    actor: str
    reason: str = ""
    cause: CauseId = CauseId("")
    broker_order_id: BrokerOrderId | None = None
    fill: Fill | None = None
    #: New values of a MODIFY_REQUESTED or MODIFIED.
    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None
    #: The broker's raw message, where one caused this.
    raw: str = ""


class Order(msgspec.Struct, kw_only=True):
    """An intent that has been journaled, as it stands now.  Only `apply` changes it."""

    account: AccountId
    client_order_id: ClientOrderId
    instrument: InstrumentId
    side: Side
    type: OrderType
    quantity: Decimal
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: TimeInForce
    reduce_only: bool
    algo: AlgoId | None
    #: What the broker is told to echo; see `trading.ids.broker_tag`.
    tag: str
    state: OrderState
    created_at: Nanos
    updated_at: Nanos
    broker_order_id: BrokerOrderId | None = None
    filled_quantity: Decimal = ZERO
    #: Quantity-weighted average over fills; 0 while there is none.
    average_price: Decimal = ZERO
    #: Why it is where it is, where somebody said so.
    reason: str = ""
    #: A cancel is under way.
    cancelling: bool = False
    #: The distance of a trailing stop, in money or in percent; where it stands now only the venue knows.
    trail_price: Decimal | None = None
    trail_percent: Decimal | None = None

    @property
    def open_quantity(self) -> Decimal:
        """What may still fill: 0 once final."""
        if self.state.is_final:
            return ZERO
        left = self.quantity - self.filled_quantity
        return left if left > 0 else ZERO

    @property
    def key(self) -> tuple[AccountId, ClientOrderId]:
        """What identifies the order everywhere."""
        return (self.account, self.client_order_id)


def order_from(intent: PlaceOrder, tag: str, at: Nanos) -> Order:
    """The order that ``intent`` becomes when it is journaled."""
    return Order(
        account=intent.account,
        client_order_id=intent.client_order_id,
        instrument=intent.instrument,
        side=intent.side,
        type=intent.type,
        quantity=intent.quantity,
        limit_price=intent.limit_price,
        stop_price=intent.stop_price,
        trail_price=intent.trail_price,
        trail_percent=intent.trail_percent,
        time_in_force=intent.time_in_force,
        reduce_only=intent.reduce_only,
        algo=intent.algo,
        tag=tag,
        state=OrderState.PENDING,
        created_at=at,
        updated_at=at,
    )


_S = OrderState
_K = EventKind
_LIVE: Final = (_S.PENDING, _S.SUBMITTED, _S.PARTIALLY_FILLED, _S.UNKNOWN)
_ENDED: Final = (_S.FILLED, _S.CANCELLED, _S.REJECTED, _S.EXPIRED)

#: ``(state, event) -> state``.  FILLED stands for every fill; whether it ends in PARTIALLY_FILLED or FILLED is
#: decided by the quantity in `apply`.  What is not listed is refused.
TRANSITIONS: Final[dict[tuple[OrderState, EventKind], OrderState]] = {
    (_S.PENDING, _K.SUBMITTED): _S.SUBMITTED,
    (_S.PENDING, _K.UNKNOWN): _S.UNKNOWN,
    (_S.PENDING, _K.REJECTED): _S.REJECTED,
    (_S.UNKNOWN, _K.SUBMITTED): _S.SUBMITTED,
    # Absent from the broker's book, proven twice: it never arrived.
    (_S.UNKNOWN, _K.REJECTED): _S.REJECTED,
    # Brokers accept and then reject, e.g. when the exchange refuses what their own desk let through.
    (_S.SUBMITTED, _K.REJECTED): _S.REJECTED,
    (_S.PARTIALLY_FILLED, _K.REJECTED): _S.REJECTED,
    # A repeated acknowledgement, e.g. after a modify or a reconnect, changes nothing.
    (_S.SUBMITTED, _K.SUBMITTED): _S.SUBMITTED,
    (_S.PARTIALLY_FILLED, _K.SUBMITTED): _S.PARTIALLY_FILLED,
    # The acknowledgement was lost or overtaken by the end.
    **{(s, _K.CANCELLED): _S.CANCELLED for s in _LIVE},
    **{(s, _K.EXPIRED): _S.EXPIRED for s in _LIVE},
    **{(s, _K.FILLED): _S.PARTIALLY_FILLED for s in _LIVE},
    # Ugly but legal: executions that were under way when the order ended still count.
    **{(s, _K.FILLED): s for s in _ENDED},
    # Requests and their refusals leave the state alone; a late refusal may find the order ended.
    **{(s, _K.CANCEL_REQUESTED): s for s in _LIVE},
    **{(s, _K.MODIFY_REQUESTED): s for s in _LIVE},
    **{(s, _K.CANCEL_REJECTED): s for s in (*_LIVE, *_ENDED)},
    **{(s, _K.MODIFY_REJECTED): s for s in (*_LIVE, *_ENDED)},
    # A change that was made before the order ended may come to light only afterwards.
    **{(s, _K.MODIFIED): s for s in (_S.SUBMITTED, _S.PARTIALLY_FILLED, _S.UNKNOWN, *_ENDED)},
    # The broker's book names an order we did not know or had lost: take the broker's word.
    **{(s, _K.ADOPTED): s for s in (*_LIVE, *_ENDED)},
    **{(s, _K.REVIVED): _S.SUBMITTED for s in _ENDED},
}


def can_apply(state: OrderState, kind: EventKind) -> bool:
    """Whether the table has this move."""
    return (state, kind) in TRANSITIONS


def apply(order: Order, event: OrderEvent) -> None:
    """Make the move ``event`` tells of.

    The caller has checked `can_apply` and that a fill's execution id is new; a KeyError here is a bug.
    """
    state = TRANSITIONS[(order.state, event.kind)]
    kind = event.kind
    if event.broker_order_id is not None:
        order.broker_order_id = event.broker_order_id
    if kind is EventKind.FILLED:
        fill = event.fill
        if fill is None:
            raise ValueError("a FILLED event carries its fill")
        filled = order.filled_quantity + fill.quantity
        order.average_price = (order.average_price * order.filled_quantity + fill.price * fill.quantity) / filled
        order.filled_quantity = filled
        if filled >= order.quantity:
            state = OrderState.FILLED
    elif kind is EventKind.CANCEL_REQUESTED:
        order.cancelling = True
    elif kind is EventKind.CANCEL_REJECTED:
        order.cancelling = False
    elif kind is EventKind.REVIVED:
        if event.quantity is not None:
            order.quantity = event.quantity
        if order.filled_quantity:
            state = OrderState.PARTIALLY_FILLED
    elif kind is EventKind.MODIFIED:
        if event.quantity is not None:
            order.quantity = event.quantity
        if event.limit_price is not None:
            order.limit_price = event.limit_price
        if event.stop_price is not None:
            order.stop_price = event.stop_price
        if event.trail_price is not None:
            order.trail_price = event.trail_price
        if event.trail_percent is not None:
            order.trail_percent = event.trail_percent
        if order.filled_quantity >= order.quantity > 0 and not state.is_final:
            state = OrderState.FILLED
    if state.is_final:
        order.cancelling = False
    order.state = state
    order.updated_at = event.at
    if event.reason:
        order.reason = event.reason

"""The account as REST shows it, put together: order rows, fills, positions and cash become one `BrokerReport`.  Pure.

Executions have one key on both ways: the stream's ``execution_id``, which is the part behind ``::`` of an activity's
id.  (Alpaca's documents show both as UUIDs without saying so; programs that compare them live rely on it.  Were it
not so, the sums of the trade book would differ from ``filled_qty`` and show as a break, not as a silent double.)
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, TypeVar

import msgspec

from connectors.alpaca.chains import Chains
from connectors.alpaca.codec import ORDERS
from connectors.alpaca.symbols import instrument_of
from connectors.alpaca.wire import AccountRow, FillActivity, OrderRow, PositionRow, Request, Response, nanos, rfc3339
from trading.broker import BrokerFill, BrokerOrder, BrokerPosition, BrokerReport
from trading.errors import Unreachable
from trading.ids import AccountId, ExecutionId, Nanos
from trading.orders import ZERO, Fill, OrderState, OrderType, Side, TimeInForce

#: Largest pages that Alpaca gives.
ORDER_PAGE: Final = 500
ACTIVITY_PAGE: Final = 100
_SECOND: Final = 1_000_000_000

#: Where an order stands, by ``status``.  What Alpaca has in its book counts as submitted, routed or not: an order
#: given after hours stays ``accepted`` until the market opens.
_STATES: Final = {
    "filled": OrderState.FILLED,
    "canceled": OrderState.CANCELLED,
    "expired": OrderState.EXPIRED,
    "rejected": OrderState.REJECTED,
}
_T = TypeVar("_T")


def open_orders_request() -> Request:
    """All open orders of any age, legs as orders of their own."""
    return Request("GET", ORDERS, query=(("status", "open"), ("limit", str(ORDER_PAGE)), ("direction", "asc")))


def orders_request(after: Nanos, direction: str = "asc") -> Request:
    """A page of orders submitted after an instant, in order of submission."""
    query = (("status", "all"), ("limit", str(ORDER_PAGE)), ("after", rfc3339(after)), ("direction", direction))
    return Request("GET", ORDERS, query=query)


def fills_request(after: Nanos, page_token: str = "") -> Request:
    """A page of executions after an instant, oldest first."""
    query = [("after", rfc3339(after)), ("direction", "asc"), ("page_size", str(ACTIVITY_PAGE))]
    if page_token:
        query.append(("page_token", page_token))
    return Request("GET", "/v2/account/activities/FILL", query=tuple(query))


def positions_request() -> Request:
    """All open positions."""
    return Request("GET", "/v2/positions")


def account_request() -> Request:
    """The account: cash, equity, what blocks it."""
    return Request("GET", "/v2/account")


def rows_in(response: Response | None, kind: type[_T], what: str) -> _T:
    """The body of a successful response.  Raises `Unreachable` for anything else: the view is not known then."""
    if response is None or not response.is_success:
        raise Unreachable("alpaca", f"{what}: {'no answer in time' if response is None else response.raw[:300]}")
    try:
        return msgspec.json.decode(response.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Unreachable("alpaca", f"{what}: the answer cannot be read ({error}): {response.raw[:300]}") from error


def execution_id_of(activity_id: str) -> ExecutionId:
    """The key of an execution from the id of its activity, ``20220202135509981::<uuid>``."""
    return ExecutionId(activity_id.rpartition("::")[2])


def fill_of(activity: FillActivity, chains: Chains) -> BrokerFill:
    """A row of the trade book in our words."""
    return BrokerFill(
        broker_order_id=chains.root_of(activity.order_id),
        tag=chains.tag_of(activity.order_id),
        instrument=instrument_of(activity.symbol),
        side=side_of(activity.side),
        fill=Fill(
            execution_id=execution_id_of(activity.id),
            quantity=activity.qty,
            price=activity.price,
            at=nanos(activity.transaction_time),
        ),
    )


def side_of(side: str) -> Side:
    """``sell_short`` is a sell."""
    return Side.BUY if side == "buy" else Side.SELL


def position_of(row: PositionRow) -> BrokerPosition:
    """A position; Alpaca signs ``qty`` and says the side as well."""
    quantity = abs(row.qty) * (-1 if row.side == "short" else 1)
    return BrokerPosition(
        instrument=instrument_of(row.symbol), quantity=quantity, average_price=row.avg_entry_price or ZERO
    )


def state_of(row: OrderRow) -> OrderState:
    """Where an order stands."""
    known = _STATES.get(row.status)
    if known is not None:
        return known
    filled = row.filled_qty or ZERO
    if row.qty is not None and filled >= row.qty > 0:
        return OrderState.FILLED
    return OrderState.PARTIALLY_FILLED if filled > 0 else OrderState.SUBMITTED


def order_of(root: str, head: OrderRow, chains: Chains, executed: Decimal = ZERO) -> BrokerOrder:
    """One order of ours from the member of its chain that stands; ``executed`` is what the trade book shows of it."""
    filled = max(head.filled_qty or ZERO, executed)
    kind = OrderType(head.type or head.order_type or "market")
    trailing = kind is OrderType.TRAILING_STOP
    # An order for an amount of money has no quantity: what it got is what it asked for.
    quantity = head.qty if head.qty is not None else filled
    state = state_of(head)
    if state is OrderState.SUBMITTED and filled > 0:
        state = OrderState.FILLED if filled >= quantity else OrderState.PARTIALLY_FILLED
    return BrokerOrder(
        broker_order_id=chains.root_of(root),
        tag=chains.tag_of(head.id),
        instrument=instrument_of(head.symbol),
        side=side_of(head.side),
        type=kind,
        time_in_force=TimeInForce(head.time_in_force),
        quantity=quantity,
        filled_quantity=filled,
        state=state,
        at=head.changed_at,
        limit_price=head.limit_price,
        stop_price=None if trailing else head.stop_price,
        average_price=head.filled_avg_price or ZERO,
        reason="" if state is not OrderState.REJECTED else "Alpaca rejected it",
        trail_price=head.trail_price,
        trail_percent=head.trail_percent,
        high_water=_number(head.hwm) if trailing else None,
    )


def report_of(
    account: AccountId,
    rows: Iterable[OrderRow],
    activities: Iterable[FillActivity],
    positions: Iterable[PositionRow],
    funds: AccountRow,
    chains: Chains,
    requested_at: Nanos,
    received_at: Nanos,
    skipped: list[str] | None = None,
) -> BrokerReport:
    """Put the account together; every chain is one order, however many of its members are among ``rows``.

    Orders that cannot be said in our words (options strategies placed by hand) are left out and noted in ``skipped``;
    what they trade shows in the positions.
    """
    shown = list(rows)
    for row in shown:
        chains.learn(row)
    fills = [fill_of(activity, chains) for activity in activities]
    executed: dict[str, Decimal] = {}
    for fill in fills:
        executed[fill.broker_order_id] = executed.get(fill.broker_order_id, ZERO) + fill.fill.quantity
    orders: dict[str, BrokerOrder] = {}
    for row in shown:
        root = chains.root_of(row.id)
        if root in orders:
            continue
        # Where the head has not been seen yet, what it replaced is the best there is.
        head = chains.row(chains.head_of(row.id)) or row
        try:
            orders[root] = order_of(root, head, chains, executed.get(root, ZERO))
        except ValueError as error:
            if skipped is not None:
                skipped.append(f"{head.id}: {error}")
    return BrokerReport(
        account=account,
        requested_at=requested_at,
        received_at=received_at,
        orders=tuple(orders.values()),
        fills=tuple(fills),
        positions=tuple(position_of(row) for row in positions if row.qty),
        cash=funds.cash,
        currency=funds.currency,
    )


def _number(value: str | int | float | None) -> Decimal | None:
    if value is None:
        return None
    try:
        return Decimal(str(value))
    except ArithmeticError:
        return None

"""``/v1/orders``: placed, changed and cancelled through the session of the account's owner."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ConfigDict, Field

from api.formats import Amount, Body, Cursor, GivenInstant, Limit, Page
from api.idempotency import token_of
from api.problems import ProblemError, limits_in, unknown_reference
from api.security import Caller, Trader, Viewer
from api.services import Deck, Services, referenced
from api.shapes import OrderShown, OrderWithEvents
from storage.idempotency import KEPT_S
from storage.records import AccountRecord, OrderFilter
from trading.closing import PREFIXES
from trading.errors import BadInput, TradeError, UnknownThing, Unreachable
from trading.ids import AccountId, AlgoId, CauseId, ClientOrderId, Nanos, client_order_id, instrument_id
from trading.orders import CancelOrder, ModifyOrder, Order, OrderState, OrderType, PlaceOrder, Side, TimeInForce

router = APIRouter(prefix="/v1/orders", tags=["orders"])


class NewOrder(Body):
    """An order to place.

    ``(account, client_order_id)`` is its key: sent twice, it acts once.  Without a key one is made; then an
    answer that got lost cannot be asked for, so a program should always give its own.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "account": "paper-1",
                    "client_order_id": "breakfast-1",
                    "instrument": "BINANCE-USDM:BTCUSDT",
                    "side": "buy",
                    "type": "limit",
                    "quantity": "0.010",
                    "limit_price": "60000.0",
                    "time_in_force": "gtc",
                }
            ]
        }
    )

    account: str
    client_order_id: str | None = None
    instrument: str
    side: Side
    type: OrderType
    quantity: Amount
    limit_price: Amount | None = None
    stop_price: Amount | None = None
    #: A trailing stop has one of these: how far it stays behind the best price, in money or in percent of it.
    trail_price: Amount | None = None
    trail_percent: Amount | None = None
    time_in_force: TimeInForce = TimeInForce.DAY
    #: May only make the position smaller.
    reduce_only: bool = False


class OrderChange(Body):
    """New values; what is left out stays.  ``quantity`` is the new total, filled part included."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"limit_price": "60010.5"}]})

    quantity: Amount | None = Field(None)
    limit_price: Amount | None = Field(None)
    stop_price: Amount | None = Field(None)
    #: New distance of a trailing stop, of the kind it has.
    trail_price: Amount | None = Field(None)
    trail_percent: Amount | None = Field(None)
    seen: GivenInstant | None = Field(
        None, description="`updated_at` of the order as you saw it: 409 `order_moved` where it has changed since"
    )


@router.post(
    "",
    response_model=OrderShown,
    status_code=201,
    responses={200: {"model": OrderShown, "description": "The order that this key placed before"}},
)
async def place_order(body: NewOrder, caller: Trader, deck: Deck, request: Request, response: Response) -> Order:
    """Place an order; it is journaled when the answer comes, and on its way to the broker."""
    given = body.client_order_id is not None
    key = (
        client_order_id(body.client_order_id or "")
        if given
        else ClientOrderId(f"api-{token_of(request) or secrets.token_hex(8)}")
    )
    if key.startswith(PREFIXES):
        raise BadInput("client_order_id", f"keys that begin with {' or '.join(PREFIXES)} are of the deck's own orders")
    instrument = instrument_id(body.instrument)
    account = await referenced("account", deck.traded_account_of(caller, body.account))
    before = await deck.journal.order(account.id, key) if given else None
    intent = PlaceOrder(
        account=account.id,
        client_order_id=key,
        instrument=instrument,
        side=body.side,
        type=body.type,
        quantity=body.quantity,
        limit_price=body.limit_price,
        stop_price=body.stop_price,
        trail_price=body.trail_price,
        trail_percent=body.trail_percent,
        time_in_force=body.time_in_force,
        reduce_only=body.reduce_only,
        cause=CauseId(caller.cause),
    )
    try:
        order = await _ask(deck, account, key, "place", [intent])
    except UnknownThing as error:
        raise unknown_reference(error.kind, error) from error
    if not given and order.created_at < time.time_ns() - KEPT_S * 1_000_000_000:
        # Its key is made from the Idempotency-Key, which is free again while the journal still knows that order.
        raise ProblemError(
            422,
            "idempotency_mismatch",
            "Key of another request",
            f"this Idempotency-Key placed an order over {KEPT_S // 3600} hours ago, and nothing now: use a new one",
            field="Idempotency-Key",
        )
    if before is None:
        await deck.note(caller, "place_order", f"{account.id}/{key}", intent)
    if order.state is OrderState.DENIED:
        raise ProblemError(
            422,
            "risk_denied",
            "Denied by risk",
            order.reason,
            violations=order.reason.split("; "),
            limits=limits_in(order.reason.split("; ")),
            order=OrderShown.model_validate(order).model_dump(mode="json"),
        )
    if before is not None:
        response.status_code = 200
    response.headers["Location"] = _path(account.id, key)
    return order


@router.patch("/{account}/{client_order_id}", response_model=OrderShown)
async def change_order(account: str, client_order_id: str, body: OrderChange, caller: Trader, deck: Deck) -> Order:
    """Ask the broker to change an open order; its answer shows in the order's events."""
    owner = await deck.traded_account_of(caller, account)
    key = ClientOrderId(client_order_id)
    change = ModifyOrder(
        account=owner.id,
        client_order_id=key,
        quantity=body.quantity,
        limit_price=body.limit_price,
        stop_price=body.stop_price,
        trail_price=body.trail_price,
        trail_percent=body.trail_percent,
        cause=CauseId(caller.cause),
        seen=None if body.seen is None else Nanos(body.seen),
    )
    order = await _ask(deck, owner, key, "modify", change)
    await deck.note(caller, "modify_order", f"{account}/{key}", change)
    return order


@router.delete("/{account}/{client_order_id}", response_model=OrderShown)
async def cancel_order(account: str, client_order_id: str, caller: Trader, deck: Deck) -> Order:
    """Ask the broker to cancel an open order; it is cancelled once its state says so."""
    owner = await deck.traded_account_of(caller, account)
    key = ClientOrderId(client_order_id)
    cancel = CancelOrder(account=owner.id, client_order_id=key, cause=CauseId(caller.cause))
    order = await _ask(deck, owner, key, "cancel", [cancel])
    await deck.note(caller, "cancel_order", f"{account}/{key}", cancel)
    return order


async def _wanted(
    caller: Viewer,
    deck: Deck,
    account: str | None = None,
    instrument: str | None = None,
    algo: str | None = None,
    state: Annotated[list[OrderState] | None, Query(description="May be given several times")] = None,
    since: Annotated[GivenInstant | None, Query(description="Created at or after")] = None,
    until: Annotated[GivenInstant | None, Query(description="Created before")] = None,
) -> OrderFilter:
    return await filter_of(deck, caller, account, instrument, algo, since, until, tuple(state) if state else None)


#: Which orders a caller asks for, of those that it may see.
WantedOrders = Annotated[OrderFilter, Depends(_wanted)]


@router.get("", response_model=Page[OrderShown])
async def list_orders(filters: WantedOrders, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Orders, newest first."""
    orders, following = await deck.journal.orders(filters, cursor, limit)
    return {"items": orders, "next": following}


@router.get("/{account}/{client_order_id}", response_model=OrderWithEvents)
async def get_order(account: str, client_order_id: str, caller: Viewer, deck: Deck) -> dict[str, Any]:
    """One order with its story."""
    if not caller.is_operator:
        await deck.account_of(caller, account)
    key = ClientOrderId(client_order_id)
    order = await deck.journal.order(AccountId(account), key)
    if order is None:
        raise UnknownThing("order", key, f"in account {account}")
    events = await deck.journal.events(AccountId(account), key)
    return {**dict(OrderShown.model_validate(order)), "events": events}


async def filter_of(
    deck: Services,
    caller: Caller,
    account: str | None,
    instrument: str | None,
    algo: str | None,
    since: int | None,
    until: int | None,
    states: tuple[OrderState, ...] | None = None,
) -> OrderFilter:
    """The filter that a caller's wishes make; nobody but operators gets beyond the own accounts."""
    for field, text in (("account", account), ("algo", algo)):
        if text is not None and "\0" in text:
            raise BadInput(field, f"{text[:40]!r} names nothing: there is a NUL in it")
    if account is not None and not caller.is_operator:
        await deck.account_of(caller, account)
    return OrderFilter(
        account=None if account is None else AccountId(account),
        accounts=await deck.reached(caller),
        instrument=None if instrument is None else instrument_id(instrument),
        algo=None if algo is None else AlgoId(algo),
        states=states,
        since=None if since is None else Nanos(since),
        until=None if until is None else Nanos(until),
    )


async def _ask(deck: Services, account: AccountRecord, key: ClientOrderId, method: str, what: Any) -> Order:
    """One order's result from the session; 504 says where to ask what became of it."""
    try:
        results = await deck.session(account.user).call(method, what, timeout=5.0)
    except Unreachable as error:
        raise _unclear(account, key, error) from error
    result = results[0] if isinstance(results, tuple | list) else results
    if isinstance(result, Unreachable):
        raise _unclear(account, key, result)
    if isinstance(result, TradeError):
        raise result
    order: Order = result
    return order


def _unclear(account: AccountRecord, key: ClientOrderId, error: Unreachable) -> ProblemError:
    path = _path(account.id, key)
    return ProblemError(
        504,
        error.code,
        "Outcome unknown",
        f"{error.detail}: whether it acted is not known; ask by GET {path}, or send it again with the same "
        "client_order_id",
        target=error.target,
        client_order_id=key,
        ask=path,
    )


def _path(account: str, key: str) -> str:
    return f"/v1/orders/{quote(account)}/{quote(key, safe='')}"

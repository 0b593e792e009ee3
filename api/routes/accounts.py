"""``/v1/accounts``: trading accounts."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field, SecretStr

from api.formats import Amount, Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.problems import unknown_reference
from api.security import CredentialGiver, Operator, Right, Trader, Viewer, forbidden
from api.services import Deck, referenced
from api.shapes import BreakShown, OrderShown, break_shown
from cluster import catalog
from cluster.selectors import read_selector
from storage import redaction
from storage.records import AccountRecord, OrderFilter
from storage.secrets import secret_name
from trading.account_check import AccountCheck
from trading.credentials import hidden
from trading.errors import Conflict, TradeError, UnknownThing
from trading.ids import AccountId, FeedId, Nanos, UserId, name
from trading.orders import OrderState

router = APIRouter(prefix="/v1/accounts", tags=["accounts"])

_OPEN = tuple(state for state in OrderState if not state.is_final)


class NewAccount(Body):
    """A trading account to add.

    ``settings`` are the connector's (paper: cash, currency, latency_ms, fee_bps, slippage_ticks, fill_ratio,
    reject_ratio; alpaca: environment, base_url, timeout_s) and the deck's: ``feed`` that prices a paper account,
    ``orders_per_s``, ``late_arrival_s``, ``reconcile_every_s`` or part by part ``reconcile_orders_s``,
    ``reconcile_executions_s``, ``reconcile_positions_s``, ``reconcile_cash_s``; ``cash_tolerance``; ``day_starts_at_h``
    (UTC hour at which the day of its reports begins).  ``credentials`` are what it logs in with (alpaca: key, secret;
    kite: api_key, api_secret, and access_token or the request_token of a log-in): they are encrypted, and never shown
    again.  An account at kite lends its log-in to feeds and has ``enabled`` false.  ``selector``: labels of the machine
    that its connection runs on; "": the head.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "paper-1",
                    "user": "asha",
                    "connector": "paper",
                    "settings": {"cash": "100000", "fee_bps": "2", "feed": "crypto"},
                }
            ]
        }
    )

    id: str
    user: str
    connector: str
    settings: dict[str, Any] = Field(default_factory=dict)
    credentials: dict[str, SecretStr] = Field(default_factory=dict, max_length=10)
    enabled: bool = True
    selector: str = Field("", max_length=2_000)


class AccountChange(Body):
    """What may change; what is left out stays.

    Another ``selector`` moves its connection; its user's session goes with the first account that has one.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": False}]})

    enabled: bool | None = None
    selector: str | None = Field(None, max_length=2_000)
    generation: int | None = Field(None, ge=1)


class NewCredentials(Body):
    """What an account logs in with from now on, all of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"credentials": {"key": "PK…", "secret": "…"}}]})

    credentials: dict[str, SecretStr] = Field(max_length=10)


class CredentialsShown(Shown):
    """Which credentials an account needs and has; never their values."""

    needed: list[str]
    given: list[str]


class AccountShown(Shown):
    """A trading account."""

    id: str
    user: str
    connector: str
    settings: dict[str, Any]
    enabled: bool
    selector: str
    created_at: Instant
    generation: int


class Refusal(Shown):
    """An order that could not be cancelled, and why."""

    code: str
    detail: str


class Cancelled(Shown):
    """What became of a wish to cancel everything."""

    #: How many cancels are on their way.
    cancelled: int
    orders: list[OrderShown]
    refused: list[Refusal]


class CheckShown(Shown):
    """What a comparison with the broker found."""

    account: str
    #: When the broker was asked.
    at: Instant
    #: Orders and executions of the report that are known here, and instruments held alike.
    orders: int
    executions: int
    positions: int
    #: Orders placed elsewhere that came to light.
    adopted: list[str]
    #: Messages the broker had owed us.
    made_up: int
    our_cash: Amount | None
    their_cash: Amount
    currency: str
    #: Why cash was not compared; "" where it was.
    cash_not_compared: str
    breaks: list[BreakShown]
    #: Breaks that were explained and are still there.
    tolerated: list[BreakShown]


@router.post("", response_model=AccountShown, status_code=201)
async def create_account(body: NewAccount, caller: Operator, deck: Deck) -> AccountRecord:
    """Add an account of a user; with credentials it asks for a fresh code as these do."""
    if body.credentials:
        caller.require(Right.CREDENTIALS)
        caller.require_fresh()
    account = AccountId(name(body.id, "id"))
    user = await referenced("user", deck.desired.user(UserId(body.user)))
    try:
        catalog.check_account(body.connector, account, body.settings, enabled=body.enabled)
    except UnknownThing as error:
        raise unknown_reference("connector", error) from error
    if body.settings.get("feed"):
        await referenced("settings.feed", deck.desired.feed(FeedId(body.settings["feed"])))
    record = AccountRecord(
        id=account,
        user=user.id,
        connector=body.connector,
        settings=body.settings,
        enabled=body.enabled,
        selector=str(read_selector(body.selector)),
        created_at=Nanos(time.time_ns()),
    )
    # Before anything is done: where it cannot be read, nothing is made, and no log-in is used up.
    secrets = deck.secrets if body.credentials else None
    credentials = await catalog.finish_log_in(body.connector, body.settings, _open(body.credentials))
    catalog.check_credentials(body.connector, credentials)
    sealed = secrets.seal(secret_name(account), credentials) if secrets is not None and credentials else None
    return await deck.desired.create_account(record, by=caller.user, credentials=sealed)


@router.get("", response_model=Page[AccountShown])
async def list_accounts(caller: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Accounts; operators see everybody's."""
    return page_of(await deck.accounts_of(caller), lambda account: account.id, limit, cursor)


@router.get("/{id}", response_model=AccountShown)
async def get_account(id: str, caller: Viewer, deck: Deck) -> AccountRecord:
    """One account."""
    return await deck.account_of(caller, id)


@router.patch("/{id}", response_model=AccountShown)
async def change_account(id: str, body: AccountChange, caller: Operator, deck: Deck) -> AccountRecord:
    """Let an account trade, or not; say where its connection runs."""
    record = await deck.account_of(caller, id)
    given: dict[str, Any] = body.model_dump(exclude_none=True, exclude={"generation"})
    if body.selector is not None:
        given["selector"] = str(read_selector(body.selector))
    changes = {field: value for field, value in given.items() if getattr(record, field) != value}
    if not changes:
        return record
    if "enabled" in changes:
        catalog.check_may_trade(record.connector, changes["enabled"])
    return await deck.desired.update_account(record.id, changes, by=caller.user, generation=body.generation)


@router.get("/{id}/credentials", response_model=CredentialsShown)
async def get_credentials(id: str, caller: Viewer, deck: Deck) -> CredentialsShown:
    """Which credentials the account needs and has."""
    record = await deck.account_of(caller, id)
    try:
        given = sorted(await deck.secrets.get(secret_name(record.id)))
    except UnknownThing:
        given = []
    return CredentialsShown(needed=list(catalog.needed_credentials(record.connector)), given=given)


@router.put("/{id}/credentials", status_code=204)
async def put_credentials(id: str, body: NewCredentials, caller: CredentialGiver, deck: Deck) -> None:
    """Give the account's credentials, or new ones; its connection and feeds log in with them at once.

    Its owner does that, and operators: a grant does not go so far.
    """
    record = await deck.account_of(caller, id)
    if not caller.owns_account(record):
        raise forbidden(f"account {record.id} is {record.user}'s: its credentials are theirs to give")
    secrets = deck.secrets
    credentials = await catalog.finish_log_in(record.connector, record.settings, _open(body.credentials))
    catalog.check_credentials(record.connector, credentials)
    sealed = secrets.seal(secret_name(record.id), credentials)
    await deck.desired.set_credentials(record.id, sealed, by=caller.user)


def _open(credentials: dict[str, SecretStr]) -> dict[str, str]:
    opened = {name: value.get_secret_value() for name, value in credentials.items()}
    redaction.note(hidden(opened))
    return opened


@router.delete("/{id}", status_code=204)
async def delete_account(
    id: str,
    caller: Operator,
    deck: Deck,
    force: Annotated[bool, Query(description="Also where it holds something: nobody here watches it any more")] = False,
) -> None:
    """Remove an account without open orders and positions that no algo uses.

    Its history stays, and its name is nobody else's from then on.
    """
    record = await deck.account_of(caller, id)
    still_open, _ = await deck.journal.orders(OrderFilter(account=record.id, states=_OPEN), limit=1)
    if still_open:
        raise Conflict("account_in_use", f"account {id!r} has open orders: cancel them first")
    held = [each.instrument for each in await deck.journal.positions([record.id]) if each.quantity]
    if held and not force:
        some = ", ".join(held[:5]) + (" and more" if held[5:] else "")
        raise Conflict(
            "account_in_use",
            f"account {id!r} holds {some}: flatten it first, or use force",
        )
    await deck.desired.delete_account(record.id, by=caller.user)


@router.post("/{id}/reconcile", response_model=CheckShown)
async def reconcile(id: str, caller: Trader, deck: Deck) -> dict[str, Any]:
    """Compare the account with its broker now; differences are looked at twice, which takes some seconds."""
    record = await deck.traded_account_of(caller, id)
    check: AccountCheck = await deck.session(record.user).call("reconcile", record.id, timeout=20.0)
    await deck.note(
        caller,
        "reconcile",
        id,
        {"adopted": check.adopted, "made_up": check.made_up, "breaks": [each.id for each in check.breaks]},
    )
    now = time.time_ns()
    return {
        **msgspec.structs.asdict(check),
        "breaks": [break_shown(each, now) for each in check.breaks],
        "tolerated": [break_shown(each, now) for each in check.tolerated],
    }


@router.post("/{id}/cancel-all", response_model=Cancelled)
async def cancel_all(id: str, caller: Trader, deck: Deck) -> dict[str, Any]:
    """Ask the broker to cancel every open order of the account."""
    record = await deck.traded_account_of(caller, id)
    results = await deck.session(record.user).call("cancel_all", record.id, None, caller.cause, timeout=10.0)
    orders = [result for result in results if not isinstance(result, TradeError)]
    refused = [result for result in results if isinstance(result, TradeError)]
    await deck.note(caller, "cancel_all", id, {"cancelled": len(orders), "refused": len(refused)})
    return {"cancelled": len(orders), "orders": orders, "refused": refused}

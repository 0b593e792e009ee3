"""``/v1/risk``: limits and how far they are used."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from api.formats import Amount, Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.problems import unknown_reference
from api.security import Operator, Viewer
from api.services import Deck, Services, referenced
from storage.records import LimitRecord
from trading.errors import NotReady, UnknownThing
from trading.ids import AccountId, InstrumentId
from trading.limits import CLUSTER, account_scope, check_limit

router = APIRouter(prefix="/v1/risk", tags=["risk"])


class LimitWanted(Body):
    """A limit to put in force.

    ``scope`` is ``cluster`` or ``account:<id>``; ``kind`` order_quantity, order_notional, position or
    gross_exposure; ``instrument`` "" means each instrument; ``value`` null lifts it.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"scope": "account:paper-1", "kind": "gross_exposure", "instrument": "", "value": "250000"}]
        }
    )

    scope: str
    kind: str
    instrument: str = ""
    value: Amount | None


class LimitShown(Shown):
    """A limit in force."""

    scope: str
    kind: str
    instrument: str
    value: Amount | None
    version: int
    changed_at: Instant
    changed_by: str


class ExposureLine(Shown):
    """Use of one limit: in use, lent to sessions (use included), the limit."""

    resource: str
    scope: str
    kind: str
    instrument: str
    used: Amount
    lent: Amount
    limit: Amount | None
    by_session: dict[str, str]


class RiskShown(Shown):
    """What central risk told a moment ago; ``over`` names limits with more lent than they allow now."""

    at: Instant
    epoch: int
    limits_version: int
    exposure: list[ExposureLine]
    over: list[str]


@router.get("/limits", response_model=Page[LimitShown])
async def list_limits(caller: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Limits in force: of the cluster and of the own accounts; operators see all."""
    scopes = {CLUSTER, *(account_scope(account.id) for account in await deck.accounts_of(caller))}
    found = [
        each
        for each in await deck.desired.limits()
        if each.value is not None and (caller.is_operator or each.scope in scopes)
    ]
    return page_of(found, lambda each: f"{each.scope} {each.kind} {each.instrument}", limit, cursor)


@router.put("/limits", response_model=LimitShown)
async def set_limit(body: LimitWanted, caller: Operator, deck: Deck) -> LimitRecord:
    """Put a limit in force, at once and with a new version."""
    check_limit(body.scope, body.kind, body.instrument, body.value)
    await _check_references(deck, body.scope, body.instrument)
    return await deck.desired.set_limit(body.scope, body.kind, body.instrument, body.value, by=caller.user)


@router.delete("/limits", status_code=204)
async def lift_limit(
    caller: Operator,
    deck: Deck,
    scope: Annotated[str, Query()],
    kind: Annotated[str, Query()],
    instrument: Annotated[str, Query()] = "",
) -> None:
    """Lift a limit."""
    check_limit(scope, kind, instrument, None)
    in_force = {
        (each.scope, each.kind, each.instrument) for each in await deck.desired.limits() if each.value is not None
    }
    if (scope, kind, instrument) not in in_force:
        raise UnknownThing("limit", f"{scope} {kind} {instrument}".strip(), "GET /v1/risk/limits lists them")
    await deck.desired.set_limit(scope, kind, instrument, None, by=caller.user)


@router.get("/exposure", response_model=RiskShown)
async def exposure(caller: Viewer, deck: Deck) -> dict[str, Any]:
    """How far limits are used; those who are not operators see their own accounts."""
    view = await deck.hot.get("risk", dict[str, Any])
    if view is None:
        raise NotReady("central risk has not told anything lately: nothing new is granted until it does", 2.0)
    if caller.is_operator:
        return view
    mine = {account_scope(account.id) for account in await deck.accounts_of(caller)}
    lines = [line for line in view["exposure"] if line["scope"] in mine]
    return {**view, "exposure": lines, "over": [each for each in view["over"] if each.split("/", 1)[0] in mine]}


async def _check_references(deck: Services, scope: str, instrument: str) -> None:
    _, _, account = scope.partition(":")
    if account:
        await referenced("scope", deck.desired.account(AccountId(account)))
    if instrument and not await deck.instruments.get([InstrumentId(instrument)]):
        raise unknown_reference("instrument", UnknownThing("instrument", instrument, "GET /v1/instruments lists them"))

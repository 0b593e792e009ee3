"""``/v1/alerts``: what somebody should look at, and who has."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.formats import Cursor, Limit, Page
from api.problems import ProblemError
from api.security import Caller, Viewer
from api.services import Deck, Services
from api.shapes import AlertShown
from storage.alerts import AlertFilter, AlertRecord
from trading.errors import UnknownThing
from trading.monitoring import KINDS_OF_TRADING

router = APIRouter(prefix="/v1/alerts", tags=["alerts"])


@router.get("", response_model=Page[AlertShown])
async def list_alerts(
    caller: Viewer,
    deck: Deck,
    open: Annotated[bool | None, Query(description="Only open ones, or only acknowledged ones")] = None,
    kind: Annotated[str | None, Query(max_length=60, pattern=r"^[a-z_]+$", description="Such as `large_order`")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Alerts, newest first: about oneself and the own accounts; operators see all, also those about the deck."""
    filters = await alerts_of(deck, caller, open=open, kind=kind)
    alerts, following = await deck.alerts.page(filters, cursor, limit)
    return {"items": alerts, "next": following}


@router.post("/{id}/acknowledge", response_model=AlertShown)
async def acknowledge_alert(id: str, caller: Viewer, deck: Deck) -> AlertRecord:
    """Say that it has been looked at: it is closed, and raised anew where it happens again.

    How somebody trades is for others to judge: alerts of trading are acknowledged by operators, and those about an
    operator by another operator (409 ``own_alert``), where there is one who is enabled.
    """
    alert = await deck.alerts.get(id)
    if caller.is_operator or alert.user == caller.user:
        caller.require_own_hand(alert.user)
    if not caller.is_operator:
        filters = await alerts_of(deck, caller)
        if alert.user != filters.user and alert.account not in filters.accounts:
            raise UnknownThing("alert", id, "GET /v1/alerts lists them")
        if alert.kind in KINDS_OF_TRADING:
            raise ProblemError(403, "forbidden", "Forbidden", f"alerts of kind {alert.kind} are closed by operators")
        if alert.user != caller.user:
            raise ProblemError(403, "forbidden", "Forbidden", f"it is about {alert.user}: they or an operator close it")
    return await deck.alerts.acknowledge(id, caller.user)


async def alerts_of(
    deck: Services, caller: Caller, *, open: bool | None = None, kind: str | None = None
) -> AlertFilter:
    """Which alerts a caller may see."""
    if caller.is_operator:
        return AlertFilter(open=open, kind=kind)
    accounts = [account.id for account in await deck.accounts_of(caller)]
    return AlertFilter(open=open, kind=kind, user=caller.user, accounts=accounts)

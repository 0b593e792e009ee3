"""``/v1/alerts``: what somebody should look at, and who has."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.formats import Cursor, Limit, Page
from api.problems import ProblemError
from api.security import Caller, Viewer
from api.services import Deck, Services
from api.shapes import AlertShown
from storage.alerts import AlertFilter, AlertRecord
from storage.login_attempts import network_of
from trading.errors import Conflict, UnknownThing
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
    operator by another operator (409 ``own_alert``), where there is one who is enabled.  What was unusual about a
    session is not for whoever is in it: it is closed from another network, or once that session is over.
    """
    alert = await deck.alerts.get(id)
    if caller.is_operator or alert.user == caller.user:
        caller.require_own_hand(alert.user)
    await _refuse_its_own_session(deck, caller, alert)
    if not caller.is_operator:
        filters = await alerts_of(deck, caller)
        if alert.user != filters.user and alert.account not in (filters.accounts or ()):
            raise UnknownThing("alert", id, "GET /v1/alerts lists them")
        if alert.kind in KINDS_OF_TRADING:
            raise ProblemError(403, "forbidden", "Forbidden", f"alerts of kind {alert.kind} are closed by operators")
        if alert.user != caller.user:
            raise ProblemError(403, "forbidden", "Forbidden", f"it is about {alert.user}: they or an operator close it")
    return await deck.alerts.acknowledge(id, caller.user)


async def _refuse_its_own_session(deck: Services, caller: Caller, alert: AlertRecord) -> None:
    if alert.kind != "session" or not caller.by_session:
        return
    about = await deck.panel_sessions.get(alert.subject.partition(" ")[0])
    here = await deck.panel_sessions.get(caller.key_id)
    if about is None or here is None or about.is_over(time.time_ns()):
        return
    if network_of(about.address) == network_of(here.address):
        raise Conflict(
            "own_session", "it is about a session in this network: close it from another, or end that session"
        )


async def alerts_of(
    deck: Services, caller: Caller, *, open: bool | None = None, kind: str | None = None
) -> AlertFilter:
    """Which alerts a caller may see."""
    if caller.is_operator:
        return AlertFilter(open=open, kind=kind)
    accounts = [account.id for account in await deck.accounts_of(caller)]
    user = caller.user if caller.sees(caller.user) else None
    return AlertFilter(open=open, kind=kind, user=user, accounts=accounts)

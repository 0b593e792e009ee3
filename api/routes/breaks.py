"""``/v1/breaks``: where our books and the brokers' differ, and what a person decides about it."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field

from api.formats import Body, Cursor, GivenInstant, Limit, Page
from api.security import Caller, Trader, Viewer
from api.services import Deck, Services
from api.shapes import BreakShown, break_shown
from storage.records import BreakFilter
from trading.errors import Conflict, UnknownThing
from trading.ids import AccountId, Nanos, instrument_id
from trading.journal import Break, BreakKind, Settlement

router = APIRouter(prefix="/v1/breaks", tags=["breaks"])


class Decision(Body):
    """What somebody decides about a break, both sides as they saw them: where it has moved since, nothing is done."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"ours": "5", "theirs": "7", "note": "bought two by phone"}]}
    )

    ours: str = Field(max_length=100)
    theirs: str = Field(max_length=100)
    #: Why, in a few words; kept with the break and in the audit.
    note: str = Field(min_length=1, max_length=500)


@router.get("", response_model=Page[BreakShown])
async def list_breaks(
    caller: Viewer,
    deck: Deck,
    resolved: Annotated[bool, Query(description="Show resolved ones too")] = False,
    account: str | None = None,
    instrument: str | None = None,
    kind: BreakKind | None = None,
    since: Annotated[GivenInstant | None, Query(description="Opened at or after")] = None,
    until: Annotated[GivenInstant | None, Query(description="Opened before")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Differences between our books and the brokers', oldest first."""
    if account is not None and not caller.is_operator:
        await deck.account_of(caller, account)
    filters = BreakFilter(
        account=None if account is None else AccountId(account),
        accounts=await deck.reached(caller),
        instrument=None if instrument is None else instrument_id(instrument),
        kind=kind,
        resolved=resolved,
        since=None if since is None else Nanos(since),
        until=None if until is None else Nanos(until),
    )
    breaks, following = await deck.journal.break_page(filters, cursor, limit)
    now = time.time_ns()
    return {"items": [break_shown(each, now) for each in breaks], "next": following}


@router.get("/{id}", response_model=BreakShown)
async def get_break(id: str, caller: Viewer, deck: Deck) -> BreakShown:
    """One break."""
    return break_shown(await _break_of(deck, caller, id), time.time_ns())


@router.post("/{id}/accept", response_model=BreakShown)
async def accept_break(id: str, body: Decision, caller: Trader, deck: Deck) -> BreakShown:
    """Take the broker's side for ours; positions move by an order of their own, so that they stay explained."""
    return await _settle(deck, caller, id, Settlement.ACCEPTED, body)


@router.post("/{id}/explain", response_model=BreakShown)
async def explain_break(id: str, body: Decision, caller: Trader, deck: Deck) -> BreakShown:
    """Leave both sides as they are: the difference is tolerated until it changes or goes."""
    return await _settle(deck, caller, id, Settlement.EXPLAINED, body)


async def _settle(deck: Services, caller: Caller, id: str, how: Settlement, body: Decision) -> BreakShown:
    item = await _break_of(deck, caller, id)
    if item.resolved_at:
        raise Conflict("break_not_open", f"break {id!r} is closed already: {item.resolution}")
    account = await deck.traded_account_of(caller, item.account)
    closed: Break = await deck.session(account.user).call(
        "settle_break", item.account, id, str(how), caller.user, body.note, (body.ours, body.theirs), timeout=10.0
    )
    await deck.note(caller, f"{'accept' if how is Settlement.ACCEPTED else 'explain'}_break", id, closed)
    return break_shown(closed, time.time_ns())


async def _break_of(deck: Services, caller: Caller, id: str) -> Break:
    """A break that the caller may see."""
    item = await deck.journal.find_break(id)
    if item is None:
        raise UnknownThing("break", id, "GET /v1/breaks lists them")
    if not caller.is_operator:
        try:
            await deck.account_of(caller, item.account)
        except UnknownThing:
            raise UnknownThing("break", id, "GET /v1/breaks lists them") from None
    return item

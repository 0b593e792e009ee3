"""``/v1/sessions``: who is signed in, and an end to it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.formats import Cursor, Instant, Limit, Page, Shown, page_of
from api.security import Caller, Viewer
from api.services import Deck
from storage.panel_sessions import PanelSession
from trading.errors import UnknownThing
from trading.ids import UserId

router = APIRouter(prefix="/v1/sessions", tags=["auth"])


class SessionShown(Shown):
    """Somebody who is signed in; ``current``: this is the session that asks."""

    id: str
    user: str
    created_at: Instant
    last_seen_at: Instant
    address: str
    agent: str
    current: bool


@router.get("", response_model=Page[SessionShown])
async def list_sessions(
    caller: Viewer,
    deck: Deck,
    user: Annotated[str | None, Query(description="Operators: whose, if not one's own")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Sessions that are not over: one's own; operators may ask for anybody's.  None for a key of some accounts only."""
    whose = caller.user if user is None else UserId(user)
    if not caller.sees(whose) and whose != caller.user:
        raise UnknownThing("user", whose)
    found = await deck.panel_sessions.live(whose) if caller.sees(whose) else []
    page = page_of(found, lambda each: f"{each.created_at:020d} {each.id}", limit, cursor)
    page["items"] = [_shown(each, caller) for each in page["items"]]
    return page


@router.delete("/{id}", status_code=204)
async def end_session(id: str, caller: Viewer, deck: Deck) -> None:
    """End a session: one's own; operators end anybody's."""
    found = await deck.panel_sessions.get(id)
    if found is None or not caller.sees(found.user) or found.ended_at:
        raise UnknownThing("session", id, "GET /v1/sessions lists them")
    caller.require_own_hand(found.user)
    await deck.panel_sessions.end([found.id], f"by {caller.user}", caller.user)
    deck.doorkeeper.sessions.forget(found.id)


@router.delete("", status_code=204)
async def end_other_sessions(caller: Viewer, deck: Deck) -> None:
    """End all one's sessions but the one that asks."""
    caller.require_own_hand(caller.user)
    others = [each.id for each in await deck.panel_sessions.live(caller.user) if each.id != caller.key_id]
    ended = await deck.panel_sessions.end(others, f"by {caller.user}, with all others", caller.user)
    deck.doorkeeper.sessions.forget(*ended)


def _shown(session: PanelSession, caller: Caller) -> dict[str, Any]:
    return {
        "id": session.id,
        "user": session.user,
        "created_at": session.created_at,
        "last_seen_at": session.seen_at,
        "address": session.address,
        "agent": session.agent,
        "current": caller.by_session and session.id == caller.key_id,
    }

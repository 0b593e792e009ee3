"""``/v1/audit``: who changed what, when, from what to what."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from api.formats import Cursor, GivenInstant, Instant, Limit, Page, Shown
from api.security import Operator
from api.services import Deck
from storage.records import AuditFilter
from trading.ids import Nanos

router = APIRouter(prefix="/v1", tags=["audit"])

#: PostgreSQL knows no text with a NUL in it.
_TEXT: Final = r"^[^\x00]+$"


class AuditShown(Shown):
    """One entry.  ``before`` is null where something began, ``after`` where it ended."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "number": 412,
                    "at": "2026-01-31T09:15:00.000000000+00:00",
                    "actor": "admin",
                    "action": "set_limit",
                    "subject": "account:paper-1/gross_exposure",
                    "before": {"value": "100000", "version": 1},
                    "after": {"value": "50000", "version": 2},
                }
            ]
        }
    )

    number: int
    at: Instant
    #: A user, or a part of the deck such as "supervisor".
    actor: str
    action: str
    #: What it was done to.
    subject: str
    before: Any
    after: Any


@router.get("/audit", response_model=Page[AuditShown])
async def list_audit(
    _: Operator,
    deck: Deck,
    subject: Annotated[
        str | None, Query(max_length=500, pattern=_TEXT, description="What was changed, such as an account")
    ] = None,
    actor: Annotated[
        str | None, Query(max_length=500, pattern=_TEXT, description="Who did it: a user, or a part of the deck")
    ] = None,
    action: Annotated[
        str | None, Query(max_length=100, pattern=_TEXT, description="Such as set_limit or login")
    ] = None,
    since: Annotated[GivenInstant | None, Query(description="At or after")] = None,
    until: Annotated[GivenInstant | None, Query(description="Before")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Changes, commands and logins, newest first.  What became of an order is told by the order's own events."""
    filters = AuditFilter(
        subject=subject,
        actor=actor,
        action=action,
        since=None if since is None else Nanos(since),
        until=None if until is None else Nanos(until),
    )
    entries, following = await deck.desired.audit_page(filters, cursor, limit)
    return {"items": entries, "next": following}

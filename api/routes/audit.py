"""``/v1/audit``: who changed what, when, from what to what."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query
from pydantic import ConfigDict

from api.formats import Cursor, GivenInstant, Instant, Limit, Page, Shown
from api.security import Operator
from api.services import Deck
from storage.records import AuditFilter
from trading.errors import Conflict, NotReady
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


class ChainHead(Shown):
    """The end of a chain: kept elsewhere, it shows whether the chain was cut off or written anew since."""

    chain: str
    number: int
    digest: str
    rows: int


class VerdictShown(Shown):
    """Every chain computed again; ``ok``: all is as it was written."""

    ok: bool
    at: Instant
    rows: int
    took_s: float
    heads: list[ChainHead]
    findings: list[str]


#: A journal of some ten million rows.
VERIFY_S: Final = 600.0
_verifying = asyncio.Lock()


@router.post("/audit/verify", response_model=VerdictShown)
async def verify_audit(caller: Operator, deck: Deck) -> dict[str, Any]:
    """Compute every chain of the journal again, which may take minutes; one at a time."""
    if _verifying.locked():
        raise Conflict("in_progress", "the chains are being verified already: wait for that to end")
    async with _verifying:
        began, at = time.monotonic(), time.time_ns()
        said = await _verified(deck.deck.database_url)
    took = round(time.monotonic() - began, 3)
    await deck.note(caller, "verify_audit", "", {"ok": said["ok"], "rows": said["rows"], "findings": said["findings"]})
    return {**said, "at": at, "took_s": took}


async def _verified(database_url: str) -> dict[str, Any]:
    # In a process of its own: hashing all rows would hold up every other request.
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cluster", "audit", "verify", "--json",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "DATABASE_URL": database_url},
    )  # fmt: skip
    try:
        async with asyncio.timeout(VERIFY_S):
            out, err = await process.communicate()
    except TimeoutError:
        raise NotReady(f"the chains were not verified within {VERIFY_S:g} s: use the command line") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        found: dict[str, Any] = msgspec.json.decode(out)
    except msgspec.DecodeError:
        raise NotReady(f"the chains could not be verified: {err.decode(errors='replace')[-500:]}") from None
    return found

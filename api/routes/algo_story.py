"""``/v1/algos/{id}/logs`` and ``/events``: what an algo said and what happened to it, also after it is gone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Query

from api.algo_words import in_words
from api.formats import Cursor, GivenInstant, Instant, Limit, Page, Shown
from api.security import Caller, Viewer
from api.services import Deck, Services
from storage.records import AlgoEvent, LogFilter
from trading.errors import UnknownThing
from trading.ids import AlgoId, Nanos, UserId

router = APIRouter(prefix="/v1/algos", tags=["algos"])


class LogLineShown(Shown):
    """A line of an algo's log; ``number`` is what to pass as ``after``, ``fields`` what the strategy gave by name."""

    number: int
    epoch: int
    at: Instant
    level: str
    text: str
    fields: dict[str, Any]


class AlgoEventShown(Shown):
    """A change of an algo.

    ``what`` names the parts that changed, ``text`` says it in words; the rest is how the algo stood then.  ``node`` is
    where its incarnation was started.
    """

    number: int
    at: Instant
    what: list[str]
    text: str
    epoch: int
    generation: int
    want: str
    state: str
    reason: str
    node: str
    by: str


@router.get("/{id}/logs", response_model=Page[LogLineShown])
async def algo_logs(
    id: str,
    caller: Viewer,
    deck: Deck,
    limit: Limit = 100,
    after: Annotated[int, Query(ge=0, le=2**63 - 1, description="`next` of the answer before")] = 0,
    level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, Query(description="This level and graver ones")
    ] = None,
    since: Annotated[GivenInstant | None, Query(description="Not before this time")] = None,
    text: Annotated[str | None, Query(max_length=200, description="Somewhere in the line")] = None,
) -> dict[str, Any]:
    """The newest lines above ``after``, oldest first; ``next`` is what to pass as ``after`` for later ones.

    The log of an algo that was deleted stays readable for its former owner and for operators.
    """
    algo = AlgoId(id)
    part = await part_of(deck, caller, algo)
    filters = LogFilter(
        level=level,
        since=None if since is None else Nanos(since),
        text=text,
        user=part.user,
        first_epoch=part.first_epoch,
    )
    lines = await deck.algo_log.tail(algo, limit, after, filters)
    return {"items": lines, "next": str(lines[-1].number if lines else after)}


@router.get("/{id}/events", response_model=Page[AlgoEventShown])
async def algo_events(id: str, caller: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """What happened to it, newest first: why it runs, or does not, always has an answer here."""
    algo = AlgoId(id)
    part = await part_of(deck, caller, algo)
    events, following = await deck.algo_events.page(algo, part.user, cursor, limit, part.first_epoch)
    return {"items": [_shown(event) for event in events], "next": following}


class Part(msgspec.Struct, frozen=True):
    """Which part of what is kept under an algo's name: of whose time (None: everybody's), from which incarnation on."""

    user: UserId | None
    first_epoch: int = 0


async def part_of(deck: Services, caller: Caller, algo: AlgoId) -> Part:
    """What the caller may read; `UnknownThing` for nothing.

    An algo that is gone has events still; its name may be another's by now, or be of another account.
    """
    owners = await deck.algo_events.owners(algo)
    if caller.is_operator and owners:
        return Part(None)
    if caller.user in owners and caller.only_accounts is None:
        return Part(caller.user)
    try:
        # Of an account that was granted, or that the key is limited to: the algo of now, and none before it.
        record = caller.own_algo(await deck.desired.algo(algo))
    except UnknownThing:
        raise UnknownThing("algo", algo) from None
    return Part(record.user, await deck.algo_events.first_epoch(algo))


def _shown(event: AlgoEvent) -> AlgoEventShown:
    return AlgoEventShown.model_validate(
        {**{field: getattr(event, field) for field in event.__struct_fields__}, "text": in_words(event)}
    )

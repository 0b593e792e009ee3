"""``/v1/nodes/{name}/history``: how a machine was during the last day."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.formats import Cursor, GivenInstant, Page, parse_time, time_text
from api.node_shapes import METRIC_NAMES, MinuteShown
from api.security import Viewer
from api.services import Deck
from cluster.node_facts import METRICS
from storage.node_history import KEPT
from trading.errors import BadInput
from trading.ids import Nanos, NodeName

router = APIRouter(prefix="/v1/nodes", tags=["nodes"])

#: All minutes of a day.
_DAY = 1_440


@router.get("/{name}/history", response_model=Page[MinuteShown])
async def node_history(
    name: str,
    _: Viewer,
    deck: Deck,
    since: Annotated[GivenInstant | None, Query(description="From here on; a day ago if left out")] = None,
    until: Annotated[GivenInstant | None, Query(description="Before this; now if left out")] = None,
    metric: Annotated[list[str] | None, Query(description=f"May be repeated; all if left out: {METRIC_NAMES}")] = None,
    limit: Annotated[int, Query(ge=1, le=_DAY, description="Minutes on a page")] = _DAY,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """One row a minute, oldest first, for a day.  A minute in which the machine told nothing is not there."""
    record = await deck.desired.node(NodeName(name))
    for each in metric or ():
        if each not in METRICS:
            raise BadInput("metric", f"{each[:40]!r} is not one of {', '.join(METRICS)}")
    now = time.time_ns()
    first = since if since is not None else now - KEPT
    if cursor is not None:
        try:
            first = parse_time(cursor)
        except ValueError:
            raise BadInput("cursor", f"{cursor[:40]!r} is not a cursor: take `next` of the page before") from None
    last = until if until is not None else now + 1
    found = await deck.node_history.minutes(record.name, Nanos(first), Nanos(last), limit + 1, metric or ())
    following = time_text(found[limit].at) if len(found) > limit else None
    return {"items": found[:limit], "next": following}

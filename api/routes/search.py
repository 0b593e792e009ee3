"""``/v1/search``: what bears a name, across everything that the caller may see."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from api.formats import Shown
from api.routes.deck_view import algos_of
from api.security import Viewer
from api.services import Deck
from storage.orders_found import orders_named

router = APIRouter(prefix="/v1", tags=["search"])

Sort = Literal["algo", "account", "instrument", "order", "node", "feed", "strategy", "user"]
#: Of two finds alike, the sort that is looked for more often comes first.
_SORTS: Final[tuple[Sort, ...]] = ("algo", "account", "instrument", "order", "feed", "node", "strategy", "user")


class Found(Shown):
    """Something that was found.  An order's ``id`` is ``<account>/<client_order_id>``."""

    kind: Sort
    id: str
    title: str
    detail: str


class FoundShown(Shown):
    """What was found, the best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"items": [{"kind": "algo", "id": "momo-1", "title": "momo-1", "detail": "ma-cross, running"}]}
            ]
        }
    )

    items: list[Found]


@router.get("/search", response_model=FoundShown)
async def search(
    caller: Viewer,
    deck: Deck,
    q: Annotated[str, Query(min_length=1, max_length=100, pattern=r"^[^\x00]+$", description="A part of a name")],
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """Algos, accounts, instruments, machines, feeds, strategies, users; orders by their key.

    Of an order that has ended the whole key is needed.
    """
    text = q.strip().casefold()
    if not text:
        return {"items": []}
    seen = await deck.glance.seen()
    accounts = await deck.accounts_of(caller)
    mine = {each.id for each in accounts}
    found: list[tuple[Sort, str, str, str]] = []
    found += [
        ("algo", algo.id, algo.id, f"{algo.strategy}, {algo.account}, {algo.state}") for algo in algos_of(caller, seen)
    ]
    found += [("account", each.id, each.id, f"{each.connector}, {each.user}") for each in accounts]
    found += [("feed", each.id, each.id, each.provider) for each in seen.feeds]
    found += [("node", m.record.name, m.record.name, str(m.health.health)) for m in seen.machines]
    found += [("strategy", each.name, each.name, "strategy") for each in await deck.strategies.all()]
    found += [
        ("user", user.id, user.id, ", ".join(user.roles)) for user in await deck.desired.users() if caller.sees(user.id)
    ]
    fitting = [each for each in found if text in each[1].casefold() or text in each[2].casefold()]
    instruments = await deck.instruments.search(q.strip(), limit=limit)
    fitting += [("instrument", i.id, i.id, i.description or i.provider) for i in instruments]
    orders = await orders_named(deck.database, q.strip(), sorted(mine), limit)
    fitting += [
        ("order", f"{o.account}/{o.client_order_id}", o.client_order_id, f"{o.side} {o.instrument}, {o.state}")
        for o in orders
    ]
    fitting.sort(key=lambda each: (_rank(text, each[2]), _SORTS.index(each[0]), each[1]))
    names = ("kind", "id", "title", "detail")
    return {"items": [dict(zip(names, each, strict=True)) for each in fitting[:limit]]}


def _rank(text: str, title: str) -> int:
    """The whole name before its beginning before the beginning of a word in it before anywhere."""
    folded = title.casefold()
    if folded == text:
        return 0
    if folded.startswith(text):
        return 1
    at = folded.find(text)
    return 2 if at > 0 and not folded[at - 1].isalnum() else 3

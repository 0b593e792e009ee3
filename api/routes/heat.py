"""``/v1/risk/heat``, ``/tree``, ``/maxima/series``: risk as tables and charts show it."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from api.formats import Amount, Instant, InstantOrNone, Shown
from api.glance import Seen, one_currency, share
from api.limit_tree import TreeNode, limit_tree
from api.routes.deck_view import algos_of
from api.routes.risk import maxima_of, scopes_of
from api.security import Caller, Viewer
from api.services import Deck, Services
from api.tree_age import with_age
from storage.records import AccountRecord
from trading.heat import heat
from trading.ids import Nanos

router = APIRouter(prefix="/v1/risk", tags=["risk"])

_DAY_NS = 86_400_000_000_000

Measure = Literal["gross", "long", "short", "money_at_risk", "loss", "drawdown", "open_orders"]


class HeatCell(Shown):
    """Money at risk of an algo in an instrument, and which part of the total that is (0 … 1)."""

    algo: str
    instrument: str
    at_risk: Amount
    share: float


class HeatOld(Shown):
    """An account whose session has told nothing lately: what is shown of it is as of ``at`` (null: it has not told)."""

    account: str
    at: InstantOrNone


class HeatShown(Shown):
    """Money at risk, algo by instrument, the hottest first; cells in which nothing is at risk are left out.

    ``old``: accounts of which only what was is shown, for what they hold is at risk all the same.
    The algo "" stands for what no algo did.  ``currency`` "": of several, added up as they are.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "at": "2026-01-31T09:15:00.000000000+00:00",
                    "currency": "USDT",
                    "algos": ["momo-1"],
                    "instruments": ["BINANCE-USDM:BTCUSDT"],
                    "cells": [
                        {"algo": "momo-1", "instrument": "BINANCE-USDM:BTCUSDT", "at_risk": "120.5", "share": 1.0}
                    ],
                    "total": "120.5",
                    "old": [],
                }
            ]
        }
    )

    at: Instant
    currency: str
    algos: list[str]
    instruments: list[str]
    cells: list[HeatCell]
    total: Amount
    old: list[HeatOld]


class SeriesPoint(Shown):
    """The highest value of a measure in a day, of one level."""

    day: Instant
    scope: str
    kind: Measure
    value: Amount


class SeriesShown(Shown):
    """Points, oldest first."""

    items: list[SeriesPoint]


@router.get("/heat", response_model=HeatShown)
async def risk_heat(caller: Viewer, deck: Deck) -> dict[str, Any]:
    """What would be lost if every protective stop were hit (all of it where there is none), algo by instrument."""
    seen = await deck.glance.seen()
    mine = {each.id: each for each in await deck.accounts_of(caller)}
    table = heat(cell for cells in seen.cells.values() for cell in cells if cell.account in mine)
    return {
        "at": seen.at,
        "old": [
            {"account": each.id, "at": seen.told_at(each)}
            for each in mine.values()
            if each.enabled and seen.is_quiet(each)
        ],
        "currency": one_currency(_currencies(seen, mine.values())),
        "algos": table.algos,
        "instruments": table.instruments,
        "cells": [
            {"algo": algo, "instrument": instrument, "at_risk": risk, "share": share(risk, table.total) or 0.0}
            for (algo, instrument), risk in sorted(table.cells.items(), key=lambda cell: -cell[1])
        ],
        "total": table.total,
    }


@router.get("/tree", response_model=TreeNode)
async def risk_tree(caller: Viewer, deck: Deck) -> TreeNode:
    """The tree of limits with what is in use of each; levels without limits and without use are left out.

    Those who are not operators see their own part of it, and the cluster's limits.  ``old`` tells what of it was told
    too long ago to be what is.
    """
    seen = await deck.glance.seen()
    accounts = await deck.accounts_of(caller)
    algos = algos_of(caller, seen)
    scopes = None if caller.is_operator else set(await scopes_of(caller, deck) or ())
    users = [user.id for user in await deck.desired.users()] if caller.is_operator else [caller.user]
    return with_age(limit_tree(seen, users, accounts, algos, scopes), seen, accounts)


@router.get("/maxima/series", response_model=SeriesShown)
async def maxima_series(
    caller: Viewer,
    deck: Deck,
    scope: Annotated[str | None, Query(max_length=200, description="Only this level")] = None,
    kind: Annotated[Measure | None, Query(description="Only this measure")] = None,
    days: Annotated[int, Query(ge=1, le=3700, description="How many days back, today included")] = 30,
) -> dict[str, Any]:
    """The highest use of each day as points of a chart, of whole levels."""
    scopes = await _scopes(caller, deck, scope)
    found = await maxima_of(deck, caller, Nanos(time.time_ns() - days * _DAY_NS), scopes)
    kinds = (kind,) if kind is not None else get_args(Measure)
    return {
        "items": [
            {"day": each.day, "scope": each.scope, "kind": name, "value": getattr(each, name)}
            for each in found
            if not each.instrument
            for name in kinds
        ]
    }


async def _scopes(caller: Caller, deck: Services, scope: str | None) -> list[str] | None:
    scopes = await scopes_of(caller, deck)
    if scope is None:
        return scopes
    return [scope] if (scopes is None or scope in scopes) and "\0" not in scope else []


def _currencies(seen: Seen, accounts: Any) -> list[str]:
    told = [seen.told_of(each) for each in accounts if isinstance(each, AccountRecord)]
    return [each.currency for each in told if each is not None]

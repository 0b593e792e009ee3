"""``/v1/risk/heat``, ``/tree``, ``/maxima/series``: risk as tables and charts show it."""

from __future__ import annotations

import time
from collections import defaultdict
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from api.currencies import NO_MONEY, Currencies, InCurrencies, currency_fields
from api.formats import Amount, Instant, InstantOrNone, Shown
from api.glance import share
from api.limit_tree import TreeNode, limit_tree
from api.routes.deck_view import algos_of
from api.routes.risk import maxima_of, scopes_of
from api.security import Caller, Viewer
from api.services import Deck, Services
from api.tree_age import with_age
from trading.heat import heat
from trading.ids import Nanos
from trading.limits import CLUSTER

router = APIRouter(prefix="/v1/risk", tags=["risk"])

_DAY_NS = 86_400_000_000_000

Measure = Literal["gross", "long", "short", "money_at_risk", "loss", "drawdown", "open_orders"]


class HeatCell(Shown):
    """Money at risk of an algo in an instrument, and which part of its currency's total that is (0 … 1)."""

    algo: str
    instrument: str
    at_risk: Amount
    #: The instrument's; "" where it is not known.
    currency: str
    share: float


class HeatTotal(Shown):
    """The sum of all cells in one currency."""

    currency: str
    at_risk: Amount


class HeatOld(Shown):
    """An account whose session has told nothing lately: what is shown of it is as of ``at`` (null: it has not told)."""

    account: str
    at: InstantOrNone


class HeatShown(InCurrencies):
    """Money at risk, algo by instrument, the hottest first; cells in which nothing is at risk are left out.

    ``old``: accounts of which only what was is shown, for what they hold is at risk all the same.
    The algo "" stands for what no algo did.  ``total`` is null where cells are in several
    currencies; ``totals`` has the sum of each.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "at": "2026-01-31T09:15:00.000000000+00:00",
                    "currency": "USDT",
                    "currencies": ["USDT"],
                    "algos": ["momo-1"],
                    "instruments": ["BINANCE-USDM:BTCUSDT"],
                    "cells": [
                        {
                            "algo": "momo-1",
                            "instrument": "BINANCE-USDM:BTCUSDT",
                            "at_risk": "120.5",
                            "currency": "USDT",
                            "share": 1.0,
                        }
                    ],
                    "total": "120.5",
                    "totals": [{"currency": "USDT", "at_risk": "120.5"}],
                    "old": [],
                }
            ]
        }
    )

    at: Instant
    algos: list[str]
    instruments: list[str]
    cells: list[HeatCell]
    total: Amount | None
    totals: list[HeatTotal]
    old: list[HeatOld]


class SeriesPoint(InCurrencies):
    """The highest value of a measure in a day, of one level; null of money in several currencies."""

    day: Instant
    scope: str
    kind: Measure
    value: Amount | None


class SeriesShown(Shown):
    """Points, oldest first."""

    items: list[SeriesPoint]


@router.get("/heat", response_model=HeatShown)
async def risk_heat(caller: Viewer, deck: Deck) -> dict[str, Any]:
    """What would be lost if every protective stop were hit (all of it where there is none), algo by instrument."""
    seen = await deck.glance.seen()
    mine = {each.id: each for each in await deck.accounts_of(caller)}
    table = heat(cell for cells in seen.cells.values() for cell in cells if cell.account in mine)
    currencies = Currencies(seen, mine.values())
    of = {each.id: each.currency for each in await deck.instruments.get(table.instruments)}
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for (_, instrument), risk in table.cells.items():
        totals[of.get(instrument, "")] += risk
    return {
        "at": seen.at,
        "old": [
            {"account": each.id, "at": seen.told_at(each)}
            for each in mine.values()
            if seen.is_quiet(each) and (each.enabled or seen.is_missed(each))
        ],
        **(currency_fields(totals) if totals else currencies.fields(CLUSTER)),
        "algos": table.algos,
        "instruments": table.instruments,
        "cells": [
            {
                "algo": algo,
                "instrument": instrument,
                "at_risk": risk,
                "currency": of.get(instrument, ""),
                "share": share(risk, totals[of.get(instrument, "")]) or 0.0,
            }
            for (algo, instrument), risk in sorted(table.cells.items(), key=lambda cell: -cell[1])
        ],
        "total": table.total if len(totals) <= 1 else None,
        "totals": [{"currency": each, "at_risk": risk} for each, risk in sorted(totals.items())],
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
    currencies = Currencies(await deck.glance.seen(), await deck.accounts_of(caller))
    items = []
    for each in found:
        if each.instrument:
            continue
        for name in kinds:
            is_money = name != "open_orders"
            is_sum = not is_money or currencies.is_one(each.scope)
            point: dict[str, Any] = {
                "day": each.day,
                "scope": each.scope,
                "kind": name,
                "value": getattr(each, name) if is_sum else None,
            }
            items.append({**point, **(currencies.fields(each.scope) if is_money else NO_MONEY)})
    return {"items": items}


async def _scopes(caller: Caller, deck: Services, scope: str | None) -> list[str] | None:
    scopes = await scopes_of(caller, deck)
    if scope is None:
        return scopes
    return [scope] if (scopes is None or scope in scopes) and "\0" not in scope else []

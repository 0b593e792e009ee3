"""``/v1/algos/{id}/equity``, ``/v1/accounts/{id}/equity``: profit as time went on."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import ConfigDict

from api.currencies import Currencies, InCurrencies
from api.formats import Amount, GivenInstant, Instant, Shown
from api.security import Caller, Viewer
from api.services import Deck, Services
from storage.equity import MOST_POINTS, Point
from trading.ids import AlgoId, Nanos
from trading.limits import account_scope, algo_scope

router = APIRouter(prefix="/v1", tags=["equity"])

_DAY_NS: Final = 86_400_000_000_000


class ProfitPoint(Shown):
    """Profit over all time at a moment, realised and not, fees included."""

    at: Instant
    pnl: Amount


class EquityPoint(ProfitPoint):
    """With the account's cash and holdings; null where its cash was not known."""

    equity: Amount | None


class ProfitCurve(InCurrencies):
    """Points, oldest first; between two of them nothing is known to have changed by more than charts show.

    Profit, and equity, in several currencies are no curve: there are no points then.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "items": [{"at": "2026-01-31T09:15:00.000000000+00:00", "pnl": "120.5"}],
                    "currency": "USDT",
                    "currencies": ["USDT"],
                }
            ]
        }
    )

    items: list[ProfitPoint]


class EquityCurve(InCurrencies):
    """As `ProfitCurve`, of an account."""

    items: list[EquityPoint]


class Wanted:
    """Which part of a curve, in how many points."""

    def __init__(
        self,
        since: Annotated[GivenInstant | None, Query(description="A day ago if left out")] = None,
        until: Annotated[GivenInstant | None, Query(description="Before this; now if left out")] = None,
        points: Annotated[int, Query(ge=2, le=MOST_POINTS, description="At most so many")] = 500,
    ) -> None:
        self.until = Nanos(until if until is not None else time.time_ns())
        self.since = Nanos(since if since is not None else max(0, self.until - _DAY_NS))
        self.points = points


WantedPart = Annotated[Wanted, Depends(Wanted)]


@router.get("/algos/{id}/equity", response_model=ProfitCurve)
async def algo_equity(id: str, caller: Viewer, deck: Deck, wanted: WantedPart) -> dict[str, Any]:
    """How an algo's profit went: every ten seconds for two days, before that every five minutes, then every hour."""
    algo = caller.own_algo(await deck.desired.algo(AlgoId(id)))
    # Before that the name may have been another's.
    since = Nanos(max(wanted.since, min(algo.created_at, wanted.until - 1)))
    points = await deck.equity.curve(algo_scope(algo.id), since, wanted.until, wanted.points)
    return await _curve(caller, deck, algo_scope(algo.id), points)


@router.get("/accounts/{id}/equity", response_model=EquityCurve)
async def account_equity(id: str, caller: Viewer, deck: Deck, wanted: WantedPart) -> dict[str, Any]:
    """How an account's profit and equity went; as of algos."""
    account = await deck.account_of(caller, id)
    points = await deck.equity.curve(account_scope(account.id), wanted.since, wanted.until, wanted.points)
    return await _curve(caller, deck, account_scope(account.id), points)


async def _curve(caller: Caller, deck: Services, scope: str, points: list[Point]) -> dict[str, Any]:
    currencies = Currencies(await deck.glance.seen(), await deck.accounts_of(caller))
    return {"items": points if currencies.is_one(scope) else [], **currencies.fields(scope)}

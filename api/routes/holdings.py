"""``/v1/fills``, ``/v1/positions``, ``/v1/portfolio``: what trading has led to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query

from api.formats import Cursor, GivenInstant, Limit, Page, page_of
from api.routes.orders import filter_of
from api.security import Caller, Viewer
from api.services import Deck
from api.shapes import FillOfOrder, PortfolioShown, PositionShown
from storage.algo_positions import algo_positions
from storage.records import OrderFilter
from trading.errors import NotReady, UnknownThing
from trading.ids import AccountId, AlgoId

router = APIRouter(prefix="/v1", tags=["holdings"])


async def _wanted(
    caller: Viewer,
    deck: Deck,
    account: str | None = None,
    instrument: str | None = None,
    algo: str | None = None,
    since: Annotated[GivenInstant | None, Query(description="Executed at or after")] = None,
    until: Annotated[GivenInstant | None, Query(description="Executed before")] = None,
) -> OrderFilter:
    return await filter_of(deck, caller, account, instrument, algo, since, until)


#: Which executions a caller asks for, of those that it may see.
WantedFills = Annotated[OrderFilter, Depends(_wanted)]


@router.get("/fills", response_model=Page[FillOfOrder])
async def list_fills(filters: WantedFills, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Executions, newest first."""
    fills, following = await deck.journal.fills(filters, cursor, limit)
    return {"items": fills, "next": following}


@router.get("/positions", response_model=Page[PositionShown])
async def list_positions(
    caller: Viewer,
    deck: Deck,
    account: str | None = None,
    algo: Annotated[str | None, Query(max_length=200, description="What this algo holds, in place of accounts")] = None,
    flat: Annotated[bool, Query(description="Show those of quantity 0 too")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Positions from the journal; the portfolio values them.  ``algo``: what one algo traded of them."""
    if algo is not None:
        caller.own_algo(await deck.desired.algo(AlgoId(algo)))
    accounts: Sequence[AccountId] | None
    if account is not None:
        if not caller.is_operator:
            await deck.account_of(caller, account)
        accounts = [AccountId(account)]
    else:
        accounts = await deck.reached(caller)
    found = (
        await deck.journal.positions(accounts)
        if algo is None
        else await algo_positions(deck.database, AlgoId(algo), accounts)
    )
    held = [each for each in found if flat or each.quantity]
    page = page_of(held, lambda position: f"{position.account} {position.instrument}", limit, cursor)
    known = await deck.instruments.get(sorted({each.instrument for each in page["items"]}))
    currencies = {each.id: each.currency for each in known}
    page["items"] = [
        {**msgspec.structs.asdict(each), "currency": currencies.get(each.instrument, "")} for each in page["items"]
    ]
    return page


@router.get("/portfolio", response_model=PortfolioShown)
async def portfolio(
    caller: Viewer, deck: Deck, user: Annotated[str | None, Query(description="Whose, if not one's own")] = None
) -> dict[str, Any]:
    """Accounts and positions at the last prices, as the session told a moment ago (see ``at``).

    Of others only the accounts that were granted.
    """
    owner = caller.user if user is None else user
    if not caller.sees(owner) and all(each.user != owner for each in await deck.accounts_of(caller)):
        raise UnknownThing("user", owner)
    view = await deck.hot.get(f"portfolio:{owner}", dict[str, Any])
    if view is None:
        raise NotReady(f"the session of {owner} has not told its portfolio yet; has it an enabled account?", 2.0)
    return of_caller(caller, view)


@router.get("/portfolios", response_model=Page[PortfolioShown])
async def portfolios(caller: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Portfolios of every user that the caller sees and whose session has told one."""
    found = await deck.hot.scan("portfolio:", dict[str, Any])
    mine = [of_caller(caller, view) for view in found.values()]
    mine = [view for view in mine if view["accounts"] or caller.sees(view["user"])]
    return page_of(mine, lambda view: str(view["user"]), limit, cursor)


def of_caller(caller: Caller, view: dict[str, Any]) -> dict[str, Any]:
    """As much of somebody's portfolio as a caller may see."""
    owner = str(view["user"])
    parts = {
        part: [each for each in view[part] if caller.reaches(each["account"], owner)]
        for part in ("accounts", "positions")
    }
    return {**view, **parts}

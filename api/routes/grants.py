"""``/v1/grants``: accounts that others than their owner may look at, or trade."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict

from api.formats import Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.security import FreshOperator, Viewer
from api.services import Deck
from storage.grants import GrantLevel, GrantRecord
from trading.errors import BadInput
from trading.ids import AccountId, UserId

router = APIRouter(prefix="/v1/grants", tags=["users"])


class GrantWanted(Body):
    """How far: ``view``, to look; ``trade``, to trade and run algos as well, as far as the user's roles go."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"level": "view"}]})

    level: GrantLevel


class GrantShown(Shown):
    """``user`` may do so much with ``account``, which is somebody else's."""

    account: str
    user: str
    level: GrantLevel
    granted_at: Instant
    granted_by: str


@router.get("", response_model=Page[GrantShown])
async def list_grants(
    caller: Viewer,
    deck: Deck,
    account: Annotated[str | None, Query()] = None,
    user: Annotated[str | None, Query()] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Grants: of one's own accounts, and to oneself; operators see all."""
    found = await deck.grants.list(
        None if account is None else AccountId(account), None if user is None else UserId(user)
    )
    owned = {each.id for each in await deck.desired.accounts() if caller.owns_account(each)}
    mine = [
        each
        for each in found
        if each.account in owned or (each.user == caller.user and caller.reaches(each.account, ""))
    ]
    return page_of(mine, lambda each: f"{each.account} {each.user}", limit, cursor)


@router.put("/{account}/{user}", response_model=GrantShown)
async def put_grant(account: str, user: str, body: GrantWanted, caller: FreshOperator, deck: Deck) -> GrantRecord:
    """Grant an account to a user, or change how far."""
    record = await deck.account_of(caller, account)
    who = await deck.desired.user(UserId(user))
    if who.id == record.user:
        raise BadInput("user", f"account {record.id} is {who.id}'s own: there is nothing to grant")
    made = await deck.grants.put(record.id, who.id, body.level, caller.user)
    deck.doorkeeper.forget_user(who.id)
    return made


@router.delete("/{account}/{user}", status_code=204)
async def delete_grant(account: str, user: str, caller: FreshOperator, deck: Deck) -> None:
    """Take a grant back; it ends at once."""
    record = await deck.account_of(caller, account)
    await deck.grants.delete(record.id, UserId(user), caller.user)
    deck.doorkeeper.forget_user(user)

"""``/v1/keys``: API keys, limited in time, and in what they may do and reach."""

from __future__ import annotations

import time
from typing import Any, Final

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from api.formats import Body, Cursor, GivenInstant, Instant, InstantOrNone, Limit, Page, Shown, page_of
from api.problems import unknown_reference
from api.routes.users import check_roles
from api.security import OF_ACCOUNTS, Caller, KeyMaker, Right, Viewer, forbidden
from api.services import Deck, Services, referenced
from storage.records import ApiKey
from trading.errors import BadInput, UnknownThing
from trading.ids import AccountId, Nanos, UserId

router = APIRouter(prefix="/v1", tags=["users"])

_DAY: Final = 86_400_000_000_000
#: How long a key is good where nobody says, and at most.
USUAL_DAYS: Final = 90
MOST_DAYS: Final = 366


class NewKey(Body):
    """A key to make; its roles are all of the user's where none are named.

    ``rights``: it may do no more than these (as `/v1/me` names them), ``accounts``: it reaches no others.  It ends at
    ``expires_at``, after 90 days if left out, after 366 at most.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user": "asha", "roles": ["viewer"], "label": "wall screen"}]}
    )

    user: str | None = None
    roles: list[str] | None = Field(None, min_length=1, max_length=10)
    label: str = Field("", max_length=200)
    rights: list[Right] | None = Field(None, min_length=1, max_length=20)
    accounts: list[str] | None = Field(None, min_length=1, max_length=200)
    expires_at: GivenInstant | None = None


class KeyShown(Shown):
    """A key as it is stored: without itself."""

    id: str
    user: str
    roles: list[str]
    label: str
    #: null: all that its roles allow.
    rights: list[str] | None
    #: null: all that its user reaches.
    accounts: list[str] | None
    created_at: Instant
    expires_at: Instant | None
    revoked_at: Instant | None


class KeyMade(Shown):
    """A new key; ``key`` is shown this once."""

    id: str
    key: str
    user: str
    roles: list[str]
    label: str
    rights: list[str] | None
    accounts: list[str] | None
    expires_at: InstantOrNone


@router.post("/keys", response_model=KeyMade, status_code=201)
async def create_key(body: NewKey, caller: KeyMaker, deck: Deck, response: Response) -> dict[str, Any]:
    """Make a key.  Those who are not operators make them for themselves, with roles of the key that asks.

    A key that asks makes none that could do more, or lives longer, than itself.
    """
    user = UserId(body.user if body.user is not None else caller.user)
    if not (caller.is_operator or user == caller.user):
        raise unknown_reference("user", UnknownThing("user", user))
    record = await referenced("user", deck.desired.user(user))
    most = record.roles if caller.is_operator else caller.roles
    roles = check_roles(body.roles) if body.roles is not None else tuple(most)
    beyond = [role for role in roles if role not in most]
    if beyond:
        whose = f"user {user}" if caller.is_operator else "yours"
        raise forbidden(f"a key cannot have role {beyond[0]}: {whose} has {', '.join(most)}", "roles")
    rights = _rights(body, caller)
    accounts = await _accounts(deck, body, user)
    if accounts is not None and rights is not None and (other := sorted(set(rights) - OF_ACCOUNTS)):
        raise BadInput("rights", f"a key that is limited to accounts cannot {other[0]}")
    expires = _expiry(body, caller)
    id, key = await deck.keys.create(user, roles, body.label, expires, by=caller.user, rights=rights, accounts=accounts)
    response.headers["Cache-Control"] = "no-store"
    return {
        "id": id,
        "key": key,
        "user": user,
        "roles": roles,
        "label": body.label,
        "rights": rights,
        "accounts": accounts,
        "expires_at": expires,
    }


def _shows(caller: Caller, key: ApiKey) -> bool:
    """Whether a caller gets to know of a key; one that is for some accounts only, of those that it covers."""
    return caller.sees(key.user) or (key.user == caller.user and _covers(caller, key))


def _covers(caller: Caller, key: ApiKey) -> bool:
    """Whether the key that asks can do all that ``key`` can."""
    if caller.only_accounts is not None and not (
        key.accounts is not None and set(key.accounts) <= caller.only_accounts
    ):
        return False
    if caller.only_rights is not None and not (key.rights is not None and set(key.rights) <= caller.only_rights):
        return False
    return caller.is_operator or set(key.roles) <= set(caller.roles)


def _rights(body: NewKey, caller: Caller) -> tuple[str, ...] | None:
    given = None if body.rights is None else tuple(dict.fromkeys(str(each) for each in body.rights))
    if caller.only_rights is None:
        return given
    if given is None:
        return tuple(sorted(caller.only_rights))
    if beyond := [each for each in given if each not in caller.only_rights]:
        raise forbidden(f"the key that asks may not {beyond[0]} itself", "rights")
    return given


async def _accounts(deck: Services, body: NewKey, user: UserId) -> tuple[AccountId, ...] | None:
    if body.accounts is None:
        return None
    granted = await deck.grants.of(user)
    theirs = {each.id for each in await deck.desired.accounts() if each.user == user or each.id in granted}
    operator = "operator" in (await deck.desired.user(user)).roles
    found = []
    for text in dict.fromkeys(body.accounts):
        account = (await referenced("accounts", deck.desired.account(AccountId(text)))).id
        if not operator and account not in theirs:
            raise unknown_reference("accounts", UnknownThing("account", text))
        found.append(account)
    return tuple(found)


def _expiry(body: NewKey, caller: Caller) -> Nanos:
    now = time.time_ns()
    # A key that could make one that outlives it would never end.
    latest = min(now + MOST_DAYS * _DAY, caller.expires_at or now + MOST_DAYS * _DAY)
    if body.expires_at is None:
        return Nanos(min(now + USUAL_DAYS * _DAY, latest))
    if body.expires_at > latest:
        bound = "the key that asks ends before" if latest == caller.expires_at else f"{MOST_DAYS} days at most"
        raise BadInput("expires_at", f"it is too far away: {bound}")
    return Nanos(body.expires_at)


@router.get("/keys", response_model=Page[KeyShown])
async def list_keys(caller: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Keys, revoked and expired ones included; never the keys themselves.  To a key that is for some accounts only,
    those of its user that can do no more than it.
    """
    keys = [key for key in await deck.keys.list() if _shows(caller, key)]
    return page_of(keys, _key_order, limit, cursor)


@router.delete("/keys/{id}", status_code=204)
async def revoke_key(id: str, caller: KeyMaker, deck: Deck) -> None:
    """Revoke a key.  A key that asks revokes itself, and none that can do more than it."""
    key = next((key for key in await deck.keys.list() if key.id == id), None)
    if key is None or not _shows(caller, key):
        raise UnknownThing("api_key", id)
    if not caller.by_session and id != caller.key_id and not _covers(caller, key):
        raise forbidden(f"key {id} can do more than the one that asks")
    await deck.keys.revoke(id, by=caller.user)
    deck.doorkeeper.forget(id)


def _key_order(key: ApiKey) -> str:
    return f"{key.created_at:020d} {key.id}"

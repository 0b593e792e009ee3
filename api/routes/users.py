"""``/v1/me``, ``/v1/users``, ``/v1/keys``: people and their API keys."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from api.formats import Body, Cursor, GivenInstant, Instant, InstantOrNone, Limit, Page, Shown, page_of
from api.problems import ProblemError, unknown_reference
from api.security import ROLES, Operator, Viewer
from api.services import Deck, referenced
from storage.records import ApiKey, UserRecord
from trading.errors import BadInput, UnknownThing
from trading.ids import Nanos, UserId, name

router = APIRouter(prefix="/v1", tags=["users"])


class Me(Shown):
    """Who asks."""

    user: str
    roles: list[str]
    rights: list[str]
    key_id: str


class NewUser(Body):
    """A person to add."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "asha", "roles": ["trader", "viewer"]}]})

    id: str
    roles: list[str] = Field(min_length=1, max_length=10)


class UserShown(Shown):
    """A person."""

    id: str
    roles: list[str]
    created_at: Instant
    generation: int


class NewKey(Body):
    """A key to make; its roles are all of the user's where none are named."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"user": "asha", "roles": ["viewer"], "label": "wall screen"}]}
    )

    user: str | None = None
    roles: list[str] | None = Field(None, min_length=1, max_length=10)
    label: str = Field("", max_length=200)
    expires_at: GivenInstant | None = None


class KeyShown(Shown):
    """A key as it is stored: without itself."""

    id: str
    user: str
    roles: list[str]
    label: str
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
    expires_at: InstantOrNone


def _check_roles(roles: list[str]) -> tuple[str, ...]:
    for role in roles:
        if role not in ROLES:
            raise BadInput("roles", f"{role[:30]!r} is not a role: choose from {', '.join(ROLES)}")
    return tuple(dict.fromkeys(roles))


@router.get("/me", response_model=Me)
async def me(caller: Viewer) -> dict[str, Any]:
    """The user and the rights of the key that asks."""
    return {
        "user": caller.user,
        "roles": caller.roles,
        "rights": sorted(caller.rights),
        "key_id": caller.key_id,
    }


@router.post("/users", response_model=UserShown, status_code=201)
async def create_user(body: NewUser, caller: Operator, deck: Deck) -> UserRecord:
    """Add a user."""
    record = UserRecord(
        id=UserId(name(body.id, "id")), roles=_check_roles(body.roles), created_at=Nanos(time.time_ns())
    )
    return await deck.desired.create_user(record, by=caller.user)


@router.get("/users", response_model=Page[UserShown])
async def list_users(caller: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Users; those who are not operators see themselves."""
    users = [user for user in await deck.desired.users() if caller.sees(user.id)]
    return page_of(users, lambda user: user.id, limit, cursor)


@router.get("/users/{id}", response_model=UserShown)
async def get_user(id: str, caller: Viewer, deck: Deck) -> UserRecord:
    """One user."""
    if not caller.sees(id):
        raise UnknownThing("user", id)
    return await deck.desired.user(UserId(id))


@router.post("/keys", response_model=KeyMade, status_code=201)
async def create_key(body: NewKey, caller: Viewer, deck: Deck, response: Response) -> dict[str, Any]:
    """Make a key.  Those who are not operators make them for themselves, with roles of the key that asks."""
    user = UserId(body.user if body.user is not None else caller.user)
    if not caller.sees(user):
        raise unknown_reference("user", UnknownThing("user", user))
    record = await referenced("user", deck.desired.user(user))
    most = record.roles if caller.is_operator else caller.roles
    roles = _check_roles(body.roles) if body.roles is not None else tuple(most)
    beyond = [role for role in roles if role not in most]
    if beyond:
        raise ProblemError(
            403,
            "forbidden",
            "Forbidden",
            f"a key cannot have role {beyond[0]}: {'user ' + user if caller.is_operator else 'yours'} "
            f"has {', '.join(most)}",
            field="roles",
        )
    expires = None if body.expires_at is None else Nanos(body.expires_at)
    id, key = await deck.keys.create(user, roles, body.label, expires, by=caller.user)
    response.headers["Cache-Control"] = "no-store"
    return {
        "id": id,
        "key": key,
        "user": user,
        "roles": roles,
        "label": body.label,
        "expires_at": expires or 0,
    }


@router.get("/keys", response_model=Page[KeyShown])
async def list_keys(caller: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Keys, revoked and expired ones included; never the keys themselves."""
    keys = [key for key in await deck.keys.list() if caller.sees(key.user)]
    return page_of(keys, _key_order, limit, cursor)


@router.delete("/keys/{id}", status_code=204)
async def revoke_key(id: str, caller: Viewer, deck: Deck) -> None:
    """Revoke a key."""
    owner = next((key.user for key in await deck.keys.list() if key.id == id), None)
    if owner is None or not caller.sees(owner):
        raise UnknownThing("api_key", id)
    await deck.keys.revoke(id, by=caller.user)
    deck.doorkeeper.forget(id)


def _key_order(key: ApiKey) -> str:
    return f"{key.created_at:020d} {key.id}"

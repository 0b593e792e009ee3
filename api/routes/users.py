"""``/v1/me``, ``/v1/users``: people, their roles, and the way back in for who has lost it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from api.formats import Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.security import ROLES, FreshOperator, Viewer
from api.services import Deck, Services
from storage.passwords import hash_password, make_one_time_password
from storage.records import UserRecord
from trading.errors import BadInput, Conflict, UnknownThing
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
    enabled: bool
    #: Whether a second factor is enrolled.
    totp: bool
    #: Until when too many failed attempts keep it out.
    locked_until: Instant | None
    created_at: Instant
    generation: int


class UserMade(UserShown):
    """A new user; ``one_time_password`` is shown this once, and is changed at the first sign-in."""

    one_time_password: str | None


class UserChange(Body):
    """What may change; what is left out stays.  One who is not ``enabled`` has no way in, by whatever key."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"roles": ["viewer"]}]})

    roles: list[str] | None = Field(None, min_length=1, max_length=10)
    enabled: bool | None = None
    generation: int | None = Field(None, ge=1)


class ResetWanted(Body):
    """``revoke_keys``: end the user's API keys too; who had taken the account over may have made some."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"revoke_keys": True}]})

    revoke_keys: bool = True


class ResetDone(Shown):
    """``one_time_password`` is shown this once; how many API keys were revoked, and how many are left and good."""

    one_time_password: str
    keys_revoked: int
    keys_left: int


def check_roles(roles: list[str]) -> tuple[str, ...]:
    for role in roles:
        if role not in ROLES:
            raise BadInput("roles", f"{role[:30]!r} is not a role: choose from {', '.join(ROLES)}")
    return tuple(dict.fromkeys(roles))


@router.get("/me", response_model=Me)
async def me(caller: Viewer) -> dict[str, Any]:
    """The user and the rights of the key, or the session, that asks."""
    return {
        "user": caller.user,
        "roles": caller.roles,
        "rights": sorted(caller.rights),
        "key_id": caller.key_id,
    }


@router.post("/users", response_model=UserMade, status_code=201)
async def create_user(body: NewUser, caller: FreshOperator, deck: Deck, response: Response) -> UserMade:
    """Add a user, with a password for the first sign-in."""
    record = UserRecord(id=UserId(name(body.id, "id")), roles=check_roles(body.roles), created_at=Nanos(time.time_ns()))
    password = make_one_time_password()
    # First: where too many sign in at this moment, nobody is made who has no password.
    hashed = await hash_password(password)
    made = await deck.desired.create_user(record, by=caller.user)
    await deck.passwords.set_hash(made.id, hashed, caller.user, one_time=True)
    response.headers["Cache-Control"] = "no-store"
    (shown,) = await _shown(deck, [made])
    return UserMade(**dict(shown), one_time_password=password)


@router.get("/users", response_model=Page[UserShown])
async def list_users(caller: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Users; those who are not operators see themselves."""
    users = [user for user in await deck.desired.users() if caller.sees(user.id)]
    page = page_of(users, lambda user: user.id, limit, cursor)
    return {**page, "items": await _shown(deck, page["items"])}


@router.get("/users/{id}", response_model=UserShown)
async def get_user(id: str, caller: Viewer, deck: Deck) -> UserShown:
    """One user."""
    if not caller.sees(id):
        raise UnknownThing("user", id)
    return (await _shown(deck, [await deck.desired.user(UserId(id))]))[0]


@router.patch("/users/{id}", response_model=UserShown)
async def change_user(id: str, body: UserChange, caller: FreshOperator, deck: Deck) -> UserShown:
    """Change roles, shut out or let in again; it holds at once, for sessions and keys too."""
    record = await deck.desired.user(UserId(id))
    given: dict[str, Any] = {}
    if body.roles is not None:
        given["roles"] = check_roles(body.roles)
    if body.enabled is not None:
        given["enabled"] = body.enabled
    changes = {field: value for field, value in given.items() if getattr(record, field) != value}
    if record.id == caller.user and (changes.get("enabled") is False or "operator" not in changes.get("roles", _OWN)):
        raise Conflict("own_access", "you would shut yourself out: another operator has to do that")
    if changes:
        record = await deck.desired.update_user(record.id, changes, by=caller.user, generation=body.generation)
        deck.doorkeeper.forget_user(record.id)
    return (await _shown(deck, [record]))[0]


@router.post("/users/{id}/reset", response_model=ResetDone)
async def reset_user(
    id: str, caller: FreshOperator, deck: Deck, response: Response, body: ResetWanted | None = None
) -> ResetDone:
    """A new one-time password for who has lost password or phone: the second factor and all sessions are gone.

    So are the user's API keys, unless asked otherwise.
    """
    wanted = body or ResetWanted()
    user = await deck.desired.user(UserId(id))
    done = await deck.passwords.reset(user.id, caller.user, revoke_keys=wanted.revoke_keys)
    deck.doorkeeper.forget_user(user.id)
    response.headers["Cache-Control"] = "no-store"
    return ResetDone(one_time_password=done.password, keys_revoked=done.keys_revoked, keys_left=done.keys_left)


@router.post("/users/{id}/unlock", status_code=204)
async def unlock_user(id: str, caller: FreshOperator, deck: Deck) -> None:
    """Let somebody try again who is locked out."""
    user = await deck.desired.user(UserId(id))
    await deck.login_attempts.unlock(user.id, caller.user)


_OWN = ("operator",)


async def _shown(deck: Services, users: Sequence[UserRecord]) -> list[UserShown]:
    ids = [user.id for user in users]
    enrolled, locked = await deck.second_factors.enrolled(ids), await deck.login_attempts.locked(ids)
    return [
        UserShown(
            id=user.id,
            roles=list(user.roles),
            enabled=user.enabled,
            totp=user.id in enrolled,
            locked_until=locked.get(user.id),
            created_at=user.created_at,
            generation=user.generation,
        )
        for user in users
    ]

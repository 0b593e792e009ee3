"""Who asks, and what they may do: API keys, roles, rights."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from api.idempotency import take_key
from api.logins import Logins
from api.problems import ProblemError
from storage.api_keys import ApiKeys
from storage.desired import Desired
from storage.records import AccountRecord, AlgoRecord, ApiKey
from trading.errors import UnknownThing
from trading.ids import UserId

#: A key is looked up again after this many seconds, so a revoked one works no longer than that.
KEY_CACHE_S: Final = 5.0
_MOST_CACHED: Final = 10_000


class Right(StrEnum):
    """What a route asks for."""

    VIEW = "view"
    TRADE = "trade"
    ALGOS = "run algos"
    STRATEGIES = "register strategies"
    FEEDS = "manage feeds and instruments"
    OPERATE = "operate the deck"


#: role -> what it may do.  An operator may do all, to everybody's things.
ROLES: Final[dict[str, frozenset[Right]]] = {
    "operator": frozenset(Right),
    "quant": frozenset({Right.VIEW, Right.ALGOS, Right.STRATEGIES, Right.FEEDS}),
    "trader": frozenset({Right.VIEW, Right.ALGOS, Right.TRADE}),
    "viewer": frozenset({Right.VIEW}),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind a request, by a key."""

    user: UserId
    roles: tuple[str, ...]
    key_id: str

    @property
    def is_operator(self) -> bool:
        """Sees and may change what belongs to others."""
        return "operator" in self.roles

    @property
    def rights(self) -> frozenset[Right]:
        """Everything that the roles allow."""
        return frozenset[Right]().union(*(ROLES.get(role, frozenset()) for role in self.roles))

    @property
    def cause(self) -> str:
        """What the journal notes as the cause of what this caller does to orders."""
        return f"api/{self.user}/{self.key_id}"

    def require(self, right: Right) -> None:
        """Raise the 403 problem unless the roles allow it."""
        if right not in self.rights:
            who = ", ".join(sorted(role for role, rights in ROLES.items() if right in rights))
            raise ProblemError(
                403,
                "forbidden",
                "Forbidden",
                f"your key may not {right}: that takes role {who}; yours has {', '.join(self.roles) or 'none'}",
            )

    def sees(self, owner: str) -> bool:
        """Whether things of ``owner`` are shown."""
        return self.is_operator or owner == self.user

    def own_account(self, record: AccountRecord) -> AccountRecord:
        """``record`` if it may be seen, else `UnknownThing`, as if there were none."""
        if not self.sees(record.user):
            raise UnknownThing("account", record.id)
        return record

    def own_algo(self, record: AlgoRecord) -> AlgoRecord:
        """As `own_account`."""
        if not self.sees(record.user):
            raise UnknownThing("algo", record.id)
        return record


class Doorkeeper:
    """Turns keys into callers.  What it remembers of a key is its digest."""

    def __init__(self, keys: ApiKeys, desired: Desired, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._desired = desired
        self._clock = clock
        self._known: dict[bytes, tuple[float, ApiKey, Caller]] = {}
        self.logins = Logins(keys, desired, clock)

    async def admit(self, key: str, connection: HTTPConnection) -> Caller:
        """As `caller`, and the audit hears of it."""
        address = connection.client.host if connection.client is not None else "(local)"
        try:
            caller = await self.caller(key)
        except ProblemError as error:
            await self.logins.refused(key, address, error.detail)
            raise
        await self.logins.used(caller.user, caller.key_id, caller.roles, address)
        return caller

    async def caller(self, key: str) -> Caller:
        """Who holds ``key``; raises the 401 problem where nobody does (any more)."""
        digest = hashlib.sha256(key.encode()).digest()
        known = self._known.get(digest)
        if known is None or self._clock() - known[0] > KEY_CACHE_S:
            self._known.pop(digest, None)
            known = await self._look_up(key)
            if len(self._known) >= _MOST_CACHED:
                self._known.clear()
            self._known[digest] = known
        _, record, caller = known
        if record.expires_at is not None and record.expires_at <= time.time_ns():
            raise unauthorized("this API key has expired; ask an operator for a new one")
        return caller

    async def _look_up(self, key: str) -> tuple[float, ApiKey, Caller]:
        began = self._clock()
        record = await self._keys.find(key) if key.startswith("qd_") else None
        if record is None:
            raise unauthorized("this API key is not known, has expired or was revoked")
        # A role that was taken from the user is gone from all keys.
        user = await self._desired.user(record.user)
        roles = tuple(role for role in record.roles if role in user.roles)
        return began, record, Caller(user=record.user, roles=roles, key_id=record.id)

    def forget(self, key_id: str) -> None:
        """A key was revoked here: it ends at once."""
        self._known = {digest: known for digest, known in self._known.items() if known[1].id != key_id}


def unauthorized(detail: str) -> ProblemError:
    """The 401 problem."""
    return ProblemError(401, "unauthorized", "Unauthorized", detail, {"WWW-Authenticate": "Bearer"})


_bearer = HTTPBearer(auto_error=False, description="An API key: `qd_…`")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key: `qd_…`")


def key_of(connection: HTTPConnection) -> str | None:
    """The API key in a request's headers, or None."""
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return connection.headers.get("x-api-key") or None


def allowed(right: Right) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """A dependency: the caller, who may do ``right``."""

    async def authenticate(
        connection: HTTPConnection,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        header: Annotated[str | None, Depends(_header)],
    ) -> Caller:
        key = bearer.credentials.strip() if bearer is not None else header
        if not key:
            raise unauthorized("give an API key: 'Authorization: Bearer qd_…' or 'X-API-Key: qd_…'")
        caller: Caller = await connection.app.state.services.doorkeeper.admit(key, connection)
        caller.require(right)
        await take_key(connection, caller.user)
        return caller

    return authenticate


Viewer = Annotated[Caller, Depends(allowed(Right.VIEW))]
Trader = Annotated[Caller, Depends(allowed(Right.TRADE))]
AlgoRunner = Annotated[Caller, Depends(allowed(Right.ALGOS))]
Author = Annotated[Caller, Depends(allowed(Right.STRATEGIES))]
FeedKeeper = Annotated[Caller, Depends(allowed(Right.FEEDS))]
Operator = Annotated[Caller, Depends(allowed(Right.OPERATE))]

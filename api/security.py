"""Who asks, and what they may do: API keys and sessions, roles, rights, grants."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection

from api.idempotency import take_key
from api.logins import Logins
from api.problems import ProblemError
from api.session_door import (
    COOKIE_SCHEME,
    SessionDoor,
    Step,
    address_of,
    has_session,
    nobody_here,
    step_of,
    unauthorized,
)
from storage.alerts import Alerts
from storage.api_keys import ApiKeys
from storage.desired import Desired
from storage.grants import GrantLevel, Grants
from storage.idempotency import Standing
from storage.panel_sessions import PanelSession, PanelSessions
from storage.records import AccountRecord, AlgoRecord, ApiKey
from trading.errors import UnknownThing
from trading.ids import AccountId, UserId

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
    KEYS = "make keys"
    CREDENTIALS = "give credentials"
    OPERATE = "operate the deck"


#: role -> what it may do.  An operator may do all, to everybody's things.
ROLES: Final[dict[str, frozenset[Right]]] = {
    "operator": frozenset(Right),
    "quant": frozenset({Right.VIEW, Right.KEYS, Right.ALGOS, Right.STRATEGIES, Right.FEEDS}),
    "trader": frozenset({Right.VIEW, Right.KEYS, Right.ALGOS, Right.TRADE, Right.CREDENTIALS}),
    "viewer": frozenset({Right.VIEW, Right.KEYS}),
}
#: What a key that is limited to accounts may do at most: the rest is not about accounts.
OF_ACCOUNTS: Final = frozenset({Right.VIEW, Right.TRADE, Right.ALGOS, Right.CREDENTIALS})


@dataclass(frozen=True, slots=True)
class Caller:
    """The user behind a request, by a key or a session.

    ``key_id`` names the key, or the session where ``by_session``.  A key may be limited to ``only_rights`` and
    ``only_accounts``.  ``grants``: other people's accounts, and how far.  ``fresh_until``: of a session, until when its
    second factor counts as shown just now.
    """

    user: UserId
    roles: tuple[str, ...]
    key_id: str
    by_session: bool = False
    only_rights: frozenset[str] | None = None
    only_accounts: frozenset[AccountId] | None = None
    grants: Mapping[AccountId, GrantLevel] = field(default_factory=dict)
    fresh_until: int = 0
    #: Of a key: 0 where it never expires.
    expires_at: int = 0

    @property
    def is_operator(self) -> bool:
        """Sees and may change what belongs to others: all of it."""
        return "operator" in self.roles and self.only_accounts is None

    @property
    def rights(self) -> frozenset[Right]:
        """Everything that the roles allow, as far as the key goes."""
        found = frozenset[Right]().union(*(ROLES.get(role, frozenset()) for role in self.roles))
        if self.only_accounts is not None:
            found &= OF_ACCOUNTS
        return found if self.only_rights is None else frozenset(each for each in found if each in self.only_rights)

    @property
    def reach(self) -> str:
        """How far the key reaches: all sessions of a user and their unlimited keys have the same, grants aside."""
        limits = (self.roles, self.only_rights, self.only_accounts)
        return repr([sorted(each) if each is not None else None for each in limits])

    @property
    def limits(self) -> str:
        """How the key is limited: nothing that changes while it is good."""
        return repr([sorted(each) if each is not None else None for each in (self.only_rights, self.only_accounts)])

    @property
    def standing(self) -> Standing:
        """What roles and grants allow now, and may not some day."""
        return Standing(
            rights=frozenset(str(each) for each in self.rights),
            grants={str(account): str(level) for account, level in self.grants.items()},
            operator="operator" in self.roles,
        )

    @property
    def cause(self) -> str:
        """What the journal notes as the cause of what this caller does to orders."""
        return f"api/{self.user}/{self.key_id}"

    def require(self, right: Right) -> None:
        """Raise the 403 problem unless the roles, and the key, allow it."""
        if right in self.rights:
            return
        who = ", ".join(sorted(role for role, rights in ROLES.items() if right in rights))
        have = ", ".join(self.roles) or "none"
        if any(right in ROLES.get(role, frozenset()) for role in self.roles):
            why = f"it is limited to: {', '.join(sorted(self.rights)) or 'nothing'}"
        else:
            why = f"that takes role {who}; yours has {have}"
        raise forbidden(f"{'you' if self.by_session else 'your key'} may not {right}: {why}")

    def require_own_hand(self, owner: str) -> None:
        """Raise the 403 problem for a key that was made to look, or for some accounts only: it closes nothing.

        What is another's takes the right to operate.
        """
        if self.by_session and (owner == self.user or Right.OPERATE in self.rights):
            return
        self.require(Right.KEYS if owner == self.user else Right.OPERATE)

    def sees(self, owner: str) -> bool:
        """Whether things of ``owner`` that belong to no account are shown: to no key that is for some accounts only."""
        return self.is_operator or (owner == self.user and self.only_accounts is None)

    def sees_account(self, record: AccountRecord) -> bool:
        """Whether an account, and what is in it, is shown."""
        return self._reaches(record.id, record.user)

    def trades_account(self, record: AccountRecord) -> bool:
        """Whether things may be done with an account, by whoever has the right to do them at all."""
        return self._reaches(record.id, record.user, to_trade=True)

    def owns_account(self, record: AccountRecord) -> bool:
        """Whether it is the caller's own, or an operator's to keep."""
        return self._in_scope(record.id) and ("operator" in self.roles or record.user == self.user)

    def sees_algo(self, record: AlgoRecord) -> bool:
        """As `sees_account`, of the account that the algo uses."""
        return self._reaches(record.account, record.user)

    def trades_algo(self, record: AlgoRecord) -> bool:
        """As `trades_account`, of the account that the algo uses."""
        return self._reaches(record.account, record.user, to_trade=True)

    def reaches(self, account: str, owner: str) -> bool:
        """As `sees_account`, where no record is at hand."""
        return self._reaches(AccountId(account), owner)

    def _in_scope(self, account: AccountId) -> bool:
        return self.only_accounts is None or account in self.only_accounts

    def _reaches(self, account: AccountId, owner: str, *, to_trade: bool = False) -> bool:
        if not self._in_scope(account):
            return False
        if "operator" in self.roles or owner == self.user:
            return True
        granted = self.grants.get(account)
        return granted is GrantLevel.TRADE if to_trade else granted is not None

    def own_account(self, record: AccountRecord) -> AccountRecord:
        """``record`` if it may be seen, else `UnknownThing`, as if there were none."""
        if not self.sees_account(record):
            raise UnknownThing("account", record.id)
        return record

    def traded_account(self, record: AccountRecord) -> AccountRecord:
        """As `own_account`; the 403 problem for one that may only be looked at."""
        if not self.trades_account(self.own_account(record)):
            raise forbidden(f"account {record.id} is {record.user}'s, and granted to you to look at only")
        return record

    def own_algo(self, record: AlgoRecord) -> AlgoRecord:
        """As `own_account`."""
        if not self.sees_algo(record):
            raise UnknownThing("algo", record.id)
        return record

    def traded_algo(self, record: AlgoRecord) -> AlgoRecord:
        """As `traded_account`."""
        if not self.trades_algo(self.own_algo(record)):
            raise forbidden(f"algo {record.id} is {record.user}'s, and its account granted to you to look at only")
        return record

    def require_fresh(self) -> None:
        """Raise the 403 problem ``fresh_code_needed`` unless a session's second factor was shown just now."""
        if self.by_session and self.fresh_until <= time.time_ns():
            raise ProblemError(
                403,
                "fresh_code_needed",
                "Fresh code needed",
                "this needs a fresh code of your second factor: POST /v1/auth/fresh, then do it again",
            )


class Doorkeeper:
    """Turns keys and sessions into callers.  What it remembers of a key is its digest."""

    def __init__(
        self,
        keys: ApiKeys,
        desired: Desired,
        clock: Callable[[], float] = time.monotonic,
        grants: Grants | None = None,
        sessions: PanelSessions | None = None,
        alerts: Alerts | None = None,
    ) -> None:
        self._keys = keys
        self._desired = desired
        self._grants = grants
        self._clock = clock
        self._known: dict[bytes, tuple[float, ApiKey, Caller]] = {}
        self.logins = Logins(keys, desired, clock)
        self._sessions = None
        if sessions is not None and alerts is not None:
            self._sessions = SessionDoor(sessions, self.logins, alerts, clock)

    @property
    def sessions(self) -> SessionDoor:
        """The door for people who have signed in."""
        if self._sessions is None:
            raise unauthorized("only keys are let in here")
        return self._sessions

    async def admit(self, key: str, connection: HTTPConnection) -> Caller:
        """As `caller`, and the audit hears of it."""
        address = address_of(connection)
        try:
            caller = await self.caller(key)
        except ProblemError as error:
            await self.logins.refused(key, address, error.detail)
            raise
        await self.logins.used(caller.user, caller.key_id, caller.roles, address)
        return caller

    async def admit_session(self, connection: HTTPConnection) -> Caller:
        """The caller whose session the cookie is of; raises the 401 problem unless it is signed in all the way, the
        403 problem for a forged request."""
        session = await self.sessions.admit(connection)
        if step_of(session) is not Step.DONE:
            raise unauthorized(f"signing in is not complete: {step_of(session)} is due (GET /v1/auth/session)")
        return caller_of(session)

    async def readmit_session(self, id: str) -> Caller:
        """As `admit_session`, for one that was admitted before and goes on."""
        session = await self.sessions.again(id)
        if step_of(session) is not Step.DONE:
            raise unauthorized("signing in is not complete")
        return caller_of(session)

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
        user = await self._desired.user(record.user)
        if not user.enabled:
            raise unauthorized("the user of this API key is disabled")
        caller = Caller(
            user=record.user,
            # A role that was taken from the user is gone from all keys.
            roles=tuple(role for role in record.roles if role in user.roles),
            key_id=record.id,
            only_rights=None if record.rights is None else frozenset(record.rights),
            only_accounts=None if record.accounts is None else frozenset(record.accounts),
            grants=await self._grants.of(record.user) if self._grants is not None else {},
            expires_at=record.expires_at or 0,
        )
        return began, record, caller

    def forget(self, key_id: str) -> None:
        """A key was revoked here: it ends at once."""
        self._known = {digest: known for digest, known in self._known.items() if known[1].id != key_id}

    def forget_user(self, user: str) -> None:
        """What a user is, or may do, has changed here: it is looked up again at once."""
        self._known = {digest: known for digest, known in self._known.items() if known[1].user != user}
        if self._sessions is not None:
            self._sessions.forget_user(user)


def caller_of(session: PanelSession) -> Caller:
    """The caller that a session makes."""
    return Caller(
        user=session.user,
        roles=session.roles,
        key_id=session.id,
        by_session=True,
        grants=session.grants,
        fresh_until=session.fresh_until,
    )


def forbidden(detail: str, field: str | None = None) -> ProblemError:
    """The 403 problem."""
    return ProblemError(403, "forbidden", "Forbidden", detail, field=field)


_bearer = HTTPBearer(auto_error=False, description="An API key: `qd_…`")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key: `qd_…`")


def key_of(connection: HTTPConnection) -> str | None:
    """The API key in a request's headers, or None."""
    scheme, _, credentials = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return connection.headers.get("x-api-key") or None


async def admitted(connection: HTTPConnection) -> Caller:
    """Whoever sent this, by a key or a session; raises the 401 problem where that is nobody, and the audit hears of it.

    The 403 problem for a request of a browser that another site made it send.
    """
    doorkeeper: Doorkeeper = connection.app.state.services.doorkeeper
    if key := key_of(connection):
        return await doorkeeper.admit(key, connection)
    if has_session(connection):
        return await doorkeeper.admit_session(connection)
    raise nobody_here(connection, "sign in, or give an API key: 'Authorization: Bearer qd_…' or 'X-API-Key: qd_…'")


def caller_known(connection: HTTPConnection) -> Caller | None:
    """Who was let in to the route, with all the rights that it asks for; None: nobody, or not yet."""
    caller: Caller | None = getattr(connection.state, "caller", None)
    return caller


def allowed(right: Right, *, fresh: bool = False) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """A dependency: the caller, who may do ``right``; ``fresh``: a session must have shown its second factor lately."""

    async def authenticate(
        connection: HTTPConnection,
        # For the document: `key_of` reads them.
        _bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
        _header: Annotated[str | None, Depends(_header)],
        _cookie: Annotated[str | None, Depends(COOKIE_SCHEME)],
    ) -> Caller:
        caller = await admitted(connection)
        caller.require(right)
        if fresh:
            caller.require_fresh()
        connection.state.caller = caller
        # Last: what is refused for want of a right or a code has not happened, and is kept under no key.
        await take_key(connection, caller.user, caller.limits, caller.standing)
        return caller

    # For the table of permissions.
    authenticate.right, authenticate.fresh = right, fresh  # type: ignore[attr-defined]
    return authenticate


Viewer = Annotated[Caller, Depends(allowed(Right.VIEW))]
Trader = Annotated[Caller, Depends(allowed(Right.TRADE))]
AlgoRunner = Annotated[Caller, Depends(allowed(Right.ALGOS))]
Author = Annotated[Caller, Depends(allowed(Right.STRATEGIES))]
FeedKeeper = Annotated[Caller, Depends(allowed(Right.FEEDS))]
Operator = Annotated[Caller, Depends(allowed(Right.OPERATE))]

#: Sensitive acts: a session asks for a fresh code first.
Killer = Annotated[Caller, Depends(allowed(Right.TRADE, fresh=True))]
KeyMaker = Annotated[Caller, Depends(allowed(Right.KEYS, fresh=True))]
CredentialGiver = Annotated[Caller, Depends(allowed(Right.CREDENTIALS, fresh=True))]
FreshOperator = Annotated[Caller, Depends(allowed(Right.OPERATE, fresh=True))]

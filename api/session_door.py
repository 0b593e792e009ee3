"""The door for people who have signed in: cookies, forged requests, idle time.

A session is known by its cookie.  A request that changes something must show that it is our own page's: by its origin,
and by a header with what the second cookie says, which other sites can neither read nor send.

Over https both cookies bear the prefix ``__Host-``: browsers take one of that name only from this very host and over
https, so neither a neighbour under the same domain nor who answers for us over http can put one of theirs in its place.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import msgspec
from fastapi import Response
from fastapi.security import APIKeyCookie
from starlette.requests import HTTPConnection

from api.logins import Logins
from api.problems import ProblemError
from storage.alerts import Alerts
from storage.login_attempts import network_of
from storage.panel_sessions import PanelSession, PanelSessions, digest
from trading.errors import TradeError
from trading.ids import Nanos

log = logging.getLogger("quarterdeck")

COOKIE: Final = "qd_session"
CSRF_COOKIE: Final = "qd_csrf"
#: Before the name of a cookie that is Secure.
HOST_PREFIX: Final = "__Host-"
#: For the OpenAPI document.
COOKIE_SCHEME: Final = APIKeyCookie(
    name=COOKIE,
    scheme_name="Session",
    auto_error=False,
    description=f"Set by `POST /v1/auth/login`; over https its name is `{HOST_PREFIX}{COOKIE}`",
)
CSRF_HEADER: Final = "x-csrf-token"
#: A request of this kind is made by the page, not by a person: it does not keep a session from being idle.
BACKGROUND: Final = "x-background"
#: A session is looked up again after so many seconds: one that was ended elsewhere works no longer than that.
CACHE_S: Final = 3.0
#: That somebody was there is written down so often at most.
_SEEN_EVERY: Final = 20_000_000_000
_MOST_CACHED: Final = 10_000
#: What is only noted may hold a request up for so long.
_NOTE_S: Final = 0.5
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: Who signs in with one of these roles needs a second factor.
NEEDS_SECOND_FACTOR: Final = frozenset({"operator", "quant", "trader"})


class Step(StrEnum):
    """What is due before a session may do more than sign in."""

    CODE = "code"
    PASSWORD = "password"
    ENROL = "enrol"
    DONE = "done"


def step_of(session: PanelSession) -> Step:
    """What is due next, as its user is now."""
    if session.totp and not session.code_passed:
        return Step.CODE
    if session.one_time:
        return Step.PASSWORD
    if not session.totp and NEEDS_SECOND_FACTOR & set(session.roles):
        return Step.ENROL
    return Step.DONE


def unauthorized(detail: str) -> ProblemError:
    """The 401 problem."""
    return ProblemError(401, "unauthorized", "Unauthorized", detail, {"WWW-Authenticate": "Bearer"})


def address_of(connection: HTTPConnection) -> str:
    """Where a request comes from."""
    return connection.client.host if connection.client is not None else "(local)"


def has_session(connection: HTTPConnection) -> bool:
    """Whether a request comes with the cookie of a session."""
    return bool(session_token(connection))


def session_token(connection: HTTPConnection) -> str:
    """What the cookie of a session says, or "".

    Over https one without the prefix counts for nothing: anybody may have put it there.
    """
    mine = connection.cookies.get(HOST_PREFIX + COOKIE, "")
    return mine or ("" if is_secure(connection) else connection.cookies.get(COOKIE, ""))


def nobody_here(connection: HTTPConnection, detail: str) -> ProblemError:
    """The 401 problem for a request without a session; a cookie that counts for nothing is taken away."""
    problem = unauthorized(detail)
    if connection.cookies.get(COOKIE):
        response = Response()
        _take_away(response, COOKIE, secure=is_secure(connection), hidden=True)
        problem.headers["Set-Cookie"] = response.headers["set-cookie"]
    return problem


def csrf_token(token: str) -> str:
    """What requests of a session must show; it tells nothing about the session's own token."""
    return hmac.new(token.encode(), b"csrf", hashlib.sha256).hexdigest()


class SessionDoor:
    """Turns cookies into sessions."""

    def __init__(
        self,
        sessions: PanelSessions,
        logins: Logins,
        alerts: Alerts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._logins = logins
        self._alerts = alerts
        self._clock = clock
        self._known: dict[bytes, tuple[float, PanelSession]] = {}
        #: When somebody was last there, by session, where that is not written down yet.
        self._seen: dict[str, int] = {}
        #: Sessions that were seen in another network than they were begun in, and told of.
        self._moved: set[tuple[str, str]] = set()

    async def admit(self, connection: HTTPConnection, *, active: bool = True) -> PanelSession:
        """The session of a request's cookie; raises the 401 problem where it is over, 403 for a forged request.

        ``active`` False: this is no sign that somebody is there.
        """
        session = await self.known(connection)
        method = connection.scope.get("method", "GET")
        if method not in _SAFE:
            await self.check_origin(connection, session.user)
            await self._check_csrf(connection, session)
        if active and connection.headers.get(BACKGROUND) is None:
            await self._note_seen(session)
        return session

    async def known(self, connection: HTTPConnection) -> PanelSession:
        """The session of a request's cookie, whatever the request wants."""
        token = session_token(connection)
        if not token:
            raise nobody_here(connection, "nobody is signed in here")
        session = await self._look_up(token)
        why = "this session is not known: sign in again" if session is None else session.is_over(time.time_ns())
        if session is not None and not why and session.agent != agent_of(connection):
            why = "this session was begun by another browser: sign in again"
            await self._sessions.end([session.id], "its cookie came from another browser", session.user)
            self.forget(session.id)
        if session is None or why:
            whose = None if session is None else {"user": str(session.user), "session": session.id}
            await self._logins.refused(token, address_of(connection), why, whose)
            raise unauthorized(why)
        await self._note_network(session, address_of(connection))
        return session

    async def _note_network(self, session: PanelSession, address: str) -> None:
        network = network_of(address)
        if network == network_of(session.address) or (session.id, network) in self._moved:
            return
        if len(self._moved) >= _MOST_CACHED:
            self._moved.clear()
        self._moved.add((session.id, network))
        try:
            async with asyncio.timeout(_NOTE_S):
                await self._alerts.raise_alert(
                    kind="session",
                    severity="warning",
                    user=session.user,
                    subject=f"{session.id} {network}",
                    text=f"the session that {session.user} began at {session.address} is used from {address}",
                    at=Nanos(time.time_ns()),
                )
        except (TradeError, TimeoutError) as error:
            # Nothing that is asked for waits for it, a kill least of all: it is raised with the next request.
            self._moved.discard((session.id, network))
            log.warning("that session %s of %s has moved could not be told: %s", session.id, session.user, error)

    async def again(self, id: str) -> PanelSession:
        """A session that was admitted before, by its name; raises the 401 problem where it is over."""
        found = await self._sessions.get(id)
        why = "this session is gone" if found is None else self._with_seen(found).is_over(time.time_ns())
        if found is None or why:
            raise unauthorized(why)
        return found

    async def _look_up(self, token: str) -> PanelSession | None:
        key = digest(token)
        known = self._known.get(key)
        if known is None or self._clock() - known[0] > CACHE_S:
            began = self._clock()
            self._known.pop(key, None)
            found = await self._sessions.find(token)
            if found is None:
                return None
            if len(self._known) >= _MOST_CACHED:
                self._known.clear()
            self._known[key] = known = (began, found)
        return self._with_seen(known[1])

    def _with_seen(self, session: PanelSession) -> PanelSession:
        seen = self._seen.get(session.id, 0)
        return session if seen <= session.seen_at else msgspec.structs.replace(session, seen_at=Nanos(seen))

    async def _note_seen(self, session: PanelSession) -> None:
        now = time.time_ns()
        if now - session.seen_at < _SEEN_EVERY:
            return
        if len(self._seen) >= _MOST_CACHED:
            self._seen.clear()
        # Before the write: of many requests at once, one writes.
        self._seen[session.id] = now
        try:
            await self._sessions.seen(session.id, now)
        except TradeError as error:
            # In memory it is: only a restart of this process before the next request would shorten the session.
            log.warning("when session %s was last used could not be noted: %s", session.id, error)
            self._seen.pop(session.id, None)

    async def check_origin(self, connection: HTTPConnection, user: str = "", *, required: bool = True) -> None:
        """Raise the 403 problem for a request that another site's page makes; the audit hears of it.

        ``required`` False: one that names no origin at all, as programs send, may pass.
        """
        said = _origin_of(connection)
        if not said and not required:
            return
        if said and _is_our_own(connection):
            return
        why = f"the request was made by a page of {said[:100] or 'an unknown origin'}, not by our own"
        whose = {"user": user} if user else None
        await self._logins.refused("", address_of(connection), why, whose)
        raise ProblemError(403, "forged_origin", "Forged origin", why)

    async def _check_csrf(self, connection: HTTPConnection, session: PanelSession) -> None:
        given = connection.headers.get(CSRF_HEADER, "")
        expected = csrf_token(session_token(connection))
        if hmac.compare_digest(given.encode(), expected.encode()):
            return
        whose = {"user": str(session.user), "session": session.id}
        await self._logins.refused("", address_of(connection), "a request without its X-CSRF-Token", whose)
        raise ProblemError(
            403,
            "csrf",
            "Forged request",
            f"send the value of cookie {_named(CSRF_COOKIE, connection)} in header X-CSRF-Token",
        )

    def forget(self, *ids: str) -> None:
        """Sessions have changed or ended here: they are looked up again at once."""
        self._known = {key: known for key, known in self._known.items() if known[1].id not in ids}

    def forget_user(self, user: str) -> None:
        """As `forget`, for all of a user's."""
        self._known = {key: known for key, known in self._known.items() if known[1].user != user}


def agent_of(connection: HTTPConnection) -> str:
    """The browser, as it calls itself and as it is kept."""
    return connection.headers.get("user-agent", "")[:300].replace("\0", "")


def set_cookies(response: Response, connection: HTTPConnection, token: str) -> None:
    """Give a browser its session."""
    secure = is_secure(connection)
    for name, value, hidden in ((COOKIE, token, True), (CSRF_COOKIE, csrf_token(token), False)):
        response.set_cookie(
            _named(name, connection), value, path="/", secure=secure, httponly=hidden, samesite="strict"
        )
        if secure and name in connection.cookies:
            # Of a session from before this one had the prefix; the page must not find two.
            _take_away(response, name, secure=secure, hidden=hidden)


def clear_cookies(response: Response, connection: HTTPConnection) -> None:
    """Take them away."""
    secure = is_secure(connection)
    for name, hidden in ((COOKIE, True), (CSRF_COOKIE, False)):
        for each in dict.fromkeys((_named(name, connection), name)):
            _take_away(response, each, secure=secure, hidden=hidden)


def _take_away(response: Response, name: str, *, secure: bool, hidden: bool) -> None:
    response.delete_cookie(name, path="/", secure=secure, httponly=hidden, samesite="strict")


def _named(name: str, connection: HTTPConnection) -> str:
    return HOST_PREFIX + name if is_secure(connection) else name


def is_secure(connection: HTTPConnection) -> bool:
    """Whether the browser speaks https, to us or to what stands before us."""
    return connection.url.scheme in ("https", "wss") or (
        _origin_of(connection).startswith("https://") and _is_our_own(connection)
    )


def _origin_of(connection: HTTPConnection) -> str:
    """The page that makes a request, as its browser says; "" where it does not."""
    return connection.headers.get("origin") or connection.headers.get("referer") or ""


def _is_our_own(connection: HTTPConnection) -> bool:
    """Whether that page is at the address that the request was sent to."""
    return _host_of(_origin_of(connection)) == connection.headers.get("host", "").lower()


def _host_of(origin: str) -> str:
    """``host[:port]`` as the header ``Host`` would have it."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = 443 if parts.scheme == "https" else 80
    return host if port in (None, usual) else f"{host}:{port}"

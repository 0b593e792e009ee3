"""Signing in: attempts and lock-outs, passwords, codes, and what is due next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import Depends, Response
from starlette.requests import HTTPConnection

from api.problems import ProblemError
from api.security import caller_of
from api.services import Services
from api.session_door import (
    COOKIE_SCHEME,
    Step,
    address_of,
    agent_of,
    clear_cookies,
    has_session,
    set_cookies,
    step_of,
)
from storage.login_attempts import Attempt
from storage.panel_sessions import PanelSession
from storage.second_factors import Verdict
from trading.errors import TradeError, UnknownThing
from trading.ids import Nanos, UserId

log = logging.getLogger("quarterdeck")

#: A refusal takes so long whatever it was that was wrong, so that its time tells nothing.
_REFUSAL_S: Final = 0.4
#: Whoever gave the password so long ago at most need not give it again to enrol a second factor.
_SIGNED_IN_NS: Final = 15 * 60 * 1_000_000_000
#: And a refusal during a lock-out so long, for some are looked at all the same; looking may take no longer than this.
_LOCKED_S: Final = 2.0
_LOOK_S: Final = 1.8
_LONGEST_NAME: Final = 100


async def sign_in(deck: Services, connection: HTTPConnection, response: Response, user: str, password: str) -> Step:
    """Begin a session for whoever knows the password; what is due next.

    Raises the 401 problem ``wrong_login``, which never says what was wrong, or 429 ``locked_out``, which never says
    whether the password was looked at.
    """
    began = time.monotonic()
    door = deck.doorkeeper.sessions
    await door.check_origin(connection, required=False)
    name = _storable(user[:_LONGEST_NAME])
    attempt = await deck.login_attempts.begin(name, address_of(connection))
    given = _storable(password)
    if attempt.locked_until and not await _is_let_in_quietly(deck, connection, attempt, name, given):
        await asyncio.sleep(max(0.0, began + _LOCKED_S - time.monotonic()))
        raise _locked_out(attempt)
    if not attempt.locked_until and not await _is_right(deck, attempt, name, given):
        await _note_failure(deck, connection, attempt, name, "a wrong user or password")
        await asyncio.sleep(max(0.0, began + _REFUSAL_S - time.monotonic()))
        raise ProblemError(401, "wrong_login", "Not signed in", "user or password is wrong")
    if has_session(connection):
        await _end_before(deck, connection)
    session, token = await deck.panel_sessions.begin(UserId(name), address_of(connection), agent_of(connection))
    await deck.login_attempts.succeeded(attempt, whole=not session.totp)
    step = step_of(session)
    after = {"address": session.address, "roles": list(session.roles), "due": str(step)}
    await deck.desired.audit(session.user, "login", session.id, None, after)
    set_cookies(response, connection, token)
    if step is Step.DONE:
        await _note_sign_in(deck, session)
    return step


async def _is_right(deck: Services, attempt: Attempt, user: str, password: str) -> bool:
    async with _judged(deck, attempt):
        return await deck.passwords.verify(user, password)


async def _is_let_in_quietly(
    deck: Services, connection: HTTPConnection, attempt: Attempt, user: str, password: str
) -> bool:
    """Whether somebody gets in during a lock-out.

    What keeps that from being found out is answered as the lock-out is: nobody else gets any other answer.
    """
    if not attempt.quiet:
        await deck.doorkeeper.logins.refused(user, address_of(connection), f"locked out ({attempt.by})")
        return False
    try:
        async with asyncio.timeout(_LOOK_S):
            right = await _is_right(deck, attempt, user, password)
        if not right:
            await _note_failure(deck, connection, attempt, user, "a wrong password during a lock-out")
    except TradeError as error:
        log.warning("whether %s may sign in during a lock-out was not found out: %s", user, error)
        return False
    except TimeoutError:
        log.warning("whether %s may sign in during a lock-out took too long to find out", user)
        await deck.login_attempts.succeeded(attempt, whole=False)
        return False
    return right


def _storable(text: str) -> str:
    """``text`` without what no name and no password of ours can have in it."""
    return text.encode(errors="replace").decode().replace("\0", "")


async def _end_before(deck: Services, connection: HTTPConnection) -> None:
    """End the session that this browser had: nobody knows of it any more."""
    try:
        before = await deck.doorkeeper.sessions.known(connection)
    except ProblemError:
        return  # it is over already
    await deck.panel_sessions.end([before.id], "the same browser signed in anew", before.user)
    deck.doorkeeper.sessions.forget(before.id)


def at_step(
    *steps: Step, active: bool = True, fresh: bool = False, or_recovered: bool = False
) -> Callable[..., Coroutine[Any, Any, PanelSession]]:
    """A dependency: the session that asks, which is at one of these steps, or at any where none are named.

    ``fresh``: where a second factor is enrolled, it must have been shown lately; ``or_recovered``: or be lost, so that
    a recovery code was given in its place.
    """

    async def authenticate(
        connection: HTTPConnection, _: Annotated[str | None, Depends(COOKIE_SCHEME)]
    ) -> PanelSession:
        services: Services = connection.app.state.services
        session = await services.doorkeeper.sessions.admit(connection, active=active)
        step = step_of(session)
        if steps and step not in steps:
            due = "nothing more is due" if step is Step.DONE else f"{step} is due first"
            raise ProblemError(409, "other_step", "Conflict", f"this is not what is due to sign in: {due}")
        if fresh and session.totp and not (or_recovered and session.recovered):
            caller_of(session).require_fresh()
        return session

    # For the table of permissions.
    authenticate.steps, authenticate.fresh = steps, fresh  # type: ignore[attr-defined]
    return authenticate


async def require_owner(deck: Services, connection: HTTPConnection, session: PanelSession, password: str) -> None:
    """See to it that whoever enrols a second factor has shown another, or knows the password.

    Who has just signed in by it need not give it again.  Raises 422 for ``current`` or 429 ``locked_out``.
    """
    now = time.time_ns()
    # An old session may have come to this step since: its user was given a role that needs a second factor.
    if step_of(session) is Step.ENROL and now - session.created_at < _SIGNED_IN_NS:
        return
    if session.totp and session.fresh_until > now:
        return
    await check_password(deck, connection, session, password)


async def check_code(
    deck: Services,
    connection: HTTPConnection,
    session: PanelSession,
    code: str,
) -> None:
    """Take a code of the user's second factor.  Raises the 401 problem ``wrong_code`` or 429 ``locked_out``."""
    require_second_factor(session)
    attempt = await _attempt_of(deck, connection, session)
    async with _judged(deck, attempt):
        verdict = await deck.second_factors.verify(deck.secrets, session.user, code)
    if verdict is not Verdict.RIGHT:
        await _note_failure(deck, connection, attempt, session.user, f"a {verdict} code")
        why = "this code was used before: wait for the next one" if verdict is Verdict.REPLAYED else "the code is wrong"
        raise wrong_code(why)
    await deck.login_attempts.succeeded(attempt, whole=True)


def require_second_factor(session: PanelSession) -> None:
    """Raise the 409 problem where none is enrolled."""
    if not session.totp:
        raise ProblemError(
            409, "no_second_factor", "Conflict", "you have no second factor yet: enrol one in your profile first"
        )


async def check_recovery_code(deck: Services, connection: HTTPConnection, session: PanelSession, code: str) -> None:
    """As `check_code`, with one of the codes for when the second factor is lost; an alert tells of it."""
    attempt = await _attempt_of(deck, connection, session)
    async with _judged(deck, attempt):
        left = await deck.second_factors.use_recovery_code(session.user, code)
    if left is None:
        await _note_failure(deck, connection, attempt, session.user, "a wrong recovery code")
        raise wrong_code("this is no recovery code of yours, or it was used before", "recovery_code")
    await deck.login_attempts.succeeded(attempt, whole=True)
    text = f"{session.user} signed in from {session.address} with a recovery code; {left} are left"
    await _alert(deck, session.user, f"recovery code {session.id}", text)


async def check_password(deck: Services, connection: HTTPConnection, session: PanelSession, password: str) -> None:
    """The present password, asked for again.  Raises 422 for ``current`` or 429 ``locked_out``."""
    attempt = await _attempt_of(deck, connection, session)
    async with _judged(deck, attempt):
        right = await deck.passwords.verify(session.user, password)
    if not right:
        await _note_failure(deck, connection, attempt, session.user, "a wrong present password")
        raise ProblemError(422, "wrong_password", "Wrong password", "this is not your password", field="current")
    await deck.login_attempts.succeeded(attempt, whole=False)


async def check_new_code(deck: Services, connection: HTTPConnection, session: PanelSession, code: str) -> list[str]:
    """Enrol the second factor that was begun; its recovery codes.  Raises the 401 problem ``wrong_code``."""
    attempt = await _attempt_of(deck, connection, session)
    try:
        async with _judged(deck, attempt):
            codes = await deck.second_factors.confirm(deck.secrets, session.user, code)
    except UnknownThing as error:
        raise ProblemError(409, "nothing_begun", "Conflict", "begin with POST /v1/auth/totp") from error
    if codes is None:
        await _note_failure(deck, connection, attempt, session.user, "a wrong code of a new second factor")
        raise wrong_code("the code is wrong: is the clock of the phone right?")
    await deck.login_attempts.succeeded(attempt, whole=False)
    return codes


async def rise(
    deck: Services,
    connection: HTTPConnection,
    response: Response,
    before: PanelSession,
    *,
    code_passed: bool = False,
    fresh: bool = False,
    recovered: bool | None = None,
) -> Step:
    """Give a session that may do more from now on another token; what is due next."""
    token = await deck.panel_sessions.rise(before.id, code_passed=code_passed, fresh=fresh, recovered=recovered)
    deck.doorkeeper.sessions.forget(before.id)
    session = await deck.doorkeeper.sessions.again(before.id)
    set_cookies(response, connection, token)
    step = step_of(session)
    if step is Step.DONE and step_of(before) is not Step.DONE:
        await _note_sign_in(deck, session)
    return step


async def sign_out(deck: Services, connection: HTTPConnection, response: Response, session: PanelSession) -> None:
    """End the session."""
    await deck.panel_sessions.end([session.id], "signed out", session.user, action="logout")
    deck.doorkeeper.sessions.forget(session.id)
    clear_cookies(response, connection)


def wrong_code(detail: str, field: str = "code") -> ProblemError:
    """The 401 problem of a code."""
    return ProblemError(401, "wrong_code", "Wrong code", detail, field=field)


@contextlib.asynccontextmanager
async def _judged(deck: Services, attempt: Attempt) -> AsyncIterator[None]:
    """What was not judged, because something here is away or busy, is no failed attempt."""
    try:
        yield
    except TradeError:
        try:
            await deck.login_attempts.succeeded(attempt, whole=False)
        except TradeError as error:
            log.warning("an attempt that could not be judged still counts: %s", error)
        raise


async def _attempt_of(deck: Services, connection: HTTPConnection, session: PanelSession) -> Attempt:
    if step_of(session) is not Step.DONE:
        return await _attempt(deck, connection, session.user)
    return await _go_on(deck, connection, session.user, await deck.login_attempts.begin_within(session.id))


async def _attempt(deck: Services, connection: HTTPConnection, user: str) -> Attempt:
    return await _go_on(deck, connection, user, await deck.login_attempts.begin(user, address_of(connection)))


async def _go_on(deck: Services, connection: HTTPConnection, user: str, attempt: Attempt) -> Attempt:
    """An attempt that may be made; raises the 429 problem where there is a lock-out."""
    if attempt.may_be_made:
        return attempt
    await deck.doorkeeper.logins.refused(user, address_of(connection), f"locked out ({attempt.by})")
    raise _locked_out(attempt)


def _locked_out(attempt: Attempt) -> ProblemError:
    left = max(1, math.ceil((attempt.locked_until - time.time_ns()) / 1e9))
    return ProblemError(
        429,
        "locked_out",
        "Locked out",
        f"too many attempts to sign in have failed: wait {in_words(left)}, then try again",
        {"Retry-After": str(left)},
        retry_after=float(left),
    )


async def _note_failure(deck: Services, connection: HTTPConnection, attempt: Attempt, user: str, why: str) -> None:
    logins, address = deck.doorkeeper.logins, address_of(connection)
    known = any(each.id == user for each in await deck.desired.users())
    await logins.refused(user, address, why, {"user": user} if known else None)
    if not attempt.locks:
        return
    await logins.locked_out(user if known else "", address, attempt.locks)
    if known and attempt.locks != ("address",):
        text = f"{user} is locked out: too many attempts to sign in failed, the last from {address}"
        await _alert(deck, user, "locked out", text)


async def _note_sign_in(deck: Services, session: PanelSession) -> None:
    """Remember that somebody signed in all the way, and tell what was unusual about it."""
    for what, text in (await deck.panel_sessions.note_sign_in(session)).items():
        # An alert for each: the next one of the same subject would take the place of its text.
        await _alert(deck, session.user, f"{session.id} {what}", f"{session.user} {text}")


async def _alert(deck: Services, user: str, subject: str, text: str) -> None:
    await deck.alerts.raise_alert(
        kind="session", severity="warning", user=user, subject=subject, text=text, at=Nanos(time.time_ns())
    )


def in_words(seconds: int) -> str:
    """A time to wait."""
    if seconds < 90:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minutes"

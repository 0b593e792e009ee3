"""``/v1/auth``: sign in with password and second factor, sign out."""

from __future__ import annotations

import time
from typing import Annotated, Any

import segno
from fastapi import APIRouter, Depends, Request, Response
from pydantic import ConfigDict, Field, SecretStr, model_validator

from api import sign_in as signing
from api.formats import Body, Instant, InstantOrNone, Shown
from api.security import caller_of
from api.services import Deck
from api.session_door import Step, step_of
from storage.panel_sessions import PanelSession
from storage.passwords import LONGEST, check_strength
from trading.errors import BadInput

router = APIRouter(prefix="/v1/auth", tags=["auth"])

_CODE = Field(max_length=20)

#: The session that asks, by what is due in it.
AtCode = Annotated[PanelSession, Depends(signing.at_step(Step.CODE))]
AtPassword = Annotated[PanelSession, Depends(signing.at_step(Step.PASSWORD, Step.DONE))]
AtEnrolment = Annotated[PanelSession, Depends(signing.at_step(Step.ENROL, Step.DONE, fresh=True, or_recovered=True))]
SignedInFresh = Annotated[PanelSession, Depends(signing.at_step(Step.DONE, fresh=True))]
SignedIn = Annotated[PanelSession, Depends(signing.at_step(Step.DONE))]
AtAnyStep = Annotated[PanelSession, Depends(signing.at_step(active=False))]


class Login(Body):
    """Who signs in."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"user": "asha", "password": "four unrelated words"}]})

    user: str = Field(max_length=200)
    password: SecretStr = Field(max_length=4 * LONGEST)


class CodeGiven(Body):
    """A code of the second factor, or one of the recovery codes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "123456"}]})

    code: str | None = Field(None, max_length=20)
    recovery_code: SecretStr | None = Field(None, max_length=60)

    @model_validator(mode="after")
    def _one_of_them(self) -> CodeGiven:
        if (self.code is None) == (self.recovery_code is None):
            raise ValueError("give code or recovery_code")
        return self


class FreshCode(Body):
    """A code of the second factor."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"code": "123456"}]})

    code: str = _CODE


class PasswordChange(Body):
    """The present password and the new one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"current": "…", "new": "four unrelated words"}]})

    current: SecretStr = Field(max_length=4 * LONGEST)
    new: SecretStr = Field(max_length=4 * LONGEST)


class EnrolmentWish(Body):
    """The present password; it need not be given while signing in, nor where the old second factor was just shown."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"current": "four unrelated words"}]})

    current: SecretStr = Field(SecretStr(""), max_length=4 * LONGEST)


class StepShown(Shown):
    """What is due next: ``code``, ``password`` (a one-time password must be changed), ``enrol``, or ``done``."""

    step: Step


class Enrolment(Shown):
    """A second factor to enrol: its secret for an app, also as an ``otpauth:`` address and as a QR code."""

    secret: str
    uri: str
    qr_svg: str


class Enrolled(StepShown):
    """It is enrolled; the recovery codes are shown this once."""

    recovery_codes: list[str]


class RecoveryCodes(Shown):
    """Codes for when the second factor is lost; each works once, all are shown this once."""

    recovery_codes: list[str]


class Fresh(Shown):
    """Until when no further code is asked for."""

    fresh_until: Instant


class SessionNow(Shown):
    """Who is signed in here, and how far; ``recovered``: by a recovery code, so another second factor is due."""

    id: str
    user: str
    roles: list[str]
    rights: list[str]
    step: Step
    totp: bool
    recovered: bool
    fresh_until: InstantOrNone
    idle_ends_at: Instant
    ends_at: Instant


@router.post("/login", response_model=StepShown)
async def login(body: Login, request: Request, response: Response, deck: Deck) -> StepShown:
    """Sign in with user and password; the session is set as a cookie, and may go on with what is due next."""
    step = await signing.sign_in(deck, request, response, body.user, body.password.get_secret_value())
    return StepShown(step=step)


@router.post("/code", response_model=StepShown)
async def give_code(body: CodeGiven, request: Request, response: Response, session: AtCode, deck: Deck) -> StepShown:
    """Show the second factor; a code is taken once."""
    if body.recovery_code is not None:
        await signing.check_recovery_code(deck, request, session, body.recovery_code.get_secret_value())
    else:
        await signing.check_code(deck, request, session, body.code or "")
    how = "recovery code" if body.recovery_code is not None else "code"
    await deck.desired.audit(session.user, "login_code", session.id, None, {"address": session.address, "by": how})
    # A recovery code shows that nobody has the phone: it opens the door, and nothing that asks for a fresh code.
    by_code = body.code is not None
    step = await signing.rise(deck, request, response, session, code_passed=True, fresh=by_code, recovered=not by_code)
    return StepShown(step=step)


@router.post("/password", response_model=StepShown)
async def change_password(
    body: PasswordChange, request: Request, response: Response, session: AtPassword, deck: Deck
) -> StepShown:
    """Change the password; one's other sessions end."""
    current, new = body.current.get_secret_value(), body.new.get_secret_value()
    await signing.check_password(deck, request, session, current)
    if new == current:
        raise BadInput("new", "it is the password that you have: take another")
    await check_strength(new, session.user)
    ended = await deck.passwords.change(session.user, new, session.id)
    deck.doorkeeper.sessions.forget(*ended)
    return StepShown(step=await signing.rise(deck, request, response, session))


@router.post("/totp", response_model=Enrolment)
async def begin_enrolment(
    request: Request, response: Response, session: AtEnrolment, deck: Deck, body: EnrolmentWish | None = None
) -> Enrolment:
    """Begin to enrol a second factor, or another one in its place: nothing changes before it is confirmed.

    Takes a fresh code of the old one; or the password, of who has none yet, or signed in with a recovery code.
    """
    await signing.require_owner(deck, request, session, body.current.get_secret_value() if body is not None else "")
    secret, uri = await deck.second_factors.begin(deck.secrets, session.user)
    await deck.desired.audit(session.user, "begin_totp", session.id)
    response.headers["Cache-Control"] = "no-store"
    image = segno.make(uri, error="m").svg_inline(scale=5, border=4, dark="#000", light="#fff")
    return Enrolment(secret=secret, uri=uri, qr_svg=image)


@router.post("/totp/confirm", response_model=Enrolled)
async def confirm_enrolment(
    body: FreshCode, request: Request, response: Response, session: AtEnrolment, deck: Deck
) -> Enrolled:
    """Enrol the second factor that was begun, by a code of it; one's other sessions end."""
    codes = await signing.check_new_code(deck, request, session, body.code)
    others = [each.id for each in await deck.panel_sessions.live(session.user) if each.id != session.id]
    await deck.panel_sessions.end(others, "another second factor was enrolled", session.user)
    deck.doorkeeper.forget_user(session.user)
    response.headers["Cache-Control"] = "no-store"
    step = await signing.rise(deck, request, response, session, code_passed=True, fresh=True, recovered=False)
    return Enrolled(step=step, recovery_codes=codes)


@router.post("/recovery-codes", response_model=RecoveryCodes)
async def renew_recovery_codes(response: Response, session: SignedInFresh, deck: Deck) -> RecoveryCodes:
    """New recovery codes in place of the old ones."""
    signing.require_second_factor(session)
    response.headers["Cache-Control"] = "no-store"
    return RecoveryCodes(recovery_codes=await deck.second_factors.new_recovery_codes(session.user))


@router.post("/fresh", response_model=Fresh)
async def show_fresh_code(body: FreshCode, request: Request, session: SignedIn, deck: Deck) -> Fresh:
    """Show the second factor again, for what asks for a fresh code; it counts for five minutes."""
    await signing.check_code(deck, request, session, body.code)
    until = await deck.panel_sessions.refresh(session.id)
    deck.doorkeeper.sessions.forget(session.id)
    await deck.desired.audit(session.user, "fresh_code", session.id)
    return Fresh(fresh_until=until)


@router.post("/logout", status_code=204)
async def logout(request: Request, response: Response, session: AtAnyStep, deck: Deck) -> None:
    """End this session."""
    await signing.sign_out(deck, request, response, session)


@router.get("/session", response_model=SessionNow)
async def get_session(request: Request, session: AtAnyStep, deck: Deck) -> dict[str, Any]:
    """Who is signed in here; asking does not keep a session from being idle."""
    step = step_of(session)
    fresh = session.fresh_until
    return {
        "id": session.id,
        "user": session.user,
        "roles": session.roles,
        "rights": sorted(caller_of(session).rights) if step is Step.DONE else [],
        "step": step,
        "totp": session.totp,
        "recovered": session.recovered,
        "fresh_until": fresh if fresh > time.time_ns() else 0,
        "idle_ends_at": session.idle_ends_at,
        "ends_at": session.ends_at,
    }

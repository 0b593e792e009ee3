"""Every error as ``application/problem+json`` (RFC 9457), with a stable ``code`` and the field it is about."""

from __future__ import annotations

import json
import logging
import math
import secrets
import traceback
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from storage import redaction
from trading.errors import (
    BadInput,
    Conflict,
    Fenced,
    InDoubt,
    Invariant,
    NeedsOperator,
    NotReady,
    Refused,
    RiskDenied,
    TradeError,
    UnknownThing,
    Unreachable,
)
from trading.limits import violation_of

log = logging.getLogger("quarterdeck")

MEDIA_TYPE: Final = "application/problem+json"
#: Members of a problem that hold words of ours alone.
_OURS: Final = frozenset({"type", "title", "status", "code"})


class _Answer(JSONResponse):
    """JSON of whatever there is to tell: a text that UTF-8 cannot hold must not turn a refusal into an error of ours,
    nor hide what was done for others before it.  What a provider's error text gives away of a log-in is taken out."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        told = {name: value if name in _OURS else _cleaned(value) for name, value in content.items()}
        return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return redaction.cleaned(value)
    if isinstance(value, list | tuple):
        return [_cleaned(each) for each in value]
    return {name: _cleaned(each) for name, each in value.items()} if isinstance(value, dict) else value


class FieldError(BaseModel):
    """One wrong field."""

    field: str
    detail: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:quarterdeck:problem:bad_input",
                    "title": "Bad input",
                    "status": 422,
                    "code": "bad_input",
                    "detail": "0 workers cannot carry anything; ask for at least 1",
                    "field": "workers",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    #: Stable, for programs.
    code: str
    #: What is wrong and what to do, for people.
    detail: str
    field: str | None = None
    #: All wrong fields, where there are several.
    errors: list[FieldError] | None = None
    #: Every limit that forbids it.
    violations: list[str] | None = None
    #: Seconds after which it may work.
    retry_after: float | None = None
    #: Who must do what first.
    action: str | None = None
    #: Names an internal error in the log.
    id: str | None = None
    #: Where to ask what became of a request whose outcome is unknown.
    ask: str | None = None


class ProblemError(Exception):
    """A problem found by the API itself; ``more`` are further members of the answer."""

    def __init__(
        self, status: int, code: str, title: str, detail: str, headers: dict[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.headers = headers or {}
        self.more = more


_KINDS: Final[tuple[tuple[type[TradeError], int, str], ...]] = (
    (BadInput, 422, "Bad input"),
    (UnknownThing, 404, "Not found"),
    (Conflict, 409, "Conflict"),
    (RiskDenied, 422, "Denied by risk"),
    (Refused, 422, "Refused"),
    (InDoubt, 504, "Outcome unknown"),
    (NotReady, 503, "Not ready"),
    (NeedsOperator, 424, "Needs an operator"),
    (Unreachable, 504, "Outcome unknown"),
    (Fenced, 409, "Replaced by a newer incarnation"),
    (Invariant, 500, "Internal error"),
)


def problem(status: int, code: str, title: str, detail: str, headers: dict[str, str], **more: Any) -> JSONResponse:
    """The answer for a problem; members of ``more`` that are None are left out."""
    content = {
        "type": f"urn:quarterdeck:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        **{name: value for name, value in more.items() if value is not None},
    }
    return _Answer(content, status, headers)


def answer_for(error: TradeError, **more: Any) -> JSONResponse:
    """The answer that tells ``error``."""
    status, title = next(((s, t) for kind, s, t in _KINDS if isinstance(error, kind)), (500, "Internal error"))
    if status == 500:
        return _internal(error)
    headers: dict[str, str] = {}
    if isinstance(error, NotReady) and not isinstance(error, InDoubt):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        more.setdefault("retry_after", error.retry_after)
    if isinstance(error, Unreachable):
        more.setdefault("target", error.target)
    return problem(
        status,
        error.code,
        title,
        error.detail,
        headers,
        field=getattr(error, "field", None),
        violations=list(error.violations) if isinstance(error, RiskDenied) else None,
        limits=limits_in(error.violations) if isinstance(error, RiskDenied) else None,
        action=getattr(error, "action", None),
        **more,
    )


def body_of(error: Exception) -> dict[str, Any]:
    """The problem that ``error`` would be answered with, as a part of another answer."""
    if isinstance(error, ProblemError):
        answer = problem(error.status, error.code, error.title, error.detail, {}, **error.more)
    else:
        answer = answer_for(error) if isinstance(error, TradeError) else _internal(error)
    found: dict[str, Any] = json.loads(bytes(answer.body))
    return found


def limits_in(violations: Sequence[str]) -> list[dict[str, str | None]]:
    """The limits among the violations, field by field."""
    found = [each for text in violations if (each := violation_of(text)) is not None]
    return [
        {
            "kind": each.kind,
            "scope": each.scope,
            "instrument": each.instrument,
            "value": None if each.value is None else f"{each.value:f}",
            "limit": None if each.limit is None else f"{each.limit:f}",
        }
        for each in found
    ]


def unknown_reference(field: str, error: UnknownThing) -> ProblemError:
    """422 for a name in a request's body that nothing bears (404 is for the path)."""
    return ProblemError(422, error.code, "Bad input", error.detail, field=field)


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` as a problem."""
    app.add_exception_handler(TradeError, _trade_error)
    app.add_exception_handler(ProblemError, _problem_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


async def _trade_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TradeError)
    return answer_for(error)


async def _problem_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    return problem(error.status, error.code, error.title, error.detail, error.headers, **error.more)


async def _validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        why = (found[0].get("ctx") or {}).get("error", "")
        return problem(400, "malformed_json", "Malformed JSON", f"the body is not JSON: {why}", {})
    wrong = wrong_fields(error)
    first = wrong[0] if wrong else {"field": "body", "detail": "it cannot be understood"}
    detail = first["detail"] + "".join(f"; {each['field']}: {each['detail']}" for each in wrong[1:])
    return problem(
        422, "bad_input", "Bad input", detail, {}, field=first["field"], errors=wrong if len(wrong) > 1 else None
    )


def wrong_fields(error: RequestValidationError) -> list[dict[str, str]]:
    """``field`` and ``detail`` of each that is wrong; never the input itself: it may hold a key."""
    return [{"field": _field(each["loc"]), "detail": _plain(each["msg"])} for each in error.errors()]


def _field(loc: Sequence[Any]) -> str:
    parts = [str(part) for part in loc]
    if len(parts) > 1 and parts[0] in ("body", "query", "path", "header"):
        parts = parts[1:]
    return ".".join(parts)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    detail = str(error.detail)
    if error.status_code == 404 and detail == title:
        detail = f"nothing is at {request.url.path}; GET /openapi.json lists what there is"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "other methods")
        detail = f"{request.method} cannot be done to {request.url.path}; it takes {allowed}"
    code = title.lower().replace(" ", "_").replace("-", "_")
    return problem(error.status_code, code, title, detail, dict(error.headers or {}))


async def _unexpected(_: Request, error: Exception) -> JSONResponse:
    return _internal(error)


def _internal(error: Exception) -> JSONResponse:
    id_ = secrets.token_hex(6)
    log.error("internal error %s:\n%s", id_, "".join(traceback.format_exception(error)))
    return problem(
        500, "invariant", "Internal error", f"an error of ours; its story is in the API's log under {id_}", {}, id=id_
    )

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from api import problems
from tests.api.playing import Stage
from trading.errors import (
    BadInput,
    Conflict,
    Fenced,
    Invariant,
    NeedsOperator,
    NotReady,
    RiskDenied,
    TradeError,
    UnknownThing,
    Unreachable,
)


async def _told(error: Exception) -> httpx.Response:
    app = FastAPI()
    problems.install(app)

    @app.get("/it")
    async def it() -> None:
        raise error

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://deck") as client:
        return await client.get("/it")


@pytest.mark.parametrize(
    ("error", "status", "code", "more"),
    [
        (BadInput("workers", "too few"), 422, "bad_input", {"field": "workers", "detail": "too few"}),
        (UnknownThing("feed", "x"), 404, "unknown_feed", {}),
        (Conflict("feed_in_use", "used"), 409, "feed_in_use", {}),
        (RiskDenied(["a is above b", "c"]), 422, "risk_denied", {"violations": ["a is above b", "c"]}),
        (NotReady("away", 2.5), 503, "not_ready", {"retry_after": 2.5}),
        (NeedsOperator("no token", "log in"), 424, "needs_operator", {"action": "log in"}),
        (Unreachable("session/u", "no answer"), 504, "unreachable", {"target": "session/u"}),
        (Fenced("x", 1, 2), 409, "fenced", {}),
    ],
)
async def test_each_error_has_its_status_and_code(
    error: TradeError, status: int, code: str, more: dict[str, Any]
) -> None:
    answer = await _told(error)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert (said["status"], said["code"], said["type"]) == (status, code, f"urn:quarterdeck:problem:{code}")
    assert {name: said[name] for name in more} == more
    problems.Problem.model_validate(said)


async def test_not_ready_says_when_to_come_back() -> None:
    assert (await _told(NotReady("away", 2.1))).headers["retry-after"] == "3"


@pytest.mark.parametrize("error", [Invariant("impossible", ["step one"]), ZeroDivisionError("secret figure")])
async def test_an_internal_error_is_told_by_an_id_and_its_story_is_logged(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "quarterdeck"):
        answer = await _told(error)
    said = answer.json()
    assert answer.status_code == 500
    assert said["id"] in said["detail"]
    assert said["id"] in caplog.text
    assert str(error).splitlines()[0] in caplog.text
    assert str(error).splitlines()[0] not in answer.text


async def test_a_wrong_body_names_every_field(stage: Stage) -> None:
    said = await stage.refused(422, "bad_input", "POST", "/v1/feeds", {"id": 7, "instruments": "x", "colour": 1})
    fields = {each["field"] for each in said["errors"]}
    assert {"id", "provider", "instruments", "colour"} <= fields
    assert said["field"] in fields


async def test_a_body_that_is_no_json_is_told_so(stage: Stage) -> None:
    answer = await stage.http.post(
        "/v1/feeds",
        content=b'{"id": ',
        headers={"X-API-Key": stage.operator_key, "Content-Type": "application/json"},
    )
    assert answer.status_code == 400
    assert answer.json()["code"] == "malformed_json"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_unknown_route_and_a_wrong_method_are_problems(stage: Stage) -> None:
    said = await stage.refused(404, "not_found", "GET", "/v1/nothing")
    assert "/v1/nothing" in said["detail"]
    said = await stage.refused(405, "method_not_allowed", "DELETE", "/v1/me")
    assert "DELETE" in said["detail"]


async def test_a_body_that_is_too_large_is_refused(stage: Stage) -> None:
    answer = await stage.ask("POST", "/v1/strategies", {"name": "big", "source": "#" * (5 << 20)})
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_wrong_field_is_never_repeated_back(stage: Stage) -> None:
    answer = await stage.ask("POST", "/v1/users", {"id": "x", "roles": "qd_top_secret"})
    assert answer.status_code == 422
    assert "qd_top_secret" not in answer.text


def test_problems_are_json() -> None:
    class Body(BaseModel):
        problem: problems.Problem

    answer = problems.answer_for(NotReady("away"))
    assert Body(problem=json.loads(bytes(answer.body))).problem.retry_after == 1.0

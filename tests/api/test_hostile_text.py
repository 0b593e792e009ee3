"""Text that no database can hold, wherever it may be put: refused, and never an internal error."""

from __future__ import annotations

from typing import Any

from tests.api.playing import Stage
from tests.api.signing_in import Browser, clock, signed_in

__all__ = ["clock"]

REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "/v1/accounts/%00", None),
    ("GET", "/v1/users/%00", None),
    ("GET", "/v1/sessions?user=%00", None),
    ("DELETE", "/v1/sessions/%00", None),
    ("GET", "/v1/grants?account=%00", None),
    ("PUT", "/v1/grants/%00/x", {"level": "view"}),
    ("DELETE", "/v1/keys/%00", None),
    ("POST", "/v1/keys", {"label": "a\0b"}),
    ("POST", "/v1/keys", {"accounts": ["\0"]}),
    ("POST", "/v1/keys", {"expires_at": "2262-01-01T00:00:00Z"}),
    ("POST", "/v1/users/%00/reset", None),
    ("PATCH", "/v1/users/%00", {"enabled": True}),
    ("POST", "/v1/auth/login", {"user": "a\0", "password": "\0\0"}),
    ("POST", "/v1/auth/fresh", {"code": "\0"}),
    ("POST", "/v1/auth/password", {"current": "\0", "new": "\0" * 14}),
]


async def test_text_that_cannot_be_kept_is_refused(stage: Stage) -> None:
    browser = await signed_in(stage, "olga", "operator")
    for method, path, body in REQUESTS:
        answer = await browser.ask(method, path, body)
        assert answer.status_code in (401, 404, 422), (method, path, body, answer.text)
    for raw in (b'{"user":"\\ud800","password":"x"}', b'{"user":"x","password":"\\ud800"}'):
        answer = await stage.http.post("/v1/auth/login", content=raw, headers={"content-type": "application/json"})
        assert answer.status_code in (401, 422), answer.text


async def test_a_browser_that_calls_itself_anything_signs_in(stage: Stage) -> None:
    browser = await signed_in(stage, "vera", "viewer", agent="x" * 3000)
    assert (await browser.ask("GET", "/v1/me")).status_code == 200
    assert (await Browser(stage, agent="").ask("GET", "/v1/auth/session")).status_code == 401

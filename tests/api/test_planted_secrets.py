"""Secrets are planted, and then looked for: in every answer, in the log, in the database."""

from __future__ import annotations

import base64
import json
import logging
import re
from typing import Any

import pytest

from tests.api.permissions import rows
from tests.api.playing import Stage
from tests.api.signing_in import Browser, Phone, clock, has_password

__all__ = ["clock"]

KEYS = {"key": "PKplanted0key", "secret": "planted/secret+of=the broker"}
NEW = {"key": "PKplanted0new", "secret": "planted/secret+number=two"}
PASSWORDS = ("planted otters juggle", "nine planted kites at noon")
ALPACA = {"id": "alpaca-1", "user": "asha", "connector": "alpaca", "settings": {"environment": "paper"}}


@pytest.fixture(autouse=True)
def secret_key(monkeypatch: pytest.MonkeyPatch) -> str:
    text = base64.urlsafe_b64encode(b"planted" * 4 + b"key!").decode()
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", text)
    return text


async def everything_kept(stage: Stage) -> str:
    """Every row of every table."""
    found = []
    async with stage.services.database.connection() as connection:
        names = await (
            await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        ).fetchall()
        for (name,) in names:
            query = f'SELECT t::text FROM "{name}" t'.encode()
            found += [f"{name}: {row[0]}" for row in await (await connection.execute(query)).fetchall()]
    return "\n".join(found)


async def test_no_secret_comes_out_again(stage: Stage, caplog: pytest.LogCaptureFixture, secret_key: str) -> None:
    await stage.person("asha", "trader")
    with caplog.at_level(logging.DEBUG):
        said = await _plant(stage)
    ids = {"id": "alpaca-1", "account": "alpaca-1", "user": "asha", "name": "x", "instrument": "BINANCE:BTCUSDT"}
    answers = []
    with caplog.at_level(logging.DEBUG):
        for row in rows(stage.app):
            if row.method != "GET":
                continue
            for id in ("alpaca-1", "asha"):
                path = re.sub(r"\{(\w+)[^}]*\}", lambda part: (ids | {"id": id}).get(part[1], "x"), row.path)  # noqa: B023
                answers.append((path, (await stage.ask("GET", path)).text))
    assert len(answers) > 100
    assert any("alpaca-1" in text for path, text in answers if path == "/v1/accounts/alpaca-1")
    kept = await everything_kept(stage)
    assert "set_credentials" in kept
    assert "alpaca-1" in caplog.text + kept
    for secret in (*KEYS.values(), *NEW.values(), *PASSWORDS, *said, secret_key):
        for path, text in answers:
            assert secret not in text, path
            assert json.dumps(secret)[1:-1] not in text, path
        assert secret not in caplog.text
        assert secret not in kept
        assert base64.b64encode(secret.encode()).decode() not in kept
        assert secret.encode().hex() not in kept


async def _plant(stage: Stage) -> list[str]:
    """Give credentials in every way, right and wrong ones; the secrets that were made on the way."""
    told = [await stage.make("/v1/accounts", ALPACA | {"credentials": KEYS})]
    path = "/v1/accounts/alpaca-1/credentials"
    wrong: list[dict[str, Any]] = [
        {"credentials": NEW | {"more": NEW["secret"]}},
        {"credentials": {"key": NEW["key"]}},
        {"credentials": {"secret": [NEW["secret"]]}},
        {"credentials": NEW["secret"]},
        {"credentials": NEW, "x": NEW["secret"]},
    ]
    for body in wrong:
        answer = await stage.ask("PUT", path, body)
        assert answer.status_code == 422, body
        told.append(answer.text)
    assert (await stage.ask("PUT", path, {"credentials": NEW})).status_code == 204
    told.append(await stage.get(path))
    assert told[-1] == {"needed": ["key", "secret"], "given": ["key", "secret"]}
    for secret in (*KEYS.values(), *NEW.values()):
        assert secret not in str(told)
    await has_password(stage, "asha", PASSWORDS[0])
    browser = Browser(stage)
    await browser.login("asha", PASSWORDS[0])
    begun = await browser.post("/v1/auth/totp")
    browser.phone = Phone(begun["secret"])
    codes = (await browser.post("/v1/auth/totp/confirm", {"code": browser.code()}))["recovery_codes"]
    await browser.post("/v1/auth/password", {"current": PASSWORDS[0], "new": PASSWORDS[1]})
    key = (await browser.post("/v1/keys", {}, 201))["key"]
    one_time = (await stage.ask("POST", "/v1/users", {"id": "bo", "roles": ["viewer"]})).json()["one_time_password"]
    token = browser.http.cookies["qd_session"]
    for method, path, body in (
        ("POST", "/v1/auth/login", {"user": "asha", "password": 5, "also": PASSWORDS[1]}),
        ("POST", "/v1/auth/code", {"code": PASSWORDS[1] * 2}),
    ):
        answer = await browser.ask(method, path, body)
        assert PASSWORDS[1] not in answer.text
    return [begun["secret"], *codes, key, one_time, token]

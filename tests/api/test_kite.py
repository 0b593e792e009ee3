"""An account that lends feeds its log-in at Kite: its credentials, its daily token, and the feeds that use it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from connectors.kite.simulator import KiteSimulator
from connectors.kite.wire import login_url
from storage.secrets import secret_name
from tests.api.playing import Stage
from trading.errors import Unreachable

pytestmark = pytest.mark.usefixtures("secret_key")
PATH = "/v1/accounts/asha-kite/credentials"


@pytest.fixture
def secret_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of the secrets store, so that none is made in the user's home."""
    monkeypatch.setenv("QUARTERDECK_SECRET_KEY", base64.urlsafe_b64encode(bytes(32)).decode())


@pytest.fixture
async def kite() -> AsyncIterator[KiteSimulator]:
    simulator = KiteSimulator(hold=True, limits=False)
    await simulator.start()
    yield simulator
    await simulator.stop()


def account(kite: KiteSimulator, **changes: Any) -> dict[str, Any]:
    return {
        "id": "asha-kite",
        "user": "admin",
        "connector": "kite",
        "enabled": False,
        "settings": {"base_url": kite.url},
        "credentials": kite.credentials(),
    } | changes


async def request_token(kite: KiteSimulator) -> str:
    async with httpx.AsyncClient() as browser:
        answer = await browser.get(login_url("simulatedkey", kite.url))
    return parse_qs(urlsplit(answer.headers["location"]).query)["request_token"][0]


async def test_a_request_token_is_exchanged_for_the_access_token_that_is_kept(
    stage: Stage, kite: KiteSimulator
) -> None:
    await stage.make("/v1/accounts", account(kite))
    log_in = {"api_key": "simulatedkey", "api_secret": "simulatedsecret"}
    token = await request_token(kite)
    version = await stage.services.desired.version()
    said = await stage.ask("PUT", PATH, {"credentials": log_in | {"request_token": token}})
    assert said.status_code == 204
    kept = await stage.services.secrets.get(secret_name("asha-kite"))
    assert kept == log_in | {"access_token": kite.log_ins["simulatedkey"].access_token}
    assert await stage.services.desired.version() > version
    audited = repr(await stage.services.desired.audit_of())
    assert kept["access_token"] not in audited
    assert token not in audited
    again = await stage.ask("PUT", PATH, {"credentials": log_in | {"request_token": token}})
    assert again.status_code == 424, "it works once"
    assert "connect/login" in again.text
    assert await stage.services.secrets.get(secret_name("asha-kite")) == kept


async def test_a_feed_lists_and_takes_kites_instruments_by_the_accounts_log_in(
    stage: Stage, kite: KiteSimulator
) -> None:
    await stage.make("/v1/accounts", account(kite))
    feed = {
        "id": "india",
        "provider": "kite",
        "settings": {"account": "asha-kite", "base_url": kite.url},
        "instruments": ["NSE:INFY", "NSE:NIFTY 50"],
        "channels": ["trade", "quote", "depth"],
        "workers": 2,
    }
    made = await stage.make("/v1/feeds", feed)
    assert made["instruments"] == ["NSE:INFY", "NSE:NIFTY 50"]
    shown = await stage.get("/v1/instruments/NSE:INFY")
    assert (shown["currency"], shown["calendar"], shown["tick_size"]) == ("INR", "XBOM", "0.05")
    said = await stage.refused(
        422, "unknown_instrument", "POST", "/v1/feeds", feed | {"id": "x", "instruments": ["NSE:NOSUCH"]}
    )
    assert "NSE:NOSUCH" in said["detail"]
    said = await stage.refused(422, "bad_input", "POST", "/v1/feeds", feed | {"id": "x", "channels": ["bar"]})
    assert said["field"] == "channels"
    too_many = feed | {"id": "x", "workers": 4}
    assert (await stage.ask("POST", "/v1/feeds", too_many)).status_code == 422
    kite.log_ins["simulatedkey"].end()
    ended = await stage.ask("POST", "/v1/feeds", feed | {"id": "x", "instruments": ["BSE:INFYNEW"]})
    assert ended.status_code == 424
    assert "connect/login?api_key=simulatedkey" in ended.text


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"enabled": True}, "enabled"),
        ({"settings": {"colour": "red"}}, "settings"),
        ({"settings": {"mode": "all"}}, "settings.mode"),
        ({"credentials": {"api_key": "k", "api_secret": "s"}}, "credentials.access_token"),
        ({"credentials": {"api_key": "k", "api_secret": "s", "access_token": "t", "pin": "1"}}, "credentials.pin"),
    ],
)
async def test_a_wrong_account_is_refused_by_field(
    stage: Stage, kite: KiteSimulator, changes: dict[str, Any], field: str
) -> None:
    said = await stage.refused(422, "bad_input", "POST", "/v1/accounts", account(kite) | changes)
    assert said["field"].removesuffix(".settings") == field
    assert (await stage.get("/v1/accounts"))["items"] == []


async def test_it_cannot_be_switched_to_trading(stage: Stage, kite: KiteSimulator) -> None:
    await stage.make("/v1/accounts", account(kite))
    said = await stage.refused(422, "bad_input", "PATCH", "/v1/accounts/asha-kite", {"enabled": True})
    assert "market data only" in said["detail"]
    assert (await stage.get("/v1/accounts/asha-kite"))["enabled"] is False


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("access_token", "planted-token ", "a blank"),
        ("access_token", "planted-token\n", "end of a line"),
        ("api_secret", "planted\u200bsecret", "U+200B"),
        ("api_key", "pl\u00e4nted", "U+00E4"),
        ("request_token", "planted\r\nX: 1", "U+000D"),
    ],
)
async def test_a_log_in_that_was_copied_badly_is_refused_at_its_field_and_not_told(
    stage: Stage, kite: KiteSimulator, field: str, value: str, words: str
) -> None:
    good = kite.credentials()
    given = good | {field: value}
    said = await stage.refused(422, "bad_input", "POST", "/v1/accounts", account(kite, credentials=given))
    assert said["field"] == f"credentials.{field}"
    assert words in said["detail"]
    assert value.strip() not in repr(said)
    await stage.make("/v1/accounts", account(kite, credentials=good))
    said = await stage.refused(422, "bad_input", "PUT", PATH, {"credentials": given})
    assert said["field"] == f"credentials.{field}"
    assert await stage.services.secrets.get(secret_name("asha-kite")) == good


@pytest.mark.parametrize("end", [" ", "\n", "\t", "\u200b", "\u00e9"])
async def test_one_that_was_stored_badly_comes_out_nowhere(
    stage: Stage, kite: KiteSimulator, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.make("/v1/accounts", account(kite))
    feed = {
        "id": "india",
        "provider": "kite",
        "settings": {"account": "asha-kite", "base_url": kite.url},
        "instruments": ["NSE:INFY"],
    }
    await stage.make("/v1/feeds", feed)
    planted = kite.credentials() | {"access_token": f"planted-token{end}"}
    await stage.services.secrets.put(secret_name("asha-kite"), planted)
    viewer = await stage.person("vera", "viewer")
    asked = (
        ("GET", "/v1/history?instrument=NSE:INFY&interval=1d&start=2026-01-05T00:00:00Z", None, viewer),
        ("GET", "/v1/history?instrument=NSE:INFY&interval=1d&start=2026-01-05T00:00:00Z", None, None),
        ("POST", "/v1/instruments/import", {"provider": "kite", "settings": feed["settings"]}, None),
        ("POST", "/v1/feeds", feed | {"id": "other", "instruments": ["BSE:INFYNEW"]}, None),
    )
    for method, path, body, key in asked:
        answer = await stage.ask(method, path, body, key=key)
        assert answer.status_code == 424, (path, answer.text)
        assert "its access_token" in answer.text
        assert "planted" not in answer.text
    assert "planted" not in caplog.text


async def test_what_a_provider_echoes_of_a_log_in_is_taken_out(stage: Stage, kite: KiteSimulator) -> None:
    good = kite.credentials()
    token = good["access_token"]
    await stage.make("/v1/accounts", account(kite, credentials=good))

    async def echoes() -> None:
        raise Unreachable("kite", f"it refuses token {token}")

    stage.app.add_api_route("/v1/echo", echoes)
    answer = await stage.ask("GET", "/v1/echo")
    assert answer.status_code == 504
    assert token not in answer.text
    assert "[secret]" in answer.text


async def test_nobody_takes_words_out_of_what_others_are_told(stage: Stage, kite: KiteSimulator) -> None:
    words = {"api_key": "nothing is at", "api_secret": '","status":404,"code":"', "access_token": "GET /openapi.json"}
    await stage.make("/v1/accounts", account(kite, credentials=words))
    said = (await stage.ask("GET", "/v1/no-such-thing")).json()
    assert (said["status"], said["code"]) == (404, "not_found")
    assert said["detail"] == "nothing is at /v1/no-such-thing; GET /openapi.json lists what there is"

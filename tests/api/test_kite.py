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

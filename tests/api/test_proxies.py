"""Whose word is taken for where a request comes from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from pydantic import ValidationError

from api import __main__ as served
from cluster.settings import DeckSettings, environment


async def _address(config: uvicorn.Config, client: str) -> str:
    """What an application behind ``config`` takes for the address of a request."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(f"{scope['scheme']} {scope['client'][0]}")
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config.app = app
    config.load()
    transport = httpx.ASGITransport(config.loaded_app, client=(client, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://deck") as http:
        said = {"X-Forwarded-For": "203.0.113.77", "X-Forwarded-Proto": "https"}
        assert (await http.get("/", headers=said)).status_code == 204
    return seen[0]


@pytest.mark.parametrize(
    ("trusted", "client", "seen"),
    [
        ("", "127.0.0.1", "http 127.0.0.1"),
        ("", "10.0.1.7", "http 10.0.1.7"),
        ("10.0.1.0/24", "10.0.1.7", "https 203.0.113.77"),
        ("10.0.1.0/24, 127.0.0.1", "127.0.0.1", "https 203.0.113.77"),
        ("10.0.1.0/24", "127.0.0.1", "http 127.0.0.1"),
    ],
)
async def test_only_a_proxy_that_was_named_says_where_others_are(
    trusted: str, client: str, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    deck = SimpleNamespace(database_url="x", redis_url="x", host="127.0.0.1", api_port=1, trusted_proxies=trusted)
    monkeypatch.setattr(served, "settings", lambda: deck)
    monkeypatch.setattr(served, "set_up_logging", lambda _: None)
    monkeypatch.setattr(served, "create_app", lambda _: None)
    monkeypatch.setattr(served, "uvicorn", SimpleNamespace(run=lambda app, **options: given.update(options)))
    served.main()
    config = uvicorn.Config(
        None, proxy_headers=given["proxy_headers"], forwarded_allow_ips=given["forwarded_allow_ips"], log_config=None
    )  # type: ignore[arg-type]
    assert await _address(config, client) == seen


def test_a_proxy_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_TRUSTED_PROXIES", "10.0.0.0/24, *")
    with pytest.raises(ValidationError, match=r"QUARTERDECK_TRUSTED_PROXIES: '\*' does not appear to be"):
        DeckSettings()
    monkeypatch.setenv("QUARTERDECK_TRUSTED_PROXIES", "10.0.0.5")
    assert environment(DeckSettings())["QUARTERDECK_TRUSTED_PROXIES"] == "10.0.0.5"

"""API keys: limited in time and in rights, and none makes one that is more than itself."""

from __future__ import annotations

import time
from typing import Any

import pytest

from api.formats import parse_time, time_text
from api.routes.keys import MOST_DAYS, USUAL_DAYS
from tests.api.playing import Stage, order_body
from tests.support.patience import PATIENCE

DAY = 86_400_000_000_000


def days_from_now(text: str) -> float:
    return (parse_time(text) - time.time_ns()) / DAY


def in_days(days: float) -> str:
    return time_text(int(time.time_ns() + days * DAY))


async def test_a_key_ends_after_90_days_unless_said_otherwise_and_366_at_most(stage: Stage) -> None:
    assert days_from_now((await stage.make("/v1/keys", {}))["expires_at"]) == pytest.approx(USUAL_DAYS, abs=0.01)
    made = await stage.make("/v1/keys", {"expires_at": in_days(MOST_DAYS - 0.01)})
    assert days_from_now(made["expires_at"]) == pytest.approx(MOST_DAYS, abs=0.02)
    said = await stage.refused(422, "bad_input", "POST", "/v1/keys", {"expires_at": in_days(MOST_DAYS + 1)})
    assert said["field"] == "expires_at"


async def test_a_key_is_good_until_it_ends(stage: Stage) -> None:
    made = await stage.make("/v1/keys", {"expires_at": time_text(time.time_ns() + PATIENCE * 1_500_000_000)})
    assert (await stage.ask("GET", "/v1/me", key=made["key"])).status_code == 200
    while time.time_ns() <= parse_time(made["expires_at"]):
        time.sleep(0.05)
    said = await stage.refused(401, "unauthorized", "GET", "/v1/me", key=made["key"])
    assert "expired" in said["detail"]


async def test_a_key_does_no_more_than_its_rights(stage: Stage) -> None:
    key = await stage.trading()
    made = await stage.make("/v1/keys", {"rights": ["view"]}, key=key)
    assert (made["rights"], made["roles"]) == (["view"], ["trader", "quant"])
    assert (await stage.get("/v1/me", key=made["key"]))["rights"] == ["view"]
    refused: list[tuple[str, str, Any]] = [
        ("POST", "/v1/orders", order_body()),
        ("POST", "/v1/keys", {}),
        ("POST", "/v1/risk/kill", {"scope": "user:asha", "reason": "x"}),
        ("PUT", "/v1/accounts/paper-1/credentials", {"credentials": {}}),
    ]
    for method, path, body in refused:
        said = await stage.refused(403, "forbidden", method, path, body, key=made["key"])
        assert "limited to: view" in said["detail"]
    trades = await stage.make("/v1/keys", {"rights": ["view", "trade"]}, key=key)
    assert (await stage.ask("POST", "/v1/orders", order_body(), key=trades["key"])).status_code == 201
    listed = {each["id"]: each for each in (await stage.get("/v1/keys", key=key))["items"]}
    assert listed[made["id"]]["rights"] == ["view"]
    assert listed[made["id"]]["accounts"] is None
    await stage.refused(422, "bad_input", "POST", "/v1/keys", {"rights": ["everything"]}, key=key)


async def test_a_right_that_the_roles_lack_is_not_had(stage: Stage) -> None:
    key = await stage.person("vera", "viewer")
    made = await stage.make("/v1/keys", {"rights": ["view", "trade"]}, key=key)
    assert (await stage.get("/v1/me", key=made["key"]))["rights"] == ["view"]


async def test_a_key_makes_none_that_could_do_more_or_lives_longer(stage: Stage) -> None:
    key = await stage.person("asha", "trader")
    first = await stage.make("/v1/keys", {"rights": ["view", "make keys"], "expires_at": in_days(2)}, key=key)
    second = await stage.make("/v1/keys", {}, key=first["key"])
    assert sorted(second["rights"]) == ["make keys", "view"]
    assert second["expires_at"] == first["expires_at"]
    said = await stage.refused(403, "forbidden", "POST", "/v1/keys", {"rights": ["trade"]}, key=first["key"])
    assert said["field"] == "rights"
    said = await stage.refused(422, "bad_input", "POST", "/v1/keys", {"expires_at": in_days(3)}, key=first["key"])
    assert said["field"] == "expires_at"


async def test_accounts_of_a_key_must_be_the_users(stage: Stage) -> None:
    await stage.trading()
    key = await stage.person("bo", "trader")
    for account in ("paper-1", "nothing"):
        said = await stage.refused(422, "unknown_account", "POST", "/v1/keys", {"accounts": [account]}, key=key)
        assert said["field"] == "accounts"
    said = await stage.refused(
        422, "bad_input", "POST", "/v1/keys", {"accounts": ["paper-1"], "rights": ["operate the deck"]}
    )
    assert said["field"] == "rights"


async def test_only_the_hash_of_a_key_is_kept(stage: Stage) -> None:
    made = await stage.make("/v1/keys", {"label": "x"})
    async with stage.services.database.connection() as connection:
        rows = await (await connection.execute("SELECT k::text FROM api_keys k")).fetchall()
        rows += await (await connection.execute("SELECT a::text FROM audit a")).fetchall()
    assert made["id"] in str(rows)
    assert made["key"] not in str(rows)


async def test_a_weaker_key_ends_no_stronger_one(stage: Stage) -> None:
    strong = await stage.trading()
    (own,) = [each["id"] for each in (await stage.get("/v1/keys", key=strong))["items"]]
    looks = await stage.make("/v1/keys", {"rights": ["view", "make keys"]}, key=strong)
    other = await stage.make("/v1/keys", {"rights": ["view"]}, key=strong)
    said = await stage.refused(403, "forbidden", "DELETE", f"/v1/keys/{own}", key=looks["key"])
    assert "can do more than the one that asks" in said["detail"]
    for id in (other["id"], looks["id"]):
        assert (await stage.ask("DELETE", f"/v1/keys/{id}", key=looks["key"])).status_code == 204
    assert (await stage.get("/v1/me", key=strong))["user"] == "asha"

from __future__ import annotations

import pytest

from tests.api.playing import Stage, algo_body, order_body


async def test_users_are_made_listed_and_audited(stage: Stage) -> None:
    made = await stage.make("/v1/users", {"id": "asha", "roles": ["trader", "viewer"]})
    assert made["created_at"].endswith("+00:00")
    assert [user["id"] for user in (await stage.get("/v1/users"))["items"]] == ["admin", "asha"]
    (entry,) = await stage.services.desired.audit_of("asha")
    assert (entry.actor, entry.action) == ("admin", "create_user")
    await stage.refused(409, "user_exists", "POST", "/v1/users", {"id": "asha", "roles": ["viewer"]})
    said = await stage.refused(422, "bad_input", "POST", "/v1/users", {"id": "No Name", "roles": ["viewer"]})
    assert said["field"] == "id"


async def test_lists_go_page_by_page(stage: Stage) -> None:
    for name in ("c", "a", "b"):
        await stage.make("/v1/users", {"id": name, "roles": ["viewer"]})
    first = await stage.get("/v1/users?limit=3")
    second = await stage.get(f"/v1/users?limit=3&cursor={first['next']}")
    assert [user["id"] for user in first["items"] + second["items"]] == ["a", "admin", "b", "c"]
    assert second["next"] is None
    for query in ("limit=0", "limit=1001", "cursor=***"):
        await stage.refused(422, "bad_input", "GET", f"/v1/users?{query}")


async def test_an_account_lives_and_goes(stage: Stage) -> None:
    key = await stage.trading()
    record = await stage.get("/v1/accounts/paper-1", key=key)
    assert record["enabled"] is True
    changed = await stage.ask("PATCH", "/v1/accounts/paper-1", {"enabled": False})
    assert changed.json()["enabled"] is False
    again = await stage.ask("PATCH", "/v1/accounts/paper-1", {"enabled": False})
    assert again.json()["generation"] == changed.json()["generation"]
    assert (await stage.ask("DELETE", "/v1/accounts/paper-1")).status_code == 204
    await stage.refused(404, "unknown_account", "GET", "/v1/accounts/paper-1")


async def test_an_account_in_use_stays(stage: Stage) -> None:
    await stage.trading()
    await stage.fed()
    await stage.make("/v1/orders", order_body())
    said = await stage.refused(409, "account_in_use", "DELETE", "/v1/accounts/paper-1")
    assert "open orders" in said["detail"]
    await stage.ask("POST", "/v1/accounts/paper-1/cancel-all")
    await stage.make("/v1/algos", algo_body())
    await stage.refused(409, "account_in_use", "DELETE", "/v1/accounts/paper-1")


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"connector": "nobody"}, "unknown_broker", "connector"),
        ({"user": "nobody"}, "unknown_user", "user"),
        ({"id": "Bad Id"}, "bad_input", "id"),
        ({"settings": {"colour": "red"}}, "bad_input", "settings.colour"),
        ({"settings": {"cash": "-5"}}, "bad_input", "settings.cash"),
        ({"settings": {"fill_ratio": "2"}}, "bad_input", "settings.fill_ratio"),
        ({"settings": {"orders_per_s": 0}}, "bad_input", "settings.orders_per_s"),
        ({"settings": {"late_arrival_s": "soon"}}, "bad_input", "settings.late_arrival_s"),
        ({"settings": {"feed": "nothing"}}, "unknown_feed", "settings.feed"),
    ],
)
async def test_a_wrong_account_is_refused_by_field(
    stage: Stage, changes: dict[str, object], code: str, field: str
) -> None:
    body = {"id": "paper-1", "user": "admin", "connector": "paper", **changes}
    said = await stage.refused(422, code, "POST", "/v1/accounts", body)
    assert said["field"] == field
    assert (await stage.get("/v1/accounts"))["items"] == []

from __future__ import annotations

import logging

import pytest

from api import security
from api.security import ROLES, Doorkeeper, Right
from storage.first_run import ROLES as FIRST_ROLES
from tests.api.playing import Stage, algo_body, order_body


async def test_both_headers_open_the_door(stage: Stage) -> None:
    for headers in ({"Authorization": f"Bearer {stage.operator_key}"}, {"X-API-Key": stage.operator_key}):
        answer = await stage.http.get("/v1/me", headers=headers)
        assert answer.json()["user"] == "admin"
        assert set(answer.json()["rights"]) == set(Right)


@pytest.mark.parametrize("key", ["", "qd_wrong", "nonsense"])
async def test_without_a_valid_key_nothing_is_answered(stage: Stage, key: str) -> None:
    for path in ("/v1/me", "/v1/orders", "/v1/cluster", "/v1/feeds", "/v1/keys"):
        await stage.refused(401, "unauthorized", "GET", path, key=key)
    answer = await stage.http.get("/v1/me")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_every_route_but_the_watchers_asks_for_a_key(stage: Stage) -> None:
    for path, operations in stage.app.openapi()["paths"].items():
        for method in operations:
            answer = await stage.http.request(method, path.replace("{", "").replace("}", ""), json={})
            if path == "/v1/auth/login":
                continue  # it is the door
            open_to_all = path in ("/healthz", "/readyz", "/metrics")
            assert (answer.status_code == 401) is not open_to_all, (method, path, answer.status_code)


@pytest.mark.parametrize(
    ("role", "right", "method", "path", "body"),
    [
        ("viewer", Right.TRADE, "POST", "/v1/orders", order_body()),
        ("viewer", Right.TRADE, "DELETE", "/v1/orders/a/b", None),
        ("quant", Right.TRADE, "POST", "/v1/orders", order_body()),
        ("viewer", Right.ALGOS, "POST", "/v1/algos", algo_body()),
        ("viewer", Right.ALGOS, "POST", "/v1/algos/x/start", None),
        ("trader", Right.STRATEGIES, "POST", "/v1/strategies", {"name": "a", "source": "x"}),
        ("trader", Right.FEEDS, "DELETE", "/v1/feeds/x", None),
        ("quant", Right.OPERATE, "POST", "/v1/users", {"id": "x", "roles": ["viewer"]}),
        ("trader", Right.OPERATE, "PUT", "/v1/risk/limits", {"scope": "cluster", "kind": "position", "value": "1"}),
        ("trader", Right.OPERATE, "PATCH", "/v1/accounts/x", {"enabled": True}),
    ],
)
async def test_a_role_goes_no_further_than_its_rights(
    stage: Stage, role: str, right: Right, method: str, path: str, body: object
) -> None:
    assert right not in ROLES[role]
    said = await stage.refused(403, "forbidden", method, path, body, key=await stage.person("p", role))
    assert role in said["detail"]


def test_the_first_user_has_every_role() -> None:
    assert set(FIRST_ROLES) == set(ROLES)


async def test_others_things_are_not_there(stage: Stage) -> None:
    await stage.trading("asha", "paper-1")
    other = await stage.person("bo", "trader", "quant")
    await stage.fed()
    await stage.make("/v1/algos", algo_body())
    await stage.make("/v1/orders", order_body())
    for method, path, code in (
        ("GET", "/v1/accounts/paper-1", "unknown_account"),
        ("GET", "/v1/algos/momo-1", "unknown_algo"),
        ("POST", "/v1/algos/momo-1/start", "unknown_algo"),
        ("DELETE", "/v1/algos/momo-1", "unknown_algo"),
        ("GET", "/v1/algos/momo-1/logs", "unknown_algo"),
        ("GET", "/v1/orders/paper-1/k-1", "unknown_account"),
        ("DELETE", "/v1/orders/paper-1/k-1", "unknown_account"),
        ("GET", "/v1/orders?account=paper-1", "unknown_account"),
        ("GET", "/v1/positions?account=paper-1", "unknown_account"),
        ("POST", "/v1/accounts/paper-1/cancel-all", "unknown_account"),
        ("GET", "/v1/portfolio?user=asha", "unknown_user"),
        ("GET", "/v1/users/asha", "unknown_user"),
    ):
        await stage.refused(404, code, method, path, key=other)
    said = await stage.refused(422, "unknown_account", "POST", "/v1/orders", order_body("k-2"), key=other)
    assert said["field"] == "account"
    for path in ("/v1/accounts", "/v1/algos", "/v1/orders", "/v1/fills", "/v1/positions", "/v1/breaks"):
        assert (await stage.get(path, key=other))["items"] == []
    assert [user["id"] for user in (await stage.get("/v1/users", key=other))["items"]] == ["bo"]


async def test_a_key_is_shown_once_and_dies_when_it_is_revoked(stage: Stage) -> None:
    await stage.person("asha", "trader", "viewer")
    made = await stage.make("/v1/keys", {"user": "asha", "roles": ["viewer"], "label": "screen"})
    assert (await stage.get("/v1/me", key=made["key"]))["roles"] == ["viewer"]
    listed = await stage.ask("GET", "/v1/keys")
    assert made["key"] not in listed.text
    assert made["id"] in listed.text
    assert (await stage.ask("DELETE", f"/v1/keys/{made['id']}")).status_code == 204
    await stage.refused(401, "unauthorized", "GET", "/v1/me", key=made["key"])


async def test_a_key_revoked_elsewhere_dies_within_the_cache_time(stage: Stage) -> None:
    now = [0.0]
    door = Doorkeeper(stage.services.keys, stage.services.desired, clock=lambda: now[0])
    caller = await door.caller(stage.operator_key)
    await stage.services.keys.revoke(caller.key_id, "test")
    now[0] = security.KEY_CACHE_S
    assert await door.caller(stage.operator_key) == caller
    now[0] = security.KEY_CACHE_S + 0.1
    with pytest.raises(security.ProblemError, match="revoked"):
        await door.caller(stage.operator_key)


async def test_a_role_taken_from_the_user_is_gone_from_the_keys(stage: Stage) -> None:
    key = await stage.person("asha", "trader", "viewer")
    await stage.services.desired.update_user("asha", {"roles": ["viewer"]}, "test")  # type: ignore[arg-type]
    assert (await stage.get("/v1/me", key=key))["roles"] == ["viewer"]


async def test_nobody_makes_keys_beyond_their_own_roles(stage: Stage) -> None:
    key = await stage.person("asha", "trader")
    await stage.refused(403, "forbidden", "POST", "/v1/keys", {"roles": ["operator"]}, key=key)
    await stage.refused(422, "unknown_user", "POST", "/v1/keys", {"user": "admin"}, key=key)
    assert (await stage.make("/v1/keys", {}, key=key))["roles"] == ["trader"]
    await stage.refused(422, "bad_input", "POST", "/v1/keys", {"roles": ["king"]})
    await stage.refused(422, "bad_input", "POST", "/v1/keys", {"expires_at": "2020-01-01T00:00:00Z"})


async def test_keys_never_reach_the_logs(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        made = await stage.make("/v1/keys", {"label": "x"})
        await stage.ask("GET", "/v1/me", key=made["key"])
        await stage.ask("GET", "/v1/me", key="qd_wrong_key_of_somebody")
        await stage.ask("POST", "/v1/users", {"id": made["key"], "roles": []})
    assert caplog.records
    for secret in (made["key"], stage.operator_key, "qd_wrong_key_of_somebody"):
        assert secret not in caplog.text

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.api.playing import BTC, ETH, Stage, order_body
from trading.errors import NotReady, Unreachable
from trading.orders import PlaceOrder


@pytest.fixture
async def key(stage: Stage) -> str:
    return await stage.trading()


async def test_an_order_is_placed_changed_cancelled_and_told(stage: Stage, key: str) -> None:
    placed = await stage.make("/v1/orders", order_body(), key=key)
    assert (placed["state"], placed["quantity"], placed["limit_price"]) == ("pending", "0.010", "60000.0")
    changed = await stage.ask("PATCH", "/v1/orders/paper-1/k-1", {"limit_price": "60001.0"}, key=key)
    assert changed.status_code == 200
    method, (change,) = stage.played["asha"].calls[-1]
    assert (method, change.limit_price, change.quantity) == ("modify", Decimal("60001.0"), None)
    cancelled = await stage.ask("DELETE", "/v1/orders/paper-1/k-1", key=key)
    assert cancelled.json()["state"] == "cancelled"
    await stage.refused(409, "order_is_final", "DELETE", "/v1/orders/paper-1/k-1", key=key)
    told = await stage.get("/v1/orders/paper-1/k-1", key=key)
    assert [event["kind"] for event in told["events"]] == ["pending", "modify_requested", "cancelled"]
    assert all(event["cause"].startswith("api/asha/") for event in told["events"])
    audit = await stage.services.desired.audit_of("paper-1/k-1")
    assert [(e.actor, e.action) for e in audit] == [
        ("asha", "cancel_order"),
        ("asha", "modify_order"),
        ("asha", "place_order"),
    ]


async def test_a_trailing_stop_is_placed_shown_and_changed(stage: Stage, key: str) -> None:
    body = order_body() | {"type": "trailing_stop", "trail_percent": "1.5"}
    made = await stage.make("/v1/orders", {k: v for k, v in body.items() if k != "limit_price"}, key=key)
    assert (made["type"], made["trail_percent"], made["trail_price"]) == ("trailing_stop", "1.5", None)
    (intent,) = stage.played["asha"].calls[-1][1][0]
    assert intent.trail_percent == Decimal("1.5")
    await stage.ask("PATCH", "/v1/orders/paper-1/k-1", {"trail_percent": "2"}, key=key)
    assert stage.played["asha"].calls[-1][1][0].trail_percent == 2


async def test_a_change_of_an_order_that_has_moved_meanwhile_is_refused(stage: Stage, key: str) -> None:
    placed = await stage.make("/v1/orders", order_body(), key=key)
    path, seen = "/v1/orders/paper-1/k-1", placed["updated_at"]
    first = await stage.ask("PATCH", path, {"limit_price": "60001.0", "seen": seen}, key=key)
    assert first.status_code == 200
    await stage.refused(409, "order_moved", "PATCH", path, {"limit_price": "60002.0", "seen": seen}, key=key)
    now = first.json()["updated_at"]
    assert (await stage.ask("PATCH", path, {"limit_price": "60002.0", "seen": now}, key=key)).status_code == 200
    told = await stage.get(path, key=key)
    assert [event["kind"] for event in told["events"]] == ["pending", "modify_requested", "modify_requested"]


async def test_the_same_key_gives_the_same_order_again(stage: Stage, key: str) -> None:
    first = await stage.ask("POST", "/v1/orders", order_body(), key=key)
    again = await stage.ask("POST", "/v1/orders", order_body(), key=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert first.headers["location"] == "/v1/orders/paper-1/k-1"
    assert len((await stage.get("/v1/orders", key=key))["items"]) == 1


async def test_without_a_key_one_is_made(stage: Stage, key: str) -> None:
    one, two = [await stage.make("/v1/orders", order_body(None), key=key) for _ in range(2)]
    assert one["client_order_id"].startswith("api-")
    assert one["client_order_id"] != two["client_order_id"]


async def test_a_repeat_asks_for_exactly_what_the_first_did(stage: Stage, key: str) -> None:
    for _ in range(2):
        await stage.ask("POST", "/v1/orders", order_body(), key=key)
    (_, first), (_, second) = stage.played["asha"].calls
    assert first == second
    assert isinstance(first[0][0], PlaceOrder)


async def test_a_denied_order_lists_every_violation_and_shows_itself(stage: Stage, key: str) -> None:
    await stage.trading("bo", "paper-2")
    await stage.make("/v1/orders", order_body("warm"), key=key)
    stage.played["asha"].denies = ["order_quantity 1 is above the limit 0.5 of cluster", "position too large"]
    said = await stage.refused(422, "risk_denied", "POST", "/v1/orders", order_body(), key=key)
    assert said["violations"] == ["order_quantity 1 is above the limit 0.5 of cluster", "position too large"]
    assert (said["order"]["state"], said["order"]["client_order_id"]) == ("denied", "k-1")
    again = await stage.refused(422, "risk_denied", "POST", "/v1/orders", order_body(), key=key)
    assert again["order"] == said["order"]
    (listed,) = (await stage.get("/v1/orders?state=denied", key=key))["items"]
    assert listed == said["order"]


async def test_an_unclear_outcome_says_where_to_ask(stage: Stage, key: str) -> None:
    stage.services.session("asha")  # type: ignore[arg-type]
    session = stage.played["asha"]
    for method, path, body in (
        ("POST", "/v1/orders", order_body("k:1")),
        ("DELETE", "/v1/orders/paper-1/k:1", None),
        ("PATCH", "/v1/orders/paper-1/k:1", {"quantity": "1"}),
    ):
        session.raises = Unreachable("session/asha", "no answer within 5 s")
        said = await stage.refused(504, "unreachable", method, path, body, key=key)
        assert said["ask"] == "/v1/orders/paper-1/k%3A1"
        assert said["client_order_id"] == "k:1"
        assert said["ask"] in said["detail"]
    session.raises = NotReady("session/asha is not running now", 1.0)
    answer = await stage.ask("POST", "/v1/orders", order_body("k:1"), key=key)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    await stage.make("/v1/orders", order_body("k:1"), key=key)
    assert (await stage.get(said["ask"], key=key))["client_order_id"] == "k:1"


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"quantity": "0"}, "bad_input", "quantity"),
        ({"quantity": "NaN"}, "bad_input", "quantity"),
        ({"quantity": "0.0001"}, "bad_input", "quantity"),
        ({"quantity": 0.5}, "bad_input", "quantity"),
        ({"limit_price": "Infinity"}, "bad_input", "limit_price"),
        ({"side": "hold"}, "bad_input", "side"),
        ({"type": "magic"}, "bad_input", "type"),
        ({"instrument": "btc"}, "bad_input", "instrument"),
        ({"instrument": "BINANCE:NOPE"}, "unknown_instrument", "instrument"),
        ({"account": "nothing"}, "unknown_account", "account"),
        ({"client_order_id": "a b"}, "bad_input", "client_order_id"),
        ({"client_order_id": ""}, "bad_input", "client_order_id"),
        ({"client_order_id": "k" * 49}, "bad_input", "client_order_id"),
        ({"colour": "red"}, "bad_input", "colour"),
    ],
)
async def test_a_wrong_order_is_refused_by_field(
    stage: Stage, key: str, changes: dict[str, Any], code: str, field: str
) -> None:
    said = await stage.refused(422, code, "POST", "/v1/orders", {**order_body(), **changes}, key=key)
    assert said["field"] == field
    assert (await stage.get("/v1/orders", key=key))["items"] == []


async def test_orders_are_filtered_and_paged(stage: Stage, key: str) -> None:
    for n in range(5):
        await stage.make("/v1/orders", order_body(f"k-{n}", instrument=ETH if n % 2 else BTC), key=key)
    await stage.ask("DELETE", "/v1/orders/paper-1/k-0", key=key)

    async def keys(query: str) -> list[str]:
        return [order["client_order_id"] for order in (await stage.get(f"/v1/orders?{query}", key=key))["items"]]

    assert await keys("account=paper-1") == ["k-4", "k-3", "k-2", "k-1", "k-0"]
    assert await keys(f"instrument={ETH}") == ["k-3", "k-1"]
    assert await keys("state=cancelled") == ["k-0"]
    assert await keys("state=cancelled&state=pending&limit=2") == ["k-4", "k-3"]
    first = await stage.get("/v1/orders?limit=3", key=key)
    second = await stage.get(f"/v1/orders?limit=3&cursor={first['next']}", key=key)
    assert [o["client_order_id"] for o in first["items"] + second["items"]] == ["k-4", "k-3", "k-2", "k-1", "k-0"]
    assert second["next"] is None
    middle = first["items"][2]["created_at"]
    for escaped in (middle, middle.replace("+", "%2B")):
        assert await keys(f"since={escaped}") == ["k-4", "k-3", "k-2"]
        assert await keys(f"until={escaped}") == ["k-1", "k-0"]
    for query in ("since=yesterday", "cursor=***", "state=odd", "instrument=btc", "limit=0"):
        await stage.refused(422, "bad_input", "GET", f"/v1/orders?{query}", key=key)


async def test_an_operator_trades_for_others_and_the_audit_says_who(stage: Stage, key: str) -> None:
    await stage.make("/v1/orders", order_body())
    assert [call for call, _ in stage.played["asha"].calls] == ["place"]
    (entry,) = await stage.services.desired.audit_of("paper-1/k-1")
    assert entry.actor == "admin"


async def test_everything_of_an_account_is_cancelled(stage: Stage, key: str) -> None:
    for n in range(3):
        await stage.make("/v1/orders", order_body(f"k-{n}"), key=key)
    answer = await stage.ask("POST", "/v1/accounts/paper-1/cancel-all", key=key)
    assert (answer.json()["cancelled"], answer.json()["refused"]) == (3, [])
    assert {order["state"] for order in answer.json()["orders"]} == {"cancelled"}
    assert (await stage.ask("POST", "/v1/accounts/paper-1/cancel-all", key=key)).json()["cancelled"] == 0


async def test_unknown_orders_are_not_found(stage: Stage, key: str) -> None:
    for method in ("GET", "DELETE"):
        await stage.refused(404, "unknown_order", method, "/v1/orders/paper-1/nothing", key=key)
    await stage.refused(404, "unknown_order", "PATCH", "/v1/orders/paper-1/nothing", {"quantity": "1"}, key=key)

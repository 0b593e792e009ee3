"""Commands to algos over REST: pause, stop as chosen, move, live parameters, batches; and their history."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from api.routes.algo_commands import restart
from api.security import Caller
from storage.records import NodeRecord
from tests.api.playing import BTC, Stage, algo_body, order_body
from trading.errors import Conflict, NotReady, UnknownThing
from trading.ids import AccountId as Account
from trading.ids import AlgoId, Epoch, Nanos, NodeName, UserId, client_order_id
from trading.orders import OrderType, PlaceOrder, Side

MOMO = AlgoId("momo-1")
MAKER = {"strategy": "market-maker", "parameters": {"notional": 500}}


@pytest.fixture
async def key(stage: Stage) -> str:
    key = await stage.trading()
    await stage.fed()
    for name, labels in (("edge", {"region": "eu"}), ("home", {"accounts": "other"})):
        node = NodeRecord(name=NodeName(name), labels=labels, registered_at=Nanos(1))
        await stage.services.desired.create_node(node, "test")
    return key


async def post(stage: Stage, path: str, body: Any = None, *, key: str | None = None, status: int = 200) -> Any:
    answer = await stage.ask("POST", path, body, key=key)
    assert answer.status_code == status, answer.text
    return answer.json()


async def rests(stage: Stage, number: int, side: Side = Side.BUY, **changes: Any) -> str:
    """An order of the algo that is open."""
    played = stage.services.session(UserId("asha"))
    key = client_order_id(f"momo-1-{number}")
    intent = PlaceOrder(
        account=Account("paper-1"),
        client_order_id=key,
        instrument=BTC,
        side=side,
        type=OrderType.LIMIT,
        quantity=Decimal("0.010"),
        limit_price=Decimal("60000.0"),
        algo=MOMO,
        created_at=Nanos(number),
        **changes,
    )
    await played.call("place", [intent])
    return str(key)


async def test_a_pause_says_by_whom_and_takes_back_entries_if_asked(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    entry = await rests(stage, 1)
    exit_ = await rests(stage, 2, Side.SELL, reduce_only=True)
    await stage.make("/v1/orders", order_body("by-hand"), key=key)
    said = await post(stage, "/v1/algos/momo-1/pause", {"because": "wrong", "cancel_open": True}, key=key)
    assert (said["paused_by"], said["paused_because"], said["cancelled"]) == ("asha", "wrong", [entry])
    assert said["want"] == "running"
    assert said["paused_at"].startswith("20")
    states = {each["client_order_id"]: each["state"] for each in (await stage.get("/v1/orders", key=key))["items"]}
    assert (states[entry], states[exit_]) == ("cancelled", "pending")
    assert states["by-hand"] == "pending"
    again = await post(stage, "/v1/algos/momo-1/pause")
    assert (again["paused_by"], again["generation"]) == ("asha", said["generation"])
    (limit,) = (await stage.get("/v1/risk/limits", key=key))["items"]
    assert (limit["scope"], limit["kind"], limit["changed_by"]) == ("algo:momo-1", "paused", "asha")
    for method, path in (("PUT", "/v1/risk/limits"), ("DELETE", "/v1/risk/limits?scope=algo:momo-1&kind=paused")):
        body = {"scope": "algo:momo-1", "kind": "paused", "value": "0"} if method == "PUT" else None
        assert (await stage.refused(422, "bad_input", method, path, body))["field"] == "kind"
    resumed = await post(stage, "/v1/algos/momo-1/resume", key=key)
    assert (resumed["paused_by"], resumed["paused_at"]) == ("", None)
    assert (await stage.get("/v1/risk/limits", key=key))["items"] == []


async def test_a_pause_tells_which_orders_its_session_would_not_take_back(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    kept, ended, taken = [await rests(stage, number) for number in (1, 2, 3)]
    refuses = stage.played["asha"].refuses
    refuses[kept] = UnknownThing("order", kept, "in account paper-1")
    refuses[ended] = Conflict("order_is_final", f"order {ended} is filled; there is nothing to cancel")
    body = {"cancel_open": True}
    said = await post(stage, "/v1/algos/momo-1/pause", body, key=key)
    assert said["cancelled"] == [taken]
    ((refused),) = said["refused"]
    assert (refused["client_order_id"], refused["code"]) == (kept, "unknown_order")
    assert kept in refused["detail"]
    (line,) = (await stage.get("/v1/audit?action=cancel_entries"))["items"]
    assert line["after"] == {"orders": [taken], "refused": {kept: refused["detail"]}}
    batch = {"action": "pause", "ids": ["momo-1"], **body}
    said = await post(stage, "/v1/algos/batch", batch, key=key, status=207)
    (result,) = said["results"]
    assert (result["cancelled"], result["left"]) == ([], [refused])
    assert result["algo"]["paused_by"] == "asha"


async def test_a_stop_tells_what_is_left_and_leaves_orders_if_asked(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    assert (await stage.get("/v1/algos/momo-1", key=key))["stop"] is None
    await rests(stage, 1)
    said = await post(stage, "/v1/algos/momo-1/stop", {"orders": "leave"}, key=key)
    assert (said["want"], said["stop_orders"], said["stop"]["open_orders"]) == ("stopped", "leave", 1)
    await stage.services.desired.set_algo_state(MOMO, Epoch(0), "stopped", "")
    assert (await stage.get("/v1/algos/momo-1", key=key))["stop"]["done"] is True
    usual = await post(stage, "/v1/algos/momo-1/stop", key=key)
    assert (usual["stop_orders"], usual["stop"]["done"]) == ("cancel", False)
    assert usual["stop"]["waiting"] == ["1 orders are open"]
    both = {"orders": "leave", "position": "flatten"}
    assert (await stage.refused(422, "bad_input", "POST", "/v1/algos/momo-1/stop", both, key=key))["field"] == "orders"
    await stage.refused(422, "bad_input", "POST", "/v1/algos/momo-1/stop", {"orders": "keep"}, key=key)


async def test_a_stop_that_flattens_tells_the_session_once(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    await rests(stage, 1)
    wanted = {"position": "flatten"}
    answers = await asyncio.gather(*(post(stage, "/v1/algos/momo-1/stop", wanted, key=key) for _ in range(3)))
    assert {answer["stop_position"] for answer in answers} == {"flatten"}
    kills = [args for method, args in stage.played["asha"].calls if method == "kill"]
    assert [(kill.scope, kill.flatten) for (kill,) in kills] == [("algo:momo-1", True)]
    assert (await stage.get("/v1/algos/momo-1", key=key))["stop"]["open_orders"] == 0
    assert await stage.get("/v1/risk/kills") == [], "nobody threw the switch"
    await stage.refused(409, "kill_of_stop", "POST", f"/v1/risk/kills/{kills[0][0].id}/lift")
    started = await post(stage, "/v1/algos/momo-1/start", key=key)
    assert (started["want"], started["stop_position"]) == ("running", "keep")
    assert (await stage.get("/v1/risk/limits"))["items"] == []


async def test_only_updatable_parameters_and_labels_spare_the_restart(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(**MAKER, start=True), key=key)

    async def patch(**body: Any) -> tuple[str, int, int]:
        answer = await stage.ask("PATCH", "/v1/algos/momo-1", body, key=key)
        assert answer.status_code == 200, answer.text
        record = await stage.services.desired.algo(MOMO)
        return answer.json()["applied"], record.generation, record.restart_generation

    assert await patch(parameters={"notional": 600}) == ("live", 2, 1)
    assert await patch(parameters={"notional": 600}) == ("unchanged", 2, 1)
    assert await patch(labels={"desk": "alpha"}, parameters={"notional": 700}) == ("live", 3, 1)
    assert await patch(parameters={"notional": 700, "allow_short": True}) == ("live", 4, 1), "as it was by default"
    assert await patch(parameters={"notional": 700, "allow_short": False}) == ("restart", 5, 5)
    assert await patch(node="edge", labels={}) == ("restart", 6, 6)
    wrong = {"parameters": {"notional": -1}}
    assert (await stage.refused(422, "bad_input", "PATCH", "/v1/algos/momo-1", wrong, key=key))["field"] == (
        "parameters.notional"
    )
    await post(stage, "/v1/algos/momo-1/stop", key=key)
    assert (await patch(parameters={"notional": 800}))[0] == "stored"
    stale = {"parameters": {"notional": 900}, "generation": 2}
    said = await stage.refused(409, "generation_changed", "PATCH", "/v1/algos/momo-1", stale, key=key)
    assert said["present"]["parameters"] == {"notional": 800}


async def test_another_placement_restarts_a_running_algo_and_waits_for_the_start_of_another(
    stage: Stage, key: str
) -> None:
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    wanted = {"selector": "region=eu", "memory_mb": 1024}

    async def patch(**body: Any) -> Any:
        answer = await stage.ask("PATCH", "/v1/algos/momo-1", body, key=key)
        assert answer.status_code == 200, answer.text
        return answer.json()

    moved = await patch(placement=wanted)
    assert (moved["applied"], moved["placement"]["selector"], moved["placement"]["cpus"]) == (
        "restart",
        "region=eu",
        0.05,
    )
    assert (await patch(placement=wanted))["applied"] == "unchanged"
    await post(stage, "/v1/algos/momo-1/stop", key=key)
    assert (await patch(placement={**wanted, "apart": "require"}))["applied"] == "stored"
    for field, value in (("selector", "a b"), ("memory_mb", 1), ("cpus", 0), ("cpu_limit", 999)):
        wrong = {"placement": {**wanted, field: value}}
        assert (await stage.refused(422, "bad_input", "PATCH", "/v1/algos/momo-1", wrong, key=key))["field"] == field
    told = (await stage.get("/v1/audit?action=update_algo&limit=100"))["items"]
    selectors = [each["after"]["placement"]["selector"] for each in told if "placement" in (each["after"] or {})]
    assert "region=eu" in selectors
    assert {each["actor"] for each in told} == {"asha"}


@pytest.mark.parametrize(("labels", "match"), [({"user": "x"}, "by itself"), ({"a b": "x"}, "cannot be a label")])
async def test_a_wrong_label_is_refused(stage: Stage, key: str, labels: dict[str, str], match: str) -> None:
    said = await stage.refused(422, "bad_input", "POST", "/v1/algos", algo_body(labels=labels), key=key)
    assert (said["field"], match in said["detail"]) == ("labels", True)


async def test_of_two_who_move_an_algo_one_wins_and_the_other_sees_where_it_is(stage: Stage, key: str) -> None:
    made = await stage.make("/v1/algos", algo_body(start=True), key=key)
    await stage.services.desired.create_node(
        NodeRecord(name=NodeName("attic"), labels={}, registered_at=Nanos(1)), "test"
    )
    wanted = [{"node": node, "generation": made["generation"]} for node in ("edge", "attic")]
    answers = await asyncio.gather(*(stage.ask("POST", "/v1/algos/momo-1/move", body, key=key) for body in wanted))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    won = next(answer.json() for answer in answers if answer.status_code == 200)
    lost = next(answer.json() for answer in answers if answer.status_code == 409)
    assert won["applied"] == "restart"
    assert lost["code"] == "generation_changed"
    assert (lost["present"]["node"], lost["present"]["generation"]) == (won["node"], won["generation"])
    same = await post(stage, "/v1/algos/momo-1/move", {"node": won["node"]}, key=key)
    assert (same["applied"], same["generation"]) == ("unchanged", won["generation"])


async def test_a_restart_does_not_undo_a_stop_that_somebody_asked_for_meanwhile(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    seen = await stage.services.desired.algo(MOMO)
    await post(stage, "/v1/algos/momo-1/stop", {"position": "flatten"})
    caller = Caller(user=UserId("asha"), roles=("trader",), key_id="k")
    with pytest.raises(Conflict, match="at generation"):
        await restart(stage.services, caller, seen)
    assert (await stage.services.desired.algo(MOMO)).want == "stopped"


async def test_an_algo_is_not_moved_to_where_it_could_not_run(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    said = await stage.refused(409, "node_cannot_take", "POST", "/v1/algos/momo-1/move", {"node": "home"}, key=key)
    assert "kept for the accounts other" in said["detail"]
    view = {"at": 1, "epoch": 1, "nodes": ["home"], "actors": [], "missing": []}
    await stage.services.hot.put("cluster", view, 60)
    said = await stage.refused(409, "node_cannot_take", "POST", "/v1/algos/momo-1/move", {"node": "edge"}, key=key)
    assert "is not here now" in said["detail"]
    view = {**view, "nodes": ["edge", "home"], "unfit": {"edge": "it runs another build"}}
    await stage.services.hot.put("cluster", view, 60)
    said = await stage.refused(409, "node_cannot_take", "POST", "/v1/algos/momo-1/move", {"node": "edge"}, key=key)
    assert "is not used: it runs another build" in said["detail"]
    full = {"name": "node/edge", "facts": {"cpus": 4.0, "memory_for_algos_mb": 100}}
    await stage.services.hot.put("cluster", {**view, "unfit": {}, "actors": [full]}, 60)
    said = await stage.refused(409, "node_cannot_take", "POST", "/v1/algos/momo-1/move", {"node": "edge"}, key=key)
    assert "has 100 MiB left, 512 are needed" in said["detail"]
    assert (await stage.services.desired.algo(MOMO)).node == ""
    forced = await post(stage, "/v1/algos/momo-1/move", {"node": "edge", "force": True}, key=key)
    assert forced["node"] == "edge"
    assert (await stage.refused(422, "unknown_node", "POST", "/v1/algos/momo-1/move", {"node": "x"}))["field"] == "node"


async def test_a_batch_tells_the_outcome_of_each(stage: Stage, key: str) -> None:
    for name, desk in (("a-1", "alpha"), ("a-2", "alpha"), ("b-1", "beta")):
        await stage.make("/v1/algos", algo_body(name, labels={"desk": desk}), key=key)
    other = await stage.trading("bo", "paper-2")
    await stage.make("/v1/algos", algo_body("c-1", account="paper-2", labels={"desk": "alpha"}), key=other)

    async def batch(**body: Any) -> dict[str, str]:
        said = await post(stage, "/v1/algos/batch", body, key=key, status=207)
        assert said["done"] + said["refused"] == len(said["results"])
        return {
            each["id"]: each["problem"]["code"] if each["problem"] else each["algo"]["want"] for each in said["results"]
        }

    assert await batch(action="start", selector="desk=alpha,strategy=ma-cross") == {"a-1": "running", "a-2": "running"}
    assert await batch(action="stop", ids=["a-1", "c-1", "none"]) == {
        "a-1": "stopped",
        "c-1": "unknown_algo",
        "none": "unknown_algo",
    }
    assert await batch(action="move", ids=["a-1", "a-2"], node="home") == dict.fromkeys(
        ("a-1", "a-2"), "node_cannot_take"
    )
    assert await batch(action="pause", selector="want=running", because="lunch") == {"a-2": "running"}
    assert (await stage.get("/v1/algos/a-2", key=key))["paused_because"] == "lunch"
    assert await batch(action="resume", selector="desk in (alpha, beta)") == {
        "a-1": "stopped",
        "a-2": "running",
        "b-1": "stopped",
    }
    assert await batch(action="stop", selector="desk=gamma") == {}
    everybody = await post(stage, "/v1/algos/batch", {"action": "start", "selector": "desk=alpha"}, status=207)
    assert [each["id"] for each in everybody["results"]] == ["a-1", "a-2", "c-1"]
    found = await stage.get("/v1/algos?selector=desk%3Dbeta", key=key)
    assert [each["id"] for each in found["items"]] == ["b-1"]


async def test_a_batch_tells_sessions_what_to_close_and_to_cancel(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    entry = await rests(stage, 1)
    body = {"action": "pause", "ids": ["momo-1"], "cancel_open": True}
    said = await post(stage, "/v1/algos/batch", body, key=key, status=207)
    assert (said["holds"], said["done"]) == (False, 1), "no central risk runs here"
    assert (await stage.get(f"/v1/orders/paper-1/{entry}", key=key))["state"] == "cancelled"
    await rests(stage, 2)
    stage.played["asha"].raises = NotReady("the session is loading", 1.0)
    said = await post(stage, "/v1/algos/batch", body, key=key, status=207)
    assert [(each["status"], each["problem"]["code"]) for each in said["results"]] == [(503, "not_ready")]
    body = {"action": "stop", "ids": ["momo-1"], "position": "flatten"}
    said = await post(stage, "/v1/algos/batch", body, key=key, status=207)
    assert (said["done"], said["holds"]) == (1, None)
    assert [method for method, _ in stage.played["asha"].calls].count("kill") == 1


@pytest.mark.parametrize(
    "body",
    [
        {"action": "start"},
        {"action": "start", "ids": ["a"], "selector": "desk=alpha"},
        {"action": "start", "ids": []},
        {"action": "start", "selector": " "},
        {"action": "start", "selector": "desk==!"},
        {"action": "move", "ids": ["a"]},
        {"action": "start", "ids": ["a"], "node": "edge"},
        {"action": "start", "ids": ["a"], "position": "flatten"},
        {"action": "explode", "ids": ["a"]},
    ],
)
async def test_a_batch_that_makes_no_sense_is_refused_whole(stage: Stage, key: str, body: dict[str, Any]) -> None:
    await stage.refused(422, "bad_input", "POST", "/v1/algos/batch", body, key=key)


async def test_why_it_does_not_run_has_an_answer_also_after_it_is_gone(stage: Stage, key: str) -> None:
    await stage.make("/v1/algos", algo_body(start=True), key=key)
    log = stage.services.algo_log
    await log.append(MOMO, Epoch(1), [(Nanos(1_900_000_000 * 10**9), "warning", "odd")], [{"n": 1}])
    await post(stage, "/v1/algos/momo-1/pause", key=key)
    await post(stage, "/v1/algos/momo-1/stop")
    await stage.services.desired.set_algo_state(MOMO, Epoch(0), "stopped", "")
    other = await stage.person("bo", "trader")
    await stage.refused(404, "unknown_algo", "GET", "/v1/algos/momo-1/events", key=other)
    assert (await stage.ask("DELETE", "/v1/algos/momo-1", key=key)).status_code == 204
    events = (await stage.get("/v1/algos/momo-1/events", key=key))["items"]
    assert [event["text"] for event in events] == [
        "it was deleted (by asha)",
        "stopped (by supervisor)",
        "it was asked to be stopped (by admin)",
        "it was paused (by asha)",
        "it was created (by asha)",
    ]
    page = await stage.get("/v1/algos/momo-1/events?limit=2", key=key)
    following = await stage.get(f"/v1/algos/momo-1/events?limit=2&cursor={page['next']}", key=key)
    assert [each["number"] for each in page["items"] + following["items"]] == [each["number"] for each in events[:4]]
    for who in (key, None):
        (line,) = (await stage.get("/v1/algos/momo-1/logs?level=warning&text=ODD", key=who))["items"]
        assert (line["text"], line["fields"]) == ("odd", {"n": 1})
    assert (await stage.get("/v1/algos/momo-1/logs?since=2100-01-01T00:00:00Z", key=key))["items"] == []
    for path in ("logs", "events"):
        await stage.refused(404, "unknown_algo", "GET", f"/v1/algos/momo-1/{path}", key=other)
    await stage.refused(404, "unknown_algo", "GET", "/v1/algos/never/events")

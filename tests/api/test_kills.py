"""The kill switch, kinds of limits, levels and maxima over HTTP."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import httpx
import pytest

from storage.database import dicts
from storage.days import Days
from storage.leases import Leases
from storage.records import MaximaRecord
from tests.api.playing import BTC, Stage, algo_body
from trading.errors import NotReady, Unreachable
from trading.ids import AccountId, CauseId, Nanos, UserId
from trading.limits import KINDS
from trading.orders import CancelOrder

_DAY = 86_400_000_000_000


@pytest.fixture
async def key(stage: Stage) -> str:
    return await stage.trading()


async def order(stage: Stage, key: str, account: str = "paper-1") -> dict[str, Any]:
    body = {
        "account": account,
        "instrument": BTC,
        "side": "buy",
        "type": "limit",
        "quantity": "0.5",
        "limit_price": "100",
        "time_in_force": "gtc",
    }
    made: dict[str, Any] = await stage.make("/v1/orders", body, key=key)
    return made


async def test_a_kill_halts_stops_and_shows_what_it_did(stage: Stage, key: str) -> None:
    placed = [await order(stage, key) for _ in range(3)]
    answer = await stage.make("/v1/risk/kill?wait_s=0", {"scope": "account:paper-1", "reason": "too hot"}, key=key)
    assert (answer["done"], answer["cancelled"], answer["silent"], answer["waiting"]) == (True, 3, [], [])
    (account,) = answer["accounts"]
    assert {o["client_order_id"] for o in account["cancelled"]} == {o["client_order_id"] for o in placed}
    assert account["open_orders"] == 0
    limits = (await stage.get("/v1/risk/limits", key=key))["items"]
    assert [(each["scope"], each["kind"], each["value"]) for each in limits] == [("account:paper-1", "halted", "1")]
    again = await stage.get(f"/v1/risk/kills/{answer['id']}", key=key)
    assert {k: v for k, v in again.items() if k != "took_ms"} == {k: v for k, v in answer.items() if k != "took_ms"}
    lifted = await stage.ask("POST", f"/v1/risk/kills/{answer['id']}/lift", key=key)
    assert lifted.json()["lifted_by"] == "asha"
    assert (await stage.get("/v1/risk/limits", key=key))["items"] == []
    await stage.refused(409, "kill_is_lifted", "POST", f"/v1/risk/kills/{answer['id']}/lift", key=key)
    actions = [a.action for a in await stage.services.desired.audit_of("account:paper-1")]
    assert actions == ["lift_kill", "kill"]


async def test_a_silent_session_is_named_until_its_orders_are_gone(stage: Stage, key: str) -> None:
    await order(stage, key)
    stage.played["asha"].raises = Unreachable("session/asha", "no answer")
    answer = await stage.make("/v1/risk/kill?wait_s=0", {"scope": "user:asha", "reason": "x"})
    assert (answer["done"], answer["silent"], answer["waiting"]) == (False, ["asha"], ["paper-1: 1 open orders"])


async def test_what_a_part_of_a_position_is_left_to_is_named(stage: Stage, key: str) -> None:
    async with stage.services.database.connection() as connection:
        for account in ("paper-1", "paper-2"):
            await connection.execute("INSERT INTO positions VALUES (%s, %s, 1, -2, 10, 0, 0, 0, 1)", (account, BTC))
    body = {"scope": "user:asha", "flatten": True, "reason": "x"}
    stage.services.session(UserId("asha"))
    stage.played["asha"].raises = Unreachable("session/asha", "no answer")
    thrown = await stage.make("/v1/risk/kill?wait_s=0", body)
    assert thrown["waiting"] == ["paper-1: 1 positions"]
    await stage.ask("PATCH", "/v1/accounts/paper-1", {"enabled": False})
    off = await stage.get(f"/v1/risk/kills/{thrown['id']}")
    assert not off["done"]
    assert off["waiting"] == ["paper-1: 1 positions, which cannot be closed while it is disabled: enable it"]
    await stage.ask("PATCH", "/v1/accounts/paper-1", {"enabled": True})
    # A person's, who buys back by hand while it is in force.
    placed = (await order(stage, key))["client_order_id"]
    assert (await stage.get(f"/v1/risk/kills/{thrown['id']}"))["waiting"] == [
        "paper-1: 1 open orders",
        "paper-1: 1 positions",
        f"paper-1: of {BTC} a part is left to order {placed}, which is open",
    ]


async def test_what_others_take_back_while_a_kill_is_in_force_is_in_its_proof(stage: Stage, key: str) -> None:
    """The algos that it stops may be faster than the kill itself: what was open is shown, whoever asked it back."""
    session = stage.services.session(UserId("asha"))
    early, late = await order(stage, key), await order(stage, key)
    played = stage.played["asha"]
    played._at = time.time_ns()
    await stage.ask("DELETE", f"/v1/orders/paper-1/{early['client_order_id']}", key=key)
    played.raises = Unreachable("session/asha", "no answer")
    thrown = await stage.make("/v1/risk/kill?wait_s=0", {"scope": "user:asha", "reason": "x"})
    played._at = time.time_ns()
    stops = CauseId("algo/momo-1/1 stops")
    await session.call(
        "cancel", [CancelOrder(account=AccountId("paper-1"), client_order_id=late["client_order_id"], cause=stops)]
    )
    proof = await stage.get(f"/v1/risk/kills/{thrown['id']}")
    (account,) = proof["accounts"]
    assert [each["client_order_id"] for each in account["cancelled"]] == [late["client_order_id"]]
    assert (proof["cancelled"], proof["done"], account["cancelled"][0]["state"]) == (1, True, "cancelled")
    assert 0 < proof["cancels_asked_ms"] <= proof["took_ms"]
    # What is taken back once it is lifted is no work of its.
    await stage.ask("POST", f"/v1/risk/kills/{thrown['id']}/lift")
    played._at = time.time_ns()
    after = await order(stage, key)
    played._at = time.time_ns()
    await stage.ask("DELETE", f"/v1/orders/paper-1/{after['client_order_id']}", key=key)
    assert (await stage.get(f"/v1/risk/kills/{thrown['id']}"))["cancelled"] == 1


async def test_what_is_open_when_a_kill_is_thrown_is_that_of_its_scope(stage: Stage, key: str) -> None:
    await stage.trading("bo", "paper-2")
    await stage.make("/v1/accounts", {"id": "paper-3", "user": "asha", "connector": "paper"})
    keys = {}
    for account, user in (("paper-1", "asha"), ("paper-3", "asha"), ("paper-2", "bo")):
        keys[account] = (await order(stage, key if user == "asha" else stage.operator_key, account))["client_order_id"]
    ended = await order(stage, key)
    await stage.ask("DELETE", f"/v1/orders/paper-1/{ended['client_order_id']}", key=key)
    async with stage.services.database.connection() as connection:
        await connection.execute("UPDATE orders SET algo = 'momo-1' WHERE account = 'paper-3'")
        for scope, accounts in (
            ("cluster", {"paper-1", "paper-2", "paper-3"}),
            ("user:asha", {"paper-1", "paper-3"}),
            ("account:paper-2", {"paper-2"}),
            ("algo:momo-1", {"paper-3"}),
            ("user:nobody", set()),
        ):
            kill, _ = await stage.services.kills.throw(scope, False, "x", "admin")
            rows = await dicts(connection, "SELECT * FROM open_at_kill WHERE kill = %(id)s", {"id": kill.id})
            found = {(row["account"], row["client_order_id"]) for row in rows}
            assert found == {(each, keys[each]) for each in accounts}, scope


async def test_a_halt_set_by_hand_outlives_a_kill(stage: Stage, key: str) -> None:
    halt = {"scope": "cluster", "kind": "halted", "value": "2"}
    await stage.ask("PUT", "/v1/risk/limits", halt)
    first = await stage.make("/v1/risk/kill?wait_s=0", {"scope": "cluster", "reason": "x"})
    second = await stage.make("/v1/risk/kill?wait_s=0", {"scope": "cluster", "reason": "y"})
    for each in (first, second):
        await stage.ask("POST", f"/v1/risk/kills/{each['id']}/lift")
    (left,) = (await stage.get("/v1/risk/limits"))["items"]
    assert (left["kind"], left["value"], left["version"]) == ("halted", "2", 1)


async def test_the_halt_of_a_kill_is_lifted_by_releasing_the_kill_alone(stage: Stage, key: str) -> None:
    halt = {"scope": "account:paper-1", "kind": "halted"}
    query = "/v1/risk/limits?scope=account:paper-1&kind=halted"
    of_btc = {"instrument": BTC, "value": "1"}
    thrown = await stage.make("/v1/risk/kill?wait_s=0", {"scope": halt["scope"], "reason": "x"})
    way = f"POST /v1/risk/kills/{thrown['id']}/lift"
    for seen in ("", "&seen=1"):
        said = await stage.refused(409, "kill_in_force", "DELETE", query + seen)
        assert thrown["id"] in said["detail"]
        assert way in said["detail"]
    for value in (None, "0"):
        assert (
            way
            in (await stage.refused(409, "kill_in_force", "PUT", "/v1/risk/limits", halt | {"value": value}))["detail"]
        )
    assert [each["value"] for each in (await stage.get("/v1/risk/limits"))["items"]] == ["1"]
    # More may be halted, and less again; what the kill does not hold is lifted as ever.
    for value in ("2", "1"):
        assert (await stage.ask("PUT", "/v1/risk/limits", halt | {"value": value})).is_success
    for other in ({"scope": "user:asha", "value": "1"}, of_btc, {"scope": "cluster", "value": "0"}):
        assert (await stage.ask("PUT", "/v1/risk/limits", halt | other)).is_success
    assert (await stage.ask("PUT", "/v1/risk/limits", halt | of_btc | {"value": "0"})).is_success
    assert (await stage.ask("DELETE", "/v1/risk/limits?scope=user:asha&kind=halted")).status_code == 204
    # Set by hand meanwhile it outlives the kill, and then is nobody's but who set it.
    await stage.ask("POST", f"/v1/risk/kills/{thrown['id']}/lift")
    assert (await stage.ask("DELETE", query)).status_code == 204


async def test_while_one_of_two_kills_stands_the_halt_is_not_lifted(stage: Stage, key: str) -> None:
    first, second = [
        await stage.make("/v1/risk/kill?wait_s=0", {"scope": "cluster", "reason": reason}) for reason in "xy"
    ]
    await stage.ask("POST", f"/v1/risk/kills/{first['id']}/lift")
    said = await stage.refused(409, "kill_in_force", "DELETE", "/v1/risk/limits?scope=cluster&kind=halted")
    assert second["id"] in said["detail"]
    assert (await stage.ask("POST", f"/v1/risk/kills/{second['id']}/lift")).is_success
    assert (await stage.get("/v1/risk/limits"))["items"] == []


async def test_the_halt_of_an_algo_that_is_closed_up_is_not_lifted(stage: Stage, key: str) -> None:
    kill, _ = await stage.services.kills.throw("algo:momo-1", True, "x", "asha")
    async with stage.services.database.connection() as connection:
        await connection.execute("UPDATE kills SET of_stop = true WHERE id = %s", (kill.id,))
    said = await stage.refused(409, "kill_in_force", "DELETE", "/v1/risk/limits?scope=algo:momo-1&kind=halted")
    assert "start the algo, or stop it with 'keep'" in said["detail"]


async def test_one_of_two_kills_keeps_the_scope_halted(stage: Stage, key: str) -> None:
    first = await stage.make("/v1/risk/kill?wait_s=0", {"scope": "cluster", "reason": "x"})
    second = await stage.make("/v1/risk/kill?wait_s=0", {"scope": "cluster", "reason": "y"})
    await stage.ask("POST", f"/v1/risk/kills/{first['id']}/lift")
    assert len((await stage.get("/v1/risk/limits"))["items"]) == 1
    await stage.ask("POST", f"/v1/risk/kills/{second['id']}/lift")
    assert (await stage.get("/v1/risk/limits"))["items"] == []
    assert len(await stage.get("/v1/risk/kills")) == 2


async def test_a_kill_that_is_sent_again_is_the_same_kill(
    stage: Stage, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage.services.kills.outcome

    async def away(*_: Any) -> Any:
        raise NotReady("PostgreSQL went away")

    async def throw() -> httpx.Response:
        body = {"scope": "account:paper-1", "flatten": True, "reason": "x"}
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "panel-0123456789"}
        return await stage.http.post("/v1/risk/kill?wait_s=0", json=body, headers=headers)

    monkeypatch.setattr(stage.services.kills, "outcome", away)
    assert (await throw()).status_code == 503
    monkeypatch.setattr(stage.services.kills, "outcome", real)
    again = await throw()
    assert again.status_code == 201, again.text
    (kill,) = await stage.get("/v1/risk/kills")
    assert kill["id"] == again.json()["id"]
    told = [args[0].id for method, args in stage.played["asha"].calls if method == "kill"]
    assert told == [kill["id"]] * 2


async def test_a_token_names_one_kill_while_it_is_in_force(stage: Stage, key: str) -> None:
    kills = stage.services.kills
    first, _ = await kills.throw("account:paper-1", True, "x", "asha", "0123456789abcdef")
    assert first.id == "kill-01234567"
    for scope, flatten, by in (
        ("account:paper-1", False, "asha"),
        ("user:asha", True, "asha"),
        ("account:paper-1", True, "bo"),
    ):
        other, _ = await kills.throw(scope, flatten, "x", by, "0123456789abcdef")
        assert other.id != first.id, "it is another wish"
    again, _ = await kills.throw("account:paper-1", True, "once more", "asha", "0123456789abcdef")
    assert (again.id, again.reason) == (first.id, "x")
    await kills.lift(first.id, "asha")
    after, _ = await kills.throw("account:paper-1", True, "x", "asha", "0123456789abcdef")
    assert after.id != first.id, "what was lifted must not keep a new kill from being one"


async def test_flattening_that_is_sent_again_is_the_same_wish(stage: Stage, key: str) -> None:
    stage.services.session(UserId("asha"))
    for under in ("one-0123456789", "one-0123456789", "two-0123456789", None):
        headers = {"Authorization": f"Bearer {key}"} | ({"Idempotency-Key": under} if under else {})
        stage.played["asha"].raises = Unreachable("session/asha", "no answer")
        answer = await stage.http.post("/v1/accounts/paper-1/flatten", json={"reason": "x"}, headers=headers)
        assert answer.status_code == 504
    ids = [args[0].id for method, args in stage.played["asha"].calls if method == "flatten"]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    body = {
        "account": "paper-1",
        "client_order_id": f"{ids[0]}-x.1",
        "instrument": BTC,
        "side": "buy",
        "type": "market",
    }
    said = await stage.refused(422, "bad_input", "POST", "/v1/orders", {**body, "quantity": "1"}, key=key)
    assert said["field"] == "client_order_id"


async def test_only_operators_reach_beyond_their_own(stage: Stage, key: str) -> None:
    other = await stage.trading("bo", "paper-2")
    body = {"scope": "account:paper-1", "reason": "x"}
    for scope in ("cluster", "account:paper-1", "user:asha"):
        refused = await stage.ask("POST", "/v1/risk/kill", {**body, "scope": scope}, key=other)
        assert refused.status_code == 403
    thrown = await stage.make("/v1/risk/kill?wait_s=0", body)
    assert (await stage.ask("GET", f"/v1/risk/kills/{thrown['id']}", key=other)).status_code == 404
    assert (await stage.ask("POST", f"/v1/risk/kills/{thrown['id']}/lift", key=key)).status_code == 403
    assert await stage.get("/v1/risk/kills", key=other) == []
    assert len(await stage.get("/v1/risk/kills", key=key)) == 1


async def test_whom_there_is_besides_is_not_found_out(stage: Stage, key: str) -> None:
    await stage.trading("bo", "paper-2")
    theirs = await stage.make("/v1/risk/kill?wait_s=0", {"scope": "account:paper-2", "reason": "x"})
    for scope in ("account:paper-2", "account:nobodys", "user:bo", "user:nobody", "algo:none"):
        said = await stage.refused(403, "forbidden", "POST", "/v1/risk/kill", {"scope": scope, "reason": "x"}, key=key)
        assert said["detail"] == f"{scope} is not yours"
    for id in (theirs["id"], "kill-00000000"):
        said = await stage.refused(404, "unknown_kill", "GET", f"/v1/risk/kills/{id}", key=key)
        assert id in said["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"scope": "galaxy", "reason": "x"}, "scope"),
        ({"scope": "account:nobody", "reason": "x"}, "scope"),
        ({"scope": "cluster", "reason": ""}, "reason"),
        ({"scope": "cluster"}, "reason"),
    ],
)
async def test_a_wrong_kill_is_refused_by_field(stage: Stage, key: str, body: dict[str, Any], field: str) -> None:
    answer = await stage.ask("POST", "/v1/risk/kill", body)
    assert answer.status_code == 422
    assert field in answer.text
    assert await stage.get("/v1/risk/kills") == []


async def test_an_unknown_kill_is_not_found(stage: Stage) -> None:
    await stage.refused(404, "unknown_kill", "GET", "/v1/risk/kills/kill-nope")


async def test_kinds_are_told_with_unit_and_levels(stage: Stage, key: str) -> None:
    kinds = {each["kind"]: each for each in await stage.get("/v1/risk/kinds", key=key)}
    assert set(kinds) == set(KINDS)
    assert kinds["leverage"]["levels"] == ["cluster", "user", "account"]
    assert kinds["restricted"]["instrument"] == "must"


@pytest.mark.parametrize("scope", ["user:asha", "account:paper-1"])
async def test_limits_of_every_level_are_taken(stage: Stage, key: str, scope: str) -> None:
    answer = await stage.ask("PUT", "/v1/risk/limits", {"scope": scope, "kind": "daily_loss", "value": "10"})
    assert answer.status_code == 200
    assert answer.json()["state"] is None, "no central risk runs here"
    (seen,) = (await stage.get("/v1/risk/limits", key=key))["items"]
    assert seen["scope"] == scope


async def test_denials_give_their_limits_field_by_field(stage: Stage, key: str) -> None:
    await order(stage, key)
    stage.played["asha"].denies = [
        "position of BINANCE:BTCUSDT 6 is above the limit 5 of user:asha",
        "halted is set on cluster: trading is halted",
        "reduce_only: the order would not make the position smaller",
    ]
    body = {"account": "paper-1", "instrument": BTC, "side": "buy", "type": "market", "quantity": "0.5"}
    said = await stage.refused(422, "risk_denied", "POST", "/v1/orders", body, key=key)
    assert len(said["violations"]) == 3
    assert said["limits"] == [
        {"kind": "position", "scope": "user:asha", "instrument": BTC, "value": "6", "limit": "5"},
        {"kind": "halted", "scope": "cluster", "instrument": "", "value": None, "limit": None},
    ]


def use(scope: str, instrument: str = "") -> dict[str, Any]:
    figures = dict.fromkeys(("gross", "net", "long", "short", "profit", "drawdown", "money_at_risk"), "1")
    return {"scope": scope, "instrument": instrument, **figures, "open_orders": 1, "blocked": [], "day": 0}


async def test_levels_are_shown_by_sort_and_to_whom_they_belong(stage: Stage, key: str) -> None:
    scopes = ["cluster", "user:asha", "account:paper-1", "user:bo", "algo:other"]
    state = {"used": "1", "breached": False, "holds": True, "since": 5, "waiting": []}
    limit = {"scope": "user:asha", "kind": "gross_exposure", "instrument": "", "value": "7", **state}
    view = {"at": time.time_ns(), "epoch": 1, "limits_version": 2, "exposure": [], "over": [], "limits": [limit]}
    levels = [*(use(scope) for scope in scopes), use("user:asha", BTC), use("cluster", BTC)]
    await stage.services.hot.put("risk", {**view, "levels": levels}, 60)
    mine = (await stage.get("/v1/risk/exposure", key=key))["levels"]
    assert [(u["scope"], u["instrument"]) for u in mine] == [
        ("user:asha", ""),
        ("account:paper-1", ""),
        ("user:asha", BTC),
    ]
    assert mine[0]["limits"] == {"gross_exposure": "7"}
    users = (await stage.get("/v1/risk/exposure?by=user"))["levels"]
    assert [u["scope"] for u in users] == ["user:asha", "user:bo"]
    assert len((await stage.get("/v1/risk/exposure?by=instrument"))["levels"]) == 2
    assert (await stage.ask("GET", "/v1/risk/exposure?by=colour")).status_code == 422


async def test_an_algos_name_brings_nothing_of_who_bore_it_before(stage: Stage, key: str) -> None:
    await stage.fed()
    bo = await stage.person("bo", "trader", "quant")
    await stage.make("/v1/accounts", {"id": "bo-1", "user": "bo", "connector": "paper"})
    await stage.make("/v1/algos", algo_body("momo-1"))
    wish = {"scope": "algo:momo-1", "reason": "mine alone"}
    thrown = (await stage.ask("POST", "/v1/risk/kill?wait_s=0", wish, key=key)).json()["id"]
    bound = {"scope": "algo:momo-1", "kind": "order_quantity", "value": "7"}
    assert (await stage.ask("PUT", "/v1/risk/limits", bound)).status_code == 200
    zero: dict[str, Any] = dict.fromkeys(("long", "short", "money_at_risk", "loss", "drawdown"), Decimal(0))
    today = Nanos(time.time_ns() // _DAY * _DAY)
    for name in ("momo-1", "new-1"):
        epoch = await Leases(stage.services.database).take("risk/main", "test", 60)
        top = MaximaRecord(
            day=today, scope=f"algo:{name}", instrument="", gross=Decimal(5), open_orders=0, sampled_at=today, **zero
        )
        await Days(stage.services.database).save_maxima(epoch, [top])
    assert [each["kind"] for each in (await stage.get("/v1/risk/limits", key=key))["items"]] == [
        "halted",
        "order_quantity",
    ]
    assert (await stage.ask("DELETE", "/v1/algos/momo-1", key=key)).status_code == 204
    for name in ("momo-1", "new-1"):
        await stage.make("/v1/algos", algo_body(name, account="bo-1"), key=bo)
    assert await stage.get("/v1/risk/kills", key=bo) == []
    await stage.refused(404, "unknown_kill", "GET", f"/v1/risk/kills/{thrown}", key=bo)
    await stage.refused(404, "unknown_kill", "POST", f"/v1/risk/kills/{thrown}/lift", key=bo)
    assert (await stage.get("/v1/risk/limits", key=bo))["items"] == []
    assert [each["scope"] for each in await stage.get("/v1/risk/maxima", key=bo)] == ["algo:new-1"]
    points = (await stage.get("/v1/risk/maxima/series?kind=gross", key=bo))["items"]
    assert [each["scope"] for each in points] == ["algo:new-1"]
    # Operators see what was; and what is the new one's own is shown.
    assert [each["id"] for each in await stage.get("/v1/risk/kills")] == [thrown]
    assert len(await stage.get("/v1/risk/maxima")) == 2
    own = (await stage.ask("POST", "/v1/risk/kill?wait_s=0", wish, key=bo)).json()["id"]
    assert [each["id"] for each in await stage.get("/v1/risk/kills", key=bo)] == [own]
    assert [each["kind"] for each in (await stage.get("/v1/risk/limits", key=bo))["items"]] == ["halted"]


async def test_maxima_are_kept_by_day_and_only_rise(stage: Stage, key: str) -> None:
    days, epoch = Days(stage.services.database), 0
    epoch = await Leases(stage.services.database).take("risk/main", "test", 60)
    today = Nanos(time.time_ns())

    def sample(scope: str, gross: int, day: int = today) -> MaximaRecord:
        zero = Decimal(0)
        figures: dict[str, Any] = dict.fromkeys(("long", "short", "money_at_risk", "loss", "drawdown"), zero)
        return MaximaRecord(
            day=Nanos(day), scope=scope, instrument="", gross=Decimal(gross), open_orders=0, sampled_at=today, **figures
        )

    await days.save_maxima(epoch, [sample("user:asha", 10), sample("user:bo", 20), sample("user:asha", 9, 1)])
    await days.save_maxima(epoch, [sample("user:asha", 5)])
    mine = await stage.get("/v1/risk/maxima?days=2", key=key)
    assert [(row["scope"], row["gross"]) for row in mine] == [("user:asha", "10")]
    assert len(await stage.get("/v1/risk/maxima?days=2")) == 2
    assert await stage.get("/v1/risk/maxima?scope=user:bo", key=key) == []

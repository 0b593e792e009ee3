"""Grants and keys that are limited to accounts: every family of routes, both ways.

asha owns paper-1 and paper-3; bo trades, and is granted paper-1.
"""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from typing import Any

import pytest
import websockets
from msgspec.structs import replace

from api import glance
from cluster.streams import Change
from storage.equity import Sample
from storage.leases import Leases
from tests.api.playing import BTC, Stage, algo_body, order_body
from tests.api.test_holdings import _journal
from tests.api.test_reconciliations import REPORT, _save
from trading.ids import AccountId, AlgoId, Nanos, UserId

ACCOUNTS = ("paper-1", "paper-3")


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request reads anew: answers to what sets limits are made from a glance too."""
    monkeypatch.setattr(glance, "FRESH_S", 0.0)


@pytest.fixture
async def asha(stage: Stage) -> str:
    """asha's key; both accounts have something of everything."""
    key = await stage.trading()
    await stage.make("/v1/accounts", {"id": "paper-3", "user": "asha", "connector": "paper"})
    await stage.fed()
    for account in ACCOUNTS:
        await _journal(stage, account)
        await stage.make("/v1/algos", algo_body(f"momo-{account[-1]}", account=account))
        body = {"scope": f"account:{account}", "kind": "position", "instrument": BTC, "value": "9"}
        assert (await stage.ask("PUT", "/v1/risk/limits", body)).is_success
    await _save(stage, REPORT, replace(REPORT, account=AccountId("paper-3")))
    await stage.services.hot.put("portfolio:asha", portfolio(), 60)
    return key


def portfolio() -> dict[str, Any]:
    """What asha's session told."""
    sums = dict.fromkeys(("realised", "unrealised", "fees", "profit", "gross_exposure", "cash"), "1")
    counts = {"open_orders": 1, "open_breaks": 0, "connected": True, "reconciled": True, "currency": "USDT"}
    accounts = [{"account": account, **sums, **counts} for account in ACCOUNTS]
    return {"user": "asha", "at": time.time_ns(), "accounts": accounts, "positions": []}


async def granted(stage: Stage, level: str | None, *roles: str) -> str:
    """bo's key, with paper-1 granted so far."""
    key = await stage.person("bo", *(roles or ("trader", "quant")))
    if level is not None:
        answer = await stage.ask("PUT", "/v1/grants/paper-1/bo", {"level": level})
        assert answer.json()["level"] == level
    return key


async def seen_accounts(stage: Stage, key: str) -> dict[str, set[str]]:
    """Which accounts show in each list."""
    lists = {
        "/v1/accounts": "id",
        "/v1/orders": "account",
        "/v1/fills": "account",
        "/v1/positions": "account",
        "/v1/breaks": "account",
        "/v1/reconciliations": "account",
        "/v1/algos": "account",
    }
    found = {}
    for path, field in lists.items():
        found[path] = {each[field] for each in (await stage.get(path, key=key))["items"]}
    for path in ("/v1/orders.csv", "/v1/fills.csv", "/v1/reconciliations?format=csv"):
        text = (await stage.ask("GET", path, key=key)).text
        found[path] = {account for account in ACCOUNTS if account in text}
    portfolios = (await stage.get("/v1/portfolios", key=key))["items"]
    found["/v1/portfolios"] = {each["account"] for view in portfolios for each in view["accounts"]}
    found["/v1/deck"] = {each["account"] for each in (await stage.get("/v1/deck", key=key))["accounts"]}
    for path in ("/v1/search?q=paper&limit=50", "/v1/risk/tree"):
        text = (await stage.ask("GET", path, key=key)).text
        found[path] = {account for account in ACCOUNTS if account in text}
    limits = (await stage.get("/v1/risk/limits", key=key))["items"]
    found["/v1/risk/limits"] = {each["scope"].removeprefix("account:") for each in limits}
    return found


@pytest.mark.parametrize(("level", "shown"), [(None, set()), ("view", {"paper-1"}), ("trade", {"paper-1"})])
async def test_lists_show_what_was_granted_and_nothing_else(
    stage: Stage, asha: str, level: str | None, shown: set[str]
) -> None:
    key = await granted(stage, level)
    for path, accounts in (await seen_accounts(stage, key)).items():
        assert accounts == shown, path
    for path, accounts in (await seen_accounts(stage, asha)).items():
        assert accounts == set(ACCOUNTS), path


THINGS = (
    "/v1/accounts/{a}",
    "/v1/accounts/{a}/credentials",
    "/v1/orders/{a}/o-{a}",
    "/v1/orders?account={a}",
    "/v1/fills?account={a}",
    "/v1/positions?account={a}",
    "/v1/breaks?account={a}",
    "/v1/breaks/b-{a}",
    "/v1/reconciliations?account={a}",
    "/v1/orders.csv?account={a}",
    "/v1/algos/momo-{n}",
    "/v1/algos/momo-{n}/logs",
    "/v1/algos/momo-{n}/events",
    "/v1/algos/momo-{n}/equity",
    "/v1/accounts/{a}/equity",
)


@pytest.mark.parametrize("level", [None, "view", "trade"])
async def test_single_things_are_there_or_not(stage: Stage, asha: str, level: str | None) -> None:
    key = await granted(stage, level)
    for path in THINGS:
        for account in ACCOUNTS:
            status = (await stage.ask("GET", path.format(a=account, n=account[-1]), key=key)).status_code
            assert status == (200 if level and account == "paper-1" else 404), (path, account)
    status = (await stage.ask("GET", "/v1/portfolio?user=asha", key=key)).status_code
    assert status == (200 if level else 404)


def acts(account: str) -> list[tuple[str, str, Any]]:
    """What can be done with an account."""
    algo = f"/v1/algos/momo-{account[-1]}"
    seen = {"ours": "1", "theirs": "2", "note": "by phone"}
    return [
        ("POST", "/v1/orders", order_body(account=account)),
        ("PATCH", f"/v1/orders/{account}/k-1", {"limit_price": "60001.0"}),
        ("DELETE", f"/v1/orders/{account}/k-1", None),
        ("POST", f"/v1/accounts/{account}/cancel-all", None),
        ("POST", f"/v1/accounts/{account}/reconcile", None),
        ("POST", f"/v1/breaks/b-{account}/explain", seen),
        ("POST", f"/v1/accounts/{account}/flatten", {"reason": "x"}),
        ("PATCH", algo, {"labels": {"desk": "a"}}),
        ("POST", algo + "/pause", None),
        ("POST", algo + "/resume", None),
        ("POST", algo + "/start", None),
        ("POST", algo + "/restart", None),
        ("POST", algo + "/move", {"node": ""}),
        ("POST", algo + "/stop", None),
        ("POST", "/v1/algos", algo_body(f"new-{account[-1]}", account=account)),
        ("POST", "/v1/risk/kill?wait_s=0", {"scope": f"account:{account}", "reason": "x"}),
        ("POST", "/v1/risk/kill?wait_s=0", {"scope": f"algo:momo-{account[-1]}", "reason": "x"}),
    ]


async def test_a_view_grant_never_trades(stage: Stage, asha: str) -> None:
    key = await granted(stage, "view")
    for method, path, body in acts("paper-1"):
        said = await stage.refused(403, "forbidden", method, path, body, key=key)
        assert "asha" in said["detail"] or "not yours" in said["detail"], path
    wanted = {"action": "pause", "ids": ["momo-1"]}
    (result,) = (await stage.ask("POST", "/v1/algos/batch", wanted, key=key)).json()["results"]
    assert result["status"] == 403
    wanted = {"action": "pause", "selector": "strategy=ma-cross"}
    assert (await stage.ask("POST", "/v1/algos/batch", wanted, key=key)).json()["results"] == []
    assert not stage.played or stage.played["asha"].calls == []
    assert (await stage.get("/v1/algos/momo-1"))["paused_by"] == ""


async def test_a_trade_grant_trades_through_the_owners_session(stage: Stage, asha: str) -> None:
    key = await granted(stage, "trade")
    me = await stage.get("/v1/me", key=key)
    for method, path, body in acts("paper-1"):
        answer = await stage.ask(method, path, body, key=key)
        assert answer.is_success, (method, path, answer.text)
    events = (await stage.get("/v1/orders/paper-1/k-1"))["events"]
    assert {each["cause"] for each in events} == {f"api/bo/{me['key_id']}"}
    assert list(stage.played) == ["asha"]
    assert (await stage.get("/v1/algos/new-1"))["user"] == "asha"
    actors = {each["actor"] for each in (await stage.get("/v1/audit?action=place_order"))["items"]}
    assert actors == {"bo"}


@pytest.mark.parametrize("level", [None, "trade"])
async def test_what_was_not_granted_stays_shut(stage: Stage, asha: str, level: str | None) -> None:
    key = await granted(stage, level)
    for method, path, body in acts("paper-3"):
        answer = await stage.ask(method, path, body, key=key)
        assert answer.status_code in (403, 404, 422), (method, path, answer.text)
        assert answer.json()["code"] in ("forbidden", "unknown_account", "unknown_order", "unknown_break",
                                         "unknown_algo"), answer.text  # fmt: skip
    await stage.refused(403, "forbidden", "POST", "/v1/risk/kill", {"scope": "user:asha", "reason": "x"}, key=key)
    assert not stage.played
    assert (await stage.get("/v1/algos/momo-3"))["generation"] == 1


async def test_the_users_own_roles_bound_a_grant(stage: Stage, asha: str) -> None:
    key = await granted(stage, "trade", "viewer")
    for method, path, body in acts("paper-1"):
        await stage.refused(403, "forbidden", method, path, body, key=key)
    assert (await stage.ask("GET", "/v1/accounts/paper-1", key=key)).status_code == 200


async def test_credentials_are_beyond_any_grant(stage: Stage, asha: str) -> None:
    key = await granted(stage, "trade")
    body = {"credentials": {"key": "k", "secret": "s"}}
    await stage.refused(403, "forbidden", "PUT", "/v1/accounts/paper-1/credentials", body, key=key)


async def test_a_feed_cannot_use_the_login_of_a_granted_account(stage: Stage, asha: str) -> None:
    key = await granted(stage, "trade")
    body = {"id": "sly", "provider": "kite", "settings": {"account": "paper-1"}}
    said = await stage.refused(403, "forbidden", "POST", "/v1/feeds", body, key=key)
    assert said["field"] == "settings.account"


async def test_a_grant_that_is_taken_back_ends_at_once(stage: Stage, asha: str) -> None:
    key = await granted(stage, "trade")
    assert (await stage.ask("GET", "/v1/accounts/paper-1", key=key)).status_code == 200
    assert (await stage.ask("DELETE", "/v1/grants/paper-1/bo")).status_code == 204
    await stage.refused(404, "unknown_account", "GET", "/v1/accounts/paper-1", key=key)
    await stage.refused(404, "unknown_grant", "DELETE", "/v1/grants/paper-1/bo")


async def test_grants_are_shown_to_owner_and_grantee_and_made_by_operators(stage: Stage, asha: str) -> None:
    key = await granted(stage, "view")
    stranger = await stage.person("cho", "trader")
    for who, count in ((asha, 1), (key, 1), (stranger, 0), (stage.operator_key, 1)):
        assert len((await stage.get("/v1/grants", key=who))["items"]) == count
    assert (await stage.get("/v1/grants?account=paper-3"))["items"] == []
    assert len((await stage.get("/v1/grants?user=bo&account=paper-1"))["items"]) == 1
    await stage.refused(403, "forbidden", "PUT", "/v1/grants/paper-1/cho", {"level": "view"}, key=asha)
    await stage.refused(404, "unknown_user", "PUT", "/v1/grants/paper-1/nobody", {"level": "view"})
    await stage.refused(404, "unknown_account", "PUT", "/v1/grants/paper-9/bo", {"level": "view"})
    await stage.refused(422, "bad_input", "PUT", "/v1/grants/paper-1/asha", {"level": "view"})
    await stage.refused(422, "bad_input", "PUT", "/v1/grants/paper-1/bo", {"level": "own"})


async def _stream(stage: Stage, served: str, key: str, changes: list[Change]) -> list[dict[str, Any]]:
    """What comes of some changes."""
    async with websockets.connect(f"ws://{served}/v1/stream") as socket:
        await socket.send(json.dumps({"key": key, "topics": ["orders", "portfolio", "algos"]}))
        await socket.recv()
        end = Change(topic="algos", key="end", user="", at=Nanos(1), body={})
        stage.services.hub.add([*changes, end])
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(20):
            while True:
                message = json.loads(await socket.recv())
                if message["key"] == "end":
                    return found
                found.append(message)


async def test_the_stream_keeps_to_grants(stage: Stage, served: str, asha: str) -> None:
    import msgspec

    from tests.storage.samples import event, order
    from trading.orders import EventKind

    changes = []
    for account in ACCOUNTS:
        placed = order("k-9", account=account)
        told = {"order": msgspec.to_builtins(placed), "event": msgspec.to_builtins(event(placed, EventKind.PENDING))}
        changes.append(Change(topic="orders", key=f"{account}/k-9", user="asha", at=Nanos(1), body=told))
        changes.append(Change(topic="algos", key=account, user="asha", account=account, at=Nanos(1), body=None))
    changes.append(Change(topic="portfolio", key="asha", user="asha", at=Nanos(1), body=portfolio()))
    key = await granted(stage, "view")
    found = await _stream(stage, served, key, changes)
    assert [each["key"] for each in found] == ["paper-1/k-9", "paper-1", "asha"]
    assert [each["account"] for each in found[-1]["body"]["accounts"]] == ["paper-1"]
    assert len(await _stream(stage, served, asha, changes)) == 5
    stranger = await stage.person("cho", "trader")
    assert await _stream(stage, served, stranger, changes) == []


async def test_a_key_that_is_limited_to_accounts_reaches_no_others(stage: Stage, asha: str) -> None:
    await stage.services.panel_sessions.begin(UserId("asha"), "10.1.1.1", "her browser")
    for account, user in (("paper-1", "asha"), ("paper-2", "asha"), (None, "asha"), (None, "admin"), (None, "")):
        await stage.services.alerts.raise_alert(
            kind="large_order" if account else "session", severity="warning", user=user, account=account, subject="s",
            text="t", at=Nanos(time.time_ns()),
        )  # fmt: skip
    for owner in (asha, stage.operator_key):
        body = {"user": "asha" if owner == asha else "admin", "accounts": ["paper-1"]}
        made = await stage.make("/v1/keys", body, key=owner)
        assert made["accounts"] == ["paper-1"]
        for path, accounts in (await seen_accounts(stage, made["key"])).items():
            assert accounts == {"paper-1"}, path
        for path in THINGS:
            for account in ACCOUNTS:
                status = (await stage.ask("GET", path.format(a=account, n=account[-1]), key=made["key"])).status_code
                assert status == (200 if account == "paper-1" else 404), (path, account)
        for method, path, wish in acts("paper-3"):
            answer = await stage.ask(method, path, wish, key=made["key"])
            assert answer.status_code in (403, 404, 422), (method, path, answer.text)
        for scope in ("cluster", "user:asha"):
            await stage.refused(
                403, "forbidden", "POST", "/v1/risk/kill", {"scope": scope, "reason": "x"}, key=made["key"]
            )
        # Nothing of its user that belongs to no account, or to another.
        assert [each["account"] for each in (await stage.get("/v1/alerts", key=made["key"]))["items"]] == ["paper-1"]
        assert (await stage.get("/v1/deck", key=made["key"]))["alerts"] == 1
        assert (await stage.get("/v1/sessions", key=made["key"]))["items"] == []
        assert [each["id"] for each in (await stage.get("/v1/keys", key=made["key"]))["items"]] == [made["id"]]
        for path, wish in (("/v1/keys", {}), ("/v1/users", {"id": "x", "roles": ["viewer"]})):
            await stage.refused(403, "forbidden", "POST", path, wish, key=made["key"])
    assert not stage.played


async def test_what_all_do_together_is_shown_to_operators_alone(stage: Stage, asha: str) -> None:
    limit = {"scope": "cluster", "kind": "gross_exposure", "value": "100000"}
    await stage.ask("PUT", "/v1/risk/limits", limit)
    state = {"instrument": "", "used": "52345", "breached": True, "holds": False, "since": 0, "waiting": ["asha", "bo"]}
    view = {"at": 1, "epoch": 1, "limits_version": 1, "exposure": [], "over": [], "levels": []}
    await stage.services.hot.put("risk", {**view, "limits": [{**limit, **state}]}, 60)
    for who, used, waiting in ((stage.operator_key, "52345", ["asha", "bo"]), (asha, None, [])):
        limits = (await stage.get("/v1/risk/limits", key=who))["items"]
        (shown,) = (each for each in limits if each["scope"] == "cluster")
        assert (shown["value"], shown["state"]["breached"]) == ("100000", True)
        assert (shown["state"]["used"], shown["state"]["waiting"]) == (used, waiting)
        (leaf,) = (await stage.get("/v1/risk/tree", key=who))["limits"]
        assert (leaf["value"], leaf["used"], leaf["use"] is None) == ("100000", used, used is None)


async def test_a_grant_opens_no_former_life_of_an_algos_name(stage: Stage, served: str, asha: str) -> None:
    """momo-3 used paper-3, which is not granted; an algo of the same name uses paper-1 now."""
    services = stage.services
    algo, old = AlgoId("momo-3"), (await services.desired.algo(AlgoId("momo-3"))).epoch
    await services.algo_log.append(algo, old, [(Nanos(time.time_ns()), "info", "of paper-3")])
    await services.equity.save(*await _sampler(stage), [_sample("algo:momo-3", 60)])
    assert (await stage.ask("DELETE", "/v1/algos/momo-3")).status_code == 204
    await stage.make("/v1/algos", algo_body("momo-3", account="paper-1"), key=asha)
    now = (await services.desired.algo(algo)).epoch
    await services.algo_log.append(algo, now, [(Nanos(time.time_ns()), "info", "of paper-1")])
    key = await granted(stage, "view")

    async def lines(who: str) -> list[str]:
        return [each["text"] for each in (await stage.get("/v1/algos/momo-3/logs", key=who))["items"]]

    assert await lines(key) == ["of paper-1"]
    assert await lines(asha) == ["of paper-3", "of paper-1"]
    events = (await stage.get("/v1/algos/momo-3/events", key=key))["items"]
    assert [each["what"] for each in events] == [["created"]]
    assert len((await stage.get("/v1/algos/momo-3/events", key=asha))["items"]) > 2
    async with websockets.connect(f"ws://{served}/v1/stream") as socket:
        await socket.send(json.dumps({"key": key, "topics": ["algo-log:momo-3"], "places": {"algo-log:momo-3": 0}}))
        async with asyncio.timeout(20):
            await socket.recv()
            assert json.loads(await socket.recv())["body"]["text"] == "of paper-1"
    assert (await stage.get("/v1/algos/momo-3/equity", key=key))["items"] == []


async def _sampler(stage: Stage) -> tuple[str, int]:
    return "surveillance/main", await Leases(stage.services.database).take("surveillance/main", "test", 60)


def _sample(scope: str, age_s: int) -> Sample:
    return Sample(scope=scope, at=Nanos(time.time_ns() - age_s * 10**9), pnl=Decimal(5))

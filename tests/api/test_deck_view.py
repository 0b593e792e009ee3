"""The deck at a glance, the heat table, the tree of limits and the search: what each shows to whom."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from api import glance
from storage.leases import Leases
from tests.api.playing import BTC, ETH, Stage, algo_body, order_body
from trading.heat import RiskCell
from trading.ids import AccountId, Nanos
from trading.journal import Break, BreakKind, JournalBatch
from trading.levels import LevelUse
from trading.positions import Position

D = Decimal


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request reads anew."""
    monkeypatch.setattr(glance, "FRESH_S", 0.0)
    monkeypatch.setattr(glance, "CURRENCIES_S", 0.0)


def account(id: str, **changes: Any) -> dict[str, Any]:
    return {
        "account": id,
        "connected": True,
        "reconciled": True,
        "cash": "1000",
        "currency": "USDT",
        "realised": "0",
        "unrealised": "0",
        "fees": "0",
        "profit": "5",
        "gross_exposure": "100",
        "open_orders": 0,
        "open_breaks": 0,
        **changes,
    }


def held(exposure: str, mark: str | None = "250.5", marked_at: int = 0) -> dict[str, Any]:
    return {"account": "paper-1", "quantity": "-1", "mark": mark, "exposure": exposure, "mark_at": marked_at}


async def told(stage: Stage, user: str, *accounts: dict[str, Any], held: Any = (), at: int = 0) -> None:
    view = {"user": user, "at": at or time.time_ns(), "accounts": accounts, "positions": held}
    await stage.services.hot.put(f"portfolio:{user}", view, 60)


async def risk_told(stage: Stage, *levels: LevelUse, limits: Any = ()) -> None:
    view = {"at": time.time_ns(), "epoch": 1, "limits_version": 1, "exposure": [], "over": [], "levels": levels}
    await stage.services.hot.put("risk", {**view, "limits": limits}, 60)


def use(scope: str, gross: int, profit: int, **more: Any) -> LevelUse:
    return LevelUse(scope=scope, gross=D(gross), net=D(gross) / 2, profit=D(profit), **more)


@pytest.fixture
async def key(stage: Stage) -> str:
    """Asha and bo each have an account, an order open and an algo; asha's key."""
    key = await stage.trading()
    await stage.trading("bo", "paper-2")
    await stage.fed()
    await stage.make("/v1/algos", algo_body())
    await stage.make("/v1/algos", algo_body("momo-2", account="paper-2", start=True))
    await stage.make("/v1/orders", order_body())
    await stage.make("/v1/orders", order_body("k-2", account="paper-2"))
    await told(stage, "asha", account("paper-1"), held=[held("-250.5")])
    await told(stage, "bo", account("paper-2", cash=None, connected=False))
    for scope, value in (("cluster", "1000"), ("user:asha", "800"), ("account:paper-1", "400")):
        await stage.services.desired.set_limit(scope, "gross_exposure", "", D(value), by="test")
    await risk_told(
        stage,
        use("cluster", 300, 3),
        use("user:asha", 100, 7),
        use("account:paper-1", 100, 7, open_orders=1),
        use("user:asha", 100, 7, instrument=BTC),
        use("user:bo", 200, -4),
        use("account:paper-2", 200, -4),
        limits=[
            {"scope": "account:paper-1", "kind": "gross_exposure", "instrument": "", "used": "100"},
            {"scope": "cluster", "kind": "gross_exposure", "instrument": "", "used": "300"},
        ],
    )
    return key


async def test_the_deck_sums_up_what_an_operator_sees(stage: Stage, key: str) -> None:
    await stage.services.alerts.raise_alert(kind="deck", severity="info", user="", subject="s", text="t", at=Nanos(1))
    seen = await stage.get("/v1/deck")
    assert (seen["currency"], seen["pnl_today"], seen["gross"], seen["net"]) == ("USDT", "3", "300", "150")
    assert (seen["gross_limit"], seen["gross_use"]) == ("1000", 0.3)
    assert (seen["open_orders"], seen["breaks"], seen["alerts"], seen["trouble"]) == (2, 0, 1, "")
    one, two = seen["accounts"]
    assert (one["account"], one["state"], one["equity"], one["gross_limit"]) == ("paper-1", "ready", "749.5", "400")
    assert (one["pnl_today"], one["gross_use"]) == ("7", 0.25)
    assert (two["account"], two["state"], two["equity"], two["gross_use"]) == ("paper-2", "disconnected", None, None)
    assert seen["algos"] == {"running": 0, "wanted": 1, "by_state": {"stopped": 1, "waiting": 1}}
    (feed,) = seen["feeds"]
    assert (feed["feed"], feed["state"], feed["instruments"], feed["workers_wanted"]) == ("crypto", "down", 2, 2)


async def test_others_see_their_own_part_of_the_deck(stage: Stage, key: str) -> None:
    await stage.services.kills.throw("account:paper-2", False, "x", "admin")
    await stage.services.kills.throw("account:paper-1", False, "y", "admin")
    seen = await stage.get("/v1/deck", key=key)
    assert [each["account"] for each in seen["accounts"]] == ["paper-1"]
    assert (seen["pnl_today"], seen["gross"], seen["gross_limit"], seen["gross_use"]) == ("7", "100", "800", 0.125)
    assert (seen["open_orders"], seen["algos"]["wanted"]) == (1, 0)
    assert [kill["scope"] for kill in seen["kills"]] == ["account:paper-1"]
    assert len((await stage.get("/v1/deck"))["kills"]) == 2
    nobody = await stage.person("cho", "viewer")
    empty = await stage.get("/v1/deck", key=nobody)
    assert (empty["accounts"], empty["pnl_today"], empty["open_orders"], empty["kills"]) == ([], "0", 0, [])
    assert (empty["gross_limit"], empty["alerts"]) == (None, 0)


async def test_what_is_granted_is_no_use_of_ones_own_limit(stage: Stage, key: str) -> None:
    assert (await stage.ask("PUT", "/v1/grants/paper-2/asha", {"level": "view"})).is_success
    seen = await stage.get("/v1/deck", key=key)
    assert (seen["gross"], seen["gross_limit"]) == ("300", "800")
    assert (seen["gross_used"], seen["gross_use"]) == ("100", 0.125)
    # Nothing is known of the granted account; of the own ones all is.
    await told(stage, "bo", account("paper-2"), at=1)
    seen = await stage.get("/v1/deck", key=key)
    assert (seen["not_known"], seen["gross"], seen["gross_use"]) == (["paper-2"], "100", 0.125)
    await told(stage, "asha", account("paper-1"), at=1)
    await told(stage, "bo", account("paper-2"))
    seen = await stage.get("/v1/deck", key=key)
    assert (seen["not_known"], seen["gross"], seen["gross_use"]) == (["paper-1"], "200", None)


async def test_a_key_of_some_accounts_sees_nothing_of_its_users_limit(stage: Stage, key: str) -> None:
    made = await stage.make("/v1/keys", {"label": "of paper-1 only", "accounts": ["paper-1"]}, key=key)
    seen = await stage.get("/v1/deck", key=made["key"])
    assert (seen["gross"], seen["gross_limit"], seen["gross_use"]) == ("100", None, None)


async def test_prices_that_the_market_has_not_told_of_late_are_counted(stage: Stage, key: str) -> None:
    now = time.time_ns()
    fresh, old = held("-250.5", marked_at=now - 30_000_000_000), held("-9", marked_at=now - 61_000_000_000)
    gone = {**old, "quantity": "0"}
    for positions, count in (([fresh], 0), ([fresh, old, gone], 1), ([old, held("-1")], 2)):
        await told(stage, "asha", account("paper-1"), held=positions)
        assert (await stage.get("/v1/deck"))["accounts"][0]["old_marks"] == count


async def test_states_of_accounts_are_in_words(stage: Stage, key: str) -> None:
    await told(stage, "asha", account("paper-1"), held=[held("0", None)])
    assert (await stage.get("/v1/deck", key=key))["accounts"][0]["equity"] is None

    async def state() -> tuple[str, str]:
        (shown,) = (await stage.get("/v1/deck", key=key))["accounts"]
        return shown["state"], shown["detail"]

    await told(stage, "asha", account("paper-1", reconciled=False))
    assert (await state())[0] == "reconciling"
    await told(stage, "asha", account("paper-1", open_breaks=2))
    assert await state() == ("breaks", "2 differences to the broker's books are open")
    await told(stage, "asha", account("paper-1"), at=time.time_ns() - 30 * 10**9)
    assert await state() == ("unknown", "the session of asha has told nothing for 30 s")
    await stage.services.hot.delete("portfolio:asha")
    assert (await state())[0] == "unknown"
    await stage.ask("PATCH", "/v1/accounts/paper-1", {"enabled": False})
    assert (await state())[0] == "off"


async def test_feeds_are_judged_by_their_workers(stage: Stage, key: str) -> None:
    async def worker(shard: int, *, connected: bool = True, **states: int) -> None:
        told = {"shard": shard, "connected": connected, "at": time.time_ns(), "states": states, "instruments": []}
        await stage.services.hot.put(f"worker:crypto:{shard}", told, 60)

    async def seen() -> tuple[str, int, int, int]:
        (feed,) = (await stage.get("/v1/deck"))["feeds"]
        return feed["state"], feed["live"], feed["stale"], feed["workers"]

    await worker(0, live=1)
    await worker(1, live=1)
    assert await seen() == ("ok", 2, 0, 2)
    await worker(1, stale=1)
    assert await seen() == ("degraded", 1, 1, 2)
    await worker(1, connected=False, live=1)
    assert await seen() == ("degraded", 1, 0, 1)
    await stage.ask("PATCH", "/v1/feeds/crypto", {"enabled": False})
    assert (await seen())[0] == "off"


async def test_breaks_are_counted_and_what_is_in_several_currencies_is_not_added_up(stage: Stage, key: str) -> None:
    item = Break(
        id="b", account=AccountId("paper-1"), instrument=BTC, kind=BreakKind.POSITION, ours="1", theirs="2",
        opened_at=Nanos(10**18),
    )  # fmt: skip
    epoch = await Leases(stage.services.database).take("session/test", "test", 60)
    journal = stage.services.journal
    await journal.append("session/test", epoch, 1, journal.prepare(JournalBatch(breaks=[item])))
    await told(stage, "bo", account("paper-2", currency="USD"))
    seen = await stage.get("/v1/deck")
    assert (seen["breaks"], seen["currency"], seen["currencies"]) == (1, "", ["USD", "USDT"])
    assert (seen["pnl_today"], seen["gross"], seen["net"], seen["gross_use"]) == (None, None, None, None)
    assert seen["not_known"] == []
    one, two = seen["accounts"]
    assert (one["currency"], one["pnl_today"]) == ("USDT", "7")
    # Its cash is in dollars, its order in USDT.
    assert (two["currency"], two["currencies"], two["pnl_today"], two["gross"]) == ("", ["USD", "USDT"], None, None)
    mine = await stage.get("/v1/deck", key=key)
    assert (mine["currency"], mine["pnl_today"]) == ("USDT", "7")


async def test_an_account_in_which_nothing_happened_adds_no_currency(stage: Stage, key: str) -> None:
    await stage.ask("DELETE", "/v1/orders/paper-2/k-2")
    await risk_told(stage, use("account:paper-1", 100, 7))
    await told(stage, "bo", account("paper-2", currency="USD", profit="0", gross_exposure="0"))
    seen = await stage.get("/v1/deck")
    assert (seen["currency"], seen["pnl_today"], seen["accounts"][1]["currency"]) == ("USDT", "7", "USD")


async def test_without_redis_the_journal_is_shown_all_the_same(stage: Stage, key: str) -> None:
    await stage.services.hot.close()
    stage.services.hot = type(stage.services.hot)("redis://127.0.0.1:9/0")
    seen = await stage.get("/v1/deck")
    assert "Redis" in seen["trouble"]
    assert (seen["open_orders"], seen["pnl_today"], seen["accounts"][0]["state"]) == (2, None, "unknown")
    assert seen["not_known"] == ["paper-1", "paper-2"]


async def test_what_was_told_long_ago_is_not_shown_as_what_is(stage: Stage, key: str) -> None:
    await told(stage, "bo", account("paper-2"), at=time.time_ns() - 30 * 10**9)
    seen = await stage.get("/v1/deck")
    assert (seen["pnl_today"], seen["gross"], seen["gross_use"], seen["not_known"]) == ("7", "100", None, ["paper-2"])
    two = seen["accounts"][1]
    assert (two["state"], two["equity"], two["pnl_today"], two["gross"]) == ("unknown", None, None, None)
    heat = await stage.get("/v1/risk/heat")
    assert [each["account"] for each in heat["old"]] == ["paper-2"]
    assert heat["old"][0]["at"] is not None
    await stage.services.hot.delete("portfolio:bo")
    assert (await stage.get("/v1/risk/heat"))["old"] == [{"account": "paper-2", "at": None}]
    await stage.ask("PATCH", "/v1/accounts/paper-2", {"enabled": False})
    seen = await stage.get("/v1/deck")
    # It has an order open, which may fill whether it is switched on or not.
    assert (seen["not_known"], seen["gross"], seen["gross_use"]) == (["paper-2"], "100", None)
    await stage.ask("DELETE", "/v1/orders/paper-2/k-2")
    seen = await stage.get("/v1/deck")
    assert (seen["not_known"], seen["gross"], seen["gross_use"]) == ([], "100", 0.3)
    async with stage.services.database.connection() as connection:
        await connection.execute("INSERT INTO positions VALUES ('paper-2', %s, 1, -2, 10, 0, 0, 0, 1)", (BTC,))
    assert (await stage.get("/v1/deck"))["not_known"] == ["paper-2"]
    assert [each["account"] for each in (await stage.get("/v1/risk/heat"))["old"]] == ["paper-2"]
    # What its session tells of it counts, on or off.
    await told(stage, "bo", account("paper-2", connected=False))
    seen = await stage.get("/v1/deck")
    assert (seen["not_known"], seen["gross"], seen["accounts"][1]["state"]) == ([], "300", "off")


async def test_without_word_of_central_risk_no_sum_is_shown(stage: Stage, key: str) -> None:
    view = {"at": time.time_ns() - 30 * 10**9, "levels": [use("account:paper-1", 100, 7)], "limits": []}
    await stage.services.hot.put("risk", view, 60)
    seen = await stage.get("/v1/deck")
    assert (seen["pnl_today"], seen["gross"], seen["net"]) == (None, None, None)
    assert seen["trouble"] == "central risk has told nothing lately"
    nobody = await stage.person("cho", "viewer")
    assert (await stage.get("/v1/deck", key=nobody))["pnl_today"] == "0"


async def test_an_account_in_which_nothing_has_happened_counts_as_nothing(stage: Stage, key: str) -> None:
    await risk_told(stage, use("account:paper-1", 100, 7))
    await told(stage, "bo", account("paper-2", profit="0", gross_exposure="0"))
    seen = await stage.get("/v1/deck")
    assert (seen["pnl_today"], seen["not_known"], seen["accounts"][1]["gross"]) == ("7", [], "0")
    await told(stage, "bo", account("paper-2", profit="1", gross_exposure="0"))
    assert (await stage.get("/v1/deck"))["not_known"] == ["paper-2"]


async def test_a_hundred_who_look_at_once_cost_one_reading(
    stage: Stage, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glance, "FRESH_S", 30.0)
    reads = 0
    real = stage.services.desired.feeds

    async def counted() -> Any:
        nonlocal reads
        # The hub looks at feeds of its own accord.
        task = asyncio.current_task()
        reads += task is not None and task.get_name() == "glance"
        await asyncio.sleep(0.05)
        return await real()

    monkeypatch.setattr(stage.services.desired, "feeds", counted)
    stage.services.glance._seen = None
    answers = await asyncio.gather(*(stage.get("/v1/deck", key=each) for each in [stage.operator_key, key] * 50))
    assert reads == 1
    assert len({answer["at"] for answer in answers}) == 1
    assert {answer["gross"] for answer in answers} == {"300", "100"}


async def test_the_heat_table_adds_up_and_keeps_others_out(stage: Stage, key: str) -> None:
    def cell(account: str, algo: str, instrument: str, risk: str) -> RiskCell:
        return RiskCell(account=AccountId(account), algo=algo, instrument=instrument, at_risk=D(risk))  # type: ignore[arg-type]

    hot = stage.services.hot
    await hot.put("heat:asha", [cell("paper-1", "momo-1", BTC, "30"), cell("paper-1", "", ETH, "10")], 60)
    await hot.put("heat:bo", [cell("paper-2", "momo-2", ETH, "60")], 60)
    whole = await stage.get("/v1/risk/heat")
    assert (whole["total"], whole["algos"], whole["instruments"]) == ("100", ["momo-2", "momo-1", ""], [ETH, BTC])
    assert [(c["algo"], c["instrument"], c["at_risk"], c["share"]) for c in whole["cells"]] == [
        ("momo-2", ETH, "60", 0.6),
        ("momo-1", BTC, "30", 0.3),
        ("", ETH, "10", 0.1),
    ]
    mine = await stage.get("/v1/risk/heat", key=key)
    assert (mine["total"], mine["algos"], mine["currency"]) == ("40", ["momo-1", ""], "USDT")


async def test_the_tree_shows_limits_with_their_use_where_they_hold(stage: Stage, key: str) -> None:
    await stage.services.desired.set_limit("account:paper-1", "position", BTC, D("2"), by="test")
    root = await stage.get("/v1/risk/tree")
    assert (root["scope"], root["figures"]["gross"]) == ("cluster", "300")
    (limit,) = root["limits"]
    assert {name: limit[name] for name in ("kind", "value", "used", "use", "unit", "generation")} == {
        "kind": "gross_exposure", "value": "1000", "used": "300", "use": 0.3, "unit": "money", "generation": 1,
    }  # fmt: skip
    asha, bo = root["children"]
    assert [each["scope"] for each in (asha, bo)] == ["user:asha", "user:bo"]
    assert [(each["scope"], each["instrument"]) for each in asha["children"]] == [
        ("account:paper-1", ""),
        ("user:asha", BTC),
    ]
    (leaf,) = asha["children"][0]["children"]
    assert (leaf["instrument"], leaf["limits"][0]["value"], leaf["limits"][0]["used"]) == (BTC, "2", None)
    mine = await stage.get("/v1/risk/tree", key=key)
    assert (mine["figures"], mine["limits"][0]["value"]) == (None, "1000")
    assert [each["scope"] for each in mine["children"]] == ["user:asha"]


async def test_the_tree_says_what_of_it_a_silent_session_told_and_when(stage: Stage, key: str) -> None:
    def levels(node: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
        found = {(node["scope"], node["instrument"]): node}
        for child in node["children"]:
            found |= levels(child)
        return found

    def old(node: dict[str, Any]) -> list[tuple[str | None, bool]]:
        return [(each["account"], each["at"] is not None) for each in node["old"]]

    limits = stage.services.desired.set_limit
    await limits("account:paper-2", "gross_exposure", "", D("500"), by="test")
    state = {"scope": "account:paper-2", "kind": "gross_exposure", "instrument": "", "used": "200"}
    view = await stage.services.hot.get("risk", dict[str, Any])
    assert view is not None
    await stage.services.hot.put("risk", {**view, "at": time.time_ns(), "limits": [*view["limits"], state]}, 60)
    assert not [each for each in levels(await stage.get("/v1/risk/tree")).values() if each["old"]]

    quiet_at = time.time_ns() - 30 * 10**9
    await told(stage, "bo", account("paper-2"), at=quiet_at)
    seen = levels(await stage.get("/v1/risk/tree"))
    assert {where: old(each) for where, each in seen.items() if each["old"]} == {
        ("cluster", ""): [("paper-2", True)],
        ("user:bo", ""): [("paper-2", True)],
        ("account:paper-2", ""): [("paper-2", True)],
    }
    # What it holds counts all the same, as of then.
    account_level = seen["account:paper-2", ""]
    assert (account_level["figures"]["gross"], account_level["limits"][0]["used"]) == ("200", "200")
    assert datetime.fromisoformat(account_level["old"][0]["at"][:26]).second == (quiet_at // 10**9) % 60
    # Who may not see the account hears that something is old, not whose.
    mine = await stage.get("/v1/risk/tree", key=key)
    assert old(mine) == [(None, True)]
    assert not [each for each in mine["children"] if each["old"]]

    await stage.services.hot.delete("portfolio:bo")
    seen = levels(await stage.get("/v1/risk/tree"))
    account_level = seen["account:paper-2", ""]
    assert (account_level["figures"], old(account_level)) == (None, [("paper-2", False)])
    assert (account_level["limits"][0]["used"], account_level["limits"][0]["use"]) == (None, None)
    root = seen["cluster", ""]
    assert (root["figures"]["gross"], root["limits"][0]["used"], root["limits"][0]["use"]) == ("300", "300", None)

    # Switched off, and nothing of it anywhere: nobody waits for word of it.
    await stage.ask("PATCH", "/v1/accounts/paper-2", {"enabled": False})
    assert (await stage.get("/v1/risk/tree"))["old"], "central risk still counts what it held"
    await risk_told(stage, use("account:paper-1", 100, 7))
    assert (await stage.get("/v1/risk/tree"))["old"], "an order of it may fill still"
    await stage.ask("DELETE", "/v1/orders/paper-2/k-2")
    assert (await stage.get("/v1/risk/tree"))["old"] == []


async def test_the_tree_is_as_old_as_what_central_risk_told(stage: Stage, key: str) -> None:
    await stage.services.hot.put(
        "risk", {"at": time.time_ns() - 30 * 10**9, "levels": [use("account:paper-1", 100, 7)], "limits": []}, 60
    )
    root = await stage.get("/v1/risk/tree")
    assert [each["account"] for each in root["old"]] == ["paper-1", "paper-2"]
    asha = root["children"][0]["children"][0]
    assert (asha["scope"], asha["figures"]["gross"], asha["old"][0]["account"]) == ("account:paper-1", "100", "paper-1")
    await stage.services.hot.delete("risk")
    root = await stage.get("/v1/risk/tree")
    assert [each["at"] for each in root["old"]] == [None, None]
    assert root["children"][0]["children"][0]["figures"] is None


async def test_things_are_found_by_a_part_of_their_name_where_they_may_be_seen(stage: Stage, key: str) -> None:
    async def found(q: str, key: str | None = None) -> list[tuple[str, str]]:
        answer = await stage.ask("GET", f"/v1/search?q={q}", key=key)
        assert answer.status_code == 200, answer.text
        return [(each["kind"], each["id"]) for each in answer.json()["items"]]

    assert await found("momo") == [("algo", "momo-1"), ("algo", "momo-2")]
    assert await found("MOMO", key) == [("algo", "momo-1")]
    assert await found("btc", key) == [("instrument", BTC)]
    assert await found("k-", key) == [("order", "paper-1/k-1")]
    assert ("order", "paper-2/k-2") in await found("k-2")
    assert await found("k-2", key) == []
    assert await found("crypto") == [("feed", "crypto")]
    assert await found("asha") == [("user", "asha"), ("account", "paper-1")][:1]
    assert ("strategy", "ma-cross") in await found("cross")
    assert await found("%25") == await found("_") == []
    assert await found("%20") == []
    await stage.refused(422, "bad_input", "GET", "/v1/search?q=")
    await stage.refused(422, "bad_input", "GET", "/v1/search?q=a%00b")


async def test_an_ended_order_is_found_by_its_whole_key(stage: Stage, key: str) -> None:
    await stage.ask("DELETE", "/v1/orders/paper-1/k-1", key=key)
    items = (await stage.get("/v1/search?q=k-1", key=key))["items"]
    assert [(each["kind"], each["detail"]) for each in items] == [("order", f"buy {BTC}, cancelled")]
    assert (await stage.get("/v1/search?q=K-", key=key))["items"] == []


async def test_an_account_is_flattened_and_those_of_others_are_not(stage: Stage, key: str) -> None:
    held = Position(account=AccountId("paper-1"), instrument=ETH, quantity=D("-1.5"))
    of_algo = replace(held, algo="momo-1", quantity=D("-1"))
    epoch = await Leases(stage.services.database).take("session/test", "test", 60)
    journal = stage.services.journal
    await journal.append("session/test", epoch, 1, journal.prepare(JournalBatch(positions=[held, of_algo])))
    positions = await stage.get("/v1/positions?algo=momo-1", key=key)
    assert [(each["instrument"], each["quantity"]) for each in positions["items"]] == [(ETH, "-1")]
    await stage.refused(404, "unknown_algo", "GET", "/v1/positions?algo=momo-2", key=key)
    done = (await stage.ask("POST", "/v1/accounts/paper-1/flatten", {"reason": "weekend"}, key=key)).json()
    assert (done["cancelled"], done["refused"]) == (1, [])
    (closing,) = done["closing"]
    assert (closing["side"], closing["quantity"], closing["type"], closing["reduce_only"]) == (
        "buy", "1.5", "market", True,
    )  # fmt: skip
    (entry,) = await stage.services.desired.audit_of("paper-1", limit=1)
    assert (entry.actor, entry.action, entry.after["reason"]) == ("asha", "flatten", "weekend")
    await stage.refused(404, "unknown_account", "POST", "/v1/accounts/paper-2/flatten", {"reason": "x"}, key=key)
    viewer = await stage.person("dee", "viewer")
    await stage.refused(403, "forbidden", "POST", "/v1/accounts/paper-1/flatten", {"reason": "x"}, key=viewer)


async def test_maxima_come_as_points_of_a_chart(stage: Stage, key: str) -> None:
    from storage.records import MaximaRecord

    epoch = await Leases(stage.services.database).take("risk/main", "test", 60)
    today = Nanos(time.time_ns())
    zero = dict.fromkeys(("long", "short", "money_at_risk", "loss", "drawdown"), D(0))
    for scope in ("user:asha", "user:bo"):
        top = MaximaRecord(day=today, scope=scope, instrument="", gross=D(9), open_orders=4, sampled_at=today, **zero)
        await stage.services.days.save_maxima(epoch, [top, replace(top, instrument=BTC)])
    (point,) = (await stage.get("/v1/risk/maxima/series?kind=gross&days=2", key=key))["items"]
    assert (point["scope"], point["kind"], point["value"]) == ("user:asha", "gross", "9")
    assert len((await stage.get("/v1/risk/maxima/series?scope=user:bo"))["items"]) == 7
    assert (await stage.get("/v1/risk/maxima/series?scope=user:bo", key=key))["items"] == []
    await stage.refused(422, "bad_input", "GET", "/v1/risk/maxima/series?kind=colour")

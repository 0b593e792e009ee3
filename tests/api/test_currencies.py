"""Beside every amount its currency; several have no sum."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from api import glance
from storage.equity import Sample
from storage.leases import Leases
from storage.records import MaximaRecord
from tests.api.playing import BTC, ETH, Stage, algo_body, instrument
from tests.api.test_deck_view import account, told, use
from trading.heat import RiskCell
from trading.ids import AccountId, AlgoId, InstrumentId, Nanos
from trading.journal import JournalBatch
from trading.positions import Position

D = Decimal
INFY = InstrumentId("NSE:INFY")


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request reads anew."""
    monkeypatch.setattr(glance, "FRESH_S", 0.0)
    monkeypatch.setattr(glance, "CURRENCIES_S", 0.0)


@pytest.fixture
async def key(stage: Stage) -> str:
    """Asha trades in USDT, bo in USDT and rupees; asha's key."""
    key = await stage.trading()
    await stage.trading("bo", "paper-2")
    await stage.fed()
    await stage.services.instruments.upsert([replace(instrument(INFY), currency="INR")])
    await stage.make("/v1/algos", algo_body())
    await stage.make("/v1/algos", algo_body("momo-2", account="paper-2"))

    def held(account: str, instrument: str, algo: str | None = None) -> Position:
        found = Position(account=AccountId(account), instrument=InstrumentId(instrument), quantity=D(1), realised=D(4))
        return found if algo is None else replace(found, algo=AlgoId(algo))

    positions = [
        held("paper-1", BTC), held("paper-1", BTC, "momo-1"),
        held("paper-2", ETH), held("paper-2", INFY), held("paper-2", INFY, "momo-2"),
    ]  # fmt: skip
    epoch = await Leases(stage.services.database).take("session/test", "test", 60)
    journal = stage.services.journal
    await journal.append("session/test", epoch, 1, journal.prepare(JournalBatch(positions=positions)))
    await told(stage, "asha", account("paper-1"))
    await told(stage, "bo", account("paper-2"))
    levels = [use(scope, 100, 7) for scope in ("cluster", "user:asha", "account:paper-1", "algo:momo-1")]
    levels += [use(scope, 50, 3) for scope in ("user:bo", "account:paper-2", "algo:momo-2")]
    levels += [use("user:bo", 20, 1, instrument=INFY)]
    line = {"resource": "r", "instrument": "", "used": "150", "lent": "160", "limit": "900", "by_session": {}}
    lines = [{**line, "scope": "cluster", "kind": kind} for kind in ("gross_exposure", "open_orders")]
    view = {"at": time.time_ns(), "epoch": 1, "limits_version": 1, "exposure": lines, "over": [], "levels": levels}
    state = {"used": "150", "breached": False, "holds": True, "since": 1, "waiting": []}
    used = [{"scope": "cluster", "kind": "gross_exposure", "instrument": "", "value": "900", **state}]
    await stage.services.hot.put("risk", {**view, "limits": used}, 60)
    for scope, kind in (
        ("cluster", "gross_exposure"), ("user:asha", "daily_loss"), ("user:asha", "open_orders"),
    ):  # fmt: skip
        await stage.services.desired.set_limit(scope, kind, "", D(900), by="test")
    await stage.services.desired.set_limit("cluster", "order_notional", INFY, D(5), by="test")
    return key


async def test_levels_tell_their_currency_and_sum_up_no_others(stage: Stage, key: str) -> None:
    seen = await stage.get("/v1/risk/exposure")
    by_scope = {(each["scope"], each["instrument"]): each for each in seen["levels"]}
    for scope in ("user:asha", "account:paper-1", "algo:momo-1"):
        level = by_scope[(scope, "")]
        assert (level["currency"], level["gross"], level["profit"]) == ("USDT", "100", "7"), scope
    for scope in ("cluster", "user:bo", "account:paper-2", "algo:momo-2"):
        level = by_scope[(scope, "")]
        assert (level["currency"], level["currencies"]) == ("", ["INR", "USDT"]), scope
        assert {level[name] for name in ("gross", "net", "long", "short", "profit", "drawdown")} == {None}, scope
    assert (by_scope[("user:bo", INFY)]["currency"], by_scope[("user:bo", INFY)]["gross"]) == ("INR", "20")
    gross, orders = seen["exposure"]
    assert (gross["used"], gross["currencies"], orders["currencies"]) == ("150", ["INR", "USDT"], [])
    (mine,) = [
        each for each in (await stage.get("/v1/risk/exposure", key=key))["levels"] if each["scope"] == "user:asha"
    ]
    assert (mine["currency"], mine["gross"]) == ("USDT", "100")


async def test_the_tree_keeps_the_use_of_limits_and_no_sums(stage: Stage, key: str) -> None:
    root = await stage.get("/v1/risk/tree")
    assert (root["currency"], root["currencies"]) == ("", ["INR", "USDT"])
    assert (root["figures"]["gross"], root["figures"]["open_orders"]) == (None, 0)
    # What central risk holds against the limit stays told.
    (limit,) = root["limits"]
    assert (limit["used"], limit["use"]) == ("150", 0.166667)
    leaf, asha = next(e for e in root["children"] if e["instrument"]), root["children"][0]
    assert (leaf["instrument"], leaf["currency"]) == (INFY, "INR")
    assert (asha["scope"], asha["currency"], asha["figures"]["gross"]) == ("user:asha", "USDT", "100")
    # What others trade in is not told.
    assert (await stage.get("/v1/risk/tree", key=key))["currencies"] == ["USDT"]


async def test_limits_of_money_have_a_currency_and_others_have_none(stage: Stage, key: str) -> None:
    items = (await stage.get("/v1/risk/limits"))["items"]
    assert {(each["scope"], each["kind"], each["instrument"]): each["currency"] for each in items} == {
        ("cluster", "gross_exposure", ""): "",
        ("cluster", "order_notional", INFY): "INR",
        ("user:asha", "daily_loss", ""): "USDT",
        ("user:asha", "open_orders", ""): "",
    }
    body = {"scope": "account:paper-1", "kind": "gross_exposure", "value": "5"}
    assert (await stage.ask("PUT", "/v1/risk/limits", body)).json()["currency"] == "USDT"


async def test_heat_is_added_up_by_currency(stage: Stage, key: str) -> None:
    def cell(account: str, algo: str, instrument: str, risk: str) -> RiskCell:
        return RiskCell(account=AccountId(account), algo=algo, instrument=InstrumentId(instrument), at_risk=D(risk))

    await stage.services.hot.put("heat:asha", [cell("paper-1", "momo-1", BTC, "30")], 60)
    await stage.services.hot.put(
        "heat:bo", [cell("paper-2", "", ETH, "10"), cell("paper-2", "momo-2", INFY, "900")], 60
    )
    heat = await stage.get("/v1/risk/heat")
    assert (heat["total"], heat["currency"], heat["currencies"]) == (None, "", ["INR", "USDT"])
    assert heat["totals"] == [{"currency": "INR", "at_risk": "900"}, {"currency": "USDT", "at_risk": "40"}]
    assert {(each["instrument"], each["currency"], each["share"]) for each in heat["cells"]} == {
        (INFY, "INR", 1.0), (BTC, "USDT", 0.75), (ETH, "USDT", 0.25),
    }  # fmt: skip
    mine = await stage.get("/v1/risk/heat", key=key)
    assert (mine["total"], mine["currency"]) == ("30", "USDT")


async def test_maxima_and_curves_of_several_currencies_are_none(stage: Stage, key: str) -> None:
    today = Nanos(time.time_ns())
    zero = dict.fromkeys(("long", "short", "money_at_risk", "loss", "drawdown"), D(0))
    epoch = await Leases(stage.services.database).take("risk/main", "test", 60)
    tops = [
        MaximaRecord(day=today, scope=scope, instrument="", gross=D(9), open_orders=4, sampled_at=today, **zero)
        for scope in ("user:asha", "user:bo")
    ]
    await stage.services.days.save_maxima(epoch, tops)
    points = (await stage.get("/v1/risk/maxima/series?days=2"))["items"]
    told_of = {(each["scope"], each["kind"]): (each["value"], each["currency"]) for each in points}
    assert told_of[("user:asha", "gross")] == ("9", "USDT")
    assert told_of[("user:bo", "gross")] == (None, "")
    assert told_of[("user:bo", "open_orders")] == told_of[("user:asha", "open_orders")] == ("4", "")
    days = {each["scope"]: each for each in await stage.get("/v1/risk/maxima?days=2")}
    assert (days["user:asha"]["gross"], days["user:bo"]["gross"], days["user:bo"]["open_orders"]) == ("9", None, 4)

    owner = "surveillance/main"
    epoch = await Leases(stage.services.database).take(owner, "test", 60)
    scopes = ("algo:momo-1", "algo:momo-2", "account:paper-1", "account:paper-2")
    await stage.services.equity.save(
        owner, epoch, [Sample(scope=s, at=Nanos(time.time_ns()), pnl=D(1)) for s in scopes]
    )
    for path, currency, count in (
        ("algos/momo-1", "USDT", 1), ("algos/momo-2", "", 0), ("accounts/paper-1", "USDT", 1),
        ("accounts/paper-2", "", 0),
    ):  # fmt: skip
        curve = await stage.get(f"/v1/{path}/equity")
        assert (curve["currency"], len(curve["items"])) == (currency, count), path


async def test_positions_are_in_the_currency_of_their_instrument(stage: Stage, key: str) -> None:
    items = (await stage.get("/v1/positions"))["items"]
    assert {(each["account"], each["instrument"]): each["currency"] for each in items} == {
        ("paper-1", BTC): "USDT", ("paper-2", ETH): "USDT", ("paper-2", INFY): "INR",
    }  # fmt: skip
    several: dict[str, Any] = account("paper-2", currencies=["INR", "USDT"])
    await told(stage, "bo", several)
    (shown,) = (await stage.get("/v1/portfolio?user=bo"))["accounts"]
    assert (shown["cash"], shown["currency"], shown["profit"], shown["gross_exposure"]) == ("1000", "USDT", None, None)
    await told(stage, "bo", account("paper-2", currencies=["INR"]))
    (shown,) = (await stage.get("/v1/portfolio?user=bo"))["accounts"]
    assert (shown["currencies"], shown["profit"]) == (["INR"], "5")


async def test_an_algos_profit_in_several_currencies_is_not_told(stage: Stage, key: str) -> None:
    live = {
        "epoch": 0, "node": "n", "at": time.time_ns(), "state": "running", "reason": "", "ticks": 0, "batches_lost": 0,
        "intents": 0, "orders_acked": 0, "fills": 0, "denied": 0, "open_orders": 0, "tick_age_s": None,
        "positions": {}, "realised": "12.5", "tick_to_strategy": {}, "intent_to_ack": {},
    }  # fmt: skip

    async def shown(**more: Any) -> tuple[str | None, str]:
        await stage.services.hot.put("algo:momo-1", {**live, **more}, 60)
        told_live = (await stage.get("/v1/algos/momo-1"))["live"]
        return told_live["realised"], told_live["currency"]

    assert await shown(currencies=["USDT"]) == ("12.5", "USDT")
    assert await shown(currencies=["INR", "USDT"]) == (None, "")
    # Told by an incarnation of the release before.
    assert await shown() == ("12.5", "")

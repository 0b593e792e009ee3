from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import pytest

from storage.journal import Journal
from storage.leases import Leases
from tests.api.playing import BTC, Stage
from tests.storage.samples import event, fill, order
from trading.ids import AccountId, Nanos
from trading.journal import Break, BreakKind, JournalBatch
from trading.orders import EventKind
from trading.positions import Position


@pytest.fixture
async def key(stage: Stage) -> str:
    return await stage.trading()


async def _journal(stage: Stage, account: str) -> None:
    journal = Journal(stage.services.database)
    epoch = await Leases(stage.services.database).take(f"session/{account}", "test", 60)
    placed = order(f"o-{account}", account=account)
    executed = event(placed, EventKind.FILLED, fill=fill(f"x-{account}"))
    batch = JournalBatch(
        orders=[placed],
        events=[event(placed, EventKind.PENDING), executed],
        positions=[
            Position(account=AccountId(account), instrument=BTC, quantity=Decimal("0.5"), updated_at=Nanos(5)),
            Position(account=AccountId(account), instrument=placed.instrument + "X", quantity=Decimal(0)),  # type: ignore[arg-type]
        ],
        breaks=[
            Break(
                id=f"b-{account}",
                account=AccountId(account),
                instrument=BTC,
                kind=BreakKind.POSITION,
                ours="1",
                theirs="2",
                opened_at=Nanos(10**18),
            )
        ],
    )
    await journal.append(f"session/{account}", epoch, 1, journal.prepare(batch))


async def test_everyone_sees_own_fills_positions_and_breaks(stage: Stage, key: str) -> None:
    await stage.trading("bo", "paper-2")
    for account in ("paper-1", "paper-2"):
        await _journal(stage, account)
    (seen,) = (await stage.get("/v1/fills", key=key))["items"]
    assert (seen["account"], seen["fill"]["quantity"], seen["fill"]["fee"]) == ("paper-1", "0.5", "0.0135")
    (held,) = (await stage.get("/v1/positions", key=key))["items"]
    assert (held["account"], held["quantity"]) == ("paper-1", "0.5")
    assert len((await stage.get("/v1/positions?flat=true", key=key))["items"]) == 2
    (open_break,) = (await stage.get("/v1/breaks", key=key))["items"]
    assert (open_break["id"], open_break["resolved_at"]) == ("b-paper-1", None)
    for path, count in (("fills", 2), ("positions", 2), ("breaks", 2), ("orders", 2)):
        assert len((await stage.get(f"/v1/{path}"))["items"]) == count


async def test_a_portfolio_is_shown_as_the_session_told_it(stage: Stage, key: str) -> None:
    await stage.refused(503, "not_ready", "GET", "/v1/portfolio", key=key)
    account = {
        "account": "paper-1",
        "connected": True,
        "reconciled": True,
        "cash": "1000.5",
        "currency": "USDT",
        "currencies": ["USDT"],
        "realised": "1",
        "unrealised": "2",
        "fees": "0.5",
        "profit": "2.5",
        "gross_exposure": "100",
        "open_orders": 1,
        "open_breaks": 0,
    }
    at = time.time_ns()
    view = {"user": "asha", "at": at, "accounts": [account], "positions": []}
    await stage.services.hot.put("portfolio:asha", view, 60)
    shown = await stage.get("/v1/portfolio", key=key)
    assert shown["accounts"] == [account]
    assert shown["at"].endswith("+00:00")
    assert (await stage.get("/v1/portfolio?user=asha"))["accounts"] == [account]


async def test_limits_are_set_versioned_and_lifted(stage: Stage, key: str) -> None:
    wanted: dict[str, Any] = {"scope": "account:paper-1", "kind": "position", "instrument": BTC, "value": "2.5"}
    answer = await stage.ask("PUT", "/v1/risk/limits", wanted)
    assert (answer.json()["value"], answer.json()["version"], answer.json()["changed_by"]) == ("2.5", 1, "admin")
    await stage.ask("PUT", "/v1/risk/limits", {"scope": "account:paper-1", "kind": "order_notional", "value": "9"})
    await stage.ask("PUT", "/v1/risk/limits", {"scope": "cluster", "kind": "gross_exposure", "value": "100"})
    assert len((await stage.get("/v1/risk/limits", key=key))["items"]) == 3
    other = await stage.person("bo", "viewer")
    (seen,) = (await stage.get("/v1/risk/limits", key=other))["items"]
    assert seen["scope"] == "cluster"
    path = f"/v1/risk/limits?scope=account:paper-1&kind=position&instrument={BTC}"
    assert (await stage.ask("DELETE", path)).status_code == 204
    await stage.refused(404, "unknown_limit", "DELETE", path)
    assert (await stage.ask("PUT", "/v1/risk/limits", wanted)).json()["version"] == 3


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scope": "galaxy"}, "scope"),
        ({"scope": "account:nobody"}, "scope"),
        ({"kind": "colour"}, "kind"),
        ({"value": "-1"}, "value"),
        ({"value": "NaN"}, "value"),
        ({"instrument": "btc"}, "instrument"),
        ({"instrument": "BINANCE:NOPE"}, "instrument"),
        ({"kind": "gross_exposure", "instrument": BTC}, "instrument"),
    ],
)
async def test_a_wrong_limit_is_refused_by_field(stage: Stage, key: str, changes: dict[str, Any], field: str) -> None:
    body = {"scope": "cluster", "kind": "position", "value": "1", **changes}
    answer = await stage.ask("PUT", "/v1/risk/limits", body)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert await stage.services.desired.limits() == []


async def test_exposure_is_shown_to_whom_it_concerns(stage: Stage, key: str) -> None:
    await stage.refused(503, "not_ready", "GET", "/v1/risk/exposure", key=key)

    def line(scope: str) -> dict[str, Any]:
        return {
            "resource": f"{scope}/gross_exposure/",
            "scope": scope,
            "kind": "gross_exposure",
            "instrument": "",
            "used": "10",
            "lent": "20",
            "limit": None,
            "by_session": {"session/asha": "10"},
        }

    scopes = ["cluster", "account:paper-1", "account:paper-2"]
    view = {
        "at": time.time_ns(),
        "epoch": 1,
        "limits_version": 2,
        "exposure": [line(scope) for scope in scopes],
        "over": [f"{scope}/gross_exposure/" for scope in scopes],
    }
    await stage.services.hot.put("risk", view, 60)
    mine = await stage.get("/v1/risk/exposure", key=key)
    assert [each["scope"] for each in mine["exposure"]] == ["account:paper-1"]
    assert mine["over"] == ["account:paper-1/gross_exposure/"]
    assert len((await stage.get("/v1/risk/exposure"))["exposure"]) == 3

"""Breaks as a resource: who sees them, who decides, and what is refused."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest

from storage.journal import Journal
from storage.leases import Leases
from tests.api.playing import BTC, ETH, Stage
from trading.ids import AccountId, InstrumentId, Nanos
from trading.journal import Break, BreakKind, JournalBatch, Settlement

BASE = 1_700_000_000_000_000_000
SEEN = {"ours": "1", "theirs": "2", "note": "bought by phone"}


@pytest.fixture
async def key(stage: Stage) -> str:
    return await stage.trading()


async def _open(stage: Stage, *breaks: Break) -> None:
    journal = Journal(stage.services.database)
    epoch = await Leases(stage.services.database).take("session/test", "test", 60)
    await journal.append("session/test", epoch, 1, journal.prepare(JournalBatch(breaks=list(breaks))))


def _break(id: str, account: str = "paper-1", **changes: Any) -> Break:
    values: dict[str, Any] = {
        "id": id,
        "account": AccountId(account),
        "instrument": BTC,
        "kind": BreakKind.POSITION,
        "ours": "1",
        "theirs": "2",
        "opened_at": Nanos(BASE),
        **changes,
    }
    return Break(**values)


@pytest.mark.parametrize(("verb", "how"), [("accept", "accepted"), ("explain", "explained")])
async def test_the_accounts_own_trader_settles_a_break_and_it_is_audited(
    stage: Stage, key: str, verb: str, how: str
) -> None:
    await _open(stage, _break("brk-1"))
    (shown,) = (await stage.get("/v1/breaks", key=key))["items"]
    assert (shown["ours"], shown["theirs"], shown["settlement"], shown["resolved_by"]) == ("1", "2", None, "")
    assert shown["age_s"] > 0
    answer = await stage.ask("POST", f"/v1/breaks/brk-1/{verb}", SEEN, key=key)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["settlement"], said["resolved_by"], said["age_s"]) == (how, "asha", 2.0)
    assert said["resolution"] == f"{how} by asha: bought by phone"
    assert (await stage.get("/v1/breaks", key=key))["items"] == []
    assert (await stage.get("/v1/breaks/brk-1", key=key)) == said
    assert [each["id"] for each in (await stage.get("/v1/breaks?resolved=true", key=key))["items"]] == ["brk-1"]
    async with stage.services.database.connection() as connection:
        rows = await connection.execute("SELECT actor, action, subject FROM audit WHERE subject = 'brk-1'")
        assert await rows.fetchall() == [("asha", f"{verb}_break", "brk-1")]


async def test_a_break_is_not_settled_twice_nor_after_it_moved(stage: Stage, key: str) -> None:
    await _open(stage, _break("brk-1"))
    moved = {**SEEN, "theirs": "3"}
    await stage.refused(409, "break_moved", "POST", "/v1/breaks/brk-1/accept", moved, key=key)
    assert (await stage.ask("POST", "/v1/breaks/brk-1/accept", SEEN, key=key)).status_code == 200
    said = await stage.refused(409, "break_not_open", "POST", "/v1/breaks/brk-1/explain", SEEN, key=key)
    assert "bought by phone" in said["detail"]


async def test_others_breaks_are_not_there(stage: Stage, key: str) -> None:
    other = await stage.trading("bo", "paper-2")
    await _open(stage, _break("brk-1"), _break("brk-2", "paper-2"))
    assert [each["id"] for each in (await stage.get("/v1/breaks", key=other))["items"]] == ["brk-2"]
    for path in ("", "/accept", "/explain"):
        method, body = ("POST", SEEN) if path else ("GET", None)
        await stage.refused(404, "unknown_break", method, f"/v1/breaks/brk-1{path}", body, key=other)
        await stage.refused(404, "unknown_break", method, f"/v1/breaks/nope{path}", body, key=other)
    assert (await stage.ask("POST", "/v1/breaks/brk-2/accept", SEEN)).status_code == 200
    viewer = await stage.person("cy", "viewer")
    await stage.refused(403, "forbidden", "POST", "/v1/breaks/brk-1/accept", SEEN, key=viewer)


@pytest.mark.parametrize(("body", "field"), [({"note": ""}, "note"), ({"ours": None}, "ours"), ({"how": "x"}, "how")])
async def test_a_decision_without_note_or_sides_is_refused(
    stage: Stage, key: str, body: dict[str, Any], field: str
) -> None:
    await _open(stage, _break("brk-1"))
    answer = await stage.ask("POST", "/v1/breaks/brk-1/accept", {**SEEN, **body}, key=key)
    assert answer.status_code == 422
    assert answer.json()["field"] == field


async def test_breaks_are_filtered_and_paged_oldest_first(stage: Stage, key: str) -> None:
    await stage.trading("bo", "paper-2")
    await _open(
        stage,
        *(_break(f"brk-{n}", opened_at=Nanos(BASE + n * 10**9)) for n in range(5)),
        _break("eth", instrument=ETH),
        _break("cash", "paper-2", instrument=InstrumentId(""), kind=BreakKind.CASH),
        _break("old", resolved_at=Nanos(BASE + 1), settlement=Settlement.AGREED),
    )
    seen, cursor = [], ""
    for _ in range(5):
        page = await stage.get(f"/v1/breaks?instrument={BTC}&limit=2{cursor}", key=key)
        seen += [each["id"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == [f"brk-{n}" for n in range(5)]
    for query, expected in (
        ("kind=cash", ["cash"]),
        ("account=paper-2", ["cash"]),
        (f"instrument={ETH}", ["eth"]),
        ("since=2023-11-14T22:13:23Z", ["brk-3", "brk-4"]),
        (f"until=2023-11-14T22:13:21Z&instrument={BTC}&resolved=true", ["brk-0", "old"]),
    ):
        assert [each["id"] for each in (await stage.get(f"/v1/breaks?{query}"))["items"]] == expected
    await stage.refused(422, "bad_input", "GET", "/v1/breaks?cursor=nonsense")


async def test_a_break_is_listed_and_accepted_from_the_command_line(stage: Stage, key: str, served: str) -> None:
    await _open(stage, _break("brk-1"))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        options = ("--url", f"http://{served}", "--api-key", key, "--json")
        return subprocess.run(
            [sys.executable, "-m", "cluster", *words, *options], capture_output=True, text=True, timeout=60, check=False
        )

    listed = await asyncio.to_thread(run, "breaks", "list", "--account", "paper-1")
    assert listed.returncode == 0, listed.stderr
    (shown,) = json.loads(listed.stdout)["items"]
    sides = ("--ours", shown["ours"], "--theirs", shown["theirs"])
    moved = await asyncio.to_thread(run, "breaks", "accept", "brk-1", "--ours", "9", "--theirs", "2", "--note", "x")
    assert moved.returncode == 1
    done = await asyncio.to_thread(run, "breaks", "accept", "brk-1", *sides, "--note", "by phone")
    assert json.loads(done.stdout)["settlement"] == "accepted", done.stderr
    checked = await asyncio.to_thread(run, "reconcile", "paper-1")
    assert json.loads(checked.stdout)["orders"] == 2, checked.stderr
    day = await asyncio.to_thread(run, "reconciliations", "--account", "paper-1", "--day", "2199-01-01")
    assert json.loads(day.stdout)["items"][0]["reason"] == "the day is not over", day.stderr


async def test_an_account_is_compared_now(stage: Stage, key: str) -> None:
    await _open(stage, _break("brk-1"))
    answer = await stage.ask("POST", "/v1/accounts/paper-1/reconcile", key=key)
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["orders"], said["our_cash"], said["breaks"][0]["id"]) == (2, "5", "brk-1")
    other = await stage.trading("bo", "paper-2")
    await stage.refused(404, "unknown_account", "POST", "/v1/accounts/paper-1/reconcile", key=other)


@pytest.mark.parametrize(
    ("field", "value", "fine"),
    [
        ("reconcile_positions_s", 5, True),
        ("reconcile_cash_s", 0, False),
        ("reconcile_orders_s", "5", False),
        ("cash_tolerance", 0, True),
        ("cash_tolerance", -1, False),
        ("day_starts_at_h", 0, True),
        ("day_starts_at_h", 24, False),
    ],
)
async def test_the_pace_of_comparisons_is_checked(
    stage: Stage, key: str, field: str, value: object, fine: bool
) -> None:
    body = {"id": "paper-9", "user": "asha", "connector": "paper", "settings": {field: value}}
    answer = await stage.ask("POST", "/v1/accounts", body)
    assert answer.status_code == (201 if fine else 422), answer.text
    if not fine:
        assert answer.json()["field"] == f"settings.{field}"


async def test_cash_of_the_journal_counts_what_came_after_it_was_based(stage: Stage) -> None:
    from storage.desired import Desired
    from tests.storage.samples import event, fill, order
    from trading.journal import CashBook
    from trading.orders import EventKind

    assert isinstance(stage.services.desired, Desired)
    journal = Journal(stage.services.database)
    epoch = await Leases(stage.services.database).take("session/u1", "test", 60)
    account = AccountId("cash-1")
    before, after = order("a", account=account), order("b", account=account)
    executed = event(before, EventKind.FILLED, fill=fill("x-1"))
    cash = CashBook(account=account, currency="USDT", amount=Decimal(1000), based_at=Nanos(5))
    first = JournalBatch(orders=[before], events=[event(before, EventKind.PENDING), executed], cash=[cash])
    await journal.append("session/u1", epoch, 1, journal.prepare(first))
    assert (await journal.load(account, Nanos(0))).cash == cash
    late = event(after, EventKind.FILLED, fill=fill("x-2"))
    second = JournalBatch(orders=[after], events=[event(after, EventKind.PENDING), late])
    for _ in range(2):
        await journal.append("session/u1", epoch, 2, journal.prepare(second))
    loaded = (await journal.load(account, Nanos(0))).cash
    assert loaded is not None
    assert late.fill is not None
    expected = CashBook(account=account, currency="USDT", amount=Decimal(1000), based_at=Nanos(5))
    expected.take(after.side, late.fill, Decimal(1), "")
    assert (loaded.amount, loaded.off) == (expected.amount, expected.off)

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import csv_text
from api.formats import parse_time
from api.routes import exports
from api.shapes import FillOfOrder, FillShown, OrderShown
from storage.journal import Journal
from storage.leases import Leases
from tests.api.playing import BTC, Stage
from tests.storage.samples import event, fill, order
from trading.errors import NotReady
from trading.journal import JournalBatch
from trading.orders import EventKind, OrderState

MANY = 20_500


async def many_orders(stage: Stage, count: int, account: str = "paper-1") -> None:
    """Orders, three of which always share an instant; every second one has a fill, every tenth was denied."""
    async with stage.services.database.connection() as connection:
        await connection.execute(
            """
            INSERT INTO orders (account, client_order_id, instrument, side, type, quantity, limit_price, time_in_force,
                reduce_only, algo, tag, state, created_at, updated_at, filled_quantity, average_price, reason,
                cancelling)
            SELECT %(account)s, 'k-' || n, %(instrument)s, 'buy', 'limit', n * 0.001, 27000.10, 'gtc', false,
                CASE WHEN n %% 4 = 0 THEN 'momo-1' END, 'tag', CASE WHEN n %% 10 = 0 THEN 'denied' ELSE 'filled' END,
                1700000000000000000 + n / 3, 1700000000000000001 + n, n * 0.001, 27000.10, '', false
            FROM generate_series(1, %(count)s) n
            """,
            {"account": account, "instrument": BTC, "count": count},
        )
        await connection.execute(
            """
            INSERT INTO fills (account, execution_id, client_order_id, instrument, side, algo, quantity, price, fee,
                fee_currency, at)
            SELECT %(account)s, 'x-' || n, 'k-' || n, %(instrument)s, 'buy', NULL, n * 0.001, 27000.10, -0.0135, 'USDT',
                1700000000000000000 + n / 3
            FROM generate_series(2, %(count)s, 2) n
            """,
            {"account": account, "instrument": BTC, "count": count},
        )


async def exported(stage: Stage, path: str, key: str | None = None) -> list[dict[str, str]]:
    answer = await stage.ask("GET", path, key=key)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


async def test_every_order_and_fill_of_a_long_history_is_in_the_file_once(stage: Stage) -> None:
    await stage.trading()
    await many_orders(stage, MANY)
    rows = await exported(stage, "/v1/orders.csv")
    assert len(rows) == MANY
    assert [row["client_order_id"] for row in rows] == [f"k-{n}" for n in range(MANY, 0, -1)]
    for row in rows[::97]:
        n = int(row["client_order_id"].removeprefix("k-"))
        assert Decimal(row["quantity"]) == Decimal(n) / 1000
        assert (row["limit_price"], row["stop_price"], row["reduce_only"]) == ("27000.10", "", "false")
        assert row["state"] == ("denied" if n % 10 == 0 else "filled")
        assert row["algo"] == ("momo-1" if n % 4 == 0 else "")
        assert parse_time(row["created_at"]) == 1700000000000000000 + n // 3
    fills = await exported(stage, "/v1/fills.csv")
    assert [row["execution_id"] for row in fills] == [f"x-{n}" for n in range(MANY, 0, -2)]
    assert {(row["price"], row["fee"], row["fee_currency"]) for row in fills} == {("27000.10", "-0.0135", "USDT")}
    assert sum(Decimal(row["quantity"]) for row in fills) == sum(Decimal(n) / 1000 for n in range(2, MANY + 1, 2))


async def test_the_filters_of_the_lists_hold_for_the_files(stage: Stage) -> None:
    await stage.trading()
    await many_orders(stage, 40)
    for query in ("state=denied", "state=denied&state=filled&algo=momo-1", "since=2023-11-14T22:13:20.000000005Z"):
        listed = (await stage.get(f"/v1/orders?limit=1000&{query}"))["items"]
        rows = await exported(stage, f"/v1/orders.csv?{query}")
        assert [row["client_order_id"] for row in rows] == [each["client_order_id"] for each in listed]
        assert 0 < len(rows) < 40
    until = "until=2023-11-14T22:13:20.000000005Z"
    listed = (await stage.get(f"/v1/fills?limit=1000&{until}"))["items"]
    rows = await exported(stage, f"/v1/fills.csv?{until}")
    assert [row["execution_id"] for row in rows] == [each["fill"]["execution_id"] for each in listed]
    assert 0 < len(rows) < 20
    assert await exported(stage, "/v1/orders.csv?instrument=BINANCE:NOPE") == []


async def test_nobody_exports_what_belongs_to_others(stage: Stage) -> None:
    key = await stage.trading()
    other = await stage.trading("bo", "paper-2")
    await many_orders(stage, 20)
    await many_orders(stage, 30, "paper-2")
    for kind in ("orders", "fills"):
        assert {row["account"] for row in await exported(stage, f"/v1/{kind}.csv", key)} == {"paper-1"}
        assert {row["account"] for row in await exported(stage, f"/v1/{kind}.csv", other)} == {"paper-2"}
        assert {row["account"] for row in await exported(stage, f"/v1/{kind}.csv")} == {"paper-1", "paper-2"}
        await stage.refused(404, "unknown_account", "GET", f"/v1/{kind}.csv?account=paper-2", key=key)
        await stage.refused(401, "unauthorized", "GET", f"/v1/{kind}.csv", key="")
    assert len(await exported(stage, "/v1/orders.csv?account=paper-2")) == 30


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("instrument=btc", "instrument"),
        ("state=lost", "state.0"),
        ("since=yesterday", "since"),
        ("account=%00", "account"),
        ("algo=%00", "algo"),
    ],
)
async def test_a_wrong_filter_is_a_problem_and_no_file(stage: Stage, query: str, field: str) -> None:
    for path in ("/v1/orders.csv", "/v1/orders"):
        assert (await stage.refused(422, "bad_input", "GET", f"{path}?{query}"))["field"] == field


async def test_what_a_broker_says_cannot_run_in_a_spreadsheet(stage: Stage) -> None:
    await stage.trading()
    journal = Journal(stage.services.database)
    epoch = await Leases(stage.services.database).take("session/asha", "test", 60)
    bad = '=HYPERLINK("http://evil","x")\r\nline two'
    placed = order("-1+2", account="paper-1", state=OrderState.REJECTED, reason=bad, broker_order_id="@SUM(A1)")
    executed = event(placed, EventKind.FILLED, fill=fill("+1-1"))
    events = [event(placed, EventKind.PENDING), executed]
    await journal.append("session/asha", epoch, 1, journal.prepare(JournalBatch(orders=[placed], events=events)))
    (row,) = await exported(stage, "/v1/orders.csv")
    assert (row["reason"], row["broker_order_id"], row["client_order_id"]) == (f"'{bad}", "'@SUM(A1)", "'-1+2")
    assert csv_text.plain(row["reason"]) == bad
    (row,) = await exported(stage, "/v1/fills.csv")
    assert row["execution_id"] == "'+1-1"


def test_a_text_is_marked_as_the_panel_marks_it() -> None:
    cases = json.loads(Path(__file__).parents[2].joinpath("api/panel/src/format/csv_marks.json").read_text("utf-8"))
    assert cases
    assert [[text, csv_text.safe(text)] for text, _ in cases] == cases


@given(st.text())
def test_marked_text_never_begins_a_formula_and_comes_back(text: str) -> None:
    marked = csv_text.safe(text)
    assert marked.lstrip(" ")[:1] not in tuple("=+-@\t\r\n＝＋－＠")
    assert (csv_text.plain(marked) if marked.startswith("'") else marked) == text


def test_the_files_have_the_fields_of_the_lists() -> None:
    assert [column.name for column in csv_text.ORDER] == list(OrderShown.model_fields)
    flat = [name for name in FillOfOrder.model_fields if name != "fill"] + list(FillShown.model_fields)
    assert [column.name for column in csv_text.FILL] == flat


async def test_a_file_goes_on_after_the_database_was_away_and_breaks_off_when_it_stays_away(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str | None] = []
    pages = {None: ([order("a")], "1"), "1": ([order("b")], "2"), "2": ([order("c")], None)}
    away = 2

    async def page(cursor: str | None) -> tuple[list[object], str | None]:
        nonlocal away
        read.append(cursor)
        if cursor == "1" and away:
            away -= 1
            raise NotReady("away", 0.01)
        rows, following = pages[cursor]
        return list(rows), following

    answer = await exports.answer("orders.csv", csv_text.ORDER, page)
    text = b"".join([bytes(part) async for part in answer.body_iterator]).decode()  # type: ignore[arg-type]
    assert [row["client_order_id"] for row in csv.DictReader(io.StringIO(text))] == ["a", "b", "c"]
    assert read == [None, "1", "1", "1", "2"]

    away = 10**6
    monkeypatch.setattr(exports, "_PATIENCE_S", 0.05)
    answer = await exports.answer("orders.csv", csv_text.ORDER, page)
    with pytest.raises(NotReady):
        await asyncio.wait_for(anext(_after(aiter(answer.body_iterator), 2)), 5)


async def _after(parts: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    """What comes after so many parts, which must come."""
    for _ in range(count):
        await anext(parts)
    async for part in parts:
        yield part


async def command(*words: str, url: str, key: str) -> tuple[int, str, str]:
    """The command line against a served deck: exit code, output, errors."""
    environment = {**os.environ, "QUARTERDECK_URL": f"http://{url}", "QUARTERDECK_API_KEY": key}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cluster", *words, stdout=pipe, stderr=pipe, env=environment
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_line_writes_a_whole_file_or_none(
    stage: Stage, served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await stage.trading()
    await many_orders(stage, 2_500)
    file = tmp_path / "orders.csv"
    code, _, told = await command("orders", "export", str(file), "--state", "denied", url=served, key=key)
    assert code == 0, told
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["client_order_id"] for row in rows] == [f"k-{n}" for n in range(2_500, 0, -10)]
    code, out, told = await command("fills", "export", "-", url=served, key=key)
    assert (code, len(out.splitlines())) == (0, 1_251), told
    code, _, told = await command("fills", "export", str(file), url=served, key=key)
    assert code == 2
    assert "--force" in told

    before = file.read_bytes()
    monkeypatch.setattr(exports, "_PATIENCE_S", 0.0)
    whole, asked = stage.services.journal.orders, 0

    async def away_after_a_page(*arguments: Any, **more: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise NotReady("PostgreSQL is away")
        return await whole(*arguments, **more)

    monkeypatch.setattr(stage.services.journal, "orders", away_after_a_page)
    code, _, told = await command("orders", "export", str(file), "--force", url=served, key=key)
    assert code == 3, told
    assert (asked, file.read_bytes(), os.listdir(tmp_path)) == (2, before, ["orders.csv"])

"""Reports of days as a resource."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from api.routes.reconciliations import _cell
from storage.leases import Leases
from storage.reconciliations import Reconciliations
from tests.api.playing import BTC, Stage
from trading.day_report import DAY_NS, CashLine, DayReport, Difference, Tally
from trading.errors import Fenced
from trading.ids import AccountId, ClientOrderId, Nanos
from trading.journal import Break, BreakKind, Settlement

STARTS = Nanos(20_000 * DAY_NS)
NONE = Tally(matched=0, differing=0)
ITEM = Break(
    id="brk-1",
    account=AccountId("paper-1"),
    instrument=BTC,
    kind=BreakKind.POSITION,
    ours="1",
    theirs="2",
    opened_at=STARTS,
    resolved_at=Nanos(STARTS + 5_000_000_000),
    resolution="accepted by asha: by phone",
    settlement=Settlement.ACCEPTED,
    resolved_by="asha",
)
REPORT = DayReport(
    account=AccountId("paper-1"),
    day="2024-10-04",
    starts_at=STARTS,
    ends_at=Nanos(STARTS + DAY_NS),
    made_at=Nanos(STARTS + DAY_NS + 60),
    orders=Tally(
        matched=3, differing=1, differences=(Difference(id="k-1", instrument=BTC, ours="filled 1 of 1", theirs=""),)
    ),
    executions=Tally(matched=4, differing=0),
    positions=Tally(matched=1, differing=0),
    cash=CashLine(ours=Decimal("10.5"), theirs=Decimal("10.5"), currency="USDT", agrees=True),
    adopted=(ClientOrderId("adopted-7"),),
    adjustments=1,
    breaks=(ITEM,),
)


@pytest.fixture
async def key(stage: Stage) -> str:
    return await stage.trading()


async def _save(stage: Stage, *reports: DayReport) -> None:
    epoch = await Leases(stage.services.database).take("session/test", "test", 60)
    for report in reports:
        await Reconciliations(stage.services.database).save("session/test", epoch, report)


async def test_a_report_is_shown_to_its_owner_and_to_no_other(stage: Stage, key: str) -> None:
    await _save(stage, REPORT)
    (shown,) = (await stage.get("/v1/reconciliations?account=paper-1&day=2024-10-04", key=key))["items"]
    assert (shown["orders"]["matched"], shown["orders"]["differences"][0]["id"]) == (3, "k-1")
    assert (shown["cash"]["agrees"], shown["cash"]["ours"], shown["adopted"]) == (True, "10.5", ["adopted-7"])
    (item,) = shown["breaks"]
    assert (item["settlement"], item["resolved_by"], item["age_s"]) == ("accepted", "asha", 5.0)
    other = await stage.trading("bo", "paper-2")
    assert (await stage.get("/v1/reconciliations", key=other))["items"] == []
    await stage.refused(404, "unknown_account", "GET", "/v1/reconciliations?account=paper-1", key=other)
    assert len((await stage.get("/v1/reconciliations"))["items"]) == 1


async def test_the_first_report_of_a_day_stands_and_an_old_session_writes_none(stage: Stage, key: str) -> None:
    await _save(stage, REPORT, replace(REPORT, adjustments=9))
    (shown,) = (await stage.get("/v1/reconciliations", key=key))["items"]
    assert shown["adjustments"] == 1
    kept = Reconciliations(stage.services.database)
    assert await kept.has(AccountId("paper-1"), "2024-10-04")
    assert not await kept.has(AccountId("paper-1"), "2024-10-05")
    with pytest.raises(Fenced):
        await kept.save("session/test", 7, replace(REPORT, day="2024-10-05"))


async def test_reports_are_paged_newest_first(stage: Stage, key: str) -> None:
    days = [
        replace(REPORT, day=f"2024-10-0{n}", ends_at=Nanos(STARTS + n * DAY_NS), orders=NONE, breaks=())
        for n in range(1, 6)
    ]
    await _save(stage, *days)
    seen, cursor = [], ""
    for _page in range(5):
        page = await stage.get(f"/v1/reconciliations?limit=2{cursor}", key=key)
        seen += [each["day"] for each in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == [f"2024-10-0{n}" for n in (5, 4, 3, 2, 1)]


async def test_a_report_comes_as_csv_with_a_line_for_each_count_difference_and_break(stage: Stage, key: str) -> None:
    await _save(stage, REPORT)
    answer = await stage.ask("GET", "/v1/reconciliations?account=paper-1&format=csv", key=key)
    assert answer.headers["content-type"].startswith("text/csv")
    lines: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(answer.text)))
    assert {line["account"] for line in lines} == {"paper-1"}
    by_what = {(line["part"], line["what"]): line for line in lines}
    assert by_what[("orders", "matched")]["count"] == "3"
    assert by_what[("orders", "difference")]["id"] == "k-1"
    assert by_what[("cash", "agrees")]["theirs"] == "10.5"
    assert by_what[("orders", "adopted")]["id"] == "adopted-7"
    assert by_what[("breaks", "position")]["resolution"] == "accepted by asha: by phone"


async def test_a_day_without_a_report_says_why(stage: Stage, key: str) -> None:
    async def reason(day: str) -> str:
        (shown,) = (await stage.get(f"/v1/reconciliations?account=paper-1&day={day}", key=key))["items"]
        assert shown["made_at"] is None
        assert shown["orders"] is None
        return str(shown["reason"])

    assert await reason("2261-12-31") == "the day is not over"
    assert await reason("2020-01-01") == "the account did not exist yet"
    async with stage.services.database.connection() as connection:
        await connection.execute("UPDATE accounts SET created_at = 0")
        await connection.execute("UPDATE accounts SET settings = '{\"day_starts_at_h\": 23.9}'")
    assert "no session" in await reason("2020-01-01")
    assert "no session" in await reason("1970-01-01")
    assert await reason("2261-12-31") == "the day is not over"
    await stage.refused(422, "bad_input", "GET", "/v1/reconciliations?day=someday")


@pytest.mark.parametrize("day", ["0001-01-01", "1969-12-31", "2262-01-01", "9999-12-31"])
@pytest.mark.parametrize("account", ["", "&account=paper-1"])
@pytest.mark.usefixtures("key")
async def test_a_day_whose_times_cannot_be_counted_is_refused(stage: Stage, day: str, account: str) -> None:
    said = await stage.refused(422, "bad_input", "GET", f"/v1/reconciliations?day={day}{account}")
    assert said["field"] == "day"
    assert "from 1970-01-01 to 2261-12-31" in said["detail"]


@pytest.mark.parametrize(
    ("value", "shown"), [("=1+1", "'=1+1"), ("-5.2", "-5.2"), ("@x", "'@x"), ("sold two", "sold two"), (7, 7)]
)
def test_a_cell_of_the_csv_runs_in_no_spreadsheet(value: Any, shown: Any) -> None:
    assert _cell(value) == shown

"""``/v1/reconciliations``: the report of each day, one per account."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.csv_text import safe
from api.formats import Amount, Cursor, GivenDay, Instant, InstantOrNone, Limit, Page, Shown
from api.security import Viewer
from api.services import Deck
from api.shapes import BreakShown, break_shown
from storage.reconciliations import Reconciliations
from storage.records import AccountRecord
from trading.day_report import DAY_NS, HOUR_NS, DayReport, Tally
from trading.errors import UnknownThing
from trading.ids import AccountId

router = APIRouter(prefix="/v1/reconciliations", tags=["breaks"])


class Format(StrEnum):
    """How the answer is written."""

    JSON = "json"
    CSV = "csv"


class DifferenceShown(Shown):
    """One thing that the two sides do not say alike; "" where a side does not have it."""

    id: str
    instrument: str
    ours: str
    theirs: str


class TallyShown(Shown):
    """How many agree, how many do not, and which (the first thousand)."""

    matched: int
    differing: int
    differences: list[DifferenceShown]


class CashShown(Shown):
    """Cash on both sides; ``agrees`` is null where it was not compared."""

    ours: Amount | None
    theirs: Amount
    currency: str
    agrees: bool | None
    not_compared: str


class DayShown(Shown):
    """One day of an account.  Where ``made_at`` is null there is no report, and ``reason`` says why."""

    account: str
    day: date
    starts_at: Instant
    ends_at: Instant
    made_at: InstantOrNone
    reason: str = ""
    orders: TallyShown | None = None
    executions: TallyShown | None = None
    #: As they stood when the report was made.
    positions: TallyShown | None = None
    cash: CashShown | None = None
    adopted: tuple[str, ...] = ()
    #: Executions that accepted breaks have booked.
    adjustments: int = 0
    #: Breaks that were open at some time of the day, with the age they had when the report was made.
    breaks: tuple[BreakShown, ...] = ()


@router.get(
    "",
    response_model=Page[DayShown],
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def list_reconciliations(
    caller: Viewer,
    deck: Deck,
    account: str | None = None,
    day: Annotated[GivenDay | None, Query(description="The date (UTC) at which the day begins")] = None,
    format: Annotated[Format, Query(description="csv: one line for each count, difference and break")] = Format.JSON,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Any:
    """Reports of days, newest first.  Where one day of one account has none, it says why."""
    record = None
    if account is not None:
        try:
            record = await deck.account_of(caller, account)
        except UnknownThing:
            # Its reports outlive an account, for operators.
            if not caller.is_operator:
                raise
    reports, following = await Reconciliations(deck.database).page(
        account=None if account is None else AccountId(account),
        day=None if day is None else day.isoformat(),
        accounts=await deck.reached(caller),
        cursor=cursor,
        limit=limit,
    )
    shown = [_shown(each) for each in reports]
    if not shown and record is not None and day is not None and cursor is None:
        shown = [_not_made(record, day)]
    if format is Format.CSV:
        more = {"X-Next-Cursor": following} if following else {}
        return Response(_csv(shown), media_type="text/csv", headers=more)
    return {"items": shown, "next": following}


def _shown(report: DayReport) -> DayShown:
    return DayShown(
        account=report.account,
        day=date.fromisoformat(report.day),
        starts_at=report.starts_at,
        ends_at=report.ends_at,
        made_at=report.made_at,
        orders=_tally(report.orders),
        executions=_tally(report.executions),
        positions=_tally(report.positions),
        cash=CashShown.model_validate(report.cash),
        adopted=report.adopted,
        adjustments=report.adjustments,
        breaks=tuple(break_shown(item, report.made_at) for item in report.breaks),
    )


def _tally(tally: Tally) -> TallyShown:
    return TallyShown.model_validate(tally)


def _not_made(account: AccountRecord, day: date) -> DayShown:
    hour = float(account.settings.get("day_starts_at_h", 0))
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    starts = int(midnight.timestamp()) * 1_000_000_000 + int(hour * HOUR_NS)
    ends, now = starts + DAY_NS, time.time_ns()
    if now < ends:
        reason = "the day is not over"
    elif ends <= account.created_at:
        reason = "the account did not exist yet"
    elif now < ends + DAY_NS:
        reason = "not made yet: the account's session makes it once it runs and has its broker's view"
    else:
        reason = "not made: no session, or no broker, within a day after it"
    return DayShown(account=account.id, day=day, starts_at=starts, ends_at=ends, made_at=0, reason=reason)


_COLUMNS = ("account", "day", "part", "what", "count", "id", "instrument", "ours", "theirs", "age_s", "resolution")


def _csv(days: list[DayShown]) -> str:
    text = io.StringIO()
    lines = csv.DictWriter(text, _COLUMNS, restval="")
    lines.writeheader()
    for day in days:
        for line in _lines(day):
            cells = {"account": day.account, "day": day.day.isoformat(), **line}
            lines.writerow({name: _cell(value) for name, value in cells.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Free text so that no spreadsheet runs it; a number, a negative one too, is left as it is."""
    if not isinstance(value, str):
        return value
    try:
        Decimal(value)
    except InvalidOperation:
        return safe(value)
    return value


def _lines(day: DayShown) -> Iterator[dict[str, Any]]:
    if day.reason:
        yield {"part": "report", "what": day.reason}
    for part, tally in (("orders", day.orders), ("executions", day.executions), ("positions", day.positions)):
        if tally is None:
            continue
        yield {"part": part, "what": "matched", "count": tally.matched}
        yield {"part": part, "what": "differing", "count": tally.differing}
        for each in tally.differences:
            yield {"part": part, "what": "difference", **each.model_dump()}
    if day.cash is not None:
        said = {True: "agrees", False: "differs", None: day.cash.not_compared}[day.cash.agrees]
        ours = "" if day.cash.ours is None else f"{day.cash.ours:f}"
        yield {"part": "cash", "what": said, "id": day.cash.currency, "ours": ours, "theirs": f"{day.cash.theirs:f}"}
    for key in day.adopted:
        yield {"part": "orders", "what": "adopted", "id": key}
    if day.adjustments:
        yield {"part": "executions", "what": "adjustments", "count": day.adjustments}
    for item in day.breaks:
        yield {
            "part": "breaks",
            "what": str(item.kind),
            "id": item.id,
            "instrument": item.instrument,
            "ours": item.ours,
            "theirs": item.theirs,
            "age_s": item.age_s,
            "resolution": item.resolution,
        }

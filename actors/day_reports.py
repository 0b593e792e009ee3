"""Makes the report of each day for a session's accounts, once, after the day's end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from cluster.calls import Peer
from cluster.process import now
from storage.journal import Journal
from storage.reconciliations import Reconciliations
from storage.records import BreakFilter, OrderFilter
from trading.account_book import AccountBook
from trading.broker import BrokerReport
from trading.day_report import (
    HOUR_NS,
    CashLine,
    DayReport,
    OurFill,
    agreeing_positions,
    day_report,
    last_day,
)
from trading.errors import Fenced, TradeError
from trading.ids import AccountId, Nanos
from trading.journal import Break
from trading.orders import Order
from trading.recovery import compare_positions
from trading.session import SessionCore

log = logging.getLogger("quarterdeck")

#: Executions of the day's last moment get so long to arrive.
GRACE_NS: Final = 30 * 1_000_000_000


class DayReports:
    """Reports of one session's accounts."""

    def __init__(self, journal: Journal, kept: Reconciliations, owner: str) -> None:
        self._journal = journal
        self._kept = kept
        self._owner = owner
        #: The last day of each account that is known to have its report.
        self._done: dict[AccountId, str] = {}
        #: Since when an account exists, and the hour (UTC) at which its days begin.
        self.accounts: dict[AccountId, tuple[Nanos, float]] = {}

    async def make_due(self, core: SessionCore, epoch: int, connections: Mapping[AccountId, Peer]) -> None:
        """Make the reports that are missing of the last whole day; what cannot be made now is tried again later."""
        for account, (created_at, hour) in list(self.accounts.items()):
            book = core.accounts.get(account)
            starts, ends = last_day(now(), int(hour * HOUR_NS))
            day = datetime.fromtimestamp(starts // 1_000_000_000, UTC).date().isoformat()
            if self._done.get(account) == day or ends <= created_at or now() < ends + GRACE_NS:
                continue
            if book is None or not book.connected or not book.reconciled:
                continue
            try:
                if not await self._kept.has(account, day):
                    made = await self._make(core, book, (day, starts, ends), epoch, connections[account])
                    await self._kept.save(self._owner, epoch, made)
                    log.info("the report of %s on %s has been made", account, day)
            except Fenced:
                raise
            except TradeError as error:
                log.info("no report of %s on %s yet: %s", account, day, error)
            else:
                self._done[account] = day

    async def _make(
        self, core: SessionCore, book: AccountBook, day: tuple[str, Nanos, Nanos], epoch: int, connection: Peer
    ) -> DayReport:
        _, starts, ends = day
        asked_at = now()
        report: BrokerReport = await connection.call("report_day", epoch, starts, timeout=60.0)
        # By our clock, like the moves it is compared with.
        moved = {instrument for instrument, at in book.moved_at.items() if at >= asked_at}
        ours = {p.instrument: p.quantity for p in book.positions.values()}
        found = compare_positions(book.positions, report, {})
        differ = {instrument: sides for instrument, sides in found.items() if instrument not in moved}
        cash = _cash(core, book, report, is_moving=bool(moved))
        orders, fills, breaks = await self._of_day(book.account, starts, ends)
        positions = (agreeing_positions(ours, report, found), differ)
        return day_report(book.account, day, now(), report, orders, fills, positions, cash, breaks)

    async def _of_day(
        self, account: AccountId, starts: Nanos, ends: Nanos
    ) -> tuple[list[Order], list[OurFill], list[Break]]:
        filters = OrderFilter(account=account, since=starts, until=ends)
        orders, fills, breaks = list[Order](), list[OurFill](), list[Break]()
        cursor: str | None = None
        while True:
            page, cursor = await self._journal.orders(filters, cursor, 1000)
            orders += page
            if cursor is None:
                break
        while True:
            executed, cursor = await self._journal.fills(filters, cursor, 1000)
            fills += [
                OurFill(
                    execution_id=each.fill.execution_id,
                    instrument=each.instrument,
                    quantity=each.fill.quantity,
                    price=each.fill.price,
                )
                for each in executed
            ]
            if cursor is None:
                break
        wanted = BreakFilter(account=account, resolved=True, until=ends, open_after=starts)
        while True:
            differing, cursor = await self._journal.break_page(wanted, cursor, 1000)
            breaks += differing
            if cursor is None:
                return orders, fills, breaks


def _cash(core: SessionCore, book: AccountBook, report: BrokerReport, *, is_moving: bool) -> CashLine:
    why = core.why_no_cash(book)
    ours = book.cash_book.amount if book.cash_book is not None else None
    if not why and is_moving:
        why = "executions were coming in"
    agrees = None if why or ours is None else abs(report.cash - ours) <= book.cash_slack.of(report.cash)
    return CashLine(ours=ours, theirs=report.cash, currency=report.currency, agrees=agrees, not_compared=why)

"""Central risk: the shell around `trading.budgets.RiskBook`.

A loan is durable before it is given out, so after a restart the book is exact from its table.  Until it has
been read nothing is granted.
"""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from typing import Any

import msgspec

from actors.shell import Shell, patiently
from cluster import names
from cluster.process import now
from storage.crash_points import CrashPoint, crash_here
from storage.desired import Desired
from storage.leases import Leases
from storage.loans import Loans
from storage.records import LoanRecord
from trading.budgets import BudgetGrant, BudgetReport, RiskBook
from trading.errors import NotReady
from trading.ids import Epoch, Nanos
from trading.limits import Limit, LimitTree
from trading.orders import ZERO

log = logging.getLogger("quarterdeck")

LEASE_S = 10.0
LIMITS_EVERY_S = 2.0


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """Use of one limit: in use, lent (use included), the limit; amounts as exact text."""

    resource: str
    scope: str
    kind: str
    instrument: str
    used: str
    lent: str
    limit: str | None
    by_session: dict[str, str]


class RiskView(msgspec.Struct, frozen=True, kw_only=True):
    """What central risk knows."""

    at: Nanos
    epoch: int
    limits_version: int
    exposure: tuple[Exposure, ...]
    #: Limits with more lent than they allow now (they were lowered): when it holds again they are gone from here.
    over: tuple[str, ...]


class RiskDesk(Shell):
    """The one owner of limits and loans."""

    def __init__(self, _id: str = "main") -> None:
        self.book: RiskBook | None = None
        super().__init__(names.risk())
        self.leases = Leases(self.database)
        self.desired = Desired(self.database)
        self.loans = Loans(self.database)
        self._saved: dict[tuple[str, int, str], Decimal] = {}
        self._session_epoch: dict[str, Epoch] = {}
        self._saving = asyncio.Lock()
        self._dirty = False
        self._began = False

    async def start(self) -> None:
        """Take an epoch, read limits and loans."""
        await self.database.open()
        self.epoch = await self.leases.take(self.name, self.deck.node, LEASE_S)
        crash_here(CrashPoint.RISK_EPOCH_TAKEN)
        book = RiskBook(await self._limits(), Epoch(self.epoch))
        self._saved = {}
        for loan in await self.loans.load():
            known = self._session_epoch.get(loan.session, Epoch(0))
            self._saved[(loan.session, loan.session_epoch, loan.resource)] = loan.amount
            if loan.session_epoch >= known:
                self._session_epoch[loan.session] = loan.session_epoch
                book.restore(loan.session, loan.session_epoch, loan.resource, loan.amount)
        self.book = book
        if not self._began:
            self._began = True
            self.spawn(patiently("lease", self._renew, every=LEASE_S / 5), "lease")
            self.spawn(patiently("limits", self.refresh, every=LIMITS_EVERY_S), "limits")
            self.spawn(patiently("view", self._publish, every=1.0), "view")

    async def _renew(self) -> None:
        await self.leases.renew(self.name, Epoch(self.epoch), LEASE_S)

    async def _limits(self) -> LimitTree:
        version = 0
        limits = []
        for record in await self.desired.limits():
            version = max(version, record.changed_at)
            if record.value is not None:
                limits.append(
                    Limit(scope=record.scope, kind=record.kind, instrument=record.instrument, value=record.value)
                )
        return LimitTree(limits, version)

    async def refresh(self) -> None:
        """Read the limits again; sessions learn of a change with their next report."""
        tree = await self._limits()
        book = self._book()
        if tree.version != book.limits.version:
            log.info("limits are now version %d", tree.version)
            book.limits = tree

    def _book(self) -> RiskBook:
        if self.book is None:
            raise NotReady("central risk is rebuilding its book", 1.0)
        return self.book

    async def report(self, report: BudgetReport) -> BudgetGrant:
        """A session's report; the answer lends only what has been made durable."""
        self.require_ready()
        book = self._book()
        self._session_epoch[report.session] = max(report.epoch, self._session_epoch.get(report.session, Epoch(0)))
        grant, raised = book.report(report)
        if raised:
            await self._save()
        else:
            self._dirty = True
        return grant

    async def _save(self) -> None:
        """Write the difference between the book and its table."""
        async with self._saving:
            book = self._book()
            wanted = {
                (session, int(self._session_epoch.get(session, 0)), resource): amount
                for session, mine in book.lent.items()
                for resource, amount in mine.items()
            }
            changes = [
                LoanRecord(session=s, session_epoch=Epoch(e), resource=r, amount=amount)
                for (s, e, r), amount in wanted.items()
                if self._saved.get((s, e, r)) != amount
            ]
            changes += [
                LoanRecord(session=s, session_epoch=Epoch(e), resource=r, amount=ZERO)
                for (s, e, r) in self._saved
                if (s, e, r) not in wanted
            ]
            if changes:
                crash_here(CrashPoint.RISK_BEFORE_SAVE)
                await self.loans.save(self.epoch, changes)
                crash_here(CrashPoint.RISK_AFTER_SAVE)
            self._saved = dict(wanted)
            self._dirty = False

    async def _publish(self) -> None:
        if self._dirty:
            await self._save()
        await self.hot.put("risk", self.view(), ttl_s=60)

    def view(self) -> RiskView:
        """Use, loans and limits of every resource."""
        book = self._book()
        resources = {r for mine in (*book.lent.values(), *book.used.values()) for r in mine}
        lines = []
        for resource in sorted(resources):
            scope, kind, instrument = resource.split("/", 2)
            by_session = {s: used[resource] for s, used in book.used.items() if resource in used}
            limit = book.limits.limit_of(resource)
            lines.append(
                Exposure(
                    resource=resource,
                    scope=scope,
                    kind=kind,
                    instrument=instrument,
                    used=f"{sum(by_session.values(), ZERO):f}",
                    lent=f"{book.total(resource):f}",
                    limit=f"{limit:f}" if limit is not None else None,
                    by_session={s: f"{amount:f}" for s, amount in by_session.items()},
                )
            )
        return RiskView(
            at=now(),
            epoch=self.epoch,
            limits_version=book.limits.version,
            exposure=tuple(lines),
            over=tuple(sorted(book.over())),
        )

    def facts(self) -> dict[str, Any]:
        book = self.book
        return {} if book is None else {"sessions": len(book.lent), "limits_version": book.limits.version}

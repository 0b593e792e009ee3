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
from storage.days import Days
from storage.desired import Desired
from storage.leases import Leases
from storage.loans import Loans
from storage.records import LoanRecord, MaximaRecord
from trading.budgets import LOAN_NS, BudgetGrant, BudgetReport, RiskBook
from trading.day_profit import DayBook, day_of, reached_of
from trading.errors import NotReady, TradeError
from trading.ids import Epoch, Nanos
from trading.levels import LevelUse
from trading.limits import CLUSTER, Limit, LimitTree, Violation, user_scope
from trading.orders import ZERO
from trading.risk_view import Heard, LimitState, LimitWatch, all_levels

log = logging.getLogger("quarterdeck")

LEASE_S = 10.0
LIMITS_EVERY_S = 2.0
#: Levels are sampled for the day's maxima this often.
SAMPLE_EVERY_S = 3.0


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
    limits: tuple[LimitState, ...] = ()
    #: Use of the cluster, its instruments, users, accounts and algos.
    levels: tuple[LevelUse, ...] = ()
    #: Losses of all users together that have reached their limit: only orders that reduce pass.
    blocked: tuple[Violation, ...] = ()


class RiskDesk(Shell):
    """The one owner of limits and loans."""

    def __init__(self, _id: str = "main") -> None:
        self.book: RiskBook | None = None
        super().__init__(names.risk())
        self.leases = Leases(self.database)
        self.desired = Desired(self.database)
        self.loans = Loans(self.database)
        self.days = Days(self.database)
        self.day_book = DayBook()
        self.watch = LimitWatch()
        #: What each session said last.
        self._heard: dict[str, Heard] = {}
        self._maxima: dict[tuple[str, str], MaximaRecord] = {}
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
        await self._restore_users(book.limits)
        self.book = book
        if not self._began:
            self._began = True
            self.spawn(patiently("lease", self._renew, every=LEASE_S / 5), "lease")
            self.spawn(patiently("limits", self.refresh, every=LIMITS_EVERY_S), "limits")
            self.spawn(patiently("view", self._publish, every=1.0), "view")
            self.spawn(patiently("samples", self._sample, every=SAMPLE_EVERY_S), "samples")

    async def _restore_users(self, limits: LimitTree) -> None:
        """Take up the cluster's day, and what users gained or lost today before anybody tells."""
        self.day_book.restore(await self.days.load([CLUSTER]))
        users = [user_scope(user.id) for user in await self.desired.users()]
        today = day_of(now(), limits.day_start_ns)
        lost = {
            day.scope: LevelUse(scope=day.scope, day=today, profit=day.profit, drawdown=day.drawdown)
            for day in await self.days.load(users)
            if day.began_at == today and not day.instrument
        }
        for scope in users:
            # Until it is heard, a session may trade by whatever limits the last incarnation told it.
            levels = (lost[scope],) if scope in lost else ()
            self._heard[f"session/{scope.partition(':')[2]}"] = Heard(at=now(), limits_version=0, levels=levels)

    async def _renew(self) -> None:
        await self.leases.renew(self.name, Epoch(self.epoch), LEASE_S)

    async def _limits(self) -> LimitTree:
        version = 0
        limits = []
        for record in await self.desired.limits():
            version = max(version, record.changed_at)
            if record.value is not None:
                limits.append(
                    Limit(
                        scope=record.scope,
                        kind=record.kind,
                        instrument=record.instrument,
                        value=record.value,
                        changed_at=record.changed_at,
                        by=record.changed_by,
                    )
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
        # Raises for an older copy: what that one says of its levels must not be taken for the truth either.
        grant, raised = book.report(report)
        self._session_epoch[report.session] = max(report.epoch, self._session_epoch.get(report.session, Epoch(0)))
        before = self._heard.get(report.session)
        self._heard[report.session] = Heard(
            at=now(),
            limits_version=report.limits_version,
            levels=report.levels if report.levels is not None else before.levels if before is not None else (),
        )
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
        levels = self._levels()
        if changed := self.day_book.take_unsaved():
            try:
                await self.days.save(self.name, self.epoch, changed)
            except TradeError:
                self.day_book.not_saved(changed)
                raise
        await self.hot.put("risk", self.view(levels), ttl_s=60)

    def _levels(self) -> tuple[LevelUse, ...]:
        """Use of every level now; the cluster's profit and loss are judged by its limits."""
        book = self._book()
        today = day_of(now(), book.limits.day_start_ns)
        whole, *others = all_levels(self._heard, today)
        day = self.day_book.see(CLUSTER, whole.profit, book.limits, now(), opening=ZERO)
        book.blocked = reached_of(day)
        whole = msgspec.structs.replace(whole, day=today, drawdown=day.drawdown, blocked=book.blocked)
        return (whole, *others)

    async def _sample(self) -> None:
        """Keep the day's highest use of every level."""
        at = now()
        today = day_of(at, self._book().limits.day_start_ns)
        raised = []
        for use in self._levels():
            known = self._maxima.get((use.scope, use.instrument))
            sample = maxima_of(use, today, at)
            top = sample if known is None or known.day != today else higher(known, sample)
            if top != known:
                raised.append(top)
        if raised:
            await self.days.save_maxima(self.epoch, raised)
            self._maxima.update({(top.scope, top.instrument): top for top in raised})

    def view(self, levels: tuple[LevelUse, ...]) -> RiskView:
        """Use, loans and limits of every resource and level."""
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
            limits=self.watch.states(book, self._heard, levels, now(), LOAN_NS),
            levels=levels,
            blocked=book.blocked,
        )

    async def limit_state(self, scope: str, kind: str, instrument: str) -> LimitState | None:
        """The state of one limit, read anew; None where there is none."""
        self.require_ready()
        await self.refresh()
        states = self.view(self._levels()).limits
        return next((s for s in states if (s.scope, s.kind, s.instrument) == (scope, kind, instrument)), None)

    def facts(self) -> dict[str, Any]:
        book = self.book
        return {} if book is None else {"sessions": len(book.lent), "limits_version": book.limits.version}


def maxima_of(use: LevelUse, day: Nanos, at: Nanos) -> MaximaRecord:
    """One sample of a level."""
    return MaximaRecord(
        day=day,
        scope=use.scope,
        instrument=use.instrument,
        gross=use.gross,
        long=use.long,
        short=use.short,
        money_at_risk=use.money_at_risk,
        loss=max(-use.profit, ZERO),
        drawdown=use.drawdown,
        open_orders=use.open_orders,
        sampled_at=at,
    )


def higher(known: MaximaRecord, sample: MaximaRecord) -> MaximaRecord:
    """The higher of each measure; ``known`` itself where none has risen."""
    measures = ("gross", "long", "short", "money_at_risk", "loss", "drawdown", "open_orders")
    risen = {m: getattr(sample, m) for m in measures if getattr(sample, m) > getattr(known, m)}
    return msgspec.structs.replace(known, **risen, sampled_at=sample.sampled_at) if risen else known

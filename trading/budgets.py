"""Budgets: how one limit holds over many sessions without a question per order.

Central risk (`RiskBook`) lends each session slices of every shared limit; the session (`Purse`) spends them
locally.  The one rule that makes it safe, whatever dies or is delayed:

    what the book has on record for a session  >=  what that session believes it may use

The book raises its record (durably) *before* it answers with a grant; a session lowers its own allowance
*before* it reports that it gave something back.  Reports are numbered and one is in flight at a time; an
answer to an older report is ignored, so a grant that got lost is simply never used, and the next report
returns it.  An allowance expires (by the session's own clock, counted from when it *asked*), after which
only what is already used stays; the record does not expire, it ends when the session, or its successor
under a higher epoch, reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from trading.errors import Fenced
from trading.ids import Epoch, Nanos
from trading.levels import LevelUse
from trading.limits import Limit, LimitTree, Violation
from trading.orders import ZERO

#: How long an allowance may be spent without hearing from central risk again.
LOAN_NS = 5_000_000_000
#: The book adds this share of the limit to what is asked for, so that the next orders need not ask.
SLICE = Decimal("0.05")


_NO_EPOCH = Epoch(0)


class BudgetReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a session holds, uses and wants more of, by resource."""

    session: str
    epoch: Epoch
    number: int
    holds: dict[str, Decimal]
    used: dict[str, Decimal]
    wants: dict[str, Decimal]
    limits_version: int
    #: Epoch of the central risk whose answer was taken last; 0: none yet.
    desk: Epoch = Epoch(0)
    #: What the session's levels use, for people to see; None: nothing new since the last time.
    levels: tuple[LevelUse, ...] | None = None


class Shortage(msgspec.Struct, frozen=True, kw_only=True):
    """Why a wish was not granted in full: the limit, and how much of it is lent to other sessions."""

    limit: Decimal
    others: Decimal


class BudgetGrant(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to report ``number``.  ``limits`` only when the session's version was old."""

    number: int
    granted: dict[str, Decimal]
    short: dict[str, Shortage]
    #: Resources lent beyond their (lowered) limit: give back what is not used.
    recall: tuple[str, ...]
    limits: tuple[Limit, ...] | None
    limits_version: int
    #: Epoch of the central risk that answers.
    desk: Epoch = Epoch(0)
    #: Losses of all sessions together that have reached their limit: only orders that reduce pass.
    blocked: tuple[Violation, ...] = ()


class RiskBook:
    """Central risk's record of what is lent to whom.  ``epoch`` numbers its incarnations."""

    def __init__(self, limits: LimitTree, epoch: Epoch = _NO_EPOCH) -> None:
        self.limits = limits
        self.epoch = epoch
        #: session -> resource -> amount on record (used part included).
        self.lent: dict[str, dict[str, Decimal]] = {}
        #: session -> resource -> last reported use.
        self.used: dict[str, dict[str, Decimal]] = {}
        self._total: dict[str, Decimal] = {}
        self._epoch: dict[str, Epoch] = {}
        self._number: dict[str, int] = {}
        #: What refuses entries everywhere; told with every answer.
        self.blocked: tuple[Violation, ...] = ()
        #: Sessions whose loans an earlier incarnation made and which have not answered to this one yet.
        self._restored: set[str] = set()

    def epoch_of(self, session: str) -> Epoch:
        """The newest incarnation of a session that was heard of."""
        return self._epoch.get(session, Epoch(0))

    def restore(self, session: str, epoch: Epoch, resource: str, amount: Decimal) -> None:
        """Take up a loan that an earlier incarnation made."""
        self._epoch[session] = max(epoch, self._epoch.get(session, Epoch(0)))
        self._restored.add(session)
        self._record(session, resource, amount)

    def total(self, resource: str) -> Decimal:
        """Everything on record against one limit."""
        return self._total.get(resource, ZERO)

    def report(self, report: BudgetReport) -> tuple[BudgetGrant, dict[str, Decimal]]:
        """Take a session's report.

        Returns the grant and the records that it rests on: they must be durable before it is given out.  A wish
        that does not fit is granted as far as it does, and named as short.
        Raises `Fenced` for a report of an older incarnation.
        """
        session = report.session
        known = self._epoch.get(session, Epoch(0))
        if report.epoch < known:
            raise Fenced(f"budget of {session}", report.epoch, known)
        if report.epoch > known:
            self._epoch[session] = report.epoch
            self._number[session] = 0
            self._restored.discard(session)
        empty = BudgetGrant(
            number=report.number,
            granted={},
            short={},
            recall=(),
            limits=None,
            limits_version=self.limits.version,
            desk=self.epoch,
            blocked=self.blocked,
        )
        if report.number <= self._number.get(session, 0):
            return empty, {}
        self._number[session] = report.number
        self.used[session] = dict(report.used)
        if report.desk == self.epoch:
            self._restored.discard(session)
        before = self.lent.get(session, {})
        # The session's word replaces the record: it never believes in more than it says.  But a report that was
        # on its way when central risk restarted may be older than a loan on record: until the session has
        # answered to this incarnation nothing is taken off.
        floor = dict(before) if session in self._restored else {}
        for resource in {*before, *report.holds, *report.used}:
            held = report.holds.get(resource, ZERO)
            amount = max(held, report.used.get(resource, ZERO), floor.get(resource, ZERO))
            self._record(session, resource, amount)
        granted: dict[str, Decimal] = {}
        short: dict[str, Shortage] = {}
        raised: dict[str, Decimal] = {}
        for resource, wanted in report.wants.items():
            limit = self.limits.limit_of(resource)
            if limit is None:
                continue
            on_record = self.lent.get(session, {}).get(resource, ZERO)
            others = self.total(resource) - on_record
            held = report.holds.get(resource, ZERO)
            # The session may hold what the others leave; what it uses already is within that.
            room = max(limit - others - held, ZERO)
            if wanted > room:
                short[resource] = Shortage(limit=limit, others=others)
            extra = min(room, wanted + limit * SLICE)
            if extra > 0:
                granted[resource] = extra
                raised[resource] = max(held + extra, on_record)
                self._record(session, resource, raised[resource])
        recall = tuple(r for r in report.holds if self._is_over(r))
        fresh = self.limits.all() if report.limits_version != self.limits.version else None
        return (
            msgspec.structs.replace(empty, granted=granted, short=short, recall=recall, limits=fresh),
            raised,
        )

    def over(self) -> dict[str, tuple[Decimal, Decimal]]:
        """Resources with more on record than their limit: ``(on record, limit)``."""
        out = {}
        for resource, total in self._total.items():
            limit = self.limits.limit_of(resource)
            if limit is not None and total > limit:
                out[resource] = (total, limit)
        return out

    def _is_over(self, resource: str) -> bool:
        limit = self.limits.limit_of(resource)
        return limit is not None and self.total(resource) > limit

    def _record(self, session: str, resource: str, amount: Decimal) -> None:
        mine = self.lent.setdefault(session, {})
        self._total[resource] = self.total(resource) - mine.get(resource, ZERO) + amount
        if amount:
            mine[resource] = amount
        else:
            mine.pop(resource, None)

    def validate(self) -> None:
        """Raise AssertionError unless the totals are the sums of the records."""
        sums: dict[str, Decimal] = {}
        for mine in self.lent.values():
            for resource, amount in mine.items():
                sums[resource] = sums.get(resource, ZERO) + amount
        for resource in {*sums, *self._total}:
            assert sums.get(resource, ZERO) == self.total(resource), resource


class Purse:
    """A session's side: what it may use of each resource, and until when."""

    def __init__(self, session: str, epoch: Epoch) -> None:
        self.session = session
        self.epoch = epoch
        self.limits = LimitTree(version=-1)
        self.holds: dict[str, Decimal] = {}
        self.blocked: tuple[Violation, ...] = ()
        self.expires_at = Nanos(0)
        self._number = 0
        self._asked_at = Nanos(0)
        self._desk = Epoch(0)
        self.in_flight = False
        self._give_back: set[str] = set()

    @property
    def has_limits(self) -> bool:
        """Central risk has told its limits at least once; before that nothing new may be sent."""
        return self.limits.version >= 0

    def is_fresh(self, now: Nanos) -> bool:
        """Whether central risk was heard lately enough to trade by its limits."""
        return now < self.expires_at

    def allowance(self, resource: str, now: Nanos) -> Decimal:
        """What may be in use of ``resource`` at ``now``."""
        if now >= self.expires_at:
            return ZERO
        return self.holds.get(resource, ZERO)

    def ask(
        self,
        used: Mapping[str, Decimal],
        wants: Mapping[str, Decimal],
        now: Nanos,
        *,
        idle: bool,
        levels: tuple[LevelUse, ...] | None = None,
    ) -> BudgetReport:
        """The next report.  Gives back what was recalled, and when ``idle`` all that is not used."""
        for resource in list(self.holds):
            if idle or resource in self._give_back or self.limits.limit_of(resource) is None:
                self.holds[resource] = min(self.holds[resource], used.get(resource, ZERO))
                if not self.holds[resource]:
                    del self.holds[resource]
        self._give_back.clear()
        self._number += 1
        self._asked_at = now
        self.in_flight = True
        return BudgetReport(
            session=self.session,
            epoch=self.epoch,
            number=self._number,
            holds=dict(self.holds),
            used={r: u for r, u in used.items() if u},
            wants=dict(wants),
            limits_version=self.limits.version,
            desk=self._desk,
            levels=levels,
        )

    def take(self, grant: BudgetGrant) -> bool:
        """Take an answer; False if it answers an older report and was ignored."""
        if grant.number != self._number or not self.in_flight:
            return False
        self.in_flight = False
        self._desk = grant.desk
        if grant.limits is not None:
            self.limits = LimitTree(grant.limits, grant.limits_version)
        for resource, extra in grant.granted.items():
            self.holds[resource] = self.holds.get(resource, ZERO) + extra
        self.expires_at = Nanos(self._asked_at + LOAN_NS)
        self._give_back.update(grant.recall)
        self.blocked = grant.blocked
        return True

    def failed(self) -> None:
        """The last report got no answer; what it might have brought is never used."""
        self.in_flight = False

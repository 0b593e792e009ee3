"""Budgets: what all sessions together may use never passes a limit, whatever is lost or restarted."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trading.budgets import LOAN_NS, BudgetGrant, BudgetReport, Purse, RiskBook
from trading.errors import Fenced
from trading.ids import Epoch, InstrumentId, Nanos
from trading.limits import CLUSTER, GROSS_EXPOSURE, POSITION, Limit, LimitTree, resource

D = Decimal
AAA = InstrumentId("T:A")
POS = resource(CLUSTER, POSITION, AAA)
GROSS = resource(CLUSTER, GROSS_EXPOSURE, "")
NOW = Nanos(1_000_000_000_000)


def tree(position: int | None = 100, version: int = 1) -> LimitTree:
    limits = [] if position is None else [Limit(scope=CLUSTER, kind=POSITION, instrument="", value=D(position))]
    return LimitTree(limits, version)


def ask(
    purse: Purse, book: RiskBook, want: int = 0, used: int = 0, now: Nanos = NOW, *, idle: bool = False
) -> BudgetGrant:
    report = purse.ask({POS: D(used)}, {POS: D(want)} if want else {}, now, idle=idle)
    grant, _ = book.report(report)
    purse.take(grant)
    return grant


def test_nothing_may_be_used_before_central_risk_has_answered() -> None:
    purse = Purse("s", Epoch(1))
    assert not purse.has_limits
    assert purse.allowance(POS, NOW) == 0
    ask(purse, RiskBook(tree()), 10)
    assert purse.has_limits
    assert purse.allowance(POS, NOW) == 15  # what was asked for and a slice of the limit


def test_allowance_ends_by_the_sessions_own_clock_counted_from_when_it_asked() -> None:
    purse = Purse("s", Epoch(1))
    ask(purse, RiskBook(tree()), 10)
    assert purse.allowance(POS, Nanos(NOW + LOAN_NS - 1)) == 15
    assert purse.allowance(POS, Nanos(NOW + LOAN_NS)) == 0


def test_wish_beyond_the_limit_gets_what_is_left_and_is_told_so() -> None:
    book = RiskBook(tree())
    ask(Purse("a", Epoch(1)), book, 60)
    grant = ask(purse := Purse("b", Epoch(1)), book, 60)
    assert grant.short[POS].others == 65
    assert purse.allowance(POS, NOW) == 35
    assert book.total(POS) == 100


def test_session_that_restarts_with_much_in_use_gets_the_rest_of_the_limit() -> None:
    book = RiskBook(tree())
    ask(Purse("a", Epoch(1)), book, 80)
    purse = Purse("a", Epoch(2))
    grant = ask(purse, book, 90, used=80)
    assert not grant.short
    assert purse.allowance(POS, NOW) == 95


def test_lost_answer_is_never_used_and_comes_back_with_the_next_report() -> None:
    book, purse = RiskBook(tree()), Purse("a", Epoch(1))
    lost, _ = book.report(purse.ask({}, {POS: D(50)}, NOW, idle=False))
    purse.failed()
    assert book.total(POS) == 55
    ask(purse, book)
    assert book.total(POS) == 0
    assert not purse.take(lost)
    assert purse.allowance(POS, NOW) == 0


def test_answer_that_comes_twice_counts_once() -> None:
    book, purse = RiskBook(tree()), Purse("a", Epoch(1))
    grant, _ = book.report(purse.ask({}, {POS: D(10)}, NOW, idle=False))
    assert purse.take(grant)
    assert not purse.take(grant)
    assert purse.allowance(POS, NOW) == 15


def test_report_that_comes_twice_lends_once() -> None:
    book, purse = RiskBook(tree()), Purse("a", Epoch(1))
    report = purse.ask({}, {POS: D(10)}, NOW, idle=False)
    book.report(report)
    again, raised = book.report(report)
    assert (again.granted, raised, book.total(POS)) == ({}, {}, 15)


def test_report_of_an_older_incarnation_is_fenced() -> None:
    book = RiskBook(tree())
    ask(Purse("a", Epoch(2)), book, 10)
    with pytest.raises(Fenced, match="epoch 1 is over, 2 holds it"):
        ask(Purse("a", Epoch(1)), book, 10)


def test_records_that_a_grant_rests_on_are_named_for_saving() -> None:
    book, purse = RiskBook(tree()), Purse("a", Epoch(1))
    _, raised = book.report(purse.ask({POS: D(3)}, {POS: D(10)}, NOW, idle=False))
    assert raised == {POS: D(15)}


def test_idle_session_gives_back_what_it_does_not_use() -> None:
    book, purse = RiskBook(tree()), Purse("a", Epoch(1))
    ask(purse, book, 50)
    ask(purse, book, used=20, idle=True)
    assert (purse.allowance(POS, NOW), book.total(POS)) == (20, 20)


def test_lowered_limit_calls_back_what_is_not_used() -> None:
    book, purse = RiskBook(tree()), Purse("a", Epoch(1))
    ask(purse, book, 50, used=0)
    book.limits = tree(30, 2)
    assert book.over() == {POS: (D(55), D(30))}
    grant = ask(purse, book, used=10)
    assert grant.recall == (POS,)
    assert purse.limits.version == 2
    ask(purse, book, used=10)
    assert (purse.allowance(POS, NOW), book.total(POS), book.over()) == (10, 10, {})


def test_limit_that_is_taken_away_asks_for_nothing_and_is_not_held() -> None:
    book, purse = RiskBook(tree()), Purse("a", Epoch(1))
    ask(purse, book, 50)
    book.limits = tree(None, 2)
    grant = ask(purse, book, 10)
    assert (grant.granted, grant.short) == ({}, {})
    ask(purse, book)
    assert purse.holds == {}


def test_old_report_after_a_restart_of_central_risk_takes_no_loan_off_the_record() -> None:
    book, purse = RiskBook(tree(), Epoch(1)), Purse("a", Epoch(1))
    ask(purse, book)
    late = purse.ask({}, {}, NOW, idle=False)  # on its way for long
    purse.failed()
    ask(purse, book, 50)
    saved = book.total(POS)
    book = RiskBook(tree(), Epoch(2))
    book.restore("a", Epoch(1), POS, saved)
    book.report(late)
    assert book.total(POS) >= purse.allowance(POS, NOW)
    ask(purse, book, used=0, idle=True)  # answered by the new one …
    ask(purse, book, used=0, idle=True)  # … and the session knows it
    assert book.total(POS) == 0


SESSIONS = ("a", "b", "c")
LIMIT = D(100)


class Lending(RuleBasedStateMachine):
    """Three sessions and one book.

    Reports, answers and saves get lost, delayed, doubled; all may restart; older copies of sessions go on reporting;
    the limit is raised and lowered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.desk = Epoch(1)
        self.version = 1
        self.limit = LIMIT
        #: What all may use: the limit, or a higher one from before until its loans have come back.
        self.ceiling = LIMIT
        self.book = RiskBook(self.tree(), self.desk)
        #: Copies that do not know that they were replaced.  The journal refuses what they would use.
        self.old: list[Purse] = []
        self.saved: dict[tuple[str, Epoch, str], Decimal] = {}
        self.purses = {name: Purse(name, Epoch(1)) for name in SESSIONS}
        self.used = dict.fromkeys(SESSIONS, D(0))
        self.reports: list[BudgetReport] = []
        self.grants: list[tuple[str, Epoch, BudgetGrant]] = []
        self.now = NOW

    def tree(self) -> LimitTree:
        return tree(int(self.limit), self.version)

    @rule(value=st.integers(1, 200))
    def limit_changes(self, value: int) -> None:
        self.limit, self.version = D(value), self.version + 1
        self.ceiling = max(self.ceiling, self.limit)
        self.book.limits = self.tree()

    @precondition(lambda self: self.old)
    @rule(data=st.data(), want=st.integers(0, 60))
    def older_copy_reports(self, data: st.DataObject, want: int) -> None:
        purse = data.draw(st.sampled_from(self.old))
        self.reports.append(
            purse.ask({POS: self.used[purse.session]}, {POS: D(want)} if want else {}, self.now, idle=False)
        )

    @rule()
    def all_goes_well_for_a_while(self) -> None:
        """Once nothing is lost, the limit holds but for what is in use already, and everybody knows of it."""
        for _ in range(3):
            for name in SESSIONS:
                self.exchange(name, 0)
        assert self.book.total(POS) <= max(self.limit, sum(self.used.values(), D(0)))
        assert all(purse.limits.version == self.version for purse in self.purses.values())

    @rule(name=st.sampled_from(SESSIONS), want=st.integers(0, 60), idle=st.booleans())
    def report(self, name: str, want: int, idle: bool) -> None:
        purse = self.purses[name]
        if purse.in_flight:
            purse.failed()
        wants = {POS: D(want)} if want else {}
        self.reports.append(purse.ask({POS: self.used[name]}, wants, self.now, idle=idle and not want))

    @precondition(lambda self: self.reports)
    @rule(data=st.data(), keep=st.booleans(), lose=st.booleans())
    def arrives(self, data: st.DataObject, keep: bool, lose: bool) -> None:
        report = data.draw(st.sampled_from(self.reports))
        if not keep:
            self.reports.remove(report)
        try:
            grant, raised = self.book.report(report)
        except Fenced:
            return
        if raised:
            self.save()
        if not lose:
            self.grants.append((report.session, report.epoch, grant))

    @precondition(lambda self: self.grants)
    @rule(data=st.data(), keep=st.booleans())
    def answers(self, data: st.DataObject, keep: bool) -> None:
        item = data.draw(st.sampled_from(self.grants))
        if not keep:
            self.grants.remove(item)
        name, epoch, grant = item
        if self.purses[name].epoch == epoch:
            self.purses[name].take(grant)

    @rule(name=st.sampled_from(SESSIONS), want=st.integers(0, 60))
    def exchange(self, name: str, want: int) -> None:
        """A report and its answer, without trouble."""
        self.report(name, want, idle=False)
        grant, raised = self.book.report(self.reports.pop())
        if raised:
            self.save()
        self.purses[name].take(grant)

    @rule(name=st.sampled_from(SESSIONS), share=st.integers(0, 4))
    def use(self, name: str, share: int) -> None:
        """A session opens up to what it may, or closes some of what it has."""
        may = self.purses[name].allowance(POS, self.now)
        target = may * share / 4
        if target > self.used[name]:
            self.used[name] = target
        elif share == 0:
            self.used[name] = self.used[name] / 2

    @rule(name=st.sampled_from(SESSIONS))
    def session_restarts(self, name: str) -> None:
        self.old.append(self.purses[name])
        self.purses[name] = Purse(name, Epoch(self.purses[name].epoch + 1))

    @rule()
    def save(self) -> None:
        self.saved = {
            (name, self.book.epoch_of(name), r): amount
            for name, mine in self.book.lent.items()
            for r, amount in mine.items()
        }

    @rule()
    def central_risk_restarts(self) -> None:
        self.desk = Epoch(self.desk + 1)
        self.book = RiskBook(self.tree(), self.desk)
        for (name, epoch, r), amount in self.saved.items():
            self.book.restore(name, epoch, r, amount)

    @rule(seconds=st.integers(1, 6))
    def time_passes(self, seconds: int) -> None:
        self.now = Nanos(self.now + seconds * 1_000_000_000)

    @invariant()
    def what_all_may_use_is_within_the_limit(self) -> None:
        may = {n: max(self.used[n], p.allowance(POS, self.now)) for n, p in self.purses.items()}
        if self.book.total(POS) <= self.limit:
            self.ceiling = self.limit
        assert sum(may.values()) <= self.ceiling

    @invariant()
    def nobody_holds_more_than_is_on_record(self) -> None:
        for name, purse in self.purses.items():
            assert purse.holds.get(POS, D(0)) <= self.book.lent.get(name, {}).get(POS, D(0))
        self.book.validate()


TestLending = Lending.TestCase
TestLending.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_every_resource_is_lent_by_itself() -> None:
    limits: Sequence[Limit] = (
        Limit(scope=CLUSTER, kind=POSITION, instrument="", value=D(10)),
        Limit(scope=CLUSTER, kind=GROSS_EXPOSURE, instrument="", value=D(1000)),
    )
    book, purse = RiskBook(LimitTree(limits, 1)), Purse("a", Epoch(1))
    grant, _ = book.report(purse.ask({}, {POS: D(20), GROSS: D(500)}, NOW, idle=False))
    assert set(grant.short) == {POS}
    assert grant.granted == {POS: D(10), GROSS: D(550)}

"""A session's answer to whoever wants an account compared with its broker now."""

from __future__ import annotations

from trading.account_book import AccountBook, WantedCheck
from trading.account_check import AccountCheck
from trading.broker import BrokerReport
from trading.errors import NotReady, UnknownThing
from trading.ids import AccountId, Nanos, adopted_tag
from trading.instructions import Checked, Instruction
from trading.orders import ZERO
from trading.recovery import Findings
from trading.session_breaks import Breaks

#: What is still in doubt after so many reports is shown as it is.
_MOST_REPORTS = 4


class Checks(Breaks):
    """Comparisons on demand."""

    def reconcile(self, token: int, account: AccountId, now: Nanos) -> list[Instruction]:
        """Compare everything with a fresh report; one `Checked` follows, once nothing is to be looked at again."""
        book = self.accounts.get(account)
        if book is None:
            self._out.append(Checked(token, UnknownThing("account", account, f"of user {self.user}")))
        elif not book.connected:
            self._out.append(Checked(token, NotReady(f"account {account} is not connected to its broker", 2.0)))
        else:
            book.wanted_checks.append(WantedCheck(token=token, since=now))
            self._ask_report(book, "somebody asked", now)
        return self._drain(now)

    def _answer_checks(self, book: AccountBook, report: BrokerReport, found: Findings) -> None:
        """A report has been taken in."""
        still = []
        for wanted in book.wanted_checks:
            if report.requested_at < wanted.since:
                still.append(wanted)
                continue
            wanted.reports += 1
            wanted.made_up += len(found.updates) + len(found.corrected)
            for theirs, _ in found.strangers:
                order = book.by_tag.get(adopted_tag(theirs.broker_order_id))
                if order is not None and order.client_order_id not in wanted.adopted:
                    wanted.adopted.append(order.client_order_id)
            if book.report_wanted and wanted.reports < _MOST_REPORTS:
                still.append(wanted)
            else:
                self._out.append(Checked(wanted.token, self._check_of(book, report, wanted)))
        if still and not book.report_wanted:
            self._ask_report(book, "somebody asked", report.requested_at)
        book.wanted_checks = still

    def _fail_checks(self, book: AccountBook, why: str) -> None:
        for wanted in book.wanted_checks:
            self._out.append(Checked(wanted.token, NotReady(f"account {book.account}: {why}", 2.0)))
        book.wanted_checks.clear()

    def _check_of(self, book: AccountBook, report: BrokerReport, wanted: WantedCheck) -> AccountCheck:
        theirs = {each.instrument: each.quantity for each in report.positions}
        ours = {each.instrument: each.quantity for each in book.positions.values()}
        held = [i for i in {*ours, *theirs} if ours.get(i, ZERO) or theirs.get(i, ZERO)]
        return AccountCheck(
            account=book.account,
            at=report.requested_at,
            orders=sum(book.find(o.tag, o.broker_order_id) is not None for o in report.orders),
            executions=sum(f.fill.execution_id in book.executions for f in report.fills),
            positions=sum(ours.get(i, ZERO) == theirs.get(i, ZERO) for i in held),
            adopted=tuple(wanted.adopted),
            made_up=wanted.made_up,
            our_cash=book.cash_book.amount if book.cash_book is not None else None,
            their_cash=report.cash,
            currency=report.currency,
            cash_not_compared=self.why_no_cash(book),
            breaks=tuple(book.breaks.values()),
            tolerated=tuple(book.tolerated.values()),
        )

"""A session's requests to its brokers: orders in lanes, and reports.

Each lane has one request in flight; what waited too long for its turn is not sent.  Reports are asked for when
something is in doubt, at most every quarter of a second, and now and then anyhow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from trading.account_book import AccountBook, Ticket
from trading.broker import (
    Answer,
    Verdict,
)
from trading.errors import Invariant
from trading.ids import AccountId, Nanos
from trading.instructions import AskReport, Instruction, Lane, Send
from trading.orders import EventKind, Order, OrderState
from trading.session_journal import Recorder

_SECOND: Final = 1_000_000_000
#: An intent that central risk, the journal or the way to the broker has kept waiting longer than this is not
#: sent any more: the market it was meant for is gone.
STALE_NS: Final = 2 * _SECOND
#: What a connection has not written to the broker's wire so long after it was handed over it does not send.
SEND_NS: Final = 5 * _SECOND
#: Ended orders and executions are kept in memory this long; afterwards the journal alone knows them.
KEEP_NS: Final = 6 * 60 * _SECOND
#: How far back a first report goes, and a later one before the last that was taken in.
FIRST_REPORT_NS: Final = 24 * 3600 * _SECOND
OVERLAP_NS: Final = 3 * 60 * _SECOND
#: Orders in doubt are looked up this often.
RESOLVE_EVERY_NS: Final = _SECOND
#: At most this many tickets go to a broker connection in one call.
MAX_TICKETS: Final = 100


class Requests(Recorder):
    """Lanes and reports."""

    # Lanes to the broker

    def _pump(self, book: AccountBook, now: Nanos) -> None:
        if not book.connected:
            return
        for lane in (Lane.CANCEL, Lane.MODIFY, Lane.PLACE):
            if lane in book.in_flight:
                continue
            held = self._hold_back(book) if lane is Lane.CANCEL else []
            tickets: list[Ticket] = []
            for queue in (book.exits, book.queued[lane]) if lane is Lane.PLACE else (book.queued[lane],):
                while queue and len(tickets) < MAX_TICKETS:
                    ticket, since = queue.popleft()
                    if self._may_still_go(book, lane, ticket, since, now):
                        tickets.append(ticket)
            book.queued[lane].extend(held)
            if not tickets:
                continue
            self._lane_number += 1
            if lane is Lane.PLACE:
                for ticket in tickets:
                    book.sent_at[ticket.tag] = now
            until = Nanos(now + SEND_NS)
            send = Send(book.account, lane, self._lane_number, tuple(tickets), until)  # type: ignore[arg-type]
            book.in_flight[lane] = send
            self._out.append(send)

    def _hold_back(self, book: AccountBook) -> list[tuple[Ticket, Nanos]]:
        """Take out cancels of orders that are on their way: sent now, they would find nothing to cancel."""
        placing, cancels = book.in_flight.get(Lane.PLACE), book.queued[Lane.CANCEL]
        if placing is None or not cancels:
            return []
        on_their_way = {ticket.tag for ticket in placing.tickets}
        held = [item for item in cancels if item[0].tag in on_their_way]
        if held:
            book.queued[Lane.CANCEL] = deque(item for item in cancels if item[0].tag not in on_their_way)
        return held

    def _may_still_go(self, book: AccountBook, lane: Lane, ticket: Ticket, since: Nanos, now: Nanos) -> bool:
        """Whether what waited for its turn is still wanted, and the market it was meant for still there."""
        order = book.by_tag.get(ticket.tag)
        if lane is Lane.CANCEL:
            return True
        if order is None or (lane is Lane.PLACE and order.state is not OrderState.PENDING):
            return False
        refused = EventKind.REJECTED if lane is Lane.PLACE else EventKind.MODIFY_REJECTED
        if order.state.is_final:
            self._record(book, order, refused, now, reason="not sent: the order has ended")
            return False
        if now - since > STALE_NS:
            waited = (now - since) / _SECOND
            reason = f"not sent: {waited:.1f} s had gone by before its turn came"
            self._record(book, order, refused, now, reason=reason)
            return False
        return True

    def answered(
        self, account: AccountId, lane: Lane, number: int, answers: Sequence[Answer], now: Nanos, *, lost: bool = False
    ) -> list[Instruction]:
        """The connection answered a `Send`, or the shell answers for it with UNKNOWN verdicts (``lost``).

        A lost request may lie with a connection that is paused: until its time is up it can still be sent.
        """
        book = self.accounts[account]
        under_way = book.in_flight.get(lane)
        sent_until = now
        if lost and under_way is not None and under_way.number == number:
            sent_until = max(now, under_way.until)
        if under_way is not None and under_way.number == number:
            del book.in_flight[lane]
        for answer in answers:
            order = book.find(answer.tag, answer.broker_order_id)
            if order is None:
                raise Invariant(f"an answer about {answer.tag}, which was never sent from here")
            rise = book.rising.get(order.client_order_id)
            if lane is Lane.MODIFY and rise is not None:
                rise.answered_at = sent_until
            if lane is Lane.PLACE:
                self._placed(book, order, answer, now, sent_until)
            elif answer.verdict is Verdict.UNKNOWN:
                if lane is Lane.CANCEL and order.cancelling:
                    book.cancel_again.add(order.client_order_id)
                self._ask_report(book, f"a {lane} without a clear answer", now)
            elif answer.verdict is Verdict.REJECTED and not order.state.is_final:
                kind = EventKind.CANCEL_REJECTED if lane is Lane.CANCEL else EventKind.MODIFY_REJECTED
                self._record(book, order, kind, now, reason=answer.reason, raw=answer.raw)
                self._ask_report(book, f"a {lane} was refused: {answer.reason}", now)
        return self._drain(now)

    def _placed(self, book: AccountBook, order: Order, answer: Answer, now: Nanos, sent_until: Nanos) -> None:
        if answer.verdict is Verdict.ACCEPTED:
            if order.state in (OrderState.PENDING, OrderState.UNKNOWN):
                self._record(
                    book,
                    order,
                    EventKind.SUBMITTED,
                    now,
                    broker_order_id=answer.broker_order_id,
                    raw=answer.raw,
                )
            elif order.broker_order_id is None and answer.broker_order_id is not None:
                # The stream was faster than the answer: only the id is news.
                order.broker_order_id = answer.broker_order_id
                book.by_broker_id[answer.broker_order_id] = order
                self._heads[order.key] = order
        elif answer.verdict is Verdict.REJECTED:
            if not order.state.is_final:
                self._record(book, order, EventKind.REJECTED, now, reason=answer.reason, raw=answer.raw)
        else:
            # From here on it can arrive for a while: the connection may have held it back until now.
            book.sent_at[order.tag] = sent_until
            if order.state is OrderState.PENDING:
                self._record(book, order, EventKind.UNKNOWN, now, reason=answer.reason, raw=answer.raw)
            self._ask_report(book, "an order without a clear answer", now)

    # Reports

    def _report_since(self, book: AccountBook, now: Nanos) -> Nanos:
        """A later report need not reach further back than what is still in memory here."""
        if not book.last_report_at:
            return book.history_since or Nanos(now - FIRST_REPORT_NS)
        return Nanos(book.last_report_at - OVERLAP_NS)

    def _ask_report(self, book: AccountBook, why: str, now: Nanos) -> None:
        """Ask for a report now, or again once the one under way is in."""
        if book.report_in_flight:
            book.report_wanted = why
        elif not book.connected or now - book.reported_at < RESOLVE_EVERY_NS // 4:
            book.report_wanted = book.report_wanted or why
        else:
            self._send_for_report(book, why, now)

    def _send_for_report(self, book: AccountBook, why: str, now: Nanos) -> None:
        book.report_in_flight = True
        book.asked_at, book.asked_since = now, self._report_since(book, now)
        self._out.append(AskReport(book.account, why, book.asked_since))

    def _ask_due_reports(self, now: Nanos) -> None:
        for book in self.accounts.values():
            if book.report_in_flight or not book.connected:
                continue
            every = (book.reconcile_every_ns, book.positions_every_ns, book.cash_every_ns)
            periodic = min(each for each in every if each)
            if now - book.reported_at < min(RESOLVE_EVERY_NS, periodic):
                continue
            doubtful = bool(book.missed or book.rising or book.undead or book.replacing) or any(
                o.state is OrderState.UNKNOWN for o in book.open.values()
            )
            in_doubt = doubtful or not book.reconciled or bool(book.report_wanted)
            wait = min(RESOLVE_EVERY_NS, periodic) if in_doubt else periodic
            if now - book.reported_at >= wait:
                why = book.report_wanted or ("orders are in doubt" if doubtful else "periodic")
                book.report_wanted = ""
                self._send_for_report(book, why, now)

    def _forget(self, now: Nanos) -> None:
        """Let go of what ended long ago, once the broker's view has been taken in."""
        if now - self._forgot_at < 60 * _SECOND:
            return
        self._forgot_at = now
        for book in self.accounts.values():
            if book.last_report_at:
                book.forget_before(Nanos(min(now, book.last_report_at) - KEEP_NS))

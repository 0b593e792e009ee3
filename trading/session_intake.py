"""What brokers tell a session: connections, updates, reports, and the breaks between their view and ours.

See `trading.session` for the commands, `trading.session_requests` for what goes out and
`trading.session_journal` for how it is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from trading.account_book import AccountBook
from trading.broker import (
    BrokerFill,
    BrokerOrder,
    BrokerReport,
    BrokerUpdate,
    CancelTicket,
    Capabilities,
    UpdateKind,
)
from trading.ids import AccountId, CauseId, ClientOrderId, Nanos, adopted_tag
from trading.instructions import Instruction, Lane
from trading.journal import AccountHistory, BreakKind
from trading.orders import EventKind, Order, OrderState
from trading.recovery import compare_orders
from trading.session_checks import Checks
from trading.session_requests import SEND_NS

_KINDS: Final = {
    UpdateKind.ACCEPTED: EventKind.SUBMITTED,
    UpdateKind.FILLED: EventKind.FILLED,
    UpdateKind.CANCELLED: EventKind.CANCELLED,
    UpdateKind.REJECTED: EventKind.REJECTED,
    UpdateKind.EXPIRED: EventKind.EXPIRED,
    UpdateKind.MODIFIED: EventKind.MODIFIED,
    UpdateKind.CANCEL_REJECTED: EventKind.CANCEL_REJECTED,
    UpdateKind.MODIFY_REJECTED: EventKind.MODIFY_REJECTED,
}
_ENDS: Final = {
    EventKind.CANCELLED: OrderState.CANCELLED,
    EventKind.REJECTED: OrderState.REJECTED,
    EventKind.EXPIRED: OrderState.EXPIRED,
}


class Intake(Checks):
    """The broker's word."""

    # Taking up accounts

    def add_account(
        self, history: AccountHistory, late_arrival_ns: int, now: Nanos, capabilities: Capabilities | None = None
    ) -> list[Instruction]:
        """Take up an account from the journal.  Orders that may have left before the restart become UNKNOWN.

        Orders that ``capabilities`` lacks are refused before they are journaled; None offers everything.
        """
        book = AccountBook(history.account)
        book.capabilities = capabilities
        book.load(history)
        self.accounts[history.account] = book
        self.late_arrival_ns[history.account] = late_arrival_ns
        for position in history.positions:
            instrument = self.instruments.get(position.instrument)
            multiplier = instrument.multiplier if instrument is not None else position.multiplier
            line = self.exposure.line(history.account, position.instrument, multiplier)
            if position.instrument not in self.exposure.marks and position.average_cost:
                self.exposure.set_mark(position.instrument, position.average_cost)
            self.exposure.set_position(line, position.quantity)
        # What left just before the restart can reach the broker until then, and show there some time later.
        handed_over_until = Nanos(now + SEND_NS)
        for order in list(book.open.values()):
            if (rise := book.rising.get(order.client_order_id)) is not None:
                rise.answered_at = handed_over_until
            self._count_open(book, order)
            if order.state in (OrderState.PENDING, OrderState.UNKNOWN):
                book.sent_at[order.tag] = handed_over_until
            if order.state is OrderState.PENDING:
                self._record(
                    book,
                    order,
                    EventKind.UNKNOWN,
                    now,
                    reason="the session restarted while it was on its way",
                )
        return self._drain(now)

    def switch(self, account: AccountId, on: bool, now: Nanos) -> list[Instruction]:
        """Let an account that was taken up trade, or not.

        One that is off keeps what it holds, and its open orders, in all figures; it takes no new orders, closing ones
        included, and is compared with nothing.  Cancels wait until it is on again.
        """
        book = self.accounts[account]
        book.disabled = not on
        return self.connection(account, up=False, now=now) if book.disabled else self._drain(now)

    def connection(self, account: AccountId, up: bool, now: Nanos) -> list[Instruction]:
        """The broker connection of an account came up (again) or went away."""
        book = self.accounts[account]
        if up and not book.connected and not book.disabled:
            book.connected = True
            book.reconciled = False
            book.is_outdated = book.report_in_flight
            self._ask_report(book, "the connection came up", now)
        elif not up and book.connected:
            book.connected = False
            self._fail_checks(book, "the connection to its broker was lost")
        return self._drain(now)

    # Updates

    def updated(self, account: AccountId, updates: Sequence[BrokerUpdate], now: Nanos) -> list[Instruction]:
        """Unasked messages from the broker, in the order in which they came."""
        book = self.accounts[account]
        for update in updates:
            order = book.find(update.tag, update.broker_order_id)
            if order is None:
                self._ask_report(
                    book, f"an update about order {update.broker_order_id or update.tag}, not known here", now
                )
            elif update.kind is UpdateKind.ACCEPTED and order.state is OrderState.REJECTED:
                # It was given up for lost, and stands after all: only the broker's book can tell.
                self._ask_report(book, f"{order.client_order_id} was given up, and the broker accepts it", now)
            elif update.kind is UpdateKind.FILLED and order.client_order_id in book.adjusted:
                # It may be in an accepted break already: only the broker's book can tell.
                self._ask_report(book, f"an execution of {order.client_order_id}, which holds an adjustment", now)
            elif self._is_of_unsure_size(book, order, update):
                self._ask_report(book, f"a fill would end {order.client_order_id}, whose size is in doubt", now)
            elif self._lacks_fills(book, order, update):
                self._ask_report(book, f"more of {order.client_order_id} has filled than was told", now)
                if update.kind is UpdateKind.FILLED:
                    self._take_update(book, order, update, now)
            else:
                self._take_update(book, order, update, now)
        return self._drain(now)

    @staticmethod
    def _lacks_fills(book: AccountBook, order: Order, update: BrokerUpdate) -> bool:
        """Whether executions before this message are missing.  An order must not end, and its limits be freed, on
        a message that says so: what it has filled still counts.
        """
        if update.filled_quantity is None or order.state.is_final:
            return False
        known = order.filled_quantity
        if update.fill is not None and update.fill.execution_id not in book.executions:
            known += update.fill.quantity
        return update.filled_quantity > known and (update.fill is not None or _KINDS[update.kind] in _ENDS)

    def _is_of_unsure_size(self, book: AccountBook, order: Order, update: BrokerUpdate) -> bool:
        """Whether a fill would end an order that may have become larger: only the broker's book can tell."""
        if update.kind is not UpdateKind.FILLED or update.fill is None or order.state.is_final:
            return False
        if book.reconciled and order.client_order_id not in book.rising:
            return False
        return order.filled_quantity + update.fill.quantity >= order.quantity

    def _take_update(self, book: AccountBook, order: Order, update: BrokerUpdate, now: Nanos) -> None:
        kind = _KINDS[update.kind]
        if self._is_old_news(book, order, kind, update):
            return
        self._record(
            book,
            order,
            kind,
            now,
            reason=update.reason,
            raw=update.raw,
            broker_order_id=update.broker_order_id if order.broker_order_id is None else None,
            fill=update.fill,
            quantity=update.quantity,
            limit_price=update.limit_price,
            stop_price=update.stop_price,
            trail_price=update.trail_price,
            trail_percent=update.trail_percent,
        )

    def _is_old_news(self, book: AccountBook, order: Order, kind: EventKind, update: BrokerUpdate) -> bool:
        """Whether a message repeats what is known: late and duplicate messages change nothing."""
        if kind is EventKind.FILLED:
            return update.fill is None or update.fill.execution_id in book.executions
        if kind is EventKind.SUBMITTED:
            return order.state not in (OrderState.PENDING, OrderState.UNKNOWN)
        if kind is EventKind.MODIFIED and order.state.is_final:
            return True
        return _ENDS.get(kind) is order.state

    # The whole view

    def reported(self, account: AccountId, report: BrokerReport | None, now: Nanos) -> list[Instruction]:
        """The broker's whole view, or None when it could not be fetched (asked again by the clock)."""
        book = self.accounts[account]
        book.report_in_flight = False
        book.reported_at = now
        if report is None:
            book.is_outdated = False
            self._fail_checks(book, "the broker gave no report")
            return self._drain(now)
        # By our clock, like everything it is compared with: the broker was asked after this.
        # What is older than what was asked for may have been forgotten here, and would be taken in twice.
        since = book.asked_since
        fills = self._unadjusted(book, report, tuple(f for f in report.fills if f.fill.at >= since), now)
        traded = {f.broker_order_id for f in fills}
        orders = tuple(o for o in report.orders if not o.state.is_final or o.at >= since or o.broker_order_id in traded)
        report = replace(report, requested_at=book.asked_at, orders=orders, fills=fills)
        late = self.late_arrival_ns[account]
        found = compare_orders(book.by_tag, book.executions.keys(), report, book.sent_at, late)
        for tag, theirs in found.corrected:
            self._record(
                book,
                book.by_tag[tag],
                EventKind.MODIFIED,
                now,
                reason="so in the broker's book",
                quantity=theirs.quantity,
                limit_price=theirs.limit_price,
                stop_price=theirs.stop_price,
            )
        for update in found.updates:
            order = book.by_tag[update.tag]
            self._take_update(book, order, update, now)
        for theirs, their_fills in found.strangers:
            self._adopt(book, theirs, their_fills, now)
        self._settle_absent(book, found.absent, report, now)
        self._settle_undead(book, found.undead, report, now)
        self._settle_rises(book, report, now)
        self._settle_unexplained(book, found.unexplained, report, now)
        self._cancel_again(book, now)
        # In doubt, at a reconnect and where somebody asked, everything; else each in its own time.
        everything = not book.reconciled or bool(book.wanted_checks)
        if everything or book.suspected or now - book.positions_at >= book.positions_every_ns:
            self._compare_positions(book, report, now)
        if everything or book.cash_suspected is not None or now - book.cash_at >= book.cash_every_ns:
            self._compare_cash(book, report, now)
        book.cash, book.currency = report.cash, report.currency
        book.last_report_at = report.requested_at
        # A view from before the connection was lost does not say what happened meanwhile.
        book.reconciled = book.connected and not book.is_outdated
        book.is_outdated = False
        self._answer_checks(book, report, found)
        if book.report_wanted:
            why, book.report_wanted = book.report_wanted, ""
            self._ask_report(book, why, now)
        return self._drain(now)

    def _settle_absent(self, book: AccountBook, absent: list[str], report: BrokerReport, now: Nanos) -> None:
        absent = [tag for tag in absent if not book.is_on_its_way(book.by_tag[tag])]
        for tag in set(book.missed) - set(absent):
            del book.missed[tag]
        missing = {book.by_tag[tag].client_order_id for tag in absent}
        there = "the order is in the broker's book again, or has ended"
        self._close_agreed(book, BreakKind.ORDER_MISSING, missing, there, now)
        for tag in absent:
            order = book.by_tag[tag]
            if (order.instrument, BreakKind.ORDER_MISSING, order.client_order_id) in book.tolerated:
                continue
            if book.missed.setdefault(tag, report.requested_at) == report.requested_at:
                self._ask_report(book, "an order is not in the broker's book", now)
                continue
            del book.missed[tag]
            if order.state in (OrderState.PENDING, OrderState.UNKNOWN):
                self._record(
                    book,
                    order,
                    EventKind.REJECTED,
                    now,
                    reason="the broker's book lacks it, twice: it never arrived",
                )
            else:
                self._break(
                    book,
                    order.instrument,
                    BreakKind.ORDER_MISSING,
                    str(order.state),
                    "absent",
                    now,
                    order.client_order_id,
                )

    def _settle_undead(
        self, book: AccountBook, undead: list[tuple[str, BrokerOrder]], report: BrokerReport, now: Nanos
    ) -> None:
        """An order that its owner was told has ended, and that two reports show alive, is taken back at the broker."""
        shown = {tag for tag, _ in undead}
        for tag in set(book.undead) - shown:
            del book.undead[tag]
        for tag, theirs in undead:
            order = book.by_tag[tag]
            if not order.state.is_final:
                book.undead.pop(tag, None)
            elif book.undead.setdefault(tag, report.requested_at) == report.requested_at:
                self._ask_report(book, "an order that has ended here is alive at the broker", now)
            else:
                del book.undead[tag]
                reason = f"the broker's book shows it alive although it was {order.state} here; it is taken back"
                id_ = theirs.broker_order_id if order.broker_order_id is None else None
                self._record(
                    book, order, EventKind.REVIVED, now, reason=reason, quantity=theirs.quantity, broker_order_id=id_
                )
                self._record(book, order, EventKind.CANCEL_REQUESTED, now, reason=reason)
                ticket = CancelTicket(tag=order.tag, broker_order_id=order.broker_order_id, instrument=order.instrument)
                book.queued[Lane.CANCEL].append((ticket, now))

    def _cancel_again(self, book: AccountBook, now: Nanos) -> None:
        """A cancel that may not have arrived is repeated: that is safe, unlike an order."""
        for key in sorted(book.cancel_again):
            order = book.open.get(key)
            if order is None or not order.cancelling:
                book.cancel_again.discard(key)
            elif order.state is not OrderState.UNKNOWN:
                book.cancel_again.discard(key)
                ticket = CancelTicket(tag=order.tag, broker_order_id=order.broker_order_id, instrument=order.instrument)
                book.queued[Lane.CANCEL].append((ticket, now))

    def _settle_rises(self, book: AccountBook, report: BrokerReport, now: Nanos) -> None:
        """A larger size that the broker's book does not show once it would have to will not come."""
        for key, rise in list(book.rising.items()):
            if rise.answered_at and rise.answered_at + self.late_arrival_ns[book.account] < report.requested_at:
                order = book.orders[key]
                price = order.limit_price or order.stop_price
                reason = f"the broker's book shows {order.quantity}{f' at {price}' if rise.price else ''}"
                self._record(book, order, EventKind.MODIFY_REJECTED, now, reason=reason)

    def _adopt(self, book: AccountBook, theirs: BrokerOrder, fills: list[BrokerFill], now: Nanos) -> None:
        if theirs.state.is_final and not fills:
            return
        known = book.by_broker_id.get(theirs.broker_order_id)
        if known is None:
            known = Order(
                account=book.account,
                client_order_id=ClientOrderId(f"adopted-{theirs.broker_order_id}"),
                instrument=theirs.instrument,
                side=theirs.side,
                type=theirs.type,
                quantity=theirs.quantity,
                limit_price=theirs.limit_price,
                stop_price=theirs.stop_price,
                trail_price=theirs.trail_price,
                trail_percent=theirs.trail_percent,
                time_in_force=theirs.time_in_force,
                reduce_only=False,
                algo=None,
                tag=adopted_tag(theirs.broker_order_id),
                state=OrderState.SUBMITTED,
                created_at=theirs.at or now,
                updated_at=now,
                broker_order_id=theirs.broker_order_id,
            )
            self._open(
                book,
                known,
                EventKind.ADOPTED,
                now,
                cause=CauseId("reconcile"),
                reason="placed outside Quarterdeck",
            )
        for fill in fills:
            if fill.fill.execution_id not in book.executions:
                self._record(book, known, EventKind.FILLED, now, fill=fill.fill)
        end = {v: k for k, v in _ENDS.items()}.get(theirs.state)
        if end is not None and not known.state.is_final:
            self._record(book, known, end, now, reason=theirs.reason)

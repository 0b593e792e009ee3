"""Changing an order where the broker cannot: take it back, and place its successor once it is surely gone.

The successor is an order of its own, under the key ``KEY~2`` (then ``KEY~3`` …), so that one key still has at most one
order at the broker.  It is placed only after a report asked for after the end of the old one shows that one neither
alive nor with executions unaccounted for: never are both live, and what filled meanwhile is taken off.  A restart in
between leaves the order taken back and places nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trading.account_book import AccountBook, Replacement
from trading.broker import Answer, BrokerReport, BrokerUpdate, CancelTicket
from trading.ids import AccountId, CauseId, ClientOrderId, Nanos, successor_key
from trading.instructions import Instruction, Lane
from trading.orders import EventKind, ModifyOrder, Order, OrderState, PlaceOrder
from trading.session_budget import Parked
from trading.session_risk import RiskChecks

#: A change that took longer than this to come about is not made any more: the market it was meant for is gone.
REPLACE_NS: Final = 10_000_000_000


class Replacing(RiskChecks):
    """Cancel, then new."""

    def _try_place(self, parked: Parked, now: Nanos) -> None:
        raise NotImplementedError

    def _begin_replacing(self, book: AccountBook, order: Order, change: ModifyOrder, now: Nanos) -> None:
        """Take an order back to place it anew; the change has been recorded as asked for."""
        book.replacing[order.client_order_id] = Replacement(change=change, since=now)
        self._count_open(book, order)
        reason = "to be placed anew with its new terms: its broker cannot change orders"
        self._record(book, order, EventKind.CANCEL_REQUESTED, now, cause=change.cause, reason=reason)
        ticket = CancelTicket(tag=order.tag, broker_order_id=order.broker_order_id, instrument=order.instrument)
        self._gate(lambda _: book.queued[Lane.CANCEL].append((ticket, now)))

    def _drop_replacing(self, book: AccountBook, order: Order, reason: str, now: Nanos) -> bool:
        """Forget about a change under way; False: there was none."""
        if book.replacing.pop(order.client_order_id, None) is None:
            return False
        self._count_open(book, order)
        self._record(book, order, EventKind.MODIFY_REJECTED, now, reason=reason)
        return True

    def updated(self, account: AccountId, updates: Sequence[BrokerUpdate], now: Nanos) -> list[Instruction]:
        """As `Intake.updated`; goes on with what is being replaced."""
        return [*super().updated(account, updates, now), *self._go_on(account, now)]

    def answered(
        self, account: AccountId, lane: Lane, number: int, answers: Sequence[Answer], now: Nanos, *, lost: bool = False
    ) -> list[Instruction]:
        """As `Requests.answered`; goes on with what is being replaced."""
        return [*super().answered(account, lane, number, answers, now, lost=lost), *self._go_on(account, now)]

    def reported(self, account: AccountId, report: BrokerReport | None, now: Nanos) -> list[Instruction]:
        """As `Intake.reported`; goes on with what is being replaced."""
        return [*super().reported(account, report, now), *self._go_on(account, now)]

    def _go_on(self, account: AccountId, now: Nanos) -> list[Instruction]:
        book = self.accounts[account]
        if not book.replacing:
            return []
        for key, replacement in list(book.replacing.items()):
            order = book.orders[key]
            if not order.state.is_final:
                if not order.cancelling:
                    self._drop_replacing(book, order, f"it was not taken back: {order.reason}", now)
            elif order.state is not OrderState.CANCELLED:
                self._drop_replacing(book, order, f"it is {order.state}", now)
            elif not replacement.ended_at:
                replacement.ended_at = now
                self._ask_report(book, f"{key} is being replaced", now)
            elif (
                book.reconciled
                and book.last_report_at >= replacement.ended_at
                and order.tag not in book.undead
                and order.tag not in book.unexplained
            ):
                self._succeed(book, order, replacement, now)
        return self._drain(now)

    def _succeed(self, book: AccountBook, order: Order, replacement: Replacement, now: Nanos) -> None:
        change = replacement.change
        left = (change.quantity or order.quantity) - order.filled_quantity
        if left <= 0:
            self._drop_replacing(book, order, f"{order.filled_quantity} had filled before it was taken back", now)
            return
        if now - replacement.since > REPLACE_NS:
            waited = (now - replacement.since) / 1e9
            self._drop_replacing(book, order, f"not placed anew: {waited:.1f} s had gone by", now)
            return
        del book.replacing[order.client_order_id]
        self._count_open(book, order)
        intent = PlaceOrder(
            account=book.account,
            client_order_id=successor_key(order.client_order_id),
            instrument=order.instrument,
            side=order.side,
            type=order.type,
            quantity=left,
            limit_price=change.limit_price or order.limit_price,
            stop_price=change.stop_price or order.stop_price,
            trail_price=change.trail_price or order.trail_price,
            trail_percent=change.trail_percent or order.trail_percent,
            time_in_force=order.time_in_force,
            reduce_only=order.reduce_only,
            algo=order.algo,
            cause=CauseId(f"replaces {order.client_order_id}"),
        )
        # Nobody waits for an answer: a refusal is journaled as a denied order.
        self._try_place(Parked(intent=intent, slots=[], since=now), now)

    def _latest(self, account: AccountId, key: ClientOrderId) -> ClientOrderId:
        """The key of the order that stands for ``key`` now: of its last successor where it has been replaced."""
        book = self.accounts.get(account)
        while book is not None and (after := successor_key(key)) in book.orders:
            key = after
        return key

"""A session's breaks: how they are found, and how a person settles one.

A position stays the sum of its executions: taking over the broker's side is journaled as an order with an execution
of its own.  Orders and executions themselves are compared in `trading.recovery`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Final

from msgspec.structs import replace

from trading.account_book import AccountBook
from trading.broker import BrokerFill, BrokerReport
from trading.errors import BadInput, Conflict, NotReady, TradeError, UnknownThing
from trading.ids import AccountId, CauseId, ClientOrderId, ExecutionId, InstrumentId, Nanos, broker_tag
from trading.instructions import Instruction, Settled
from trading.journal import Break, BreakKind, CashBook, Settlement
from trading.orders import (
    ZERO,
    EventKind,
    Fill,
    Order,
    OrderEvent,
    OrderState,
    OrderType,
    Side,
    TimeInForce,
)
from trading.recovery import compare_positions
from trading.session_requests import Requests

#: Executions of ours that stand for what the broker has and its trade book does not show.
ADJUSTMENT: Final = "adjustment:"
_CASH: Final = (InstrumentId(""), BreakKind.CASH, None)


class Breaks(Requests):
    """Differences that reports do not explain."""

    # Settling by hand

    def settle_break(
        self,
        token: int,
        account: AccountId,
        break_id: str,
        how: Settlement,
        by: str,
        note: str,
        seen: tuple[str, str],
        now: Nanos,
    ) -> list[Instruction]:
        """Close a break: the broker's side becomes ours, or the difference is explained and tolerated as it is.

        ``seen`` are both sides as whoever decided saw them.  One `Settled` follows when it is in the journal: with
        `Conflict` where the break is not what was seen any more.
        """
        try:
            closed, number = self._settle(account, break_id, how, by, note, seen, now)
        except TradeError as error:
            self._out.append(Settled(token, error))
        else:
            self._gate(partial(self._settled, token, closed), number)
        return self._drain(now)

    def _settled(self, token: int, closed: Break, _now: Nanos) -> None:
        self._out.append(Settled(token, closed))

    def _settle(
        self,
        account: AccountId,
        break_id: str,
        how: Settlement,
        by: str,
        note: str,
        seen: tuple[str, str],
        now: Nanos,
    ) -> tuple[Break, int]:
        book = self.accounts.get(account)
        if book is None:
            raise UnknownThing("account", account, f"user {self.user} has {', '.join(sorted(self.accounts)) or 'none'}")
        if how is Settlement.AGREED:
            raise BadInput("how", f"{how} is what a break does by itself: use accepted or explained")
        if not note.strip():
            raise BadInput("note", "say in a few words why: it is kept with the break")
        if self.journal_is_away:
            raise NotReady("the journal (PostgreSQL) is away; nothing is settled until it is back", 2.0)
        item = next((each for each in book.breaks.values() if each.id == break_id), None)
        if item is None:
            raise Conflict(
                "break_not_open", f"break {break_id!r} is not open any more: GET /v1/breaks says how it ended"
            )
        if (item.ours, item.theirs) != seen:
            raise Conflict(
                "break_moved",
                f"break {break_id!r} is now ours {item.ours}, theirs {item.theirs}; you decided about ours {seen[0]}, "
                f"theirs {seen[1]}: look at it again",
            )
        why = f"{how} break {item.id} by {by}: {note}"
        if how is Settlement.ACCEPTED:
            self._accept_break(book, item, why, now)
        if item.kind is BreakKind.ORDER_MISSING:
            # It is not looked for any more.
            book.missed.pop(self._order_of(book, item).tag, None)
        closed = replace(
            item,
            resolved_at=now,
            resolution=f"{how} by {by}: {note}",
            settlement=how,
            resolved_by=by,
            # That an order has filled too much does not come and go.
            tolerated=how is Settlement.EXPLAINED and item.kind is not BreakKind.OVERFILL,
        )
        del book.breaks[item.key]
        if closed.tolerated:
            book.tolerated[item.key] = closed
        self._batch.breaks.append(closed)
        return closed, self._filling

    def _accept_break(self, book: AccountBook, item: Break, why: str, now: Nanos) -> None:
        match item.kind:
            case BreakKind.POSITION:
                self._accept_position(book, item, why, now)
            case BreakKind.MISSING_EXECUTION:
                self._accept_executions(book, item, why, now)
            case BreakKind.ORDER_MISSING:
                order = self._order_of(book, item)
                if order.state.is_final:
                    raise Conflict("break_moved", f"order {order.client_order_id} is {order.state} by now")
                self._record(book, order, EventKind.CANCELLED, now, reason=why)
            case BreakKind.OVERFILL:
                pass  # what the broker has filled is in our books already
            case BreakKind.CASH:
                self._accept_cash(book, item, now)

    def _order_of(self, book: AccountBook, item: Break) -> Order:
        order = book.orders.get(item.client_order_id) if item.client_order_id is not None else None
        if order is None:
            raise Conflict("break_moved", f"order {item.client_order_id} ended long ago: explain the break instead")
        return order

    def _accept_position(self, book: AccountBook, item: Break, why: str, now: Nanos) -> None:
        ours, theirs = Decimal(item.ours), Decimal(item.theirs)
        position = book.positions.get(item.instrument)
        if (position.quantity if position is not None else ZERO) != ours:
            raise Conflict("break_moved", f"{item.instrument} has traded since: wait for the next comparison")
        key = ClientOrderId(f"adjust-{broker_tag(book.account, item.id)}")
        if key in book.orders:
            raise Conflict("client_order_id_reused", f"an order {key!r} is there already: explain the break instead")
        change = theirs - ours
        price = self._adjusting_price(book, item.instrument, ours, theirs)
        order = Order(
            account=book.account,
            client_order_id=key,
            instrument=item.instrument,
            side=Side.BUY if change > 0 else Side.SELL,
            type=OrderType.MARKET,
            quantity=abs(change),
            limit_price=None,
            stop_price=None,
            time_in_force=TimeInForce.DAY,
            reduce_only=False,
            algo=None,
            # No broker's tag has a colon in it.
            tag=f"{ADJUSTMENT}{item.id}",
            state=OrderState.SUBMITTED,
            created_at=now,
            updated_at=now,
        )
        self._open(book, order, EventKind.ADOPTED, now, cause=CauseId("accept"), reason=why)
        unpaid = book.cash_book.amount if book.cash_book is not None else ZERO
        self._adjust(book, order, item, abs(change), price, why, now)
        book.suspected.pop(item.instrument, None)
        cash = book.cash_book
        if cash is not None and book.cash is not None and abs(book.cash - unpaid) < abs(book.cash - cash.amount):
            # The broker's cash says that nothing was paid for it: a transfer, a split.
            cash.amount = unpaid
            self._rebased.add(book.account)

    def _adjusting_price(self, book: AccountBook, instrument: InstrumentId, ours: Decimal, theirs: Decimal) -> Decimal:
        """What the difference is booked at: the broker's average, or the last price where it holds less than we do."""
        average, mark = book.their_prices.get(instrument, ZERO), self.exposure.marks.get(instrument, ZERO)
        position = book.positions.get(instrument)
        cost = position.average_cost if position is not None else ZERO
        shrinks = abs(theirs) < abs(ours) and theirs * ours >= 0
        price = (mark or average or cost) if shrinks else (average or mark or cost)
        if not price:
            raise NotReady(f"no price of {instrument} is known yet to book the difference at", 5.0)
        return price

    def _accept_executions(self, book: AccountBook, item: Break, why: str, now: Nanos) -> None:
        order = self._order_of(book, item)
        ours, theirs = Decimal(item.ours), Decimal(item.theirs)
        if order.filled_quantity != ours:
            raise Conflict("break_moved", f"{order.client_order_id} has filled since: wait for the next comparison")
        quantity = theirs - ours
        average = book.their_averages.get(order.tag, ZERO)
        # What the executions must have cost for the broker's average to come out.
        price = (average * theirs - order.average_price * ours) / quantity if average else ZERO
        if price <= 0:
            price = average or self.exposure.marks.get(order.instrument, ZERO) or order.average_price
        if not price:
            raise NotReady(f"no price of {order.instrument} is known yet to book the executions at", 5.0)
        self._adjust(book, order, item, quantity, price, why, now)
        book.unexplained.pop(order.tag, None)

    def _adjust(
        self, book: AccountBook, order: Order, item: Break, quantity: Decimal, price: Decimal, why: str, now: Nanos
    ) -> None:
        fill = Fill(execution_id=ExecutionId(f"{ADJUSTMENT}{item.id}"), quantity=quantity, price=price, at=now)
        self._record(book, order, EventKind.FILLED, now, fill=fill, reason=why)
        book.adjusted.add(order.client_order_id)

    def _accept_cash(self, book: AccountBook, item: Break, now: Nanos) -> None:
        cash, change = book.cash_book, item.difference
        if cash is None or change is None:
            raise Conflict("break_moved", "cash is not reckoned here any more: explain the break instead")
        # The difference and not the figure: what has traded since the report moved both sides alike.
        book.cash_book = replace(cash, amount=cash.amount + change, based_at=now)
        book.cash_suspected = None
        self._rebased.add(book.account)

    # Executions that stand in for others

    def _unadjusted(
        self, book: AccountBook, report: BrokerReport, fills: tuple[BrokerFill, ...], now: Nanos
    ) -> tuple[BrokerFill, ...]:
        """Leave out executions that show up after all and that an accepted break has already accounted for."""
        if not book.adjusted:
            return fills
        theirs = {order.broker_order_id: order.filled_quantity for order in report.orders}
        extra: dict[str, Decimal] = {}
        kept = []
        for each in fills:
            order = book.find(each.tag, each.broker_order_id)
            known = each.fill.execution_id in book.executions
            if order is None or known or order.client_order_id not in book.adjusted:
                kept.append(each)
            elif each.broker_order_id in theirs:
                filled = order.filled_quantity + extra.get(order.tag, ZERO) + each.fill.quantity
                if filled <= theirs[each.broker_order_id]:
                    extra[order.tag] = extra.get(order.tag, ZERO) + each.fill.quantity
                    kept.append(each)
                else:
                    self._pass_over(book, order, each.fill, now)
        return tuple(kept)

    def _pass_over(self, book: AccountBook, order: Order, fill: Fill, now: Nanos) -> None:
        book.executions[fill.execution_id] = now
        event = OrderEvent(
            kind=EventKind.REFUSED,
            account=order.account,
            client_order_id=order.client_order_id,
            at=now,
            actor=self.actor,
            reason=f"execution {fill.execution_id} of {fill.quantity} at {fill.price} is in an accepted break already",
        )
        self._note(order, event)

    # Finding

    def _settle_unexplained(
        self, book: AccountBook, unexplained: Mapping[str, tuple[Decimal, Decimal]], report: BrokerReport, now: Nanos
    ) -> None:
        """A filled quantity without its executions, seen twice, is a break until they are in."""
        averages = {order.broker_order_id: order.average_price for order in report.orders}
        for tag, filled in list(book.unexplained.items()):
            if book.by_tag[tag].filled_quantity >= filled:
                del book.unexplained[tag]
        for tag, (_, theirs) in unexplained.items():
            order = book.by_tag[tag]
            ours = order.filled_quantity
            if ours >= theirs:
                continue
            if order.broker_order_id in averages:
                book.their_averages[tag] = averages[order.broker_order_id]
            key = order.client_order_id
            if tag in book.unexplained:
                self._break(book, order.instrument, BreakKind.MISSING_EXECUTION, str(ours), str(theirs), now, key)
            else:
                self._ask_report(book, f"executions of {key} are not in the trade book", now)
            book.unexplained[tag] = theirs
        still = {book.by_tag[tag].client_order_id for tag in book.unexplained}
        self._close_agreed(book, BreakKind.MISSING_EXECUTION, still, "the executions have come in", now)

    def _close_agreed(
        self, book: AccountBook, kind: BreakKind, still: set[ClientOrderId], resolution: str, now: Nanos
    ) -> None:
        """Close the breaks of a kind whose orders are not ``still`` at odds, and drop what was explained of them."""
        for item in list(book.breaks.values()):
            if item.kind is kind and item.client_order_id not in still:
                self._resolve_break(book, item, resolution, now)
        for item in list(book.tolerated.values()):
            if item.kind is kind and item.client_order_id not in still:
                self._end_tolerance(book, item)

    def _compare_positions(self, book: AccountBook, report: BrokerReport, now: Nanos) -> None:
        differ = compare_positions(book.positions, report, book.moved_at)
        book.their_prices = {p.instrument: p.average_price for p in report.positions if p.average_price}
        book.positions_at = report.requested_at
        suspected = {}
        for instrument, (ours, theirs) in differ.items():
            tolerated = book.tolerated.get((instrument, BreakKind.POSITION, None))
            if tolerated is not None and tolerated.difference == theirs - ours:
                continue
            suspected[instrument] = (ours, theirs)
            if book.suspected.get(instrument) == (ours, theirs):
                self._break(book, instrument, BreakKind.POSITION, str(ours), str(theirs), now)
            else:
                self._ask_report(book, f"the position of {instrument} differs", now)
        book.suspected = suspected
        settled = {i for i, at in book.moved_at.items() if at >= report.requested_at}
        for item in list(book.breaks.values()):
            agrees = item.instrument not in differ and item.instrument not in settled
            if item.kind is BreakKind.POSITION and agrees:
                self._resolve_break(book, item, "the positions agree again", now)
        for item in list(book.tolerated.values()):
            agrees = item.instrument not in differ and item.instrument not in settled
            if item.kind is BreakKind.POSITION and agrees:
                self._end_tolerance(book, item)

    # Cash

    def why_no_cash(self, book: AccountBook) -> str:
        """Why an account's cash is not compared; "" where it is."""
        if book.capabilities is None or not book.capabilities.trade_date_cash:
            return "the broker's figure does not move with each execution"
        if book.cash_book is None:
            return "there is no figure to reckon from yet: two reports have to agree on one"
        return book.cash_book.off

    def _compare_cash(self, book: AccountBook, report: BrokerReport, now: Nanos) -> None:
        """A difference that two reports show while nothing is under way is a break of the account."""
        if book.capabilities is None or not book.capabilities.trade_date_cash:
            return
        if book.cash_book is not None and book.cash_book.off:
            return
        moved = any(at >= report.requested_at for at in book.moved_at.values())
        if moved or book.suspected or book.unexplained:
            # Executions are under way or missing; their money is in one of the sums only.
            return
        book.cash_at = report.requested_at
        cash = book.cash_book
        if cash is None or cash.currency != report.currency:
            self._begin_cash(book, report)
            return
        difference, slack = report.cash - cash.amount, book.cash_slack.of(report.cash)
        known, tolerated = book.breaks.get(_CASH), book.tolerated.get(_CASH)
        if abs(difference) <= slack:
            book.cash_suspected = None
            if known is not None:
                self._resolve_break(book, known, "the sums agree again", now)
            if tolerated is not None:
                self._end_tolerance(book, tolerated)
        elif tolerated is not None and abs(difference - (tolerated.difference or ZERO)) <= slack:
            book.cash_suspected = None
        elif book.cash_suspected is not None and abs(difference - book.cash_suspected) <= slack:
            if known is None or known.difference is None or abs(difference - known.difference) > slack:
                self._break(book, _CASH[0], BreakKind.CASH, str(cash.amount), str(report.cash), now)
        else:
            book.cash_suspected = difference
            self._ask_report(book, "cash differs", now)

    def _begin_cash(self, book: AccountBook, report: BrokerReport) -> None:
        """Reckon from the broker's figure once a later report bears it out.

        Its lists may lag behind its cash: an execution that shows up later would be counted twice.
        """
        begun = book.cash_begun
        is_same = begun is not None and begun.currency == report.currency
        if begun is None or not is_same or abs(report.cash - begun.amount) > book.cash_slack.amount:
            book.cash_begun = CashBook(
                account=book.account, currency=report.currency, amount=report.cash, based_at=report.requested_at
            )
        elif begun.based_at + self.late_arrival_ns[book.account] < report.requested_at:
            book.cash_book, book.cash_begun = begun, None
            self._rebased.add(book.account)

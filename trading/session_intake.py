"""The other half of a session's core: the journal's gates, and everything that brokers tell us.

See `trading.session` for the commands.  Here: recording events along the transition table, group commit (one
append in flight, what arrives meanwhile goes as the next one), lanes to the broker (one request in flight
each), answers, updates, reports, reconciliation breaks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import copy
from decimal import Decimal
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from trading.account_book import AccountBook, Ticket
from trading.broker import (
    Answer,
    BrokerFill,
    BrokerOrder,
    BrokerReport,
    BrokerUpdate,
    CancelTicket,
    UpdateKind,
    Verdict,
)
from trading.errors import Invariant
from trading.exposure import ExposureBook
from trading.ids import AccountId, CauseId, ClientOrderId, Epoch, InstrumentId, Nanos, UserId, adopted_tag
from trading.instructions import Append, AskReport, Instruction, Lane, Note, Send, Tell
from trading.instruments import Instrument
from trading.journal import AccountHistory, Break, JournalBatch
from trading.orders import ZERO, EventKind, Fill, Order, OrderEvent, OrderState, apply, can_apply
from trading.positions import Position
from trading.recovery import compare_orders, compare_positions

_SECOND: Final = 1_000_000_000
#: An intent that central risk, the journal or the way to the broker has kept waiting longer than this is not
#: sent any more: the market it was meant for is gone.
STALE_NS: Final = 2 * _SECOND
#: Ended orders and executions are kept in memory this long; afterwards the journal alone knows them.
KEEP_NS: Final = 15 * 60 * _SECOND
#: How far back a first report goes, and a later one before the last that was taken in.
FIRST_REPORT_NS: Final = 24 * 3600 * _SECOND
OVERLAP_NS: Final = 5 * 60 * _SECOND
RECONCILE_EVERY_NS: Final = 30 * _SECOND
#: Orders in doubt are looked up this often.
RESOLVE_EVERY_NS: Final = _SECOND
#: At most this many tickets go to a broker connection in one call.
MAX_TICKETS: Final = 100
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
_Gate = Callable[[Nanos], object]


def _without(batch: JournalBatch, keys: AbstractSet[tuple[AccountId, ClientOrderId]]) -> JournalBatch:
    """What of a batch does not speak of these orders."""
    return JournalBatch(
        orders=[o for o in batch.orders if o.key not in keys],
        heads=[o for o in batch.heads if o.key not in keys],
        events=[e for e in batch.events if (e.account, e.client_order_id) not in keys],
        positions=batch.positions,
        breaks=batch.breaks,
    )


class Intake:
    """Journal gates, lanes, and the broker's word."""

    def __init__(self, user: UserId, epoch: Epoch) -> None:
        self.user = user
        self.epoch = epoch
        self.actor = f"session/{user}"
        self.accounts: dict[AccountId, AccountBook] = {}
        self.instruments: dict[InstrumentId, Instrument] = {}
        self.exposure = ExposureBook()
        #: Set by the shell while appends fail; nothing new is taken meanwhile.
        self.journal_is_away = False
        self.refused_moves = 0
        self.late_arrival_ns: dict[AccountId, int] = {}
        self._out: list[Instruction] = []
        self._batch = JournalBatch()
        self._heads: dict[tuple[AccountId, ClientOrderId], Order] = {}
        self._moved: dict[tuple[AccountId, InstrumentId], Position] = {}
        self._notes: list[Note] = []
        #: Number of the batch being filled; ``_committed`` is the last one known to be durable.
        self._filling = 1
        self._committed = 0
        self._appending = 0
        self._gates: deque[tuple[int, _Gate]] = deque()
        self._last_batch_of: dict[tuple[AccountId, ClientOrderId], int] = {}
        self._stories: dict[tuple[AccountId, ClientOrderId], deque[str]] = {}
        self._lane_number = 0
        self._forgot_at = Nanos(0)
        self._under_way = JournalBatch()
        #: Keys that turned out to be in the journal although memory had forgotten them.
        self._reused: dict[tuple[AccountId, ClientOrderId], Order] = {}

    # Taking up accounts

    def add_account(self, history: AccountHistory, late_arrival_ns: int, now: Nanos) -> list[Instruction]:
        """Take up an account from the journal.  Orders that may have left before the restart become UNKNOWN."""
        book = AccountBook(history.account)
        book.load(history)
        self.accounts[history.account] = book
        self.late_arrival_ns[history.account] = late_arrival_ns
        for position in history.positions:
            instrument = self.instruments.get(position.instrument)
            multiplier = instrument.multiplier if instrument is not None else position.multiplier
            line = self.exposure.line(history.account, position.instrument, multiplier)
            if position.instrument not in self.exposure.marks and position.average_cost:
                self.exposure.set_mark(position.instrument, position.average_cost)
            self.exposure.set_position(history.account, position.instrument, line, position.quantity)
        for order in list(book.open.values()):
            price = order.limit_price or order.stop_price
            if order.instrument not in self.exposure.marks and price is not None:
                self.exposure.set_mark(order.instrument, price)
            self._count(book, order, order.open_quantity)
            if order.state in (OrderState.PENDING, OrderState.UNKNOWN):
                # It may have left just before the restart: it can still arrive for a while.
                book.sent_at[order.tag] = now
            if order.state is OrderState.PENDING:
                self._record(
                    book,
                    order,
                    EventKind.UNKNOWN,
                    now,
                    reason="the session restarted while it was on its way",
                )
        return self._drain(now)

    def connection(self, account: AccountId, up: bool, now: Nanos) -> list[Instruction]:
        """The broker connection of an account came up (again) or went away."""
        book = self.accounts[account]
        if up and not book.connected:
            book.connected = True
            book.reconciled = False
            book.is_outdated = book.report_in_flight
            self._ask_report(book, "the connection came up", now)
        elif not up and book.connected:
            book.connected = False
        return self._drain(now)

    # The journal

    def appended(self, number: int, now: Nanos) -> list[Instruction]:
        """Batch ``number`` and all before it are durable: let out what waited for them."""
        if number != self._appending:
            raise Invariant(f"batch {number} was appended, {self._appending or 'none'} was under way")
        self._appending = 0
        self._committed = number
        while self._gates and self._gates[0][0] <= number:
            self._gates.popleft()[1](now)
        return self._drain(now)

    def append_refused(
        self, number: int, known: Mapping[tuple[AccountId, ClientOrderId], Order], now: Nanos
    ) -> list[Instruction]:
        """The journal already has orders under some new keys of batch ``number``: drop those, write the rest.

        Memory forgets ended orders after a while, the journal's constraint never does.
        """
        batch = self._under_way
        for key in [o.key for o in batch.orders if o.key in known]:
            book = self.accounts[key[0]]
            order = book.orders.pop(key[1])
            order.state = OrderState.DENIED
            book.open.pop(key[1], None)
            book.by_tag.pop(order.tag, None)
            self._count(book, order, ZERO)
            self._heads.pop(key, None)
            self._reused[key] = known[key]
        self._under_way = _without(batch, known.keys())
        self._batch = _without(self._batch, known.keys())
        self._out.append(Append(number, self._under_way))
        return self._drain(now)

    def _gate(self, release: _Gate, number: int | None = None) -> None:
        """Run ``release(now)`` once batch ``number`` (default: the one being filled) is durable."""
        wanted = self._filling if number is None else number
        if wanted <= self._committed:
            release(Nanos(0))
            return
        # Gates open in order: one that needs less than the last waits with it, for at most one commit more.
        last = self._gates[-1][0] if self._gates else 0
        self._gates.append((max(wanted, last), release))

    def _gate_of(self, order: Order) -> int:
        return self._last_batch_of.get(order.key, 0)

    def _drain(self, now: Nanos) -> list[Instruction]:
        for book in self.accounts.values():
            self._pump(book, now)
        batch = self._batch
        if not self._appending and (batch.events or batch.orders or batch.breaks or self._moved):
            new = {order.key for order in batch.orders}
            # Copies: a batch says what was when it was closed, also where it has to be written again.
            batch.orders = [copy(order) for order in batch.orders]
            batch.heads = [copy(order) for key, order in self._heads.items() if key not in new]
            batch.positions = [copy(position) for position in self._moved.values()]
            number = self._filling
            self._appending = number
            self._under_way = batch
            notes = tuple(self._notes)
            self._out.append(Append(number, batch))
            if notes:
                self._gates.append((number, partial(self._tell, notes)))
            self._batch, self._heads, self._moved, self._notes = JournalBatch(), {}, {}, []
            self._filling += 1
            if len(self._last_batch_of) > 20_000:
                self._last_batch_of = {k: n for k, n in self._last_batch_of.items() if n > self._committed}
        out, self._out = self._out, []
        return out

    def _tell(self, notes: tuple[Note, ...], _now: Nanos) -> None:
        fresh = tuple(note for note in notes if note.order.key not in self._reused)
        if fresh:
            self._out.append(Tell(fresh))

    # Recording

    def _open(
        self,
        book: AccountBook,
        order: Order,
        kind: EventKind,
        now: Nanos,
        *,
        cause: CauseId,
        reason: str = "",
    ) -> None:
        """Enter a new order with its first event."""
        book.add(order)
        if not order.state.is_final:
            self._count(book, order, order.open_quantity)
        self._batch.orders.append(order)
        self._note(
            order,
            OrderEvent(
                kind=kind,
                account=order.account,
                client_order_id=order.client_order_id,
                at=now,
                actor=self.actor,
                reason=reason,
                cause=cause,
                broker_order_id=order.broker_order_id,
            ),
        )

    def _record(self, book: AccountBook, order: Order, kind: EventKind, now: Nanos, **more: Any) -> bool:
        """Make one move along the transition table; an illegal one is refused and audited (False)."""
        event = OrderEvent(
            kind=kind,
            account=order.account,
            client_order_id=order.client_order_id,
            at=now,
            actor=self.actor,
            **more,
        )
        if not can_apply(order.state, kind):
            self.refused_moves += 1
            reason = f"{kind} does not follow {order.state}"
            self._note(
                order,
                OrderEvent(
                    kind=EventKind.REFUSED,
                    account=order.account,
                    client_order_id=order.client_order_id,
                    at=now,
                    actor=self.actor,
                    reason=f"{reason}: {event.reason}" if event.reason else reason,
                    raw=event.raw,
                ),
            )
            return False
        before = order.broker_order_id
        apply(order, event)
        if order.broker_order_id is not None and before is None:
            book.by_broker_id[order.broker_order_id] = order
        if kind is EventKind.FILLED and event.fill is not None:
            self._take_fill(book, order, event.fill, now)
        if order.state.is_final:
            book.open.pop(order.client_order_id, None)
        if kind is EventKind.MODIFIED:
            self._take_modified(book, order)
        if kind is EventKind.MODIFY_REJECTED or order.state.is_final:
            book.rising.pop(order.client_order_id, None)
        self._count_open(book, order)
        self._note(order, event)
        return True

    def _note(self, order: Order, event: OrderEvent) -> None:
        self._batch.events.append(event)
        self._heads[order.key] = order
        self._last_batch_of[order.key] = self._filling
        self._notes.append(Note(copy(order), event))
        story = self._stories.get(order.key)
        if story is None:
            story = self._stories[order.key] = deque(maxlen=20)
            if len(self._stories) > 5_000:
                del self._stories[next(iter(self._stories))]
        story.append(f"{event.at} {event.kind} -> {order.state} {event.reason}")

    def _take_modified(self, book: AccountBook, order: Order) -> None:
        book.modified.add(order.client_order_id)
        rise = book.rising.get(order.client_order_id)
        if rise is not None and order.quantity >= rise.target:
            del book.rising[order.client_order_id]

    def _count_open(self, book: AccountBook, order: Order) -> None:
        """Let the exposure count what may still fill, at the larger size where one has been asked for."""
        quantity = order.open_quantity
        rise = book.rising.get(order.client_order_id)
        if rise is not None:
            quantity = max(quantity, rise.target - order.filled_quantity)
        self._count(book, order, quantity)

    def _count(self, book: AccountBook, order: Order, quantity: Decimal) -> None:
        """Let the exposure count ``quantity`` as this order's open part."""
        counted = book.counted.get(order.client_order_id, ZERO)
        if quantity == counted:
            return
        instrument = self.instruments.get(order.instrument)
        multiplier = instrument.multiplier if instrument is not None else Decimal(1)
        line = self.exposure.line(book.account, order.instrument, multiplier)
        self.exposure.add_open(book.account, order.instrument, line, order.side, quantity - counted)
        if quantity:
            book.counted[order.client_order_id] = quantity
        else:
            book.counted.pop(order.client_order_id, None)

    def _take_fill(self, book: AccountBook, order: Order, fill: Fill, now: Nanos) -> None:
        book.executions[fill.execution_id] = now
        instrument = self.instruments.get(order.instrument)
        multiplier = instrument.multiplier if instrument is not None else Decimal(1)
        position = book.positions.get(order.instrument)
        if position is None:
            position = Position(account=book.account, instrument=order.instrument, multiplier=multiplier)
            book.positions[order.instrument] = position
        position.apply(order.side, fill)
        book.moved_at[order.instrument] = now
        if order.instrument not in self.exposure.marks:
            self.exposure.set_mark(order.instrument, fill.price)
        self._count_open(book, order)
        line = self.exposure.line(book.account, order.instrument, multiplier)
        self.exposure.set_position(book.account, order.instrument, line, position.quantity)
        self._moved[(book.account, order.instrument)] = position
        if order.filled_quantity > order.quantity:
            self._break(book, order.instrument, "overfill", str(order.quantity), str(order.filled_quantity), now)

    # Lanes to the broker

    def _pump(self, book: AccountBook, now: Nanos) -> None:
        if not book.connected:
            return
        for lane in (Lane.CANCEL, Lane.MODIFY, Lane.PLACE):
            if lane in book.in_flight:
                continue
            queue = book.queued[lane]
            tickets: list[Ticket] = []
            while queue and len(tickets) < MAX_TICKETS:
                ticket, since = queue.popleft()
                if self._may_still_go(book, lane, ticket, since, now):
                    tickets.append(ticket)
            if not tickets:
                continue
            self._lane_number += 1
            if lane is Lane.PLACE:
                for ticket in tickets:
                    book.sent_at[ticket.tag] = now
            send = Send(book.account, lane, self._lane_number, tuple(tickets))  # type: ignore[arg-type]
            book.in_flight[lane] = send
            self._out.append(send)

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
        self, account: AccountId, lane: Lane, number: int, answers: Sequence[Answer], now: Nanos
    ) -> list[Instruction]:
        """The connection answered a `Send`, or the shell answers for it with UNKNOWN verdicts."""
        book = self.accounts[account]
        under_way = book.in_flight.get(lane)
        if under_way is not None and under_way.number == number:
            del book.in_flight[lane]
        for answer in answers:
            order = book.find(answer.tag, answer.broker_order_id)
            if order is None:
                raise Invariant(f"an answer about {answer.tag}, which was never sent from here")
            rise = book.rising.get(order.client_order_id)
            if lane is Lane.MODIFY and rise is not None:
                rise.answered_at = now
            if lane is Lane.PLACE:
                self._placed(book, order, answer, now)
            elif answer.verdict is Verdict.UNKNOWN:
                if lane is Lane.CANCEL and order.cancelling:
                    book.cancel_again.add(order.client_order_id)
                self._ask_report(book, f"a {lane} without a clear answer", now)
            elif answer.verdict is Verdict.REJECTED and not order.state.is_final:
                kind = EventKind.CANCEL_REJECTED if lane is Lane.CANCEL else EventKind.MODIFY_REJECTED
                self._record(book, order, kind, now, reason=answer.reason, raw=answer.raw)
                self._ask_report(book, f"a {lane} was refused: {answer.reason}", now)
        return self._drain(now)

    def _placed(self, book: AccountBook, order: Order, answer: Answer, now: Nanos) -> None:
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
            book.sent_at[order.tag] = now
            if order.state is OrderState.PENDING:
                self._record(book, order, EventKind.UNKNOWN, now, reason=answer.reason, raw=answer.raw)
            self._ask_report(book, "an order without a clear answer", now)

    # The broker's word

    def updated(self, account: AccountId, updates: Sequence[BrokerUpdate], now: Nanos) -> list[Instruction]:
        """Unasked messages from the broker, in the order in which they came."""
        book = self.accounts[account]
        for update in updates:
            order = book.find(update.tag, update.broker_order_id)
            if order is None:
                self._ask_report(
                    book, f"an update about order {update.broker_order_id or update.tag}, not known here", now
                )
            elif self._is_of_unsure_size(book, order, update):
                self._ask_report(book, f"a fill would end {order.client_order_id}, whose size is in doubt", now)
            else:
                self._take_update(book, order, update, now)
        return self._drain(now)

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

    def reported(self, account: AccountId, report: BrokerReport | None, now: Nanos) -> list[Instruction]:
        """The broker's whole view, or None when it could not be fetched (asked again by the clock)."""
        book = self.accounts[account]
        book.report_in_flight = False
        if report is None:
            book.reported_at = now
            book.is_outdated = False
            return self._drain(now)
        # By our clock, like everything it is compared with: the broker was asked after this.
        report = replace(report, requested_at=book.asked_at)
        late = self.late_arrival_ns[account]
        found = compare_orders(book.by_tag, book.executions.keys(), report, book.sent_at, late)
        for update in found.updates:
            order = book.by_tag[update.tag]
            self._take_update(book, order, update, now)
        for theirs, fills in found.strangers:
            self._adopt(book, theirs, fills, now)
        self._settle_absent(book, found.absent, report, now)
        self._settle_rises(book, report, now)
        self._settle_unexplained(book, found.unexplained, now)
        self._cancel_again(book, now)
        self._compare_positions(book, report, now)
        book.cash, book.currency = report.cash, report.currency
        book.reported_at = now
        book.last_report_at = report.requested_at
        # A view from before the connection was lost does not say what happened meanwhile.
        book.reconciled = book.connected and not book.is_outdated
        book.is_outdated = False
        if book.report_wanted:
            why, book.report_wanted = book.report_wanted, ""
            self._ask_report(book, why, now)
        return self._drain(now)

    def _settle_absent(self, book: AccountBook, absent: list[str], report: BrokerReport, now: Nanos) -> None:
        absent = [tag for tag in absent if not book.is_on_its_way(book.by_tag[tag])]
        for tag in set(book.missed) - set(absent):
            del book.missed[tag]
        missing = {book.by_tag[tag].instrument for tag in absent}
        for (instrument, kind), item in list(book.breaks.items()):
            if kind == "order_missing" and instrument not in missing:
                self._resolve_break(book, item, "the order is in the broker's book again, or has ended", now)
        for tag in absent:
            order = book.by_tag[tag]
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
                    "order_missing",
                    f"{order.client_order_id} {order.state}",
                    "absent",
                    now,
                )

    def _settle_unexplained(
        self, book: AccountBook, unexplained: Mapping[str, tuple[Decimal, Decimal]], now: Nanos
    ) -> None:
        """A filled quantity without its executions, seen twice, is a break until they are in."""
        for tag, filled in list(book.unexplained.items()):
            if book.by_tag[tag].filled_quantity >= filled:
                del book.unexplained[tag]
        for tag, (ours, theirs) in unexplained.items():
            order = book.by_tag[tag]
            if order.filled_quantity >= theirs:
                continue
            if tag in book.unexplained:
                self._break(book, order.instrument, "missing_execution", str(ours), str(theirs), now)
            else:
                self._ask_report(book, f"executions of {order.client_order_id} are not in the trade book", now)
            book.unexplained[tag] = theirs
        still = {book.by_tag[tag].instrument for tag in book.unexplained}
        for (instrument, kind), item in list(book.breaks.items()):
            if kind == "missing_execution" and instrument not in still:
                self._resolve_break(book, item, "the executions have come in", now)

    def _cancel_again(self, book: AccountBook, now: Nanos) -> None:
        """A cancel that may not have arrived is repeated: that is safe, unlike an order."""
        for key in list(book.cancel_again):
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
                reason = f"the broker's book shows {order.quantity}"
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

    def _compare_positions(self, book: AccountBook, report: BrokerReport, now: Nanos) -> None:
        differ = compare_positions(book.positions, report, book.moved_at)
        for instrument, (ours, theirs) in differ.items():
            if book.suspected.get(instrument) == (ours, theirs):
                self._break(book, instrument, "position", str(ours), str(theirs), now)
            else:
                self._ask_report(book, f"the position of {instrument} differs", now)
        book.suspected = differ
        moved = {i for i, at in book.moved_at.items() if at >= report.requested_at}
        for (instrument, kind), item in list(book.breaks.items()):
            if kind == "position" and instrument not in differ and instrument not in moved:
                self._resolve_break(book, item, "the positions agree again", now)

    def _break(
        self, book: AccountBook, instrument: InstrumentId, kind: str, ours: str, theirs: str, now: Nanos
    ) -> None:
        known = book.breaks.get((instrument, kind))
        if known is not None and (known.ours, known.theirs) == (ours, theirs):
            return
        item = Break(
            id=known.id if known is not None else f"{book.account}:{instrument}:{kind}:{now}",
            account=book.account,
            instrument=instrument,
            kind=kind,
            ours=ours,
            theirs=theirs,
            opened_at=known.opened_at if known is not None else now,
        )
        book.breaks[(instrument, kind)] = item
        self._batch.breaks.append(item)

    def _resolve_break(self, book: AccountBook, item: Break, resolution: str, now: Nanos) -> None:
        del book.breaks[(item.instrument, item.kind)]
        self._batch.breaks.append(
            Break(
                id=item.id,
                account=item.account,
                instrument=item.instrument,
                kind=item.kind,
                ours=item.ours,
                theirs=item.theirs,
                opened_at=item.opened_at,
                resolved_at=now,
                resolution=resolution,
            )
        )

    def _report_since(self, book: AccountBook, now: Nanos) -> Nanos:
        """A later report need not reach further back than what is still in memory here."""
        if not book.last_report_at:
            return Nanos(now - FIRST_REPORT_NS)
        return Nanos(book.last_report_at - OVERLAP_NS)

    def _forget(self, now: Nanos) -> None:
        """Let go of what ended long ago, once the broker's view has been taken in."""
        if now - self._forgot_at < 60 * _SECOND:
            return
        self._forgot_at = now
        for book in self.accounts.values():
            if book.last_report_at:
                book.forget_before(Nanos(min(now, book.last_report_at) - KEEP_NS))

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
        book.asked_at = now
        self._out.append(AskReport(book.account, why, self._report_since(book, now)))

    def _ask_due_reports(self, now: Nanos) -> None:
        for book in self.accounts.values():
            if book.report_in_flight or not book.connected:
                continue
            doubtful = bool(book.missed or book.rising) or any(
                o.state is OrderState.UNKNOWN for o in book.open.values()
            )
            wait = RESOLVE_EVERY_NS if doubtful or not book.reconciled or book.report_wanted else RECONCILE_EVERY_NS
            if now - book.reported_at >= wait:
                why = book.report_wanted or ("orders are in doubt" if doubtful else "periodic")
                book.report_wanted = ""
                self._send_for_report(book, why, now)

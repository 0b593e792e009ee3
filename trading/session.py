"""A session's core: decides everything about one user's orders; does nothing itself.

Events and ``now`` go in, instructions come out; the shell carries them out and brings results back as events.
The rules that keep money safe are here and not in the shell:

* written before sent: a ticket is handed out only after the batch with its PENDING row has been committed;
* one key, one order: `(account, client_order_id)` seen again is answered, never acted on again;
* what was handed over without a clear answer is UNKNOWN until the broker's book proves what became of it;
* nothing new before central risk has spoken and the broker's view has been taken in; exits excepted.

`SessionCore` holds the commands.  Its bases, one idea each: `session_journal` (gates and recording),
`session_requests` (lanes and reports), `session_intake` (the broker's word), `session_replies`, `session_budget`,
`session_risk` (whether an intent breaks a limit).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from trading.account_book import AccountBook, Rise
from trading.broker import AmendTicket, CancelTicket, OrderTicket
from trading.checks import check_intent, check_modify, check_offered, same_content
from trading.closing import closes
from trading.errors import Conflict, NotReady, RiskDenied, TradeError, UnknownThing
from trading.ids import (
    AccountId,
    AlgoId,
    CauseId,
    ClientOrderId,
    Nanos,
    broker_tag,
    client_order_id,
    successor_key,
)
from trading.instructions import Instruction, Lane, Reply
from trading.instruments import Instrument
from trading.orders import (
    ZERO,
    CancelOrder,
    EventKind,
    ModifyOrder,
    Order,
    OrderState,
    PlaceOrder,
    order_from,
)
from trading.session_budget import Parked, key_of
from trading.session_replace import Replacing
from trading.session_replies import Answers, reused


class SessionCore(Replacing):
    """All accounts of one user."""

    # Commands

    def place(self, token: int, intents: Sequence[PlaceOrder], now: Nanos) -> list[Instruction]:
        """Take intents; one `Reply` with an order or an error for each follows once they are journaled."""
        answer = Answers(token, len(intents))
        if not intents:
            self._out.append(Reply(token, ()))
        for index, intent in enumerate(intents):
            try:
                client_order_id(intent.client_order_id)
            except TradeError as error:
                self._resolve([(answer, index)], error)
                continue
            parked = self._parked.get(key_of(intent))
            if parked is not None and _content(parked.intent) == _content(intent):
                parked.slots.append((answer, index))
            elif parked is not None:
                self._resolve([(answer, index)], reused(intent.client_order_id, "waits for budget"))
            else:
                self._try_place(Parked(intent=intent, slots=[(answer, index)], since=now), now)
        return self._drain(now)

    def modify(self, token: int, change: ModifyOrder, now: Nanos) -> list[Instruction]:
        """Change an open order at the broker, or the one that took its place."""
        key = self._latest(change.account, change.client_order_id)
        change = msgspec.structs.replace(change, client_order_id=key)
        self._try_modify(Parked(intent=change, slots=[(Answers(token, 1), 0)], since=now), now)
        return self._drain(now)

    def cancel(self, token: int, cancels: Sequence[CancelOrder], now: Nanos) -> list[Instruction]:
        """Take open orders back.  Goes out at once, journal or no journal."""
        answer = Answers(token, len(cancels))
        if not cancels:
            self._out.append(Reply(token, ()))
        for index, cancel in enumerate(cancels):
            try:
                order = self._cancel_one(cancel, now)
            except TradeError as error:
                self._resolve([(answer, index)], error)
            else:
                self._resolve([(answer, index)], order, ungated=True)
        return self._drain(now)

    def cancel_all(
        self, token: int, account: AccountId, now: Nanos, *, algo: str | None = None, cause: str = ""
    ) -> list[Instruction]:
        """Cancel every open order of an account, or of one algo in it: then not what closes a position in its name."""
        book = self.accounts.get(account)
        orders = list(book.open.values()) if book else []
        orders += [book.orders[key] for key in book.replacing if key not in book.open] if book else []
        keys = [o.client_order_id for o in orders if algo is None or (algo == o.algo and not closes(o))]
        # What closes never waits for budget.
        keys += [i.client_order_id for i in self._waiting(account) if algo in (None, i.algo)]
        cancels = [CancelOrder(account=account, client_order_id=k, cause=CauseId(cause)) for k in keys]
        return self.cancel(token, cancels, now)

    # Deciding about one intent

    def _try(self, parked: Parked, now: Nanos) -> None:
        if isinstance(parked.intent, PlaceOrder):
            self._try_place(parked, now)
        else:
            self._try_modify(parked, now)

    def _try_place(self, parked: Parked, now: Nanos) -> None:
        intent = parked.intent
        assert isinstance(intent, PlaceOrder)
        try:
            book, instrument, known = self._checked(intent)
            if known is not None:
                self._resolve(parked.slots, known)
                return
            demand = self._demand(intent)
            denied = self._violations(book, instrument, intent, demand, now)
        except TradeError as error:
            if parked.slots:
                self._resolve(parked.slots, error)
            else:
                self._deny(intent, [], [str(error)], now)
            return
        if denied:
            self._deny(intent, parked.slots, denied, now)
        elif not self._park_if_lacking(parked, demand, now):
            self._count_sent(demand, now)
            self._accept(book, intent, parked.slots, now)

    def _checked(self, intent: PlaceOrder) -> tuple[AccountBook, Instrument, Order | None]:
        book = self._book(intent.account)
        known = book.orders.get(intent.client_order_id)
        if known is not None:
            if not same_content(intent, known, intent.client_order_id in book.modified):
                raise reused(intent.client_order_id, f"is a {known.side} of {known.quantity} {known.instrument}")
            return book, self.instruments[known.instrument], known
        instrument = self.instruments.get(intent.instrument)
        if instrument is None:
            raise UnknownThing("instrument", intent.instrument, "GET /v1/instruments lists them")
        check_intent(intent, instrument, self.exposure.marks.get(intent.instrument))
        if book.capabilities is not None:
            check_offered(intent, book.capabilities)
        self._require_ways(book)
        return book, instrument, None

    def _require_ways(self, book: AccountBook) -> None:
        """Nothing new without the broker's view and a journal to write to."""
        if book.disabled:
            raise Conflict("account_is_disabled", f"account {book.account} is disabled: enable it first")
        if not book.connected or not book.reconciled:
            raise NotReady(f"account {book.account} is being reconciled with its broker", 1.0)
        if self.journal_is_away:
            raise NotReady("the journal (PostgreSQL) is away; nothing new is sent until it is back", 2.0)

    def _accept(self, book: AccountBook, intent: PlaceOrder, slots: list[tuple[Answers, int]], now: Nanos) -> None:
        order = order_from(intent, broker_tag(intent.account, intent.client_order_id), now)
        self._placed_at = now
        self._open(book, order, EventKind.PENDING, now, cause=intent.cause)
        ticket = OrderTicket(
            tag=order.tag,
            instrument=order.instrument,
            side=order.side,
            type=order.type,
            quantity=order.quantity,
            limit_price=order.limit_price,
            stop_price=order.stop_price,
            trail_price=order.trail_price,
            trail_percent=order.trail_percent,
            time_in_force=order.time_in_force,
            reduce_only=order.reduce_only,
            created_at=intent.created_at,
        )
        queue = book.exits if self._part(book, order).line.reduces(order.side, ZERO) else book.queued[Lane.PLACE]
        self._gate(lambda _: queue.append((ticket, order.created_at)))
        self._resolve(slots, order)

    def _deny(self, intent: PlaceOrder, slots: list[tuple[Answers, int]], reasons: list[str], now: Nanos) -> None:
        book = self._book(intent.account)
        order = order_from(intent, broker_tag(intent.account, intent.client_order_id), now)
        order.state = OrderState.DENIED
        order.reason = "; ".join(reasons)
        self._open(book, order, EventKind.DENIED, now, cause=intent.cause, reason=order.reason)
        self._resolve(slots, order)

    def _try_modify(self, parked: Parked, now: Nanos) -> None:
        change = parked.intent
        assert isinstance(change, ModifyOrder)
        try:
            book, order = self._working(change.account, change.client_order_id, "modify")
            instrument = self.instruments[order.instrument]
            if change.seen not in (None, order.updated_at):
                raise Conflict("order_moved", f"order {order.client_order_id} has changed since: look at it again")
            check_modify(change, order, instrument)
            if order.client_order_id in book.replacing:
                raise NotReady(f"order {order.client_order_id} is being replaced; change it after that", 0.5)
            if order.client_order_id in book.rising:
                raise NotReady(f"order {order.client_order_id} is being made larger; change it after that", 0.2)
            self._require_ways(book)
            demand = self._demand(change)
            if demand.may_enter and key_of(change) in self._parked:
                raise NotReady(f"a change of order {order.client_order_id} waits for budget; change it after that", 0.2)
            denied = self._modify_violations(book, order, instrument, change, demand, now)
            if denied:
                raise RiskDenied(denied)
        except TradeError as error:
            self._resolve(parked.slots, error)
            return
        # Whoever backs off does not wait for what they back off from.
        if (overtaken := self._parked.pop(key_of(change), None)) is not None:
            gone = Conflict(
                "order_moved", f"a later change of order {order.client_order_id} took the place of this one"
            )
            self._resolve(overtaken.slots, gone)
        if self._park_if_lacking(parked, demand, now):
            return
        self._count_sent(demand, now)
        self._record(
            book,
            order,
            EventKind.MODIFY_REQUESTED,
            now,
            cause=change.cause,
            quantity=change.quantity,
            limit_price=change.limit_price,
            stop_price=change.stop_price,
            trail_price=change.trail_price,
            trail_percent=change.trail_percent,
        )
        self._resolve(parked.slots, order)
        if book.capabilities is not None and not book.capabilities.native_modify:
            self._begin_replacing(book, order, change, now)
            return
        if demand.is_larger:
            # Where no price is known the order counts at its own, and so at the dearer one from now on.
            price = demand.price if demand.dearer else ZERO
            book.rising[order.client_order_id] = Rise(target=max(change.quantity or ZERO, order.quantity), price=price)
            self._count_open(book, order)
        ticket = AmendTicket(
            tag=order.tag,
            broker_order_id=order.broker_order_id,
            instrument=order.instrument,
            quantity=change.quantity,
            limit_price=change.limit_price,
            stop_price=change.stop_price,
            trail_price=change.trail_price,
            trail_percent=change.trail_percent,
        )
        self._gate(lambda _: book.queued[Lane.MODIFY].append((ticket, parked.since)))

    def _cancel_one(self, cancel: CancelOrder, now: Nanos) -> Order:
        key = self._latest(cancel.account, cancel.client_order_id)
        for waiting in (key, successor_key(key)):
            parked = self._parked.pop((cancel.account, waiting, PlaceOrder), None)
            if parked is not None and isinstance(parked.intent, PlaceOrder):
                self._deny(parked.intent, parked.slots, ["cancelled before it was sent"], now)
                return self._book(cancel.account).orders[waiting]
        book = self._book(cancel.account)
        if key in book.replacing and self._drop_replacing(book, book.orders[key], "taken back for good", now):
            order = book.orders[key]
            if order.state.is_final:
                return order
        book, order = self._working(cancel.account, key, "cancel")
        if order.cancelling:
            return order  # repeated by itself where it may have got lost
        if order.state is OrderState.PENDING and order.tag not in book.sent_at:
            self._record(
                book,
                order,
                EventKind.CANCELLED,
                now,
                cause=cancel.cause,
                reason="taken back before it was sent",
            )
            return order
        self._record(book, order, EventKind.CANCEL_REQUESTED, now, cause=cancel.cause)
        ticket = CancelTicket(tag=order.tag, broker_order_id=order.broker_order_id, instrument=order.instrument)
        book.queued[Lane.CANCEL].append((ticket, now))
        return order

    def _working(self, account: AccountId, key: ClientOrderId, verb: str) -> tuple[AccountBook, Order]:
        book = self._book(account)
        order = book.orders.get(key)
        if order is None:
            raise UnknownThing("order", key, f"in account {account}")
        if order.state.is_final:
            raise Conflict("order_is_final", f"order {key} is {order.state}; there is nothing to {verb}")
        return book, order

    # Views

    def _waiting(self, account: AccountId) -> list[PlaceOrder]:
        intents = [parked.intent for parked in self._parked.values()]
        return [i for i in intents if isinstance(i, PlaceOrder) and i.account == account]

    def waiting_keys(self, account: AccountId) -> list[ClientOrderId]:
        """The keys of new orders that wait for budget: nothing of them is journaled."""
        return [intent.client_order_id for intent in self._waiting(account)]

    def keys_of(self, account: AccountId, algo: AlgoId) -> list[ClientOrderId]:
        """The keys of an algo's orders that are in memory, journaled or not, and of those that wait for budget."""
        book = self.accounts.get(account)
        keys = [key for key, order in book.orders.items() if order.algo == algo] if book is not None else []
        return keys + [i.client_order_id for i in self._waiting(account) if i.algo == algo]

    def story(self, account: AccountId, key: ClientOrderId) -> list[str]:
        """The last changes of one order, for an `Invariant`."""
        story = self._stories.get((account, key), ())
        return [f"{event.at} {event.kind} -> {state} {event.reason}" for event, state in story]


def _content(intent: PlaceOrder | ModifyOrder) -> PlaceOrder | ModifyOrder:
    """The intent without what may differ when it is sent again."""
    if isinstance(intent, PlaceOrder):
        return msgspec.structs.replace(intent, created_at=Nanos(0), cause=CauseId(""))
    return intent

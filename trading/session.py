"""A session's core: decides everything about one user's orders; does nothing itself.

Events and ``now`` go in, instructions come out; the shell carries them out and brings results back as events.
The rules that keep money safe are here and not in the shell:

* written before sent: a ticket is handed out only after the batch with its PENDING row has been committed;
* one key, one order: `(account, client_order_id)` seen again is answered, never acted on again;
* what was handed over without a clear answer is UNKNOWN until the broker's book proves what became of it;
* nothing new before central risk has spoken and the broker's view has been taken in; exits excepted.

`SessionCore` holds the command side (place, modify, cancel, budgets, journal gates); what brokers tell is
taken in by `trading.session_intake.Intake`, its base.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy
from decimal import Decimal
from functools import partial
from typing import Final

import msgspec

from trading.account_book import AccountBook, Rise
from trading.broker import AmendTicket, CancelTicket, OrderTicket
from trading.budgets import BudgetGrant, Purse
from trading.checks import check_intent, check_modify, same_content
from trading.errors import Conflict, NotReady, Refused, RiskDenied, TradeError, UnknownThing
from trading.ids import AccountId, CauseId, ClientOrderId, Epoch, InstrumentId, Nanos, UserId, broker_tag
from trading.instructions import AskBudget, Instruction, Lane, Reply
from trading.instruments import Instrument
from trading.limits import GROSS_EXPOSURE, violation
from trading.orders import (
    ZERO,
    CancelOrder,
    EventKind,
    ModifyOrder,
    Order,
    OrderState,
    PlaceOrder,
    Side,
    order_from,
)
from trading.session_intake import Intake
from trading.session_requests import STALE_NS

_SECOND: Final = 1_000_000_000
BUDGET_EVERY_NS: Final = _SECOND
#: Without new orders for this long, unused budget goes back.
IDLE_NS: Final = 10 * _SECOND


class _Answer:
    """Collects the results of one command until all are there."""

    __slots__ = ("gate", "left", "results", "token")

    def __init__(self, token: int, count: int) -> None:
        self.token = token
        self.results: list[Order | TradeError | None] = [None] * count
        self.left = count
        self.gate = 0


#: ``(resource, amount, (scope, kind))``
_Draw = tuple[str, Decimal, tuple[str, str]]
_Key = tuple[AccountId, ClientOrderId, type]


class _Parked(msgspec.Struct):
    """An intent that waits for budget."""

    intent: PlaceOrder | ModifyOrder
    slots: list[tuple[_Answer, int]]
    since: Nanos
    asked: bool = False


class SessionCore(Intake):
    """All accounts of one user."""

    def __init__(self, user: UserId, epoch: Epoch) -> None:
        super().__init__(user, epoch)
        self.purse = Purse(f"session/{user}", epoch)
        self._parked: dict[_Key, _Parked] = {}
        self._reported_at = Nanos(0)
        self._placed_at = Nanos(0)

    # Commands

    def place(self, token: int, intents: Sequence[PlaceOrder], now: Nanos) -> list[Instruction]:
        """Take intents; one `Reply` with an order or an error for each follows once they are journaled."""
        answer = _Answer(token, len(intents))
        if not intents:
            self._out.append(Reply(token, ()))
        for index, intent in enumerate(intents):
            parked = self._parked.get(_key(intent))
            if parked is not None and _content(parked.intent) == _content(intent):
                parked.slots.append((answer, index))
            elif parked is not None:
                self._resolve([(answer, index)], _reused(intent.client_order_id, "waits for budget"))
            else:
                self._try_place(_Parked(intent=intent, slots=[(answer, index)], since=now), now)
        return self._drain(now)

    def modify(self, token: int, change: ModifyOrder, now: Nanos) -> list[Instruction]:
        """Change an open order at the broker."""
        self._try_modify(_Parked(intent=change, slots=[(_Answer(token, 1), 0)], since=now), now)
        return self._drain(now)

    def cancel(self, token: int, cancels: Sequence[CancelOrder], now: Nanos) -> list[Instruction]:
        """Take open orders back.  Goes out at once, journal or no journal."""
        answer = _Answer(token, len(cancels))
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
        """Cancel every open order of an account, or of one algo in it."""
        book = self.accounts.get(account)
        keys = [o.client_order_id for o in book.open.values() if algo in (None, o.algo)] if book else []
        keys += [
            parked.intent.client_order_id
            for parked in self._parked.values()
            if isinstance(parked.intent, PlaceOrder)
            and parked.intent.account == account
            and algo in (None, parked.intent.algo)
        ]
        cancels = [CancelOrder(account=account, client_order_id=k, cause=CauseId(cause)) for k in keys]
        return self.cancel(token, cancels, now)

    # Budgets

    def granted(self, grant: BudgetGrant, now: Nanos) -> list[Instruction]:
        """Central risk answered a report."""
        if self.purse.take(grant):
            for parked in list(self._parked.values()):
                if parked.asked:
                    self._retry(parked, grant, now)
            if self._parked:
                # What arrived while the question was under way goes as the next one.
                self._ask_budget(now)
        return self._drain(now)

    def budget_failed(self, now: Nanos) -> list[Instruction]:
        """Central risk did not answer; the next clock asks again."""
        self.purse.failed()
        for parked in self._parked.values():
            parked.asked = False
        return self._drain(now)

    def set_marks(self, marks: dict[InstrumentId, Decimal], now: Nanos) -> list[Instruction]:
        """Last prices; they value positions and market orders."""
        for instrument, price in marks.items():
            self.exposure.set_mark(instrument, price)
        return self._drain(now)

    def clock(self, now: Nanos) -> list[Instruction]:
        """Time passes: renew budgets, give up on stale intents, ask brokers for reports that are due."""
        for key, parked in list(self._parked.items()):
            if now - parked.since > STALE_NS:
                del self._parked[key]
                self._resolve(parked.slots, NotReady("central risk has not answered in time; nothing was sent", 2.0))
        if now - self._reported_at >= BUDGET_EVERY_NS or self._parked:
            self._ask_budget(now)
        self._ask_due_reports(now)
        self._forget(now)
        return self._drain(now)

    def _ask_budget(self, now: Nanos) -> None:
        if self.purse.in_flight:
            return
        wants: dict[str, Decimal] = {}
        for parked in self._parked.values():
            parked.asked = True
            for resource, amount, _ in self._needs(parked, now)[0]:
                wants[resource] = wants.get(resource, ZERO) + amount
        used = self.exposure.used
        for resource in list(wants):
            wants[resource] = max(
                used.get(resource, ZERO) + wants[resource] - self.purse.holds.get(resource, ZERO), ZERO
            )
        self._reported_at = now
        idle = not self._parked and now - self._placed_at > IDLE_NS
        self._out.append(AskBudget(self.purse.ask(used, wants, now, idle=idle)))

    def _retry(self, parked: _Parked, grant: BudgetGrant, now: Nanos) -> None:
        del self._parked[_key(parked.intent)]
        needs, lacking = self._needs(parked, now)
        refused = []
        for resource, amount, (scope, kind) in needs:
            short = grant.short.get(resource)
            if resource in lacking and short is not None:
                total = short.others + self.exposure.used.get(resource, ZERO) + amount
                if total > short.limit:
                    refused.append(violation(kind, scope, self._instrument_of(parked), total, short.limit))
        if refused and isinstance(parked.intent, PlaceOrder):
            self._deny(parked.intent, parked.slots, refused, now)
        elif refused:
            self._resolve(parked.slots, RiskDenied(refused))
        else:
            parked.asked = False
            self._try(parked, now)

    # Deciding about one intent

    def _try(self, parked: _Parked, now: Nanos) -> None:
        if isinstance(parked.intent, PlaceOrder):
            self._try_place(parked, now)
        else:
            self._try_modify(parked, now)

    def _try_place(self, parked: _Parked, now: Nanos) -> None:
        intent = parked.intent
        assert isinstance(intent, PlaceOrder)
        try:
            book, instrument, known = self._checked(intent)
            if known is not None:
                self._resolve(parked.slots, known)
                return
            denied = self._violations(book, instrument, intent)
        except TradeError as error:
            self._resolve(parked.slots, error)
            return
        if denied:
            self._deny(intent, parked.slots, denied, now)
        elif self._park_if_lacking(parked, now):
            return
        else:
            self._accept(book, intent, parked.slots, now)

    def _checked(self, intent: PlaceOrder) -> tuple[AccountBook, Instrument, Order | None]:
        book = self._book(intent.account)
        known = book.orders.get(intent.client_order_id)
        if known is not None:
            if not same_content(intent, known, intent.client_order_id in book.modified):
                raise _reused(intent.client_order_id, f"is a {known.side} of {known.quantity} {known.instrument}")
            return book, self.instruments[known.instrument], known
        instrument = self.instruments.get(intent.instrument)
        if instrument is None:
            raise UnknownThing("instrument", intent.instrument, "GET /v1/instruments lists them")
        check_intent(intent, instrument, self.exposure.marks.get(intent.instrument))
        self._require_ways(book)
        return book, instrument, None

    def _require_ways(self, book: AccountBook) -> None:
        """Nothing new without the broker's view and a journal to write to."""
        if not book.connected or not book.reconciled:
            raise NotReady(f"account {book.account} is being reconciled with its broker", 1.0)
        if self.journal_is_away:
            raise NotReady("the journal (PostgreSQL) is away; nothing new is sent until it is back", 2.0)

    def _violations(self, book: AccountBook, instrument: Instrument, intent: PlaceOrder) -> list[str]:
        reduces = book.reduces(intent.instrument, intent.side, intent.quantity)
        denied = self._reduce_only_violations(book, intent.instrument, intent.reduce_only, reduces)
        if reduces:
            return denied
        if not self.purse.has_limits:
            if denied:
                return denied
            raise NotReady("central risk has not given its limits yet", 1.0)
        price = _price_of(intent) or self.exposure.marks.get(intent.instrument)
        if price is None:
            return [*denied, f"no price of {intent.instrument} is known yet, so its risk cannot be judged"]
        denied += self.purse.limits.order_violations(
            book.account, intent.instrument, intent.quantity, instrument.notional(intent.quantity, price)
        )
        if denied:
            # Asking central risk would be idle; what this session alone breaks of the shared limits is named too.
            for name, amount, (scope, kind) in self._draws(intent):
                total = self.exposure.used.get(name, ZERO) + amount
                shared = self.purse.limits.limit_of(name)
                if amount > 0 and shared is not None and total > shared:
                    denied.append(violation(kind, scope, intent.instrument, total, shared))
        return denied

    @staticmethod
    def _reduce_only_violations(
        book: AccountBook, instrument: InstrumentId, reduce_only: bool, reduces: bool
    ) -> list[str]:
        denied = []
        if reduce_only and not reduces:
            denied.append("reduce_only: the order would not make the position smaller")
        if book.is_reduce_only(instrument) and not reduces:
            denied.append(f"{instrument} is reduce-only while its reconciliation break is open")
        return denied

    def _park_if_lacking(self, parked: _Parked, now: Nanos) -> bool:
        _, lacking = self._needs(parked, now)
        if not lacking:
            return False
        self._parked[_key(parked.intent)] = parked
        self._ask_budget(now)
        return True

    def _needs(self, parked: _Parked, now: Nanos) -> tuple[list[_Draw], set[str]]:
        """All that an intent draws on, and the resources of it that are not covered."""
        draws = self._draws(parked.intent)
        used, allowance = self.exposure.used, self.purse.allowance
        lacking = {
            name for name, amount, _ in draws if amount > 0 and used.get(name, ZERO) + amount > allowance(name, now)
        }
        return draws, lacking

    def _draws(self, intent: PlaceOrder | ModifyOrder) -> list[_Draw]:
        account, instrument, side, quantity, price = self._terms(intent)
        line = self.exposure.line(account, instrument, self.instruments[instrument].multiplier)
        quantity_more, money_more = self.exposure.needs(account, instrument, line, side, quantity, price)
        if quantity_more <= 0 and money_more <= 0:
            return []
        return [
            (name, money_more if kind == GROSS_EXPOSURE else quantity_more, (scope, kind))
            for name, scope, kind in self.purse.limits.resources(account, instrument)
        ]

    def _terms(self, intent: PlaceOrder | ModifyOrder) -> tuple[AccountId, InstrumentId, Side, Decimal, Decimal]:
        if isinstance(intent, PlaceOrder):
            price = _price_of(intent) or self.exposure.marks.get(intent.instrument, ZERO)
            return intent.account, intent.instrument, intent.side, intent.quantity, price
        order = self._book(intent.account).orders[intent.client_order_id]
        quantity = intent.quantity or order.quantity
        more = max(quantity - order.quantity, ZERO)
        price = intent.limit_price or order.limit_price or self.exposure.marks.get(order.instrument, ZERO)
        return order.account, order.instrument, order.side, more, price

    def _instrument_of(self, parked: _Parked) -> InstrumentId:
        return self._terms(parked.intent)[1]

    def _accept(self, book: AccountBook, intent: PlaceOrder, slots: list[tuple[_Answer, int]], now: Nanos) -> None:
        order = order_from(intent, broker_tag(intent.account, intent.client_order_id), now)
        self._placed_at = now
        if intent.instrument not in self.exposure.marks and (price := _price_of(intent)) is not None:
            self.exposure.set_mark(intent.instrument, price)
        self._open(book, order, EventKind.PENDING, now, cause=intent.cause)
        ticket = OrderTicket(
            tag=order.tag,
            instrument=order.instrument,
            side=order.side,
            type=order.type,
            quantity=order.quantity,
            limit_price=order.limit_price,
            stop_price=order.stop_price,
            time_in_force=order.time_in_force,
            reduce_only=order.reduce_only,
            created_at=intent.created_at,
        )
        queue = book.exits if book.reduces(order.instrument, order.side, ZERO) else book.queued[Lane.PLACE]
        self._gate(lambda _: queue.append((ticket, order.created_at)))
        self._resolve(slots, order)

    def _deny(self, intent: PlaceOrder, slots: list[tuple[_Answer, int]], reasons: Sequence[str], now: Nanos) -> None:
        book = self._book(intent.account)
        order = order_from(intent, broker_tag(intent.account, intent.client_order_id), now)
        order.state = OrderState.DENIED
        order.reason = "; ".join(reasons)
        self._open(book, order, EventKind.DENIED, now, cause=intent.cause, reason=order.reason)
        self._resolve(slots, order)

    def _try_modify(self, parked: _Parked, now: Nanos) -> None:
        change = parked.intent
        assert isinstance(change, ModifyOrder)
        try:
            book, order = self._working(change.account, change.client_order_id, "modify")
            instrument = self.instruments[order.instrument]
            check_modify(change, order, instrument)
            if order.client_order_id in book.rising or _key(change) in self._parked:
                raise NotReady(f"order {order.client_order_id} is being made larger; change it after that", 0.2)
            self._require_ways(book)
            denied = self._modify_violations(book, order, instrument, change)
            if denied:
                raise RiskDenied(denied)
        except TradeError as error:
            self._resolve(parked.slots, error)
            return
        if self._park_if_lacking(parked, now):
            return
        self._record(
            book,
            order,
            EventKind.MODIFY_REQUESTED,
            now,
            cause=change.cause,
            quantity=change.quantity,
            limit_price=change.limit_price,
            stop_price=change.stop_price,
        )
        if change.quantity is not None and change.quantity > order.quantity:
            book.rising[order.client_order_id] = Rise(target=change.quantity)
            self._count_open(book, order)
        ticket = AmendTicket(
            tag=order.tag,
            broker_order_id=order.broker_order_id,
            instrument=order.instrument,
            quantity=change.quantity,
            limit_price=change.limit_price,
            stop_price=change.stop_price,
        )
        self._gate(lambda _: book.queued[Lane.MODIFY].append((ticket, parked.since)))
        self._resolve(parked.slots, order)

    def _modify_violations(
        self, book: AccountBook, order: Order, instrument: Instrument, change: ModifyOrder
    ) -> list[str]:
        quantity = change.quantity or order.quantity
        more = quantity - order.quantity
        mark = self.exposure.marks.get(order.instrument)
        before = order.limit_price or order.stop_price or mark
        price = change.limit_price or change.stop_price or before
        if more > 0:
            reduces = book.reduces(order.instrument, order.side, more)
            denied = self._reduce_only_violations(book, order.instrument, order.reduce_only, reduces)
            if reduces:
                return denied
            if not self.purse.has_limits:
                raise NotReady("central risk has not given its limits yet", 1.0)
        elif price is None or before is None or price <= before:
            return []
        else:
            denied = []
        notional = instrument.notional(quantity, price) if price is not None else ZERO
        return denied + self.purse.limits.order_violations(book.account, order.instrument, quantity, notional)

    def _cancel_one(self, cancel: CancelOrder, now: Nanos) -> Order:
        parked = self._parked.pop((cancel.account, cancel.client_order_id, PlaceOrder), None)
        if parked is not None and isinstance(parked.intent, PlaceOrder):
            self._deny(parked.intent, parked.slots, ["cancelled before it was sent"], now)
            return self._book(cancel.account).orders[cancel.client_order_id]
        book, order = self._working(cancel.account, cancel.client_order_id, "cancel")
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

    def _book(self, account: AccountId) -> AccountBook:
        book = self.accounts.get(account)
        if book is None:
            raise UnknownThing("account", account, f"user {self.user} has {', '.join(sorted(self.accounts)) or 'none'}")
        return book

    def _resolve(self, slots: list[tuple[_Answer, int]], result: Order | TradeError, *, ungated: bool = False) -> None:
        """Fill in results; the reply leaves when all are in and what they speak of has been committed."""
        for answer, index in slots:
            answer.results[index] = result
            answer.left -= 1
            if isinstance(result, Order) and not ungated:
                answer.gate = max(answer.gate, self._gate_of(result))
            if answer.left == 0:
                self._gate(partial(self._reply, answer), answer.gate)

    def _reply(self, answer: _Answer, _now: Nanos) -> None:
        self._out.append(Reply(answer.token, tuple(self._as_result(r) for r in answer.results if r is not None)))

    def _as_result(self, result: Order | TradeError) -> Order | TradeError:
        if not isinstance(result, Order):
            return result
        older = self._reused.get(result.key)
        if older is None or older is result:
            return copy(result)
        same = (older.instrument, older.side, older.type, older.quantity, older.limit_price, older.stop_price)
        if same == (
            result.instrument,
            result.side,
            result.type,
            result.quantity,
            result.limit_price,
            result.stop_price,
        ):
            return older
        return _reused(result.client_order_id, f"is a {older.side} of {older.quantity} {older.instrument}")

    # Views

    def story(self, account: AccountId, key: ClientOrderId) -> deque[str]:
        """The last changes of one order, for an `Invariant`."""
        return self._stories.get((account, key), deque())


def _key(intent: PlaceOrder | ModifyOrder) -> _Key:
    return intent.account, intent.client_order_id, type(intent)


def _content(intent: PlaceOrder | ModifyOrder) -> PlaceOrder | ModifyOrder:
    """The intent without what may differ when it is sent again."""
    if isinstance(intent, PlaceOrder):
        return msgspec.structs.replace(intent, created_at=Nanos(0), cause=CauseId(""))
    return intent


def _price_of(intent: PlaceOrder) -> Decimal | None:
    return intent.limit_price if intent.limit_price is not None else intent.stop_price


def _reused(key: ClientOrderId, what: str) -> Refused:
    return Conflict("client_order_id_reused", f"client_order_id {key!r} {what}; use a new one for a new intent")

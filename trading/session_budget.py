"""A session's budgets: what an intent draws on, what waits for central risk, and the clock that keeps it going."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from trading.budgets import BudgetGrant, Purse
from trading.errors import NotReady, RiskDenied
from trading.ids import AccountId, ClientOrderId, Epoch, InstrumentId, Nanos, UserId
from trading.instructions import AskBudget, Instruction
from trading.limits import GROSS_EXPOSURE, violation
from trading.orders import ZERO, ModifyOrder, PlaceOrder, Side
from trading.session_replies import Answers, Replies
from trading.session_requests import STALE_NS

_SECOND: Final = 1_000_000_000
BUDGET_EVERY_NS: Final = _SECOND
#: Without new orders for this long, unused budget goes back.
IDLE_NS: Final = 10 * _SECOND

#: ``(resource, amount, (scope, kind))``
Draw = tuple[str, Decimal, tuple[str, str]]
Key = tuple[AccountId, ClientOrderId, type]


class Parked(msgspec.Struct):
    """An intent that waits for budget."""

    intent: PlaceOrder | ModifyOrder
    slots: list[tuple[Answers, int]]
    since: Nanos
    asked: bool = False


class Budgeting(Replies):
    """Spends what central risk has lent, and asks for more."""

    def __init__(self, user: UserId, epoch: Epoch) -> None:
        super().__init__(user, epoch)
        self.purse = Purse(f"session/{user}", epoch)
        self._parked: dict[Key, Parked] = {}
        self._reported_at = Nanos(0)
        self._placed_at = Nanos(0)

    def _try(self, parked: Parked, now: Nanos) -> None:
        """Decide about an intent, again."""
        raise NotImplementedError

    def _deny(self, intent: PlaceOrder, slots: list[tuple[Answers, int]], reasons: list[str], now: Nanos) -> None:
        """Journal an intent as refused by us."""
        raise NotImplementedError

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
                late = NotReady("central risk has not answered in time; nothing was sent", 2.0)
                if parked.slots or not isinstance(parked.intent, PlaceOrder):
                    self._resolve(parked.slots, late)
                else:
                    self._deny(parked.intent, [], [str(late)], now)
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

    def _retry(self, parked: Parked, grant: BudgetGrant, now: Nanos) -> None:
        del self._parked[key_of(parked.intent)]
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

    def _park_if_lacking(self, parked: Parked, now: Nanos) -> bool:
        _, lacking = self._needs(parked, now)
        if not lacking:
            return False
        self._parked[key_of(parked.intent)] = parked
        self._ask_budget(now)
        return True

    def _needs(self, parked: Parked, now: Nanos) -> tuple[list[Draw], set[str]]:
        """All that an intent draws on, and the resources of it that are not covered."""
        draws = self._draws(parked.intent)
        used, allowance = self.exposure.used, self.purse.allowance
        lacking = {
            name for name, amount, _ in draws if amount > 0 and used.get(name, ZERO) + amount > allowance(name, now)
        }
        return draws, lacking

    def _draws(self, intent: PlaceOrder | ModifyOrder) -> list[Draw]:
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
            price = price_of(intent) or self.exposure.marks.get(intent.instrument, ZERO)
            return intent.account, intent.instrument, intent.side, intent.quantity, price
        order = self._book(intent.account).orders[intent.client_order_id]
        quantity = intent.quantity or order.quantity
        more = max(quantity - order.quantity, ZERO)
        price = intent.limit_price or order.limit_price or self.exposure.marks.get(order.instrument, ZERO)
        return order.account, order.instrument, order.side, more, price

    def _instrument_of(self, parked: Parked) -> InstrumentId:
        return self._terms(parked.intent)[1]


def key_of(intent: PlaceOrder | ModifyOrder) -> Key:
    return intent.account, intent.client_order_id, type(intent)


def price_of(intent: PlaceOrder) -> Decimal | None:
    return intent.limit_price if intent.limit_price is not None else intent.stop_price

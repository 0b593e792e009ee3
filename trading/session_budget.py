"""A session's budgets: what an intent draws on, what waits for central risk, and the clock that keeps it going."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec

from trading.budgets import BudgetGrant
from trading.eagerness import is_more_eager, is_stop, only_its_stop_is_nearer
from trading.errors import NotReady, RiskDenied
from trading.exposure import Effect, Part, effect_of
from trading.ids import AccountId, ClientOrderId, Epoch, InstrumentId, Nanos, UserId
from trading.instructions import AskBudget, Instruction
from trading.limit_path import Draw, Path, path_of
from trading.limits import (
    CLUSTER,
    GROSS_EXPOSURE,
    MONEY_AT_RISK,
    NET_EXPOSURE,
    OPEN_ORDERS,
    ORDERS_PER_SECOND,
    POSITION,
    RATE_RESOURCE,
    Violation,
)
from trading.money_at_risk import Working, working
from trading.order_worth import own_price, prices_after
from trading.orders import ZERO, ModifyOrder, Order, PlaceOrder, Side
from trading.session_days import DayWatch
from trading.session_replies import Answers
from trading.session_requests import STALE_NS

_SECOND: Final = 1_000_000_000
BUDGET_EVERY_NS: Final = _SECOND
#: Without new orders for this long, unused budget goes back.
IDLE_NS: Final = 10 * _SECOND
ONE: Final = Decimal(1)

Key = tuple[AccountId, ClientOrderId, type]


class Parked(msgspec.Struct):
    """An intent that waits for budget."""

    intent: PlaceOrder | ModifyOrder
    slots: list[tuple[Answers, int]]
    since: Nanos
    asked: bool = False


class Demand(msgspec.Struct):
    """What an intent would add to what is in use."""

    part: Part
    path: Path
    side: Side
    #: What it adds to the open quantity of its side.
    quantity: Decimal
    #: Values it while no mark is known; and by how much a change then raises what is open already.
    price: Decimal
    dearer: Decimal
    #: It could only make the position smaller.
    is_exit: bool
    #: On the account's line.
    effect: Effect
    #: Orders that it adds: 1, or 0 for a change.
    orders: Decimal
    key: ClientOrderId
    #: The order as it would stand.
    stands: Working
    #: A change that moves a price towards a trade.
    is_eager: bool = False
    _risk: Decimal | None = None

    @property
    def is_larger(self) -> bool:
        """Whether it adds to what is open: in quantity, or in worth where only its own price tells that."""
        return self.quantity > 0 or self.dearer > 0

    @property
    def may_enter(self) -> bool:
        """Whether what enters may come of it that would not have: it is no exit, and larger or more eager."""
        return not self.is_exit and (self.is_larger or self.is_eager)

    def risk(self) -> Decimal:
        """By how much it raises the money at risk."""
        if self._risk is None:
            after = self.part.risk_with(self.key, self.stands, self.price)
            self._risk = after - self.part.money_at_risk()
        return self._risk


class Need(msgspec.Struct, frozen=True):
    """A shared amount that an intent draws on: in use now, and how much more."""

    draw: Draw
    used: Decimal
    more: Decimal


class Budgeting(DayWatch):
    """Spends what central risk has lent, and asks for more."""

    def __init__(self, user: UserId, epoch: Epoch) -> None:
        super().__init__(user, epoch)
        self._parked: dict[Key, Parked] = {}
        self._reported_at = Nanos(0)
        self._placed_at = Nanos(0)
        self._told_at = Nanos(0)
        self._risk_told = ZERO

    def _try(self, parked: Parked, now: Nanos) -> None:
        """Decide about an intent, again."""
        raise NotImplementedError

    def _deny(self, intent: PlaceOrder, slots: list[tuple[Answers, int]], reasons: list[str], now: Nanos) -> None:
        """Journal an intent as refused by us."""
        raise NotImplementedError

    def granted(self, grant: BudgetGrant, now: Nanos) -> list[Instruction]:
        """Central risk answered a report."""
        if self.purse.take(grant):
            # With the first limits comes the first look at losses: no entry may slip in before it.
            self._watch_days(now)
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

    def set_marks(
        self, marks: dict[InstrumentId, Decimal], now: Nanos, heard: Mapping[InstrumentId, Nanos] | None = None
    ) -> list[Instruction]:
        """Last prices; they value positions and market orders.  ``heard``: when they came, if not now."""
        for instrument, price in marks.items():
            self.exposure.set_mark(instrument, price)
        self.exposure.quoted.update(marks)
        self.exposure.marked_at.update(dict.fromkeys(marks, now) if heard is None else heard)
        return self._drain(now)

    def clock(self, now: Nanos) -> list[Instruction]:
        """Time passes: renew budgets, give up on stale intents, ask brokers for reports that are due."""
        self._watch_days(now)
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
            for need in self._needs(self._demand(parked.intent), now):
                wants[need.draw.resource] = wants.get(need.draw.resource, ZERO) + need.more
        levels = None
        if now - self._told_at >= BUDGET_EVERY_NS:
            self._told_at, levels = now, self.levels()
        used = self._used(now, fresh=levels is not None)
        for resource in list(wants):
            wants[resource] = max(
                used.get(resource, ZERO) + wants[resource] - self.purse.holds.get(resource, ZERO), ZERO
            )
        self._reported_at = now
        idle = not self._parked and now - self._placed_at > IDLE_NS
        self._out.append(AskBudget(self.purse.ask(used, wants, now, idle=idle, levels=levels)))

    def _used(self, now: Nanos, *, fresh: bool) -> dict[str, Decimal]:
        """All shared amounts in use.  Money at risk is added up anew when it is ``fresh`` or bounded."""
        if fresh or self.purse.limits.value(CLUSTER, MONEY_AT_RISK) is not None:
            self._risk_told = self.exposure.session.money_at_risk()
        used = self.exposure.used(self._risk_told)
        if self.purse.limits.value(CLUSTER, ORDERS_PER_SECOND) is not None:
            used[RATE_RESOURCE] = Decimal(self.exposure.session.rate(now))
        return used

    def _retry(self, parked: Parked, grant: BudgetGrant, now: Nanos) -> None:
        del self._parked[key_of(parked.intent)]
        refused = []
        demand = self._demand(parked.intent)
        for need in self._needs(demand, now):
            short = grant.short.get(need.draw.resource)
            if short is not None and self._is_lacking(need, now):
                total = short.others + need.used + need.more
                if total > short.limit:
                    refused.append(self._shared_violation(demand, need, total, short.limit))
        if refused and isinstance(parked.intent, PlaceOrder):
            self._deny(parked.intent, parked.slots, refused, now)
        elif refused:
            self._resolve(parked.slots, RiskDenied(refused))
        else:
            parked.asked = False
            self._try(parked, now)

    @staticmethod
    def _shared_violation(demand: Demand, need: Need, total: Decimal, limit: Decimal) -> str:
        kind = need.draw.kind
        instrument = demand.part.line.instrument if kind == POSITION else ""
        return Violation(kind=kind, scope=CLUSTER, instrument=instrument, value=total, limit=limit).text

    def _park_if_lacking(self, parked: Parked, demand: Demand, now: Nanos) -> bool:
        """Let an intent wait for budget, or for word from central risk where that is overdue; False: it may go."""
        if demand.is_exit:
            return False
        # A change by which nothing enters needs no word of central risk beyond what it draws on.
        is_heard = not demand.may_enter or self.purse.is_fresh(now)
        if is_heard and not any(self._is_lacking(need, now) for need in self._needs(demand, now)):
            return False
        self._parked[key_of(parked.intent)] = parked
        self._ask_budget(now)
        return True

    def _is_lacking(self, need: Need, now: Nanos) -> bool:
        return need.more > 0 and need.used + need.more > self.purse.allowance(need.draw.resource, now)

    def _needs(self, demand: Demand, now: Nanos) -> list[Need]:
        """All shared amounts that an intent draws on."""
        if demand.is_exit:
            return []
        session, effect = self.exposure.session, demand.effect
        needs = []
        for draw in demand.path.lent:
            kind = draw.kind
            if kind == POSITION:
                used, more = session.positions.get(demand.part.line.instrument, ZERO), effect.quantity
            elif kind == GROSS_EXPOSURE:
                used, more = session.gross, effect.money
            elif kind == NET_EXPOSURE:
                if draw.side > 0:
                    used, more = _one_side(session.up, effect.up)
                else:
                    used, more = _one_side(-session.down, -effect.down)
            elif kind == OPEN_ORDERS:
                used, more = Decimal(session.open_orders), demand.orders
            elif kind == ORDERS_PER_SECOND:
                used, more = Decimal(session.rate(now)), ONE
            else:
                used, more = session.money_at_risk(), demand.risk()
            needs.append(Need(draw, used, more))
        return needs

    def _path(self, part: Part) -> Path:
        tree = self.purse.limits
        path = part.path(tree)
        if path is None:
            path = path_of(tree, self.user, part.account, part.algo, part.line.instrument)
            part.remember(tree, path)
        return path

    def _demand(self, intent: PlaceOrder | ModifyOrder) -> Demand:
        if isinstance(intent, PlaceOrder):
            part = self.exposure.part(
                intent.account, intent.algo, intent.instrument, self.instruments[intent.instrument].multiplier
            )
            side, more, orders, dearer, is_eager = intent.side, intent.quantity, ONE, ZERO, False
            price = own_price(side, intent.limit_price, intent.stop_price)
            stands = working(intent, more)
        else:
            order = self._book(intent.account).orders[intent.client_order_id]
            part = self.exposure.part(
                order.account, order.algo, order.instrument, self.instruments[order.instrument].multiplier
            )
            side, more, orders = order.side, max((intent.quantity or order.quantity) - order.quantity, ZERO), ZERO
            price, dearer = own_price(side, *prices_after(intent, order)), ZERO
            is_eager = is_more_eager(intent, order) and not self._draws_protection_nearer(intent, order, part)
            if not part.line.unit:
                # Until it is confirmed either price may stand.
                counted, at = part.counted(order.client_order_id)
                price, dearer = max(price, at), counted * max(price - at, ZERO)
            stands = (
                side,
                order.open_quantity + more,
                order.type,
                intent.stop_price or order.stop_price,
                intent.trail_price or order.trail_price,
                intent.trail_percent or order.trail_percent,
            )
        return Demand(
            part=part,
            path=self._path(part),
            side=side,
            quantity=more,
            price=price,
            dearer=dearer,
            is_exit=part.line.reduces(side, more),
            effect=effect_of(part.line, side, more, price, dearer),
            orders=orders,
            key=intent.client_order_id,
            stands=stands,
            is_eager=is_eager,
        )

    def _draws_protection_nearer(self, change: ModifyOrder, order: Order, part: Part) -> bool:
        """Whether a change only draws nearer a stop of what is held, all stops of which could at most close it.

        A limit that is to take the profit may rest beside it: it stays where it was, so nothing enters sooner by this.
        """
        position = part.line.position
        if not only_its_stop_is_nearer(change, order) or position * order.side.sign >= 0:
            return False
        of_its_side = (
            each.open_quantity
            for each in self._book(order.account).open.values()
            if each.instrument == order.instrument and each.side is order.side and is_stop(each)
        )
        return sum(of_its_side, ZERO) <= abs(position)


def _one_side(total: Decimal, change: Decimal) -> tuple[Decimal, Decimal]:
    """Use of one side of the net, never below 0, and what a change adds to it."""
    used = max(total, ZERO)
    return used, max(total + change, ZERO) - used


def key_of(intent: PlaceOrder | ModifyOrder) -> Key:
    return intent.account, intent.client_order_id, type(intent)

"""Whether an intent breaks a limit: the session's risk checks, apart from what its budgets cover.

Entries keep every limit on their path.  Exits (orders that only make the account's position smaller) pass all of
them but a full halt, and the algo's own level where they would raise what the algo itself holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from trading.account_book import AccountBook
from trading.broker import Capabilities
from trading.budgets import BudgetGrant
from trading.calendars import Sessions
from trading.errors import NotReady
from trading.exposure import Effect, Level, effect_of
from trading.ids import Epoch, InstrumentId, Nanos, UserId
from trading.instructions import Instruction
from trading.instruments import Instrument
from trading.journal import AccountHistory
from trading.limit_path import OF_ACCOUNT, OF_ALGO, Bound
from trading.limits import (
    BUYING_POWER,
    CONCENTRATION,
    GROSS_EXPOSURE,
    HALTED,
    LEVERAGE,
    NET_EXPOSURE,
    OPEN_ORDERS,
    ORDERS_PER_SECOND,
    POSITION,
    Violation,
)
from trading.order_worth import prices_after, worst_price
from trading.orders import ZERO, ModifyOrder, Order, OrderState, PlaceOrder, TimeInForce
from trading.session_budget import ONE, Budgeting, Demand

_HUNDRED = Decimal(100)
_INFINITE = Decimal("Infinity")
#: These wait for an auction, so they may be placed while the venue is closed.
_AUCTION = frozenset({TimeInForce.AT_OPEN, TimeInForce.AT_CLOSE})


class RiskChecks(Budgeting):
    """Judges intents; says in words what they break."""

    def __init__(self, user: UserId, epoch: Epoch) -> None:
        super().__init__(user, epoch)
        self._halted_until = Nanos(0)
        #: Opening hours by calendar; what is not here is not known.
        self.calendars: dict[str, Sessions] = {}
        #: Levels halted by a kill that central risk has not told of yet.
        self.halts: dict[str, Violation] = {}

    def halt(self, scope: str, halted_at: Nanos) -> None:
        """Refuse entries on a level at once; from limits as new as ``halted_at`` on, these decide."""
        if self.purse.limits.version < halted_at:
            self.halts[scope] = Violation(kind=HALTED, scope=scope)
            self._halted_until = max(self._halted_until, halted_at)

    def granted(self, grant: BudgetGrant, now: Nanos) -> list[Instruction]:
        """As `Budgeting.granted`; the limits take over from halts that were told before them."""
        instructions = super().granted(grant, now)
        if self.halts and self.purse.limits.version >= self._halted_until:
            self.halts.clear()
        return instructions

    def add_account(
        self, history: AccountHistory, late_arrival_ns: int, now: Nanos, capabilities: Capabilities | None = None
    ) -> list[Instruction]:
        """As `Intake.add_account`; takes up what algos hold, and what was sent in the last second."""
        for position in history.algo_positions:
            part = self.exposure.part(
                history.account, position.algo, position.instrument, self._multiplier(position.instrument)
            )
            if part.own is not None:
                self.exposure.set_position(part.own, position.quantity)
        instructions = super().add_account(history, late_arrival_ns, now, capabilities)
        for order in history.orders:
            if order.created_at > now - _SECOND and order.state is not OrderState.DENIED:
                for level in self._part(self.accounts[history.account], order).levels:
                    level.sent.append(order.created_at)
        return instructions

    def _violations(
        self, book: AccountBook, instrument: Instrument, intent: PlaceOrder, demand: Demand, now: Nanos
    ) -> list[str]:
        """Everything that forbids a new order, in words."""
        found = self._reduce_only_reasons(book, demand, intent.reduce_only)
        found += [v.text for v in demand.path.stopping]
        if demand.is_exit:
            return found + _texts(self._of_algo(demand, now))
        if not self.purse.has_limits:
            if found:
                return found
            raise NotReady("central risk has not given its limits yet", 1.0)
        mark = self.exposure.marks.get(intent.instrument)
        price = worst_price(intent.side, intent.limit_price, intent.stop_price, mark)
        if price is None:
            return [*found, _unknown(intent.instrument)]
        broken = self._refusals(demand)
        broken += self._hours(demand, instrument, intent.time_in_force, now)
        broken += self._of_order(demand, intent.quantity, instrument.notional(intent.quantity, price))
        broken += self._of_prices(demand, (intent.limit_price, intent.stop_price))
        broken += self._of_levels(demand, now)
        found += _texts(broken)
        if found:
            # Asking central risk would be idle; what this session alone breaks of the shared limits is named too.
            found += self._broken_alone(demand, now)
        return found

    def _modify_violations(
        self, book: AccountBook, order: Order, instrument: Instrument, change: ModifyOrder, demand: Demand, now: Nanos
    ) -> list[str]:
        """Everything that forbids a change, in words.

        One that makes an order smaller, cheaper or less eager passes: whoever wants less may always have it.  One that
        makes it more eager meets what refuses entries, as a new order does; it uses no more of an amount than before.
        """
        mark = self.exposure.marks.get(order.instrument)
        before = worst_price(order.side, order.limit_price, order.stop_price, mark)
        price = worst_price(order.side, *prices_after(change, order), mark)
        is_dearer = price is not None and before is not None and price > before
        found = [v.text for v in demand.path.stopping]
        if demand.is_exit:
            return found
        if demand.may_enter:
            # What was to reduce only and no longer does may not grow; its price may follow the market as before.
            found += self._reduce_only_reasons(book, demand, order.reduce_only and demand.is_larger)
        if price is None and demand.is_larger:
            return [*found, _unknown(order.instrument)]
        broken: list[Violation] = []
        if demand.may_enter:
            if not self.purse.has_limits:
                raise NotReady("central risk has not given its limits yet", 1.0)
            broken += self._refusals(demand)
            broken += self._hours(demand, instrument, order.time_in_force, now)
        if demand.is_larger:
            broken += self._of_levels(demand, now)
        if price is not None and (demand.is_larger or is_dearer):
            quantity = max(change.quantity or order.quantity, order.quantity)
            broken += self._of_order(demand, quantity, instrument.notional(quantity, price))
        broken += self._of_prices(demand, (change.limit_price, change.stop_price))
        return found + _texts(broken)

    @staticmethod
    def _reduce_only_reasons(book: AccountBook, demand: Demand, reduce_only: bool) -> list[str]:
        if demand.is_exit:
            return []
        found = []
        if reduce_only:
            found.append("reduce_only: the order would not make the position smaller")
        instrument = demand.part.line.instrument
        if book.is_reduce_only(instrument):
            found.append(f"{instrument} is reduce-only while its reconciliation break is open")
        return found

    def _refusals(self, demand: Demand) -> list[Violation]:
        """States, and losses that have reached their limit."""
        found = [v for v in demand.path.refusing if v not in demand.path.stopping]
        found += self.purse.blocked
        found += [v for scope in demand.path.scopes if (v := self.halts.get(scope)) is not None and v not in found]
        if self.blocked:
            for scope in demand.path.scopes:
                found += self.blocked.get(scope, ())
        return found

    def _hours(self, demand: Demand, instrument: Instrument, time_in_force: TimeInForce, now: Nanos) -> list[Violation]:
        asked = demand.path.hours
        if asked is None or instrument.calendar == "24x7" or time_in_force in _AUCTION:
            return []
        sessions = self.calendars.get(instrument.calendar)
        if sessions is None:
            raise NotReady(f"the hours of calendar {instrument.calendar} are not known yet", 5.0)
        return [] if sessions.is_open(now) else [asked]

    @staticmethod
    def _of_order(demand: Demand, quantity: Decimal, notional: Decimal) -> list[Violation]:
        """Limits of the order by itself."""
        found = []
        instrument = demand.part.line.instrument
        for bounds, amount in ((demand.path.quantity, quantity), (demand.path.notional, notional)):
            for bound in bounds:
                if amount <= bound.limit:
                    break
                found.append(_above(bound, amount, instrument))
        return found

    def _of_prices(self, demand: Demand, prices: Sequence[Decimal | None]) -> list[Violation]:
        """How far the order's prices are from the last one."""
        if not demand.path.collar:
            return []
        instrument = demand.part.line.instrument
        last = self.exposure.marks[instrument] if instrument in self.exposure.quoted else None
        if last is None:
            if any(price is not None for price in prices):
                raise NotReady(f"no last price of {instrument} is known yet to hold the order's price against", 1.0)
            return []
        away = max((abs(price - last) / last * _HUNDRED for price in prices if price is not None), default=ZERO)
        return [
            _above(bound, away.quantize(Decimal("0.01")), instrument)
            for bound in demand.path.collar
            if away > bound.limit
        ]

    def _of_levels(self, demand: Demand, now: Nanos) -> list[Violation]:
        """Limits of what each level of this session uses."""
        own = None
        found = []
        for bound in demand.path.local:
            effect = demand.effect
            if bound.level == OF_ALGO:
                if own is None:
                    own = self._own_effect(demand)
                effect = own
            if (violation := self._of_level(demand, bound, effect, now)) is not None:
                found.append(violation)
        return found

    def _of_algo(self, demand: Demand, now: Nanos) -> list[Violation]:
        """An exit of the account may yet be an entry of the algo."""
        bounds = demand.path.of_algo
        own = demand.part.own
        if not bounds or own is None or own.reduces(demand.side, demand.quantity):
            return []
        effect = self._own_effect(demand)
        found = (self._of_level(demand, bound, effect, now) for bound in bounds)
        return [violation for violation in found if violation is not None]

    @staticmethod
    def _own_effect(demand: Demand) -> Effect:
        own = demand.part.own
        assert own is not None, "limits of an algo are on the path of its orders only"
        return effect_of(own, demand.side, demand.quantity, demand.price, demand.dearer)

    def _level(self, demand: Demand, level: int) -> Level:
        exposure = self.exposure
        if level == OF_ALGO and demand.part.own is not None:
            return demand.part.own.levels[0]
        return exposure.accounts[demand.part.account] if level == OF_ACCOUNT else exposure.session

    def _of_level(self, demand: Demand, bound: Bound, effect: Effect, now: Nanos) -> Violation | None:
        level = self._level(demand, bound.level)
        kind = bound.kind
        instrument = demand.part.line.instrument
        if kind == POSITION:
            after, more = level.positions.get(instrument, ZERO) + effect.quantity, effect.quantity
        elif kind == GROSS_EXPOSURE:
            after, more = level.gross + effect.money, effect.money
        elif kind == NET_EXPOSURE:
            if effect.up:
                after, more = level.up + effect.up, effect.up
            else:
                after, more = -(level.down + effect.down), -effect.down
        elif kind == OPEN_ORDERS:
            after, more = level.open_orders + demand.orders, demand.orders
        elif kind == ORDERS_PER_SECOND:
            after, more = level.rate(now) + ONE, ONE
        elif kind in (BUYING_POWER, LEVERAGE, CONCENTRATION):
            after, more = self._ratio(demand, bound, level, effect), effect.money
        else:
            after, more = level.money_at_risk() + demand.risk(), demand.risk()
        if more <= 0 or after <= bound.limit:
            return None
        return _above(bound, after, instrument if kind in (POSITION, CONCENTRATION) else "")

    def _ratio(self, demand: Demand, bound: Bound, level: Level, effect: Effect) -> Decimal:
        """A use as a multiple (a percentage) of money that the broker told of; infinite where there is none."""
        if bound.kind == CONCENTRATION:
            whole = max(level.gross + effect.money, self._equity(demand, bound.level))
            part = level.value_of(demand.part.line.instrument) + effect.money
            return _divided(part * _HUNDRED, whole)
        if bound.kind == LEVERAGE:
            return _divided(level.gross + effect.money, self._equity(demand, bound.level))
        cash = sum((book.spendable() or ZERO for book in self._books(demand, bound.level)), ZERO)
        return _divided(level.entries() + effect.money, cash)

    def _equity(self, demand: Demand, level: int) -> Decimal:
        """Cash and holdings of the accounts of a level; of an algo's account for an algo."""
        books = self._books(demand, level)
        holdings = self._level(demand, OF_ACCOUNT if level == OF_ALGO else level).holdings()
        return sum((book.cash or ZERO for book in books), ZERO) + holdings

    def _books(self, demand: Demand, level: int) -> list[AccountBook]:
        if level in (OF_ACCOUNT, OF_ALGO):
            return [self.accounts[demand.part.account]]
        return list(self.accounts.values())

    def _broken_alone(self, demand: Demand, now: Nanos) -> list[str]:
        found = []
        for need in self._needs(demand, now):
            shared = self.purse.limits.limit_of(need.draw.resource)
            if need.more > 0 and shared is not None and need.used + need.more > shared:
                found.append(self._shared_violation(demand, need, need.used + need.more, shared))
        return found

    def _count_sent(self, demand: Demand, now: Nanos) -> None:
        """An order or a change is on its way."""
        if demand.path.counts_rate:
            for level in demand.part.levels:
                level.sent.append(now)


_SECOND = 1_000_000_000


def _above(bound: Bound, value: Decimal, instrument: InstrumentId | str) -> Violation:
    return Violation(kind=bound.kind, scope=bound.scope, instrument=instrument, value=value, limit=bound.limit)


def _unknown(instrument: InstrumentId) -> str:
    return (
        f"no price of {instrument} is known yet, so its risk cannot be judged: only a buy with a limit price says by "
        "itself what it may cost"
    )


def _divided(part: Decimal, whole: Decimal) -> Decimal:
    if whole <= 0:
        return _INFINITE if part > 0 else ZERO
    return (part / whole).quantize(Decimal("0.0001"))


def _texts(found: Sequence[Violation]) -> list[str]:
    return [violation.text for violation in found]

"""Whether an intent breaks a limit: the session's risk checks, apart from what its budgets cover."""

from __future__ import annotations

from decimal import Decimal

from trading.account_book import AccountBook
from trading.errors import NotReady
from trading.ids import InstrumentId
from trading.instruments import Instrument
from trading.limits import violation
from trading.orders import ZERO, ModifyOrder, Order, PlaceOrder, Side
from trading.session_budget import Budgeting, price_of


class RiskChecks(Budgeting):
    """Judges intents; says in words what they break."""

    def _violations(self, book: AccountBook, instrument: Instrument, intent: PlaceOrder) -> list[str]:
        reduces = self._reduces(book, intent.instrument, intent.side, intent.quantity)
        denied = self._reduce_only_violations(book, intent.instrument, intent.reduce_only, reduces)
        if reduces:
            return denied
        if not self.purse.has_limits:
            if denied:
                return denied
            raise NotReady("central risk has not given its limits yet", 1.0)
        price = price_of(intent) or self.exposure.marks.get(intent.instrument)
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

    def _reduces(self, book: AccountBook, instrument: InstrumentId, side: Side, quantity: Decimal) -> bool:
        line = self.exposure.line(book.account, instrument, self.instruments[instrument].multiplier)
        return line.reduces(side, quantity)

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

    def _modify_violations(
        self, book: AccountBook, order: Order, instrument: Instrument, change: ModifyOrder
    ) -> list[str]:
        quantity = change.quantity or order.quantity
        more = quantity - order.quantity
        mark = self.exposure.marks.get(order.instrument)
        before = order.limit_price or order.stop_price or mark
        price = change.limit_price or change.stop_price or before
        if more > 0:
            reduces = self._reduces(book, order.instrument, order.side, more)
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

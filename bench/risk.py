"""Budget checks of the pure core: ``python -m bench.risk [--json]``.  One core, no Ray, no IO.

A check is what the session's core does for each intent, with eight kinds of limits on three levels: those of a single
order, the worst case that the order would make of position, exposure and money at risk on each level, and whether the
budgets of the cluster cover it.  The floor is the arithmetic that no check can do without: as many sums and comparisons
of decimals as there are budgets.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from trading.budgets import RiskBook
from trading.ids import AccountId, ClientOrderId, Epoch, InstrumentId, Nanos, UserId
from trading.instructions import AskBudget
from trading.instruments import Instrument
from trading.journal import AccountHistory
from trading.limits import Limit, LimitTree
from trading.orders import OrderType, PlaceOrder, Side
from trading.session import SessionCore
from trading.session_budget import Parked

CHECKS = 40_000
ROUNDS = 5
ACCOUNT = AccountId("bench")
INSTRUMENT = Instrument(
    id=InstrumentId("T:A"),
    provider_symbol="A",
    provider="test",
    tick_size=Decimal("0.01"),
    lot_size=Decimal(1),
    currency="USD",
)
NOW = Nanos(1_700_000_000_000_000_000)


def session() -> tuple[SessionCore, Parked]:
    """A core with limits on three levels, budget in hand, and an intent to check."""
    limits = [
        Limit(scope=scope, kind=kind, instrument="", value=Decimal(value))
        for scope in ("cluster", "user:bench", f"account:{ACCOUNT}")
        for kind, value in (
            ("order_quantity", 1_000),
            ("order_notional", 1_000_000),
            ("position", 100_000),
            ("gross_exposure", 100_000_000),
            ("net_exposure", 100_000_000),
            ("open_orders", 10_000),
            ("money_at_risk", 100_000_000),
            ("price_collar", 10),
        )
    ]
    core, book = SessionCore(UserId("bench"), Epoch(1)), RiskBook(LimitTree(limits, 1), Epoch(1))
    core.instruments[INSTRUMENT.id] = INSTRUMENT
    empty = AccountHistory(account=ACCOUNT, loaded_at=NOW, orders=[], positions=[], executions=set(), breaks=[])
    core.add_account(empty, 0, NOW)
    core.set_marks({INSTRUMENT.id: Decimal(100)}, NOW)
    intent = PlaceOrder(
        account=ACCOUNT,
        client_order_id=ClientOrderId("k"),
        instrument=INSTRUMENT.id,
        side=Side.BUY,
        type=OrderType.LIMIT,
        quantity=Decimal(5),
        limit_price=Decimal(100),
    )
    parked = Parked(intent=intent, slots=[], since=NOW)
    (asked,) = (i for i in core.clock(NOW) if isinstance(i, AskBudget))
    core.granted(book.report(asked.report)[0], NOW)
    demand = core._demand(intent)
    needs = core._needs(demand, NOW)
    wants = {need.draw.resource: need.more for need in needs}
    report = core.purse.ask(core._used(NOW, fresh=True), wants, NOW, idle=False)
    core.granted(book.report(report)[0], NOW)
    assert not any(core._is_lacking(need, NOW) for need in needs), "the budget does not cover the intent"
    return core, parked


def rate(act: Callable[[], object], count: int) -> float:
    """Times a second, the best of some rounds."""
    best = 0.0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(count):
            act()
        best = max(best, count / (time.perf_counter() - began))
    return best


def measure() -> dict[str, Any]:
    """All figures of one run."""
    core, parked = session()
    book, intent = core.accounts[ACCOUNT], parked.intent
    assert isinstance(intent, PlaceOrder)
    needs = core._needs(core._demand(intent), NOW)
    holds = {need.draw.resource: Decimal(100_000_000) for need in needs}
    used = {name: Decimal(17) for name in holds}

    def check() -> None:
        demand = core._demand(intent)
        assert not core._violations(book, INSTRUMENT, intent, demand, NOW)
        assert not any(core._is_lacking(need, NOW) for need in core._needs(demand, NOW))

    def floor() -> None:
        for need in needs:
            if used[need.draw.resource] + need.more > holds[need.draw.resource]:
                raise AssertionError(need.draw.resource)

    checks, bare = rate(check, CHECKS), rate(floor, CHECKS)
    return {"checks_per_s": round(checks), "floor_per_s": round(bare), "ratio": round(checks / bare, 3)}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = measure()
    print(json.dumps(found) if options.json else "\n".join(f"{k:14} {v}" for k, v in found.items()))


if __name__ == "__main__":
    main()

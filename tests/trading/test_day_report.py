"""The report of a day from both sides' books."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.samples import INSTRUMENT, order
from trading.broker import BrokerFill, BrokerOrder, BrokerPosition, BrokerReport
from trading.day_report import DAY_NS, HOUR_NS, CashLine, DayReport, OurFill, agreeing_positions, day_report, last_day
from trading.ids import AccountId, BrokerOrderId, ExecutionId, Nanos
from trading.journal import Break, BreakKind
from trading.orders import Fill, Order, OrderState

D = Decimal
ACC = AccountId("acc-1")
STARTS = Nanos(20_000 * DAY_NS)
ENDS = Nanos(STARTS + DAY_NS)
NOON = Nanos(STARTS + 12 * HOUR_NS)
CASH = CashLine(ours=D(5), theirs=D(5), currency="USD", agrees=True)


def ours(key: str, state: OrderState = OrderState.FILLED, filled: str = "1.50", **changes: Any) -> Order:
    return order(key, at=NOON, state=state, filled_quantity=D(filled), **changes)


def theirs(of: Order, **changes: Any) -> BrokerOrder:
    values: dict[str, Any] = {
        "broker_order_id": BrokerOrderId(f"b-{of.client_order_id}"),
        "tag": of.tag,
        "instrument": of.instrument,
        "side": of.side,
        "type": of.type,
        "time_in_force": of.time_in_force,
        "quantity": of.quantity,
        "filled_quantity": of.filled_quantity,
        "state": of.state,
        "at": NOON,
        **changes,
    }
    return BrokerOrder(**values)


def executed(id: str, quantity: str = "1", at: int = NOON) -> BrokerFill:
    fill = Fill(execution_id=ExecutionId(id), quantity=D(quantity), price=D(10), at=Nanos(at))
    return BrokerFill(
        broker_order_id=BrokerOrderId("b"), tag="", instrument=INSTRUMENT, side=order("x").side, fill=fill
    )


def known(id: str, quantity: str = "1") -> OurFill:
    return OurFill(execution_id=ExecutionId(id), instrument=INSTRUMENT, quantity=D(quantity), price=D(10))


def made(
    orders: list[Order] | None = None,
    rows: list[BrokerOrder] | None = None,
    fills: list[OurFill] | None = None,
    trades: list[BrokerFill] | None = None,
    breaks: list[Break] | None = None,
) -> DayReport:
    report = BrokerReport(
        account=ACC,
        requested_at=ENDS,
        received_at=ENDS,
        orders=tuple(rows or ()),
        fills=tuple(trades or ()),
        positions=(),
        cash=D(5),
        currency="USD",
    )
    day = ("2024-10-04", STARTS, ENDS)
    return day_report(ACC, day, Nanos(ENDS + 1), report, orders or [], fills or [], (0, {}), CASH, breaks or [])


@pytest.mark.parametrize("hour", [0, 0.5, 17, 23.99])
def test_the_last_day_is_the_whole_one_before_now(hour: float) -> None:
    boundary = int(hour * HOUR_NS)
    for now in (ENDS + boundary, ENDS + boundary + 1, ENDS + boundary + DAY_NS - 1):
        assert last_day(Nanos(now), boundary) == (STARTS + boundary, ENDS + boundary)
    assert last_day(Nanos(ENDS + boundary - 1), boundary) == (STARTS + boundary - DAY_NS, STARTS + boundary)


def test_orders_that_end_alike_match() -> None:
    filled, cancelled = ours("a"), ours("b", OrderState.CANCELLED, "0")
    tally = made([filled, cancelled], [theirs(filled), theirs(cancelled)]).orders
    assert (tally.matched, tally.differing) == (2, 0)


def test_orders_that_differ_are_named_with_both_sides() -> None:
    less, alive, lost = ours("less"), ours("alive", OrderState.CANCELLED, "0"), ours("lost", OrderState.SUBMITTED, "0")
    rows = [
        theirs(less, filled_quantity=D(1), state=OrderState.CANCELLED),
        theirs(alive, state=OrderState.SUBMITTED),
        theirs(ours("hand"), tag="", broker_order_id=BrokerOrderId("h-1")),
        theirs(ours("other day"), tag="", broker_order_id=BrokerOrderId("h-2"), at=Nanos(STARTS - 1)),
    ]
    tally = made([less, alive, lost], rows).orders
    assert (tally.matched, tally.differing) == (0, 4)
    assert {(d.id, d.ours, d.theirs) for d in tally.differences} == {
        ("less", "filled 1.50 of 1.50", "cancelled 1 of 1.50"),
        ("alive", "cancelled 0 of 1.50", "submitted 0 of 1.50"),
        ("lost", "submitted 0 of 1.50", ""),
        ("h-1", "", "filled 1.50 of 1.50"),
    }


def test_what_never_left_or_never_arrived_need_not_be_there_and_the_adopted_are_known() -> None:
    denied, never = ours("d", OrderState.DENIED, "0"), ours("n", OrderState.REJECTED, "0")
    hand = ours("adopted-b7", tag="broker:b7", broker_order_id=BrokerOrderId("b7"))
    adjusting = ours("adjust-X", tag="adjustment:brk-1")
    found = made([denied, never, hand, adjusting], [theirs(hand, tag="", broker_order_id=BrokerOrderId("b7"))])
    assert (found.orders.matched, found.orders.differing, found.adopted) == (2, 0, ("adopted-b7",))


def test_executions_match_by_id_and_terms_within_the_day() -> None:
    trades = [executed("same"), executed("size", "2"), executed("theirs"), executed("later", at=ENDS)]
    found = made(
        fills=[known("same"), known("size"), known("ours"), known("adjustment:brk-1")],
        trades=trades,
    )
    assert (found.executions.matched, found.executions.differing, found.adjustments) == (1, 3, 1)
    assert {d.id for d in found.executions.differences} == {"size", "theirs", "ours"}


def test_breaks_are_those_open_at_some_time_of_the_day() -> None:
    def item(id: str, opened: int, resolved: int = 0) -> Break:
        return Break(
            id=id,
            account=ACC,
            instrument=INSTRUMENT,
            kind=BreakKind.POSITION,
            ours="1",
            theirs="2",
            opened_at=Nanos(opened),
            resolved_at=Nanos(resolved),
        )

    items = [
        item("before", STARTS - 2, STARTS - 1),
        item("into", STARTS - 2, STARTS),
        item("still", STARTS - 2),
        item("within", NOON, NOON + 1),
        item("after", ENDS),
    ]
    assert [b.id for b in made(breaks=items).breaks] == ["into", "still", "within"]


def test_positions_held_alike_are_counted_and_flat_ones_are_not() -> None:
    report = BrokerReport(
        account=ACC,
        requested_at=ENDS,
        received_at=ENDS,
        orders=(),
        fills=(),
        positions=(BrokerPosition(instrument=INSTRUMENT, quantity=D(1)),),
        cash=D(5),
        currency="USD",
    )
    assert agreeing_positions({INSTRUMENT: D(1)}, report, {}) == 1
    assert agreeing_positions({INSTRUMENT: D(2)}, report, {INSTRUMENT: None}) == 0
    assert agreeing_positions({}, report, {}) == 0


@given(
    here=st.sets(st.integers(0, 12)),
    there=st.sets(st.integers(0, 12)),
)
def test_every_execution_is_counted_once(here: set[int], there: set[int]) -> None:
    found = made(fills=[known(f"e{n}") for n in here], trades=[executed(f"e{n}") for n in there]).executions
    assert (found.matched, found.differing) == (len(here & there), len(here ^ there))

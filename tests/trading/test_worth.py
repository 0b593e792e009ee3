"""What an order is worth to limits: never less than the market says, and never what another order's price says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.trading.rig import AAA, ACC, BBB, START, D, Rig, buy, held, limit, sell
from tests.trading.test_session_replace import NO_MODIFY
from tests.trading.test_session_risk import denies, outcome, passes
from trading.broker import AmendTicket, UpdateKind, Verdict
from trading.errors import RiskDenied
from trading.instructions import Lane
from trading.journal import AccountHistory
from trading.limits import (
    GROSS_EXPOSURE,
    GROSS_RESOURCE,
    LONG_RESOURCE,
    MONEY_AT_RISK,
    NET_EXPOSURE,
    ORDER_NOTIONAL,
    RISK_RESOURCE,
    Limit,
)
from trading.order_worth import worst_price
from trading.orders import Order, OrderState, OrderType, PlaceOrder, Side, TimeInForce, order_from

ACCOUNT = f"account:{ACC}"
NOTIONAL = limit(ORDER_NOTIONAL, 500, ACCOUNT)
GROSS = limit(GROSS_EXPOSURE, 1000, ACCOUNT)
MARKET: dict[str, Any] = {"price": None, "type": OrderType.MARKET}
STOP: dict[str, Any] = {"price": None, "type": OrderType.STOP}
STOP_LIMIT: dict[str, Any] = {"type": OrderType.STOP_LIMIT}
TRAILING: dict[str, Any] = {"price": None, "type": OrderType.TRAILING_STOP, "trail_price": D(3)}


def refused(rig: Rig, key: str, quantity: int | None = None, price: int | None = None) -> str:
    """Why a change is refused."""
    result = outcome(rig, rig.modify(key, quantity, price))
    assert isinstance(result, RiskDenied), result
    return str(result)


def changed(rig: Rig, key: str, quantity: int | None = None, price: int | None = None) -> None:
    """A change that is let pass; the broker has not answered."""
    result = outcome(rig, rig.modify(key, quantity, price))
    assert isinstance(result, Order), result
    rig.commit_all()


def confirmed(rig: Rig) -> None:
    """The broker makes the change that was sent last."""
    send = rig.take_send(Lane.MODIFY)
    (ticket,) = send.tickets
    assert isinstance(ticket, AmendTicket)
    rig.broker.amend(ticket, rig.now)
    rig.answer(send)
    rig.hear()


# An order by itself: the market is at 100


@pytest.mark.parametrize(
    ("wanted", "worth"),
    [
        (sell("a", 6, "1"), "600"),
        (sell("a", 400, "1"), "40000"),
        (sell("a", 4, "126"), "504"),
        (sell("a", 6, stop_price=D(1), **STOP), "600"),
        (sell("a", 4, stop_price=D(126), **STOP), "504"),
        (sell("a", 6, "1", stop_price=D(2), **STOP_LIMIT), "600"),
        (sell("a", 6, **TRAILING), "600"),
        (sell("a", 6, **MARKET), "600"),
        (buy("a", 6, stop_price=D(1), **STOP), "600"),
        (buy("a", 4, stop_price=D(126), **STOP), "504"),
        (buy("a", 4, "126", stop_price=D(1), **STOP_LIMIT), "504"),
        (buy("a", 6, **MARKET), "600"),
    ],
    ids=lambda value: f"{value.side} {value.type}" if isinstance(value, PlaceOrder) else value,
)
def test_an_order_is_worth_at_least_what_the_market_would_give_for_it(wanted: PlaceOrder, worth: str) -> None:
    rig = Rig(limits=[NOTIONAL])
    denies(rig, wanted, f"order_notional of TEST:AAA {worth} is above the limit 500")


@pytest.mark.parametrize(
    "wanted",
    [
        sell("a", 5, "1"),
        sell("a", 5, stop_price=D(90), **STOP),
        buy("a", 50, "10"),
        buy("a", 50, "10", stop_price=D(200), **STOP_LIMIT),
    ],
    ids=lambda wanted: f"{wanted.side} {wanted.type}",
)
def test_a_buy_is_worth_its_limit_and_a_cheap_sell_no_more_than_the_market_gives(wanted: PlaceOrder) -> None:
    passes(Rig(limits=[NOTIONAL]), wanted)


def test_an_exit_passes_at_any_price() -> None:
    rig = Rig(limits=[NOTIONAL], positions=[held(400)])
    passes(rig, sell("a", 300, "1"))
    passes(rig, sell("b", 100, stop_price=D(1), reduce_only=True, **STOP))


def test_a_sell_is_not_made_larger_by_making_it_cheap() -> None:
    rig = Rig(limits=[NOTIONAL])
    rig.working(sell("a", 4, "120"))
    assert "order_notional of TEST:AAA 40000" in refused(rig, "a", 400, 1)
    assert "order_notional of TEST:AAA 504" in refused(rig, "a", price=126)
    changed(rig, "a", price=1)


def test_a_cheaper_stop_of_a_sell_stop_limit_is_no_dearer_order() -> None:
    rig = Rig(limits=[NOTIONAL])
    rig.working(sell("a", 4, "80", stop_price=D(90), **STOP_LIMIT))
    rig.do(rig.core.set_marks({AAA.id: D(150)}, rig.now))
    changed(rig, "a", price=85)
    confirmed(rig)
    assert "order_notional of TEST:AAA 750" in refused(rig, "a", quantity=5)


# An instrument that nobody has quoted


def test_the_price_of_an_order_is_no_price_of_the_market() -> None:
    rig = Rig(limits=[NOTIONAL, GROSS], marks=False)
    denies(rig, buy("before", 400, **MARKET), "no price of TEST:AAA is known yet")
    passes(rig, buy("cheap", 1, "1"))
    assert not rig.core.exposure.marks
    for number, wanted in enumerate(
        [
            buy("m", 400, **MARKET),
            buy("s", 400, stop_price=D(1), **STOP),
            buy("t", 400, **TRAILING),
            sell("l", 400, "1"),
            sell("sl", 400, "1", stop_price=D(1), **STOP_LIMIT),
            sell("m2", 400, **MARKET),
        ]
    ):
        denies(rig, wanted, "no price of TEST:AAA is known yet")
        assert not rig.core.exposure.marks, number


@pytest.mark.parametrize(
    ("bound", "resource", "words"),
    [
        (GROSS, GROSS_RESOURCE, "gross_exposure 1010 is above the limit 1000"),
        (limit(NET_EXPOSURE, 1000, ACCOUNT), LONG_RESOURCE, "net_exposure 1010 is above the limit 1000"),
        (limit(MONEY_AT_RISK, 1000, ACCOUNT), RISK_RESOURCE, "money_at_risk 1010 is above the limit 1000"),
        (limit(GROSS_EXPOSURE, 1000), GROSS_RESOURCE, "gross_exposure 1010 is above the limit 1000"),
        (limit(MONEY_AT_RISK, 1000), RISK_RESOURCE, "money_at_risk 1010 is above the limit 1000"),
    ],
    ids=lambda value: f"{value.scope} {value.kind}" if isinstance(value, Limit) else "",
)
def test_a_buy_at_a_limit_counts_at_that_until_a_price_is_known(bound: Limit, resource: str, words: str) -> None:
    rig = Rig(limits=[bound], marks=False)
    passes(rig, buy("a", 10, "60"))
    passes(rig, buy("b", 3, "100", of=BBB.id))
    assert rig.used(resource) == 900
    denies(rig, buy("c", 11, "10"), words)
    passes(rig, buy("d", 10, "10"))
    assert rig.used(resource) == 1000
    rig.do(rig.core.set_marks({AAA.id: D(20)}, rig.now))
    assert rig.used(resource) == 20 * 20 + 300


def test_an_algos_own_limits_hold_at_the_price_of_its_orders_too() -> None:
    rig = Rig(limits=[limit(GROSS_EXPOSURE, 100, "algo:g")], marks=False)
    passes(rig, buy("a", 9, "10", algo="g"))
    denies(rig, buy("b", 2, "10", algo="g"), "gross_exposure 110 is above the limit 100 of algo:g")
    passes(rig, buy("c", 2, "10"))


def test_the_order_as_it_ends_gives_its_room_back() -> None:
    rig = Rig(limits=[GROSS], marks=False)
    rig.working(buy("a", 10, "100"))
    denies(rig, buy("b", 1, "1"), "gross_exposure 1001")
    rig.cancel("a")
    rig.end("a", UpdateKind.CANCELLED)
    assert rig.used(GROSS_RESOURCE) == 0
    passes(rig, buy("c", 10, "100"))


def test_a_dearer_price_is_judged_and_counted_from_when_it_is_asked_for() -> None:
    rig = Rig(limits=[GROSS, NOTIONAL], marks=False)
    rig.working(buy("a", 5, "20"))
    rig.working(buy("b", 5, "100"))
    assert "order_notional of TEST:AAA 505" in refused(rig, "a", price=101)
    assert "gross_exposure 1100" in refused(rig, "a", quantity=6, price=100)
    changed(rig, "a", price=90)
    assert not rig.core.exposure.marks
    assert rig.used(GROSS_RESOURCE) == 950, "the broker may have made the change already"
    denies(rig, buy("c", 1, "51"), "gross_exposure 1001")
    confirmed(rig)
    assert rig.used(GROSS_RESOURCE) == 950
    changed(rig, "a", price=30)
    assert rig.used(GROSS_RESOURCE) == 950, "the dearer price may stand still"
    confirmed(rig)
    assert rig.used(GROSS_RESOURCE) == 650
    assert not rig.core.exposure.marks


def test_a_dearer_price_that_the_broker_refuses_counts_no_more() -> None:
    rig = Rig(limits=[GROSS], marks=False)
    rig.working(buy("a", 5, "20"))
    changed(rig, "a", price=90)
    rig.answer(rig.take_send(Lane.MODIFY), Verdict.REJECTED, "no")
    assert rig.used(GROSS_RESOURCE) == 100


def test_a_dearer_price_of_which_nothing_was_heard_counts_until_the_brokers_book_shows_the_old_one() -> None:
    rig = Rig(limits=[GROSS], marks=False)
    rig.working(buy("a", 5, "20"))
    changed(rig, "a", price=90)
    rig.answer(rig.take_send(Lane.MODIFY), Verdict.UNKNOWN)
    assert rig.used(GROSS_RESOURCE) == 450
    for _ in range(5):
        rig.next_report()
        rig.commit_all()
    assert rig.used(GROSS_RESOURCE) == 100


def test_larger_and_cheaper_counts_at_the_worst_of_both_until_it_is_confirmed() -> None:
    rig = Rig(limits=[GROSS], marks=False)
    rig.working(buy("a", 5, "100"))
    assert "gross_exposure 1100" in refused(rig, "a", 11, 10)
    changed(rig, "a", 10, 10)
    assert rig.used(GROSS_RESOURCE) == 1000
    confirmed(rig)
    assert rig.used(GROSS_RESOURCE) == 100


def test_the_dearer_successor_of_an_order_counts_while_it_is_being_placed() -> None:
    rig = Rig(limits=[GROSS], marks=False, capabilities=NO_MODIFY)
    rig.working(buy("a", 5, "20"))
    assert "gross_exposure 1005" in refused(rig, "a", price=201)
    changed(rig, "a", price=190)
    assert rig.used(GROSS_RESOURCE) == 950
    rig.answer(rig.take_send(Lane.CANCEL))
    rig.end("a", UpdateKind.CANCELLED)
    assert rig.used(GROSS_RESOURCE) == 950
    rig.next_report()
    rig.commit_all()
    assert rig.order("a~2").limit_price == 190
    assert rig.used(GROSS_RESOURCE) == 950


def test_an_execution_is_a_price() -> None:
    rig = Rig(limits=[NOTIONAL], marks=False)
    rig.working(buy("a", 2, "200"))
    rig.fill("a", 1, "150")
    assert rig.core.exposure.marks == {AAA.id: D(150)}
    denies(rig, buy("m", 4, **MARKET), "order_notional of TEST:AAA 600")
    denies(rig, sell("s", 5, "1"), "order_notional of TEST:AAA 750")
    passes(rig, sell("exit", 1, "1"))


def test_an_adjustment_at_no_price_is_none() -> None:
    rig = Rig(marks=False)
    rig.working(buy("a", 2, "200"))
    rig.fill("a", 1, "0")
    assert not rig.core.exposure.marks
    denies(rig, buy("m", 4, **MARKET), "no price of TEST:AAA is known yet")
    passes(rig, sell("exit", 1, **MARKET, reduce_only=True))


def restarted(*orders: PlaceOrder, positions: Any = (), bounds: Any = (NOTIONAL, GROSS)) -> Rig:
    """A session that comes back, to find these orders open at the broker; no market has told a price since."""
    found = []
    for number, wanted in enumerate(orders):
        order = order_from(wanted, f"tag{number}", START)
        order.state = OrderState.SUBMITTED
        found.append(order)
    history = AccountHistory(
        account=ACC, loaded_at=START, orders=found, positions=list(positions), executions=set(), breaks=[]
    )
    return Rig(limits=list(bounds), history=history, marks=False)


def test_a_restart_makes_no_price_of_an_open_order() -> None:
    rig = restarted(buy("a", 2, "1"), sell("b", 3, "10", of=BBB.id, time_in_force=TimeInForce.GTC))
    assert not rig.core.exposure.marks
    assert rig.used(GROSS_RESOURCE) == 2 + 30
    denies(rig, buy("m", 400, **MARKET), "no price of TEST:AAA is known yet")
    denies(rig, sell("s", 400, "1", of=BBB.id), "no price of TEST:BBB is known yet")
    passes(rig, buy("c", 4, "100"))


def test_after_a_restart_what_is_held_has_the_price_it_was_bought_at_and_may_be_sold() -> None:
    rig = restarted(sell("a", 2, "1"), positions=[held(8)])
    assert rig.core.exposure.marks == {AAA.id: D(100)}
    passes(rig, sell("exit", 6, "1"))
    denies(rig, sell("beyond", 6, "1"), "order_notional of TEST:AAA 600")


def test_an_adopted_sell_of_what_nobody_quoted_counts_and_is_not_made_larger_blindly() -> None:
    rig = Rig(limits=[GROSS], marks=False)
    rig.broker.by_hand(AAA.id, Side.SELL, D(5), D(40), rig.now)
    rig.next_report()
    rig.commit_all()
    (adopted,) = rig.book.open
    assert rig.used(GROSS_RESOURCE) == 200
    assert "no price of TEST:AAA is known yet" in refused(rig, adopted, 6)
    changed(rig, adopted, 4)


def test_worst_price_of_what_has_no_price_at_all_is_not_known() -> None:
    assert worst_price(Side.BUY, None, None, None) is None
    assert worst_price(Side.SELL, D(5), None, None) is None
    assert worst_price(Side.BUY, D(5), None, None) == 5
    assert worst_price(Side.SELL, D(5), D(6), D(4)) == 6

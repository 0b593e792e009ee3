"""Changes that move a resting order towards the market: what they are, and that they meet what refuses entries."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.trading.rig import AAA, ACC, SECOND, START, D, Rig, buy, held, limit, sell
from tests.trading.test_session_replace import NO_MODIFY
from tests.trading.test_session_risk import ACCOUNT, ALGO, USER, G, denies, lose, outcome
from tests.trading.test_worth import confirmed
from trading.broker import UpdateKind
from trading.calendars import Sessions
from trading.eagerness import is_more_eager
from trading.errors import Conflict, NotReady, RiskDenied
from trading.ids import Nanos
from trading.instructions import AskBudget, Lane
from trading.journal import AccountHistory, Break, BreakKind
from trading.limits import (
    DAILY_LOSS,
    GROSS_EXPOSURE,
    HALTED,
    MARKET_HOURS,
    PAUSED,
    REDUCE_ONLY,
    RESTRICTED,
    Limit,
)
from trading.orders import ModifyOrder, Order, OrderState, OrderType, PlaceOrder, Side, TimeInForce, order_from

PRICES = ("limit_price", "stop_price", "trail_price", "trail_percent")
STOP: dict[str, Any] = {"price": None, "type": OrderType.STOP}
STOP_LIMIT: dict[str, Any] = {"type": OrderType.STOP_LIMIT}
TRAILING: dict[str, Any] = {"price": None, "type": OrderType.TRAILING_STOP}
PERCENT: dict[str, Any] = {**TRAILING, "trail_percent": D(5)}


def change_of(order: Order, **prices: Decimal | None) -> ModifyOrder:
    return ModifyOrder(account=order.account, client_order_id=order.client_order_id, **prices)


def order_of(wanted: PlaceOrder) -> Order:
    return order_from(wanted, "tag", Nanos(0))


# The rule


@pytest.mark.parametrize(
    ("wanted", "field", "towards", "away"),
    [
        (buy("a", 1, "50"), "limit_price", 51, 49),
        (sell("a", 1, "150"), "limit_price", 149, 151),
        (buy("a", stop_price=D(150), **STOP), "stop_price", 149, 151),
        (sell("a", stop_price=D(50), **STOP), "stop_price", 51, 49),
        (buy("a", 1, "160", stop_price=D(150), **STOP_LIMIT), "stop_price", 149, 151),
        (buy("a", 1, "160", stop_price=D(150), **STOP_LIMIT), "limit_price", 161, 159),
        (sell("a", 1, "40", stop_price=D(50), **STOP_LIMIT), "stop_price", 51, 49),
        (sell("a", 1, "40", stop_price=D(50), **STOP_LIMIT), "limit_price", 39, 41),
        (buy("a", trail_price=D(3), **TRAILING), "trail_price", 2, 4),
        (sell("a", trail_price=D(3), **TRAILING), "trail_price", 2, 4),
        (sell("a", **PERCENT), "trail_percent", 4, 6),
    ],
    ids=lambda value: f"{value.side} {value.type}" if isinstance(value, PlaceOrder) else str(value),
)
def test_towards_the_market_is_more_eager_and_away_from_it_is_not(
    wanted: PlaceOrder, field: str, towards: int, away: int
) -> None:
    order = order_of(wanted)
    assert is_more_eager(change_of(order, **{field: D(towards)}), order)
    assert not is_more_eager(change_of(order, **{field: D(away)}), order)
    assert not is_more_eager(change_of(order, **{field: getattr(order, field)}), order)


def test_one_price_towards_the_market_is_enough_and_quantity_says_nothing() -> None:
    order = order_of(buy("a", 5, "160", stop_price=D(150), **STOP_LIMIT))
    assert is_more_eager(change_of(order, limit_price=D(161), stop_price=D(155)), order)
    assert is_more_eager(change_of(order, quantity=D(1), limit_price=D(161)), order)
    assert not is_more_eager(change_of(order, quantity=D(9)), order)


def test_a_price_that_is_not_known_of_an_adopted_order_counts_as_further_away() -> None:
    order = order_of(sell("a", **PERCENT))
    order.trail_percent = None
    assert is_more_eager(change_of(order, trail_percent=D(90)), order)


amounts = st.decimals(D("0.01"), D(1000), places=2)
sides = st.sampled_from(list(Side))
prices = st.fixed_dictionaries(dict.fromkeys(PRICES, amounts))
some_prices = st.fixed_dictionaries({field: st.none() | amounts for field in PRICES})


def with_prices(side: Side, values: dict[str, Decimal]) -> Order:
    order = order_of(buy("a") if side is Side.BUY else sell("a"))
    for field, value in values.items():
        setattr(order, field, value)
    return order


def applied(order: Order, change: ModifyOrder) -> Order:
    return replace(order, **{f: value for f in PRICES if (value := getattr(change, f)) is not None})


def fills_at(order: Order, price: Decimal) -> bool:
    """Whether a limit order trades where the other side asks, or bids, ``price``."""
    assert order.limit_price is not None
    return (order.limit_price - price) * order.side.sign >= 0


def stops_at(order: Order, price: Decimal) -> bool:
    """Whether the stop is set off by a trade at ``price``."""
    assert order.stop_price is not None
    return (price - order.stop_price) * order.side.sign >= 0


@given(sides, prices, some_prices, amounts)
def test_what_is_not_more_eager_trades_nowhere_where_it_did_not(
    side: Side, before: dict[str, Decimal], after: dict[str, Decimal | None], price: Decimal
) -> None:
    order = with_prices(side, before)
    change = change_of(order, **after)
    if not is_more_eager(change, order):
        then = applied(order, change)
        assert fills_at(order, price) or not fills_at(then, price)
        assert stops_at(order, price) or not stops_at(then, price)
        assert then.trail_price >= order.trail_price  # type: ignore[operator]
        assert then.trail_percent >= order.trail_percent  # type: ignore[operator]


@given(sides, prices, some_prices)
def test_what_is_more_eager_can_be_taken_back_by_what_is_not(
    side: Side, before: dict[str, Decimal], after: dict[str, Decimal | None]
) -> None:
    order = with_prices(side, before)
    change = change_of(order, **after)
    then = applied(order, change)
    one_field = sum(value is not None for value in after.values()) == 1
    if one_field and is_more_eager(change, order):
        assert not is_more_eager(change_of(then, **before), then)
    assert not is_more_eager(change_of(order, **before), order)


# Under what refuses entries.  The market is at 100


RESTING: list[tuple[PlaceOrder, dict[str, Any], dict[str, Any]]] = [
    (buy("a", 5, "50"), {"price": 150}, {"price": 40}),
    (sell("a", 5, "150"), {"price": 50}, {"price": 160}),
    (buy("a", 5, stop_price=D(150), **STOP), {"stop_price": D(101)}, {"stop_price": D(160)}),
    (sell("a", 5, stop_price=D(50), **STOP), {"stop_price": D(99)}, {"stop_price": D(40)}),
    (buy("a", 5, "160", stop_price=D(150), **STOP_LIMIT), {"stop_price": D(101)}, {"price": 155}),
    (sell("a", 5, trail_price=D(30), **TRAILING), {"trail_price": D(1)}, {"trail_price": D(40)}),
    (buy("a", 5, **PERCENT), {"trail_percent": D(1)}, {"trail_percent": D(9)}),
]
RESTING_IDS = [f"{wanted.side} {wanted.type}" for wanted, _, _ in RESTING]
STATES: list[Limit] = [
    limit(HALTED, 1),
    limit(HALTED, 1, ACCOUNT, AAA.id),
    limit(REDUCE_ONLY, 1, USER),
    limit(RESTRICTED, 1, "cluster", AAA.id),
    limit(PAUSED, 1, ALGO),
]


def now_holds(rig: Rig, *bounds: Limit) -> None:
    rig.risk.limits = type(rig.risk.limits)(bounds, 7)
    rig.clock(1)
    rig.grant()


def refused(rig: Rig, words: str, quantity: int | None = None, price: int | None = None, **more: Any) -> None:
    result = outcome(rig, rig.modify("a", quantity, price, **more))
    assert isinstance(result, RiskDenied), result
    assert words in str(result)


def passes(rig: Rig, quantity: int | None = None, price: int | None = None, **more: Any) -> None:
    result = outcome(rig, rig.modify("a", quantity, price, **more))
    assert isinstance(result, Order), result


@pytest.mark.parametrize("bound", STATES, ids=lambda bound: f"{bound.kind} {bound.instrument}")
@pytest.mark.parametrize(("wanted", "towards", "away"), RESTING, ids=RESTING_IDS)
def test_what_refuses_entries_refuses_a_resting_one_a_better_chance_and_lets_it_back_off(
    bound: Limit, wanted: PlaceOrder, towards: dict[str, Any], away: dict[str, Any]
) -> None:
    rig = Rig()
    rig.working(replace(wanted, algo=G))
    now_holds(rig, bound)
    denies(rig, buy("new", 5, algo=G), bound.kind)
    refused(rig, f"{bound.kind}{' of TEST:AAA' if bound.instrument else ''} is set on {bound.scope}", **towards)
    refused(rig, bound.kind, quantity=1, **towards)
    passes(rig, **away)
    passes(rig, quantity=4)


@pytest.mark.parametrize(("wanted", "towards", "away"), RESTING, ids=RESTING_IDS)
def test_without_them_prices_move_freely_and_nobody_is_asked(
    wanted: PlaceOrder, towards: dict[str, Any], away: dict[str, Any]
) -> None:
    rig = Rig(limits=[limit(GROSS_EXPOSURE, 100_000), limit(REDUCE_ONLY, 1, "user:other")])
    rig.working(wanted)
    rig.todo.clear()
    for prices in (towards, away, towards):
        token = rig.modify("a", **prices)
        assert not rig.waiting(AskBudget), "a change of price asks central risk"
        rig.commit_all()
        rig.one(token)


def test_a_kill_that_central_risk_has_not_told_of_yet_holds_too() -> None:
    rig = Rig()
    rig.working(buy("a", 5, "50"))
    rig.core.halt(ACCOUNT, Nanos(rig.now))
    refused(rig, f"halted is set on {ACCOUNT}: trading is halted", price=150)
    passes(rig, price=40)


def test_a_loss_that_has_reached_its_limit_stops_it() -> None:
    rig = Rig(limits=[limit(DAILY_LOSS, 50, USER)])
    rig.working(buy("a", 5, "50"))
    rig.filled(buy("held", 10))
    lose(rig, 100)
    lose(rig, 90)
    denies(rig, buy("new", 1), DAILY_LOSS)
    refused(rig, "daily_loss 100 has reached the limit 50", price=150)
    passes(rig, price=40)


def test_an_order_that_is_not_of_the_paused_algo_is_none_of_its_business() -> None:
    rig = Rig()
    rig.working(buy("a", 5, "50"))
    now_holds(rig, limit(PAUSED, 1, ALGO))
    passes(rig, price=150)


def test_while_its_break_is_open_an_instrument_is_entered_by_no_change_of_price_either() -> None:
    rig = Rig()
    rig.working(buy("a", 5, "50"))
    rig.book.breaks["b"] = Break(
        id="b", account=ACC, instrument=AAA.id, kind=BreakKind.POSITION, ours="0", theirs="3", opened_at=rig.now
    )
    refused(rig, "TEST:AAA is reduce-only while its reconciliation break is open", price=150)
    passes(rig, price=40)


def test_the_hours_hold_for_it_as_for_a_new_order() -> None:
    rig = Rig(limits=[limit(MARKET_HOURS, 1)])
    rig.working(buy("a", 5, "50"))
    rig.working(buy("open", 5, "50", time_in_force=TimeInForce.AT_OPEN))
    rig.core.instruments[AAA.id] = replace(AAA, calendar="XNYS")
    assert isinstance(outcome(rig, rig.modify("a", price=150)), NotReady)
    hour = 3600 * SECOND
    rig.core.calendars["XNYS"] = Sessions(
        "XNYS", [rig.now - 2 * hour, rig.now + hour], [rig.now - hour, rig.now + 2 * hour]
    )
    refused(rig, "market_hours is set on cluster: the venue is closed now", price=150)
    refused(rig, "market_hours", quantity=6)
    passes(rig, price=40)
    assert isinstance(outcome(rig, rig.modify("open", price=150)), Order), "it waits for the auction anyway"


@pytest.mark.parametrize("bound", STATES, ids=lambda bound: f"{bound.kind} {bound.instrument}")
def test_an_exit_goes_to_the_market_whatever_is_broken(bound: Limit) -> None:
    rig = Rig(positions=[held(5)])
    rig.working(sell("a", 5, "150", algo=G))
    now_holds(rig, bound)
    passes(rig, price=50)


def test_beside_another_exit_of_all_that_is_held_it_is_none() -> None:
    rig = Rig(positions=[held(5)])
    rig.working(sell("a", 5, "130"))
    rig.working(sell("profit", 5, "120"))
    now_holds(rig, limit(HALTED, 1))
    refused(rig, HALTED, price=99)
    passes(rig, price=140)
    rig.cancel("profit")
    rig.end("profit", UpdateKind.CANCELLED)
    confirmed(rig)
    passes(rig, price=99)


@pytest.mark.parametrize("bound", STATES, ids=lambda bound: f"{bound.kind} {bound.instrument}")
@pytest.mark.parametrize(
    ("stop", "nearer"),
    [
        (sell("a", 5, stop_price=D(80), **STOP), {"stop_price": D(99)}),
        (sell("a", 5, "70", stop_price=D(80), **STOP_LIMIT), {"stop_price": D(99), "price": 75}),
        (sell("a", 5, trail_price=D(30), **TRAILING), {"trail_price": D(2)}),
    ],
    ids=lambda value: value.type if isinstance(value, PlaceOrder) else "",
)
def test_what_protects_a_position_is_drawn_nearer_beside_what_takes_its_profit(
    bound: Limit, stop: PlaceOrder, nearer: dict[str, Any]
) -> None:
    rig = Rig(positions=[held(5)])
    rig.working(replace(stop, algo=G))
    rig.working(sell("profit", 5, "120", algo=G))
    now_holds(rig, bound)
    passes(rig, **nearer)


def test_a_stop_that_is_moved_to_another_limit_or_is_of_more_than_is_held_protects_nothing() -> None:
    rig = Rig(positions=[held(5)])
    rig.working(sell("a", 5, "70", stop_price=D(80), **STOP_LIMIT))
    rig.working(sell("profit", 5, "120"))
    now_holds(rig, limit(HALTED, 1))
    refused(rig, HALTED, stop_price=D(99), price=60)
    refused(rig, HALTED, quantity=6, stop_price=D(99))
    rig.clock(1)
    two = Rig(positions=[held(5)])
    two.working(sell("a", 5, stop_price=D(80), **STOP))
    two.working(sell("other", 1, stop_price=D(70), **STOP))
    now_holds(two, limit(HALTED, 1))
    refused(two, HALTED, stop_price=D(99))
    short = Rig(positions=[held(-5)])
    short.working(sell("a", 5, stop_price=D(80), **STOP))
    now_holds(short, limit(HALTED, 1))
    refused(short, HALTED, stop_price=D(99))


def test_before_central_risk_is_known_it_waits_like_a_larger_one() -> None:
    order = order_of(buy("a", 5, "50"))
    order.state = OrderState.SUBMITTED
    history = AccountHistory(account=ACC, loaded_at=START, orders=[order], positions=[], executions=set(), breaks=[])
    rig = Rig(limits=None, history=history)
    assert isinstance(rig.error(rig.modify("a", price=60)), NotReady)
    assert isinstance(rig.error(rig.modify("a", 6)), NotReady)
    token = rig.modify("a", price=40)
    rig.commit_all()
    rig.one(token)


def test_when_central_risk_was_not_heard_of_for_long_it_waits_for_word() -> None:
    rig = Rig()
    rig.working(buy("a", 5, "50"))
    rig.after(10)
    token = rig.modify("a", price=150)
    rig.commit_all()
    rig.risk.limits = type(rig.risk.limits)([limit(HALTED, 1)], 7)
    rig.grant()
    assert isinstance(rig.error(token), RiskDenied)


def test_who_backs_off_does_not_wait_for_a_change_that_waits_for_word() -> None:
    rig = Rig()
    rig.working(buy("a", 5, "50"))
    rig.after(10)
    first = rig.modify("a", price=150)
    assert isinstance(rig.error(rig.modify("a", price=160)), NotReady)
    second = rig.modify("a", price=40)
    assert isinstance(rig.error(first), Conflict)
    rig.commit_all()
    assert rig.one(second).state is OrderState.SUBMITTED
    (ticket,) = rig.take_send(Lane.MODIFY).tickets
    assert ticket.limit_price == 40  # type: ignore[union-attr]
    rig.grant()
    rig.commit_all()
    assert not [s for s in rig.todo if getattr(s, "lane", None) is Lane.MODIFY], "what was overtaken was sent later"


def test_an_order_that_its_broker_cannot_change_is_not_even_taken_back() -> None:
    rig = Rig(capabilities=NO_MODIFY)
    rig.working(buy("a", 5, "50"))
    now_holds(rig, limit(HALTED, 1))
    refused(rig, HALTED, price=150)
    assert not rig.order("a").cancelling


def test_a_halt_meanwhile_stops_the_successor_of_an_order_that_is_placed_anew() -> None:
    rig = Rig(capabilities=NO_MODIFY)
    rig.working(buy("a", 5, "50"))
    passes(rig, price=150)
    rig.commit_all()
    rig.answer(rig.take_send(Lane.CANCEL))
    rig.end("a", UpdateKind.CANCELLED)
    rig.core.halt(ACCOUNT, Nanos(rig.now))
    rig.next_report()
    rig.commit_all()
    assert rig.order("a~2").state is OrderState.DENIED

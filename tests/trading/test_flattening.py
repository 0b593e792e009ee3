"""Flattening: what is closed is closed by whoever holds it, so that nobody closes it once more."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.trading.making import instrument
from trading import flattening
from trading.account_book import AccountBook, Replacement
from trading.errors import Conflict
from trading.flattening import Flattening, is_to_be_tried_again, orders_of, refused_of, to_take_back
from trading.ids import AccountId, AlgoId, ClientOrderId, InstrumentId, Nanos, client_order_id
from trading.orders import ModifyOrder, Order, OrderState, OrderType, PlaceOrder, Side, order_from
from trading.positions import Position

ACCOUNT, BTC = AccountId("a"), InstrumentId("X:BTC")
WISH = Flattening(id="flat-1", account=ACCOUNT, by="asha", cause="api/asha/1")


def book(whole: int, **own: int) -> AccountBook:
    made = AccountBook(ACCOUNT)
    made.positions[BTC] = Position(account=ACCOUNT, instrument=BTC, quantity=Decimal(whole))
    for algo, quantity in own.items():
        made.algo_positions[AlgoId(algo), BTC] = Position(account=ACCOUNT, instrument=BTC, quantity=Decimal(quantity))
    return made


def closing_orders(wish: Flattening, made: AccountBook) -> list[PlaceOrder]:
    orders, left = flattening.closing_orders(wish, made, Nanos(1), {}, {})
    assert left == []
    return orders


def closed(orders: list[PlaceOrder]) -> dict[str | None, Decimal]:
    return {order.algo: order.quantity for order in orders}


def test_each_algo_closes_what_it_holds_and_a_person_the_rest() -> None:
    orders = closing_orders(WISH, book(12, cross=4, maker=5))
    assert closed(orders) == {"cross": 4, "maker": 5, None: 3}
    assert {(order.side, order.type, order.reduce_only) for order in orders} == {(Side.SELL, OrderType.MARKET, True)}
    assert len({order.client_order_id for order in orders}) == 3
    assert all(order.cause == "api/asha/1" for order in orders)


def test_algos_against_each_other_keep_what_evens_out() -> None:
    assert closed(closing_orders(WISH, book(6, cross=10, maker=-4))) == {"cross": 6}


def test_a_short_is_bought_back_by_its_algo() -> None:
    (order,) = closing_orders(WISH, book(-3, maker=-3))
    assert (order.side, order.algo, order.quantity) == (Side.BUY, "maker", 3)


def closing(made: AccountBook, wish: Flattening = WISH) -> None:
    """Send the closing orders of a wish; they stay open."""
    for intent in closing_orders(wish, made):
        order = order_from(intent, "tag", Nanos(1))
        made.orders[order.client_order_id] = made.open[order.client_order_id] = order


def test_a_wish_that_comes_again_sends_nothing_again_and_takes_nothing_back() -> None:
    made = book(12, cross=4)
    closing(made)
    assert closing_orders(WISH, made) == []
    assert to_take_back(WISH, made) == []
    assert {(order.algo, order.quantity) for order in orders_of(WISH, made)} == {("cross", 4), (None, 8)}


def test_what_a_kill_or_somebody_else_closes_is_left_to_them() -> None:
    made = book(12)
    closing(made, replace(WISH, id="kill-1a2b3c4d"))
    with pytest.raises(Conflict, match="kill-1a2b3c4d is closing what a holds"):
        to_take_back(WISH, made)


def test_everything_else_that_is_open_is_taken_back() -> None:
    made = book(3)
    made.add(entry("o-1"))
    (cancel,) = to_take_back(WISH, made)
    assert (cancel.client_order_id, cancel.cause) == ("o-1", "api/asha/1")


def entry(key: str, instrument: InstrumentId = BTC, **more: Any) -> Order:
    return order_from(
        PlaceOrder(
            account=ACCOUNT, client_order_id=ClientOrderId(key), instrument=instrument, side=Side.BUY,
            type=OrderType.MARKET, quantity=Decimal(1), **more,
        ), key, Nanos(1),
    )  # fmt: skip


def test_nothing_is_closed_of_what_may_still_fill_and_all_else_is() -> None:
    made = book(3)
    eth = InstrumentId("X:ETH")
    made.positions[eth] = Position(account=ACCOUNT, instrument=eth, quantity=Decimal(2))
    made.add(entry("o-1", eth))
    orders, left = flattening.closing_orders(WISH, made, Nanos(1), {}, {})
    assert [order.instrument for order in orders] == [BTC]
    assert [(each.code, "X:ETH" in str(each)) for each in left] == [("orders_are_open", True)]


def test_less_than_a_lot_is_left_and_told() -> None:
    made = book(3)
    made.positions[BTC].quantity = Decimal("0.4")
    orders, left = flattening.closing_orders(WISH, made, Nanos(1), {BTC: instrument("1", "1")}, {})
    assert orders == []
    assert [each.code for each in left] == ["less_than_a_lot"]


def test_what_is_being_replaced_or_waits_for_budget_is_taken_back_too() -> None:
    made = book(3)
    for key in ("o-1", "o-2"):
        made.add(entry(key))
        made.open[ClientOrderId(key)].cancelling = True
    made.replacing[ClientOrderId("o-2")] = Replacement(
        change=ModifyOrder(account=ACCOUNT, client_order_id=ClientOrderId("o-2")), since=Nanos(1)
    )
    cancels = to_take_back(WISH, made, [ClientOrderId("o-3")])
    assert [cancel.client_order_id for cancel in cancels] == ["o-2", "o-3"]


def test_what_was_refused_is_tried_again_until_another_order_makes_up_for_it() -> None:
    made = book(12, cross=4)
    first = flattening.closing_orders(WISH, made, Nanos(10**9), {}, {})[0]
    for number, intent in enumerate(first):
        order = order_from(intent, str(number), Nanos(10**9))
        order.state = OrderState.REJECTED if number else OrderState.FILLED
        order.filled_quantity = Decimal(0) if number else order.quantity
        made.orders[order.client_order_id] = order
    made.positions[BTC].quantity = Decimal(8)
    made.algo_positions[AlgoId("cross"), BTC].quantity = Decimal(0)
    (refused,) = refused_of(orders_of(WISH, made))
    assert (refused.algo, is_to_be_tried_again(WISH, made)) == (None, True)
    (again,) = flattening.closing_orders(WISH, made, Nanos(3 * 10**9), {}, {})[0]
    assert again.quantity == 8
    made.add(order_from(again, "again", Nanos(3 * 10**9)))
    assert refused_of(orders_of(WISH, made)) == []
    assert not is_to_be_tried_again(WISH, made)


@given(whole=st.integers(-50, 50), own=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(-30, 30), max_size=8))
def test_exactly_what_the_account_holds_is_closed_and_no_algo_beyond_its_own(whole: int, own: dict[str, int]) -> None:
    orders = closing_orders(WISH, book(whole, **own))
    assert sum((order.quantity for order in orders), Decimal(0)) == abs(whole)
    for order in orders:
        assert order.quantity > 0
        assert (order.side is Side.SELL) == (whole > 0)
        if order.algo is not None:
            assert order.quantity <= abs(own[order.algo])
            assert own[order.algo] * whole > 0
    assert len({order.client_order_id for order in orders}) == len(orders)
    assert all(client_order_id(order.client_order_id) for order in orders)

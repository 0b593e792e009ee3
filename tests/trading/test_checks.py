from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from tests.trading.making import instrument
from tests.trading.rig import ACC, Rig, buy
from trading.broker import Capabilities
from trading.checks import check_intent, check_modify, check_offered, same_content
from trading.errors import BadInput
from trading.ids import ClientOrderId
from trading.instructions import Append
from trading.orders import ModifyOrder, OrderType, PlaceOrder, TimeInForce, order_from

D = Decimal
PLAIN = Capabilities(
    order_types=frozenset({OrderType.MARKET, OrderType.LIMIT}),
    times_in_force=frozenset({TimeInForce.DAY, TimeInForce.GTC}),
    native_modify=True,
    deduplicates=True,
    late_arrival_s=1.0,
)


def trailing(**fields: Any) -> PlaceOrder:
    trail = {"trail_price": D(2)} | fields
    return replace(buy("t", 5, price=None), type=OrderType.TRAILING_STOP, **trail)


def change(**fields: Any) -> ModifyOrder:
    return ModifyOrder(account=ACC, client_order_id=ClientOrderId("t"), **fields)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (trailing(trail_percent=D(1)), "trail_percent"),
        (trailing(trail_price=None), "trail_price"),
        (trailing(trail_price=D("0.5")), "trail_price"),
        (trailing(trail_price=D(-1)), "trail_price"),
        (trailing(trail_price=None, trail_percent=D(0)), "trail_percent"),
        (trailing(trail_price=None, trail_percent=D(100)), "trail_percent"),
        (trailing(trail_price=None, trail_percent=D("NaN")), "trail_percent"),
        (trailing(limit_price=D(5)), "limit_price"),
        (trailing(stop_price=D(5)), "stop_price"),
        (trailing(time_in_force=TimeInForce.IOC), "time_in_force"),
        (trailing(time_in_force=TimeInForce.AT_CLOSE), "time_in_force"),
        (replace(buy("t", 5), trail_price=D(2)), "trail_price"),
        (replace(buy("t", 5), trail_percent=D(2)), "trail_percent"),
    ],
)
def test_contradictory_trail_is_refused_by_field(bad: PlaceOrder, field: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_intent(bad, instrument(), D(100))
    assert refused.value.field == field


def test_trailing_stop_with_one_distance_is_taken() -> None:
    check_intent(trailing(), instrument(), D(100))
    check_intent(trailing(trail_price=None, trail_percent=D("1.5")), instrument(), D(100))


def test_change_of_a_trail_must_be_of_the_kind_that_the_order_has() -> None:
    order = order_from(trailing(), "tag", Rig().now)
    check_modify(change(trail_price=D(3)), order, instrument())
    for wrong, field in (
        (change(trail_percent=D(3)), "trail_percent"),
        (change(trail_price=D(3), trail_percent=D(3)), "trail_percent"),
        (change(trail_price=D(0)), "trail_price"),
        (change(limit_price=D(3)), "limit_price"),
        (change(), "quantity"),
    ):
        with pytest.raises(BadInput) as refused:
            check_modify(wrong, order, instrument())
        assert refused.value.field == field


def test_the_same_key_with_another_trail_is_other_content() -> None:
    order = order_from(trailing(), "tag", Rig().now)
    assert same_content(trailing(), order, modified=False)
    assert not same_content(trailing(trail_price=D(3)), order, modified=False)
    assert same_content(trailing(trail_price=D(3)), order, modified=True)


def test_what_the_broker_lacks_is_named_with_what_it_has() -> None:
    with pytest.raises(BadInput, match="limit, market") as refused:
        check_offered(trailing(), PLAIN)
    assert refused.value.field == "type"
    with pytest.raises(BadInput, match="day, gtc") as refused:
        check_offered(replace(buy("t", 5), time_in_force=TimeInForce.FOK), PLAIN)
    assert refused.value.field == "time_in_force"


def test_an_order_that_the_broker_lacks_is_refused_before_it_is_journaled() -> None:
    rig = Rig()
    rig.book.capabilities = PLAIN
    error = rig.error(rig.place(trailing()))
    assert isinstance(error, BadInput)
    assert error.field == "type"
    assert not rig.waiting(Append)
    rig.place(buy("a", 5))
    assert rig.waiting(Append)

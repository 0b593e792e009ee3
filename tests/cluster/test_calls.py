"""What travels between actors arrives as what it was."""

from __future__ import annotations

import pickle
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from ray import cloudpickle

from cluster.calls import pack
from trading.broker import Answer, CancelTicket, OrderTicket, Verdict
from trading.errors import NotReady
from trading.ids import AccountId, BrokerOrderId, ClientOrderId, InstrumentId, Nanos
from trading.orders import CancelOrder, OrderType, PlaceOrder, Side, TimeInForce

INTENT = PlaceOrder(
    account=AccountId("a"),
    client_order_id=ClientOrderId("k-1"),
    instrument=InstrumentId("X:Y"),
    side=Side.SELL,
    type=OrderType.STOP_LIMIT,
    quantity=Decimal("0.000000001000"),
    limit_price=Decimal("12345678901234567890.10"),
    stop_price=Decimal("1E+3"),
    time_in_force=TimeInForce.DAY,
    created_at=Nanos(2**63 - 1),
)
TICKET = OrderTicket(
    tag="t",
    instrument=InstrumentId("X:Y"),
    side=Side.BUY,
    type=OrderType.MARKET,
    quantity=Decimal(1),
    limit_price=None,
    stop_price=None,
    time_in_force=TimeInForce.DAY,
    created_at=Nanos(1),
)


def travelled(thing: Any) -> Any:
    return pickle.loads(cloudpickle.dumps(pack(thing)))


@pytest.mark.parametrize(
    "thing",
    [
        [INTENT],
        (INTENT, INTENT),
        [TICKET, TICKET],
        (CancelTicket(tag="t", broker_order_id=BrokerOrderId("b"), instrument=InstrumentId("X:Y")),),
        [CancelOrder(account=AccountId("a"), client_order_id=ClientOrderId("k"))],
        [Answer(tag="t", verdict=Verdict.REJECTED, reason="no \u20b9")],
        [Answer(tag="t", verdict=Verdict.REJECTED, reason="half a pair: \ud800")],
        [msgspec.structs.replace(INTENT, quantity=Fraction(1, 3))],
        [msgspec.structs.replace(INTENT, created_at=Nanos(2**70))],
        [INTENT, TICKET],
        [],
        (),
        "text",
        7,
        None,
        ["a", "b"],
    ],
    ids=lambda thing: repr(thing)[:40],
)
def test_it_arrives_as_what_it_was(thing: Any) -> None:
    arrived = travelled(thing)
    assert arrived == thing
    assert type(arrived) is type(thing)
    if isinstance(thing, list | tuple):
        assert [repr(each) for each in arrived] == [repr(each) for each in thing]


def test_errors_among_the_results_arrive_too() -> None:
    answered, refused = travelled((INTENT, NotReady("later", 2.0)))
    assert answered == INTENT
    assert isinstance(refused, NotReady)


def test_many_structs_travel_in_one_piece() -> None:
    assert b"rebuild" not in cloudpickle.dumps(pack([INTENT] * 10))

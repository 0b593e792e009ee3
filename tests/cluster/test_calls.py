"""What travels between actors arrives as what it was, and goes to nobody who is known to be dead."""

from __future__ import annotations

import pickle
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from ray import cloudpickle, exceptions
from ray.core.generated.gcs_pb2 import ActorTableData

from cluster.calls import Peer, pack
from trading.broker import Answer, CancelTicket, OrderTicket, Verdict
from trading.errors import NotReady, Unreachable
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


class Actor:
    """An actor and the handle of it that a process has, which knows of its death only once it ``is_told``."""

    def __init__(self, *, alive: bool = True, is_told: bool = True) -> None:
        self.alive, self.is_told = alive, is_told
        self.calls = 0

    def _get_local_state(self) -> int | None:
        return ActorTableData.ActorState.DEAD if not self.alive and self.is_told else None

    @property
    def flatten(self) -> Any:
        return self

    async def remote(self) -> str:
        self.calls += 1
        if not self.alive:
            raise exceptions.ActorDiedError
        return "done"


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> list[Actor]:
    """Who has the name: the last one."""
    owners = [Actor()]
    monkeypatch.setattr("cluster.calls.ray.get_actor", lambda *_, **__: owners[-1])
    return owners


async def test_who_has_taken_the_place_of_a_dead_one_is_called(named: list[Actor]) -> None:
    peer = Peer("session/alice")
    assert await peer.call("flatten") == "done"
    named[0].alive = False
    named.append(Actor())
    assert await peer.call("flatten") == "done"
    # Nothing was sent to the dead one, so nothing was done twice.
    assert [each.calls for each in named] == [1, 1]


async def test_what_was_under_way_when_it_died_is_not_known_and_is_not_sent_again(named: list[Actor]) -> None:
    peer = Peer("session/alice")
    await peer.call("flatten")
    named[0].alive = named[0].is_told = False
    named.append(Actor())
    with pytest.raises(Unreachable, match="it died"):
        await peer.call("flatten")
    assert [each.calls for each in named] == [2, 0]
    assert await peer.call("flatten") == "done"


async def test_where_the_name_is_still_the_dead_ones_nothing_was_done(named: list[Actor]) -> None:
    peer = Peer("session/alice")
    await peer.call("flatten")
    named[0].alive = False
    with pytest.raises(NotReady, match="has died"):
        await peer.call("flatten")
    assert named[0].calls == 1
    named.append(Actor())
    assert await peer.call("flatten") == "done"

"""Intents leave in order, in groups of one kind, and not when their market is gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.trading.rig import ACC, buy
from trading.ids import ClientOrderId, Nanos
from trading.intent_queue import GROUP, MOST_WAITING, STALE_NS, Intent, IntentQueue
from trading.orders import CancelOrder, ModifyOrder, PlaceOrder

NOW = Nanos(10 * STALE_NS)


def place(key: str, at: int = NOW) -> PlaceOrder:
    return buy(key, created_at=Nanos(at))


def cancel(key: str) -> CancelOrder:
    return CancelOrder(account=ACC, client_order_id=ClientOrderId(key))


def test_what_waited_too_long_is_taken_out_and_cancels_stay() -> None:
    queue = IntentQueue()
    for intent in (place("old", NOW - STALE_NS - 1), cancel("x"), place("fresh")):
        queue.add(intent)
    assert [i.client_order_id for i in queue.take_late(NOW)] == ["old"]
    assert [i.client_order_id for i in queue.take_group()] == ["x"]
    assert [i.client_order_id for i in queue.take_group()] == ["fresh"]
    assert len(queue) == 0


def test_of_a_flood_the_oldest_are_refused() -> None:
    queue = IntentQueue()
    for n in range(MOST_WAITING + 7):
        queue.add(place(f"k{n}"))
    assert [i.client_order_id for i in queue.take_late(NOW)] == [f"k{n}" for n in range(7)]
    assert len(queue) == MOST_WAITING


def test_a_change_goes_alone() -> None:
    queue = IntentQueue()
    for key in ("a", "b"):
        queue.add(ModifyOrder(account=ACC, client_order_id=ClientOrderId(key)))
    assert [len(queue.take_group()), len(queue.take_group())] == [1, 1]


@given(st.lists(st.sampled_from("pcm"), max_size=200))
def test_every_intent_leaves_once_and_in_order(kinds: list[str]) -> None:
    queue = IntentQueue()
    wanted = []
    for n, kind in enumerate(kinds):
        key = f"k{n}"
        intent: Intent = (
            place(key)
            if kind == "p"
            else cancel(key)
            if kind == "c"
            else ModifyOrder(account=ACC, client_order_id=ClientOrderId(key))
        )
        queue.add(intent)
        wanted.append(intent)
    left: list[Intent] = []
    while queue:
        group = queue.take_group()
        assert 0 < len(group) <= GROUP
        assert len({type(intent) for intent in group}) == 1
        left += group
    assert left == wanted

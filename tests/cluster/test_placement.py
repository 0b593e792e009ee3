from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cluster.backoff import FIRST_NS, LOOP_COUNT, LOOP_WINDOW_NS, MOST_NS, Attempts
from cluster.placement import Room, choose_node
from trading.ids import Nanos, NodeName

rooms = st.lists(
    st.builds(Room, name=st.sampled_from("abcdef").map(NodeName), algos=st.integers(0, 5)),
    unique_by=lambda room: room.name,
)


@given(rooms)
def test_node_with_the_fewest_algos_is_taken_and_ties_go_by_name(rooms: list[Room]) -> None:
    node, why = choose_node(NodeName(""), rooms, {})
    if not rooms:
        assert (node, why) == (None, "no node takes new algos now")
    else:
        assert (node, why) == (sorted(rooms, key=lambda r: (r.algos, r.name))[0].name, "")


@given(rooms, st.sampled_from("abcdef").map(NodeName), st.booleans())
def test_named_node_is_taken_or_waited_for(rooms: list[Room], wanted: NodeName, cordoned: bool) -> None:
    node, why = choose_node(wanted, rooms, {wanted: cordoned})
    here = any(room.name == wanted for room in rooms)
    assert node == (wanted if here else None)
    assert bool(why) == (not here)


def test_each_end_waits_twice_as_long_up_to_a_limit() -> None:
    attempts, at = Attempts(), Nanos(0)
    waits = []
    for _ in range(10):
        attempts = attempts.ended(at)
        waits.append(attempts.next_at - at)
        at = Nanos(at + 1)
    assert waits[:3] == [FIRST_NS, 2 * FIRST_NS, 4 * FIRST_NS]
    assert waits[-1] == MOST_NS
    assert all(a <= b for a, b in pairwise(waits))


def test_ends_in_a_short_time_are_a_loop_and_old_ones_are_forgotten() -> None:
    attempts = Attempts()
    for n in range(LOOP_COUNT):
        assert not attempts.is_loop()
        attempts = attempts.ended(Nanos(n))
    assert attempts.is_loop()
    assert not attempts.ended(Nanos(LOOP_WINDOW_NS + LOOP_COUNT)).is_loop()
    assert Attempts().next_at == 0

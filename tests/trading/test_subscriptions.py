from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.errors import BadInput, UnknownThing
from trading.ids import InstrumentId
from trading.subscriptions import Capacity, Change, Subscriptions

A, B, C, D, E = (InstrumentId(f"T:{letter}") for letter in "ABCDE")
CAPACITY = Capacity(provider="p", instruments_per_worker=2, max_workers=2, channels=("trade", "quote", "depth"))


def test_instrument_is_wanted_while_any_client_wants_it() -> None:
    wishes = Subscriptions(CAPACITY)
    assert wishes.subscribe("a", [A, B], ["trade"], 1) == Change(added=(A, B))
    assert wishes.subscribe("b", [A], ["trade"], 1) == Change()
    assert wishes.unsubscribe("a") == Change(removed=(B,))
    assert wishes.wanted() == {A: ("trade",)}
    assert wishes.unsubscribe("b", [A]) == Change(removed=(A,))
    assert repr(wishes) == "<Subscriptions 0 instruments 0 clients>"


def test_widest_wish_wins_and_goes_with_its_client() -> None:
    wishes = Subscriptions(CAPACITY)
    wishes.subscribe("a", [A], ["trade"], 1)
    assert wishes.subscribe("b", [A], ["depth", "trade"], 1) == Change(retuned=(A,))
    assert wishes.channels(A) == ("trade", "depth")
    assert wishes.clients(A) == {"a": ("trade",), "b": ("trade", "depth")}
    assert wishes.subscribe("b", [A], ["quote"], 1) == Change(retuned=(A,))
    assert wishes.channels(A) == ("trade", "quote")
    assert wishes.unsubscribe("b") == Change(retuned=(A,))
    assert wishes.channels(A) == ("trade",)


@pytest.mark.parametrize(
    ("workers", "more", "says"),
    [
        (1, [B, C], "2 new instruments do not fit: 1 workers have room for 1 more; 2 workers would carry all"),
        (2, [B, C, D, E], "4 new instruments do not fit: 2 workers have room for 3 more, the 2 that p allows for 3"),
    ],
)
def test_over_capacity_is_refused_with_what_would_fit(workers: int, more: list[InstrumentId], says: str) -> None:
    wishes = Subscriptions(CAPACITY)
    wishes.subscribe("a", [A], ["trade"], workers)
    with pytest.raises(BadInput, match=says):
        wishes.subscribe("b", [A, *more], ["trade"], workers)
    assert wishes.wanted() == {A: ("trade",)}
    assert wishes.wish("b") == {}


def test_spare_room_is_shown() -> None:
    wishes = Subscriptions(CAPACITY)
    wishes.subscribe("a", [A], ["trade"], 1)
    spare = wishes.spare(1)
    assert (spare.wanted, spare.now, spare.at_most) == (1, 1, 3)


def test_unknown_channels_and_subscriptions_are_refused() -> None:
    wishes = Subscriptions(CAPACITY)
    with pytest.raises(BadInput, match="no channel 'video': use trade, quote, depth"):
        wishes.subscribe("a", [A], ["video"], 1)
    with pytest.raises(BadInput, match="no channel is asked for"):
        wishes.subscribe("a", [A], [], 1)
    with pytest.raises(UnknownThing):
        wishes.unsubscribe("a", [A])


@pytest.mark.parametrize(("workers", "instruments", "says"), [(0, 0, "1 to 2"), (3, 0, "1 to 2"), (1, 3, "at least 2")])
def test_worker_count_is_checked(workers: int, instruments: int, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        CAPACITY.check_workers(workers, instruments)
    CAPACITY.check_workers(2, 3)


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.dictionaries(st.sampled_from([A, B, C, D]), st.sets(st.sampled_from(CAPACITY.channels), min_size=1)),
    )
)
def test_wishes_come_back_from_their_rows(rows: dict[str, dict[InstrumentId, set[str]]]) -> None:
    wishes = Subscriptions(CAPACITY)
    for client, own in rows.items():
        for instrument, channels in own.items():
            wishes.subscribe(client, [instrument], channels, 2)
    again = Subscriptions(CAPACITY, {client: wishes.wish(client) for client in rows})
    again.validate()
    assert again.wanted() == wishes.wanted()
    assert [again.clients(i) for i in (A, B, C, D)] == [wishes.clients(i) for i in (A, B, C, D)]

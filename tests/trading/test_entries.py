from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tests.storage.samples import order
from trading.entries import entries
from trading.ids import InstrumentId
from trading.orders import Order, Side

A, B = InstrumentId("T:A"), InstrumentId("T:B")


def resting(key: str, side: Side, quantity: int, instrument: InstrumentId = A, **changes: object) -> Order:
    at = int(key.rpartition("-")[2])
    return order(key, at=at, side=side, quantity=Decimal(quantity), instrument=instrument, **changes)


def keys(orders: list[Order], **positions: int) -> list[str]:
    held = {InstrumentId(f"T:{name}"): Decimal(quantity) for name, quantity in positions.items()}
    return [each.client_order_id for each in entries(orders, held)]


def test_what_could_enlarge_is_an_entry_and_what_the_position_takes_is_none() -> None:
    orders = [resting("k-1", Side.BUY, 2), resting("k-2", Side.SELL, 3), resting("k-3", Side.SELL, 3)]
    assert keys(orders) == ["k-1", "k-2", "k-3"], "flat: everything opens"
    assert keys(orders, A=3) == ["k-1", "k-3"], "the older sell closes all that is held"
    assert keys(orders, A=6) == ["k-1"]
    assert keys(orders, A=-2) == ["k-2", "k-3"]
    assert keys([resting("k-1", Side.SELL, 1, B)], A=5) == ["k-1"]


def test_a_reduce_only_order_is_no_entry_and_counts_first() -> None:
    orders = [resting("k-1", Side.SELL, 2), resting("k-2", Side.SELL, 2, reduce_only=True)]
    assert keys(orders, A=2) == ["k-1"]
    assert keys(orders, A=4) == []


def test_only_what_is_still_open_of_an_order_counts() -> None:
    assert keys([resting("k-1", Side.SELL, 5, filled_quantity=Decimal(3))], A=2) == []


@given(
    st.lists(st.tuples(st.sampled_from(list(Side)), st.integers(1, 9), st.booleans()), max_size=8),
    st.integers(-9, 9),
)
def test_without_entries_nothing_that_fills_makes_the_position_larger(
    given: list[tuple[Side, int, bool]], held: int
) -> None:
    orders = [resting(f"k-{n}", side, size, reduce_only=only) for n, (side, size, only) in enumerate(given, 1)]
    found = entries(orders, {A: Decimal(held)})
    # A broker fills a reduce-only order only as far as it reduces.
    exits = [each for each in orders if each not in found and not each.reduce_only]
    sold = sum((each.open_quantity for each in exits if each.side is Side.SELL), Decimal(0))
    bought = sum((each.open_quantity for each in exits if each.side is Side.BUY), Decimal(0))
    assert sold <= max(held, 0)
    assert bought <= max(-held, 0)

"""Money at risk, against counting unit by unit."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading.money_at_risk import Working, money_at_risk
from trading.orders import OrderType, Side

D = Decimal
BUY, SELL = Side.BUY, Side.SELL


def stop(side: Side, quantity: int, at: int, kind: OrderType = OrderType.STOP) -> Working:
    return (side, D(quantity), kind, D(at), None, None)


def trail(side: Side, quantity: int, distance: int | None = None, percent: int | None = None) -> Working:
    return (
        side,
        D(quantity),
        OrderType.TRAILING_STOP,
        None,
        None if distance is None else D(distance),
        None if percent is None else D(percent),
    )


def entry(side: Side, quantity: int) -> Working:
    return (side, D(quantity), OrderType.LIMIT, None, None, None)


@pytest.mark.parametrize(
    ("held", "orders", "risk"),
    [
        (10, [], 1000),
        (-10, [], 1000),
        (10, [stop(SELL, 10, 95)], 50),
        (10, [stop(SELL, 10, 95, OrderType.STOP_LIMIT)], 50),
        (10, [stop(SELL, 4, 95)], 20 + 600),
        (10, [stop(SELL, 6, 90), stop(SELL, 4, 98)], 8 + 60),
        # 2 of them would open a short.
        (10, [stop(SELL, 6, 90), stop(SELL, 6, 98)], 200),
        (-10, [stop(BUY, 10, 103)], 30),
        (10, [trail(SELL, 10, distance=7)], 70),
        (10, [trail(SELL, 10, percent=2)], 20),
        (10, [stop(SELL, 10, 101)], 0),
        (0, [entry(BUY, 5)], 500),
        (0, [entry(BUY, 5), stop(SELL, 5, 90)], 50),
        (0, [entry(BUY, 5), entry(SELL, 3)], 500),
        (10, [entry(SELL, 10)], 1000),
        (10, [entry(SELL, 14)], 1000),
        (10, [stop(SELL, 25, 99)], 1500),
        (0, [stop(BUY, 3, 105)], 300),
        (0, [], 0),
    ],
)
def test_examples(held: int, orders: list[Working], risk: int) -> None:
    assert money_at_risk(D(held), D(100), D(1), orders) == risk
    assert money_at_risk(D(held), D(100), D(50), orders) == 50 * risk


sides = st.sampled_from(Side)
some = st.lists(
    st.one_of(
        st.builds(entry, sides, st.integers(1, 20)),
        st.builds(stop, sides, st.integers(1, 20), st.integers(80, 120)),
        st.builds(trail, sides, st.integers(1, 20), st.integers(1, 20)),
    ),
    max_size=6,
)


@given(st.integers(-20, 20), some)
def test_units_counted_one_by_one_give_the_same(held: int, orders: list[Working]) -> None:
    def loss(units: int, protects: Side) -> Decimal:
        distances = []
        for side, quantity, kind, at, by, _ in orders:
            if side is protects and kind is not OrderType.LIMIT:
                away = by if by is not None else (D(100) - (at or 0) if side is SELL else (at or 0) - D(100))
                distances += [max(away, D(0))] * int(quantity)
        protected = sorted(distances)[:units]
        return sum(protected, D(0)) + 100 * (units - len(protected))

    def of(side: Side, *, stops: bool) -> int:
        return sum(int(q) for s, q, kind, *_ in orders if s is side and (kind is not OrderType.LIMIT) == stops)

    long = max(held, 0) + max(of(BUY, stops=False) - max(-held, 0), 0)
    short = max(-held, 0) + max(of(SELL, stops=False) - max(held, 0), 0)
    opens_short = max(of(SELL, stops=True) - long, 0)
    opens_long = max(of(BUY, stops=True) - short, 0)
    expected = max(loss(long, SELL) + 100 * opens_long, loss(short, BUY) + 100 * opens_short)
    assert money_at_risk(D(held), D(100), D(1), orders) == expected


@given(st.integers(1, 20), some, st.integers(1, 20), st.integers(80, 99))
def test_a_stop_within_what_is_held_never_raises_it(held: int, orders: list[Working], more: int, at: int) -> None:
    stops = sum(int(q) for s, q, kind, *_ in orders if s is SELL and kind is not OrderType.LIMIT)
    if stops + more <= held:
        before = money_at_risk(D(held), D(100), D(1), orders)
        assert money_at_risk(D(held), D(100), D(1), [*orders, stop(SELL, more, at)]) <= before

"""Histograms, last values and portfolio sums."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.trading.rig import AAA, ACC, BBB, START, Rig, buy, held
from trading.histogram import Histogram
from trading.ids import Nanos, UserId
from trading.last_values import LastValues
from trading.portfolio import portfolio
from trading.ticks import BACKFILLED, BUYER_MAKER, QUOTE, SNAPSHOT, TICK, TRADE, TickArray, TickBuffer, decode

D = Decimal
durations = st.lists(st.integers(1, 10**12), min_size=1, max_size=50)


@given(durations, st.floats(0, 1))
def test_quantile_is_never_too_low_and_at_most_a_tenth_too_high(values: list[int], q: float) -> None:
    histogram = Histogram()
    histogram.add(np.array(values))
    true = sorted(values)[max(1, int(np.ceil(q * len(values) - 1e-9))) - 1] / 1e6
    found = histogram.quantile(q)
    assert found is not None
    assert true - 1e-6 <= found <= true * 2 ** (1 / 8) + 1e-6


@given(durations, durations)
def test_histograms_add_up_over_the_wire(left: list[int], right: list[int]) -> None:
    one, two, both = Histogram(), Histogram(), Histogram()
    one.add(np.array(left))
    two.add(np.array(right))
    both.add(np.array(left + right))
    one.merge({int(k): v for k, v in two.counts().items()})
    assert one.counts() == both.counts() == Histogram(both.counts()).counts()
    assert one.total == len(left) + len(right)


def test_histogram_of_nothing_has_no_quantile_and_odd_values_have_a_bucket() -> None:
    histogram = Histogram()
    assert histogram.quantile(0.5) is None
    histogram.add(np.array([-5, 0, 10**18]))
    histogram.add(1)
    assert histogram.total == 4


def ticks(*rows: tuple[int, str, float, int]) -> TickArray:
    """(instrument, trade|quote|maker|backfilled, price, sequence)"""
    buffer = TickBuffer()
    for number, kind, price, sequence in rows:
        if kind == "quote":
            buffer.quote(number, price, 1.0, price + 1, 2.0, 0, sequence, sequence, sequence)
        else:
            flags = {"trade": 0, "maker": BUYER_MAKER, "backfilled": BACKFILLED}[kind]
            buffer.trade(number, price, 3.0, flags, sequence, sequence, sequence)
    return decode(buffer.take())


def test_trade_and_quote_of_one_batch_are_both_kept() -> None:
    last = LastValues()
    last.take(ticks((7, "trade", 10.0, 1), (7, "quote", 9.0, 2)))
    (row,) = last.all()
    assert row["flags"] & (TRADE | QUOTE) == TRADE | QUOTE
    assert (row["price"], row["bid"], row["ask"], row["sequence"]) == (10.0, 9.0, 10.0, 2)


def test_later_ticks_win_also_within_a_batch() -> None:
    last = LastValues()
    last.take(ticks((7, "trade", 10.0, 1), (8, "trade", 5.0, 1), (7, "trade", 11.0, 2)))
    assert {int(r["instrument"]): float(r["price"]) for r in last.all()} == {7: 11.0, 8: 5.0}
    assert (last.count(7), last.seen_at(7), last.count(9), last.seen_at(9)) == (2, 2, 0, None)


def test_how_a_tick_came_is_forgotten_with_the_next() -> None:
    last = LastValues()
    last.take(ticks((7, "backfilled", 10.0, 1)))
    assert last.all()["flags"][0] & BACKFILLED
    last.take(ticks((7, "maker", 10.0, 2)))
    assert last.all()["flags"][0] & BACKFILLED == 0


def test_only_what_changed_is_given_out_and_only_once() -> None:
    last = LastValues()
    assert len(last.changed()) == 0
    last.take(ticks((7, "trade", 10.0, 1), (8, "quote", 5.0, 1)))
    assert set(last.changed()["instrument"]) == {7, 8}
    last.take(ticks((8, "quote", 6.0, 2)))
    assert list(last.changed()["instrument"]) == [8]
    assert len(last.changed()) == 0


def test_forgotten_instrument_starts_afresh() -> None:
    last = LastValues()
    last.take(ticks((7, "trade", 10.0, 1)))
    last.forget(7)
    assert len(last.all()) == len(last.changed()) == 0
    last.take(ticks((7, "quote", 9.0, 2)))
    (row,) = last.all()
    assert np.isnan(row["price"])
    assert row["flags"] == QUOTE
    last.forget(99)


@given(st.lists(st.tuples(st.integers(1, 40), st.floats(1, 100)), max_size=80))
def test_any_number_of_instruments_has_its_own_row(rows: list[tuple[int, float]]) -> None:
    last = LastValues()
    for n, (number, price) in enumerate(rows):
        last.take(ticks((number, "trade", price, n + 1)))
    assert {int(r["instrument"]): float(r["price"]) for r in last.all()} == dict(rows)


def test_portfolio_sums_profit_and_exposure() -> None:
    rig = Rig(positions=[held(5)])
    rig.filled(buy("a", 5))
    rig.filled(buy("b", 2, of=BBB.id))
    rig.working(buy("c", 1))
    rig.do(rig.core.set_marks({AAA.id: D(103)}, rig.now, {AAA.id: Nanos(rig.now - 7)}))
    view = portfolio(UserId("u"), rig.core.accounts.values(), rig.core.exposure, Nanos(9), rig.core.instruments)
    (account,) = view.accounts
    assert (account.account, account.connected, account.reconciled) == (ACC, True, True)
    assert (account.realised, account.unrealised, account.profit) == (0, 30, 30)
    assert account.gross_exposure == 11 * 103 + 2 * 100
    assert (account.open_orders, account.open_breaks, account.cash) == (1, 0, 1000)
    assert {p.instrument: (p.quantity, p.exposure, p.mark) for p in view.positions} == {
        AAA.id: (10, 1030, 103),
        BBB.id: (2, 200, 100),
    }
    assert {p.instrument: p.mark_at for p in view.positions} == {AAA.id: rig.now - 7, BBB.id: START}


def test_a_portfolio_tells_the_currencies_of_what_was_held_and_of_what_is_open() -> None:
    rig = Rig()
    rupees = {**rig.core.instruments, BBB.id: replace(BBB, currency="INR")}

    def told() -> tuple[tuple[str, ...], dict[str, str]]:
        view = portfolio(UserId("u"), rig.core.accounts.values(), rig.core.exposure, Nanos(9), rupees)
        return view.accounts[0].currencies, {each.instrument: each.currency for each in view.positions}

    assert told() == ((), {})
    rig.filled(buy("a", 5))
    assert told() == ((AAA.currency,), {AAA.id: AAA.currency})
    rig.working(buy("b", 2, of=BBB.id))
    assert told() == (("INR", AAA.currency), {AAA.id: AAA.currency})


def test_position_without_a_mark_counts_no_profit() -> None:
    rig = Rig(positions=[held(5)], marks=False)
    rig.core.exposure.marks.clear()
    (position,) = portfolio(
        UserId("u"), rig.core.accounts.values(), rig.core.exposure, Nanos(9), rig.core.instruments
    ).positions
    assert (position.mark, position.unrealised, position.exposure) == (None, 0, 0)


@pytest.mark.parametrize("price", ["90", "110"])
def test_profit_is_realised_plus_unrealised_less_fees(price: str) -> None:
    rig = Rig()
    rig.filled(buy("a", 4))
    rig.book.positions[AAA.id].fees = D(3)
    rig.do(rig.core.set_marks({AAA.id: D(price)}, rig.now))
    (account,) = portfolio(
        UserId("u"), rig.core.accounts.values(), rig.core.exposure, Nanos(9), rig.core.instruments
    ).accounts
    assert account.profit == (D(price) - 100) * 4 - 3


@given(
    ticks=st.lists(
        st.tuples(
            st.integers(1, 40),
            st.sampled_from([TRADE, QUOTE, TRADE | QUOTE, TRADE | SNAPSHOT, QUOTE | BACKFILLED, 0]),
            st.integers(1, 1000),
        ),
        max_size=80,
    ),
    size=st.integers(1, 24),
)
def test_last_values_do_not_depend_on_how_ticks_are_batched(ticks: list[tuple[int, int, int]], size: int) -> None:
    array = np.zeros(len(ticks), dtype=TICK)
    for row, (number, flags, value) in enumerate(ticks):
        trade = (float(value), 2.0 * value) if flags & TRADE else (np.nan, np.nan)
        quote = (value - 1.0, 3.0, value + 1.0, 4.0) if flags & QUOTE else (np.nan,) * 4
        array[row] = (number, flags, *trade, *quote, row, row + 1, row + 2)
    single, cut, whole = LastValues(), LastValues(), LastValues()
    for start in range(len(array)):
        single.take(array[start : start + 1])
    for start in range(0, len(array), size):
        cut.take(array[start : start + size])
    # Long enough never to go tick by tick.
    padding = np.zeros(20, dtype=TICK)
    padding["instrument"] = 99
    whole.take(np.concatenate([padding, array]))
    whole.forget(99)
    rows = np.sort(whole.all(), order="instrument").tobytes()  # NaN is unlike itself: as bytes
    assert np.sort(whole.changed(), order="instrument").tobytes() == rows
    for other in (single, cut):
        assert np.sort(other.all(), order="instrument").tobytes() == rows
        assert np.sort(other.changed(), order="instrument").tobytes() == rows
        assert [other.count(n) for n in range(1, 41)] == [whole.count(n) for n in range(1, 41)]

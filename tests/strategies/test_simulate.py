from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import Strategy, StrategyParameters, Tick
from strategies.results import EquityPoint, drawdown
from strategies.simulate import SimulatedAccount, simulate, ticks_of_bars
from tests.strategies.making import SECOND, START, A, B, instrument, market, prints, quotes
from trading.bars import Bar, BarBuilder
from trading.errors import BadInput
from trading.ids import InstrumentId, Nanos
from trading.instruments import Instrument
from trading.orders import Fill, Order, OrderState, OrderType, Side

D = Decimal


class Script(Strategy[StrategyParameters]):
    """Does what ``plan`` says at each tick, counted from 0."""

    plan: ClassVar[dict[int, Any]] = {}

    def set_up(self) -> None:
        self.count = -1

    def on_tick(self, tick: Tick) -> None:
        self.count += 1
        if self.count in self.plan:
            self.plan[self.count](self)


def script(**plan: Any) -> type[Script]:
    return type("Planned", (Script,), {"plan": {int(k[1:]): act for k, act in plan.items()}})


ROUND_TRIP = script(_0=lambda s: s.buy(A, 2), _2=lambda s: s.sell(A, 2))
RISING = quotes((99.0, 101.0), (100.0, 102.0), (109.0, 111.0), (109.0, 111.0))


def test_round_trip_pays_the_spread_and_the_fees() -> None:
    result = simulate(ROUND_TRIP, {}, RISING, [A], SimulatedAccount(cash=D(1000), fee_bps=D(10)))
    assert [(f.quantity, f.price) for _, f in result.fills] == [(2, 101), (2, 109)]
    fees = D("0.202") + D("0.218")
    assert result.summary.profit == 16 - fees
    assert result.summary.fees == fees
    assert result.cash == 1016 - fees
    (trip,) = result.trips
    assert (trip.side, trip.profit, trip.opened_at, trip.closed_at) == (
        Side.BUY,
        16 - fees,
        START,
        START + 2 * SECOND,
    )
    assert (result.summary.wins, result.summary.win_ratio, result.summary.profit_factor) == (1, 1.0, None)
    assert result.positions[0].quantity == 0


def test_latency_makes_an_order_meet_the_later_quote() -> None:
    late = simulate(ROUND_TRIP, {}, RISING, [A], SimulatedAccount(latency_ms=1500))
    assert [f.price for _, f in late.fills] == [102, 109]
    assert late.fills[0][1].at == START + 3 * SECOND // 2


def test_slippage_and_maker_fee_are_the_accounts() -> None:
    rests = script(_0=lambda s: s.buy(A, 1, limit=100), _3=lambda s: s.sell(A, 1))
    data = quotes((99.0, 101.0), (98.0, 100.0), (98.0, 99.0), (98.0, 99.0))
    result = simulate(rests, {}, data, [A], SimulatedAccount(fee_bps=D(100), maker_fee_bps=D(0), slippage_ticks=3))
    assert [(f.price, f.fee) for _, f in result.fills] == [(100, 0), (D("97.97"), D("0.9797"))]


def test_partial_fills_follow_the_size_of_the_quote() -> None:
    eager = script(_0=lambda s: s.buy(A, 5))
    data = quotes((99.0, 101.0), (99.0, 102.0), (99.0, 103.0), size=2.0)
    result = simulate(eager, {}, data, [A])
    assert [(f.quantity, f.price) for _, f in result.fills] == [(2, 101), (2, 102), (1, 103)]
    assert result.orders[0].state is OrderState.FILLED


def test_a_trailing_stop_follows_the_market_and_sells_at_its_turn() -> None:
    trails = script(_0=lambda s: s.buy(A, 1), _1=lambda s: s.sell(A, 1, trail=3))
    data = quotes((100.0, 100.01), (101.0, 101.01), (106.0, 106.01), (104.0, 104.01), (102.9, 102.91), (50.0, 50.01))
    result = simulate(trails, {}, data, [A])
    assert [(f.price, o.type) for o, (_, f) in zip(result.orders, result.fills, strict=True)] == [
        (D("100.01"), OrderType.MARKET),
        (D("102.9"), OrderType.TRAILING_STOP),
    ]


def test_without_quotes_the_last_print_is_the_market() -> None:
    result = simulate(ROUND_TRIP, {}, prints(10.0, 11.0, 12.0), [A])
    assert [f.price for _, f in result.fills] == [10, 12]


def test_open_orders_are_taken_back_at_the_end() -> None:
    result = simulate(script(_0=lambda s: s.buy(A, 1, limit=1)), {}, RISING, [A])
    assert result.orders[0].state is OrderState.CANCELLED


def test_day_order_ends_at_midnight() -> None:
    day = 86_400 * SECOND
    data = prints(10.0, 10.0, 10.0, every=day, start=START)
    result = simulate(script(_0=lambda s: s.buy(A, 1, limit=1, time_in_force="day")), {}, data, [A])
    assert result.orders[0].state is OrderState.EXPIRED


def test_reduce_only_order_that_would_open_is_rejected_and_told() -> None:
    class Reduces(Script):
        plan = {0: lambda s: s.buy(A, 1, reduce_only=True)}  # noqa: RUF012

        def on_order(self, order: Order) -> None:
            self.log(f"{order.state} {order.reason}")

    result = simulate(Reduces, {}, RISING, [A])
    assert result.orders[0].state is OrderState.REJECTED
    assert "reduce-only" in result.log[0][2]


def test_cancel_from_within_a_fill_ends_the_order_for_good() -> None:
    class Greedy(Script):
        plan = {0: lambda s: s.buy(A, 5)}  # noqa: RUF012

        def on_fill(self, order: Order, fill: Fill) -> None:
            self.cancel(order.client_order_id)

        def on_stop(self) -> None:
            self.log(f"open: {len(self.open_orders())}")

    result = simulate(Greedy, {}, quotes((99.0, 101.0), (99.0, 102.0), size=2.0), [A])
    assert (result.orders[0].state, result.orders[0].filled_quantity) == (OrderState.CANCELLED, 2)
    assert result.log[-1][2] == "open: 0"


def test_strategy_that_raises_ends_the_run_with_its_traceback() -> None:
    result = simulate(script(_0=lambda s: s.buy(A, 1), _1=lambda s: 1 / 0), {}, RISING, [A])
    assert "ZeroDivisionError" in result.failed
    assert len(result.fills) == 1


def test_strategy_that_answers_every_answer_is_stopped() -> None:
    class Endless(Script):
        plan = {0: lambda s: s.sell(A, 1, reduce_only=True)}  # noqa: RUF012

        def on_order(self, order: Order) -> None:
            if order.state is OrderState.REJECTED:
                self.sell(A, 1, reduce_only=True)

    with pytest.raises(BadInput, match="asks without end"):
        simulate(Endless, {}, RISING, [A])


@pytest.mark.parametrize(
    ("account", "field"),
    [
        (SimulatedAccount(latency_ms=-1), "latency_ms"),
        (SimulatedAccount(slippage_ticks=-1), "slippage_ticks"),
        (SimulatedAccount(fill_ratio=D(0)), "fill_ratio"),
        (SimulatedAccount(sample="often"), "sample"),
    ],
)
def test_bad_account_is_refused(account: SimulatedAccount, field: str) -> None:
    with pytest.raises(BadInput) as refused:
        simulate(ROUND_TRIP, {}, RISING, [A], account)
    assert refused.value.field == field


def test_data_that_goes_back_in_time_and_mixed_currencies_are_refused() -> None:
    with pytest.raises(BadInput, match="back in time"):
        simulate(ROUND_TRIP, {}, RISING[::-1], [A])
    euro = msgspec.structs.replace(B, currency="EUR")
    with pytest.raises(BadInput, match="EUR, USD"):
        simulate(ROUND_TRIP, {}, RISING, [A, euro])


def test_no_data_gives_an_empty_result() -> None:
    result = simulate(ROUND_TRIP, {}, RISING[:0], [A])
    assert (result.fills, result.summary.profit, result.summary.trips) == ([], 0, 0)


def test_bars_are_played_so_that_they_come_back_the_same() -> None:
    bars = [
        Bar(
            opened_at=Nanos(START + i * 60 * SECOND - START % (60 * SECOND)),
            open=o,
            high=h,
            low=low,
            close=c,
            volume=8.0,
        )
        for i, (o, h, low, c) in enumerate([(10, 12, 9, 11), (11, 15, 10, 10), (10, 10, 10, 10)])
    ]
    builder = BarBuilder(60 * SECOND)
    ticks = ticks_of_bars({A.id: bars}, [A], "1m")
    got = [bar for _, bar in builder.add(ticks) + builder.close_until(Nanos(2 * START))]
    assert [(b.opened_at, b.open, b.high, b.low, b.close, b.volume) for b in got] == [
        (b.opened_at, b.open, b.high, b.low, b.close, b.volume) for b in bars
    ]
    with pytest.raises(BadInput, match="not among the instruments"):
        ticks_of_bars({InstrumentId("TEST:X"): bars}, [A], "1m")


class Random(Strategy[StrategyParameters]):
    """Trades anything at any time, by a seed of its own."""

    seed = 0

    def set_up(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def on_tick(self, tick: Tick) -> None:
        draw = self.random.integers(0, 12)
        side = self.buy if self.random.integers(0, 2) else self.sell
        price = tick.instrument.round_price(100 + float(self.random.normal(0, 0.2)))
        size = int(self.random.integers(1, 40))
        if draw == 0:
            side(tick.instrument, size)
        elif draw == 1:
            side(tick.instrument, size, limit=price)
        elif draw == 2:
            side(tick.instrument, size, stop=price)
        elif draw == 3:
            self.cancel_all(tick.instrument)
        elif draw == 4:
            self.close(tick.instrument)
        elif draw == 5:
            for order in self.open_orders(tick.instrument)[:1]:
                if order.limit_price is not None:
                    self.modify(order.client_order_id, limit=price)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 250.0]))
def test_money_is_conserved_and_the_same_input_gives_the_same_result(seed: int, latency: float) -> None:
    chaos = type("Random", (Random,), {"seed": seed})
    data = market(20, numbers=(1, 2), seed=seed)
    account = SimulatedAccount(fee_bps=D(3), maker_fee_bps=D(-1), slippage_ticks=1, latency_ms=latency)
    result = simulate(chaos, {}, data, [A, B], account)
    assert result.failed == ""
    by_key = {o.client_order_id: o for o in result.orders}
    cash = account.cash
    held = {A.id: D(0), B.id: D(0)}
    for key, fill in result.fills:
        order = by_key[key]
        cash -= order.side.sign * fill.quantity * fill.price + fill.fee
        held[order.instrument] += order.side.sign * fill.quantity
        if order.limit_price is not None and order.state is OrderState.FILLED:
            assert order.filled_quantity == order.quantity
    assert cash == result.cash
    for position in result.positions:
        assert position.quantity == held[position.instrument]
    for order in result.orders:
        assert order.filled_quantity == sum(f.quantity for k, f in result.fills if k == order.client_order_id)
        assert order.state.is_final, "what stood at the end was taken back"
    assert msgspec.json.encode(simulate(chaos, {}, data, [A, B], account)) == msgspec.json.encode(result)


def test_drawdown_is_the_largest_fall_from_a_peak() -> None:
    curve = [EquityPoint(at=Nanos(i), equity=D(v)) for i, v in enumerate([100, 120, 90, 130, 110])]
    assert drawdown(curve) == (30, 0.25)


def test_instruments_trade_apart() -> None:
    both: list[Instrument] = [A, instrument(2, "BBB")]
    result = simulate(script(_0=lambda s: s.buy(B, 1)), {}, market(2, numbers=(1, 2)), both)
    assert {o.instrument for o in result.orders} == {B.id}

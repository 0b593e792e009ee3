from __future__ import annotations

import csv
import itertools
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.builtin.bollinger_reversion import BollingerReversion
from strategies.builtin.ma_cross import MovingAverageCross
from strategies.builtin.market_maker import MarketMaker
from strategies.runner import LogLine, Runner
from strategies.simulate import SimulatedAccount, simulate
from tests.strategies.making import (
    SECOND,
    START,
    A,
    B,
    event,
    fill,
    instrument,
    journaled,
    market,
    prints,
    quotes,
    runner,
)
from trading.bars import Bar
from trading.ids import Nanos
from trading.orders import CancelOrder, EventKind, ModifyOrder, Order, PlaceOrder, Side, apply

D = Decimal
K = EventKind
BARS = Path(__file__).parents[2].parent / "shared" / "data" / "market" / "misc"
QUICK: list[tuple[Any, dict[str, Any]]] = [
    (MovingAverageCross, {"interval": "1s", "fast": 2, "slow": 5}),
    (BollingerReversion, {"interval": "1s", "period": 8, "width": 1.2}),
    (MarketMaker, {"half_spread_bps": 1, "reprice_ticks": 1, "requote_after": 0.2}),
]


@pytest.mark.parametrize(("strategy", "parameters"), QUICK)
def test_trades_within_a_minute_of_a_lively_market(strategy: Any, parameters: dict[str, Any]) -> None:
    for seed in range(3):
        result = simulate(
            strategy,
            parameters,
            market(60, numbers=(1, 2), seed=seed),
            [A, B],
            SimulatedAccount(latency_ms=3),
        )
        assert result.failed == ""
        assert {o.instrument for o in result.orders} == {A.id, B.id}
        assert len(result.fills) >= 2


@pytest.mark.parametrize(("strategy", "parameters"), QUICK)
@pytest.mark.parametrize("latency", [0.0, 3.0, 1500.0])
def test_never_more_than_one_order_a_side_nor_a_position_beyond_its_cap(
    strategy: Any, parameters: dict[str, Any], latency: float
) -> None:
    result = simulate(strategy, parameters, market(60, numbers=(1, 2)), [A, B], SimulatedAccount(latency_ms=latency))
    spans: list[tuple[str, str, int, int]] = [(o.instrument, o.side, o.created_at, o.updated_at) for o in result.orders]
    for i, (instrument_id, side, created, _) in enumerate(spans):
        for other, other_side, _, ended in spans[:i]:
            if (other, other_side) == (instrument_id, side):
                assert ended <= created, "two orders of one side at a time"
    cap = D(5000) if strategy is MarketMaker else D(1000)
    by_key = {o.client_order_id: o for o in result.orders}
    held = {A.id: D(0), B.id: D(0)}
    for key, deal in result.fills:
        order = by_key[key]
        held[order.instrument] += order.side.sign * deal.quantity
        # Sized at the price of the decision; the market has moved a little since.
        assert abs(held[order.instrument]) * deal.price <= cap * D("1.05")


@pytest.mark.parametrize(("strategy", "parameters"), QUICK)
def test_run_cut_in_two_by_a_restart_asks_for_the_same(strategy: Any, parameters: dict[str, Any]) -> None:
    ticks = market(40, numbers=(1, 2))

    def run(cut: int | None) -> list[Any]:
        r = runner(strategy, parameters, A, B)
        asked = list(r.start(Nanos(START)))
        for i in range(0, len(ticks), 7):
            now = Nanos(int(ticks["received_at"][i]))
            if cut is not None and i // 7 == cut:
                raw = r.snapshot()
                r = runner(strategy, parameters, A, B)
                r.restore(raw)
                assert r.snapshot() == raw
                assert r.start(now) == []
            outputs = r.ticks(ticks[i : i + 7], now)
            while outputs:
                asked += outputs
                outputs = [more for o in outputs for more in answer(r, o, now)]
        assert r.failed is None, r.failed.traceback_text
        return asked

    orders: dict[str, Order] = {}

    def answer(r: Runner, output: Any, now: Nanos) -> list[Any]:
        """A venue that fills every market order and rests every other."""
        if isinstance(output, PlaceOrder):
            order = orders[output.client_order_id] = journaled(output, K.SUBMITTED)
            if output.limit_price is not None:
                return r.order(journaled(output, K.SUBMITTED), now)
            deal = fill(output.client_order_id, str(output.quantity))
            apply(order, event(order, K.FILLED, fill=deal))
            return r.fill(order, deal, now) + r.order(order, now)
        if isinstance(output, ModifyOrder):
            order = orders[output.client_order_id]
            apply(order, event(order, K.MODIFIED, limit_price=output.limit_price))
            return r.order(order, now)
        return []

    whole = run(None)
    assert sum(isinstance(o, PlaceOrder) for o in whole) >= 2
    for cut in (1, 20, 60, 113):
        assert run(cut) == whole


def asked(outputs: list[Any]) -> list[Any]:
    return [o for o in outputs if not isinstance(o, LogLine)]


def cross_runner(**parameters: Any) -> tuple[Runner, PlaceOrder]:
    """A moving-average cross that has just asked for its first order."""
    r = runner(MovingAverageCross, {"interval": "1s", "fast": 1, "slow": 3, **parameters})
    r.start(Nanos(START))
    out = asked(r.ticks(prints(10, 9, 8, 7, 12, 13), Nanos(START + 5 * SECOND)))
    (intent,) = out
    return r, intent


def test_cross_buys_its_notional_when_the_fast_average_comes_from_below() -> None:
    _, intent = cross_runner(notional=600)
    assert (intent.side, intent.quantity) == (Side.BUY, D(50))


def test_cross_waits_for_its_order_then_flips_the_whole_position() -> None:
    r, intent = cross_runner(notional=600)
    down = prints(5, 5, start=START + 6 * SECOND)
    assert asked(r.ticks(down, Nanos(START + 7 * SECOND))) == [], "one order at a time"
    order = journaled(intent, K.SUBMITTED)
    deal = fill("x1", "50")
    apply(order, event(order, K.FILLED, fill=deal))
    out = asked(r.fill(order, deal, r.now) + r.order(order, r.now))
    (flip,) = out
    assert (flip.side, flip.quantity) == (Side.SELL, D(50) + D(120))


def test_cross_without_short_selling_only_closes() -> None:
    r, intent = cross_runner(notional=600, allow_short=False)
    order = journaled(intent, K.SUBMITTED)
    deal = fill("x1", "50")
    apply(order, event(order, K.FILLED, fill=deal))
    r.fill(order, deal, r.now)
    r.order(order, r.now)
    (close,) = asked(r.ticks(prints(5, 5, start=START + 6 * SECOND), Nanos(START + 7 * SECOND)))
    assert (close.side, close.quantity) == (Side.SELL, 50)


def test_refused_order_is_tried_again_later_and_later() -> None:
    r, intent = cross_runner()
    times = []
    for second in range(6, 40):
        now = Nanos(START + second * SECOND)
        if intent is not None:
            r.order(journaled(intent, K.REJECTED), now)
            times.append(second)
        out = asked(r.ticks(prints(12 + second, start=now), now))
        intent = out[0] if out else None  # type: ignore[assignment]
    waits = [b - a for a, b in pairwise(times)]
    assert len(times) < 7
    assert waits == sorted(waits)
    assert waits[-1] >= 8


def test_notional_below_the_smallest_order_is_told_once_and_not_traded() -> None:
    coarse = instrument(1, "AAA", lot="1000")
    r = runner(MovingAverageCross, {"interval": "1s", "fast": 1, "slow": 3, "notional": 1}, coarse)
    r.start(Nanos(START))
    out = r.ticks(prints(10, 9, 8, 7, 12, 13, 5, 5, 20, 20), Nanos(START))
    assert asked(out) == []
    assert sum("smallest order" in o.text for o in out if isinstance(o, LogLine)) == 1


def test_reversion_sells_a_break_above_and_is_flat_again_at_the_middle() -> None:
    r = runner(BollingerReversion, {"interval": "1s", "period": 4, "width": 2, "notional": 1000})
    r.start(Nanos(START))
    (short,) = asked(r.ticks(prints(10, 11, 10, 11, 20, 20), Nanos(START)))
    assert (short.side, short.quantity) == (Side.SELL, 50)
    order = journaled(short, K.SUBMITTED)
    deal = fill("x1", "50")
    apply(order, event(order, K.FILLED, fill=deal))
    r.fill(order, deal, r.now)
    r.order(order, r.now)
    (flat,) = asked(r.ticks(prints(10, 10, start=START + 6 * SECOND), r.now))
    assert (flat.side, flat.quantity) == (Side.BUY, 50)


def maker(**parameters: Any) -> tuple[Runner, list[PlaceOrder]]:
    r = runner(
        MarketMaker,
        {"half_spread_bps": 10, "skew_bps": 10, "notional": 1000, "max_notional": 2000, **parameters},
    )
    r.start(Nanos(START))
    return r, asked(r.ticks(quotes((99.99, 100.01)), Nanos(START)))


def test_maker_quotes_both_sides_around_the_middle() -> None:
    _, (bid, ask) = maker()
    assert (bid.side, bid.limit_price, bid.quantity) == (Side.BUY, D("99.90"), 10)
    assert (ask.side, ask.limit_price, ask.quantity) == (Side.SELL, D("100.10"), 10)


def test_maker_never_quotes_into_the_other_side() -> None:
    _, (bid, ask) = maker(half_spread_bps=0, skew_bps=0)
    assert (bid.limit_price, ask.limit_price) == (D("100.00"), D("100.00"))
    r, _ = maker()
    (bid, ask) = asked(runner_started(half_spread_bps=0, skew_bps=0).ticks(quotes((99.99, 100.00)), Nanos(START)))
    assert bid.limit_price < D("100.00")
    assert ask.limit_price > D("99.99")
    assert r.failed is None


def runner_started(**parameters: Any) -> Runner:
    r = runner(MarketMaker, parameters)
    r.start(Nanos(START))
    return r


def test_maker_moves_a_quote_once_it_is_acknowledged_and_waits_for_the_answer() -> None:
    r, (bid, ask) = maker()
    moved = quotes((100.99, 101.01))
    later = Nanos(START + SECOND)
    assert asked(r.ticks(moved, later)) == [], "not acknowledged yet"
    for intent in (bid, ask):
        r.order(journaled(intent, K.SUBMITTED), later)
    changes = asked(r.ticks(moved, later))
    assert [type(c) for c in changes] == [ModifyOrder, ModifyOrder]
    assert changes[0].limit_price == D("100.90")
    assert asked(r.ticks(quotes((101.99, 102.01)), Nanos(START + 3 * SECOND))) == [], "still unanswered"
    gone = asked(r.ticks(quotes((101.99, 102.01)), Nanos(START + 7 * SECOND)))
    assert [type(c) for c in gone] == [CancelOrder, CancelOrder], "no answer in five seconds"


def test_maker_leans_against_its_position_and_stops_buying_at_the_cap() -> None:
    r, (bid, _) = maker()
    order = journaled(bid, K.SUBMITTED)
    deal = fill("x1", "10")
    apply(order, event(order, K.FILLED, fill=deal))
    r.fill(order, deal, r.now)
    r.order(order, r.now)
    (again,) = asked(r.ticks(quotes((99.99, 100.01)), Nanos(START + SECOND)))
    assert (again.side, again.limit_price) == (Side.BUY, D("99.85")), "half of the cap is held: half of the skew"
    order = journaled(again, K.SUBMITTED)
    deal = fill("x2", "10")
    apply(order, event(order, K.FILLED, fill=deal))
    r.fill(order, deal, r.now)
    r.order(order, r.now)
    assert asked(r.ticks(quotes((99.99, 100.01)), Nanos(START + 5 * SECOND))) == [], "the cap is held"


def test_maker_holds_back_after_a_rejection() -> None:
    r, (bid, ask) = maker()
    r.order(journaled(bid, K.REJECTED), r.now)
    r.order(journaled(ask, K.REJECTED), r.now)
    assert asked(r.ticks(quotes((99.99, 100.01)), Nanos(START + SECOND))) == []
    assert len(asked(r.ticks(quotes((99.99, 100.01)), Nanos(START + 3 * SECOND)))) == 2


@pytest.mark.parametrize("best", [(100.0, 100.0), (101.0, 100.0), (float("nan"), 100.0), (0.0, 1.0)])
def test_maker_does_not_quote_around_a_senseless_market(best: tuple[float, float]) -> None:
    assert asked(runner_started().ticks(quotes(best), Nanos(START))) == []


@pytest.mark.parametrize("strategy", [MovingAverageCross, BollingerReversion])
def test_recorded_bars_are_traded_without_a_slip(strategy: Any) -> None:
    files = sorted(BARS.glob("btc-perp-*_1m.csv"))
    if not files:
        pytest.skip("the recorded one-minute bars of ../shared/data are not here")
    with files[0].open(newline="") as lines:
        rows = list(itertools.islice(csv.DictReader(lines), 1500))
    start = int(np.datetime64(rows[0]["timestamp"].replace(" ", "T"), "ns").astype(np.int64))
    bars = [
        Bar(
            opened_at=Nanos(start + i * 60 * SECOND),
            **{field: float(row[field]) for field in ("open", "high", "low", "close", "volume")},
        )
        for i, row in enumerate(rows)
    ]
    perpetual = instrument(1, "BTC", tick="0.5", lot="0.001")
    result = simulate(strategy, {"interval": "5m"}, {perpetual.id: bars}, [perpetual])
    assert result.failed == ""
    assert len(result.trips) > 5
    assert result.summary.profit == result.equity[-1].equity - result.started_cash

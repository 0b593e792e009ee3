from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any

import numpy as np
import pytest
from msgspec.structs import replace
from pydantic import Field

from strategies import UPDATABLE, Strategy, StrategyParameters, Tick
from strategies.runner import LogLine, Runner, StrategyFailed
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
from trading.errors import BadInput, UnknownThing
from trading.ids import AccountId, AlgoId, ClientOrderId, Nanos
from trading.instruments import Instrument
from trading.orders import (
    CancelOrder,
    EventKind,
    Fill,
    ModifyOrder,
    Order,
    OrderState,
    OrderType,
    PlaceOrder,
    Side,
    apply,
)
from trading.ticks import BACKFILLED, TickArray

K = EventKind
NOW = Nanos(START)


class Told(Strategy[StrategyParameters]):
    """Keeps what it is told."""

    def set_up(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def on_start(self) -> None:
        self.seen.append(("start",))

    def on_tick(self, tick: Tick) -> None:
        self.seen.append(("tick", tick.instrument.id, tick.is_quote))

    def on_bar(self, instrument: Instrument, bar: Bar, interval: str) -> None:
        self.seen.append(("bar", instrument.id, interval, bar.close))

    def on_order(self, order: Order) -> None:
        self.seen.append(("order", order.client_order_id, order.state))

    def on_fill(self, order: Order, fill: Fill) -> None:
        self.seen.append(("fill", fill.execution_id, self.position(order.instrument).quantity))


class BarTold(Told):
    bars = ("1s", "2s")


def started(strategy: Any, *instruments: Instrument) -> tuple[Runner, Any]:
    r = runner(strategy, None, *instruments)
    r.start(NOW)
    assert r.failed is None, r.failed
    return r, r.strategy


def buy(r: Runner, quantity: str = "1", **fields: Any) -> PlaceOrder:
    """Have the strategy buy within a callback of its own."""
    strategy = r.strategy
    strategy.on_tick = lambda tick: strategy.buy(tick.instrument, quantity, **fields)  # type: ignore[method-assign]
    (intent,) = r.ticks(quotes((99, 101)), NOW)
    del strategy.on_tick
    assert isinstance(intent, PlaceOrder), r.failed
    return intent


def test_ticks_of_other_instruments_are_passed_over() -> None:
    r, s = started(Told, A)
    r.ticks(market(1, numbers=(1, 2, 70)), NOW)
    r.ticks(market(1, numbers=(3,)), NOW)
    ticks = [e for e in s.seen if e[0] == "tick"]
    assert len(ticks) == 10
    assert {e[1] for e in ticks} == {A.id}


class Looks(Told):
    """Notes what was last before each thing it is told."""

    def look(self) -> None:
        last = self.last(self.instruments[0])
        self.seen.append(None if last is None else (last.price, last.bid, last.received_at - START))

    def on_start(self) -> None:
        self.look()

    def on_tick(self, tick: Tick) -> None:
        self.look()


def test_the_last_values_are_known_from_the_start_and_never_those_just_being_given() -> None:
    r = runner(Looks, None, A, B)

    def trade(of: Instrument, after: int, price: float) -> TickArray:
        return prints(price, number=of.number, start=START + after)

    r.know(np.concatenate([trade(A, 5, 100.0), trade(B, 9, 7.0), trade(A, 4, 3.0)]))
    r.start(NOW)
    quote = quotes((99.0, 101.0), number=A.number).copy()
    quote["received_at"] += 10
    r.ticks(quote, NOW)
    r.ticks(trade(A, 11, 102.0), NOW)
    r.ticks(trade(B, 12, 8.0), NOW)
    # What others had may be older than what has come since, or not.
    r.know(np.concatenate([trade(A, 6, 1.0), trade(B, 20, 9.0)]))
    s: Any = r.strategy
    expected = [(100.0, math.nan, 5), (100.0, math.nan, 5), (100.0, 99.0, 10), (102.0, 99.0, 11)]
    assert s.seen == [pytest.approx(each, nan_ok=True) for each in expected]
    assert [s.last(each).price for each in (A, B)] == [102.0, 9.0]


def test_trades_filled_in_after_a_gap_are_neither_told_nor_counted_into_bars() -> None:
    r, s = started(BarTold)
    filled = prints(500.0, 600.0).copy()
    filled["flags"] |= BACKFILLED
    r.ticks(filled, NOW)
    r.ticks(np.concatenate([prints(10.0), filled, prints(10.0, 11.0)[1:]]), NOW)
    assert s.seen[1:] == [("bar", A.id, "1s", 10.0), ("tick", A.id, False), ("tick", A.id, False)]


def test_bars_come_before_the_tick_that_closed_them_and_by_the_clock_else() -> None:
    r, s = started(BarTold)
    r.ticks(prints(10.0, 11.0), NOW)
    assert s.seen[1:] == [("bar", A.id, "1s", 10.0), ("tick", A.id, False), ("tick", A.id, False)]
    r.clock(Nanos(START + 2 * SECOND))
    assert len(s.seen) == 4, "late trades still count for a moment"
    r.clock(Nanos(START + 3 * SECOND))
    assert s.seen[4:] == [("bar", A.id, "1s", 11.0), ("bar", A.id, "2s", 11.0)]


def test_intent_is_keyed_by_algo_and_a_number_that_only_rises() -> None:
    r, _ = started(Told)
    first, second = buy(r), buy(r)
    assert (first.client_order_id, second.client_order_id) == ("algo-1-1", "algo-1-2")
    r.next_intent = 40
    assert buy(r).client_order_id == "algo-1-40"
    assert (first.account, first.algo, first.side) == ("acc", "algo-1", Side.BUY)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, OrderType.MARKET),
        ({"limit": 99}, OrderType.LIMIT),
        ({"stop": "101.5"}, OrderType.STOP),
        ({"limit": Decimal("102"), "stop": 101.25}, OrderType.STOP_LIMIT),
        ({"trail": "1.5"}, OrderType.TRAILING_STOP),
        ({"trail_percent": 2}, OrderType.TRAILING_STOP),
    ],
)
def test_limit_stop_and_trail_make_the_type(fields: dict[str, Any], kind: OrderType) -> None:
    r, _ = started(Told)
    intent = buy(r, **fields)
    assert intent.type is kind
    assert intent.limit_price == (None if "limit" not in fields else Decimal(str(fields["limit"])))


@pytest.mark.parametrize(
    ("quantity", "fields", "field", "says"),
    [
        ("0.0005", {}, "quantity", "lot size 0.001"),
        (0, {}, "quantity", "greater than 0"),
        (math.nan, {}, "quantity", "not a finite number"),
        (True, {}, "quantity", "not a number"),
        ("much", {}, "quantity", "not a number"),
        (1, {"limit": 99.005}, "limit", "tick size 0.01"),
        (1, {"stop": -1}, "stop", "greater than 0"),
        (1, {"limit": Decimal("Infinity")}, "limit", "not a number"),
    ],
)
def test_number_off_the_grid_is_refused_not_rounded(
    quantity: Any, fields: dict[str, Any], field: str, says: str
) -> None:
    r, s = started(Told)
    with pytest.raises(BadInput, match=says) as refused:
        s.buy(A, quantity, **fields)
    assert refused.value.field == field
    assert r.clock(NOW) == []
    assert r.next_intent == 1


def test_raising_callback_fails_the_algo_and_sends_none_of_its_intents() -> None:
    class Raises(Told):
        def on_start(self) -> None:
            self.buy(A, 1, limit=90)

        def on_tick(self, tick: Tick) -> None:
            self.log("about to fail")
            self.cancel_all()
            self.buy(A, 2)
            raise ZeroDivisionError("half way")

    r = runner(Raises)
    (first,) = r.start(NOW)
    out = r.ticks(quotes((99, 101)), NOW)
    assert all(isinstance(line, LogLine) for line in out)
    assert r.failed is not None
    assert r.failed.callback == "on_ticks"
    assert "ZeroDivisionError: half way" in r.failed.traceback_text
    assert [o.client_order_id for o in r.open_orders()] == [first.client_order_id]  # type: ignore[union-attr]
    assert not r.open_orders()[0].cancelling
    assert r.ticks(quotes((99, 101)), NOW) == []
    assert r.stop(NOW) == []
    assert r.next_intent == 3, "numbers of unsent intents are not used again"
    assert str(pickle.loads(pickle.dumps(r.failed))) == str(r.failed)


def test_books_are_kept_after_a_failure() -> None:
    r, _ = started(Told)
    order = journaled(buy(r), K.SUBMITTED)
    r.strategy.on_tick = lambda tick: 1 / 0  # type: ignore[method-assign]
    r.ticks(quotes((99, 101)), NOW)
    assert r.failed is not None
    deal = fill("x1", "1")
    apply(order, event(order, K.FILLED, fill=deal))
    r.fill(order, deal, NOW)
    assert r.position(A).quantity == 1
    assert r.open_orders() == []


@pytest.mark.parametrize("callback", ["set_up", "warm_up", "on_start", "on_bar", "on_order", "on_fill", "on_stop"])
def test_every_callback_may_raise_without_raising_in_the_host(callback: str) -> None:
    def fails(self: Any, *args: Any) -> None:
        raise RuntimeError(callback)

    r = runner(type("Raises", (BarTold,), {callback: fails}))
    r.start(NOW)
    r.ticks(prints(10.0, 11.0), NOW)
    if r.failed is None:
        order = journaled(buy(r), K.SUBMITTED)
        r.order(order, NOW)
        deal = fill("x1", "1")
        r.fill(order, deal, NOW)
        r.stop(NOW)
    assert r.failed is not None
    assert f"RuntimeError: {callback}" in r.failed.traceback_text


def test_strategy_that_exits_fails_alone() -> None:
    class Exits(Told):
        def on_start(self) -> None:
            raise SystemExit(1)

    r = runner(Exits)
    r.start(NOW)
    assert r.failed is not None


def test_fill_told_twice_counts_once() -> None:
    r, s = started(Told)
    order = journaled(buy(r, "2"), K.SUBMITTED)
    deal = fill("x1", "1")
    apply(order, event(order, K.FILLED, fill=deal))
    for _ in range(2):
        r.fill(copy.copy(order), deal, NOW)
    assert r.position(A).quantity == 1
    assert [e for e in s.seen if e[0] == "fill"] == [("fill", "x1", 1)]


def test_order_that_speaks_of_a_fill_not_told_yet_waits_for_it() -> None:
    r, s = started(Told)
    order = journaled(buy(r), K.SUBMITTED)
    deal = fill("x1", "1")
    apply(order, event(order, K.FILLED, fill=deal))
    r.order(copy.copy(order), NOW)
    assert [o.client_order_id for o in r.open_orders()] == ["algo-1-1"], "not done while the position lacks it"
    r.fill(copy.copy(order), deal, NOW)
    assert [e[0] for e in s.seen[-2:]] == ["fill", "order"]
    assert r.open_orders() == []


def test_word_of_an_order_that_was_overtaken_by_its_end_does_not_reopen_it() -> None:
    r, _ = started(Told)
    intent = buy(r)
    r.order(journaled(intent, K.SUBMITTED, K.CANCELLED), NOW)
    r.order(journaled(intent, K.SUBMITTED), NOW)
    assert r.open_orders() == []


def test_cancel_is_sent_once_and_again_only_after_it_was_refused() -> None:
    r, s = started(Told)
    intent = buy(r, limit=90)
    key = intent.client_order_id
    assert s.cancel(key)
    assert not s.cancel(key)
    assert r.clock(NOW) == [CancelOrder(account=AccountId("acc"), client_order_id=key)]
    order = journaled(intent, K.SUBMITTED, K.CANCEL_REQUESTED, K.CANCEL_REJECTED)
    r.order(order, NOW)
    assert s.cancel(key)


def test_modify_names_what_changes_and_checks_the_grid() -> None:
    r, s = started(Told)
    key = buy(r, limit=90).client_order_id
    assert s.modify(key, limit="90.5")
    (change,) = r.clock(NOW)
    assert change == ModifyOrder(account=AccountId("acc"), client_order_id=key, limit_price=Decimal("90.5"))
    with pytest.raises(BadInput, match="tick size"):
        s.modify(key, limit=90.001)
    with pytest.raises(BadInput, match="say a quantity"):
        s.modify(key)
    with pytest.raises(BadInput, match="trail_price: a limit order has none"):
        s.modify(key, trail=1)
    assert not s.modify("algo-1-77", limit=90)


def test_a_trail_is_checked_placed_and_moved() -> None:
    r, s = started(Told)
    for wrong, says in (
        ({"trail": 1, "trail_percent": 1}, "not both"),
        ({"trail": 1, "limit": 90}, "neither limit nor stop"),
        ({"trail": "0.001"}, "tick size"),
        ({"trail_percent": 100}, "below 100"),
    ):
        with pytest.raises(BadInput, match=says):
            s.buy(A, 1, **wrong)
    intent = buy(r, trail_percent="2.5")
    assert (intent.trail_price, intent.trail_percent, intent.stop_price) == (None, Decimal("2.5"), None)
    assert s.modify(intent.client_order_id, trail_percent=3)
    (change,) = r.clock(NOW)
    assert isinstance(change, ModifyOrder)
    assert change.trail_percent == 3


def test_close_flattens_what_is_left_after_reduce_only_orders_under_way() -> None:
    r, s = started(Told)
    assert s.close(A) is None
    order = journaled(buy(r, "3"), K.SUBMITTED)
    deal = fill("x1", "3")
    apply(order, event(order, K.FILLED, fill=deal))
    r.fill(order, deal, NOW)
    assert s.close(A) == "algo-1-2"
    assert s.close(A) is None, "that much is on its way"
    (intent,) = r.clock(NOW)
    assert isinstance(intent, PlaceOrder)
    assert (intent.side, intent.quantity, intent.reduce_only) == (Side.SELL, 3, True)


def test_stop_takes_open_orders_back_and_ends_the_callbacks() -> None:
    r, s = started(Told)
    buy(r, limit=90)
    assert [type(o) for o in r.stop(NOW)] == [CancelOrder]
    seen = len(s.seen)
    r.ticks(quotes((99, 101)), NOW)
    assert len(s.seen) == seen


def test_history_has_the_warm_up_and_grows_with_closed_bars() -> None:
    class Warm(BarTold):
        def warm_up(self) -> Mapping[str, int]:
            return {"1s": 2}

        def on_start(self) -> None:
            self.warm = [bar.close for bar in self.history(A, "1s", 5)]

    def bar(at: int, close: float) -> Bar:
        return Bar(opened_at=Nanos(at), open=close, high=close, low=close, close=close, volume=1)

    r = runner(Warm)
    assert r.wanted_history() == {"1s": 2}
    r.start(NOW, {(A.id, "1s"): [bar(START - 2 * SECOND, 7.0), bar(START - SECOND, 8.0)]})
    assert r.strategy.warm == [7.0, 8.0]  # type: ignore[attr-defined]
    r.ticks(prints(10.0, 11.0), NOW)
    assert [b.close for b in r.strategy.history(A, "1s", 2)] == [8.0, 10.0]
    with pytest.raises(BadInput, match="neither in warm_up"):
        r.strategy.history(A, "7m", 1)


def test_unknown_instrument_is_named() -> None:
    _, s = started(Told)
    with pytest.raises(UnknownThing, match="TEST:AAA"):
        s.buy("TEST:NONE", 1)


def test_log_takes_known_levels_only() -> None:
    r, s = started(Told)
    s.log("hello", "warning")
    assert r.clock(NOW) == [LogLine(at=NOW, level="warning", text="hello")]
    with pytest.raises(BadInput, match="debug, info"):
        s.log("x", "loud")


class SaysHello(Told):
    def set_up(self) -> None:
        super().set_up()
        self.log("hello")


def test_a_line_of_set_up_bears_the_time_of_the_start() -> None:
    assert runner(SaysHello, None, A).start(NOW) == [LogLine(at=NOW, level="info", text="hello")]


def test_fields_of_a_line_are_plain_values() -> None:
    r, s = started(Told)
    s.log("x", n=np.int64(3), price=Decimal("1.50"), share=np.float64(0.5), bad=math.nan, none=None, big=2**60, ok=True)
    (line,) = r.clock(NOW)
    assert isinstance(line, LogLine)
    expected = {"n": 3, "price": "1.50", "share": 0.5, "bad": "nan", "none": None, "big": str(2**60), "ok": True}
    assert line.fields == expected
    assert [type(value) for value in line.fields.values()] == [type(value) for value in expected.values()]
    with pytest.raises(BadInput, match="fields"):
        s.log("x", **{f"f{n}": n for n in range(51)})


class TunedParameters(StrategyParameters):
    size: Annotated[int, UPDATABLE] = Field(1, ge=1)


class Tuned(Strategy[TunedParameters]):
    Parameters = TunedParameters

    def on_parameters(self, before: TunedParameters) -> None:
        if self.parameters.size == 13:
            raise ValueError("unlucky")
        self.buy(self.instruments[0], self.parameters.size - before.size)


def test_parameters_change_between_events_and_the_strategy_is_told() -> None:
    r, s = started(Tuned, A)
    (intent,) = r.change_parameters({"size": 5}, NOW)
    assert isinstance(intent, PlaceOrder)
    assert (intent.quantity, s.parameters.size) == (4, 5)
    with pytest.raises(BadInput) as caught:
        r.change_parameters({"size": 0}, NOW)
    assert caught.value.field == "parameters.size"
    assert s.parameters.size == 5
    r.change_parameters({"size": 13}, NOW)
    assert r.failed is not None
    assert r.failed.callback == "on_parameters"


def test_a_mark_for_live_parameters_is_in_the_schema() -> None:
    properties = TunedParameters.model_json_schema()["properties"]
    assert properties["size"]["x-updatable"] is True
    assert properties["size"]["minimum"] == 1


def test_what_closes_its_position_is_not_the_algos_to_take_back_or_change() -> None:
    r, s = started(Told)
    intent = buy(r)
    closing = replace(intent, client_order_id=ClientOrderId("kill-1-TEST:AAA.20qdq8"), side=Side.SELL, reduce_only=True)
    for each in (intent, closing):
        r.order(journaled(each, K.SUBMITTED), NOW)
    assert closing.client_order_id in [order.client_order_id for order in s.open_orders()]
    assert s.cancel(closing.client_order_id) is False
    assert s.modify(closing.client_order_id, quantity=1) is False
    assert [order.client_order_id for order in r.stop(NOW)] == [intent.client_order_id]  # type: ignore[union-attr]


def test_orders_that_are_to_be_left_are_not_cancelled_by_on_stop() -> None:
    r, _ = started(Told, A)
    resting = journaled(buy(r, limit=90))
    r.order(resting, NOW)
    mine = resting.client_order_id
    assert r.stop(NOW, leave_orders=True) == []
    (kept,) = r.open_orders()
    assert (kept.client_order_id, kept.cancelling) == (mine, False)
    again = runner(Told, None, A)
    again.restore(r.snapshot())
    again.start(NOW)
    assert again.cancel(mine) is True, "it can still be taken back later"
    usual, _ = started(Told, A)
    usual.order(journaled(buy(usual, limit=90)), NOW)
    assert [type(each) for each in usual.stop(NOW)] == [CancelOrder]


@pytest.mark.parametrize("given", [(), (A, A), (A, instrument(1, "CCC")), (instrument(0),)])
def test_senseless_instruments_are_refused(given: tuple[Instrument, ...]) -> None:
    with pytest.raises(BadInput):
        Runner(Told, {}, AlgoId("a"), AccountId("b"), given)


def test_name_too_long_for_its_orders_keys_is_refused_before_it_trades() -> None:
    with pytest.raises(BadInput, match="longer than 36"):
        Runner(Told, {}, AlgoId("a" * 37), AccountId("b"), [A])


def test_bad_parameter_is_refused_by_name() -> None:
    class Sized(StrategyParameters):
        size: int = Field(1, ge=1)

    class Mine(Told):
        Parameters = Sized

    for given, field in (({"size": 0}, "parameters.size"), ({"sise": 1}, "parameters.sise")):
        with pytest.raises(BadInput) as refused:
            runner(Mine, given)
        assert refused.value.field == field


def test_snapshot_carries_orders_positions_and_numbers() -> None:
    r, _ = started(Told)
    order = journaled(buy(r, "2"), K.SUBMITTED)
    deal = fill("x1", "1")
    apply(order, event(order, K.FILLED, fill=deal))
    r.fill(order, deal, NOW)
    other = runner(Told)
    other.restore(r.snapshot())
    other.start(NOW)
    assert other.position(A) == r.position(A)
    assert other.open_orders() == r.open_orders()
    assert other.open_orders()[0].state is OrderState.PARTIALLY_FILLED
    assert other.next_intent == 2
    other.fill(order, deal, NOW)
    assert other.position(A).quantity == 1, "a fill told again after a restart counts once"
    assert ("start",) not in other.strategy.seen  # type: ignore[attr-defined]


def test_restore_never_lets_the_number_fall() -> None:
    r, _ = started(Told)
    raw = r.snapshot()
    other = runner(Told)
    other.next_intent = 90
    other.restore(raw)
    assert other.next_intent == 90


def test_bytes_that_are_no_snapshot_are_refused() -> None:
    r, _ = started(Told)
    raw = r.snapshot()
    for bad in (b"", raw[:-3], b"\xc1", raw.replace(b"Told", b"Tolu")):
        with pytest.raises(BadInput):
            runner(Told).restore(bad)


def test_snapshot_of_a_position_it_may_no_longer_trade_is_refused() -> None:
    r, _ = started(Told)
    order = journaled(buy(r), K.SUBMITTED)
    r.fill(order, fill("x1", "1"), NOW)
    with pytest.raises(BadInput, match="may not trade"):
        runner(Told, None, B).restore(r.snapshot())


def test_state_that_cannot_be_kept_or_taken_up_fails_by_name() -> None:
    class Odd(Told):
        def snapshot(self) -> dict[str, Any]:
            return {"x": object()}

    class Forgets(Told):
        def restore(self, state: dict[str, Any]) -> None:
            raise KeyError("gone")

    r, _ = started(Odd)
    with pytest.raises(StrategyFailed, match="snapshot"):
        r.snapshot()
    forgetful, _ = started(Forgets)
    with pytest.raises(StrategyFailed, match="gone"):
        runner(Forgets).restore(forgetful.snapshot())


def test_batches_reach_a_strategy_that_wants_them_whole() -> None:
    class Batches(Strategy[StrategyParameters]):
        def set_up(self) -> None:
            self.sizes: list[int] = []

        def on_ticks(self, ticks: TickArray) -> None:
            self.sizes.append(len(ticks))

    r, s = started(Batches, A, B)
    r.ticks(market(1, numbers=(1, 2, 3)), NOW)
    assert s.sizes == [20]


class BarsOnly(Strategy[StrategyParameters]):
    bars = ("10s",)

    def warm_up(self) -> dict[str, int]:
        return {"10s": 3}

    def set_up(self) -> None:
        self.told: list[Bar] = []

    def on_bar(self, instrument: Instrument, bar: Bar, interval: str) -> None:
        self.told.append(bar)


def test_live_bars_go_on_from_history_without_the_half_bar_in_which_it_began_to_listen() -> None:
    """The bars that a strategy sees are those of one that had listened from the beginning."""
    ticks = market(60)
    whole, all_along = started(BarsOnly)
    whole.ticks(ticks, NOW)
    whole.clock(Nanos(NOW + 120 * SECOND))
    truth = all_along.told
    began = Nanos(START + 24 * SECOND)

    def live(history: bool) -> tuple[Runner, BarsOnly]:
        r = runner(BarsOnly)
        past = [bar for bar in truth if bar.opened_at + 10 * SECOND <= began]
        r.start(began, {(A.id, "10s"): past} if history else None)
        r.listening(began)
        r.ticks(ticks[ticks["received_at"] >= began], Nanos(began + SECOND))
        r.clock(Nanos(NOW + 120 * SECOND))
        assert isinstance(r.strategy, BarsOnly)
        return r, r.strategy

    r, s = live(history=True)
    ((instrument, interval, span),) = r.wanted_bars()
    assert (instrument, interval) == (A, "10s")
    assert span.start <= began < span.end <= span.start + 10 * SECOND
    assert s.told == []
    r.fill_bars(A.id, "10s", [bar for bar in truth if span.start <= bar.opened_at < span.end], Nanos(span.end), NOW)
    assert s.told == [bar for bar in truth if bar.opened_at + 10 * SECOND > began]
    assert r.wanted_bars() == []
    assert r.history(A, "10s", 99) == truth
    cold, strategy = live(history=False)
    assert cold.wanted_bars() == []
    assert strategy.told == [bar for bar in truth if bar.opened_at >= span.end]


@pytest.mark.parametrize(("conflate", "prices"), [(True, [103.0]), (False, [100.0, 101.0, 102.0, 103.0])])
def test_a_strategy_that_was_behind_sees_the_newest_if_it_asks_for_that(conflate: bool, prices: list[float]) -> None:
    class Keeps(Strategy[StrategyParameters]):
        """Keeps prices and bars."""

        bars = ("1s",)

        def set_up(self) -> None:
            self.conflate = conflate
            self.prices: list[float] = []
            self.closed: list[Bar] = []

        def on_tick(self, tick: Tick) -> None:
            self.prices.append(tick.price)

        def on_bar(self, instrument: Instrument, bar: Bar, interval: str) -> None:
            self.closed.append(bar)

    made = runner(Keeps)
    made.start(NOW)
    made.ticks(prints(100.0, 101.0, 102.0, 103.0, every=SECOND // 8), NOW, waited=True)
    made.clock(Nanos(START + 3 * SECOND))
    strategy = made.strategy
    assert isinstance(strategy, Keeps)
    assert strategy.prices == prices
    assert made.conflated == 4 - len(prices)
    # Bars are made of all of them.
    assert [(bar.open, bar.close, bar.trades) for bar in strategy.closed] == [(100.0, 103.0, 4)]
    made.ticks(prints(7.0, 8.0, every=1, start=START + 4 * SECOND), Nanos(START + 4 * SECOND))
    assert strategy.prices[-2:] == [7.0, 8.0]

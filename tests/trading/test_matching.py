from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trading.making import instrument
from trading.errors import BadInput, Conflict, UnknownThing
from trading.ids import Nanos
from trading.matching import BookOrder, Ended, Execution, MatchingBook, Outcome, Trailed, Triggered, stop_of
from trading.orders import OrderState, OrderType, Side, TimeInForce

D = Decimal
NAN = D("NaN")


def order(id: str, side: str, quantity: int, **fields: Any) -> BookOrder:
    type_ = fields.pop("type", "limit" if "limit" in fields else "market")
    limit, stop = fields.pop("limit", None), fields.pop("stop", None)
    return BookOrder(
        id=id,
        side=Side(side),
        type=OrderType(type_),
        quantity=D(quantity),
        remaining=D(quantity),
        limit_price=None if limit is None else D(limit),
        stop_price=None if stop is None else D(stop),
        time_in_force=TimeInForce(fields.pop("tif", "gtc")),
    )


def book(**settings: Any) -> MatchingBook:
    return MatchingBook(instrument(), **settings)


def quote(b: MatchingBook, bid: int, bid_size: int, ask: int, ask_size: int, at: int = 1) -> list[Outcome]:
    return b.on_quote(D(bid), D(bid_size), D(ask), D(ask_size), Nanos(at))


def fills(outcomes: list[Outcome]) -> list[tuple[str, int, int, bool]]:
    return [(o.order_id, int(o.quantity), int(o.price), o.maker) for o in outcomes if isinstance(o, Execution)]


def test_market_order_takes_the_opposite_quote() -> None:
    b = book()
    quote(b, 99, 5, 101, 5)
    assert fills(b.place(order("a", "buy", 3), Nanos(2))) == [("a", 3, 101, False)]
    assert fills(b.place(order("b", "sell", 3), Nanos(2))) == [("b", 3, 99, False)]
    assert not b.has_orders


def test_market_order_without_a_quote_waits_for_one() -> None:
    b = book()
    assert b.place(order("a", "buy", 3), Nanos(1)) == []
    b.on_quote(D(99), D(5), NAN, NAN, Nanos(2))
    assert b.has_orders
    assert fills(quote(b, 99, 5, 101, 5)) == [("a", 3, 101, False)]


def test_market_order_larger_than_the_quote_goes_on_at_the_next_one() -> None:
    b = book()
    quote(b, 99, 5, 101, 2)
    assert fills(b.place(order("a", "buy", 3), Nanos(2))) == [("a", 2, 101, False)]
    assert quote(b, 98, 5, 101, 2) == [], "the same ask again is the same liquidity"
    assert fills(quote(b, 98, 5, 102, 2)) == [("a", 1, 102, False)]


def test_slippage_moves_market_orders_only() -> None:
    b = book(slippage_ticks=2)
    quote(b, 99, 9, 101, 9)
    assert fills(b.place(order("a", "buy", 1), Nanos(2))) == [("a", 1, 103, False)]
    assert fills(b.place(order("b", "sell", 1), Nanos(2))) == [("b", 1, 97, False)]
    assert fills(b.place(order("c", "buy", 1, limit=101), Nanos(2))) == [("c", 1, 101, False)]


def test_slippage_never_leaves_the_price_grid_at_the_bottom() -> None:
    b = book(slippage_ticks=5)
    quote(b, 2, 9, 3, 9)
    assert fills(b.place(order("a", "sell", 1), Nanos(2))) == [("a", 1, 1, False)]


def test_fill_ratio_leaves_the_rest_of_the_quote_to_others() -> None:
    b = book(fill_ratio=D("0.5"))
    quote(b, 99, 5, 101, 5)
    assert fills(b.place(order("a", "buy", 9, tif="ioc"), Nanos(2))) == [("a", 2, 101, False)]


def test_ioc_remainder_expires() -> None:
    b = book()
    quote(b, 99, 5, 101, 2)
    out = b.place(order("a", "buy", 3, limit=101, tif="ioc"), Nanos(2))
    assert fills(out) == [("a", 2, 101, False)]
    assert isinstance(out[-1], Ended)
    assert out[-1].state is OrderState.EXPIRED
    assert not b.has_orders


def test_ioc_market_order_without_a_quote_expires_and_says_so() -> None:
    (ended,) = book().place(order("a", "buy", 3, tif="ioc"), Nanos(2))
    assert isinstance(ended, Ended)
    assert "no quote" in ended.reason


def test_fok_fills_whole_or_not_at_all() -> None:
    b = book()
    quote(b, 99, 5, 101, 2)
    (ended,) = b.place(order("a", "buy", 3, tif="fok"), Nanos(2))
    assert isinstance(ended, Ended)
    assert ended.state is OrderState.EXPIRED
    assert fills(b.place(order("b", "buy", 2, tif="fok"), Nanos(2))) == [("b", 2, 101, False)]


def test_resting_limit_fills_at_its_price_when_the_quote_crosses_it() -> None:
    b = book()
    quote(b, 99, 5, 103, 5)
    b.place(order("a", "buy", 3, limit=101), Nanos(2))
    assert fills(quote(b, 98, 5, 100, 2)) == [("a", 2, 101, True)]


def test_rest_of_a_marketable_limit_takes_the_next_quote_at_its_price() -> None:
    b = book()
    quote(b, 99, 5, 101, 2)
    assert fills(b.place(order("a", "buy", 4, limit=105), Nanos(2))) == [("a", 2, 101, False)]
    assert fills(quote(b, 99, 5, 102, 9)) == [("a", 2, 102, False)]


def test_print_through_a_resting_limit_fills_it() -> None:
    b = book()
    quote(b, 99, 5, 103, 5)
    b.place(order("a", "buy", 3, limit=101), Nanos(2))
    assert fills(b.on_trade(D(100), D(9), True, Nanos(3))) == [("a", 3, 101, True)]


def test_print_at_the_price_fills_only_from_the_other_side_and_for_its_size() -> None:
    b = book()
    quote(b, 99, 5, 103, 5)
    b.place(order("a", "buy", 3, limit=101), Nanos(2))
    assert b.on_trade(D(101), D(9), False, Nanos(3)) == [], "a buyer hit an ask there, nobody sold to us"
    assert fills(b.on_trade(D(101), D(2), True, Nanos(4))) == [("a", 2, 101, True)]


def test_print_of_what_an_order_has_just_taken_from_the_quote_fills_nothing_more() -> None:
    b = book()
    quote(b, 99, 5, 103, 5)
    b.place(order("a", "buy", 4, limit=101), Nanos(2))
    assert fills(quote(b, 98, 5, 100, 2)) == [("a", 2, 101, True)]
    assert b.on_trade(D(100), D(2), False, Nanos(3)) == []


def test_better_price_goes_first_then_the_earlier() -> None:
    b = book()
    quote(b, 90, 5, 110, 5)
    b.place(order("late", "buy", 2, limit=100), Nanos(3))
    b.place(order("better", "buy", 2, limit=101), Nanos(4))
    b.place(order("early", "buy", 2, limit=100), Nanos(5))
    out = b.on_trade(D(100), D(5), True, Nanos(6))
    assert fills(out) == [("better", 2, 101, True), ("late", 2, 100, True), ("early", 1, 100, True)]


def test_amend_of_price_loses_priority_and_less_quantity_keeps_it() -> None:
    b = book()
    quote(b, 90, 5, 110, 5)
    for name in "abc":
        b.place(order(name, "buy", 2, limit=100), Nanos(3))
    b.amend("a", D(1), None, None, Nanos(4))
    b.amend("b", None, D(99), None, Nanos(4))
    b.amend("b", None, D(100), None, Nanos(5))
    out = b.on_trade(D(100), D(9), True, Nanos(6))
    assert fills(out) == [("a", 1, 100, True), ("c", 2, 100, True), ("b", 2, 100, True)]


def test_amend_that_crosses_fills_at_once() -> None:
    b = book()
    quote(b, 99, 5, 101, 5)
    b.place(order("a", "buy", 3, limit=98), Nanos(2))
    assert fills(b.amend("a", None, D(101), None, Nanos(3))) == [("a", 3, 101, False)]


def test_amend_to_no_more_than_the_filled_part_is_refused_and_changes_nothing() -> None:
    b = book()
    quote(b, 99, 5, 101, 2)
    b.place(order("a", "buy", 4, limit=101), Nanos(2))
    with pytest.raises(BadInput, match="cancel the order"):
        b.amend("a", D(2), D(105), None, Nanos(3))
    assert b.orders()[0].limit_price == D(101)


def test_stop_watches_prints() -> None:
    b = book()
    quote(b, 99, 5, 101, 5)
    b.on_trade(D(100), D(1), True, Nanos(1))
    b.place(order("a", "buy", 1, type="stop", stop=102), Nanos(2))
    assert quote(b, 102, 5, 104, 5) == [], "the quote does not count once there are prints"
    out = b.on_trade(D(102), D(1), False, Nanos(4))
    assert out[0] == Triggered(order_id="a")
    assert fills(out) == [("a", 1, 104, False)]


def test_stop_watches_the_quote_until_the_first_print() -> None:
    b = book()
    quote(b, 99, 5, 101, 5)
    b.place(order("a", "sell", 1, type="stop", stop=97), Nanos(2))
    out = quote(b, 97, 5, 98, 5)
    assert out[0] == Triggered(order_id="a")
    assert fills(out) == [("a", 1, 97, False)]


def test_triggered_stop_limit_rests_at_its_limit() -> None:
    b = book()
    quote(b, 99, 5, 101, 5)
    b.place(order("a", "buy", 1, type="stop_limit", stop=103, limit=103), Nanos(2))
    assert quote(b, 104, 5, 105, 5) == [Triggered(order_id="a")]
    assert fills(quote(b, 101, 5, 103, 5)) == [("a", 1, 103, True)]


def test_stop_beyond_the_market_on_arrival_goes_off_at_once() -> None:
    b = book()
    quote(b, 99, 5, 101, 5)
    assert fills(b.place(order("a", "buy", 1, type="stop", stop=100), Nanos(2))) == [("a", 1, 101, False)]


def trailing(id: str, side: str, **trail: str) -> BookOrder:
    o = order(id, side, 1, type="trailing_stop")
    for field, value in trail.items():
        setattr(o, field, D(value))
    return o


def test_trailing_sell_follows_the_highest_print_and_never_comes_back() -> None:
    b = book()
    quote(b, 99, 9, 101, 9)
    b.on_trade(D(100), D(1), True, Nanos(2))
    o = trailing("a", "sell", trail_price="5")
    b.place(o, Nanos(3))
    assert (o.high_water, stop_of(o, b.instrument)) == (100, 95)
    b.on_trade(D(110), D(1), True, Nanos(4))
    assert (o.high_water, stop_of(o, b.instrument)) == (110, 105)
    assert b.on_trade(D(106), D(1), True, Nanos(5)) == []
    assert (o.high_water, stop_of(o, b.instrument)) == (110, 105), "it only moves in the order's favour"
    out = b.on_trade(D(105), D(1), True, Nanos(6))
    assert isinstance(out[0], Triggered)
    assert fills(out) == [("a", 1, 99, False)]


def test_trailing_buy_follows_the_lowest_quote_until_the_first_print() -> None:
    b = book()
    quote(b, 99, 9, 101, 9)
    o = trailing("a", "buy", trail_percent="10")
    b.place(o, Nanos(2))
    assert (o.high_water, stop_of(o, b.instrument)) == (101, 111), "on the price grid"
    quote(b, 85, 9, 90, 9)
    assert (o.high_water, stop_of(o, b.instrument)) == (90, 99)
    assert fills(quote(b, 98, 9, 99, 9)) == [("a", 1, 99, False)]


def test_trailing_stop_without_a_market_waits_for_its_first_price() -> None:
    b = book()
    o = trailing("a", "sell", trail_price="1")
    assert b.place(o, Nanos(1)) == []
    assert stop_of(o, b.instrument) is None
    b.on_trade(D(50), D(1), True, Nanos(2))
    assert stop_of(o, b.instrument) == 49


def test_trailing_stop_goes_on_from_its_high_water_after_a_restart() -> None:
    b = book()
    o = trailing("a", "sell", trail_price="5", high_water="110")
    quote(b, 104, 9, 106, 9)
    assert fills(b.place(o, Nanos(2))) == [("a", 1, 104, False)]


def test_amend_of_a_trail_moves_the_stop_at_once_and_may_set_it_off() -> None:
    b = book()
    quote(b, 99, 9, 101, 9)
    o = trailing("a", "sell", trail_price="20")
    b.place(o, Nanos(2))
    assert b.amend("a", None, None, None, Nanos(3), trail_price=D(10)) == []
    assert stop_of(o, b.instrument) == 89
    quote(b, 90, 9, 101, 9)
    assert fills(b.amend("a", None, None, None, Nanos(4), trail_price=D(5))) == [("a", 1, 90, False)]


def test_end_of_day_takes_all_but_gtc() -> None:
    b = book()
    quote(b, 99, 5, 101, 5)
    b.place(order("day", "buy", 1, limit=90, tif="day"), Nanos(2))
    b.place(order("gtc", "buy", 1, limit=90, tif="gtc"), Nanos(2))
    assert [o.order_id for o in b.expire_day(Nanos(3))] == ["day"]
    assert [o.id for o in b.orders()] == ["gtc"]


def test_absent_side_takes_the_liquidity_away() -> None:
    b = book()
    quote(b, 99, 5, 101, 5)
    b.on_quote(D(99), D(5), NAN, D(5), Nanos(2))
    assert b.place(order("a", "buy", 1), Nanos(3)) == []


def test_cancelled_order_is_unknown_and_its_id_may_not_stand_twice() -> None:
    b = book()
    b.place(order("a", "buy", 1, limit=90), Nanos(1))
    with pytest.raises(Conflict):
        b.place(order("a", "buy", 1, limit=90), Nanos(1))
    b.cancel("a", Nanos(2))
    with pytest.raises(UnknownThing):
        b.cancel("a", Nanos(3))


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (order("a", "buy", 0, limit=90), "quantity"),
        (order("a", "buy", 1, type="limit"), "limit_price"),
        (order("a", "buy", 1, type="stop"), "stop_price"),
        (order("a", "buy", 1, type="market", limit=9), "limit_price"),
        (order("a", "buy", 1, limit="90.5"), "limit_price"),
        (order("a", "buy", 1, limit="NaN"), "limit_price"),
    ],
)
def test_bad_order_is_refused_by_field(bad: BookOrder, field: str) -> None:
    with pytest.raises(BadInput) as refused:
        book().place(bad, Nanos(1))
    assert refused.value.field == field


@pytest.mark.parametrize("settings", [{"slippage_ticks": -1}, {"fill_ratio": D(0)}, {"fill_ratio": D(2)}])
def test_bad_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        book(**settings)


# Properties: any sequence of events, judged by an observer who only sees what went in and came out.

prices = st.integers(95, 105)
sizes = st.integers(1, 6)
sides = st.sampled_from(["buy", "sell"])
tifs = st.sampled_from(["day", "gtc", "ioc", "fok"])
placements = st.tuples(st.just("place"), sides, st.sampled_from(list(OrderType)), sizes, prices, prices, tifs)
quotes = st.tuples(st.just("quote"), prices, st.integers(0, 6), st.integers(0, 3), st.integers(0, 6))
trades = st.tuples(st.just("trade"), prices, sizes, st.booleans())
cancels = st.tuples(st.just("cancel"), st.integers(0, 15))
amends = st.tuples(st.just("amend"), st.integers(0, 15), st.none() | sizes, st.none() | prices)
ends = st.tuples(st.just("day"))
stories = st.lists(st.one_of(placements, placements, quotes, quotes, trades, cancels, amends, ends), max_size=40)


@given(stories, st.integers(0, 2), st.sampled_from([D(1), D("0.5")]))
def test_any_story_keeps_the_promises_of_the_book(story: list[tuple[Any, ...]], slip: int, ratio: Decimal) -> None:
    b = MatchingBook(instrument(), slippage_ticks=slip, fill_ratio=ratio)
    placed: list[BookOrder] = []
    wanted: dict[str, Decimal] = {}
    limits: dict[str, Decimal | None] = {}
    filled: defaultdict[str, Decimal] = defaultdict(Decimal)
    ended: set[str] = set()
    triggered: set[str] = set()
    followed: dict[str, Decimal] = {}
    shown: dict[Side, tuple[Decimal, Decimal]] = {}
    taken: dict[Side, Decimal] = {Side.BUY: D(0), Side.SELL: D(0)}
    for step, event in enumerate(story, 1):
        at = Nanos(step)
        out: list[Outcome] = []
        printed: Decimal | None = None
        match event:
            case ("place", side, kind, size, limit, stop, tif):
                new = BookOrder(
                    id=str(len(placed)),
                    side=Side(side),
                    type=kind,
                    quantity=D(size),
                    remaining=D(size),
                    limit_price=D(limit) if "limit" in kind else None,
                    stop_price=D(stop) if kind in (OrderType.STOP, OrderType.STOP_LIMIT) else None,
                    trail_price=D(stop) if kind is OrderType.TRAILING_STOP else None,
                    time_in_force=TimeInForce(tif),
                )
                placed.append(new)
                wanted[new.id], limits[new.id] = new.quantity, new.limit_price
                out = b.place(new, at)
            case ("quote", bid, bid_size, spread, ask_size):
                ask = bid + 1 + spread
                for taker, now in (
                    (Side.BUY, (D(ask), D(ask_size))),
                    (Side.SELL, (D(bid), D(bid_size))),
                ):
                    if shown.get(taker) != now:
                        shown[taker], taken[taker] = now, D(0)
                out = b.on_quote(D(bid), D(bid_size), D(ask), D(ask_size), at)
            case ("trade", price, size, buyer_maker):
                printed = D(size)
                out = b.on_trade(D(price), D(size), buyer_maker, at)
            case ("cancel", n):
                if str(n) in {o.id for o in b.orders()}:
                    out = b.cancel(str(n), at)
            case ("amend", n, size, limit):
                standing = {o.id: o for o in b.orders()}
                o = standing.get(str(n))
                if o is not None:
                    total = None if size is None or size <= filled[o.id] else D(size)
                    price = None if limit is None or o.limit_price is None else D(limit)
                    wanted[o.id] = total or wanted[o.id]
                    limits[o.id] = price or limits[o.id]
                    out = b.amend(o.id, total, price, None, at)
            case ("day",):
                out = b.expire_day(at)
        from_print = D(0)
        for o in out:
            assert o.order_id not in ended, "an ended order came back"
            if isinstance(o, Triggered):
                triggered.add(o.order_id)
            elif isinstance(o, Trailed):
                assert o.order_id not in triggered, "a triggered stop went on trailing"
                trailing = placed[int(o.order_id)]
                best = followed.get(o.order_id)
                assert best is None or (o.high_water - best) * trailing.side.sign < 0, "a trail moved back"
                followed[o.order_id] = o.high_water
            elif isinstance(o, Ended):
                ended.add(o.order_id)
            else:
                origin = placed[int(o.order_id)]
                assert o.quantity > 0
                if "stop" in origin.type:
                    assert origin.id in triggered, "a stop filled before it went off"
                limit = limits[origin.id]
                if limit is not None:
                    assert (o.price - limit) * origin.side.sign <= 0, "filled through its limit"
                filled[origin.id] += o.quantity
                assert filled[origin.id] <= wanted[origin.id]
                if origin.time_in_force is TimeInForce.FOK:
                    assert o.quantity == wanted[origin.id], "a part of a fill-or-kill order"
                if filled[origin.id] == wanted[origin.id]:
                    ended.add(origin.id)
                if printed is not None and o.maker:
                    from_print += o.quantity
                else:
                    taken[origin.side] += o.quantity
        if printed is not None:
            assert from_print <= printed * ratio, "a print was used twice"
        for side in Side:
            if side in shown:
                assert taken[side] <= shown[side][1] * ratio, "the quote was used twice"
        standing_ids = {o.id for o in b.orders()}
        assert standing_ids.isdisjoint(ended)
        assert standing_ids | ended == set(wanted), "an order vanished without an end"
        assert all(o.remaining == wanted[o.id] - filled[o.id] for o in b.orders())
        assert not any(o.time_in_force is TimeInForce.IOC and o.triggered for o in b.orders())


@given(
    st.lists(st.tuples(sides, prices, sizes), min_size=2, max_size=8),
    prices,
    st.integers(1, 12),
    st.booleans(),
)
def test_no_order_fills_from_a_print_before_one_that_has_priority(
    resting: list[tuple[str, int, int]], price: int, size: int, buyer_maker: bool
) -> None:
    b = book()
    orders = [order(str(i), side, q, limit=p) for i, (side, p, q) in enumerate(resting)]
    for i, o in enumerate(orders):
        b.place(o, Nanos(i + 1))
    got = {o.order_id for o in b.on_trade(D(price), D(size), buyer_maker, Nanos(99))}
    for i, o in enumerate(orders):
        if o.id not in got:
            continue
        for j, other in enumerate(orders):
            if other.side is o.side and other.limit_price and o.limit_price:
                lead = (other.limit_price - o.limit_price) * o.side.sign
                if lead > 0 or (lead == 0 and j < i):
                    assert other.remaining == 0, f"{other.id} stood before {o.id}"

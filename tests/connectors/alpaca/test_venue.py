from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.alpaca.chains import Chains
from connectors.alpaca.codec import cancel_request, place_request, replace_request, tag_of
from connectors.alpaca.updates import UpdateReader
from connectors.alpaca.venue import AlpacaVenue, Habit
from connectors.alpaca.venue_hours import DAY, Listed, Trading
from connectors.alpaca.wire import Request
from tests.connectors.alpaca.making import NOON, call, events, post, quote, report, ticket, venue
from trading.broker import AmendTicket, UpdateKind
from trading.ids import BrokerOrderId, InstrumentId, Nanos
from trading.orders import OrderState, OrderType, Side, TimeInForce

D = Decimal
HOUR = 3_600_000_000_000
AAPL = InstrumentId("ALPACA:AAPL")


def trade(to: AlpacaVenue, price: str, size: int = 100, at: int = NOON, **more: Any) -> None:
    to.on_trade("AAPL", D(price), D(size), Nanos(at), **more)


def status(of: AlpacaVenue, order: dict[str, Any]) -> str:
    return of.ledger.orders[order["id"]].status


# Orders of every type


def test_a_market_order_is_answered_before_it_fills_and_fills_at_the_quote() -> None:
    book = venue()
    code, order = post(book)
    assert (code, order["status"], order["filled_qty"]) == (200, "pending_new", "0")
    assert events(book) == [("pending_new", "pending_new"), ("new", "new"), ("fill", "filled")]
    _, shown = call(book, "GET", f"/v2/orders/{order['id']}")
    assert (shown["status"], shown["filled_qty"], shown["filled_avg_price"]) == ("filled", "10", "100.1")
    assert book.ledger.cash == 100_000 - D("1001")


@pytest.mark.parametrize(
    ("fields", "rests_at", "then"),
    [
        ({"type": "limit", "limit_price": "99"}, "99.5", "98.9"),
        ({"type": "stop", "stop_price": "102"}, "101", "102"),
        ({"type": "stop_limit", "stop_price": "102", "limit_price": "110"}, "101", "102"),
        ({"type": "trailing_stop", "trail_price": "2"}, "101", "102.1"),
        ({"type": "trailing_stop", "trail_percent": "2"}, "101", "102.2"),
    ],
)
def test_every_type_rests_and_then_fills(fields: dict[str, str], rests_at: str, then: str) -> None:
    book = venue()
    trade(book, "100.1")
    code, order = post(book, time_in_force="gtc", **fields)
    assert code == 200
    trade(book, rests_at, buyer_maker=True)
    assert status(book, order) == "new"
    trade(book, then, buyer_maker=True)
    assert status(book, order) == "filled"


def test_a_trailing_stop_shows_its_high_water_and_where_it_stands() -> None:
    book = venue()
    post(book)
    trade(book, "100")
    _, order = post(book, side="sell", type="trailing_stop", trail_price="5", time_in_force="gtc")
    trade(book, "110")
    trade(book, "107")
    _, shown = call(book, "GET", f"/v2/orders/{order['id']}")
    assert (shown["hwm"], shown["stop_price"], shown["trail_price"]) == ("110", "105", "5")


def test_immediate_or_cancel_takes_what_is_there_and_fill_or_kill_all_or_nothing() -> None:
    book = venue()
    quote(book, size=4, bid="99.8")
    _, some = post(book, type="limit", limit_price="101", time_in_force="ioc")
    _, none = post(book, type="limit", limit_price="101", time_in_force="fok")
    assert (status(book, some), book.ledger.orders[some["id"]].filled_qty) == ("canceled", 4)
    assert (status(book, none), book.ledger.orders[none["id"]].filled_qty) == ("canceled", 0)


def test_an_amount_of_money_buys_a_part_of_a_share() -> None:
    book = venue()
    _, order = post(book, qty=None, notional="50")
    assert (order["qty"], order["notional"]) == (None, "50")
    assert book.ledger.orders[order["id"]].filled_qty == D("0.499500499")


def test_a_bracket_takes_profit_or_stops_loss_never_both() -> None:
    legs = {"take_profit": {"limit_price": "110"}, "stop_loss": {"stop_price": "90"}}
    for prices, won, lost in ((("110.5",), "limit", "stop"), (("90", "110.5"), "stop", "limit")):
        book = venue()
        trade(book, "100")
        code, parent = post(book, order_class="bracket", **legs)
        assert code == 200
        assert {leg["status"] for leg in parent["legs"]} == {"held"}
        assert status(book, parent) == "filled"
        for price in prices:
            trade(book, price)
        _, nested = call(book, "GET", f"/v2/orders/{parent['id']}", nested="true")
        assert {leg["type"]: leg["status"] for leg in nested["legs"]} == {won: "filled", lost: "canceled"}
        assert book.ledger.held("AAPL").qty == 0


def test_a_quote_that_crosses_both_legs_at_once_fills_only_one() -> None:
    book = venue()
    post(book, order_class="bracket", take_profit={"limit_price": "101"}, stop_loss={"stop_price": "100.9"})
    quote(book, "101.5", "101.6")
    assert book.ledger.held("AAPL").qty == 0
    assert Counter(f.side for f in book.ledger.executions) == {Side.BUY: 1, Side.SELL: 1}


def test_legs_of_an_entry_that_is_taken_back_are_taken_back() -> None:
    book = venue()
    _, parent = post(
        book, type="limit", limit_price="50", order_class="oto", stop_loss={"stop_price": "40"}, time_in_force="gtc"
    )
    assert call(book, "DELETE", f"/v2/orders/{parent['id']}")[0] == 204
    assert {o.status for o in book.ledger.orders.values()} == {"canceled"}


def test_one_cancels_the_other() -> None:
    book = venue()
    post(book)
    oco = {"take_profit": {"limit_price": "105"}, "stop_loss": {"stop_price": "95", "limit_price": "94"}}
    code, order = post(book, side="sell", type="limit", order_class="oco", time_in_force="gtc", **oco)
    assert code == 200
    assert order["limit_price"] == "105"
    quote(book, "105", "105.2", size=4)
    assert status(book, order) == "partially_filled"
    assert book.ledger.orders[order["legs"][0]["id"]].qty == 6
    quote(book, "94.9", "95.1")
    assert status(book, order) == "canceled"
    assert book.ledger.held("AAPL").qty == 0
    assert [f.qty for f in book.ledger.executions] == [10, 4, 6]


# Replace and cancel


def test_a_replacement_is_a_new_order_that_takes_over_what_has_filled() -> None:
    book = venue()
    _, old = post(book, type="limit", limit_price="99", time_in_force="gtc")
    quote(book, "98.8", "99", size=4)
    events(book)
    code, new = call(book, "PATCH", f"/v2/orders/{old['id']}", {"qty": "12", "limit_price": "98.5"})
    assert (code, new["replaces"], new["qty"], new["filled_qty"]) == (200, old["id"], "12", "4")
    assert status(book, old) == "replaced"
    assert book.ledger.orders[old["id"]].replaced_by == new["id"]
    assert events(book) == [("replaced", "replaced"), ("new", "partially_filled")]
    quote(book, "98", "98.4", size=100)
    assert book.ledger.orders[new["id"]].filled_qty == 12
    assert sum(f.qty for f in book.ledger.executions) == 12
    assert [o.id for o in book.ledger.chain(new["id"])] == [old["id"], new["id"]]


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"limit_price": "99"}, 42210000, "not changed"),
        ({"qty": "4"}, 42210000, "qty must be > filled_qty"),
        ({"limit_price": "98.123"}, 42210000, "sub-penny"),
        ({"stop_price": "98"}, 42210000, "stop_price"),
        ({"trail": "1"}, 42210000, "trail"),
        ({"qty": "9999999"}, 40310000, "insufficient buying power"),
        ({"qty": "x"}, 40010001, "qty must be a number"),
        ({"limit_price": "98", "client_order_id": "taken"}, 40010001, "client_order_id must be unique"),
    ],
)
def test_a_replacement_that_cannot_be_is_refused_and_changes_nothing(
    change: dict[str, str], code: int, words: str
) -> None:
    book = venue()
    _, old = post(book, type="limit", limit_price="99", time_in_force="gtc", client_order_id="taken")
    quote(book, "98.8", "99", size=4)
    before = repr(book)
    _, said = call(book, "PATCH", f"/v2/orders/{old['id']}", change)
    assert said["code"] == code
    assert words in said["message"]
    assert repr(book) == before
    assert status(book, old) == "partially_filled"


def test_what_has_ended_can_neither_be_replaced_nor_cancelled() -> None:
    book = venue()
    _, order = post(book)
    code, said = call(book, "PATCH", f"/v2/orders/{order['id']}", {"qty": "11"})
    assert (code, said["code"]) == (422, 42210000)
    code, said = call(book, "DELETE", f"/v2/orders/{order['id']}")
    assert (code, said["message"]) == (422, 'order is already in "filled" state')
    assert call(book, "DELETE", "/v2/orders/nobody")[0] == 404


def test_a_replacement_that_comes_too_late_is_rejected() -> None:
    book = venue()
    book.replace_takes = 1_000
    _, old = post(book, type="limit", limit_price="99", time_in_force="gtc")
    _, new = call(book, "PATCH", f"/v2/orders/{old['id']}", {"limit_price": "98"})
    assert call(book, "PATCH", f"/v2/orders/{old['id']}", {"limit_price": "97"})[1]["code"] == 42210000
    events(book)
    quote(book, "98.5", "99", at=NOON + 500)
    book.tick(Nanos(NOON + 2_000))
    assert (status(book, old), status(book, new)) == ("filled", "rejected")
    assert [e for e, _ in events(book)] == ["fill", "order_replace_rejected", "rejected"]


def test_a_cancel_that_comes_too_late_is_rejected_on_the_stream() -> None:
    book = venue()
    book.cancel_takes = 1_000
    _, order = post(book, type="limit", limit_price="99", time_in_force="gtc")
    assert call(book, "DELETE", f"/v2/orders/{order['id']}")[0] == 204
    quote(book, "98.5", "99", at=NOON + 500)
    events(book)
    book.tick(Nanos(NOON + 2_000))
    assert status(book, order) == "filled"
    assert events(book) == [("order_cancel_rejected", "filled")]


def test_cancel_of_a_replacement_under_way_ends_both() -> None:
    book = venue()
    book.replace_takes = 1_000
    _, old = post(book, type="limit", limit_price="99", time_in_force="gtc")
    _, new = call(book, "PATCH", f"/v2/orders/{old['id']}", {"limit_price": "98"})
    assert call(book, "DELETE", f"/v2/orders/{new['id']}")[0] == 204
    book.tick(Nanos(NOON + 2_000))
    assert (status(book, old), status(book, new)) == ("canceled", "canceled")


def test_cancel_all_answers_for_each_order() -> None:
    book = venue()
    ids = [post(book, type="limit", limit_price=p, time_in_force="gtc")[1]["id"] for p in ("98", "97")]
    code, said = call(book, "DELETE", "/v2/orders")
    assert code == 207
    assert said == [{"id": each, "status": 200} for each in ids]
    assert call(book, "DELETE", "/v2/orders") == (207, [])


# Refusals


@pytest.mark.parametrize(
    ("fields", "http", "code", "words"),
    [
        ({"symbol": None}, 422, 40010001, "symbol is required"),
        ({"symbol": "NONE"}, 422, 42210000, 'asset "NONE" not found'),
        ({"symbol": "OLD"}, 422, 42210000, "not active"),
        ({"qty": None}, 422, 40010001, "qty or notional is required"),
        ({"notional": "5"}, 422, 40010001, "only one of"),
        ({"qty": "0"}, 422, 40010001, "qty must be > 0"),
        ({"qty": "-1"}, 422, 40010001, "qty must be > 0"),
        ({"qty": "NaN"}, 422, 40010001, "qty must be > 0"),
        ({"qty": "1E+20"}, 422, 42210000, "too large"),
        ({"qty": "0.00000000001"}, 422, 40010001, "increment"),
        ({"side": "hold"}, 422, 40010001, "invalid side: hold"),
        ({"type": "peg"}, 422, 40010001, "invalid order type: peg"),
        ({"time_in_force": None}, 422, 40010001, "time_in_force is required"),
        ({"type": "limit"}, 422, 40010001, "limit orders require limit price"),
        ({"limit_price": "1"}, 422, 40010001, "must not have limit price"),
        ({"type": "stop"}, 422, 40010001, "require stop price"),
        ({"type": "limit", "limit_price": "100.123"}, 422, 42210000, "sub-penny"),
        ({"type": "trailing_stop"}, 422, 40010001, "one of trail_price or trail_percent"),
        ({"type": "trailing_stop", "trail_percent": "100"}, 422, 42210000, "trail_percent"),
        ({"type": "trailing_stop", "trail_price": "1", "time_in_force": "ioc"}, 422, 42210000, "DAY or GTC"),
        ({"type": "stop", "stop_price": "99", "time_in_force": "opg"}, 422, 42210000, "market or limit"),
        ({"qty": "0.5", "time_in_force": "gtc"}, 422, 42210000, "fractional orders must be DAY orders"),
        ({"symbol": "WHOLE", "qty": "0.5"}, 403, 40310000, "not fractionable"),
        ({"symbol": "WHOLE", "side": "sell"}, 422, 42210000, "cannot be sold short"),
        ({"symbol": "BTC/USD"}, 422, 42210000, "invalid crypto time_in_force"),
        ({"client_order_id": "x" * 49}, 422, 40010001, "48"),
        ({"order_class": "mleg"}, 422, 42210000, "mleg"),
        ({"order_class": "bracket"}, 422, 40010001, "take_profit.limit_price"),
        ({"take_profit": {"limit_price": "110"}}, 422, 42210000, "simple orders"),
        ({"extended_hours": True}, 422, 42210000, "extended hours"),
        ({"qty": "100000"}, 403, 40310000, "insufficient buying power"),
    ],
)
def test_a_bad_order_is_refused_in_alpacas_words(fields: dict[str, Any], http: int, code: int, words: str) -> None:
    book = venue()
    got, said = post(book, **fields)
    assert (got, said["code"]) == (http, code)
    assert words in said["message"]
    assert not book.ledger.orders
    assert book.take_frames() == []


def test_a_bracket_with_its_prices_crossed_is_refused() -> None:
    legs = {"take_profit": {"limit_price": "90"}, "stop_loss": {"stop_price": "95"}}
    _, said = post(venue(), order_class="bracket", **legs)
    assert said["message"] == "take_profit.limit_price must be > stop_loss.stop_price"


def test_shares_are_held_back_by_open_orders() -> None:
    book = venue()
    post(book)
    post(book, side="sell", qty="6", type="limit", limit_price="110", time_in_force="gtc")
    code, said = post(book, side="sell", qty="5")
    assert code == 403
    assert said == {
        "code": 40310000,
        "message": "insufficient qty available for order (requested: 5, available: 4)",
        "symbol": "AAPL",
        "available": "4",
        "existing_qty": "10",
        "held_for_orders": "6",
    }


def test_a_cash_account_cannot_sell_short_and_a_margin_account_can() -> None:
    assert post(venue(multiplier=D(1)), side="sell")[1]["message"] == "account is not allowed to short"
    book = venue()
    assert post(book, side="sell")[0] == 200
    assert book.ledger.held("AAPL").qty == -10
    assert post(book, side="buy", qty="11")[1]["code"] == 40310000


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"symbol":1}', b'{"symbol":"AAPL","qty":{}}'])
def test_a_malformed_body_is_refused(body: bytes) -> None:
    response = venue().handle(Request("POST", "/v2/orders", body=body), NOON)
    assert response.status in (400, 422)
    assert msgspec.json.decode(response.body)["code"] in (40010000, 40010001)


# Sessions

EIGHT = NOON - 4 * HOUR
OPENS, CLOSES = NOON - 2 * HOUR - HOUR // 2, NOON + 4 * HOUR
MARKET = [Trading(Nanos(OPENS + d * DAY), Nanos(CLOSES + d * DAY)) for d in range(4)]


def test_orders_given_while_the_market_is_closed_wait_for_it_to_open() -> None:
    book = AlpacaVenue(assets=venue().desk.assets.values(), hours=Listed(MARKET))
    quote(book, at=EIGHT)
    _, order = post(book, at=EIGHT)
    assert (order["status"], events(book)) == ("accepted", [("accepted", "accepted")])
    code, said = call(book, "PATCH", f"/v2/orders/{order['id']}", {"qty": "5"}, at=EIGHT)
    assert (code, said["message"]) == (422, "cannot replace order in accepted status")
    quote(book, at=EIGHT + 60_000_000_000)
    assert not book.ledger.executions
    book.tick(Nanos(OPENS))
    assert status(book, order) == "filled"


def test_day_orders_expire_and_gtc_orders_live_on() -> None:
    book = venue(hours=Listed(MARKET))
    _, day = post(book, type="limit", limit_price="90", time_in_force="day")
    _, gtc = post(book, type="limit", limit_price="90", time_in_force="gtc")
    events(book)
    book.tick(Nanos(CLOSES))
    assert (status(book, day), status(book, gtc)) == ("expired", "new")
    assert events(book) == [("expired", "expired")]
    quote(book, "89", "89.5", at=CLOSES + HOUR)
    assert status(book, gtc) == "new"
    quote(book, "89", "89.5", at=OPENS + DAY)
    assert status(book, gtc) == "filled"


def test_orders_for_the_auctions_trade_there_or_not_at_all() -> None:
    book = AlpacaVenue(assets=venue().desk.assets.values(), hours=Listed(MARKET))
    quote(book, at=EIGHT)
    opening = {"time_in_force": "opg", "type": "limit"}
    _, fills = post(book, limit_price="101", at=EIGHT, **opening)
    _, lapses = post(book, limit_price="90", at=EIGHT, **opening)
    quote(book, at=OPENS)
    assert (status(book, fills), status(book, lapses)) == ("filled", "canceled")
    _, closing = post(book, time_in_force="cls", at=NOON)
    assert status(book, closing) == "accepted"
    assert post(book, time_in_force="cls", at=CLOSES - 1_000_000_000)[1]["code"] == 42210000
    book.tick(Nanos(CLOSES))
    assert status(book, closing) == "filled"
    late = post(book, time_in_force="opg", at=OPENS + DAY - 60_000_000_000)
    assert late[1]["code"] == 42210000


def test_the_clock_and_the_calendar_know_the_sessions() -> None:
    book = venue(hours=Listed(MARKET))
    _, open_now = call(book, "GET", "/v2/clock", at=NOON)
    assert open_now == {
        "timestamp": "2025-03-10T12:00:00-04:00",
        "is_open": True,
        "next_open": "2025-03-11T09:30:00-04:00",
        "next_close": "2025-03-10T16:00:00-04:00",
    }
    _, days = call(book, "GET", "/v2/calendar", start="2025-03-10", end="2025-03-11")
    assert [(d["date"], d["open"], d["close"]) for d in days] == [
        ("2025-03-10", "09:30", "16:00"),
        ("2025-03-11", "09:30", "16:00"),
    ]


# Lists


def test_orders_are_listed_by_their_filters() -> None:
    book = venue()
    made = [
        post(book, at=NOON + n, type="limit", limit_price="90", time_in_force="gtc", symbol=s)[1]["id"]
        for n, s in enumerate(["AAPL", "MSFT", "AAPL", "AAPL"])
    ]
    call(book, "DELETE", f"/v2/orders/{made[0]}", at=NOON + 9)

    def ids(**query: str) -> list[str]:
        code, rows = call(book, "GET", "/v2/orders", at=NOON + 10, **query)
        assert code == 200
        return [row["id"] for row in rows]

    assert ids() == [made[3], made[2], made[1]]
    assert ids(status="closed") == [made[0]]
    assert ids(status="all", direction="asc") == made
    assert ids(status="all", limit="2") == [made[3], made[2]]
    assert ids(symbols="MSFT,NONE") == [made[1]]
    assert ids(side="sell") == []
    after = "2025-03-10T16:00:00.000000001Z"
    assert ids(status="all", direction="asc", after=after) == made[2:]
    assert ids(status="all", direction="asc", until=after) == made[:1]
    assert call(book, "GET", "/v2/orders", limit="501")[0] == 422
    assert call(book, "GET", "/v2/orders", status="odd")[1]["code"] == 40010001


def test_activities_are_paged_without_a_gap_or_a_repetition() -> None:
    book = venue()
    for n in range(7):
        post(book, qty="1", at=NOON + n)
    found: list[str] = []
    while True:
        query = {"page_size": "3", "direction": "asc"} | ({"page_token": found[-1]} if found else {})
        _, page = call(book, "GET", "/v2/account/activities/FILL", at=NOON + 10, **query)
        if not page:
            break
        found += [row["id"] for row in page]
    assert found == [f.activity_id for f in book.ledger.executions]
    assert call(book, "GET", "/v2/account/activities", activity_types="DIV")[1] == []
    assert call(book, "GET", "/v2/account/activities/fills")[1]["message"] == "invalid activity type: fills"


def test_positions_are_closed_in_part_by_percentage_and_whole() -> None:
    book = venue()
    post(book)
    assert call(book, "DELETE", "/v2/positions/AAPL", qty="4")[0] == 200
    assert book.ledger.held("AAPL").qty == 6
    assert call(book, "DELETE", "/v2/positions/AAPL", percentage="50")[0] == 200
    assert book.ledger.held("AAPL").qty == 3
    code, said = call(book, "DELETE", "/v2/positions")
    assert (code, said[0]["symbol"], said[0]["status"]) == (207, "AAPL", 200)
    assert book.ledger.held("AAPL").qty == 0
    assert call(book, "DELETE", "/v2/positions/AAPL")[1]["code"] == 40410000
    assert call(book, "GET", "/v2/positions/AAPL")[0] == 404


def test_the_rate_limit_refuses_with_its_headers_and_forgets_after_a_minute() -> None:
    book = venue(requests_per_minute=2)
    request = Request("GET", "/v2/account")
    left = [book.handle(request, NOON) for _ in range(3)]
    assert [r.status for r in left] == [200, 200, 429]
    assert [r.headers["x-ratelimit-remaining"] for r in left] == ["1", "0", "0"]
    assert left[0].headers["x-ratelimit-limit"] == "2"
    assert int(left[0].headers["x-ratelimit-reset"]) * 1_000_000_000 == NOON + 60_000_000_000
    assert book.handle(request, Nanos(NOON + 60_000_000_000)).status == 200


# Bad habits


def test_habits_change_the_answer_and_only_what_they_say() -> None:
    one = place_request(ticket("1"))
    book = venue()
    assert book.handle(one, NOON, Habit(status=502, effect=False)).status == 502
    assert not book.ledger.orders
    assert book.handle(one, NOON, Habit(status=504)).status == 504
    assert len(book.ledger.orders) == 1
    cut = book.handle(place_request(ticket("2")), NOON, Habit(cut=20))
    assert (cut.status, len(cut.body)) == (200, 20)
    garbled = book.handle(place_request(ticket("3")), NOON, Habit(body=b"{{{"))
    assert (garbled.status, garbled.body) == (200, b"{{{")
    assert len(book.ledger.orders) == 3


def test_a_silent_fill_shows_in_rest_only() -> None:
    book = venue()
    book.handle(place_request(ticket()), NOON, Habit(silent=True))
    assert book.take_frames() == []
    assert len(book.ledger.executions) == 1
    post(book, type="limit", limit_price="99", time_in_force="gtc")
    events(book)
    quote(book, "98", "99", silent=True)
    assert book.take_frames() == []
    assert len(book.ledger.executions) == 2


def test_an_order_may_be_accepted_and_then_rejected() -> None:
    book = venue()
    response = book.handle(place_request(ticket()), NOON, Habit(rejects=True))
    assert response.status == 200
    assert events(book) == [("pending_new", "pending_new"), ("rejected", "rejected")]
    assert not book.ledger.executions


def test_lists_that_lag_show_what_was_and_lose_nothing() -> None:
    book = venue()
    book.list_lag = 1_000
    _, order = post(book, at=NOON)
    assert call(book, "GET", "/v2/orders", status="all", at=NOON + 999)[1] == []
    assert call(book, "GET", "/v2/positions", at=NOON + 999)[1] == []
    assert call(book, "GET", "/v2/account/activities/FILL", at=NOON + 999)[1] == []
    assert call(book, "GET", f"/v2/orders/{order['id']}", at=NOON + 1)[0] == 200
    book.lookup_lag = 1_000
    assert call(book, "GET", f"/v2/orders/{order['id']}", at=NOON + 1)[0] == 404
    assert call(book, "GET", "/v2/orders", status="all", at=NOON + 1_000)[1][0]["status"] == "filled"
    assert len(call(book, "GET", "/v2/positions", at=NOON + 1_000)[1]) == 1


# Any story: what the stream tells and what REST shows is what the ledger has.

prices = st.integers(9_800, 10_200).map(lambda cents: D(cents) / 100)
quantities = st.integers(1, 20)
kinds = st.sampled_from(list(OrderType))
steps = st.one_of(
    st.tuples(st.just("place"), st.sampled_from(["buy", "sell"]), kinds, quantities, prices, prices, st.booleans()),
    st.tuples(st.just("replace"), st.integers(0, 9), quantities, prices),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("quote"), prices, st.integers(1, 30)),
    st.tuples(st.just("trade"), prices, st.integers(1, 30), st.booleans()),
    st.tuples(st.just("day")),
)


def place(book: AlpacaVenue, n: int, step: tuple[Any, ...], at: int) -> None:
    _, side, kind, quantity, limit, stop, gtc = step
    one = ticket(
        str(n),
        side,
        str(quantity),
        type=kind,
        limit_price=limit if "limit" in kind else None,
        stop_price=stop if kind in (OrderType.STOP, OrderType.STOP_LIMIT) else None,
        trail_price=D(1) if kind is OrderType.TRAILING_STOP else None,
        time_in_force=TimeInForce.GTC if gtc else TimeInForce.DAY,
    )
    book.handle(place_request(one), Nanos(at))


@settings(max_examples=200)
@given(st.lists(steps, min_size=1, max_size=40), st.booleans(), st.sampled_from([0, 2]))
def test_stream_and_lists_tell_the_same_story_as_the_ledger(
    story: list[tuple[Any, ...]], lenient: bool, takes: int
) -> None:
    book = venue(lenient=lenient)
    book.replace_takes = book.cancel_takes = takes
    stream = UpdateReader(Chains())
    told: list[Any] = []
    at = int(NOON)
    for n, step in enumerate(story):
        at += 1
        roots = [o for o in book.ledger.orders.values() if o.replaces is None]
        match step[0]:
            case "place":
                place(book, n, step, at)
            case "replace" if roots:
                root = roots[step[1] % len(roots)]
                head = book.ledger.chain(root.id)[-1]
                change = AmendTicket(
                    tag=tag_of(root.client_order_id),
                    broker_order_id=BrokerOrderId(root.id),
                    instrument=AAPL,
                    quantity=D(step[2]),
                    limit_price=step[3] if head.limit_price else None,
                )
                book.handle(replace_request(change, head.id), Nanos(at))
            case "cancel" if roots:
                head = book.ledger.chain(roots[step[1] % len(roots)].id)[-1]
                book.handle(cancel_request(head.id), Nanos(at))
            case "quote":
                quote(book, str(step[1]), str(step[1] + D("0.1")), size=step[2], at=at)
            case "trade":
                trade(book, str(step[1]), step[2], at=at, buyer_maker=step[3])
            case "day":
                at = (at // DAY + 1) * DAY
                book.tick(Nanos(at))
        for frame in book.take_frames():
            read = stream.read(frame)
            assert isinstance(read, list)
            told += read
    at += 10
    book.tick(Nanos(at))
    for frame in book.take_frames():
        read = stream.read(frame)
        assert isinstance(read, list)
        told += read
    ledger = book.ledger
    seen = report(book, Chains(), at)
    # One order per tag, executions once, all three the same.
    assert len({o.tag for o in seen.orders}) == len(seen.orders)
    executions = {f.id: (f.qty, f.price) for f in ledger.executions}
    assert {f.fill.execution_id: (f.fill.quantity, f.fill.price) for f in seen.fills} == executions
    by_stream = [u for u in told if u.kind is UpdateKind.FILLED]
    assert {u.fill.execution_id: (u.fill.quantity, u.fill.price) for u in by_stream} == executions
    assert {p.instrument: p.quantity for p in seen.positions} == {
        InstrumentId(f"ALPACA:{symbol}"): held.qty for symbol, held in ledger.positions.items() if held.qty
    }
    cash = ledger.opening_cash - sum(f.side.sign * f.qty * f.price for f in ledger.executions)
    assert seen.cash == ledger.cash == cash
    quantity_of = {u.tag: u.quantity for u in told if u.kind is UpdateKind.MODIFIED}
    ends = {u.tag: u.kind for u in told if u.kind in (UpdateKind.CANCELLED, UpdateKind.EXPIRED, UpdateKind.REJECTED)}
    for order in seen.orders:
        assert order.filled_quantity == sum(f.fill.quantity for f in seen.fills if f.tag == order.tag)
        assert order.filled_quantity <= order.quantity, "filled beyond its size"
        if order.tag in quantity_of:
            assert quantity_of[order.tag] == order.quantity
        is_ended = order.state.is_final and order.state is not OrderState.FILLED
        assert (order.tag in ends) == is_ended, f"{order} but the stream said {ends.get(order.tag)}"
    live = {o.tag for o in seen.orders if not o.state.is_final}
    assert live == {tag_of(o.client_order_id) for o in ledger.open_orders()}


@settings(max_examples=50)
@given(st.lists(steps, max_size=15))
def test_the_same_story_is_told_in_the_same_bytes(story: list[tuple[Any, ...]]) -> None:
    def play() -> list[bytes]:
        book = venue(lenient=True)
        for n, step in enumerate(story):
            if step[0] == "place":
                place(book, n, step, NOON + n)
            elif step[0] == "quote":
                quote(book, str(step[1]), str(step[1] + 1), at=NOON + n)
        return [*book.take_frames(), msgspec.json.encode(book.ledger.dump())]

    assert play() == play()

from __future__ import annotations

import contextlib
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.alpaca.chains import Chains
from connectors.alpaca.codec import (
    cancel_answer,
    cancel_request,
    is_duplicate,
    lookup_answer,
    lookup_request,
    place_answer,
    place_request,
    replace_answer,
    replace_request,
)
from connectors.alpaca.report import execution_id_of
from connectors.alpaca.updates import Control, UpdateReader
from connectors.alpaca.wire import Response, as_json, nanos, plain, rfc3339, tag_of
from tests.connectors.alpaca.making import NOON, ticket, venue
from trading.broker import AmendTicket, CancelTicket, UpdateKind, Verdict
from trading.errors import BadInput
from trading.ids import BrokerOrderId, InstrumentId, broker_tag
from trading.orders import OrderType, TimeInForce

D = Decimal
AAPL = InstrumentId("ALPACA:AAPL")


def amend(tag: str, **changes: Any) -> AmendTicket:
    return AmendTicket(tag=tag, broker_order_id=BrokerOrderId("x"), instrument=AAPL, **changes)


def cancel(tag: str) -> CancelTicket:
    return CancelTicket(tag=tag, broker_order_id=BrokerOrderId("x"), instrument=AAPL)


def error(status: int, **body: Any) -> Response:
    return Response(status, {}, as_json(body))


# Times and numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2022-04-19T17:45:05.024916716Z", 1_650_390_305_024_916_716),
        ("2022-04-19T13:45:05.024916716-04:00", 1_650_390_305_024_916_716),
        ("2021-03-16T18:38:01.94Z", 1_615_919_881_940_000_000),
        ("2019-08-24T14:15:22Z", 1_566_656_122_000_000_000),
    ],
)
def test_times_keep_every_nanosecond(text: str, expected: int) -> None:
    assert nanos(text) == expected


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_a_time_written_is_read_back(at: int) -> None:
    assert nanos(rfc3339(at)) == at


@pytest.mark.parametrize("text", ["", "yesterday", "2022-04-19", "2022-04-19T17:45:05", "2022-13-19T17:45:05Z"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        nanos(text)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**12, places=9))
def test_numbers_are_written_without_exponent_and_exactly(number: Decimal) -> None:
    text = plain(number)
    assert Decimal(text) == number
    assert "E" not in text


# Requests


def test_an_order_travels_with_our_tag_as_its_client_id() -> None:
    one = ticket(
        type=OrderType.STOP_LIMIT, limit_price=D("100.50"), stop_price=D("1E+2"), time_in_force=TimeInForce.DAY
    )
    request = place_request(one)
    assert (request.method, request.path) == ("POST", "/v2/orders")
    assert msgspec.json.decode(request.body) == {
        "symbol": "AAPL",
        "qty": "10",
        "side": "buy",
        "type": "stop_limit",
        "time_in_force": "day",
        "client_order_id": one.tag,
        "limit_price": "100.5",
        "stop_price": "100",
    }
    assert lookup_request(one.tag).query == (("client_order_id", one.tag),)
    assert cancel_request("abc").path == "/v2/orders/abc"


def test_trailing_stops_name_their_trail_once() -> None:
    placed = msgspec.json.decode(place_request(ticket(type=OrderType.TRAILING_STOP, trail_percent=D("1.5"))).body)
    assert placed["trail_percent"] == "1.5"
    assert "trail_price" not in placed
    for change in ({"trail_price": D(2)}, {"trail_percent": D(2)}):
        body = msgspec.json.decode(replace_request(amend(ticket().tag, **change), "o1").body)
        assert body["trail"] == "2"


def test_an_instrument_of_another_venue_is_refused() -> None:
    with pytest.raises(BadInput, match="ALPACA:AAPL"):
        place_request(ticket(instrument=InstrumentId("NSE:INFY")))


def test_the_same_replacement_has_the_same_id_and_any_other_another_one() -> None:
    tag = ticket().tag

    def id_of(order: str, **changes: Any) -> str:
        return str(msgspec.json.decode(replace_request(amend(tag, **changes), order).body)["client_order_id"])

    first = id_of("o1", limit_price=D("10.5"))
    assert id_of("o1", limit_price=D("10.50")) == first
    others = {id_of("o1", limit_price=D("10.6")), id_of("o2", limit_price=D("10.5")), id_of("o1", quantity=D("10.5"))}
    assert len(others | {first}) == 4
    assert all(tag_of(each) == tag and len(each) <= 48 for each in others | {first})


@given(st.text(max_size=50))
def test_only_our_own_ids_have_a_tag(text: str) -> None:
    if tag_of(text):
        assert text.split(".")[0] == tag_of(text)
        assert len(tag_of(text)) == 16
    assert tag_of(broker_tag("a", text)) == broker_tag("a", text)


# Answers

UNKNOWN_TO_ALL = [
    None,
    error(429, code=42910000, message="rate limit exceeded"),
    error(500, code=50010000, message="internal server error"),
    Response(502, {}, b"<html>bad gateway</html>"),
    Response(504, {}, b""),
    Response(403, {}, b"<html>blocked</html>"),
    error(422, message="no code here"),
    error(422, code=7, message="a code that is not Alpaca's"),
    error(422, code="42210000", message="a code of the wrong type"),
    error(409, title="a shape that is not documented"),
    Response(200, {}, b'{"id":"61e6901'),
    Response(200, {}, b"\xff\xfe"),
    Response(302, {}, b""),
]


@pytest.mark.parametrize("response", UNKNOWN_TO_ALL)
def test_what_proves_nothing_leaves_the_outcome_open_and_keeps_the_raw(response: Response | None) -> None:
    one = ticket()
    answers = [
        place_answer(one, response, Chains()),
        replace_answer(amend(one.tag), response, Chains()),
        lookup_answer(one.tag, response, Chains()),
    ]
    if response is None or response.status != 200:
        answers.append(cancel_answer(cancel(one.tag), response))
    for answer in answers:
        assert answer.verdict is Verdict.UNKNOWN
        assert answer.reason
        assert response is None or str(response.status) in answer.raw


@pytest.mark.parametrize(
    "response",
    [
        error(403, code=40310000, message="insufficient buying power", buying_power="0", cost_basis="10"),
        error(422, code=42210000, message="invalid limit_price"),
        error(422, code=40010001, message="qty must be > 0"),
        error(400, code=40010000, message="request body format is invalid"),
        error(404, code=40410000, message="order not found"),
        error(401, code=40110000, message="request is not authorized"),
        error(401, message="unauthorized."),
        error(403, message="forbidden."),
    ],
)
def test_documented_errors_are_rejections_with_their_words(response: Response) -> None:
    one = ticket()
    for answer in (
        place_answer(one, response, Chains()),
        replace_answer(amend(one.tag), response, Chains()),
        cancel_answer(cancel(one.tag), response),
    ):
        assert answer.verdict is Verdict.REJECTED
        assert msgspec.json.decode(response.body)["message"] in answer.reason


def test_a_duplicate_client_id_proves_that_the_order_is_there() -> None:
    one = ticket()
    book = venue()
    first = book.handle(place_request(one), NOON)
    again = book.handle(place_request(one), NOON)
    assert is_duplicate(again)
    assert not is_duplicate(first)
    chains = Chains()
    assert place_answer(one, again, chains).verdict is Verdict.UNKNOWN
    found = lookup_answer(one.tag, book.handle(lookup_request(one.tag), NOON), chains)
    assert found.verdict is Verdict.ACCEPTED
    assert found.broker_order_id == place_answer(one, first, chains).broker_order_id
    assert len(book.ledger.orders) == 1


def test_an_answer_about_another_order_proves_nothing() -> None:
    book = venue()
    other = book.handle(place_request(ticket("other")), NOON)
    assert place_answer(ticket("mine"), other, Chains()).verdict is Verdict.UNKNOWN
    assert lookup_answer(ticket("mine").tag, other, Chains()).verdict is Verdict.UNKNOWN


@given(st.integers(100, 599), st.binary(max_size=60))
def test_no_response_whatever_makes_an_answer_fail(status: int, body: bytes) -> None:
    response = Response(status, {}, body)
    one = ticket()
    place_answer(one, response, Chains())
    replace_answer(amend(one.tag), response, Chains())
    cancel_answer(cancel(one.tag), response)
    lookup_answer(one.tag, response, Chains())


# The stream


def frame(event: str, order: dict[str, Any] | None = None, **more: Any) -> bytes:
    row = {"id": "o1", "client_order_id": ticket().tag, "symbol": "AAPL", "status": "new", "qty": "10"} | (order or {})
    data = {"event": event, "timestamp": "2025-03-10T16:00:00.5Z", "order": row} | more
    return as_json({"stream": "trade_updates", "data": data})


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        ("new", UpdateKind.ACCEPTED),
        ("accepted", UpdateKind.ACCEPTED),
        ("pending_new", UpdateKind.ACCEPTED),
        ("canceled", UpdateKind.CANCELLED),
        ("expired", UpdateKind.EXPIRED),
        ("rejected", UpdateKind.REJECTED),
        ("order_cancel_rejected", UpdateKind.CANCEL_REJECTED),
        ("order_replace_rejected", UpdateKind.MODIFY_REJECTED),
    ],
)
def test_events_are_told_in_our_words(event: str, kind: UpdateKind) -> None:
    for raw in (frame(event), frame(event).decode()):
        told = UpdateReader(Chains()).read(raw)
        assert isinstance(told, list)
        (update,) = told
        assert (update.kind, update.tag, update.instrument) == (kind, ticket().tag, AAPL)
        assert (update.broker_order_id, update.at) == ("o1", NOON + 500_000_000)
        assert event in update.raw


def test_a_fill_has_the_execution_of_the_trade_book() -> None:
    execution = "2f63ea93-423d-4169-b3f6-3fdafc10c418"
    told = UpdateReader(Chains()).read(
        frame("partial_fill", {"filled_qty": "3"}, execution_id=execution, price="105.8988475", qty="3")
    )
    assert isinstance(told, list)
    fill = told[0].fill
    assert fill is not None
    assert (fill.quantity, fill.price, fill.at) == (3, D("105.8988475"), NOON + 500_000_000)
    assert fill.execution_id == execution_id_of(f"20250310120000500::{execution}")


@pytest.mark.parametrize(
    "event", ["done_for_day", "stopped", "pending_cancel", "pending_replace", "calculated", "suspended", "restated"]
)
def test_events_that_change_nothing_are_passed_over(event: str) -> None:
    reader = UpdateReader(Chains())
    assert reader.read(frame(event)) == []
    assert not reader.unknown_events


def test_unknown_events_are_counted_and_passed_over() -> None:
    reader = UpdateReader(Chains())
    assert reader.read(frame("teleported")) == []
    assert reader.read(frame("teleported")) == []
    assert reader.unknown_events == {"teleported": 2}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'{"stream":"trade_updates"}',
        b'{"stream":"trade_updates","data":{"event":"fill"}}',
        b"\xff\xfe\x00",
        frame("fill", price="1"),
        frame("fill", execution_id="e", price="0", qty="1"),
        frame("new", {"qty": "much"}),
        frame("new") + b"}",
        frame("new")[:-20],
    ],
)
def test_garbage_is_reported_and_the_next_frame_is_read(raw: bytes) -> None:
    reader = UpdateReader(Chains())
    with pytest.raises(BadInput):
        reader.read(raw)
    assert reader.garbage == 1
    assert reader.read(frame("new")) != []


@given(st.binary(max_size=80))
def test_no_frame_whatever_raises_anything_but_bad_input(raw: bytes) -> None:
    with contextlib.suppress(BadInput):
        UpdateReader(Chains()).read(raw)


def test_messages_about_the_stream_are_told_apart() -> None:
    reader = UpdateReader(Chains())
    said = reader.read(b'{"stream":"authorization","data":{"status":"authorized","action":"authenticate"}}')
    assert said == Control("authorization", {"status": "authorized", "action": "authenticate"})
    assert reader.read(b'{"action":"error","data":{"error_message":"internal server error"}}') == Control(
        "error", {"error_message": "internal server error"}
    )


# Chains


def test_a_replaced_order_stays_one_order_whoever_shows_it_first() -> None:
    old = {"id": "o1", "client_order_id": ticket().tag, "status": "replaced", "replaced_by": "o2"}
    new = {"id": "o2", "client_order_id": "made-by-alpaca", "replaces": "o1", "status": "new", "limit_price": "9"}
    for first, second in ((("replaced", old), ("new", new)), (("new", new), ("replaced", old))):
        reader = UpdateReader(Chains())
        told: list[Any] = []
        for event, row in (first, second):
            read = reader.read(frame(event, row))
            assert isinstance(read, list)
            told += read
        assert [(u.kind, u.broker_order_id, u.limit_price) for u in told] == [(UpdateKind.MODIFIED, "o1", 9)]
        assert told[0].tag in (ticket().tag, "")
        assert reader.chains.head_of("o1") == "o2"
        done = reader.read(frame("fill", {**new, "status": "filled"}, execution_id="e", price="9", qty="10"))
        assert isinstance(done, list)
        assert (done[0].tag, done[0].broker_order_id) == (ticket().tag, "o1")


def test_a_rejected_replacement_is_a_rejected_change() -> None:
    reader = UpdateReader(Chains())
    reader.read(frame("new"))
    told = reader.read(frame("rejected", {"id": "o2", "client_order_id": "x", "replaces": "o1", "status": "rejected"}))
    assert isinstance(told, list)
    assert [(u.kind, u.broker_order_id, u.tag) for u in told] == [(UpdateKind.MODIFY_REJECTED, "o1", ticket().tag)]
    assert reader.chains.head_of("o2") == "o1"


def test_links_to_orders_never_seen_are_named() -> None:
    reader = UpdateReader(Chains())
    reader.read(frame("canceled", {"id": "o3", "client_order_id": "x", "replaces": "o2"}))
    assert reader.chains.missing() == ["o2"]


def test_chains_forget_the_oldest_and_never_ask_for_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.alpaca.chains.REMEMBERED", 10)
    reader = UpdateReader(Chains())
    for n in range(100):
        before = f"o{n - 1}" if n else None
        reader.read(frame("new", {"id": f"o{n}", "client_order_id": f"c{n}", "replaces": before}))
    assert reader.chains.missing() == []
    assert "orders=10 " in repr(reader.chains)

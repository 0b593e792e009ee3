"""Alpaca's recorded and documented answers, read by the connector field by field."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from connectors.alpaca.chains import Chains
from connectors.alpaca.codec import error_in
from connectors.alpaca.report import order_of, position_of, report_of, state_of
from connectors.alpaca.symbols import instrument_from
from connectors.alpaca.updates import UpdateReader
from connectors.alpaca.wire import AccountRow, AssetRow, OrderRow, PositionRow, Response, as_json, nanos
from tests.connectors.alpaca.making import ACCOUNT, NOON
from tests.support.data import DATA, needs
from trading.broker import UpdateKind
from trading.orders import OrderState, OrderType, Side, TimeInForce

D = Decimal
HOME = DATA / "fixtures" / "alpaca"


def recorded(name: str) -> Any:
    return msgspec.json.decode(
        needs(HOME / "alpaca-py_tests" / "trading" / f"trading_client__{name}.json").read_bytes()
    )


def order(raw: Any) -> OrderRow:
    return msgspec.json.decode(msgspec.json.encode(raw), type=OrderRow)


ORDERS = [
    "test_order_routes__test_get_order_by_client_id",
    "test_order_routes__test_get_order_by_id",
    "test_order_routes__test_limit_order",
    "test_order_routes__test_market_order",
    "test_order_routes__test_order_position_intent",
    "test_order_routes__test_order_position_intent_1",
    "test_order_routes__test_replace_order",
    "test_position_routes__test_close_position_with_percentage",
    "test_position_routes__test_close_position_with_qty",
]


@pytest.mark.parametrize("name", ORDERS)
def test_recorded_orders_are_read_field_by_field(name: str) -> None:
    raw = recorded(name)
    row = order(raw)
    for field in ("id", "client_order_id", "symbol", "side", "type", "order_type", "time_in_force", "status"):
        assert getattr(row, field) == raw[field]
    for field in ("replaced_by", "replaces", "asset_id", "asset_class", "order_class", "extended_hours", "legs"):
        assert getattr(row, field) == raw[field]
    for field in ("qty", "notional", "filled_qty", "limit_price", "stop_price", "trail_price", "trail_percent"):
        assert getattr(row, field) == (None if raw[field] is None else D(str(raw[field]))), field
    assert row.changed_at == nanos(raw["updated_at"])
    chains = Chains()
    chains.learn(row)
    ours = order_of(row.id, row, chains)
    assert ours.broker_order_id == raw["id"]
    assert ours.side is Side(raw["side"])
    assert ours.type is OrderType(raw["type"])
    assert ours.time_in_force is TimeInForce(raw["time_in_force"])
    assert ours.state is OrderState.SUBMITTED, "accepted is in Alpaca's book"
    assert ours.quantity == (D(str(raw["qty"])) if raw["qty"] else 0)
    assert ours.limit_price == (None if raw["limit_price"] is None else D(str(raw["limit_price"])))
    assert ours.tag == "", "it is not one of ours"


def test_the_documented_list_of_orders_is_read_though_its_samples_are_odd() -> None:
    """The hwm is the word "string" there, and numbers are numbers."""
    (raw,) = recorded("test_order_routes__test_get_orders")
    row = order(raw)
    assert (row.replaced_by, row.replaces) == (raw["replaced_by"], raw["replaces"])
    assert (row.qty, row.filled_qty, row.hwm) == (1, 0, "string")
    assert nanos(raw["created_at"]) == row.changed_at


def test_the_account_is_read() -> None:
    raw = recorded("test_account_routes__test_get_account")
    row = msgspec.json.decode(msgspec.json.encode(raw), type=AccountRow)
    assert row.cash == D("-23140.2")
    assert (row.equity, row.buying_power, row.multiplier) == (D("103820.56"), D("262113.632"), 4)
    assert (row.id, row.status, row.currency, row.account_number) == (
        raw["id"],
        "ACTIVE",
        "USD",
        raw["account_number"],
    )
    assert (row.trading_blocked, row.account_blocked, row.shorting_enabled) == (False, False, True)
    report = report_of(ACCOUNT, [], [], [], row, Chains(), NOON, NOON)
    assert (report.cash, report.currency) == (D("-23140.2"), "USD")


def test_positions_are_read_and_signed() -> None:
    (raw,) = recorded("test_position_routes__test_get_all_positions")
    for side, sign in (("long", 1), ("short", -1)):
        for qty in ("5", "-5"):
            row = msgspec.json.decode(msgspec.json.encode(raw | {"side": side, "qty": qty}), type=PositionRow)
            ours = position_of(row)
            assert (ours.instrument, ours.quantity, ours.average_price) == ("ALPACA:AAPL", 5 * sign, D(100))


def test_assets_become_instruments() -> None:
    raw = recorded("test_asset_routes__test_get_asset")
    row = msgspec.json.decode(msgspec.json.encode(raw), type=AssetRow)
    made = instrument_from(row)
    assert made is not None
    assert (made.id, made.provider_symbol, made.calendar) == ("ALPACA:AAPL", "AAPL", "XNYS")
    assert (made.tick_size, made.lot_size, made.currency) == (D("0.01"), D("0.000000001"), "USD")
    assert made.description == raw["name"]
    assert instrument_from(msgspec.structs.replace(row, tradable=False)) is None
    assert instrument_from(msgspec.structs.replace(row, symbol="lower case")) is None
    whole = instrument_from(msgspec.structs.replace(row, fractionable=False))
    assert whole is not None
    assert whole.lot_size == 1


def test_answers_to_many_cancels_and_closes_have_documented_errors() -> None:
    cancels = recorded("test_order_routes__test_cancel_orders")
    assert [each["status"] for each in cancels] == [200, 404]
    closes = recorded("test_position_routes__test_close_all_positions")
    for each in [cancels[1], *closes[1:]]:
        error = error_in(Response(each["status"], {}, as_json(each["body"])))
        assert error is not None
        assert (error.code, error.message) == (each["body"]["code"], each["body"]["message"])
    filled = order(closes[0]["body"])
    assert (filled.qty, filled.status, state_of(filled)) == (D("0.0283"), "pending_new", OrderState.SUBMITTED)


def _documents() -> Path:
    return needs(HOME / "openapi")


def test_every_documented_event_of_the_stream_is_known() -> None:
    document = yaml.safe_load((_documents() / "alpaca-asyncapi.yml").read_text())
    data = document["components"]["schemas"]["TradeUpdate"]["properties"]["data"]["properties"]
    events = data["event"]["enum"]
    assert len(events) == 16
    reader = UpdateReader(Chains())
    for event in events:
        row = {"id": "o", "client_order_id": "c", "symbol": "AAPL", "status": "new"}
        body = {"event": event, "order": row, "execution_id": "e", "qty": "1", "price": "2"}
        reader.read(as_json({"stream": "trade_updates", "data": body}))
    assert not reader.unknown_events


def test_every_documented_status_has_a_state_and_every_type_a_word() -> None:
    document = yaml.safe_load((_documents() / "alpaca-orders-api-openapi.yml").read_text())["components"]["schemas"]
    for status in document["OrderStatus"]["enum"]:
        row = OrderRow(id="o", status=status, qty=D(10), filled_qty=D(0))
        ended = status in ("filled", "canceled", "expired", "rejected")
        assert state_of(row).is_final == ended, status
    assert {OrderType(t) for t in document["OrderType"]["enum"]} == set(OrderType)
    assert {TimeInForce(t) for t in document["TimeInForce"]["enum"]} == set(TimeInForce)


def test_the_documented_sample_of_an_order_is_read() -> None:
    document = yaml.safe_load((_documents() / "alpaca-orders-api-openapi.yml").read_text())["components"]["schemas"]
    row = order(document["Order"]["x-examples"]["example-1"])
    assert (row.notional, row.qty, row.status, row.type) == (500, None, "accepted", "market")


def test_the_documented_sample_of_a_fill_is_read() -> None:
    """From "Websocket Streaming" of Alpaca's documentation."""
    sample = {
        "stream": "trade_updates",
        "data": {
            "event": "fill",
            "execution_id": "2f63ea93-423d-4169-b3f6-3fdafc10c418",
            "order": {
                "asset_class": "crypto",
                "client_order_id": "4642fd68-d59a-47d7-a9ac-e22f536828d1",
                "created_at": "2022-04-19T13:45:04.981350886-04:00",
                "filled_avg_price": "105.8988475",
                "filled_qty": "1790.86",
                "hwm": None,
                "id": "a5be8f5e-fdfa-41f5-a644-7a74fe947a8f",
                "order_class": "",
                "qty": "1790.86",
                "side": "sell",
                "status": "filled",
                "symbol": "SOL/USD",
                "time_in_force": "gtc",
                "type": "market",
                "updated_at": "2022-04-19T13:45:05.027690731-04:00",
            },
            "position_qty": "0",
            "price": "105.8988475",
            "qty": "1790.86",
            "timestamp": "2022-04-19T17:45:05.024916716Z",
        },
    }
    told = UpdateReader(Chains()).read(as_json(sample))
    assert isinstance(told, list)
    (update,) = told
    assert (update.kind, update.instrument) == (UpdateKind.FILLED, "ALPACA:SOL/USD")
    assert update.fill is not None
    assert (update.fill.quantity, update.fill.price, update.fill.at) == (
        D("1790.86"),
        D("105.8988475"),
        1_650_390_305_024_916_716,
    )

"""A simulated account, and tickets for it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from connectors.alpaca.chains import Chains
from connectors.alpaca.report import (
    account_request,
    fills_request,
    open_orders_request,
    orders_request,
    positions_request,
    report_of,
    rows_in,
)
from connectors.alpaca.venue import AlpacaVenue
from connectors.alpaca.wire import (
    AccountRow,
    AssetRow,
    FillActivity,
    OrderRow,
    PositionRow,
    Request,
    Response,
    as_json,
)
from trading.broker import BrokerReport, OrderTicket
from trading.ids import AccountId, InstrumentId, Nanos, broker_tag
from trading.orders import OrderType, Side, TimeInForce

D = Decimal
SECOND = 1_000_000_000
#: 2025-03-10 16:00 UTC, a Monday at noon in New York.
NOON = Nanos(1_741_622_400 * SECOND)
ACCOUNT = AccountId("alice-alpaca")


def asset(symbol: str, number: int = 1, **changes: Any) -> AssetRow:
    row = AssetRow(
        id=f"00000000-0000-4000-8000-{number:012d}",
        symbol=symbol,
        asset_class="us_equity",
        exchange="NASDAQ",
        name=f"{symbol} Inc.",
        status="active",
        tradable=True,
        fractionable=True,
        shortable=True,
        marginable=True,
        easy_to_borrow=True,
    )
    return msgspec.structs.replace(row, **changes)


ASSETS = (
    asset("AAPL", 1),
    asset("MSFT", 2),
    asset("OLD", 3, tradable=False, status="inactive"),
    asset("WHOLE", 4, fractionable=False, shortable=False),
    asset(
        "BTC/USD",
        5,
        asset_class="crypto",
        exchange="CRYPTO",
        min_order_size=D("0.0001"),
        min_trade_increment=D("0.0001"),
        price_increment=D("0.5"),
    ),
)


def venue(**settings: Any) -> AlpacaVenue:
    made = AlpacaVenue(assets=ASSETS, **settings)
    quote(made, at=NOON)
    return made


def quote(to: AlpacaVenue, bid: str = "99.9", ask: str = "100.1", size: int = 100, at: int = NOON, **more: Any) -> None:
    to.on_quote(more.pop("symbol", "AAPL"), D(bid), D(size), D(ask), D(size), Nanos(at), **more)


def post(to: AlpacaVenue, at: int = NOON, **fields: Any) -> tuple[int, dict[str, Any]]:
    body = {"symbol": "AAPL", "qty": "10", "side": "buy", "type": "market", "time_in_force": "day"} | fields
    body = {name: value for name, value in body.items() if value is not None}
    return call(to, "POST", "/v2/orders", body, at=at)


def call(to: AlpacaVenue, method: str, path: str, body: Any = None, at: int = NOON, **query: str) -> tuple[int, Any]:
    request = Request(method, path, tuple(query.items()), b"" if body is None else as_json(body))
    response = to.handle(request, Nanos(at))
    return response.status, msgspec.json.decode(response.body) if response.body else None


def events(of: AlpacaVenue) -> list[tuple[str, str]]:
    """The events that wait to be pushed, and the status that each shows."""
    seen = [msgspec.json.decode(frame)["data"] for frame in of.take_frames()]
    return [(data["event"], data["order"]["status"]) for data in seen]


def ticket(key: str = "k1", side: str = "buy", quantity: str = "10", **fields: Any) -> OrderTicket:
    values: dict[str, Any] = {
        "tag": broker_tag(ACCOUNT, key),
        "instrument": InstrumentId("ALPACA:AAPL"),
        "side": Side(side),
        "type": OrderType.MARKET,
        "quantity": D(quantity),
        "limit_price": None,
        "stop_price": None,
        "time_in_force": TimeInForce.GTC,
    }
    return OrderTicket(**values | fields)


def report(of: AlpacaVenue, chains: Chains, at: int, since: int = 0) -> BrokerReport:
    """What REST shows, fetched as the connector does it, without the network."""

    def get(request: Request) -> Response:
        return of.handle(request, Nanos(at))

    rows = rows_in(get(open_orders_request()), list[OrderRow], "orders")
    rows += rows_in(get(orders_request(Nanos(since))), list[OrderRow], "orders")
    activities: list[FillActivity] = []
    while page := rows_in(
        get(fills_request(Nanos(since), activities[-1].id if activities else "")), list[FillActivity], "fills"
    ):
        activities += page
    positions = rows_in(get(positions_request()), list[PositionRow], "positions")
    funds = rows_in(get(account_request()), AccountRow, "account")
    return report_of(ACCOUNT, rows, activities, positions, funds, chains, Nanos(at), Nanos(at))

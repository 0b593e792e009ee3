"""Drives a simulator with the official SDK.  Run by a Python that has it: ``sdk_round_trip.py <url>``.

Prints one JSON object of what it saw; the test judges.  It imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

from alpaca.common.exceptions import APIError
from alpaca.data.enums import DataFeed
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.live import StockDataStream
from alpaca.data.requests import (
    StockBarsRequest,
    StockLatestBarRequest,
    StockLatestQuoteRequest,
    StockLatestTradeRequest,
    StockQuotesRequest,
    StockSnapshotRequest,
    StockTradesRequest,
)
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import AssetClass, OrderClass, OrderSide, QueryOrderStatus, TimeInForce
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetAssetsRequest,
    GetCalendarRequest,
    GetOrderByIdRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    ReplaceOrderRequest,
    StopLimitOrderRequest,
    StopLossRequest,
    StopOrderRequest,
    TakeProfitRequest,
    TrailingStopOrderRequest,
)
from alpaca.trading.stream import TradingStream

KEY, SECRET = "PKSIMULATED", "simulated-secret"
WITHIN_S = 30.0


def control(url: str, name: str, **wish: Any) -> Any:
    request = urllib.request.Request(
        f"{url}/simulator/{name}", json.dumps(wish).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.loads(answer.read())


def until(what: str, check: Any) -> Any:
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {WITHIN_S:g} s")


def refused(act: Any) -> dict[str, Any]:
    try:
        act()
    except APIError as error:
        return {"status": error.status_code, "code": error.code, "message": error.message}
    return {"status": 0}


def trade(url: str, client: TradingClient, seen: dict[str, Any]) -> None:
    account = client.get_account()
    seen["account"] = [str(account.status), account.cash, account.buying_power, account.account_number]
    seen["clock"] = client.get_clock().is_open
    seen["calendar"] = len(client.get_calendar(GetCalendarRequest()))
    seen["assets"] = [a.symbol for a in client.get_all_assets(GetAssetsRequest(asset_class=AssetClass.US_EQUITY))]
    seen["asset"] = client.get_asset("AAPL").tradable
    common = {"symbol": "AAPL", "side": OrderSide.BUY, "time_in_force": TimeInForce.GTC}
    control(url, "quote", symbol="AAPL", bid=99.9, ask=100.1, bid_size=500, ask_size=500)
    control(url, "trade", symbol="AAPL", price=100)
    bought = client.submit_order(
        MarketOrderRequest(**{**common, "time_in_force": TimeInForce.DAY}, qty=20, client_order_id="sdk-market")
    )
    done = until("the market order", lambda: (o := client.get_order_by_id(bought.id)).filled_at and o)
    seen["market"] = [str(done.status), done.filled_qty, done.filled_avg_price, done.client_order_id]
    seen["part"] = str(
        client.submit_order(
            MarketOrderRequest(symbol="AAPL", side=OrderSide.BUY, time_in_force=TimeInForce.DAY, notional=50)
        ).notional
    )
    resting = {
        "limit": client.submit_order(LimitOrderRequest(**common, qty=1, limit_price=90)),
        "stop": client.submit_order(StopOrderRequest(**common, qty=1, stop_price=130)),
        "stop_limit": client.submit_order(StopLimitOrderRequest(**common, qty=1, stop_price=130, limit_price=131)),
        "trailing": client.submit_order(TrailingStopOrderRequest(**common, qty=1, trail_percent=20)),
    }
    seen["resting"] = {name: str(client.get_order_by_id(o.id).status) for name, o in resting.items()}
    seen["trail_stop"] = client.get_order_by_id(resting["trailing"].id).stop_price
    replaced = client.replace_order_by_id(resting["limit"].id, ReplaceOrderRequest(qty=2, limit_price=91))
    seen["replaced"] = [
        str(client.get_order_by_id(resting["limit"].id).status),
        str(replaced.replaces) == str(resting["limit"].id),
        client.get_order_by_id(replaced.id).qty,
    ]
    seen["by_client_id"] = str(client.get_order_by_client_id("sdk-market").id) == str(bought.id)
    bracket = client.submit_order(
        MarketOrderRequest(
            symbol="MSFT",
            qty=1,
            side=OrderSide.BUY,
            time_in_force=TimeInForce.GTC,
            order_class=OrderClass.BRACKET,
            take_profit=TakeProfitRequest(limit_price=900),
            stop_loss=StopLossRequest(stop_price=100),
        )
    )
    nested = client.get_order_by_id(bracket.id, GetOrderByIdRequest(nested=True))
    seen["bracket"] = [str(nested.order_class), sorted(str(leg.status) for leg in nested.legs)]
    opened = client.get_orders(GetOrdersRequest(status=QueryOrderStatus.OPEN, symbols=["AAPL"], limit=3))
    seen["open"] = len(opened)
    closed = client.get_orders(GetOrdersRequest(status=QueryOrderStatus.CLOSED, direction="asc"))
    seen["closed"] = len(closed)
    seen["cancel"] = client.cancel_order_by_id(resting["stop"].id)
    seen["refusals"] = {
        "cancel_again": refused(lambda: client.cancel_order_by_id(resting["stop"].id)),
        "duplicate": refused(
            lambda: client.submit_order(MarketOrderRequest(**common, qty=1, client_order_id="sdk-market"))
        ),
        "too_much": refused(lambda: client.submit_order(MarketOrderRequest(**common, qty=1_000_000))),
        "sub_penny": refused(lambda: client.submit_order(LimitOrderRequest(**common, qty=1, limit_price=90.001))),
        "unknown": refused(lambda: client.get_order_by_id("00000000-0000-4000-8000-000000000000")),
    }
    position = client.get_open_position("AAPL")
    seen["position"] = [position.qty[:4], str(position.side), position.asset_class.value]
    seen["close_part"] = client.close_position("AAPL", ClosePositionRequest(qty="5")).qty
    seen["cancel_all"] = [c.status for c in client.cancel_orders()]
    seen["close_all"] = sorted(c.status for c in client.close_all_positions(cancel_orders=True))
    until("flat positions", lambda: not client.get_all_positions())
    seen["activities"] = len(client.get("/account/activities/FILL", {"page_size": 100}))
    control(url, "misbehave", method="GET", path="/v2/account", status=504, times=1)
    seen["retried"] = client.get_account().account_number


def watch_orders(url: str, client: TradingClient, seen: dict[str, Any]) -> None:
    stream = TradingStream(KEY, SECRET, url_override=url.replace("http", "ws") + "/stream")
    events: list[list[str]] = []

    async def take(update: Any) -> None:
        events.append(
            [
                getattr(update.event, "value", update.event),
                update.order.status.value,
                str(update.qty),
                bool(update.execution_id),
            ]
        )

    stream.subscribe_trade_updates(take)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    until("the order stream", lambda: stats(url)["order_streams"] == 1)
    control(url, "quote", symbol="AAPL", bid=99.9, ask=100.1, bid_size=3, ask_size=3)
    client.submit_order(MarketOrderRequest(symbol="AAPL", qty=5, side=OrderSide.BUY, time_in_force=TimeInForce.DAY))
    control(url, "quote", symbol="AAPL", bid=99.8, ask=100.2, bid_size=30, ask_size=30)
    until("the fill", lambda: any(e[0] == "fill" for e in events))
    order = client.submit_order(
        LimitOrderRequest(symbol="AAPL", qty=1, limit_price=80, side=OrderSide.BUY, time_in_force=TimeInForce.GTC)
    )
    client.cancel_order_by_id(order.id)
    until("the cancel", lambda: any(e[0] == "canceled" for e in events))
    seen["events"] = events
    stream.stop()
    thread.join(10)


def stats(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/simulator/stats", timeout=5) as answer:
        return dict(json.loads(answer.read()))


def look_back(url: str, seen: dict[str, Any]) -> None:
    data = StockHistoricalDataClient(KEY, SECRET, url_override=url)
    start = datetime.now(UTC) - timedelta(hours=3)
    symbols = ["AAPL", "MSFT"]
    bars = data.get_stock_bars(
        StockBarsRequest(symbol_or_symbols=symbols, timeframe=TimeFrame.Minute, start=start, limit=250)
    )
    whole = data.get_stock_bars(StockBarsRequest(symbol_or_symbols=symbols, timeframe=TimeFrame.Minute, start=start))
    seen["bars"] = sum(len(rows) for rows in bars.data.values())
    seen["all_bars"] = sorted(whole.data)
    first = whole.data["AAPL"][0]
    seen["bar"] = first.low <= first.open <= first.high and first.volume > 0
    seen["trades"] = len(data.get_stock_trades(StockTradesRequest(symbol_or_symbols="AAPL", start=start)).data["AAPL"])
    seen["quotes"] = len(data.get_stock_quotes(StockQuotesRequest(symbol_or_symbols="AAPL", start=start)).data["AAPL"])
    seen["latest"] = [
        data.get_stock_latest_trade(StockLatestTradeRequest(symbol_or_symbols="AAPL"))["AAPL"].price > 0,
        data.get_stock_latest_quote(StockLatestQuoteRequest(symbol_or_symbols="AAPL"))["AAPL"].ask_price > 0,
        data.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols="AAPL"))["AAPL"].close > 0,
        data.get_stock_snapshot(StockSnapshotRequest(symbol_or_symbols="AAPL"))["AAPL"].latest_trade.price > 0,
    ]


def watch_market(url: str, seen: dict[str, Any]) -> None:
    stream = StockDataStream(KEY, SECRET, feed=DataFeed.IEX, url_override=url.replace("http", "ws") + "/v2/iex")
    ticks: dict[str, list[Any]] = {"trades": [], "quotes": []}

    async def take_trade(tick: Any) -> None:
        ticks["trades"].append([tick.symbol, tick.price, tick.timestamp.tzinfo is not None])

    async def take_quote(tick: Any) -> None:
        ticks["quotes"].append([tick.symbol, tick.bid_price, tick.ask_price])

    stream.subscribe_trades(take_trade, "AAPL")
    stream.subscribe_quotes(take_quote, "AAPL")
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    until("the market stream", lambda: stats(url)["data_streams"] == 1)

    def came() -> bool:
        control(url, "trade", symbol="AAPL", price=101.25)
        control(url, "quote", symbol="AAPL", bid=101.2, ask=101.3)
        return bool(ticks["trades"] and ticks["quotes"])

    until("ticks", came)
    seen["stream_trade"], seen["stream_quote"] = ticks["trades"][0], ticks["quotes"][0]
    asyncio.run_coroutine_threadsafe(stream.stop_ws(), stream._loop).result(10)
    thread.join(10)


def main(url: str) -> None:
    seen: dict[str, Any] = {}
    client = TradingClient(KEY, SECRET, paper=True, url_override=url)
    seen["unauthorized"] = refused(lambda: TradingClient("x", "y", paper=True, url_override=url).get_account())
    trade(url, client, seen)
    watch_orders(url, client, seen)
    look_back(url, seen)
    watch_market(url, seen)
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])

"""The simulator's REST answers, in Binance's words.

Sources: "General endpoints" and "Market Data endpoints" of the spot and USD-M REST documentation, and its
list of error codes (-1102 a mandatory parameter is missing, -1121 invalid symbol, -1120 invalid interval,
-1130 a parameter out of range).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from connectors.binance.product import SPOT, intervals
from connectors.binance.simulated_market import SimulatedMarket
from connectors.binance.source import MinuteBar, SymbolSpec

_WEIGHTS: Final = {
    "/exchangeInfo": 20,
    "/depth": 5,
    "/klines": 2,
    "/trades": 25,
    "/historicalTrades": 25,
    "/ticker/bookTicker": 2,
}


class Answer(msgspec.Struct, frozen=True):
    """An HTTP answer: status, JSON body, further headers."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def error(code: int, message: str, status: int = 400) -> Answer:
    """An error in Binance's form."""
    return Answer(status, msgspec.json.encode({"code": code, "msg": message}))


class SimulatedRest:
    """Answers GET requests from the market's state; counts weight per minute as the real one does."""

    def __init__(self, market: SimulatedMarket, weight_per_minute: int | None = None) -> None:
        self._market = market
        self._most = weight_per_minute or market.product.weight_per_minute
        self._minute = 0
        self._used = 0
        #: Requests so far, by path.
        self.requests: Counter[str] = Counter()
        #: Answer this many requests with `limit_status` and Retry-After first (a test's wish).
        self.limited = 0
        self.limit_status = 429
        self.retry_after = 1

    def get(self, path: str, query: Mapping[str, str], now_ms: int, wall_ms: int) -> Answer:
        """The answer to ``GET path``; ``now_ms`` is market time, ``wall_ms`` this machine's."""
        product = self._market.product
        if not path.startswith(product.rest_path + "/"):
            return error(-5000, f"Path {path}, Method GET is invalid", 404)
        path = path.removeprefix(product.rest_path)
        self.requests[path] += 1
        if wall_ms // 60_000 != self._minute:
            self._minute, self._used = wall_ms // 60_000, 0
        self._used += _WEIGHTS.get(path, 1)
        headers = (("X-MBX-USED-WEIGHT-1M", str(self._used)),)
        if self.limited > 0 or self._used > self._most:
            self.limited = max(0, self.limited - 1)
            said = error(-1003, "Too many requests; current limit is exceeded.", self.limit_status)
            return Answer(said.status, said.body, (*headers, ("Retry-After", str(self.retry_after))))
        answer = self._answer(path, query, now_ms)
        return Answer(answer.status, answer.body, headers)

    def _answer(self, path: str, query: Mapping[str, str], now_ms: int) -> Answer:
        if path == "/ping":
            return Answer(200, b"{}")
        if path == "/time":
            return Answer(200, b'{"serverTime":%d}' % now_ms)
        if path == "/exchangeInfo":
            return self._exchange_info(now_ms)
        if path == "/klines":
            return self._klines(query, now_ms)
        if path == "/trades":
            return self._trades(query)
        if path == "/historicalTrades":
            return self._historical_trades(query)
        if path == "/ticker/bookTicker":
            spec = self._symbol(query)
            return spec if isinstance(spec, Answer) else _said(self._market.quote(spec.symbol))
        if path == "/depth":
            return self._depth(query, now_ms)
        return error(-5000, f"Path {path}, Method GET is invalid", 404)

    def _exchange_info(self, now_ms: int) -> Answer:
        product = self._market.product
        spot = product is SPOT
        return Answer(
            200,
            msgspec.json.encode(
                {
                    "timezone": "UTC",
                    "serverTime": now_ms,
                    "rateLimits": [
                        {
                            "rateLimitType": "REQUEST_WEIGHT",
                            "interval": "MINUTE",
                            "intervalNum": 1,
                            "limit": product.weight_per_minute,
                        }
                    ],
                    "exchangeFilters": [],
                    "symbols": [_listing(spec, spot) for spec in self._market.symbols.values()],
                }
            ),
        )

    def _symbol(self, query: Mapping[str, str]) -> SymbolSpec | Answer:
        name = query.get("symbol")
        if not name:
            return error(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        return self._market.symbols.get(name) or error(-1121, "Invalid symbol.")

    def _klines(self, query: Mapping[str, str], now_ms: int) -> Answer:
        spec = self._symbol(query)
        if isinstance(spec, Answer):
            return spec
        if not query.get("interval"):
            return error(-1102, "Mandatory parameter 'interval' was not sent, was empty/null, or malformed.")
        length = intervals(self._market.product).get(query["interval"])
        if length is None:
            return error(-1120, "Invalid interval.")
        numbers = _numbers(query, startTime=0, endTime=2**62, limit=500)
        if isinstance(numbers, Answer):
            return numbers
        start, end, limit = numbers
        if not 1 <= limit <= self._market.product.klines_per_page:
            return error(-1130, "Data sent for parameter 'limit' is not valid.")
        kept = self._market.seconds(spec.symbol) if length < 60_000 else self._market.minutes(spec.symbol)
        bars = kept.group(length, start, end, limit, "startTime" not in query)
        return Answer(200, msgspec.json.encode([_kline(bar, length) for bar in bars]))

    def _trades(self, query: Mapping[str, str]) -> Answer:
        spec = self._symbol(query)
        if isinstance(spec, Answer):
            return spec
        numbers = _numbers(query, limit=500)
        if isinstance(numbers, Answer):
            return numbers
        if not 1 <= numbers[0] <= 1000:
            return error(-1130, "Data sent for parameter 'limit' is not valid.")
        return _said(self._market.trades(spec.symbol, numbers[0]))

    def _historical_trades(self, query: Mapping[str, str]) -> Answer:
        if self._market.product is not SPOT:
            return error(-2014, "API-key format invalid.", 401)
        spec = self._symbol(query)
        if isinstance(spec, Answer):
            return spec
        numbers = _numbers(query, limit=500, fromId=-1)
        if isinstance(numbers, Answer):
            return numbers
        limit, first = numbers
        if not 1 <= limit <= 1000:
            return error(-1130, "Data sent for parameter 'limit' is not valid.")
        return _said(self._market.trades(spec.symbol, limit, None if first < 0 else first))

    def _depth(self, query: Mapping[str, str], now_ms: int) -> Answer:
        spec = self._symbol(query)
        if isinstance(spec, Answer):
            return spec
        numbers = _numbers(query, limit=100)
        if isinstance(numbers, Answer):
            return numbers
        if not 1 <= numbers[0] <= 5000:
            return error(-1130, "Data sent for parameter 'limit' is not valid.")
        last, bids, asks = self._market.book(spec.symbol).snapshot(numbers[0])
        body: dict[str, Any] = {"lastUpdateId": last}
        if self._market.product is not SPOT:
            body |= {"E": now_ms, "T": now_ms}
        return Answer(200, msgspec.json.encode(body | {"bids": bids, "asks": asks}))


def _said(body: Any) -> Answer:
    return Answer(200, msgspec.json.encode(body))


def _numbers(query: Mapping[str, str], **defaults: int) -> list[int] | Answer:
    numbers = []
    for name, default in defaults.items():
        text = query.get(name, "")
        if text and not text.isdecimal():
            return error(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
        numbers.append(int(text) if text else default)
    return numbers


def _kline(bar: MinuteBar, length_ms: int) -> list[Any]:
    # The taker's half of the volume is not known here; Binance's own last column is unused too.
    quote = f"{bar.volume * (bar.high + bar.low) / 2:.8f}"
    return [
        bar.opened,
        f"{bar.open:.8f}",
        f"{bar.high:.8f}",
        f"{bar.low:.8f}",
        f"{bar.close:.8f}",
        f"{bar.volume:.8f}",
        bar.opened + length_ms - 1,
        quote,
        bar.trades,
        f"{bar.volume / 2:.8f}",
        "0.00000000",
        "0",
    ]


def _listing(spec: SymbolSpec, spot: bool) -> dict[str, Any]:
    tick, lot = f"{spec.tick:f}", f"{spec.lot:f}"
    filters: list[dict[str, Any]] = [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "10000000", "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "10000000", "stepSize": lot},
    ]
    common = {
        "symbol": spec.symbol,
        "status": "TRADING",
        "baseAsset": spec.base,
        "quoteAsset": spec.quote,
        "filters": filters,
    }
    if spot:
        filters.append({"filterType": "NOTIONAL", "minNotional": "0.00000000"})
        return common | {"isSpotTradingAllowed": True, "permissionSets": [["SPOT"]]}
    filters.append({"filterType": "MIN_NOTIONAL", "notional": "0"})
    return common | {
        "pair": spec.symbol,
        "contractType": "PERPETUAL",
        "marginAsset": spec.quote,
        "underlyingType": "COIN",
    }

"""Market data v2 of the simulator: history by REST, ticks and bars by WebSocket.

Sources: the data API's OpenAPI document, the AsyncAPI document, "Real-time Stock Data" of Alpaca's documentation.
With ``Content-Type: application/msgpack`` both directions of the WebSocket are MessagePack, times as its timestamps.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from connectors.alpaca.simulated_market import Listing, QuoteTick, SimulatedMarket, TradeTick
from connectors.alpaca.simulated_wire import Line
from connectors.alpaca.venue_checks import BAD_FIELD, Refusal
from connectors.alpaca.wire import Request, nanos, rfc3339
from trading.ids import Nanos

_SECOND: Final = 1_000_000_000
_TIMEFRAME: Final = re.compile(r"(\d{1,3})(Min|T|Hour|H|Day|D|Week|W)")
_LENGTHS: Final = {"Min": 60, "T": 60, "Hour": 3_600, "H": 3_600, "Day": 86_400, "D": 86_400, "Week": 604_800}
_LARGEST_PAGE: Final = 10_000
CHANNELS: Final = (
    "trades",
    "quotes",
    "bars",
    "updatedBars",
    "dailyBars",
    "statuses",
    "lulds",
    "corrections",
    "cancelErrors",
)
#: Streams of shares that there are; ``test`` has the symbol FAKEPACA only, and so nothing here.
FEEDS: Final = ("iex", "sip", "delayed_sip", "boats", "overnight", "test")

Row = tuple[int, dict[str, Any]]


def trade_row(tick: TradeTick) -> dict[str, Any]:
    """A trade as its JSON object."""
    return {
        "t": rfc3339(tick.at),
        "x": "V",
        "p": float(tick.price),
        "s": int(tick.size),
        "c": ["@"],
        "i": tick.id,
        "z": "C",
    }


def quote_row(tick: QuoteTick) -> dict[str, Any]:
    """A quote as its JSON object."""
    return {
        "t": rfc3339(tick.at),
        "ax": "V",
        "ap": float(tick.ask),
        "as": int(tick.ask_size),
        "bx": "V",
        "bp": float(tick.bid),
        "bs": int(tick.bid_size),
        "c": ["R"],
        "z": "C",
    }


class DataRest:
    """``/v2/stocks/…``."""

    def __init__(self, market: SimulatedMarket) -> None:
        self._market = market

    def get(self, path: tuple[str, ...], request: Request, now: Nanos) -> dict[str, Any]:
        """The answer to ``GET /v2/stocks/<path>``.  Raises `Refusal`."""
        match path:
            case ("snapshots",):
                return {each.asset.symbol: self._snapshot(each) for each in self._asked(request)}
            case (symbol, "snapshot"):
                return {"symbol": symbol, **self._snapshot(self._one(symbol))}
            case (("bars" | "trades" | "quotes") as kind, "latest"):
                return {kind: self._latest(kind, self._asked(request))}
            case (symbol, ("bars" | "trades" | "quotes") as kind, "latest"):
                one = self._one(symbol)
                return {"symbol": symbol, kind.removesuffix("s"): self._latest(kind, [one]).get(symbol)}
            case ("bars" | "trades" | "quotes" as kind,):
                return self._page(kind, self._asked(request), request, now)
            case (symbol, ("bars" | "trades" | "quotes") as kind):
                page = self._page(kind, [self._one(symbol)], request, now)
                return {**page, kind: page[kind].get(symbol, []), "symbol": symbol}
        raise Refusal(404, 40410000, "endpoint not found")

    def _asked(self, request: Request) -> list[Listing]:
        symbols = [s for s in (request.value("symbols") or "").split(",") if s]
        if not symbols:
            raise Refusal(400, BAD_FIELD, "symbols is required")
        return [self._market.listings[s] for s in sorted(symbols) if s in self._market.listings]

    def _one(self, symbol: str) -> Listing:
        found = self._market.listings.get(symbol)
        if found is None:
            raise Refusal(404, 40410000, f"no data found for {symbol}")
        return found

    def _latest(self, kind: str, listings: Iterable[Listing]) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        for each in listings:
            symbol = each.asset.symbol
            if kind == "bars" and each.bars:
                rows[symbol] = each.bars[-1].row
            elif kind == "trades" and each.last_trade is not None:
                rows[symbol] = trade_row(each.last_trade)
            elif kind == "quotes" and each.last_quote is not None:
                rows[symbol] = quote_row(each.last_quote)
        return rows

    def _snapshot(self, listing: Listing) -> dict[str, Any]:
        days = listing.grouped(86_400 * _SECOND, 0, 2**62)
        return {
            "latestTrade": None if listing.last_trade is None else trade_row(listing.last_trade),
            "latestQuote": None if listing.last_quote is None else quote_row(listing.last_quote),
            "minuteBar": listing.bars[-1].row if listing.bars else None,
            "dailyBar": days[-1].row if days else None,
            "prevDailyBar": days[-2].row if len(days) > 1 else None,
        }

    def _page(self, kind: str, listings: Iterable[Listing], request: Request, now: Nanos) -> dict[str, Any]:
        start = _instant(request, "start", now // (86_400 * _SECOND) * 86_400 * _SECOND)
        end = _instant(request, "end", now)
        limit = _limit(request)
        descending = request.value("sort") == "desc"
        after_symbol, skip = _read_token(request.value("page_token"))
        found: dict[str, list[dict[str, Any]]] = {}
        count = 0
        for listing in listings:
            symbol = listing.asset.symbol
            if symbol < after_symbol:
                continue
            rows = self._rows(kind, listing, request, start, end)
            if descending:
                rows.reverse()
            first = skip if symbol == after_symbol else 0
            taken = rows[first : first + limit - count]
            if taken:
                found[symbol] = [row for _, row in taken]
                count += len(taken)
            if first + len(taken) < len(rows):
                token = base64.b64encode(f"{symbol}|{first + len(taken)}".encode()).decode()
                return {kind: found, "next_page_token": token}
        return {kind: found, "next_page_token": None}

    def _rows(self, kind: str, listing: Listing, request: Request, start: int, end: int) -> list[Row]:
        if kind == "bars":
            length = _length(request.value("timeframe") or "")
            return [(bar.opened, bar.row) for bar in listing.grouped(length, start, end)]
        if kind == "trades":
            return [(tick.at, trade_row(tick)) for tick in listing.trades if start <= tick.at <= end]
        return [(tick.at, quote_row(tick)) for tick in listing.quotes if start <= tick.at <= end]


class DataStream:
    """One client of the market data WebSocket."""

    def __init__(self, line: Line, is_packed: bool, log_in: Callable[[str, str], str]) -> None:
        self._line = line
        self._is_packed = is_packed
        self._log_in = log_in
        self.is_authenticated = False
        #: channel -> symbols, ``*`` for all.
        self.wanted: dict[str, set[str]] = {channel: set() for channel in CHANNELS}
        self.symbol_limit: int | None = None
        self.send([{"T": "success", "msg": "connected"}])

    def __repr__(self) -> str:
        return f"<DataStream {sum(map(len, self.wanted.values()))} subscriptions>"

    @property
    def line(self) -> Line:
        """Its connection."""
        return self._line

    def send(self, messages: list[dict[str, Any]]) -> None:
        """Send messages in one frame."""
        if self._is_packed:
            packed = [{**m, "t": _timestamp(m["t"])} if "t" in m else m for m in messages]
            self._line.send(msgspec.msgpack.encode(packed), binary=True)
        else:
            self._line.send(msgspec.json.encode(messages), binary=False)

    def fail(self, code: int, text: str) -> None:
        """Send an error."""
        self.send([{"T": "error", "code": code, "msg": text}])

    def wants(self, channel: str, symbol: str) -> bool:
        """Whether it has asked for this."""
        asked = self.wanted[channel]
        return symbol in asked or "*" in asked

    def message(self, data: bytes) -> None:
        """Carry out a control message."""
        try:
            said = msgspec.msgpack.decode(data) if self._is_packed else msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.fail(400, "invalid syntax")
            return
        if not isinstance(said, dict) or said.get("action") not in ("auth", "subscribe", "unsubscribe"):
            self.fail(400, "invalid syntax")
        elif said["action"] == "auth":
            self._authenticate(said)
        elif not self.is_authenticated:
            self.fail(401, "not authenticated")
        else:
            self._subscribe(said)

    def _authenticate(self, said: Mapping[str, Any]) -> None:
        if self.is_authenticated:
            self.fail(403, "already authenticated")
            return
        refused = self._log_in(str(said.get("key", "")), str(said.get("secret", "")))
        if refused:
            code, _, text = refused.partition(" ")
            self.fail(int(code), text)
            self._line.close(1000, text)
            return
        self.is_authenticated = True
        self.send([{"T": "success", "msg": "authenticated"}])

    def _subscribe(self, said: Mapping[str, Any]) -> None:
        changes = {channel: said[channel] for channel in CHANNELS if channel in said}
        if any(not isinstance(symbols, list) for symbols in changes.values()) or set(said) - set(CHANNELS) - {"action"}:
            self.fail(410, "invalid subscribe action for this feed")
            return
        wanted = {channel: set(symbols) for channel, symbols in self.wanted.items()}
        for channel, symbols in changes.items():
            if said["action"] == "subscribe":
                wanted[channel] |= set(map(str, symbols))
            else:
                wanted[channel] -= set(map(str, symbols))
        if self.symbol_limit is not None and len(set().union(*wanted.values())) > self.symbol_limit:
            self.fail(405, "symbol limit exceeded")
            return
        self.wanted = wanted
        self.send([{"T": "subscription", **{channel: sorted(symbols) for channel, symbols in wanted.items()}}])


def _timestamp(text: str) -> msgspec.msgpack.Ext:
    """A MessagePack timestamp of 96 bits, which keeps nanoseconds."""
    seconds, fraction = divmod(nanos(text), _SECOND)
    return msgspec.msgpack.Ext(-1, fraction.to_bytes(4, "big") + seconds.to_bytes(8, "big", signed=True))


def _instant(request: Request, field: str, otherwise: int) -> int:
    text = request.value(field)
    if not text:
        return otherwise
    try:
        return nanos(text) if "T" in text else nanos(f"{text}T00:00:00Z")
    except ValueError as error:
        raise Refusal(400, BAD_FIELD, f"invalid {field}: {text}") from error


def _limit(request: Request) -> int:
    text = request.value("limit") or "1000"
    if not text.isdecimal() or not 1 <= int(text) <= _LARGEST_PAGE:
        raise Refusal(400, BAD_FIELD, f"limit must be between 1 and {_LARGEST_PAGE}")
    return int(text)


def _length(timeframe: str) -> int:
    match = _TIMEFRAME.fullmatch(timeframe)
    if match is None or not int(match[1]):
        raise Refusal(400, BAD_FIELD, f"invalid timeframe: {timeframe}")
    return int(match[1]) * _LENGTHS[match[2]] * _SECOND


def _read_token(token: str | None) -> tuple[str, int]:
    if not token:
        return "", 0
    try:
        symbol, _, skip = base64.b64decode(token, validate=True).decode().partition("|")
        return symbol, int(skip)
    except ValueError as error:
        raise Refusal(400, BAD_FIELD, "invalid page_token") from error

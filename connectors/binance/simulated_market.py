"""What the simulator's REST resources know: symbols, minutes built from trades, order books built from
changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from connectors.binance.product import SPOT
from connectors.binance.source import Event, MinuteBar, Source, SymbolSpec

_MS: Final = 1_000_000
#: Levels a side that a book keeps at least; the real one answers with no more than 5000.
_MOST_LEVELS: Final = 1_000
#: Trades that are kept of a symbol, where the real one has all.
_MOST_TRADES: Final = 2_500
#: Bars of a second that are kept at least.
_MOST_SECONDS: Final = 50_000


class _TradeData(msgspec.Struct, gc=False):
    p: float
    q: float
    T: int
    t: int
    m: bool


class _Trade(msgspec.Struct):
    data: _TradeData


class _QuoteData(msgspec.Struct, gc=False):
    b: str
    B: str
    a: str
    A: str
    T: int = 0


class _Quote(msgspec.Struct):
    data: _QuoteData


class _DepthData(msgspec.Struct):
    u: int
    b: list[tuple[str, str]]
    a: list[tuple[str, str]]


class _Depth(msgspec.Struct):
    data: _DepthData


_trade = msgspec.json.Decoder(_Trade, strict=False).decode
_quote = msgspec.json.Decoder(_Quote).decode
_depth = msgspec.json.Decoder(_Depth).decode


class OrderBook:
    """An order book from changes; what it never heard of is not in it."""

    def __init__(self) -> None:
        self._waiting: list[bytes] = []
        self._bids: dict[str, str] = {}
        self._asks: dict[str, str] = {}
        self._last = 0

    def change(self, payload: bytes) -> None:
        """Take a change; applied only now and then, for most are never asked about."""
        self._waiting.append(payload)
        if len(self._waiting) >= 50:
            self._apply()

    def snapshot(self, levels: int) -> tuple[int, list[tuple[str, str]], list[tuple[str, str]]]:
        """Last update id, bids from the best down, asks from the best up."""
        self._apply()
        bids = sorted(self._bids.items(), key=lambda level: -Decimal(level[0]))[:levels]
        asks = sorted(self._asks.items(), key=lambda level: Decimal(level[0]))[:levels]
        return self._last, bids, asks

    def _apply(self) -> None:
        for payload in self._waiting:
            data = _depth(payload).data
            self._last = data.u
            for side, changes in ((self._bids, data.b), (self._asks, data.a)):
                for price, size in changes:
                    if size.strip("0.") == "":
                        side.pop(price, None)
                    else:
                        side[price] = size
        self._waiting.clear()
        # A walking price leaves far levels behind that nobody takes away again.
        if len(self._bids) > 2 * _MOST_LEVELS:
            self._bids = dict(sorted(self._bids.items(), key=lambda level: -float(level[0]))[:_MOST_LEVELS])
        if len(self._asks) > 2 * _MOST_LEVELS:
            self._asks = dict(sorted(self._asks.items(), key=lambda level: float(level[0]))[:_MOST_LEVELS])


class Minutes:
    """The minutes, or other bars of one width, of one symbol, oldest first; the last is the one under way."""

    def __init__(self, history: Sequence[MinuteBar], width_ms: int = 60_000) -> None:
        self.bars = list(history)
        self._width = width_ms

    def trade(self, at_ms: int, price: float, size: float) -> None:
        """Count a trade; one from before the minute under way counts into that."""
        opened = at_ms - at_ms % self._width
        if self.bars and opened <= self.bars[-1].opened:
            last = self.bars[-1]
            self.bars[-1] = MinuteBar(
                last.opened,
                last.open,
                max(last.high, price),
                min(last.low, price),
                price,
                last.volume + size,
                last.trades + 1,
            )
        else:
            self.bars.append(MinuteBar(opened, price, price, price, price, size, 1))
            if self._width < 60_000 and len(self.bars) > 2 * _MOST_SECONDS:
                del self.bars[:_MOST_SECONDS]

    def latest(self, length_ms: int, at_ms: int) -> MinuteBar | None:
        """The newest bar of ``length_ms`` that has opened by ``at_ms``."""
        newest = next((bar for bar in reversed(self.bars) if bar.opened <= at_ms), None)
        if newest is None:
            return None
        opened = _opened(newest.opened, length_ms)
        first = len(self.bars)
        while first > 0 and self.bars[first - 1].opened >= opened:
            first -= 1
        found = Minutes(self.bars[first:]).group(length_ms, opened, opened, 1, False)
        return found[0] if found else None

    def group(self, length_ms: int, start: int, end: int, limit: int, newest: bool) -> list[MinuteBar]:
        """Bars of ``length_ms`` opened within [start, end].

        The first ``limit``, or the last with ``newest``.
        """
        grouped: list[MinuteBar] = []
        for bar in self.bars:
            opened = _opened(bar.opened, length_ms)
            if opened < start or opened > end:
                continue
            if grouped and grouped[-1].opened == opened:
                last = grouped[-1]
                grouped[-1] = MinuteBar(
                    opened,
                    last.open,
                    max(last.high, bar.high),
                    min(last.low, bar.low),
                    bar.close,
                    last.volume + bar.volume,
                    last.trades + bar.trades,
                )
            else:
                if len(grouped) == limit and not newest:
                    break
                grouped.append(bar._replace(opened=opened))
        return grouped[-limit:] if newest else grouped


def _opened(at_ms: int, length_ms: int) -> int:
    # Bars of weeks start on Mondays, and the epoch was a Thursday.
    shift = 4 * 86_400_000 if length_ms == 604_800_000 else 0
    return (at_ms - shift) // length_ms * length_ms + shift


class SimulatedMarket:
    """The state that the messages sent so far amount to."""

    def __init__(self, source: Source, specs: Sequence[SymbolSpec]) -> None:
        self.product = source.product
        self.symbols = {spec.symbol: spec for spec in specs}
        self._source = source
        self._minutes: dict[str, Minutes] = {}
        self._seconds: dict[str, Minutes] = {}
        self._books: dict[str, OrderBook] = {}
        #: The last trades of each symbol, and its last quote as it was sent.
        self._trades: dict[str, deque[_TradeData]] = {}
        self._quotes: dict[str, bytes] = {}
        #: Market time of the last event, UTC ns; 0 before the first.
        self.at = 0

    def minutes(self, symbol: str) -> Minutes:
        """The minutes of ``symbol``."""
        found = self._minutes.get(symbol)
        if found is None:
            found = self._minutes[symbol] = Minutes(self._source.history(symbol))
        return found

    def seconds(self, symbol: str) -> Minutes:
        """The seconds of ``symbol`` since the start."""
        return self._seconds.setdefault(symbol, Minutes((), 1_000))

    def book(self, symbol: str) -> OrderBook:
        """The order book of ``symbol``."""
        return self._books.setdefault(symbol, OrderBook())

    def trades(self, symbol: str, count: int, first: int | None = None) -> list[dict[str, Any]]:
        """The last trades of ``symbol`` as REST tells them, oldest first; those from the id ``first`` on."""
        kept = list(self._trades.get(symbol, ()))
        chosen = kept[-count:] if first is None else [trade for trade in kept if trade.t >= first][:count]
        return [
            {
                "id": trade.t,
                "price": f"{trade.p:.8f}",
                "qty": f"{trade.q:.8f}",
                "quoteQty": f"{trade.p * trade.q:.8f}",
                "time": trade.T,
                "isBuyerMaker": trade.m,
            }
            for trade in chosen
        ]

    def quote(self, symbol: str) -> dict[str, Any]:
        """The best bid and offer of ``symbol`` as REST tells them; zeros before the first."""
        raw = self._quotes.get(symbol)
        quote = _quote(raw).data if raw is not None else _QuoteData("0", "0", "0", "0")
        said: dict[str, Any] = {
            "symbol": symbol,
            "bidPrice": quote.b,
            "bidQty": quote.B,
            "askPrice": quote.a,
            "askQty": quote.A,
        }
        return said if self.product is SPOT else said | {"time": quote.T}

    def apply(self, event: Event) -> None:
        """Account for one message."""
        self.at = event.due
        symbol, _, kind = event.stream.partition("@")
        if kind == "trade":
            data = _trade(event.payload).data
            self.minutes(symbol.upper()).trade(data.T, data.p, data.q)
            recent = self._trades.get(symbol.upper())
            if recent is None:
                recent = self._trades[symbol.upper()] = deque(maxlen=_MOST_TRADES)
            recent.append(data)
            if self.product.seconds:
                self.seconds(symbol.upper()).trade(data.T, data.p, data.q)
        elif kind == "bookTicker":
            self._quotes[symbol.upper()] = event.payload
        elif kind.startswith("depth@") or kind == "depth":
            self.book(symbol.upper()).change(event.payload)

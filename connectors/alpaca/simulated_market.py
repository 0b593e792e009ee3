"""The simulator's market: seeded prices, what they have been, and bars of them.

Prices walk on the cent grid; the same seed gives the same walk.  Minutes before the start are made backwards from the
first price, so that history runs into the live market without a seam.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec

from connectors.alpaca.wire import AssetRow, rfc3339
from trading.ids import Nanos

_SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * _SECOND
#: Ticks that are kept for the history of trades and quotes, per symbol.
_KEPT: Final = 20_000

#: The first shares, with the price each starts at; further ones are made up.
_NAMES: Final = (
    ("AAPL", 190.0), ("MSFT", 420.0), ("SPY", 520.0), ("TSLA", 180.0), ("NVDA", 900.0), ("AMZN", 185.0),
    ("GOOGL", 160.0), ("META", 490.0), ("QQQ", 440.0), ("AMD", 170.0), ("INTC", 35.0), ("KO", 60.0),
    ("JPM", 195.0), ("XOM", 115.0), ("DIS", 112.0), ("BA", 185.0), ("NFLX", 610.0), ("PFE", 28.0),
    ("F", 12.5), ("T", 17.2),
)  # fmt: skip


class TradeTick(msgspec.Struct, frozen=True):
    """A trade of others."""

    id: int
    at: Nanos
    price: Decimal
    size: Decimal


class QuoteTick(msgspec.Struct, frozen=True):
    """A best bid and offer."""

    at: Nanos
    bid: Decimal
    bid_size: Decimal
    ask: Decimal
    ask_size: Decimal


class MinuteBar(msgspec.Struct):
    """A minute of trades."""

    opened: Nanos
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int
    #: Sum of price times size.
    value: float

    @property
    def row(self) -> dict[str, Any]:
        """The bar as its JSON object."""
        vwap = self.value / self.volume if self.volume else self.close
        return {
            "t": rfc3339(self.opened),
            "o": self.open,
            "h": self.high,
            "l": self.low,
            "c": self.close,
            "v": round(self.volume),
            "n": self.trades,
            "vw": round(vwap, 6),
        }


class Listing:
    """One symbol: its last prices and its history."""

    def __init__(self, asset: AssetRow, price: float, seed: int, start: Nanos, history_minutes: int) -> None:
        self.asset = asset
        self.price = price
        self.last_trade: TradeTick | None = None
        self.last_quote: QuoteTick | None = None
        self.trades: deque[TradeTick] = deque(maxlen=_KEPT)
        self.quotes: deque[QuoteTick] = deque(maxlen=_KEPT)
        self.bars: list[MinuteBar] = _past(price, seed, asset.symbol, start, history_minutes)
        self._made = 0

    def trade(self, price: Decimal, size: Decimal, at: Nanos) -> TradeTick:
        """Record a trade."""
        self._made += 1
        tick = TradeTick(self._made, at, price, size)
        self.last_trade = tick
        self.trades.append(tick)
        opened = Nanos(at // MINUTE * MINUTE)
        value, amount = float(price), float(size)
        if not self.bars or self.bars[-1].opened < opened:
            self.bars.append(MinuteBar(opened, value, value, value, value, 0.0, 0, 0.0))
        bar = self.bars[-1]
        bar.high, bar.low, bar.close = max(bar.high, value), min(bar.low, value), value
        bar.volume += amount
        bar.value += amount * value
        bar.trades += 1
        return tick

    def quote(self, bid: Decimal, bid_size: Decimal, ask: Decimal, ask_size: Decimal, at: Nanos) -> QuoteTick:
        """Record a quote."""
        tick = QuoteTick(at, bid, bid_size, ask, ask_size)
        self.last_quote = tick
        self.quotes.append(tick)
        return tick

    def grouped(self, length: int, start: int, end: int) -> list[MinuteBar]:
        """Bars of ``length`` nanoseconds that open in ``start <= opened <= end``, the last one maybe unfinished."""
        made: list[MinuteBar] = []
        for minute in self.bars:
            opened = Nanos(minute.opened // length * length)
            if not start <= opened <= end:
                continue
            if not made or made[-1].opened != opened:
                made.append(MinuteBar(opened, minute.open, minute.high, minute.low, minute.close, 0.0, 0, 0.0))
            bar = made[-1]
            bar.high, bar.low, bar.close = max(bar.high, minute.high), min(bar.low, minute.low), minute.close
            bar.volume += minute.volume
            bar.trades += minute.trades
            bar.value += minute.value
        return made


class SimulatedMarket:
    """All symbols, and the walk of their prices."""

    def __init__(
        self,
        symbols: int,
        seed: int,
        start: Nanos,
        *,
        volatility: float = 2e-4,
        history_minutes: int = 2_000,
        trade_share: float = 0.4,
    ) -> None:
        self._random = random.Random(seed)
        self._volatility = volatility
        self._trade_share = trade_share
        self.listings: dict[str, Listing] = {}
        for n in range(symbols):
            symbol, price = _NAMES[n] if n < len(_NAMES) else (f"SYM{n}", 20.0 + n)
            self.listings[symbol] = Listing(_asset(symbol, n), price, seed, start, history_minutes)

    @property
    def assets(self) -> list[AssetRow]:
        """Everything that is listed."""
        return [listing.asset for listing in self.listings.values()]

    def opening(self, at: Nanos) -> Iterator[tuple[Listing, QuoteTick]]:
        """A first quote of every symbol."""
        for listing in self.listings.values():
            yield listing, self._quote(listing, at)

    def step(self, at: Nanos, seconds: float) -> tuple[Listing, QuoteTick | TradeTick]:
        """One tick of a symbol chosen by chance; ``seconds`` have gone by for it."""
        listing = self._random.choice(list(self.listings.values()))
        shock = self._random.gauss(0.0, self._volatility * math.sqrt(max(seconds, 1e-3)))
        listing.price = max(listing.price * math.exp(shock), 1.0)
        last = listing.last_quote
        if last is not None and self._random.random() < self._trade_share:
            price = last.ask if self._random.random() < 0.5 else last.bid
            return listing, listing.trade(price, Decimal(self._random.randint(1, 300)), at)
        return listing, self._quote(listing, at)

    def _quote(self, listing: Listing, at: Nanos) -> QuoteTick:
        cents = round(listing.price * 100)
        spread = max(1, round(cents * 1e-4))
        sizes = (Decimal(self._random.randint(1, 20) * 100), Decimal(self._random.randint(1, 20) * 100))
        return listing.quote(Decimal(cents) / 100, sizes[0], Decimal(cents + spread) / 100, sizes[1], at)


def _asset(symbol: str, number: int) -> AssetRow:
    return AssetRow(
        id=f"a55e7000-0000-4000-8000-{number:012d}",
        symbol=symbol,
        asset_class="us_equity",
        exchange="NASDAQ",
        name=f"{symbol} Common Stock",
        status="active",
        tradable=True,
        fractionable=True,
        shortable=True,
        marginable=True,
        easy_to_borrow=True,
    )


def _past(price: float, seed: int, symbol: str, start: Nanos, minutes: int) -> list[MinuteBar]:
    chance = random.Random(f"{seed}/{symbol}")
    bars: list[MinuteBar] = []
    close = price
    opened = start // MINUTE * MINUTE
    for n in range(minutes):
        opened_at = close * math.exp(chance.gauss(0.0, 8e-4))
        high = max(opened_at, close) * (1 + abs(chance.gauss(0.0, 3e-4)))
        low = min(opened_at, close) * (1 - abs(chance.gauss(0.0, 3e-4)))
        volume = float(chance.randint(1_000, 50_000))
        rounded = [round(value, 2) for value in (opened_at, high, low, close)]
        bars.append(
            MinuteBar(
                opened=Nanos(opened - (n + 1) * MINUTE),
                open=rounded[0],
                high=rounded[1],
                low=rounded[2],
                close=rounded[3],
                volume=volume,
                trades=chance.randint(10, 500),
                value=volume * sum(rounded) / 4,
            )
        )
        close = opened_at
    bars.reverse()
    return bars

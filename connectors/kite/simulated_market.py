"""The simulator's market: instruments, prices made from a seed, and how Kite writes them.  Pure.

Source of the packets: "WebSocket streaming" of the Kite Connect v3 documentation; of quotes, lists and candles the
pages of the same names.
"""

from __future__ import annotations

import csv
import io
import random
import struct
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any, Final

from connectors.kite.codec import scale_of
from connectors.kite.wire import DAY_NS, INTERVALS, ist, ist_iso
from trading.ids import Nanos

_SECOND: Final = 1_000_000_000
_COLUMNS: Final = (
    "instrument_token",
    "exchange_token",
    "tradingsymbol",
    "name",
    "last_price",
    "expiry",
    "strike",
    "tick_size",
    "lot_size",
    "instrument_type",
    "segment",
    "exchange",
)
_WORD: Final = struct.Struct(">I")
_LEVEL: Final = struct.Struct(">IIHxx")
#: Nanoseconds of an interval by the wire's word.
_LENGTHS: Final = {
    each.word: (DAY_NS if each.word == "day" else int(each.word.removesuffix("minute") or 1) * 60 * _SECOND)
    for each in INTERVALS.values()
}
MOST_DAYS: Final = {each.word: each.most_days for each in INTERVALS.values()}
_DAY_SHIFT: Final = 19_800 * _SECOND


class Listing:
    """One instrument and its day so far; prices are integers of the wire."""

    def __init__(
        self,
        token: int,
        symbol: str,
        exchange: str,
        price: int,
        *,
        name: str = "",
        segment: str = "",
        kind: str = "EQ",
        expiry: date | None = None,
        strike: float = 0.0,
        lot: int = 1,
        step: int = 5,
    ) -> None:
        self.token = token
        self.symbol = symbol
        self.exchange = exchange
        self.name = name or symbol
        self.segment = segment or exchange
        self.kind = kind
        self.expiry = expiry
        self.strike = strike
        self.lot = lot
        self.step = step
        self.scale = scale_of(token)
        self.open = self.high = self.low = self.close = self.last = price
        self.last_size = self.volume = 0
        self.traded = 0
        self.traded_at = self.changed_at = Nanos(0)
        self.oi = 0
        #: (price, size, orders), best first.
        self.bids: list[tuple[int, int, int]] = []
        self.asks: list[tuple[int, int, int]] = []

    def __repr__(self) -> str:
        return f"<Listing {self.id} {self.last / self.scale:g}>"

    @property
    def id(self) -> str:
        """``exchange:tradingsymbol``."""
        return f"{self.exchange}:{self.symbol}"

    @property
    def is_index(self) -> bool:
        """Whether it is a figure and not a thing."""
        return self.token & 0xFF == 9

    def trade(self, price: int, size: int, at: Nanos) -> None:
        """Somebody has traded."""
        self.last, self.high, self.low = price, max(self.high, price), min(self.low, price)
        self.changed_at = at
        if not self.is_index:
            self.last_size, self.traded_at = size, at
            self.volume += size
            self.traded += price * size

    def show(self, bids: Iterable[tuple[int, int, int]], asks: Iterable[tuple[int, int, int]], at: Nanos) -> None:
        """The book is now this."""
        self.bids, self.asks, self.changed_at = list(bids), list(asks), at

    def packet(self, mode: str) -> bytes:
        """The packet of a mode."""
        if mode == "ltp":
            return _words(self.token, self.last)
        if self.is_index:
            figures = (self.token, self.last, self.high, self.low, self.open, self.close, (self.last - self.close))
            packed = _words(*(figure & 0xFFFFFFFF for figure in figures))
            return packed + _words(self.changed_at // _SECOND) if mode == "full" else packed
        packed = _words(
            self.token,
            self.last,
            self.last_size,
            self.average,
            self.volume,
            sum(size for _, size, _ in self.bids),
            sum(size for _, size, _ in self.asks),
            self.open,
            self.high,
            self.low,
            self.close,
        )
        if mode == "quote":
            return packed
        packed += _words(self.traded_at // _SECOND, self.oi, self.oi, self.oi, self.changed_at // _SECOND)
        for side in (self.bids, self.asks):
            for price, size, orders in [*side, *[(0, 0, 0)] * 5][:5]:
                packed += _LEVEL.pack(size, price, orders)
        return packed

    @property
    def average(self) -> int:
        """Average price of the day's trades."""
        return self.traded // self.volume if self.volume else 0

    def row(self) -> list[Any]:
        """A row of the list of instruments."""
        return [
            self.token,
            self.token >> 8,
            self.symbol,
            self.name,
            0.0,
            self.expiry.isoformat() if self.expiry else "",
            self.strike,
            0.0 if self.is_index else self.step / self.scale,
            0 if self.is_index else self.lot,
            self.kind,
            self.segment,
            self.exchange,
        ]

    def ltp(self) -> dict[str, Any]:
        """A row of ``/quote/ltp``."""
        return {"instrument_token": self.token, "last_price": self.last / self.scale}

    def ohlc(self) -> dict[str, Any]:
        """A row of ``/quote/ohlc``."""
        day = {name: getattr(self, name) / self.scale for name in ("open", "high", "low", "close")}
        return {**self.ltp(), "ohlc": day}

    def quote(self) -> dict[str, Any]:
        """A row of ``/quote``."""
        found = {
            **self.ohlc(),
            "timestamp": ist(self.changed_at),
            "net_change": (self.last - self.close) / self.scale,
        }
        if self.is_index:
            return found
        return {
            **found,
            "last_trade_time": ist(self.traded_at) if self.traded_at else None,
            "last_quantity": self.last_size,
            "buy_quantity": sum(size for _, size, _ in self.bids),
            "sell_quantity": sum(size for _, size, _ in self.asks),
            "volume": self.volume,
            "average_price": self.average / self.scale,
            "oi": self.oi,
            "oi_day_high": self.oi,
            "oi_day_low": self.oi,
            "lower_circuit_limit": self.close * 0.9 / self.scale,
            "upper_circuit_limit": self.close * 1.1 / self.scale,
            "depth": {
                side: [
                    {"price": price / self.scale, "quantity": size, "orders": orders}
                    for price, size, orders in [*levels, *[(0, 0, 0)] * 5][:5]
                ]
                for side, levels in (("buy", self.bids), ("sell", self.asks))
            },
        }

    def candles(self, word: str, start: Nanos, end: Nanos, now: Nanos, oi: bool) -> list[list[Any]]:
        """Candles that open in ``[start, end]`` and not after ``now``, on working days between 9:15 and 15:30.

        Each is made from its own time, so any request sees the same.
        """
        length = _LENGTHS[word]
        first_of_day = 0 if word == "day" else (9 * 60 + 15) * 60 * _SECOND
        last_of_day = 1 if word == "day" else (15 * 60 + 30) * 60 * _SECOND
        found: list[list[Any]] = []
        day = (start + _DAY_SHIFT) // DAY_NS * DAY_NS - _DAY_SHIFT
        while day <= min(end, now):
            # The epoch was a Thursday.
            if ((day + _DAY_SHIFT) // DAY_NS + 3) % 7 < 5:
                for at in range(day + first_of_day, day + last_of_day, length):
                    if start <= at <= min(end, now):
                        found.append(self._candle(Nanos(at), oi))
            day += DAY_NS
        return found

    def _candle(self, at: Nanos, oi: bool) -> list[Any]:
        chance = random.Random(at // _SECOND ^ self.token)
        prices = [self.close + self.step * chance.randrange(-100, 101) for _ in range(4)]
        opened, closed = prices[0], prices[1]
        figures = [ist_iso(at), *(price / self.scale for price in (opened, max(prices), min(prices), closed))]
        figures.append(0 if self.is_index else chance.randrange(1, 10_000))
        return [*figures, self.oi] if oi else figures


class SimulatedMarket:
    """All instruments and a walk of their prices."""

    def __init__(self, shares: int, seed: int, now: Nanos, today: date) -> None:
        self._chance = random.Random(seed)
        self.listings: dict[int, Listing] = {}
        self._order: list[Listing] = []
        self.by_id: dict[str, Listing] = {}
        self.add(Listing(256265, "NIFTY 50", "NSE", 2_400_000, segment="INDICES"))
        self.add(Listing(408065, "INFY", "NSE", 150_000, name="INFOSYS"))
        if shares > 1:
            self.add(Listing(128053508, "INFY", "BSE", 150_010, name="INFOSYS"))
        self.add(
            Listing(
                12073986,
                f"NIFTY{today + timedelta(days=9):%y%b}FUT".upper(),
                "NFO",
                2_410_000,
                name="NIFTY",
                segment="NFO-FUT",
                kind="FUT",
                expiry=today + timedelta(days=9),
                lot=75,
            )
        )
        self.add(
            Listing(
                412675,
                f"USDINR{today + timedelta(days=9):%y%b}FUT".upper(),
                "CDS",
                832_500_000,
                name="USDINR",
                segment="CDS-FUT",
                kind="FUT",
                expiry=today + timedelta(days=9),
                step=25_000,
            )
        )
        self.add(
            Listing(
                13073922,
                "NIFTYOLDFUT",
                "NFO",
                2_380_000,
                name="NIFTY",
                segment="NFO-FUT",
                kind="FUT",
                expiry=today - timedelta(days=1),
                lot=75,
            )
        )
        for number in range(shares - 2):
            self.add(Listing((10_000 + number) << 8 | 1, f"SHARE{number}", "NSE", 10_000 + 10 * number))
        for listing in self.listings.values():
            self._quote(listing, now)
            if not listing.is_index:
                listing.trade(listing.last, 10 * listing.lot, now)

    def add(self, listing: Listing) -> None:
        """List an instrument."""
        self.listings[listing.token] = self.by_id[listing.id] = listing
        self._order.append(listing)

    def expire(self, id_: str) -> None:
        """An instrument is not listed any more."""
        gone = self.by_id.pop(id_)
        self.listings.pop(gone.token, None)
        self._order.remove(gone)

    def live(self, today: date) -> list[Listing]:
        """What has not expired."""
        return [each for each in self.by_id.values() if each.expiry is None or each.expiry >= today]

    def step(self, now: Nanos) -> Listing:
        """One instrument moves."""
        listing = self._chance.choice(self._order)
        price = max(listing.step * 20, listing.last + listing.step * self._chance.randrange(-3, 4))
        if self._chance.random() < 0.5:
            listing.trade(price, listing.lot * self._chance.randrange(1, 20), now)
        self._quote(listing, now)
        return listing

    def _quote(self, listing: Listing, now: Nanos) -> None:
        if listing.is_index:
            return

        def side(direction: int) -> list[tuple[int, int, int]]:
            return [
                (
                    listing.last + direction * listing.step * (level + 1),
                    listing.lot * self._chance.randrange(1, 200),
                    self._chance.randrange(1, 30),
                )
                for level in range(5)
            ]

        listing.show(side(-1), side(1), now)

    def csv(self, listings: Iterable[Listing]) -> bytes:
        """The list of instruments."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(each.row() for each in listings)
        return text.getvalue().encode()


def frame(packets: Iterable[bytes]) -> bytes:
    """A binary message of packets."""
    listed = list(packets)
    return struct.pack(">H", len(listed)) + b"".join(struct.pack(">H", len(each)) + each for each in listed)


def _words(*words: int) -> bytes:
    return b"".join(_WORD.pack(word) for word in words)

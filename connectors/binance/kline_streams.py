"""The kline streams of the simulator: bars under way, pushed as they change, and once more when they close.

Source: "Kline/Candlestick Streams": at most one push in 250 ms here, ``x`` true on the last one of a bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from typing import Final

import msgspec

from connectors.binance.product import INTERVALS
from connectors.binance.simulated_market import SimulatedMarket
from connectors.binance.source import MinuteBar

_EVERY_NS: Final = 250_000_000


class _Told(msgspec.Struct):
    opened: int
    trades: int
    at: int


class KlineStreams:
    """Remembers what each kline stream was last told."""

    def __init__(self, market: SimulatedMarket) -> None:
        self._market = market
        self._told: dict[str, _Told] = {}

    def due(self, subscribers: Mapping[str, Sized]) -> Iterator[tuple[str, bytes]]:
        """``(stream, message)`` for each subscribed kline stream that has something new."""
        for stream in [stream for stream in subscribers if "@kline_" in stream]:
            symbol, _, interval = stream.partition("@kline_")
            length = INTERVALS.get(interval)
            if length is None or symbol.upper() not in self._market.symbols:
                continue
            yield from self._one(stream, symbol.upper(), interval, length)

    def _one(self, stream: str, symbol: str, interval: str, length: int) -> Iterator[tuple[str, bytes]]:
        at = self._market.at
        told = self._told.get(stream)
        if told is not None and at - told.at < _EVERY_NS:
            return
        minutes = self._market.minutes(symbol)
        now = at // 1_000_000
        if told is not None and now >= told.opened + length:
            closed = minutes.latest(length, told.opened + length - 1)
            if closed is not None and closed.opened == told.opened:
                yield stream, _message(stream, symbol, interval, length, closed, True, now)
            self._told[stream] = told = _Told(told.opened + length, 0, at)
        bar = minutes.latest(length, now)
        if bar is None or now >= bar.opened + length:
            return
        if told is not None and told.opened == bar.opened and told.trades == bar.trades:
            return
        self._told[stream] = _Told(bar.opened, bar.trades, at)
        yield stream, _message(stream, symbol, interval, length, bar, False, now)


def _message(stream: str, symbol: str, interval: str, length: int, bar: MinuteBar, closed: bool, now: int) -> bytes:
    kline = {
        "t": bar.opened,
        "T": bar.opened + length - 1,
        "s": symbol,
        "i": interval,
        # Ids of the first and last trade, which are not kept; -1 is Binance's word for none.
        "f": -1,
        "L": -1,
        "o": f"{bar.open:.8f}",
        "c": f"{bar.close:.8f}",
        "h": f"{bar.high:.8f}",
        "l": f"{bar.low:.8f}",
        "v": f"{bar.volume:.8f}",
        "n": bar.trades,
        "x": closed,
        "q": f"{bar.volume * (bar.high + bar.low) / 2:.8f}",
        "V": f"{bar.volume / 2:.8f}",
        "Q": "0",
        "B": "0",
    }
    event = {"e": "kline", "E": now, "s": symbol, "k": kline}
    return msgspec.json.encode({"stream": stream, "data": event})

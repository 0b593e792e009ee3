"""What the connector tests share: a sink that remembers, recorded data, instruments."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from connectors.base import BookDelta
from tests.support.patience import PATIENCE
from trading.bars import Bar
from trading.depth import DepthArray
from trading.ids import InstrumentId
from trading.instruments import Instrument
from trading.ticks import TickArray, TickBuffer, decode

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def data_file(relative: str) -> Path:
    """A file of the recorded data; skips the test where it is absent."""
    path = DATA / relative
    if not path.exists():
        pytest.skip(f"recorded data is not here: {path}")
    return path


class Sink:
    """Remembers everything a feed says."""

    def __init__(self) -> None:
        self.ticks = TickBuffer()
        self.raw: list[bytes] = []
        self.wakes = 0
        self.bars: list[tuple[int, Bar, bool]] = []
        self.books: list[BookDelta] = []
        self.depths: list[DepthArray] = []
        self.opens = 0
        self.closes: list[str] = []
        self.garbages: list[tuple[bytes, str]] = []
        self.refusals: list[tuple[InstrumentId, str]] = []

    def wake(self) -> None:
        self.wakes += 1
        self.raw.append(self.ticks.take())

    def bar(self, instrument: int, bar: Bar, final: bool) -> None:
        self.bars.append((instrument, bar, final))

    def book(self, delta: BookDelta) -> None:
        self.books.append(delta)

    def depth(self, books: DepthArray) -> None:
        self.depths.append(books)

    def opened(self) -> None:
        self.opens += 1

    def closed(self, reason: str) -> None:
        self.closes.append(reason)

    def garbage(self, raw: bytes, reason: str) -> None:
        self.garbages.append((raw, reason))

    def refused(self, instrument: InstrumentId, reason: str) -> None:
        self.refusals.append((instrument, reason))

    def all(self) -> TickArray:
        """Every tick so far, also those that nobody was woken for."""
        return decode(b"".join(self.raw) + self.ticks.take())


async def until(condition: Callable[[], bool], within: float = 10.0, what: str = "") -> None:
    """Wait until ``condition`` holds; fails the test after ``within`` seconds, or longer on a slow machine."""
    within *= PATIENCE
    try:
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"not within {within:g} s: {what or condition}")


def instrument(symbol: str = "BTCUSDT", number: int = 1, provider: str = "binance-usdm") -> Instrument:
    """An instrument with a tick of 0.1 and lots of 0.001."""
    venue = "BINANCE" if provider == "binance-spot" else "BINANCE-USDM"
    return Instrument(
        id=InstrumentId(f"{venue}:{symbol}"),
        provider_symbol=symbol,
        provider=provider,
        tick_size=Decimal("0.1"),
        lot_size=Decimal("0.001"),
        currency="USDT",
        number=number,
    )


def is_nan(value: object) -> bool:
    return bool(np.isnan(value))  # type: ignore[call-overload]

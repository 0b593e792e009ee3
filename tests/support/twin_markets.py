"""Two servers of one market: the same ticks with the same times and numbers, each with faults of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from types import TracebackType
from typing import Any

import httpx

from connectors.binance.simulator import BinanceSimulator
from connectors.binance.synthetic import SyntheticSettings, SyntheticSource
from tests.support.patience import PATIENCE


class TwinMarkets:
    """On a thread of their own, so that they answer while a test waits; held until `go`."""

    provider = "binance-spot"

    def __init__(self, symbols: int, ticks_per_s: float, seed: int = 31) -> None:
        start_at = time.time_ns() // 1_000_000_000 * 1_000_000_000
        chosen = SyntheticSettings(symbols=symbols, ticks_per_s=ticks_per_s, seed=seed, start_at=start_at)
        self._servers = [BinanceSimulator(SyntheticSource(chosen), hold=True) for _ in range(2)]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.urls: list[str] = []

    def __enter__(self) -> TwinMarkets:
        self._thread.start()
        for server in self._servers:
            asyncio.run_coroutine_threadsafe(server.start(), self._loop).result(30 * PATIENCE)
        self.urls = [server.url for server in self._servers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            asyncio.run_coroutine_threadsafe(server.stop(), self._loop).result(30 * PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def source(self, which: int) -> dict[str, Any]:
        """Provider and settings that lead to one of them."""
        return {"provider": self.provider, "settings": {"base_url": self.urls[which]}}

    def control(self, which: int, command: str, **body: Any) -> None:
        """One of a server's commands."""
        httpx.post(f"{self.urls[which]}/simulator/{command}", json=body, timeout=10 * PATIENCE).raise_for_status()

    def go(self, *, going: bool = True) -> None:
        """Let both begin, or hold."""
        for which in range(2):
            self.control(which, "start" if going else "hold")

    def silence(self, which: int, instrument: str, *, begin: bool = True) -> None:
        """Let one of them send nothing of an instrument."""
        symbol = instrument.partition(":")[2].lower()
        for kind in ("trade", "bookTicker"):
            self.control(which, "pause" if begin else "resume", stream=f"{symbol}@{kind}")

    def symbols(self) -> list[str]:
        """What both list, as they spell it."""
        listed = httpx.get(f"{self.urls[0]}/api/v3/exchangeInfo", timeout=10 * PATIENCE).json()["symbols"]
        return sorted(each["symbol"] for each in listed)

    def subscribed(self, which: int) -> int:
        """Streams that one of them has subscribers for."""
        return int(httpx.get(f"{self.urls[which]}/simulator/stats", timeout=10 * PATIENCE).json()["subscribed"])

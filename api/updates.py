"""What WebSocket clients are told of ticks, books and bars, as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from api.formats import time_text
from api.topics import MarketTopic
from trading.depth import DepthArray, prices, sizes
from trading.live_bars import LiveBar
from trading.spans import Span

_json = msgspec.json.Encoder().encode


class Update:
    """One update of a topic; its text is made when the first client wants it."""

    __slots__ = ("_make", "_text")

    def __init__(self, make: Callable[[], dict[str, Any]]) -> None:
        self._make = make
        self._text = ""

    def text(self) -> str:
        """JSON of its fields, without the braces around."""
        if not self._text:
            self._text = _json(self._make())[1:-1].decode()
        return self._text


def tick_fields(topic: MarketTopic, row: np.void, gaps: int) -> dict[str, Any]:
    """Last trade and quote of an instrument; ``gaps`` is how often something may have been missed."""
    values = {name: _number(row[name]) for name in ("price", "size", "bid", "bid_size", "ask", "ask_size")}
    return {
        "topic": topic.text,
        "key": topic.instrument,
        "at": time_text(int(row["received_at"])),
        "gaps": gaps,
        "body": {**values, "exchange_at": _time(int(row["exchange_at"])), "sequence": int(row["sequence"])},
    }


def book_update(topic: MarketTopic, book: DepthArray) -> Update:
    """One record of depth."""

    def fields() -> dict[str, Any]:
        sides = {
            side: [
                [price, size, orders]
                for price, size, orders in zip(
                    prices(book, side)[0].tolist(),
                    sizes(book, side)[0].tolist(),
                    book[side]["orders"][0].tolist(),
                    strict=True,
                )
                if price == price
            ]
            for side in ("bids", "asks")
        }
        return {
            "topic": topic.text,
            "key": topic.instrument,
            "at": time_text(int(book["received_at"][0])),
            "body": {**sides, "exchange_at": _time(int(book["exchange_at"][0]))},
        }

    return Update(fields)


def bar_update(topic: MarketTopic, told: LiveBar | Span) -> Update:
    """A bar, or what is missing."""

    def fields() -> dict[str, Any]:
        if isinstance(told, Span):
            body: dict[str, Any] = {"missing": {"start": time_text(told.start), "end": time_text(told.end)}}
            return {"topic": topic.text, "key": topic.instrument, "at": time_text(told.start), "body": body}
        bar = told.bar
        body = {
            "opened_at": time_text(bar.opened_at),
            "open": bar.open,
            "high": bar.high,
            "low": bar.low,
            "close": bar.close,
            "volume": bar.volume,
            "trades": bar.trades,
            "closed": told.closed,
        }
        return {"topic": topic.text, "key": topic.instrument, "at": time_text(bar.opened_at), "body": body}

    return Update(fields)


def _number(value: np.float64) -> float | None:
    found = float(value)
    return found if found == found else None


def _time(at: int) -> str | None:
    return time_text(at) if at else None

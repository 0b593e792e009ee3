"""Packets and frames of the ticker, written independently of the simulator, and instruments to go with them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from decimal import Decimal

from trading.ids import InstrumentId
from trading.instruments import Instrument

INFY, NIFTY, USDINR = 408065, 256265, 412675
Level = tuple[int, int, int]


def ltp(token: int = INFY, price: int = 157370) -> bytes:
    return struct.pack(">II", token, price)


def index(token: int = NIFTY, price: int = 2400000, at: int | None = None) -> bytes:
    body = struct.pack(">IIIIIIi", token, price, price + 900, price - 900, price - 50, price + 5, -5)
    return body if at is None else body + struct.pack(">I", at)


def quote(token: int = INFY, price: int = 157370, last: int = 7, volume: int = 1000) -> bytes:
    return struct.pack(">11I", token, price, last, price, volume, 256443, 363009, 156915, 157500, 156105, 156780)


def full(
    token: int = INFY,
    price: int = 157370,
    last: int = 7,
    volume: int = 1000,
    traded_at: int = 1625461887,
    at: int = 1625461888,
    bids: Sequence[Level] = ((157340, 5, 1), (157300, 140, 2)),
    asks: Sequence[Level] = ((157370, 172, 3),),
) -> bytes:
    body = quote(token, price, last, volume) + struct.pack(">5I", traded_at, 11, 12, 10, at)
    for side in (bids, asks):
        for level_price, size, orders in [*side, *[(0, 0, 0)] * 5][:5]:
            body += struct.pack(">IIHH", size, level_price, orders, 0)
    return body


def frame(*packets: bytes) -> bytes:
    return struct.pack(">H", len(packets)) + b"".join(struct.pack(">H", len(each)) + each for each in packets)


def instrument(id_: str = "NSE:INFY", token: int = INFY, number: int = 1) -> Instrument:
    return Instrument(
        id=InstrumentId(id_),
        provider_symbol=str(token),
        provider="kite",
        tick_size=Decimal("0.05"),
        lot_size=Decimal(1),
        currency="INR",
        number=number,
        calendar="XBOM",
    )

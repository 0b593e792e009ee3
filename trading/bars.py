"""Bars: open, high, low, close and volume over an interval."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from trading.errors import BadInput
from trading.ids import Nanos

_UNITS = {"s": 1_000_000_000, "m": 60_000_000_000, "h": 3_600_000_000_000, "d": 86_400_000_000_000}


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """Prices over ``[opened_at, opened_at + interval)``; floats, for bars feed indicators and not orders."""

    opened_at: Nanos
    open: float
    high: float
    low: float
    close: float
    volume: float
    trades: int = 0


def interval_ns(text: str, field: str = "interval") -> int:
    """Length of ``1s``, ``5m``, ``1h``, ``1d`` … in nanoseconds; BadInput where it is not one."""
    unit = _UNITS.get(text[-1:])
    count = text[:-1]
    if unit is None or not count.isdecimal() or not (0 < int(count) <= 10_000):
        raise BadInput(field, f"{text[:20]!r} is not an interval: write a number and s, m, h or d, such as 1m")
    return int(Decimal(count)) * unit

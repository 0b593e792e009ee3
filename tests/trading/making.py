"""Instruments and events for the tests of the pure core."""

from __future__ import annotations

from decimal import Decimal

from trading.ids import InstrumentId
from trading.instruments import Instrument


def instrument(
    tick: str = "1", lot: str = "1", *, number: int = 1, symbol: str = "AAA", multiplier: str = "1"
) -> Instrument:
    return Instrument(
        id=InstrumentId(f"TEST:{symbol}"),
        provider_symbol=symbol,
        provider="test",
        tick_size=Decimal(tick),
        lot_size=Decimal(lot),
        currency="USD",
        number=number,
        multiplier=Decimal(multiplier),
    )

"""Alpaca's symbols and assets in our words: ``AAPL`` is ``ALPACA:AAPL``, ``BTC/USD`` is ``ALPACA:BTC/USD``."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from connectors.alpaca.wire import AssetRow
from trading.errors import BadInput
from trading.ids import InstrumentId, instrument_id
from trading.instruments import Instrument

VENUE: Final = "ALPACA"
PROVIDER: Final = "alpaca"
#: Shares from 1 USD up trade in cents; below that in hundredths of a cent.
CENT: Final = Decimal("0.01")
#: Smallest part of a share that Alpaca trades.
FRACTION: Final = Decimal("0.000000001")
_CRYPTO_STEP: Final = Decimal("0.000000001")


def symbol_of(instrument: InstrumentId) -> str:
    """Alpaca's symbol of an instrument.  Raises `BadInput` for one of another venue."""
    venue, _, symbol = instrument.partition(":")
    if venue != VENUE or not symbol:
        raise BadInput("instrument", f"{instrument} is not one of Alpaca's: they are written {VENUE}:AAPL")
    return symbol


def instrument_of(symbol: str) -> InstrumentId:
    """The instrument that a symbol stands for."""
    return InstrumentId(f"{VENUE}:{symbol}")


def instrument_from(asset: AssetRow) -> Instrument | None:
    """The instrument of an asset; None where it cannot be traded or written as an instrument."""
    if not asset.tradable or asset.status not in ("active", ""):
        return None
    try:
        named = instrument_id(f"{VENUE}:{asset.symbol}")
    except BadInput:
        return None
    is_crypto = asset.asset_class == "crypto"
    lot = asset.min_trade_increment or _CRYPTO_STEP if is_crypto else FRACTION if asset.fractionable else Decimal(1)
    return Instrument(
        id=named,
        provider_symbol=asset.symbol,
        provider=PROVIDER,
        tick_size=asset.price_increment or _CRYPTO_STEP if is_crypto else CENT,
        lot_size=lot,
        min_quantity=asset.min_order_size or Decimal(0) if is_crypto else Decimal(0),
        currency="USD",
        calendar="24x7" if is_crypto else "XNYS",
        description=asset.name or "",
    )

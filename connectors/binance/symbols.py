"""``exchangeInfo`` as instruments.

Source: "Exchange Information" of the spot and USD-M REST documentation.  Steps come from the filters
PRICE_FILTER (``tickSize``), LOT_SIZE (``stepSize``, ``minQty``) and NOTIONAL or MIN_NOTIONAL
(``minNotional``; ``notional`` on USD-M).
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import msgspec

from connectors.binance.product import Product
from trading.errors import BadInput
from trading.ids import instrument_id
from trading.instruments import Instrument


class _Filter(msgspec.Struct):
    filterType: str
    tickSize: str = "0"
    stepSize: str = "0"
    minQty: str = "0"
    minNotional: str = "0"
    notional: str = "0"


class _Symbol(msgspec.Struct):
    symbol: str
    status: str
    quoteAsset: str
    baseAsset: str = ""
    marginAsset: str = ""
    contractType: str = ""
    filters: list[_Filter] = []


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_Symbol]


class Listing(msgspec.Struct, frozen=True):
    """What a venue lists: what can be traded, and what cannot be used, with the reason for each."""

    instruments: tuple[Instrument, ...]
    skipped: tuple[tuple[str, str], ...]


_decode = msgspec.json.Decoder(_ExchangeInfo).decode


def parse_exchange_info(body: bytes, product: Product) -> Listing:
    """The listing in an answer of ``exchangeInfo``; `BadInput` where the body is not one."""
    try:
        info = _decode(body)
    except msgspec.DecodeError as error:
        raise BadInput("exchangeInfo", f"not what Binance documents: {error}") from error
    instruments: list[Instrument] = []
    skipped: list[tuple[str, str]] = []
    for symbol in info.symbols:
        if symbol.status != "TRADING":
            skipped.append((symbol.symbol, f"its status is {symbol.status}"))
            continue
        try:
            instruments.append(_instrument(symbol, product))
        except (BadInput, InvalidOperation, KeyError) as error:
            skipped.append((symbol.symbol, str(error)))
    return Listing(tuple(instruments), tuple(skipped))


def _instrument(symbol: _Symbol, product: Product) -> Instrument:
    filters = {one.filterType: one for one in symbol.filters}
    if "PRICE_FILTER" not in filters or "LOT_SIZE" not in filters:
        raise BadInput("filters", "it has no PRICE_FILTER or no LOT_SIZE, so its steps are not known")
    tick = Decimal(filters["PRICE_FILTER"].tickSize)
    lot = Decimal(filters["LOT_SIZE"].stepSize)
    if tick <= 0 or lot <= 0:
        raise BadInput("filters", f"its steps are switched off (tickSize {tick}, stepSize {lot})")
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL")
    smallest = Decimal(0)
    if notional is not None:
        smallest = max(Decimal(notional.minNotional), Decimal(notional.notional))
    kind = symbol.contractType.replace("_", " ").lower()
    return Instrument(
        id=instrument_id(f"{product.venue}:{symbol.symbol}"),
        provider_symbol=symbol.symbol,
        provider=product.provider,
        tick_size=tick.normalize(),
        lot_size=lot.normalize(),
        currency=symbol.marginAsset or symbol.quoteAsset,
        min_quantity=Decimal(filters["LOT_SIZE"].minQty).normalize(),
        min_notional=smallest.normalize(),
        calendar="24x7",
        description=f"{symbol.baseAsset}/{symbol.quoteAsset}" + (f" {kind}" if kind else ""),
    )

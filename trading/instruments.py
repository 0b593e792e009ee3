"""Instruments: what can be traded, in which steps."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from trading.errors import BadInput
from trading.ids import InstrumentId

#: Numbers from 10^16 up are mistakes, and their remainders would go beyond what Decimal computes exactly.
_MOST_DIGITS = 15


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """A tradable thing and the steps its venue allows.

    ``number`` is the small integer that stands for the instrument in tick arrays; the store assigns it once
    (0 means not assigned yet).  ``provider_symbol`` is the venue's own spelling on the wire.
    """

    id: InstrumentId
    provider_symbol: str
    #: Registry name of the market data provider, e.g. ``binance-usdm``.
    provider: str
    tick_size: Decimal
    lot_size: Decimal
    currency: str
    number: int = 0
    multiplier: Decimal = Decimal(1)
    min_quantity: Decimal = Decimal(0)
    min_notional: Decimal = Decimal(0)
    #: ``24x7`` or the name of a calendar of exchange_calendars (``XBOM``, ``XNYS`` …).
    calendar: str = "24x7"
    description: str = ""
    #: The last day (ISO date) on which it trades, "" where there is none.
    expires_on: str = ""

    def check_price(self, price: Decimal, field: str) -> None:
        """Raise `BadInput` unless ``price`` is finite, positive and a whole number of ticks."""
        if not price.is_finite():
            raise BadInput(field, f"{price} is not a number")
        if price <= 0:
            raise BadInput(field, f"{price} must be greater than 0")
        if price.adjusted() > _MOST_DIGITS:
            raise BadInput(field, f"{price} is larger than any price of {self.id} can be")
        if price % self.tick_size:
            raise BadInput(field, f"{price} is not a multiple of the tick size {self.tick_size} of {self.id}")

    def check_quantity(self, quantity: Decimal, field: str = "quantity") -> None:
        """Raise `BadInput` unless ``quantity`` is finite, positive and a whole number of lots."""
        if not quantity.is_finite():
            raise BadInput(field, f"{quantity} is not a number")
        if quantity <= 0:
            raise BadInput(field, f"{quantity} must be greater than 0")
        if quantity.adjusted() > _MOST_DIGITS:
            raise BadInput(field, f"{quantity} is larger than any quantity of {self.id} can be")
        if quantity % self.lot_size:
            raise BadInput(field, f"{quantity} is not a multiple of the lot size {self.lot_size} of {self.id}")
        if quantity < self.min_quantity:
            raise BadInput(field, f"{quantity} is below the smallest quantity {self.min_quantity} of {self.id}")

    def round_price(self, price: float | Decimal) -> Decimal:
        """The nearest price on the tick grid (half away from zero)."""
        ticks = (Decimal(str(price)) / self.tick_size).to_integral_value(rounding="ROUND_HALF_UP")
        return ticks * self.tick_size

    def round_quantity(self, quantity: float | Decimal) -> Decimal:
        """The largest quantity on the lot grid that is not above ``quantity``."""
        lots = (Decimal(str(quantity)) / self.lot_size).to_integral_value(rounding="ROUND_FLOOR")
        return lots * self.lot_size

    def notional(self, quantity: Decimal, price: Decimal) -> Decimal:
        """Value of ``quantity`` at ``price`` in the instrument's currency."""
        return quantity * price * self.multiplier

"""Prices and quantities as an author writes them, turned into Decimals; nothing is rounded silently."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

from trading.amounts import FORM, is_amount
from trading.errors import BadInput
from trading.instruments import Instrument

#: What may stand for a price or quantity.
Number = Decimal | int | float | str


def decimal_of(value: Number, field: str) -> Decimal:
    """``value`` as the Decimal a person reads: ``0.1`` is 0.1; `BadInput` where it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int | float | str):
        raise BadInput(field, f"{value!r} is not a number")
    if isinstance(value, str) and not is_amount(value):
        raise BadInput(field, f"{value[:40]!r} is not a number; {FORM}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(field, f"{value} is not a finite number")
    try:
        return value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation:
        raise BadInput(field, f"{value!r} is not a number") from None


def price_of(instrument: Instrument, value: Number | None, field: str) -> Decimal | None:
    """``value`` as a price on the instrument's grid; `BadInput` names ``field`` and the step."""
    if value is None:
        return None
    price = decimal_of(value, field)
    instrument.check_price(price, field)
    return price

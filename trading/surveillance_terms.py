"""When trading counts as unusual: the terms of `trading.monitoring`, as they are set for the deck and for accounts.

What is stored is what was set, by name; what an account does not set is the deck's, and what that does not set is the
default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from trading.errors import BadInput

#: So many times something happened are remembered of a while (`monitoring.Rate`).
MOST_COUNTED: Final = 200


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """When something counts as unusual.  Checked by `check`."""

    #: So many sizes make a habit, and after twice ``memory`` the old ones count half.
    enough_orders: int = 20
    memory: int = 500
    #: An order is large from so many spreads above the middle size on, and at least so many times it.
    spreads: float = 5.0
    times: float = 4.0
    #: Parts of the account's equity from which on any order is large, and is critical.
    share: float = 0.5
    critical_share: float = 1.0
    #: Days on which somebody must have been seen before an hour is unusual for them.
    enough_days: int = 10
    memory_days: int = 60
    #: Flips within ``flips_s``, and orders taken back within ``cancels_s``.
    flips: int = 6
    flips_s: int = 600
    cancels: int = 20
    cancels_s: int = 60
    #: How many times the usual number of flips or cancels is unusual.
    above_usual: float = 3.0

    def check(self) -> Terms:
        """Return itself; `BadInput` naming the field where a value makes no sense."""
        for field, (least, most) in _BOUNDS.items():
            value = getattr(self, field)
            if not least <= value <= most:
                raise BadInput(field, f"{value} is out of range: use {least:g} to {most:g}")
        for low, high in (("enough_orders", "memory"), ("enough_days", "memory_days"), ("share", "critical_share")):
            if getattr(self, low) > getattr(self, high):
                raise BadInput(low, f"{getattr(self, low)} is above {high}, which is {getattr(self, high)}")
        return self


_BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "enough_orders": (2, 10_000),
    "memory": (2, 100_000),
    "spreads": (0.1, 1_000),
    "times": (1, 1_000_000),
    "share": (0.001, 1_000),
    "critical_share": (0.001, 1_000),
    "enough_days": (1, 366),
    "memory_days": (1, 3_660),
    "flips": (1, MOST_COUNTED),
    "flips_s": (1, 86_400),
    "cancels": (1, MOST_COUNTED),
    "cancels_s": (1, 86_400),
    "above_usual": (1, 100),
}


def settled(deck: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> Terms:
    """The terms in force where ``own`` is set on top of the deck's.  Raises `BadInput` naming the field."""
    values = {**deck, **(own or {})}
    for name, value in values.items():
        if name not in _BOUNDS:
            raise BadInput(name[:40], f"there is no such term: use {', '.join(_BOUNDS)}")
        try:
            msgspec.convert({name: value}, Terms)
        except msgspec.ValidationError as error:
            raise BadInput(name, str(error)) from error
    return msgspec.convert(values, Terms).check()

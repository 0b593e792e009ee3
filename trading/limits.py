"""Limits: what may not be exceeded, at which level.

The tree is cluster → account; every limit on an order's path must hold, so the tightest wins.  Limits of one
order (`ORDER_QUANTITY`, `ORDER_NOTIONAL`) are checked where the order is; limits over many orders
(`POSITION`, `GROSS_EXPOSURE`) are *resources* that central risk lends out in slices (`trading.budgets`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Final

import msgspec

from trading.errors import BadInput
from trading.ids import AccountId, InstrumentId, instrument_id, name

ORDER_QUANTITY: Final = "order_quantity"
ORDER_NOTIONAL: Final = "order_notional"
#: Largest absolute quantity held or possibly held (open orders included) of one instrument.
POSITION: Final = "position"
#: Largest sum over instruments of the absolute notional held or possibly held.
GROSS_EXPOSURE: Final = "gross_exposure"
KINDS: Final = (ORDER_QUANTITY, ORDER_NOTIONAL, POSITION, GROSS_EXPOSURE)
CLUSTER: Final = "cluster"


def account_scope(account: str) -> str:
    """The level of one account in the tree."""
    return f"account:{account}"


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """``value`` is the most that is allowed; ``instrument`` "" means each instrument by itself."""

    scope: str
    kind: str
    instrument: str
    value: Decimal


def check_limit(scope: str, kind: str, instrument: str, value: Decimal | None) -> None:
    """Raise `BadInput` naming the field unless these make a limit (``value`` None takes a limit away)."""
    level, _, account = scope.partition(":")
    if scope != CLUSTER and not (level == "account" and account):
        raise BadInput("scope", f"{scope!r} is not a level: write 'cluster' or 'account:<id>'")
    if account:
        name(account, "scope")
    if kind not in KINDS:
        raise BadInput("kind", f"{kind!r} is not a kind of limit: choose one of {', '.join(KINDS)}")
    if instrument:
        instrument_id(instrument)
        if kind == GROSS_EXPOSURE:
            raise BadInput("instrument", f"{GROSS_EXPOSURE} is over all instruments; leave it empty or use {POSITION}")
    if value is not None and (not value.is_finite() or value < 0):
        raise BadInput("value", f"{value} must be a number from 0 up, or null for no limit")


class LimitTree:
    """All limits, indexed for the two questions asked on the order path."""

    __slots__ = ("_by_key", "version")

    def __init__(self, limits: Iterable[Limit] = (), version: int = 0) -> None:
        self.version = version
        self._by_key = {(limit.scope, limit.kind, limit.instrument): limit.value for limit in limits}

    def value(self, scope: str, kind: str, instrument: str = "") -> Decimal | None:
        """The limit at exactly this level: the instrument's own, else the general one; None without one."""
        if instrument:
            own = self._by_key.get((scope, kind, instrument))
            if own is not None:
                return own
        return self._by_key.get((scope, kind, ""))

    def order_violations(
        self, account: AccountId, instrument: InstrumentId, quantity: Decimal, notional: Decimal
    ) -> list[str]:
        """Every limit of a single order that this one breaks, in words."""
        found = []
        for scope in (CLUSTER, account_scope(account)):
            for kind, amount in ((ORDER_QUANTITY, quantity), (ORDER_NOTIONAL, notional)):
                limit = self.value(scope, kind, instrument)
                if limit is not None and amount > limit:
                    found.append(violation(kind, scope, instrument, amount, limit))
        return found

    def resources(self, account: AccountId, instrument: InstrumentId) -> Iterator[tuple[str, str, str]]:
        """``(resource, scope, kind)`` of every shared limit on the path of an order, widest level first."""
        for scope in (CLUSTER, account_scope(account)):
            for kind, of in ((POSITION, instrument), (GROSS_EXPOSURE, "")):
                if self.value(scope, kind, of) is not None:
                    yield resource(scope, kind, of), scope, kind

    def limit_of(self, name_of_resource: str) -> Decimal | None:
        """The limit behind a resource; None when it has been taken away."""
        scope, kind, instrument = name_of_resource.split("/", 2)
        return self.value(scope, kind, instrument)

    def all(self) -> tuple[Limit, ...]:
        """Every limit, in a fixed order."""
        return tuple(Limit(scope=s, kind=k, instrument=i, value=v) for (s, k, i), v in sorted(self._by_key.items()))


def resource(scope: str, kind: str, instrument: str) -> str:
    """Name of the shared amount that a limit of this key bounds."""
    return f"{scope}/{kind}/{instrument}"


def violation(kind: str, scope: str, instrument: str, value: Decimal, limit: Decimal) -> str:
    """One broken limit in words: kind, value, limit, level."""
    of = f" of {instrument}" if instrument and kind != GROSS_EXPOSURE else ""
    return f"{kind}{of} {value.normalize():f} is above the limit {limit.normalize():f} of {scope}"

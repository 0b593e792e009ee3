"""In which currencies the amounts of a level are, as far as one caller may look.

No rates are applied anywhere: amounts in several currencies have no sum.  Where there are several, sums are null.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from api.formats import Shown
from api.glance import Seen
from storage.currencies import INSTRUMENT
from storage.records import AccountRecord
from trading.limits import CLUSTER, account_scope, user_scope


class InCurrencies(Shown):
    """``currency``: of all amounts; "" where it is not known, or there are several, which ``currencies`` names."""

    currency: str
    currencies: list[str]


#: The fields of `InCurrencies` of what is no money.
NO_MONEY: Final[Mapping[str, Any]] = {"currency": "", "currencies": []}


class Currencies:
    """Of every level on which the given accounts, and what is below them, are all that the caller sees."""

    def __init__(self, seen: Seen, accounts: Iterable[AccountRecord]) -> None:
        self._by_scope = seen.currencies
        self._accounts: dict[str, frozenset[str]] = {}
        for account in accounts:
            told = seen.told_of(account)
            of_cash = {told.currency} - {""} if told is not None else set[str]()
            mine = self._by_scope.get(account_scope(account.id), frozenset()) | of_cash
            for scope in (account_scope(account.id), user_scope(account.user), CLUSTER):
                self._accounts[scope] = self._accounts.get(scope, frozenset()) | mine

    def of(self, scope: str, instrument: str = "") -> frozenset[str]:
        """Currencies of a level, or of one instrument on it; "" among them stands for one that is not known."""
        if instrument:
            return self._by_scope.get(f"{INSTRUMENT}{instrument}", frozenset())
        if scope in self._accounts:
            return self._accounts[scope]
        return self._by_scope.get(scope, frozenset())

    def fields(self, scope: str, instrument: str = "") -> dict[str, Any]:
        """The fields of `InCurrencies`."""
        return currency_fields(self.of(scope, instrument))

    def is_one(self, scope: str, instrument: str = "") -> bool:
        """Whether amounts of the level can be added up."""
        return len(self.of(scope, instrument)) <= 1


def currency_fields(found: Collection[str]) -> dict[str, Any]:
    """The fields of `InCurrencies` where amounts are in these currencies."""
    return {"currency": next(iter(found)) if len(found) == 1 else "", "currencies": sorted({*found} - {""})}

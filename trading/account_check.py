"""What one comparison of an account with its broker's report found."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from trading.ids import AccountId, ClientOrderId, Nanos
from trading.journal import Break


class AccountCheck(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of what agrees after the report was taken in, and what does not."""

    account: AccountId
    #: When the broker was asked.
    at: Nanos
    #: Orders in the report that are known here.
    orders: int
    #: Executions in the report that are known here.
    executions: int
    #: Instruments held on either side in the same quantity.
    positions: int
    #: Orders placed outside that this report brought to light.
    adopted: tuple[ClientOrderId, ...]
    #: Missed messages that this report made up for.
    made_up: int
    our_cash: Decimal | None
    their_cash: Decimal
    currency: str
    #: Why cash was not compared; "" where it was.
    cash_not_compared: str
    #: All breaks that are open now, and those that are tolerated because somebody explained them.
    breaks: tuple[Break, ...]
    tolerated: tuple[Break, ...]

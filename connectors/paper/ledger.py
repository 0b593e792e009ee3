"""What the paper venue keeps outside of its process, as a real one would on its side of the wire."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Protocol

from trading.broker import BrokerFill, BrokerOrder, BrokerPosition, BrokerReport
from trading.ids import AccountId, Epoch, Nanos


class PaperLedger(Protocol):
    """A durable book of paper accounts."""

    async def load(self, account: AccountId, since: Nanos | None = None) -> BrokerReport | None:
        """The account as last saved: all open orders, ended ones and fills since then (None: recent ones).

        None before the first save.
        """

    async def save(
        self,
        account: AccountId,
        epoch: Epoch,
        orders: Sequence[BrokerOrder],
        fills: Sequence[BrokerFill],
        positions: Sequence[BrokerPosition],
        cash: Decimal,
        currency: str,
    ) -> None:
        """Write what changed, whole or not at all; saving the same again changes nothing.

        Raises `Fenced` when a newer epoch owns the account.
        """

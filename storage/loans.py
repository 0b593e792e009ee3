"""What central risk has lent: kept so that a new RiskDesk knows what the old one gave away."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import psycopg
from psycopg.rows import dict_row

from storage.database import Database, fenced_or_broken
from storage.journal import as_json
from storage.records import LoanRecord
from trading.errors import BadInput

#: The lease whose holder may lend.
LENDER = "risk/main"


class Loans:
    """The table of loans, one row for each (session, session epoch, resource)."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def load(self) -> list[LoanRecord]:
        """Everything that is lent now."""
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                "SELECT session, session_epoch, resource, amount FROM loans ORDER BY session, session_epoch, resource"
            )
            return msgspec.convert(await cursor.fetchall(), list[LoanRecord])

    async def save(self, epoch: int, loans: Sequence[LoanRecord]) -> None:
        """Write these loans, whole or not at all; amount 0 removes one.  One round trip.

        Raises `Fenced` when ``epoch`` does not hold ``risk/main`` and `BadInput` for an amount below 0.
        """
        for loan in loans:
            if not loan.amount.is_finite() or loan.amount < 0:
                raise BadInput("amount", f"{loan.amount} of {loan.resource} cannot be lent: use 0 or more")
        latest = {(each.session, each.session_epoch, each.resource): each for each in loans}
        async with self._db.connection() as connection:
            try:
                await connection.execute(
                    "SELECT save_loans(%s, %s::json)", (epoch, as_json(latest.values()) or "[]"), prepare=True
                )
            except psycopg.Error as error:
                raise fenced_or_broken(error, LENDER, epoch) or error from error

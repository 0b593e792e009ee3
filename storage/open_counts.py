"""How much is open and held in each account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from storage.database import Database, dicts
from storage.records import OPEN_STATES
from trading.ids import AccountId


class OpenCount(NamedTuple):
    """Of one account: orders that may still fill, breaks that nobody has resolved, instruments that it holds."""

    orders: int
    breaks: int
    positions: int

    @property
    def is_exposed(self) -> bool:
        """Whether something is held, or may come to be held."""
        return bool(self.orders or self.positions)


async def open_by_account(db: Database) -> dict[AccountId, OpenCount]:
    """Accounts in which something is open or held.  Of orders and breaks only the indices of open ones are read."""
    async with db.connection() as connection:
        rows = await dicts(
            connection,
            f"""
            SELECT account, sum(orders)::bigint AS orders, sum(breaks)::bigint AS breaks,
                sum(positions)::bigint AS positions
            FROM (
                SELECT account, count(*) AS orders, 0 AS breaks, 0 AS positions
                FROM orders WHERE state IN {OPEN_STATES} GROUP BY 1
                UNION ALL
                SELECT account, 0, count(*), 0 FROM breaks WHERE resolved_at = 0 GROUP BY 1
                UNION ALL
                SELECT account, 0, 0, count(*) FROM positions WHERE quantity <> 0 GROUP BY 1
            ) parts GROUP BY account
            """,
            (),
        )
    return {AccountId(row["account"]): OpenCount(row["orders"], row["breaks"], row["positions"]) for row in rows}


async def exposed_among(db: Database, accounts: Sequence[AccountId]) -> set[AccountId]:
    """Those of ``accounts`` that hold something, or have orders that may still fill."""
    async with db.connection() as connection:
        rows = await dicts(
            connection,
            f"""
            SELECT account FROM positions WHERE quantity <> 0 AND account = ANY(%(accounts)s)
            UNION
            SELECT account FROM orders WHERE state IN {OPEN_STATES} AND account = ANY(%(accounts)s)
            """,
            {"accounts": list(accounts)},
        )
    return {AccountId(row["account"]) for row in rows}

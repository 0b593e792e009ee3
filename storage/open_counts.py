"""How much is open in each account."""

from __future__ import annotations

from typing import NamedTuple

from storage.database import Database, dicts
from storage.records import OPEN_STATES
from trading.ids import AccountId


class OpenCount(NamedTuple):
    """Of one account: orders that may still fill, breaks that nobody has resolved."""

    orders: int
    breaks: int


async def open_by_account(db: Database) -> dict[AccountId, OpenCount]:
    """Accounts in which something is open; the indices of what is open are all that is read."""
    async with db.connection() as connection:
        rows = await dicts(
            connection,
            f"""
            SELECT account, sum(orders)::bigint AS orders, sum(breaks)::bigint AS breaks FROM (
                SELECT account, count(*) AS orders, 0 AS breaks FROM orders WHERE state IN {OPEN_STATES} GROUP BY 1
                UNION ALL
                SELECT account, 0, count(*) FROM breaks WHERE resolved_at = 0 GROUP BY 1
            ) parts GROUP BY account
            """,
            (),
        )
    return {AccountId(row["account"]): OpenCount(row["orders"], row["breaks"]) for row in rows}

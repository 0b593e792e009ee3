"""What an algo holds, from the journal."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from storage.database import Database, dicts
from trading.ids import AccountId, AlgoId
from trading.positions import Position


async def algo_positions(db: Database, algo: AlgoId, accounts: Sequence[AccountId] | None = None) -> list[Position]:
    """Its positions, in these accounts only unless None; flat ones included."""
    async with db.connection() as connection:
        rows = await dicts(
            connection,
            "SELECT * FROM algo_positions WHERE algo = %(algo)s AND (%(all)s OR account = ANY(%(accounts)s)) "
            "ORDER BY account, instrument",
            {"algo": algo, "all": accounts is None, "accounts": list(accounts or ())},
        )
    return msgspec.convert(rows, list[Position])

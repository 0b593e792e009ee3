"""What happened to each algo, also after it is gone.  The database itself writes it (migration 0021)."""

from __future__ import annotations

import msgspec

from storage.database import Database, dicts
from storage.paging import decode_cursor, encode_cursor, page_size
from storage.records import AlgoEvent
from trading.ids import AlgoId, UserId


class AlgoEvents:
    """The table of events."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(
        self,
        algo: AlgoId,
        user: UserId | None = None,
        cursor: str | None = None,
        limit: int = 100,
        first_epoch: int = 0,
    ) -> tuple[list[AlgoEvent], str | None]:
        """A page of events, newest first, and the cursor of the next.

        ``user``: while it was this user's; ``first_epoch``: from this incarnation on.

        Raises `BadInput` for a cursor that is not ours or a limit outside 1 … 1000.
        """
        before = decode_cursor(cursor)[1] if cursor is not None else None
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                """
                SELECT * FROM algo_events WHERE algo = %(algo)s AND (%(user)s::text IS NULL OR "user" = %(user)s)
                    AND epoch >= %(first)s AND (%(before)s::bigint IS NULL OR number < %(before)s)
                ORDER BY number DESC LIMIT %(limit)s
                """,
                {"algo": algo, "user": user, "before": before, "first": first_epoch, "limit": page_size(limit) + 1},
            )
        found = msgspec.convert(rows[:limit], list[AlgoEvent])
        return found, encode_cursor(found[-1].at, found[-1].number) if len(rows) > limit else None

    async def first_epoch(self, algo: AlgoId) -> int:
        """From which incarnation on the name is that of the algo that has it now; 0 where it was never another's."""
        async with self._db.connection() as connection:
            rows = await dicts(connection, "SELECT epoch FROM gone_algos WHERE id = %(algo)s", {"algo": algo})
        return int(rows[0]["epoch"]) if rows else 0

    async def owners(self, algo: AlgoId) -> set[UserId]:
        """Everybody whose algo of this name was, as far as is remembered."""
        async with self._db.connection() as connection:
            rows = await dicts(connection, 'SELECT DISTINCT "user" FROM algo_events WHERE algo = %s', (algo,))
        return {UserId(row["user"]) for row in rows}

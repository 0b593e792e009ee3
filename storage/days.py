"""The day's profit of every level, so that a restart forgets no loss; and the day's highest use, for charts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import psycopg
from psycopg.rows import dict_row

from storage.database import Database, fenced_or_broken
from storage.journal import as_json
from storage.loans import LENDER
from storage.records import MaximaRecord
from trading.day_profit import Day
from trading.ids import Nanos

_DAY = "scope, instrument, began_at, opening, high, latest, at, reached"


class Days:
    """Tables of days and maxima."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def load(self, scopes: Sequence[str]) -> list[Day]:
        """The days of these levels as they were last saved, whichever day that was."""
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(f"SELECT {_DAY} FROM level_days WHERE scope = ANY(%s)", (list(scopes),))
            return msgspec.convert(await cursor.fetchall(), list[Day], strict=False)

    async def all(self) -> list[Day]:
        """The days of all whole levels."""
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(f"SELECT {_DAY} FROM level_days WHERE instrument = ''")
            return msgspec.convert(await cursor.fetchall(), list[Day], strict=False)

    async def save(self, owner: str, epoch: int, days: Sequence[Day]) -> None:
        """Write these days whole or not at all, as the owner of lease ``owner``.  Raises `Fenced`."""
        await self._call("SELECT save_days(%s, %s, %s::json)", (owner, epoch, as_json(days) or "[]"), owner, epoch)

    async def save_maxima(self, epoch: int, maxima: Sequence[MaximaRecord]) -> None:
        """Raise the day's maxima to these where they are higher, as central risk.  Raises `Fenced`."""
        rows = as_json(maxima) or "[]"
        await self._call("SELECT save_maxima(%s, %s::json)", (epoch, rows), LENDER, epoch)

    async def _call(self, statement: str, arguments: tuple[object, ...], owner: str, epoch: int) -> None:
        async with self._db.connection() as connection:
            try:
                await connection.execute(statement.encode(), arguments, prepare=True)
            except psycopg.Error as error:
                raise fenced_or_broken(error, owner, epoch) or error from error

    async def maxima(self, since: Nanos, scopes: Sequence[str] | None) -> list[MaximaRecord]:
        """Maxima of the days that began at ``since`` or later, oldest first; of these levels, of all where None."""
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                "SELECT * FROM risk_maxima WHERE day >= %(since)s AND (%(all)s OR scope = ANY(%(scopes)s)) "
                "ORDER BY day, scope, instrument",
                {"since": since, "all": scopes is None, "scopes": list(scopes or ())},
            )
            return msgspec.convert(await cursor.fetchall(), list[MaximaRecord])

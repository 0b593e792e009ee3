"""What algos say: the last lines of each, so that a failed one can be understood from anywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import psycopg
from psycopg.rows import dict_row

from storage.database import Database
from storage.records import LogLine
from trading.errors import BadInput, UnknownThing
from trading.ids import AlgoId, Epoch, Nanos

#: Lines kept of each algo.
KEPT = 10_000
#: Lines that may gather before the oldest are removed.
_SLACK = 500
#: Longest line kept, in characters.
_LONGEST = 20_000


class AlgoLog:
    """The log of every algo, bounded to its last `KEPT` lines (and some that await removal)."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._since_pruned: Counter[AlgoId] = Counter()

    async def append(self, algo: AlgoId, epoch: Epoch, rows: Sequence[tuple[Nanos, str, str]]) -> None:
        """Append ``(at, level, text)`` lines.  Raises `UnknownThing` when the algo was deleted."""
        if not rows:
            return
        lines = [(at, level, text[:_LONGEST].replace("\0", "\ufffd")) for at, level, text in rows[-KEPT:]]
        async with self._db.connection() as connection:
            try:
                await connection.execute(
                    """
                    INSERT INTO algo_log (algo, epoch, at, level, text)
                    SELECT %s, %s, at, level, text
                    FROM unnest(%s::bigint[], %s::text[], %s::text[]) WITH ORDINALITY AS t(at, level, text, n)
                    ORDER BY n
                    """,
                    (algo, epoch, *map(list, zip(*lines, strict=True))),
                )
            except psycopg.errors.ForeignKeyViolation as error:
                raise UnknownThing("algo", algo) from error
            first = algo not in self._since_pruned
            self._since_pruned[algo] += len(lines)
            if first or self._since_pruned[algo] >= _SLACK:
                self._since_pruned[algo] = 0
                await connection.execute(
                    """
                    DELETE FROM algo_log WHERE algo = %(algo)s AND number <= (
                        SELECT number FROM algo_log WHERE algo = %(algo)s ORDER BY number DESC
                        OFFSET %(kept)s LIMIT 1)
                    """,
                    {"algo": algo, "kept": KEPT},
                )

    async def tail(self, algo: AlgoId, limit: int = 100, after_id: int = 0) -> list[LogLine]:
        """The newest ``limit`` lines with a number above ``after_id``, oldest first."""
        if not 1 <= limit <= KEPT:
            raise BadInput("limit", f"{limit} is not between 1 and {KEPT}")
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                "SELECT number, epoch, at, level, text FROM algo_log WHERE algo = %s AND number > %s "
                "ORDER BY number DESC LIMIT %s",
                (algo, after_id, limit),
            )
            rows = await cursor.fetchall()
        return msgspec.convert(rows[::-1], list[LogLine])

"""Curves of profit and equity: sampled by one writer, kept the coarser the older they are, thinned out when read."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec
import psycopg

from storage.database import Database, dicts, fenced_or_broken
from storage.journal import as_json
from trading.errors import BadInput
from trading.ids import Nanos

#: Most points of one answer.
MOST_POINTS: Final = 5_000
_DAY_NS: Final = 86_400_000_000_000
#: How long samples of each grain are kept: any, those of five minutes, those of an hour.
KEPT: Final = (2 * _DAY_NS, 35 * _DAY_NS, 3 * 366 * _DAY_NS)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Profit over all time (realised + unrealised - fees) of a level, and the equity of an account where known."""

    scope: str
    at: Nanos
    pnl: Decimal
    equity: Decimal | None = None
    grain: int = 0


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A point of a curve."""

    at: Nanos
    pnl: Decimal
    equity: Decimal | None = None


class Equity:
    """The table of samples."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def save(self, owner: str, epoch: int, samples: Sequence[Sample]) -> None:
        """Write samples as the owner of lease ``owner``; one of the same moment stands.  Raises `Fenced`."""
        if not samples:
            return
        async with self._db.connection() as connection:
            try:
                await connection.execute(
                    "SELECT save_equity(%s, %s, %s::json)", (owner, epoch, as_json(samples)), prepare=True
                )
            except psycopg.Error as error:
                raise fenced_or_broken(error, owner, epoch) or error from error

    async def fade(self, now: Nanos) -> int:
        """Delete what is too old for its grain, a bounded number of rows at once; returns how many."""
        gone = 0
        async with self._db.connection() as connection:
            for grain, kept in enumerate(KEPT):
                cursor = await connection.execute(
                    "DELETE FROM equity WHERE ctid = ANY(ARRAY("
                    "SELECT ctid FROM equity WHERE grain = %s AND at < %s ORDER BY at LIMIT 20000))",
                    (grain, now - kept),
                )
                gone += cursor.rowcount
        return gone

    async def last(self) -> dict[str, Sample]:
        """The newest sample of each level."""
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                """
                WITH RECURSIVE scopes AS (
                    (SELECT scope FROM equity ORDER BY scope LIMIT 1)
                    UNION ALL
                    SELECT (SELECT scope FROM equity WHERE scope > s.scope ORDER BY scope LIMIT 1)
                    FROM scopes s WHERE s.scope IS NOT NULL
                )
                SELECT newest.* FROM scopes CROSS JOIN LATERAL (
                    SELECT * FROM equity WHERE equity.scope = scopes.scope ORDER BY at DESC LIMIT 1) newest
                """,
                {},
            )
        return {row["scope"]: msgspec.convert(row, Sample) for row in rows}

    async def curve(self, scope: str, since: Nanos, until: Nanos, points: int) -> list[Point]:
        """At most ``points`` points from ``since`` on and before ``until``, oldest first.

        Where there are more, the time is cut into equal parts and the last of each stands for it: the newest is always
        there.  Raises `BadInput`.
        """
        if not 2 <= points <= MOST_POINTS:
            raise BadInput("points", f"{points} is not between 2 and {MOST_POINTS}")
        if since >= until:
            raise BadInput("since", "it is not before until")
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                """
                WITH picked AS (
                    SELECT at, pnl, equity, min(at) OVER () AS first, max(at) OVER () AS last
                    FROM equity WHERE scope = %(scope)s AND at >= %(since)s AND at < %(until)s
                )
                SELECT DISTINCT ON (part) at, pnl, equity,
                    div((at - first)::numeric * %(points)s, (last - first + 1)::numeric) AS part
                FROM picked ORDER BY part, at DESC
                """,
                {"scope": scope, "since": since, "until": until, "points": points},
            )
        return msgspec.convert(rows, list[Point])

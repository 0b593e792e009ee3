"""How machines were during the last day: one row a minute each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from storage.database import Database, dicts
from storage.resource import jsonb
from trading.ids import Nanos, NodeName

MINUTE: Final = 60_000_000_000
#: Rows that are older go with the next one that is written, whoever writes it.
KEPT: Final = 86_400_000_000_000


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """One minute of a machine; ``at``: when it began."""

    at: Nanos
    metrics: dict[str, float]


class Skew(msgspec.Struct, frozen=True, kw_only=True):
    """How far this machine's clock is ahead of the database's, in nanoseconds, and how far that may be wrong."""

    ns: int
    error_ns: int


class NodeHistory:
    """The table of minutes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def append(self, node: NodeName, minutes: Sequence[Minute]) -> None:
        """Write minutes, the same one again in place of what stood there; delete what is older than a day.

        The database's clock says what is older: a machine whose own is wrong deletes nothing young.  `NotReady`.
        """
        if not minutes:
            return
        async with self._db.connection() as connection, connection.transaction():
            await connection.execute(
                """
                INSERT INTO node_history (node, at, metrics)
                SELECT %s, at, metrics FROM unnest(%s::bigint[], %s::jsonb[]) AS t(at, metrics)
                ON CONFLICT (node, at) DO UPDATE SET metrics = excluded.metrics
                """,
                (node, [each.at for each in minutes], [jsonb(each.metrics) for each in minutes]),
            )
            await connection.execute(
                "DELETE FROM node_history WHERE at < (extract(epoch FROM clock_timestamp()) * 1e9)::bigint - %s",
                (KEPT,),
            )

    async def minutes(
        self, node: NodeName, since: Nanos, until: Nanos, limit: int, metrics: Sequence[str] = ()
    ) -> list[Minute]:
        """Minutes that began from ``since`` on and before ``until``, oldest first; ``metrics`` none: all.

        A minute of which a metric is not known has it not; a minute that nobody told of is not there.
        """
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                "SELECT at, metrics FROM node_history WHERE node = %s AND at >= %s AND at < %s ORDER BY at LIMIT %s",
                (node, since, until, limit),
            )
        found = msgspec.convert(rows, list[Minute])
        if not metrics:
            return found
        return [Minute(at=each.at, metrics=_only(each.metrics, metrics)) for each in found]

    async def skew(self, probes: int = 3) -> Skew:
        """How far this machine's clock is ahead of the database's: of the quickest of some answers.  `NotReady`.

        The database tells the moment between question and answer; half of what the answer took may be wrong with it.
        """
        found = []
        async with self._db.connection() as connection:
            for _ in range(probes):
                before, started = time.time_ns(), time.perf_counter_ns()
                cursor = await connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1e9)::bigint")
                took = time.perf_counter_ns() - started
                row = await cursor.fetchone()
                assert row is not None
                found.append((took, before + took // 2 - int(row[0])))
        took, ahead = min(found)
        return Skew(ns=ahead, error_ns=took // 2)


def _only(metrics: Mapping[str, float], wanted: Sequence[str]) -> dict[str, float]:
    return {name: metrics[name] for name in wanted if name in metrics}

"""Deleting what is older than it has to be kept, so that the audit still verifies.

Rows go a whole link of the chain at a time, once everything in it is older than the retention and so is the last change
of every order it speaks of.  The link stays, marked as retired, and the deletion is itself in the audit.  Limits, and
orders that may still fill, are never deleted.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from storage.database import DATABASE_ERRORS, connect_error
from storage.records import OPEN_STATES
from trading.errors import BadInput

#: Seven years, two leap days included.
RETENTION_DAYS: Final = 7 * 365 + 2
#: Nothing shorter can be asked for.
LEAST_DAYS: Final = 365
_DAY_NS: Final = 86_400_000_000_000
_LINKS: Final = 200

_OLD: Final = {
    "order_events": f"""
        SELECT FROM order_events t JOIN orders o USING (account, client_order_id)
        WHERE t.account COLLATE "C" = substr(c.chain, 9) AND t.number BETWEEN c.first AND c.last
            AND (t.at >= %(before)s OR o.updated_at >= %(before)s OR o.state IN {OPEN_STATES})""",
    "orders": f"""
        SELECT FROM orders t WHERE t.account COLLATE "C" = substr(c.chain, 9) AND t.number BETWEEN c.first AND c.last
            AND (t.updated_at >= %(before)s OR t.state IN {OPEN_STATES} OR EXISTS (
                SELECT FROM order_events e
                WHERE e.account = t.account AND e.client_order_id = t.client_order_id))""",
    "audit": "SELECT FROM audit t WHERE t.number BETWEEN c.first AND c.last AND t.at >= %(before)s",
}


class Retired(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows of each table were deleted."""

    before: int
    order_events: int
    fills: int
    orders: int
    audit: int


def check_retention(days: int) -> None:
    """Raise `BadInput` for a retention that is too short to be meant."""
    if days < LEAST_DAYS:
        raise BadInput("days", f"{days} is less than the {LEAST_DAYS} that everything is kept at least")


def retire(database_url: str, days: int, by: str) -> Retired:
    """Delete what is older than ``days``, as the owner of the tables, some links at a time.

    It can be ended at any moment, and begun again.  Raises `BadInput`, and `NotReady` or `NeedsOperator` for a server
    that cannot be asked.
    """
    check_retention(days)
    before = time.time_ns() - days * _DAY_NS
    gone = {"order_events": 0, "fills": 0, "orders": 0, "audit": 0}
    try:
        with psycopg.connect(database_url, connect_timeout=5, autocommit=True) as connection:
            for source in ("order_events", "orders", "audit"):
                while some := _some(connection, source, before):
                    for table, count in some.items():
                        gone[table] += count
            if any(gone.values()):
                connection.execute(
                    "INSERT INTO audit (at, actor, action, subject, before, after) VALUES (%s, %s, %s, %s, NULL, %s)",
                    (time.time_ns(), by, "retire", f"older than {days} days", Jsonb({**gone, "before": before})),
                )
    except DATABASE_ERRORS as error:
        raise connect_error(database_url, error) from error
    return Retired(before=before, **gone)


def _some(connection: psycopg.Connection[tuple[object, ...]], source: str, before: int) -> dict[str, int]:
    """Retire some links of one table; {} when there are no more."""
    with connection.transaction():
        connection.execute("SET LOCAL quarterdeck.retiring = 'on'")
        links = connection.execute(
            f"SELECT c.chain, c.number, c.first, c.last FROM audit_chain c WHERE c.source = %(source)s "
            f"AND NOT c.retired AND NOT EXISTS ({_OLD[source]}) LIMIT {_LINKS}".encode(),
            {"source": source, "before": before},
        ).fetchall()
        gone: dict[str, int] = {}
        for chain, number, first, last in links:
            values = {"account": str(chain).removeprefix("account/"), "first": first, "last": last}
            mine = 't.account COLLATE "C" = %(account)s AND ' if source != "audit" else ""
            rows_of = f"{mine} t.number BETWEEN %(first)s AND %(last)s"
            if source == "order_events":
                executions = f"""DELETE FROM fills f USING order_events t WHERE {rows_of} AND t.kind = 'filled'
                    AND f.account = t.account AND f.execution_id = t.fill ->> 'execution_id'"""
                gone["fills"] = gone.get("fills", 0) + connection.execute(executions.encode(), values).rowcount
            rows = connection.execute(f"DELETE FROM {source} t WHERE {rows_of}".encode(), values).rowcount
            gone[source] = gone.get(source, 0) + rows
            connection.execute(
                "UPDATE audit_chain SET retired = true WHERE chain = %s AND number = %s", (chain, number)
            )
        return gone

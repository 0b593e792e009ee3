"""Reports of days: one of each account and day, written once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from storage.database import Database, fenced_or_broken
from storage.paging import decode_cursor, encode_cursor, page_size
from trading.day_report import DayReport
from trading.ids import AccountId


class Reconciliations:
    """Writes and reads the reports."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def save(self, owner: str, epoch: int, report: DayReport) -> None:
        """Keep a report; the first of its day stands.  Raises `Fenced` where another epoch holds lease ``owner``."""
        body = msgspec.json.encode(report).decode()
        async with self._db.connection() as connection:
            try:
                async with connection.transaction():
                    await connection.execute("SELECT check_fence(%s, %s)", (owner, epoch))
                    await connection.execute(
                        "INSERT INTO reconciliations (account, day, starts_at, ends_at, made_at, report) "
                        "VALUES (%s, %s::date, %s, %s, %s, %s::json) ON CONFLICT (account, day) DO NOTHING",
                        (report.account, report.day, report.starts_at, report.ends_at, report.made_at, body),
                    )
            except psycopg.Error as error:
                raise fenced_or_broken(error, owner, epoch) or error from error

    async def has(self, account: AccountId, day: str) -> bool:
        """Whether the day's report has been made."""
        async with self._db.connection() as connection:
            rows = await connection.execute(
                "SELECT 1 FROM reconciliations WHERE account = %s AND day = %s::date", (account, day)
            )
            return await rows.fetchone() is not None

    async def page(
        self,
        *,
        account: AccountId | None = None,
        day: str | None = None,
        accounts: Sequence[AccountId] | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> tuple[list[DayReport], str | None]:
        """A page of reports, newest first, and the cursor of the next page.  ``accounts``: only of these."""
        where, values = ["true"], dict[str, Any]()
        if account is not None:
            where.append("account = %(account)s")
            values["account"] = account
        if day is not None:
            where.append("day = %(day)s::date")
            values["day"] = day
        if accounts is not None:
            where.append("account = ANY(%(accounts)s)")
            values["accounts"] = list(accounts)
        if cursor is not None:
            values["cursor_at"], values["cursor_number"] = decode_cursor(cursor)
            where.append("(ends_at, number) < (%(cursor_at)s, %(cursor_number)s)")
        size = page_size(limit)
        statement = (
            f"SELECT ends_at, number, report::text AS report FROM reconciliations WHERE {' AND '.join(where)} "
            f"ORDER BY ends_at DESC, number DESC LIMIT {size + 1}"
        )
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as rows_of:
            await rows_of.execute(statement.encode(), values)
            rows = await rows_of.fetchall()
        following = encode_cursor(rows[size - 1]["ends_at"], rows[size - 1]["number"]) if len(rows) > size else None
        return [msgspec.json.decode(row["report"], type=DayReport) for row in rows[:size]], following

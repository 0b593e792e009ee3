"""The audit as it is listed: newest first, in pages."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from psycopg.rows import dict_row

from storage.database import Database
from storage.paging import decode_cursor, encode_cursor, page_size
from storage.records import AuditFilter, AuditRecord

_FIELDS: Final = "number, at, actor, action, subject, before, after"


async def audit_page(
    db: Database, filters: AuditFilter, cursor: str | None, limit: int
) -> tuple[list[AuditRecord], str | None]:
    """The page after ``cursor``, and the cursor of the next one (None: this was the last).  Raises `BadInput`."""
    where, values = ["true"], dict[str, Any]()
    for column in ("subject", "actor", "action"):
        wanted = getattr(filters, column)
        if wanted is not None:
            where.append(f"{column} = %({column})s")
            values[column] = wanted
    if filters.since is not None:
        where.append("at >= %(since)s")
        values["since"] = filters.since
    if filters.until is not None:
        where.append("at < %(until)s")
        values["until"] = filters.until
    if cursor is not None:
        values["cursor_at"], values["cursor_number"] = decode_cursor(cursor)
        where.append("(at, number) < (%(cursor_at)s, %(cursor_number)s)")
    size = page_size(limit)
    statement = (
        f"SELECT {_FIELDS} FROM audit WHERE {' AND '.join(where)} ORDER BY at DESC, number DESC LIMIT {size + 1}"
    )
    async with db.connection() as connection, connection.cursor(row_factory=dict_row) as rows:
        await rows.execute(statement.encode(), values)
        found = msgspec.convert(await rows.fetchall(), list[AuditRecord])
    following = encode_cursor(found[size - 1].at, found[size - 1].number) if len(found) > size else None
    return found[:size], following

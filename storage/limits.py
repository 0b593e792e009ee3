"""The table of limits: every version of each is kept, the highest is the one in force."""

from __future__ import annotations

import time
from decimal import Decimal

import msgspec
from psycopg.rows import dict_row

from storage.database import Connection, dicts
from storage.records import LimitRecord
from storage.resource import write_audit
from trading.errors import Conflict
from trading.ids import Nanos


class Seen(msgspec.Struct, frozen=True):
    """What somebody saw in force who sets a limit now; None: none was."""

    value: Decimal | None


async def put_limit(
    connection: Connection,
    scope: str,
    kind: str,
    instrument: str,
    value: Decimal | None,
    by: str,
    *,
    keep_if_at_least: bool = False,
    only_if_set_at: int | None = None,
    seen: Seen | None = None,
) -> LimitRecord:
    """Write a version of a limit within a `change`, which makes changes queue up: no version is given out twice.

    One that is at least as high already stays if ``keep_if_at_least``; one set at another time than
    ``only_if_set_at`` stays too.  Raises `Conflict` ``limit_moved`` where another one than ``seen`` is in force.
    """
    before = await read_limits(connection, (scope, kind, instrument))
    known = before[0] if before else None
    present = None if known is None else known.value
    if seen is not None and seen.value != present:
        now = "none is in force" if known is None or present is None else f"it is {present:f}, by {known.changed_by}"
        raise Conflict("limit_moved", f"{kind} of {scope} has changed since: {now}; look at it again")
    if known is not None and known.value is not None:
        if keep_if_at_least and value is not None and known.value >= value:
            return known
        if only_if_set_at is not None and known.changed_at != only_if_set_at:
            return known
    record = LimitRecord(
        scope=scope,
        kind=kind,
        instrument=instrument,
        value=value,
        version=known.version + 1 if known is not None else 1,
        changed_at=Nanos(time.time_ns()),
        changed_by=by,
    )
    await connection.execute(
        "INSERT INTO limits (scope, kind, instrument, version, value, changed_at, changed_by) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s)",
        (scope, kind, instrument, record.version, value, record.changed_at, by),
    )
    subject = f"{scope}/{kind}" + (f"/{instrument}" if instrument else "")
    await write_audit(connection, by, "set_limit", subject, known, record)
    return record


async def lift_all(connection: Connection, scope: str, by: str) -> None:
    """Lift what is in force on a level, within a `change`."""
    rows = await dicts(connection, "SELECT DISTINCT kind, instrument FROM limits WHERE scope = %(s)s", {"s": scope})
    for row in rows:
        (known,) = await read_limits(connection, (scope, row["kind"], row["instrument"]))
        if known.value is not None:
            await put_limit(connection, scope, known.kind, known.instrument, None, by)


async def read_limits(connection: Connection, key: tuple[str, str, str] | None) -> list[LimitRecord]:
    """The version in force of one limit, or of all; lifted ones (value None) included."""
    where = "" if key is None else "WHERE (scope, kind, instrument) = (%s, %s, %s)"
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT DISTINCT ON (scope, kind, instrument) * FROM limits {where} "
            "ORDER BY scope, kind, instrument, version DESC",
            key,
        )
        return msgspec.convert(await cursor.fetchall(), list[LimitRecord])

"""Alerts: what a person should look at, open until somebody says so.

Any part of the deck may raise one.  The same thing (kind, whose, subject) raised again while its alert is open raises
that one's count and renews its text; nobody is told twice.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from storage.database import Connection, Database, dicts
from storage.paging import decode_cursor, encode_cursor, page_size
from storage.resource import write_audit
from trading.errors import Conflict, UnknownThing
from trading.ids import AccountId, AlgoId, Nanos, UserId

Severity: TypeAlias = Literal["info", "warning", "critical"]

#: Changes are made one after the other, so that who reads by ``change`` misses none.
_LOCK: Final = 0x51_44_41_4C_45_52_54
_LONGEST_SUBJECT: Final = 200
_LONGEST_TEXT: Final = 2000
#: Acknowledged ones are kept so long after they were raised, in nanoseconds.
KEPT: Final = 400 * 86_400_000_000_000
#: Once in so many alerts the old ones are deleted.
_SWEEP_EVERY: Final = 200


class AlertRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An alert.  ``acknowledged_at`` 0: open."""

    number: int
    id: str
    #: Such as ``session`` or ``large_order``.
    kind: str
    severity: Severity
    #: Whom it is about; "" the deck as a whole.
    user: UserId
    account: AccountId | None
    algo: AlgoId | None
    #: What it is about, such as an order; with kind and whom it makes two alerts the same.
    subject: str
    text: str
    at: Nanos
    #: When it was last raised, and how often.
    last_at: Nanos
    times: int
    acknowledged_at: Nanos
    acknowledged_by: str
    change: int
    #: Whose acts it is about, besides ``user``.
    persons: tuple[str, ...] = ()


class NewAlert(msgspec.Struct, frozen=True, kw_only=True):
    """What raises an alert; see `AlertRecord`."""

    kind: str
    severity: Severity
    user: str
    subject: str
    text: str
    at: Nanos
    account: str | None = None
    algo: str | None = None
    #: How often it has happened, and the last time (None: ``at``).
    times: int = 1
    last_at: Nanos | None = None
    #: Whose acts it is about: in an account of ``user`` others may act as well.
    persons: tuple[str, ...] = ()


class AlertFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which alerts to list; None does not filter."""

    open: bool | None = None
    kind: str | None = None
    #: Of this user, or of one of ``accounts``; accounts without a user: of these alone.
    user: UserId | None = None
    accounts: Sequence[AccountId] | None = None


class Alerts:
    """The table of alerts."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def raise_alert(
        self,
        *,
        kind: str,
        severity: Severity,
        user: str,
        subject: str,
        text: str,
        at: Nanos,
        account: str | None = None,
        algo: str | None = None,
        persons: tuple[str, ...] = (),
    ) -> AlertRecord:
        """Raise one, or count it where the same one is open; the graver severity stays.  `NotReady`."""
        new = NewAlert(
            kind=kind,
            severity=severity,
            user=user,
            account=account,
            algo=algo,
            subject=subject,
            text=text,
            at=at,
            persons=persons,
        )
        async with self._db.connection() as connection, connection.transaction():
            (raised,) = await raise_within(connection, [new])
        return raised

    async def acknowledge(self, id: str, by: str) -> AlertRecord:
        """Close one.  Raises `UnknownThing`, and `Conflict` where somebody has already.

        Operators judge what others do, so what is about themselves, or about what they did in another's account, is
        for one whom it is not about: `Conflict` ``own_alert``.  Where there is none, they do it themselves, and the
        audit says so.
        """
        async with self._db.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            before = await _one(connection, id)
            if before.acknowledged_at:
                raise Conflict("alert_is_acknowledged", f"{before.acknowledged_by} has acknowledged {id} already")
            about = {before.user, *before.persons}
            alone = by in about and await _is_operator(connection, by)
            if alone and (others := await _other_operators(connection, about)):
                raise Conflict("own_alert", f"it is about you: another operator closes it ({', '.join(others)})")
            rows = await dicts(
                connection,
                "UPDATE alerts SET acknowledged_at = %(at)s, acknowledged_by = %(by)s, "
                "change = nextval('alert_changes') WHERE id = %(id)s RETURNING *",
                {"id": id, "by": by, "at": time.time_ns()},
            )
            (after,) = msgspec.convert(rows, list[AlertRecord])
            noted: AlertRecord | dict[str, Any] = after
            if alone:
                noted = {
                    **msgspec.structs.asdict(after),
                    "because": "it is about them, and there was no other operator",
                }
            await write_audit(connection, by, "acknowledge_alert", id, before, noted)
        return after

    async def get(self, id: str) -> AlertRecord:
        """One alert.  Raises `UnknownThing`."""
        async with self._db.connection() as connection:
            return await _one(connection, id)

    async def page(
        self, filters: AlertFilter, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[AlertRecord], str | None]:
        """A page, newest first, and the cursor of the next.

        Raises `BadInput` for a cursor that is not ours or a limit outside 1 … 1000.
        """
        where, values = _where(filters)
        if cursor is not None:
            values["cursor_at"], values["cursor_number"] = decode_cursor(cursor)
            where += " AND (at, number) < (%(cursor_at)s, %(cursor_number)s)"
        values["limit"] = page_size(limit) + 1
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                f"SELECT * FROM alerts WHERE {where} ORDER BY at DESC, number DESC LIMIT %(limit)s",
                values,
            )
        found = msgspec.convert(rows[:limit], list[AlertRecord])
        return found, encode_cursor(found[-1].at, found[-1].number) if len(rows) > limit else None

    async def count_open(self, filters: AlertFilter) -> int:
        """How many of these are open."""
        where, values = _where(msgspec.structs.replace(filters, open=True))
        async with self._db.connection() as connection:
            (row,) = await dicts(connection, f"SELECT count(*) AS found FROM alerts WHERE {where}", values)
        return int(row["found"])

    async def newest_change(self) -> int:
        """The number of the last change of any alert; 0 before the first."""
        async with self._db.connection() as connection:
            (row,) = await dicts(connection, "SELECT coalesce(max(change), 0) AS newest FROM alerts", {})
        return int(row["newest"])

    async def changed_after(self, change: int, limit: int = 500) -> list[AlertRecord]:
        """Alerts that were raised, raised again or acknowledged after ``change``, in that order."""
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                "SELECT * FROM alerts WHERE change > %(after)s ORDER BY change LIMIT %(limit)s",
                {"after": change, "limit": limit},
            )
        return msgspec.convert(rows, list[AlertRecord])


async def raise_within(connection: Connection, alerts: Sequence[NewAlert]) -> list[AlertRecord]:
    """As `Alerts.raise_alert`, for several, in a transaction that does more."""
    raised: list[AlertRecord] = []
    if not alerts:
        return raised
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    for alert in alerts:
        rows = await dicts(
            connection,
            """
            INSERT INTO alerts (id, kind, severity, "user", account, algo, subject, text, at, last_at, times,
                persons, change)
            VALUES (%(id)s, %(kind)s, %(severity)s, %(user)s, %(account)s, %(algo)s, %(subject)s, %(text)s,
                %(at)s, %(last_at)s, %(times)s, %(persons)s, nextval('alert_changes'))
            ON CONFLICT (kind, "user", account, algo, subject) WHERE acknowledged_at = 0 DO UPDATE SET
                times = alerts.times + excluded.times, last_at = greatest(alerts.last_at, excluded.last_at),
                text = excluded.text,
                persons = ARRAY(SELECT DISTINCT unnest(alerts.persons || excluded.persons) ORDER BY 1),
                severity = CASE WHEN 'critical' IN (alerts.severity, excluded.severity) THEN 'critical'
                    WHEN 'warning' IN (alerts.severity, excluded.severity) THEN 'warning' ELSE 'info' END,
                change = excluded.change
            RETURNING *
            """,
            {
                **msgspec.structs.asdict(alert),
                "last_at": alert.at if alert.last_at is None else alert.last_at,
                "id": f"alert-{secrets.token_hex(6)}",
                "persons": list(alert.persons),
                "subject": _storable(alert.subject, _LONGEST_SUBJECT),
                "text": _storable(alert.text, _LONGEST_TEXT),
            },
        )
        raised += msgspec.convert(rows, list[AlertRecord])
    if any(each.number % _SWEEP_EVERY == 0 for each in raised):
        await connection.execute("DELETE FROM alerts WHERE acknowledged_at <> 0 AND at < %s", (time.time_ns() - KEPT,))
    return raised


def _where(filters: AlertFilter) -> tuple[str, dict[str, Any]]:
    where, values = ["true"], dict[str, Any]()
    if filters.open is not None:
        where.append("acknowledged_at = 0" if filters.open else "acknowledged_at <> 0")
    if filters.kind is not None:
        where.append("kind = %(kind)s")
        values["kind"] = filters.kind
    if filters.user is not None or filters.accounts is not None:
        where.append('("user" = %(user)s OR account = ANY(%(accounts)s))')
        values |= {"user": filters.user, "accounts": list(filters.accounts or ())}
    return " AND ".join(where), values


async def _one(connection: Connection, id: str) -> AlertRecord:
    rows = await dicts(connection, "SELECT * FROM alerts WHERE id = %(id)s", {"id": id})
    if not rows:
        raise UnknownThing("alert", id, "GET /v1/alerts lists them")
    return msgspec.convert(rows[0], AlertRecord)


async def _is_operator(connection: Connection, user: str) -> bool:
    """By what the user may do now, whatever the key may."""
    return bool(
        await dicts(
            connection, "SELECT 1 FROM users WHERE id = %(user)s AND roles ? 'operator' AND enabled", {"user": user}
        )
    )


async def _other_operators(connection: Connection, users: Collection[str]) -> list[str]:
    rows = await dicts(
        connection,
        "SELECT id FROM users WHERE id <> ALL(%(users)s) AND roles ? 'operator' AND enabled ORDER BY id",
        {"users": list(users)},
    )
    return [row["id"] for row in rows]


def _storable(text: str, longest: int) -> str:
    """``text`` as PostgreSQL takes it: it knows no NUL."""
    return text.replace("\x00", "\ufffd")[:longest]

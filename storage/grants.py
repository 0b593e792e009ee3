"""Grants: accounts that others than their owner may look at, or trade."""

from __future__ import annotations

import time
from enum import StrEnum

import msgspec
import psycopg

from storage.database import Database, dicts
from storage.resource import change, missing_reference, write_audit
from trading.errors import UnknownThing
from trading.ids import AccountId, Nanos, UserId


class GrantLevel(StrEnum):
    """What a grant allows: to look, or to trade as well."""

    VIEW = "view"
    TRADE = "trade"


class GrantRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``user`` may do so much with ``account``."""

    account: AccountId
    user: UserId
    level: GrantLevel
    granted_at: Nanos
    granted_by: str


class Grants:
    """The table of grants."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of(self, user: UserId) -> dict[AccountId, GrantLevel]:
        """What ``user`` was granted."""
        return {each.account: each.level for each in await self.list(user=user)}

    async def list(self, account: AccountId | None = None, user: UserId | None = None) -> list[GrantRecord]:
        """Grants, by account and user."""
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                "SELECT * FROM grants WHERE (%(account)s::text IS NULL OR account = %(account)s) "
                'AND (%(user)s::text IS NULL OR "user" = %(user)s) ORDER BY account, "user"',
                {"account": account, "user": user},
            )
        return msgspec.convert(rows, list[GrantRecord])

    async def put(self, account: AccountId, user: UserId, level: GrantLevel, by: str) -> GrantRecord:
        """Grant, or change what was granted.  Raises `UnknownThing` for the account or the user."""
        record = GrantRecord(account=account, user=user, level=level, granted_at=Nanos(time.time_ns()), granted_by=by)
        async with change(self._db) as connection:
            before = await dicts(
                connection,
                'SELECT level FROM grants WHERE (account, "user") = (%(account)s, %(user)s) FOR UPDATE',
                {"account": account, "user": user},
            )
            try:
                await connection.execute(
                    'INSERT INTO grants (account, "user", level, granted_at, granted_by) VALUES (%s, %s, %s, %s, %s) '
                    'ON CONFLICT (account, "user") DO UPDATE SET level = excluded.level, '
                    "granted_at = excluded.granted_at, granted_by = excluded.granted_by",
                    (account, user, str(level), record.granted_at, by),
                )
            except psycopg.errors.ForeignKeyViolation as error:
                raise UnknownThing(*missing_reference(error)) from error
            await write_audit(
                connection, by, "grant_account", f"{account}/{user}", before[0] if before else None, {"level": level}
            )
        return record

    async def delete(self, account: AccountId, user: UserId, by: str) -> None:
        """Take a grant back.  Raises `UnknownThing`."""
        async with change(self._db) as connection:
            rows = await dicts(
                connection,
                'DELETE FROM grants WHERE (account, "user") = (%(account)s, %(user)s) RETURNING level',
                {"account": account, "user": user},
            )
            if not rows:
                raise UnknownThing("grant", f"{account}/{user}", "GET /v1/grants lists them")
            await write_audit(connection, by, "revoke_grant", f"{account}/{user}", rows[0], None)

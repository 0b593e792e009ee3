"""API keys: 256 random bits each, shown once, stored as their SHA-256.

A fast hash is right here: nobody can guess 256 random bits, however fast the guesses are checked.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence

import msgspec
import psycopg
from psycopg.rows import dict_row

from storage.database import Connection, Database, dicts
from storage.records import ApiKey
from storage.resource import jsonb, missing_reference, write_audit
from trading.errors import BadInput, UnknownThing
from trading.ids import AccountId, Nanos, UserId

_FIELDS = 'id, "user", roles, label, created_at, expires_at, revoked_at, rights, accounts'


class ApiKeys:
    """The table of API keys."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(
        self,
        user: UserId,
        roles: Sequence[str],
        label: str,
        expires_at: Nanos | None = None,
        by: str = "",
        rights: Sequence[str] | None = None,
        accounts: Sequence[AccountId] | None = None,
    ) -> tuple[str, str]:
        """A new key of an existing user: ``(id, key)``.  The key cannot be read again.

        It can do no more than ``rights`` and reaches no more than ``accounts``, where these are given.

        Raises `UnknownThing` for the user, `BadInput` for no roles or an expiry that has passed.
        """
        now = time.time_ns()
        if not roles:
            raise BadInput("roles", "a key needs at least one role")
        if expires_at is not None and expires_at <= now:
            raise BadInput("expires_at", "lies in the past")
        id, key = secrets.token_hex(6), f"qd_{secrets.token_urlsafe(32)}"
        async with self._db.connection() as connection, connection.transaction():
            try:
                await connection.execute(
                    'INSERT INTO api_keys (id, "user", roles, label, sha256, created_at, expires_at, rights, accounts) '
                    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    (
                        id,
                        user,
                        jsonb(tuple(roles)),
                        label,
                        _digest(key),
                        now,
                        expires_at,
                        None if rights is None else jsonb(tuple(rights)),
                        None if accounts is None else jsonb(tuple(accounts)),
                    ),
                )
            except psycopg.errors.ForeignKeyViolation as error:
                raise UnknownThing(*missing_reference(error), "create it before its key") from error
            after = {"user": user, "roles": list(roles), "label": label, "expires_at": expires_at}
            after |= {} if rights is None else {"rights": list(rights)}
            after |= {} if accounts is None else {"accounts": list(accounts)}
            await write_audit(connection, by or user, "create_api_key", id, None, after)
        return id, key

    async def find(self, key: str) -> ApiKey | None:
        """The record of a key that is valid now, else None."""
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                f"SELECT {_FIELDS} FROM api_keys WHERE sha256 = %s AND revoked_at IS NULL "
                "AND (expires_at IS NULL OR expires_at > %s)",
                (_digest(key), time.time_ns()),
            )
            row = await cursor.fetchone()
        return None if row is None else msgspec.convert(row, ApiKey)

    async def whose(self, key: str) -> ApiKey | None:
        """The record of a key, valid or not any more; None where it was never one."""
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(f"SELECT {_FIELDS} FROM api_keys WHERE sha256 = %s", (_digest(key),))
            row = await cursor.fetchone()
        return None if row is None else msgspec.convert(row, ApiKey)

    async def list(self) -> list[ApiKey]:
        """All keys, revoked and expired ones included, oldest first."""
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(f"SELECT {_FIELDS} FROM api_keys ORDER BY created_at, id")
            rows = await cursor.fetchall()
        return [msgspec.convert(row, ApiKey) for row in rows]

    async def revoke(self, id: str, by: str) -> None:
        """End a key at once.  Raises `UnknownThing`; a key revoked before stays as it is."""
        async with self._db.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "UPDATE api_keys SET revoked_at = coalesce(revoked_at, %s) WHERE id = %s",
                (time.time_ns(), id),
            )
            if cursor.rowcount != 1:
                raise UnknownThing("api_key", id)
            await write_audit(connection, by, "revoke_api_key", id, None, None)

    async def count(self) -> int:
        """How many keys were ever made; 0 means a first run."""
        async with self._db.connection() as connection:
            row = await (await connection.execute("SELECT count(*) FROM api_keys")).fetchone()
        return int(row[0]) if row else 0


async def revoke_all_within(connection: Connection, user: UserId, because: str, by: str) -> int:
    """End all keys of a user that are still good, in a transaction that does more; how many there were."""
    now = time.time_ns()
    rows = await dicts(
        connection,
        'UPDATE api_keys SET revoked_at = %(now)s WHERE "user" = %(user)s AND revoked_at IS NULL '
        "AND (expires_at IS NULL OR expires_at > %(now)s) RETURNING id",
        {"user": user, "now": now},
    )
    for row in rows:
        await write_audit(connection, by, "revoke_api_key", row["id"], None, {"user": user, "because": because})
    return len(rows)


async def count_good_within(connection: Connection, user: UserId) -> int:
    """How many keys of a user are still good, in a transaction that does more."""
    rows = await dicts(
        connection,
        'SELECT count(*) AS good FROM api_keys WHERE "user" = %(user)s AND revoked_at IS NULL '
        "AND (expires_at IS NULL OR expires_at > %(now)s)",
        {"user": user, "now": time.time_ns()},
    )
    return int(rows[0]["good"])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()

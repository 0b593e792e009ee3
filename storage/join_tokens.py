"""One-time tokens with which machines join: 256 random bits, shown once, stored as their SHA-256.

A token is used once, for one machine.  From then on the machine proves itself with it, for as long as the machine is
registered.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from typing import Final

import msgspec
from psycopg.rows import dict_row

from storage.database import Connection, Database
from storage.records import NodeRecord
from storage.resource import change, jsonb, write_audit
from trading.errors import Conflict, Refused, UnknownThing
from trading.ids import Nanos, NodeName, UserId

PREFIX: Final = "qdj_"
_FIELDS: Final = "id, node, labels, with_secrets, created_by, created_at, expires_at, used_at, revoked_at"


class JoinToken(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a token; ``node``: its machine ("" before it is used, where none was named)."""

    id: str
    node: NodeName
    labels: dict[str, str]
    #: Whether the machine is given the key of stored secrets: only so can it log in at brokers and providers.
    with_secrets: bool
    created_by: UserId
    created_at: Nanos
    expires_at: Nanos
    #: 0: not yet.
    used_at: Nanos = Nanos(0)
    revoked_at: Nanos = Nanos(0)


class JoinTokens:
    """The table of join tokens."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(
        self, node: NodeName, labels: Mapping[str, str], with_secrets: bool, valid_s: int, by: UserId
    ) -> tuple[JoinToken, str]:
        """A new token and its text, which cannot be read again.  ``node`` "": the machine names itself."""
        now = Nanos(time.time_ns())
        token = JoinToken(
            id=secrets.token_hex(6),
            node=node,
            labels=dict(labels),
            with_secrets=with_secrets,
            created_by=by,
            created_at=now,
            expires_at=Nanos(now + valid_s * 1_000_000_000),
        )
        text = PREFIX + secrets.token_urlsafe(32)
        async with self._db.connection() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO join_tokens (id, sha256, node, labels, with_secrets, created_by, created_at, expires_at) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (token.id, _digest(text), node, jsonb(token.labels), with_secrets, by, now, token.expires_at),
            )
            after = {"node": node, "labels": token.labels, "with_secrets": with_secrets, "expires_at": token.expires_at}
            await write_audit(connection, by, "create_join_token", token.id, None, after)
        return token, text

    async def list(self) -> list[JoinToken]:
        """All tokens, oldest first."""
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(f"SELECT {_FIELDS} FROM join_tokens ORDER BY created_at, id".encode())
            return msgspec.convert(await cursor.fetchall(), list[JoinToken])

    async def revoke(self, id: str, by: UserId) -> None:
        """Make a token of no use; a machine that has joined with it has to leave.  Raises `UnknownThing`."""
        async with self._db.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "UPDATE join_tokens SET revoked_at = %s WHERE id = %s AND revoked_at = 0 RETURNING node",
                (time.time_ns(), id),
            )
            row = await cursor.fetchone()
            if row is None:
                raise UnknownThing("join_token", id, "or it was revoked before")
            await write_audit(connection, by, "revoke_join_token", id, None, {"node": row[0]})

    async def find(self, text: str) -> JoinToken:
        """The record of a token.  Raises `Refused` for one that is not known or was revoked."""
        async with self._db.connection() as connection:
            return await _find(connection, text)

    async def has_joined(self, node: NodeName) -> bool:
        """Whether a machine of this name joined with a token: it leaves when it is forgotten."""
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                "SELECT 1 FROM join_tokens WHERE node = %s AND used_at > 0 AND revoked_at = 0", (node,)
            )
            return await cursor.fetchone() is not None

    async def use(self, text: str, record: NodeRecord) -> JoinToken:
        """Register a machine with its token, which is then used up.

        Raises `Refused` for a token that is not known, was revoked or has expired, `Conflict` for one that was used or
        a name that is taken.
        """
        async with change(self._db) as connection:
            token = await _find(connection, text, lock=True)
            if token.used_at:
                raise Conflict("join_token_used", f"this token was used by node {token.node}: make another")
            now = time.time_ns()
            if token.expires_at <= now:
                raise Refused("join_token_expired", "this token has expired: make another")
            cursor = await connection.execute(
                "INSERT INTO nodes (name, labels, registered_at, cordoned, draining, generation) "
                "VALUES (%s, %s, %s, false, false, 1) ON CONFLICT (name) DO NOTHING",
                (record.name, jsonb(record.labels), record.registered_at),
            )
            if not cursor.rowcount:
                raise Conflict(
                    "node_exists", f"there is a node {record.name!r}: choose another name, or remove that one"
                )
            await connection.execute(
                "UPDATE join_tokens SET used_at = %s, node = %s WHERE id = %s", (now, record.name, token.id)
            )
            after = {"node": record, "token": token.id}
            await write_audit(connection, token.created_by, "join_node", record.name, None, after)
        return msgspec.structs.replace(token, used_at=Nanos(now), node=record.name)


async def _find(connection: Connection, text: str, *, lock: bool = False) -> JoinToken:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT {_FIELDS} FROM join_tokens WHERE sha256 = %s{' FOR UPDATE' if lock else ''}".encode(),
            (_digest(text),),
        )
        row = await cursor.fetchone()
    if row is None:
        raise Refused("join_token_unknown", "this join token is not known: make one with POST /v1/nodes/tokens")
    token = msgspec.convert(row, JoinToken)
    if token.revoked_at:
        raise Refused("join_token_revoked", "this join token was revoked")
    return token


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()

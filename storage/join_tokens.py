"""Tokens with which machines join: 256 random bits, shown once, stored as their SHA-256.

A token is used once, for one machine.  From then on the machine proves itself with it, for as long as the machine is
registered.  A pool's token, for machines that a cluster launcher starts, is not used up: each machine that comes with
it is given a token of its own, and leaves when the pool's is revoked.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace
from psycopg.rows import dict_row

from storage.database import Connection, Database
from storage.records import NodeRecord
from storage.resource import change, jsonb, write_audit
from trading.errors import BadInput, Conflict, Refused, UnknownThing
from trading.ids import Nanos, NodeName, UserId

PREFIX: Final = "qdj_"
GOOD_TEXT: Final = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")
_FIELDS: Final = "id, node, labels, with_secrets, created_by, created_at, expires_at, used_at, revoked_at, pool"


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
    #: Id of the pool's token that this one belongs to: its own where it is that; "" for no pool.
    pool: str = ""

    @property
    def is_pool(self) -> bool:
        """Whether any number of machines can join with it."""
        return self.pool == self.id


class JoinTokens:
    """The table of join tokens."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(
        self,
        node: NodeName,
        labels: Mapping[str, str],
        with_secrets: bool,
        valid_s: int,
        by: UserId,
        *,
        pool: bool = False,
        text: str = "",
    ) -> tuple[JoinToken, str]:
        """A new token and its text, which cannot be read again.  ``node`` "": the machine names itself.

        ``pool``: for any number of machines, each of which names itself.  ``text``: one that was made elsewhere.
        """
        if text and not GOOD_TEXT.fullmatch(text):
            raise BadInput("text", f"a token is {PREFIX} and 43 letters, digits, - and _ that nobody can guess")
        if pool and node:
            raise BadInput("pool", "the token of a pool is for no one machine: leave its name out")
        now = Nanos(time.time_ns())
        id = secrets.token_hex(6)
        token = JoinToken(
            id=id,
            pool=id if pool else "",
            node=node,
            labels=dict(labels),
            with_secrets=with_secrets,
            created_by=by,
            created_at=now,
            expires_at=Nanos(now + valid_s * 1_000_000_000),
        )
        text = text or PREFIX + secrets.token_urlsafe(32)
        async with self._db.connection() as connection, connection.transaction():
            await _insert(connection, token, text)
            after = {
                "node": node,
                "labels": token.labels,
                "with_secrets": with_secrets,
                "expires_at": token.expires_at,
                "pool": pool,
            }
            await write_audit(connection, by, "create_join_token", token.id, None, after)
        return token, text

    async def list(self) -> list[JoinToken]:
        """All tokens, oldest first."""
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(f"SELECT {_FIELDS} FROM join_tokens ORDER BY created_at, id".encode())
            return msgspec.convert(await cursor.fetchall(), list[JoinToken])

    async def revoke(self, id: str, by: UserId) -> None:
        """Make a token of no use; machines that have joined with it have to leave.  Raises `UnknownThing`."""
        async with self._db.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "UPDATE join_tokens SET revoked_at = %s WHERE (id = %s OR pool = %s) AND revoked_at = 0 "
                "RETURNING id, node",
                (time.time_ns(), id, id),
            )
            nodes = dict(await cursor.fetchall())
            if id not in nodes:
                raise UnknownThing("join_token", id, "or it was revoked before")
            left = sorted(filter(None, nodes.values()))
            await write_audit(connection, by, "revoke_join_token", id, None, {"nodes": left})

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

    async def use(self, text: str, record: NodeRecord) -> str:
        """Register a machine with its token; returns the text of the token that is its own from now on.

        That is ``text``, used up, unless this is a pool's.  A machine of a pool whose token was revoked since may come
        again under its name.  Raises `Refused` for a token that is not known, was revoked or has expired, `Conflict`
        for one that was used or a name that is taken.
        """
        async with change(self._db) as connection:
            token = await _find(connection, text, lock=True)
            if token.used_at:
                raise Conflict("join_token_used", f"this token was used by node {token.node}: make another")
            now = Nanos(time.time_ns())
            if token.expires_at <= now:
                raise Refused("join_token_expired", "this token has expired: make another")
            await _register(connection, token, record)
            if token.is_pool:
                text = PREFIX + secrets.token_urlsafe(32)
                token = replace(token, id=secrets.token_hex(6), created_at=now)
                await _insert(connection, token, text)
            await connection.execute(
                "UPDATE join_tokens SET used_at = %s, node = %s WHERE id = %s", (now, record.name, token.id)
            )
            after = {"node": record, "token": token.id}
            await write_audit(connection, token.created_by, "join_node", record.name, None, after)
        return text


async def _register(connection: Connection, token: JoinToken, record: NodeRecord) -> None:
    """Add the machine to those that are known; one that comes back to its pool keeps the labels it had."""
    cursor = await connection.execute(
        "INSERT INTO nodes (name, labels, registered_at, cordoned, draining, generation) "
        "VALUES (%s, %s, %s, false, false, 1) ON CONFLICT (name) DO NOTHING",
        (record.name, jsonb(record.labels), record.registered_at),
    )
    if cursor.rowcount:
        return
    cursor = await connection.execute(
        "SELECT bool_and(pool <> '' AND revoked_at > 0) FROM join_tokens WHERE node = %s AND used_at > 0",
        (record.name,),
    )
    row = await cursor.fetchone()
    if not (token.is_pool and row is not None and row[0]):
        raise Conflict("node_exists", f"there is a node {record.name!r}: choose another name, or remove that one")


async def _insert(connection: Connection, token: JoinToken, text: str) -> None:
    await connection.execute(
        "INSERT INTO join_tokens (id, sha256, node, labels, with_secrets, created_by, created_at, expires_at, pool) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            token.id,
            _digest(text),
            token.node,
            jsonb(token.labels),
            token.with_secrets,
            token.created_by,
            token.created_at,
            token.expires_at,
            token.pool,
        ),
    )


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

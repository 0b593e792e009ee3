"""Files in PostgreSQL by the digest of their content: submitted strategies and the wheels that they need.

A file is kept in parts, so that neither a statement nor a message is ever long.  It is there whole or not at all, and
what is read is checked against its digest.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Final

from storage.database import Connection, Database
from trading.errors import Invariant, UnknownThing

PART_BYTES: Final = 4 << 20
#: What no version names is deleted this long after it was last put: a submission puts its files before its version.
UNWANTED_NS: Final = 3600 * 1_000_000_000


class Artefacts:
    """The store of files."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(self, data: bytes) -> str:
        """Keep ``data``; its SHA-256.  The same content is kept once."""
        sha256 = await asyncio.to_thread(_digest, data)
        async with self._db.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "INSERT INTO artefacts VALUES (%s, %s, %s) "
                "ON CONFLICT (sha256) DO UPDATE SET wanted_at = excluded.wanted_at RETURNING xmax::text = '0'",
                (sha256, len(data), time.time_ns()),
            )
            row = await cursor.fetchone()
            if row is not None and row[0]:
                for part, at in enumerate(range(0, len(data), PART_BYTES)):
                    await connection.execute(
                        "INSERT INTO artefact_parts VALUES (%s, %s, %b)", (sha256, part, data[at : at + PART_BYTES])
                    )
        return sha256

    async def get(self, sha256: str) -> bytes:
        """The content; raises `UnknownThing`, or `Invariant` where the database gives something else."""
        found = bytearray()
        async with self._db.connection() as connection:
            part = 0
            while True:
                cursor = await connection.execute(
                    "SELECT bytes FROM artefact_parts WHERE sha256 = %s AND part = %s", (sha256, part), binary=True
                )
                row = await cursor.fetchone()
                if row is None:
                    break
                found += row[0]
                part += 1
            if not part and await self._size(connection, sha256) != 0:
                raise UnknownThing("artefact", sha256)
        if await asyncio.to_thread(_digest, found) != sha256:
            raise Invariant(
                f"artefact {sha256} is {len(found)} bytes of another digest: the database was tampered with"
            )
        return bytes(found)

    async def _size(self, connection: Connection, sha256: str) -> int | None:
        cursor = await connection.execute("SELECT size FROM artefacts WHERE sha256 = %s", (sha256,))
        row = await cursor.fetchone()
        return None if row is None else int(row[0])


def _digest(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


async def drop_unwanted(connection: Connection) -> int:
    """Delete files that no version names any more; how many they were."""
    cursor = await connection.execute(
        "DELETE FROM artefacts a WHERE wanted_at < %s "
        "AND NOT EXISTS (SELECT FROM strategy_versions v WHERE v.artefact = a.sha256) "
        "AND NOT EXISTS (SELECT FROM strategy_wheels w WHERE w.artefact = a.sha256)",
        (time.time_ns() - UNWANTED_NS,),
    )
    return cursor.rowcount

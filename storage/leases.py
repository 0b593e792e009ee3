"""Leases: who owns a name now.  The epoch fences; the expiry only says when nobody renews any more.

Every durable write of an owner checks its epoch in the same transaction (SQL function ``check_fence``), so
whoever takes a lease has, from then on, the only hand that can write.
"""

from __future__ import annotations

import msgspec

from storage.database import Database
from trading.errors import BadInput, Fenced
from trading.ids import Epoch, Nanos


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A name, the epoch of its owner and until when the owner has promised to renew."""

    name: str
    epoch: Epoch
    holder: str
    taken_at: Nanos
    expires_at: Nanos


_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000000)::bigint"


class Leases:
    """The table of leases.  All times are the database's clock."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def take(self, name: str, holder: str, ttl_s: float) -> Epoch:
        """Become the owner with a new epoch, higher than any before; whoever held it is fenced.

        Waits for writes of the old owner that are under way, so what they wrote can be read afterwards.
        """
        _check_ttl(ttl_s)
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                f"""
                INSERT INTO leases AS l (name, epoch, holder, taken_at, expires_at)
                VALUES (%(name)s, 1, %(holder)s, {_NOW}, {_NOW} + %(ttl)s)
                ON CONFLICT (name) DO UPDATE SET
                    epoch = l.epoch + 1, holder = excluded.holder, taken_at = excluded.taken_at,
                    expires_at = {_NOW} + %(ttl)s
                RETURNING epoch
                """,
                {"name": name, "holder": holder, "ttl": int(ttl_s * 1e9)},
            )
            row = await cursor.fetchone()
        assert row is not None
        return Epoch(row[0])

    async def renew(self, name: str, epoch: Epoch, ttl_s: float) -> None:
        """Promise ``ttl_s`` more seconds from now.  Raises `Fenced` when another epoch holds the name."""
        _check_ttl(ttl_s)
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                f"UPDATE leases SET expires_at = {_NOW} + %s WHERE name = %s AND epoch = %s",
                (int(ttl_s * 1e9), name, epoch),
            )
        if cursor.rowcount != 1:
            raise Fenced(name, epoch, await self.current(name))

    async def current(self, name: str) -> Epoch:
        """The epoch of the owner, released or not; 0 where nobody ever took it."""
        async with self._db.connection() as connection:
            cursor = await connection.execute("SELECT epoch FROM leases WHERE name = %s", (name,))
            row = await cursor.fetchone()
        return Epoch(row[0] if row else 0)

    async def release(self, name: str, epoch: Epoch) -> None:
        """Let it expire now.  The epoch stays, so it is never given out again.  Raises `Fenced`."""
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                f"UPDATE leases SET expires_at = {_NOW} WHERE name = %s AND epoch = %s", (name, epoch)
            )
        if cursor.rowcount != 1:
            raise Fenced(name, epoch, await self.current(name))

    async def end(self, name: str, epoch: Epoch, by: str) -> Epoch:
        """Fence whoever holds the name with an epoch up to ``epoch`` (0: with any); nobody holds it then.

        Returns the epoch that is over with all before it: ``epoch`` where a later incarnation has the name already.
        """
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                f"""
                UPDATE leases SET epoch = epoch + 1, holder = %(by)s, taken_at = {_NOW}, expires_at = {_NOW}
                WHERE name = %(name)s AND (epoch <= %(epoch)s OR %(epoch)s = 0)
                RETURNING epoch - 1
                """,
                {"name": name, "epoch": epoch, "by": by},
            )
            row = await cursor.fetchone()
        return Epoch(row[0]) if row else epoch

    async def all(self) -> list[Lease]:
        """Every lease ever taken, by name."""
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                "SELECT name, epoch, holder, taken_at, expires_at FROM leases ORDER BY name"
            )
            rows = await cursor.fetchall()
        return [
            Lease(name=r[0], epoch=Epoch(r[1]), holder=r[2], taken_at=Nanos(r[3]), expires_at=Nanos(r[4])) for r in rows
        ]

    async def now(self) -> Nanos:
        """The database's clock, by which leases expire."""
        async with self._db.connection() as connection:
            row = await (await connection.execute(f"SELECT {_NOW}")).fetchone()
        assert row is not None
        return Nanos(row[0])


def _check_ttl(ttl_s: float) -> None:
    if not 0 < ttl_s <= 86_400:
        raise BadInput("ttl_s", f"{ttl_s} is not between 0 and 86400 seconds")

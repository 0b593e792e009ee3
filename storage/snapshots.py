"""The state an algo takes with it from one incarnation to the next."""

from __future__ import annotations

import time

from storage.database import Database
from trading.errors import Fenced, UnknownThing
from trading.ids import AlgoId, Epoch


class Snapshots:
    """The last snapshot of each algo."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def save(self, algo: AlgoId, epoch: Epoch, state: bytes) -> None:
        """Replace the snapshot.  Raises `Fenced` when a newer incarnation exists, or `UnknownThing`."""
        async with self._db.connection() as connection:
            # FOR SHARE: a new incarnation is numbered before this or after it, never meanwhile.
            cursor = await connection.execute(
                """
                WITH owner AS (SELECT epoch FROM algos WHERE id = %(algo)s FOR SHARE),
                saved AS (
                    INSERT INTO algo_snapshots (algo, epoch, state, saved_at)
                    SELECT %(algo)s, %(epoch)s, %(state)s, %(now)s FROM owner WHERE owner.epoch <= %(epoch)s
                    ON CONFLICT (algo) DO UPDATE SET
                        epoch = excluded.epoch, state = excluded.state, saved_at = excluded.saved_at
                )
                SELECT epoch FROM owner
                """,
                {"algo": algo, "epoch": epoch, "state": state, "now": time.time_ns()},
                prepare=True,
            )
            row = await cursor.fetchone()
        if row is None:
            raise UnknownThing("algo", algo)
        if row[0] > epoch:
            raise Fenced(f"algo/{algo}", epoch, row[0])

    async def load(self, algo: AlgoId) -> bytes | None:
        """The last snapshot of any incarnation, or None."""
        async with self._db.connection() as connection:
            cursor = await connection.execute("SELECT state FROM algo_snapshots WHERE algo = %s", (algo,))
            row = await cursor.fetchone()
        return None if row is None else bytes(row[0])

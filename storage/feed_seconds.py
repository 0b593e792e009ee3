"""Which instruments of feeds have a second provider, as their workers and the API read it."""

from __future__ import annotations

import msgspec

from storage.database import Database, dicts
from trading.ids import FeedId, InstrumentId
from trading.seconds import SecondSource


class FeedSeconds:
    """The seconds of feeds; they are changed with the feed (`storage.desired`)."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of(self, feed: FeedId) -> dict[InstrumentId, SecondSource]:
        """Those of one feed; {} where it is not there (any more)."""
        async with self._db.connection() as connection:
            rows = await dicts(connection, "SELECT seconds FROM feeds WHERE id = %s", (feed,))
        return msgspec.convert(rows[0]["seconds"], dict[InstrumentId, SecondSource]) if rows else {}

    async def all(self) -> dict[FeedId, dict[InstrumentId, SecondSource]]:
        """Those of every feed that has any."""
        async with self._db.connection() as connection:
            rows = await dicts(connection, "SELECT id, seconds FROM feeds WHERE seconds <> '{}' ORDER BY id", ())
        return {FeedId(row["id"]): msgspec.convert(row["seconds"], dict[InstrumentId, SecondSource]) for row in rows}

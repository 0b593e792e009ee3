"""What was set of a feed's filter and patience, and the gaps that its streams had."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from psycopg.types.json import Jsonb

from storage.database import Database, dicts
from storage.paging import decode_cursor, encode_cursor, page_size
from storage.records import FeedGap
from storage.resource import change, write_audit
from trading.errors import Conflict, UnknownThing
from trading.feed_tuning import NOTHING, Tuning
from trading.ids import FeedId, InstrumentId, Nanos

#: Gaps are kept for so long.
_KEPT_NS = 90 * 86_400 * 1_000_000_000


class FeedTunings:
    """The table of tunings, a row for each feed and each of its instruments that has its own."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of(self, feed: FeedId) -> tuple[Tuning, dict[InstrumentId, Tuning]]:
        """What is set of a feed as a whole, and of its instruments."""
        async with self._db.connection() as connection:
            rows = await dicts(
                connection, "SELECT instrument, filter, freshness FROM feed_tunings WHERE feed = %s", (feed,)
            )
        found = {row.pop("instrument"): msgspec.convert(row, Tuning) for row in rows}
        own = {InstrumentId(name): tuning for name, tuning in found.items() if name}
        return found.get("", NOTHING), own

    async def put(
        self, feed: FeedId, instrument: InstrumentId | None, tuning: Tuning, by: str, seen: Tuning | None = None
    ) -> None:
        """Set what is set of a feed, or of one instrument of it, anew.

        Raises `UnknownThing` for the feed, and `Conflict` ``tuning_moved`` where something else than ``seen`` is set by
        now (None: whatever is).
        """
        subject = feed if instrument is None else f"{feed} {instrument}"
        async with change(self._db) as connection:
            if not await dicts(connection, "SELECT id FROM feeds WHERE id = %s FOR SHARE", (feed,)):
                raise UnknownThing("feed", feed)
            key = (feed, instrument or "")
            before = await dicts(
                connection, "SELECT filter, freshness FROM feed_tunings WHERE feed = %s AND instrument = %s", key
            )
            present = msgspec.convert(before[0], Tuning) if before else NOTHING
            if seen is not None and seen != present:
                raise Conflict("tuning_moved", f"the tuning of {subject} has changed since: look at it again")
            if tuning == NOTHING:
                await connection.execute("DELETE FROM feed_tunings WHERE feed = %s AND instrument = %s", key)
            else:
                await connection.execute(
                    "INSERT INTO feed_tunings (feed, instrument, filter, freshness, changed_at, changed_by) "
                    "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (feed, instrument) DO UPDATE SET "
                    "filter = excluded.filter, freshness = excluded.freshness, changed_at = excluded.changed_at, "
                    "changed_by = excluded.changed_by",
                    (*key, Jsonb(tuning.filter), Jsonb(tuning.freshness), time.time_ns(), by),
                )
            after = msgspec.to_builtins(tuning)
            await write_audit(connection, by, "tune_feed", subject, before[0] if before else None, after)


class FeedGaps:
    """The table of gaps."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, gaps: Sequence[FeedGap]) -> list[FeedGap]:
        """Write new gaps; returns them with their numbers."""
        if not gaps:
            return []
        columns = ("feed", "shard", "instrument", "since", "until", "reason", "state")
        types = ("text", "integer", "text", "bigint", "bigint", "text", "text")
        arrays = ", ".join(f"%s::{kind}[]" for kind in types)
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                f"INSERT INTO feed_gaps ({', '.join(columns)}, changed_at) "
                f"SELECT n.*, %s FROM unnest({arrays}) AS n RETURNING number",
                (time.time_ns(), *([getattr(gap, column) for gap in gaps] for column in columns)),
            )
        return [
            msgspec.structs.replace(gap, number=row["number"])
            for gap, row in zip(gaps, sorted(rows, key=lambda row: row["number"]), strict=True)
        ]

    async def settle(self, gap: FeedGap) -> None:
        """Write what has become of a gap."""
        async with self._db.connection() as connection:
            await connection.execute(
                "UPDATE feed_gaps SET state = %s, trades = %s, bars = %s, detail = %s, changed_at = %s "
                "WHERE number = %s",
                (gap.state, gap.trades, gap.bars, gap.detail, time.time_ns(), gap.number),
            )

    async def abandon(self, feed: FeedId, shard: int, why: str) -> None:
        """Gaps that a worker before this one was to fill will not be filled by it; very old ones go."""
        async with self._db.connection() as connection:
            await connection.execute(
                "DELETE FROM feed_gaps WHERE feed = %s AND until < %s", (feed, time.time_ns() - _KEPT_NS)
            )
            await connection.execute(
                "UPDATE feed_gaps SET state = 'failed', detail = %s, changed_at = %s "
                "WHERE feed = %s AND shard = %s AND state = 'waiting'",
                (why, time.time_ns(), feed, shard),
            )

    async def page(
        self,
        feed: FeedId,
        instrument: InstrumentId | None,
        since: Nanos | None,
        until: Nanos | None,
        limit: int,
        cursor: str | None,
    ) -> tuple[list[FeedGap], str | None]:
        """Gaps that touch a span of time, newest first, and the cursor of the page after.  Raises `BadInput`."""
        at, number = decode_cursor(cursor) if cursor is not None else (2**63 - 1, 2**63 - 1)
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                "SELECT number, feed, shard, instrument, since, until, reason, state, trades, bars, detail "
                "FROM feed_gaps WHERE feed = %(feed)s AND (%(instrument)s::text IS NULL OR instrument = %(instrument)s)"
                " AND (%(since)s::bigint IS NULL OR until >= %(since)s)"
                " AND (%(until)s::bigint IS NULL OR since < %(until)s) AND (until, number) < (%(at)s, %(number)s) "
                "ORDER BY until DESC, number DESC LIMIT %(limit)s",
                {
                    "feed": feed,
                    "instrument": instrument,
                    "since": since,
                    "until": until,
                    "at": at,
                    "number": number,
                    "limit": page_size(limit) + 1,
                },
            )
        gaps = msgspec.convert(rows, list[FeedGap])
        more = gaps[limit - 1] if len(gaps) > limit else None
        return gaps[:limit], None if more is None else encode_cursor(more.until, more.number)

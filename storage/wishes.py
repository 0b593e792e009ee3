"""What clients want of feeds, beside the feeds' own lists: written down, so that a restart forgets nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from psycopg.rows import dict_row

from storage.database import Connection, Database
from storage.records import FeedRecord
from storage.resource import change, jsonb, write_audit
from trading import seconds
from trading.errors import UnknownThing
from trading.ids import FeedId, InstrumentId
from trading.subscriptions import Channels

#: Client -> instrument -> channels.
Wish = dict[InstrumentId, Channels]
WishesByClient = dict[str, Wish]


class _NothingNew(Exception):
    """Ends a transaction that has nothing to write."""


def all_wanted(feed: FeedRecord, wishes: WishesByClient) -> set[InstrumentId]:
    """What a feed is to carry: its own list, and what its clients want."""
    return {*feed.instruments, *(each for wish in wishes.values() for each in wish)}


class Wishes:
    """The table of wishes.  Every change raises its feed's generation and wakes the readers of desired state.

    A feed that another one stands by for (`trading.seconds`) is a client of it, and is not in the table: what it wants
    follows from what is wanted of itself.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of(self, feed: FeedId) -> WishesByClient:
        """What the clients of a feed want; {} where nobody but itself wants anything."""
        async with self._db.connection() as connection:
            return await _wishes(connection, feed)

    async def read(self, feed: FeedId) -> tuple[FeedRecord, WishesByClient]:
        """A feed and the wishes of its clients, as they stood at one moment.  `UnknownThing`."""
        async with self._db.snapshot() as connection:
            return await _feed(connection, feed), await _wishes(connection, feed)

    async def change(
        self,
        feed: FeedId,
        client: str,
        decide: Callable[[FeedRecord, WishesByClient], Mapping[InstrumentId, Channels]],
        by: str,
    ) -> FeedRecord:
        """Write down what ``decide`` says that a client wants from now on; returns the feed as it is then.

        ``decide`` is given the feed and all wishes, which nobody else can change meanwhile; what it raises is raised
        and nothing is written.  Raises `UnknownThing` where there is no such feed.
        """
        try:
            async with change(self._db) as connection:
                record = await _feed(connection, feed)
                wishes = await _wishes(connection, feed)
                before = wishes.get(client, {})
                after = dict(decide(record, wishes))
                gone = [instrument for instrument in before if instrument not in after]
                news = {i: channels for i, channels in after.items() if before.get(i) != channels}
                if not gone and not news:
                    raise _NothingNew
                await connection.execute(
                    "DELETE FROM feed_wishes WHERE (feed, client) = (%s, %s) AND instrument = ANY(%s)",
                    (feed, client, [*gone, *news]),
                )
                async with connection.cursor() as cursor:
                    await cursor.executemany(
                        "INSERT INTO feed_wishes (feed, client, instrument, channels) VALUES (%s, %s, %s, %s)",
                        [(feed, client, instrument, jsonb(channels)) for instrument, channels in news.items()],
                    )
                await connection.execute("UPDATE feeds SET generation = generation + 1 WHERE id = %s", (feed,))
                shown: dict[str, Any] = {"client": client, "wanted": news, "gone": gone}
                await write_audit(connection, by, "wish_of_feed", feed, None, shown)
                return msgspec.structs.replace(record, generation=record.generation + 1)
        except _NothingNew:
            return record


async def _feed(connection: Connection, feed: FeedId) -> FeedRecord:
    fields = ", ".join(f.name for f in msgspec.structs.fields(FeedRecord))
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(f"SELECT {fields} FROM feeds WHERE id = %s".encode(), (feed,))
        row = await cursor.fetchone()
    if row is None:
        raise UnknownThing("feed", feed)
    return msgspec.convert(row, FeedRecord)


async def _wishes(connection: Connection, feed: FeedId) -> WishesByClient:
    cursor = await connection.execute(
        "SELECT client, instrument, channels FROM feed_wishes WHERE feed = %s ORDER BY client, instrument", (feed,)
    )
    found: WishesByClient = {}
    for client, instrument, channels in await cursor.fetchall():
        found.setdefault(client, {})[InstrumentId(instrument)] = tuple(channels)
    cursor = await connection.execute(
        "SELECT f.id, f.channels, s.value ->> 'instrument' FROM feeds AS f, jsonb_each(f.seconds) AS s "
        "WHERE s.value ->> 'feed' = %s AND f.enabled AND (f.instruments ? s.key OR EXISTS "
        "(SELECT FROM feed_wishes AS w WHERE w.feed = f.id AND w.instrument = s.key)) ORDER BY f.id, s.key",
        (feed,),
    )
    for first, channels, instrument in await cursor.fetchall():
        if wanted := seconds.channels_of(channels):
            found.setdefault(seconds.client_of(FeedId(first)), {})[InstrumentId(instrument)] = wanted
    return found

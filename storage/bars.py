"""Stored bars, and which spans of time are known whole.

Writing is idempotent: bars go by COPY into a temporary table and from there over what is stored, so the same ones
written twice, or half-way and again, come out the same.  A later revision replaces an earlier one, the provider's own
bar replaces the one that we built, never the other way round.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, Final

import msgspec
import psycopg

from storage.database import Connection, Database
from trading.bar_deriving import MINUTE, SECOND, STORED
from trading.bars import Bar
from trading.errors import BadInput
from trading.ids import Nanos
from trading.spans import Span, merged

DAY: Final = 86_400 * SECOND
#: Partitions are made so many days ahead of now.
_AHEAD_DAYS: Final = {SECOND: 2, MINUTE: 35}
#: make_bar_partitions refuses more than a thousand at once.
_MOST_DAYS: Final = 900

_COLUMNS: Final = "instrument, width, opened_at, open, high, low, close, volume, trades, source, revision"
_CHANGING: Final = ("open", "high", "low", "close", "volume", "trades", "source", "revision")
_INTO: Final = """
CREATE TEMPORARY TABLE IF NOT EXISTS arriving_bars (
    instrument integer, width bigint, opened_at bigint, open double precision, high double precision,
    low double precision, close double precision, volume double precision, trades integer, source smallint,
    revision integer, place integer
) ON COMMIT DELETE ROWS
"""
_UPSERT: Final = f"""
INSERT INTO bars AS b ({_COLUMNS})
SELECT DISTINCT ON (instrument, width, opened_at) {_COLUMNS} FROM arriving_bars
ORDER BY instrument, width, opened_at, source DESC, revision DESC, place DESC
ON CONFLICT (instrument, width, opened_at) DO UPDATE SET {", ".join(f"{c} = excluded.{c}" for c in _CHANGING)}
WHERE (excluded.source, excluded.revision) >= (b.source, b.revision)
    AND ({", ".join(f"excluded.{c}" for c in _CHANGING)}) IS DISTINCT FROM ({", ".join(f"b.{c}" for c in _CHANGING)})
"""
_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000000)::bigint"


class Source(IntEnum):
    """Where a bar is from; the higher one stands."""

    BUILT = 1
    PROVIDER = 2


class StoredBar(msgspec.Struct, frozen=True, kw_only=True):
    """A bar to store; ``instrument`` is its number, ``width`` one of `trading.bar_deriving.STORED`."""

    instrument: int
    width: int
    bar: Bar
    source: Source
    revision: int = 0


class Cover(msgspec.Struct, frozen=True, kw_only=True):
    """A span of an instrument's bars that is known whole."""

    instrument: int
    width: int
    span: Span


class Bars:
    """The tables of bars, of their coverage and of fetches under way."""

    def __init__(self, db: Database) -> None:
        self._db = db
        #: By width, the days that are known to have partitions.
        self._ready: dict[int, set[int]] = {}
        self._keeps_hours: bool | None = None

    async def save(self, bars: Sequence[StoredBar], covered: Sequence[Cover] = (), spoilt: Sequence[Cover] = ()) -> int:
        """Write all of it or nothing; returns how many bars were new or changed.

        ``spoilt`` is not known whole any more, whatever ``covered`` says.

        Raises `BadInput` for a width that is not stored or a bar off its grid, `NotReady` where the outcome is not
        known or nothing was done: then write the same again.
        """
        for each in bars:
            if each.width not in STORED or each.bar.opened_at % each.width or each.bar.opened_at < 0:
                raise BadInput("bars", f"a bar of {each.width} ns at {each.bar.opened_at} is not one that is stored")
        await self._make_partitions(bars)
        try:
            return await self._write(bars, covered, spoilt)
        except psycopg.errors.CheckViolation:
            # Dropped since by somebody else, for their age.
            self._ready.clear()
            await self._make_partitions(bars)
            return await self._write(bars, covered, spoilt)

    async def _write(self, bars: Sequence[StoredBar], covered: Sequence[Cover], spoilt: Sequence[Cover]) -> int:
        async with self._db.connection() as connection, connection.transaction():
            # First of all, so that writers of the same bars cannot wait for each other in a circle.
            await connection.execute("SELECT lock_bars()")
            changed = await _copy(connection, bars) if bars else 0
            await _mark(connection, "cover_bars", covered)
            await _mark(connection, "uncover_bars", spoilt)
        return changed

    async def _make_partitions(self, bars: Iterable[StoredBar]) -> None:
        days: dict[int, set[int]] = {}
        for each in bars:
            days.setdefault(each.width, set()).add(each.bar.opened_at // DAY)
        today = time.time_ns() // DAY
        for width, wanted in days.items():
            ready = self._ready.setdefault(width, set())
            wanted -= ready
            if not wanted:
                continue
            async with self._db.connection() as connection:
                for span in merged(Span(day, day + 1) for day in wanted):
                    # Those of tomorrow are made today, so that midnight finds them there.
                    end = span.end + (_AHEAD_DAYS[width] if span.end > today else 0)
                    for first in range(span.start, end, _MOST_DAYS):
                        last = min(first + _MOST_DAYS, end)
                        await connection.execute(
                            "SELECT make_bar_partitions(%s, %s, %s)", (width, first * DAY, last * DAY - 1)
                        )
            ready |= wanted

    async def read(self, instrument: int, width: int, wanted: Span, limit: int | None = None) -> list[Bar]:
        """Stored bars that open in ``wanted``, oldest first, ``limit`` at most."""
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                "SELECT opened_at, open, high, low, close, volume, trades FROM bars "
                "WHERE instrument = %s AND width = %s AND opened_at >= %s AND opened_at < %s "
                "ORDER BY opened_at LIMIT %s",
                (instrument, width, wanted.start, wanted.end, limit),
            )
            return [_bar(row) for row in await cursor.fetchall()]

    async def keeps_hours(self) -> bool:
        """Whether bars of an hour are kept beside the minutes: where the server has TimescaleDB."""
        if self._keeps_hours is None:
            async with self._db.connection() as connection:
                row = await (await connection.execute("SELECT to_regclass('bar_hours') IS NOT NULL")).fetchone()
            assert row is not None
            self._keeps_hours = bool(row[0])
        return self._keeps_hours

    async def read_hours(self, instrument: int, wanted: Span) -> list[Bar]:
        """Bars of an hour that open in ``wanted``, oldest first, as their stored minutes make them.

        Only where `keeps_hours`.
        """
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                "SELECT opened_at, open, high, low, close, volume, trades FROM read_bar_hours(%s, %s, %s)",
                (instrument, wanted.start, wanted.end),
            )
            return [_bar(row) for row in await cursor.fetchall()]

    async def settle_hours(self) -> int:
        """Let hours that changed be read from the aggregate again, once it was refreshed; returns how many."""
        if not await self.keeps_hours():
            return 0
        async with self._db.connection() as connection:
            row = await (await connection.execute("SELECT settle_bar_hours()")).fetchone()
        assert row is not None
        return int(row[0])

    async def covered(self, instrument: int, width: int, wanted: Span) -> list[Span]:
        """The spans that are known whole and reach into ``wanted``, oldest first."""
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                "SELECT from_at, until_at FROM bar_coverage "
                "WHERE instrument = %s AND width = %s AND until_at > %s AND from_at < %s ORDER BY from_at",
                (instrument, width, wanted.start, wanted.end),
            )
            return [Span(*row) for row in await cursor.fetchall()]

    async def claim(self, instrument: int, width: int, for_s: float) -> str | None:
        """Become the one who fetches these bars, for so long at most; None where somebody else is."""
        holder = secrets.token_hex(8)
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                f"""
                INSERT INTO bar_fetches AS f VALUES (%(instrument)s, %(width)s, %(holder)s, {_NOW} + %(ttl)s)
                ON CONFLICT (instrument, width) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
                WHERE f.expires_at < {_NOW}
                RETURNING holder
                """,
                {"instrument": instrument, "width": width, "holder": holder, "ttl": int(for_s * 1e9)},
            )
            return holder if await cursor.fetchone() is not None else None

    async def release(self, instrument: int, width: int, holder: str) -> None:
        """Let others fetch; nothing happens where the claim has expired and is somebody else's."""
        async with self._db.connection() as connection:
            await connection.execute(
                "DELETE FROM bar_fetches WHERE instrument = %s AND width = %s AND holder = %s",
                (instrument, width, holder),
            )

    async def retire(self, width: int, days: int) -> int:
        """Drop bars older than ``days`` by whole partitions, and forget that their time was covered.

        Returns how many partitions went (of a hypertable, rows).  Raises `BadInput` for less than two days.
        """
        if width not in STORED or days < 2:
            raise BadInput("days", f"bars of {width} ns are kept two days at least, not {days}")
        before = time.time_ns() - days * DAY
        async with self._db.connection() as connection, connection.transaction():
            row = await (await connection.execute("SELECT drop_bars(%s, %s)", (width, before))).fetchone()
        self._ready.pop(width, None)
        assert row is not None
        return int(row[0])


def _bar(row: tuple[Any, ...]) -> Bar:
    opened, first, high, low, last, volume, trades = row
    return Bar(opened_at=Nanos(opened), open=first, high=high, low=low, close=last, volume=volume, trades=trades)


async def _mark(connection: Connection, function: str, covers: Sequence[Cover]) -> None:
    some = [each for each in covers if each.span.start < each.span.end]
    if some:
        await connection.execute(
            f"SELECT {function}(%s::integer[], %s::bigint[], %s::bigint[], %s::bigint[])".encode(),
            (
                [each.instrument for each in some],
                [each.width for each in some],
                [each.span.start for each in some],
                [each.span.end for each in some],
            ),
        )


async def _copy(connection: Connection, bars: Sequence[StoredBar]) -> int:
    await connection.execute(_INTO)
    async with connection.cursor() as cursor:
        async with cursor.copy(f"COPY arriving_bars ({_COLUMNS}, place) FROM STDIN".encode()) as copy:
            for place, each in enumerate(bars):
                bar = each.bar
                await copy.write_row(
                    (
                        each.instrument,
                        each.width,
                        bar.opened_at,
                        bar.open,
                        bar.high,
                        bar.low,
                        bar.close,
                        bar.volume,
                        bar.trades,
                        int(each.source),
                        each.revision,
                        place,
                    )
                )
        await cursor.execute(_UPSERT.encode())
        return cursor.rowcount

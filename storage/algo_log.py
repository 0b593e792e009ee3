"""What algos say: the last lines of each, so that one that failed or is gone can be understood from anywhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from storage.database import Database, dicts
from storage.records import LogFilter, LogLine
from storage.resource import jsonb
from trading.errors import BadInput, UnknownThing
from trading.ids import AlgoId, Epoch, Nanos

#: Lines kept of each algo, for so many days.
KEPT: Final = 10_000
KEPT_DAYS: Final = 30
#: Lines that may gather before the oldest are removed.
_SLACK = 500
#: Longest line kept, in characters, and most that its fields take as JSON.
_LONGEST = 20_000
_LARGEST = 8_000
_DAY_NS: Final = 86_400_000_000_000
#: From the least grave.
LEVELS: Final = ("debug", "info", "warning", "error")


class AlgoLog:
    """The log of every algo, bounded to its last `KEPT` lines of `KEPT_DAYS` (and some that await removal)."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._since_pruned: Counter[AlgoId] = Counter()

    async def append(
        self,
        algo: AlgoId,
        epoch: Epoch,
        rows: Sequence[tuple[Nanos, str, str]],
        fields: Sequence[Mapping[str, Any]] = (),
    ) -> list[LogLine]:
        """Append ``(at, level, text)`` lines, with the fields of each where there are any; the lines as they are kept.

        Raises `UnknownThing` when the algo was deleted.
        """
        if not rows:
            return []
        own = list(fields) or [{} for _ in rows]
        lines = [
            (at, level, _clean(text[:_LONGEST]), _bounded(each))
            for (at, level, text), each in zip(rows[-KEPT:], own[-KEPT:], strict=True)
        ]
        columns = [list(column) for column in zip(*lines, strict=True)]
        async with self._db.connection() as connection:
            written = await dicts(
                connection,
                """
                INSERT INTO algo_log (algo, "user", epoch, at, level, text, fields)
                SELECT a.id, a."user", %s, t.at, t.level, t.text, t.fields
                FROM algos a, unnest(%s::bigint[], %s::text[], %s::text[], %s::jsonb[]) WITH ORDINALITY
                    AS t(at, level, text, fields, n)
                WHERE a.id = %s ORDER BY n RETURNING number, epoch, at, level, text, fields
                """,
                (epoch, *columns[:3], [jsonb(each) for each in columns[3]], algo),
            )
            if not written:
                raise UnknownThing("algo", algo)
            first = algo not in self._since_pruned
            self._since_pruned[algo] += len(lines)
            if first or self._since_pruned[algo] >= _SLACK:
                self._since_pruned[algo] = 0
                await connection.execute(
                    """
                    DELETE FROM algo_log WHERE algo = %(algo)s AND number <= (
                        SELECT number FROM algo_log WHERE algo = %(algo)s ORDER BY number DESC
                        OFFSET %(kept)s LIMIT 1)
                    """,
                    {"algo": algo, "kept": KEPT},
                )
                # Of all of them: nobody writes to the log of one that is gone.
                await connection.execute("DELETE FROM algo_log WHERE at < %s", (time.time_ns() - KEPT_DAYS * _DAY_NS,))
        return sorted(msgspec.convert(written, list[LogLine]), key=lambda line: line.number)

    async def tail(
        self, algo: AlgoId, limit: int = 100, after_id: int = 0, filters: LogFilter | None = None
    ) -> list[LogLine]:
        """The newest ``limit`` lines with a number above ``after_id`` that ``filters`` let pass, oldest first.

        Raises `BadInput` for a limit or a level that there is not.
        """
        if not 1 <= limit <= KEPT:
            raise BadInput("limit", f"{limit} is not between 1 and {KEPT}")
        wanted = filters or LogFilter()
        levels = list(LEVELS) if wanted.level is None else levels_from(wanted.level)
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                """
                SELECT number, epoch, at, level, text, fields FROM algo_log
                WHERE algo = %(algo)s AND number > %(after)s AND epoch >= %(first)s
                    AND (%(all)s OR level = ANY(%(levels)s))
                    AND (%(since)s::bigint IS NULL OR at >= %(since)s)
                    AND (%(text)s::text IS NULL OR position(lower(%(text)s) IN lower(text)) > 0)
                    AND (%(user)s::text IS NULL OR "user" = %(user)s)
                ORDER BY number DESC LIMIT %(limit)s
                """,
                {
                    "algo": algo,
                    "after": max(after_id, wanted.after),
                    "all": wanted.level is None,
                    "levels": levels,
                    "since": wanted.since,
                    "text": wanted.text,
                    "user": wanted.user,
                    "first": wanted.first_epoch,
                    "limit": limit,
                },
            )
        return msgspec.convert(rows[::-1], list[LogLine])


def levels_from(level: str) -> list[str]:
    """``level`` and the graver ones.  Raises `BadInput`."""
    if level not in LEVELS:
        raise BadInput("level", f"{level!r} is not one of {', '.join(LEVELS)}")
    return list(LEVELS[LEVELS.index(level) :])


def _clean(text: str) -> str:
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _bounded(fields: Mapping[str, Any]) -> Any:
    """Fields as JSON can keep them; too large ones are said to be so."""
    text = msgspec.json.encode(fields, enc_hook=str)
    if len(text) > _LARGEST:
        return {"left_out": f"{len(text)} bytes of fields, {_LARGEST} are kept"}
    # PostgreSQL knows no NUL in JSON either.
    return msgspec.json.decode(text.replace(b"\\u0000", b"\\ufffd"))

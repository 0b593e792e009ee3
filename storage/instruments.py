"""The catalogue of instruments and the numbers that stand for them in tick arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from psycopg.rows import dict_row

from storage.database import Database
from storage.journal import as_json
from trading.errors import BadInput
from trading.ids import InstrumentId, instrument_id
from trading.instruments import Instrument

_FIELDS = (
    "id, provider_symbol, provider, tick_size, lot_size, currency, number, multiplier, min_quantity, "
    "min_notional, calendar, description, expires_on"
)
_CHANGING = (
    "provider_symbol",
    "provider",
    "tick_size",
    "lot_size",
    "currency",
    "multiplier",
    "min_quantity",
    "min_notional",
    "calendar",
    "description",
    "expires_on",
)
_INPUT = """
json_to_recordset(%s::json) AS n(
    id text, provider_symbol text, provider text, tick_size numeric, lot_size numeric, currency text,
    multiplier numeric, min_quantity numeric, min_notional numeric, calendar text, description text,
    expires_on text)
"""
#: Key of the advisory lock that makes writers queue up.
_LOCK = 0x494E_5354


class Instruments:
    """The table of instruments.  A number, once given, belongs to its id for ever."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def upsert(self, instruments: Sequence[Instrument]) -> list[Instrument]:
        """Write all, whole or not at all; returns them in the same order with their numbers.

        ``number`` of the input is ignored.  Raises `BadInput` for a malformed id or a step of 0 or less.
        """
        for each in instruments:
            _check(each)
        if not instruments:
            return []
        given = as_json({each.id: each for each in instruments}.values())
        columns = ", ".join(("id", *_CHANGING))
        async with self._db.connection() as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            # Not ON CONFLICT: it would burn a number for each row that exists already.
            await connection.execute(
                f"""
                INSERT INTO instruments ({columns})
                SELECT {", ".join(f"n.{c}" for c in ("id", *_CHANGING))} FROM {_INPUT}
                WHERE NOT EXISTS (SELECT FROM instruments i WHERE i.id = n.id)
                ORDER BY n.id
                """,
                (given,),
            )
            await connection.execute(
                f"""
                UPDATE instruments i SET {", ".join(f"{c} = n.{c}" for c in _CHANGING)} FROM {_INPUT}
                WHERE i.id = n.id
                    AND ({", ".join(f"i.{c}" for c in _CHANGING)})
                        IS DISTINCT FROM ({", ".join(f"n.{c}" for c in _CHANGING)})
                """,
                (given,),
            )
            rows = await (
                await connection.execute(
                    "SELECT id, number FROM instruments WHERE id = ANY(%s)", ([i.id for i in instruments],)
                )
            ).fetchall()
        numbers: dict[str, int] = dict(rows)
        return [msgspec.structs.replace(each, number=numbers[each.id]) for each in instruments]

    async def get(self, ids: Sequence[InstrumentId]) -> list[Instrument]:
        """Those of ``ids`` that exist, in the order asked for."""
        found = await self._select("WHERE id = ANY(%s)", (list(ids),))
        by_id = {each.id: each for each in found}
        return [by_id[id] for id in ids if id in by_id]

    async def named(self, ids: Sequence[InstrumentId]) -> dict[int, InstrumentId]:
        """The names of those of ``ids`` that exist, by their numbers."""
        async with self._db.connection() as connection:
            found = await connection.execute("SELECT number, id FROM instruments WHERE id = ANY(%s)", (list(ids),))
            return {number: InstrumentId(id) for number, id in await found.fetchall()}

    async def all(self, provider: str | None = None) -> list[Instrument]:
        """Every instrument, or those of one provider, by id."""
        return await self._select("WHERE %s::text IS NULL OR provider = %s ORDER BY id", (provider, provider))

    async def search(self, text: str, limit: int = 50, provider: str | None = None) -> list[Instrument]:
        """Instruments whose id, symbol or description contains ``text``, in any case; matching ids first."""
        if not 1 <= limit <= 1000:
            raise BadInput("limit", f"{limit} is not between 1 and 1000")
        escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        return await self._select(
            """
            WHERE (id ILIKE %(like)s OR provider_symbol ILIKE %(like)s OR description ILIKE %(like)s)
                AND (%(provider)s::text IS NULL OR provider = %(provider)s)
            ORDER BY split_part(id, ':', 2) ILIKE %(start)s DESC, id ILIKE %(like)s DESC, id LIMIT %(limit)s
            """,
            {"like": f"%{escaped}%", "start": f"{escaped}%", "limit": limit, "provider": provider},
        )

    async def _select(self, where: str, values: Any) -> list[Instrument]:
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(f"SELECT {_FIELDS} FROM instruments {where}".encode(), values)
            return msgspec.convert(await cursor.fetchall(), list[Instrument])


def _check(instrument: Instrument) -> None:
    instrument_id(instrument.id)
    for field in ("tick_size", "lot_size", "multiplier"):
        value = getattr(instrument, field)
        if not value.is_finite() or value <= 0:
            raise BadInput(field, f"{value} of {instrument.id} must be a number above 0")

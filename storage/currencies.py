"""In which currencies the amounts of a level of the limit tree can be."""

from __future__ import annotations

from typing import Final

from storage.database import Database
from storage.records import OPEN_STATES

#: Before the id of an instrument, which is no level but has amounts of its own.
INSTRUMENT: Final = "instrument:"

# What an account, or an algo, ever held has left profit and fees behind; what is open may come to be held.
_READ: Final = f"""
    WITH used AS (
        SELECT 'account:' || account AS scope, instrument FROM positions
        UNION SELECT 'algo:' || algo, instrument FROM algo_positions
        UNION SELECT 'account:' || account, instrument FROM orders WHERE state IN {OPEN_STATES}
        UNION SELECT 'algo:' || algo, instrument FROM orders WHERE state IN {OPEN_STATES} AND algo IS NOT NULL
        UNION SELECT 'algo:' || a.id, i.value FROM algos a, jsonb_array_elements_text(a.instruments) i
        UNION SELECT '{INSTRUMENT}' || instrument, instrument FROM limits WHERE instrument <> ''
    ), priced AS (
        SELECT used.scope, used.instrument, coalesce(i.currency, '') AS currency
        FROM used LEFT JOIN instruments i ON i.id = used.instrument
    )
    SELECT scope, array_agg(DISTINCT currency) FROM (
        SELECT scope, currency FROM priced UNION SELECT '{INSTRUMENT}' || instrument, currency FROM priced
    ) parts GROUP BY scope
"""


async def currencies_by_scope(db: Database) -> dict[str, frozenset[str]]:
    """Currencies of all that an account or an algo ever held, and of what is open; and of each such instrument.

    "" stands for an instrument that the catalogue does not know.
    """
    async with db.connection() as connection:
        rows = await (await connection.execute(_READ.encode())).fetchall()
    return {scope: frozenset(found) for scope, found in rows}

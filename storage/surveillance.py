"""Where transaction monitoring stands in each account's order events, and what it has learnt.

Events of one account become visible in the order of their numbers, for one session writes them one batch after the
other; those of different accounts do not.  So there is a place for each account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import psycopg

from storage.alerts import NewAlert, raise_within
from storage.database import Database, dicts, fenced_or_broken
from storage.resource import jsonb
from trading.errors import Invariant
from trading.ids import AccountId, Nanos
from trading.monitoring import Account, Watched


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """How far an account has been watched, from when on what is unusual is told, and what was learnt."""

    account: AccountId
    number: int
    since: Nanos
    state: Account


class Surveillance:
    """The table of places."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def load(self) -> dict[AccountId, Place]:
        """All places."""
        async with self._db.connection() as connection:
            rows = await dicts(connection, "SELECT * FROM surveillance", {})
        return {row["account"]: msgspec.convert(row, Place, strict=False) for row in rows}

    async def new_events(self, places: Mapping[AccountId, Place], limit: int, each: int) -> list[Watched]:
        """The next events of these accounts, of each in their order: at most ``each`` of one, ``limit`` in all."""
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                """
                SELECT e.number, e.kind, e.at, e.account, e.client_order_id, o.instrument, o.side, o.type, o.algo,
                    o.reduce_only,
                    -- An execution is of whoever placed the order.
                    CASE WHEN e.kind = 'filled' AND e.cause = '' THEN coalesce((
                        SELECT f.cause FROM order_events f
                        WHERE f.account = e.account AND f.client_order_id = e.client_order_id
                        ORDER BY f.number LIMIT 1
                    ), '') ELSE e.cause END AS cause,
                    coalesce(e.quantity, o.quantity) AS quantity,
                    coalesce(e.limit_price, e.stop_price, o.limit_price, o.stop_price) AS price,
                    (e.fill ->> 'quantity')::numeric AS fill_quantity, (e.fill ->> 'price')::numeric AS fill_price
                FROM unnest(%(accounts)s::text[], %(numbers)s::bigint[]) AS p(account, number)
                CROSS JOIN LATERAL (
                    SELECT * FROM order_events x
                    WHERE x.account COLLATE "C" = p.account COLLATE "C" AND x.number > p.number
                    ORDER BY x.number LIMIT %(each)s
                ) e
                JOIN orders o ON o.account = e.account AND o.client_order_id = e.client_order_id
                ORDER BY e.number LIMIT %(limit)s
                """,
                {
                    "accounts": list(places),
                    "numbers": [place.number for place in places.values()],
                    "each": each,
                    "limit": limit,
                },
            )
        return msgspec.convert(rows, list[Watched])

    async def save(
        self,
        owner: str,
        epoch: int,
        before: Mapping[AccountId, Place],
        after: Sequence[Place],
        alerts: Sequence[NewAlert],
    ) -> None:
        """Write new places and raise what was found, all or nothing, as the owner of lease ``owner``.

        Raises `Fenced`; `NotReady`, after which nobody knows whether it was done: `load` tells.
        """
        async with self._db.connection() as connection:
            try:
                async with connection.transaction():
                    await connection.execute("SELECT check_fence(%s, %s)", (owner, epoch))
                    for place in after:
                        known = before.get(place.account)
                        cursor = await connection.execute(
                            """
                            INSERT INTO surveillance AS s (account, number, since, state)
                            VALUES (%(account)s, %(number)s, %(since)s, %(state)s)
                            ON CONFLICT (account) DO UPDATE SET number = excluded.number, state = excluded.state
                            WHERE s.number = %(known)s
                            """,
                            {
                                "account": place.account,
                                "number": place.number,
                                "since": place.since,
                                "state": jsonb(place.state),
                                "known": None if known is None else known.number,
                            },
                        )
                        if cursor.rowcount != 1:
                            raise Invariant(f"the place of {place.account} in its order events was moved by another")
                    await raise_within(connection, alerts)
            except psycopg.Error as error:
                raise fenced_or_broken(error, owner, epoch) or error from error

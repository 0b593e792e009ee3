"""The kill switch's record: thrown and lifted in one transaction each, and what came of it, read from the journal."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
import psycopg
from psycopg.types.json import Jsonb

from storage.database import Connection, Database, dicts
from storage.limits import put_limit
from storage.records import OPEN_STATES, KilledAccount, KilledOrder, KillRecord
from storage.resource import change, sign, write_audit
from trading.closing import KEY_PATTERN
from trading.errors import Conflict, UnknownThing
from trading.ids import AccountId, AlgoId, Nanos
from trading.limits import HALTED

log = logging.getLogger("quarterdeck")

#: What a kill sets `HALTED` to, where it is not higher already.
KILLED: Final = Decimal(1)
#: Hex digits of a kill's name, of which the keys of its orders are made.
_ID_DIGITS: Final = 8

#: Orders placed by a kill.
_CLOSING: Final = """
    SELECT o.account, o.client_order_id, o.instrument, o.state, o.filled_quantity, o.reason,
        o.created_at AS asked_at,
        CASE WHEN o.state IN ('filled', 'cancelled', 'rejected', 'expired', 'denied') THEN o.updated_at END AS ended_at
    FROM order_events e JOIN orders o USING (account, client_order_id)
    WHERE e.cause LIKE 'kill-%%' AND e.cause = %(id)s AND e.kind IN ('pending', 'denied')
    ORDER BY asked_at
    """


#: Orders that are taken back: asked back by the kill, or open when it was thrown and asked back while it was in force.
_TAKEN_BACK: Final = """
    WITH asked AS (
        SELECT e.account, e.client_order_id, e.at FROM order_events e
        WHERE e.cause LIKE 'kill-%%' AND e.cause = %(id)s AND e.kind IN ('cancel_requested', 'cancelled')
        UNION ALL
        SELECT e.account, e.client_order_id, e.at
        FROM open_at_kill k JOIN order_events e USING (account, client_order_id)
        WHERE k.kill = %(id)s AND e.at BETWEEN %(at)s AND %(until)s AND e.kind IN ('cancel_requested', 'cancelled')
    )
    SELECT o.account, o.client_order_id, o.instrument, o.state, o.filled_quantity, o.reason, a.asked_at,
        CASE WHEN o.state IN ('filled', 'cancelled', 'rejected', 'expired') THEN o.updated_at END AS ended_at
    FROM (SELECT account, client_order_id, min(at) AS asked_at FROM asked GROUP BY account, client_order_id) a
    JOIN orders o USING (account, client_order_id) ORDER BY a.asked_at
    """
_CLOSING_KEY: Final = f"^{KEY_PATTERN}$"
#: What is open in a scope, but for what closes positions in it already.
_OPEN_NOW: Final = f"""
    INSERT INTO open_at_kill (kill, account, client_order_id)
    SELECT %(id)s, account, client_order_id FROM orders
    WHERE state IN {OPEN_STATES} AND NOT (reduce_only AND type = 'market' AND client_order_id ~ %(closing)s)
        AND CASE %(level)s WHEN 'cluster' THEN true WHEN 'account' THEN account = %(who)s
            WHEN 'user' THEN account IN (SELECT id FROM accounts WHERE "user" = %(who)s) ELSE algo = %(who)s END
    """
#: Noting it may take so long.
_NOTE_S: Final = 2
#: Open orders that would close what is held: while they stand, nothing else closes that part.
_EXITS: Final = f"""
    SELECT o.account, o.instrument, o.client_order_id FROM orders o JOIN positions p USING (account, instrument)
    WHERE o.account = ANY(%(accounts)s) AND o.state IN {OPEN_STATES}
        AND o.side = CASE WHEN p.quantity > 0 THEN 'sell' WHEN p.quantity < 0 THEN 'buy' END
        AND NOT (o.reduce_only AND o.type = 'market' AND o.client_order_id ~ %(closing)s)
    ORDER BY o.created_at
    """
#: A kill that nobody has lifted.
_FOR_EVER: Final = 2**63 - 1


class Kills:
    """The table of kills."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def throw(
        self, scope: str, flatten: bool, reason: str, by: str, token: str = ""
    ) -> tuple[KillRecord, list[AlgoId]]:
        """Halt a scope, want its algos stopped, and note the kill: all of it or nothing.

        The algos that were wanted running come back too.  Thrown again with the same ``token`` (hex digits) it is the
        same kill, as it is by now; another one, where that was lifted.
        """
        async with change(self._db) as connection:
            id = f"kill-{token[:_ID_DIGITS]}" if token else ""
            before = await _kills(connection, "WHERE id = %s", (id,))
            same = before and (before[0].scope, before[0].flatten, before[0].by) == (scope, flatten, by)
            if same and not before[0].lifted_at:
                return before[0], []
            kill = await throw_within(connection, scope, flatten, reason, by, id="" if before else id)
            await sign(connection, by)
            rows = await (
                await connection.execute(
                    """
                    UPDATE algos SET want = 'stopped', generation = generation + 1, updated_at = %(at)s
                    WHERE want = 'running' AND (%(scope)s = 'cluster' OR %(scope)s = 'user:' || "user"
                        OR %(scope)s = 'account:' || account OR %(scope)s = 'algo:' || id)
                    RETURNING id
                    """,
                    {"scope": scope, "at": kill.at},
                )
            ).fetchall()
            stopped = sorted(AlgoId(row[0]) for row in rows)
            await write_audit(connection, by, "kill", scope, None, {**msgspec.to_builtins(kill), "algos": stopped})
        return kill, stopped

    async def lift(self, id: str, by: str) -> KillRecord:
        """Let a scope trade again; what was stopped stays stopped.

        Raises `UnknownThing`, and `Conflict` if it is lifted already or belongs to the stop of an algo.
        """
        async with change(self._db) as connection:
            if await _kills(connection, "WHERE id = %s AND of_stop", (id,)):
                raise Conflict(
                    "kill_of_stop", f"{id} closes an algo that was stopped: start it, or stop it with 'keep'"
                )
            return await lift_within(connection, id, by)

    async def silent(self, id: str, sessions: Sequence[str]) -> None:
        """Note which sessions did not answer when it was thrown."""
        async with self._db.connection() as connection:
            await connection.execute("UPDATE kills SET silent = %s WHERE id = %s", (Jsonb(list(sessions)), id))

    async def in_force(self) -> list[KillRecord]:
        """Kills that nobody has lifted, oldest first."""
        async with self._db.connection() as connection:
            return await _kills(connection, "WHERE lifted_at = 0 ORDER BY at, id", ())

    async def all(self) -> list[KillRecord]:
        """All kills, newest first, but for those that are part of stopping an algo."""
        async with self._db.connection() as connection:
            return await _kills(connection, "WHERE NOT of_stop ORDER BY at DESC, id", ())

    async def get(self, id: str) -> KillRecord:
        """One kill.  Raises `UnknownThing`."""
        async with self._db.connection() as connection:
            found = await _kills(connection, "WHERE id = %s", (id,))
        if not found:
            raise UnknownThing("kill", id, "GET /v1/risk/kills lists them")
        return found[0]

    async def closing(self, id: str, account: AccountId) -> list[KilledOrder]:
        """The orders with which a kill closes positions of an account."""
        async with self._db.connection() as connection:
            return _orders(await dicts(connection, _CLOSING, {"id": id}), account)

    async def outcome(
        self, kill: KillRecord, accounts: Sequence[AccountId], algo: AlgoId | None
    ) -> list[KilledAccount]:
        """What has become of each account, from the journal, as of one instant.

        Taken back is what was open when it was thrown and has been asked back since, by whomever: the algos that it
        stops take back their own orders, and may well be faster.
        """
        values = {
            "id": kill.id,
            "at": kill.at,
            "until": kill.lifted_at or _FOR_EVER,
        }
        async with self._db.snapshot() as connection:
            cancelled = await dicts(connection, _TAKEN_BACK, values)
            closing = await dicts(connection, _CLOSING, values)
            left = await left_of(connection, accounts, algo)
            exits = await dicts(connection, _EXITS, {"accounts": list(accounts), "closing": _CLOSING_KEY})
        return [
            KilledAccount(
                account=account,
                cancelled=_orders(cancelled, account),
                closing=_orders(closing, account),
                open_orders=left[account].open_orders,
                positions=left[account].positions,
                exits=[
                    (each["instrument"], each["client_order_id"])
                    for each in exits
                    if each["account"] == account and each["instrument"] in left[account].positions
                ],
            )
            for account in accounts
        ]


class Left(msgspec.Struct, frozen=True):
    """What is open and held still."""

    open_orders: int
    positions: dict[str, Decimal]


async def left_of(connection: Connection, accounts: Sequence[AccountId], algo: AlgoId | None) -> dict[AccountId, Left]:
    """What is open and held in each account; with ``algo``, what is this algo's of it."""
    values = {"accounts": list(accounts), "algo": algo}
    still_open = await dicts(
        connection,
        f"""
        SELECT account, count(*) AS orders FROM orders
        WHERE account = ANY(%(accounts)s) AND state IN {OPEN_STATES}
            AND (%(algo)s::text IS NULL OR algo = %(algo)s) GROUP BY account
        """,
        values,
    )
    held = await dicts(
        connection,
        "SELECT account, instrument, quantity FROM positions "
        "WHERE %(algo)s::text IS NULL AND account = ANY(%(accounts)s) AND quantity <> 0 UNION ALL "
        "SELECT account, instrument, quantity FROM algo_positions "
        "WHERE algo = %(algo)s::text AND account = ANY(%(accounts)s) AND quantity <> 0",
        values,
    )
    opened = {row["account"]: int(row["orders"]) for row in still_open}
    return {
        account: Left(
            opened.get(account, 0),
            {row["instrument"]: row["quantity"] for row in held if row["account"] == account},
        )
        for account in accounts
    }


async def throw_within(
    connection: Connection, scope: str, flatten: bool, reason: str, by: str, *, of_stop: bool = False, id: str = ""
) -> KillRecord:
    """Halt a scope and note the kill, in a `change` that does more: its algos are the caller's."""
    began = time.time_ns()
    limit = await put_limit(connection, scope, HALTED, "", KILLED, by, keep_if_at_least=True)
    kill = KillRecord(
        id=id or f"kill-{secrets.token_hex(_ID_DIGITS // 2)}",
        scope=scope,
        flatten=flatten,
        reason=reason,
        at=Nanos(time.time_ns()),
        by=by,
        halted_at=limit.changed_at,
        sets_halt=limit.changed_at >= began,
        of_stop=of_stop,
    )
    await connection.execute(
        "INSERT INTO kills (id, scope, flatten, reason, at, by, halted_at, sets_halt, of_stop) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (kill.id, scope, flatten, reason, kill.at, by, kill.halted_at, kill.sets_halt, of_stop),
    )
    if not of_stop:
        await _note_open(connection, kill)
    return kill


async def _note_open(connection: Connection, kill: KillRecord) -> None:
    """Keep what is open, for the proof: without it the kill holds all the same, so it gets little time."""
    level, _, who = kill.scope.partition(":")
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL statement_timeout = '{_NOTE_S}s'".encode())
            await connection.execute(
                _OPEN_NOW.encode(), {"id": kill.id, "level": level, "who": who, "closing": _CLOSING_KEY}
            )
            await connection.execute(b"SET LOCAL statement_timeout TO DEFAULT")
    except psycopg.errors.QueryCanceled:
        log.warning("%s: what was open took too long to note; its proof shows only what it takes back itself", kill.id)


async def standing_on(connection: Connection, scope: str) -> list[KillRecord]:
    """Kills in force on one scope, in a `change` that does more."""
    return await _kills(connection, "WHERE scope = %s AND lifted_at = 0 ORDER BY at, id FOR UPDATE", (scope,))


async def require_not_held(connection: Connection, scope: str) -> None:
    """Raise `Conflict` ``kill_in_force`` where a kill holds the halt of a scope, in a `change` that does more."""
    if not (kills := await standing_on(connection, scope)):
        return
    (kill, *_) = kills
    way = (
        f"it closes what algo {scope.partition(':')[2]!r} holds: start the algo, or stop it with 'keep'"
        if kill.of_stop
        else f"{kill.by} threw it, and POST /v1/risk/kills/{kill.id}/lift releases it"
    )
    raise Conflict("kill_in_force", f"{HALTED} of {scope} is held by {kill.id}: {way}")


async def lift_within(connection: Connection, id: str, by: str) -> KillRecord:
    """As `Kills.lift`, in a `change` that does more."""
    found = await _kills(connection, "WHERE id = %s FOR UPDATE", (id,))
    if not found:
        raise UnknownThing("kill", id, "GET /v1/risk/kills lists them")
    (kill,) = found
    if kill.lifted_at:
        raise Conflict("kill_is_lifted", f"{kill.lifted_by} has lifted {id} already")
    at = time.time_ns()
    await connection.execute("UPDATE kills SET lifted_at = %s, lifted_by = %s WHERE id = %s", (at, by, id))
    others = await _kills(connection, "WHERE scope = %s AND lifted_at = 0", (kill.scope,))
    setters = await _kills(
        connection, "WHERE scope = %s AND halted_at = %s AND sets_halt", (kill.scope, kill.halted_at)
    )
    if setters and not others:
        await put_limit(connection, kill.scope, HALTED, "", None, by, only_if_set_at=kill.halted_at)
    await write_audit(connection, by, "lift_kill", kill.scope, kill, {"id": id, "lifted_at": at})
    return msgspec.structs.replace(kill, lifted_at=Nanos(at), lifted_by=by)


def _orders(rows: list[dict[str, Any]], account: AccountId) -> list[KilledOrder]:
    return [msgspec.convert(row, KilledOrder) for row in rows if row["account"] == account]


async def _kills(connection: Connection, where: str, values: Any) -> list[KillRecord]:
    return msgspec.convert(await dicts(connection, f"SELECT * FROM kills {where}", values), list[KillRecord])

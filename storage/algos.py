"""The rows of algos, and commands to an algo that take more than its row: pause, resume, start, stop, delete.

Each is one transaction: the wish, the limit or the kill that makes it hold, the audit, and the event (which the
database itself writes, see migration 0021) stand or fall together.

What stood on an algo ends with it: another may bear the name one day.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from storage.database import Connection, Database, dicts
from storage.kills import Left, left_of, lift_within, standing_on, throw_within
from storage.limits import lift_all, put_limit
from storage.records import AlgoRecord, KillRecord
from storage.resource import Resource, change, sign, write_audit
from trading import ids
from trading.errors import BadInput, Conflict
from trading.ids import AlgoId
from trading.limits import PAUSED, algo_scope

#: Changes of these leave the running incarnation as it is.
_QUIET: Final = frozenset(
    {
        "labels",
        "paused_by",
        "paused_at",
        "paused_because",
        "stop_orders",
        "stop_position",
        "flatten",
    }
)
#: How an algo that is to run will be stopped, if nobody says otherwise.
AS_USUAL: Final[Mapping[str, str]] = {"stop_orders": "cancel", "stop_position": "keep", "flatten": ""}

#: Whether an algo of somebody else bore a name and placed orders.
_USED_BY_OTHERS: Final = """
    SELECT 1 FROM gone_algos g WHERE g.id = %(id)s AND g."user" <> %(user)s AND EXISTS (
        SELECT FROM orders o JOIN accounts a ON a.id = o.account WHERE o.algo = g.id AND a."user" <> %(user)s)
    """


class AlgoRows(Resource[AlgoRecord]):
    """The table of algos."""

    def __init__(self, db: Database) -> None:
        super().__init__(
            db,
            AlgoRecord,
            kind="algo",
            table="algos",
            fixed=frozenset({"created_at", "updated_at", "epoch", "state", "reason", "placed"}),
            check=_check,
        )

    def _changed(self, before: AlgoRecord, changes: Mapping[str, Any]) -> AlgoRecord:
        """A change takes a new incarnation, unless it is a quiet one or says itself since when one is needed."""
        after = super()._changed(before, changes)
        if set(changes) <= _QUIET or "restart_generation" in changes:
            return after
        return msgspec.structs.replace(after, restart_generation=after.generation)


class AlgoCommands:
    """What is done to algos beside changing their rows."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._rows = AlgoRows(db)

    async def create(self, record: AlgoRecord, by: str) -> AlgoRecord:
        """A new one; whatever stands on its name still is lifted.

        Raises `Conflict` ``name_was_anothers`` where another user's algo has placed orders under the name: the other's
        session goes on reckoning by it what those came to, and two of one name would be held to each other's losses.
        """
        async with change(self._db) as connection:
            if await dicts(connection, _USED_BY_OTHERS, {"id": record.id, "user": record.user}):
                raise Conflict(
                    "name_was_anothers",
                    f"algo {record.id!r} was somebody else's, whose orders are kept under this name: take another name",
                )
            made = await self._rows.create_within(connection, record, by)
            await self._end_standing(connection, record.id, by)
            return made

    async def pause(self, id: AlgoId, because: str, by: str) -> AlgoRecord:
        """Refuse its entries from now on; one that is paused stays paused by whoever did it first."""
        async with change(self._db) as connection:
            record = await self._rows.locked(connection, id)
            if record.paused_by:
                return record
            await put_limit(connection, algo_scope(id), PAUSED, "", Decimal(1), by)
            changes = {"paused_by": by, "paused_at": time.time_ns(), "paused_because": because}
            return await self._rows.update_within(connection, id, changes, by)

    async def resume(self, id: AlgoId, by: str) -> AlgoRecord:
        """Let it enter again; nothing happens to one that is not paused."""
        async with change(self._db) as connection:
            record = await self._rows.locked(connection, id)
            if not record.paused_by:
                return record
            await put_limit(connection, algo_scope(id), PAUSED, "", None, by)
            changes = {"paused_by": "", "paused_at": 0, "paused_because": ""}
            return await self._rows.update_within(connection, id, changes, by)

    async def start(self, id: AlgoId, by: str) -> AlgoRecord:
        """Want it running; a failure is forgotten.  Raises `Conflict` while it is being flattened."""
        async with change(self._db) as connection:
            record = await self._rows.locked(connection, id)
            await self._end_flattening(connection, record, by, done=True)
            if record.state == "failed":
                await self._forget_failure(connection, record, by)
            return await self._rows.update_within(connection, id, {"want": "running", **AS_USUAL}, by)

    async def stop(self, id: AlgoId, orders: str, position: str, by: str) -> tuple[AlgoRecord, KillRecord | None]:
        """Want it stopped, its open orders taken back or left, its position kept or closed.

        The kill that closes it comes too where it was thrown just now: asked again, nothing is closed twice.  A later
        ``keep`` ends the closing where it is.  Raises `BadInput` for orders to be left of a position that is to be
        closed: nobody knows then what is held.
        """
        if (orders, position) == ("leave", "flatten"):
            raise BadInput("orders", "a position can be closed only once the open orders are cancelled: say cancel")
        async with change(self._db) as connection:
            record = await self._rows.locked(connection, id)
            kill = None
            if position == "flatten" and not record.flatten:
                kill = await throw_within(connection, algo_scope(id), True, f"stop of algo {id}", by, of_stop=True)
            elif position == "keep":
                await self._end_flattening(connection, record, by, done=False)
            flatten = kill.id if kill is not None else record.flatten if position == "flatten" else ""
            wanted = {"want": "stopped", "stop_orders": orders, "stop_position": position, "flatten": flatten}
            changes = {field: value for field, value in wanted.items() if getattr(record, field) != value}
            if changes:
                record = await self._rows.update_within(connection, id, changes, by)
            return record, kill

    async def delete(self, id: AlgoId, by: str, generation: int | None = None) -> None:
        """Remove an algo with its snapshot, and what stands on it: pause, flattening, kills, limits.

        Log, events and orders stay.  Raises `Conflict` while it is being flattened, or a kill is not done with it.
        """
        async with change(self._db) as connection:
            record = await self._rows.locked(connection, id)
            await self._end_flattening(connection, record, by, done=True)
            await self._require_kills_done(connection, record)
            await self._end_standing(connection, id, by)
            await self._rows.delete_within(connection, id, by, generation)

    async def left(self, record: AlgoRecord) -> Left:
        """What an algo has open and holds now, by the journal."""
        async with self._db.connection() as connection:
            return (await left_of(connection, [record.account], record.id))[record.account]

    async def _forget_failure(self, connection: Connection, record: AlgoRecord, by: str) -> None:
        """With a new epoch, for what is left of the failed incarnation could tell of it again."""
        await sign(connection, by)
        after = {"epoch": record.epoch + 1, "state": "waiting", "reason": "asked to start"}
        await connection.execute(
            "UPDATE algos SET epoch = %(epoch)s, placed = '', state = %(state)s, reason = %(reason)s, "
            "updated_at = %(at)s WHERE id = %(id)s",
            {**after, "at": time.time_ns(), "id": record.id},
        )
        before = {"epoch": record.epoch, "state": record.state, "reason": record.reason}
        await write_audit(connection, by, "forget_failure", record.id, before, after)

    async def _require_kills_done(self, connection: Connection, record: AlgoRecord) -> None:
        """Once they are lifted nobody takes back or closes what they have not come to yet."""
        if not (kills := await standing_on(connection, algo_scope(record.id))):
            return
        left = (await left_of(connection, [record.account], record.id))[record.account]
        positions = left.positions if any(kill.flatten for kill in kills) else {}
        if left.open_orders or positions:
            raise Conflict(
                "kill_is_not_done",
                f"{kills[0].id} is not done with algo {record.id!r}: {left.open_orders} orders are open, to be closed "
                f"is {_held(positions)}; wait, or let who threw it lift it",
            )

    async def _end_standing(self, connection: Connection, id: AlgoId, by: str) -> None:
        """Lift every kill and every limit of an algo's own level."""
        for kill in await standing_on(connection, algo_scope(id)):
            await lift_within(connection, kill.id, by)
        await lift_all(connection, algo_scope(id), by)

    async def _end_flattening(self, connection: Connection, record: AlgoRecord, by: str, *, done: bool) -> None:
        """Lift what closes its position; with ``done`` only once it is closed."""
        if not record.flatten:
            return
        if done:
            left = (await left_of(connection, [record.account], record.id))[record.account]
            if left.open_orders or left.positions:
                raise Conflict(
                    "algo_is_flattening",
                    f"algo {record.id!r} is being flattened: {left.open_orders} orders are open, it holds "
                    f"{_held(left.positions)}; wait, or stop it with position 'keep'",
                )
        await lift_within(connection, record.flatten, by)


def _held(positions: Mapping[str, Decimal]) -> str:
    return ", ".join(f"{quantity:f} {each}" for each, quantity in sorted(positions.items())) or "nothing"


def _check(record: AlgoRecord) -> None:
    ids.name(record.id, "algo")
    if record.want not in ("running", "stopped"):
        raise BadInput("want", f"{record.want!r} is neither 'running' nor 'stopped'")
    if record.stop_orders not in ("cancel", "leave"):
        raise BadInput("orders", f"{record.stop_orders!r} is neither 'cancel' nor 'leave'")
    if record.stop_position not in ("keep", "flatten"):
        raise BadInput("position", f"{record.stop_position!r} is neither 'keep' nor 'flatten'")
    for instrument in record.instruments:
        ids.instrument_id(instrument, "instruments")

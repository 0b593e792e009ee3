"""The rows of algos, and commands to an algo that take more than its row: pause, resume, start, stop, delete.

Each is one transaction: the wish, the limit or the kill that makes it hold, the audit, and the event (which the
database itself writes, see migration 0021) stand or fall together.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from storage.database import Connection, Database
from storage.kills import Left, left_of, lift_within, throw_within
from storage.limits import put_limit
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
        """Remove an algo with its snapshot, its pause and its flattening; log, events and orders stay.

        Raises `Conflict` while it is being flattened.
        """
        async with change(self._db) as connection:
            record = await self._rows.locked(connection, id)
            await self._end_flattening(connection, record, by, done=True)
            if record.paused_by:
                # Another algo may bear the name one day.
                await put_limit(connection, algo_scope(id), PAUSED, "", None, by)
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

    async def _end_flattening(self, connection: Connection, record: AlgoRecord, by: str, *, done: bool) -> None:
        """Lift what closes its position; with ``done`` only once it is closed."""
        if not record.flatten:
            return
        if done:
            left = (await left_of(connection, [record.account], record.id))[record.account]
            if left.open_orders or left.positions:
                held = ", ".join(f"{quantity:f} {each}" for each, quantity in sorted(left.positions.items()))
                raise Conflict(
                    "algo_is_flattening",
                    f"algo {record.id!r} is being flattened: {left.open_orders} orders are open, it holds "
                    f"{held or 'nothing'}; wait, or stop it with position 'keep'",
                )
        await lift_within(connection, record.flatten, by)


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

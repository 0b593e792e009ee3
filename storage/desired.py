"""Desired state: what should be, who changed it, and a wake-up for whoever makes it so."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from psycopg.rows import dict_row

from storage.algos import AlgoCommands, AlgoRows
from storage.audit_pages import audit_page
from storage.database import DATABASE_ERRORS, Connection, Database, dicts
from storage.kills import KILLED, require_not_held
from storage.limits import Seen, put_limit, read_limits
from storage.panel_sessions import end_all_within
from storage.records import (
    AccountRecord,
    AlgoRecord,
    AuditFilter,
    AuditRecord,
    FeedRecord,
    LimitRecord,
    NodeRecord,
    UserRecord,
)
from storage.resource import CHANNEL, Resource, change, jsonb, sign, write_audit
from storage.secrets import Sealed, drop_secret, keep_secret, secret_name
from trading import ids
from trading.errors import BadInput, Conflict, Fenced, TradeError, UnknownThing
from trading.ids import AccountId, AlgoId, Epoch, FeedId, NodeName, UserId
from trading.limits import HALTED

#: Seconds without a notification after which the listening connection is tried.
_QUIET_S = 10.0


class Desired:
    """Users, accounts, feeds, algos, nodes and limits; strategies are in `storage.strategies`.

    For each resource: ``create_x(record, by)``, ``x(name)`` (raises `UnknownThing`), ``xs()``,
    ``update_x(name, changes, by, generation=None)`` and ``delete_x(name, by, generation=None)``.  ``by`` is
    who asked for it; it goes into the audit.  See `Resource` for the errors.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        made = frozenset({"created_at"})
        self._users = Resource(
            db, UserRecord, kind="user", table="users", fixed=made, check=lambda r: _named(r.id, "user")
        )
        self._accounts = Resource(
            db,
            AccountRecord,
            kind="account",
            table="accounts",
            fixed=made | {"user"},
            check=lambda r: _named(r.id, "account"),
        )
        self._feeds = Resource(db, FeedRecord, kind="feed", table="feeds", fixed=made | {"nodes"}, check=_check_feed)
        self._algos = AlgoRows(db)
        self._algo_commands = AlgoCommands(db)
        self._nodes = Resource(
            db,
            NodeRecord,
            kind="node",
            table="nodes",
            key="name",
            fixed=frozenset({"registered_at"}),
            check=lambda r: _named(r.name, "node"),
        )

    # --- users ------------------------------------------------------------------------------------------

    async def create_user(self, record: UserRecord, by: str) -> UserRecord:
        """A new user."""
        return await self._users.create(record, by)

    async def user(self, id: UserId) -> UserRecord:
        """One user."""
        return await self._users.get(id)

    async def users(self) -> list[UserRecord]:
        """All users."""
        return await self._users.list()

    async def update_user(
        self, id: UserId, changes: Mapping[str, Any], by: str, generation: int | None = None
    ) -> UserRecord:
        """Change roles, shut out or let in again; who is shut out is signed out, and not signed in again later."""
        async with change(self._db) as connection:
            after = await self._users.update_within(connection, id, changes, by, generation)
            if not after.enabled:
                await end_all_within(connection, id, "the user was disabled", by)
        return after

    async def delete_user(self, id: UserId, by: str, generation: int | None = None) -> None:
        """Remove a user who owns nothing any more."""
        await self._users.delete(id, by, generation)

    # --- accounts ---------------------------------------------------------------------------------------

    async def create_account(self, record: AccountRecord, by: str, credentials: Sealed | None = None) -> AccountRecord:
        """A new trading account of an existing user, with what it logs in with: both or neither.

        Raises `Conflict` ``name_was_anothers`` where an account of this name was deleted that was somebody else's: its
        orders, executions and profits are still there, under this name.
        """
        async with self._db.connection() as connection:
            before = await dicts(connection, 'SELECT "user" FROM gone_accounts WHERE id = %(id)s', {"id": record.id})
        if before and before[0]["user"] != record.user:
            raise Conflict(
                "name_was_anothers",
                f"account {record.id!r} was somebody else's, whose history is kept under this name: take another name",
            )
        async with change(self._db) as connection:
            made = await self._accounts.create_within(connection, record, by)
            if credentials is not None:
                await _keep_credentials(connection, record.id, credentials, by)
        return made

    async def set_credentials(self, id: AccountId, credentials: Sealed, by: str) -> None:
        """Let an account log in with something else; whoever does so for it wakes.  Raises `UnknownThing`."""
        async with change(self._db) as connection:
            await self._accounts.locked(connection, id)
            await _keep_credentials(connection, id, credentials, by)

    async def account(self, id: AccountId) -> AccountRecord:
        """One account."""
        return await self._accounts.get(id)

    async def accounts(self) -> list[AccountRecord]:
        """All accounts."""
        return await self._accounts.list()

    async def update_account(
        self, id: AccountId, changes: Mapping[str, Any], by: str, generation: int | None = None
    ) -> AccountRecord:
        """Change connector, settings or whether it trades; the owner stays."""
        return await self._accounts.update(id, changes, by, generation)

    async def delete_account(self, id: AccountId, by: str, generation: int | None = None) -> None:
        """Remove an account that no algo uses, with its credentials; its orders stay in the journal."""
        async with change(self._db) as connection:
            await self._accounts.delete_within(connection, id, by, generation)
            await drop_secret(connection, secret_name(id))

    # --- feeds ------------------------------------------------------------------------------------------

    async def create_feed(self, record: FeedRecord, by: str) -> FeedRecord:
        """A new feed."""
        return await self._feeds.create(record, by)

    async def feed(self, id: FeedId) -> FeedRecord:
        """One feed."""
        return await self._feeds.get(id)

    async def feeds(self) -> list[FeedRecord]:
        """All feeds."""
        return await self._feeds.list()

    async def update_feed(
        self, id: FeedId, changes: Mapping[str, Any], by: str, generation: int | None = None
    ) -> FeedRecord:
        """Change instruments, workers, channels, settings or whether it streams."""
        return await self._feeds.update(id, changes, by, generation)

    async def delete_feed(self, id: FeedId, by: str, generation: int | None = None) -> None:
        """Remove a feed that no algo uses and that stands by for no other."""
        await self._feeds.delete(id, by, generation)

    async def force_delete_feed(self, id: FeedId, by: str) -> list[AlgoRecord]:
        """Remove a feed whoever uses it; its algos stay and are to stop.  Returns those that were to run.

        Feeds that it stands by for have no second any more.
        """
        async with change(self._db) as connection, connection.cursor(row_factory=dict_row) as cursor:
            before = await _one(connection, "SELECT * FROM feeds WHERE id = %s FOR UPDATE", (id,))
            if before is None:
                raise UnknownThing("feed", id)
            fields = ", ".join(field.name for field in msgspec.structs.fields(AlgoRecord) if field.name != "user")
            await sign(connection, by)
            await cursor.execute(
                f"""
                UPDATE algos SET want = 'stopped', generation = generation + 1, updated_at = %s
                WHERE feed = %s AND want = 'running' RETURNING {fields}, "user"
                """.encode(),
                (time.time_ns(), id),
            )
            stopped = msgspec.convert(await cursor.fetchall(), list[AlgoRecord])
            for algo in stopped:
                why = {"want": "stopped", "because": f"its feed {id} was deleted by force"}
                await write_audit(connection, by, "update_algo", algo.id, {"want": "running"}, why)
            await _end_seconds(connection, id, by)
            await connection.execute("SELECT set_config('quarterdeck.forced', %s, true)", (id,))
            await connection.execute("DELETE FROM feeds WHERE id = %s", (id,))
            await write_audit(connection, by, "delete_feed", id, before, None)
        return sorted(stopped, key=lambda algo: algo.id)

    # --- nodes ------------------------------------------------------------------------------------------

    async def create_node(self, record: NodeRecord, by: str) -> NodeRecord:
        """Register a machine."""
        return await self._nodes.create(record, by)

    async def register_node(self, record: NodeRecord, by: str) -> NodeRecord:
        """Register a machine; one that is known stays as it is, for its labels and its cordon are the operator's."""
        try:
            return await self._nodes.get(record.name)
        except UnknownThing:
            return await self._nodes.put(record, by)

    async def node(self, name: NodeName) -> NodeRecord:
        """One machine."""
        return await self._nodes.get(name)

    async def nodes(self) -> list[NodeRecord]:
        """All machines."""
        return await self._nodes.list()

    async def update_node(
        self,
        name: NodeName,
        changes: Mapping[str, Any],
        by: str,
        generation: int | None = None,
        as_of: int | None = None,
    ) -> NodeRecord:
        """Change labels or cordon.  ``as_of``: the version of all in which it was found that this can be done."""
        return await self._nodes.update(name, changes, by, generation, as_of)

    async def delete_node(self, name: NodeName, by: str, as_of: int | None = None) -> None:
        """Forget a machine.  ``as_of`` as for `update_node`."""
        await self._nodes.delete(name, by, as_of=as_of)

    # --- algos ------------------------------------------------------------------------------------------

    async def create_algo(self, record: AlgoRecord, by: str) -> AlgoRecord:
        """A new algo; its user, account, strategy and feed must exist.  See `AlgoCommands.create`."""
        return await self._algo_commands.create(record, by)

    async def algo(self, id: AlgoId) -> AlgoRecord:
        """One algo."""
        return await self._algos.get(id)

    async def algos(self) -> list[AlgoRecord]:
        """All algos."""
        return await self._algos.list()

    async def update_algo(
        self, id: AlgoId, changes: Mapping[str, Any], by: str, generation: int | None = None
    ) -> AlgoRecord:
        """Change what is wanted.  State, reason and epoch have methods of their own; see `storage.algos` for the rest.

        The running incarnation is replaced, but for labels and where ``restart_generation`` says that it need not be.
        """
        return await self._algos.update(id, changes, by, generation)

    async def delete_algo(self, id: AlgoId, by: str, generation: int | None = None) -> None:
        """Remove an algo with its snapshot, and lift what stands on it; its log, its events and its orders stay."""
        await self._algo_commands.delete(id, by, generation)

    async def set_algo_state(self, id: AlgoId, epoch: Epoch, state: str, reason: str, by: str = "supervisor") -> bool:
        """Note how the incarnation ``epoch`` goes; says whether that was news.

        A finding, not a wish: it raises no generation and wakes nobody.  Raises `UnknownThing`, or `Fenced`
        when a newer incarnation exists.
        """
        async with self._db.connection() as connection, connection.transaction():
            row = await _one(connection, "SELECT epoch, state, reason FROM algos WHERE id = %s FOR UPDATE", (id,))
            if row is None:
                raise UnknownThing("algo", id)
            if row["epoch"] != epoch:
                raise Fenced(f"algo/{id}", epoch, row["epoch"])
            if (row["state"], row["reason"]) == (state, reason):
                return False
            await sign(connection, by)
            await connection.execute(
                "UPDATE algos SET state = %s, reason = %s, updated_at = %s WHERE id = %s",
                (state, reason, time.time_ns(), id),
            )
            after = {"epoch": epoch, "state": state, "reason": reason}
            await write_audit(connection, by, "set_algo_state", id, row, after)
        return True

    async def new_algo_epoch(self, id: AlgoId, node: str = "", by: str = "supervisor") -> Epoch:
        """Number the next incarnation before it is spawned on ``node``; fences the last.  Raises `UnknownThing`."""
        async with self._db.connection() as connection, connection.transaction():
            await sign(connection, by)
            row = await _one(
                connection,
                "UPDATE algos SET epoch = epoch + 1, placed = %s, updated_at = %s WHERE id = %s RETURNING epoch",
                (node, time.time_ns(), id),
            )
            if row is None:
                raise UnknownThing("algo", id)
            epoch = Epoch(row["epoch"])
            await write_audit(
                connection, by, "new_algo_epoch", id, {"epoch": epoch - 1}, {"epoch": epoch, "placed": node}
            )
        return epoch

    async def fence_algo(self, id: AlgoId, epoch: Epoch, by: str = "supervisor") -> bool:
        """Number one more epoch where ``epoch`` is still the newest; False where it is not, or the algo is gone."""
        async with self._db.connection() as connection, connection.transaction():
            await sign(connection, by)
            done = await connection.execute(
                "UPDATE algos SET epoch = epoch + 1, updated_at = %s WHERE (id, epoch) = (%s, %s)",
                (time.time_ns(), id, epoch),
            )
            if not done.rowcount:
                return False
            await write_audit(connection, by, "fence_algo", id, {"epoch": epoch}, {"epoch": epoch + 1})
        return True

    async def algo_epochs(self, user: UserId) -> dict[AlgoId, Epoch]:
        """The newest epoch of each of a user's algos, those that were deleted included."""
        async with self._db.connection() as connection:
            rows = await connection.execute(
                'SELECT id, epoch FROM gone_algos WHERE "user" = %(user)s '
                'UNION ALL SELECT id, epoch FROM algos WHERE "user" = %(user)s',
                {"user": user},
            )
            return {AlgoId(id): Epoch(epoch) for id, epoch in await rows.fetchall()}

    async def reused_algos(self) -> set[AlgoId]:
        """Algos whose name another algo bore before."""
        async with self._db.connection() as connection:
            rows = await connection.execute("SELECT id FROM algos JOIN gone_algos USING (id)")
            return {AlgoId(id) for (id,) in await rows.fetchall()}

    # --- limits -----------------------------------------------------------------------------------------

    async def set_limit(
        self, scope: str, kind: str, instrument: str, value: Decimal | None, by: str, seen: Seen | None = None
    ) -> LimitRecord:
        """Put a new version of a limit in force; None lifts it.  Every version is kept.

        Raises `Conflict`: ``limit_moved`` where another one than ``seen`` is in force by now (None: whatever is);
        ``kill_in_force`` where a kill holds the halt that would be lifted.
        """
        if value is not None and (not value.is_finite() or value < 0):
            raise BadInput("value", f"{value} is not a limit: give a number of 0 or more, or null to lift it")
        async with change(self._db) as connection:
            if kind == HALTED and not instrument and (value is None or value < KILLED):
                await require_not_held(connection, scope)
            return await put_limit(connection, scope, kind, instrument, value, by, seen=seen)

    async def limits(self) -> list[LimitRecord]:
        """The version in force of every limit, lifted ones (value None) included."""
        async with self._db.connection() as connection:
            return await read_limits(connection, None)

    async def limit_history(self, scope: str, kind: str, instrument: str = "") -> list[LimitRecord]:
        """Every version of one limit, oldest first."""
        async with self._db.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(
                "SELECT * FROM limits WHERE (scope, kind, instrument) = (%s, %s, %s) ORDER BY version",
                (scope, kind, instrument),
            )
            return msgspec.convert(await cursor.fetchall(), list[LimitRecord])

    # --- audit and changes ------------------------------------------------------------------------------

    async def audit(self, actor: str, action: str, subject: str, before: Any = None, after: Any = None) -> None:
        """Note an act that changed no row of ours (a kill switch, an accepted break)."""
        async with self._db.connection() as connection:
            await write_audit(connection, actor, action, subject, before, after)

    async def audit_of(self, subject: str | None = None, limit: int = 100) -> list[AuditRecord]:
        """The newest entries first, of one subject or of all."""
        return (await self.audit_page(AuditFilter(subject=subject), None, limit))[0]

    async def audit_page(
        self, filters: AuditFilter, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[AuditRecord], str | None]:
        """A page of entries, newest first, and the cursor of the next page (None: this was the last).

        Raises `BadInput` for a cursor that is not ours or a limit outside 1 … 1000.
        """
        return await audit_page(self._db, filters, cursor, limit)

    async def version(self) -> int:
        """Rises with every change of desired state."""
        async with self._db.connection() as connection:
            row = await _one(connection, "SELECT version FROM desired_version", ())
        assert row is not None
        return int(row["version"])

    async def changes(self) -> AsyncGenerator[None, None]:
        """Yields once at the start, after each reconnection, and whenever desired state has changed.

        Several changes may come as one.  Never ends and never raises for a server that is away.
        """
        delay = 0.1
        while True:
            try:
                connection = await self._db.listener()
            except TradeError:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, 2.0)
                continue
            try:
                await connection.execute(f"LISTEN {CHANNEL}")
                delay = 0.1
                # Something may have changed before we listened.
                yield None
                while True:
                    heard = False
                    async for _ in connection.notifies(timeout=_QUIET_S, stop_after=1):
                        heard = True
                    if heard:
                        yield None
                    else:
                        await asyncio.wait_for(connection.execute("SELECT 1"), 5.0)
            except (*DATABASE_ERRORS, TimeoutError):
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            finally:
                await connection.close()


async def _keep_credentials(connection: Connection, account: AccountId, credentials: Sealed, by: str) -> None:
    await keep_secret(connection, credentials)
    await write_audit(connection, by, "set_credentials", account, None, {"names": list(credentials.fields)})


async def _one(connection: Connection, statement: str, values: tuple[Any, ...]) -> dict[str, Any] | None:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement.encode(), values)
        return await cursor.fetchone()


async def _end_seconds(connection: Connection, feed: FeedId, by: str) -> None:
    """Let no feed have its second in this one any more."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            "SELECT id, seconds FROM feeds WHERE EXISTS "
            "(SELECT FROM jsonb_each(seconds) AS s WHERE s.value ->> 'feed' = %s) AND id <> %s FOR UPDATE",
            (feed, feed),
        )
        for row in await cursor.fetchall():
            left = {each: source for each, source in row["seconds"].items() if source["feed"] != feed}
            await connection.execute(
                "UPDATE feeds SET seconds = %s, generation = generation + 1 WHERE id = %s", (jsonb(left), row["id"])
            )
            why = {"seconds": left, "because": f"feed {feed} was deleted by force"}
            await write_audit(connection, by, "update_feed", row["id"], {"seconds": row["seconds"]}, why)


def _named(text: str, field: str) -> None:
    ids.name(text, field)


def _check_feed(record: FeedRecord) -> None:
    ids.name(record.id, "feed")
    if record.workers < 1:
        raise BadInput("workers", f"{record.workers} is too few: a feed needs at least 1 worker")
    for instrument in record.instruments:
        ids.instrument_id(instrument, "instruments")
    for instrument, source in record.seconds.items():
        ids.instrument_id(instrument, "seconds")
        ids.instrument_id(source.instrument, "seconds")
        if source.feed == record.id:
            raise BadInput("seconds", f"the second of {instrument} is in feed {record.id} itself: name another feed")

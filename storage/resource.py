"""One table of desired state: rows that are structs, with generations, audit and a wake-up for readers.

Every change happens in one transaction with its audit row, the rise of the global version and NOTIFY, so a
reader that wakes finds it and nobody can change anything unseen.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from storage.database import Connection, Database
from trading.errors import BadInput, Conflict, UnknownThing

R = TypeVar("R", bound=msgspec.Struct)
#: Channel of NOTIFY for every change of desired state.
CHANNEL = "desired"


def jsonb(value: Any) -> Jsonb:
    """``value`` (structs and decimals welcome) as a jsonb parameter."""
    return Jsonb(value, dumps=lambda each: msgspec.json.encode(each).decode())


async def write_audit(connection: Connection, actor: str, action: str, subject: str, before: Any, after: Any) -> None:
    """Append to the audit; the caller's transaction makes it stand or fall with the change."""
    await connection.execute(
        "INSERT INTO audit (at, actor, action, subject, before, after) VALUES (%s, %s, %s, %s, %s, %s)",
        (
            time.time_ns(),
            actor,
            action,
            subject,
            None if before is None else jsonb(before),
            None if after is None else jsonb(after),
        ),
    )


@asynccontextmanager
async def change(db: Database, as_of: int | None = None) -> AsyncIterator[Connection]:
    """A transaction that changes desired state; changes queue up behind one another.

    ``as_of``: the version that what is decided here was looked at in.  Raises `Conflict` ``desired_state_moved`` where
    it is not the newest any more, and nothing happens.
    """
    async with db.connection() as connection, connection.transaction():
        cursor = await connection.execute("UPDATE desired_version SET version = version + 1 RETURNING version")
        row = await cursor.fetchone()
        if as_of is not None and (row is None or row[0] != as_of + 1):
            raise Conflict("desired_state_moved", "something else was changed meanwhile: look again")
        await connection.execute(f"NOTIFY {CHANNEL}")
        yield connection


async def sign(connection: Connection, by: str) -> None:
    """Tell the triggers of this transaction who asks: what they note bears the name."""
    await connection.execute("SELECT set_config('quarterdeck.by', %s, true)", (by,))


class Resource(Generic[R]):
    """The rows of one table.  ``fixed`` fields cannot be updated; ``key`` is the primary key's field."""

    def __init__(
        self,
        db: Database,
        record: type[R],
        *,
        kind: str,
        table: str,
        key: str = "id",
        fixed: frozenset[str] = frozenset(),
        check: Callable[[R], None] | None = None,
    ) -> None:
        self._db = db
        self._record = record
        self._kind = kind
        self._key = key
        self._fixed = fixed | {key, "generation"}
        self._check = check
        self._fields = tuple(each.name for each in msgspec.structs.fields(record))
        self._has_generation = "generation" in self._fields
        self._table = sql.Identifier(table)
        self._key_column = sql.Identifier(key)
        self._columns = sql.SQL(", ").join(map(sql.Identifier, self._fields))

    async def create(self, record: R, by: str) -> R:
        """Insert.  Raises `Conflict` when the name exists, `UnknownThing` for a name it refers to."""
        async with change(self._db) as connection:
            return await self.create_within(connection, record, by)

    async def create_within(self, connection: Connection, record: R, by: str) -> R:
        """As `create`, in a `change` that does more."""
        if self._check is not None:
            self._check(record)
        name = getattr(record, self._key)
        await sign(connection, by)
        with self._errors(name):
            await connection.execute(
                sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                    self._table,
                    self._columns,
                    sql.SQL(", ").join([sql.Placeholder()] * len(self._fields)),
                ),
                [_parameter(getattr(record, field)) for field in self._fields],
            )
        await write_audit(connection, by, f"create_{self._kind}", name, None, self._shown(record))
        return record

    async def find(self, name: str) -> R | None:
        """One row, or None."""
        async with self._db.connection() as connection:
            return await self._read(connection, name)

    async def get(self, name: str) -> R:
        """One row.  Raises `UnknownThing`."""
        found = await self.find(name)
        if found is None:
            raise UnknownThing(self._kind, name)
        return found

    async def list(self) -> list[R]:
        """All rows, by name."""
        statement = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(self._columns, self._table, self._key_column)
        async with (
            self._db.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            await cursor.execute(statement)
            return [msgspec.convert(row, self._record) for row in await cursor.fetchall()]

    async def update(
        self,
        name: str,
        changes: Mapping[str, Any],
        by: str,
        generation: int | None = None,
        as_of: int | None = None,
    ) -> R:
        """Set the fields of ``changes`` and raise the generation; returns the row as it is now.

        Raises `UnknownThing`, `BadInput` for a field that cannot be set, and `Conflict` when ``generation``
        is given and the row has moved on.  ``as_of`` as for `change`.
        """
        async with change(self._db, as_of) as connection:
            return await self.update_within(connection, name, changes, by, generation)

    async def update_within(
        self, connection: Connection, name: str, changes: Mapping[str, Any], by: str, generation: int | None = None
    ) -> R:
        """As `update`, in a `change` that does more."""
        before = await self.locked(connection, name)
        self._check_generation(name, before, generation)
        after = self._changed(before, changes)
        await sign(connection, by)
        await self._write(connection, name, after)
        await write_audit(connection, by, f"update_{self._kind}", name, self._shown(before), self._shown(after))
        return after

    async def locked(self, connection: Connection, name: str) -> R:
        """One row, which nobody else changes before the transaction ends.  Raises `UnknownThing`."""
        found = await self._read(connection, name, lock=True)
        if found is None:
            raise UnknownThing(self._kind, name)
        return found

    async def put(self, record: R, by: str) -> R:
        """Create, or update every field that may change; nothing happens when it stands so already."""
        name = getattr(record, self._key)
        before = await self.find(name)
        if before is None:
            try:
                return await self.create(record, by)
            except Conflict:
                # Somebody else was faster; theirs becomes ours below.
                before = await self.get(name)
        changes = {
            field: getattr(record, field)
            for field in self._fields
            if field not in self._fixed and getattr(record, field) != getattr(before, field)
        }
        return await self.update(name, changes, by) if changes else before

    async def delete(self, name: str, by: str, generation: int | None = None, as_of: int | None = None) -> None:
        """Remove.  Raises `UnknownThing`, or `Conflict` where something still refers to it.

        ``as_of`` as for `change`.
        """
        async with change(self._db, as_of) as connection:
            await self.delete_within(connection, name, by, generation)

    async def delete_within(self, connection: Connection, name: str, by: str, generation: int | None = None) -> None:
        """As `delete`, in a `change` that does more."""
        before = await self.locked(connection, name)
        self._check_generation(name, before, generation)
        await sign(connection, by)
        try:
            await connection.execute(
                sql.SQL("DELETE FROM {} WHERE {} = %s").format(self._table, self._key_column), (name,)
            )
        except psycopg.errors.ForeignKeyViolation as error:
            raise Conflict(
                f"{self._kind}_in_use",
                f"{self._kind} {name!r} is still used by {error.diag.table_name}: remove those first",
            ) from error
        await write_audit(connection, by, f"delete_{self._kind}", name, self._shown(before), None)

    async def _read(self, connection: Connection, name: str, *, lock: bool = False) -> R | None:
        statement = sql.SQL("SELECT {} FROM {} WHERE {} = %s{}").format(
            self._columns, self._table, self._key_column, sql.SQL(" FOR UPDATE" if lock else "")
        )
        async with connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement, (name,))
            row = await cursor.fetchone()
        return None if row is None else msgspec.convert(row, self._record)

    async def _write(self, connection: Connection, name: str, record: R) -> None:
        assignments = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(f)) for f in self._fields)
        with self._errors(name):
            await connection.execute(
                sql.SQL("UPDATE {} SET {} WHERE {} = %s").format(self._table, assignments, self._key_column),
                [*(_parameter(getattr(record, field)) for field in self._fields), name],
            )

    def _changed(self, before: R, changes: Mapping[str, Any]) -> R:
        for field in changes:
            if field not in self._fields:
                raise BadInput(field, f"a {self._kind} has no such field: use {self._changeable()}")
            if field in self._fixed:
                raise BadInput(field, f"cannot be changed in a {self._kind}: use {self._changeable()}")
        values = {**msgspec.structs.asdict(before), **changes}
        if self._has_generation:
            values["generation"] += 1
        if "updated_at" in self._fields:
            values["updated_at"] = time.time_ns()
        try:
            after = msgspec.convert(values, self._record)
        except msgspec.ValidationError as error:
            raise BadInput(self._kind, str(error)) from error
        if self._check is not None:
            self._check(after)
        return after

    def _changeable(self) -> str:
        return ", ".join(field for field in self._fields if field not in self._fixed)

    def _check_generation(self, name: str, before: R, generation: int | None) -> None:
        now = getattr(before, "generation", None)
        if generation is not None and now != generation:
            raise Conflict(
                "generation_changed",
                f"{self._kind} {name!r} is at generation {now}, not {generation}: read it again",
            )

    def _shown(self, record: R) -> dict[str, Any]:
        shown = msgspec.structs.asdict(record)
        # Code is told apart by its hash; its text would swell the audit.
        shown.pop("source", None)
        return shown

    def _errors(self, name: str) -> _Errors:
        return _Errors(self._kind, name)


class _Errors:
    """Turns violated constraints of a write into our errors."""

    def __init__(self, kind: str, name: str) -> None:
        self._kind = kind
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, psycopg.errors.UniqueViolation):
            raise Conflict(f"{self._kind}_exists", f"there is already a {self._kind} named {self._name!r}") from error
        if isinstance(error, psycopg.errors.ForeignKeyViolation):
            kind, missing = missing_reference(error)
            raise UnknownThing(kind, missing, f"create it before the {self._kind}") from error
        if isinstance(error, psycopg.errors.CheckViolation):
            raise BadInput(self._kind, f"{self._name!r}: {error.diag.message_primary}") from error


def missing_reference(error: psycopg.errors.ForeignKeyViolation) -> tuple[str, str]:
    """Which thing a violated foreign key missed, e.g. ``("account", "a1")``.

    Constraints bear PostgreSQL's own names, ``<table>_<column>_fkey``; the detail reads
    ``Key (account)=(a1) is not present in table "accounts".``
    """
    constraint = error.diag.constraint_name or ""
    table = error.diag.table_name or ""
    column = constraint.removeprefix(f"{table}_").removesuffix("_fkey")
    detail = error.diag.message_detail or ""
    return column, detail.partition(")=(")[2].partition(") is not present")[0]


def _parameter(value: Any) -> Any:
    return jsonb(value) if isinstance(value, dict | list | tuple | msgspec.Struct) else value

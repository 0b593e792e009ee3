"""Strategies and their versions.  Part of desired state: every change is audited and wakes its readers.

A version is written once and then only deprecated, brought back or deleted; its files are in `storage.artefacts`.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
import psycopg

from storage.artefacts import drop_unwanted
from storage.database import Connection, Database, dicts
from storage.records import Pin, StrategyRecord, StrategyVersion
from storage.resource import Resource, change, jsonb, write_audit
from trading import ids
from trading.errors import BadInput, Conflict, UnknownThing
from trading.ids import AlgoId, Nanos

#: Fewest characters of a version that stand for it.
SHORTEST: Final = 8
_FIELDS: Final = tuple(each.name for each in msgspec.structs.fields(StrategyVersion))
_COLUMNS: Final = ", ".join(_FIELDS)


class Strategies:
    """Strategies by name, their versions by content."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._names = Resource(
            db,
            StrategyRecord,
            kind="strategy",
            table="strategies",
            key="name",
            fixed=frozenset({"created_at", "builtin"}),
        )

    async def all(self) -> list[StrategyRecord]:
        """All strategies."""
        return await self._names.list()

    async def get(self, name: str) -> StrategyRecord:
        """One strategy; raises `UnknownThing`."""
        return await self._names.get(name)

    async def put_builtin(self, record: StrategyRecord, by: str) -> StrategyRecord:
        """Register what comes with the release; nothing happens when it stands so already.

        Raises `Conflict` where somebody has submitted one of that name.
        """
        found = await self._names.find(record.name)
        if found is not None and not found.builtin:
            raise Conflict(
                "strategy_exists",
                f"{record.name!r} was submitted by somebody, and this release brings one of that name: submit the "
                "former under another name, move its algos there and delete it",
            )
        return await self._names.put(record, by)

    async def delete(self, name: str, by: str) -> None:
        """Remove a strategy with all its versions; raises `Conflict` where an algo uses it."""
        await self._names.delete(name, by)
        await self._tidy()

    # Versions

    async def submit(self, version: StrategyVersion, by: str) -> StrategyVersion:
        """Keep a version whose files are in the store, under a name that is made where it is new.

        The version as it is kept: where it was submitted before, as it was then.  Raises `Conflict` for a built-in
        name, `UnknownThing` where a file is not in the store (any more).
        """
        ids.name(version.strategy, "name")
        async with change(self._db) as connection:
            await connection.execute(
                "INSERT INTO strategies (name, version, entry, builtin, schema, created_at) "
                "VALUES (%s, '', '', false, '{}', %s) ON CONFLICT (name) DO NOTHING",
                (version.strategy, version.submitted_at),
            )
            if (await _named(connection, version.strategy)).builtin:
                raise Conflict("strategy_exists", f"{version.strategy!r} is built in: choose another name")
            known = await _find(connection, version.strategy, version.version)
            if known is not None:
                return known
            try:
                await connection.execute(
                    f"INSERT INTO strategy_versions ({_COLUMNS}) VALUES ({', '.join(['%s'] * len(_FIELDS))})".encode(),
                    [_parameter(getattr(version, field)) for field in _FIELDS],
                )
                for sha256 in {pin.sha256 for pin in version.pins}:
                    await connection.execute(
                        "INSERT INTO strategy_wheels VALUES (%s, %s, %s)", (version.strategy, version.version, sha256)
                    )
            except psycopg.errors.ForeignKeyViolation as error:
                raise UnknownThing("artefact", version.artefact, "submit it again") from error
            await self._audit(connection, by, "submit_strategy", version, None, _summary(version))
            await _choose_newest(connection, version.strategy)
        await self._tidy()
        return version

    async def versions(self, name: str) -> list[StrategyVersion]:
        """All versions of a strategy, the newest first; raises `UnknownThing` for the name."""
        await self._names.get(name)
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                f"SELECT {_COLUMNS} FROM strategy_versions WHERE strategy = %s ORDER BY number DESC",
                (name,),
            )
        return msgspec.convert(rows, list[StrategyVersion])

    async def version(self, name: str, version: str, field: str = "version") -> StrategyVersion:
        """One version, by the whole of it or its first characters.

        Raises `UnknownThing`, or `BadInput` for ``field`` where the characters are too few or fit several.
        """
        if len(version) < SHORTEST or not set(version) <= set("0123456789abcdef"):
            raise BadInput(field, f"{version[:80]!r} is no version: give at least its first {SHORTEST} characters")
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                f"SELECT {_COLUMNS} FROM strategy_versions WHERE strategy = %s AND starts_with(version, %s) LIMIT 2",
                (name, version),
            )
        if len(rows) > 1:
            raise BadInput(field, f"{version!r} is the beginning of several versions: give more of it")
        if not rows:
            await self._names.get(name)
            raise UnknownThing("version", version, f"GET /v1/strategies/{name}/versions lists what there is")
        return msgspec.convert(rows[0], StrategyVersion)

    async def deprecate(self, name: str, version: str, because: str | None, by: str) -> StrategyVersion:
        """Let no new algo take a version, or (``because`` None) let them again; algos that run it go on."""
        async with change(self._db) as connection:
            before = await _find(connection, name, version, lock=True)
            if before is None:
                raise UnknownThing("version", version)
            at, who, why = (Nanos(time.time_ns()), by, because) if because is not None else (Nanos(0), "", "")
            await connection.execute(
                "UPDATE strategy_versions SET (deprecated_at, deprecated_by, deprecated_because) = (%s, %s, %s) "
                "WHERE (strategy, version) = (%s, %s)",
                (at, who, why, name, version),
            )
            action = "deprecate_strategy" if because is not None else "reinstate_strategy"
            await self._audit(
                connection, by, action, before, {"deprecated_because": before.deprecated_because},
                {"deprecated_because": why},
            )  # fmt: skip
            await _choose_newest(connection, name)
        return msgspec.structs.replace(before, deprecated_at=at, deprecated_by=who, deprecated_because=why)

    async def delete_version(self, name: str, version: str, by: str) -> None:
        """Delete a version with its files; raises `Conflict` ``version_in_use`` where algos pin it, by their count: who
        asks may not see them (`pinned_by`)."""
        async with change(self._db) as connection:
            before = await _find(connection, name, version, lock=True)
            if before is None:
                raise UnknownThing("version", version)
            if pinned := await _pinned_by(connection, name, version):
                raise Conflict(
                    "version_in_use",
                    f"version {version[:12]} of {name} is pinned by algos ({len(pinned)}): upgrade or delete those "
                    "first, or deprecate it",
                )
            await connection.execute(
                "DELETE FROM strategy_versions WHERE (strategy, version) = (%s, %s)", (name, version)
            )
            await self._audit(connection, by, "delete_strategy_version", before, _summary(before), None)
            await _choose_newest(connection, name)
        await self._tidy()

    async def resolved_before(self, version: str) -> tuple[Pin, ...] | None:
        """What the requirements of this very content were resolved to, under whatever name; None: it is new."""
        async with self._db.connection() as connection:
            rows = await dicts(
                connection, "SELECT pins FROM strategy_versions WHERE version = %s ORDER BY number LIMIT 1", (version,)
            )
        return msgspec.convert(rows[0]["pins"], tuple[Pin, ...]) if rows else None

    async def pinned_by(self, name: str, version: str) -> list[AlgoId]:
        """Algos that pin a version."""
        async with self._db.connection() as connection:
            return await _pinned_by(connection, name, version)

    async def deprecated(self) -> dict[tuple[str, str], str]:
        """Why each deprecated version is, by strategy and version."""
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                "SELECT strategy, version, deprecated_because FROM strategy_versions WHERE deprecated_at > 0",
                (),
            )
        return {(row["strategy"], row["version"]): row["deprecated_because"] for row in rows}

    async def _tidy(self) -> None:
        # Apart from the change: it may take a while, and changes queue up behind one another.
        async with self._db.connection() as connection:
            await drop_unwanted(connection)

    async def _audit(
        self, connection: Connection, by: str, action: str, of: StrategyVersion, before: Any, after: Any
    ) -> None:
        await write_audit(connection, by, action, f"{of.strategy}/{of.version}", before, after)


async def _named(connection: Connection, name: str) -> StrategyRecord:
    rows = await dicts(connection, "SELECT * FROM strategies WHERE name = %s FOR UPDATE", (name,))
    return msgspec.convert(rows[0], StrategyRecord)


async def _find(connection: Connection, name: str, version: str, *, lock: bool = False) -> StrategyVersion | None:
    rows = await dicts(
        connection,
        f"SELECT {_COLUMNS} FROM strategy_versions WHERE (strategy, version) = (%s, %s)" + " FOR UPDATE" * lock,
        (name, version),
    )
    return msgspec.convert(rows[0], StrategyVersion) if rows else None


async def _pinned_by(connection: Connection, name: str, version: str) -> list[AlgoId]:
    rows = await dicts(
        connection, "SELECT id FROM algos WHERE (strategy, pinned) = (%s, %s) ORDER BY id", (name, version)
    )
    return [AlgoId(row["id"]) for row in rows]


async def _choose_newest(connection: Connection, name: str) -> None:
    """Let the name stand for the newest version that is not deprecated."""
    await connection.execute(
        """
        UPDATE strategies SET
            version = coalesce(newest.version, ''), entry = coalesce(newest.entry, ''),
            schema = coalesce(newest.schema, '{}')
        FROM (SELECT) one LEFT JOIN (
            SELECT version, entry, schema FROM strategy_versions
            WHERE strategy = %(name)s AND deprecated_at = 0 ORDER BY number DESC LIMIT 1
        ) newest ON true
        WHERE name = %(name)s
        """,
        {"name": name},
    )


def _summary(version: StrategyVersion) -> dict[str, Any]:
    """What the audit keeps of a version: which one it is, not what the check had to say."""
    return {
        field: getattr(version, field)
        for field in ("kind", "file_name", "artefact", "size", "entry", "requirements", "pins")
    }


def _parameter(value: Any) -> Any:
    return jsonb(value) if isinstance(value, dict | tuple) else value

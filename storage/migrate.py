"""Bring the database's schema to this code's version.

Migrations are the SQL files of ``storage/migrations``, applied in the order of their names and never edited
once released.  Each start runs this; an advisory lock makes racing starts wait for one another.  All of a
run is one transaction, the note of what was applied included, so a kill at any point leaves the old schema
or the new one.
"""

from __future__ import annotations

import hashlib
import time
from importlib.resources import files

import psycopg

from storage.database import APPLICATION, DATABASE_ERRORS, address_of, connect_error
from trading.errors import NeedsOperator, NotReady

#: Key of the advisory lock: any constant no other program in this database uses.
_LOCK = 0x51_55_41_52_54_45_52
_LOCK_WAIT_S = 60

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at bigint NOT NULL
)
"""


def known_migrations() -> dict[str, str]:
    """Name to SQL of every migration this code brings, in order."""
    folder = files("storage").joinpath("migrations")
    scripts = [entry for entry in folder.iterdir() if entry.name.endswith(".sql")]
    return {
        entry.name.removesuffix(".sql"): entry.read_text("utf-8") for entry in sorted(scripts, key=lambda e: e.name)
    }


def migrate(database_url: str) -> list[str]:
    """Apply what is missing and return its names, [] when there was nothing to do.

    Raises `NeedsOperator` when the database is newer than this code or an applied migration has been edited,
    `NotReady` when the server is away or another migration does not end.
    """
    address = address_of(database_url)
    known = known_migrations()
    try:
        with psycopg.connect(database_url, connect_timeout=5) as connection:
            connection.execute(f"SET lock_timeout = '{_LOCK_WAIT_S}s'")
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            connection.execute(_TABLE)
            rows = connection.execute("SELECT name, sha256 FROM schema_migrations").fetchall()
            applied: dict[str, str] = dict(rows)
            _check(applied, known, address)
            missing = [name for name in known if name not in applied]
            for name in missing:
                connection.execute(known[name].encode())
                connection.execute(
                    "INSERT INTO schema_migrations VALUES (%s, %s, %s)",
                    (name, _digest(known[name]), time.time_ns()),
                )
            if missing:
                connection.execute("SELECT grant_application()")
            return missing
    except psycopg.errors.InsufficientPrivilege as error:
        raise NeedsOperator(
            f"PostgreSQL at {address} lets us make no role for the application: {error.diag.message_primary}",
            f"as an administrator run CREATE ROLE {APPLICATION} NOLOGIN; and GRANT it TO the user of DATABASE_URL",
        ) from error
    except psycopg.errors.LockNotAvailable as error:
        raise NotReady(
            f"PostgreSQL at {address}: another migration has held the lock for {_LOCK_WAIT_S} s", 5.0
        ) from error
    except DATABASE_ERRORS as error:
        raise connect_error(database_url, error) from error


def _check(applied: dict[str, str], known: dict[str, str], address: str) -> None:
    newer = sorted(set(applied) - set(known))
    if newer:
        raise NeedsOperator(
            f"the database at {address} is newer than this Quarterdeck: it has {', '.join(newer)}, "
            f"this code ends with {max(known)}",
            "upgrade Quarterdeck on this machine, or restore the backup made before the upgrade",
        )
    edited = sorted(name for name, digest in applied.items() if digest != _digest(known[name]))
    if edited:
        raise NeedsOperator(
            f"the database at {address} was made by other versions of {', '.join(edited)}",
            "install the released Quarterdeck; released migrations are never edited",
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

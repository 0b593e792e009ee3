"""Connections to PostgreSQL: a small pool that heals by itself, and the mapping of its errors to ours."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg import AsyncConnection, AsyncTransaction
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from trading.errors import BadInput, Fenced, InDoubt, Invariant, NeedsOperator, NotReady, TradeError

Connection: TypeAlias = AsyncConnection[TupleRow]

#: What psycopg raises when the server is away, stopping, out of resources, or has lost the connection.
DATABASE_ERRORS = (psycopg.OperationalError, psycopg.InterfaceError)
#: ON CONFLICT as we write it, COPY and HOT with BRIN indexes need 16.
MIN_VERSION = 16
CONNECT_S = 3
STATEMENT_S = 10
#: Seconds a borrower waits for a free connection before `NotReady`.
BORROW_S = 1.5
#: After a borrower has waited in vain for a server that is away, others fail at once for so many seconds.
PAUSE_S = 1.0

# The pool logs each failed attempt; ours is told once, by the error.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


#: The role that all connections but a migration's work as; see the migration 0008_audit.
APPLICATION = "quarterdeck_app"


class Commits:
    """Whether the work under way has made anything durable, by transactions that write."""

    def __init__(self) -> None:
        self.any = False


#: Set by whoever must know afterwards whether what failed had done a part of its work.
commits: ContextVar[Commits | None] = ContextVar("commits", default=None)


class _Connection(AsyncConnection[TupleRow]):
    """One that knows whether its transaction was about to become durable when it broke."""

    #: The transaction's end has been sent for and has not been answered.
    is_committing = False
    #: Nothing hangs on its transactions.
    reads_only = False

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[AsyncTransaction]:
        self.is_committing = False
        outermost = self.info.transaction_status == TransactionStatus.IDLE
        async with super().transaction(savepoint_name, force_rollback) as transaction:
            yield transaction
            self.is_committing = outermost and not self.reads_only and not force_rollback
        if self.is_committing:
            self.is_committing = False
            if (seen := commits.get()) is not None:
                seen.any = True


class Database:
    """A pool of at most ``size`` autocommit connections.  The constructor does no IO.

    Connections are made when needed and thrown away when broken, so a server that returns is used again by
    the next call.  ``name`` is shown in pg_stat_activity.  Statements run with the rights of ``role``, by default those
    of the application; "" keeps the user of the URL.
    """

    def __init__(self, url: str, *, size: int = 2, name: str = "", role: str = APPLICATION) -> None:
        self.url = url
        self.address = address_of(url)
        self._size = size
        self._name = name
        self._role = role
        self._pool: AsyncConnectionPool[_Connection] | None = None
        self._away_until = 0.0
        self._connect_failed_at = 0.0

    def __repr__(self) -> str:
        return f"Database({self.address}, name={self._name!r}, open={self._pool is not None})"

    async def open(self) -> None:
        """Connect once to prove that it can be done.

        Raises `NotReady` when the server is away, `NeedsOperator` when it will not have us.
        """
        if self._pool is not None:
            return
        await check_postgres(self.url)
        pool: AsyncConnectionPool[_Connection] = AsyncConnectionPool(
            self._conninfo(),
            connection_class=_Connection,
            kwargs={"autocommit": True},
            min_size=0,
            max_size=self._size,
            timeout=BORROW_S,
            # Short: a failed attempt must not hold up the next borrower, who tries anew.
            reconnect_timeout=0.5,
            reconnect_failed=self._note_failure,
            check=_check_idle,
            open=False,
            name=self._name or None,
        )
        await pool.open()
        self._pool = pool

    async def close(self) -> None:
        """Close all connections."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close(timeout=2.0)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection.  What PostgreSQL raises inside comes out as our errors where they fit.

        `InDoubt` where a transaction that writes broke in its commit.  `NotReady` otherwise: the outcome of a single
        statement is unknown too, but those that are sent outside of transactions can all be repeated.
        """
        pool = self._pool
        if pool is None:
            raise NotReady(f"the connection to PostgreSQL at {self.address} is not open")
        asked_at = time.monotonic()
        if asked_at < self._away_until:
            raise NotReady(f"PostgreSQL at {self.address} is away")
        borrowed: _Connection | None = None
        try:
            async with pool.connection() as connection:
                borrowed = connection
                borrowed.is_committing = False
                yield connection
        except PoolTimeout as error:
            # Only where connecting failed: a pool that is merely busy must not turn anybody away.
            if self._connect_failed_at >= asked_at:
                self._away_until = time.monotonic() + PAUSE_S
            raise NotReady(
                f"PostgreSQL at {self.address} gave no connection within {BORROW_S:g} s: it is away, or all "
                f"{self._size} connections of this process are busy"
            ) from error
        except PoolClosed as error:
            raise NotReady(f"the connection to PostgreSQL at {self.address} is closed") from error
        except (psycopg.DataError, UnicodeEncodeError) as error:
            if _is_no_text(error):
                raise BadInput("text", "there is a character in it that no text may have, such as NUL") from error
            raise
        except psycopg.errors.QueryCanceled as error:
            raise NotReady(f"PostgreSQL at {self.address} took longer than {STATEMENT_S} s") from error
        except DATABASE_ERRORS as error:
            if borrowed is not None and borrowed.is_committing and borrowed.closed:
                raise InDoubt(
                    f"PostgreSQL at {self.address} went away in the middle of a commit, so what was asked for may "
                    f"have been done or not, look what is there: {_brief(error)}"
                ) from error
            raise NotReady(f"PostgreSQL at {self.address} is not available: {_brief(error)}") from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """As `connection`, in a transaction that only reads, and sees everything as of one instant."""
        async with self.connection() as connection:
            assert isinstance(connection, _Connection)
            connection.reads_only = True
            try:
                async with connection.transaction():
                    await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    yield connection
            finally:
                connection.reads_only = False

    def _note_failure(self, _: object) -> None:
        self._connect_failed_at = time.monotonic()

    def _conninfo(self) -> str:
        return make_conninfo(
            self.url,
            connect_timeout=CONNECT_S,
            application_name=f"quarterdeck {self._name}".strip(),
            options=f"-c statement_timeout={STATEMENT_S}s -c idle_in_transaction_session_timeout=30s"
            + (f" -c role={self._role}" if self._role else ""),
            # A machine that vanishes without a word is noticed within these seconds.
            tcp_user_timeout=5000,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
        )

    async def listener(self) -> Connection:
        """A connection of its own, outside the pool, for LISTEN.  The caller closes it."""
        try:
            return await AsyncConnection.connect(self._conninfo(), autocommit=True)
        except DATABASE_ERRORS as error:
            raise connect_error(self.url, error) from error


async def _check_idle(connection: Connection) -> None:
    # A healthy idle connection has nothing to read; a killed server has sent its farewell.
    # (Not select.select, which ends at descriptor 1023.)
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await connection.execute("SELECT 1")


async def check_postgres(url: str) -> None:
    """Raise `NotReady` when the server cannot be reached, `NeedsOperator` for a wrong password or version."""
    try:
        connection = await AsyncConnection.connect(url, connect_timeout=CONNECT_S, autocommit=True)
    except psycopg.ProgrammingError as error:
        raise NeedsOperator(
            "DATABASE_URL cannot be understood", "write postgresql://user:password@host:port/name"
        ) from error
    except DATABASE_ERRORS as error:
        raise connect_error(url, error) from error
    try:
        version = connection.info.server_version // 10_000
    finally:
        await connection.close()
    if version < MIN_VERSION:
        raise NeedsOperator(
            f"PostgreSQL at {address_of(url)} is version {version}",
            f"use version {MIN_VERSION} or later, or unset DATABASE_URL to use the embedded one",
        )


#: Texts of a server that answers and refuses: the SQLSTATE does not survive a failed connection in libpq.
_REFUSALS = {
    "password authentication failed": "correct user and password in DATABASE_URL",
    "no password supplied": "put the password into DATABASE_URL",
    "no pg_hba.conf entry": "allow this machine in pg_hba.conf of the server",
    "does not exist": "create that database or role, or correct DATABASE_URL",
    "could not translate host name": "correct the host name in DATABASE_URL",
    "permission denied": "give the role of DATABASE_URL the right to use the database",
}


def connect_error(url: str, error: psycopg.Error) -> TradeError:
    """Our error for a connection that could not be made or broke: who must act decides its kind."""
    text = _brief(error)
    address = address_of(url)
    if isinstance(error, psycopg.errors.InvalidPassword | psycopg.errors.InvalidAuthorizationSpecification):
        return NeedsOperator(f"PostgreSQL at {address} refuses us: {text}", _REFUSALS["password authentication failed"])
    for words, action in _REFUSALS.items():
        if words in text:
            return NeedsOperator(f"PostgreSQL at {address} refuses us: {text}", action)
    return NotReady(f"PostgreSQL at {address} is not available: {text}")


def fenced_or_broken(error: psycopg.Error, name: str, epoch: int) -> TradeError | None:
    """The error of ours that our SQL functions mean by their own SQLSTATEs, or None where it is not one."""
    if error.sqlstate == "QD001":
        return Fenced(name, epoch, int(error.diag.message_detail or 0))
    if error.sqlstate in ("QD002", "QD003"):
        return Invariant(f"{name}: {error.diag.message_primary}")
    return None


def address_of(url: str) -> str:
    """``host:port`` of a URL, without user or password."""
    try:
        if "://" in url:
            parts = urlsplit(url)
            host, port = unquote(parts.hostname or "localhost"), parts.port
            return f"{host}:{port or (6379 if parts.scheme.startswith('redis') else 5432)}"
        known: dict[str, Any] = conninfo_to_dict(url)
        return f"{known.get('host', 'localhost')}:{known.get('port', 5432)}"
    except (ValueError, psycopg.ProgrammingError):
        return "(an address that cannot be read)"


def _is_no_text(error: psycopg.DataError | UnicodeEncodeError) -> bool:
    """Whether what was sent is text that PostgreSQL cannot hold: a NUL, or half of a character."""
    if isinstance(error, UnicodeEncodeError | psycopg.errors.UntranslatableCharacter):
        return True
    return isinstance(error, psycopg.errors.CharacterNotInRepertoire) or "NUL (0x00)" in str(error)


def _brief(error: BaseException) -> str:
    """What the server or libpq said, on one line; neither ever repeats the password."""
    return " ".join(str(error).split())[:300]


async def dicts(connection: Connection, statement: str, values: Any) -> list[dict[str, Any]]:
    """The rows of a query, by column."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement.encode(), values)
        return await cursor.fetchall()

"""Passwords: argon2id, hashed off the event loop, compared in the same time whether or not there is such a user."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final, NamedTuple, TypeVar

import psycopg
from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from storage.api_keys import count_good_within, revoke_all_within
from storage.database import Connection, Database, dicts
from storage.login_attempts import unlock_within
from storage.panel_sessions import end_all_within
from storage.resource import missing_reference, write_audit
from storage.second_factors import forget_within
from trading.errors import BadInput, NotReady, UnknownThing
from trading.ids import Nanos, UserId

T = TypeVar("T")

SHORTEST: Final = 12
LONGEST: Final = 200
#: A one-time password that nobody used ends after so long.
ONE_TIME_FOR: Final = 7 * 86_400_000_000_000
#: Of zxcvbn's 0 to 4: guessing it takes at least 10^8 tries, each of them an argon2 hash.
_WEAKEST: Final = 3
#: zxcvbn takes no more.
_JUDGED: Final = 72
#: A hash takes 64 MiB and a tenth of a second: so many at once, and so many asked for at most.
_AT_ONCE: Final = 2
_MOST_ASKED: Final = 40

_hasher: Final = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1, type=Type.ID)
_threads: Final = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="argon2")
_asked: Final = threading.BoundedSemaphore(_MOST_ASKED)


async def _in_thread(work: Callable[[], T]) -> T:
    if not _asked.acquire(blocking=False):
        raise NotReady("too many are signing in at this moment", 2.0)

    def run() -> T:
        try:
            return work()
        finally:
            # Here, not after the await: a request that was given up leaves its hash running.
            _asked.release()

    return await asyncio.get_running_loop().run_in_executor(_threads, run)


async def check_strength(password: str, user: str, field: str = "new") -> None:
    """Raise `BadInput` for a password that is too short, too long, has the user's name in it, or is easily guessed."""
    if len(password) < SHORTEST:
        raise BadInput(field, f"it has {len(password)} characters: take {SHORTEST} at least")
    if len(password) > LONGEST:
        raise BadInput(field, f"it has more than {LONGEST} characters")
    if not password.isprintable():
        raise BadInput(field, "it has a character in it that cannot be typed")
    if user.casefold() in password.casefold():
        raise BadInput(field, "it has the user's name in it: leave that out")
    why = await asyncio.to_thread(_weakness, password, user)
    if why is not None:
        raise BadInput(field, f"it is easily guessed{f' ({why})' if why else ''}: take some unrelated words")


def _weakness(password: str, user: str) -> str | None:
    """Why it is easily guessed, in words, "" where that is not known; None where it is not."""
    from zxcvbn import zxcvbn  # only here: its lists of common passwords take a while to load

    found = zxcvbn(password[:_JUDGED], user_inputs=[user, "quarterdeck"])
    if found["score"] >= _WEAKEST:
        return None
    return str(found["feedback"]["warning"]).rstrip(".").lower()


def make_one_time_password() -> str:
    """A password to be changed at once: 80 bits, in groups that can be read out."""
    text = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(16))
    return "-".join(text[at : at + 4] for at in range(0, 16, 4))


@cache
def _nobodys_hash() -> str:
    return _hasher.hash(secrets.token_hex(16))


def _matches(hash: str, password: str) -> bool:
    try:
        return _hasher.verify(hash, password)
    except (VerificationError, InvalidHashError):
        return False


class Reset(NamedTuple):
    """What came of a reset; ``password`` is shown this once.

    ``keys_left``: API keys that the user still has, and that are still good.
    """

    password: str
    keys_revoked: int
    keys_left: int


class Passwords:
    """The table of passwords' hashes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def verify(self, user: str, password: str) -> bool:
        """Whether it is the user's password and still good.  Takes the same time for whom there is not.

        Raises `NotReady` where too many ask at once.
        """
        now = time.time_ns()
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                'SELECT p.*, u.enabled FROM passwords p JOIN users u ON u.id = p."user" WHERE p."user" = %(user)s',
                {"user": user},
            )
        row = rows[0] if rows else None
        # None: the hash to compare with is made in the thread, once.
        known = None if row is None else str(row["hash"])
        given = password[: LONGEST + 1]
        right = await _in_thread(lambda: _matches(known if known is not None else _nobodys_hash(), given))
        if row is None or not right or not row["enabled"] or (row["expires_at"] and row["expires_at"] <= now):
            return False
        if _hasher.check_needs_rehash(row["hash"]):
            await self._renew_hash(user, str(row["hash"]), given)
        return True

    async def _renew_hash(self, user: str, before: str, password: str) -> None:
        renewed = await _in_thread(lambda: _hasher.hash(password))
        async with self._db.connection() as connection:
            await connection.execute(
                'UPDATE passwords SET hash = %s WHERE "user" = %s AND hash = %s', (renewed, user, before)
            )

    async def set(self, user: UserId, password: str, by: str, *, one_time: bool) -> None:
        """Set it, whatever it was; the user's sessions end.  The caller has checked its strength.

        Raises `UnknownThing` for the user.
        """
        await self.set_hash(user, await hash_password(password), by, one_time=one_time)

    async def set_hash(self, user: UserId, hashed: str, by: str, *, one_time: bool) -> None:
        """As `set`, of what `hash_password` gave."""
        async with self._db.connection() as connection, connection.transaction():
            try:
                await put_within(connection, user, hashed, one_time=one_time)
            except psycopg.errors.ForeignKeyViolation as error:
                raise UnknownThing(*missing_reference(error)) from error
            await end_all_within(connection, user, f"{by} set a password", by)
            await write_audit(connection, by, "set_password", user, None, {"one_time": one_time})

    async def reset(self, user: UserId, by: str, *, revoke_keys: bool) -> Reset:
        """A one-time password in place of all that the user could sign in with, second factor and sessions included.

        ``revoke_keys``: in place of the API keys too, which somebody else may have made.  Raises `UnknownThing`.
        """
        password = make_one_time_password()
        hashed = await hash_password(password)
        async with self._db.connection() as connection, connection.transaction():
            try:
                await put_within(connection, user, hashed, one_time=True)
            except psycopg.errors.ForeignKeyViolation as error:
                raise UnknownThing(*missing_reference(error)) from error
            await forget_within(connection, user)
            ended = await end_all_within(connection, user, "the password was reset", by)
            await unlock_within(connection, user)
            revoked = await revoke_all_within(connection, user, "the user was reset", by) if revoke_keys else 0
            left = await count_good_within(connection, user)
            after = {"sessions_ended": len(ended), "keys_revoked": revoked, "keys_left": left}
            await write_audit(connection, by, "reset_user", user, None, after)
        return Reset(password, revoked, left)

    async def change(self, user: UserId, password: str, session: str) -> list[str]:
        """The user's own new password; ends their other sessions.  The caller has checked its strength."""
        hashed = await hash_password(password)
        async with self._db.connection() as connection, connection.transaction():
            await put_within(connection, user, hashed, one_time=False)
            ended = await end_all_within(connection, user, "the password was changed", user, but=session)
            after = {"one_time": False, "sessions_ended": len(ended)}
            await write_audit(connection, user, "set_password", user, None, after)
        return ended


async def hash_password(password: str) -> str:
    """The hash to keep."""
    return await _in_thread(lambda: _hasher.hash(password))


async def put_within(connection: Connection, user: UserId, hashed: str, *, one_time: bool) -> None:
    """Write a hash, in a transaction that does more."""
    now = Nanos(time.time_ns())
    await connection.execute(
        'INSERT INTO passwords ("user", hash, one_time, expires_at, changed_at) VALUES (%s, %s, %s, %s, %s) '
        'ON CONFLICT ("user") DO UPDATE SET hash = excluded.hash, one_time = excluded.one_time, '
        "expires_at = excluded.expires_at, changed_at = excluded.changed_at",
        (user, hashed, one_time, now + ONE_TIME_FOR if one_time else 0, now),
    )

"""Attempts to sign in, counted by user and by address, and the lock-outs that follow.

An attempt is counted before the password is looked at, so that many at once gain nothing; one that succeeds is taken
back.  Users are counted whether or not there are such, and whether or not they are known where the attempt comes from,
so a lock-out tells nobody who exists, nor who signs in from where.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Final

import msgspec

from storage.database import Connection, Database, dicts
from storage.resource import write_audit
from trading.ids import Nanos

#: Attempts that may fail before there is a lock-out.
MOST_BY_USER: Final = 5
MOST_BY_ADDRESS: Final = 20
#: The first lock-out; each further failure doubles it, up to the longest.
FIRST_S: Final = 60
LONGEST_S: Final = 900
#: Failures are forgotten when the last is so old.
FORGET_S: Final = 3600
_SECOND: Final = 1_000_000_000


class Attempt(msgspec.Struct, frozen=True):
    """An attempt that was counted: ``locked_until`` 0 where there is no lock-out.

    ``by``: what is locked out already, ``user``, ``address`` or ``session``.  ``locks``: of these, what is locked out
    unless it succeeds.  ``quiet``: there is a lock-out, but it may be tried all the same, and was counted; where it
    fails, what is answered must be what the lock-out answers, or it would tell who is known here.
    """

    subjects: tuple[str, ...]
    locked_until: Nanos = Nanos(0)
    by: str = ""
    locks: tuple[str, ...] = ()
    quiet: bool = False
    #: How the user is counted in this network, where they are known in it; else "".
    own: str = ""

    @property
    def may_be_made(self) -> bool:
        """Whether password or code may be looked at."""
        return self.quiet or not self.locked_until


def subject_of_user(user: str) -> str:
    """How a user is counted: by a digest, for people type passwords where names belong."""
    return f"user/{hashlib.sha256(user.encode()).hexdigest()[:32]}"


def subject_of_address(address: str) -> str:
    """How an address is counted; of IPv6 its /64, which one machine may have all of."""
    return f"address/{network_of(address, v4=32, v6=64)}"


async def unlock_within(connection: Connection, user: str) -> None:
    """Forget a user's failures, from whatever network, in a transaction that does more."""
    subject = subject_of_user(user)
    await connection.execute(
        "DELETE FROM login_attempts WHERE subject = %s OR starts_with(subject, %s)", (subject, subject + "/")
    )


def network_of(address: str, v4: int = 24, v6: int = 48) -> str:
    """The network that an address is in; what is no address is its own."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:60]
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    kept = v4 if found.version == 4 else v6
    all_bits = found.max_prefixlen
    first = int(found) >> (all_bits - kept) << (all_bits - kept)
    return f"{type(found)(first)}/{kept}"


class LoginAttempts:
    """The table of attempts."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, user: str, address: str) -> Attempt:
        """Count an attempt as if it were to fail.  During a lock-out nothing is counted, and nothing may be tried.

        Except from a network that the user has signed in from lately: what fails there is counted for this user and
        network too, and until that is too much more may be tried, quietly.  So neither who guesses elsewhere, nor who
        fails at other names at the same address (an office, a proxy), keeps the user out.
        """
        subject, network = subject_of_user(user), network_of(address)
        async with self._db.connection() as connection, connection.transaction():
            known = await dicts(
                connection,
                'SELECT 1 FROM sign_ins WHERE "user" = %(user)s AND network = %(network)s LIMIT 1',
                {"user": user, "network": network},
            )
            own = f"{subject}/{network}" if known else ""
            seen = await _begin(connection, {subject: MOST_BY_USER, subject_of_address(address): MOST_BY_ADDRESS})
            if not own:
                return seen
            unseen = await _begin(connection, {own: MOST_BY_USER})
            if unseen.locked_until:
                return msgspec.structs.replace(seen, own=own)
            if seen.locked_until:
                return msgspec.structs.replace(seen, subjects=unseen.subjects, locks=unseen.locks, quiet=True, own=own)
            locks = tuple(sorted({*seen.locks, *unseen.locks}))
            return msgspec.structs.replace(seen, subjects=(*seen.subjects, own), locks=locks, own=own)

    async def begin_within(self, session: str) -> Attempt:
        """As `begin`, of somebody who is signed in: nobody from outside can keep them from what asks for a code."""
        async with self._db.connection() as connection, connection.transaction():
            return await _begin(connection, {f"session/{session}": MOST_BY_USER})

    async def succeeded(self, attempt: Attempt, *, whole: bool) -> None:
        """Take an attempt back.  ``whole``: everything was shown that the user has to, so its failures are forgotten;
        not those of the address, or an account of one's own would be the way to guess others.

        Where the user is known, those of this network are: what strangers have failed at they may see no end of.
        """
        async with self._db.connection() as connection, connection.transaction():
            forgotten = set[str]()
            if whole:
                forgotten = {attempt.own} if attempt.own else {e for e in attempt.subjects if not _is_address(e)}
            for subject in sorted(forgotten.union(attempt.subjects)):
                if subject in forgotten:
                    await connection.execute("DELETE FROM login_attempts WHERE subject = %s", (subject,))
                    continue
                mine = subject.partition("/")[0] in attempt.locks
                await connection.execute(
                    "UPDATE login_attempts SET failures = greatest(failures - 1, 0), "
                    "locked_until = CASE WHEN %s THEN 0 ELSE locked_until END WHERE subject = %s",
                    (mine, subject),
                )

    async def unlock(self, user: str, by: str) -> None:
        """Forget a user's failures."""
        async with self._db.connection() as connection, connection.transaction():
            await unlock_within(connection, user)
            await write_audit(connection, by, "unlock_user", user, None, None)

    async def locked(self, users: Sequence[str]) -> dict[str, Nanos]:
        """Until when each of these users is locked out, be it from one network only, of those who are."""
        by_digest = {subject_of_user(user).partition("/")[2]: user for user in users}
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                "SELECT split_part(subject, '/', 2) AS digest, max(locked_until) AS until FROM login_attempts "
                "WHERE starts_with(subject, 'user/') AND split_part(subject, '/', 2) = ANY(%(digests)s) "
                "AND locked_until > %(now)s GROUP BY 1",
                {"digests": list(by_digest), "now": time.time_ns()},
            )
        return {by_digest[row["digest"]]: Nanos(row["until"]) for row in rows}

    async def sweep(self) -> None:
        """Forget what is old."""
        async with self._db.connection() as connection:
            old = time.time_ns() - (FORGET_S + LONGEST_S) * _SECOND
            await connection.execute("DELETE FROM login_attempts WHERE last_at < %s", (old,))


def _is_address(subject: str) -> bool:
    return subject.startswith("address/")


async def _begin(connection: Connection, bounds: Mapping[str, int]) -> Attempt:
    """Count an attempt of each of these subjects, each with how many may fail."""
    subjects = tuple(bounds)
    now = time.time_ns()
    # Locked in one order, or two attempts would wait for each other.
    found = await dicts(
        connection,
        "SELECT subject, locked_until FROM login_attempts WHERE subject = ANY(%(subjects)s) "
        "ORDER BY subject FOR UPDATE",
        {"subjects": list(subjects)},
    )
    locked = max(found, key=lambda row: int(row["locked_until"]), default=None)
    if locked is not None and locked["locked_until"] > now:
        return Attempt(subjects, Nanos(locked["locked_until"]), locked["subject"].partition("/")[0])
    locks = []
    for subject, most in sorted(bounds.items()):
        rows = await dicts(
            connection,
            """
            INSERT INTO login_attempts AS a (subject, failures, last_at, locked_until)
            VALUES (%(subject)s, 1, %(now)s, 0)
            ON CONFLICT (subject) DO UPDATE SET last_at = %(now)s,
                failures = CASE WHEN a.last_at < %(forget)s THEN 1 ELSE a.failures + 1 END
            RETURNING failures, locked_until
            """,
            {"subject": subject, "now": now, "forget": now - FORGET_S * _SECOND},
        )
        if rows[0]["locked_until"] > now:
            # Others, of whom there was no row to wait for yet, were faster.
            return Attempt(subjects, Nanos(rows[0]["locked_until"]), subject.partition("/")[0])
        beyond = int(rows[0]["failures"]) - most
        if beyond >= 0:
            pause = min(FIRST_S << min(beyond, 10), LONGEST_S) * _SECOND
            await connection.execute(
                "UPDATE login_attempts SET locked_until = %s WHERE subject = %s", (now + pause, subject)
            )
            locks.append(subject.partition("/")[0])
    return Attempt(subjects, locks=tuple(locks))

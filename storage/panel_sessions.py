"""Sessions of people who have signed in: a random token in a cookie, of which the SHA-256 is kept."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from storage.database import Connection, Database, dicts
from storage.grants import GrantLevel
from storage.login_attempts import network_of
from storage.resource import write_audit
from trading.ids import AccountId, Nanos, UserId

_SECOND: Final = 1_000_000_000
#: Without a request of a person it ends after so long, and in any case after so long.
IDLE: Final = 30 * 60 * _SECOND
ABSOLUTE: Final = 12 * 3600 * _SECOND
#: How long a second factor counts as shown just now.
FRESH: Final = 300 * _SECOND
#: Ended ones are kept so long, to tell whose a token was that comes after its end.
KEPT: Final = 7 * 86_400 * _SECOND
#: Sign-ins from which is learnt what is usual.
LEARNT: Final = 90 * 86_400 * _SECOND
_DAY: Final = 86_400 * _SECOND
_HOUR: Final = 3600 * _SECOND
#: With fewer sign-ins nothing is unusual yet; an hour is where none was within so many hours of it.
_ENOUGH: Final = 10
_NEAR_H: Final = 2
_LONGEST_AGENT: Final = 300


class PanelSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session with what its user is now.

    ``one_time``: the password must be changed; ``totp``: a second factor is enrolled.  ``recovered``: it was passed by
    a recovery code.  ``ended_at`` 0: not ended by anybody, but see `is_over`.
    """

    id: str
    user: UserId
    code_passed: bool
    recovered: bool
    fresh_until: Nanos
    created_at: Nanos
    seen_at: Nanos
    ends_at: Nanos
    address: str
    agent: str
    ended_at: Nanos
    ended_because: str
    roles: tuple[str, ...]
    enabled: bool
    one_time: bool
    totp: bool
    grants: dict[AccountId, GrantLevel]

    @property
    def idle_ends_at(self) -> Nanos:
        """When it ends if nobody does anything."""
        return Nanos(min(self.seen_at + IDLE, self.ends_at))

    def is_over(self, now: int) -> str:
        """Why it is over, "" while it is not."""
        if self.ended_at:
            return f"this session was ended: {self.ended_because}"
        if not self.enabled:
            return "this user is disabled"
        if self.ends_at <= now:
            return "this session has reached its longest time: sign in again"
        if self.seen_at + IDLE <= now:
            return "this session was idle for too long: sign in again"
        return ""


_SEEN: Final = """
SELECT s.id, s."user", s.code_passed, s.recovered, s.fresh_until, s.created_at, s.seen_at, s.ends_at,
    s.address, s.agent, s.ended_at, s.ended_because, u.roles, u.enabled, coalesce(p.one_time, false) AS one_time,
    f."user" IS NOT NULL AS totp,
    (SELECT coalesce(jsonb_object_agg(g.account, g.level), '{}') FROM grants g WHERE g."user" = s."user") AS grants
FROM panel_sessions s JOIN users u ON u.id = s."user" LEFT JOIN passwords p ON p."user" = s."user"
    LEFT JOIN second_factors f ON f."user" = s."user"
"""


class PanelSessions:
    """The table of sessions."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, user: UserId, address: str, agent: str) -> tuple[PanelSession, str]:
        """A new session and its token, which is not kept."""
        now, id, token = time.time_ns(), secrets.token_hex(8), _token()
        async with self._db.connection() as connection:
            await connection.execute(
                'INSERT INTO panel_sessions (id, "user", sha256, created_at, seen_at, ends_at, address, agent) '
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                (id, user, digest(token), now, now, now + ABSOLUTE, address, agent[:_LONGEST_AGENT].replace("\0", "")),
            )
            rows = await dicts(connection, _SEEN + "WHERE s.id = %(id)s", {"id": id})
        return msgspec.convert(rows[0], PanelSession), token

    async def find(self, token: str) -> PanelSession | None:
        """The session of a token, over or not; None where it was never one, or is long gone."""
        return await self._one("WHERE s.sha256 = %(key)s", digest(token))

    async def get(self, id: str) -> PanelSession | None:
        """A session by its name."""
        return await self._one("WHERE s.id = %(key)s", id)

    async def _one(self, where: str, key: str | bytes) -> PanelSession | None:
        async with self._db.connection() as connection:
            rows = await dicts(connection, _SEEN + where, {"key": key})
        return msgspec.convert(rows[0], PanelSession) if rows else None

    async def live(self, user: UserId) -> list[PanelSession]:
        """A user's sessions that are not over, newest first."""
        now = time.time_ns()
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                _SEEN + 'WHERE s."user" = %(user)s AND s.ended_at = 0 AND s.ends_at > %(now)s '
                "ORDER BY s.created_at DESC, s.id",
                {"user": user, "now": now},
            )
        return [each for each in msgspec.convert(rows, list[PanelSession]) if not each.is_over(now)]

    async def rise(
        self, id: str, *, code_passed: bool = False, fresh: bool = False, recovered: bool | None = None
    ) -> str:
        """A new token in place of the session's: what was known before it could do more is worth nothing now.

        ``recovered`` None: it stays as it is.
        """
        token = _token()
        async with self._db.connection() as connection:
            await connection.execute(
                "UPDATE panel_sessions SET sha256 = %s, code_passed = code_passed OR %s, "
                "fresh_until = CASE WHEN %s THEN %s ELSE fresh_until END, recovered = coalesce(%s, recovered) "
                "WHERE id = %s AND ended_at = 0",
                (digest(token), code_passed, fresh, time.time_ns() + FRESH, recovered, id),
            )
        return token

    async def refresh(self, id: str) -> Nanos:
        """Note that a second factor was shown just now; until when that counts."""
        until = Nanos(time.time_ns() + FRESH)
        async with self._db.connection() as connection, connection.transaction():
            await connection.execute("UPDATE panel_sessions SET fresh_until = %s WHERE id = %s", (until, id))
        return until

    async def seen(self, id: str, at: int) -> None:
        """Note that its user did something."""
        async with self._db.connection() as connection:
            await connection.execute(
                "UPDATE panel_sessions SET seen_at = greatest(seen_at, %s) WHERE id = %s", (at, id)
            )

    async def end(self, ids: Sequence[str], because: str, by: str, action: str = "end_session") -> list[str]:
        """End sessions; those that were not ended before."""
        async with self._db.connection() as connection, connection.transaction():
            rows = await dicts(
                connection,
                "UPDATE panel_sessions SET ended_at = %(now)s, ended_because = %(because)s "
                'WHERE id = ANY(%(ids)s) AND ended_at = 0 RETURNING id, "user"',
                {"ids": list(ids), "now": time.time_ns(), "because": because},
            )
            for row in rows:
                await write_audit(connection, by, action, row["id"], None, {"user": row["user"], "because": because})
        return [str(row["id"]) for row in rows]

    async def note_sign_in(self, session: PanelSession) -> dict[str, str]:
        """Remember a completed sign-in; what was unusual about it, in words: of its ``network`` and its ``hour``."""
        now = time.time_ns()
        network = network_of(session.address)
        found = {}
        others = sorted({each.address for each in await self.live(session.user) if each.id != session.id})
        if elsewhere := [each for each in others if network_of(each) != network]:
            found["network"] = f"signed in from {session.address} while signed in from {', '.join(elsewhere[:5])} too"
        async with self._db.connection() as connection, connection.transaction():
            rows = await dicts(
                connection,
                'SELECT at FROM sign_ins WHERE "user" = %(user)s AND at > %(since)s ORDER BY at DESC LIMIT 500',
                {"user": session.user, "since": now - LEARNT},
            )
            await connection.execute(
                'INSERT INTO sign_ins ("user", at, network) VALUES (%s, %s, %s)', (session.user, now, network)
            )
        if is_unusual_hour(now, [int(row["at"]) for row in rows]):
            hour = now % _DAY // _HOUR
            found["hour"] = f"signed in at an hour ({hour:02d} UTC) at which this user is not usually here"
        return found

    async def sweep(self) -> None:
        """Delete what ended long ago."""
        now = time.time_ns()
        async with self._db.connection() as connection:
            await connection.execute(
                "DELETE FROM panel_sessions WHERE least(ends_at, CASE WHEN ended_at > 0 THEN ended_at ELSE ends_at END)"
                " < %s",
                (now - KEPT,),
            )
            await connection.execute("DELETE FROM sign_ins WHERE at < %s", (now - LEARNT,))


def is_unusual_hour(at: int, before: Sequence[int]) -> bool:
    """Whether ``at`` is at an hour of the day near which none of the times ``before`` is, of which there are enough."""
    if len(before) < _ENOUGH:
        return False
    apart = (abs(at % _DAY - each % _DAY) for each in before)
    return all(min(each, _DAY - each) > _NEAR_H * _HOUR for each in apart)


async def end_all_within(connection: Connection, user: UserId, because: str, by: str, but: str = "") -> list[str]:
    """End all sessions of a user but one, in a transaction that does more; the ones that were ended."""
    rows = await dicts(
        connection,
        "UPDATE panel_sessions SET ended_at = %(now)s, ended_because = %(because)s "
        'WHERE "user" = %(user)s AND ended_at = 0 AND id <> %(but)s RETURNING id',
        {"user": user, "now": time.time_ns(), "because": because, "but": but},
    )
    for row in rows:
        await write_audit(connection, by, "end_session", row["id"], None, {"user": user, "because": because})
    return [str(row["id"]) for row in rows]


def digest(token: str) -> bytes:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).digest()


def _token() -> str:
    return f"qs_{secrets.token_urlsafe(32)}"

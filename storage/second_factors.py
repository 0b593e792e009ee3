"""Second factors: codes that an app makes anew every 30 seconds (TOTP, RFC 6238), and codes for when it is lost.

The shared secret is in the store of secrets, encrypted.  A code is taken once: the 30 seconds of the last one are kept,
and none of them or before counts any more.  Recovery codes have 80 random bits, so that a fast hash keeps them.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

import pyotp

from storage.database import Connection, Database, dicts
from storage.resource import write_audit
from storage.secrets import Secrets
from trading.errors import UnknownThing
from trading.ids import UserId

ISSUER: Final = "Quarterdeck"
STEP_S: Final = 30
RECOVERY_CODES: Final = 10
#: Clocks of phones go wrong by some seconds: the code before and the one after count too.
_AROUND: Final = (0, -1, 1)


class Verdict(StrEnum):
    """What a code was."""

    RIGHT = "right"
    WRONG = "wrong"
    #: It was right, and was taken before.
    REPLAYED = "replayed"


def secret_of(user: str) -> str:
    """What a user's secret is called in the store."""
    return f"totp/{user}"


def _begun(user: str) -> str:
    return f"totp-begun/{user}"


class SecondFactors:
    """Enrolment and verification."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, store: Secrets, user: UserId) -> tuple[str, str]:
        """A new secret that counts once it is confirmed: (secret, ``otpauth:`` address).  An older one still counts."""
        secret = pyotp.random_base32()
        await store.put(_begun(user), {"secret": secret})
        return secret, address_of(secret, user)

    async def confirm(self, store: Secrets, user: UserId, code: str) -> list[str] | None:
        """Take the secret that was begun into use where ``code`` is of it: the recovery codes, shown this once.

        None for a wrong code.  Raises `UnknownThing` where none was begun.
        """
        secret = (await store.get(_begun(user)))["secret"]
        step = _step_of(secret, code)
        if step is None:
            return None
        await self._enrol(store, user, secret, step)
        await store.delete(_begun(user))
        return await self.new_recovery_codes(user)

    async def put(self, store: Secrets, user: UserId, secret: str) -> None:
        """Enrol without a code, with a secret that was agreed on elsewhere (the demo's)."""
        await self._enrol(store, user, secret, 0)

    async def _enrol(self, store: Secrets, user: UserId, secret: str, step: int) -> None:
        await store.put(secret_of(user), {"secret": secret})
        async with self._db.connection() as connection, connection.transaction():
            await connection.execute(
                'INSERT INTO second_factors ("user", enrolled_at, last_step) VALUES (%s, %s, %s) '
                'ON CONFLICT ("user") DO UPDATE SET enrolled_at = excluded.enrolled_at, last_step = excluded.last_step',
                (user, time.time_ns(), step),
            )
            await write_audit(connection, user, "enrol_totp", user, None, None)

    async def verify(self, store: Secrets, user: UserId, code: str) -> Verdict:
        """What ``code`` is; a right one is taken, and is never again."""
        try:
            secret = (await store.get(secret_of(user)))["secret"]
        except UnknownThing:
            return Verdict.WRONG
        step = _step_of(secret, code)
        if step is None:
            return Verdict.WRONG
        async with self._db.connection() as connection:
            taken = await connection.execute(
                'UPDATE second_factors SET last_step = %s WHERE "user" = %s AND last_step < %s', (step, user, step)
            )
        return Verdict.RIGHT if taken.rowcount == 1 else Verdict.REPLAYED

    async def enrolled(self, users: Sequence[UserId]) -> set[UserId]:
        """Which of these have a second factor."""
        async with self._db.connection() as connection:
            rows = await dicts(
                connection, 'SELECT "user" FROM second_factors WHERE "user" = ANY(%(users)s)', {"users": list(users)}
            )
        return {UserId(row["user"]) for row in rows}

    async def use_recovery_code(self, user: UserId, code: str) -> int | None:
        """Take a recovery code: how many are left; None where it is none of the user's, or was used before."""
        async with self._db.connection() as connection, connection.transaction():
            taken = await connection.execute(
                'UPDATE recovery_codes SET used_at = %s WHERE "user" = %s AND sha256 = %s AND used_at = 0',
                (time.time_ns(), user, _digest(code)),
            )
            if taken.rowcount != 1:
                return None
            (row,) = await dicts(
                connection,
                'SELECT count(*) AS left FROM recovery_codes WHERE "user" = %(user)s AND used_at = 0',
                {"user": user},
            )
            await write_audit(connection, user, "use_recovery_code", user, None, {"left": row["left"]})
        return int(row["left"])

    async def new_recovery_codes(self, user: UserId) -> list[str]:
        """New ones in place of all there were; shown this once."""
        codes = [_recovery_code() for _ in range(RECOVERY_CODES)]
        async with self._db.connection() as connection, connection.transaction():
            await connection.execute('DELETE FROM recovery_codes WHERE "user" = %s', (user,))
            for code in codes:
                await connection.execute(
                    'INSERT INTO recovery_codes ("user", sha256) VALUES (%s, %s)', (user, _digest(code))
                )
            await write_audit(connection, user, "make_recovery_codes", user, None, {"codes": len(codes)})
        return codes


async def forget_within(connection: Connection, user: UserId) -> None:
    """Take a user's second factor away, in a transaction that does more."""
    await connection.execute('DELETE FROM second_factors WHERE "user" = %s', (user,))
    await connection.execute('DELETE FROM recovery_codes WHERE "user" = %s', (user,))
    await connection.execute("DELETE FROM secrets WHERE name = ANY(%s)", ([secret_of(user), _begun(user)],))


def address_of(secret: str, user: str) -> str:
    """What an app reads from the QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=user, issuer_name=ISSUER)


def code_now(secret: str) -> str:
    """The code of this moment."""
    return pyotp.TOTP(secret).now()


def _step_of(secret: str, code: str) -> int | None:
    """The 30 seconds that ``code`` is of, None for a wrong one."""
    given = "".join(code.split())
    if not (given.isascii() and given.isdigit()):
        return None
    now = int(time.time()) // STEP_S
    totp = pyotp.TOTP(secret)
    near = (now + each for each in _AROUND)
    right = [step for step in near if secrets.compare_digest(totp.generate_otp(step), given)]
    return max(right, default=None)


def _recovery_code() -> str:
    text = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    return "-".join(text[at : at + 4] for at in range(0, 16, 4))


def _digest(code: str) -> bytes:
    plain = "".join(each for each in code.casefold() if each.isalnum())
    return hashlib.sha256(plain.encode()).digest()

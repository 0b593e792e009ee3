"""Requests that act once: which key asked for what, whether it is done, and the answer, sealed.

All times are the database's, so that processes whose clocks differ agree on what is old.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.database import Connection, Database, dicts
from trading.errors import NeedsOperator

#: A key is remembered for so many seconds after its request began.
KEPT_S: Final = 24 * 3600
#: A request whose process has not said for so long that it lives was cut off.
SILENT_S: Final = 20.0
_NONCE_BYTES: Final = 12
_ATTEMPTS: Final = 5
_SWEPT: Final = 5_000
_NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1e9)::bigint"


class Found(StrEnum):
    """What a key was found to be."""

    #: Ours to carry out, under a new claim.
    NEW = "new"
    #: It was asked for something else.
    OTHER = "other"
    #: Somebody carries it out now.
    RUNNING = "running"
    #: It is done; the answer is there.
    DONE = "done"
    #: It was done with this status, but its answer cannot be read any more.
    ANSWER_LOST = "answer_lost"
    #: Whoever carried it out is gone: nobody knows.
    CUT_OFF = "cut_off"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody may do, beyond what is their own: rights, and others' accounts by level (``view`` or ``trade``).

    ``operator``: reaches what belongs to others.
    """

    rights: frozenset[str]
    grants: dict[str, str]
    operator: bool = False

    def includes(self, other: Standing) -> bool:
        """Whether nothing of ``other`` is missing."""
        return (
            other.rights <= self.rights
            and other.operator <= self.operator
            and all(self.operator or self.grants.get(of) in (level, "trade") for of, level in other.grants.items())
        )


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered, and what whoever was answered might do then; None: that was not noted."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    standing: Standing | None = None


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a wish to carry out a request."""

    found: Found
    #: Names this try; "" unless it is new.
    claim: str = ""
    status: int = 0
    answer: Answer | None = None


class Idempotency:
    """The table of keys.  ``cipher_key`` gives the deck's secret key, or raises `NeedsOperator`."""

    def __init__(self, db: Database, cipher_key: Callable[[], bytes]) -> None:
        self._db = db
        self._cipher_key = cipher_key
        self._cipher: AESGCM | None = None

    async def claim(self, id: bytes, user: str, request: bytes, *, again: bool = False) -> Claimed:
        """Take a key for a request, or learn what became of the one that took it.  `NotReady`.

        ``again``: one that was cut off is taken anew; only for what does no harm when it is done twice.
        """
        async with self._db.connection() as connection:
            for _ in range(_ATTEMPTS):
                claim = secrets.token_hex(8)
                if await _take(connection, id, user, request, claim, again=again):
                    return Claimed(found=Found.NEW, claim=claim)
                rows = await dicts(
                    connection,
                    f"SELECT request, status, answer, beat_at < {_NOW} - %(silent)s AS is_silent "
                    "FROM idempotency WHERE id = %(id)s",
                    {"id": id, "silent": int(SILENT_S * 1e9)},
                )
                if rows:  # else it was given back between the two
                    return self._told(id, request, rows[0])
        return Claimed(found=Found.RUNNING)

    def _told(self, id: bytes, request: bytes, row: dict[str, object]) -> Claimed:
        if row["request"] != request:
            return Claimed(found=Found.OTHER)
        status = row["status"]
        if not isinstance(status, int):
            return Claimed(found=Found.CUT_OFF if row["is_silent"] else Found.RUNNING)
        answer = self._opened(id, row["answer"])
        return Claimed(found=Found.ANSWER_LOST if answer is None else Found.DONE, status=status, answer=answer)

    async def finish(self, id: bytes, claim: str, status: int, answer: Answer | None) -> bool:
        """Keep the answer (None: only that there was one); False where the claim is no longer ours.  `NotReady`."""
        sealed = None if answer is None else self._sealed(id, answer)
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                "UPDATE idempotency SET status = %s, answer = %s WHERE id = %s AND claim = %s AND status IS NULL",
                (status, sealed, id, claim),
            )
        return cursor.rowcount == 1

    async def give_back(self, id: bytes, claim: str) -> None:
        """Nothing was done: the key may be used again.  `NotReady`."""
        async with self._db.connection() as connection:
            await connection.execute(
                "DELETE FROM idempotency WHERE id = %s AND claim = %s AND status IS NULL", (id, claim)
            )

    async def beat(self, claims: Sequence[str], ids: Sequence[bytes]) -> None:
        """Say that these are still under way.  `NotReady`."""
        if not claims:
            return
        async with self._db.connection() as connection:
            await connection.execute(
                f"UPDATE idempotency SET beat_at = {_NOW} "
                "FROM unnest(%s::bytea[], %s::text[]) AS mine(id, claim) "
                "WHERE idempotency.id = mine.id AND idempotency.claim = mine.claim AND status IS NULL",
                (list(ids), list(claims)),
            )

    async def sweep(self) -> int:
        """Forget what is older than a day, some thousand keys at once; returns how many."""
        async with self._db.connection() as connection:
            cursor = await connection.execute(
                "DELETE FROM idempotency WHERE id = ANY(ARRAY("
                f"SELECT id FROM idempotency WHERE began_at < {_NOW} - %s ORDER BY began_at LIMIT {_SWEPT}))",
                (KEPT_S * 10**9,),
            )
            return cursor.rowcount

    def _aes(self) -> AESGCM:
        if self._cipher is None:
            self._cipher = AESGCM(self._cipher_key())
        return self._cipher

    def _sealed(self, id: bytes, answer: Answer) -> bytes | None:
        try:
            cipher = self._aes()
        except NeedsOperator:
            # An answer may hold a secret: without the deck's key only the status is kept.
            return None
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, msgspec.msgpack.encode(answer), b"idempotency/" + id)

    def _opened(self, id: bytes, sealed: object) -> Answer | None:
        if not isinstance(sealed, bytes):
            return None
        try:
            plain = self._aes().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], b"idempotency/" + id)
        except (InvalidTag, NeedsOperator):
            return None
        return msgspec.msgpack.decode(plain, type=Answer)


async def _take(connection: Connection, id: bytes, user: str, request: bytes, claim: str, *, again: bool) -> bool:
    cursor = await connection.execute(
        f"""
        INSERT INTO idempotency (id, "user", request, claim, began_at, beat_at)
        VALUES (%(id)s, %(user)s, %(request)s, %(claim)s, {_NOW}, {_NOW})
        ON CONFLICT (id) DO UPDATE SET "user" = excluded."user", request = excluded.request, claim = excluded.claim,
            began_at = excluded.began_at, beat_at = excluded.beat_at, status = NULL, answer = NULL
        WHERE idempotency.began_at < {_NOW} - %(kept)s
            OR (%(again)s AND idempotency.request = excluded.request AND idempotency.status IS NULL
                AND idempotency.beat_at < {_NOW} - %(silent)s)
        RETURNING 1
        """,
        {
            "id": id,
            "user": user,
            "request": request,
            "claim": claim,
            "kept": KEPT_S * 10**9,
            "silent": int(SILENT_S * 1e9),
            "again": again,
        },
    )
    return await cursor.fetchone() is not None

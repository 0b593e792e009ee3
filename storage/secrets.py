"""Broker credentials, encrypted at rest.

AES-256-GCM with a random 96-bit nonce for each write; the secret's name is bound as associated data, so a row
copied under another name does not open.  The key never enters the database.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage import redaction
from storage.database import Connection, Database
from trading.credentials import flaw_in, hidden
from trading.errors import NeedsOperator, UnknownThing

VARIABLE = "QUARTERDECK_SECRET_KEY"
_KEY_BYTES = 32
_NONCE_BYTES = 12


def load_key(data_dir: Path) -> bytes:
    """The key from the environment, else from ``data_dir/secret.key``, made there on the first use.

    Raises `NeedsOperator` for a key of the wrong form, or a file that others than its owner may read.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return _parse(given, f"the variable {VARIABLE}")
    path = Path(data_dir) / "secret.key"
    try:
        if not path.exists():
            _make_key(path)
        status = path.stat()
        if status.st_mode & 0o077 or status.st_uid != os.geteuid():
            raise NeedsOperator(
                f"{path} may be read by others (mode {status.st_mode & 0o777:o}, owner {status.st_uid})",
                f"chown it to user {os.geteuid()} and chmod 600 it; replace what others may have read",
            )
        return _parse(path.read_text(), str(path))
    except OSError as error:
        raise NeedsOperator(
            f"the secret key {path} cannot be read or made ({error.strerror or error})",
            f"make {data_dir} writable, or set {VARIABLE}",
        ) from error


def key_text(data_dir: Path) -> str:
    """The key as it is written, to be given to a machine that is trusted with it (`save_key`)."""
    return base64.urlsafe_b64encode(load_key(data_dir)).decode()


def save_key(data_dir: Path, text: str) -> None:
    """Take up a key that was given.  Raises `NeedsOperator` where there is another one."""
    path = Path(data_dir) / "secret.key"
    if not path.exists():
        _make_key(path, text.encode())
    if load_key(data_dir) != _parse(text, "the key that was given"):
        raise NeedsOperator(f"{path} is another key than the cluster's", "move it away and join again")


def _make_key(path: Path, text: bytes = b"") -> None:
    text = text or base64.urlsafe_b64encode(os.urandom(_KEY_BYTES))
    whole = path.with_name(f".secret.key-{os.getpid()}")
    descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # A link appears whole or not at all; whoever comes second uses the first one's key.
        with contextlib.suppress(FileExistsError):
            os.link(whole, path)
    finally:
        whole.unlink()


def _parse(text: str, where: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise NeedsOperator(
            f"{where} is not a key of {_KEY_BYTES} bytes in URL-safe base64",
            "make one with: openssl rand -base64 32 | tr '+/' '-_'",
        )
    return key


def secret_name(account: str) -> str:
    """What the credentials of an account are called in the store."""
    return f"account/{account}"


class Sealed(msgspec.Struct, frozen=True):
    """A secret as it is stored, and what its values are called."""

    name: str
    sealed: bytes
    fields: tuple[str, ...]


async def keep_secret(connection: Connection, secret: Sealed) -> None:
    """Write or replace, in a transaction of the caller's."""
    await connection.execute(
        "INSERT INTO secrets (name, sealed, updated_at) VALUES (%s, %s, %s) "
        "ON CONFLICT (name) DO UPDATE SET sealed = excluded.sealed, updated_at = excluded.updated_at",
        (secret.name, secret.sealed, time.time_ns()),
    )


async def drop_secret(connection: Connection, name: str) -> None:
    """Remove; nothing happens where there is none.  That takes no key."""
    await connection.execute("DELETE FROM secrets WHERE name = %s", (name,))


class Secrets:
    """Named mappings of secret strings, such as the log-in of an account."""

    def __init__(self, db: Database, key: bytes) -> None:
        self._db = db
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return f"Secrets({self._db.address})"

    def seal(self, name: str, values: Mapping[str, str]) -> Sealed:
        """A secret ready to be written; nothing is yet."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, msgspec.json.encode(dict(values)), name.encode())
        return Sealed(name=name, sealed=sealed, fields=tuple(sorted(values)))

    async def put(self, name: str, values: Mapping[str, str]) -> None:
        """Write or replace."""
        async with self._db.connection() as connection:
            await keep_secret(connection, self.seal(name, values))

    async def get(self, name: str) -> dict[str, str]:
        """Read.  Raises `UnknownThing`, or `NeedsOperator` when our key does not open it."""
        async with self._db.connection() as connection:
            cursor = await connection.execute("SELECT sealed FROM secrets WHERE name = %s", (name,))
            row = await cursor.fetchone()
        if row is None:
            raise UnknownThing("secret", name)
        sealed = bytes(row[0])
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except InvalidTag as error:
            raise NeedsOperator(
                f"the secret {name!r} was written with another key, or changed",
                f"give this machine the key it was written with ({VARIABLE} or secret.key), or enter it anew",
            ) from error
        return msgspec.json.decode(plain, type=dict[str, str])

    async def has(self, name: str) -> bool:
        """Whether there is one of this name, whatever it is."""
        async with self._db.connection() as connection:
            cursor = await connection.execute("SELECT 1 FROM secrets WHERE name = %s", (name,))
            return await cursor.fetchone() is not None

    async def log_in(self, account: str) -> dict[str, str]:
        """What an account logs in with; this process says nothing of it from then on.

        Raises `NeedsOperator` where it has been given nothing, or what no header carries, or our key does not open it.
        """
        action = f"give them: PUT /v1/accounts/{account}/credentials"
        try:
            found = await self.get(secret_name(account))
        except UnknownThing as error:
            raise NeedsOperator(f"account {account} has no credentials", action) from error
        redaction.note(hidden(found))
        for field, value in found.items():
            flaw = flaw_in(value)
            if flaw is not None:
                raise NeedsOperator(f"account {account} cannot log in with its {field}: {flaw}", action)
        return found

    async def delete(self, name: str) -> None:
        """Remove; nothing happens where there is none."""
        async with self._db.connection() as connection:
            await drop_secret(connection, name)

"""One connection to Redis, as thin as it can be: RESP2 bytes out, hiredis replies in.

Protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/ (RESP2).  A client library's own
coroutines cost several times the work itself at some thousand messages a second; here a reply is a call.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

from storage.database import address_of
from trading.errors import NeedsOperator, NotReady

CONNECT_S: Final = 3.0


def command(*words: bytes) -> bytes:
    """A command as RESP: an array of bulk strings."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
    return b"".join(parts)


class Wire(asyncio.Protocol):
    """A connection; subclasses say what to do with replies.  ``lost`` ends when it is gone."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.heard_at = time.monotonic()

    def on_reply(self, reply: Any) -> None:
        """Take one reply."""
        raise NotImplementedError

    def on_read(self) -> None:
        """All replies of one read have been taken."""

    def on_lost(self) -> None:
        """The connection is gone; nothing more will come."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport in all but class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        self.heard_at = time.monotonic()
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                self.on_reply(reply)
        except hiredis.ProtocolError:
            # Not Redis, or bytes went missing: nothing after this can be trusted.
            self.abort()
        self.on_read()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        # Whoever waits to write must wake to see that it is over.
        self._writable.set()
        if not self.lost.done():
            self.lost.set_result(None)
        self.on_lost()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    @property
    def open(self) -> bool:
        """Whether bytes can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def full(self) -> bool:
        """Whether what was sent still waits here; see `drained`."""
        return not self._writable.is_set()

    async def drained(self) -> None:
        """Wait until there is room to send again (or the connection is gone)."""
        await self._writable.wait()

    def send(self, data: bytes) -> None:
        """Send; what is sent after the connection is gone is dropped."""
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Close at once, dropping what was not sent."""
        if self._transport is not None:
            self._transport.abort()


W = TypeVar("W", bound=Wire)


class _Login(asyncio.Protocol):
    """Takes the reply to AUTH, then hands the transport over."""

    def __init__(self) -> None:
        self.reader = hiredis.Reader()
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        reply = self.reader.gets()
        if reply is not False and not self.answer.done():
            self.answer.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError("closed during log-in"))


async def connect(url: str, make: Callable[[], W]) -> W:
    """Connect and log in.  Raises `NotReady` when Redis is away, `NeedsOperator` when it will not have us."""
    target = parse_url(url)
    address = address_of(url)
    loop = asyncio.get_running_loop()
    transport: asyncio.Transport | None = None
    try:
        secure = _secure(target)
        async with asyncio.timeout(CONNECT_S):
            if "path" in target:
                transport, login = await loop.create_unix_connection(_Login, target["path"])
            else:
                transport, login = await loop.create_connection(
                    _Login, target.get("host", "localhost"), int(target.get("port", 6379)), ssl=secure
                )
            password = target.get("password")
            if password is None:
                transport.write(command(b"PING"))
            else:
                user = target.get("username")
                words = [password] if user is None else [user, password]
                transport.write(command(b"AUTH", *(word.encode() for word in words)))
            answer = await login.answer
    except (OSError, TimeoutError, hiredis.ProtocolError) as error:
        if transport is not None:
            transport.abort()
        raise NotReady(f"Redis at {address} is not available: {error or 'no answer'}") from error
    except BaseException:
        if transport is not None:
            transport.abort()
        raise
    if isinstance(answer, hiredis.ReplyError):
        transport.abort()
        raise refused(address, str(answer))
    if transport.is_closing():
        raise NotReady(f"Redis at {address} hung up after the log-in")
    wire = make()
    transport.set_protocol(wire)
    wire.connection_made(transport)
    return wire


def _secure(target: Mapping[str, Any]) -> ssl.SSLContext | None:
    """What ``rediss://`` asks for: the server is checked, by the authority of ``ssl_ca_certs`` where that is given."""
    if target.get("connection_class") is not SSLConnection:
        return None
    context = ssl.create_default_context(cafile=target.get("ssl_ca_certs"))
    if target.get("ssl_certfile"):
        context.load_cert_chain(target["ssl_certfile"], target.get("ssl_keyfile"))
    return context


def refused(address: str, text: str) -> NeedsOperator | NotReady:
    """Our error for what Redis said when it did not let us in."""
    if text.startswith(("WRONGPASS", "NOAUTH", "NOPERM", "ERR AUTH", "ERR invalid password")):
        return NeedsOperator(f"Redis at {address} refuses us: {text}", "correct user and password in REDIS_URL")
    return NotReady(f"Redis at {address} is not available: {text}")

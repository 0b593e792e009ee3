"""A WebSocket client that decodes a whole read at once.

`websockets` gives the protocol (handshake, ping and pong, close, errors) without I/O; this is the asyncio
shell around it.  The one addition is speed: a market data server sends whole messages, so those are cut out of
the read right here and handed over as one list per read.  Every other frame goes through the protocol object.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Final, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidURI, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from trading.errors import BadInput, NotReady, Unreachable

#: FIN set, no extension bits, opcode TEXT or BINARY: the first byte of a whole message.
_WHOLE: Final = (0x81, 0x82)
_MAX_HEAD: Final = 64 * 1024

Receive = Callable[[list[bytes]], None]
Lost = Callable[[str], None]


class HandshakeRefused(Unreachable):
    """The server answered the handshake with an HTTP error; ``status`` says which."""

    def __init__(self, target: str, status: int, detail: str) -> None:
        super().__init__(target, detail)
        self.args = (target, status, detail)
        self.status = status


class WebSocket(asyncio.Protocol):
    """One open connection.  Made by `connect`; ends for good when ``lost`` is called, which happens once."""

    def __init__(
        self,
        protocol: ClientProtocol,
        receive: Receive,
        lost: Lost,
        max_message: int,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._protocol = protocol
        self._headers = dict(headers or {})
        self._receive = receive
        self._lost = lost
        self._max_message = max_message
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._tail = b""
        self._parts: list[bytes] | None = None
        self._failure = ""
        self._ended = asyncio.Event()
        #: Loop time of the last bytes from the server.
        self.heard_at = self._loop.time()

    def __repr__(self) -> str:
        return f"<WebSocket {self._protocol.uri.host}{self._protocol.uri.path} {self._protocol.state.name}>"

    # What the owner calls

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._protocol.state is State.OPEN and not self._ended.is_set()

    def send(self, text: bytes) -> None:
        """Send one text message; ConnectionError once the connection is gone."""
        if not self.is_open:
            raise ConnectionResetError("the WebSocket is closed")
        self._protocol.send_text(text)
        self._flush()

    def ping(self) -> None:
        """Send an empty ping; the pong moves `heard_at`."""
        if self.is_open:
            self._protocol.send_ping(b"")
            self._flush()

    async def opened(self) -> None:
        """Wait for the end of the handshake; raises what refused it."""
        await self._opened

    async def close(self, within: float = 2.0) -> None:
        """Say goodbye and wait up to ``within`` seconds for the other side's; then cut the line."""
        if self.is_open:
            self._protocol.send_close(1000)
            self._flush()
            try:
                async with asyncio.timeout(within):
                    await self._ended.wait()
            except TimeoutError:
                pass
        self.abort("closed by us")

    def abort(self, reason: str) -> None:
        """Cut the line now; ``lost`` is called with ``reason`` soon after."""
        self._failure = self._failure or reason
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        request = self._protocol.connect()
        request.headers.update(self._headers)
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if not self._opened.done():
            data = self._shake_hands(data)
        if data:
            self._cut(data)

    def eof_received(self) -> bool:
        self._failure = self._failure or "the server ended the connection"
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._ended.set()
        code = self._protocol.close_code
        if code is not None and code != 1006 and not self._failure.startswith("closed by us"):
            said = self._protocol.close_reason
            reason = f"closed with code {code}" + (f": {said}" if said else "")
        else:
            reason = self._failure or (str(error) if error else "the connection was lost")
        if not self._opened.done():
            self._opened.set_exception(Unreachable(self._protocol.uri.host, reason))
            return
        if self._opened.cancelled() or self._opened.exception() is not None:
            return
        self._lost(reason)

    # Inside

    def _shake_hands(self, data: bytes) -> bytes:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            if len(data) > _MAX_HEAD:
                self._refuse(Unreachable(self._protocol.uri.host, "an endless answer to the handshake"))
            self._tail = data
            return b""
        if not head.startswith(b"HTTP/1.1 101"):
            self._refuse(_refusal(self._protocol.uri.host, head, rest))
            return b""
        self._protocol.receive_data(head + end)
        self._protocol.events_received()
        error = self._protocol.handshake_exc
        if error is not None:
            self._refuse(Unreachable(self._protocol.uri.host, f"bad handshake: {error}"))
            return b""
        self._opened.set_result(None)
        return rest

    def _refuse(self, error: Exception) -> None:
        if not self._opened.done():
            self._opened.set_exception(error)
        self.abort(str(error))

    def _cut(self, data: bytes) -> None:
        """Cut ``data`` into frames; whole messages are collected, everything else is the protocol's."""
        payloads: list[bytes] = []
        position = 0
        end = len(data)
        while end - position >= 2:
            length = data[position + 1] & 0x7F
            start = position + 2
            if length == 126:
                start += 2
                if start > end:
                    break
                length = (data[position + 2] << 8) | data[position + 3]
            elif length == 127:
                start += 8
                if start > end:
                    break
                length = int.from_bytes(data[position + 2 : start], "big")
            if data[position + 1] & 0x80:
                start += 4
            if length > self._max_message:
                self.abort(f"a message of {length} bytes is above the limit of {self._max_message}")
                break
            stop = start + length
            if stop > end:
                break
            if data[position] in _WHOLE and self._parts is None and not data[position + 1] & 0x80:
                payloads.append(data[start:stop])
            elif not self._other(data[position:stop], payloads):
                break
            position = stop
        self._tail = data[position:]
        if payloads:
            self._receive(payloads)

    def _other(self, frame: bytes, payloads: list[bytes]) -> bool:
        """Give one frame to the protocol; False when the connection is over."""
        self._protocol.receive_data(frame)
        for event in self._protocol.events_received():
            if not isinstance(event, Frame) or event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                continue
            if event.opcode is not Opcode.CONT:
                self._parts = []
            if self._parts is not None:
                self._parts.append(bytes(event.data))
                if sum(map(len, self._parts)) > self._max_message:
                    self.abort(f"a fragmented message is above the limit of {self._max_message} bytes")
                    return False
                if event.fin:
                    payloads.append(b"".join(self._parts))
                    self._parts = None
        self._flush()
        if self._protocol.state is not State.OPEN:
            error = self._protocol.parser_exc
            if isinstance(error, ProtocolError):
                self._failure = self._failure or f"protocol error: {error}"
            if self._transport is not None:
                self._transport.close()
            return False
        return True

    def _flush(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        for chunk in self._protocol.data_to_send():
            if chunk:
                transport.write(chunk)


def _refusal(host: str, head: bytes, body: bytes) -> Exception:
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"retry-after" and value.strip().isdigit():
            return NotReady(f"{host} refuses connections ({status})", float(value))
    detail = f"the handshake was refused: {status} {body[:200].decode('utf-8', 'replace')}".strip()
    words = status.split(" ")
    if len(words) > 1 and words[1].isdigit():
        return HandshakeRefused(host, int(words[1]), detail)
    return Unreachable(host, detail)


async def connect(
    url: str,
    receive: Receive,
    lost: Lost,
    *,
    within: float = 10.0,
    max_message: int = 16 * 1024 * 1024,
    headers: Mapping[str, str] | None = None,
) -> WebSocket:
    """Open ``url`` (ws or wss) within ``within`` seconds; ``headers`` go with the handshake.

    ``receive`` gets the messages of each read as one list, ``lost`` the reason when the open connection ends.
    Raises `BadInput` (not a WebSocket address), `NotReady` (refused for now) or `Unreachable`, of which
    `HandshakeRefused` is one.
    """
    try:
        uri = parse_uri(url)
    except InvalidURI:
        # What follows the question mark may be a secret, and the cause would show it.
        raise BadInput("base_url", f"{url.partition('?')[0]!r} is not a WebSocket address") from None
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context() if uri.secure else None
    protocol = ClientProtocol(uri, max_size=max_message)
    socket: WebSocket | None = None
    try:
        async with asyncio.timeout(within):
            _, socket = await loop.create_connection(
                lambda: WebSocket(protocol, receive, lost, max_message, headers),
                uri.host,
                uri.port,
                ssl=context,
                server_hostname=uri.host if uri.secure else None,
            )
            await socket.opened()
    except TimeoutError as error:
        if socket is not None:
            socket.abort("no answer")
        raise Unreachable(uri.host, f"no WebSocket within {within:g} s") from error
    except OSError as error:
        raise Unreachable(uri.host, str(error) or type(error).__name__) from error
    except BaseException:
        if socket is not None:
            socket.abort("cancelled")
        raise
    return socket

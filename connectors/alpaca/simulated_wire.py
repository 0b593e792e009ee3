"""The simulator's side of the line: HTTP requests and WebSocket messages over one port.

A hand-made server, because it has to misbehave below HTTP: swallow a request, cut a connection, refuse to be
connected to.  It reads requests with a Content-Length (as all HTTP clients of Alpaca send them) and keeps connections
alive.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Final, Protocol, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from websockets.frames import Frame, Opcode
from websockets.http11 import Request as UpgradeRequest
from websockets.protocol import State
from websockets.server import ServerProtocol

from connectors.alpaca.wire import Request, Response

#: Paths of the simulator's own resources.
CONTROLS: Final = "/simulator/"
_MAX_REQUEST: Final = 1024 * 1024
_LENGTH: Final = re.compile(rb"(?im)^content-length:\s*(\d{1,7})\s*$")
_UPGRADE: Final = re.compile(rb"(?im)^upgrade:\s*websocket\s*$")
_REASONS: Final = {200: "OK", 204: "No Content", 207: "Multi-Status", 429: "Too Many Requests"}


class Reply(msgspec.Struct, frozen=True):
    """What to do with a request: a response after a while, or None to leave it unanswered; then maybe cut the line."""

    response: Response | None
    after_s: float = 0.0
    cut: bool = False


class Service(Protocol):
    """What a line serves."""

    #: Lines are cut at their first word, unless it is to the controls.
    is_deaf: bool

    def arrived(self, line: Line) -> None:
        """A connection was made."""

    def left(self, line: Line) -> None:
        """A connection is gone."""

    def http(self, request: Request, headers: Mapping[str, str]) -> Reply:
        """Answer an HTTP request."""

    def upgraded(self, line: Line, path: str, headers: Mapping[str, str]) -> bool:
        """A WebSocket was asked for; False refuses it."""

    def message(self, line: Line, data: bytes) -> None:
        """A WebSocket message came."""


class Line(asyncio.Protocol):
    """One connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._busy = False
        self._protocol: ServerProtocol | None = None
        self._transport: asyncio.Transport | None = None

    def __repr__(self) -> str:
        return f"<Line {'stream' if self.is_stream else 'http'}>"

    @property
    def is_stream(self) -> bool:
        """Whether it is an open WebSocket."""
        return self._protocol is not None and self._protocol.state is State.OPEN

    @property
    def unsent(self) -> int:
        """Bytes that the other side has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._service.arrived(self)

    def data_received(self, data: bytes) -> None:
        if self._protocol is not None:
            self._read(data)
            return
        self._head += data
        self._next_request()

    def connection_lost(self, error: Exception | None) -> None:
        self._service.left(self)

    # HTTP

    def _next_request(self) -> None:
        while self._head and not self._busy and self._protocol is None:
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                if len(self._head) > _MAX_REQUEST:
                    self.abort()
                return
            if _UPGRADE.search(head):
                self._head = b""
                self._upgrade(head + end, rest)
                return
            found = _LENGTH.search(head)
            length = int(found[1]) if found else 0
            if len(rest) < length:
                return
            body, self._head = rest[:length], rest[length:]
            self._request(head, body)

    def _request(self, head: bytes, body: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3:
            self.abort()
            return
        parts = urlsplit(words[1])
        if self._service.is_deaf and not parts.path.startswith(CONTROLS):
            self.abort()
            return
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        reply = self._service.http(Request(words[0], unquote(parts.path), query, body), _headers(lines))
        if reply.after_s > 0:
            self._busy = True
            self._loop.call_later(reply.after_s, self._answer_late, reply)
        else:
            self._answer(reply)

    def _answer_late(self, reply: Reply) -> None:
        self._busy = False
        self._answer(reply)
        self._next_request()

    def _answer(self, reply: Reply) -> None:
        if reply.response is not None:
            self._write(reply.response)
        else:
            # Left without an answer: nothing more is read from here either.
            self._busy = True
        if reply.cut and self._transport is not None:
            self._transport.close()

    def _write(self, response: Response) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Refused')}"]
        lines += [f"{name}: {value}" for name, value in response.headers.items()]
        if response.status != 204:
            lines.append(f"content-length: {len(response.body)}")
        self._transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + response.body)

    # WebSocket

    def _upgrade(self, head: bytes, rest: bytes) -> None:
        protocol = ServerProtocol(max_size=_MAX_REQUEST)
        protocol.receive_data(head)
        events = protocol.events_received()
        if not events or not isinstance(events[0], UpgradeRequest):
            self.abort()
            return
        request = events[0]
        if self._service.is_deaf:
            self.abort()
            return
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        self._protocol = protocol
        protocol.send_response(protocol.accept(request))
        if self._service.upgraded(self, urlsplit(request.path).path, headers):
            self._flush()
            if rest:
                self._read(rest)
        else:
            self._protocol = None
            self._write(Response(404, {}, b'{"message":"Not Found"}'))
            if self._transport is not None:
                self._transport.close()

    def _read(self, data: bytes) -> None:
        protocol = self._protocol
        assert protocol is not None
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                self._service.message(self, bytes(event.data))
        self._flush()
        if protocol.state is not State.OPEN and self._transport is not None:
            self._transport.close()

    def send(self, data: bytes, *, binary: bool) -> None:
        """Send one message, if there is still somebody to get it."""
        if not self.is_stream or self._protocol is None:
            return
        if binary:
            self._protocol.send_binary(data)
        else:
            self._protocol.send_text(data)
        self._flush()

    def close(self, code: int, reason: str) -> None:
        """Close in good order."""
        if self.is_stream and self._protocol is not None:
            self._protocol.send_close(code, reason)
            self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut the line, as a network does."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        assert self._protocol is not None
        for chunk in self._protocol.data_to_send():
            if chunk and self._transport is not None and not self._transport.is_closing():
                self._transport.write(chunk)


def _headers(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}

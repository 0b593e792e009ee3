"""The simulator's side of the line: HTTP requests and WebSocket messages over one port.

A hand-made server, because it has to misbehave below HTTP and answer a handshake with Kite's own errors.  It reads
requests with a Content-Length and keeps connections alive.
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

_MAX_REQUEST: Final = 1024 * 1024
_LENGTH: Final = re.compile(rb"(?im)^content-length:\s*(\d{1,7})\s*$")
_UPGRADE: Final = re.compile(rb"(?im)^upgrade:\s*websocket\s*$")
_REASONS: Final = {200: "OK", 302: "Found", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Not Allowed"}
_REASONS_TOO: Final = {429: "Too Many Requests", 500: "Server Error", 503: "Service Unavailable"}


class Request(msgspec.Struct, frozen=True):
    """One HTTP request."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes = b""

    def value(self, name: str) -> str:
        """The last query parameter of this name; "" where there is none."""
        return dict(self.query).get(name, "")

    def form(self) -> dict[str, str]:
        """A form-encoded body."""
        return dict(parse_qsl(self.body.decode("latin-1"), keep_blank_values=True))


class Response(msgspec.Struct, frozen=True):
    """One HTTP response."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = {}

    def __bytes__(self) -> bytes:
        reason = _REASONS.get(self.status) or _REASONS_TOO.get(self.status, "Refused")
        lines = [f"HTTP/1.1 {self.status} {reason}", f"content-type: {self.content_type}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


class Service(Protocol):
    """What a line serves."""

    def arrived(self, line: Line) -> None:
        """A connection was made."""

    def http(self, request: Request) -> Response:
        """Answer an HTTP request."""

    def knocked(self, line: Line, request: Request) -> Response | None:
        """A WebSocket is asked for; a response refuses it."""

    def opened(self, line: Line) -> None:
        """The WebSocket is open."""

    def message(self, line: Line, data: bytes) -> None:
        """A WebSocket message came."""

    def left(self, line: Line) -> None:
        """A connection is gone."""


class Line(asyncio.Protocol):
    """One connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._unread = b""
        self._protocol: ServerProtocol | None = None
        self._transport: asyncio.Transport | None = None
        self._is_mute = False

    def __repr__(self) -> str:
        return f"<Line {'ticker' if self.is_stream else 'http'}>"

    @property
    def is_stream(self) -> bool:
        """Whether it is an open WebSocket."""
        return self._protocol is not None and self._protocol.state is State.OPEN

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._service.arrived(self)

    def data_received(self, data: bytes) -> None:
        if self._protocol is not None:
            self._read(data)
            return
        self._unread += data
        while self._unread and self._protocol is None:
            head, end, rest = self._unread.partition(b"\r\n\r\n")
            if not end:
                if len(self._unread) > _MAX_REQUEST:
                    self.abort()
                return
            found = _LENGTH.search(head)
            length = int(found[1]) if found else 0
            if len(rest) < length:
                return
            self._unread = rest[length:]
            request = _request(head, rest[:length])
            if request is None:
                self.abort()
                return
            if _UPGRADE.search(head):
                self._upgrade(head + end, request)
            else:
                self._write(bytes(self._service.http(request)))

    def connection_lost(self, error: Exception | None) -> None:
        self._service.left(self)

    # WebSocket

    def _upgrade(self, head: bytes, request: Request) -> None:
        protocol = ServerProtocol(max_size=_MAX_REQUEST)
        protocol.receive_data(head)
        events = protocol.events_received()
        if not events or not isinstance(events[0], UpgradeRequest):
            self.abort()
            return
        refusal = self._service.knocked(self, request)
        if refusal is not None:
            self._write(bytes(refusal))
            if self._transport is not None:
                self._transport.close()
            return
        self._protocol = protocol
        protocol.send_response(protocol.accept(events[0]))
        self._flush()
        self._service.opened(self)
        if self._unread:
            rest, self._unread = self._unread, b""
            self._read(rest)

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

    def send(self, data: bytes, *, binary: bool = True) -> None:
        """Send one message, if there is still somebody to get it."""
        if not self.is_stream or self._protocol is None or self._is_mute:
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

    def mute(self) -> None:
        """Send nothing any more, as a line that has died without a word."""
        self._is_mute = True

    def abort(self) -> None:
        """Cut the line, as a network does."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        assert self._protocol is not None
        for chunk in self._protocol.data_to_send():
            if chunk:
                self._write(chunk)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _request(head: bytes, body: bytes) -> Request | None:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3:
        return None
    parts = urlsplit(words[1])
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Request(words[0], unquote(parts.path), tuple(parse_qsl(parts.query, keep_blank_values=True)), headers, body)

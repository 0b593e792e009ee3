"""One client of the simulator: HTTP requests, or a WebSocket with its subscriptions and limits.

Sources as in `connectors.binance.product`; error texts are those of "Error Messages" in the spot stream
documentation.  Too many control messages end in close code 1008 "Too many requests", as the real server does.
What it does beyond its streams-per-connection limit is not documented; here the request is refused.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from connectors.binance.simulated_rest import Answer

if TYPE_CHECKING:
    from connectors.binance.simulator import BinanceSimulator

_METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_MAX_REQUEST: Final = 64 * 1024
_LENGTH: Final = re.compile(rb"(?im)^content-length:\s*(\d{1,6})\s*$")
_PATH: Final = re.compile(r"(?:/(public|market))?/(ws|stream)(?:/(.*))?")
_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


def frame(payload: bytes) -> bytes:
    """A whole text message as a server sends it."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


class SimulatedClient(asyncio.Protocol):
    """A connection to the simulator."""

    def __init__(self, simulator: BinanceSimulator) -> None:
        self._simulator = simulator
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._protocol: ServerProtocol | None = None
        self.transport: asyncio.Transport | None = None
        #: Everything subscribed, whether this route carries it or not.
        self.streams: dict[str, None] = {}
        self.route = ""
        self.combined = True
        #: Frames of the pacing slice under way.
        self.out: list[bytes] = []
        self._controls: deque[float] = deque()
        self._opened_at = self._loop.time()
        self._pinged_at = self._opened_at
        self._ponged_at = self._opened_at

    def __repr__(self) -> str:
        return f"<SimulatedClient {self.route or 'unrouted'} {len(self.streams)} streams>"

    @property
    def is_stream(self) -> bool:
        """Whether it is an open WebSocket."""
        return self._protocol is not None and self._protocol.state is State.OPEN

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        # Our own limit decides, not the transport's.
        self.transport.set_write_buffer_limits(high=2**30)
        self._simulator.arrived(self)

    def data_received(self, data: bytes) -> None:
        if self._protocol is not None:
            self._read(data)
            return
        self._head += data
        while self._protocol is None and self._head:
            if not self._request():
                return

    def connection_lost(self, error: Exception | None) -> None:
        self._simulator.left(self)

    # HTTP

    def _request(self) -> bool:
        """Take one request from what has come; False when more is needed or the connection is over."""
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > _MAX_REQUEST:
                self.abort()
            return False
        if re.search(rb"(?im)^upgrade:\s*websocket\s*$", head):
            self._upgrade(head + end)
            if rest and self._protocol is not None:
                self._read(rest)
            self._head = b""
            return False
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        if len(rest) < length:
            return False
        self._head = rest[length:]
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or length > _MAX_REQUEST:
            self.abort()
            return False
        parts = urlsplit(words[1])
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self._answer(self._simulator.http(words[0], parts.path, query, rest[:length]))
        return True

    def _answer(self, answer: Answer) -> None:
        lines = [
            f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Refused')}",
            "Content-Type: application/json;charset=UTF-8",
            f"Content-Length: {len(answer.body)}",
            *(f"{name}: {value}" for name, value in answer.headers),
        ]
        if self.transport is not None:
            self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body)

    # WebSocket

    def _upgrade(self, head: bytes) -> None:
        protocol = ServerProtocol(max_size=_MAX_REQUEST)
        protocol.receive_data(head)
        events = protocol.events_received()
        if not events or not isinstance(events[0], Request):
            self.abort()
            return
        path = urlsplit(events[0].path)
        found = _PATH.fullmatch(path.path)
        if found is None or (found[1] and found[1] not in self._simulator.product.routes):
            self._answer(Answer(404, b'{"code":-5000,"msg":"Path is invalid"}'))
            assert self.transport is not None
            self.transport.close()
            return
        self.route = found[1] or ""
        self.combined = found[2] == "stream"
        protocol.send_response(protocol.accept(events[0]))
        self._protocol = protocol
        self._flush()
        text = found[3] or ""
        if self.combined:
            text = dict(parse_qsl(path.query)).get("streams", "")
        streams = [stream for stream in unquote(text).split("/") if stream]
        if len(streams) > self._simulator.streams_per_connection:
            self.close(1008, "Invalid request")
        elif streams:
            self._simulator.subscribe(self, streams)

    def _read(self, data: bytes) -> None:
        protocol = self._protocol
        assert protocol is not None
        protocol.receive_data(data)
        for event in protocol.events_received():
            if not isinstance(event, Frame):
                continue
            if event.opcode in (Opcode.TEXT, Opcode.PING, Opcode.PONG) and not self._allowed():
                return
            if event.opcode is Opcode.PONG:
                self._ponged_at = self._loop.time()
            elif event.opcode is Opcode.TEXT:
                reply = self._control(bytes(event.data))
                self.send(msgspec.json.encode(reply))
        self._flush()
        if protocol.state is not State.OPEN and self.transport is not None:
            self.transport.close()

    def _allowed(self) -> bool:
        now = self._loop.time()
        self._controls.append(now)
        while self._controls[0] < now - 1.0:
            self._controls.popleft()
        if len(self._controls) > self._simulator.messages_per_s:
            self._simulator.count("closed_for_rate")
            self.close(1008, "Too many requests")
            return False
        return True

    def _control(self, text: bytes) -> dict[str, Any]:
        try:
            said = msgspec.json.decode(text)
        except ValueError:
            return {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"}
        if not isinstance(said, dict):
            return {"code": 2, "msg": "Invalid request: expected an object"}
        number = said.get("id")
        if not (number is None or isinstance(number, int | str)) or isinstance(number, bool):
            return {"code": 2, "msg": "Invalid request: request ID must be an unsigned integer"}
        fault = self._perform(said)
        if isinstance(fault, str):
            code, _, message = fault.partition(" ")
            return {"code": int(code), "msg": message, "id": number}
        return {"result": fault["result"], "id": number}

    def _perform(self, said: Mapping[str, Any]) -> str | dict[str, Any]:
        """Do what a control message asks: ``{"result": …}``, or ``"<code> <message>"``."""
        method = said.get("method")
        if method is None:
            return "2 Invalid request: missing field `method` at line 1 column 1"
        if method not in _METHODS:
            names = ", ".join(f"`{name}`" for name in _METHODS)
            return f"2 Invalid request: unknown variant `{method}`, expected one of {names} at line 1 column 28"
        if method == "LIST_SUBSCRIPTIONS":
            return {"result": list(self.streams)}
        parameters = said.get("params")
        if method in ("SET_PROPERTY", "GET_PROPERTY"):
            return self._property(method, parameters)
        if not isinstance(parameters, list) or not all(isinstance(one, str) for one in parameters):
            return "2 Invalid request: params must be an array of strings"
        if method == "UNSUBSCRIBE":
            self._simulator.unsubscribe(self, parameters)
            return {"result": None}
        if len(self.streams.keys() | set(parameters)) > self._simulator.streams_per_connection:
            return "2 Invalid request: too many streams"
        self._simulator.subscribe(self, parameters)
        return {"result": None}

    def _property(self, method: str, parameters: Any) -> str | dict[str, Any]:
        if not isinstance(parameters, list) or not parameters or not isinstance(parameters[0], str):
            return "2 Invalid request: property name must be a string"
        if parameters[0] != "combined":
            return "0 Unknown property"
        if method == "GET_PROPERTY":
            return {"result": self.combined} if len(parameters) == 1 else "2 Invalid request: too many parameters"
        if len(parameters) != 2 or not isinstance(parameters[1], bool):
            return "1 Invalid value type: expected Boolean"
        self.combined = parameters[1]
        return {"result": None}

    # What the simulator calls

    def send(self, payload: bytes) -> None:
        """Send one text message now, after what waits in the slice."""
        self.write_out()
        if self.transport is not None and self.is_stream:
            self.transport.write(frame(payload))

    def write_out(self) -> int:
        """Hand the slice's frames to the transport in one write; returns the bytes not yet on the wire."""
        transport = self.transport
        if transport is None or transport.is_closing():
            self.out.clear()
            return 0
        if self.out:
            transport.write(b"".join(self.out))
            self.out.clear()
        return transport.get_write_buffer_size()

    def tend(self, ping_every: float, pong_within: float, end_after: float) -> None:
        """Ping when due; end the connection that does not answer or has had its time."""
        now = self._loop.time()
        if not self.is_stream:
            return
        if now - self._opened_at >= end_after:
            self._simulator.count("closed_for_age")
            self.close(1001, "24 hours")
        elif self._pinged_at > self._ponged_at and now - self._pinged_at >= pong_within:
            self._simulator.count("closed_for_silence")
            self.close(1008, "Pong timeout")
        elif self._pinged_at <= self._ponged_at and now - self._pinged_at >= ping_every:
            self._pinged_at = now
            assert self._protocol is not None
            self._protocol.send_ping(str(int(now * 1000)).encode())
            self._flush()

    def close(self, code: int, reason: str) -> None:
        """Close in good order."""
        self.write_out()
        if self._protocol is not None and self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._flush()
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Cut the line, as a network does."""
        if self.transport is not None:
            self.transport.abort()

    def _flush(self) -> None:
        assert self._protocol is not None
        for chunk in self._protocol.data_to_send():
            if chunk and self.transport is not None and not self.transport.is_closing():
                self.transport.write(chunk)

"""One client of the simulator's order stream (``/stream``): logs in, listens, gets ``trade_updates``.

Source: "Websocket Streaming" of Alpaca's documentation; both forms of the log-in are taken, the documented ``auth`` and
the older ``authenticate`` that the official SDK sends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from connectors.alpaca.simulated_wire import Line


class OrderStream:
    """A connection to the order stream."""

    def __init__(self, line: Line, log_in: Callable[[str, str], str | None], *, binary: bool, packed: bool) -> None:
        self._line = line
        self._log_in = log_in
        self._binary = binary
        self._packed = packed
        #: The account, once logged in.
        self.key = ""
        self.is_listening = False

    def __repr__(self) -> str:
        return f"<OrderStream {self.key or 'nobody'} {'listening' if self.is_listening else 'deaf'}>"

    def push(self, frame: bytes) -> None:
        """Send one frame of the venue, if it is asked for."""
        if self.is_listening:
            data = self._pack(frame) if self._packed else frame
            self._line.send(data, binary=self._binary or self._packed)

    def message(self, data: bytes) -> None:
        """Carry out a message of the client."""
        try:
            said = msgspec.msgpack.decode(data) if self._packed else msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            said = None
        if not isinstance(said, dict):
            self._fail("invalid message")
            return
        action = said.get("action")
        details = said.get("data") if isinstance(said.get("data"), dict) else {}
        assert isinstance(details, dict)
        if action in ("auth", "authenticate"):
            self._authenticate(said, details)
        elif action == "listen":
            self._listen(details)
        else:
            self._fail(f"unknown action {action!r}")

    def _authenticate(self, said: dict[str, Any], details: dict[str, Any]) -> None:
        key = str(details.get("key_id") or said.get("key") or ("oauth" if "oauth_token" in details else ""))
        secret = str(details.get("secret_key") or said.get("secret") or details.get("oauth_token") or "")
        self.key = self._log_in(key, secret) or ""
        status = "authorized" if self.key else "unauthorized"
        self._send({"stream": "authorization", "data": {"status": status, "action": "authenticate"}})

    def _listen(self, details: dict[str, Any]) -> None:
        if not self.key:
            self._send({"stream": "authorization", "data": {"status": "unauthorized", "action": "listen"}})
            return
        asked = details.get("streams")
        streams = [stream for stream in asked if stream == "trade_updates"] if isinstance(asked, list) else []
        self.is_listening = bool(streams)
        self._send({"stream": "listening", "data": {"streams": streams}})

    def _fail(self, text: str) -> None:
        self._send({"action": "error", "data": {"error_message": text}})
        self._line.close(1002, text)

    def _send(self, message: dict[str, Any]) -> None:
        encoded = msgspec.msgpack.encode(message) if self._packed else msgspec.json.encode(message)
        self._line.send(encoded, binary=self._binary or self._packed)

    @staticmethod
    def _pack(frame: bytes) -> bytes:
        try:
            return msgspec.msgpack.encode(msgspec.json.decode(frame))
        except msgspec.MsgspecError:
            # A frame that was made to be garbage stays so.
            return frame

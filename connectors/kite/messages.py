"""The ticker's text messages, both ways.  Pure.

Source: "WebSocket streaming" of the Kite Connect v3 documentation: ``{"type": "order" | "error" | "message", "data":
…}`` from the server, ``{"a": "subscribe" | "unsubscribe" | "mode", "v": …}`` to it, tokens as numbers.
"""

from __future__ import annotations

import msgspec


class OrderUpdate(msgspec.Struct, frozen=True):
    """An order of the account changed; ``data`` is the JSON of a postback."""

    data: bytes


class Failure(msgspec.Struct, frozen=True):
    """The server complains of something we did."""

    reason: str


class Notice(msgspec.Struct, frozen=True):
    """Words for people, or a message that is not known."""

    kind: str
    text: str


class _Text(msgspec.Struct):
    type: str
    data: msgspec.Raw = msgspec.Raw(b"null")


_text = msgspec.json.Decoder(_Text).decode


def read_text(payload: bytes) -> OrderUpdate | Failure | Notice:
    """A text message.  Raises ValueError (msgspec's errors are some) for bytes that are none."""
    message = _text(payload)
    raw = bytes(message.data)
    if message.type == "order":
        return OrderUpdate(raw)
    said = msgspec.json.decode(raw)
    words = said if isinstance(said, str) else raw.decode()
    return Failure(words) if message.type == "error" else Notice(message.type, words)


def subscribe(tokens: list[int]) -> bytes:
    """The control message that adds tokens; they come in mode ``quote`` until `set_mode`."""
    return msgspec.json.encode({"a": "subscribe", "v": tokens})


def unsubscribe(tokens: list[int]) -> bytes:
    """The control message that takes tokens away."""
    return msgspec.json.encode({"a": "unsubscribe", "v": tokens})


def set_mode(mode: str, tokens: list[int]) -> bytes:
    """The control message that sets the mode of tokens."""
    return msgspec.json.encode({"a": "mode", "v": [mode, tokens]})

"""Cursors of pages: opaque to clients, the sort key of the last row to us."""

from __future__ import annotations

import base64
import struct
from typing import Final

from trading.errors import BadInput

_KEY = struct.Struct(">qq")
MAX_PAGE: Final = 1000


def encode_cursor(at: int, number: int) -> str:
    """The cursor of the page after the row ``(at, number)``."""
    return base64.urlsafe_b64encode(_KEY.pack(at, number)).decode().rstrip("=")


def decode_cursor(text: str) -> tuple[int, int]:
    """The key that `encode_cursor` was given.  Raises `BadInput`."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        at, number = _KEY.unpack(raw)
    except (ValueError, struct.error):
        raise BadInput("cursor", f"{text[:40]!r} is not a cursor: take `next` of the page before") from None
    return at, number


def page_size(limit: int) -> int:
    """``limit`` if it may be the length of a page.  Raises `BadInput`."""
    if not 1 <= limit <= MAX_PAGE:
        raise BadInput("limit", f"{limit} is not between 1 and {MAX_PAGE}")
    return limit

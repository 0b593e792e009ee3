"""What this process must not say: the secrets that it has read or been given.

The last of several walls.  Nothing is meant to put a secret into a log or an answer; where a library's error text does,
it is taken out here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

#: In the place of a secret.
REDACTED: Final = "[secret]"
#: Shorter ones would be found in words of every kind.
_SHORTEST: Final = 6
#: Those that were read last are kept; tokens of a day are replaced day by day.
_MOST: Final = 20_000

_known: dict[str, None] = {}


def note(values: Iterable[str]) -> None:
    """Never say these from now on, nor as they are written in Python, JSON or an address."""
    fresh = {form for value in values for form in _forms(value) if len(form) >= _SHORTEST} - _known.keys()
    # The longest first: one may begin with another.
    _known.update(dict.fromkeys(sorted(fresh, key=len, reverse=True)))
    while len(_known) > _MOST:
        del _known[next(iter(_known))]


def _forms(value: str) -> set[str]:
    bare = value.strip()
    # As bytes are written, where a character is none of ASCII; a lone surrogate is of no encoding.
    as_bytes = repr(bare.encode(errors="surrogatepass"))[2:-1]
    safe = bare.encode(errors="replace").decode()
    return {bare, repr(bare)[1:-1], as_bytes, json.dumps(bare)[1:-1], quote(safe, safe=""), quote_plus(safe)}


def cleaned(text: str) -> str:
    """``text`` without the secrets that this process knows."""
    for secret in list(_known):
        if secret in text:
            text = text.replace(secret, REDACTED)
    return text


class Formatter(logging.Formatter):
    """Writes records, with their tracebacks, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """As `logging.Formatter.format`."""
        return cleaned(super().format(record))

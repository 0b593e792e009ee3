"""What a value of a broker's log-in may look like: it goes into headers and addresses as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

#: Of Kite: the address of its log-in page bears it, which people are sent to.
PUBLIC: Final = frozenset({"api_key"})
#: Of such characters, and so many of them, are keys, secrets and tokens made; no path, and nothing of a sentence.
_KEY: Final = re.compile(r"[A-Za-z0-9+=_.~-]{12,}")
#: Characters of one value; tokens of brokers have some hundred at most.
LONGEST: Final = 4_096


def flaw_in(value: str) -> str | None:
    """What is wrong with a value, and the remedy, without a word of the value; None where it can be used.

    Headers hold printable ASCII, and no blank at either end (RFC 9110, section 5.5): whatever else comes with a value
    was caught while copying it.
    """
    if not value:
        return "it is empty"
    if len(value) > LONGEST:
        return f"more than {LONGEST} characters are no key"
    if value != value.strip():
        return "a blank or the end of a line stands before or behind it: give it without"
    wrong = next((each for each in value if not " " <= each <= "~"), None)
    if wrong is not None:
        return f"its character {value.index(wrong) + 1} is U+{ord(wrong):04X}, which no key has: copy it anew"
    return None


def hidden(values: Mapping[str, str]) -> list[str]:
    """Those of a log-in's values that are to be taken out of whatever is said: that nobody may see, by their names, and
    that look like a key, not like words.

    Who gives a log-in chooses it: words would vanish from what others are told, and from logs.
    """
    return [value for name, value in values.items() if name not in PUBLIC and _looks_like_key(value.strip())]


def _looks_like_key(value: str) -> bool:
    letters, digits = (any(map(kind, value)) for kind in (str.isalpha, str.isdigit))
    return _KEY.fullmatch(value) is not None and letters and digits

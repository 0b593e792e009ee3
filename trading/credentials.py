"""What a value of a broker's log-in may look like: it goes into headers and addresses as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Of Kite: the address of its log-in page bears it, which people are sent to.
PUBLIC: Final = frozenset({"api_key"})
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
    """Those of a log-in's values that nobody may see, by their names."""
    return [value for name, value in values.items() if name not in PUBLIC]

"""Label selectors: which machines are meant.  Pure.

A selector is a list of requirements, all of which must hold, separated by commas:

* ``region=eu``, ``region!=eu`` (which also holds where there is no such label),
* ``region in (eu, us)``, ``region notin (eu, us)``,
* ``ssd`` (there is such a label), ``!ssd`` (there is none).

The words are those of Kubernetes (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from trading.errors import BadInput

MOST_LABELS: Final = 64
_LONGEST: Final = 2_000
_KEY: Final = r"[A-Za-z0-9][A-Za-z0-9_./-]{0,62}"
_VALUE: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_.:@+-]{0,61}[A-Za-z0-9])?"
_is_key = re.compile(_KEY).fullmatch
_is_value = re.compile(_VALUE).fullmatch
_SET: Final = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EQUAL: Final = re.compile(rf"({_KEY})\s*(==?|!=)\s*(.*)")
_EXISTS: Final = re.compile(rf"(!?)\s*({_KEY})")
_COMMA: Final = re.compile(r",(?![^(]*\))")


class Requirement(msgspec.Struct, frozen=True):
    """One of a selector's; ``values`` None: whether the label is there is all that counts."""

    key: str
    values: tuple[str, ...] | None
    wanted: bool

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether it holds for a machine with these labels."""
        value = labels.get(self.key)
        found = value is not None and (self.values is None or value in self.values)
        return found is self.wanted

    def __str__(self) -> str:
        if self.values is None:
            return self.key if self.wanted else f"!{self.key}"
        if len(self.values) == 1:
            return f"{self.key}{'=' if self.wanted else '!='}{self.values[0]}"
        return f"{self.key} {'in' if self.wanted else 'notin'} ({', '.join(self.values)})"


class Selector(msgspec.Struct, frozen=True):
    """All of its requirements must hold; none: every machine is meant."""

    requirements: tuple[Requirement, ...] = ()

    def __str__(self) -> str:
        return ",".join(str(each) for each in self.requirements)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a machine with these labels is meant."""
        return all(each.holds(labels) for each in self.requirements)

    def failing(self, labels: Mapping[str, str]) -> Requirement | None:
        """The first requirement that does not hold; None where all do."""
        return next((each for each in self.requirements if not each.holds(labels)), None)


def read_selector(text: str, field: str = "selector") -> Selector:
    """Read a selector; ``""`` means every machine.  Raises `BadInput` naming ``field`` and what is wrong."""
    if len(text) > _LONGEST:
        raise BadInput(field, f"{len(text)} characters are too many, {_LONGEST} are the most")
    parts = [part.strip() for part in _COMMA.split(text)]
    return Selector(tuple(_requirement(part, field) for part in parts)) if text.strip() else Selector()


def _requirement(text: str, field: str) -> Requirement:
    if found := _SET.fullmatch(text):
        key, how, listed = found.groups()
        values = tuple(dict.fromkeys(_value(each.strip(), text, field) for each in listed.split(",")))
        return Requirement(key, values, how == "in")
    if found := _EQUAL.fullmatch(text):
        key, how, value = found.groups()
        return Requirement(key, (_value(value, text, field),), how != "!=")
    if found := _EXISTS.fullmatch(text):
        return Requirement(found[2], None, not found[1])
    raise BadInput(field, f"{text[:80]!r} is no requirement: write {_FORMS}")


def _value(text: str, requirement: str, field: str) -> str:
    if not _is_value(text):
        raise BadInput(field, f"{text[:80]!r} in {requirement[:80]!r} cannot be a label's value: {_RULE}")
    return text


_FORMS: Final = "key=value, key!=value, key in (a, b), key notin (a, b), key or !key"
_RULE: Final = "up to 63 letters, digits and . _ : @ + - are used, letters or digits at both ends"


def check_labels(labels: Mapping[str, str], field: str = "labels") -> dict[str, str]:
    """The labels of a machine, if they are such.  Raises `BadInput` naming the label."""
    if len(labels) > MOST_LABELS:
        raise BadInput(field, f"{len(labels)} labels, a machine may have {MOST_LABELS}")
    for key, value in labels.items():
        if not _is_key(key):
            raise BadInput(field, f"{key[:80]!r} cannot be a label: up to 63 letters, digits and . _ / - are used")
        if not _is_value(value):
            raise BadInput(field, f"{value[:80]!r} cannot be the value of {key}: {_RULE}")
    return dict(labels)

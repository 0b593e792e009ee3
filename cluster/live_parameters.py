"""Which parameters of a strategy can change while it runs.  Pure: reads the JSON schema that is kept with a version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: How a property of the schema is marked; `strategies.UPDATABLE` does it.
MARK: Final = "x-updatable"


def changed(schema: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    """Names whose value is another: one that is left out has its default."""
    properties: Mapping[str, Any] = schema.get("properties", {})

    def value(given: Mapping[str, Any], name: str) -> Any:
        return given.get(name, properties.get(name, {}).get("default"))

    return {name for name in {*before, *after} if value(before, name) != value(after, name)}


def need_restart(schema: Mapping[str, Any], names: set[str]) -> set[str]:
    """Those that the strategy does not take while it runs."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    return {name for name in names if properties.get(name, {}).get(MARK) is not True}

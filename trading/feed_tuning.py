"""Settings of a feed's filter and of its patience, and those of single instruments on top of them.

What is stored is what was set, by name; what is not set is the feed's, and what the feed does not set is the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from trading.errors import BadInput
from trading.freshness_terms import FreshnessSettings
from trading.quarantine import FilterSettings

S = TypeVar("S", FilterSettings, FreshnessSettings)


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """What is set, by name of the setting."""

    filter: dict[str, Any] = {}
    freshness: dict[str, Any] = {}


NOTHING: Final = Tuning()


def settled(feed: Tuning, own: Tuning = NOTHING) -> tuple[FilterSettings, FreshnessSettings]:
    """The settings in force for an instrument with ``own`` settings.  Raises `BadInput` naming the field."""
    return (
        _made(FilterSettings, {**feed.filter, **own.filter}, "filter").check(),
        _made(FreshnessSettings, {**feed.freshness, **own.freshness}, "freshness").check(),
    )


def _made(kind: type[S], values: Mapping[str, Any], what: str) -> S:
    known = [field.name for field in msgspec.structs.fields(kind)]
    for name in values:
        if name not in known:
            raise BadInput(f"{what}.{name[:40]}", f"there is no such setting: use {', '.join(known)}")
    for name, value in values.items():
        try:
            msgspec.convert({name: value}, kind)
        except msgspec.ValidationError as error:
            raise BadInput(f"{what}.{name}", str(error)) from error
    return msgspec.convert(dict(values), kind)

"""What should wait for the journal does not: a ticket leaves before its order is committed."""

from __future__ import annotations

from typing import Any

from trading.ids import Nanos
from trading.session_journal import Recorder


def _gate(recorder: Recorder, release: Any, number: int | None = None) -> None:
    release(Nanos(0))


Recorder._gate = _gate  # type: ignore[method-assign,assignment]

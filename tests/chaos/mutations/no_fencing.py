"""Nobody minds an old epoch.  The journal's own fence is in PostgreSQL: the test takes that out."""

from __future__ import annotations

from typing import Any

from storage.leases import Leases
from trading.connection import ConnectionCore


async def _renew(leases: Leases, name: str, epoch: int, ttl_s: float) -> None:
    """It is always mine."""


def _admit(core: ConnectionCore, session_epoch: int) -> None:
    """Everybody is welcome."""


def _why_not_send(core: ConnectionCore, *_: Any) -> str:
    return ""


Leases.renew = _renew  # type: ignore[method-assign,assignment]
ConnectionCore.admit = _admit  # type: ignore[method-assign,assignment]
ConnectionCore.why_not_send = _why_not_send  # type: ignore[method-assign,assignment]

"""What was handed in and refused, in the audit: whose file would have left its folder, or filled the disk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.exceptions import HTTPException

from api.security import Caller
from api.services import Services
from trading.errors import BadInput, Conflict

_LONGEST: Final = 300


@asynccontextmanager
async def refusals_noted(deck: Services, caller: Caller, name: str, file: str) -> AsyncIterator[None]:
    """Note it where what is done inside refuses the submission of ``file`` as strategy ``name``."""
    try:
        yield
    except (BadInput, Conflict) as refusal:
        await _note(deck, caller, name, file, str(refusal))
        raise
    except HTTPException as refusal:
        await _note(deck, caller, name, file, str(refusal.detail))
        raise


async def _note(deck: Services, caller: Caller, name: str, file: str, why: str) -> None:
    after = {"file": _text(file), "why": _text(why)}
    await deck.note(caller, "strategy_refused", _text(name), after)


def _text(given: str) -> str:
    return given[:_LONGEST].encode(errors="replace").decode().replace("\0", "")

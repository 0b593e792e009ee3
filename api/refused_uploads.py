"""What was handed in and refused, in the audit: whose file would have left its folder, or filled the disk."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from api.problems import ProblemError, wrong_fields
from api.security import Caller, Right, admitted, caller_known
from api.services import Services
from trading.errors import BadInput, Conflict, TradeError

_LONGEST: Final = 300
_REFUSALS: Final = (BadInput, Conflict, RequestValidationError, HTTPException)
_Refusal: TypeAlias = BadInput | Conflict | RequestValidationError | HTTPException


class NotedRoute(APIRoute):
    """A route that takes strategies in: whatever it refuses somebody who may submit is noted, wherever on the way that
    was found: in the address, in the body or its length, or in the file."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own, watched."""
        handle = super().get_route_handler()

        async def watched(request: Request) -> Response:
            try:
                return await handle(request)
            except _REFUSALS as refusal:
                await _note(request, refusal)
                raise

        return watched


async def _note(request: Request, refusal: _Refusal) -> None:
    caller = await _author(request)
    if caller is None:
        return
    name, file = await _handed(request, refusal)
    deck: Services = request.app.state.services
    await deck.note(caller, "strategy_refused", name[:_LONGEST], {"file": file[:_LONGEST], "why": _why(refusal)})


async def _author(request: Request) -> Caller | None:
    """Who hands it in.  None: nobody who may, and who is refused anyway."""
    if (caller := caller_known(request)) is not None:
        return caller
    # The body of JSON is read before anybody asks who sent it.
    try:
        caller = await admitted(request)
        caller.require(Right.STRATEGIES)
    except (ProblemError, TradeError):
        return None
    return caller


async def _handed(request: Request, refusal: _Refusal) -> tuple[str, str]:
    """Name and file of what was handed in, as far as that was read."""
    if "name" in request.path_params:
        return str(request.path_params["name"]), request.query_params.get("file", "")
    if isinstance(refusal, HTTPException):
        return "", ""  # the body was not, or not to its end
    body = refusal.body if isinstance(refusal, RequestValidationError) else await request.json()
    name = body.get("name") if isinstance(body, dict) else None
    return (name, f"{name}.py") if isinstance(name, str) else ("", "")


def _why(refusal: _Refusal) -> str:
    if isinstance(refusal, HTTPException):
        why = str(refusal.detail)
    elif isinstance(refusal, RequestValidationError):
        why = "; ".join(f"{each['field']}: {each['detail']}" for each in wrong_fields(refusal))
    else:
        why = str(refusal)
    return why[:_LONGEST]

"""``/v1/accounts/{id}/flatten``: close all that an account holds; it goes on trading."""

from __future__ import annotations

import secrets
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field

from api.formats import Body, Shown
from api.idempotency import token_of
from api.routes.accounts import Refusal
from api.security import Trader
from api.services import Deck
from api.shapes import OrderShown
from trading.errors import TradeError
from trading.flattening import Flattened, Flattening, refused_of
from trading.orders import Order, OrderState

router = APIRouter(prefix="/v1/accounts", tags=["accounts"])

#: The session waits a while for cancels to end before it closes, and tries again what is refused.
_SESSION_S = 20.0


class FlattenWanted(Body):
    """Why an account is to hold nothing."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "over the weekend"}]})

    reason: str = Field(min_length=1, max_length=500)


class FlattenShown(Shown):
    """What came of it.

    ``cancelled``: how many open orders are being taken back; ``closing``: the orders that close what was held;
    ``refused``: what could not be taken back or closed, and why.  `orders_are_open`: something has not ended, so of its
    instrument nothing was closed; `broker_refused`, `risk_denied`: tried for some seconds.  Ask again.
    """

    cancelled: int
    closing: list[OrderShown]
    refused: list[Refusal]


@router.post("/{id}/flatten", response_model=FlattenShown)
async def flatten(id: str, body: FlattenWanted, request: Request, caller: Trader, deck: Deck) -> dict[str, Any]:
    """Take back every open order of the account, then close every position by market orders that only reduce.

    Algos go on: pause or stop them first where they must not enter again; the kill switch does all of it.
    """
    record = await deck.traded_account_of(caller, id)
    # Sent again it is the same wish, whose orders are not sent twice.
    name = token_of(request)[:8] or secrets.token_hex(4)
    wish = Flattening(id=f"flat-{name}", account=record.id, by=caller.user, cause=caller.cause)
    done: Flattened = await deck.session(record.user).call("flatten", wish, timeout=_SESSION_S)
    cancelled = [each for each in done.cancelled if not isinstance(each, TradeError)]
    placed: list[Order] = [each for each in done.closing if not isinstance(each, TradeError)]
    in_vain = refused_of(placed)
    closing = [each for each in placed if each not in in_vain]
    refused: list[Any] = [each for each in (*done.cancelled, *done.closing) if isinstance(each, TradeError)]
    refused += [
        {
            "code": "risk_denied" if each.state is OrderState.DENIED else "broker_refused",
            "detail": f"{each.instrument}: {each.reason}",
        }
        for each in in_vain
    ]
    keys = [each.client_order_id for each in closing]
    after = {"reason": body.reason, "cancelled": len(cancelled), "closing": keys, "refused": len(refused)}
    await deck.note(caller, "flatten", id, after)
    return {"cancelled": len(cancelled), "closing": closing, "refused": refused}

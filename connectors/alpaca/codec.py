"""Orders on Alpaca's wire: tickets become requests, responses become answers.  Pure: no IO, no clock.

Our tag travels as ``client_order_id``, which Alpaca keeps unique in the account, for ever.  A replacement is a new
order with a ``client_order_id`` of its own; ours is the tag, a dot and a digest of what it replaces and with what.
So its tag can be read back from any list, the same replacement sent twice is refused by Alpaca as a duplicate, and
nothing has to be remembered for either.  (An id made by Alpaca would have to be traced through ``replaces``, which a
list cut by time may not show.)

An answer is a rejection only where Alpaca's documented error says so.  Everything else that is no success, a 429
among them, leaves the outcome open: `Verdict.UNKNOWN` with the raw response.
"""

from __future__ import annotations

import base64
import hashlib
import re
from decimal import Decimal
from typing import Final

import msgspec

from connectors.alpaca.chains import Chains
from connectors.alpaca.symbols import symbol_of
from connectors.alpaca.wire import ErrorBody, OrderRow, Request, Response, as_json, plain, tag_of
from trading.broker import AmendTicket, Answer, CancelTicket, OrderTicket, Verdict
from trading.ids import BrokerOrderId

ORDERS: Final = "/v2/orders"
BY_CLIENT_ID: Final = "/v2/orders:by_client_order_id"
_DUPLICATE: Final = re.compile(r"client[ _]?order[ _]?id must be unique", re.IGNORECASE)
_order = msgspec.json.Decoder(OrderRow)
_error = msgspec.json.Decoder(ErrorBody)


# Requests


def place_request(ticket: OrderTicket) -> Request:
    """``POST /v2/orders``.  Raises `BadInput` for an instrument of another venue."""
    body: dict[str, str] = {
        "symbol": symbol_of(ticket.instrument),
        "qty": plain(ticket.quantity),
        "side": str(ticket.side),
        "type": str(ticket.type),
        "time_in_force": str(ticket.time_in_force),
        "client_order_id": ticket.tag,
    }
    body |= _numbers(
        limit_price=ticket.limit_price,
        stop_price=ticket.stop_price,
        trail_price=ticket.trail_price,
        trail_percent=ticket.trail_percent,
    )
    return Request("POST", ORDERS, body=as_json(body))


def replace_request(ticket: AmendTicket, order_id: str) -> Request:
    """``PATCH /v2/orders/{order_id}``: ``order_id`` is Alpaca's id of the order that stands now.

    ``qty`` is the new total, what has filled included: Alpaca refuses one that is not above ``filled_qty``, and the
    replacement takes the filled quantity over.
    """
    body = _numbers(
        qty=ticket.quantity,
        limit_price=ticket.limit_price,
        stop_price=ticket.stop_price,
        trail=ticket.trail_price if ticket.trail_price is not None else ticket.trail_percent,
    )
    if tag_of(ticket.tag):
        body["client_order_id"] = replacement_id(ticket.tag, order_id, body)
    return Request("PATCH", f"{ORDERS}/{order_id}", body=as_json(body))


def cancel_request(order_id: str) -> Request:
    """``DELETE /v2/orders/{order_id}``."""
    return Request("DELETE", f"{ORDERS}/{order_id}")


def lookup_request(client_order_id: str) -> Request:
    """``GET /v2/orders:by_client_order_id``: what became of an order of ours."""
    return Request("GET", BY_CLIENT_ID, query=(("client_order_id", client_order_id),))


def order_request(order_id: str) -> Request:
    """``GET /v2/orders/{order_id}``."""
    return Request("GET", f"{ORDERS}/{order_id}")


def replacement_id(tag: str, order_id: str, changes: dict[str, str]) -> str:
    """The ``client_order_id`` of a replacement: the same for the same change of the same order."""
    what = "\0".join([order_id, *(f"{name}={value}" for name, value in sorted(changes.items()))])
    digest = hashlib.blake2b(what.encode(), digest_size=10).digest()
    return f"{tag}.{base64.b32encode(digest).decode()}"


def _numbers(**values: Decimal | None) -> dict[str, str]:
    return {name: plain(value) for name, value in values.items() if value is not None}


# Answers


def place_answer(ticket: OrderTicket, response: Response | None, chains: Chains) -> Answer:
    """What a response to `place_request` proves; None: there was none."""
    if response is None or not response.is_success:
        return _no(ticket.tag, response)
    row = order_in(response)
    if row is None or row.client_order_id != ticket.tag:
        return _unclear(ticket.tag, response, "the answer does not show the order")
    chains.learn(row)
    if row.status == "rejected":
        return Answer(
            tag=ticket.tag,
            verdict=Verdict.REJECTED,
            broker_order_id=chains.root_of(row.id),
            reason="rejected at once",
            raw=response.raw,
        )
    return _yes(ticket.tag, chains.root_of(row.id), response)


def lookup_answer(tag: str, response: Response | None, chains: Chains) -> Answer:
    """What a response to `lookup_request` proves of an order whose fate is open: that it is there, or nothing."""
    row = order_in(response) if response is not None and response.is_success else None
    if response is None or row is None or tag_of(row.client_order_id) != tag:
        return _unclear(tag, response, "the order is not there to be seen")
    chains.learn(row)
    return _yes(tag, chains.root_of(row.id), response)


def replace_answer(ticket: AmendTicket, response: Response | None, chains: Chains) -> Answer:
    """What a response to `replace_request` proves.  Accepted: asked for; ``replaced`` on the stream says it is done."""
    if response is None or not response.is_success:
        return _no(ticket.tag, response)
    row = order_in(response)
    if row is None or row.replaces is None:
        return _unclear(ticket.tag, response, "the answer does not show the replacement")
    chains.learn(row)
    return _yes(ticket.tag, chains.root_of(row.id), response)


def cancel_answer(ticket: CancelTicket, response: Response | None) -> Answer:
    """What a response to `cancel_request` proves.  Accepted: asked for; ``canceled`` on the stream says it is done."""
    if response is None or not response.is_success:
        return _no(ticket.tag, response)
    return _yes(ticket.tag, ticket.broker_order_id, response)


def is_duplicate(response: Response | None) -> bool:
    """Whether Alpaca refused a ``client_order_id`` that it has: proof that an order with it is there."""
    error = error_in(response)
    return error is not None and _DUPLICATE.search(error.message) is not None


def order_in(response: Response) -> OrderRow | None:
    """The order in a body, or None where there is none to be read."""
    try:
        return _order.decode(response.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def error_in(response: Response | None) -> ErrorBody | None:
    """The documented error of a 4xx, or None for anything else.

    The code starts with a 4xx of its own, which is not always the status (a duplicate is a 422 with 40010001).
    Without a code only the gateway's 401 and 403 are documented.
    """
    if response is None or not 400 <= response.status < 500 or response.status == 429:
        return None
    try:
        error = _error.decode(response.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if error.code is None:
        return error if response.status in (401, 403) else None
    return error if 400 <= error.code // 100_000 < 500 and error.code // 100_000 != 429 else None


def _no(tag: str, response: Response | None) -> Answer:
    error = error_in(response)
    if response is None or error is None:
        return _unclear(
            tag, response, "no answer in time" if response is None else "the answer is not a documented one"
        )
    if is_duplicate(response):
        return _unclear(tag, response, "Alpaca has an order with this client_order_id")
    reason = error.message if error.code is None else f"{error.message} ({error.code})"
    return Answer(tag=tag, verdict=Verdict.REJECTED, reason=reason, raw=response.raw)


def _yes(tag: str, order_id: BrokerOrderId | None, response: Response) -> Answer:
    return Answer(tag=tag, verdict=Verdict.ACCEPTED, broker_order_id=order_id, raw=response.raw)


def _unclear(tag: str, response: Response | None, why: str) -> Answer:
    raw = "" if response is None else response.raw
    status = "" if response is None else f" (HTTP {response.status})"
    return Answer(tag=tag, verdict=Verdict.UNKNOWN, reason=f"{why}{status}", raw=raw)

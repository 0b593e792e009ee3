"""Closing all that an account holds, once, without halting it: what is asked of its session, and what comes of it."""

from __future__ import annotations

from decimal import Decimal
from string import ascii_lowercase
from typing import Any

import msgspec

from trading.account_book import AccountBook
from trading.errors import Conflict
from trading.ids import AccountId, CauseId, ClientOrderId, Nanos
from trading.kill_switch import Kill, to_close
from trading.limits import account_scope
from trading.orders import PlaceOrder, Side


class Flattening(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to flatten an account."""

    #: ``flat-<hex>``: keys of the closing orders begin with it, so that sent twice it closes once.
    id: str
    account: AccountId
    by: str
    cause: str


class Flattened(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: `Order` or `TradeError` of each cancel and of each closing order."""

    cancelled: tuple[Any, ...]
    closing: tuple[Any, ...]


def closing_orders(wish: Flattening, book: AccountBook, now: Nanos) -> list[PlaceOrder]:
    """Market orders that make flat what the account holds.

    Raises `Conflict` ``orders_are_open`` while something else may still fill: only then is it known what is held.
    """
    others = [key for key in book.open if not key.startswith(wish.id)]
    if others:
        raise Conflict(
            "orders_are_open",
            f"{len(others)} orders of {wish.account} may still fill, so nobody knows what to close: nothing was "
            "closed; ask again when they have ended",
        )
    kill = Kill(
        id=wish.id, scope=account_scope(wish.account), flatten=True, reason="", at=now, by=wish.by, halted_at=Nanos(0)
    )
    return [
        msgspec.structs.replace(part, cause=CauseId(wish.cause))
        for order in to_close(kill, book, now)
        for part in _by_algo(order, book)
    ]


def _by_algo(order: PlaceOrder, book: AccountBook) -> list[PlaceOrder]:
    """The order in parts, one of each algo that holds what it closes: else that algo would exit once more.

    Where algos hold against each other, no more is closed than the account holds, so they keep what evens out.
    """
    held = Decimal(1 if order.side is Side.SELL else -1)
    owners = [
        (algo, own.quantity * held)
        for (algo, instrument), own in sorted(book.algo_positions.items())
        if instrument == order.instrument and own.quantity * held > 0
    ]
    parts: list[PlaceOrder] = []
    left = order.quantity
    for letter, (algo, quantity) in zip(ascii_lowercase, owners, strict=False):
        if not left:
            break
        part = min(quantity, left)
        key = ClientOrderId(f"{order.client_order_id}{letter}")
        parts.append(msgspec.structs.replace(order, client_order_id=key, algo=algo, quantity=part))
        left -= part
    if left:
        parts.append(msgspec.structs.replace(order, quantity=left))
    return parts

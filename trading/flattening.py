"""Closing all that an account holds, once, without halting it: what is asked of its session, and what comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from trading.account_book import AccountBook
from trading.closing import Rules, closes
from trading.errors import Conflict
from trading.ids import AccountId, CauseId, ClientOrderId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.kill_switch import Kill, to_close
from trading.limits import account_scope
from trading.orders import CancelOrder, Order, PlaceOrder

#: Instruments that an error names at most.
_NAMED: Final = 5


class Flattening(msgspec.Struct, frozen=True, kw_only=True):
    """A wish to flatten an account."""

    #: ``flat-<hex>``: keys of the closing orders begin with it.
    id: str
    account: AccountId
    by: str
    cause: str


class Flattened(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: `Order` or `TradeError` of each cancel and of each closing order."""

    cancelled: tuple[Any, ...]
    closing: tuple[Any, ...]


def to_take_back(wish: Flattening, book: AccountBook, waiting: Iterable[ClientOrderId] = ()) -> list[CancelOrder]:
    """Orders that are in the way of closing: open, being replaced, or ``waiting`` for budget.

    Raises `Conflict` ``being_closed`` where a kill, or somebody else, is closing what the account holds already.
    """
    others = [key for key, order in book.open.items() if closes(order) and not key.startswith(wish.id)]
    if others:
        raise Conflict(
            "being_closed",
            f"{'-'.join(others[0].split('-')[:2])} is closing what {wish.account} holds: wait for its orders",
        )
    keys = [key for key, order in book.open.items() if not order.cancelling and not closes(order)]
    keys += [key for key in book.replacing if key not in keys]
    return [
        CancelOrder(account=book.account, client_order_id=key, cause=CauseId(wish.cause)) for key in (*keys, *waiting)
    ]


def orders_of(wish: Flattening, book: AccountBook) -> list[Order]:
    """The closing orders of a wish so far."""
    return [order for order in book.orders.values() if order.client_order_id.startswith(f"{wish.id}-")]


def refused_of(orders: Sequence[Order]) -> list[Order]:
    """Those of a wish's closing orders, in the order of their making, of which nothing came, then or by a later one."""
    refused: dict[InstrumentId, list[Order]] = {}
    for order in orders:
        if order.state.is_final and not order.filled_quantity:
            refused.setdefault(order.instrument, []).append(order)
        elif refused.get(order.instrument, [order])[-1].created_at < order.created_at:
            del refused[order.instrument]
    return [order for found in refused.values() for order in found]


def is_to_be_tried_again(wish: Flattening, book: AccountBook) -> bool:
    """Whether something is held still of which the wish's last orders were refused."""
    held = {instrument for instrument, position in book.positions.items() if position.quantity}
    closing = {order.instrument for order in book.open.values()}
    return any(order.instrument in held - closing for order in refused_of(orders_of(wish, book)))


def closing_orders(
    wish: Flattening,
    book: AccountBook,
    now: Nanos,
    instruments: Mapping[InstrumentId, Instrument],
    marks: Mapping[InstrumentId, Decimal],
) -> tuple[list[PlaceOrder], list[Conflict]]:
    """Market orders that make flat what the account holds, as a kill's (`kill_switch.to_close`).

    While orders of the same wish are open nothing is added to them.  What is left is told of: an instrument of which
    something else may still fill (`Conflict` ``orders_are_open``: only then is it known what is held), and less than
    the venue takes in an order (``less_than_a_lot``).
    """
    kill = Kill(
        id=wish.id, scope=account_scope(wish.account), flatten=True, reason="", at=now, by=wish.by, halted_at=Nanos(0)
    )
    orders = [
        msgspec.structs.replace(order, cause=CauseId(wish.cause))
        for order in to_close(kill, book, now, instruments, marks)
    ]
    left = [
        Conflict("less_than_a_lot", f"{p.instrument}: {abs(p.quantity):f} is less than can be traded in an order")
        for p in book.positions.values()
        if p.quantity and not Rules(instruments.get(p.instrument)).most(abs(p.quantity))
    ]
    others = [order for order in book.open.values() if not closes(order)]
    if others:
        where = ", ".join(sorted({order.instrument for order in others})[:_NAMED])
        text = (
            f"{len(others)} orders of {wish.account} may still fill ({where}), so nobody knows what to close there: it "
            "was left; ask again when they have ended"
        )
        left.append(Conflict("orders_are_open", text))
    return orders, left

"""What a session holds of one account, to be looked at from outside."""

from __future__ import annotations

from copy import copy
from decimal import Decimal

import msgspec

from trading.account_book import AccountBook
from trading.ids import Nanos
from trading.journal import Break
from trading.orders import Order
from trading.positions import Position


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """An account in its session's memory at a moment; the journal may be a commit behind."""

    epoch: int
    at: Nanos
    #: Open orders, and ended ones that are not forgotten yet.
    orders: tuple[Order, ...]
    positions: tuple[Position, ...]
    breaks: tuple[Break, ...]
    cash: Decimal | None
    connected: bool
    reconciled: bool
    #: Requests to the broker that are queued or unanswered, and orders and executions that are in doubt.
    unsettled: int


def memory_of(book: AccountBook, epoch: int, at: Nanos) -> Memory:
    """A copy of what ``book`` holds."""
    return Memory(
        epoch=epoch,
        at=at,
        orders=tuple(copy(order) for order in book.orders.values()),
        positions=tuple(copy(position) for position in book.positions.values()),
        breaks=tuple(book.breaks.values()),
        cash=book.cash,
        connected=book.connected,
        reconciled=book.reconciled,
        unsettled=sum(
            len(waiting)
            for waiting in (
                book.in_flight,
                book.exits,
                *book.queued.values(),
                book.missed,
                book.rising,
                book.cancel_again,
                book.unexplained,
            )
        ),
    )

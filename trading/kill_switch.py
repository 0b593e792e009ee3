"""The kill switch: what one kill asks of a session, decided from its core's state.

A kill halts its scope (the limit `HALTED`, told to sessions directly so that nobody waits for central risk), takes back
what was open when it was thrown, and closes what is held if asked.  All of it may be asked for again and again: orders
are closed under keys made from the kill's id, so a repetition closes nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

import msgspec

from trading.account_book import AccountBook
from trading.ids import AccountId, AlgoId, CauseId, ClientOrderId, InstrumentId, Nanos, UserId
from trading.limits import CLUSTER, account_scope, user_scope
from trading.orders import CancelOrder, Order, OrderType, PlaceOrder, Side

#: Orders that came in while the kill was on its way to the session count as open when it was thrown.
ON_ITS_WAY_NS: Final = 5_000_000_000

#: A position that cannot be closed is left, and shown, after so many orders.
MOST_ATTEMPTS: Final = 5


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """A kill in force."""

    #: ``kill-<hex>``; the cause of everything that follows from it.
    id: str
    scope: str
    flatten: bool
    reason: str
    at: Nanos
    by: str
    #: When the limit was set that halts the scope.
    halted_at: Nanos

    @property
    def algo(self) -> AlgoId | None:
        """The one algo that it is about."""
        level, _, who = self.scope.partition(":")
        return AlgoId(who) if level == "algo" else None

    def covers(self, user: UserId, account: AccountId) -> bool:
        """Whether it may be about orders of an account; of an algo's it always may."""
        return self.scope in (CLUSTER, user_scope(user), account_scope(account)) or self.algo is not None


def to_cancel(kill: Kill, book: AccountBook) -> list[CancelOrder]:
    """Open orders that the kill takes back and nobody is taking back yet."""
    return [
        CancelOrder(account=book.account, client_order_id=order.client_order_id, cause=CauseId(kill.id))
        for order in book.open.values()
        if not order.cancelling and _is_meant(kill, order)
    ]


def _is_meant(kill: Kill, order: Order) -> bool:
    if kill.algo is not None and order.algo != kill.algo:
        return False
    # What closes a position, and what a person places afterwards, is not the kill's to take back.
    return not order.client_order_id.startswith(kill.id) and order.created_at <= kill.at + ON_ITS_WAY_NS


def is_quiet(kill: Kill, book: AccountBook) -> bool:
    """Whether nothing that the kill takes back is open any more: only then is it known what is held."""
    return not any(_is_meant(kill, order) for order in book.open.values())


def to_close(kill: Kill, book: AccountBook, now: Nanos) -> list[PlaceOrder]:
    """Market orders that make flat what the kill is about; one for each holding and attempt."""
    orders: list[PlaceOrder] = []
    for instrument, quantity in sorted(_held(kill, book)):
        if any(o.instrument == instrument and o.client_order_id.startswith(kill.id) for o in book.open.values()):
            continue
        stem = f"{kill.id}-{instrument.replace(' ', '_').replace('&', '_').replace('/', '_')}"[:44]
        attempt = sum(1 for key in book.orders if key.startswith(f"{stem}.")) + 1
        if attempt > MOST_ATTEMPTS:
            continue
        orders.append(
            PlaceOrder(
                account=book.account,
                client_order_id=ClientOrderId(f"{stem}.{attempt}"),
                instrument=instrument,
                side=Side.SELL if quantity > 0 else Side.BUY,
                type=OrderType.MARKET,
                quantity=abs(quantity),
                reduce_only=True,
                algo=kill.algo,
                created_at=now,
                cause=CauseId(kill.id),
            )
        )
    return orders


def _held(kill: Kill, book: AccountBook) -> Iterable[tuple[InstrumentId, Decimal]]:
    if kill.algo is None:
        return [(p.instrument, p.quantity) for p in book.positions.values() if p.quantity]
    held = []
    for (algo, instrument), own in book.algo_positions.items():
        whole = book.positions.get(instrument)
        if algo != kill.algo or not own.quantity or whole is None or own.quantity * whole.quantity <= 0:
            continue
        # An exit never goes beyond what the account holds.
        held.append((instrument, own.quantity if abs(own.quantity) < abs(whole.quantity) else whole.quantity))
    return held

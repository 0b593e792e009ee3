"""The kill switch: what one kill asks of a session, decided from its core's state.

A kill halts its scope (the limit `HALTED`, told to sessions directly so that nobody waits for central risk), takes back
what was open when it was thrown, and closes what is held if asked, in the names of those who hold it.  All of it may be
asked for again and again: orders are closed under keys made from the kill's id, so a repetition closes nothing twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec

from trading.account_book import AccountBook
from trading.closing import Part, closes, in_one, parts_of, takes
from trading.ids import AccountId, AlgoId, CauseId, ClientOrderId, InstrumentId, Nanos, UserId
from trading.instruments import Instrument
from trading.limits import CLUSTER, account_scope, user_scope
from trading.orders import CancelOrder, Order, OrderState, OrderType, PlaceOrder, Side

#: Orders that came in while the kill was on its way to the session count as open when it was thrown.
ON_ITS_WAY_NS: Final = 5_000_000_000

#: A position that cannot be closed is left, and shown, after so many orders.
MOST_ATTEMPTS: Final = 5

#: Keys have 48 characters; so many are left for ``.<attempt>.<part>``.
_STEM: Final = 41
_PLAIN: Final = re.compile(r"[A-Z0-9:_-]+")
_REFUSED: Final = (OrderState.REJECTED, OrderState.DENIED)


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
    # What closes a position, for whichever kill, and what a person places afterwards, is not the kill's to take back.
    return not closes(order) and order.created_at <= kill.at + ON_ITS_WAY_NS


def is_quiet(kill: Kill, book: AccountBook) -> bool:
    """Whether nothing that the kill takes back is open any more: only then is it known what is held."""
    return not any(_is_meant(kill, order) for order in book.open.values())


def to_close(
    kill: Kill,
    book: AccountBook,
    now: Nanos,
    instruments: Mapping[InstrumentId, Instrument],
    marks: Mapping[InstrumentId, Decimal],
) -> list[PlaceOrder]:
    """Market orders that make flat what the kill is about: in each attempt one for everybody who holds an instrument.

    ``instruments`` and ``marks`` (last prices) tell what is too small an order for the venue (`closing.parts_of`).
    While another kill closes an instrument, nothing is added: what is left is closed once its orders have ended.
    """
    orders: list[PlaceOrder] = []
    being_closed = {order.instrument for order in book.open.values() if closes(order)}
    placed = [order for order in book.orders.values() if order.client_order_id.startswith(f"{kill.id}-")]
    for instrument, quantity in sorted((p.instrument, p.quantity) for p in book.positions.values() if p.quantity):
        before = [order for order in placed if order.instrument == instrument]
        stem = _stem(kill, instrument)
        attempt = max((_attempt(order, stem) for order in before), default=0) + 1
        if attempt > MOST_ATTEMPTS or instrument in being_closed:
            continue
        parts = _parts(kill, book, instrument, instruments, marks)
        if attempt == MOST_ATTEMPTS and len(parts) > 1 and any(order.state in _REFUSED for order in before):
            # What was refused in parts may be taken whole; being flat is worth more than whose books say so.
            parts = [in_one(parts)]
        orders += [
            PlaceOrder(
                account=book.account,
                client_order_id=ClientOrderId(f"{stem}.{attempt}" + (f".{number}" if len(parts) > 1 else "")),
                instrument=instrument,
                side=Side.SELL if quantity > 0 else Side.BUY,
                type=OrderType.MARKET,
                quantity=part,
                reduce_only=True,
                algo=algo,
                created_at=now,
                cause=CauseId(kill.id),
            )
            for number, (algo, part) in enumerate(parts, 1)
        ]
    return orders


def _parts(
    kill: Kill,
    book: AccountBook,
    instrument: InstrumentId,
    instruments: Mapping[InstrumentId, Instrument],
    marks: Mapping[InstrumentId, Decimal],
) -> list[Part]:
    whole = book.positions[instrument]
    if kill.algo is not None:
        own = book.algo_positions.get((kill.algo, instrument))
        if own is None or own.quantity * whole.quantity <= 0:
            return []
        # An exit never goes beyond what the account holds.
        return [(kill.algo, min(abs(own.quantity), abs(whole.quantity)))]
    rules = instruments.get(instrument)
    price = marks.get(instrument, whole.average_cost)
    return parts_of(book, instrument, lambda quantity: rules is None or takes(rules, quantity, price))


def _stem(kill: Kill, instrument: InstrumentId) -> str:
    """What the keys begin with that close an instrument: another for each, short enough, of what a key may hold.

    Where the instrument's own name is not that, a digest stands for it; no name of an instrument has a small "x" in it.
    """
    stem = f"{kill.id}-{instrument}"
    if _PLAIN.fullmatch(instrument) and len(stem) <= _STEM:
        return stem
    digest = hashlib.blake2b(instrument.encode(), digest_size=4).hexdigest()
    begin = re.sub(r"[^A-Z0-9:_-]", "_", instrument)
    return f"{kill.id}-{begin}"[: _STEM - len(digest) - 2] + f"-x{digest}"


def _attempt(order: Order, stem: str) -> int:
    found = re.match(r"\.(\d+)", order.client_order_id.removeprefix(stem))
    return int(found.group(1)) if found else 0

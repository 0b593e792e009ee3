"""The three books of a simulated run, for the invariants that it shares with real chaos."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from decimal import Decimal

from connectors.alpaca.symbols import instrument_of
from connectors.alpaca.venue_ledger import VenueOrder
from connectors.alpaca.wire import tag_of
from tests.simulation.world import POSITION_LIMIT, World
from tests.support.invariants import violations
from tests.support.three_books import Book, BookedFill, BookedOrder, Deed, LimitRule, Movement, Run
from trading.ids import AccountId, InstrumentId
from trading.journal import BreakKind
from trading.orders import EventKind, Order

_STATES = {"filled": "filled", "canceled": "cancelled", "expired": "expired", "rejected": "rejected"}


def judge(world: World) -> list[str]:
    """Everything that is wrong with a run that has come to rest."""
    return [*world.wrong, *violations(run_of(world)), *_sums(world)]


def _sums(world: World) -> Iterator[str]:
    """Positions and cash are the sums of their executions, whatever was accepted on the way."""
    held: dict[tuple[AccountId, InstrumentId], Decimal] = {}
    for event in world.journal.events:
        if event.kind is EventKind.FILLED and event.fill is not None:
            order = world.journal.orders[(event.account, event.client_order_id)]
            key = (order.account, order.instrument)
            held[key] = held.get(key, Decimal(0)) + order.side.sign * event.fill.quantity
    for key, position in world.journal.positions.items():
        if position.quantity != held.get(key, Decimal(0)):
            yield f"{key}: position {position.quantity}, its executions sum up to {held.get(key)}"
    for session in world.sessions.values():
        for account, book in session.core.accounts.items():
            journaled, mine = world.journal.cash_of(account), book.cash_book
            if mine is None or journaled is None:
                if mine is not journaled:
                    yield f"{account}: cash is {mine} in memory, {journaled} in the journal"
                continue
            if mine.amount != journaled.amount:
                yield f"{account}: our cash is {mine.amount} in memory, {journaled.amount} in the journal"
            if any(b.kind is BreakKind.CASH for b in book.breaks.values()):
                yield f"{account}: a break of cash is left"
            known = [b.difference or Decimal(0) for b in book.tolerated.values() if b.kind is BreakKind.CASH]
            off = world.venues[account].ledger.cash - mine.amount - sum(known, Decimal(0))
            if abs(off) > 2 * book.cash_slack.of(mine.amount):
                yield f"{account}: our cash is {mine.amount}, off by {off} from the broker's"


def _tolerated(world: World) -> dict[tuple[str, str], Decimal]:
    """Positions of the broker's that somebody explained, beside ours."""
    return {
        (str(account), str(item.instrument)): item.difference or Decimal(0)
        for session in world.sessions.values()
        for account, book in session.core.accounts.items()
        for item in book.tolerated.values()
        if item.kind is BreakKind.POSITION
    }


def run_of(world: World) -> Run:
    """A run as plain books."""
    movements = [m for account in world.venues for m in _movements(world, account)]
    movements.sort(key=lambda m: m.at)
    return Run(
        ledger=_ledger(world),
        journal=_journal(world),
        memory=_memory(world),
        told=world.told,
        movements=movements,
        limits=[LimitRule(scope="cluster", kind="position", value=POSITION_LIMIT)]
        if not world.counts["by hand"] and not world.counts["transfer"]
        else [],
        acts=world.acts,
        users=dict(world.user_of),
    )


def _chains(world: World, account: AccountId) -> list[list[VenueOrder]]:
    ledger = world.venues[account].ledger
    return [ledger.chain(order.id) for order in ledger.orders.values() if order.replaces is None]


def _head(chain: list[VenueOrder]) -> VenueOrder:
    return next((o for o in reversed(chain) if o.status != "replaced"), chain[-1])


def _ledger(world: World) -> Book:
    orders, fills = [], []
    for account, venue in world.venues.items():
        tags: dict[str, str] = {}
        for chain in _chains(world, account):
            head, root = _head(chain), chain[0]
            tags.update({o.id: tag_of(root.client_order_id) for o in chain})
            partly = "partially_filled" if head.filled_qty else "submitted"
            orders.append(
                BookedOrder(
                    account=account,
                    tag=tag_of(root.client_order_id),
                    instrument=instrument_of(root.symbol),
                    sign=root.side.sign,
                    quantity=head.qty,
                    filled_quantity=head.filled_qty,
                    average_price=head.filled_value / head.filled_qty if head.filled_qty else Decimal(0),
                    state=_STATES.get(head.status, partly),
                    broker_order_id=root.id,
                    at=root.arrived_at,
                )
            )
        fills += [
            BookedFill(
                account=account,
                execution_id=fill.id,
                tag=tags[fill.order_id],
                instrument=instrument_of(fill.symbol),
                sign=fill.side.sign,
                quantity=fill.qty,
                price=fill.price,
            )
            for fill in venue.ledger.executions
        ]
    beside = _tolerated(world)
    positions = {
        (str(account), str(instrument_of(symbol))): held.qty
        - beside.get((str(account), str(instrument_of(symbol))), Decimal(0))
        for account, venue in world.venues.items()
        for symbol, held in venue.ledger.positions.items()
    }
    cash = {str(account): venue.ledger.cash for account, venue in world.venues.items()}
    return Book(orders=orders, fills=fills, positions=positions, cash=cash)


def _journal(world: World) -> Book:
    journal = world.journal
    fills = []
    for event in journal.events:
        if event.kind is EventKind.FILLED and event.fill is not None and not _is_ours(event.fill.execution_id):
            order = journal.orders[(event.account, event.client_order_id)]
            fills.append(
                BookedFill(
                    account=event.account,
                    execution_id=event.fill.execution_id,
                    tag=order.tag,
                    instrument=order.instrument,
                    sign=order.side.sign,
                    quantity=event.fill.quantity,
                    price=event.fill.price,
                )
            )
    return Book(
        orders=[
            _booked(order, world.committed.get(order.key, 0))
            for order in journal.orders.values()
            if not _is_ours(order.tag)
        ],
        fills=fills,
        positions={(p.account, p.instrument): p.quantity for p in journal.positions.values()},
    )


def _memory(world: World) -> Book:
    books = [book for session in world.sessions.values() for book in session.core.accounts.values()]
    return Book(
        orders=[_booked(order) for book in books for order in book.orders.values() if not _is_ours(order.tag)],
        positions={(b.account, i): p.quantity for b in books for i, p in b.positions.items()},
        cash={b.account: b.cash for b in books if b.cash is not None},
    )


def _is_ours(text: str) -> bool:
    """Whether a tag or an execution is of an accepted break: the broker has none like it."""
    return text.startswith("adjustment:")


def _booked(order: Order, at: int = 0) -> BookedOrder:
    return BookedOrder(
        account=order.account,
        tag=order.tag,
        instrument=order.instrument,
        sign=order.side.sign,
        quantity=order.quantity,
        filled_quantity=order.filled_quantity,
        average_price=order.average_price,
        state=str(order.state),
        broker_order_id=order.broker_order_id or "",
        client_order_id=order.client_order_id,
        algo=order.algo or "",
        at=at,
    )


def _movements(world: World, account: AccountId) -> list[Movement]:
    found = []
    tags: dict[str, str] = {}
    for chain in _chains(world, account):
        root, head = chain[0], _head(chain)
        tag = tag_of(root.client_order_id) or root.id
        tags.update({o.id: tag for o in chain})
        same = {
            "account": str(account),
            "tag": tag,
            "instrument": str(instrument_of(root.symbol)),
            "sign": root.side.sign,
        }
        found.append(Movement(at=root.arrived_at, deed=Deed.ARRIVED, quantity=root.qty, **same))  # type: ignore[arg-type]
        for before, after in itertools.pairwise(chain):
            if before.replaced_at is not None:
                found.append(
                    Movement(at=before.replaced_at, deed=Deed.RESIZED, quantity=after.qty, **same)  # type: ignore[arg-type]
                )
        ends = [t for t in (head.canceled_at, head.expired_at, head.failed_at, head.filled_at) if t is not None]
        if head.is_ended and ends:
            found.append(Movement(at=max(ends), deed=Deed.ENDED, **same))  # type: ignore[arg-type]
    for fill in world.venues[account].ledger.executions:
        found.append(
            Movement(
                at=fill.at,
                deed=Deed.FILLED,
                instrument=instrument_of(fill.symbol),
                account=account,
                tag=tags[fill.order_id],
                sign=fill.side.sign,
                quantity=fill.qty,
            )
        )
    rank = {Deed.ARRIVED: 0, Deed.RESIZED: 1, Deed.FILLED: 2, Deed.ENDED: 3}
    found.sort(key=lambda m: (m.at, rank[m.deed]))
    return found

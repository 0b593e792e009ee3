"""Our side of a run: the journal as PostgreSQL has it, and the sessions' memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from tests.chaos.truth import SIGNS
from tests.support.deck import DeckUnderTest
from tests.support.three_books import Act, Book, BookedFill, BookedOrder

D = Decimal
_COMMITTED = "(extract(epoch FROM pg_xact_commit_timestamp({}.xmin)) * 1000000000)::bigint"


def journal(deck: DeckUnderTest, accounts: Sequence[str], since: int) -> Book:
    """The journal of these accounts: orders made and fills since then (UTC ns), positions as they are now.

    An order's time is when the transaction of its first event was committed.
    """
    values = {"accounts": list(accounts), "since": since}
    rows = deck.dicts(
        f"""
        SELECT o.*, (
            SELECT {_COMMITTED.format("e")} FROM order_events e
            WHERE e.account = o.account AND e.client_order_id = o.client_order_id ORDER BY e.number LIMIT 1
        ) AS committed_at
        FROM orders o WHERE o.account = ANY(%(accounts)s) AND o.created_at >= %(since)s
        """,
        values,
    )
    fills = deck.dicts(
        """
        SELECT f.*, o.tag FROM fills f JOIN orders o USING (account, client_order_id)
        WHERE f.account = ANY(%(accounts)s) AND f.at >= %(since)s
        """,
        values,
    )
    held = "SELECT * FROM positions WHERE account = ANY(%(accounts)s) AND quantity <> 0"
    return Book(
        orders=[_order(row, row["committed_at"]) for row in rows],
        fills=[
            BookedFill(
                account=row["account"],
                execution_id=row["execution_id"],
                tag=row["tag"],
                instrument=row["instrument"],
                sign=SIGNS[row["side"]],
                quantity=row["quantity"],
                price=row["price"],
            )
            for row in fills
        ],
        positions={(row["account"], row["instrument"]): row["quantity"] for row in deck.dicts(held, values)},
    )


def writers(deck: DeckUnderTest, users: Sequence[str]) -> list[Act]:
    """Which epochs of these users' sessions wrote to the journal, in order of commit."""
    rows = deck.rows(
        f"SELECT owner, epoch, batch_id, {_COMMITTED.format('b')} FROM journal_batches b WHERE owner = ANY(%(owners)s)",
        {"owners": [f"session/{user}" for user in users]},
    )
    return [
        Act(where="journal", owner=owner, epoch=epoch, at=at, what=f"batch {batch}") for owner, epoch, batch, at in rows
    ]


def memory(views: Mapping[str, dict[str, Any]], since: int) -> Book:
    """Sessions' memory of orders made since then (UTC ns): account -> its view, as plain values."""
    orders = [
        _order({**order, **{f: D(order.get(f, 0)) for f in ("quantity", "filled_quantity", "average_price")}}, 0)
        for view in views.values()
        for order in view["orders"]
        if order["created_at"] >= since
    ]
    positions = {
        (account, p["instrument"]): D(p["quantity"])
        for account, view in views.items()
        for p in view["positions"]
        if D(p["quantity"])
    }
    cash = {account: D(view["cash"]) for account, view in views.items() if view["cash"] is not None}
    return Book(orders=orders, positions=positions, cash=cash)


def _order(row: Mapping[str, Any], at: int) -> BookedOrder:
    return BookedOrder(
        account=row["account"],
        tag=row["tag"],
        instrument=row["instrument"],
        sign=SIGNS[row["side"]],
        quantity=row["quantity"],
        filled_quantity=row["filled_quantity"],
        average_price=row["average_price"],
        state=row["state"],
        broker_order_id=row.get("broker_order_id") or "",
        client_order_id=row["client_order_id"],
        algo=row.get("algo") or "",
        at=at,
    )

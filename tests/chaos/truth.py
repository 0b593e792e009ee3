"""The broker's side of a run: its ledger as a `Book`, and what happened there step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import httpx
import msgspec

from connectors.alpaca.wire import nanos, tag_of
from tests.support.deck import DeckUnderTest
from tests.support.three_books import ZERO, Act, Book, BookedFill, BookedOrder, Deed, Movement

D = Decimal
SIGNS = {"buy": 1, "sell": -1}
#: Alpaca's words for ends, in ours.
_ENDS = {"filled": "filled", "canceled": "cancelled", "expired": "expired", "rejected": "rejected"}
_ORDER = {Deed.MARKED: 0, Deed.ARRIVED: 1, Deed.RESIZED: 2, Deed.FILLED: 3, Deed.ENDED: 4}


@dataclass(slots=True)
class Ledger:
    """What a broker's books say at one moment."""

    book: Book
    movements: list[Movement]


class Truth(Protocol):
    """A broker that can be asked for the truth."""

    def ledger(self, since: int) -> Ledger:
        """Orders that arrived and executions since then (UTC ns); positions and cash as they are now."""


class Trace(msgspec.Struct):
    """A line of the trace that connections leave (`storage.crash_points.trace`)."""

    at: int
    what: str
    account: str = ""
    lane: str = ""
    session_epoch: int = 0
    connection_epoch: int = 0
    tickets: list[dict[str, Any]] = []


class Traces:
    """All that connections have handed over.  A line cut off by a kill is left out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._decoder = msgspec.json.Decoder(Trace)
        self._read_to: dict[Path, int] = {}
        self._found: list[Trace] = []

    def since(self, since: int) -> list[Trace]:
        """What was handed over since then (UTC ns), in order of time."""
        for path in self._folder.glob("trace-*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read_to.get(path, 0))
                whole, end, _ = file.read().rpartition(b"\n")
            self._read_to[path] = self._read_to.get(path, 0) + len(whole) + len(end)
            self._found += [self._decoder.decode(line) for line in whole.split(b"\n") if line]
        self._found.sort(key=lambda trace: trace.at)
        return [trace for trace in self._found if trace.at >= since]


def acts_of(found: Sequence[Trace], users: Mapping[str, str]) -> list[Act]:
    """Who spoke to brokers, under which epochs."""
    acts = []
    for trace in found:
        if trace.what == "broker_call" and trace.account in users:
            what = f"{trace.lane} {' '.join(ticket['tag'] for ticket in trace.tickets)}"
            where = f"broker of {trace.account}"
            acts.append(Act(where=where, owner="session", epoch=trace.session_epoch, at=trace.at, what=what))
            acts.append(Act(where=where, owner="connection", epoch=trace.connection_epoch, at=trace.at, what=what))
    return acts


class PaperTruth:
    """Paper accounts: their ledger is in the deck's own database.

    It does not keep when an order arrived; the moment before its hand-over stands for that.  Sizes of paper
    orders are not changed by the driver, so no step is missing here.
    """

    def __init__(self, deck: DeckUnderTest, accounts: Sequence[str], traces: Traces) -> None:
        self._deck = deck
        self._accounts = list(accounts)
        self._traces = traces

    def ledger(self, since: int) -> Ledger:
        values = {"accounts": self._accounts, "since": since}
        sent = {
            (trace.account, ticket["tag"]): trace.at
            for trace in reversed(self._traces.since(since))
            if trace.lane == "place"
            for ticket in trace.tickets
        }
        orders, movements = [], []
        for row in self._deck.dicts(
            "SELECT * FROM paper_orders WHERE account = ANY(%(accounts)s) AND at >= %(since)s", values
        ):
            at = sent.get((row["account"], row["tag"]), 0)
            order = BookedOrder(
                account=row["account"],
                tag=row["tag"],
                instrument=row["instrument"],
                sign=SIGNS[row["side"]],
                quantity=row["quantity"],
                filled_quantity=row["filled_quantity"],
                average_price=row["average_price"],
                state=row["state"],
                broker_order_id=row["broker_order_id"],
                at=at,
            )
            orders.append(order)
            movements.append(_moved(order, Deed.ARRIVED, at, order.quantity))
            if row["state"] in ("cancelled", "rejected", "expired"):
                movements.append(_moved(order, Deed.ENDED, row["at"]))
        fills = []
        for row in self._deck.dicts(
            "SELECT * FROM paper_fills WHERE account = ANY(%(accounts)s) AND at >= %(since)s", values
        ):
            fill = BookedFill(
                account=row["account"],
                execution_id=row["execution_id"],
                tag=row["tag"],
                instrument=row["instrument"],
                sign=SIGNS[row["side"]],
                quantity=row["quantity"],
                price=row["price"],
            )
            fills.append(fill)
            # Paper fills bear the time of the tick that made them, which an order may have met later.
            arrived = sent.get((row["account"], row["tag"]), 0)
            movements.append(_filled(fill, max(row["at"], arrived)))
        held = "SELECT * FROM paper_positions WHERE account = ANY(%(accounts)s) AND quantity <> 0"
        cash = "SELECT * FROM paper_cash WHERE account = ANY(%(accounts)s)"
        book = Book(
            orders=orders,
            fills=fills,
            positions={(r["account"], r["instrument"]): r["quantity"] for r in self._deck.dicts(held, values)},
            cash={r["account"]: r["cash"] for r in self._deck.dicts(cash, values)},
        )
        return Ledger(book, in_order(movements))


class AlpacaTruth:
    """Accounts at an Alpaca simulator: ``GET /simulator/ledger``."""

    def __init__(self, url: str, accounts: Mapping[str, str]) -> None:
        """``accounts``: number at Alpaca -> our account."""
        self._url = url
        self._accounts = dict(accounts)

    def ledger(self, since: int) -> Ledger:
        said = httpx.get(f"{self._url}/simulator/ledger", params={"since": since}, timeout=30).content
        dump = msgspec.json.decode(said, type=dict[str, dict[str, Any]])
        whole = Ledger(Book(orders=[], fills=[], positions={}, cash={}), [])
        for number, account in self._accounts.items():
            _read_alpaca(account, dump[number], whole)
        whole.movements = in_order(whole.movements)
        return whole


def _read_alpaca(account: str, dump: dict[str, Any], whole: Ledger) -> None:
    rows = {row["id"]: row for row in dump["orders"]}
    tags: dict[str, BookedOrder] = {}
    executed = [dict(fill) for fill in dump["executions"]]
    orders: list[BookedOrder] = []
    for row in rows.values():
        if row["replaces"] is not None:
            continue
        chain = [row]
        while chain[-1]["replaced_by"] is not None:
            chain.append(rows[chain[-1]["replaced_by"]])
        last = chain[-1]
        ids = {link["id"] for link in chain}
        mine = [fill for fill in executed if fill["order_id"] in ids]
        filled = sum((D(fill["qty"]) for fill in mine), D(0))
        value = sum((D(fill["qty"]) * D(fill["price"]) for fill in mine), D(0))
        order = BookedOrder(
            account=account,
            tag=tag_of(row["client_order_id"]),
            instrument=f"ALPACA:{row['symbol']}",
            sign=SIGNS[row["side"]],
            quantity=D(last["qty"]),
            filled_quantity=filled,
            average_price=value / filled if filled else D(0),
            state=_ENDS.get(last["status"], "partially_filled" if filled else "submitted"),
            broker_order_id=row["id"],
            at=row["arrived_at_ns"],
        )
        orders.append(order)
        tags |= dict.fromkeys(ids, order)
        whole.movements.append(_moved(order, Deed.ARRIVED, order.at, D(row["qty"])))
        whole.movements += [_moved(order, Deed.RESIZED, x["arrived_at_ns"], D(x["qty"])) for x in chain[1:]]
        if order.state in ("cancelled", "rejected", "expired"):
            ended = next(last[f] for f in ("canceled_at", "failed_at", "expired_at") if last[f] is not None)
            whole.movements.append(_moved(order, Deed.ENDED, nanos(ended)))
    fills = [
        BookedFill(
            account=account,
            execution_id=fill["id"],
            tag=tags[fill["order_id"]].tag,
            instrument=f"ALPACA:{fill['symbol']}",
            sign=SIGNS[fill["side"]],
            quantity=D(fill["qty"]),
            price=D(fill["price"]),
        )
        for fill in executed
    ]
    whole.movements += [_filled(fill, row["at"]) for fill, row in zip(fills, executed, strict=True)]
    book = whole.book
    book.orders = [*book.orders, *orders]
    book.fills = [*(book.fills or ()), *fills]
    held = {(account, f"ALPACA:{symbol}"): D(qty) for symbol, qty in dump["positions"].items()}
    book.positions = {**book.positions, **held}
    book.cash = {**book.cash, account: D(dump["cash"])}


def in_order(movements: list[Movement]) -> list[Movement]:
    """By time; at the same instant an order arrives before it fills and fills before it ends."""
    return sorted(movements, key=lambda m: (m.at, _ORDER[m.deed]))


def _moved(order: BookedOrder, deed: Deed, at: int, quantity: Decimal = ZERO) -> Movement:
    return Movement(
        at=at,
        deed=deed,
        instrument=order.instrument,
        account=order.account,
        tag=order.tag or order.broker_order_id,
        sign=order.sign,
        quantity=quantity,
    )


def _filled(fill: BookedFill, at: int) -> Movement:
    return Movement(
        at=at,
        deed=Deed.FILLED,
        instrument=fill.instrument,
        account=fill.account,
        tag=fill.tag,
        sign=fill.sign,
        quantity=fill.quantity,
        price=fill.price,
    )

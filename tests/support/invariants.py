"""What must be true of every run, however ugly: three books in, a list of violations out.

Pure functions over the plain data of `three_books`, so the deterministic simulation and the chaos on a real deck
are judged by the same code.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final

from tests.support.limit_replay import check_limits
from tests.support.three_books import (
    OPEN_STATES,
    ZERO,
    Act,
    Book,
    BookedFill,
    BookedOrder,
    Deed,
    Movement,
    Outcome,
    Run,
    Told,
)

#: How an order may stand in the journal that no broker ever had.
NEVER_THERE: Final = frozenset({"denied", "rejected", "cancelled", "expired"})
#: Averages are sums divided in Decimal's 28 digits, in whatever order the fills came.
_ROUNDING: Final = Decimal("1e-18")


def violations(run: Run) -> list[str]:
    """Everything that is not as it must be, in words; [] is what we want."""
    return [
        *check_told(run.told, run.journal, run.ledger),
        *check_asked_for(run.intents, run.journal),
        *check_one_each(run.ledger, run.journal),
        *check_written_before_sent(run.ledger, run.journal),
        *check_orders_agree(run.ledger, run.journal, "journal"),
        *check_fills_agree(run.ledger, run.journal),
        *check_holdings_agree(run.ledger, run.journal, "journal"),
        *(check_memory(run.ledger, run.journal, run.memory) if run.memory is not None else ()),
        *check_limits(run.movements, run.limits, run.journal.orders, run.users, run.opening),
        *check_replaced(run.movements, run.journal),
        *check_epochs(run.acts),
        *(f"audit: {found}" for found in run.audit),
    ]


# What callers were told


def check_told(told: Sequence[Told], journal: Book, ledger: Book) -> Iterator[str]:
    """An acknowledged intent is exactly one order with its content; a refused one is none."""
    rows: dict[tuple[str, str], list[BookedOrder]] = defaultdict(list)
    for order in journal.orders:
        rows[(order.account, order.client_order_id)].append(order)
    at_broker = {(order.account, order.tag) for order in ledger.orders}
    by_key: dict[tuple[str, str], list[Told]] = defaultdict(list)
    for each in told:
        by_key[(each.account, each.client_order_id)].append(each)
    for key, answers in by_key.items():
        name = f"{key[0]}/{key[1]}"
        mine = rows.get(key, [])
        if len(mine) > 1:
            yield f"{name}: {len(mine)} orders in the journal for one intent"
        acknowledged = [a for a in answers if a.outcome is Outcome.ACKNOWLEDGED]
        if acknowledged and not mine:
            yield f"{name}: acknowledged to its caller ({acknowledged[0].state}), but not in the journal"
        tags = {a.tag for a in acknowledged if a.tag}
        if len(tags) > 1:
            yield f"{name}: one intent was answered with {len(tags)} different orders"
        for order in mine[:1]:
            for a in acknowledged:
                if a.tag and a.tag != order.tag:
                    yield f"{name}: acknowledged as {a.tag}, journaled as {order.tag}"
                if a.sign and (a.instrument, a.sign) != (order.instrument, order.sign):
                    told_as = f"acknowledged {a.instrument} {a.sign:+d}"
                    yield f"{name}: {told_as}, journaled {order.instrument} {order.sign:+d}"
                if a.state == "denied" and order.state != "denied":
                    yield f"{name}: its caller was told denied, the journal says {order.state}"
        if all(a.outcome is Outcome.REFUSED for a in answers):
            for order in mine:
                if (order.account, order.tag) in at_broker:
                    yield f"{name}: refused to its caller, yet an order {order.tag} is at the broker"


def check_asked_for(intents: Collection[tuple[str, str]] | None, journal: Book) -> Iterator[str]:
    """No order that nobody asked for.  Algos answer for their own, and those placed by hand are the broker's."""
    if intents is None:
        return
    for order in journal.orders:
        by_hand = order.tag.startswith("broker:")
        if not order.algo and not by_hand and (order.account, order.client_order_id) not in intents:
            yield f"{_name(order)}: nobody asked for it"


# The broker against the journal


def check_one_each(ledger: Book, journal: Book) -> Iterator[str]:
    """Each tag at most one order at the broker; no order there that the journal lacks; no key twice."""
    for (account, tag), count in Counter((o.account, o.tag) for o in ledger.orders if o.tag).items():
        if count > 1:
            yield f"{account}: {count} orders at the broker with tag {tag}"
    for (account, key), count in Counter((o.account, o.client_order_id) for o in journal.orders).items():
        if count > 1:
            yield f"{account}/{key}: {count} rows in the journal"
    matched = {id(theirs) for theirs, _ in _pairs(ledger, journal)}
    for order in ledger.orders:
        if id(order) not in matched:
            yield f"{_name(order)} ({order.state}): at the broker without a row in the journal"


def check_replaced(movements: Iterable[Movement], journal: Book) -> Iterator[str]:
    """An order that takes another's place arrives at the broker only once that one has ended there."""
    keys = {(order.account, order.tag): order.client_order_id for order in journal.orders}
    arrived: dict[tuple[str, str], int] = {}
    ended: dict[tuple[str, str], int] = {}
    for m in movements:
        key = (m.account, keys.get((m.account, m.tag), ""))
        if m.deed is Deed.ARRIVED:
            arrived.setdefault(key, m.at)
        elif m.deed is Deed.ENDED:
            ended[key] = m.at
    for (account, key), at in arrived.items():
        root, tilde, number = key.partition("~")
        if not tilde:
            continue
        before = root if number == "2" else f"{root}~{int(number) - 1}"
        if ended.get((account, before), at + 1) > at:
            yield f"{account}/{key} arrived at the broker while {before} was alive there"


def check_written_before_sent(ledger: Book, journal: Book) -> Iterator[str]:
    """The row of an order was committed before the order arrived at the broker."""
    for theirs, ours in _pairs(ledger, journal):
        if theirs.tag and ours.at > theirs.at:
            yield f"{_name(ours)}: arrived at the broker at {theirs.at}, its row was committed at {ours.at}"


def check_orders_agree(ledger: Book, ours: Book, whose: str) -> Iterator[str]:
    """State, size, filled quantity and average price of every order are the broker's."""
    there = set()
    for theirs, mine in _pairs(ledger, ours):
        there.add(id(mine))
        name = f"{_name(mine)} in the {whose}"
        if (mine.state in OPEN_STATES) != (theirs.state in OPEN_STATES):
            yield f"{name} is {mine.state}, at the broker {theirs.state}"
        elif mine.state not in OPEN_STATES and mine.state != theirs.state:
            yield f"{name} ended {mine.state}, at the broker {theirs.state}"
        if mine.quantity != theirs.quantity:
            yield f"{name}: quantity {mine.quantity}, at the broker {theirs.quantity}"
        if mine.filled_quantity != theirs.filled_quantity:
            yield f"{name}: filled {mine.filled_quantity}, at the broker {theirs.filled_quantity}"
        elif not _about(mine.average_price, theirs.average_price):
            yield f"{name}: average {mine.average_price}, at the broker {theirs.average_price}"
        if (mine.instrument, mine.sign) != (theirs.instrument, theirs.sign):
            yield f"{name}: {mine.instrument} {mine.sign:+d}, at the broker {theirs.instrument} {theirs.sign:+d}"
    for mine in ours.orders:
        if id(mine) in there:
            continue
        if mine.state not in NEVER_THERE:
            yield f"{_name(mine)} in the {whose} is {mine.state}, but the broker has no such order"
        elif mine.filled_quantity != 0:
            yield f"{_name(mine)} in the {whose} has filled {mine.filled_quantity}, but the broker has no such order"


def check_fills_agree(ledger: Book, journal: Book) -> Iterator[str]:
    """The same executions on both sides, each once, with the same content."""
    if ledger.fills is None or journal.fills is None:
        return
    theirs, ours = (_by_execution(book.fills or ()) for book in (ledger, journal))
    for whose, found in (("ledger", theirs), ("journal", ours)):
        for key, fills in found.items():
            if len(fills) > 1:
                yield f"{key[0]}: execution {key[1]} is {len(fills)} times in the {whose}"
    for key in theirs.keys() - ours.keys():
        yield f"{key[0]}: execution {_said(theirs[key][0])} is not in the journal"
    for key in ours.keys() - theirs.keys():
        yield f"{key[0]}: execution {_said(ours[key][0])} is in the journal only"
    for key in theirs.keys() & ours.keys():
        a, b = ours[key][0], theirs[key][0]
        if (a.instrument, a.sign, a.quantity, a.price) != (b.instrument, b.sign, b.quantity, b.price):
            yield f"{key[0]}: execution {_said(a)} in the journal, {_said(b)} at the broker"


def check_holdings_agree(ledger: Book, ours: Book, whose: str) -> Iterator[str]:
    """Positions are the broker's, and so is cash where both sides know it."""
    for key in sorted({*ledger.positions, *ours.positions}):
        theirs, mine = ledger.positions.get(key, ZERO), ours.positions.get(key, ZERO)
        if theirs != mine:
            yield f"{key[0]}: position of {key[1]} is {mine} in the {whose}, {theirs} at the broker"
    for account in sorted(ledger.cash.keys() & ours.cash.keys()):
        if ledger.cash[account] != ours.cash[account]:
            yield f"{account}: cash is {ours.cash[account]} in the {whose}, {ledger.cash[account]} at the broker"


def check_memory(ledger: Book, journal: Book, memory: Book) -> Iterator[str]:
    """What sessions hold in memory is what the journal and the broker have.

    A session forgets what ended long ago, so an order may be missing there only if it has ended.
    """
    remembered = {(o.account, o.client_order_id): o for o in memory.orders}
    rows = {(o.account, o.client_order_id): o for o in journal.orders}
    for key, row in rows.items():
        mine = remembered.get(key)
        if mine is None:
            if row.state in OPEN_STATES:
                yield f"{_name(row)} is {row.state} in the journal, and its session does not know it"
        elif (mine.state, mine.quantity, mine.filled_quantity) != (row.state, row.quantity, row.filled_quantity):
            yield (
                f"{_name(row)}: {mine.state} {mine.filled_quantity} of {mine.quantity} in memory, "
                f"{row.state} {row.filled_quantity} of {row.quantity} in the journal"
            )
    for key in remembered.keys() - rows.keys():
        yield f"{_name(remembered[key])} is in a session's memory only"
    yield from check_orders_agree(ledger, memory, "memory")
    yield from check_holdings_agree(ledger, memory, "memory")


# Fencing


def check_epochs(acts: Sequence[Act]) -> Iterator[str]:
    """Once a newer epoch of an owner has acted somewhere, no older one acts there again."""
    newest: dict[tuple[str, str], Act] = {}
    for act in sorted(acts, key=lambda a: a.at):
        known = newest.get((act.where, act.owner))
        if known is not None and act.epoch < known.epoch:
            yield (
                f"{act.where}: {act.owner} acted under the old epoch {act.epoch} at {act.at} ({act.what}), "
                f"after epoch {known.epoch} had at {known.at}"
            )
        else:
            newest[(act.where, act.owner)] = act


# Small things


def _pairs(ledger: Book, ours: Book) -> Iterator[tuple[BookedOrder, BookedOrder]]:
    """Every order of the broker that we have too: by tag, one placed by hand by the broker's id."""
    by_tag = {(o.account, o.tag): o for o in ours.orders}
    by_id = {(o.account, o.broker_order_id): o for o in ours.orders if o.broker_order_id}
    for theirs in ledger.orders:
        mine = by_tag.get((theirs.account, theirs.tag)) if theirs.tag else None
        mine = mine or by_id.get((theirs.account, theirs.broker_order_id))
        if mine is not None:
            yield theirs, mine


def _by_execution(fills: Iterable[BookedFill]) -> dict[tuple[str, str], list[BookedFill]]:
    found: dict[tuple[str, str], list[BookedFill]] = defaultdict(list)
    for fill in fills:
        found[(fill.account, fill.execution_id)].append(fill)
    return found


def _name(order: BookedOrder) -> str:
    return f"{order.account}/{order.client_order_id or order.tag or order.broker_order_id}"


def _said(fill: BookedFill) -> str:
    return f"{fill.execution_id} ({fill.instrument} {fill.sign * fill.quantity} at {fill.price})"


def _about(a: Decimal, b: Decimal) -> bool:
    return a == b or abs(a - b) <= _ROUNDING * max(abs(a), abs(b))

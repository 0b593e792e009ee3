"""The report of a day: an account's orders, executions, positions and cash against the broker's, and its breaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from trading.broker import BrokerFill, BrokerReport
from trading.ids import AccountId, ClientOrderId, ExecutionId, InstrumentId, Nanos, adopted_tag
from trading.journal import Break
from trading.orders import ZERO, Order, OrderState

DAY_NS: Final = 24 * 3600 * 1_000_000_000
HOUR_NS: Final = 3600 * 1_000_000_000
#: At most this many differences of a kind are listed; all are counted.
MOST_LISTED: Final = 1000
#: As in `trading.session_breaks`, which makes them.
_ADJUSTMENTS: Final = ("adjust-", "adjustment:")


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that the two sides do not say alike.  "" where a side does not have it."""

    id: str
    instrument: InstrumentId
    ours: str
    theirs: str


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How many of a kind agree, how many do not, and which (the first thousand)."""

    matched: int
    differing: int
    differences: tuple[Difference, ...] = ()


class CashLine(msgspec.Struct, frozen=True, kw_only=True):
    """Cash on both sides when the report was made; ``not_compared`` says why it was not, where it was not."""

    ours: Decimal | None
    theirs: Decimal
    currency: str
    agrees: bool | None
    not_compared: str = ""


class DayReport(msgspec.Struct, frozen=True, kw_only=True):
    """One day of an account.  Orders and executions are of the day, positions and cash of when it was made."""

    account: AccountId
    #: The date in UTC at which it begins, ISO 8601.
    day: str
    starts_at: Nanos
    ends_at: Nanos
    made_at: Nanos
    orders: Tally
    executions: Tally
    positions: Tally
    cash: CashLine
    #: Orders of the day that were placed elsewhere.
    adopted: tuple[ClientOrderId, ...]
    #: What accepted breaks have booked in the day.
    adjustments: int
    #: Breaks that were open at some time of the day.
    breaks: tuple[Break, ...]


class OurFill(msgspec.Struct, frozen=True, kw_only=True):
    """An execution in the journal."""

    execution_id: ExecutionId
    instrument: InstrumentId
    quantity: Decimal
    price: Decimal


def last_day(now: Nanos, boundary_ns: int) -> tuple[Nanos, Nanos]:
    """When the last whole day before ``now`` began and ended; days begin ``boundary_ns`` after midnight UTC."""
    ends = Nanos((now - boundary_ns) // DAY_NS * DAY_NS + boundary_ns)
    return Nanos(ends - DAY_NS), ends


def day_report(
    account: AccountId,
    day: tuple[str, Nanos, Nanos],
    made_at: Nanos,
    report: BrokerReport,
    orders: Sequence[Order],
    fills: Sequence[OurFill],
    positions: tuple[int, Mapping[InstrumentId, tuple[Decimal, Decimal]]],
    cash: CashLine,
    breaks: Iterable[Break],
) -> DayReport:
    """Compare a day: its name, beginning and end.

    ``orders`` were created in it, ``fills`` executed; ``report`` reaches back to its beginning.  ``positions`` is how
    many agree, and those that do not (ours, theirs).
    """
    name, starts, ends = day
    agreeing, differ = positions
    listed = [
        Difference(id=instrument, instrument=instrument, ours=str(ours), theirs=str(theirs))
        for instrument, (ours, theirs) in sorted(differ.items())
    ]
    return DayReport(
        account=account,
        day=name,
        starts_at=starts,
        ends_at=ends,
        made_at=made_at,
        orders=_compare_orders(orders, report, starts, ends),
        executions=_compare_executions(fills, [f for f in report.fills if starts <= f.fill.at < ends]),
        positions=Tally(matched=agreeing, differing=len(listed), differences=tuple(listed[:MOST_LISTED])),
        cash=cash,
        adopted=tuple(o.client_order_id for o in orders if o.client_order_id.startswith("adopted-")),
        adjustments=sum(f.execution_id.startswith(_ADJUSTMENTS) for f in fills),
        breaks=tuple(b for b in breaks if b.opened_at < ends and (not b.resolved_at or b.resolved_at >= starts)),
    )


def _compare_orders(orders: Sequence[Order], report: BrokerReport, starts: Nanos, ends: Nanos) -> Tally:
    by_tag = {row.tag: row for row in report.orders if row.tag}
    by_id = {row.broker_order_id: row for row in report.orders}
    matched, differences, seen = 0, list[Difference](), set[str]()
    for order in orders:
        if order.state is OrderState.DENIED or order.client_order_id.startswith(_ADJUSTMENTS):
            continue
        theirs = by_tag.get(order.tag)
        if theirs is None and order.broker_order_id is not None:
            theirs = by_id.get(order.broker_order_id)
        ours = f"{order.state} {order.filled_quantity} of {order.quantity}"
        if theirs is None:
            # What was refused, or proven never to have arrived, the broker need not have.
            if order.state is OrderState.REJECTED:
                matched += 1
            else:
                differences.append(
                    Difference(id=order.client_order_id, instrument=order.instrument, ours=ours, theirs="")
                )
            continue
        seen.add(theirs.broker_order_id)
        if (theirs.state.is_final, theirs.filled_quantity) == (order.state.is_final, order.filled_quantity):
            matched += 1
        else:
            said = f"{theirs.state} {theirs.filled_quantity} of {theirs.quantity}"
            differences.append(
                Difference(id=order.client_order_id, instrument=order.instrument, ours=ours, theirs=said)
            )
    known = {order.tag for order in orders}
    for row in report.orders:
        is_known = row.broker_order_id in seen or row.tag in known or adopted_tag(row.broker_order_id) in known
        if starts <= row.at < ends and not row.tag and not is_known and (not row.state.is_final or row.filled_quantity):
            said = f"{row.state} {row.filled_quantity} of {row.quantity}"
            differences.append(Difference(id=row.broker_order_id, instrument=row.instrument, ours="", theirs=said))
    return Tally(matched=matched, differing=len(differences), differences=tuple(differences[:MOST_LISTED]))


def _compare_executions(fills: Sequence[OurFill], theirs: Sequence[BrokerFill]) -> Tally:
    ours = {f.execution_id: f for f in fills if not f.execution_id.startswith(_ADJUSTMENTS)}
    there = {f.fill.execution_id: f for f in theirs}
    matched, differences = 0, list[Difference]()
    for id_ in sorted({*ours, *there}):
        mine, said = ours.get(id_), there.get(id_)
        left = "" if mine is None else f"{mine.quantity} at {mine.price}"
        right = "" if said is None else f"{said.fill.quantity} at {said.fill.price}"
        same = (
            mine is not None
            and said is not None
            and (mine.quantity, mine.price) == (said.fill.quantity, said.fill.price)
        )
        if same:
            matched += 1
        else:
            instrument = mine.instrument if mine is not None else there[id_].instrument
            differences.append(Difference(id=id_, instrument=instrument, ours=left, theirs=right))
    return Tally(matched=matched, differing=len(differences), differences=tuple(differences[:MOST_LISTED]))


def agreeing_positions(
    ours: Mapping[InstrumentId, Decimal], report: BrokerReport, differ: Mapping[InstrumentId, object]
) -> int:
    """How many instruments are held on either side in the same quantity."""
    theirs = {p.instrument: p.quantity for p in report.positions}
    held = [i for i in {*ours, *theirs} if ours.get(i, ZERO) or theirs.get(i, ZERO)]
    return sum(i not in differ and ours.get(i, ZERO) == theirs.get(i, ZERO) for i in held)

"""Our view of an account against the broker's report: what to correct, what is broken.

The broker is truth.  Executions that we lack are taken from its trade book, states from its order book.  What
cannot be explained that way becomes a reconciliation break with both sides shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal

import msgspec

from trading.broker import BrokerFill, BrokerOrder, BrokerReport, BrokerUpdate, UpdateKind
from trading.ids import ExecutionId, InstrumentId, Nanos, adopted_tag
from trading.orders import ZERO, Order, OrderState
from trading.positions import Position

_ENDS = {
    OrderState.CANCELLED: UpdateKind.CANCELLED,
    OrderState.REJECTED: UpdateKind.REJECTED,
    OrderState.EXPIRED: UpdateKind.EXPIRED,
}
_UNPROVEN = (OrderState.PENDING, OrderState.UNKNOWN)


class Findings(msgspec.Struct):
    """The outcome of one comparison."""

    #: Messages that the broker owed us: per order its size, then fills, then its end; apply them like any other.
    updates: list[BrokerUpdate] = msgspec.field(default_factory=list)
    #: Tags of orders that the broker does not have although they would have to be there by now.
    absent: list[str] = msgspec.field(default_factory=list)
    #: Orders at the broker that are not ours (placed by hand): to be adopted, with their fills.
    strangers: list[tuple[BrokerOrder, list[BrokerFill]]] = msgspec.field(default_factory=list)
    #: Orders that have ended on both sides, there with other terms: (our tag, its row).
    corrected: list[tuple[str, BrokerOrder]] = msgspec.field(default_factory=list)
    #: Orders that have ended here, long enough ago, and that the broker's book shows alive: (our tag, its row).
    undead: list[tuple[str, BrokerOrder]] = msgspec.field(default_factory=list)
    #: Orders whose filled quantity the trade book does not account for: tag -> (ours, theirs).
    unexplained: dict[str, tuple[Decimal, Decimal]] = msgspec.field(default_factory=dict)


def compare_orders(
    orders: Mapping[str, Order],
    executions: AbstractSet[ExecutionId],
    report: BrokerReport,
    sent_at: Mapping[str, Nanos],
    late_arrival_ns: int,
) -> Findings:
    """Compare orders (by tag) and executions with a report.

    ``sent_at`` says when an order was handed over (missing: before our time).  An order is *absent* only if
    the report was asked for after it could still have arrived.
    """
    found = Findings()
    fills_of: dict[str, list[BrokerFill]] = {}
    for fill in report.fills:
        if fill.fill.execution_id not in executions:
            fills_of.setdefault(fill.broker_order_id, []).append(fill)
    seen: set[str] = set()
    for theirs in report.orders:
        fills = fills_of.get(theirs.broker_order_id, [])
        ours = orders.get(theirs.tag) if theirs.tag else None
        ours = ours or orders.get(adopted_tag(theirs.broker_order_id))
        if ours is None:
            found.strangers.append((theirs, fills))
            continue
        seen.add(ours.tag)
        _compare_order(ours, theirs, fills, report, found)
        ended_long_ago = ours.state.is_final and ours.updated_at + late_arrival_ns < report.requested_at
        if ended_long_ago and not theirs.state.is_final and theirs.quantity > theirs.filled_quantity:
            found.undead.append((ours.tag, theirs))
    for tag, order in orders.items():
        if tag in seen or order.state.is_final:
            continue
        if sent_at.get(tag, Nanos(0)) + late_arrival_ns < report.requested_at:
            found.absent.append(tag)
    return found


def _compare_order(
    ours: Order, theirs: BrokerOrder, fills: list[BrokerFill], report: BrokerReport, found: Findings
) -> None:
    def update(kind: UpdateKind, **more: object) -> BrokerUpdate:
        return BrokerUpdate(
            kind=kind,
            tag=ours.tag,
            instrument=ours.instrument,
            at=theirs.at or report.received_at,
            broker_order_id=theirs.broker_order_id,
            **more,  # type: ignore[arg-type]
        )

    if ours.state in _UNPROVEN and theirs.state is not OrderState.PENDING:
        found.updates.append(update(UpdateKind.ACCEPTED, reason="found in the broker's book"))
    # What the broker does not name it has not changed; what moved here since the report was asked for is newer.
    changed = theirs.quantity != ours.quantity or any(
        named is not None and named != own
        for named, own in (
            (theirs.limit_price, ours.limit_price),
            (theirs.stop_price, ours.stop_price),
            (theirs.trail_price, ours.trail_price),
            (theirs.trail_percent, ours.trail_percent),
        )
    )
    filled = ours.filled_quantity + sum((fill.fill.quantity for fill in fills), ZERO)
    is_newer = (
        ours.updated_at >= report.requested_at
        and ours.state not in _UNPROVEN
        and not theirs.state.is_final
        and not ours.quantity <= filled < theirs.quantity
    )
    if changed and not ours.state.is_final and not is_newer:
        found.updates.append(
            update(
                UpdateKind.MODIFIED,
                quantity=theirs.quantity,
                limit_price=theirs.limit_price,
                stop_price=theirs.stop_price,
                trail_price=theirs.trail_price,
                trail_percent=theirs.trail_percent,
                reason="so in the broker's book",
            )
        )
    elif changed and ours.state.is_final and theirs.state.is_final:
        # Changed just before it ended, and the message got lost.  (A list that lags does not show an end.)
        found.corrected.append((ours.tag, theirs))
    found.updates += [update(UpdateKind.FILLED, fill=fill.fill) for fill in fills]
    if filled < theirs.filled_quantity:
        found.unexplained[ours.tag] = (filled, theirs.filled_quantity)
    end = _ENDS.get(theirs.state)
    # While executions are missing it stays open: what they hold still counts against limits.
    if end is not None and not ours.state.is_final and filled >= theirs.filled_quantity:
        found.updates.append(update(end, reason=theirs.reason or "so in the broker's book"))


def compare_positions(
    positions: Mapping[InstrumentId, Position], report: BrokerReport, moved_at: Mapping[InstrumentId, Nanos]
) -> dict[InstrumentId, tuple[Decimal, Decimal]]:
    """Instruments whose quantities differ: ``(ours, theirs)``.

    Instruments that moved after the report was asked for are left out: there the report may be older than us.
    """
    theirs = {position.instrument: position.quantity for position in report.positions}
    differ = {}
    for instrument in sorted({*positions, *theirs}):
        if moved_at.get(instrument, Nanos(0)) >= report.requested_at:
            continue
        mine = positions[instrument].quantity if instrument in positions else ZERO
        other = theirs.get(instrument, ZERO)
        if mine != other:
            differ[instrument] = (mine, other)
    return differ

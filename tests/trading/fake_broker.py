"""A broker in memory: its order book, its trade book and what it says unasked.  It never de-duplicates."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from trading.broker import (
    AmendTicket,
    Answer,
    BrokerFill,
    BrokerOrder,
    BrokerPosition,
    BrokerReport,
    BrokerUpdate,
    CancelTicket,
    OrderTicket,
    UpdateKind,
    Verdict,
)
from trading.ids import AccountId, BrokerOrderId, ExecutionId, InstrumentId, Nanos
from trading.orders import ZERO, Fill, OrderState, OrderType, Side, TimeInForce

_ENDS = {
    UpdateKind.CANCELLED: OrderState.CANCELLED,
    UpdateKind.REJECTED: OrderState.REJECTED,
    UpdateKind.EXPIRED: OrderState.EXPIRED,
}


class FakeBroker:
    """One account.  ``told`` holds the updates that nobody has fetched yet."""

    def __init__(self, account: AccountId) -> None:
        self.account = account
        self.orders: dict[BrokerOrderId, BrokerOrder] = {}
        self.fills: list[BrokerFill] = []
        self.told: list[BrokerUpdate] = []
        self.cash = Decimal(1000)

    def of_tag(self, tag: str) -> BrokerOrder | None:
        return next((o for o in self.orders.values() if o.tag == tag), None)

    def open(self) -> list[BrokerOrder]:
        return [o for o in self.orders.values() if not o.state.is_final]

    def place(self, ticket: OrderTicket, at: Nanos, *, reject: bool = False) -> Answer:
        """Take an order in.  A second one of the same tag is the bug that all of this is about."""
        assert self.of_tag(ticket.tag) is None, f"{ticket.tag} was placed twice"
        if reject:
            return Answer(tag=ticket.tag, verdict=Verdict.REJECTED, reason="no margin")
        return self._enter(ticket, at)

    def _enter(self, ticket: OrderTicket, at: Nanos) -> Answer:
        id_ = BrokerOrderId(f"b{len(self.orders) + 1}")
        self.orders[id_] = BrokerOrder(
            broker_order_id=id_,
            tag=ticket.tag,
            instrument=ticket.instrument,
            side=ticket.side,
            type=ticket.type,
            time_in_force=ticket.time_in_force,
            quantity=ticket.quantity,
            filled_quantity=ZERO,
            state=OrderState.SUBMITTED,
            at=at,
            limit_price=ticket.limit_price,
            stop_price=ticket.stop_price,
        )
        self._say(UpdateKind.ACCEPTED, id_, at)
        return Answer(tag=ticket.tag, verdict=Verdict.ACCEPTED, broker_order_id=id_)

    def by_hand(
        self, instrument: InstrumentId, side: Side, quantity: Decimal, price: Decimal, at: Nanos
    ) -> BrokerOrderId:
        """Somebody places an order at the broker's own terminal: it bears no tag."""
        answer = self._enter(
            OrderTicket(
                tag="",
                instrument=instrument,
                side=side,
                type=OrderType.LIMIT,
                quantity=quantity,
                limit_price=price,
                stop_price=None,
                time_in_force=TimeInForce.DAY,
            ),
            at,
        )
        assert answer.broker_order_id is not None
        return answer.broker_order_id

    def cancel(self, ticket: CancelTicket, at: Nanos) -> Answer:
        row = self._find(ticket.tag, ticket.broker_order_id)
        if row is None or row.state.is_final:
            return Answer(tag=ticket.tag, verdict=Verdict.REJECTED, reason="no such open order")
        self.end(row.broker_order_id, UpdateKind.CANCELLED, at)
        return Answer(tag=ticket.tag, verdict=Verdict.ACCEPTED)

    def amend(self, ticket: AmendTicket, at: Nanos, *, reject: bool = False) -> Answer:
        row = self._find(ticket.tag, ticket.broker_order_id)
        if reject or row is None or row.state.is_final or (ticket.quantity or row.quantity) <= row.filled_quantity:
            return Answer(tag=ticket.tag, verdict=Verdict.REJECTED, reason="cannot be changed")
        self.orders[row.broker_order_id] = row = msgspec.structs.replace(
            row,
            quantity=ticket.quantity or row.quantity,
            limit_price=ticket.limit_price or row.limit_price,
            stop_price=ticket.stop_price or row.stop_price,
            at=at,
        )
        self._say(
            UpdateKind.MODIFIED,
            row.broker_order_id,
            at,
            quantity=row.quantity,
            limit_price=row.limit_price,
            stop_price=row.stop_price,
        )
        return Answer(tag=ticket.tag, verdict=Verdict.ACCEPTED)

    def fill(self, id_: BrokerOrderId, quantity: Decimal, price: Decimal, at: Nanos) -> Fill:
        row = self.orders[id_]
        filled = row.filled_quantity + quantity
        done = filled >= row.quantity
        self.orders[id_] = msgspec.structs.replace(
            row,
            filled_quantity=filled,
            average_price=(row.average_price * row.filled_quantity + price * quantity) / filled,
            state=row.state
            if row.state.is_final and not done
            else OrderState.FILLED
            if done
            else OrderState.PARTIALLY_FILLED,
            at=at,
        )
        self.cash -= row.side.sign * quantity * price
        fill = Fill(execution_id=ExecutionId(f"e{len(self.fills) + 1}"), quantity=quantity, price=price, at=at)
        self.fills.append(
            BrokerFill(broker_order_id=id_, tag=row.tag, instrument=row.instrument, side=row.side, fill=fill)
        )
        self._say(UpdateKind.FILLED, id_, at, fill=fill)
        return fill

    def end(self, id_: BrokerOrderId, kind: UpdateKind, at: Nanos) -> None:
        self.orders[id_] = msgspec.structs.replace(self.orders[id_], state=_ENDS[kind], at=at)
        self._say(kind, id_, at)

    def positions(self) -> dict[InstrumentId, Decimal]:
        sums: dict[InstrumentId, Decimal] = {}
        for fill in self.fills:
            sums[fill.instrument] = sums.get(fill.instrument, ZERO) + fill.side.sign * fill.fill.quantity
        return sums

    def report(self, since: Nanos, at: Nanos, received_at: Nanos | None = None) -> BrokerReport:
        return BrokerReport(
            account=self.account,
            requested_at=at,
            received_at=received_at or at,
            orders=tuple(o for o in self.orders.values() if not o.state.is_final or o.at >= since),
            fills=tuple(f for f in self.fills if f.fill.at >= since),
            positions=tuple(BrokerPosition(instrument=i, quantity=q) for i, q in self.positions().items()),
            cash=self.cash,
            currency="USD",
        )

    def take_told(self) -> list[BrokerUpdate]:
        told, self.told = self.told, []
        return told

    def _find(self, tag: str, id_: BrokerOrderId | None) -> BrokerOrder | None:
        return self.orders.get(id_) if id_ is not None else self.of_tag(tag)

    def _say(self, kind: UpdateKind, id_: BrokerOrderId, at: Nanos, **more: object) -> None:
        row = self.orders[id_]
        self.told.append(
            BrokerUpdate(
                kind=kind,
                tag=row.tag,
                instrument=row.instrument,
                at=at,
                broker_order_id=id_,
                **more,  # type: ignore[arg-type]
            )
        )


def tags(tickets: Iterable[OrderTicket | AmendTicket | CancelTicket]) -> list[str]:
    return [ticket.tag for ticket in tickets]

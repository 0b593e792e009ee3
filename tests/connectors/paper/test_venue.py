"""What must hold whatever happens: money and positions add up, fills never pass the quantity."""

from __future__ import annotations

from decimal import Decimal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.base import PaperAccount
from connectors.paper.venue import PaperVenue
from tests.connectors.paper.support import ACCOUNT, BTC, ETH, INSTRUMENTS
from trading.broker import (
    AmendTicket,
    BrokerFill,
    BrokerOrder,
    BrokerReport,
    CancelTicket,
    OrderTicket,
    Verdict,
)
from trading.ids import Epoch, InstrumentId, Nanos
from trading.orders import OrderState, OrderType, Side, TimeInForce

CASH = Decimal(10_000)

instruments = st.sampled_from([BTC.id, ETH.id])
prices = st.integers(950, 1050).map(lambda ticks: Decimal(ticks) / 10)
quantities = st.integers(1, 30_000).map(lambda lots: Decimal(lots) / 1000)
maybe = st.one_of(st.none(), prices)


@st.composite
def placing(draw: st.DrawFn) -> tuple[object, ...]:
    kind = draw(st.sampled_from(list(OrderType)))
    limit = draw(prices) if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT) else None
    stop = draw(prices) if kind in (OrderType.STOP, OrderType.STOP_LIMIT) else None
    return (
        "place",
        draw(instruments),
        draw(st.sampled_from(list(Side))),
        kind,
        draw(quantities),
        limit,
        stop,
        draw(st.sampled_from(list(TimeInForce))),
        draw(st.booleans()),
        draw(st.integers(0, 12)),
    )


steps = st.one_of(
    placing(),
    st.tuples(st.just("cancel"), st.integers(0, 12)),
    st.tuples(st.just("amend"), st.integers(0, 12), st.one_of(st.none(), quantities), maybe),
    st.tuples(st.just("quote"), instruments, st.integers(950, 1050), st.integers(1, 4), quantities),
    st.tuples(st.just("trade"), instruments, prices, quantities, st.booleans()),
    st.just(("day",)),
    st.just(("kill",)),
)


class Book:
    """What a ledger would have after every save."""

    def __init__(self) -> None:
        self.orders: dict[str, BrokerOrder] = {}
        self.fills: list[BrokerFill] = []
        self.cash = CASH

    def save(self, venue: PaperVenue) -> None:
        changes = venue.take_changes()
        self.orders |= changes.orders
        self.fills += changes.fills
        self.cash = changes.cash


def fresh(epoch: int) -> PaperVenue:
    account = PaperAccount(cash=CASH, fee_bps=Decimal(7), slippage_ticks=1)
    return PaperVenue(ACCOUNT, account, INSTRUMENTS, Epoch(epoch))


def do(venue: PaperVenue, step: tuple[object, ...], at: Nanos) -> None:
    match step:
        case ("place", instrument, side, kind, quantity, limit, stop, tif, reduce_only, tag):
            answer = venue.place(
                OrderTicket(
                    tag=f"T{tag}",
                    instrument=instrument,  # type: ignore[arg-type]
                    side=side,  # type: ignore[arg-type]
                    type=kind,  # type: ignore[arg-type]
                    quantity=quantity,  # type: ignore[arg-type]
                    limit_price=limit,  # type: ignore[arg-type]
                    stop_price=stop,  # type: ignore[arg-type]
                    time_in_force=tif,  # type: ignore[arg-type]
                    reduce_only=bool(reduce_only),
                ),
                at,
            )
            assert answer.verdict is not Verdict.REJECTED or answer.reason
        case ("cancel", tag):
            venue.cancel(CancelTicket(tag=f"T{tag}", broker_order_id=None, instrument=BTC.id), at)
        case ("amend", tag, quantity, limit):
            venue.amend(
                AmendTicket(
                    tag=f"T{tag}",
                    broker_order_id=None,
                    instrument=BTC.id,
                    quantity=quantity,  # type: ignore[arg-type]
                    limit_price=limit,  # type: ignore[arg-type]
                ),
                at,
            )
        case ("quote", instrument, bid, spread, size):
            low = Decimal(bid) / 10  # type: ignore[arg-type]
            high = low + Decimal(spread) / 10  # type: ignore[arg-type]
            venue.quote(instrument, low, size, high, size, at)  # type: ignore[arg-type]
        case ("trade", instrument, price, size, buyer_maker):
            venue.trade(instrument, price, size, bool(buyer_maker), at)  # type: ignore[arg-type]
        case ("day",):
            venue.expire_day([BTC.id, ETH.id], at)


def check(venue: PaperVenue, book: Book) -> None:
    cash = CASH
    held: dict[InstrumentId, Decimal] = {}
    filled: dict[str, Decimal] = {}
    ids = set()
    for row in book.fills:
        fill = row.fill
        cash -= row.side.sign * fill.quantity * fill.price + fill.fee
        held[row.instrument] = held.get(row.instrument, Decimal(0)) + row.side.sign * fill.quantity
        filled[row.broker_order_id] = filled.get(row.broker_order_id, Decimal(0)) + fill.quantity
        ids.add(fill.execution_id)
    assert len(ids) == len(book.fills)
    assert venue.money.cash == book.cash == cash
    assert {i: p.quantity for i, p in venue.money.positions.items() if p.quantity} == {
        i: q for i, q in held.items() if q
    }
    for order in book.orders.values():
        assert order.filled_quantity == filled.get(order.broker_order_id, Decimal(0)) <= order.quantity
        assert (order.state is OrderState.FILLED) == (order.filled_quantity == order.quantity)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40))
def test_money_positions_and_quantities_add_up_through_kills(script: list[tuple[object, ...]]) -> None:
    epoch = 1
    venue = fresh(epoch)
    book = Book()
    before: dict[InstrumentId, Decimal] = {}
    for number, step in enumerate(script, 1):
        at = Nanos(number)
        if step[0] == "kill":
            epoch += 1
            report = BrokerReport(
                account=ACCOUNT,
                requested_at=at,
                received_at=at,
                orders=tuple(book.orders.values()),
                fills=tuple(book.fills),
                positions=tuple(row for row in venue.held() if row.quantity),
                cash=book.cash,
                currency="USDT",
            )
            venue = fresh(epoch)
            venue.restore(report)
            assert {i: p.quantity for i, p in venue.money.positions.items() if p.quantity} == {
                i: q for i, q in before.items() if q
            }
        else:
            do(venue, step, at)
        book.save(venue)
        venue.take_updates()
        check(venue, book)
        before = {i: p.quantity for i, p in venue.money.positions.items()}


@settings(max_examples=80, deadline=None)
@given(st.lists(steps, max_size=40))
def test_the_same_events_give_the_same_outcomes(script: list[tuple[object, ...]]) -> None:
    def play() -> bytes:
        venue = fresh(1)
        out = []
        for number, step in enumerate(script, 1):
            do(venue, step, Nanos(number))
            out.append((venue.take_updates(), venue.take_changes()))
        return msgspec.json.encode(out)

    assert play() == play()


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40))
def test_reduce_only_fills_only_ever_reduce(script: list[tuple[object, ...]]) -> None:
    venue = fresh(1)
    held: dict[InstrumentId, Decimal] = {}
    for number, step in enumerate(script, 1):
        do(venue, step, Nanos(number))
        for row in venue.take_changes().fills:
            old = held.get(row.instrument, Decimal(0))
            new = held[row.instrument] = old + row.side.sign * row.fill.quantity
            if row.broker_order_id.endswith("R"):
                assert abs(new) < abs(old)
                assert new * old >= 0


@settings(max_examples=100, deadline=None)
@given(st.lists(placing(), max_size=30))
def test_what_is_accepted_was_affordable(script: list[tuple[object, ...]]) -> None:
    venue = fresh(1)
    for instrument in (BTC.id, ETH.id):
        venue.quote(instrument, Decimal("99.9"), Decimal("0.1"), Decimal("100.1"), Decimal("0.1"), Nanos(1))
    for number, step in enumerate(script, 2):
        free = venue.money.free()
        assert free > -CASH / 100, "fees and slippage may take a little more than was held back"
        do(venue, step, Nanos(number))

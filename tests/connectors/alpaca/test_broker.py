"""The connector against the simulator, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from connectors.alpaca.orders import AlpacaBroker
from connectors.alpaca.simulator import AlpacaSimulator, SimulatedAccount
from connectors.alpaca.venue import AlpacaVenue
from connectors.alpaca.wire import Request, as_json
from tests.connectors.alpaca.making import ACCOUNT, ticket
from tests.connectors.support import until
from tests.support.patience import PATIENCE
from trading.broker import (
    AmendTicket,
    Answer,
    BrokerUpdate,
    CancelTicket,
    OrderTicket,
    StreamChange,
    UpdateKind,
    Verdict,
)
from trading.errors import BadInput, NeedsOperator, Unreachable
from trading.ids import BrokerOrderId, InstrumentId, Nanos
from trading.orders import OrderState, OrderType, TimeInForce

D = Decimal
AAPL = InstrumentId("ALPACA:AAPL")
CREDENTIALS = {"key": "PKSIMULATED", "secret": "simulated-secret"}


class Bench:
    """A simulator, a broker at it, and what the broker told."""

    def __init__(self, simulator: AlpacaSimulator, broker: AlpacaBroker) -> None:
        self.simulator = simulator
        self.broker = broker
        self.told: list[BrokerUpdate | StreamChange] = []

    @property
    def venue(self) -> AlpacaVenue:
        return next(iter(self.simulator.venues.values()))

    async def listen(self) -> None:
        async for heard in self.broker.updates():
            self.told.append(heard)

    def control(self, command: str, **wish: Any) -> Any:
        response = self.simulator.http(Request("POST", f"/simulator/{command}", body=as_json(wish)), {}).response
        assert response is not None
        assert response.status == 200, response.raw
        return response

    def quote(self, bid: str = "99.9", ask: str = "100.1", size: int = 100, **more: Any) -> None:
        self.control("quote", symbol="AAPL", bid=bid, ask=ask, bid_size=size, ask_size=size, **more)

    def trade(self, price: str, size: int = 100) -> None:
        self.control("trade", symbol="AAPL", price=price, size=size)

    async def place(self, key: str = "k1", side: str = "buy", quantity: str = "10", **fields: Any) -> Answer:
        (answer,) = await self.broker.place([ticket(key, side, quantity, **fields)])
        return answer

    def kinds(self, key: str = "k1") -> list[UpdateKind]:
        tag = ticket(key).tag
        return [u.kind for u in self.told if isinstance(u, BrokerUpdate) and u.tag == tag]

    async def heard(self, kind: UpdateKind, key: str = "k1") -> BrokerUpdate:
        await until(lambda: kind in self.kinds(key), what=f"{kind} of {key}; heard {self.kinds(key)}")
        tag = ticket(key).tag
        return next(u for u in self.told if isinstance(u, BrokerUpdate) and u.tag == tag and u.kind is kind)


@asynccontextmanager
async def bench(timeout_s: float = 3.0, **settings: Any) -> AsyncIterator[Bench]:
    simulator = AlpacaSimulator(**{"hold": True, "requests_per_minute": None, "symbols": 2} | settings)
    await simulator.start()
    broker = AlpacaBroker(
        ACCOUNT,
        {"base_url": simulator.url, "timeout_s": timeout_s},
        CREDENTIALS,
        lambda: Nanos(time.time_ns()),
    )
    made = Bench(simulator, broker)
    made.quote()
    made.trade("100")
    await broker.connect()
    listening = asyncio.create_task(made.listen())
    try:
        yield made
    finally:
        await broker.close()
        await asyncio.wait_for(listening, 5)
        await simulator.stop()


def amend(key: str = "k1", order_id: str | None = None, **changes: Any) -> AmendTicket:
    order = None if order_id is None else BrokerOrderId(order_id)
    return AmendTicket(tag=ticket(key).tag, broker_order_id=order, instrument=AAPL, **changes)


def cancel(key: str = "k1", order_id: str | None = None) -> CancelTicket:
    order = None if order_id is None else BrokerOrderId(order_id)
    return CancelTicket(tag=ticket(key).tag, broker_order_id=order, instrument=AAPL)


# Orders of every type


@pytest.mark.parametrize(
    ("fields", "then"),
    [
        ({}, None),
        ({"type": OrderType.LIMIT, "limit_price": D("99")}, "98.5"),
        ({"type": OrderType.STOP, "stop_price": D("103")}, "103"),
        ({"type": OrderType.STOP_LIMIT, "stop_price": D("103"), "limit_price": D("110")}, "103"),
        ({"type": OrderType.TRAILING_STOP, "trail_price": D("2.5")}, "103"),
        ({"type": OrderType.TRAILING_STOP, "trail_percent": D("2")}, "103"),
        ({"type": OrderType.LIMIT, "limit_price": D("101"), "time_in_force": TimeInForce.IOC}, None),
        ({"type": OrderType.LIMIT, "limit_price": D("101"), "time_in_force": TimeInForce.FOK}, None),
    ],
)
async def test_an_order_of_every_type_is_accepted_filled_and_reported(fields: dict[str, Any], then: str | None) -> None:
    async with bench() as at:
        answer = await at.place(**fields)
        assert answer.verdict is Verdict.ACCEPTED
        if then is not None:
            assert UpdateKind.FILLED not in at.kinds()
            at.trade(then)
            at.quote(then, str(D(then) + D("0.1")))
        fill = (await at.heard(UpdateKind.FILLED)).fill
        assert fill is not None
        report = await at.broker.report()
        (order,) = report.orders
        assert (order.state, order.filled_quantity, order.tag) == (OrderState.FILLED, 10, ticket().tag)
        assert order.broker_order_id == answer.broker_order_id
        assert order.type is fields.get("type", OrderType.MARKET)
        assert (order.trail_price, order.trail_percent) == (fields.get("trail_price"), fields.get("trail_percent"))
        assert [f.fill for f in report.fills] == [fill]
        assert [(p.instrument, p.quantity) for p in report.positions] == [(AAPL, 10)]
        assert report.cash == 100_000 - 10 * fill.price


async def test_partial_fills_have_one_key_on_the_stream_and_in_the_trade_book() -> None:
    async with bench() as at:
        at.quote(size=4)
        await at.place(quantity="10")
        at.quote("99.8", "100.2", size=6)
        await until(lambda: at.kinds().count(UpdateKind.FILLED) == 2, what="two fills")
        by_stream = {u.fill.execution_id: u.fill for u in at.told if isinstance(u, BrokerUpdate) and u.fill}
        report = await at.broker.report()
        assert {f.fill.execution_id: f.fill for f in report.fills} == by_stream
        assert [f.quantity for f in by_stream.values()] == [4, 6]


async def test_a_refused_order_is_rejected_with_alpacas_words() -> None:
    async with bench() as at:
        answer = await at.place(quantity="1000000")
        assert answer.verdict is Verdict.REJECTED
        assert "insufficient buying power (40310000)" in answer.reason
        answer = await at.place("k2", instrument=InstrumentId("ALPACA:NONE"))
        assert answer.verdict is Verdict.REJECTED
        assert 'asset "NONE" not found' in answer.reason
        answer = await at.place("k3", instrument=InstrumentId("NSE:INFY"))
        assert answer.verdict is Verdict.REJECTED
        assert not at.venue.ledger.orders


async def test_orders_of_one_instrument_arrive_in_their_order() -> None:
    async with bench() as at:
        keys = [f"k{n}" for n in range(12)]
        limit: dict[str, Any] = {"type": OrderType.LIMIT, "limit_price": D(90)}
        tickets: list[OrderTicket] = [ticket(key, quantity="1", **limit) for key in keys]
        answers = await at.broker.place(tickets)
        assert [a.tag for a in answers] == [t.tag for t in tickets]
        assert [o.client_order_id for o in at.venue.ledger.orders.values()] == [t.tag for t in tickets]


# Replacing and cancelling


async def test_a_modified_order_stays_one_order() -> None:
    async with bench() as at:
        placed = await at.place(type=OrderType.LIMIT, limit_price=D(99))
        for n, price in enumerate(("98.5", "98"), 1):
            change = amend(order_id=placed.broker_order_id, limit_price=D(price), quantity=D(10 + n))
            (answer,) = await at.broker.modify([change])
            assert (answer.verdict, answer.broker_order_id) == (Verdict.ACCEPTED, placed.broker_order_id)
        await until(lambda: at.kinds().count(UpdateKind.MODIFIED) == 2, what="two modifications")
        news = [u for u in at.told if isinstance(u, BrokerUpdate) and u.kind is UpdateKind.MODIFIED]
        assert [(u.quantity, u.limit_price, u.broker_order_id) for u in news] == [
            (11, D("98.5"), placed.broker_order_id),
            (12, D("98"), placed.broker_order_id),
        ]
        (order,) = (await at.broker.report()).orders
        assert (order.broker_order_id, order.quantity, order.limit_price) == (placed.broker_order_id, 12, 98)
        (answer,) = await at.broker.cancel([cancel(order_id=placed.broker_order_id)])
        assert answer.verdict is Verdict.ACCEPTED
        await at.heard(UpdateKind.CANCELLED)
        assert [o.status for o in at.venue.ledger.orders.values()] == ["replaced", "replaced", "canceled"]
        assert at.kinds().count(UpdateKind.CANCELLED) == 1


async def test_a_partly_filled_order_is_modified_to_a_new_total() -> None:
    async with bench() as at:
        at.quote(size=4)
        placed = await at.place(type=OrderType.LIMIT, limit_price=D("100.1"))
        await at.heard(UpdateKind.FILLED)
        (answer,) = await at.broker.modify([amend(order_id=placed.broker_order_id, quantity=D(6))])
        assert answer.verdict is Verdict.ACCEPTED
        at.quote("99.8", "100", size=50)
        await until(lambda: at.kinds().count(UpdateKind.FILLED) == 2, what="the rest")
        (order,) = (await at.broker.report()).orders
        assert (order.quantity, order.filled_quantity, order.state) == (6, 6, OrderState.FILLED)
        assert at.venue.ledger.held("AAPL").qty == 6


async def test_the_trail_of_a_trailing_stop_is_modified() -> None:
    async with bench() as at:
        placed = await at.place(type=OrderType.TRAILING_STOP, trail_percent=D(10))
        (answer,) = await at.broker.modify([amend(order_id=placed.broker_order_id, trail_percent=D(5))])
        assert answer.verdict is Verdict.ACCEPTED
        assert (await at.heard(UpdateKind.MODIFIED)).trail_percent == 5
        (order,) = (await at.broker.report()).orders
        assert (order.trail_percent, order.stop_price, order.high_water) == (5, None, 100)


async def test_a_replacement_that_comes_too_late_is_a_rejected_change_and_the_order_fills_once() -> None:
    async with bench() as at:
        placed = await at.place(type=OrderType.LIMIT, limit_price=D(99))
        at.control("lag", replace_s=0.3)
        (answer,) = await at.broker.modify([amend(order_id=placed.broker_order_id, limit_price=D(98))])
        assert answer.verdict is Verdict.ACCEPTED
        at.quote("98.5", "98.9")
        await at.heard(UpdateKind.FILLED)
        await at.heard(UpdateKind.MODIFY_REJECTED)
        assert at.kinds().count(UpdateKind.MODIFY_REJECTED) == 1
        assert UpdateKind.MODIFIED not in at.kinds()
        (order,) = (await at.broker.report()).orders
        assert (order.state, order.quantity, order.limit_price) == (OrderState.FILLED, 10, 99)


async def test_a_cancel_finds_the_order_that_stands_whatever_id_it_was_given() -> None:
    async with bench() as at:
        placed = await at.place(type=OrderType.LIMIT, limit_price=D(99))
        # Replaced by hand, unseen by the connector.
        at.simulator.frames.set({"drop": 1.0})
        response = at.venue.handle(
            Request("PATCH", f"/v2/orders/{placed.broker_order_id}", body=as_json({"limit_price": "98"})),
            Nanos(time.time_ns()),
        )
        assert response.status == 200
        (answer,) = await at.broker.cancel([cancel(order_id=placed.broker_order_id)])
        assert answer.verdict is Verdict.ACCEPTED
        assert not at.venue.ledger.open_orders()


async def test_a_cancel_that_loses_its_race_with_a_fill_is_rejected() -> None:
    async with bench() as at:
        placed = await at.place()
        (answer,) = await at.broker.cancel([cancel(order_id=placed.broker_order_id)])
        assert answer.verdict is Verdict.REJECTED
        assert 'already in "filled" state' in answer.reason
        at.control("lag", cancel_s=0.2)
        placed = await at.place("k2", type=OrderType.LIMIT, limit_price=D(99))
        (answer,) = await at.broker.cancel([cancel("k2", placed.broker_order_id)])
        assert answer.verdict is Verdict.ACCEPTED
        at.quote("98", "98.9")
        await at.heard(UpdateKind.CANCEL_REJECTED, "k2")
        assert at.kinds("k2")[-2:] == [UpdateKind.FILLED, UpdateKind.CANCEL_REJECTED]


async def test_a_new_connection_finds_an_order_by_its_tag_alone() -> None:
    async with bench() as at:
        await at.place(type=OrderType.LIMIT, limit_price=D(99))
        fresh = AlpacaBroker(ACCOUNT, {"base_url": at.simulator.url}, CREDENTIALS, lambda: Nanos(time.time_ns()))
        await fresh.connect()
        try:
            (answer,) = await fresh.modify([amend(quantity=D(5))])
            assert answer.verdict is Verdict.ACCEPTED
            (answer,) = await fresh.cancel([cancel()])
            assert answer.verdict is Verdict.ACCEPTED
            (answer,) = await fresh.cancel([cancel("never placed")])
            assert answer.verdict is Verdict.UNKNOWN
        finally:
            await fresh.close()
        assert not at.venue.ledger.open_orders()


# Answers that prove nothing


@pytest.mark.parametrize(
    "rule",
    [
        {"status": 500},
        {"status": 502},
        {"status": 504},
        {"status": 429},
        {"body": "<html>"},
        {"cut": 30},
        {"no_answer": True},
        {"reset": True},
    ],
)
@pytest.mark.parametrize("effect", [True, False])
async def test_an_unclear_answer_leaves_the_order_unknown_and_its_tag_settles_it(
    rule: dict[str, Any], effect: bool
) -> None:
    async with bench(timeout_s=0.5 * PATIENCE) as at:
        at.control("misbehave", method="POST", path="/v2/orders", effect=effect, **rule)
        answer = await at.place(type=OrderType.LIMIT, limit_price=D(99))
        assert answer.verdict is Verdict.UNKNOWN
        assert len(at.venue.ledger.orders) == effect
        report = await at.broker.report()
        assert [order.tag for order in report.orders] == [ticket().tag] * effect
        # Sent again, it acts once: Alpaca knows the tag.
        again = await at.place(type=OrderType.LIMIT, limit_price=D(99))
        assert again.verdict is Verdict.ACCEPTED
        assert len(at.venue.ledger.orders) == 1


async def test_what_never_left_is_rejected_and_not_unknown() -> None:
    async with bench() as at:
        await at.simulator.stop()
        answer = await at.place()
        assert answer.verdict is Verdict.REJECTED
        assert answer.reason.startswith("not sent")
        with pytest.raises(Unreachable):
            await at.broker.report()


async def test_an_order_accepted_and_then_rejected_is_told_so() -> None:
    async with bench() as at:
        at.control("misbehave", method="POST", rejects=True)
        assert (await at.place()).verdict is Verdict.ACCEPTED
        await at.heard(UpdateKind.REJECTED)
        (order,) = (await at.broker.report()).orders
        assert order.state is OrderState.REJECTED


async def test_the_rate_limit_is_kept_and_orders_beyond_it_are_not_sent() -> None:
    async with bench(requests_per_minute=8) as at:
        answers = [await at.place(f"k{n}", type=OrderType.LIMIT, limit_price=D(90)) for n in range(12)]
        accepted = [a for a in answers if a.verdict is Verdict.ACCEPTED]
        rest = answers[len(accepted) :]
        assert 0 < len(accepted) < 9
        assert {a.verdict for a in rest} == {Verdict.REJECTED}, "none was sent, so none is unknown"
        assert "rate limit" in rest[-1].reason
        assert len(at.venue.ledger.orders) == len(accepted)


async def test_an_unreadable_view_is_no_view() -> None:
    async with bench(timeout_s=0.5 * PATIENCE) as at:
        for rule in ({"cut": 1}, {"body": "{"}, {"status": 400}):
            at.control("misbehave", method="GET", path="/v2/orders", times=1, **rule)
            with pytest.raises(Unreachable):
                await at.broker.report()
        at.control("misbehave", method="GET", path="/v2/positions", times=2, status=502)
        assert (await at.broker.report()).cash == 100_000, "reading is tried again"


# The order stream


async def test_a_lost_stream_comes_back_and_both_are_told_in_their_place() -> None:
    async with bench() as at:
        await at.place("k1", type=OrderType.LIMIT, limit_price=D(99))
        await at.heard(UpdateKind.ACCEPTED)
        at.control("drop", streams="orders")
        await until(lambda: StreamChange(is_up=True) in at.told, what="the stream is back")
        changes = [u.is_up for u in at.told if isinstance(u, StreamChange)]
        assert changes == [False, True]
        at.quote("98", "98.5")
        await at.heard(UpdateKind.FILLED)


async def test_what_happened_while_the_stream_was_away_is_in_the_report() -> None:
    async with bench() as at:
        await at.place("k1", type=OrderType.LIMIT, limit_price=D(99))
        at.control("refuse", seconds=0.6)
        await until(lambda: any(isinstance(u, StreamChange) for u in at.told), what="the loss")
        at.quote("98", "98.5")
        await until(lambda: StreamChange(is_up=True) in at.told, what="the stream is back")
        assert UpdateKind.FILLED not in at.kinds()
        report = await at.broker.report()
        assert (report.orders[0].state, report.fills[0].fill.quantity) == (OrderState.FILLED, 10)


async def test_a_fill_that_only_rest_shows_is_in_the_report() -> None:
    async with bench() as at:
        at.control("misbehave", method="POST", silent=True)
        await at.place()
        report = await at.broker.report()
        assert report.fills[0].tag == ticket().tag
        assert at.kinds() == []


async def test_an_unreadable_frame_counts_as_a_loss_and_the_stream_goes_on() -> None:
    async with bench() as at:
        at.control("garbage", text="{not json")
        await until(lambda: StreamChange(is_up=True) in at.told, what="the loss and the return")
        first = at.told[0]
        assert isinstance(first, StreamChange)
        assert not first.is_up
        assert "cannot be read" in first.reason
        await at.place()
        await at.heard(UpdateKind.FILLED)


async def test_a_replacement_whose_frame_was_lost_is_fetched() -> None:
    async with bench() as at:
        placed = await at.place(type=OrderType.LIMIT, limit_price=D(99))
        await at.heard(UpdateKind.ACCEPTED)
        at.venue.handle(
            Request("PATCH", f"/v2/orders/{placed.broker_order_id}", body=as_json({"limit_price": "98"})),
            Nanos(time.time_ns()),
        )
        frames = at.venue.take_frames()
        assert len(frames) == 2
        for stream in at.simulator.order_streams.values():
            stream.push(frames[0])
        update = await at.heard(UpdateKind.MODIFIED)
        assert (update.limit_price, update.broker_order_id) == (98, placed.broker_order_id)


async def test_text_frames_are_understood_as_well_as_binary_ones() -> None:
    async with bench(binary_frames=False) as at:
        await at.place()
        await at.heard(UpdateKind.FILLED)


# The report


async def test_an_order_placed_by_hand_is_reported_under_one_id_even_when_replaced() -> None:
    async with bench() as at:
        made = at.venue.desk.place(
            as_json(
                {
                    "symbol": "AAPL",
                    "qty": "3",
                    "side": "buy",
                    "type": "limit",
                    "limit_price": "98",
                    "time_in_force": "gtc",
                }
            ),
            Nanos(time.time_ns()),
        )
        (order,) = (await at.broker.report()).orders
        assert (order.tag, order.broker_order_id, order.quantity) == ("", made["id"], 3)
        at.venue.desk.replace(made["id"], as_json({"qty": "4"}), Nanos(time.time_ns()))
        (order,) = (await at.broker.report()).orders
        assert (order.broker_order_id, order.quantity) == (made["id"], 4)
        (answer,) = await at.broker.cancel(
            [CancelTicket(tag=f"broker:{made['id']}", broker_order_id=BrokerOrderId(made["id"]), instrument=AAPL)]
        )
        assert answer.verdict is Verdict.ACCEPTED
        assert not at.venue.ledger.open_orders()


async def test_an_old_order_that_ended_while_nobody_looked_is_looked_up_by_its_tag() -> None:
    """Alpaca lists closed orders by when they were submitted: one of an earlier day shows in no list."""
    async with bench() as at:
        await at.place("old", type=OrderType.LIMIT, limit_price=D(90))
        await at.place("filled", type=OrderType.LIMIT, limit_price=D("99.5"), quantity="2")
        for order in at.venue.ledger.orders.values():
            order.arrived_at = Nanos(order.arrived_at - 3 * 86_400_000_000_000)
        since = Nanos(time.time_ns() - 1_000_000_000)
        order_id = next(iter(at.venue.ledger.orders))
        at.venue.desk.cancel(order_id, Nanos(time.time_ns()))
        at.quote("99", "99.4")
        fresh = AlpacaBroker(ACCOUNT, {"base_url": at.simulator.url}, CREDENTIALS, lambda: Nanos(time.time_ns()))
        fresh.expect([ticket("old").tag, ticket("filled").tag])
        await fresh.connect()
        try:
            states = {o.tag: o.state for o in (await fresh.report(since)).orders}
        finally:
            await fresh.close()
        assert states == {ticket("old").tag: OrderState.CANCELLED, ticket("filled").tag: OrderState.FILLED}


async def test_long_lists_are_read_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.alpaca.report.ORDER_PAGE", 7)
    monkeypatch.setattr("connectors.alpaca.portfolio.ORDER_PAGE", 7)
    monkeypatch.setattr("connectors.alpaca.report.ACTIVITY_PAGE", 5)
    monkeypatch.setattr("connectors.alpaca.portfolio.ACTIVITY_PAGE", 5)
    async with bench() as at:
        at.quote(size=10_000)
        await at.broker.place([ticket(f"f{n}", quantity="1") for n in range(23)])
        resting = [ticket(f"r{n}", quantity="1", type=OrderType.LIMIT, limit_price=D(90)) for n in range(16)]
        await at.broker.place(resting)
        report = await at.broker.report()
        assert len(report.fills) == 23
        assert len(report.orders) == 39
        assert sum(not o.state.is_final for o in report.orders) == 16


# Logging in


async def test_a_refused_key_needs_a_person() -> None:
    async with bench() as at:
        wrong = AlpacaBroker(
            ACCOUNT, {"base_url": at.simulator.url}, {"key": "x", "secret": "y"}, lambda: Nanos(time.time_ns())
        )
        with pytest.raises(NeedsOperator, match="credentials"):
            await wrong.connect()
        await wrong.close()
        none = AlpacaBroker(ACCOUNT, {"base_url": at.simulator.url}, {}, lambda: Nanos(time.time_ns()))
        with pytest.raises(NeedsOperator, match="no key and no secret"):
            await none.connect()
        await none.close()


async def test_accounts_of_one_server_do_not_see_each_other() -> None:
    accounts = [SimulatedAccount(key=f"K{n}", secret=f"S{n}", number=f"PA{n}", cash=D(n * 1_000)) for n in (1, 2)]
    simulator = AlpacaSimulator(accounts, hold=True)
    await simulator.start()
    try:
        for n in (1, 2):
            broker = AlpacaBroker(
                ACCOUNT,
                {"base_url": simulator.url},
                {"key": f"K{n}", "secret": f"S{n}"},
                lambda: Nanos(time.time_ns()),
            )
            await broker.connect()
            await broker.place([ticket(f"of {n}", quantity="1", type=OrderType.LIMIT, limit_price=D(5))])
            report = await broker.report()
            await broker.close()
            assert (report.cash, [o.tag for o in report.orders]) == (n * 1_000, [ticket(f"of {n}").tag])
    finally:
        await simulator.stop()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"environment": "demo"}, "settings"),
        ({"key": "PK…"}, "settings"),
        ({"base_url": "localhost:1"}, "base_url"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_bad_settings_are_refused_by_field(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as refused:
        AlpacaBroker(ACCOUNT, settings, {}, lambda: Nanos(0))
    assert refused.value.field == field

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from tests.connectors.paper.support import (
    BTC,
    ETH,
    MemoryLedger,
    Time,
    batch,
    broker,
    quote,
    ticket,
    trade,
)
from tests.connectors.support import until
from trading.broker import AmendTicket, BrokerOrder, CancelTicket, UpdateKind, Verdict
from trading.errors import BadInput, Fenced, NotReady
from trading.ids import InstrumentId
from trading.orders import OrderState, Side, TimeInForce
from trading.ticks import BACKFILLED, BUYER_MAKER, SNAPSHOT

D = Decimal


async def test_market_order_fills_against_the_last_quote() -> None:
    paper = await broker(fee_bps=D(10))
    paper.on_ticks(quote(99.9, 100.1))
    one = ticket(Side.BUY, "0.5")
    (answer,) = await paper.place([one])
    assert answer.verdict is Verdict.ACCEPTED
    (update,) = paper.drain()
    assert update.kind is UpdateKind.FILLED
    assert update.fill is not None
    assert (update.fill.quantity, update.fill.price, update.fill.fee) == (D("0.5"), D("100.1"), D("0.05005"))
    assert update.tag == one.tag
    report = await paper.report()
    assert report.cash == D(1_000_000) - D("50.05") - D("0.05005")
    assert report.positions[0].quantity == D("0.5")
    assert report.orders[0].state is OrderState.FILLED
    await paper.close()


async def test_resting_limit_fills_as_maker_without_a_fee_when_the_market_comes() -> None:
    paper = await broker(fee_bps=D(10))
    paper.on_ticks(quote(99.9, 100.1))
    await paper.place([ticket(Side.BUY, "0.5", "99.5")])
    assert paper.drain() == []
    paper.on_ticks(trade(99.4, 10.0, flags=BUYER_MAKER))
    await until(lambda: bool(updates := paper.drain()) and updates[0].kind is UpdateKind.FILLED)
    report = await paper.report()
    assert report.fills[0].fill.price == D("99.5")
    assert report.fills[0].fill.fee == 0
    await paper.close()


async def test_only_instruments_with_open_orders_meet_the_market() -> None:
    paper = await broker()
    paper.on_ticks(batch(quote(99.9, 100.1), quote(9.9, 10.1, number=2)))
    await paper.place([ticket(Side.BUY, "0.5", "9.0", on=ETH)])
    paper.on_ticks(batch(trade(50.0, 1.0, number=1), trade(8.9, 1.0, number=2, flags=BUYER_MAKER)))
    await asyncio.sleep(0.05)
    assert [update.instrument for update in paper.drain()] == [ETH.id]
    await paper.close()


async def test_backfilled_ticks_are_history_and_fill_nothing() -> None:
    paper = await broker()
    paper.on_ticks(quote(99.9, 100.1))
    await paper.place([ticket(Side.BUY, "0.5", "99.5")])
    paper.on_ticks(trade(90.0, 10.0, flags=BACKFILLED | BUYER_MAKER))
    await asyncio.sleep(0.05)
    assert paper.drain() == []
    await paper.close()


async def test_what_was_traded_before_a_subscription_fills_nothing() -> None:
    paper = await broker()
    paper.on_ticks(quote(99.9, 100.1))
    await paper.place([ticket(Side.BUY, "0.5", "99.5")])
    paper.on_ticks(trade(90.0, 10.0, flags=SNAPSHOT | BUYER_MAKER))
    await asyncio.sleep(0.05)
    assert paper.drain() == []
    paper.on_ticks(trade(90.0, 10.0, flags=BUYER_MAKER))
    await asyncio.sleep(0.05)
    assert len(paper.drain()) == 1
    await paper.close()


async def test_partial_fills_follow_the_size_and_the_ratio() -> None:
    paper = await broker(fill_ratio=D("0.5"))
    paper.on_ticks(quote(99.9, 100.1, size=0.4))
    await paper.place([ticket(Side.BUY, "0.5", "100.1")])
    (update,) = paper.drain()
    assert update.fill is not None
    assert update.fill.quantity == D("0.2")
    assert (await paper.report()).orders[0].state is OrderState.PARTIALLY_FILLED
    await paper.close()


async def test_slippage_moves_market_orders_against_us() -> None:
    paper = await broker(slippage_ticks=3)
    paper.on_ticks(quote(99.9, 100.1))
    await paper.place([ticket(Side.SELL, "0.5")])
    (update,) = paper.drain()
    assert update.fill is not None
    assert update.fill.price == D("99.6")
    await paper.close()


async def test_latency_delays_the_answer() -> None:
    paper = await broker(latency_ms=80.0)
    paper.on_ticks(quote(99.9, 100.1))
    loop = asyncio.get_running_loop()
    began = loop.time()
    await paper.place([ticket()])
    assert 0.08 <= loop.time() - began < 1.0
    await paper.close()


async def test_a_known_tag_gets_its_first_answer_and_acts_once() -> None:
    ledger = MemoryLedger()
    paper = await broker(ledger)
    paper.on_ticks(quote(99.9, 100.1))
    one = ticket(quantity="0.5")
    first = await paper.place([one])
    again = await paper.place([one, one])
    assert again == first * 2
    assert len(ledger.orders) == len(ledger.fills) == 1
    await paper.close()
    after = await broker(ledger, epoch=2)
    assert await after.place([one]) == first
    assert len(ledger.fills) == 1
    await after.close()


async def test_rejections_by_chance_repeat_with_the_tag() -> None:
    paper = await broker(reject_ratio=0.5)
    paper.on_ticks(quote(99.9, 100.1))
    tickets = [ticket(quantity="0.001", tag=f"CHANCE{i}") for i in range(200)]
    answers = await paper.place(tickets)
    rejected = {answer.tag for answer in answers if answer.verdict is Verdict.REJECTED}
    assert 60 < len(rejected) < 140
    other = await broker(reject_ratio=0.5)
    other.on_ticks(quote(99.9, 100.1))
    assert {a.tag for a in await other.place(tickets) if a.verdict is Verdict.REJECTED} == rejected
    await paper.close()
    await other.close()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (ticket(quantity="0.0005"), "lot size"),
        (ticket(quantity="0"), "greater than 0"),
        (ticket(quantity="NaN"), "not a number"),
        (ticket(limit="100.05"), "tick size"),
        (ticket(limit="-1"), "greater than 0"),
        (ticket(quantity="20000"), "insufficient"),
        (ticket(reduce_only=True), "no position"),
        (ticket(on=ETH), "no quote"),
    ],
)
async def test_a_bad_ticket_is_rejected_with_its_reason_and_the_others_go_on(bad: object, said: str) -> None:
    ledger = MemoryLedger()
    paper = await broker(ledger)
    paper.on_ticks(quote(99.9, 100.1))
    good = ticket(quantity="0.1")
    refused, accepted = await paper.place([bad, good])  # type: ignore[list-item]
    assert refused.verdict is Verdict.REJECTED
    assert said in refused.reason
    assert accepted.verdict is Verdict.ACCEPTED
    assert len(ledger.fills) == 1
    await paper.close()


async def test_an_unlisted_instrument_is_rejected() -> None:
    import msgspec

    paper = await broker()
    unlisted = msgspec.structs.replace(ticket(), instrument=InstrumentId("NSE:INFY"))
    (answer,) = await paper.place([unlisted])
    assert answer.verdict is Verdict.REJECTED
    assert "not listed" in answer.reason
    await paper.close()


async def test_money_is_held_back_for_resting_orders_and_given_back_by_cancel() -> None:
    paper = await broker(cash=D(1000))
    paper.on_ticks(quote(99.9, 100.1, size=100.0))
    first = ticket(Side.BUY, "6", "99.0")
    (answer,) = await paper.place([first])
    assert answer.verdict is Verdict.ACCEPTED
    (refused,) = await paper.place([ticket(Side.BUY, "6", "99.0")])
    assert "insufficient" in refused.reason
    await paper.cancel([CancelTicket(tag=first.tag, broker_order_id=answer.broker_order_id, instrument=BTC.id)])
    (accepted,) = await paper.place([ticket(Side.BUY, "6", "99.0")])
    assert accepted.verdict is Verdict.ACCEPTED
    await paper.close()


async def test_reduce_only_never_turns_a_position() -> None:
    paper = await broker()
    paper.on_ticks(quote(99.9, 100.1, size=10.0))
    await paper.place([ticket(Side.BUY, "1")])
    exits = [ticket(Side.SELL, "1", "101.0", reduce_only=True) for _ in range(3)]
    await paper.place(exits)
    paper.drain()
    paper.on_ticks(trade(101.2, 50.0))
    await asyncio.sleep(0.05)
    updates = paper.drain()
    assert [update.kind for update in updates].count(UpdateKind.FILLED) == 1
    assert [update.kind for update in updates].count(UpdateKind.CANCELLED) == 2
    report = await paper.report()
    assert report.positions == ()
    assert not [order for order in report.orders if not order.state.is_final]
    await paper.close()


async def test_amend_and_cancel_change_what_stands() -> None:
    paper = await broker()
    paper.on_ticks(quote(99.9, 100.1))
    one = ticket(Side.BUY, "0.5", "99.0")
    (placed,) = await paper.place([one])
    (changed,) = await paper.modify(
        [AmendTicket(tag=one.tag, broker_order_id=None, instrument=BTC.id, quantity=D("0.3"), limit_price=D("98.0"))]
    )
    assert changed.verdict is Verdict.ACCEPTED
    (row,) = (await paper.report()).orders
    assert (row.quantity, row.limit_price) == (D("0.3"), D("98.0"))
    (bad,) = await paper.modify(
        [AmendTicket(tag=one.tag, broker_order_id=None, instrument=BTC.id, limit_price=D("98.05"))]
    )
    assert "tick size" in bad.reason
    cancel = CancelTicket(tag=one.tag, broker_order_id=placed.broker_order_id, instrument=BTC.id)
    (cancelled,) = await paper.cancel([cancel])
    assert cancelled.verdict is Verdict.ACCEPTED
    (late,) = await paper.cancel([cancel])
    assert late.verdict is Verdict.REJECTED
    assert "ended" in late.reason
    kinds = [update.kind for update in paper.drain()]
    assert kinds == [UpdateKind.MODIFIED, UpdateKind.CANCELLED]
    await paper.close()


async def test_nothing_is_told_before_it_is_saved() -> None:
    ledger = MemoryLedger()
    paper = await broker(ledger)
    paper.on_ticks(quote(99.9, 100.1))
    ledger.delay = 0.1
    placing = asyncio.create_task(paper.place([ticket()]))
    await asyncio.sleep(0.05)
    assert not placing.done()
    assert paper.drain() == []
    assert not ledger.fills
    await placing
    assert len(ledger.fills) == 1
    assert len(paper.drain()) == 1
    await paper.close()


async def test_saves_coalesce_with_one_in_flight() -> None:
    ledger = MemoryLedger()
    paper = await broker(ledger)
    paper.on_ticks(quote(99.9, 100.1, size=1000.0))
    ledger.delay = 0.03
    before = ledger.saves
    answers = await asyncio.gather(*(paper.place([ticket(quantity="0.001")]) for _ in range(50)))
    assert all(answer.verdict is Verdict.ACCEPTED for (answer,) in answers)
    assert ledger.most_at_once == 1
    assert ledger.saves - before <= 3
    assert len(ledger.fills) == 50
    await paper.close()


async def test_a_ledger_that_is_away_makes_the_outcome_unknown_and_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("connectors.paper.broker._SAVE_WITHIN_S", 0.2)
    ledger = MemoryLedger()
    paper = await broker(ledger)
    paper.on_ticks(quote(99.9, 100.1))
    ledger.failing = OSError("gone")
    one = ticket()
    (answer,) = await paper.place([one])
    assert answer.verdict is Verdict.UNKNOWN
    assert paper.drain() == []
    ledger.failing = None
    await until(lambda: len(ledger.fills) == 1, what="saved after all")
    await until(lambda: len(paper.drain()) == 1, what="told after it was saved")
    (again,) = await paper.place([one])
    assert again.verdict is Verdict.ACCEPTED
    await paper.close()


async def test_a_fenced_broker_stops_for_good() -> None:
    ledger = MemoryLedger()
    old = await broker(ledger, epoch=1)
    old.on_ticks(quote(99.9, 100.1))
    new = await broker(ledger, epoch=2)
    new.on_ticks(quote(99.9, 100.1))
    await new.place([ticket()])
    with pytest.raises(Fenced):
        await old.place([ticket()])
    with pytest.raises(Fenced):
        await old.report()
    assert len(ledger.fills) == 1
    await old.close()
    await new.close()


async def test_after_a_kill_resting_orders_go_on_from_the_ledger() -> None:
    ledger = MemoryLedger()
    killed = await broker(ledger, epoch=1)
    killed.on_ticks(quote(99.9, 100.1, size=0.2))
    partly = ticket(Side.BUY, "0.5", "100.1")
    resting = ticket(Side.BUY, "0.3", "99.0")
    exit_order = ticket(Side.SELL, "9", "105.0", reduce_only=True)
    await killed.place([partly, resting, exit_order])
    cash = ledger.cash
    # No close: the process is gone.
    after = await broker(ledger, epoch=2)
    assert ledger.cash == cash
    after.on_ticks(quote(98.0, 98.2, size=5.0))
    await asyncio.sleep(0.05)
    after.on_ticks(trade(106.0, 50.0))
    await asyncio.sleep(0.05)
    report = await after.report()
    states = {order.tag: (order.state, order.filled_quantity) for order in report.orders}
    assert states[partly.tag] == (OrderState.FILLED, D("0.5"))
    assert states[resting.tag] == (OrderState.FILLED, D("0.3"))
    # Reduce-only survives the restart: it sold what was held and not its nine.
    assert states[exit_order.tag] == (OrderState.CANCELLED, D("0.8"))
    assert report.positions == ()
    ids = [fill.fill.execution_id for fill in report.fills]
    assert len(ids) == len(set(ids)) == 4
    await after.close()


async def test_day_orders_expire_at_midnight() -> None:
    clock = Time()
    paper = await broker(clock=clock)
    midnight = (clock.now // 86_400_000_000_000 + 1) * 86_400_000_000_000
    paper.on_ticks(quote(99.9, 100.1, at=clock.now))
    await paper.place([ticket(limit="90.0", tif=TimeInForce.DAY), ticket(limit="90.0", tif=TimeInForce.GTC)])
    paper.on_ticks(quote(99.9, 100.1, at=midnight + 1))
    await asyncio.sleep(0.05)
    assert [update.kind for update in paper.drain()] == [UpdateKind.EXPIRED]
    await paper.close()


async def test_updates_end_when_the_broker_is_closed() -> None:
    paper = await broker()
    paper.on_ticks(quote(99.9, 100.1))
    seen = []

    async def listen() -> None:
        async for update in paper.updates():
            seen.append(update.kind)

    listening = asyncio.create_task(listen())
    await paper.place([ticket()])
    await paper.close()
    await asyncio.wait_for(listening, 2)
    assert seen == [UpdateKind.FILLED]
    with pytest.raises(NotReady):
        await paper.place([ticket()])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cash", D(-1)),
        ("latency_ms", -1.0),
        ("fee_bps", D(-1)),
        ("fill_ratio", D(0)),
        ("slippage_ticks", -1),
        ("reject_ratio", 1.5),
        ("currency", ""),
    ],
)
async def test_settings_that_cannot_be_name_the_field(field: str, value: object) -> None:
    with pytest.raises(BadInput) as caught:
        await broker(**{field: value})
    assert caught.value.field == field


async def test_trailing_stop_goes_on_from_its_best_price_after_a_restart() -> None:
    ledger = MemoryLedger()
    first = await broker(ledger)
    first.on_ticks(quote(99.9, 100.1))
    await first.place([ticket(Side.BUY, "1"), ticket(Side.SELL, "0.5", trail="5")])
    first.on_ticks(trade(120.0, 0.1))
    await first.close()

    second = await broker(ledger, epoch=2)
    (row,) = [o for o in (await second.report()).orders if o.trail_price]
    assert (row.high_water, row.stop_price) == (D("120.0"), None)
    second.on_ticks(quote(116.0, 116.2))
    second.on_ticks(trade(116.0, 0.1))
    assert (await second.modify([AmendTicket(**named(row), trail_price=D(4))]))[0].verdict is Verdict.ACCEPTED
    await until(lambda: any(u.kind is UpdateKind.FILLED for u in second.drain()))
    await second.close()


def named(row: BrokerOrder) -> dict[str, Any]:
    return {"tag": row.tag, "broker_order_id": row.broker_order_id, "instrument": row.instrument}

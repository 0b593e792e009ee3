"""What a session makes of what its broker says."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.trading.rig import AAA, ACC, PRICE, START, D, Rig, buy, held, limit, sell
from trading.broker import BrokerFill, BrokerPosition, BrokerUpdate, OrderTicket, UpdateKind, Verdict
from trading.errors import Invariant
from trading.ids import BrokerOrderId, Epoch, ExecutionId, Nanos, UserId
from trading.instructions import AskReport, Lane, Send
from trading.journal import AccountHistory
from trading.limits import POSITION
from trading.orders import Fill, OrderState, Side
from trading.session import SessionCore

USED = f"cluster/{POSITION}/{AAA.id}"


def breaks(rig: Rig) -> list[str]:
    return [item.kind for item in rig.book.breaks.values()]


def position(rig: Rig) -> object:
    return rig.book.positions[AAA.id].quantity


# Updates


def test_fills_move_the_order_the_position_and_its_exposure() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.fill("a", 2)
    assert (rig.order("a").state, position(rig), rig.used(USED)) == (OrderState.PARTIALLY_FILLED, 2, 5)
    rig.fill("a", 3, "110")
    order = rig.order("a")
    assert (order.state, order.average_price, position(rig), rig.used(USED)) == (OrderState.FILLED, 106, 5, 5)


def test_duplicate_fill_changes_nothing() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    update = rig.fill("a", 2)
    rig.commit_all()
    rig.do(rig.core.updated(ACC, [update, update], rig.now))
    assert rig.order("a").filled_quantity == 2
    assert not rig.commit_all()


def test_fill_after_cancel_is_kept() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.end("a", UpdateKind.CANCELLED)
    rig.fill("a", 2)
    assert (rig.order("a").state, rig.order("a").filled_quantity, position(rig)) == (OrderState.CANCELLED, 2, 2)
    assert rig.used(USED) == 2


def test_fill_before_the_answer_stands_and_the_answer_adds_only_the_id() -> None:
    rig = Rig()
    rig.place(buy("a", 5))
    rig.commit_all()
    send = rig.take_send(Lane.PLACE)
    rig.update("a", UpdateKind.FILLED, execution="e9", quantity=5)
    assert rig.order("a").state is OrderState.FILLED
    rig.answer(send)
    assert rig.order("a").state is OrderState.FILLED
    assert rig.order("a").broker_order_id == "b1"


def test_repeated_acknowledgement_after_a_fill_changes_nothing() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.fill("a", 2)
    rig.commit_all()
    rig.update("a", UpdateKind.ACCEPTED)
    assert rig.order("a").state is OrderState.PARTIALLY_FILLED
    assert not rig.commit_all()


def test_rejection_after_acceptance_ends_the_order() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.end("a", UpdateKind.REJECTED)
    assert (rig.order("a").state, rig.used(USED)) == (OrderState.REJECTED, 0)


def test_end_after_the_end_is_refused_and_audited() -> None:
    rig = Rig()
    rig.filled(buy("a", 5))
    rig.update("a", UpdateKind.CANCELLED)
    assert rig.order("a").state is OrderState.FILLED
    assert rig.kinds(rig.commit_all()) == ["refused"]
    assert rig.core.refused_moves == 1


def test_overfill_is_kept_and_opens_a_break() -> None:
    rig = Rig()
    rig.filled(buy("a", 5))
    rig.fill("a", 2)
    assert (position(rig), breaks(rig)) == (7, ["overfill"])


def test_update_about_an_order_not_known_here_asks_for_the_whole_view() -> None:
    rig = Rig()
    rig.after(1)
    update = BrokerUpdate(
        kind=UpdateKind.ACCEPTED, tag="X", instrument=AAA.id, at=rig.now, broker_order_id=BrokerOrderId("b77")
    )
    rig.do(rig.core.updated(ACC, [update], rig.now))
    assert "b77" in rig.take(AskReport).why


def test_answer_about_a_stranger_is_a_bug_that_says_so() -> None:
    rig = Rig()
    rig.place(buy("a"))
    rig.commit_all()
    send = rig.take_send(Lane.PLACE)
    wrong = replace(send, tickets=(replace(send.tickets[0], tag="NOBODY"),))
    with pytest.raises(Invariant, match="NOBODY"):
        rig.answer(wrong, Verdict.REJECTED)


# Orders in doubt


def in_doubt(rig: Rig, *, arrived: bool) -> OrderTicket:
    rig.place(buy("a", 5))
    rig.commit_all()
    send = rig.take_send(Lane.PLACE)
    (ticket,) = send.tickets
    assert isinstance(ticket, OrderTicket)
    if arrived:
        rig.broker.place(ticket, rig.now)
        rig.broker.take_told()
    rig.after(1)
    rig.answer(send, Verdict.UNKNOWN, "no answer")
    rig.commit_all()
    return ticket


def test_unknown_order_found_in_the_book_is_taken_from_there() -> None:
    rig = Rig()
    in_doubt(rig, arrived=True)
    assert rig.order("a").state is OrderState.UNKNOWN
    rig.next_report()
    assert (rig.order("a").state, rig.order("a").broker_order_id) == (OrderState.SUBMITTED, "b1")


def test_unknown_order_is_given_up_only_when_two_late_reports_lack_it() -> None:
    rig = Rig()
    in_doubt(rig, arrived=False)
    answered_at, states = rig.now, []
    while rig.order("a").state is OrderState.UNKNOWN:
        rig.next_report()
        states.append((rig.now - answered_at > 1_000_000_000, rig.order("a").state))
    late = [state for is_late, state in states if is_late]
    assert late == [OrderState.UNKNOWN, OrderState.REJECTED]
    assert all(state is OrderState.UNKNOWN for is_late, state in states if not is_late)
    assert rig.used(USED) == 0


def test_unknown_order_missing_once_and_then_there_is_alive() -> None:
    rig = Rig()
    ticket = in_doubt(rig, arrived=False)
    rig.after(1.1)
    rig.next_report()
    if not rig.book.missed:  # that one had been asked for too early
        rig.next_report()
    assert rig.book.missed
    rig.broker.place(ticket, rig.now)  # it took its time
    rig.next_report()
    assert rig.order("a").state is OrderState.SUBMITTED
    assert not rig.book.missed


def test_order_whose_request_is_still_under_way_is_not_absent() -> None:
    rig = Rig()
    rig.place(buy("a", 5))
    rig.commit_all()
    send = rig.take_send(Lane.PLACE)
    for _ in range(5):
        rig.do(rig.core.connection(ACC, False, rig.now))
        rig.after(1.5)
        rig.do(rig.core.connection(ACC, True, rig.now))
        rig.next_report()
    assert rig.order("a").state is OrderState.PENDING
    rig.answer(send)
    assert rig.order("a").state is OrderState.SUBMITTED


def test_unknown_order_is_not_sent_again() -> None:
    rig = Rig()
    in_doubt(rig, arrived=True)
    for _ in range(5):
        rig.clock(0.5)
    assert not rig.waiting(Send)


def test_order_under_way_at_a_restart_is_unknown_until_the_book_shows_it() -> None:
    before = Rig()
    before.place(buy("a", 5))
    before.commit_all()
    pending = before.order("a")
    history = AccountHistory(account=ACC, loaded_at=START, orders=[pending], positions=[], executions=set(), breaks=[])
    rig = Rig(history=history, ready=False)
    assert rig.order("a").state is OrderState.UNKNOWN
    assert rig.used(USED) == 5
    rig.broker.place(before.take_send(Lane.PLACE).tickets[0], rig.now)  # type: ignore[arg-type]
    rig.do(rig.core.connection(ACC, True, rig.now))
    rig.report()
    assert rig.order("a").state is OrderState.SUBMITTED


def test_cancel_asked_for_before_a_restart_is_asked_for_again() -> None:
    before = Rig()
    before.working(buy("a", 5))
    before.cancel("a")
    history = AccountHistory(
        account=ACC, loaded_at=START, orders=[before.order("a")], positions=[], executions=set(), breaks=[]
    )
    rig = Rig(history=history, ready=False)
    rig.broker = before.broker
    rig.do(rig.core.connection(ACC, True, rig.now))
    rig.report()
    assert rig.take_send(Lane.CANCEL).tickets[0].tag == rig.order("a").tag


# The whole view


def test_report_brings_what_the_stream_lost() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.after(31)
    rig.broker.fill(rig.at_broker("a"), D(2), PRICE, rig.now)
    rig.broker.end(rig.at_broker("a"), UpdateKind.EXPIRED, rig.now)
    rig.broker.take_told()
    rig.next_report()
    assert (rig.order("a").state, rig.order("a").filled_quantity) == (OrderState.EXPIRED, 2)
    assert (position(rig), rig.used(USED), breaks(rig)) == (2, 2, [])


def test_report_from_before_a_change_does_not_undo_it() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.clock(31)
    rig.grant()
    old = rig.view()
    rig.after(0.1)
    rig.update("a", UpdateKind.MODIFIED, size=9)
    rig.report(old)
    assert rig.order("a").quantity == 9


def test_prices_that_the_broker_does_not_name_are_not_changes() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.commit_all()
    rig.after(31)
    view = rig.view()
    rig.next_report(replace(view, orders=(replace(view.orders[0], limit_price=None),)))
    assert not rig.commit_all()


def test_reconnect_asks_at_once_and_nothing_new_goes_out_before_the_answer() -> None:
    rig = Rig()
    rig.after(5)
    rig.do(rig.core.connection(ACC, False, rig.now))
    rig.do(rig.core.connection(ACC, True, rig.now))
    assert rig.waiting(AskReport)
    assert not rig.book.reconciled
    rig.report()
    assert rig.book.reconciled


def test_view_from_before_a_lost_connection_does_not_count() -> None:
    rig = Rig()
    rig.clock(31)
    assert rig.waiting(AskReport)
    rig.do(rig.core.connection(ACC, False, rig.now))
    rig.after(1)
    rig.do(rig.core.connection(ACC, True, rig.now))
    rig.report()
    assert not rig.book.reconciled
    rig.next_report()
    assert rig.book.reconciled


def test_report_that_could_not_be_fetched_is_asked_for_again() -> None:
    rig = Rig(ready=False)
    rig.do(rig.core.connection(ACC, True, rig.now))
    rig.take(AskReport)
    rig.do(rig.core.reported(ACC, None, rig.now))
    assert not rig.waiting(AskReport)
    rig.next_report()
    assert rig.book.reconciled


def test_reconnect_after_hours_does_not_take_forgotten_trades_in_again() -> None:
    rig = Rig()
    rig.filled(buy("a", 5))
    for _ in range(4):
        rig.clock(10 * 60)
        rig.todo = [i for i in rig.todo if isinstance(i, AskReport)]
        rig.next_report()
    rig.clock(61)
    assert "a" not in rig.book.orders
    rig.todo.clear()
    rig.book.report_in_flight = False
    rig.do(rig.core.connection(ACC, False, rig.now))
    rig.do(rig.core.connection(ACC, True, rig.now))
    since = rig.waiting(AskReport)[0].since
    rig.report(rig.broker.report(since, rig.now))
    assert position(rig) == 5
    assert not breaks(rig)


def test_order_is_forgotten_a_quarter_of_an_hour_after_its_end_and_not_before() -> None:
    rig = Rig()
    rig.filled(buy("a", 5))
    rig.working(buy("open", 5))
    for minutes in (10, 10):
        assert "a" in rig.book.orders
        rig.clock(minutes * 60)
        rig.todo = [i for i in rig.todo if isinstance(i, AskReport)]
        rig.next_report()
    rig.clock(61)
    assert set(rig.book.orders) == {"open"}
    assert not rig.book.executions


# Breaks


def test_position_that_differs_twice_is_a_break_that_lets_only_exits_through() -> None:
    rig = Rig(positions=[held(5)])
    rig.clock(31)
    wrong = replace(rig.view(), positions=(BrokerPosition(instrument=AAA.id, quantity=D(7)),))
    rig.report(wrong)
    assert not breaks(rig)
    rig.next_report(wrong)
    assert breaks(rig) == ["position"]
    entry, exit_ = rig.place(buy("in")), rig.place(sell("out"))
    rig.commit_all()
    assert rig.one(entry).state is OrderState.DENIED
    assert rig.one(exit_).state is OrderState.PENDING


def test_break_does_not_let_an_entry_grow() -> None:
    rig = Rig(positions=[held(5)])
    rig.working(buy("a", 5))
    rig.clock(31)
    rig.take(AskReport)
    wrong = replace(rig.view(), positions=(BrokerPosition(instrument=AAA.id, quantity=D(7)),))
    rig.do(rig.core.reported(ACC, wrong, rig.now))
    rig.next_report(wrong)
    assert "reduce-only" in str(rig.error(rig.modify("a", 9)))


def test_break_ends_by_itself_when_the_positions_agree_again() -> None:
    rig = Rig(positions=[held(5)])
    wrong = replace(rig.view(), positions=())
    for _ in range(3):
        rig.next_report(wrong)
    assert breaks(rig) == ["position"]
    rig.commit_all()
    rig.next_report()
    (append,) = rig.commit_all()
    assert not breaks(rig)
    assert append.batch.breaks[0].resolution == "the positions agree again"
    assert append.batch.breaks[0].resolved_at == rig.now


def test_filled_quantity_without_its_trade_is_a_break_only_when_seen_twice_and_ends_with_the_trade() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.after(31)
    rig.broker.fill(rig.at_broker("a"), D(2), PRICE, rig.now)
    rig.broker.take_told()
    lagging = replace(rig.view(), fills=(), positions=())
    rig.next_report(lagging)
    assert not breaks(rig)
    rig.next_report(lagging)
    assert breaks(rig) == ["missing_execution"]
    rig.next_report()
    assert (position(rig), breaks(rig)) == (2, [])


def test_working_order_that_vanishes_is_a_break_until_it_is_seen_again() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.after(31)
    gone = replace(rig.view(), orders=())
    rig.next_report(gone)
    assert not breaks(rig)
    rig.next_report(gone)
    assert breaks(rig) == ["order_missing"]
    assert rig.order("a").state is OrderState.SUBMITTED
    rig.next_report()
    assert not breaks(rig)


# Orders of others


def test_order_placed_by_hand_is_adopted_with_its_fills_and_followed() -> None:
    rig = Rig()
    rig.after(31)
    id_ = rig.broker.by_hand(AAA.id, Side.BUY, D(5), PRICE, rig.now)
    rig.broker.fill(id_, D(2), PRICE, rig.now)
    rig.broker.take_told()
    rig.next_report()
    adopted = rig.order(f"adopted-{id_}")
    assert (adopted.state, adopted.filled_quantity, position(rig)) == (OrderState.PARTIALLY_FILLED, 2, 2)
    rig.broker.fill(id_, D(3), PRICE, rig.now)
    rig.hear()
    assert (adopted.state, position(rig)) == (OrderState.FILLED, 5)


def test_adopted_order_is_not_taken_for_a_missing_one() -> None:
    rig = Rig()
    rig.after(31)
    rig.broker.by_hand(AAA.id, Side.BUY, D(5), PRICE, rig.now)
    rig.broker.take_told()
    for _ in range(4):
        rig.next_report()
    assert not breaks(rig)
    assert not rig.book.missed


def test_adopted_order_can_be_cancelled_here() -> None:
    rig = Rig()
    rig.after(31)
    id_ = rig.broker.by_hand(AAA.id, Side.BUY, D(5), PRICE, rig.now)
    rig.broker.take_told()
    rig.next_report()
    rig.commit_all()
    rig.cancel(f"adopted-{id_}")
    (ticket,) = rig.take_send(Lane.CANCEL).tickets
    assert ticket.broker_order_id == id_  # type: ignore[union-attr]


def test_two_strangers_with_one_tag_are_two_orders() -> None:
    rig = Rig()
    rig.after(31)
    for _ in range(2):
        id_ = rig.broker.by_hand(AAA.id, Side.BUY, D(5), PRICE, rig.now)
        rig.broker.orders[id_] = replace(rig.broker.orders[id_], tag="robot")
    rig.broker.take_told()
    rig.next_report()
    rig.next_report()
    assert set(rig.book.open) == {"adopted-b1", "adopted-b2"}


def test_old_order_of_others_without_trades_is_none_of_ours() -> None:
    rig = Rig()
    rig.after(31)
    id_ = rig.broker.by_hand(AAA.id, Side.BUY, D(5), PRICE, rig.now)
    rig.broker.end(id_, UpdateKind.CANCELLED, rig.now)
    rig.broker.take_told()
    rig.next_report()
    assert not rig.book.orders


def test_trades_of_before_our_time_that_the_journal_has_are_not_taken_again() -> None:
    rig = Rig(ready=False, positions=[held(5)])
    rig.book.executions[ExecutionId("e1")] = START
    fill = Fill(execution_id=ExecutionId("e1"), quantity=D(5), price=PRICE, at=START)
    id_ = rig.broker.by_hand(AAA.id, Side.BUY, D(5), PRICE, rig.now)
    rig.broker.end(id_, UpdateKind.EXPIRED, rig.now)
    rig.do(rig.core.connection(ACC, True, rig.now))
    row = BrokerFill(broker_order_id=id_, tag="", instrument=AAA.id, side=Side.BUY, fill=fill)
    rig.report(replace(rig.view(), fills=(row,)))
    assert position(rig) == 5


# Values of the core itself


def test_batch_that_was_not_under_way_is_a_bug_that_says_so() -> None:
    core = SessionCore(UserId("u"), Epoch(1))
    with pytest.raises(Invariant, match="batch 3"):
        core.appended(3, Nanos(0))


def test_batch_keeps_what_was_when_it_was_closed() -> None:
    rig = Rig(limits=[limit(POSITION, 100)])
    rig.working(buy("a", 5))
    rig.fill("a", 2)
    append = rig.commit_all()[-1]
    rig.fill("a", 3)
    assert append.batch.heads[0].filled_quantity == 2
    assert append.batch.positions[0].quantity == 2


def test_story_of_an_order_is_kept_for_those_who_ask() -> None:
    rig = Rig()
    rig.filled(buy("a", 5))
    story = rig.core.story(ACC, rig.order("a").client_order_id)
    assert [line.split()[1] for line in story] == ["pending", "submitted", "filled"]


# Switched off


def test_what_an_account_holds_counts_while_it_is_switched_off() -> None:
    rig = Rig(positions=[held(7)])
    rig.working(buy("a", 5))
    rig.do(rig.core.switch(ACC, False, rig.now))
    assert rig.used(USED) == 12
    for order in (buy("b", 1), sell("c", 7, reduce_only=True)):
        error = rig.error(rig.place(order))
        assert (error.code, "disabled" in error.detail) == ("account_is_disabled", True)
    assert rig.error(rig.modify("a", quantity=6)).code == "account_is_disabled"
    # A cancel waits until there is somebody to send it to; its connection, which ends, is not listened to any more.
    rig.one(rig.cancel("a"))
    rig.do(rig.core.connection(ACC, True, rig.now))
    rig.commit_all()
    rig.clock(60)
    assert not rig.waiting(Send)
    assert not rig.waiting(AskReport)
    assert rig.used(USED) == 12


def test_an_account_that_is_switched_on_again_is_compared_first() -> None:
    rig = Rig(positions=[held(7)])
    rig.do(rig.core.switch(ACC, False, rig.now))
    rig.do(rig.core.switch(ACC, True, rig.now))
    assert rig.error(rig.place(buy("a", 1))).code == "not_ready"
    rig.after(1)
    rig.do(rig.core.connection(ACC, True, rig.now))
    rig.report()
    rig.commit_all()
    rig.working(buy("b", 1))
    assert rig.used(USED) == 8

"""What a session does with commands."""

from __future__ import annotations

from msgspec.structs import replace

from tests.trading.rig import AAA, ACC, BBB, D, Rig, buy, held, limit, sell
from trading.broker import UpdateKind, Verdict
from trading.errors import BadInput, Conflict, NotReady, RiskDenied, UnknownThing
from trading.ids import AccountId, AlgoId, InstrumentId, Nanos
from trading.instructions import Append, AskBudget, Lane, Send, Tell
from trading.limits import GROSS_EXPOSURE, ORDER_NOTIONAL, ORDER_QUANTITY, POSITION
from trading.orders import OrderState, Side


def test_nothing_leaves_before_its_row_is_committed() -> None:
    rig = Rig()
    token = rig.place(buy("a"))
    assert not rig.waiting(Send)
    append = rig.commit()
    assert [(o.client_order_id, o.state) for o in append.batch.orders] == [("a", OrderState.PENDING)]
    assert len(rig.take_send(Lane.PLACE).tickets) == 1
    assert rig.one(token).state is OrderState.PENDING


def test_keys_on_their_way_to_the_journal_are_known() -> None:
    rig = Rig()
    rig.place(buy("algo-1-7", algo="algo-1"), buy("algo-2-9", algo="algo-2"))
    assert rig.waiting(Append), "neither is journaled"
    assert rig.core.keys_of(ACC, AlgoId("algo-1")) == ["algo-1-7"]
    assert rig.core.keys_of(AccountId("other"), AlgoId("algo-1")) == []


def test_reply_and_notes_wait_for_the_commit() -> None:
    rig = Rig()
    rig.place(buy("a"))
    assert [type(i) for i in rig.todo] == [Append]
    rig.commit()
    (tell,) = rig.waiting(Tell)
    assert [str(n.event.kind) for n in tell.notes] == ["pending"]


def test_command_without_content_is_answered_at_once() -> None:
    rig = Rig()
    assert rig.reply(rig.place()) == ()
    assert rig.reply(rig.cancel()) == ()


def test_order_cancelled_while_it_waits_for_its_turn_is_never_sent() -> None:
    rig = Rig()
    rig.place(buy("first"))
    rig.commit()
    first = rig.take_send(Lane.PLACE)
    token = rig.place(buy("second"))
    rig.commit()
    assert rig.one(token).state is OrderState.PENDING
    assert rig.one(rig.cancel("second")).state is OrderState.CANCELLED
    rig.answer(first)
    rig.commit_all()
    assert not rig.waiting(Send)


def test_order_whose_turn_comes_too_late_is_not_sent() -> None:
    rig = Rig()
    rig.place(buy("first"))
    rig.commit()
    first = rig.take_send(Lane.PLACE)
    rig.place(buy("second"))
    rig.commit()
    rig.after(2.1)
    rig.answer(first)
    rig.commit_all()
    assert not rig.waiting(Send)
    assert rig.order("second").state is OrderState.REJECTED
    assert "not sent" in rig.order("second").reason


def test_order_held_up_by_a_lost_connection_is_not_sent_when_it_comes_back() -> None:
    rig = Rig()
    rig.place(buy("a"))
    rig.do(rig.core.connection(ACC, False, rig.now))
    rig.commit()
    rig.after(60)
    rig.do(rig.core.connection(ACC, True, rig.now))
    rig.commit_all()
    assert not rig.waiting(Send)
    assert rig.order("a").state is OrderState.REJECTED


def test_order_that_the_journal_took_too_long_to_take_is_not_sent() -> None:
    rig = Rig()
    rig.place(buy("a"))
    rig.after(2.1)
    rig.commit()
    rig.commit()
    assert not rig.waiting(Send)
    assert rig.order("a").state is OrderState.REJECTED


# One key, one order


def test_same_intent_twice_is_one_order() -> None:
    rig = Rig()
    first = rig.place(buy("a", created_at=1))
    second = rig.place(buy("a", created_at=2))
    (append, *_) = rig.commit_all()
    assert len(append.batch.orders) == 1
    assert rig.one(first).tag == rig.one(second).tag
    assert len(rig.take_send(Lane.PLACE).tickets) == 1


def test_same_key_with_another_content_is_refused() -> None:
    rig = Rig()
    rig.place(buy("a", 5))
    error = rig.error(rig.place(buy("a", 6)))
    assert isinstance(error, Conflict)
    assert error.code == "client_order_id_reused"


def test_ended_order_is_answered_again_and_not_placed_again() -> None:
    rig = Rig()
    rig.filled(buy("a"))
    assert rig.one(rig.place(buy("a"))).state is OrderState.FILLED
    rig.commit_all()
    assert not rig.waiting(Send)


def test_same_intent_while_parked_waits_with_the_first() -> None:
    rig = Rig(limits=[limit(POSITION, 10)])
    first, second = rig.place(buy("a", created_at=1)), rig.place(buy("a", created_at=2))
    rig.grant()
    rig.commit_all()
    assert rig.one(first).tag == rig.one(second).tag
    assert len(rig.take_send(Lane.PLACE).tickets) == 1


def test_other_content_while_parked_is_refused_and_the_first_goes_on() -> None:
    rig = Rig(limits=[limit(POSITION, 10)])
    first = rig.place(buy("a", 5))
    assert isinstance(rig.error(rig.place(buy("a", 6))), Conflict)
    rig.grant()
    rig.commit_all()
    assert rig.one(first).quantity == 5


def test_key_that_only_the_journal_remembers_is_answered_with_its_order() -> None:
    rig = Rig()
    old = rig.filled(buy("a"))
    rig.clock(100 * 60)
    rig.next_report()
    rig.clock(61)
    rig.commit_all()
    assert "a" not in rig.book.orders
    rig.clock(1)
    rig.grant()
    rig.clock(1)
    rig.grant()
    again = rig.place(buy("a"))
    fresh = rig.place(buy("b"))
    append = rig.take(Append)
    rig.do(rig.core.append_refused(append.number, {old.key: old}, rig.now))
    shorter = rig.commit()
    assert [o.client_order_id for o in shorter.batch.orders] == []
    rig.commit_all()
    assert rig.one(again).state is OrderState.FILLED
    assert rig.one(fresh).state is OrderState.PENDING
    assert [t.tag for t in rig.take_send(Lane.PLACE).tickets] == [rig.order("b").tag]
    assert rig.used(f"cluster/{POSITION}/{AAA.id}") == 10  # the fill of then, the new one, nothing else


def test_other_content_under_a_key_that_only_the_journal_remembers_is_refused() -> None:
    rig = Rig()
    token = rig.place(buy("a", 5))
    old = rig.order("a")
    append = rig.take(Append)
    known = replace(old, quantity=D(7))
    rig.do(rig.core.append_refused(append.number, {old.key: known}, rig.now))
    rig.commit_all()
    assert isinstance(rig.error(token), Conflict)
    assert not rig.waiting(Send)
    assert not rig.waiting(Tell)


def test_cancel_of_an_order_that_the_journal_refuses_writes_nothing_over_the_old_one() -> None:
    rig = Rig()
    rig.place(buy("a"))
    old = rig.order("a")
    append = rig.take(Append)
    rig.cancel("a")
    known = replace(old, state=OrderState.FILLED)
    rig.do(rig.core.append_refused(append.number, {old.key: known}, rig.now))
    assert all(not a.batch.heads and not a.batch.events for a in rig.commit_all())


# Group commit, lanes


def test_one_append_is_under_way_and_the_rest_goes_as_one() -> None:
    rig = Rig()
    for n in range(5):
        rig.place(buy(f"k{n}", 1))
    first = rig.commit()
    second = rig.commit()
    assert [len(first.batch.orders), len(second.batch.orders)] == [1, 4]
    assert second.number == first.number + 1


def test_one_request_is_under_way_in_each_lane() -> None:
    rig = Rig()
    for n in range(3):
        rig.place(buy(f"k{n}", 1))
    rig.commit_all()
    first = rig.take_send(Lane.PLACE)
    assert not rig.waiting(Send)
    rig.answer(first)
    second = rig.take_send(Lane.PLACE)
    assert [len(first.tickets), len(second.tickets)] == [1, 2]


def test_cancel_does_not_wait_behind_orders() -> None:
    rig = Rig()
    rig.working(buy("old"))
    for n in range(3):
        rig.place(buy(f"k{n}", 1))
    rig.commit_all()
    rig.cancel("old")
    assert len(rig.take_send(Lane.CANCEL).tickets) == 1


def test_cancel_waits_for_its_own_order_to_arrive_and_holds_up_no_other() -> None:
    rig = Rig()
    rig.working(buy("old"))
    rig.place(buy("new", 1))
    rig.commit_all()
    placing = rig.take_send(Lane.PLACE)
    rig.cancel("new", "old")
    first = rig.take_send(Lane.CANCEL)
    assert [t.tag for t in first.tickets] == [rig.order("old").tag]
    rig.answer(first)
    assert not rig.waiting(Send)
    rig.answer(placing)
    assert [t.tag for t in rig.take_send(Lane.CANCEL).tickets] == [rig.order("new").tag]


def test_exit_goes_ahead_of_entries_that_wait() -> None:
    rig = Rig(positions=[held(5)])
    rig.place(buy("first", 1))
    rig.commit_all()
    first = rig.take_send(Lane.PLACE)
    rig.place(buy("second", 1))
    rig.place(sell("exit", 5))
    rig.commit_all()
    rig.answer(first)
    assert [t.side for t in rig.take_send(Lane.PLACE).tickets] == [Side.SELL, Side.BUY]


# Cancels


def test_cancel_before_the_order_is_sent_keeps_it_here() -> None:
    rig = Rig()
    rig.place(buy("a"))
    assert rig.one(rig.cancel("a")).state is OrderState.CANCELLED
    rig.commit_all()
    assert not rig.waiting(Send)


def test_cancel_of_a_sent_order_goes_to_the_broker() -> None:
    rig = Rig()
    rig.working(buy("a"))
    assert rig.one(rig.cancel("a")).cancelling
    rig.answer(rig.take_send(Lane.CANCEL))
    rig.end("a", UpdateKind.CANCELLED)
    assert rig.order("a").state is OrderState.CANCELLED
    assert rig.book.open == {}


def test_cancel_that_loses_to_a_fill_leaves_the_fill() -> None:
    rig = Rig()
    rig.working(buy("a"))
    rig.cancel("a")
    send = rig.take_send(Lane.CANCEL)
    rig.fill("a", 5)
    rig.answer(send, Verdict.REJECTED, "filled")
    rig.commit_all()
    assert rig.order("a").state is OrderState.FILLED
    assert not rig.order("a").cancelling


def test_cancel_without_an_answer_is_repeated_once_the_order_is_seen_alive() -> None:
    rig = Rig()
    rig.working(buy("a"))
    rig.cancel("a")
    rig.answer(rig.take_send(Lane.CANCEL), Verdict.UNKNOWN)
    rig.next_report()
    assert rig.take_send(Lane.CANCEL).tickets[0].tag == rig.order("a").tag


def test_cancel_of_an_unknown_or_ended_order_says_so() -> None:
    rig = Rig()
    assert isinstance(rig.error(rig.cancel("nope")), UnknownThing)
    rig.filled(buy("a"))
    error = rig.error(rig.cancel("a"))
    assert isinstance(error, Conflict)
    assert error.code == "order_is_final"


def test_cancel_of_an_intent_that_waits_for_budget_denies_it() -> None:
    rig = Rig(limits=[limit(POSITION, 10)])
    placed = rig.place(buy("a"))
    cancelled = rig.cancel("a")
    rig.grant()
    rig.commit_all()
    assert rig.one(placed).state is OrderState.DENIED
    assert rig.one(cancelled).state is OrderState.DENIED
    assert not rig.waiting(Send)


def test_cancel_all_takes_back_open_and_waiting_orders_of_one_algo_only() -> None:
    rig = Rig(limits=[limit(POSITION, 10)])
    rig.working(buy("mine", 2, algo="x"))
    rig.working(buy("other", 2, algo="y"))
    rig.after(6)  # the allowance is over: the next one has to wait
    waiting = rig.place(buy("waits", 2, algo="x"))
    rig.do(rig.core.cancel_all(99, ACC, rig.now, algo="x"))
    rig.commit_all()
    assert {o.client_order_id for o in rig.reply(99) if not isinstance(o, Exception)} == {"mine", "waits"}
    assert rig.one(waiting).state is OrderState.DENIED
    assert [t.tag for t in rig.take_send(Lane.CANCEL).tickets] == [rig.order("mine").tag]


def test_cancel_all_of_an_algo_leaves_what_closes_a_position_in_its_name() -> None:
    """An algo that ends while a kill closes what it held must not keep the kill from it."""
    rig = Rig(limits=[limit(POSITION, 10)])
    rig.filled(buy("held", 2, algo="x"))
    for key in ("kill-1-TEST.20qdq8", "flat-1-TEST.20qdq8"):
        rig.working(sell(key, 1, price=None, algo="x", reduce_only=True))
    rig.working(buy("kill-named-by-somebody", 1, algo="x"))
    rig.do(rig.core.cancel_all(99, ACC, rig.now, algo="x"))
    rig.commit_all()
    assert [o.client_order_id for o in rig.reply(99) if not isinstance(o, Exception)] == ["kill-named-by-somebody"]
    # A person who takes back everything means everything.
    rig.do(rig.core.cancel_all(100, ACC, rig.now))
    rig.commit_all()
    assert {o.client_order_id for o in rig.reply(100) if not isinstance(o, Exception)} >= {
        "kill-1-TEST.20qdq8",
        "flat-1-TEST.20qdq8",
    }


def test_cancels_go_out_while_the_journal_is_away_and_nothing_new_does() -> None:
    rig = Rig()
    rig.working(buy("a"))
    rig.core.journal_is_away = True
    new, change = rig.place(buy("b")), rig.modify("a", 7)
    assert isinstance(rig.error(new), NotReady)
    assert isinstance(rig.error(change), NotReady)
    assert rig.one(rig.cancel("a")).cancelling
    assert rig.take_send(Lane.CANCEL)


# Risk


def test_nothing_new_before_central_risk_has_spoken_but_exits_pass() -> None:
    rig = Rig(limits=None, positions=[held(5)])
    assert isinstance(rig.error(rig.place(buy("in"))), NotReady)
    token = rig.place(sell("out"))
    rig.commit_all()
    assert rig.one(token).state is OrderState.PENDING


def test_nothing_new_before_the_broker_has_been_asked() -> None:
    rig = Rig(ready=False)
    assert isinstance(rig.error(rig.place(buy("a"))), NotReady)
    rig.do(rig.core.connection(ACC, True, rig.now))
    assert isinstance(rig.error(rig.place(buy("a"))), NotReady)


def test_denied_order_names_every_limit_it_breaks() -> None:
    limits = [
        limit(ORDER_QUANTITY, 4),
        limit(ORDER_NOTIONAL, 300, f"account:{ACC}"),
        limit(POSITION, 3),
        limit(GROSS_EXPOSURE, 200, f"account:{ACC}"),
    ]
    rig = Rig(limits=limits)
    token = rig.place(buy("a", 5, reduce_only=True))
    rig.commit_all()
    order = rig.one(token)
    assert order.state is OrderState.DENIED
    for words in ("reduce_only", "order_quantity", "order_notional", "position", "gross_exposure"):
        assert words in order.reason


def test_denied_by_budget_names_every_shared_limit_it_breaks() -> None:
    rig = Rig(limits=[limit(POSITION, 3), limit(GROSS_EXPOSURE, 200)])
    token = rig.place(buy("a", 5))
    rig.grant()
    rig.commit_all()
    order = rig.one(token)
    assert order.state is OrderState.DENIED
    assert "position of TEST:AAA 5 is above the limit 3 of cluster" in order.reason
    assert "gross_exposure 500 is above the limit 200 of cluster" in order.reason


def test_denied_by_its_own_account_names_the_shared_limits_that_it_breaks_too() -> None:
    rig = Rig(limits=[limit(POSITION, 3), limit(GROSS_EXPOSURE, 200, f"account:{ACC}")])
    token = rig.place(buy("a", 5))
    rig.commit_all()
    assert rig.one(token).reason.split("; ") == [
        "gross_exposure 500 is above the limit 200 of account:acc",
        "position of TEST:AAA 5 is above the limit 3 of cluster",
    ]


def test_orders_that_fit_one_by_one_are_not_refused_together() -> None:
    rig = Rig(limits=[limit(POSITION, 10)])
    token = rig.place(*(buy(f"k{n}", 4) for n in range(3)))
    rig.grant()
    while rig.waiting(AskBudget):
        rig.grant()
    rig.commit_all()
    states = [o.state for o in rig.reply(token) if not isinstance(o, Exception)]
    assert states == [OrderState.PENDING, OrderState.PENDING, OrderState.DENIED]


def test_intent_that_central_risk_does_not_answer_is_given_up() -> None:
    rig = Rig(limits=[limit(POSITION, 10)])
    token = rig.place(buy("a"))
    rig.do(rig.core.budget_failed(rig.now))
    rig.clock(2.1)
    assert isinstance(rig.error(token), NotReady)
    rig.grant()
    rig.commit_all()
    assert not rig.waiting(Send)


def test_budget_is_returned_when_nothing_is_placed_for_a_while() -> None:
    rig = Rig(limits=[limit(POSITION, 100)])
    rig.working(buy("a", 5))
    name = f"cluster/{POSITION}/{AAA.id}"
    assert rig.core.purse.holds[name] == 10
    rig.clock(11)
    rig.grant()
    assert rig.core.purse.holds[name] == 5
    assert rig.risk.total(name) == 5


def test_reduce_only_must_reduce() -> None:
    rig = Rig(positions=[held(5)])
    too_big, other_way, fits = (
        rig.place(sell("a", 6, reduce_only=True)),
        rig.place(buy("b", 1, reduce_only=True)),
        rig.place(sell("c", 5, reduce_only=True)),
    )
    rig.commit_all()
    assert rig.one(too_big).state is OrderState.DENIED
    assert rig.one(other_way).state is OrderState.DENIED
    assert rig.one(fits).state is OrderState.PENDING


def test_market_order_without_a_known_price_is_denied() -> None:
    rig = Rig(marks=False)
    token = rig.place(buy("a", price=None))
    rig.commit_all()
    assert "no price" in rig.one(token).reason


def test_bad_orders_name_the_field() -> None:
    rig = Rig()
    for wrong, field in (
        (buy("a", 0), "quantity"),
        (buy("a", 5, "100.5"), "limit_price"),
        (buy("a b"), "client_order_id"),
        (buy("a", 5, "1E+40"), "limit_price"),
    ):
        error = rig.error(rig.place(wrong))
        assert isinstance(error, BadInput)
        assert error.field == field
    assert isinstance(rig.error(rig.place(buy("a", of=InstrumentId("TEST:NONE")))), UnknownThing)


def test_unknown_account_is_named() -> None:
    rig = Rig()
    rig.token += 1
    rig.do(rig.core.place(rig.token, [replace(buy("a"), account=AccountId("no"))], rig.now))
    error = rig.error(rig.token)
    assert isinstance(error, UnknownThing)
    assert error.kind == "account"


# Changes


def test_larger_size_needs_budget_and_waits_for_it() -> None:
    rig = Rig(limits=[limit(POSITION, 20)])
    rig.working(buy("a", 5))
    token = rig.modify("a", 15)
    assert not rig.waiting(Send)
    rig.grant()
    rig.commit_all()
    assert rig.one(token).quantity == 5
    assert rig.used(f"cluster/{POSITION}/{AAA.id}") == 15
    assert rig.take_send(Lane.MODIFY).tickets[0].quantity == 15


def test_change_of_an_order_that_was_seen_otherwise_is_refused() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    seen = rig.order("a").updated_at
    rig.now = Nanos(rig.now + 1)
    token = rig.modify("a", 4, seen=seen)
    rig.commit_all()
    assert rig.one(token).updated_at != seen
    error = rig.error(rig.modify("a", 3, seen=seen))
    assert isinstance(error, Conflict)
    assert error.code == "order_moved"


def test_larger_size_beyond_a_limit_is_refused() -> None:
    rig = Rig(limits=[limit(POSITION, 20), limit(ORDER_QUANTITY, 50)])
    rig.working(buy("a", 5))
    token = rig.modify("a", 25)
    rig.grant()
    error = rig.error(token)
    assert isinstance(error, RiskDenied)
    assert "position of TEST:AAA 25 is above the limit 20 of cluster" in str(error)
    assert "order_quantity" in str(rig.error(rig.modify("a", 51)))


def test_refused_change_gives_its_reservation_back() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    name = f"cluster/{POSITION}/{AAA.id}"
    rig.modify("a", 15)
    rig.commit_all()
    assert rig.used(name) == 15
    rig.answer(rig.take_send(Lane.MODIFY), Verdict.REJECTED, "no")
    assert rig.used(name) == 5


def test_fill_under_a_change_keeps_the_larger_size_reserved() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.modify("a", 15)
    rig.commit_all()
    rig.fill("a", 2)
    assert rig.used(f"cluster/{POSITION}/{AAA.id}") == 15


def test_change_that_got_lost_gives_its_reservation_back() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.modify("a", 15)
    rig.commit_all()
    rig.answer(rig.take_send(Lane.MODIFY), Verdict.UNKNOWN)
    for _ in range(4):
        rig.next_report()
    assert rig.used(f"cluster/{POSITION}/{AAA.id}") == 5


def test_second_change_waits_for_a_larger_size_to_be_settled() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.modify("a", 15)
    assert isinstance(rig.error(rig.modify("a", 9)), NotReady)
    rig.commit_all()
    rig.answer(rig.take_send(Lane.MODIFY))
    rig.update("a", UpdateKind.MODIFIED, size=15)
    rig.commit_all()
    rig.todo.clear()
    token = rig.modify("a", 9)
    rig.commit_all()
    assert rig.one(token).quantity == 15


def test_two_changes_that_wait_for_budget_are_both_answered() -> None:
    rig = Rig(limits=[limit(POSITION, 20)])
    rig.working(buy("a", 5))
    first, second = rig.modify("a", 15), rig.modify("a", 16)
    assert isinstance(rig.error(second), NotReady)
    rig.grant()
    rig.commit_all()
    assert rig.one(first).client_order_id == "a"


def test_price_beyond_the_notional_limit_is_refused() -> None:
    rig = Rig(limits=[limit(ORDER_NOTIONAL, 600)])
    rig.working(buy("a", 5))
    assert isinstance(rig.error(rig.modify("a", price=121)), RiskDenied)
    token = rig.modify("a", price=119)
    rig.commit_all()
    assert rig.one(token).state is OrderState.SUBMITTED


def test_change_that_waited_too_long_is_not_sent() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    rig.modify("a", 15)
    rig.after(2.1)
    appends = rig.commit_all()
    assert not [s for s in rig.waiting(Send) if s.lane is Lane.MODIFY]
    assert rig.kinds(appends)[-1] == "modify_rejected"
    assert rig.used(f"cluster/{POSITION}/{AAA.id}") == 5


def test_change_needs_something_to_change_and_an_open_order() -> None:
    rig = Rig()
    rig.working(buy("a", 5))
    assert isinstance(rig.error(rig.modify("a")), BadInput)
    rig.fill("a", 3)
    assert isinstance(rig.error(rig.modify("a", 3)), BadInput)
    assert isinstance(rig.error(rig.modify("b", 3)), UnknownThing)


def test_other_instruments_are_none_of_an_orders_business() -> None:
    rig = Rig(limits=[limit(POSITION, 5)])
    rig.working(buy("a", 5))
    rig.working(buy("b", 5, of=BBB.id))
    assert rig.risk.total(f"cluster/{POSITION}/{AAA.id}") == 5
    assert rig.risk.total(f"cluster/{POSITION}/{BBB.id}") == 5

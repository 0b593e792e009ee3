"""What a session does with commands."""

from __future__ import annotations

from tests.trading.rig import ACC, Rig, buy
from trading.instructions import Append, Lane, Send, Tell
from trading.orders import OrderState

GROSS = "gross_exposure"


def test_nothing_leaves_before_its_row_is_committed() -> None:
    rig = Rig()
    token = rig.place(buy("a"))
    assert not rig.waiting(Send)
    append = rig.commit()
    assert [(o.client_order_id, o.state) for o in append.batch.orders] == [("a", OrderState.PENDING)]
    assert len(rig.take_send(Lane.PLACE).tickets) == 1
    assert rig.one(token).state is OrderState.PENDING


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

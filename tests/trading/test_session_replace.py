"""Changing an order at a broker that cannot: cancel, then new, never both live."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.trading.rig import ACC, D, Rig, buy, limit
from trading.broker import Answer, CancelTicket, Capabilities, OrderTicket, UpdateKind, Verdict
from trading.errors import BadInput, NotReady, RiskDenied
from trading.ids import ClientOrderId
from trading.instructions import Append, Lane, Send
from trading.journal import AccountHistory
from trading.limits import POSITION
from trading.orders import OrderState, OrderType, TimeInForce

NO_MODIFY = Capabilities(
    order_types=frozenset(OrderType),
    times_in_force=frozenset(TimeInForce),
    native_modify=False,
    deduplicates=True,
    late_arrival_s=1.0,
)


def rig_with(quantity: int = 10, **more: object) -> Rig:
    """A rig whose broker cannot change orders, with one working order `a`."""
    rig = Rig(capabilities=NO_MODIFY, **more)  # type: ignore[arg-type]
    rig.working(buy("a", quantity))
    return rig


def taken_back(rig: Rig, filled_meanwhile: int = 0) -> None:
    """The cancel of `a` goes out and the broker says that it has ended."""
    rig.commit_all()
    rig.answer(rig.take_send(Lane.CANCEL))
    if filled_meanwhile:
        rig.broker.fill(rig.at_broker("a"), D(filled_meanwhile), D(100), rig.now)
    rig.end("a", UpdateKind.CANCELLED)
    rig.commit_all()


def sent(rig: Rig) -> list[OrderTicket]:
    return [t for s in rig.waiting(Send) for t in s.tickets if isinstance(t, OrderTicket)]


def test_a_change_takes_the_order_back_and_places_its_successor_with_the_new_terms() -> None:
    rig = rig_with()
    token = rig.modify("a", quantity=12, price=99)
    appended = rig.commit_all()
    assert rig.kinds(appended) == ["modify_requested", "cancel_requested"]
    assert rig.one(token).client_order_id == "a"
    (cancel,) = rig.take_send(Lane.CANCEL).tickets
    assert isinstance(cancel, CancelTicket)
    assert not sent(rig)
    rig.do(
        rig.core.answered(
            ACC, Lane.CANCEL, rig.core._lane_number, [Answer(tag=cancel.tag, verdict=Verdict.ACCEPTED)], rig.now
        )
    )
    rig.end("a", UpdateKind.CANCELLED)
    rig.commit_all()
    assert not sent(rig), "placed before the broker's book showed the old order gone"
    rig.next_report()
    rig.commit_all()
    (ticket,) = sent(rig)
    assert (ticket.quantity, ticket.limit_price, ticket.tag) == (D(12), D(99), rig.order("a~2").tag)
    assert rig.order("a").state is OrderState.CANCELLED


def test_the_successor_is_journaled_before_it_is_sent() -> None:
    rig = rig_with()
    rig.modify("a", price=99)
    taken_back(rig)
    rig.next_report()
    assert not sent(rig)
    assert "pending" in rig.kinds([rig.take(Append)])


def test_what_filled_meanwhile_is_taken_off() -> None:
    rig = rig_with(10)
    rig.modify("a", quantity=12)
    taken_back(rig, filled_meanwhile=4)
    rig.next_report()
    rig.commit_all()
    assert sent(rig)[0].quantity == D(8)


def test_an_order_that_fills_before_it_is_taken_back_has_no_successor() -> None:
    rig = rig_with(10)
    rig.modify("a", price=99)
    rig.commit_all()
    rig.answer(rig.take_send(Lane.CANCEL), Verdict.REJECTED, "too late")
    rig.fill("a", 10)
    rig.next_report()
    assert rig.kinds(rig.commit_all()).count("modify_rejected") == 1
    assert not rig.book.replacing
    assert ClientOrderId("a~2") not in rig.book.orders


def test_a_refused_cancel_leaves_the_order_as_it_is() -> None:
    rig = rig_with(10)
    rig.modify("a", quantity=20)
    rig.commit_all()
    assert rig.book.counted[ClientOrderId("a")] == D(20)
    rig.answer(rig.take_send(Lane.CANCEL), Verdict.REJECTED, "the venue is busy")
    rig.commit_all()
    order = rig.order("a")
    assert order.state is OrderState.SUBMITTED
    assert "the venue is busy" in order.reason
    assert rig.book.counted[ClientOrderId("a")] == D(10)
    again = rig.modify("a", price=98)
    rig.commit_all()
    assert rig.one(again).state is OrderState.SUBMITTED


def test_a_cancel_while_the_change_is_under_way_means_the_cancel() -> None:
    rig = rig_with()
    rig.modify("a", price=99)
    rig.commit_all()
    rig.cancel("a")
    taken_back(rig)
    rig.next_report()
    rig.commit_all()
    assert not sent(rig)
    assert list(rig.book.orders) == ["a"]


def test_a_cancel_between_the_old_orders_end_and_the_new_ones_start_means_the_cancel() -> None:
    rig = rig_with()
    rig.modify("a", price=99)
    taken_back(rig)
    token = rig.cancel("a")
    rig.next_report()
    rig.commit_all()
    assert rig.one(token).state is OrderState.CANCELLED
    assert not sent(rig)


def test_cancel_all_takes_back_what_is_being_replaced_too() -> None:
    rig = rig_with()
    rig.modify("a", price=99)
    taken_back(rig)
    rig.do(rig.core.cancel_all(99, ACC, rig.now))
    rig.next_report()
    rig.commit_all()
    assert not sent(rig)


def test_cancels_and_changes_of_the_old_key_reach_the_successor() -> None:
    rig = rig_with()
    rig.modify("a", price=99)
    taken_back(rig)
    rig.next_report()
    rig.commit_all()
    rig.answer(rig.take_send(Lane.PLACE))
    rig.commit_all()
    token = rig.modify("a", price=98)
    rig.commit_all()
    assert rig.one(token).client_order_id == "a~2"
    (ticket,) = rig.take_send(Lane.CANCEL).tickets
    assert ticket.tag == rig.order("a~2").tag


def test_a_second_change_meanwhile_is_asked_to_wait() -> None:
    rig = rig_with()
    rig.modify("a", price=99)
    rig.commit_all()
    assert isinstance(rig.error(rig.modify("a", price=98)), NotReady)


def test_a_late_fill_before_the_report_is_taken_off_too() -> None:
    rig = rig_with(10)
    rig.modify("a", price=99)
    taken_back(rig)
    rig.update("a", UpdateKind.FILLED, execution="late", quantity=3)
    row = rig.broker.of_tag(rig.order("a").tag)
    assert row is not None
    rig.next_report()
    rig.commit_all()
    assert [t.quantity for t in sent(rig)] in ([D(7)], [])


def test_a_change_that_comes_about_too_late_is_not_made() -> None:
    rig = rig_with()
    rig.modify("a", price=99)
    rig.commit_all()
    rig.after(11)
    taken_back(rig)
    rig.next_report()
    rig.commit_all()
    assert not sent(rig)
    assert "gone by" in rig.order("a").reason


def test_a_restart_meanwhile_leaves_the_order_taken_back() -> None:
    rig = Rig(capabilities=NO_MODIFY)
    rig.working(buy("a"))
    rig.modify("a", price=99)
    before = [rig.order("a")]
    rig.commit_all()
    assert before[0].cancelling
    again = Rig(
        history=AccountHistory(
            account=ACC, loaded_at=rig.now, orders=before, positions=[], executions=set(), breaks=[]
        ),
        capabilities=NO_MODIFY,
        ready=False,
    )
    again.broker = rig.broker
    again.do(again.core.connection(ACC, True, again.now))
    again.report()
    (cancel,) = again.take_send(Lane.CANCEL).tickets
    assert cancel.tag == before[0].tag
    again.end("a", UpdateKind.CANCELLED)
    again.next_report()
    again.commit_all()
    assert list(again.book.orders) == ["a"]
    assert not sent(again)


def test_the_larger_size_needs_room_and_keeps_it_until_the_successor_stands() -> None:
    rig = rig_with(10, limits=[limit(POSITION, 15)])
    denied = rig.modify("a", quantity=16)
    while rig.waiting(Append) or not any(True for r in rig.todo if getattr(r, "token", 0) == denied):
        rig.commit_all()
        rig.clock(0.1)
        rig.grant()
    assert isinstance(rig.error(denied), RiskDenied)
    rig.modify("a", quantity=15)
    rig.commit_all()
    taken_back(rig)
    assert rig.book.counted[ClientOrderId("a")] == D(15)
    rig.next_report()
    rig.commit_all()
    assert rig.book.counted == {ClientOrderId("a~2"): D(15)}


def test_a_key_with_a_tilde_is_refused() -> None:
    rig = rig_with()
    assert isinstance(rig.error(rig.place(buy("a~2"))), BadInput)


@given(st.lists(st.integers(1, 4), max_size=3), st.integers(8, 14))
def test_never_more_than_was_asked_for(fills: list[int], wanted: int) -> None:
    rig = rig_with(10)
    for part in fills:
        if rig.order("a").filled_quantity + part < 8:
            rig.fill("a", part)
    rig.modify("a", quantity=wanted)
    taken_back(rig)
    rig.next_report()
    rig.commit_all()
    filled = rig.order("a").filled_quantity
    assert filled + sum(t.quantity for t in sent(rig)) == wanted
    assert rig.book.counted.get(ClientOrderId("a~2"), D(0)) == wanted - filled


def test_a_successor_that_is_refused_is_journaled_as_denied() -> None:
    rig = rig_with(10)
    rig.modify("a", price=99)
    taken_back(rig)
    rig.core.journal_is_away = True
    rig.next_report()
    order = rig.order("a~2")
    assert order.state is OrderState.DENIED
    assert "journal" in order.reason

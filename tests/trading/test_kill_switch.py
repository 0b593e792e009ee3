"""What a kill makes a session do, whenever and however often it is heard."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from msgspec.structs import replace

from tests.trading.rig import AAA, ACC, BBB, D, Rig, buy, held, sell
from trading.account_book import AccountBook
from trading.broker import UpdateKind, Verdict
from trading.closing import is_closing_key
from trading.ids import AlgoId, InstrumentId, Nanos, client_order_id
from trading.instructions import AskBudget, AskReport, Lane
from trading.journal import AccountHistory
from trading.kill_switch import (
    MOST_CANCEL_PAUSE_S,
    MOST_PAUSE_S,
    PARTS_TRIED,
    PATIENCE_NS,
    WHOLE,
    CancelPace,
    Kill,
    to_cancel,
    to_close,
)
from trading.limits import HALTED, Limit, LimitTree
from trading.orders import OrderState, OrderType, PlaceOrder, Side

G, H = AlgoId("g"), AlgoId("h")


def kill_of(rig: Rig, scope: str = f"account:{ACC}", *, flatten: bool = True) -> Kill:
    return Kill(
        id="kill-1a2b3c4d", scope=scope, flatten=flatten, reason="test", at=rig.now, by="op", halted_at=Nanos(rig.now)
    )


def cancelled(rig: Rig, kill: Kill) -> list[str]:
    return [cancel.client_order_id for cancel in to_cancel(kill, rig.book)]


def closing(rig: Rig, kill: Kill) -> list[PlaceOrder]:
    return to_close(kill, rig.book, rig.now, rig.core.instruments, rig.core.exposure.marks)


def named(orders: list[PlaceOrder]) -> list[tuple[str | None, int]]:
    return [(order.algo, int(order.quantity)) for order in orders]


def test_entries_are_refused_from_that_moment_and_exits_pass() -> None:
    rig = Rig(positions=[held(5)])
    rig.core.halt(f"account:{ACC}", Nanos(rig.now))
    token = rig.place(buy("entry", 1))
    rig.commit_all()
    assert rig.one(token).reason == f"halted is set on account:{ACC}: trading is halted"
    token = rig.place(sell("exit", 5))
    rig.commit_all()
    assert rig.one(token).state is OrderState.PENDING


def test_the_limits_take_over_once_they_are_as_new() -> None:
    rig = Rig()
    rig.core.halt("user:u", Nanos(7))
    rig.clock(1)
    rig.grant()
    assert rig.core.halts, "these limits are older than the halt"
    rig.risk.limits = LimitTree([Limit(scope="user:u", kind=HALTED, instrument="", value=D(1), changed_at=7)], 7)
    rig.clock(1)
    rig.grant()
    assert not rig.core.halts
    token = rig.place(buy("a", 1))
    rig.commit_all()
    assert rig.one(token).state is OrderState.DENIED
    rig.risk.limits = LimitTree([], 8)
    rig.clock(1)
    rig.grant()
    token = rig.place(buy("b", 1))
    rig.commit_all()
    assert rig.one(token).state is OrderState.PENDING


def test_a_halt_that_the_limits_know_already_is_not_kept_beside_them() -> None:
    rig = Rig()
    rig.core.halt("user:u", Nanos(1))
    assert not rig.core.halts


@pytest.mark.parametrize(
    ("scope", "meant"),
    [
        ("cluster", ["a", "b"]),
        ("user:u", ["a", "b"]),
        (f"account:{ACC}", ["a", "b"]),
        ("algo:g", ["b"]),
        ("algo:h", []),
    ],
)
def test_what_was_open_is_taken_back_once(scope: str, meant: list[str]) -> None:
    rig = Rig()
    rig.working(buy("a", 1))
    rig.working(buy("b", 1, algo=G))
    kill = kill_of(rig, scope)
    assert kill.covers(rig.core.user, ACC)
    assert cancelled(rig, kill) == meant
    for key in meant:
        rig.cancel(key)
    assert cancelled(rig, kill) == []


def test_a_refused_cancel_is_asked_for_again() -> None:
    rig = Rig()
    rig.working(buy("a", 1))
    kill = kill_of(rig)
    rig.cancel("a")
    rig.update("a", UpdateKind.CANCEL_REJECTED)
    assert cancelled(rig, kill) == ["a"]


def test_refused_cancels_are_asked_for_again_for_ever_at_growing_intervals() -> None:
    rig = Rig()
    rig.working(buy("a", 1))
    rig.working(buy("b", 1))
    kill, pace = kill_of(rig), CancelPace()
    asked: list[int] = []
    for second in range(200):
        if due := pace.due(to_cancel(kill, rig.book), rig.now):
            asked.append(second)
            for cancel in due:
                rig.cancel(cancel.client_order_id)
                rig.update(cancel.client_order_id, UpdateKind.CANCEL_REJECTED)
        wait_a_second(rig)
    gaps = [after - before for before, after in pairwise(asked)]
    assert gaps[:4] == [1, 2, 4, 8]
    assert set(gaps[4:]) == {MOST_CANCEL_PAUSE_S}
    # One that is new is asked for at once, whatever the others wait for; so is everything once the clock went back.
    wait = pace.due(to_cancel(kill, rig.book), rig.now)
    rig.working(buy("c", 1))
    late = replace(kill, at=rig.now)
    assert [each.client_order_id for each in wait + pace.due(to_cancel(late, rig.book), rig.now)] == ["c"]
    back = Nanos(rig.now - 3_600_000_000_000)
    assert [each.client_order_id for each in pace.due(to_cancel(late, rig.book), back)] == ["a", "b", "c"]


def test_closing_waits_for_what_was_open_in_that_instrument_alone_and_not_for_ever() -> None:
    rig = Rig(positions=[held(5), held(3, BBB.id)])
    rig.working(sell("a", 2))
    kill = kill_of(rig)
    assert [order.instrument for order in closing(rig, kill)] == [BBB.id]
    rig.after(PATIENCE_NS / 1e9 + 1)
    # It cannot be taken back: what it would close itself is left to it.
    assert [(order.instrument, order.quantity) for order in closing(rig, kill)] == [(AAA.id, 3), (BBB.id, 3)]


def test_what_a_person_places_afterwards_is_left() -> None:
    rig = Rig(positions=[held(5)])
    kill = kill_of(rig)
    rig.after(6)
    rig.clock()
    rig.grant()
    rig.working(sell("exit", 2))
    assert cancelled(rig, kill) == []


def test_everything_held_is_closed_and_a_second_asking_closes_nothing_more() -> None:
    rig = Rig(positions=[held(5), held(-3, BBB.id)])
    kill = kill_of(rig)
    first = closing(rig, kill)
    assert [(o.instrument, o.side, o.quantity, o.type, o.reduce_only) for o in first] == [
        (AAA.id, Side.SELL, 5, OrderType.MARKET, True),
        (BBB.id, Side.BUY, 3, OrderType.MARKET, True),
    ]
    rig.place(*first)
    rig.commit_all()
    assert closing(rig, kill) == []
    assert cancelled(rig, kill) == []
    again = rig.place(*first)
    rig.commit_all()
    assert {order.state for order in rig.reply(again)} == {OrderState.PENDING}  # type: ignore[union-attr]
    assert len(rig.book.orders) == 2


def test_what_a_partial_close_left_is_closed_by_another_order() -> None:
    rig = Rig(positions=[held(80)])
    kill = kill_of(rig)
    keys = []
    for left in range(70, -1, -10):
        (order,) = closing(rig, kill)
        keys.append(order.client_order_id)
        rig.working(order)
        rig.fill(order.client_order_id, int(order.quantity) - left)
        if left:
            rig.end(order.client_order_id, UpdateKind.CANCELLED)
        rig.commit_all()
        assert closing(rig, kill) == [], "one attempt a second"
        rig.after(1)
    assert len(set(keys)) == 8
    assert closing(rig, kill) == []


def refuse(rig: Rig, orders: list[PlaceOrder], why: str = "overloaded") -> None:
    rig.place(*orders)
    rig.commit_all()
    rig.answer(rig.take_send(Lane.PLACE), Verdict.REJECTED, why)
    rig.commit_all()


def wait_a_second(rig: Rig) -> None:
    """With all that a session does meanwhile; it forgets what ended minutes ago."""
    rig.after(1)
    rig.clock()
    if rig.waiting(AskBudget):
        rig.grant()
    if rig.waiting(AskReport):
        rig.report()
    rig.commit_all()


def test_what_the_broker_refuses_is_tried_for_ever_at_growing_intervals_and_under_new_keys() -> None:
    rig = Rig(positions=[held(5)])
    kill = kill_of(rig)
    tried: list[tuple[int, str]] = []
    for second in range(1_200):
        if orders := closing(rig, kill):
            tried.append((second, orders[0].client_order_id))
            refuse(rig, orders)
        wait_a_second(rig)
    pauses = [after - before for (before, _), (after, _) in pairwise(tried)]
    assert pauses[:6] == [1, 2, 4, 8, 16, 32]
    assert min(pauses[6:]) >= MOST_PAUSE_S / 2
    assert max(pauses) == MOST_PAUSE_S
    # The session has long forgotten the first ones; the journal never does.
    assert len(rig.book.orders) < len(tried)
    assert len({key for _, key in tried}) == len(tried)
    (order,) = closing(rig, kill) or [None]
    while order is None:
        rig.after(1)
        (order,) = closing(rig, kill) or [None]
    rig.working(order)
    rig.fill(order.client_order_id, 5)
    rig.commit_all()
    rig.after(MOST_PAUSE_S)
    assert closing(rig, kill) == []


def test_a_clock_that_is_set_back_holds_up_no_closing() -> None:
    rig = Rig(positions=[held(5)])
    kill = kill_of(rig)
    refuse(rig, closing(rig, kill))
    rig.after(-600)
    (order,) = closing(rig, kill)
    assert order.client_order_id not in rig.book.orders
    refuse(rig, [order])
    assert closing(rig, kill) == []
    rig.after(2)
    assert len(closing(rig, kill)) == 1


def test_a_persons_exit_is_left_to_them_and_only_the_rest_is_closed_until_it_ends() -> None:
    rig = Rig(positions=[held(10)])
    kill = kill_of(rig)
    rig.after(6)
    rig.clock()
    rig.grant()
    rig.working(sell("mine", 4))
    (order,) = closing(rig, kill)
    assert order.quantity == 6
    rig.working(order)
    rig.fill(order.client_order_id, 6)
    rig.commit_all()
    rig.after(2)
    assert closing(rig, kill) == []
    rig.end("mine", UpdateKind.CANCELLED)
    rig.commit_all()
    (order,) = closing(rig, kill)
    rig.working(order)
    assert (order.quantity, rig.order(order.client_order_id).state) == (4, OrderState.SUBMITTED)


def test_an_algos_exit_that_comes_later_is_taken_back_where_all_is_to_be_closed() -> None:
    rig = Rig()
    rig.filled(buy("a", 5, algo=G))
    kill = kill_of(rig)
    rig.after(6)
    rig.clock()
    rig.grant()
    rig.working(sell("exit", 3, algo=G))
    assert cancelled(rig, replace(kill, flatten=False)) == []
    assert cancelled(rig, kill) == ["exit"]
    assert named(closing(rig, kill)) == [("g", 2)]


def test_two_kills_close_once_and_neither_takes_back_what_the_other_closes_with() -> None:
    rig = Rig(positions=[held(5), held(-3, BBB.id)])
    first = kill_of(rig)
    orders = closing(rig, first)
    rig.working(orders[0])
    rig.place(orders[1])
    rig.commit_all()
    second = replace(kill_of(rig, "account:a-1"), id="kill-2")
    assert cancelled(rig, second) == []
    # What is being closed is left alone; it is closed by whoever, once.
    assert closing(rig, second) == []
    rig.fill(orders[0].client_order_id, 2)
    rig.end(orders[0].client_order_id, UpdateKind.CANCELLED)
    rig.commit_all()
    rig.after(1)
    (left,) = closing(rig, second)
    assert (left.instrument, left.quantity, left.client_order_id[:7]) == (AAA.id, 3, "kill-2-")


def test_an_order_that_only_has_such_a_name_is_taken_back() -> None:
    rig = Rig(positions=[held(5)])
    rig.working(replace(sell("kill-9-x", 2), reduce_only=False))
    assert cancelled(rig, kill_of(rig)) == ["kill-9-x"]


def test_an_algos_kill_closes_what_the_algo_holds_and_never_more_than_the_account() -> None:
    rig = Rig()
    rig.filled(buy("a", 5, algo=G))
    rig.filled(sell("b", 2))
    (order,) = closing(rig, kill_of(rig, "algo:g"))
    assert (order.side, order.quantity, order.algo) == (Side.SELL, 3, G)
    rig.filled(sell("c", 3))
    assert closing(rig, kill_of(rig, "algo:g")) == []


def test_what_algos_hold_is_closed_in_their_names_and_their_books_are_flat() -> None:
    rig = Rig()
    rig.filled(buy("a", 4, algo=G))
    rig.filled(buy("b", 5, algo=H))
    rig.filled(buy("c", 3))
    orders = closing(rig, kill_of(rig))
    assert named(orders) == [("g", 4), ("h", 5), (None, 3)]
    rig.place(*orders)
    rig.commit_all()
    assert {order.state for order in rig.book.open.values()} == {OrderState.PENDING}
    assert closing(rig, kill_of(rig)) == []
    rig.answer(rig.take_send(Lane.PLACE))
    for order in orders:
        rig.fill(order.client_order_id, int(order.quantity))
    rig.commit_all()
    assert {position.quantity for position in rig.book.algo_positions.values()} == {0}
    assert rig.book.positions[AAA.id].quantity == 0
    assert closing(rig, kill_of(rig)) == []


def test_the_next_attempt_closes_what_each_still_holds_once_every_part_has_ended() -> None:
    rig = Rig()
    rig.filled(buy("a", 4, algo=G))
    rig.filled(buy("b", 5, algo=H))
    kill = kill_of(rig)
    first = closing(rig, kill)
    rig.place(*first)
    rig.commit_all()
    rig.answer(rig.take_send(Lane.PLACE))
    rig.fill(first[0].client_order_id, 1)
    rig.end(first[0].client_order_id, UpdateKind.CANCELLED)
    rig.commit_all()
    assert closing(rig, kill) == [], "the other part may still fill"
    rig.fill(first[1].client_order_id, 5)
    rig.commit_all()
    rig.after(1)
    (order,) = closing(rig, kill)
    assert named([order]) == [("g", 3)]
    assert order.client_order_id not in rig.book.orders


def test_after_a_restart_nothing_is_closed_twice() -> None:
    rig = Rig()
    rig.filled(buy("a", 4, algo=G))
    rig.filled(buy("b", 5, algo=H))
    kill = kill_of(rig)
    first = closing(rig, kill)
    rig.place(*first)
    rig.commit_all()
    book = rig.book
    again = Rig(
        history=AccountHistory(
            account=ACC,
            loaded_at=rig.now,
            orders=list(book.orders.values()),
            positions=list(book.positions.values()),
            algo_positions=[replace(p, algo=algo) for (algo, _), p in book.algo_positions.items()],
            executions=set(book.executions),
            breaks=[],
        ),
        ready=False,
    )
    assert closing(again, kill) == []
    again.place(*first)
    assert len(again.book.orders) == len(book.orders)


def test_what_was_refused_in_parts_is_tried_whole_at_last() -> None:
    rig = Rig()
    rig.filled(buy("a", 4, algo=G))
    rig.filled(buy("b", 5, algo=H))
    kill = kill_of(rig)
    tried = []
    while len(tried) < 4 * PARTS_TRIED:
        if orders := closing(rig, kill):
            tried.append(named(orders))
            assert all(order.client_order_id.endswith(WHOLE) for order in orders) == (len(orders) == 1)
            refuse(rig, orders, "too small")
        wait_a_second(rig)
    parts: list[tuple[str | None, int]] = [("g", 4), ("h", 5)]
    # However much of it the session still remembers.
    in_one = [number for number, each in enumerate(tried) if each == [("h", 9)]]
    assert in_one == list(range(PARTS_TRIED, len(tried), PARTS_TRIED + 1))
    assert all(each == parts for number, each in enumerate(tried) if number not in in_one)


def test_keys_are_of_one_instrument_each_and_short_enough() -> None:
    names = ["X:A", "X:A.1", "X:A 1", "X:A&1", f"NFO:{'A' * 48}", f"NFO:{'A' * 47}B", "NFO:NIFTY2612325000CE"]
    book = AccountBook(ACC)
    for name in names:
        book.positions[InstrumentId(name)] = held(7, InstrumentId(name))
        for algo in (G, H):
            book.algo_positions[algo, InstrumentId(name)] = held(3, InstrumentId(name))
    orders = to_close(kill_of(Rig()), book, Nanos(1), {}, {})
    keys = [client_order_id(order.client_order_id) for order in orders]
    assert len(set(keys)) == len(keys) == 3 * len(names)
    assert any(re.fullmatch(rf"kill-1a2b3c4d-{names[-1]}\.[0-9a-z]{{6}}\.3", key) for key in keys)
    assert all(is_closing_key(key) for key in keys)
    assert not any(map(is_closing_key, ["kill-5", "flat-12", "kill-x-17", "kill-9-x"])), "an algo's, or a person's"


def test_a_kill_is_of_its_own_scope_only() -> None:
    rig = Rig()
    kill = kill_of(rig)
    assert not replace(kill, scope="user:other").covers(rig.core.user, ACC)
    assert not replace(kill, scope="account:other").covers(rig.core.user, ACC)


def test_the_cancels_go_out_without_the_journal() -> None:
    rig = Rig()
    rig.working(buy("a", 1))
    rig.core.journal_is_away = True
    (cancel,) = to_cancel(kill_of(rig), rig.book)
    rig.do(rig.core.cancel(9, [cancel], rig.now))
    assert [t.tag for t in rig.take_send(Lane.CANCEL).tickets] == [rig.order("a").tag]

"""What a kill makes a session do, whenever and however often it is heard."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.trading.rig import AAA, ACC, BBB, D, Rig, buy, held, sell
from trading.broker import UpdateKind
from trading.ids import AlgoId, Nanos
from trading.instructions import Lane
from trading.kill_switch import MOST_ATTEMPTS, Kill, is_quiet, to_cancel, to_close
from trading.limits import HALTED, Limit, LimitTree
from trading.orders import OrderState, OrderType, Side

G = AlgoId("g")


def kill_of(rig: Rig, scope: str = f"account:{ACC}", *, flatten: bool = True) -> Kill:
    return Kill(
        id="kill-1a2b3c4d", scope=scope, flatten=flatten, reason="test", at=rig.now, by="op", halted_at=Nanos(rig.now)
    )


def cancelled(rig: Rig, kill: Kill) -> list[str]:
    return [cancel.client_order_id for cancel in to_cancel(kill, rig.book)]


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
    assert not is_quiet(kill, rig.book)


def test_what_a_person_places_afterwards_is_left() -> None:
    rig = Rig(positions=[held(5)])
    kill = kill_of(rig)
    rig.after(6)
    rig.clock()
    rig.grant()
    rig.working(sell("exit", 2))
    assert cancelled(rig, kill) == []
    assert is_quiet(kill, rig.book)


def test_everything_held_is_closed_and_a_second_asking_closes_nothing_more() -> None:
    rig = Rig(positions=[held(5), held(-3, BBB.id)])
    kill = kill_of(rig)
    first = to_close(kill, rig.book, rig.now)
    assert [(o.instrument, o.side, o.quantity, o.type, o.reduce_only) for o in first] == [
        (AAA.id, Side.SELL, 5, OrderType.MARKET, True),
        (BBB.id, Side.BUY, 3, OrderType.MARKET, True),
    ]
    rig.place(*first)
    rig.commit_all()
    assert to_close(kill, rig.book, rig.now) == []
    assert cancelled(rig, kill) == []
    again = rig.place(*first)
    rig.commit_all()
    assert {order.state for order in rig.reply(again)} == {OrderState.PENDING}  # type: ignore[union-attr]
    assert len(rig.book.orders) == 2


def test_what_a_partial_close_left_is_closed_by_another_order_and_not_for_ever() -> None:
    rig = Rig(positions=[held(50)])
    kill = kill_of(rig)
    keys = []
    for left in (40, 30, 20, 10, 5):
        (order,) = to_close(kill, rig.book, rig.now)
        keys.append(order.client_order_id)
        rig.working(order)
        rig.fill(order.client_order_id, int(order.quantity) - left)
        rig.end(order.client_order_id, UpdateKind.CANCELLED)
        rig.commit_all()
    assert len(set(keys)) == MOST_ATTEMPTS
    assert to_close(kill, rig.book, rig.now) == []


def test_an_algos_kill_closes_what_the_algo_holds_and_never_more_than_the_account() -> None:
    rig = Rig()
    rig.filled(buy("a", 5, algo=G))
    rig.filled(sell("b", 2))
    (order,) = to_close(kill_of(rig, "algo:g"), rig.book, rig.now)
    assert (order.side, order.quantity, order.algo) == (Side.SELL, 3, G)
    rig.filled(sell("c", 3))
    assert to_close(kill_of(rig, "algo:g"), rig.book, rig.now) == []


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

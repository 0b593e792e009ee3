"""Which changes of orders are written together."""

from __future__ import annotations

from tests.trading.rig import SECOND, Rig, buy
from trading.ids import Nanos
from trading.instructions import Append, Lane, Tell, Wake
from trading.orders import OrderState

MS = 1_000_000


def acknowledged_after(append_ns: int) -> Rig:
    """A session whose order ``a`` the broker has just accepted, its append having taken so long."""
    rig = Rig()
    rig.place(buy("a"))
    rig.now = Nanos(rig.now + append_ns)
    rig.commit()
    rig.todo = [i for i in rig.todo if not isinstance(i, Tell)]
    rig.answer(rig.take_send(Lane.PLACE))
    assert rig.order("a").state is OrderState.SUBMITTED
    return rig


def test_an_acknowledgement_is_written_at_once_where_appends_are_quick() -> None:
    rig = acknowledged_after(2 * MS)
    assert not rig.waiting(Wake)
    append = rig.commit()
    assert rig.kinds([append]) == ["submitted"]


def test_an_acknowledgement_goes_with_the_next_order_where_appends_are_slow() -> None:
    rig = acknowledged_after(20 * MS)
    assert not rig.waiting(Append)
    assert rig.take(Wake).at == rig.now + 60 * MS
    rig.place(buy("b"))
    append = rig.commit()
    assert sorted(rig.kinds([append])) == ["pending", "submitted"]
    assert sorted(o.client_order_id for o in append.batch.heads) == ["a"]
    assert sorted(str(n.event.kind) for n in rig.take(Tell).notes) == ["pending", "submitted"]


def test_an_acknowledgement_does_not_wait_for_longer_than_it_was_said() -> None:
    rig = acknowledged_after(5 * MS)
    wake = rig.take(Wake)
    assert wake.at == rig.now + 50 * MS
    rig.do(rig.core.wake(Nanos(wake.at - 1)))
    assert not rig.waiting(Append)
    assert not rig.waiting(Wake), "it has been asked for already"
    rig.do(rig.core.wake(wake.at))
    assert rig.kinds([rig.commit()]) == ["submitted"]


def test_the_clock_writes_what_waited_where_the_wake_was_lost() -> None:
    rig = acknowledged_after(SECOND)
    assert not rig.waiting(Append)
    rig.clock(after=0.1)
    assert rig.kinds([rig.commit()]) == ["submitted"]


def test_a_fill_waits_for_nothing_and_takes_the_acknowledgement_along() -> None:
    rig = acknowledged_after(20 * MS)
    rig.fill("a", 5)
    append = rig.commit()
    assert rig.kinds([append]) == ["submitted", "filled"]
    assert append.batch.positions


def test_whoever_waits_for_an_acknowledgement_is_not_kept_waiting() -> None:
    rig = acknowledged_after(20 * MS)
    token = rig.place(buy("a"))
    rig.commit()
    assert rig.one(token).state is OrderState.SUBMITTED


def test_the_wait_ends_with_the_load() -> None:
    rig = acknowledged_after(20 * MS)
    rig.do(rig.core.wake(rig.take(Wake).at))
    rig.now = Nanos(rig.now + 1 * MS)
    rig.commit()
    rig.working(buy("b"))
    assert rig.order("b").state is OrderState.SUBMITTED
    assert not rig.waiting(Append)
    assert not rig.waiting(Wake)

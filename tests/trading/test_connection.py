from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading import connection
from trading.broker import BrokerUpdate, UpdateKind
from trading.connection import ConnectionCore
from trading.errors import Fenced
from trading.ids import Epoch, InstrumentId, Nanos
from trading.instructions import Lane
from trading.throttle import RateBudget

SECOND = 1_000_000_000


def update(n: int) -> BrokerUpdate:
    return BrokerUpdate(kind=UpdateKind.ACCEPTED, tag=str(n), instrument=InstrumentId("T:A"), at=Nanos(n))


def core(epoch: int = 3, *, burst: int = 10, reserve: int = 2) -> ConnectionCore:
    return ConnectionCore(Epoch(epoch), Epoch(5), RateBudget(10.0, burst, reserve))


@given(st.lists(st.integers(0, 6), max_size=20), st.integers(1, 4))
def test_reader_gets_every_update_once_and_in_order(arrivals: list[int], page: int) -> None:
    c, seen, cursor, n = core(), [], 0, 0
    for count in arrivals:
        c.take(update(n + i) for i in range(count))
        n += count
        read = c.read(Epoch(3), cursor, page)
        assert not read.gap
        seen += [u.tag for u in read.updates]
        cursor = read.cursor
    while (read := c.read(Epoch(3), cursor, page)).updates:
        seen += [u.tag for u in read.updates]
        cursor = read.cursor
    assert seen == [str(i) for i in range(n)]


def test_reader_of_another_incarnation_has_a_gap_and_starts_at_the_end() -> None:
    c = core()
    c.take([update(1), update(2)])
    page = c.read(Epoch(2), 1)
    assert (page.gap, page.cursor, page.epoch, page.updates) == (True, 2, 3, ())


def test_a_lost_stream_is_a_gap_for_every_reader_however_soon_it_is_back() -> None:
    c = core()
    c.connected = True
    c.take([update(1), update(2)])
    behind, level = c.read(Epoch(3), 0, 1), c.read(Epoch(3), 0)
    c.lost()
    assert not c.read(Epoch(3), level.cursor).connected
    c.connected = True
    c.take([update(3)])
    for reader in (behind, level):
        page = c.read(Epoch(3), reader.cursor)
        assert page.gap
        assert page.connected
        assert not c.read(Epoch(3), page.cursor).gap


def test_cursor_from_the_future_is_a_gap() -> None:
    assert core().read(Epoch(3), 5).gap


def test_reader_that_slept_too_long_has_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RING", 3)
    c = core()
    c.take(update(n) for n in range(5))
    assert c.read(Epoch(3), 1).gap
    page = c.read(Epoch(3), 2)
    assert not page.gap
    assert [u.tag for u in page.updates] == ["2", "3", "4"]


def test_older_session_is_fenced_and_a_newer_one_takes_over() -> None:
    c = core()
    c.admit(Epoch(5))
    c.admit(Epoch(6))
    with pytest.raises(Fenced):
        c.admit(Epoch(5))
    assert (c.fenced, c.session_epoch) == (1, 6)


def test_lost_stream_shows() -> None:
    c = core()
    c.connected = True
    c.lost()
    assert not c.read(Epoch(3), 0).connected


def test_cancels_may_use_what_orders_may_not() -> None:
    c = core(burst=5, reserve=2)
    assert c.pace(Lane.PLACE, 3, Nanos(SECOND)) == 0
    assert c.pace(Lane.MODIFY, 1, Nanos(SECOND)) > 0
    assert c.pace(Lane.CANCEL, 2, Nanos(SECOND)) == 0
    assert c.pace(Lane.CANCEL, 1, Nanos(SECOND)) > 0


def test_orders_that_only_reduce_may_use_it_too_and_what_can_be_paid_is_told() -> None:
    c = core(burst=5, reserve=2)
    assert c.payable(Lane.PLACE, Nanos(SECOND)) == 3
    assert c.pace(Lane.PLACE, 3, Nanos(SECOND)) == 0
    assert (c.payable(Lane.PLACE, Nanos(SECOND)), c.payable(Lane.PLACE, Nanos(SECOND), reduces=True)) == (0, 2)
    assert c.pace(Lane.PLACE, 2, Nanos(SECOND), reduces=True) == 0
    assert c.payable(Lane.CANCEL, Nanos(SECOND)) == 0


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=60))
def test_what_can_be_paid_goes_at_once_and_one_more_does_not(asks: list[tuple[int, bool]]) -> None:
    now, budget = SECOND, RateBudget(10.0, 8, 3)
    for pause_ms, is_exit in asks:
        now += pause_ms * 1_000_000
        payable = budget.payable(Nanos(now), is_exit=is_exit)
        if payable < (8 if is_exit else 5):
            assert budget.take(payable + 1, Nanos(now), is_exit=is_exit) > 0
        if payable:
            assert budget.take(payable, Nanos(now), is_exit=is_exit) == 0


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 400), st.booleans()), max_size=60))
def test_no_more_goes_out_than_burst_and_rate_allow(asks: list[tuple[int, int, bool]]) -> None:
    budget, now, sent = RateBudget(10.0, 8, 3), SECOND, 0
    for count, wait_ms, is_exit in asks:
        now += wait_ms * 1_000_000
        if budget.take(count, Nanos(now), is_exit=is_exit) == 0:
            sent += count
        assert sent <= 8 + (now - SECOND) / SECOND * 10 + 1e-6


@given(st.integers(1, 5), st.booleans())
def test_what_has_to_wait_can_go_after_that_time(count: int, is_exit: bool) -> None:
    budget, now = RateBudget(10.0, 8, 3), SECOND
    while budget.take(1, Nanos(now), is_exit=True) == 0:
        pass
    wait = budget.take(count, Nanos(now), is_exit=is_exit)
    assert wait > 0
    assert budget.take(count, Nanos(now + int(wait * SECOND) - 1_000_000), is_exit=is_exit) > 0
    assert budget.take(count, Nanos(now + int(wait * SECOND) + 1_000), is_exit=is_exit) == 0


def test_time_that_runs_back_gives_nothing() -> None:
    budget = RateBudget(10.0, 2)
    assert budget.take(2, Nanos(10 * SECOND), is_exit=True) == 0
    assert budget.take(1, Nanos(SECOND), is_exit=True) > 0


def test_reserve_leaves_at_least_one_for_orders() -> None:
    assert RateBudget(1.0, 1, 5).take(1, Nanos(1), is_exit=False) == 0


def test_a_connection_that_stood_still_sends_nothing_until_it_has_asked_for_its_lease() -> None:
    core = ConnectionCore(Epoch(1), Epoch(1), RateBudget(10, 10))
    second = 1_000_000_000
    core.owned(0, 10 * second)
    core.beat(second)
    assert core.why_not_send(Lane.PLACE, 2 * second, Nanos(9), Nanos(5)) == ""
    assert "its time was up" in core.why_not_send(Lane.PLACE, 2 * second, Nanos(4), Nanos(5))
    assert "may be acting" in core.why_not_send(Lane.PLACE, 5 * second, Nanos(9), Nanos(5))
    assert "stood still" in core.why_not_send(Lane.CANCEL, 5 * second, Nanos(9), Nanos(5))
    core.unowned()  # the database is away: nobody can have taken over
    assert core.why_not_send(Lane.CANCEL, 5 * second, Nanos(9), Nanos(5)) == ""
    assert core.why_not_send(Lane.PLACE, 5 * second, Nanos(9), Nanos(5)) != ""
    core.owned(5 * second, 15 * second)
    assert core.why_not_send(Lane.PLACE, 6 * second, Nanos(9), Nanos(5)) == ""

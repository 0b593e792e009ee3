"""Breaks that a person settles, and cash."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.trading.fake_journal import FakeJournal, frozen
from tests.trading.rig import AAA, ACC, BBB, PRICE, D, Rig, buy, held, sell
from trading.broker import BrokerPosition, BrokerReport, Capabilities, UpdateKind
from trading.errors import BadInput, Conflict, NotReady, TradeError
from trading.ids import Epoch, InstrumentId, UserId
from trading.instructions import Append, AskReport, Checked, Settled
from trading.journal import Break, BreakKind, Settlement
from trading.orders import EventKind, OrderState, OrderType, TimeInForce
from trading.session import SessionCore

CAN = Capabilities(
    order_types=frozenset(OrderType),
    times_in_force=frozenset(TimeInForce),
    native_modify=True,
    deduplicates=True,
    late_arrival_s=1.0,
    trade_date_cash=True,
)
ACCEPT, EXPLAIN = Settlement.ACCEPTED, Settlement.EXPLAINED


class Deck(Rig):
    """A rig whose appends go into a journal that outlives the session."""

    def __init__(self, **more: Any) -> None:
        self.journal = FakeJournal()
        self.epoch = self.journal.lease("session/u")
        #: What the broker holds beside what was traded here: by hand, by transfer.
        self.beside: dict[InstrumentId, Decimal] = {}
        self.lacking: dict[str, Any] = {}
        super().__init__(capabilities=CAN, **more)
        for position in self.book.positions.values():
            self.journal.positions[(ACC, position.instrument)] = position

    def commit(self) -> Append:
        append = super().commit()
        self.journal.append("session/u", self.epoch, append.number, frozen(append.batch))
        return append

    def view(self) -> BrokerReport:
        report = super().view()
        sums = {p.instrument: p.quantity for p in report.positions}
        for instrument, extra in self.beside.items():
            sums[instrument] = sums.get(instrument, D(0)) + extra
        positions = tuple(BrokerPosition(instrument=i, quantity=q, average_price=D(90)) for i, q in sums.items())
        return replace(report, **{"positions": positions, **self.lacking})

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.after(1.1)
            self.next_report()
        self.commit_all()

    def only_break(self) -> Break:
        (item,) = self.book.breaks.values()
        return item

    def settle(self, how: Settlement, item: Break, note: str = "seen", seen: tuple[str, str] | None = None) -> Any:
        self.token += 1
        sides = seen or (item.ours, item.theirs)
        self.do(self.core.settle_break(self.token, ACC, item.id, how, "asha", note, sides, self.now))
        early = [s for s in self.waiting(Settled) if not isinstance(s.result, TradeError)]
        assert not early, "answered before it was durable"
        self.commit_all()
        answer = self.take(Settled)
        assert answer.token == self.token
        return answer.result

    def restart(self) -> None:
        """The session dies; another loads the journal and takes over."""
        self.commit_all()
        self.todo.clear()
        self.epoch = self.journal.lease("session/u")
        self.core = SessionCore(UserId("u"), Epoch(self.epoch))
        self.core.instruments.update({AAA.id: AAA, BBB.id: BBB})
        self.after(1)
        self.do(self.core.add_account(self.journal.load(ACC, self.now), 10**9, self.now, CAN))
        self.do(self.core.set_marks({AAA.id: PRICE, BBB.id: PRICE}, self.now))
        self.do(self.core.connection(ACC, True, self.now))
        self.report()
        self.commit_all()
        self.clock()
        self.grant()

    def held(self, instrument: InstrumentId = AAA.id) -> Decimal:
        position = self.book.positions.get(instrument)
        return position.quantity if position is not None else D(0)

    def replayed(self, instrument: InstrumentId = AAA.id) -> Decimal:
        """What the journal's executions sum up to, above what was held to begin with."""
        total = self.base.get(instrument, D(0))
        for event in self.journal.events:
            order = self.journal.orders[(event.account, event.client_order_id)]
            if event.kind is EventKind.FILLED and event.fill is not None and order.instrument == instrument:
                total += order.side.sign * event.fill.quantity
        return total

    def may_enter(self) -> bool:
        self.token += 1
        key = f"entry-{self.token}"
        self.do(self.core.place(self.token, [buy(key, 1)], self.now))
        self.commit_all()
        denied = self.order(key).state is OrderState.DENIED
        self.todo.clear()
        return not denied


def differing(by: int = 2) -> Deck:
    deck = Deck(positions=[held(5)])
    deck.beside[AAA.id] = D(by)
    deck.look(2)
    assert deck.only_break().kind is BreakKind.POSITION
    return deck


# Positions


@pytest.mark.parametrize("by", [2, -2, -5, -8])
def test_accepted_position_is_taken_over_by_an_execution_and_trades_again(by: int) -> None:
    deck = differing(by)
    assert not deck.may_enter()
    item = deck.only_break()
    closed = deck.settle(ACCEPT, item, "bought by phone")
    assert (closed.settlement, closed.resolved_by, closed.resolved_at) == (ACCEPT, "asha", deck.now)
    assert "bought by phone" in closed.resolution
    assert deck.held() == 5 + by == deck.replayed()
    (order,) = [o for o in deck.book.orders.values() if o.client_order_id.startswith("adjust-")]
    assert (order.state, order.filled_quantity) == (OrderState.FILLED, abs(by))
    assert [e.reason for e in deck.journal.events if e.kind is EventKind.ADOPTED] == [
        f"accepted break {item.id} by asha: bought by phone"
    ]
    deck.look(3)
    assert not deck.book.breaks
    assert deck.may_enter()


def test_accepted_position_is_booked_at_the_brokers_average_where_it_grew_and_the_last_price_where_it_shrank() -> None:
    for by, price in ((2, 90), (-2, 100)):
        deck = differing(by)
        deck.settle(ACCEPT, deck.only_break())
        (fill,) = [e.fill for e in deck.journal.events if e.fill is not None]
        assert fill.price == price
        assert fill.execution_id.startswith("adjustment:")


def test_break_that_has_moved_since_it_was_seen_is_not_settled() -> None:
    deck = differing()
    item = deck.only_break()
    deck.beside[AAA.id] = D(3)
    deck.look(2)
    for how in (ACCEPT, EXPLAIN):
        error = deck.settle(how, item)
        assert isinstance(error, Conflict)
        assert error.code == "break_moved"
    assert deck.held() == 5
    assert deck.only_break().theirs == "8"
    assert isinstance(deck.settle(ACCEPT, deck.only_break()), Break)


def test_break_is_settled_once() -> None:
    deck = differing()
    item = deck.only_break()
    deck.settle(ACCEPT, item)
    again = deck.settle(ACCEPT, item)
    assert isinstance(again, Conflict)
    assert again.code == "break_not_open"
    assert deck.held() == 7


def test_position_that_trades_between_sight_and_acceptance_waits_for_the_next_comparison() -> None:
    deck = Deck(positions=[held(5)])
    deck.working(sell("out", 1))
    deck.beside[AAA.id] = D(2)
    deck.look(2)
    item = deck.only_break()
    deck.fill("out", 1)
    deck.commit_all()
    assert deck.settle(ACCEPT, item).code == "break_moved"
    deck.look(2)
    assert isinstance(deck.settle(ACCEPT, deck.only_break()), Break)
    assert deck.held() == 6


def test_note_is_needed_and_a_break_does_not_agree_by_decree() -> None:
    deck = differing()
    assert isinstance(deck.settle(ACCEPT, deck.only_break(), "  "), BadInput)
    assert isinstance(deck.settle(Settlement.AGREED, deck.only_break()), BadInput)
    deck.core.journal_is_away = True
    assert isinstance(deck.settle(ACCEPT, deck.only_break()), NotReady)


def test_explained_difference_is_tolerated_as_it_is_while_both_sides_move() -> None:
    deck = differing()
    closed = deck.settle(EXPLAIN, deck.only_break(), "a transfer")
    assert (closed.settlement, closed.tolerated) == (EXPLAIN, True)
    assert deck.held() == 5
    deck.filled(buy("more", 3))
    deck.look(3)
    assert not deck.book.breaks
    assert deck.held() == 8
    assert deck.may_enter()


def test_explained_difference_survives_a_restart() -> None:
    deck = differing()
    deck.settle(EXPLAIN, deck.only_break())
    deck.restart()
    deck.look(3)
    assert not deck.book.breaks
    assert list(deck.book.tolerated) == [(AAA.id, BreakKind.POSITION, None)]
    assert deck.may_enter()


def test_explained_difference_that_changes_is_a_new_break() -> None:
    deck = differing()
    first = deck.only_break()
    deck.settle(EXPLAIN, first)
    deck.beside[AAA.id] = D(1)
    deck.look(2)
    second = deck.only_break()
    assert second.id != first.id
    assert (second.ours, second.theirs) == ("5", "6")
    assert not deck.journal.breaks[first.id].tolerated
    assert not deck.may_enter()


def test_explained_difference_that_went_and_came_back_is_a_break_again() -> None:
    deck = differing()
    deck.settle(EXPLAIN, deck.only_break())
    deck.beside[AAA.id] = D(0)
    deck.look()
    assert not deck.book.tolerated
    deck.restart()
    deck.beside[AAA.id] = D(2)
    deck.look(2)
    assert deck.only_break().kind is BreakKind.POSITION


def test_accepted_position_survives_a_restart() -> None:
    deck = differing()
    deck.settle(ACCEPT, deck.only_break())
    deck.restart()
    deck.look(2)
    assert deck.held() == 7 == deck.replayed()
    assert not deck.book.breaks


# Orders and executions


def test_accepted_overfill_is_closed_and_a_further_one_opens_anew() -> None:
    deck = Deck()
    deck.working(buy("a", 5))
    deck.fill("a", 7)
    deck.commit_all()
    item = deck.only_break()
    assert (item.kind, item.client_order_id, item.ours, item.theirs) == (BreakKind.OVERFILL, "a", "5", "7")
    deck.settle(ACCEPT, item)
    deck.look(2)
    assert not deck.book.breaks
    assert deck.held() == 7
    deck.update("a", UpdateKind.FILLED, execution="late", quantity=1)
    assert deck.only_break().theirs == "8"


def test_accepted_missing_order_ends_and_another_stays_open() -> None:
    deck = Deck()
    for key in ("a", "b"):
        deck.working(buy(key, 5))
    deck.after(31)
    deck.lacking = {"orders": ()}
    deck.look(3)
    items = {item.client_order_id: item for item in deck.book.breaks.values()}
    assert set(items) == {"a", "b"}
    assert {item.kind for item in items.values()} == {BreakKind.ORDER_MISSING}
    deck.settle(ACCEPT, items["a"])
    assert (deck.order("a").state, deck.order("b").state) == (OrderState.CANCELLED, OrderState.SUBMITTED)
    assert "asha" in deck.order("a").reason
    assert deck.only_break().client_order_id == "b"


def test_explained_missing_order_stays_without_being_asked_about_until_it_is_seen() -> None:
    deck = Deck()
    deck.working(buy("a", 5))
    deck.after(31)
    deck.lacking = {"orders": ()}
    deck.look(3)
    deck.settle(EXPLAIN, deck.only_break())
    deck.look(2)
    assert not deck.book.breaks
    assert not deck.book.missed
    deck.lacking = {}
    deck.look()
    assert not deck.book.tolerated
    assert deck.order("a").state is OrderState.SUBMITTED


def missing_execution() -> Deck:
    deck = Deck()
    deck.working(buy("a", 5))
    deck.fill("a", 1, "90")
    deck.commit_all()
    deck.after(31)
    deck.broker.fill(deck.at_broker("a"), D(2), D(105), deck.now)
    deck.broker.take_told()
    deck.lacking = {"fills": ()}
    deck.look(2)
    return deck


def test_accepted_execution_is_booked_on_its_order_at_what_the_brokers_average_says() -> None:
    deck = missing_execution()
    item = next(i for i in deck.book.breaks.values() if i.kind is BreakKind.MISSING_EXECUTION)
    assert (item.client_order_id, item.ours, item.theirs) == ("a", "1", "3")
    deck.settle(ACCEPT, item)
    order = deck.order("a")
    assert (order.filled_quantity, order.average_price, deck.held()) == (3, 100, 3)
    deck.look(2)
    assert not deck.book.breaks


@pytest.mark.parametrize("restarts", [False, True])
def test_execution_that_shows_up_after_it_was_accepted_does_not_count_twice(restarts: bool) -> None:
    deck = missing_execution()
    deck.settle(ACCEPT, next(i for i in deck.book.breaks.values() if i.kind is BreakKind.MISSING_EXECUTION))
    if restarts:
        deck.restart()
    deck.lacking = {}
    deck.look(2)
    assert (deck.held(), deck.replayed(), deck.order("a").filled_quantity) == (3, 3, 3)
    deck.broker.fill(deck.at_broker("a"), D(2), PRICE, deck.now)
    deck.hear()
    deck.look(2)
    assert (deck.held(), deck.order("a").state) == (5, OrderState.FILLED)
    assert not deck.book.breaks


# Cash


def test_cash_follows_executions_and_is_no_break() -> None:
    deck = Deck()
    deck.look()
    deck.filled(buy("a", 5))
    deck.look(2)
    assert deck.book.cash_book is not None
    assert deck.book.cash_book.amount == deck.broker.cash == 500
    deck.restart()
    deck.look(2)
    assert deck.book.cash_book.amount == 500
    assert not deck.book.breaks


def test_lasting_difference_of_cash_is_a_break_of_the_account_and_of_no_instrument() -> None:
    deck = Deck()
    deck.look()
    deck.broker.cash += 25
    deck.look()
    assert not deck.book.breaks
    deck.look()
    item = deck.only_break()
    assert (item.kind, item.instrument, item.ours, item.theirs) == (BreakKind.CASH, "", "1000", "1025")
    assert deck.may_enter()
    deck.settle(ACCEPT, item, "dividend")
    deck.restart()
    deck.look(2)
    assert not deck.book.breaks
    assert deck.book.cash_book is not None
    assert deck.book.cash_book.amount == 1025


def test_explained_cash_is_tolerated_over_trades_and_restarts_until_it_changes() -> None:
    deck = Deck()
    deck.look()
    deck.broker.cash += 25
    deck.look(2)
    deck.settle(EXPLAIN, deck.only_break(), "a deposit on its way")
    deck.filled(buy("a", 5))
    deck.restart()
    deck.look(2)
    assert not deck.book.breaks
    deck.broker.cash -= 10
    deck.look(2)
    assert (deck.only_break().ours, deck.only_break().theirs) == ("500", "515")
    deck.broker.cash -= 15
    deck.look()
    assert not deck.book.breaks
    assert not deck.book.tolerated


def test_trifle_of_cash_is_no_break() -> None:
    deck = Deck()
    deck.look()
    deck.broker.cash -= D("0.05")
    deck.look(3)
    assert not deck.book.breaks


def test_accepted_cash_keeps_what_has_traded_since_the_report() -> None:
    deck = Deck()
    deck.look()
    deck.broker.cash += 25
    deck.look(2)
    item = deck.only_break()
    deck.filled(buy("a", 1))
    deck.settle(ACCEPT, item)
    deck.look(2)
    assert not deck.book.breaks
    assert deck.book.cash_book is not None
    assert deck.book.cash_book.amount == 925 == deck.broker.cash


def test_cash_is_left_alone_where_fees_are_paid_in_something_else() -> None:
    deck = Deck()
    deck.look()
    deck.working(buy("a", 5))
    fill = deck.broker.fill(deck.at_broker("a"), D(5), PRICE, deck.now)
    told = deck.broker.take_told()
    paid = replace(told[-1], fill=replace(fill, fee=D(1), fee_currency="BNB"))
    deck.do(deck.core.updated(ACC, [*told[:-1], paid], deck.now))
    deck.commit_all()
    deck.broker.cash += 25
    deck.look(3)
    assert not deck.book.breaks
    assert "BNB" in deck.core.why_no_cash(deck.book)


def test_cash_is_not_compared_where_the_broker_settles_later() -> None:
    rig = Rig()
    rig.next_report()
    rig.broker.cash += 25
    for _ in range(3):
        rig.next_report()
    assert not rig.book.breaks
    assert rig.core.why_no_cash(rig.book)


# Pace, and comparing now


def test_positions_have_an_interval_of_their_own_and_a_reconnect_compares_everything() -> None:
    deck = Deck(positions=[held(5)])
    deck.look()
    deck.book.positions_every_ns = 300 * 10**9
    deck.beside[AAA.id] = D(2)
    for _ in range(4):
        deck.next_report()
    assert not deck.book.suspected
    deck.do(deck.core.connection(ACC, False, deck.now))
    deck.do(deck.core.connection(ACC, True, deck.now))
    deck.next_report()
    assert deck.book.suspected


def test_the_shortest_interval_asks_for_the_report() -> None:
    deck = Deck()
    deck.look()
    deck.book.reconcile_every_ns = 300 * 10**9
    deck.book.cash_every_ns = 10 * 10**9
    deck.clock(9)
    assert not deck.waiting(AskReport)
    deck.clock(1.2)
    assert deck.waiting(AskReport)


def test_comparing_now_answers_with_what_it_confirmed() -> None:
    deck = Deck(positions=[held(5)])
    deck.look()
    deck.beside[AAA.id] = D(2)
    deck.after(2)
    deck.do(deck.core.reconcile(77, ACC, deck.now))
    deck.report()
    assert not deck.waiting(Checked)
    deck.next_report()
    answer = deck.take(Checked)
    assert answer.token == 77
    assert not isinstance(answer.result, TradeError)
    (item,) = answer.result.breaks
    assert (item.ours, item.theirs) == ("5", "7")


def test_comparing_now_takes_no_report_that_was_asked_for_before() -> None:
    deck = Deck()
    deck.clock(31)
    assert deck.waiting(AskReport)
    before = deck.view()
    deck.after(1)
    deck.do(deck.core.reconcile(77, ACC, deck.now))
    deck.report(before)
    assert not deck.waiting(Checked)
    deck.next_report()
    answer = deck.take(Checked).result
    assert not isinstance(answer, TradeError)
    assert answer.breaks == ()


def test_comparing_now_fails_without_a_report_or_a_connection() -> None:
    deck = Deck()
    deck.after(2)
    deck.do(deck.core.reconcile(1, ACC, deck.now))
    deck.take(AskReport)
    deck.do(deck.core.reported(ACC, None, deck.now))
    assert isinstance(deck.take(Checked).result, NotReady)
    deck.do(deck.core.connection(ACC, False, deck.now))
    deck.do(deck.core.reconcile(2, ACC, deck.now))
    assert isinstance(deck.take(Checked).result, NotReady)


# Whatever happens


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("beside"), st.integers(-3, 3)),
            st.tuples(st.just("trade"), st.integers(1, 3)),
            st.tuples(st.just("accept"), st.just(0)),
            st.tuples(st.just("explain"), st.just(0)),
            st.tuples(st.just("restart"), st.just(0)),
            st.tuples(st.just("cash"), st.integers(-20, 20)),
        ),
        max_size=14,
    )
)
def test_positions_and_cash_stay_the_sums_of_their_executions(steps: list[tuple[str, int]]) -> None:
    deck = Deck(positions=[held(5)])
    deck.look()
    for number, (what, amount) in enumerate(steps):
        match what:
            case "beside":
                deck.beside[AAA.id] = deck.beside.get(AAA.id, D(0)) + amount
            case "trade":
                wanted = sell(f"t{number}", amount) if deck.held() > 5 else buy(f"t{number}", amount)
                if not deck.book.is_reduce_only(AAA.id):
                    deck.filled(wanted)
            case "accept" | "explain":
                for item in list(deck.book.breaks.values()):
                    deck.settle(ACCEPT if what == "accept" else EXPLAIN, item)
            case "restart":
                deck.restart()
            case "cash":
                deck.broker.cash += amount
        deck.look(2)
        deck.look()
        assert deck.held() == deck.replayed()
        differs = deck.held() != 5 + deck.broker.positions().get(AAA.id, D(0)) + deck.beside.get(AAA.id, D(0))
        settled = (AAA.id, BreakKind.POSITION, None) in {**deck.book.breaks, **deck.book.tolerated}
        assert differs == settled
        journaled, kept = deck.journal.cash_of(ACC), deck.book.cash_book
        assert kept is not None
        assert journaled is not None
        assert journaled.amount == kept.amount

from __future__ import annotations

from copy import copy
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from trading.ids import AccountId, BrokerOrderId, ClientOrderId, ExecutionId, InstrumentId, Nanos
from trading.orders import (
    TRANSITIONS,
    EventKind,
    Fill,
    Order,
    OrderEvent,
    OrderState,
    OrderType,
    PlaceOrder,
    Side,
    apply,
    can_apply,
    order_from,
)

D = Decimal
K, S = EventKind, OrderState
LIVE = [s for s in S if not s.is_final]
ENDED = [S.FILLED, S.CANCELLED, S.REJECTED, S.EXPIRED]


def new(quantity: str = "10", state: OrderState = S.PENDING) -> Order:
    intent = PlaceOrder(
        account=AccountId("a"),
        client_order_id=ClientOrderId("k-1"),
        instrument=InstrumentId("T:A"),
        side=Side.BUY,
        type=OrderType.LIMIT,
        quantity=D(quantity),
        limit_price=D(100),
    )
    order = order_from(intent, "TAG", Nanos(1))
    order.state = state
    return order


def event(kind: EventKind, at: int = 2, **fields: object) -> OrderEvent:
    return OrderEvent(
        kind=kind,
        account=AccountId("a"),
        client_order_id=ClientOrderId("k-1"),
        at=Nanos(at),
        actor="test",
        **fields,  # type: ignore[arg-type]
    )


def filled(quantity: str, price: str = "100", at: int = 2) -> OrderEvent:
    return event(
        K.FILLED,
        at,
        fill=Fill(execution_id=ExecutionId("x"), quantity=D(quantity), price=D(price), at=Nanos(at)),
    )


#: The whole table once more, said differently: what each event may meet, and where it leads from each state.
SAME = "same"
MODEL: dict[EventKind, dict[OrderState, OrderState | str]] = {
    K.SUBMITTED: {
        S.PENDING: S.SUBMITTED,
        S.UNKNOWN: S.SUBMITTED,
        S.SUBMITTED: SAME,
        S.PARTIALLY_FILLED: SAME,
    },
    K.UNKNOWN: {S.PENDING: S.UNKNOWN},
    K.REJECTED: dict.fromkeys(LIVE, S.REJECTED),
    K.CANCELLED: dict.fromkeys(LIVE, S.CANCELLED),
    K.EXPIRED: dict.fromkeys(LIVE, S.EXPIRED),
    K.FILLED: {**dict.fromkeys(LIVE, S.PARTIALLY_FILLED), **dict.fromkeys(ENDED, SAME)},
    K.CANCEL_REQUESTED: dict.fromkeys(LIVE, SAME),
    K.MODIFY_REQUESTED: dict.fromkeys(LIVE, SAME),
    K.CANCEL_REJECTED: dict.fromkeys([*LIVE, *ENDED], SAME),
    K.MODIFY_REJECTED: dict.fromkeys([*LIVE, *ENDED], SAME),
    K.MODIFIED: dict.fromkeys([S.SUBMITTED, S.PARTIALLY_FILLED, S.UNKNOWN, *ENDED], SAME),
    K.ADOPTED: dict.fromkeys([*LIVE, *ENDED], SAME),
    K.REVIVED: dict.fromkeys(ENDED, S.SUBMITTED),
}


def sample(kind: EventKind) -> OrderEvent:
    return filled("1") if kind is K.FILLED else event(kind)


@pytest.mark.parametrize("kind", list(EventKind))
@pytest.mark.parametrize("state", list(OrderState))
def test_every_pair_is_as_the_model_says(state: OrderState, kind: EventKind) -> None:
    expected = MODEL.get(kind, {}).get(state)
    assert can_apply(state, kind) is (expected is not None)
    order = new(state=state)
    if expected is None:
        with pytest.raises(KeyError):
            apply(order, sample(kind))
        assert order == new(state=state), "a refused move must change nothing"
        return
    apply(order, sample(kind))
    assert order.state is (state if expected == SAME else expected)


def test_denied_order_takes_no_event_at_all() -> None:
    assert not any(state is S.DENIED for state, _ in TRANSITIONS)


def test_only_the_brokers_own_book_leads_out_of_an_end() -> None:
    for (state, kind), after in TRANSITIONS.items():
        if state.is_final and kind is not K.REVIVED:
            assert after is state


def test_last_fill_makes_it_filled_with_the_weighted_average() -> None:
    order = new(state=S.SUBMITTED)
    apply(order, filled("4", "100"))
    assert (order.state, order.open_quantity) == (S.PARTIALLY_FILLED, 6)
    apply(order, filled("6", "105"))
    assert (order.state, order.average_price, order.open_quantity) == (S.FILLED, 103, 0)


def test_fill_before_the_acknowledgement_is_kept() -> None:
    order = new()
    apply(order, filled("4"))
    apply(order, event(K.SUBMITTED, broker_order_id=BrokerOrderId("b9")))
    assert (order.state, order.filled_quantity, order.broker_order_id) == (S.PARTIALLY_FILLED, 4, "b9")


def test_fill_after_cancel_is_kept() -> None:
    order = new(state=S.SUBMITTED)
    apply(order, event(K.CANCEL_REQUESTED))
    assert order.cancelling
    apply(order, event(K.CANCELLED))
    apply(order, filled("4"))
    assert (order.state, order.filled_quantity, order.cancelling) == (S.CANCELLED, 4, False)


def test_fills_after_cancel_that_complete_it_make_it_filled() -> None:
    order = new(state=S.CANCELLED)
    apply(order, filled("10"))
    assert order.state is S.FILLED


def test_overfill_is_counted_not_hidden() -> None:
    order = new(state=S.SUBMITTED)
    apply(order, filled("12"))
    assert (order.state, order.filled_quantity, order.open_quantity) == (S.FILLED, 12, 0)


def test_refused_cancel_leaves_it_working() -> None:
    order = new(state=S.SUBMITTED)
    apply(order, event(K.CANCEL_REQUESTED))
    apply(order, event(K.CANCEL_REJECTED, reason="too late"))
    assert (order.state, order.cancelling, order.reason) == (S.SUBMITTED, False, "too late")


def test_modify_changes_only_what_it_names() -> None:
    order = new(state=S.SUBMITTED)
    apply(order, event(K.MODIFIED, limit_price=D(99)))
    assert (order.quantity, order.limit_price, order.stop_price) == (10, 99, None)


def test_modify_down_to_what_is_filled_completes_it() -> None:
    order = new(state=S.SUBMITTED)
    apply(order, filled("4"))
    apply(order, event(K.MODIFIED, quantity=D(4)))
    assert order.state is S.FILLED


def test_modify_request_changes_no_value_before_the_broker_agrees() -> None:
    order = new(state=S.SUBMITTED)
    apply(order, event(K.MODIFY_REQUESTED, limit_price=D(99), quantity=D(5)))
    assert (order.quantity, order.limit_price) == (10, 100)


def test_fill_event_without_a_fill_is_a_bug() -> None:
    with pytest.raises(ValueError, match="carries its fill"):
        apply(new(state=S.SUBMITTED), event(K.FILLED))


events = st.lists(
    st.one_of(
        st.sampled_from([k for k in K if k is not K.FILLED]).map(event),
        st.tuples(st.integers(1, 5), st.integers(90, 110)).map(lambda f: filled(str(f[0]), str(f[1]))),
        st.integers(1, 15).map(lambda q: event(K.MODIFIED, quantity=D(q))),
    ),
    max_size=25,
)


@given(events)
def test_no_story_loses_a_fill_or_reopens_an_ended_order(story: list[OrderEvent]) -> None:
    order = new()
    executed: list[Fill] = []
    for step in story:
        before = order.state
        if not can_apply(before, step.kind) or (before.is_final and step.kind in (K.MODIFIED, K.REVIVED)):
            continue
        apply(order, step)
        if step.fill is not None:
            executed.append(step.fill)
        total = sum((f.quantity for f in executed), D(0))
        assert order.filled_quantity == total
        if total:
            exact = sum(Fraction(f.quantity) * Fraction(f.price) for f in executed) / Fraction(total)
            assert abs(Fraction(order.average_price) - exact) < Fraction(1, 10**18)
        if before.is_final:
            assert order.state is before or (step.kind is K.FILLED and order.state is S.FILLED)
        if order.state is S.FILLED:
            assert total >= order.quantity
        if order.state.is_final:
            assert order.open_quantity == 0
            assert not order.cancelling
        else:
            assert order.open_quantity + total == order.quantity


class Life(RuleBasedStateMachine):
    """An order that anything may happen to, against `MODEL` and its fills; what is refused changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.order = new()
        self.state: OrderState = S.PENDING
        self.size = D(10)
        self.fills: list[Fill] = []

    def after(self, kind: EventKind) -> OrderState | None:
        led = MODEL.get(kind, {}).get(self.state)
        return None if led is None else self.state if not isinstance(led, OrderState) else led

    @property
    def total(self) -> Decimal:
        return sum((f.quantity for f in self.fills), D(0))

    def happens(self, step: OrderEvent) -> bool:
        """Let it happen; whether the model has it."""
        before = copy(self.order)
        after = self.after(step.kind)
        assert can_apply(self.state, step.kind) is (after is not None)
        if after is None:
            with pytest.raises(KeyError):
                apply(self.order, step)
            assert self.order == before
            return False
        apply(self.order, step)
        self.state = after
        return True

    @rule(kind=st.sampled_from([k for k in K if k not in (K.FILLED, K.MODIFIED, K.REVIVED)]))
    def event(self, kind: EventKind) -> None:
        self.happens(event(kind))

    @rule(quantity=st.integers(1, 6), price=st.integers(90, 110))
    def fill(self, quantity: int, price: int) -> None:
        step = filled(str(quantity), str(price))
        assert step.fill is not None
        if self.happens(step):
            self.fills.append(step.fill)
            if self.total >= self.size:
                self.state = S.FILLED

    @rule(quantity=st.integers(1, 20))
    def resize(self, quantity: int) -> None:
        if self.happens(event(K.MODIFIED, quantity=D(quantity))):
            self.size = D(quantity)
            if self.state not in ENDED and self.total >= self.size:
                self.state = S.FILLED

    @rule(quantity=st.none() | st.integers(1, 20))
    def revive(self, quantity: int | None) -> None:
        if self.happens(event(K.REVIVED, quantity=None if quantity is None else D(quantity))):
            self.size = self.size if quantity is None else D(quantity)
            if self.fills:
                self.state = S.PARTIALLY_FILLED

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        order = self.order
        assert (order.state, order.quantity, order.filled_quantity) == (self.state, self.size, self.total)
        if order.state.is_final:
            assert (order.open_quantity, order.cancelling) == (0, False)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)

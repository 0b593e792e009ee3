"""Whoever holds closes: for any book everything is closed once, in the right names, in orders that the venue takes."""

from __future__ import annotations

from copy import deepcopy
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trading.making import instrument
from trading.account_book import AccountBook
from trading.closing import Rules, parts_of
from trading.ids import AccountId, AlgoId, ExecutionId, InstrumentId, Nanos, UserId, client_order_id
from trading.instruments import Instrument
from trading.kill_switch import Kill, to_close
from trading.orders import Fill, Order, OrderState, PlaceOrder, order_from
from trading.positions import Position

ACCOUNT = AccountId("a")
#: So many, of which the last fills.  In one of them parts may be put together, if nothing ever filled.
ATTEMPTS = 4
NAMES = (InstrumentId("X:BTC"), InstrumentId("X:BTC.1"))
BTC = NAMES[0]
D = Decimal
KILL = Kill(id="kill-00000001", scope="account:a", flatten=True, reason="", at=Nanos(1), by="op", halted_at=Nanos(1))
#: What each algo holds, and what nobody in particular does ("").
Books = dict[InstrumentId, dict[str, int]]
books = st.dictionaries(
    st.sampled_from(NAMES), st.dictionaries(st.sampled_from(["", *"abcdefgh"]), st.integers(-30, 30), max_size=9)
)


def book_of(held: Books) -> AccountBook:
    made = AccountBook(ACCOUNT)
    for name, own in held.items():
        whole = D(sum(own.values()))
        made.positions[name] = Position(account=ACCOUNT, instrument=name, quantity=whole, average_cost=D(10))
        for algo, quantity in own.items():
            if algo:
                made.algo_positions[AlgoId(algo), name] = Position(
                    account=ACCOUNT, instrument=name, quantity=D(quantity), average_cost=D(10), algo=AlgoId(algo)
                )
    return made


def close(book: AccountBook, order: Order, quantity: Decimal, number: int) -> None:
    """An execution of a closing order, as a session takes it in."""
    fill = Fill(execution_id=ExecutionId(str(number)), quantity=quantity, price=D(10), at=Nanos(number))
    order.filled_quantity += quantity
    book.positions[order.instrument].apply(order.side, fill)
    if order.algo is not None:
        book.algo_positions[order.algo, order.instrument].apply(order.side, fill)


def closing(book: AccountBook, second: int = 1) -> list[PlaceOrder]:
    return to_close(KILL, book, Nanos(second * 1_000_000_000), {}, {})


def add(book: AccountBook, intents: list[PlaceOrder]) -> list[Order]:
    orders = [order_from(intent, intent.client_order_id, Nanos(1)) for intent in intents]
    for order in orders:
        assert order.client_order_id not in book.orders
        book.add(order)
    return orders


@given(held=books, rnd=st.randoms(use_true_random=False))
def test_whatever_is_held_and_however_it_fills_all_is_closed_in_the_names_of_those_who_hold(
    held: Books, rnd: Random
) -> None:
    book = book_of(held)
    before = deepcopy(book)
    number = 0
    for attempt in range(1, ATTEMPTS + 1):
        # Longer apart than any pause after an attempt of which nothing came.
        intents = closing(book, attempt * 100)
        for name, whole in book.positions.items():
            mine = [each for each in intents if each.instrument == name]
            assert sum((each.quantity for each in mine), D(0)) == abs(whole.quantity)
            for each in mine:
                own = whole if each.algo is None else book.algo_positions[each.algo, name]
                assert 0 < each.quantity <= abs(own.quantity) or each.algo is None
                assert each.reduce_only
                assert each.side.sign * whole.quantity < 0
        keys = [client_order_id(each.client_order_id) for each in intents]
        assert len(set(keys)) == len(keys)
        orders = add(book, intents)
        rnd.shuffle(orders)
        for order in orders:
            # One part may end long before another: until all have, nothing more is closed.
            number += 1
            filled = order.quantity if attempt == ATTEMPTS else D(rnd.randint(0, int(order.quantity)))
            if filled:
                close(book, order, filled, number)
            assert not [each for each in closing(book, attempt * 100) if each.instrument == order.instrument]
            order.state = OrderState.FILLED if filled == order.quantity else OrderState.CANCELLED
            del book.open[order.client_order_id]
        if rnd.random() < 0.5:
            # Only what the journal has survives a restart: orders and positions.
            book = deepcopy(book)
    assert all(position.quantity == 0 for position in book.positions.values())
    assert closing(book, 10_000) == []
    for (algo, name), own in book.algo_positions.items():
        was = before.algo_positions[algo, name].quantity
        assert abs(own.quantity) <= abs(was)
        assert own.quantity * was >= 0, "nobody is turned around"
    for name, whole in before.positions.items():
        sign = 1 if whole.quantity > 0 else -1
        if whole.quantity:
            against = sum(max(-sign * q, D(0)) for q in shares(before, name))
            left = [sign * q for q in shares(book, name)]
            assert sum(left) == 0
            assert sum(max(q, D(0)) for q in left) <= against, "only what evens out is left"


def shares(book: AccountBook, name: InstrumentId) -> list[Decimal]:
    """What each algo holds of an instrument, and what nobody in particular does."""
    own = [p.quantity for (_, of), p in book.algo_positions.items() if of == name]
    return [*own, book.positions[name].quantity - sum(own, D(0))]


def rules(lot: str, least: str = "0", worth: str = "0") -> Instrument:
    made: Instrument = instrument("1", lot)
    return Instrument(
        id=made.id,
        provider_symbol=made.provider_symbol,
        provider=made.provider,
        tick_size=made.tick_size,
        lot_size=D(lot),
        currency=made.currency,
        min_quantity=D(least),
        min_notional=D(worth),
    )


def parts(held: dict[str, str], of: Instrument, price: str = "10") -> dict[str | None, Decimal]:
    book = AccountBook(ACCOUNT)
    whole = sum((D(quantity) for quantity in held.values()), D(0))
    book.positions[BTC] = Position(account=ACCOUNT, instrument=BTC, quantity=whole)
    for algo, quantity in held.items():
        if algo:
            book.algo_positions[AlgoId(algo), BTC] = Position(account=ACCOUNT, instrument=BTC, quantity=D(quantity))
    return dict(parts_of(book, BTC, Rules(of, D(price))))


@pytest.mark.parametrize(
    ("held", "of", "expected"),
    [
        # Each may be closed by itself.
        ({"a": "2", "b": "3"}, rules("1"), {"a": 2, "b": 3}),
        # No whole lots: together they are.
        ({"a": "2.4", "b": "3", "c": "0.6"}, rules("1"), {"b": 3, "a": 3}),
        # Worth too little: with the least that is not.
        ({"a": "1", "b": "8", "c": "6"}, rules("1", worth="50"), {"b": 8, "c": 7}),
        ({"a": "1", "": "8"}, rules("1", least="5"), {None: 9}),
        # Too small in any case: as a whole, as it would have been for nobody.
        ({"a": "1", "b": "2"}, rules("1", worth="50"), {"b": 3}),
        # Less than a lot is left, and keeps nothing else from being closed.
        ({"a": "0.4", "b": "0.3"}, rules("1"), {}),
        ({"a": "10", "": "0.5"}, rules("1"), {"a": 10}),
        ({"a": "10", "b": "0.7", "": "0.5"}, rules("1"), {"a": 10, "b": 1}),
    ],
)
def test_what_is_too_small_for_the_venue_is_put_together(
    held: dict[str, str], of: Instrument, expected: dict[str | None, Decimal]
) -> None:
    assert parts(held, of) == expected


def test_without_a_price_nothing_is_known_to_be_worth_enough() -> None:
    assert parts({"a": "70", "b": "80"}, rules("1", worth="50"), price="0") == {"b": 150}


@given(
    tenths=st.dictionaries(st.sampled_from(["", *"abcdef"]), st.integers(-60, 60)),
    lot=st.sampled_from(["0.1", "0.5", "1"]),
    least=st.integers(0, 4),
    worth=st.integers(0, 60),
)
def test_what_can_be_closed_whole_can_be_closed_in_parts(
    tenths: dict[str, int], lot: str, least: int, worth: int
) -> None:
    of = rules(lot, str(least), str(worth))
    held = {algo: str(D(quantity) / 10) for algo, quantity in tenths.items()}
    whole = sum((D(quantity) for quantity in held.values()), D(0))
    found = parts(held, of)
    kept = Rules(of, D(10))
    if whole and kept.fits(abs(whole)):
        assert sum(found.values(), D(0)) == abs(whole)
        assert all(kept.fits(quantity) for quantity in found.values())
    # Nothing is left of which an order could be made.
    assert kept.most(abs(whole) - sum(found.values(), D(0))) == 0
    for quantity in found.values():
        of.check_quantity(quantity)
    for algo in found:
        if algo is not None:
            assert D(held[algo]) * whole > 0


def test_a_kill_of_one_user_reaches_all_of_their_accounts() -> None:
    kill = Kill(id="kill-2", scope="user:u", flatten=True, reason="", at=Nanos(1), by="op", halted_at=Nanos(1))
    assert kill.covers(UserId("u"), ACCOUNT)
    orders = to_close(kill, book_of({BTC: {"a": 2, "": 1}}), Nanos(1), {}, {})
    assert [(each.algo, each.quantity) for each in orders] == [("a", 2), (None, 1)]

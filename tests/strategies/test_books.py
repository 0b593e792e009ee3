from __future__ import annotations

import copy
from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from strategies.books import Books, BooksState
from tests.strategies.making import START, A, event, fill, journaled
from trading.ids import AccountId, ClientOrderId, Nanos
from trading.orders import EventKind, Fill, Order, OrderType, PlaceOrder, Side, apply

D = Decimal
News = tuple[Order, Fill | None]


def story(number: int, side: Side, parts: list[int], cancelled: bool) -> list[News]:
    """All that is told of one order, in its true order."""
    intent = PlaceOrder(
        account=AccountId("acc"),
        client_order_id=ClientOrderId(f"a-{number}"),
        instrument=A.id,
        side=side,
        type=OrderType.MARKET,
        quantity=D(sum(parts) + cancelled),
        created_at=Nanos(START),
    )
    order = journaled(intent, EventKind.SUBMITTED)
    news: list[News] = [(copy.copy(order), None)]
    for i, part in enumerate(parts):
        deal = fill(f"x{number}-{i}", str(part))
        apply(order, event(order, EventKind.FILLED, fill=deal))
        news += [(copy.copy(order), deal), (copy.copy(order), None)]
    if cancelled:
        apply(order, event(order, EventKind.CANCELLED))
        news.append((copy.copy(order), None))
    return news


stories = st.lists(
    st.tuples(st.sampled_from(list(Side)), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.booleans()),
    min_size=1,
    max_size=4,
)


@given(stories, st.data())
def test_news_in_any_order_and_twice_make_the_same_books(
    plans: list[tuple[Side, list[int], bool]], data: st.DataObject
) -> None:
    told = [n for i, (side, parts, cancelled) in enumerate(plans) for n in story(i, side, parts, cancelled)]
    again = data.draw(st.lists(st.sampled_from(range(len(told))), max_size=4))
    mixed = data.draw(st.permutations([*told, *(told[i] for i in again)]))
    cut = data.draw(st.integers(0, len(mixed)))
    books = Books(AccountId("acc"))
    seen: dict[str, Decimal] = {}
    for i, (order, deal) in enumerate(mixed):
        if i == cut:
            written = msgspec.msgpack.encode(books.state())
            books = Books(AccountId("acc"))
            books.restore(msgspec.msgpack.decode(written, type=BooksState))
        if deal is None:
            shown = order if books.note_order(order) else None
        else:
            if books.note_fill(A, order, deal):
                seen[order.client_order_id] = seen.get(order.client_order_id, D(0)) + deal.quantity
            shown = books.waited(order.client_order_id)
        if shown is not None:
            assert shown.filled_quantity <= seen.get(shown.client_order_id, D(0)), "shown before its fills"
    assert books.orders == {}
    net = sum((side.sign * D(sum(parts)) for side, parts, _ in plans), D(0))
    assert books.position(A).quantity == net
    assert books.position(A).traded == sum(sum(parts) for _, parts, _ in plans)


def test_late_fill_after_a_cancel_counts() -> None:
    books = Books(AccountId("acc"))
    news = story(1, Side.BUY, [2], True)
    order, _ = news[-1]
    for o, deal in news:
        books.note_order(o) if deal is None else books.note_fill(A, o, deal)
    late = fill("late", "1")
    apply(order, event(order, EventKind.FILLED, fill=late))
    assert books.note_fill(A, order, late)
    assert books.position(A).quantity == 3
    assert books.orders == {}

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.database import Database
from storage.desired import Desired
from storage.journal import Journal
from storage.leases import Leases
from storage.records import OrderFilter
from tests.storage.samples import ACCOUNT, INSTRUMENT, TRADING_ACCOUNT, USER, event, fill, order
from trading.errors import BadInput, Conflict, Fenced, Invariant
from trading.ids import AccountId, AlgoId, ClientOrderId, Nanos, UserId
from trading.journal import Break, BreakKind, JournalBatch
from trading.orders import EventKind, Order, OrderState, OrderType, apply
from trading.positions import Position

OWNER = "session/u1"


async def append(journal: Journal, owner: str, epoch: int, batch_id: int, batch: JournalBatch) -> None:
    await journal.append(owner, epoch, batch_id, journal.prepare(batch))


@pytest.fixture
async def journal(db: Database) -> Journal:
    assert await Leases(db).take(OWNER, "test", 10) == 1
    return Journal(db)


async def test_an_order_its_events_and_fills_come_back_equal(journal: Journal) -> None:
    placed = order("o1")
    await append(journal, OWNER, 1, 1, JournalBatch(orders=[placed], events=[event(placed, EventKind.PENDING)]))
    filled = event(
        placed,
        EventKind.FILLED,
        2_000,
        fill=fill("x1"),
        broker_order_id="b1",
        raw='{"x": "\\u0000"}',
        cause="c1",
    )
    apply(placed, filled)
    position = Position(account=ACCOUNT, instrument=INSTRUMENT)
    position.apply(placed.side, fill("x1"))
    trouble = Break(
        id="br1",
        account=ACCOUNT,
        instrument=INSTRUMENT,
        kind=BreakKind.POSITION,
        ours="1",
        theirs="2",
        opened_at=Nanos(3),
    )
    batch = JournalBatch(heads=[placed], events=[filled], positions=[position], breaks=[trouble])
    await append(journal, OWNER, 1, 2, batch)

    assert await journal.order(ACCOUNT, placed.client_order_id) == placed
    story = await journal.events(ACCOUNT, placed.client_order_id)
    assert story == [event(order("o1"), EventKind.PENDING), filled]
    fills, following = await journal.fills(OrderFilter(account=ACCOUNT))
    assert following is None
    assert [(f.fill, f.side, f.algo, f.instrument) for f in fills] == [(fill("x1"), placed.side, "momo-1", INSTRUMENT)]
    assert await journal.positions() == [position]
    assert await journal.positions([AccountId("other")]) == []
    assert await journal.breaks() == [trouble]
    history = await journal.load(ACCOUNT, Nanos(0))
    assert history.orders == [placed]
    assert history.executions == {"x1"}
    assert history.breaks == [trouble]
    assert history.positions == [position]


async def test_a_trailing_stop_and_its_changes_come_back(journal: Journal) -> None:
    placed = order("o1", type=OrderType.TRAILING_STOP, limit_price=None, trail_percent=Decimal("1.5"))
    await append(journal, OWNER, 1, 1, JournalBatch(orders=[placed], events=[event(placed, EventKind.PENDING)]))
    assert await journal.order(ACCOUNT, placed.client_order_id) == placed
    for at, kind in ((2, EventKind.SUBMITTED), (3, EventKind.MODIFIED)):
        news = event(placed, kind, at, trail_percent=Decimal(2) if kind is EventKind.MODIFIED else None)
        apply(placed, news)
        await append(journal, OWNER, 1, at, JournalBatch(heads=[placed], events=[news]))
    assert placed.trail_percent == 2
    assert await journal.order(ACCOUNT, placed.client_order_id) == placed
    assert (await journal.events(ACCOUNT, placed.client_order_id))[-1] == news


async def test_a_nul_in_a_brokers_message_does_not_stop_the_journal(journal: Journal) -> None:
    placed = order("o1")
    heard = event(placed, EventKind.PENDING, raw="a\0b \\u0000")
    await append(journal, OWNER, 1, 1, JournalBatch(orders=[placed], events=[heard]))
    assert (await journal.events(ACCOUNT, placed.client_order_id))[0].raw == "a\ufffdb \\u0000"


async def test_a_batch_sent_twice_is_written_once(journal: Journal) -> None:
    placed = order("o1")
    filled = event(placed, EventKind.FILLED, fill=fill("x1"))
    batch = JournalBatch(orders=[placed], events=[event(placed, EventKind.PENDING), filled])
    await append(journal, OWNER, 1, 7, batch)
    await append(journal, OWNER, 1, 7, batch)
    assert len(await journal.events(ACCOUNT, placed.client_order_id)) == 2
    assert len((await journal.fills(OrderFilter()))[0]) == 1


async def test_the_same_batch_sent_by_two_connections_at_once_is_written_once(journal: Journal) -> None:
    for number in range(20):
        placed = order(f"o{number}")
        batch = JournalBatch(orders=[placed], events=[event(placed, EventKind.PENDING)])
        await asyncio.gather(*(append(journal, OWNER, 1, number, batch) for _ in range(3)))
        assert len(await journal.events(ACCOUNT, placed.client_order_id)) == 1


async def test_batch_numbers_are_pruned_but_recent_ones_stay(journal: Journal, db: Database) -> None:
    for number in (1, 4095, 4096, 8192):
        await append(journal, OWNER, 1, number, JournalBatch())
    async with db.connection() as connection:
        rows = await (await connection.execute("SELECT batch_id FROM journal_batches ORDER BY batch_id")).fetchall()
    assert [row[0] for row in rows] == [4096, 8192]


async def test_a_key_that_exists_is_a_conflict_and_nothing_of_the_batch_is_written(journal: Journal) -> None:
    await append(journal, OWNER, 1, 1, JournalBatch(orders=[order("o1")]))
    with pytest.raises(Conflict, match="o1") as caught:
        await append(journal, OWNER, 1, 2, JournalBatch(orders=[order("o2"), order("o1")]))
    assert caught.value.code == "order_exists"
    assert await journal.order(ACCOUNT, ClientOrderId("o2")) is None
    # The refused batch left no number behind: put right, it can be sent again.
    await append(journal, OWNER, 1, 2, JournalBatch(orders=[order("o2")]))
    assert await journal.order(ACCOUNT, ClientOrderId("o2")) is not None


async def test_an_execution_id_is_unique_in_the_account_only(journal: Journal) -> None:
    first, other = order("o1"), order("o1", account="acc-2")
    await append(journal, OWNER, 1, 1, JournalBatch(orders=[first, other]))
    await append(journal, OWNER, 1, 2, JournalBatch(events=[event(first, EventKind.FILLED, fill=fill("x1"))]))
    await append(journal, OWNER, 1, 3, JournalBatch(events=[event(other, EventKind.FILLED, fill=fill("x1"))]))
    with pytest.raises(Conflict, match="x1") as caught:
        await append(journal, OWNER, 1, 4, JournalBatch(events=[event(first, EventKind.FILLED, fill=fill("x1"))]))
    assert caught.value.code == "fill_exists"
    assert len(await journal.events(ACCOUNT, first.client_order_id)) == 1


async def test_a_head_or_fill_without_an_order_is_a_bug(journal: Journal) -> None:
    with pytest.raises(Invariant, match="never journaled"):
        await append(journal, OWNER, 1, 1, JournalBatch(heads=[order("o1")]))
    with pytest.raises(Invariant, match="never journaled"):
        await append(journal, OWNER, 1, 1, JournalBatch(events=[event(order("o1"), EventKind.FILLED, fill=fill("x1"))]))


async def test_a_head_given_twice_is_written_as_it_was_last(journal: Journal) -> None:
    await append(journal, OWNER, 1, 1, JournalBatch(orders=[order("o1")]))
    early = order("o1", state=OrderState.SUBMITTED)
    late = order("o1", state=OrderState.CANCELLED, reason="by user")
    await append(journal, OWNER, 1, 2, JournalBatch(heads=[early, late]))
    assert await journal.order(ACCOUNT, ClientOrderId("o1")) == late


async def test_an_old_epoch_is_fenced_and_told_the_new_one(journal: Journal, db: Database) -> None:
    assert await Leases(db).take(OWNER, "successor", 10) == 2
    with pytest.raises(Fenced) as caught:
        await append(journal, OWNER, 1, 1, JournalBatch(orders=[order("o1")]))
    assert (caught.value.name, caught.value.mine, caught.value.seen) == (OWNER, 1, 2)
    assert await journal.order(ACCOUNT, ClientOrderId("o1")) is None
    with pytest.raises(Fenced) as caught:
        await append(journal, "session/nobody", 1, 1, JournalBatch(orders=[order("o1")]))
    assert caught.value.seen == 0


async def test_what_races_with_a_take_is_seen_by_the_successor_or_refused(journal: Journal, db: Database) -> None:
    leases = Leases(db)
    accepted = refused = 0
    for round_number in range(1, 31):
        account = AccountId(f"race-{round_number}")

        async def write(account: AccountId = account, epoch: int = round_number) -> set[str]:
            written: set[str] = set()
            for number in range(6):
                new = order(f"o{number}", account=account)
                try:
                    await append(journal, OWNER, epoch, 1_000 * epoch + number, JournalBatch(orders=[new]))
                except Fenced:
                    break
                written.add(new.client_order_id)
            return written

        writer = asyncio.create_task(write())
        await asyncio.sleep(0.0004 * (round_number % 10))
        await leases.take(OWNER, "successor", 10)
        seen = {each.client_order_id for each in (await journal.load(account, Nanos(0))).orders}
        written = await writer
        assert seen == written
        accepted += len(written)
        refused += 6 - len(written)
    # Without both outcomes the race was not one.
    assert accepted
    assert refused


async def test_events_and_fills_cannot_be_changed_in_the_database(journal: Journal, database_url: str) -> None:
    placed = order("o1")
    batch = JournalBatch(orders=[placed], events=[event(placed, EventKind.FILLED, fill=fill("x1"))])
    await append(journal, OWNER, 1, 1, batch)
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in ("order_events", "fills", "audit", "limits"):
            for statement in (
                f"UPDATE {table} SET account = 'x'",
                f"DELETE FROM {table}",
                f"TRUNCATE {table}",
            ):
                if table in ("audit", "limits"):
                    statement = statement.replace("account", "instrument" if table == "limits" else "actor")
                with pytest.raises(psycopg.Error, match="append-only"):
                    connection.execute(statement)


async def test_load_gives_open_orders_of_any_age_and_what_changed_since(journal: Journal) -> None:
    old_open = order("old-open", at=10, state=OrderState.SUBMITTED)
    old_done = order("old-done", at=5, state=OrderState.CANCELLED)
    old_changed = order("old-changed", at=10, state=OrderState.FILLED, updated_at=Nanos(600))
    new_done = order("new-done", at=700, state=OrderState.REJECTED)
    await append(
        journal,
        OWNER,
        1,
        1,
        JournalBatch(
            orders=[old_open, old_done, old_changed, new_done, order("other", account="acc-2")],
            events=[
                event(old_open, EventKind.FILLED, fill=fill("of-open", at=20)),
                event(old_done, EventKind.FILLED, fill=fill("of-done", at=5)),
                event(old_changed, EventKind.FILLED, fill=fill("of-changed", at=600)),
            ],
        ),
    )
    history = await journal.load(ACCOUNT, Nanos(500))
    assert [each.client_order_id for each in history.orders] == ["old-open", "old-changed", "new-done"]
    assert history.since == 500
    later = await journal.load(ACCOUNT, Nanos(10_000))
    assert later.since == 700, "what became of the open order since the last change is not known"
    assert [each.client_order_id for each in later.orders] == ["old-open", "new-done"]
    assert history.executions == {"of-open", "of-changed"}


async def test_pages_of_orders_are_whole_newest_first_and_filtered(journal: Journal, db: Database) -> None:
    desired = Desired(db)
    await desired.create_user(USER, "test")
    await desired.create_account(TRADING_ACCOUNT, "test")
    orders = [
        order(
            f"o{n:02}",
            at=1_000 + n // 3,
            algo=AlgoId("a") if n % 2 else None,
            state=OrderState.SUBMITTED if n % 5 else OrderState.DENIED,
        )
        for n in range(25)
    ]
    await append(journal, OWNER, 1, 1, JournalBatch(orders=orders))
    await append(journal, OWNER, 1, 2, JournalBatch(orders=[order("zz", account="acc-2", at=5_000)]))

    async def all_pages(filters: OrderFilter) -> list[Order]:
        found: list[Order] = []
        cursor: str | None = None
        while True:
            page, cursor = await journal.orders(filters, cursor, 4)
            found += page
            if cursor is None:
                return found
            assert len(page) == 4

    newest_first = orders[::-1]
    assert await all_pages(OrderFilter(account=ACCOUNT)) == newest_first
    assert await all_pages(OrderFilter(user=UserId("u1"))) == newest_first
    assert len(await all_pages(OrderFilter())) == 26
    assert await all_pages(OrderFilter(algo=AlgoId("a"))) == [o for o in newest_first if o.algo]
    denied = OrderFilter(account=ACCOUNT, states=(OrderState.DENIED,))
    assert await all_pages(denied) == [o for o in newest_first if o.state is OrderState.DENIED]
    between = OrderFilter(since=Nanos(1_002), until=Nanos(1_004))
    assert await all_pages(between) == [o for o in newest_first if 1_002 <= o.created_at < 1_004]
    with pytest.raises(BadInput, match="cursor"):
        await journal.orders(OrderFilter(), "not a cursor", 4)
    with pytest.raises(BadInput, match="limit"):
        await journal.orders(OrderFilter(), None, 0)


amounts = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.tuples(amounts, amounts, amounts), min_size=1, max_size=5))
def test_decimals_come_back_exactly(database_url: str, values: list[tuple[Decimal, Decimal, Decimal]]) -> None:
    async def run() -> None:
        db = Database(database_url)
        await db.open()
        try:
            epoch = await Leases(db).take(OWNER, "test", 10)
            journal = Journal(db)
            account = AccountId(f"acc-{epoch}")
            orders = [
                order(f"o{n}", account=account, quantity=a, limit_price=b, average_price=c)
                for n, (a, b, c) in enumerate(values)
            ]
            positions = [
                Position(account=account, instrument=f"X:I{n}", quantity=a, average_cost=b, realised=c)  # type: ignore[arg-type]
                for n, (a, b, c) in enumerate(values)
            ]
            await append(journal, OWNER, epoch, 1, JournalBatch(orders=orders, positions=positions))
            history = await journal.load(account, Nanos(0))
            assert history.orders == orders
            assert history.positions == positions
        finally:
            await db.close()

    asyncio.run(run())


async def test_algos_leave_open_what_is_theirs_to_leave(journal: Journal) -> None:
    closing = {"type": OrderType.MARKET, "limit_price": None, "reduce_only": True}
    orders = [
        order("mine", algo=AlgoId("resting")),
        order("kill-1-X.20qdq8", algo=AlgoId("closed"), **closing),
        order("flat-1-X.20qdq8.2", algo=AlgoId("flattened"), **closing),
        order("exit-1", algo=AlgoId("leaving"), **closing),
        order("kill-joy", algo=AlgoId("named so")),
        order("by-hand", algo=None),
    ]
    events = [event(each, EventKind.PENDING) for each in orders]
    await append(journal, OWNER, 1, 1, JournalBatch(orders=orders, events=events))
    found = await journal.algos_with_open_orders()
    assert found == {(ACCOUNT, AlgoId(name)) for name in ("resting", "leaving", "named so")}


async def test_an_append_asks_as_often_for_fifty_orders_as_for_one(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    real = psycopg.AsyncCursor.execute

    async def counted(cursor: Any, *query: Any, **more: Any) -> Any:
        asked.append(1)
        return await real(cursor, *query, **more)

    async def questions(number: int, count: int) -> int:
        orders = [order(f"o{number}-{n}") for n in range(count)]
        batch = JournalBatch(orders=orders, events=[event(each, EventKind.PENDING) for each in orders])
        asked.clear()
        await append(journal, OWNER, 1, number, batch)
        return len(asked)

    # The first one prepares what the others use.
    await questions(1, 1)
    monkeypatch.setattr(psycopg.AsyncCursor, "execute", counted)
    assert await questions(2, 50) == await questions(3, 1) > 0


async def test_fills_look_their_orders_up_by_key_while_the_tables_are_new(journal: Journal, database_url: str) -> None:
    orders = [order(f"o{n}") for n in range(600)]
    await append(journal, OWNER, 1, 1, JournalBatch(orders=orders))
    events = [event(each, EventKind.FILLED, fill=fill(f"x{n}")) for n, each in enumerate(orders[:100])]
    await append(journal, OWNER, 1, 2, JournalBatch(heads=orders[:100], events=events))
    with psycopg.connect(database_url, autocommit=True) as connection:
        for _ in range(50):
            rows = connection.execute(
                "SELECT idx_scan, idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'orders_pkey'"
            ).fetchone()
            assert rows is not None
            if rows[0] >= 200:
                break
            await journal.order(ACCOUNT, ClientOrderId("none"))
            await asyncio.sleep(0.1)
        assert rows[0] >= 200, f"the primary key was used {rows[0]} times for 200 look-ups"
        assert rows[1] < 1_000, f"{rows[1]} rows read for 200 look-ups"

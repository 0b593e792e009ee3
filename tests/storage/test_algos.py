"""Commands to algos: what is wanted, what makes it hold, and what is noted, all in one transaction."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal

import msgspec
import pytest

from storage.algo_events import AlgoEvents
from storage.algo_log import KEPT_DAYS, AlgoLog
from storage.algos import AlgoCommands
from storage.database import Database
from storage.desired import Desired
from storage.journal import Journal
from storage.kills import Kills
from storage.leases import Leases
from storage.records import LimitRecord, LogFilter, UserRecord
from tests.storage.samples import ACCOUNT, ALGO, FEED, INSTRUMENT, TRADING_ACCOUNT, USER, fill_desired, order
from trading.errors import BadInput, Conflict, UnknownThing
from trading.ids import AccountId, AlgoId, Epoch, Nanos, UserId
from trading.journal import JournalBatch
from trading.limits import GROSS_EXPOSURE, HALTED, ORDER_QUANTITY, PAUSED
from trading.orders import OrderState
from trading.positions import Position


@pytest.fixture
async def desired(db: Database) -> Desired:
    made = Desired(db)
    await fill_desired(made, db)
    return made


@pytest.fixture
def commands(db: Database, desired: Desired) -> AlgoCommands:
    return AlgoCommands(db)


async def in_force(desired: Desired) -> dict[str, LimitRecord]:
    return {each.kind: each for each in await desired.limits() if each.scope == "algo:momo-1" and each.value}


async def test_a_pause_is_a_limit_and_the_first_one_counts(desired: Desired, commands: AlgoCommands) -> None:
    paused = await commands.pause(ALGO.id, "prices look wrong", "asha")
    assert (paused.paused_by, paused.paused_because, paused.want) == ("asha", "prices look wrong", "running")
    assert (await in_force(desired))[PAUSED].changed_by == "asha"
    assert (paused.generation, paused.restart_generation) == (2, 1)
    assert await commands.pause(ALGO.id, "me too", "bo") == paused
    resumed = await commands.resume(ALGO.id, "bo")
    assert (resumed.paused_by, resumed.paused_at, resumed.paused_because) == ("", 0, "")
    assert await in_force(desired) == {}
    assert await commands.resume(ALGO.id, "bo") == resumed
    assert await desired.algo(ALGO.id) == resumed


async def test_a_pause_holds_through_stop_and_start_and_a_change_of_parameters(
    desired: Desired, commands: AlgoCommands
) -> None:
    await commands.pause(ALGO.id, "", "asha")
    await commands.stop(ALGO.id, "cancel", "keep", "asha")
    await desired.update_algo(ALGO.id, {"parameters": {}}, "asha")
    started = await commands.start(ALGO.id, "asha")
    assert (started.want, started.paused_by) == ("running", "asha")
    assert PAUSED in await in_force(desired)


async def test_only_what_needs_it_takes_a_new_incarnation(desired: Desired, commands: AlgoCommands) -> None:
    labelled = await desired.update_algo(ALGO.id, {"labels": {"desk": "alpha"}}, "op")
    assert (labelled.generation, labelled.restart_generation) == (2, 1)
    tuned = await desired.update_algo(ALGO.id, {"parameters": {"fast": 6}, "restart_generation": 1}, "op", generation=2)
    assert (tuned.generation, tuned.restart_generation) == (3, 1)
    moved = await desired.update_algo(ALGO.id, {"parameters": {"fast": 7}}, "op")
    assert (moved.generation, moved.restart_generation) == (4, 4)
    again = await desired.update_algo(ALGO.id, {"want": "running"}, "op")
    assert (again.generation, again.restart_generation) == (5, 5)


async def test_a_stop_that_flattens_is_one_kill_however_often_it_is_asked(
    db: Database, desired: Desired, commands: AlgoCommands
) -> None:
    asked = await asyncio.gather(*(commands.stop(ALGO.id, "cancel", "flatten", "asha") for _ in range(5)))
    thrown = [kill for _, kill in asked if kill is not None]
    assert len(thrown) == 1
    assert {record.flatten for record, _ in asked} == {thrown[0].id}
    assert await Kills(db).in_force() == thrown
    assert (thrown[0].flatten, thrown[0].of_stop, thrown[0].scope) == (True, True, "algo:momo-1")
    assert await Kills(db).all() == [], "nobody threw the switch"
    assert HALTED in await in_force(desired)
    with pytest.raises(Conflict) as caught:
        await Kills(db).lift(thrown[0].id, "op")
    assert caught.value.code == "kill_of_stop"
    started = await commands.start(ALGO.id, "asha")
    assert (started.want, started.flatten, started.stop_position) == ("running", "", "keep")
    assert await Kills(db).in_force() == []
    assert await in_force(desired) == {}


async def test_while_it_is_flattened_it_neither_starts_nor_goes(
    db: Database, desired: Desired, commands: AlgoCommands
) -> None:
    journal = Journal(db)
    epoch = await Leases(db).take("session/u1", "here", 60)
    resting = order("momo-1-1", state=OrderState.SUBMITTED)
    await journal.append("session/u1", epoch, 1, journal.prepare(JournalBatch(orders=[resting])))
    record, _ = await commands.stop(ALGO.id, "cancel", "flatten", "asha")
    assert (await commands.left(record)).open_orders == 1
    for act in (commands.start(ALGO.id, "asha"), commands.delete(ALGO.id, "asha")):
        with pytest.raises(Conflict, match="1 orders are open") as caught:
            await act
        assert caught.value.code == "algo_is_flattening"
    assert await desired.algo(ALGO.id) == record
    kept, kill = await commands.stop(ALGO.id, "cancel", "keep", "asha")
    assert (kept.flatten, kept.stop_position, kill) == ("", "keep", None)
    assert await Kills(db).in_force() == []
    await commands.start(ALGO.id, "asha")


async def test_a_kill_of_the_algo_outlives_the_flattening_of_its_stop(
    db: Database, desired: Desired, commands: AlgoCommands
) -> None:
    await commands.stop(ALGO.id, "cancel", "flatten", "asha")
    kill, _ = await Kills(db).throw("algo:momo-1", False, "enough", "op")
    await commands.start(ALGO.id, "asha")
    assert [each.id for each in await Kills(db).in_force()] == [kill.id]
    assert HALTED in await in_force(desired), "the switch is still thrown"
    await Kills(db).lift(kill.id, "op")
    assert await in_force(desired) == {}


async def test_what_stands_on_an_algo_ends_with_it(db: Database, desired: Desired, commands: AlgoCommands) -> None:
    await commands.pause(ALGO.id, "", "asha")
    kill, _ = await Kills(db).throw("algo:momo-1", True, "enough", "op")
    wider, _ = await Kills(db).throw("account:acc-1", False, "wider", "op")
    for kind, instrument in ((ORDER_QUANTITY, ""), (ORDER_QUANTITY, INSTRUMENT), (GROSS_EXPOSURE, "")):
        await desired.set_limit("algo:momo-1", kind, instrument, Decimal(7), "op")
    await commands.delete(ALGO.id, "asha")
    assert await in_force(desired) == {}
    assert [each.id for each in await Kills(db).in_force()] == [wider.id], "what is of others stays"
    assert (await Kills(db).get(kill.id)).lifted_by == "asha"
    (entry,) = [e for e in await desired.audit_of("algo:momo-1") if e.action == "lift_kill"]
    assert entry.actor == "asha"
    await desired.create_algo(ALGO, "bo")
    assert await in_force(desired) == {}


@pytest.mark.parametrize("flatten", [True, False])
async def test_an_algo_stays_until_a_kill_is_done_with_it(
    db: Database, desired: Desired, commands: AlgoCommands, flatten: bool
) -> None:
    journal = Journal(db)
    epoch = await Leases(db).take("session/u1", "here", 60)
    resting = order("momo-1-1", state=OrderState.SUBMITTED)
    held = Position(account=ACCOUNT, instrument=INSTRUMENT, quantity=Decimal(3), algo=ALGO.id)
    batch = JournalBatch(orders=[resting], positions=[held])
    await journal.append("session/u1", epoch, 1, journal.prepare(batch))
    kill, _ = await Kills(db).throw("algo:momo-1", flatten, "enough", "op")
    with pytest.raises(Conflict, match=f"{kill.id} is not done with algo 'momo-1': 1 orders are open") as caught:
        await commands.delete(ALGO.id, "asha")
    assert caught.value.code == "kill_is_not_done"
    assert (f"3 {INSTRUMENT}" in str(caught.value)) is flatten
    assert [each.id for each in await Kills(db).in_force()] == [kill.id]
    resting.state = OrderState.CANCELLED
    await journal.append("session/u1", epoch, 2, journal.prepare(JournalBatch(heads=[resting])))
    if flatten:
        with pytest.raises(Conflict, match="0 orders are open"):
            await commands.delete(ALGO.id, "asha")
        await Kills(db).lift(kill.id, "op")
    await commands.delete(ALGO.id, "asha")


async def test_what_an_earlier_release_left_on_a_name_is_lifted_for_who_takes_it(
    db: Database, desired: Desired
) -> None:
    await Kills(db).throw("algo:momo-1", True, "enough", "op")
    await desired.set_limit("algo:momo-1", ORDER_QUANTITY, "", Decimal(7), "op")
    async with db.connection() as connection:
        await connection.execute("DELETE FROM algos")
    assert await desired.reused_algos() == set()
    await desired.create_algo(ALGO, "test")
    assert (await in_force(desired), await Kills(db).in_force()) == ({}, [])
    assert await desired.reused_algos() == {ALGO.id}


async def test_a_name_that_another_users_algo_has_traded_under_is_not_given_out_again(
    db: Database, desired: Desired, commands: AlgoCommands
) -> None:
    other = msgspec.structs.replace(TRADING_ACCOUNT, id=AccountId("acc-2"), user=UserId("u2"))
    await desired.create_user(msgspec.structs.replace(USER, id=UserId("u2")), "test")
    await desired.create_account(other, "test")
    theirs = msgspec.structs.replace(ALGO, user=UserId("u2"), account=other.id)
    await commands.delete(ALGO.id, "test")
    await desired.create_algo(theirs, "test")
    await commands.delete(ALGO.id, "test")
    await desired.create_algo(ALGO, "test")
    journal = Journal(db)
    epoch = await Leases(db).take("session/u1", "here", 60)
    await journal.append("session/u1", epoch, 1, journal.prepare(JournalBatch(orders=[order("momo-1-1")])))
    await commands.delete(ALGO.id, "test")
    with pytest.raises(Conflict, match="take another name") as caught:
        await desired.create_algo(theirs, "test")
    assert caught.value.code == "name_was_anothers"
    await desired.create_algo(ALGO, "test")


async def test_orders_cannot_be_left_of_a_position_that_is_closed(desired: Desired, commands: AlgoCommands) -> None:
    with pytest.raises(BadInput) as caught:
        await commands.stop(ALGO.id, "leave", "flatten", "asha")
    assert caught.value.field == "orders"
    assert await desired.algo(ALGO.id) == ALGO
    left, _ = await commands.stop(ALGO.id, "leave", "keep", "asha")
    assert (left.want, left.stop_orders) == ("stopped", "leave")
    assert (await commands.start(ALGO.id, "asha")).stop_orders == "cancel"


async def test_every_change_leaves_an_event_with_its_author(
    db: Database, desired: Desired, commands: AlgoCommands
) -> None:
    epoch = await desired.new_algo_epoch(ALGO.id, "edge")
    await desired.set_algo_state(ALGO.id, epoch, "running", "")
    await desired.set_algo_state(ALGO.id, epoch, "running", "")
    await commands.pause(ALGO.id, "", "asha")
    await desired.update_algo(ALGO.id, {"want": "running"}, "bo")
    await Kills(db).throw("account:acc-1", False, "x", "op")
    await desired.force_delete_feed(FEED.id, "op")
    await commands.delete(ALGO.id, "asha")
    events, cursor = await AlgoEvents(db).page(ALGO.id)
    assert cursor is None
    told = [(each.what, each.want, each.state, each.node, each.by) for each in reversed(events)]
    assert told == [
        (["created"], "running", "waiting", "", "test"),
        (["epoch"], "running", "waiting", "edge", "supervisor"),
        (["state"], "running", "running", "edge", "supervisor"),
        (["paused"], "running", "running", "edge", "asha"),
        (["restart"], "running", "running", "edge", "bo"),
        (["want"], "stopped", "running", "edge", "op"),
        (["deleted"], "stopped", "running", "edge", "asha"),
    ]
    assert PAUSED not in await in_force(desired)
    first, cursor = await AlgoEvents(db).page(ALGO.id, limit=3)
    second, _ = await AlgoEvents(db).page(ALGO.id, cursor=cursor)
    assert first + second == events
    assert await AlgoEvents(db).owners(ALGO.id) == {"u1"}
    assert (await AlgoEvents(db).page(ALGO.id, UserId("somebody")))[0] == []


async def test_events_are_bounded_by_number_and_by_age(db: Database, desired: Desired) -> None:
    old = time.time_ns() - 91 * 86_400 * 10**9
    async with db.connection() as connection:
        await connection.execute(
            """
            INSERT INTO algo_events (algo, "user", at, what, epoch, generation, want, state, reason, node, by)
            SELECT 'momo-1', 'u1', CASE WHEN n <= 50 THEN %s ELSE %s END, '[]', 1, 1, 'running', 'running', '', '', ''
            FROM generate_series(1, 10100) n
            """,
            (old, time.time_ns()),
        )
    epoch = await desired.new_algo_epoch(ALGO.id)
    for n in range(200):
        await desired.set_algo_state(ALGO.id, epoch, "running", f"reason {n}")
    async with db.connection() as connection:
        row = await (await connection.execute("SELECT count(*), min(at) FROM algo_events")).fetchone()
    assert row is not None
    assert row[0] <= 10_200
    assert row[1] > old


async def test_a_log_stays_when_its_algo_goes_and_is_its_owners(db: Database, desired: Desired) -> None:
    log, now = AlgoLog(db), time.time_ns()
    await log.append(ALGO.id, Epoch(1), [(Nanos(now), "info", "mine")])
    await desired.delete_algo(ALGO.id, "op")
    assert [line.text for line in await log.tail(ALGO.id)] == ["mine"]
    with pytest.raises(UnknownThing):
        await log.append(ALGO.id, Epoch(1), [(Nanos(now), "info", "late")])
    await desired.create_user(UserRecord(id=UserId("u2"), roles=(), created_at=Nanos(1)), "op")
    await desired.create_algo(msgspec.structs.replace(ALGO, user=UserId("u2")), "op")
    await log.append(ALGO.id, Epoch(1), [(Nanos(now), "info", "theirs")])
    assert [line.text for line in await log.tail(ALGO.id, filters=LogFilter(user=UserId("u2")))] == ["theirs"]


async def test_a_log_is_found_by_level_time_and_text_and_keeps_fields(db: Database, desired: Desired) -> None:
    log, now = AlgoLog(db), time.time_ns()
    rows = [(Nanos(now - 9), "debug", "looked"), (Nanos(now), "warning", "50% WIDE"), (Nanos(now + 1), "error", "gone")]
    fields = [{"price": Decimal("1.50"), "side": "buy\0"}, {}, {"blob": "x" * 9_000}]
    written = await log.append(ALGO.id, Epoch(1), rows, fields)
    assert written == await log.tail(ALGO.id)
    assert written[0].fields == {"price": "1.50", "side": "buy\ufffd"}
    assert "left_out" in written[2].fields

    async def texts(**filters: object) -> list[str]:
        return [x.text for x in await log.tail(ALGO.id, filters=LogFilter(**filters))]  # type: ignore[arg-type]

    assert await texts(level="warning") == ["50% WIDE", "gone"]
    assert await texts(since=now) == ["50% WIDE", "gone"]
    assert await texts(text="% wide") == ["50% WIDE"]
    assert await texts(text="%") == ["50% WIDE"], "no wildcards"
    assert await texts(after=written[1].number) == ["gone"]
    with pytest.raises(BadInput, match="level"):
        await texts(level="loud")


async def test_lines_grow_old(db: Database, desired: Desired) -> None:
    now = time.time_ns()
    old = Nanos(now - (KEPT_DAYS + 1) * 86_400 * 10**9)
    other = msgspec.structs.replace(ALGO, id=AlgoId("other"))
    await desired.create_algo(other, "op")
    await AlgoLog(db).append(other.id, Epoch(1), [(Nanos(now), "info", "new")])
    async with db.connection() as connection:
        await connection.execute("UPDATE algo_log SET at = %s", (old,))
    await AlgoLog(db).append(ALGO.id, Epoch(1), [(Nanos(now), "info", "new")])
    assert await AlgoLog(db).tail(other.id) == []
    assert len(await AlgoLog(db).tail(ALGO.id)) == 1
    assert ALGO.account == ACCOUNT

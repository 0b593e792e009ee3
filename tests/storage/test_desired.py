from __future__ import annotations

import asyncio
from decimal import Decimal

import msgspec
import psycopg
import pytest
from psycopg import sql

from storage.database import Database
from storage.desired import Desired
from storage.records import NodeRecord
from tests.storage.samples import (
    ACCOUNT,
    ALGO,
    FEED,
    INSTRUMENT,
    TRADING_ACCOUNT,
    USER,
    fill_desired,
)
from tests.support.patience import PATIENCE
from trading.errors import BadInput, Conflict, Fenced, UnknownThing
from trading.ids import AccountId, AlgoId, Epoch, FeedId, Nanos, NodeName, UserId


@pytest.fixture
async def desired(db: Database) -> Desired:
    made = Desired(db)
    await fill_desired(made, db)
    return made


async def test_what_is_created_comes_back_equal(desired: Desired) -> None:
    assert await desired.users() == [USER]
    assert await desired.accounts() == [TRADING_ACCOUNT]
    assert await desired.feeds() == [FEED]
    assert await desired.algos() == [ALGO]
    assert await desired.algo(ALGO.id) == ALGO
    assert await desired.nodes() == []


async def test_a_name_that_exists_is_a_conflict(desired: Desired) -> None:
    with pytest.raises(Conflict, match="already a feed named 'crypto'") as caught:
        await desired.create_feed(FEED, "test")
    assert caught.value.code == "feed_exists"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"account": AccountId("none")}, "account"),
        ({"feed": FeedId("none")}, "feed"),
        ({"strategy": "none"}, "strategy"),
        ({"user": UserId("none")}, "user"),
    ],
)
async def test_an_algo_of_something_unknown_names_it_and_leaves_nothing(
    desired: Desired, change: dict[str, str], kind: str
) -> None:
    version = await desired.version()
    with pytest.raises(UnknownThing) as caught:
        await desired.create_algo(msgspec.structs.replace(ALGO, id=AlgoId("new"), **change), "test")
    assert (caught.value.kind, caught.value.name) == (kind, "none")
    with pytest.raises(UnknownThing) as caught:
        await desired.algo(AlgoId("new"))
    assert caught.value.kind == "algo"
    assert await desired.version() == version
    assert await desired.audit_of("new") == []


async def test_an_update_raises_the_generation_and_checks_the_expected_one(desired: Desired) -> None:
    changed = await desired.update_feed(FEED.id, {"workers": 5}, "op", generation=1)
    assert (changed.workers, changed.generation) == (5, 2)
    assert await desired.feed(FEED.id) == changed
    with pytest.raises(Conflict, match="generation 2, not 1"):
        await desired.update_feed(FEED.id, {"workers": 6}, "op", generation=1)
    with pytest.raises(Conflict, match="generation 2, not 1"):
        await desired.delete_feed(FEED.id, "op", generation=1)
    assert (await desired.feed(FEED.id)).workers == 5


async def test_racing_updates_of_one_generation_let_one_through(desired: Desired) -> None:
    done = await asyncio.gather(
        *(desired.update_feed(FEED.id, {"workers": n}, "op", generation=1) for n in range(2, 6)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Conflict) for each in done) == 3
    assert (await desired.feed(FEED.id)).generation == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"speed": 1}, "speed"),
        ({"generation": 9}, "generation"),
        ({"epoch": 9}, "epoch"),
        ({"state": "running"}, "state"),
        ({"want": "flying"}, "want"),
        ({"instruments": ["btc"]}, "instruments"),
        ({"parameters": 7}, "algo"),
    ],
)
async def test_a_field_that_cannot_be_set_so_is_named(desired: Desired, changes: dict[str, object], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        await desired.update_algo(ALGO.id, changes, "op")
    assert caught.value.field == field
    assert await desired.algo(ALGO.id) == ALGO


async def test_a_feed_needs_a_worker_and_an_unknown_thing_is_named(desired: Desired) -> None:
    with pytest.raises(BadInput, match="workers"):
        await desired.update_feed(FEED.id, {"workers": 0}, "op")
    with pytest.raises(UnknownThing, match="no feed named 'none'"):
        await desired.update_feed(FeedId("none"), {"workers": 2}, "op")
    with pytest.raises(BadInput, match="user"):
        await desired.create_user(msgspec.structs.replace(USER, id=UserId("No Name")), "op")


async def test_what_is_used_cannot_be_deleted(desired: Desired) -> None:
    with pytest.raises(Conflict, match="still used by algos"):
        await desired.delete_account(ACCOUNT, "op")
    await desired.delete_algo(ALGO.id, "op")
    await desired.delete_account(ACCOUNT, "op")
    await desired.delete_user(USER.id, "op")
    assert await desired.users() == []


async def test_the_state_of_an_algo_is_a_finding_of_its_incarnation(desired: Desired) -> None:
    assert await desired.new_algo_epoch(ALGO.id) == 1
    version = await desired.version()
    assert await desired.set_algo_state(ALGO.id, Epoch(1), "running", "") is True
    assert await desired.set_algo_state(ALGO.id, Epoch(1), "running", "") is False
    found = await desired.algo(ALGO.id)
    assert (found.state, found.epoch, found.generation) == ("running", 1, 1)
    assert await desired.version() == version
    assert await desired.new_algo_epoch(ALGO.id) == 2
    with pytest.raises(Fenced) as caught:
        await desired.set_algo_state(ALGO.id, Epoch(1), "failed", "late news")
    assert caught.value.seen == 2
    assert (await desired.algo(ALGO.id)).state == "running"
    with pytest.raises(UnknownThing):
        await desired.new_algo_epoch(AlgoId("none"))


async def test_an_incarnation_is_fenced_once_and_a_newer_one_is_left_alone(desired: Desired) -> None:
    epoch = await desired.new_algo_epoch(ALGO.id, "edge")
    assert sorted(await asyncio.gather(*(desired.fence_algo(ALGO.id, epoch) for _ in range(5)))) == [False] * 4 + [True]
    assert await desired.algo_epochs(USER.id) == {ALGO.id: epoch + 1}
    assert await desired.algo_epochs(UserId("nobody")) == {}
    assert await desired.fence_algo(AlgoId("none"), epoch) is False


async def test_a_deleted_algo_is_fenced_and_one_of_its_name_goes_on_numbering(desired: Desired) -> None:
    for _ in range(3):
        await desired.new_algo_epoch(ALGO.id)
    await desired.delete_algo(ALGO.id, "op")
    assert await desired.algo_epochs(USER.id) == {ALGO.id: 4}
    await desired.create_algo(ALGO, "op")
    assert (await desired.algo(ALGO.id)).epoch == 4
    assert await desired.new_algo_epoch(ALGO.id) == 5
    assert await desired.algo_epochs(USER.id) == {ALGO.id: 5}


async def test_racing_epochs_of_an_algo_are_all_different(desired: Desired) -> None:
    assert sorted(await asyncio.gather(*(desired.new_algo_epoch(ALGO.id) for _ in range(10)))) == list(range(1, 11))


async def test_a_node_that_registers_again_keeps_what_operators_gave_it(desired: Desired) -> None:
    node = NodeRecord(name=NodeName("n1"), labels={"region": "eu"}, registered_at=Nanos(5))
    assert await desired.register_node(node, "n1") == node
    held = await desired.update_node(node.name, {"labels": {"region": "us"}, "cordoned": True}, "ops")
    again = msgspec.structs.replace(node, registered_at=Nanos(9))
    assert await desired.register_node(again, "n1") == held
    assert await desired.node(node.name) == held


async def test_every_version_of_a_limit_is_kept(desired: Desired) -> None:
    first = await desired.set_limit("account:acc-1", "order_notional", "", Decimal("1000.50"), "op")
    second = await desired.set_limit("account:acc-1", "order_notional", "", None, "op2")
    other = await desired.set_limit("cluster", "position", INSTRUMENT, Decimal(2), "op")
    assert (first.version, second.version, other.version) == (1, 2, 1)
    assert await desired.limits() == [second, other]
    assert await desired.limit_history("account:acc-1", "order_notional") == [first, second]
    for wrong in (Decimal("NaN"), Decimal(-1), Decimal("Infinity")):
        with pytest.raises(BadInput, match="value"):
            await desired.set_limit("cluster", "position", "", wrong, "op")


async def test_racing_limits_get_different_versions(desired: Desired) -> None:
    made = await asyncio.gather(
        *(desired.set_limit("cluster", "gross_exposure", "", Decimal(n), "op") for n in range(8))
    )
    assert sorted(each.version for each in made) == list(range(1, 9))


async def test_every_change_is_audited_with_both_sides(desired: Desired) -> None:
    await desired.update_account(ACCOUNT, {"enabled": False}, "op")
    changed, created = await desired.audit_of(ACCOUNT)
    assert (created.action, created.actor, created.before) == ("create_account", "test", None)
    assert (changed.action, changed.actor) == ("update_account", "op")
    assert (changed.before["enabled"], changed.after["enabled"]) == (True, False)
    await desired.audit("op", "kill", "account/acc-1", None, {"cancelled": 3})
    assert (await desired.audit_of())[0].after == {"cancelled": 3}


async def test_each_change_raises_the_version_and_wakes_who_listens(desired: Desired) -> None:
    changes = desired.changes()
    await asyncio.wait_for(anext(changes), 5 * PATIENCE)
    version = await desired.version()
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await desired.update_feed(FEED.id, {"workers": 4}, "op")
    await asyncio.wait_for(waiting, 2 * PATIENCE)
    assert await desired.version() == version + 1
    await changes.aclose()


async def test_who_listens_is_woken_after_its_connection_was_cut(desired: Desired, database_url: str) -> None:
    changes = desired.changes()
    await asyncio.wait_for(anext(changes), 5 * PATIENCE)
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.1)
    with psycopg.connect(database_url, autocommit=True) as connection:
        cut = connection.execute(
            sql.SQL(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        ).fetchall()
    assert cut == [(True,)]
    # A change may have passed unheard meanwhile, so reconnecting is itself a wake-up.
    await asyncio.wait_for(waiting, 5 * PATIENCE)
    again = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.1)
    await desired.update_feed(FEED.id, {"workers": 4}, "op")
    await asyncio.wait_for(again, 2 * PATIENCE)
    await changes.aclose()


async def test_text_that_postgresql_cannot_hold_is_bad_input(db: Database) -> None:
    desired = Desired(db)
    for text in ("a\0b", "half \ud800"):
        with pytest.raises(BadInput, match="no text may have"):
            await desired.user(UserId(text))
        with pytest.raises(BadInput, match="no text may have"):
            await desired.audit("admin", "note", "x", after={"reason": text})

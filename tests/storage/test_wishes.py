"""Wishes of a feed's clients, and feeds that are deleted by force."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from storage.database import Database
from storage.desired import Desired
from storage.feed_seconds import FeedSeconds
from storage.records import AuditFilter, FeedRecord
from storage.wishes import Wish, Wishes, WishesByClient
from tests.storage.samples import ALGO, FEED, fill_desired
from trading.errors import BadInput, Conflict, UnknownThing
from trading.ids import FeedId, InstrumentId
from trading.seconds import SecondSource
from trading.subscriptions import Channels

A, B = InstrumentId("T:A"), InstrumentId("T:B")


async def want(wishes: Wishes, client: str, wish: Mapping[InstrumentId, Channels]) -> FeedRecord:
    return await wishes.change(FEED.id, client, lambda _, __: wish, by="test")


async def test_a_wish_replaces_the_last_and_raises_the_generation_only_where_it_is_new(db: Database) -> None:
    desired, wishes = Desired(db), Wishes(db)
    await desired.create_feed(FEED, by="test")
    version = await desired.version()
    assert (await want(wishes, "a", {A: ("trade",), B: ("trade", "quote")})).generation == 2
    assert (await want(wishes, "b", {A: ("quote",)})).generation == 3
    assert await wishes.of(FEED.id) == {"a": {A: ("trade",), B: ("trade", "quote")}, "b": {A: ("quote",)}}
    assert (await want(wishes, "a", {A: ("quote",)})).generation == 4
    assert await desired.version() == version + 3
    # Nothing new: nobody is woken, nothing is noted.
    assert (await want(wishes, "a", {A: ("quote",)})).generation == 4
    assert await desired.version() == version + 3
    record, found = await wishes.read(FEED.id)
    assert (record.generation, found) == (4, {"a": {A: ("quote",)}, "b": {A: ("quote",)}})
    assert record == await desired.feed(FEED.id)
    notes = (await desired.audit_page(AuditFilter(subject=FEED.id)))[0]
    assert [note.action for note in notes] == ["wish_of_feed"] * 3 + ["create_feed"]
    assert notes[0].after == {"client": "a", "wanted": {A: ["quote"]}, "gone": [B]}


async def test_what_is_refused_changes_nothing(db: Database) -> None:
    desired, wishes = Desired(db), Wishes(db)
    await desired.create_feed(FEED, by="test")
    await want(wishes, "a", {A: ("trade",)})
    before = await wishes.read(FEED.id)

    def refuse(record: FeedRecord, found: WishesByClient) -> Wish:
        assert (record, found) == before
        raise BadInput("instruments", "too many")

    with pytest.raises(BadInput, match="too many"):
        await wishes.change(FEED.id, "a", refuse, by="test")
    assert await wishes.read(FEED.id) == before
    with pytest.raises(UnknownThing):
        await wishes.change(FeedId("none"), "a", refuse, by="test")
    with pytest.raises(UnknownThing):
        await wishes.read(FeedId("none"))


async def test_whoever_decides_sees_what_all_others_have_decided(db: Database) -> None:
    desired, wishes = Desired(db), Wishes(db)
    await desired.create_feed(FEED, by="test")
    seen: list[int] = []

    def decide(_: FeedRecord, found: WishesByClient) -> Wish:
        seen.append(len(found))
        return {A: ("trade",)}

    await asyncio.gather(*(wishes.change(FEED.id, f"c{n}", decide, by="test") for n in range(8)))
    assert sorted(seen) == list(range(8))


async def test_a_deleted_feed_takes_its_wishes_along(db: Database) -> None:
    desired, wishes = Desired(db), Wishes(db)
    await desired.create_feed(FEED, by="test")
    await want(wishes, "a", {A: ("trade",)})
    await desired.delete_feed(FEED.id, by="test")
    await desired.create_feed(FEED, by="test")
    assert await wishes.of(FEED.id) == {}


async def test_a_feed_that_algos_name_goes_only_by_force_and_they_are_to_stop(db: Database) -> None:
    desired = Desired(db)
    await fill_desired(desired, db)
    with pytest.raises(Conflict, match="still used by algos"):
        await desired.delete_feed(FEED.id, by="test")
    (stopped,) = await desired.force_delete_feed(FEED.id, by="test")
    assert (stopped.id, stopped.want) == (ALGO.id, "stopped")
    assert await desired.algo(ALGO.id) == stopped
    assert await desired.feeds() == []
    # What is left of it can be changed, moved to another feed, but not to none.
    assert (await desired.update_algo(ALGO.id, {"parameters": {"fast": 9}}, by="test")).feed == FEED.id
    with pytest.raises(UnknownThing, match="feed named 'none'"):
        await desired.update_algo(ALGO.id, {"feed": FeedId("none")}, by="test")
    with pytest.raises(UnknownThing, match="feed"):
        await desired.force_delete_feed(FEED.id, by="test")
    actions = [note.action for note in await desired.audit_of(ALGO.id)]
    assert actions == ["update_algo", "update_algo", "create_algo"]


async def test_a_second_is_of_a_feed_that_is_there_and_stays_until_it_is_deleted_by_force(db: Database) -> None:
    desired, seconds = Desired(db), FeedSeconds(db)
    await desired.create_feed(FEED, by="test")
    other = SecondSource(FeedId("other"), B)
    first = msgspec.structs.replace(FEED, id=FeedId("first"), instruments=(A,), seconds={A: other})
    with pytest.raises(UnknownThing, match="other"):
        await desired.create_feed(first, by="test")
    await desired.create_feed(msgspec.structs.replace(FEED, id=FeedId("other")), by="test")
    await desired.create_feed(first, by="test")
    with pytest.raises(UnknownThing, match="none"):
        await desired.update_feed(first.id, {"seconds": {A: SecondSource(FeedId("none"), B)}}, by="test")
    with pytest.raises(BadInput, match="itself"):
        await desired.update_feed(first.id, {"seconds": {A: SecondSource(first.id, B)}}, by="test")
    assert await seconds.of(first.id) == {A: other}
    assert await seconds.all() == {first.id: {A: other}}
    both = tuple(each for each in FEED.channels if each in ("trade", "quote"))
    assert await Wishes(db).of(FeedId("other")) == {"second:first": {B: both}}
    with pytest.raises(Conflict, match="feeds"):
        await desired.delete_feed(FeedId("other"), by="test")
    assert await desired.force_delete_feed(FeedId("other"), by="test") == []
    after = await desired.feed(first.id)
    assert (after.seconds, after.generation) == ({}, first.generation + 1)
    assert await seconds.of(FeedId("gone")) == {}

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from msgspec.structs import replace

from storage import artefacts as artefacts_module
from storage import migrate as migrate_module
from storage.artefacts import PART_BYTES, Artefacts
from storage.database import Database
from storage.desired import Desired
from storage.migrate import known_migrations, migrate
from storage.records import Pin, StrategyVersion
from storage.strategies import Strategies
from tests.storage.samples import ALGO, STRATEGY, fill_desired
from trading.errors import BadInput, Conflict, Invariant, UnknownThing
from trading.ids import AlgoId, Nanos

DATA = b"class Mine: ...\n"
SHA = hashlib.sha256(DATA).hexdigest()


def made(version: str = "a" * 64, **changes: Any) -> StrategyVersion:
    values: dict[str, Any] = {
        "strategy": "mine",
        "version": version,
        "kind": "file",
        "file_name": "mine.py",
        "artefact": SHA,
        "size": len(DATA),
        "asked_entry": "",
        "entry": "Mine",
        "schema": {"title": "Mine"},
        "requirements": ("numpy>=2",),
        "pins": (),
        "checked": {"smoke": {"ticks": 5}},
        "submitted_by": "asha",
        "submitted_at": Nanos(7),
        **changes,
    }
    return StrategyVersion(**values)


@pytest.fixture
async def strategies(db: Database) -> Strategies:
    await Artefacts(db).put(DATA)
    return Strategies(db)


async def test_files_are_kept_once_and_come_back_whole(db: Database) -> None:
    store = Artefacts(db)
    for content in (b"", b"x", bytes(PART_BYTES), b"y" * (2 * PART_BYTES + 5)):
        sha256 = await store.put(content)
        assert set(await asyncio.gather(store.put(content), store.put(content))) == {sha256}
        assert await store.get(sha256) == content
    with pytest.raises(UnknownThing):
        await store.get("0" * 64)


async def test_a_file_that_was_tampered_with_is_not_given_out(db: Database, database_url: str) -> None:
    store = Artefacts(db)
    sha256 = await store.put(DATA)
    async with db.connection() as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("UPDATE artefact_parts SET bytes = ''")
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("UPDATE artefact_parts SET bytes = 'class Evil: ...'")
    with pytest.raises(Invariant, match="tampered"):
        await store.get(sha256)


async def test_a_name_stands_for_its_newest_version_that_is_not_deprecated(
    db: Database, strategies: Strategies
) -> None:
    first, second = made(), made("b" * 64, entry="Other", schema={"title": "Other"})
    assert await strategies.submit(first, "asha") == first
    assert await strategies.submit(second, "asha") == second
    assert await strategies.submit(replace(first, submitted_at=Nanos(99)), "bo") == first
    assert await strategies.versions("mine") == [second, first]
    (record,) = await strategies.all()
    assert (record.version, record.entry, record.schema, record.builtin) == (
        second.version,
        "Other",
        {"title": "Other"},
        False,
    )
    gone = await strategies.deprecate("mine", second.version, "wrong side", "bo")
    assert (gone.deprecated_by, gone.deprecated_because) == ("bo", "wrong side")
    assert await strategies.version("mine", "b" * 8) == gone
    assert (await strategies.get("mine")).version == first.version
    assert await strategies.deprecated() == {("mine", second.version): "wrong side"}
    await strategies.deprecate("mine", first.version, "old", "bo")
    assert (await strategies.get("mine")).version == ""
    assert await strategies.deprecate("mine", second.version, None, "bo") == second
    assert (await strategies.get("mine")).version == second.version
    actions = [entry.action for entry in await Desired(db).audit_of(f"mine/{second.version}")]
    assert actions == ["reinstate_strategy", "deprecate_strategy", "submit_strategy"]


async def test_a_version_is_found_by_its_first_characters(strategies: Strategies) -> None:
    await strategies.submit(made("ab" * 32), "asha")
    await strategies.submit(made("ab" * 31 + "cd"), "asha")
    with pytest.raises(BadInput, match="several") as caught:
        await strategies.version("mine", "abababab", "from")
    assert caught.value.field == "from"
    assert (await strategies.version("mine", "ab" * 31 + "c")).version.endswith("cd")
    for wrong in ("abababa", "ABABABAB", "ab%babab", ""):
        with pytest.raises(BadInput, match="is no version"):
            await strategies.version("mine", wrong)
    with pytest.raises(UnknownThing) as missing:
        await strategies.version("mine", "0" * 8)
    assert missing.value.kind == "version"
    with pytest.raises(UnknownThing) as missing:
        await strategies.version("nobody", "0" * 8)
    assert missing.value.kind == "strategy"


async def test_an_algo_can_only_pin_what_is_there_and_holds_it(db: Database, strategies: Strategies) -> None:
    desired = Desired(db)
    await fill_desired(desired, db)
    version = await strategies.submit(made(), "asha")
    mine = replace(ALGO, id=AlgoId("mine-1"), strategy="mine", strategy_version=version.version)
    assert await desired.create_algo(mine, "test") == mine
    for wrong in (
        replace(mine, id=AlgoId("x"), strategy_version="c" * 64),
        replace(mine, id=AlgoId("x"), strategy="ma-cross"),
    ):
        with pytest.raises(UnknownThing):
            await desired.create_algo(wrong, "test")
    assert await strategies.pinned_by("mine", version.version) == ["mine-1"]
    with pytest.raises(Conflict, match=r"pinned by algos \(1\)"):
        await strategies.delete_version("mine", version.version, "bo")
    with pytest.raises(Conflict, match="still used by algos"):
        await strategies.delete("mine", "bo")
    second = await strategies.submit(made("b" * 64), "asha")
    before = {"version": version.version, "parameters": {"n": 1}}
    moved = await desired.update_algo(mine.id, {"strategy_version": second.version, "previous": before}, "bo")
    assert (await desired.algo(mine.id)).previous == before
    assert moved.strategy_version == second.version
    await strategies.delete_version("mine", version.version, "bo")
    assert [each.version for each in await strategies.versions("mine")] == [second.version]


async def test_files_that_nobody_names_go_when_they_are_old(
    db: Database, strategies: Strategies, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Artefacts(db)
    wheel = b"a wheel"
    pin = Pin(name="lib", version="1", file_name="lib-1-py3-none-any.whl", sha256=await store.put(wheel), size=7)
    first = await strategies.submit(made(pins=(pin,)), "asha")
    await strategies.submit(made("b" * 64, pins=(pin,)), "asha")
    unnamed = await store.put(b"put a moment ago, its version is yet to come")
    await strategies.delete_version("mine", "b" * 64, "bo")
    assert await store.get(unnamed)
    monkeypatch.setattr(artefacts_module, "UNWANTED_NS", 0)
    await strategies.submit(made("c" * 64), "asha")
    with pytest.raises(UnknownThing):
        await store.get(unnamed)
    assert await store.get(pin.sha256) == wheel
    await strategies.delete_version("mine", first.version, "bo")
    with pytest.raises(UnknownThing):
        await store.get(pin.sha256)
    assert await store.get(SHA) == DATA
    await strategies.delete("mine", "bo")
    with pytest.raises(UnknownThing):
        await store.get(SHA)


async def test_a_version_without_its_file_is_refused(strategies: Strategies) -> None:
    with pytest.raises(UnknownThing, match="submit it again"):
        await strategies.submit(made(artefact="0" * 64), "asha")
    with pytest.raises(UnknownThing):
        await strategies.get("mine")


async def test_builtin_and_submitted_names_do_not_meet(strategies: Strategies) -> None:
    await strategies.put_builtin(STRATEGY, "api")
    newer = replace(STRATEGY, version="1" * 64)
    assert await strategies.put_builtin(newer, "api") == newer
    with pytest.raises(Conflict, match="built in"):
        await strategies.submit(made(strategy="ma-cross"), "asha")
    await strategies.submit(made(), "asha")
    with pytest.raises(Conflict, match="was submitted by somebody"):
        await strategies.put_builtin(replace(STRATEGY, name="mine"), "api")


@pytest.fixture
def old_url(server_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database as it was before strategies had versions."""
    base = server_url.rpartition("/")[0]
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE old TEMPLATE template0")
        with monkeypatch.context() as patch:
            known = {name: text for name, text in known_migrations().items() if name < "0019"}
            patch.setattr(migrate_module, "known_migrations", lambda: known)
            migrate(f"{base}/old")
        yield f"{base}/old"
        connection.execute("DROP DATABASE old WITH (FORCE)")


async def test_what_was_submitted_before_there_were_versions_is_the_first_one(old_url: str) -> None:
    source = "class Mine: ...  # ä\n"
    digest = hashlib.sha256(source.encode()).hexdigest()
    with psycopg.connect(old_url, autocommit=True) as old:
        for name, text, version in (("mine", source, digest), ("twin", source, digest), ("ma-cross", "", "0" * 64)):
            old.execute(
                "INSERT INTO strategies VALUES (%s, %s, 'Mine', %s, '{\"title\": \"Mine\"}', 5)", (name, version, text)
            )
        old.execute("INSERT INTO audit (at, actor, action, subject) VALUES (5, 'asha', 'create_strategy', 'mine')")
        old.execute("INSERT INTO users VALUES ('u1', '[]', 1, 1)")
        old.execute("INSERT INTO accounts VALUES ('acc-1', 'u1', 'paper', '{}', true, 1, 1)")
        old.execute("INSERT INTO feeds VALUES ('crypto', 'x', '{}', '[]', 1, '[]', 1, true, 1)")
        for id, strategy in (("a1", "mine"), ("a2", "ma-cross")):
            old.execute(
                "INSERT INTO algos VALUES (%s, 'u1', 'acc-1', %s, '{}', '[]', 'crypto', '', 'running', 'running', '', "
                "3, 1, 1, 1)",
                (id, strategy),
            )
    assert "0019_strategies" in migrate(old_url)
    db = Database(old_url, name="test")
    await db.open()
    try:
        strategies = Strategies(db)
        (kept,) = await strategies.versions("mine")
        assert (kept.version, kept.kind, kept.entry, kept.submitted_by) == (digest, "file", "Mine", "asha")
        assert await Artefacts(db).get(kept.artefact) == source.encode()
        assert (await strategies.get("mine")).version == digest
        assert (await strategies.get("ma-cross")).builtin
        assert await strategies.versions("ma-cross") == []
        pins = {algo.id: algo.strategy_version for algo in await Desired(db).algos()}
        assert pins == {"a1": digest, "a2": ""}
    finally:
        await db.close()

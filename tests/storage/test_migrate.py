from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.types.json import Jsonb

from storage import migrate as module
from storage.migrate import known_migrations, migrate
from trading.errors import NeedsOperator, NotReady


@pytest.fixture
def empty_url(server_url: str) -> Iterator[str]:
    base = server_url.rpartition("/")[0]
    with psycopg.connect(f"{base}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE empty TEMPLATE template0")
        yield f"{base}/empty"
        connection.execute("DROP DATABASE empty WITH (FORCE)")


def test_a_new_database_gets_every_migration_once(empty_url: str) -> None:
    assert migrate(empty_url) == list(known_migrations())
    assert migrate(empty_url) == []


def test_whose_an_account_was_that_was_deleted_before_that_was_kept_is_in_the_audit(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = [name for name in known_migrations() if name < "0041"]
    with monkeypatch.context() as patch:
        patch.setattr(module, "known_migrations", lambda: {name: known_migrations()[name] for name in until})
        migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        for account, user in (("a-1", "asha"), ("a-1", "ravi"), ("a-2", "asha")):
            connection.execute(
                "INSERT INTO audit (at, actor, action, subject, before) VALUES (7, 'op', 'delete_account', %s, %s)",
                (account, Jsonb({"id": account, "user": user})),
            )
    migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        found = connection.execute('SELECT id, "user", gone_at FROM gone_accounts ORDER BY id').fetchall()
    assert found == [("a-1", "ravi", 7), ("a-2", "asha", 7)]


async def test_racing_migrations_apply_each_once(empty_url: str) -> None:
    done = await asyncio.gather(*(asyncio.to_thread(migrate, empty_url) for _ in range(4)))
    assert sorted(done, key=len) == [[], [], [], list(known_migrations())]


def test_a_database_newer_than_the_code_is_refused(empty_url: str) -> None:
    migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES ('9999-from-the-future', 'x', 0)")
    with pytest.raises(NeedsOperator, match=r"newer than this Quarterdeck.*9999-from-the-future"):
        migrate(empty_url)


def test_an_edited_migration_is_refused(empty_url: str) -> None:
    migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        connection.execute("UPDATE schema_migrations SET sha256 = 'x' WHERE name = '0002-journal'")
    with pytest.raises(NeedsOperator, match="0002-journal"):
        migrate(empty_url)


def test_a_migration_that_fails_leaves_nothing_behind(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {**known_migrations(), "0900-broken": "CREATE TABLE half (n int); SELECT 1 / 0;"}
    monkeypatch.setattr(module, "known_migrations", lambda: broken)
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert tables == []


def test_a_migration_that_never_ends_holds_the_next_one_up_for_a_bounded_time(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOCK_WAIT_S", 1)
    with psycopg.connect(empty_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (module._LOCK,))
        with pytest.raises(NotReady, match="another migration"):
            migrate(empty_url)


def test_an_absent_server_is_not_ready() -> None:
    with pytest.raises(NotReady, match=r"127\.0\.0\.1:1"):
        migrate("postgresql://me:x@127.0.0.1:1/x")

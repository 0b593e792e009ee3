"""Nobody but the database's owner changes what was written, and whoever does is found out."""

from __future__ import annotations

from decimal import Decimal

import psycopg
import pytest

from storage.audit import Verdict, verify
from storage.database import APPLICATION, Database
from storage.desired import Desired
from storage.journal import Journal
from storage.leases import Leases
from tests.storage.samples import event, fill, order
from trading.ids import AccountId
from trading.journal import JournalBatch
from trading.orders import EventKind, apply

CHAINED = ("orders", "order_events", "limits", "audit")
APPEND_ONLY = ("order_events", "fills", "limits", "audit", "audit_chain")


@pytest.fixture
async def written(db: Database, database_url: str) -> str:
    """A journal of two accounts, some limits, and their audit; returns the owner's URL."""
    journal, desired = Journal(db), Desired(db)
    for number, account in enumerate(("a1", "a2")):
        epoch = await Leases(db).take(f"session/{account}", "test", 60)
        for step in range(4):
            placed = order(f"o{step}", account=account)
            batch = JournalBatch(orders=[placed], events=[event(placed, EventKind.PENDING)])
            await journal.append(f"session/{account}", epoch, 2 * step + 1, journal.prepare(batch))
            executed = event(placed, EventKind.FILLED, 2_000, fill=fill(f"x{number}-{step}"), raw='{"a": "\u00e4\\n"}')
            apply(placed, executed)
            batch = JournalBatch(heads=[placed], events=[executed])
            await journal.append(f"session/{account}", epoch, 2 * step + 2, journal.prepare(batch))
    for value in (1, 2, 3):
        await desired.set_limit("cluster", "position", "", Decimal(value), "op")
    return database_url


def tampered(url: str, statement: str) -> None:
    """Done by the owner, guards switched off."""
    with psycopg.connect(url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(statement.encode())


def said(verdict: Verdict) -> str:
    return "; ".join(finding.text for finding in verdict.findings)


async def test_what_was_written_verifies_chain_by_chain(written: str) -> None:
    verdict = verify(written)
    assert verdict.findings == []
    assert {head.chain: (head.number, head.rows) for head in verdict.heads} == {
        "account/a1": (12, 12),
        "account/a2": (12, 12),
        "deck": (6, 6),
    }


@pytest.mark.parametrize(
    ("statement", "chain", "words"),
    [
        ("UPDATE order_events SET reason = 'x' WHERE number = 5", "account/a1", "is not what was written"),
        ("UPDATE order_events SET at = at + 1 WHERE number = 9", "account/a2", "is not what was written"),
        ("UPDATE orders SET side = 'sell' WHERE account = 'a1' AND client_order_id = 'o2'", "account/a1", "orders"),
        ("DELETE FROM order_events WHERE number = 3", "account/a1", "1 rows were written, 0 are there"),
        (
            "INSERT INTO order_events (account, client_order_id, kind, at, actor, reason, cause, raw) "
            "VALUES ('a1', 'o1', 'submitted', 1, 'x', '', '', '')",
            "account/a1",
            "1 rows of order_events that no link covers",
        ),
        ("UPDATE limits SET value = 99 WHERE version = 2", "deck", "limits"),
        ("UPDATE audit SET actor = 'somebody' WHERE number = 2", "deck", "audit"),
        ("DELETE FROM audit WHERE number = 1", "deck", "1 rows were written, 0 are there"),
        ("UPDATE fills SET price = 1 WHERE execution_id = 'x0-1'", "account/a1", "execution x0-1"),
        ("DELETE FROM fills WHERE execution_id = 'x1-1'", "account/a2", "execution x1-1"),
        ("UPDATE audit_chain SET digest = 'x' WHERE chain = 'deck' AND number = 2", "deck", "link 2"),
        ("DELETE FROM audit_chain WHERE chain = 'account/a2' AND number = 4", "account/a2", "link 4 is missing"),
    ],
)
async def test_tampering_is_found(written: str, statement: str, chain: str, words: str) -> None:
    tampered(written, statement)
    verdict = verify(written)
    assert chain in said(verdict)
    assert words in said(verdict)
    untouched = {"account/a1", "account/a2", "deck"} - {chain}
    assert not {finding.chain for finding in verdict.findings} & untouched


async def test_a_tail_cut_off_with_its_links_shows_against_heads_kept_elsewhere(written: str) -> None:
    kept = {head.chain: (head.number, head.digest) for head in verify(written).heads}
    tampered(written, "DELETE FROM order_events WHERE number = 8")
    tampered(written, "DELETE FROM fills WHERE execution_id = 'x0-3'")
    tampered(written, "DELETE FROM audit_chain WHERE chain = 'account/a1' AND number = 12")
    assert verify(written).findings == []
    assert "gone" in said(verify(written, kept))


async def test_a_chain_written_anew_shows_against_heads_kept_elsewhere(written: str) -> None:
    kept = {head.chain: (head.number, head.digest) for head in verify(written).heads}
    tampered(written, "UPDATE audit SET actor = 'x' WHERE number = 3")
    with psycopg.connect(written) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("DELETE FROM audit_chain WHERE chain = 'deck'")
        rows = connection.execute(
            "SELECT source, number, text FROM (SELECT 'limits' AS source, number, changed_at AS at, "
            "audit_text(l) AS text FROM limits l UNION ALL SELECT 'audit', number, at, "
            "audit_text(a) FROM audit a) x ORDER BY at, source DESC"
        ).fetchall()
        for source, number, text in rows:
            connection.execute("SELECT audit_link('deck', %s, %s, %s, 1, %s)", (source, number, number, text))
    assert verify(written).findings == []
    assert "is not the link" in said(verify(written, kept))


async def test_thousands_of_links_are_read_in_pages(written: str, db: Database) -> None:
    async with db.connection() as connection:
        for _ in range(1_100):
            await connection.execute(
                "INSERT INTO audit (at, actor, action, subject, before, after) VALUES (1, 'x', 'y', 'z', null, '1')"
            )
    verdict = verify(written)
    assert verdict.findings == []
    assert next(head.number for head in verdict.heads if head.chain == "deck") == 1_106
    tampered(written, "UPDATE audit SET actor = 'w' WHERE number = 700")
    assert len(verify(written).findings) == 1


@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("verb", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {}"])
async def test_the_application_can_neither_change_nor_delete(written: str, db: Database, table: str, verb: str) -> None:
    column = {"limits": "value", "audit_chain": "rows", "audit": "actor"}.get(table, "account")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with db.connection() as connection:
            await connection.execute(verb.format(table, column, column).encode())


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE audit DISABLE TRIGGER ALL",
        "DROP TRIGGER chained ON order_events",
        "INSERT INTO audit_chain VALUES ('deck', 99, 'audit', 1, 1, 1, 'x')",
        "SELECT audit_link('deck', 'audit', 1, 1, 1, 'x')",
        "SELECT grant_application()",
        "DELETE FROM orders",
        "SET session_replication_role = replica",
        "CREATE TABLE mine (a int)",
    ],
)
async def test_the_application_cannot_get_around_it(written: str, db: Database, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with db.connection() as connection:
            await connection.execute(statement.encode())
    assert verify(written).findings == []


async def test_every_tables_rights_are_as_declared(written: str) -> None:
    with psycopg.connect(written) as connection:
        declared = dict(connection.execute("SELECT name, rights FROM table_rights").fetchall())
        tables = [r[0] for r in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        assert set(declared) <= set(tables)
        for table in tables:
            wanted = {"SELECT", *declared.get(table, "INSERT, UPDATE, DELETE").split(", ")} - {""}
            for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "TRIGGER", "REFERENCES"):
                row = connection.execute(
                    "SELECT has_table_privilege(%s, %s, %s)", (APPLICATION, table, right)
                ).fetchone()
                assert row == (right in wanted,), f"{right} on {table}"


async def test_two_accounts_write_without_waiting_for_each_other(db: Database, written: str) -> None:
    """The link of one account's open transaction does not hold up another's."""
    statement = b"""INSERT INTO order_events (account, client_order_id, kind, at, actor, reason, cause, raw)
        VALUES (%s, 'o1', 'submitted', 1, 'x', '', '', '')"""
    async with db.connection() as one, db.connection() as other, one.transaction():
        await one.execute(statement, (AccountId("a1"),))
        await other.execute("SET statement_timeout = '2s'")
        await other.execute(statement, (AccountId("a2"),))
    assert verify(written).findings == []

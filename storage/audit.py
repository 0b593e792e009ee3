"""Whether the journal is what was written: every link of every chain computed again.

A link covers the rows that one statement added to a table: ``digest = sha256(digest before || rows as text)``, see the
migration 0008_audit.  What was changed, deleted or slipped in breaks a link; what was added without one is not covered.
A tail that was cut off together with its links shows only against heads that were kept elsewhere
(``quarterdeck audit verify --save`` and ``--against``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from storage.database import DATABASE_ERRORS, connect_error

#: The table of a link and what its rows are of.
SOURCES = {"orders": "account", "order_events": "account", "limits": "", "audit": ""}
_LINKS = 500


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a chain: keep it elsewhere, and a chain that ends before it, or otherwise, has been tampered with."""

    chain: str
    number: int
    digest: str
    rows: int


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it was written."""

    chain: str
    #: Of the link; 0: of no link in particular.
    number: int
    what: str

    @property
    def text(self) -> str:
        """In words."""
        return f"{self.chain}, link {self.number}: {self.what}" if self.number else f"{self.chain}: {self.what}"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """All chains, checked as of one instant."""

    heads: list[Head]
    findings: list[Finding]
    rows: int


_Rows = psycopg.Connection[dict[str, Any]]


def verify(database_url: str, known: Mapping[str, tuple[int, str]] | None = None) -> Verdict:
    """Check every chain, in memory that does not grow with the journal.

    ``known``: heads kept elsewhere, chain -> (number, digest).  Raises `NotReady` or `NeedsOperator` for a server that
    cannot be asked.
    """
    findings: list[Finding] = []
    try:
        with psycopg.connect(database_url, connect_timeout=5, row_factory=dict_row) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            chains = connection.execute("SELECT DISTINCT chain FROM audit_chain ORDER BY 1").fetchall()
            heads = [_checked(connection, row["chain"], findings) for row in chains]
            findings += _uncovered(connection)
            findings += _fills(connection)
            for chain, (number, digest) in (known or {}).items():
                findings += _against(connection, chain, number, digest)
    except DATABASE_ERRORS as error:
        raise connect_error(database_url, error) from error
    return Verdict(heads=heads, findings=findings, rows=sum(head.rows for head in heads))


def _checked(connection: _Rows, chain: str, findings: list[Finding]) -> Head:
    """Compute one chain again; appends what is wrong and returns where it ends."""
    digest, rows, expected = b"", 0, 1
    for link in _links(connection, chain):
        number, digest = link["number"], bytes(link["digest"])
        rows += link["rows"]
        if number != expected:
            findings.append(Finding(chain=chain, number=number, what=f"link {expected} is missing before it"))
        expected = number + 1
        of = f"{link['source']} {link['first']} to {link['last']}"
        if link["retired"]:
            continue
        if link["found"] != link["rows"]:
            what = f"{of}: {link['rows']} rows were written, {link['found']} are there"
            findings.append(Finding(chain=chain, number=number, what=what))
        elif bytes(link["again"]) != digest:
            what = f"{of}: a row, or the link before, is not what was written"
            findings.append(Finding(chain=chain, number=number, what=what))
    return Head(chain=chain, number=expected - 1, digest=digest.hex(), rows=rows)


def _links(connection: _Rows, chain: str) -> Iterator[dict[str, Any]]:
    """Links in order, each with how many of its rows are there and the digest that they make now."""
    after = 0
    while True:
        values = {"chain": chain, "account": chain.removeprefix("account/"), "after": after, "links": _LINKS}
        page = connection.execute(_AGAIN, values).fetchall()
        yield from page
        if len(page) < _LINKS:
            return
        after = page[-1]["number"]


def _part(source: str, key: str) -> str:
    mine = f't.{key} COLLATE "C" = %(account)s AND ' if key else ""
    return f"""
        SELECT count(*) AS found, string_agg(audit_text(t), E'\n' ORDER BY t.number) AS text
        FROM {source} t WHERE {mine} l.source = '{source}' AND t.number BETWEEN l.first AND l.last"""


_AGAIN = f"""
WITH links AS (
    SELECT number, source, first, last, rows, digest, retired,
        coalesce(lag(digest) OVER (ORDER BY number),
            (SELECT digest FROM audit_chain b WHERE b.chain = %(chain)s AND b.number = %(after)s), ''::bytea) AS before
    FROM audit_chain WHERE chain = %(chain)s AND number > %(after)s ORDER BY number LIMIT %(links)s
)
SELECT l.*, r.found, sha256(l.before || convert_to(coalesce(r.text, ''), 'UTF8')) AS again
FROM links l CROSS JOIN LATERAL (
    SELECT sum(found)::bigint AS found, max(text) AS text FROM (
        {" UNION ALL ".join(_part(source, key) for source, key in SOURCES.items())}
    ) parts
) r ORDER BY l.number
""".encode()


def _uncovered(connection: _Rows) -> Iterator[Finding]:
    """Rows that no link speaks of."""
    for source, key in SOURCES.items():
        chain = f"'account/' || {key}" if key else "'deck'"
        statement = f"""
            SELECT t.chain, t.rows - coalesce(l.rows, 0) AS more
            FROM (SELECT {chain} AS chain, count(*) AS rows FROM {source} GROUP BY 1) t
            LEFT JOIN (SELECT chain, sum(rows) AS rows FROM audit_chain
                WHERE source = '{source}' AND NOT retired GROUP BY 1) l ON l.chain = t.chain
            WHERE t.rows > coalesce(l.rows, 0)"""
        for row in connection.execute(statement.encode()):
            yield Finding(chain=row["chain"], number=0, what=f"{row['more']} rows of {source} that no link covers")


def _fills(connection: _Rows) -> Iterator[Finding]:
    """Executions are told by events, which are chained: the table must say the same."""
    statement = """
        SELECT coalesce(e.account, f.account) AS account, coalesce(e.fill ->> 'execution_id', f.execution_id) AS id
        FROM (SELECT * FROM order_events WHERE kind = 'filled') e
        FULL JOIN fills f ON f.account = e.account AND f.execution_id = e.fill ->> 'execution_id'
        WHERE f.account IS NULL OR e.account IS NULL OR f.client_order_id <> e.client_order_id
            OR f.quantity <> (e.fill ->> 'quantity')::numeric OR f.price <> (e.fill ->> 'price')::numeric
            OR f.fee <> coalesce((e.fill ->> 'fee')::numeric, 0) OR f.at <> (e.fill ->> 'at')::bigint
        ORDER BY 1, 2 LIMIT 100"""
    for row in connection.execute(statement):
        what = f"execution {row['id']} is not in fills as its event tells it"
        yield Finding(chain=f"account/{row['account']}", number=0, what=what)


def _against(connection: _Rows, chain: str, number: int, digest: str) -> Iterator[Finding]:
    statement = "SELECT number, digest FROM audit_chain WHERE chain = %s AND number = %s"
    row = connection.execute(statement, (chain, number)).fetchone()
    if row is None:
        yield Finding(chain=chain, number=number, what="it was there when its head was kept, and is gone")
    elif bytes(row["digest"]).hex() != digest:
        yield Finding(chain=chain, number=number, what="it is not the link that it was when its head was kept")

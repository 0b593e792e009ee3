"""The paper venue's own book: what a real broker would keep on its side of the wire."""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal

import msgspec
import psycopg
from psycopg.rows import dict_row

from storage.crash_points import CrashPoint, crash_here
from storage.database import Database, fenced_or_broken
from storage.journal import as_json
from trading.broker import BrokerFill, BrokerOrder, BrokerPosition, BrokerReport
from trading.ids import AccountId, Nanos

#: How far back a report goes, in ns.
REPORT_NS = 24 * 3_600 * 1_000_000_000


class PaperLedger:
    """Orders, fills, positions and cash of paper accounts."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def load(self, account: AccountId, since: Nanos | None = None) -> BrokerReport | None:
        """The account as of one instant, or None before its first `save`.

        Open orders of any age, orders and fills since ``since`` (None: of the last 24 hours), all positions
        that are not flat.
        """
        requested_at = time.time_ns()
        values = {"account": account, "since": requested_at - REPORT_NS if since is None else since}
        async with self._db.snapshot() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute("SELECT cash, currency FROM paper_cash WHERE account = %(account)s", values)
            cash = await cursor.fetchone()
            if cash is None:
                return None
            await cursor.execute(
                """
                    SELECT * FROM paper_orders WHERE account = %(account)s AND (at >= %(since)s
                        OR state IN ('pending', 'submitted', 'partially_filled', 'unknown'))
                    ORDER BY at, broker_order_id
                    """,
                values,
            )
            orders = msgspec.convert(await cursor.fetchall(), tuple[BrokerOrder, ...])
            await cursor.execute(
                "SELECT * FROM paper_fills WHERE account = %(account)s AND at >= %(since)s ORDER BY at, execution_id",
                values,
            )
            # Fields of the fill lie flat in the row; `convert` ignores what a struct does not have.
            fills = msgspec.convert([{**row, "fill": row} for row in await cursor.fetchall()], tuple[BrokerFill, ...])
            await cursor.execute(
                "SELECT instrument, quantity, average_price FROM paper_positions "
                "WHERE account = %(account)s AND quantity <> 0 ORDER BY instrument",
                values,
            )
            positions = msgspec.convert(await cursor.fetchall(), tuple[BrokerPosition, ...])
        return BrokerReport(
            account=account,
            requested_at=Nanos(requested_at),
            received_at=Nanos(time.time_ns()),
            orders=orders,
            fills=fills,
            positions=positions,
            cash=cash["cash"],
            currency=cash["currency"],
        )

    async def save(
        self,
        account: AccountId,
        epoch: int,
        orders: Sequence[BrokerOrder],
        fills: Sequence[BrokerFill],
        positions: Sequence[BrokerPosition],
        cash: Decimal,
        currency: str,
    ) -> None:
        """Write what changed, whole or not at all, in one round trip; may be repeated.

        A fill whose execution id is known is ignored.  Raises `Fenced` when another epoch holds the lease
        ``connection/<account>``.
        """
        arguments = (
            account,
            epoch,
            as_json({each.broker_order_id: each for each in orders}.values()),
            as_json(fills),
            as_json({each.instrument: each for each in positions}.values()),
            cash,
            currency,
        )
        crash_here(CrashPoint.LEDGER_BEFORE_SAVE)
        async with self._db.connection() as connection:
            try:
                await connection.execute(
                    "SELECT paper_save(%s, %s, %s::json, %s::json, %s::json, %s, %s)", arguments, prepare=True
                )
            except psycopg.Error as error:
                raise fenced_or_broken(error, f"connection/{account}", epoch) or error from error
        crash_here(CrashPoint.LEDGER_AFTER_SAVE)

"""The order journal: orders, their events, fills, positions and breaks, written before anything is sent.

`Journal.append` is the hot path: one call of one SQL function, hence one round trip and one transaction that
checks the fence, the batch number and the keys.  Decimals travel as exact strings into ``numeric`` columns.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec
import psycopg

from storage.database import Connection, Database, dicts, fenced_or_broken
from storage.paging import decode_cursor, encode_cursor, page_size
from storage.records import OPEN_STATES, BreakFilter, FillRecord, OrderFilter
from trading.closing import KEY_PATTERN
from trading.errors import Conflict, Invariant
from trading.ids import AccountId, AlgoId, ClientOrderId, Nanos
from trading.journal import AccountHistory, Break, CashBook, JournalBatch, rising_of
from trading.orders import Order, OrderEvent, OrderType
from trading.positions import Position

T = TypeVar("T")

_ORDER = (
    "account, client_order_id, instrument, side, type, quantity, limit_price, stop_price, time_in_force, "
    "reduce_only, algo, tag, state, created_at, updated_at, broker_order_id, filled_quantity, average_price, "
    "reason, cancelling, trail_price, trail_percent"
)
_EVENT = (
    "kind, account, client_order_id, at, actor, reason, cause, broker_order_id, fill, quantity, limit_price, "
    "stop_price, raw, trail_price, trail_percent"
)
_FILL = "account, client_order_id, instrument, side, algo, execution_id, quantity, price, at, fee, fee_currency"
_POSITION = "account, instrument, multiplier, quantity, average_cost, realised, fees, traded, updated_at"
_BREAK = (
    "id, account, instrument, kind, ours, theirs, opened_at, resolved_at, resolution, client_order_id, settlement, "
    "resolved_by, tolerated"
)
_APPEND = "SELECT journal_append(%s, %s, %s, %s::json, %s::json, %s::json, %s::json, %s::json)"
_OPEN = f"state IN {OPEN_STATES}"


class PreparedBatch(msgspec.Struct, frozen=True):
    """A batch as it goes over the wire: fixed at one moment, so that sending it again sends the same."""

    #: Keys of the new orders in it.
    new_keys: tuple[tuple[AccountId, ClientOrderId], ...]
    lists: tuple[str | None, ...]
    #: Breaks and cash, which are seldom there.
    settled: tuple[str | None, str | None] = (None, None)


class Journal:
    """Appends to and reads from the journal."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def prepare(self, batch: JournalBatch) -> PreparedBatch:
        """Encode ``batch`` now: orders and positions may change before it is written."""
        return PreparedBatch(
            tuple(order.key for order in batch.orders),
            (
                as_json(batch.orders),
                as_json(_latest((order.key, order) for order in batch.heads)),
                as_json(batch.events),
                as_json(_latest(((p.account, p.algo, p.instrument), p) for p in batch.positions)),
                None,
            ),
            (
                as_json(_latest((each.id, each) for each in batch.breaks)),
                as_json(batch.cash),
            ),
        )

    async def append(self, owner: str, epoch: int, batch_id: int, batch: PreparedBatch) -> None:
        """Write ``batch`` whole or not at all, as the owner of lease ``owner``.

        ``batch_id`` counts up within (owner, epoch); a batch that is already there is not written again, so
        after `NotReady` (outcome unknown) the same batch is sent again.  Raises `Fenced` when another epoch
        holds the lease, `Conflict` when an order or execution is already journaled, `Invariant` when a head
        or fill has no order.
        """
        arguments = (owner, epoch, batch_id, *batch.lists)
        async with self._db.connection() as connection:
            try:
                if batch.settled == (None, None):
                    await connection.execute(_APPEND, arguments, prepare=True)
                else:
                    async with connection.transaction():
                        await connection.execute(_APPEND, arguments, prepare=True)
                        await connection.execute(
                            "SELECT journal_settle(%s, %s, %s::json, %s::json)", (owner, epoch, *batch.settled)
                        )
            except psycopg.Error as error:
                raise _append_error(error, owner, epoch) or error from error

    async def load(self, account: AccountId, since: Nanos) -> AccountHistory:
        """All a new session of ``account`` must know, as of one instant.

        It reaches back to ``since``, or, where orders are open, to the account's last change if that is older.
        """
        async with self._db.snapshot() as connection:
            # What became of open orders since the account's last journaled change is not known, however long ago that
            # was: it is to be asked for, and what the broker shows of that time must be recognised.
            row = await (
                await connection.execute(
                    f"""
                    SELECT max(updated_at) FROM orders WHERE account = %(account)s
                    AND EXISTS (SELECT FROM orders WHERE account = %(account)s AND {_OPEN})
                    """,
                    {"account": account},
                )
            ).fetchone()
            if row is not None and row[0] is not None:
                since = Nanos(min(since, row[0]))
            orders = await _all(
                connection,
                list[Order],
                f"""
                SELECT {_ORDER} FROM orders
                WHERE account = %(account)s AND ({_OPEN} OR updated_at >= %(since)s)
                ORDER BY created_at, number
                """,
                {"account": account, "since": since},
            )
            executions = await connection.execute(
                f"""
                SELECT execution_id FROM fills
                WHERE account = %(account)s AND (at >= %(since)s OR client_order_id IN (
                    SELECT client_order_id FROM orders
                    WHERE account = %(account)s AND ({_OPEN} OR updated_at >= %(since)s)))
                """,
                {"account": account, "since": since},
            )
            execution_ids = {row[0] for row in await executions.fetchall()}
            positions = await _all(
                connection,
                list[Position],
                f"SELECT {_POSITION} FROM positions WHERE account = %s",
                (account,),
            )
            algo_positions = await _all(
                connection,
                list[Position],
                f"SELECT algo, {_POSITION} FROM algo_positions WHERE account = %s",
                (account,),
            )
            breaks = await _all(
                connection,
                list[Break],
                f"SELECT {_BREAK} FROM breaks WHERE account = %s AND resolved_at = 0 ORDER BY opened_at, id",
                (account,),
            )
            tolerated = await _all(
                connection, list[Break], f"SELECT {_BREAK} FROM breaks WHERE account = %s AND tolerated", (account,)
            )
            adjusted = await connection.execute(
                "SELECT DISTINCT client_order_id FROM fills WHERE account = %s AND execution_id LIKE 'adjustment:%%'",
                (account,),
            )
            adjusted_keys = {row[0] for row in await adjusted.fetchall()}
            cash = await cash_book(connection, account)
            changes = await _all(
                connection,
                list[OrderEvent],
                f"""
                SELECT {_EVENT} FROM order_events
                WHERE account = %s AND client_order_id = ANY(%s) AND kind IN ('modify_requested', 'modify_rejected')
                ORDER BY number
                """,
                (account, [order.client_order_id for order in orders if not order.state.is_final]),
            )
        return AccountHistory(
            account=account,
            loaded_at=Nanos(time.time_ns()),
            orders=orders,
            positions=positions,
            algo_positions=algo_positions,
            executions=execution_ids,
            breaks=breaks,
            since=since,
            rising=rising_of(orders, changes),
            tolerated=tolerated,
            cash=cash,
            adjusted=adjusted_keys,
        )

    async def order(self, account: AccountId, client_order_id: ClientOrderId) -> Order | None:
        """One order as it stands, or None."""
        async with self._db.connection() as connection:
            found = await _all(
                connection,
                list[Order],
                f"SELECT {_ORDER} FROM orders WHERE account = %s AND client_order_id = %s",
                (account, client_order_id),
            )
        return found[0] if found else None

    async def events(self, account: AccountId, client_order_id: ClientOrderId) -> list[OrderEvent]:
        """The story of an order, oldest first; [] where there is no such order."""
        async with self._db.connection() as connection:
            return await _all(
                connection,
                list[OrderEvent],
                f"SELECT {_EVENT} FROM order_events WHERE account = %s AND client_order_id = %s ORDER BY number",
                (account, client_order_id),
            )

    async def orders(
        self, filters: OrderFilter, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Order], str | None]:
        """A page of orders, newest first, and the cursor of the next page (None: this was the last).

        Raises `BadInput` for a cursor that is not ours or a limit outside 1 … 1000.
        """
        where, values = _conditions(filters, "created_at", cursor)
        if filters.states is not None:
            where.append("state = ANY(%(states)s)")
            values["states"] = [str(state) for state in filters.states]
        size = page_size(limit)
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                f"SELECT number, {_ORDER} FROM orders WHERE {' AND '.join(where)} "
                f"ORDER BY created_at DESC, number DESC LIMIT {size + 1}",
                values,
            )
        following = encode_cursor(rows[size - 1]["created_at"], rows[size - 1]["number"]) if len(rows) > size else None
        return msgspec.convert(rows[:size], list[Order]), following

    async def algos_with_open_orders(self) -> set[tuple[AccountId, AlgoId]]:
        """Which algos have orders that may still fill and that nobody is taking back yet, by account.

        What closes a position in an algo's name is not one of these (`trading.closing.closes`).
        """
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                f"SELECT DISTINCT account, algo FROM orders WHERE algo IS NOT NULL AND NOT cancelling AND {_OPEN} "
                "AND NOT (reduce_only AND type = %s AND client_order_id ~ %s)",
                (OrderType.MARKET, f"^{KEY_PATTERN}$"),
            )
        return {(AccountId(row["account"]), AlgoId(row["algo"])) for row in rows}

    async def order_counts(self) -> dict[str, int]:
        """How many orders stand in each state.  Reads the whole table: ask seldom."""
        async with self._db.connection() as connection:
            rows = await dicts(connection, "SELECT state, count(*) AS orders FROM orders GROUP BY state", ())
        return {row["state"]: row["orders"] for row in rows}

    async def fills(
        self, filters: OrderFilter, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[FillRecord], str | None]:
        """A page of executions, newest first, as `orders` does it.  ``filters.states`` must be None."""
        where, values = _conditions(filters, "at", cursor)
        size = page_size(limit)
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                f"SELECT number, {_FILL} FROM fills WHERE {' AND '.join(where)} "
                f"ORDER BY at DESC, number DESC LIMIT {size + 1}",
                values,
            )
        following = encode_cursor(rows[size - 1]["at"], rows[size - 1]["number"]) if len(rows) > size else None
        # The fill's own fields lie flat in the row; `convert` ignores what a struct does not have.
        return msgspec.convert([{**row, "fill": row} for row in rows[:size]], list[FillRecord]), following

    async def positions(self, accounts: Sequence[AccountId] | None = None) -> list[Position]:
        """Positions of these accounts, of all where None; flat ones included."""
        async with self._db.connection() as connection:
            return await _all(
                connection,
                list[Position],
                f"SELECT {_POSITION} FROM positions WHERE %(all)s OR account = ANY(%(accounts)s) "
                "ORDER BY account, instrument",
                {"all": accounts is None, "accounts": list(accounts or ())},
            )

    async def totals(self) -> dict[str, int]:
        """How many orders, fills, denied orders and open breaks there are."""
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                """
                SELECT (SELECT count(*) FROM orders) AS orders, (SELECT count(*) FROM fills) AS fills,
                    (SELECT count(*) FROM orders WHERE state = 'denied') AS denied,
                    (SELECT count(*) FROM breaks WHERE resolved_at = 0) AS open_breaks
                """,
                (),
            )
        return {name: int(count) for name, count in rows[0].items()}

    async def find_break(self, id: str) -> Break | None:
        """One break, or None."""
        async with self._db.connection() as connection:
            found = await _all(connection, list[Break], f"SELECT {_BREAK} FROM breaks WHERE id = %s", (id,))
        return found[0] if found else None

    async def break_page(
        self, filters: BreakFilter, cursor: str | None = None, limit: int = 100
    ) -> tuple[list[Break], str | None]:
        """A page of breaks, oldest first, and the cursor of the next page (None: this was the last)."""
        where, values = ["(resolved_at = 0 OR %(resolved)s)"], dict[str, Any](resolved=filters.resolved)
        for column in ("account", "instrument", "kind"):
            if (wanted := getattr(filters, column)) is not None:
                where.append(f"{column} = %({column})s")
                values[column] = str(wanted)
        if filters.accounts is not None:
            where.append("account = ANY(%(accounts)s)")
            values["accounts"] = list(filters.accounts)
        if filters.user is not None:
            where.append('account IN (SELECT id FROM accounts WHERE "user" = %(user)s)')
            values["user"] = filters.user
        if filters.open_after is not None:
            where.append("(resolved_at = 0 OR resolved_at >= %(open_after)s)")
            values["open_after"] = filters.open_after
        if filters.since is not None:
            where.append("opened_at >= %(since)s")
            values["since"] = filters.since
        if filters.until is not None:
            where.append("opened_at < %(until)s")
            values["until"] = filters.until
        if cursor is not None:
            values["cursor_at"], values["cursor_number"] = decode_cursor(cursor)
            where.append("(opened_at, number) > (%(cursor_at)s, %(cursor_number)s)")
        size = page_size(limit)
        async with self._db.connection() as connection:
            rows = await dicts(
                connection,
                f"SELECT number, {_BREAK} FROM breaks WHERE {' AND '.join(where)} "
                f"ORDER BY opened_at, number LIMIT {size + 1}",
                values,
            )
        following = encode_cursor(rows[size - 1]["opened_at"], rows[size - 1]["number"]) if len(rows) > size else None
        return msgspec.convert(rows[:size], list[Break]), following

    async def breaks(self, open_only: bool = True) -> list[Break]:
        """Reconciliation breaks, oldest first."""
        async with self._db.connection() as connection:
            return await _all(
                connection,
                list[Break],
                f"SELECT {_BREAK} FROM breaks WHERE resolved_at = 0 OR NOT %s ORDER BY opened_at, id",
                (open_only,),
            )


async def cash_book(connection: Connection, account: AccountId) -> CashBook | None:
    """Cash of ``account`` with every journaled execution; None before the broker's figure was first taken."""
    rows = await dicts(
        connection,
        """
        SELECT b.account, b.currency, b.based_at,
            b.amount + coalesce(sum(
                (CASE f.side WHEN 'sell' THEN 1 ELSE -1 END) * f.quantity * f.price * coalesce(p.multiplier, 1) - f.fee
            ), 0) AS amount,
            CASE
                WHEN b."off" <> '' THEN b."off"
                WHEN max(i.currency) FILTER (WHERE i.currency <> b.currency) IS NOT NULL THEN
                    'executions are paid in ' || max(i.currency) FILTER (WHERE i.currency <> b.currency)
                    || ', the account is kept in ' || b.currency
                WHEN max(f.fee_currency) FILTER (WHERE f.fee <> 0 AND f.fee_currency NOT IN ('', b.currency))
                    IS NOT NULL THEN
                    'fees are paid in '
                    || max(f.fee_currency) FILTER (WHERE f.fee <> 0 AND f.fee_currency NOT IN ('', b.currency))
                    || ', the account is kept in ' || b.currency
                ELSE ''
            END AS "off"
        FROM cash_books b
        LEFT JOIN fills f ON f.account = b.account AND f.number > b.fills_before
        LEFT JOIN positions p ON p.account = f.account AND p.instrument = f.instrument
        LEFT JOIN instruments i ON i.id = f.instrument
        WHERE b.account = %s
        GROUP BY b.account, b.currency, b.based_at, b.amount, b."off"
        """,
        (account,),
    )
    return msgspec.convert(rows[0], CashBook) if rows else None


def as_json(things: Iterable[msgspec.Struct]) -> str | None:
    """JSON of a list for the SQL functions, None where it is empty.

    PostgreSQL's text cannot hold NUL, which a broker's raw message may: it becomes U+FFFD.
    """
    listed = list(things)
    if not listed:
        return None
    raw = msgspec.json.encode(listed)
    if b"\\u0000" in raw:
        raw = msgspec.json.encode(_without_nul(msgspec.json.decode(raw)))
    return raw.decode()


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_nul(each) for key, each in value.items()}
    return value


def _latest(pairs: Iterable[tuple[Hashable, T]]) -> list[T]:
    """One of each key, the last: SQL refuses to change a row twice in one statement."""
    return list(dict(pairs).values())


def _append_error(error: psycopg.Error, owner: str, epoch: int) -> Exception | None:
    if isinstance(error, psycopg.errors.UniqueViolation):
        table = error.diag.table_name
        code = {"orders": "order_exists", "fills": "fill_exists"}.get(table or "", "exists")
        return Conflict(code, f"already journaled in {table}: {error.diag.message_detail}")
    if isinstance(error, psycopg.errors.NotNullViolation) and error.diag.table_name == "fills":
        return Invariant(f"{owner}: a fill of an order that was never journaled: {error.diag.message_detail}")
    return fenced_or_broken(error, owner, epoch)


def _conditions(filters: OrderFilter, time: str, cursor: str | None) -> tuple[list[str], dict[str, Any]]:
    where, values = ["true"], dict[str, Any]()
    if filters.account is not None:
        # As the indexes orders_of_account and fills_of_account have it; the migration says why.
        where.append('account COLLATE "C" = %(account)s')
        values["account"] = filters.account
    for column in ("instrument", "algo"):
        wanted = getattr(filters, column)
        if wanted is not None:
            where.append(f"{column} = %({column})s")
            values[column] = wanted
    if filters.accounts is not None:
        where.append("account = ANY(%(accounts)s)")
        values["accounts"] = list(filters.accounts)
    if filters.user is not None:
        where.append('account IN (SELECT id FROM accounts WHERE "user" = %(user)s)')
        values["user"] = filters.user
    if filters.since is not None:
        where.append(f"{time} >= %(since)s")
        values["since"] = filters.since
    if filters.until is not None:
        where.append(f"{time} < %(until)s")
        values["until"] = filters.until
    if cursor is not None:
        values["cursor_at"], values["cursor_number"] = decode_cursor(cursor)
        where.append(f"({time}, number) < (%(cursor_at)s, %(cursor_number)s)")
    return where, values


async def _all(connection: Connection, kind: type[list[T]], statement: str, values: Any) -> list[T]:
    return msgspec.convert(await dicts(connection, statement, values), kind)

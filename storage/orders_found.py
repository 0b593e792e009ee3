"""Orders by their keys, for whoever looks for one."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from storage.database import Database, dicts
from storage.records import OPEN_STATES
from trading.ids import AccountId, ClientOrderId, InstrumentId
from trading.orders import OrderState, Side


class OrderFound(msgspec.Struct, frozen=True, kw_only=True):
    """An order that bears a name that was looked for."""

    account: AccountId
    client_order_id: ClientOrderId
    instrument: InstrumentId
    side: Side
    state: OrderState


async def orders_named(db: Database, text: str, accounts: Sequence[AccountId], limit: int) -> list[OrderFound]:
    """Orders of these accounts whose key is ``text``, and open ones whose key has it somewhere, in any case.

    All orders ever placed are looked through by their whole key only: that reads the primary key and nothing else.
    """
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    async with db.connection() as connection:
        rows = await dicts(
            connection,
            f"""
            SELECT account, client_order_id, instrument, side, state FROM (
                (SELECT * FROM orders WHERE account = ANY(%(accounts)s) AND client_order_id = %(text)s LIMIT %(limit)s)
                UNION
                (SELECT * FROM orders WHERE state IN {OPEN_STATES} AND account = ANY(%(accounts)s)
                    AND client_order_id ILIKE %(like)s ORDER BY account, created_at DESC, number DESC LIMIT %(limit)s)
            ) found ORDER BY created_at DESC, number DESC LIMIT %(limit)s
            """,
            {"accounts": list(accounts), "text": text, "like": f"%{escaped}%", "limit": limit},
        )
    return msgspec.convert(rows, list[OrderFound])

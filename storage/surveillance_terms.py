"""What was set of surveillance's terms, for the deck and for accounts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from storage.database import Connection, Database, dicts
from storage.resource import change, write_audit
from trading.errors import BadInput, Conflict, UnknownThing
from trading.ids import AccountId, Nanos
from trading.surveillance_terms import settled


class SetTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What is set for an account, or for the deck (``account`` None)."""

    account: AccountId | None
    terms: dict[str, Any]
    changed_at: Nanos = Nanos(0)
    changed_by: str = ""


class SurveillanceTerms:
    """The table of them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def all(self) -> dict[AccountId | None, SetTerms]:
        """What is set, by account; None is the deck."""
        async with self._db.connection() as connection:
            return await _all(connection)

    async def put(
        self, account: AccountId | None, terms: Mapping[str, Any], by: str, seen: Mapping[str, Any] | None = None
    ) -> None:
        """Set what is set for an account, or for the deck (None), anew; {} takes back what was.

        Raises `UnknownThing` for the account, `BadInput` naming the field, also where the deck's do not go with what an
        account has set, and `Conflict` ``terms_moved`` where something else than ``seen`` is set by now (None: whatever
        is).
        """
        async with change(self._db) as connection:
            if account and not await dicts(connection, "SELECT id FROM accounts WHERE id = %s FOR SHARE", (account,)):
                raise UnknownThing("account", account)
            found = await _all(connection)
            before = found.pop(account).terms if account in found else {}
            if seen is not None and dict(seen) != before:
                raise Conflict("terms_moved", f"the terms of {account or 'the deck'} have changed since: look again")
            if account is not None:
                settled(found[None].terms if None in found else {}, terms)
            else:
                settled(terms)
                for other in found.values():
                    try:
                        settled(terms, other.terms)
                    except BadInput as error:
                        raise BadInput(error.field, f"{error.detail} (with what is set of {other.account})") from error
            if terms:
                await connection.execute(
                    "INSERT INTO surveillance_terms (account, terms, changed_at, changed_by) VALUES (%s, %s, %s, %s) "
                    "ON CONFLICT (account) DO UPDATE SET terms = excluded.terms, changed_at = excluded.changed_at, "
                    "changed_by = excluded.changed_by",
                    (account, Jsonb(dict(terms)), time.time_ns(), by),
                )
            else:
                await connection.execute(
                    "DELETE FROM surveillance_terms WHERE account IS NOT DISTINCT FROM %s::text", (account,)
                )
            await write_audit(connection, by, "set_surveillance_terms", account or "deck", before, dict(terms))


async def _all(connection: Connection) -> dict[AccountId | None, SetTerms]:
    rows = await dicts(connection, "SELECT * FROM surveillance_terms", ())
    return {each.account: each for each in msgspec.convert(rows, list[SetTerms])}

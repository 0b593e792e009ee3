"""The first start on an empty database: an administrator and a key, told once."""

from __future__ import annotations

import time

from storage.api_keys import ApiKeys
from storage.database import Database
from storage.desired import Desired
from storage.records import UserRecord
from trading.ids import Nanos, UserId

ADMIN = UserId("admin")
ROLES = ("operator", "quant", "trader", "viewer")


async def first_run(database_url: str) -> str | None:
    """Make the administrator and a key unless any key exists; returns the key, which is stored hashed only."""
    db = Database(database_url, size=1, name="first run")
    await db.open()
    try:
        keys = ApiKeys(db)
        if await keys.count():
            return None
        desired = Desired(db)
        if not any(user.id == ADMIN for user in await desired.users()):
            await desired.create_user(
                UserRecord(id=ADMIN, roles=ROLES, created_at=Nanos(time.time_ns())), by="first run"
            )
        _, key = await keys.create(ADMIN, ROLES, "made at the first start", None)
        return key
    finally:
        await db.close()

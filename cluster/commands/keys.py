"""``keys``: API keys made on the deck's own machine, by whoever may read its data directory."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import typer
from rich.text import Text

from cluster.commands.deck import DataDir, settings_for
from cluster.commands.output import out, told
from cluster.deck import running_deck
from storage.api_keys import ApiKeys
from storage.database import Database
from storage.desired import Desired
from storage.first_run import ADMIN
from trading.errors import NeedsOperator
from trading.ids import Nanos, UserId

keys = typer.Typer(help="API keys, made on the deck's own machine.", no_args_is_help=True)


@keys.callback()
def _keys() -> None:
    """API keys, made on the deck's own machine."""


@keys.command("new")
def new_key(
    user: Annotated[str, typer.Option(help="Whose.")] = ADMIN,
    label: Annotated[str, typer.Option(help="What it is for.")] = "made on the deck's machine",
    days: Annotated[int, typer.Option(help="How long it is good.", min=1, max=366)] = 90,
    data_dir: DataDir = None,
) -> None:
    """Make a key with all roles of its user; the way back when the first one is lost."""
    with told():
        home = settings_for(data_dir).home
        found = running_deck(home)
        if found is None:
            raise NeedsOperator(f"no deck is running on {home}", "start it with `quarterdeck up`")
        key = asyncio.run(_make(found.database_url, UserId(user), label, days))
        out.print("The key (shown this once, kept only as a hash):")
        out.print(Text(key, style="bold"))


async def _make(database_url: str, user: UserId, label: str, days: int) -> str:
    database = Database(database_url, size=1, name="keys")
    await database.open()
    try:
        record = await Desired(database).user(user)
        expires = Nanos(time.time_ns() + days * 86_400_000_000_000)
        return (await ApiKeys(database).create(user, record.roles, label, expires, by="command line"))[1]
    finally:
        await database.close()

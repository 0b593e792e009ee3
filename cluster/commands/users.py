"""``user``: the way back in, on the deck's own machine, for whoever may read its data directory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from rich.text import Text

from cluster.commands.deck import DataDir, settings_for
from cluster.commands.output import out, told
from cluster.deck import running_deck
from storage.database import Database
from storage.desired import Desired
from storage.login_attempts import LoginAttempts
from storage.passwords import Passwords, Reset, make_one_time_password
from trading.errors import NeedsOperator
from trading.ids import UserId

T = TypeVar("T")

user = typer.Typer(help="Users' ways in, on the deck's own machine.", no_args_is_help=True)
BY = "command line"

Id = Annotated[str, typer.Argument(help="The user.", show_default=False)]


@user.command("password")
def set_password(
    id: Id,
    reset: Annotated[
        bool, typer.Option("--reset", help="Take the second factor away too, which is then enrolled anew.")
    ] = False,
    keep_keys: Annotated[
        bool, typer.Option("--keep-keys", help="With --reset: leave the user's API keys; else they are revoked.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Make a one-time password, to be changed at the next sign-in; ends the user's sessions."""

    async def make(database: Database) -> Reset | str:
        who = (await Desired(database).user(UserId(id))).id
        passwords = Passwords(database)
        if reset:
            return await passwords.reset(who, BY, revoke_keys=not keep_keys)
        password = make_one_time_password()
        await passwords.set(who, password, BY, one_time=True)
        await LoginAttempts(database).unlock(who, BY)
        return password

    if keep_keys and not reset:
        raise typer.BadParameter("only --reset touches API keys", param_hint="--keep-keys")
    with told():
        made = _on_the_deck(data_dir, make)
        if isinstance(made, Reset):
            out.print(f"API keys: {made.keys_revoked} revoked, {made.keys_left} still good.")
        password = made.password if isinstance(made, Reset) else made
        out.print("One-time password (shown this once, kept only as a hash; good for 7 days):")
        out.print(Text(password, style="bold"))


@user.command("unlock")
def unlock(id: Id, data_dir: DataDir = None) -> None:
    """End a lock-out that too many failed attempts led to."""

    async def end(database: Database) -> None:
        await LoginAttempts(database).unlock((await Desired(database).user(UserId(id))).id, BY)

    with told():
        _on_the_deck(data_dir, end)
        out.print(Text(f"{id} may try again."))


@user.command("code")
def show_code(id: Id, data_dir: DataDir = None) -> None:
    """Print the present code of one of the demo's users, in place of their phone; no others are kept."""
    # Only then: the demo brings a good deal along.
    from cluster.demo_logins import code_of

    with told():
        typer.echo(code_of(id, None if data_dir is None else settings_for(data_dir).home))


def _on_the_deck(data_dir: DataDir, act: Callable[[Database], Awaitable[T]]) -> T:
    home = settings_for(data_dir).home
    found = running_deck(home)
    if found is None:
        raise NeedsOperator(f"no deck is running on {home}", "start it with `quarterdeck up`")

    async def run() -> T:
        database = Database(found.database_url, size=1, name="users")
        await database.open()
        try:
            return await act(database)
        finally:
            await database.close()

    return asyncio.run(run())

"""Logins of the demo: people of every role, with passwords and second factors that are made for this run.

The secrets of their second factors are in a file of mode 0600 in the demo's own directory, so that ``quarterdeck user
code`` can stand in for their phones.  No other deck has such a file.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import msgspec
import pyotp

from storage.database import Database
from storage.passwords import Passwords, make_one_time_password
from storage.second_factors import SecondFactors, address_of, code_now
from storage.secrets import Secrets, load_key
from trading.errors import NeedsOperator, UnknownThing
from trading.ids import UserId

PREFIX = "quarterdeck-demo-"
_FILE = "logins.json"


class DemoLogin(msgspec.Struct, frozen=True, kw_only=True):
    """How one of the demo's people signs in."""

    user: str
    roles: str
    password: str
    secret: str

    @property
    def code(self) -> str:
        """The code of this moment."""
        return code_now(self.secret)

    @property
    def address(self) -> str:
        """What an authenticator app takes."""
        return address_of(self.secret, self.user)


async def give_logins(database_url: str, home: Path, people: dict[str, str]) -> list[DemoLogin]:
    """Passwords and second factors for existing users, ``people``: user -> roles in words.  Done again, new ones."""
    logins = [
        DemoLogin(user=user, roles=roles, password=make_one_time_password(), secret=pyotp.random_base32())
        for user, roles in people.items()
    ]
    database = Database(database_url, size=2, name="demo logins")
    await database.open()
    try:
        passwords, factors, store = Passwords(database), SecondFactors(database), Secrets(database, load_key(home))
        for login in logins:
            await passwords.set(UserId(login.user), login.password, "demo", one_time=False)
            await factors.put(store, UserId(login.user), login.secret)
    finally:
        await database.close()
    path = home / _FILE
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(logins))
    return logins


def code_of(user: str, home: Path | None = None) -> str:
    """The present code of one of the demo's people; of the newest demo where no directory is named.

    Raises `NeedsOperator` where there is no demo, `UnknownThing` for somebody who is not of it.
    """
    homes = [home] if home is not None else list(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))
    files = [path for each in homes if (path := each / _FILE).is_file() and path.stat().st_uid == os.geteuid()]
    newest = max(files, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise NeedsOperator(
            "there is no demo here: codes of real users are on their phones",
            "start one with `make run`; for a user who lost the phone: `quarterdeck user password <id> --reset`",
        )
    logins = {login.user: login for login in msgspec.json.decode(newest.read_bytes(), type=list[DemoLogin])}
    if user not in logins:
        raise UnknownThing("user", user, f"the demo's people are {', '.join(logins)}")
    return logins[user].code

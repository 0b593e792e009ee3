"""A deck that Ray's cluster launcher (`ray up`) starts on its head machine, and the token of the other machines.

The token is kept in a file that the launcher's monitor hands to each machine that it starts.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from cluster import children
from cluster.membership import LOOK_EVERY_S
from storage.database import Database
from storage.join_tokens import JoinTokens
from trading.errors import NeedsOperator, Refused
from trading.ids import NodeName, UserId

#: Until it is revoked, in effect: machines may be added or replaced at any time.
VALID_S: Final = 10 * 365 * 86_400
BY: Final = UserId("deck")
_ASKED: Final = re.compile(r"^\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),.*received SIGTERM", re.M)


class Launched(msgspec.Struct, frozen=True):
    """What the launcher's start command gives a deck."""

    #: The launcher's configuration, as it put it on this machine: Ray's monitor starts and keeps the others by it.
    autoscaling_config: Path | None = None
    #: Where to write the token with which those others join.
    pool_token: Path | None = None

    def prepare(self, database_url: str) -> None:
        """Before Ray starts, whose monitor hands the token to the others.  Raises `NeedsOperator`."""
        config = self.autoscaling_config
        if config is not None and not config.exists():
            raise NeedsOperator(f"there is no {config}", "let `ray up` start this machine, or leave the option out")
        if self.pool_token is not None:
            write_pool_token(database_url, self.pool_token)

    def ray_options(self) -> list[str]:
        """Options of ``ray start``."""
        return [] if self.autoscaling_config is None else [f"--autoscaling-config={self.autoscaling_config}"]

    def command_options(self) -> list[str]:
        """Options of ``quarterdeck up``."""
        given = {"--autoscaling-config": self.autoscaling_config, "--pool-token": self.pool_token}
        return [f"{option}={path}" for option, path in given.items() if path is not None]

    def dismiss(self, database_url: str) -> None:
        """Let the machines that the launcher started leave; returns when they have heard of it."""
        if self.pool_token is not None and revoke_pool_token(database_url, self.pool_token):
            time.sleep(LOOK_EVERY_S + 3.0)


def ray_was_stopped(head: int, since: float, ray_dir: Path) -> bool:
    """Whether somebody ran `ray stop` here, as `ray down` does on the head, since that process was started.

    How the head's process ends, if it does, depends on how well its parts took the signal, so it does not say it.
    Ray's node does, in its log: it was asked to end, and nothing of ours asks it while the head is to run.
    """
    if "gcs_server" in children.names(head):
        return False
    try:
        log = (ray_dir / "session_latest" / "logs" / "raylet.out").read_text(errors="replace")
    except FileNotFoundError:
        return False
    # In the time of the machine, to the millisecond.  A head that comes back may go on with the same file.
    asked = _ASKED.findall(log)
    return bool(asked) and datetime.strptime(asked[-1], "%Y-%m-%d %H:%M:%S").timestamp() >= int(since)


def write_pool_token(database_url: str, path: Path) -> None:
    """Make sure that ``path`` holds a good token, readable by its owner only.

    One that was put there before is taken, unless it was revoked.  Raises `NeedsOperator` where it cannot be written,
    `BadInput` where what is there is no token.
    """
    found = _read(path)
    text = asyncio.run(_good_or_new(database_url, found))
    if text == found:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text + "\n")
    except OSError as error:
        raise NeedsOperator(
            f"{path} cannot be written ({error.strerror})", "choose another with --pool-token"
        ) from error


def revoke_pool_token(database_url: str, path: Path) -> bool:
    """Make the token of ``path`` of no use and remove it: the machines that joined with it leave within seconds.

    False where there was no good one.
    """
    revoked = asyncio.run(_revoke(database_url, _read(path)))
    path.unlink(missing_ok=True)
    return revoked


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise NeedsOperator(f"{path} cannot be read ({error.strerror})", "choose another with --pool-token") from error


async def _good_or_new(database_url: str, text: str) -> str:
    async with _tokens(database_url) as tokens:
        if text:
            try:
                await tokens.find(text)
                return text
            except Refused as error:
                if error.code == "join_token_revoked":
                    text = ""
        _, text = await tokens.create(NodeName(""), {}, False, VALID_S, by=BY, pool=True, text=text)
    return text


async def _revoke(database_url: str, text: str) -> bool:
    async with _tokens(database_url) as tokens:
        try:
            token = await tokens.find(text)
        except Refused:
            return False
        await tokens.revoke(token.id, by=BY)
    return True


@asynccontextmanager
async def _tokens(database_url: str) -> AsyncIterator[JoinTokens]:
    database = Database(database_url, size=1, name="pool token")
    await database.open()
    try:
        yield JoinTokens(database)
    finally:
        await database.close()

"""Ray on a machine that has joined: started, watched, started again, until the machine is removed."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit

import msgspec

from cluster import tls
from cluster.children import Child
from cluster.joining import Given, Head, HeadFacts, keep, own_address
from cluster.raylet import ray_start
from cluster.settings import DeckSettings, environment
from trading.errors import NeedsOperator, Refused, Unreachable

LOOK_EVERY_S: Final = 5.0
#: A run that was killed is forgotten by the head after so long; the next one waits for that.
FORGOTTEN_S: Final = 20.0
#: What the head says to a machine that is not part of the cluster any more.
REMOVED: Final = frozenset({"node_removed", "join_token_revoked", "join_token_unknown"})


def only_one(home: Path) -> IO[str]:
    """A lock on the data directory, held until it is closed.  Raises `NeedsOperator` where another process has it."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (home / "node.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise NeedsOperator(f"a node runs already on {home}", "end it first") from None
    return lock


def runs(home: Path) -> bool:
    """Whether a process of this data directory keeps this machine in its cluster now."""
    try:
        only_one(home).close()
    except NeedsOperator:
        return True
    return False


class Membership:
    """Ray on a machine that has joined: started, watched, ended.  `watch` it every second or so."""

    def __init__(self, home: Path, given: Given, node_ip: str = "") -> None:
        self.given = given
        self._home = home
        self._node_ip = node_ip
        self._head = Head(given.api_url, given.token)
        #: This run of this machine: two of one name would both be given the work that is meant for one.
        self.run = secrets.token_hex(8)
        self._child = self._ray(given)
        self._looked_at = 0.0
        self._again_at = 0.0
        self._delay = 1.0
        self._elsewhere = False
        #: What the head said last.
        self._now: HeadFacts | None = None

    def _ray(self, given: Given) -> Child:
        deck = DeckSettings(
            data_dir=self._home,
            cluster=given.cluster,
            DATABASE_URL=given.database_url,
            REDIS_URL=given.redis_url,
            ray_address=given.ray_address,
            node=given.node,
            tls=bool(given.tls_cert),
            tls_cert=given.own_tls_cert,
            tls_key=given.own_tls_key,
        )
        deck.egress_urls = deck.egress_urls or given.egress_urls
        if deck.tls_files is not None:
            tls.check(deck.tls_files)
        address = self._node_ip or given.node_ip or own_address(self._head.host, self._head.port)
        command = [*ray_start(given.node), f"--address={given.ray_address}", f"--node-ip-address={address}"]
        return Child(f"node {given.node}", command, environment(deck), self._home / "logs" / "node.log")

    def start(self) -> None:
        """Start Ray.

        Raises `Refused` where the machine was removed, `NeedsOperator` where another one runs under its name.
        """
        deadline = time.monotonic() + FORGOTTEN_S
        while trouble := self._look():
            if time.monotonic() > deadline:
                raise NeedsOperator(trouble, "end it there, or let this machine leave and join under a name of its own")
            time.sleep(1.0)
        self._child.start()

    def _look(self) -> str:
        """Ask the head about this machine; "", or in words that it runs elsewhere.  `Refused`: it was removed."""
        self._looked_at = time.monotonic()
        try:
            self._now = self._head.look(self.run)
        except Unreachable:
            # A head that is away is no reason to leave, nor not to begin: Ray waits for it.
            return ""
        except Refused as error:
            if error.code in REMOVED:
                raise
            return error.detail
        return ""

    def watch(self) -> str:
        """Start again what has ended; says what was done, "" where nothing was.

        Raises `Refused` once the machine was removed from the cluster.
        """
        if time.monotonic() - self._looked_at > LOOK_EVERY_S:
            trouble = self._look()
            # Said, and no more: what runs here may trade.  The Supervisor gives no algos to a name that is there twice.
            was, self._elsewhere = self._elsewhere, bool(trouble)
            if trouble and not was:
                return trouble
            if self._now is not None and (given := moved(self.given, self._now)) != self.given:
                self._follow(given)
                return f"the head has moved to {given.ray_address}"
        if self._child.alive():
            return ""
        now = time.monotonic()
        if now < self._again_at:
            return ""
        self._again_at = now + self._delay
        self._delay = min(self._delay * 2, 30.0)
        self._child.stop()
        self._child.start()
        return "Ray had ended and was started again"

    def _follow(self, given: Given) -> None:
        """Begin anew at a head that has another address: nothing of the old one's Ray is left there."""
        keep(self._home, given)
        self.given = given
        self._child.stop()
        self._child = self._ray(given)
        self._child.start()

    def stop(self) -> None:
        """End Ray on this machine."""
        self._child.stop()
        with contextlib.suppress(Unreachable, Refused):
            self._head.look(self.run, leaves=True)
        self._head.close()


def unit_of(command: Sequence[str], home: Path, user: str) -> str:
    """A systemd unit that runs ``command`` (`man 5 systemd.service`)."""
    words = " ".join(f'"{word}"' if " " in word else word for word in command)
    return f"""[Unit]
Description=Quarterdeck node ({home})
After=network-online.target time-sync.target
Wants=network-online.target

[Service]
User={user}
ExecStart={words}
Restart=always
RestartSec=5
KillMode=mixed
TimeoutStopSec=30
LimitNOFILE=65535

[Install]
WantedBy=multi-user.target
"""


def run(membership: Membership, stopped: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Keep the machine in the cluster until ``stopped`` or removed (`Refused`)."""
    membership.start()
    try:
        while not stopped():
            time.sleep(1.0)
            if done := membership.watch():
                say(done)
    finally:
        membership.stop()


def command_line(home: Path) -> list[str]:
    """The command that runs a machine that has joined."""
    return [sys.executable, "-m", "cluster", "join", "--data-dir", str(home)]


def moved(given: Given, facts: HeadFacts) -> Given:
    """What a machine was given, with the addresses that the head has now."""
    now = {each.what: f"{each.host}:{each.port}" for each in facts.addresses}
    return msgspec.structs.replace(
        given,
        ray_address=now["Ray's head"],
        database_url=_at(given.database_url, now["PostgreSQL"]),
        redis_url=_at(given.redis_url, now["Redis"]),
    )


def _at(url: str, address: str) -> str:
    parts = urlsplit(url)
    login, at, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login}{at}{address}").geturl()

"""A machine that has joined: Ray there is started, watched and ended, until the machine is removed."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from cluster.children import Child
from cluster.joining import LOOK_EVERY_S, Given, Head, HeadFacts, keep
from cluster.raylet import ray_start
from cluster.settings import DeckSettings, environment
from trading.errors import Unreachable


class Membership:
    """Ray on a machine that has joined: started, watched, ended.  `watch` it every second or so."""

    def __init__(self, home: Path, given: Given) -> None:
        self.given = given
        self._home = home
        self._child = self._ray(given)
        self._head = Head(given.api_url, given.token)
        self._looked_at = 0.0
        self._again_at = 0.0
        self._delay = 1.0

    def _ray(self, given: Given) -> Child:
        deck = DeckSettings(
            data_dir=self._home,
            cluster=given.cluster,
            DATABASE_URL=given.database_url,
            REDIS_URL=given.redis_url,
            ray_address=given.ray_address,
            node=given.node,
        )
        command = [*ray_start(given.node), f"--address={given.ray_address}", f"--node-ip-address={given.node_ip}"]
        return Child(f"node {given.node}", command, environment(deck), self._home / "logs" / "node.log")

    def start(self) -> None:
        """Start Ray."""
        self._child.start()

    def watch(self) -> str:
        """Start again what has ended; says what was done, "" where nothing was.

        Raises `Refused` once the machine was removed from the cluster.
        """
        now = time.monotonic()
        if now - self._looked_at > LOOK_EVERY_S:
            self._looked_at = now
            # A head that is away is no reason to leave.
            with contextlib.suppress(Unreachable):
                given = moved(self.given, self._head.look())
                if given != self.given:
                    self._follow(given)
                    return f"the head has moved to {given.ray_address}"
        if self._child.alive():
            return ""
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

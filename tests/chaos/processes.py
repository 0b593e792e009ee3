"""The deck's processes, to be killed and paused: found without asking the API, which may be dead itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import msgspec
import psutil
import redis

from storage.hot import PREFIX
from tests.support.deck import SECOND_NODE, DeckUnderTest


class _Actor(msgspec.Struct):
    name: str
    pid: int
    state: str
    reason: str = ""


class _View(msgspec.Struct):
    actors: list[_Actor]
    missing: list[str]


class Processes:
    """By what they are."""

    def __init__(self, deck: DeckUnderTest) -> None:
        self._deck = deck
        self._redis = redis.Redis.from_url(deck.deck.settings.redis_url, socket_timeout=2, socket_connect_timeout=2)
        self._known: dict[str, int] = {}
        self._paused: set[int] = set()

    def actors(self) -> dict[str, int]:
        """Actors as the Supervisor last saw them -> process id; the last known where that cannot be read now."""
        try:
            raw = self._redis.get(PREFIX + "cluster")
        except (redis.RedisError, OSError):
            raw = None
        if isinstance(raw, bytes):
            self._known = {a.name: a.pid for a in msgspec.json.decode(raw, type=_View).actors if a.pid}
        return {name: pid for name, pid in self._known.items() if _is_ray_worker(pid)}

    def trouble(self) -> str:
        """What the Supervisor finds missing or not ready; "" when all is well.  A Redis that is away is trouble."""
        try:
            raw = self._redis.get(PREFIX + "cluster")
        except (redis.RedisError, OSError) as error:
            return f"Redis is away: {type(error).__name__}"
        if not isinstance(raw, bytes):
            return "the Supervisor has shown nothing for half a minute"
        view = msgspec.json.decode(raw, type=_View)
        waiting = [f"{a.name} is {a.state} {a.reason}" for a in view.actors if a.state not in ("ready", "failed")]
        return "; ".join([*(f"{name} is missing" for name in view.missing), *waiting])

    # The deck's own

    def servers(self) -> dict[str, int]:
        """PostgreSQL, Redis, the API, raylets and the control store -> process id."""
        deck = self._deck.deck
        found: dict[str, int | None] = {
            "postgres": deck._postgres.pid if deck._postgres is not None else None,
            "redis": deck._redis.pid if deck._redis is not None else None,
            "api": deck._api.pid if deck._api is not None else None,
        }
        if deck._ray is not None:
            found |= {f"head {p.name()}": p.pid for p in _below(deck._ray.pid, "raylet", "gcs_server")}
        node = deck._nodes.get(SECOND_NODE)
        if node is not None:
            found |= {f"node {p.name()}": p.pid for p in _below(node.pid, "raylet")}
        return {name: pid for name, pid in found.items() if pid}

    # Doing

    def kill(self, pid: int) -> bool:
        """SIGKILL; False where it is gone already."""
        return _signal(pid, signal.SIGKILL)

    def pause(self, pid: int) -> bool:
        """SIGSTOP until `go_on`."""
        self.paused(pid)
        return _signal(pid, signal.SIGSTOP)

    def paused(self, pid: int) -> None:
        """It has stopped by itself: `go_on` continues it."""
        self._paused.add(pid)

    def go_on(self, pid: int | None = None) -> None:
        """SIGCONT for one, or for all that are paused."""
        for each in [pid] if pid is not None else list(self._paused):
            self._paused.discard(each)
            _signal(each, signal.SIGCONT)


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _is_ray_worker(pid: int) -> bool:
    try:
        return psutil.Process(pid).cmdline()[:1][0].startswith("ray::")
    except (psutil.Error, IndexError):
        return False


def _below(pid: int, *names: str) -> Iterator[psutil.Process]:
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for child in children:
        try:
            if child.name() in names:
                yield child
        except psutil.NoSuchProcess:
            continue

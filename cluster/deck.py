"""A deck on this machine: PostgreSQL, Redis, the Ray head and the API, started, watched and stopped together.

Everything lives in the data directory.  What a killed deck left behind is found there and adopted (PostgreSQL,
Redis) or replaced (Ray, API).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import httpx
import msgspec

from cluster import children
from cluster.children import Child
from cluster.launched import Launched, ray_was_stopped
from cluster.ray_store import store_environment, wipe_store
from cluster.raylet import ray_start
from cluster.settings import DeckSettings, environment
from storage import ports
from storage.database import check_postgres
from storage.embedded import EmbeddedPostgres, EmbeddedRedis
from storage.first_run import first_run
from storage.hot import check_redis
from storage.migrate import migrate
from storage.secrets import load_key
from trading.errors import NeedsOperator, NotReady

Say = Callable[[str], None]

#: A file in the data directory: Ray's state is to be forgotten, now or at the next start.
RESET = "reset-ray"
#: A slow machine gets so long for each of Ray's head and the API; one that ended is not waited for.
START_S = 150.0


class DeckFile(msgspec.Struct, kw_only=True):
    """What ``deck.json`` in the data directory says of a running deck."""

    pid: int
    started: float
    api_url: str
    ray_address: str
    database_url: str
    redis_url: str
    #: title -> (pid, start time) of the deck's own children.
    children: dict[str, tuple[int, float]]
    #: Ray's folder where it is not in the data directory.
    ray_dir: str = ""


class Deck:
    """Starts, watches and stops everything on this machine."""

    def __init__(self, settings: DeckSettings, say: Say = print, launched: Launched | None = None) -> None:
        self.settings = settings
        self.launched = launched or Launched()
        self.home = settings.home
        self.say = say
        self.admin_key: str | None = None
        self._lock: IO[str] | None = None
        self._postgres: EmbeddedPostgres | None = None
        self._redis: EmbeddedRedis | None = None
        self._ray: Child | None = None
        self._api: Child | None = None
        self._nodes: dict[str, Child] = {}
        self._ray_dir: Path | None = None
        #: Two that watch must not both start the same server.
        self._watching = threading.Lock()

    @property
    def api_url(self) -> str:
        """Where the API answers."""
        host = self.settings.host if self.settings.host not in ("0.0.0.0", "::") else "127.0.0.1"
        return f"http://{host}:{self.settings.api_port}"

    # Start

    def start(self) -> None:
        """Bring everything up.  Raises `NeedsOperator` naming what is wrong and what to do; nothing is left half up."""
        self._take_home()
        try:
            self._check_ports()
            self._start_servers()
            self._prepare_database()
            self.launched.prepare(self.settings.database_url)
            self._start_ray()
            self._start_api()
            # Last: the key is told once, so a start that fails must not have made it.
            self.admin_key = asyncio.run(first_run(self.settings.database_url))
            self._write_file()
        except BaseException:
            self.stop()
            raise

    def _take_home(self) -> None:
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = (self.home / "deck.lock").open("a+")
        except OSError as error:
            raise NeedsOperator(
                f"the data directory {self.home} cannot be used ({error.strerror})",
                "choose another with --data-dir, or make it writable",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise NeedsOperator(
                f"a deck is running already on {self.home}",
                "stop it with `quarterdeck down`, or use another --data-dir",
            ) from None
        left = read_deck_file(self.home)
        if left is not None:
            for title, (pid, started) in left.children.items():
                if children.same_process(pid, started):
                    self.say(f"ending {title}, left by a deck that was killed")
                    children.end_tree(pid, 5.0)
            if left.ray_dir:
                remove_tree(Path(left.ray_dir))
            (self.home / "deck.json").unlink(missing_ok=True)

    def _check_ports(self) -> None:
        """Ports that were asked for by number, before anything is started."""
        deck = self.settings
        for port, what, option in ((deck.api_port, "the API", "--port"), (deck.ray_port, "Ray's head", "--ray-port")):
            if port:
                free_port(deck.host, port, what, option)

    def stop_left(self) -> None:
        """End what a deck whose own process was killed left running: API, Ray, Redis, PostgreSQL; the data stays."""
        self._take_home()
        try:
            self._redis = EmbeddedRedis(self.home, host=self.settings.host)
            self._postgres = EmbeddedPostgres(self.home, host=self.settings.host)
        finally:
            self.stop()

    def _start_servers(self) -> None:
        deck = self.settings
        if deck.database_url:
            _check(check_postgres(deck.database_url), "DATABASE_URL")
        else:
            self.say("starting PostgreSQL")
            self._postgres = EmbeddedPostgres(self.home, host=deck.host)
            deck.database_url = self._postgres.start()
        if deck.redis_url:
            _check(check_redis(deck.redis_url), "REDIS_URL")
        else:
            self.say("starting Redis")
            self._redis = EmbeddedRedis(self.home, host=deck.host)
            deck.redis_url = self._redis.start()

    def _prepare_database(self) -> None:
        applied = migrate(self.settings.database_url)
        if applied:
            self.say(f"database schema: {len(applied)} migrations applied")
        load_key(self.home)

    def _start_ray(self) -> None:
        deck = self.settings
        token = self.home / "ray-token"
        # Given where somebody else starts Ray too (KubeRay), else our own.
        given = os.environ.get("RAY_AUTH_TOKEN", "")
        if given or not token.exists():
            token.touch(mode=0o600)
            token.write_text(given or secrets.token_hex(32))
        deck.ray_port = free_port(deck.host, deck.ray_port, "Ray's head", "--ray-port")
        deck.ray_address = f"{deck.host}:{deck.ray_port}"
        self._prepare_tls()
        # Ray puts sockets there, whose paths may not be longer than 107 bytes.
        folder = self.home / "ray"
        self._ray_dir = None
        if len(str(folder)) > 40:
            folder = self._ray_dir = Path(tempfile.mkdtemp(prefix="qd-ray-"))
        self.say("starting the Ray head")
        self._ray = Child(
            "the Ray head",
            [
                *(sys.executable, "-m", "cluster.head"),
                *("--name", deck.node, "--host", deck.host, "--port", str(deck.ray_port), "--folder", str(folder)),
                *self.launched.ray_options(),
            ],
            environment(deck, **store_environment(self.home)),
            self.home / "logs" / "ray-head.log",
        )
        if (self.home / RESET).exists():
            wipe_store(self.home)
            (self.home / RESET).unlink()
        self._ray.start()
        self._wait_for_head(self._ray)

    def _wait_for_head(self, head: Child) -> None:
        deck = self.settings
        try:
            self._wait(head, lambda: _listens(deck.host, deck.ray_port), START_S)
        except NeedsOperator as error:
            raise NeedsOperator(
                str(error),
                "if Ray's control store is damaged, forget it with `quarterdeck reset-ray`: what should run is in "
                "PostgreSQL and starts again",
            ) from error

    def _forget_cluster(self, head: Child) -> None:
        """A new head that knows nothing: whoever was part of the old one's cluster begins anew, and the Supervisor
        creates from PostgreSQL what should run."""
        for child in (self._api, *self._nodes.values(), head):
            if child is not None:
                child.stop(2.0)
        wipe_store(self.home)
        (self.home / RESET).unlink()
        head.environment.update(store_environment(self.home))

    def _prepare_tls(self) -> None:
        files = self.settings.tls_files
        if files is None:
            return
        # Only then: it takes a while to import.
        from cluster import tls

        if not self.settings.tls_cert:
            tls.make_for_head(files, self.settings.cluster, self.settings.node, [self.settings.host])
        tls.check(files)

    def _start_api(self) -> None:
        deck = self.settings
        deck.api_port = free_port(deck.host, deck.api_port, "the API", "--port")
        self.say("starting the API and the Supervisor")
        self._api = Child(
            "the API",
            [sys.executable, "-m", "api"],
            environment(deck, QUARTERDECK_HOST=deck.host, QUARTERDECK_API_PORT=str(deck.api_port)),
            self.home / "logs" / "api.log",
        )
        self._api.start()
        self._wait(self._api, lambda: _answers(f"{self.api_url}/readyz"), START_S)

    def add_node(self, name: str, labels: dict[str, str] | None = None) -> None:
        """A further Ray node on this machine (for trying things out: one machine needs only one)."""
        deck = self.settings.model_copy(update={"node": name})
        child = Child(
            f"node {name}",
            [*ray_start(name, labels), f"--address={deck.ray_address}", f"--node-ip-address={deck.host}"],
            environment(deck),
            self.home / "logs" / f"node-{name}.log",
        )
        child.start()
        self._nodes[name] = child
        self._write_file()

    def _wait(self, child: Child, ready: Callable[[], bool], seconds: float) -> None:
        try:
            children.wait_until(child.title, ready, seconds, child.alive)
        except TimeoutError as error:
            raise NeedsOperator(str(error), f"its log ({child.log}) ends with:\n{child.tail()}") from error

    def _write_file(self) -> None:
        mine = {c.title: c for c in (self._ray, self._api, *self._nodes.values()) if c is not None}
        file = DeckFile(
            pid=os.getpid(),
            started=children.started_at(os.getpid()),
            api_url=self.api_url,
            ray_address=self.settings.ray_address,
            database_url=self.settings.database_url,
            redis_url=self.settings.redis_url,
            ray_dir=str(self._ray_dir or ""),
            children={title: (c.pid, children.started_at(c.pid)) for title, c in mine.items()},
        )
        path = self.home / "deck.json"
        path.touch(mode=0o600)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(file)))

    # Watch

    def watch(self) -> list[str]:
        """Start again what has ended; says what that was.  Call it every second or so, from any thread."""
        with self._watching:
            return self._revive()

    def _revive(self) -> list[str]:
        revived = []
        if self._postgres is not None and not self._postgres.alive():
            self._postgres.start()
            revived.append("PostgreSQL")
        if self._redis is not None and not self._redis.alive():
            self._redis.start()
            revived.append("Redis")
        if self._ray is not None and (self.home / RESET).exists():
            self._forget_cluster(self._ray)
            revived.append("Ray, all of it, as asked,")
        if self._ray is not None and not self._ray.alive() and not self.taken_down():
            # What ran on this machine has ended with it, the API's connection to it too.  The other machines wait for
            # the head, and find it again.
            for child in (self._api, self._ray):
                if child is not None:
                    child.stop(2.0)
            self._ray.start()
            self._wait_for_head(self._ray)
            revived.append(self._ray.title)
        for child in (self._api, *self._nodes.values()):
            if child is not None and not child.alive():
                child.stop()
                child.start()
                revived.append(child.title)
        if revived:
            self._write_file()
        return revived

    def taken_down(self) -> bool:
        """Whether the launcher that started this deck ended it (`ray down`).  Ask before `watch` starts Ray again."""
        if self.launched.autoscaling_config is None or self._ray is None:
            return False
        return ray_was_stopped(self._ray.pid, self._ray.started, self._ray_dir or self.home / "ray")

    # Stop

    def stop(self) -> None:
        """End everything in order; the data stays."""
        # The API first, so that nobody asks for what is ending; then all of Ray at once, then the servers.
        for group in ((self._api,), (*self._nodes.values(), self._ray), (self._redis, self._postgres)):
            going = [each for each in group if each is not None]
            if going:
                with ThreadPoolExecutor(len(going)) as pool:
                    for done in [pool.submit(each.stop) for each in going]:
                        done.result()
        self._api = self._ray = None
        self._nodes.clear()
        if self._ray_dir is not None:
            remove_tree(self._ray_dir)
        remove_tree(self.home / "ray")
        (self.home / "deck.json").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _check(question: Coroutine[Any, Any, None], variable: str) -> None:
    """Whether a server of the operator's own can be used; says which variable named it."""
    try:
        asyncio.run(question)
    except NotReady as error:
        raise NotReady(f"{error}; start that server, or correct or unset {variable}") from error


def read_deck_file(home: Path) -> DeckFile | None:
    """What the data directory says of a running (or killed) deck."""
    try:
        return msgspec.json.decode((home / "deck.json").read_bytes(), type=DeckFile)
    except (OSError, msgspec.MsgspecError):
        return None


def running_deck(home: Path) -> DeckFile | None:
    """The deck that runs on this data directory now."""
    file = read_deck_file(home)
    if file is None or not children.same_process(file.pid, file.started):
        return None
    return file


def left_running(home: Path) -> list[str]:
    """What still runs of a deck whose own process was killed."""
    file = read_deck_file(home)
    if file is None or children.same_process(file.pid, file.started):
        return []
    return [title for title, (pid, started) in file.children.items() if children.same_process(pid, started)]


def free_port(host: str, wanted: int, what: str, option: str) -> int:
    """``wanted`` if it is free (0: any that is); `NeedsOperator` naming the port otherwise."""
    if not wanted:
        return ports.choose(host)
    try:
        ports.bound(host, wanted).close()
    except OSError as error:
        raise NeedsOperator(
            f"port {wanted} of {host}, for {what}, cannot be used ({error.strerror})",
            f"choose another with {option}",
        ) from error
    return wanted


def remove_tree(path: Path) -> None:
    """Remove a folder that other processes may still be leaving."""
    import shutil

    for _ in range(20):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.1)


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == 200
    except httpx.HTTPError:
        return False

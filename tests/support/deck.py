"""A whole deck for tests: real Ray with two nodes, PostgreSQL, Redis, the API, and Binance simulators."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import psycopg
from psycopg.rows import dict_row

from cluster.children import end_tree
from cluster.client import ApiClient
from cluster.deck import Deck
from cluster.settings import DeckSettings
from storage.crash_points import CONSENT
from tests.support.patience import PATIENCE
from tests.support.wheels import index
from trading.errors import TradeError

SECOND_NODE = "node-2"


class Simulator:
    """A simulator (``binance``, ``alpaca``) in a process of its own."""

    def __init__(self, log: Path, *options: str, kind: str = "binance") -> None:
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cluster", "simulate", kind, "--port", "0", *options],
                stdout=subprocess.PIPE,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the simulator did not start: {log.read_text()}"
        told = json.loads(line)
        self.url: str = told["url"]
        self.provider: str = told["provider"]

    def stats(self) -> dict[str, Any]:
        """What it has sent, to whom."""
        found: dict[str, Any] = httpx.get(f"{self.url}/simulator/stats", timeout=10 * PATIENCE).json()
        return found

    def control(self, command: str, **body: Any) -> None:
        """One of its commands."""
        httpx.post(f"{self.url}/simulator/{command}", json=body, timeout=10 * PATIENCE).raise_for_status()

    def ledger(self) -> dict[str, Any]:
        """What is true, by account number (Alpaca's simulator)."""
        found: dict[str, Any] = httpx.get(f"{self.url}/simulator/ledger", timeout=10 * PATIENCE).json()
        return found

    def stop(self) -> None:
        """End it."""
        end_tree(self._process.pid, 3.0)
        self._process.wait(timeout=5)


class DeckUnderTest:
    """A deck with its API, shared by the tests of one run.  ``more``: settings of the deck."""

    def __init__(self, *, second_node: bool = True, **more: Any) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="qd-test-"))
        settings = DeckSettings(data_dir=self.home, api_port=0, ray_port=0, **more)
        settings.database_url = settings.redis_url = ""
        #: Where tests arm crash points (`storage.crash_points`).
        self.crash_points = self.home / "crash-points"
        self.crash_points.mkdir()
        (self.crash_points / CONSENT).touch()
        settings._crash_points = str(self.crash_points)
        self.said: list[str] = []
        #: What several modules of tests share, so that none of them ends it.
        self.shared: set[str] = set()
        #: While it is set, whoever keeps this deck alive lets rest what has ended.
        self.left_alone = threading.Event()
        self.deck = Deck(settings, self.said.append)
        self._simulators: list[Simulator] = []
        #: Where pip finds packages for strategies, and nowhere else; see `tests.support.wheels`.
        self.wheels = self.home / "wheels"
        with patch.dict(os.environ, index(self.wheels)):
            self.deck.start()
        assert self.deck.admin_key is not None
        self.key = self.deck.admin_key
        self.api = ApiClient(self.deck.api_url, self.key)
        try:
            self._begin(second_node)
        except BaseException:
            # Nobody else would, and what comes next would have half the machine.
            self.stop()
            raise

    def _begin(self, second_node: bool) -> None:
        if second_node:
            self.deck.add_node(SECOND_NODE)
        self.market = self.simulator("--symbols", "20", "--rate", "400", "--seed", "5")
        self.api.post("/instruments/import", self.source(self.market))
        if second_node:
            self.wait("the second node", lambda: any(n["name"] == SECOND_NODE for n in self.api.get("/nodes")["items"]))

    def stop(self, *, keep: bool = False) -> None:
        """End everything; ``keep`` leaves the files."""
        self.api.close()
        for simulator in self._simulators:
            simulator.stop()
        self.deck.stop()
        if not keep:
            shutil.rmtree(self.home, ignore_errors=True)

    # Making things

    def simulator(self, *options: str, kind: str = "binance") -> Simulator:
        """One more simulator; it ends with the deck."""
        made = Simulator(self.home / f"simulator-{len(self._simulators)}.log", *options, kind=kind)
        self._simulators.append(made)
        return made

    def source(self, simulator: Simulator) -> dict[str, Any]:
        """Provider and settings that lead to a simulator."""
        return {"provider": simulator.provider, "settings": {"base_url": simulator.url}}

    def feed(self, name: str, simulator: Simulator, instruments: list[str], workers: int = 1) -> None:
        """A feed that is live in all its instruments."""
        self.api.post("/feeds", {"id": name, **self.source(simulator), "instruments": instruments, "workers": workers})
        self.wait(f"feed {name}", lambda: self.live_instruments(name) == set(instruments))

    def live_instruments(self, feed: str) -> set[str]:
        """Instruments of a feed that have had a tick."""
        workers = self.api.get(f"/feeds/{feed}")["live"]
        return {i["id"] for w in workers for i in w["instruments"] if i["state"] == "live"}

    def account(self, user: str, feed: str, selector: str = "", **settings: Any) -> str:
        """A user with a paper account priced by a feed, ready to trade, its connection where ``selector`` says."""
        if not any(u["id"] == user for u in self.api.get("/users", limit=1000)["items"]):
            self.api.post("/users", {"id": user, "roles": ["trader", "quant"]})
        account = f"{user}-paper"
        self.api.post(
            "/accounts",
            {
                "id": account,
                "user": user,
                "connector": "paper",
                "selector": selector,
                "settings": {"cash": "1000000", "currency": "USDT", "feed": feed, **settings},
            },
        )
        self.wait(f"account {account}", lambda: self.account_view(user, account).get("reconciled") is True)
        return account

    def account_view(self, user: str, account: str) -> dict[str, Any]:
        """An account in its user's portfolio ({} while there is none)."""
        for portfolio in self.api.get("/portfolios", limit=1000)["items"]:
            for view in portfolio["accounts"]:
                if portfolio["user"] == user and view["account"] == account:
                    return dict(view)
        return {}

    def order(self, account: str, key: str) -> dict[str, Any]:
        """One order as the journal has it."""
        return dict(self.api.get(f"/orders/{account}/{key}"))

    # Tidying up

    def made(self) -> dict[str, set[str]]:
        """What is wanted of this deck, by kind: what runs without any of it costs next to nothing."""
        wanted = {kind: self.api.get(f"/{kind}", limit=1000)["items"] for kind in ("algos", "accounts", "feeds")}
        return {kind: {each["id"] for each in items if each.get("enabled", True)} for kind, items in wanted.items()}

    def tidy(self, kept: Mapping[str, set[str]]) -> None:
        """End whatever is not ``kept``: two cores carry the actors of one module of tests, not of all of them."""
        wait, api = self.wait, self.api
        algos = self.made()["algos"] - kept["algos"] - self.shared
        for algo in algos:
            wait(f"{algo} to be stopped", lambda algo=algo: _done(lambda: api.post(f"/algos/{algo}/stop")))
        for algo in algos:
            wait(f"the end of {algo}", lambda algo=algo: _done(lambda: api.delete(f"/algos/{algo}")))
        for kind in ("accounts", "feeds"):
            for name in self.made()[kind] - kept[kind] - self.shared:
                api.patch(f"/{kind}/{name}", {"enabled": False})

    # Looking

    def wait(self, what: str, ready: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until ``ready()`` is true; the failure says what was awaited and what the cluster looked like.

        ``seconds`` are of a machine that does nothing else: a slow one gets more.
        """
        deadline = time.monotonic() + seconds * PATIENCE
        while True:
            found = ready()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} was not so within {seconds * PATIENCE:g} s; {self.describe()}")
            time.sleep(0.1)

    def describe(self) -> str:
        """The actors as the Supervisor sees them, for a failure's text."""
        try:
            actors = self.api.get("/cluster")["actors"]
        except TradeError as error:
            return f"the API does not say how it is: {error}"
        return "actors: " + "; ".join(f"{a['name']} {a['state']} {a['reason']}" for a in actors)

    def actor(self, name: str) -> dict[str, Any]:
        """One actor as the Supervisor last saw it ({}: not there)."""
        return next((dict(a) for a in self.api.get("/cluster")["actors"] if a["name"] == name), {})

    def kill(self, name: str, *, number: int = signal.SIGKILL) -> int:
        """Kill an actor's process the hard way; returns its process id."""
        pid = int(self.wait(f"actor {name}", lambda: self.actor(name).get("pid")))
        os.kill(pid, number)
        return pid

    def wait_reborn(self, name: str, old_pid: int, seconds: float = 60.0) -> dict[str, Any]:
        """Wait until an actor is ready again in another process."""

        def reborn() -> dict[str, Any] | None:
            actor = self.actor(name)
            return actor if actor.get("state") == "ready" and actor.get("pid") != old_pid else None

        found: dict[str, Any] = self.wait(f"{name} reborn", reborn, seconds)
        return found

    def rows(self, statement: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Rows straight from PostgreSQL: the journal's and the paper venue's own truth."""
        with psycopg.connect(self.deck.settings.database_url, autocommit=True) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def execute(self, statement: str) -> None:
        """A statement without rows."""
        with psycopg.connect(self.deck.settings.database_url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def dicts(self, statement: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """As `rows`, with the columns' names."""
        with psycopg.connect(self.deck.settings.database_url, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(statement.encode(), values).fetchall()


def _done(act: Callable[[], object]) -> bool:
    """Whether something could be done now: a deck that has just been harmed may not answer for a moment."""
    try:
        act()
    except TradeError:
        return False
    return True

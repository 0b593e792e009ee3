"""The demo: a whole deck in a temporary directory, trading a simulated market end to end.

Two nodes on this machine, the Binance simulator, one feed over three workers, two users with paper accounts,
three strategies as five algos on both nodes.  Everything goes the way it goes for a user: over the REST API.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np

from cluster import streams
from cluster.children import end_tree
from cluster.client import ApiClient
from cluster.deck import Deck
from cluster.demo_logins import PREFIX, DemoLogin, give_logins
from cluster.settings import DeckSettings
from storage.bus import Bus
from storage.database import Database
from storage.hot import Hot
from storage.journal import Journal
from trading.errors import BadInput, NeedsOperator, NotReady
from trading.histogram import Histogram
from trading.ticks import BACKFILLED, SNAPSHOT, unpack_batch

Say = Callable[[str], None]

FEED = "crypto"
WORKERS = 3
SECOND_NODE = "node-2"
READY_S = 180.0
#: Ticks that have not arrived when none has come for so long do not arrive any more.
LOST_S = 10.0
#: Prices that were asked for, of instruments that did not tick, say, on a machine that is busy.
_NOT_STREAMED = np.uint32(BACKFILLED | SNAPSHOT)


class Plan(msgspec.Struct, frozen=True):
    """One algo of the demo; ``instrument`` is an index into the feed's instruments."""

    id: str
    strategy: str
    user: str
    node: str
    instrument: int
    parameters: dict[str, Any]


MAKER = {"half_spread_bps": 1, "reprice_ticks": 1, "requote_after": 0.2}
PLANS = (
    Plan("maker-1", "market-maker", "alice", "head", 0, MAKER),
    Plan("maker-2", "market-maker", "bob", SECOND_NODE, 1, MAKER),
    Plan("cross-1", "ma-cross", "alice", SECOND_NODE, 2, {"interval": "1s", "fast": 2, "slow": 5}),
    Plan("cross-2", "ma-cross", "bob", "head", 3, {"interval": "1s", "fast": 2, "slow": 5}),
    Plan("revert-1", "bollinger-reversion", "alice", SECOND_NODE, 4, {"interval": "1s", "period": 8, "width": 1.2}),
)
USERS = ("alice", "bob")
#: One of each role signs in to the panel; the watcher was granted a look at alice's account.
WATCHER = "vera"
PEOPLE = {"admin": "operator", "alice": "quant, trader", "bob": "trader", WATCHER: "viewer"}


class Totals(msgspec.Struct, kw_only=True):
    """What the demo prints at its end."""

    ticks_sent: int
    ticks_delivered: int
    ticks_lost: int
    ticks_per_s: float
    algos_running: int
    orders: int
    fills: int
    denied: int
    open_breaks: int
    tick_to_strategy_ms: dict[str, float | None]
    intent_to_ack_ms: dict[str, float | None]
    #: The span of the source that was sent: first and last line (recordings) or message.
    first_line: int
    last_line: int
    seconds: float


class Tap:
    """Counts what was streamed and arrives at the far end of the bus, in a thread of its own."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self.ticks = 0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="tap")

    def start(self) -> None:
        """Listen; returns once it does."""
        self._thread.start()
        if not self._ready.wait(10):
            raise NotReady("the bus did not take the tap's subscription within 10 s")

    def _run(self) -> None:
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        bus = Bus(self._redis_url)
        subscription = await bus.subscribe([streams.ticks(FEED)], [], size=100_000)
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        async for channel, raw in subscription:
            if not channel:
                continue
            self.ticks += int(np.count_nonzero((unpack_batch(raw)[3]["flags"] & _NOT_STREAMED) == 0))


class Demo:
    """Brings the demo up, watches it, sums it up, takes it down without a trace."""

    def __init__(self, *, recording: Path | None, speed: float, rate: float, port: int, say: Say) -> None:
        if recording is not None and not recording.is_file():
            raise BadInput("--recording", f"there is no file {recording}")
        self._recording = recording
        self._speed = speed
        self._rate = rate
        self.say = say
        self.home = Path(tempfile.mkdtemp(prefix=PREFIX))
        settings = DeckSettings(data_dir=self.home, api_port=port, ray_port=0)
        settings.database_url = settings.redis_url = ""
        self.deck = Deck(settings, say)
        self._simulator: subprocess.Popen[str] | None = None
        self.simulator_url = ""
        self._provider = ""
        self.api: ApiClient | None = None
        self.tap: Tap | None = None
        self._started_at = 0.0
        self._problems: list[str] = []
        self.logins: list[DemoLogin] = []

    @property
    def key(self) -> str:
        """The administrator's API key."""
        return self.deck.admin_key or ""

    # Up

    def start(self) -> None:
        """Bring everything up and let the market run."""
        self._start_simulator()
        self.deck.start()
        self.deck.add_node(SECOND_NODE)
        self.api = ApiClient(self.deck.api_url, self.key)
        self.tap = Tap(self.deck.settings.redis_url)
        self.tap.start()
        instruments = self._create()
        self._wait("the feed", lambda: self._stats()["subscribed"] >= 2 * len(instruments))
        self._wait("the algos", self._all_running)
        self._control("start")
        self._started_at = time.monotonic()
        self._say_logins()
        self.say(f"the market is open; API={self.deck.api_url} KEY={self.key} SIM={self.simulator_url}")

    def _start_simulator(self) -> None:
        command = [sys.executable, "-m", "cluster", "simulate", "binance", "--port", "0", "--hold"]
        if self._recording is not None:
            command += ["--recording", str(self._recording), "--speed", str(self._speed)]
        else:
            command += ["--rate", str(self._rate), "--seed", "7", "--symbols", "20", "--speed", str(self._speed)]
        self.say("starting the Binance simulator")
        log = (self.home / "simulator.log").open("w")
        self._simulator = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        log.close()
        assert self._simulator.stdout is not None
        line = self._simulator.stdout.readline()
        said = (self.home / "simulator.log").read_text().strip()
        if not line:
            raise NeedsOperator("the simulator did not start", said)
        if said:
            self.say(said)
        told = json.loads(line)
        self.simulator_url, self._provider = told["url"], told["provider"]

    def _create(self) -> list[str]:
        api = self._api()
        self.say("creating users, accounts, a feed and five algos")
        settings = {"base_url": self.simulator_url}
        api.post("/instruments/import", {"provider": self._provider, "settings": settings})
        listed = api.get("/instruments", provider=self._provider, limit=50)["items"]
        instruments = [item["id"] for item in listed][:20]
        api.post(
            "/feeds",
            {
                "id": FEED,
                "provider": self._provider,
                "settings": settings,
                "instruments": instruments,
                "workers": WORKERS,
            },
        )
        # Its market is held until the algos run.  What has not ticked by then is not asked for again, nor a connection
        # given up: that would cost what is under way if the market opened at that moment.
        api.put(f"/feeds/{FEED}/tuning", {"freshness": {"pending_s": 2 * READY_S}})
        for user in USERS:
            api.post("/users", {"id": user, "roles": PEOPLE[user].split(", ")})
            api.post(
                "/accounts",
                {
                    "id": f"{user}-paper",
                    "user": user,
                    "connector": "paper",
                    "settings": {"cash": "1000000", "currency": "USDT", "fee_bps": "1", "latency_ms": 2, "feed": FEED},
                },
            )
            api.put("/risk/limits", {"scope": f"account:{user}-paper", "kind": "gross_exposure", "value": "100000"})
        api.post("/users", {"id": WATCHER, "roles": ["viewer"]})
        api.put(f"/grants/alice-paper/{WATCHER}", {"level": "view"})
        logins = ThreadPoolExecutor(1, thread_name_prefix="logins").submit(self._give_logins)
        api.put("/risk/limits", {"scope": "cluster", "kind": "gross_exposure", "value": "150000"})
        api.put("/risk/limits", {"scope": "cluster", "kind": "order_notional", "value": "25000"})
        self._wait("node " + SECOND_NODE, lambda: any(n["name"] == SECOND_NODE for n in api.get("/nodes")["items"]))
        for plan in PLANS:
            api.post(
                "/algos",
                {
                    "id": plan.id,
                    "strategy": plan.strategy,
                    "account": f"{plan.user}-paper",
                    "feed": FEED,
                    "instruments": [instruments[plan.instrument % len(instruments)]],
                    "node": plan.node,
                    "parameters": plan.parameters,
                    "start": True,
                },
            )
        self.logins = logins.result(timeout=READY_S)
        return instruments

    def _give_logins(self) -> list[DemoLogin]:
        return asyncio.run(give_logins(self.deck.settings.database_url, self.home, PEOPLE))

    def _say_logins(self) -> None:
        self.say(f"the panel is at {self.deck.api_url} : sign in as one of these")
        for login in self.logins:
            self.say(
                f"login {login.user:6} password {login.password}  code {login.code}  ({login.roles}; next codes: "
                f"`quarterdeck user code {login.user}`, or an app with secret {login.secret})"
            )

    def _all_running(self) -> bool:
        algos = self._api().get("/algos")["items"]
        failed = [a for a in algos if a["state"] == "failed"]
        if failed:
            raise NeedsOperator(f"algo {failed[0]['id']} failed", str(failed[0]["reason"]))
        return len(algos) == len(PLANS) and all(a["state"] == "running" for a in algos)

    def _api(self) -> ApiClient:
        if self.api is None:
            raise NotReady("the demo is not up yet")
        return self.api

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_S
        while not ready():
            if time.monotonic() > deadline:
                raise NeedsOperator(f"{what} was not ready within {READY_S:.0f} s", f"logs are in {self.home}/logs")
            time.sleep(0.25)

    # The simulator

    def _stats(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.simulator_url}/simulator/stats", timeout=10).json()
        return found

    def _control(self, command: str) -> None:
        httpx.post(f"{self.simulator_url}/simulator/{command}", json={}, timeout=10).raise_for_status()

    def watch(self) -> list[str]:
        """Start again what has ended on this machine."""
        return self.deck.watch()

    # The sum

    def totals(self) -> Totals:
        """Hold the market, let everything arrive, and sum up."""
        seconds = time.monotonic() - self._started_at
        self._control("hold")
        tap = self.tap
        assert tap is not None
        arrived, quiet_since = tap.ticks, time.monotonic()
        while True:
            stats = self._stats()
            streams_sent = stats["streams"].items()
            sent = sum(s["messages"] for name, s in streams_sent if name.endswith(("@trade", "@bookTicker")))
            if tap.ticks > arrived:
                arrived, quiet_since = tap.ticks, time.monotonic()
            if arrived >= sent or time.monotonic() - quiet_since > LOST_S:
                break
            time.sleep(0.2)
        time.sleep(1.0)  # the algos tell their figures twice a second
        ticks, acks = Histogram(), Histogram()
        algos = self._api().get("/algos")["items"]
        counts, figures = asyncio.run(self._count())
        for live in figures.values():
            ticks.merge(live["tick_to_strategy"])
            acks.merge(live["intent_to_ack"])
        return Totals(
            ticks_sent=sent,
            ticks_delivered=tap.ticks,
            ticks_lost=sent - tap.ticks,
            ticks_per_s=round(tap.ticks / seconds, 1),
            algos_running=sum(a["state"] == "running" for a in algos),
            orders=counts["orders"],
            fills=counts["fills"],
            denied=counts["denied"],
            open_breaks=counts["open_breaks"],
            tick_to_strategy_ms={"p50": ticks.quantile(0.5), "p99": ticks.quantile(0.99)},
            intent_to_ack_ms={"p50": acks.quantile(0.5), "p99": acks.quantile(0.99)},
            first_line=stats["replay"]["first_line"],
            last_line=stats["replay"]["last_line"],
            seconds=round(seconds, 1),
        )

    async def _count(self) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
        """The journal's counts, and the algos' own figures with their histograms."""
        database = Database(self.deck.settings.database_url, size=1, name="demo")
        hot = Hot(self.deck.settings.redis_url)
        await database.open()
        try:
            return await Journal(database).totals(), await hot.scan("algo:", dict[str, Any])
        finally:
            await hot.close()
            await database.close()

    # Down

    def stop(self) -> None:
        """End everything and remove the directory."""
        if self.api is not None:
            self.api.close()
        self.deck.stop()
        if self._simulator is not None:
            end_tree(self._simulator.pid, 3.0)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._simulator.wait(timeout=3)
        shutil.rmtree(self.home, ignore_errors=True)

"""Starting algos on several machines: ``python -m bench.nodes [--json]``; it takes four minutes on two cores.

First 20 algos of one submitted strategy version at once, on the head alone.  Then four Ray nodes on this machine, 60
algos on six paper accounts, spread over them.  Every node has had the version before.  A start is measured from the
REST call to `Strategy.on_start`, which writes down when it was called: one at a time; 20 at once; then all that is left
of the 60 at once.  The market ticks 200 times a second meanwhile, and every algo that runs takes it in.

With all of them running: what the Supervisor's round takes (its views come one round and one pause apart), and the
memory that algos take (their share of pages that are shared, by the kernel's account).  The floor is a bare Python
process that imports what an algo's host imports.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

from actors.supervisor import ROUND_S
from api.formats import parse_time
from bench.deck import percentile, whole_deck
from bench.market import Market, simulated_market
from cluster.client import ApiClient
from cluster.deck import Deck

NODES: Final = ("head", "node-2", "node-3", "node-4")
ACCOUNTS: Final = 6
ALGOS: Final = 60
ALONE: Final = 8
AT_ONCE: Final = 20
#: No wait takes longer.
PATIENCE_S: Final = 100.0
FEED: Final = "main"
STRATEGY: Final = '''
import time
from pathlib import Path

from pydantic import Field

from strategies import Strategy, StrategyParameters


class Parameters(StrategyParameters):
    mark: str = Field("", description="File to write the time of the start to")


class Starter(Strategy[Parameters]):
    """Notes when it was started."""

    Parameters = Parameters

    def on_start(self):
        if self.parameters.mark:
            Path(self.parameters.mark).write_text(str(time.time_ns()))
'''
FLOOR: Final = "import actors.algo_host"


class Fleet:
    """The deck, and what runs on it."""

    def __init__(self, deck: Deck, api: ApiClient, market: Market, marks: Path) -> None:
        self._deck = deck
        self._api = api
        self._market = market
        self._marks = marks
        self._numbers = itertools.count()

    def prepare(self) -> None:
        """A feed, accounts, the version, on the head alone."""
        source = {"provider": self._market.provider, "settings": {"base_url": self._market.url}}
        self._market.set_pace(200)
        self._market.run()
        self._api.post("/instruments/import", source)
        self._api.post("/feeds", {"id": FEED, **source, "instruments": ["BINANCE:BTCUSDT"], "workers": 1})
        for number in range(ACCOUNTS):
            self._api.post("/users", {"id": f"user-{number}", "roles": ["trader", "quant"]})
            settings = {"cash": "1000000", "currency": "USDT", "feed": FEED}
            body = {"id": f"paper-{number}", "user": f"user-{number}", "connector": "paper", "settings": settings}
            self._api.post("/accounts", body)
        self._api.upload("/strategies/starter/versions", STRATEGY.encode(), 60.0, file="starter.py")
        _wait("everything", lambda: not self._api.get("/cluster")["missing"])
        self.remove([self.warm(NODES[0])])

    def grow(self) -> None:
        """All other nodes, each with the version."""
        for name in NODES[1:]:
            self._deck.add_node(name)
        _wait("the nodes", lambda: len(self._alive()) == len(NODES))
        _wait("everything", lambda: not self._api.get("/cluster")["missing"])
        for name in NODES:
            self.warm(name)

    def warm(self, node: str) -> str:
        """An algo that runs on a node, which has the version then."""
        algo = self.make(node=node)
        self.start([algo])
        return algo

    def remove(self, algos: Sequence[str]) -> None:
        """Stop these and forget them."""
        for algo in algos:
            self._api.post(f"/algos/{algo}/stop")
        _wait("the stops", lambda: all(self._api.get(f"/algos/{algo}")["state"] == "stopped" for algo in algos))
        for algo in algos:
            self._api.delete(f"/algos/{algo}")

    def _alive(self) -> list[str]:
        return [each["name"] for each in self._api.get("/nodes")["items"] if each["facts"]]

    def make(self, **where: Any) -> str:
        """An algo that is not started yet."""
        number = next(self._numbers)
        name = f"algo-{number}"
        self._api.post(
            "/algos",
            {
                "id": name,
                "strategy": "starter",
                "account": f"paper-{number % ACCOUNTS}",
                "feed": FEED,
                "instruments": ["BINANCE:BTCUSDT"],
                "parameters": {"mark": str(self._marks / name)},
                **(where or {"placement": {"packing": "spread"}}),
            },
        )
        return name

    def start(self, algos: Sequence[str]) -> list[float]:
        """Start these at once; seconds from each call to its `on_start`."""
        asked = {}
        for algo in algos:
            asked[algo] = time.time_ns()
            self._api.post(f"/algos/{algo}/start")
        missing = set(algos)
        deadline = time.monotonic() + PATIENCE_S
        while missing := {algo for algo in missing if not _told(self._marks / algo)}:
            if time.monotonic() > deadline:
                states = {algo: self._api.get(f"/algos/{algo}")["reason"] for algo in sorted(missing)[:5]}
                raise TimeoutError(f"{len(missing)} algos were not started within {PATIENCE_S:g} s: {states}")
            time.sleep(0.02)
        return [(_told(self._marks / algo) - at) / 1e9 for algo, at in asked.items()]

    def round_s(self, views: int = 8) -> float:
        """The median time of the Supervisor's round, nothing being changed."""
        seen: list[str] = []
        deadline = time.monotonic() + PATIENCE_S
        while len(seen) <= views and time.monotonic() < deadline:
            at = str(self._api.get("/cluster")["at"])
            if not seen or seen[-1] != at:
                seen.append(at)
            time.sleep(0.02)
        times = [parse_time(at) / 1e9 for at in seen]
        return statistics.median(later - sooner for sooner, later in itertools.pairwise(times)) - ROUND_S

    def memory_mb(self) -> list[float]:
        """Of each algo's process."""
        actors = [each for each in self._api.get("/cluster")["actors"] if each["name"].startswith("algo/")]
        return [psutil.Process(each["pid"]).memory_full_info().pss / 1e6 for each in actors]


def _told(path: Path) -> int:
    try:
        return int(path.read_text() or 0)
    except FileNotFoundError:
        return 0


def _wait(what: str, ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {PATIENCE_S:g} s")
        time.sleep(0.1)


def floor_s() -> float:
    """A bare process that imports what an algo's host imports: the median of some."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", FLOOR], check=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def measure() -> dict[str, Any]:
    """All figures."""
    floor = floor_s()
    with (
        tempfile.TemporaryDirectory(prefix="qd-marks-") as marks,
        simulated_market() as market,
        whole_deck() as (deck, api),
    ):
        fleet = Fleet(deck, api, market, Path(marks))
        fleet.prepare()
        first = [fleet.make() for _ in range(AT_ONCE)]
        one_node = fleet.start(first)
        fleet.remove(first)
        fleet.grow()
        alone = [fleet.start([fleet.make()])[0] for _ in range(ALONE)]
        twenty = fleet.start([fleet.make() for _ in range(AT_ONCE)])
        rest_of_them = ALGOS - len(NODES) - ALONE - AT_ONCE
        rest = fleet.start([fleet.make() for _ in range(rest_of_them)])
        memory = fleet.memory_mb()
        assert len(memory) == ALGOS, f"{len(memory)} algos run"
        return {
            "nodes": len(NODES),
            "algos": ALGOS,
            "import_floor_s": round(floor, 3),
            "start_s": {"p50": round(statistics.median(alone), 3), "p95": round(percentile(alone, 0.95), 3)},
            "at_once": AT_ONCE,
            "at_once_s": round(max(twenty), 2),
            "at_once_one_node_s": round(max(one_node), 2),
            "rest": rest_of_them,
            "rest_s": round(max(rest), 2),
            "round_ms": round(fleet.round_s() * 1_000, 1),
            "algo_mb": round(statistics.median(memory), 1),
            "algos_mb": round(sum(memory)),
            "ratio": round(statistics.median(alone) / floor, 2),
        }


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = measure()
    print(json.dumps(found) if asked.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()

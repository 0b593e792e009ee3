"""``python -m tests.chaos.failovers --count 200 --seed 1``: machines that die under their algos, again and again.

A deck with the head, which takes no work, and two machines, on one of which all is: algos that quote, their session and
their broker connection.  That machine is killed, or freezes and wakes later, or loses its raylet; the other one takes
over; a fresh machine takes the place of the first; and so on.  Every algo that goes on elsewhere is one fail-over.
After each death the journal and the venue's own book must agree: no order lost, doubled or orphaned.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import statistics
import sys
import time
from typing import Any

import msgspec
import psutil

from tests.chaos.machines import BTC, HEAD, MAKER, change, family, is_alive, place_of, send
from tests.support.books import settle
from tests.support.deck import SECOND_NODE, DeckUnderTest

FEED, USER = "roaming", "rhea"
#: Detected, fenced and trading elsewhere within this.
TARGET_S = 15.0
PATIENCE_S = 60.0
#: How a machine goes.
KINDS = ("kill", "freeze", "kill raylet")


class Fall(msgspec.Struct, kw_only=True):
    """One machine's end and what came of it."""

    number: int
    machine: str
    kind: str
    algos: int
    #: From the end until each algo had an order acknowledged on the other machine.
    seconds: list[float]
    trouble: str = ""


class Failovers:
    """The deck and its algos."""

    def __init__(self, deck: DeckUnderTest, algos: int, seed: int) -> None:
        self.deck = deck
        self.chance = random.Random(seed)
        self.algos = [f"rhea-{n}" for n in range(algos)]
        self.falls: list[Fall] = []

    def prepare(self) -> None:
        """Machines, account, algos; all of it on the second node."""
        deck = self.deck
        self.label(SECOND_NODE)
        change(deck, HEAD, cordoned=True)
        deck.feed(FEED, deck.market, [BTC])
        self.account = deck.account(USER, FEED, selector="site=edge")
        for algo in self.algos:
            deck.api.post(
                "/algos",
                {"id": algo, "strategy": "market-maker", "account": self.account, "feed": FEED, "start": True,
                 "instruments": [BTC], "parameters": MAKER},
            )  # fmt: skip
        deck.wait("all on the second node", lambda: all(self._acked(SECOND_NODE).values()), 90)

    def label(self, name: str) -> None:
        """Let a machine carry what is asked for."""
        deck = self.deck
        deck.wait(
            name,
            lambda: any(
                n["name"] == name and n["health"] in ("ok", "degraded") for n in deck.api.get("/nodes")["items"]
            ),
        )
        change(deck, name, labels={"site": "edge"})

    def replace(self, name: str, number: int) -> str:
        """A fresh machine in the place of one, of which nothing is left; its name."""
        deck, fresh = self.deck.deck, f"machine-{number}"
        if name:
            with contextlib.suppress(psutil.NoSuchProcess):
                send(family(deck._nodes.pop(name).pid), signal.SIGKILL)
        deck.add_node(fresh)
        self.label(fresh)
        return fresh

    def run(self, count: int) -> None:
        """Let machines fall until so many algos have gone on elsewhere."""
        here, other = SECOND_NODE, self.replace("", 0)
        while sum(each.algos for each in self.falls) < count:
            fall = self.fall(len(self.falls) + 1, here, other)
            self.falls.append(fall)
            slowest = f"{max(fall.seconds):5.1f} s" if fall.seconds else "never"
            print(f"{fall.number:4d} {fall.kind:12s} of {here}: {slowest} {fall.trouble}", flush=True)
            if fall.trouble:
                return
            here, other = other, self.replace(here, len(self.falls))

    def fall(self, number: int, here: str, other: str) -> Fall:
        """One machine's end, at a moment by chance."""
        deck, chance = self.deck, self.chance
        kind = chance.choice(KINDS)
        fall = Fall(number=number, machine=here, kind=kind, algos=len(self.algos), seconds=[])
        time.sleep(chance.uniform(0.0, 2.0))
        epochs = {algo: deck.api.get(f"/algos/{algo}")["epoch"] for algo in self.algos}
        machine = family(deck.deck._nodes[here].pid)
        if kind == "kill raylet":
            machine = [each for each in machine if each.name() == "raylet"]
        old = [place_of(deck, name)[1] for name in (f"session/{USER}", f"connection/{self.account}")]
        send(machine, signal.SIGSTOP if kind == "freeze" else signal.SIGKILL)
        began = time.monotonic()
        try:
            fall.seconds = self._until_trading(other, epochs, began)
            if kind == "freeze":
                time.sleep(chance.uniform(0.0, 5.0))
        except AssertionError as error:
            fall.trouble = str(error)
        finally:
            send(machine, signal.SIGCONT)
        if not fall.trouble:
            fall.trouble = self._judge(old)
        return fall

    def _until_trading(self, where: str, epochs: dict[str, int], began: float) -> list[float]:
        took: dict[str, float] = {}

        def all_of_them() -> bool:
            for algo, acked in self._acked(where).items():
                if acked and algo not in took:
                    took[algo] = round(time.monotonic() - began, 1)
            return len(took) == len(self.algos)

        self.deck.wait(f"all algos trading on {where}", all_of_them, PATIENCE_S)
        for algo, epoch in epochs.items():
            assert self.deck.api.get(f"/algos/{algo}")["epoch"] > epoch, f"{algo} goes on under its old epoch"
        return sorted(took.values())

    def _acked(self, where: str) -> dict[str, bool]:
        found = {}
        for shown in self.deck.api.get("/algos", limit=1000)["items"]:
            live = shown["live"] or {}
            there = shown["state"] == "running" and live.get("node") == where
            found[shown["id"]] = there and live.get("orders_acked", 0) > 0
        return {algo: found.get(algo, False) for algo in self.algos}

    def _judge(self, old: list[int]) -> str:
        deck = self.deck
        try:
            deck.wait("the end of the old processes", lambda: not any(map(is_alive, old)), PATIENCE_S)
            for algo in self.algos:
                deck.wait(f"one {algo}", lambda algo=algo: self._incarnations(algo) == 1, PATIENCE_S)
            # The algos trade meanwhile: books that are apart for a moment are only under way, a lost or doubled order
            # keeps them apart for good.
            settle(deck, self.account, PATIENCE_S)
        except AssertionError as error:
            return str(error)
        return ""

    def _incarnations(self, algo: str) -> int:
        return sum(1 for each in self.deck.api.get("/cluster")["actors"] if each["name"].startswith(f"algo/{algo}/"))

    def told(self) -> dict[str, Any]:
        """Figures for the report."""
        seconds = sorted(each for fall in self.falls for each in fall.seconds)
        return {
            "failovers": sum(len(fall.seconds) for fall in self.falls),
            "machines_lost": len(self.falls),
            "kinds": {kind: sum(1 for fall in self.falls if fall.kind == kind) for kind in KINDS},
            "violations": [fall.trouble for fall in self.falls if fall.trouble],
            "median_s": round(statistics.median(seconds), 1) if seconds else None,
            "worst_s": seconds[-1] if seconds else None,
            "over_target": sum(1 for each in seconds if each > TARGET_S),
            "orders": int(self.deck.rows("SELECT count(*) FROM paper_orders")[0][0]),
        }


def main() -> int:
    """Run; 1 where a book differed, an order came twice, or an algo did not go on."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.failovers", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="algos that are to go on elsewhere")
    parser.add_argument("--algos", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    deck = DeckUnderTest()
    try:
        suite = Failovers(deck, wanted.algos, wanted.seed)
        suite.prepare()
        suite.run(wanted.count)
        told = suite.told()
    finally:
        deck.stop()
    print(json.dumps(told, indent=1))
    return 1 if told["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())

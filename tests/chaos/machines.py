"""Machines of the deck under test: the head and the second node, stopped, woken and killed as a whole."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import psutil

from tests.support.deck import SECOND_NODE, DeckUnderTest

HEAD = "head"
MAKER = {"half_spread_bps": 1, "reprice_ticks": 1, "requote_after": 0.2}
BTC = "BINANCE:BTCUSDT"


def change(deck: DeckUnderTest, name: str, *, force: bool = False, **change: Any) -> None:
    """Cordon, label, drain; by ``force`` also where other tests' algos can go nowhere else."""
    deck.api.patch(f"/nodes/{name}?force={str(force).lower()}", change)


def family(pid: int) -> list[psutil.Process]:
    """A process with all that it has started."""
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def second_node(deck: DeckUnderTest) -> list[psutil.Process]:
    """All of Ray on the second node: what a machine that loses its power takes with it."""
    return family(deck.deck._nodes[SECOND_NODE].pid)


def head(deck: DeckUnderTest) -> list[psutil.Process]:
    """All of Ray on the head."""
    assert deck.deck._ray is not None
    return family(deck.deck._ray.pid)


def send(processes: list[psutil.Process], number: int) -> None:
    """A signal to all of them that are still there."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def is_alive(pid: int) -> bool:
    """Whether a process is there; one that nobody has buried is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def maker(deck: DeckUnderTest, name: str, account: str, feed: str, **more: Any) -> Iterator[str]:
    """A market maker that runs."""
    deck.api.post(
        "/algos",
        {"id": name, "strategy": "market-maker", "account": account, "feed": feed, "start": True,
         "instruments": [BTC], "parameters": MAKER, **more},
    )  # fmt: skip
    try:
        yield name
    finally:
        change(deck, HEAD, cordoned=False)
        change(deck, SECOND_NODE, cordoned=False, draining=False)
        deck.api.post(f"/algos/{name}/stop")
        deck.wait(f"the end of {name}", lambda: deck.api.get(f"/algos/{name}")["state"] in ("stopped", "failed"), 60)
        deck.api.delete(f"/algos/{name}")


def trades(deck: DeckUnderTest, algo: str, where: str, beyond: int = 0) -> bool:
    """Whether an algo runs on a machine and has had more orders acknowledged there than ``beyond``."""
    shown = deck.api.get(f"/algos/{algo}")
    live = shown["live"] or {}
    return shown["state"] == "running" and live.get("node") == where and live.get("orders_acked", 0) > beyond


def place_of(deck: DeckUnderTest, name: str) -> tuple[str, int]:
    """The machine and the process of an actor that is ready; ("", 0) for one that is not."""
    seen = deck.actor(name)
    return (seen["node"], seen["pid"]) if seen.get("state") == "ready" else ("", 0)


@contextlib.contextmanager
def watched(deck: DeckUnderTest) -> Iterator[None]:
    """As `quarterdeck up` does: what ends is started again."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            deck.deck.watch()

    thread = threading.Thread(target=watch, name="watch")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(90)

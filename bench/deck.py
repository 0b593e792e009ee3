"""Decks for benchmarks: servers, Ray, and actors made directly; or the whole of it with its API."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cluster.client import ApiClient
from cluster.deck import Deck
from cluster.settings import DeckSettings, environment


class BenchDeck(Deck):
    """Everything but the API."""

    def _start_api(self) -> None:
        os.environ.update(environment(self.settings))

    @property
    def redis_pid(self) -> int:
        """Process of the deck's Redis."""
        if self._redis is None or self._redis.pid is None:
            raise RuntimeError("the deck's Redis does not run")
        return self._redis.pid


@contextlib.contextmanager
def bench_deck() -> Iterator[BenchDeck]:
    """A running deck in a temporary directory; this process is connected to its cluster."""
    home = Path(tempfile.mkdtemp(prefix="qd-bench-"))
    settings = DeckSettings(data_dir=home, ray_port=0)
    settings.database_url = settings.redis_url = ""
    deck = BenchDeck(settings, say=lambda _: None)
    deck.start()
    try:
        # Ray reads its environment when it is imported.
        from cluster import runtime

        runtime.connect(settings)
        try:
            yield deck
        finally:
            runtime.disconnect()
    finally:
        deck.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def whole_deck() -> Iterator[tuple[Deck, ApiClient]]:
    """A running deck with its API in a temporary directory, watched: what ends is started again."""
    home = Path(tempfile.mkdtemp(prefix="qd-bench-"))
    settings = DeckSettings(data_dir=home, api_port=0, ray_port=0)
    settings.database_url = settings.redis_url = ""
    deck = Deck(settings, say=lambda _: None)
    deck.start()
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(deck, over))
    try:
        if deck.admin_key is None:
            raise RuntimeError("a new deck has told no key")
        watch.start()
        api = ApiClient(deck.api_url, deck.admin_key)
        yield deck, api
        api.close()
    finally:
        over.set()
        if watch.is_alive():
            watch.join()
        deck.stop()
        shutil.rmtree(home, ignore_errors=True)


def _watch(deck: Deck, over: threading.Event) -> None:
    while not over.wait(0.2):
        deck.watch()


async def ready(name: str, within_s: float = 60.0) -> int:
    """Wait until an actor says that it is ready; returns its process."""
    from cluster.calls import Peer
    from trading.errors import TradeError

    peer = Peer(name)
    deadline = time.monotonic() + within_s
    said = "nothing"
    while time.monotonic() < deadline:
        try:
            status = await peer.call("status", timeout=2.0, group="health")
            if status.state == "ready":
                return int(status.pid)
            said = f"{status.state}: {status.reason}"
        except TradeError as error:
            said = str(error)
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{name} was not ready within {within_s:g} s; it said: {said}")


def percentile(samples: list[float], q: float) -> float:
    """The q-quantile of samples."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]

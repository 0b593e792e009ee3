"""The common life of all actors: start without failing, beat, answer for their health, stop.

A constructor that raised would end a Ray actor for good, so it does nothing but start `_live` on the loop.
`start` connects and loads; while it raises `NotReady`, `Unreachable` or `NeedsOperator` it is tried again with
backoff and the reason is shown.  `Fenced` anywhere ends the process: a newer incarnation acts now.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import time
import traceback
from collections.abc import Coroutine
from typing import Any

import msgspec

from cluster import process
from cluster.settings import DeckSettings, settings
from storage.bus import Bus, Subscription
from storage.crash_points import take_up_mutation
from storage.database import Database
from storage.hot import Hot
from trading.errors import Fenced, NeedsOperator, NotReady, TradeError, Unreachable

log = logging.getLogger("quarterdeck")


class Status(msgspec.Struct, kw_only=True):
    """An actor's answer to 'how are you'."""

    name: str
    state: str
    reason: str
    epoch: int
    pid: int
    node: str
    #: Seconds since the main loop last came round; the probe runs on a thread of its own.
    heart_age_s: float
    uptime_s: float
    facts: dict[str, Any]


class Shell:
    """Base of all actors."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = "starting"
        self.reason = ""
        self.epoch = 0
        self.deck: DeckSettings = settings()
        self.database = Database(self.deck.database_url, size=2, name=name)
        self.hot = Hot(self.deck.redis_url)
        self._born = time.monotonic()
        self._heart = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()
        process.set_up_logging(name)
        take_up_mutation()
        # Large long-lived books make full collections slow; freeze what start-up left.
        gc.freeze()
        self.spawn(self._beat(), "beat")
        self.spawn(self._live(), "live")

    # To be written by each actor

    async def start(self) -> None:
        """Connect, load, become ready.  Tried again while it raises what heals."""
        raise NotReady("start is written by each actor")

    async def finish(self) -> None:
        """Orderly end of what `start` began."""

    def facts(self) -> dict[str, Any]:
        """What to show of this actor; called on another thread, so read only."""
        return {}

    # Life

    async def _live(self) -> None:
        delay = 0.2
        while True:
            try:
                await self.start()
            except Fenced as error:
                process.end(str(error))
            except (NotReady, Unreachable, NeedsOperator) as error:
                if self.reason != str(error):
                    log.warning("not ready: %s", error)
                self.state, self.reason = "starting", str(error)
                await asyncio.sleep(delay * random.uniform(0.7, 1.3))
                delay = min(delay * 1.7, 5.0)
            else:
                if self.state == "starting":
                    self.state, self.reason = "ready", ""
                log.info("%s, epoch %d", self.state, self.epoch)
                return

    async def _beat(self) -> None:
        while True:
            self._heart = time.monotonic()
            await asyncio.sleep(0.5)

    def spawn(self, work: Coroutine[Any, Any, None], title: str) -> asyncio.Task[None]:
        """Run a task for the life of the actor.

        A task that ends with an error is a bug or a fence: the process ends and comes back from the journal.
        """
        task = asyncio.get_running_loop().create_task(work, name=title)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Fenced):
            process.end(str(error))
        log.error("task %s failed:\n%s", task.get_name(), "".join(traceback.format_exception(error)))
        process.end(f"task {task.get_name()} failed: {error!r}", 1)

    async def stop(self) -> None:
        """Orderly end; the caller then removes the actor."""
        self.state = "stopping"
        await self.finish()
        await self.hot.close()
        await self.database.close()
        self.state = "stopped"

    def require_ready(self) -> None:
        """Raise `NotReady` with the reason while it is not ready."""
        if self.state != "ready":
            raise NotReady(f"{self.name} is {self.state}" + (f": {self.reason}" if self.reason else ""), 1.0)

    def status(self) -> Status:
        """How it is.  In a group of its own, so it answers while the main loop is stuck."""
        return Status(
            name=self.name,
            state=self.state,
            reason=self.reason,
            epoch=self.epoch,
            pid=os.getpid(),
            node=self.deck.node,
            heart_age_s=time.monotonic() - self._heart,
            uptime_s=time.monotonic() - self._born,
            facts=self.facts(),
        )


async def patiently(what: str, work: Any, *, every: float = 1.0) -> None:
    """Run ``work()`` for ever at this pace; trouble that heals is logged once when it comes and once when it goes."""
    broken = ""
    while True:
        try:
            await work()
        except Fenced:
            raise
        except TradeError as error:
            if broken != type(error).__name__:
                log.warning("%s: %s", what, error)
                broken = type(error).__name__
        else:
            if broken:
                log.info("%s: works again", what)
                broken = ""
        await asyncio.sleep(every)


async def listen(bus: Bus, channels: list[str], patterns: list[str], *, size: int = 1024) -> Subscription:
    """Subscribe, waiting for Redis as long as it takes."""
    while True:
        try:
            return await bus.subscribe(channels, patterns, size=size)
        except (NotReady, NeedsOperator) as error:
            log.info("not listening yet: %s", error)
            await asyncio.sleep(1.0)

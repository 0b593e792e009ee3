"""A feed's coordinator: decides which worker carries which instrument, and steers them there.

It owns the assignment.  It keeps nothing across a restart: what is wanted is in the journal, what is carried is
what the workers say.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from actors.shell import Shell
from cluster import names
from cluster.calls import Peer
from cluster.process import now
from storage.desired import Desired
from storage.leases import Leases
from trading.errors import Fenced, TradeError
from trading.feed_plan import Carry, FeedStep, Move, Phase, Release, WorkerReport, next_steps
from trading.ids import Epoch, FeedId, InstrumentId
from trading.sharding import assign

log = logging.getLogger("quarterdeck")

LEASE_S = 10.0
IDLE_S = 0.5
BUSY_S = 0.05


class FeedView(msgspec.Struct, frozen=True, kw_only=True):
    """Where a feed's instruments should be and how far that is done."""

    feed: str
    generation: int
    workers: int
    #: shard -> instruments that should be there.
    assignment: dict[int, tuple[InstrumentId, ...]]
    #: Steps still to take; 0 means that all is where it should be.
    pending_steps: int
    #: Shards beyond the worker count that still carry something: they must not be stopped yet.
    draining: tuple[int, ...]
    #: Shards that do not answer.
    silent: tuple[int, ...]


class FeedCoordinator(Shell):
    """Steers the workers of one feed."""

    def __init__(self, feed: str) -> None:
        self.feed = FeedId(feed)
        super().__init__(names.coordinator(feed))
        self.desired = Desired(self.database)
        self.leases = Leases(self.database)
        self._workers: dict[int, Peer] = {}
        self._poked = asyncio.Event()
        self._view: FeedView | None = None
        self._assignment: dict[int, tuple[InstrumentId, ...]] = {}
        self._began = False

    async def start(self) -> None:
        """Read what is wanted and begin to steer."""
        await self.database.open()
        self.epoch = await self.leases.take(self.name, self.deck.node, LEASE_S)
        await self.desired.feed(self.feed)
        if not self._began:
            self._began = True
            self.spawn(self._steer(), "steer")

    async def poke(self) -> None:
        """The desired state changed."""
        self._poked.set()

    async def view(self) -> FeedView | None:
        """The last look at the feed."""
        return self._view

    async def _steer(self) -> None:
        trouble = ""
        while True:
            busy = False
            try:
                busy = await self._round()
                trouble = ""
            except Fenced:
                raise
            except TradeError as error:
                if type(error).__name__ != trouble:
                    log.warning("a round was cut short: %s", error)
                    trouble = type(error).__name__
            self._poked.clear()
            try:
                async with asyncio.timeout(BUSY_S if busy else IDLE_S):
                    await self._poked.wait()
            except TimeoutError:
                pass

    async def _round(self) -> bool:
        """One look and the steps it calls for; True while there is more to do soon."""
        await self.leases.renew(self.name, Epoch(self.epoch), LEASE_S)
        record = await self.desired.feed(self.feed)
        wanted_workers = record.workers if record.enabled else 0
        extra = [s for s in self._workers if s >= wanted_workers]
        reports: dict[int, WorkerReport] = {}
        silent = []
        shards = sorted({*range(wanted_workers), *extra})
        answers = await asyncio.gather(*(self._ask(s) for s in shards))
        for shard, answer in zip(shards, answers, strict=True):
            if answer is not None:
                reports[shard] = answer
            elif shard < wanted_workers:
                silent.append(shard)
            else:
                del self._workers[shard]
        if wanted_workers:
            self._assignment = assign(self._current(reports, wanted_workers), record.instruments, wanted_workers)
        else:
            self._assignment = {}
        steps = next_steps(self._assignment, reports, now())
        self._view = FeedView(
            feed=self.feed,
            generation=record.generation,
            workers=wanted_workers,
            assignment=self._assignment,
            pending_steps=len(steps),
            draining=tuple(s for s in reports if s >= wanted_workers and reports[s].carried),
            silent=tuple(silent),
        )
        await self.hot.put(f"feed:{self.feed}", self._view, ttl_s=30)
        for step in steps:
            await self._take(step)
        moving = any(how.phase is not Phase.LIVE for r in reports.values() for how in r.carried.values())
        return bool(steps) or moving

    def _current(self, reports: dict[int, WorkerReport], workers: int) -> dict[int, list[InstrumentId]]:
        """Where instruments are, or were meant to be: moves under way must not be decided anew each round."""
        current: dict[int, list[InstrumentId]] = {s: list(mine) for s, mine in self._assignment.items() if s < workers}
        placed = {i for mine in current.values() for i in mine}
        for shard, report in reports.items():
            for instrument, how in report.carried.items():
                if instrument not in placed and shard < workers and how.phase is Phase.LIVE:
                    current.setdefault(shard, []).append(instrument)
                    placed.add(instrument)
        return current

    async def _ask(self, shard: int) -> WorkerReport | None:
        worker = self._workers.setdefault(shard, Peer(names.worker(self.feed, shard)))
        try:
            report: WorkerReport = await worker.call("report", timeout=2.0)
        except TradeError:
            return None
        return report

    async def _take(self, step: FeedStep) -> None:
        match step:
            case Carry(shard, instruments, muted):
                await self._workers[shard].call("carry", instruments, muted, timeout=30.0)
            case Release(shard, instruments):
                await self._workers[shard].call("release", instruments, timeout=30.0)
            case Move(instrument, source, target, firsts):
                cuts = {}
                if source is not None:
                    cuts = await self._workers[source].call("cut", instrument, firsts, timeout=5.0)
                await self._workers[target].call("activate", instrument, cuts, timeout=5.0)

    def facts(self) -> dict[str, Any]:
        view = self._view
        if view is None:
            return {}
        return {
            "workers": view.workers,
            "pending_steps": view.pending_steps,
            "draining": list(view.draining),
            "silent": list(view.silent),
        }

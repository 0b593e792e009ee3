"""A feed's coordinator: drives `trading.feed_mesh`, which decides who carries what.

It owns the assignment.  It keeps nothing across a restart: what is wanted is in the journal, what is carried is
what the workers say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Iterable, Sequence
from typing import Any

import msgspec

from actors.feed_fence import FENCE_S
from actors.shell import Shell, patiently
from cluster import catalog, names, runtime
from cluster.calls import Peer
from cluster.feeds import capacity_of, fence_key, subscriptions_of
from cluster.names import Kind
from cluster.process import elapsed, now
from storage.desired import Desired
from storage.leases import Leases
from storage.records import FeedRecord
from storage.wishes import Wishes
from trading.errors import BadInput, Fenced, TradeError, Unreachable
from trading.feed_mesh import FeedMesh, Fence, MeshStep, MeshView
from trading.feed_plan import Carry, Move, Release, Retune, WorkerReport
from trading.handover import Cuts
from trading.ids import Epoch, FeedId, InstrumentId
from trading.subscriptions import Channels

log = logging.getLogger("quarterdeck")

LEASE_S = 10.0
RENEW_EVERY_S = 2.0
#: Between rounds while there is nothing to do, and the least while there is.
IDLE_S = 0.5
BUSY_S = 0.02
#: A worker that answered the last time may take so long, one that did not so long: others wait for it.
ANSWER_S = 1.0
SILENT_ANSWER_S = 0.4
STEP_S = 3.0
#: How often the cluster is asked which workers have a process.
RUNNING_EVERY_S = 2.0
#: An unchanged view is written again after so long.
SHOW_EVERY_S = 5.0
VIEW_TTL_S = 30.0


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
    #: Shards that do not answer; those given up; those that ran before and have told nothing yet.
    silent: tuple[int, ...]
    gone: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()
    #: On the way from one worker to another.
    moving: tuple[InstrumentId, ...] = ()
    #: Carried by nobody: about to be, or there is no room.
    uncarried: tuple[InstrumentId, ...] = ()
    stranded: tuple[InstrumentId, ...] = ()
    #: Instruments with the shard for which the provider passed them over in silence.
    passed_over: tuple[tuple[InstrumentId, int], ...] = ()
    #: Instruments wanted by anybody, and how many fit besides on the workers that are there.
    wanted: int = 0
    spare: int = 0
    #: Moves done since this coordinator began.
    moves: int = 0
    #: Why what is wanted cannot be had; it goes on with what was wanted before.
    trouble: str = ""


class FeedCoordinator(Shell):
    """Steers the workers of one feed."""

    def __init__(self, feed: str) -> None:
        self.feed = FeedId(feed)
        super().__init__(names.coordinator(feed))
        self.desired = Desired(self.database)
        self.wishes = Wishes(self.database)
        self.leases = Leases(self.database)
        self._peers: dict[int, Peer] = {}
        self._poked = asyncio.Event()
        self._mesh: FeedMesh | None = None
        self._record: FeedRecord | None = None
        self._wanted: dict[InstrumentId, Channels] = {}
        self._version = -1
        #: None: nothing can be decided before it is known.
        self._running: frozenset[int] | None = None
        self._renewed_at = float("-inf")
        self._answered: set[int] = set()
        #: Workers whose processes are known to have ended: to fence them takes no waiting.
        self._ended: set[int] = set()
        self._moves = 0
        self._trouble = ""
        self._view: FeedView | None = None
        self._shown: tuple[float, FeedView | None] = (0.0, None)
        self._began = False

    async def start(self) -> None:
        """Read what is wanted and begin to steer."""
        await self.database.open()
        self.epoch = await self.leases.take(self.name, self.deck.node, LEASE_S)
        await self.desired.feed(self.feed)
        if not self._began:
            self._began = True
            self.spawn(self._steer(), "steer")
            self.spawn(self._watch(), "desired state")
            self.spawn(patiently("processes", self._look_for_processes, every=RUNNING_EVERY_S), "processes")

    async def poke(self) -> None:
        """The desired state changed."""
        self._poked.set()

    async def view(self) -> FeedView | None:
        """The last look at the feed."""
        return self._view

    async def _watch(self) -> None:
        async for _ in self.desired.changes():
            self._poked.set()

    async def _steer(self) -> None:
        trouble = ""
        pause = IDLE_S
        before: FeedView | None = None
        while True:
            try:
                await self._round()
                trouble = ""
            except Fenced:
                raise
            except TradeError as error:
                if type(error).__name__ != trouble:
                    log.warning("a round was cut short: %s", error)
                    trouble = type(error).__name__
            view = self._view
            is_busy = view is not None and bool(view.pending_steps or view.moving)
            if trouble or not is_busy:
                pause = IDLE_S
            else:
                # What waits for others, such as for a first tick, is looked at ever more seldom.
                pause = BUSY_S if view != before else min(2 * pause, IDLE_S)
            before = view
            self._poked.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._poked.wait()
            except TimeoutError:
                pass

    async def _round(self) -> None:
        """One look and the steps that it calls for."""
        if elapsed() - self._renewed_at > RENEW_EVERY_S:
            await self.leases.renew(self.name, Epoch(self.epoch), LEASE_S)
            self._renewed_at = elapsed()
        await self._read()
        record, mesh = self._record, self._mesh
        if record is None or mesh is None or self._running is None:
            return
        try:
            mesh.want(self._wanted, record.workers if record.enabled else 0, self._running)
        except BadInput as error:
            self._complain(str(error))
            if not mesh.has_begun:
                return  # with nothing wanted it would let everything go
        await self._hear(mesh)
        steps, view = mesh.look(now())
        await self._show(record, view)
        await self._take(mesh, steps)

    async def _read(self) -> None:
        """What is wanted, where it has changed."""
        version = await self.desired.version()
        if version == self._version:
            return
        record, wishes = await self.wishes.read(self.feed)
        limits = await catalog.feed_limits(record.provider, record.settings)
        self._record = record
        try:
            self._wanted = subscriptions_of(record, wishes, limits).wanted()
        except BadInput as error:
            self._complain(str(error))
        else:
            self._trouble = ""
            if self._mesh is None:
                self._mesh = FeedMesh(capacity_of(record.provider, limits))
            self._mesh.capacity = capacity_of(record.provider, limits)
        self._version = version

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("what is wanted cannot be had: %s", trouble)
            self._trouble = trouble

    async def _look_for_processes(self) -> None:
        """Which workers have a process.  While the Ray head is away it waits here: what ran goes on running."""
        found = await asyncio.to_thread(runtime.running)
        mine = (name for name in found if name.kind is Kind.WORKER and name.id == self.feed)
        self._running = frozenset(name.number for name in mine if name.number is not None)

    async def _hear(self, mesh: FeedMesh) -> None:
        shards = mesh.shards()
        for shard, answer in zip(shards, await asyncio.gather(*map(self._ask, shards)), strict=True):
            if isinstance(answer, WorkerReport):
                self._ended.discard(shard)
                mesh.heard(answer, now())
            elif answer is None:
                # There is a process, and it is a new one that carries nothing.
                self._ended.add(shard)
                mesh.starting(shard)
                mesh.lost(shard)

    async def _ask(self, shard: int) -> WorkerReport | TradeError | None:
        within = ANSWER_S if shard in self._answered else SILENT_ANSWER_S
        try:
            # The limit is for looking the name up, too.
            async with asyncio.timeout(within):
                report: WorkerReport | None = await self._peer(shard).call("report", timeout=within)
        except TimeoutError:
            self._answered.discard(shard)
            return Unreachable(names.worker(self.feed, shard), f"no answer within {within:g} s")
        except TradeError as error:
            self._answered.discard(shard)
            return error
        self._answered.add(shard)
        return report

    def _peer(self, shard: int) -> Peer:
        return self._peers.setdefault(shard, Peer(names.worker(self.feed, shard)))

    async def _show(self, record: FeedRecord, view: MeshView) -> None:
        self._view = FeedView(
            feed=self.feed,
            generation=record.generation,
            workers=view.workers,
            assignment=view.assignment,
            pending_steps=view.steps,
            draining=view.draining,
            silent=view.silent,
            gone=view.gone,
            unknown=view.unknown,
            moving=view.moving,
            uncarried=view.uncarried,
            stranded=view.stranded,
            passed_over=view.passed_over,
            wanted=len(self._wanted),
            spare=view.spare,
            moves=self._moves,
            trouble=self._trouble,
        )
        at, shown = self._shown
        if shown != self._view or elapsed() - at > SHOW_EVERY_S:
            try:
                await self.hot.put(f"feed:{self.feed}", self._view, ttl_s=VIEW_TTL_S)
            except TradeError as error:
                log.debug("the view was not kept: %s", error)
            else:
                self._shown = (elapsed(), self._view)

    # Doing

    async def _take(self, mesh: FeedMesh, steps: Sequence[MeshStep]) -> None:
        """Carry steps out: first all fences, for until those are done nobody else may publish what they had."""
        for step in steps:
            if isinstance(step, Fence):
                await self._fence(step)
                mesh.fenced(step)
        await _all(self._carry(step) for step in steps if isinstance(step, Carry))
        await _all(self._retune(step) for step in steps if isinstance(step, Retune))
        moves: dict[tuple[int | None, int], list[Move]] = {}
        for step in steps:
            if isinstance(step, Move):
                moves.setdefault((step.source, step.target), []).append(step)
        await _all(self._move(source, target, mine) for (source, target), mine in moves.items())
        await _all(self._release(step) for step in steps if isinstance(step, Release))

    async def _fence(self, step: Fence) -> None:
        """End a worker's lease and see to it that it publishes nothing more, whether or not it can be reached."""
        name = names.worker(self.feed, step.shard)
        over = await self.leases.end(name, step.epoch, self.name)
        log.warning("%s is gone: its epochs up to %d are over", name, over)
        await self.hot.put(fence_key(name), int(over), ttl_s=86_400)
        if step.shard not in self._ended:
            # It looks for its fence before it publishes on a look that is older than this.
            await asyncio.sleep(FENCE_S * 1.1)

    async def _carry(self, step: Carry) -> None:
        await self._peer(step.shard).call("carry", step.instruments, step.muted, step.channels, timeout=STEP_S)

    async def _retune(self, step: Retune) -> None:
        await self._peer(step.shard).call("retune", step.instruments, step.channels, timeout=STEP_S)

    async def _release(self, step: Release) -> None:
        await self._peer(step.shard).call("release", step.instruments, timeout=STEP_S)

    async def _move(self, source: int | None, target: int, moves: Collection[Move]) -> None:
        cuts: dict[InstrumentId, Cuts]
        if source is None:
            cuts = {move.instrument: {} for move in moves}
        else:
            firsts = {move.instrument: move.firsts for move in moves}
            cuts = await self._peer(source).call("cut", firsts, timeout=STEP_S)
        if cuts:
            await self._peer(target).call("activate", cuts, timeout=STEP_S)
            self._moves += len(cuts)

    def facts(self) -> dict[str, Any]:
        view = self._view
        if view is None:
            return {}
        return {
            "workers": view.workers,
            "pending_steps": view.pending_steps,
            "draining": list(view.draining),
            "silent": list(view.silent),
            "gone": list(view.gone),
            "moves": view.moves,
        }


async def _all(calls: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Make calls at once; one that fails holds up no other, and its step is named again in the next round."""
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, Fenced) or (isinstance(outcome, BaseException) and not isinstance(outcome, TradeError)):
            raise outcome
        if isinstance(outcome, TradeError):
            log.info("a step was not taken: %s", outcome)

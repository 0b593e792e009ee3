"""The Supervisor: makes what is desired so.  The only creator of actors.

The deciding is `cluster.reconcile`; here are the looking and the doing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import msgspec

from actors.fitness import Fitness
from actors.shell import Shell, Status, patiently
from cluster import names, runtime
from cluster.calls import Peer
from cluster.names import ActorName, Kind
from cluster.process import now
from cluster.reconcile import (
    BLOCKED_S,
    Action,
    Capacity,
    Desired,
    Fence,
    Memory,
    Observed,
    Remove,
    Seen,
    ShowAlgo,
    Spawn,
    StartAlgo,
    StopAlgo,
    reconcile,
    until_given_up,
    wanted_actors,
)
from cluster.specs import ActorSpec
from storage import desired as desired_state
from storage.journal import Journal
from storage.leases import Leases
from trading.errors import Conflict, Fenced, NotReady, TradeError, Unreachable
from trading.ids import AlgoId, Epoch, Nanos, NodeName

log = logging.getLogger("quarterdeck")

LEASE_S = 10.0
ROUND_S = 0.5
STOP_S = 15.0
#: Patience with an actor that is asked how it is; less with one that gave no answer last time, for all wait for it.
ANSWER_S = 2.0
STILL_SILENT_S = 1.0
LEAST_S = 0.3


class ActorView(msgspec.Struct, frozen=True, kw_only=True):
    """One actor as the Supervisor last saw it."""

    name: str
    answers: bool
    state: str
    reason: str
    node: str
    pid: int
    epoch: int
    heart_age_s: float
    facts: dict[str, Any]


class ClusterView(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster as the Supervisor last saw it."""

    at: Nanos
    epoch: int
    nodes: tuple[str, ...]
    actors: tuple[ActorView, ...]
    #: Actors that should run and do not answer as ready.
    missing: tuple[str, ...]
    #: Machines that get no algos, each with the reason.
    unfit: dict[NodeName, str]
    #: Of these, the ones for which there is no machine, and why not.
    waiting: dict[str, str] = {}


class Supervisor(Shell):
    """Desired against actual."""

    def __init__(self, _id: str = "main") -> None:
        super().__init__(names.supervisor())
        self.desired = desired_state.Desired(self.database)
        self.leases = Leases(self.database)
        self.journal = Journal(self.database)
        self.memory = Memory()
        self._peers: dict[ActorName, Peer] = {}
        self._poked = asyncio.Event()
        self._news = asyncio.Event()
        self._observed: Observed | None = None
        self._version = -1
        self._stopping: set[ActorName] = set()
        self._fitness = Fitness()
        self._began = False

    async def start(self) -> None:
        """Take an epoch and begin to reconcile."""
        await self.database.open()
        self.epoch = await self.leases.take(self.name, self.deck.node, LEASE_S)
        if not self._began:
            self._began = True
            self.spawn(self._rounds(), "rounds")
            self.spawn(self._watch(), "desired state")
            self.spawn(self._spread_the_word(), "news")
            self.spawn(patiently("lease", self._renew, every=LEASE_S / 5), "lease")

    async def poke(self) -> None:
        """The desired state changed: look at once."""
        self._poked.set()

    async def _renew(self) -> None:
        await self.leases.renew(self.name, Epoch(self.epoch), LEASE_S)

    async def _watch(self) -> None:
        async for _ in self.desired.changes():
            self._poked.set()

    async def _rounds(self) -> None:
        trouble = ""
        while True:
            self._poked.clear()
            try:
                await self._round()
                trouble = ""
            except Fenced:
                raise
            except TradeError as error:
                if type(error).__name__ != trouble:
                    log.warning("a round was cut short: %s", error)
                    trouble = type(error).__name__
            try:
                async with asyncio.timeout(self._within(ROUND_S)):
                    await self._poked.wait()
            except TimeoutError:
                pass

    def _within(self, seconds: float) -> float:
        """So long, or until a machine that is silent now can be given up."""
        due = until_given_up(self.memory, now())
        return seconds if due is None else min(seconds, max(LEAST_S, due / 1e9))

    async def _round(self) -> None:
        version = await self.desired.version()
        news = version != self._version
        wanted = Desired(
            accounts=tuple(await self.desired.accounts()),
            feeds=tuple(await self.desired.feeds()),
            algos=tuple(await self.desired.algos()),
            nodes=tuple(await self.desired.nodes()),
        )
        found = await asyncio.to_thread(runtime.running)
        nodes = await asyncio.to_thread(runtime.nodes)
        asked_at = now()
        statuses = await asyncio.gather(*(self._probe(name) for name in found))
        told = {
            NodeName(name.id): status.facts for name, status in zip(found, statuses, strict=True)
            if name.kind is Kind.NODE and status is not None
        }  # fmt: skip
        observed = Observed(
            actors=dict(zip(found, (_seen(n, s) for n, s in zip(found, statuses, strict=True)), strict=True)),
            nodes=tuple(sorted({NodeName(n.name) for n in nodes if n.alive and n.name})),
            head=NodeName(self.deck.node),
            capacities=_capacities(found, statuses),
            unfit=await self._fitness.judge([NodeName(n.name) for n in nodes if n.alive and n.name], told),
            asked_at=asked_at,
        )
        actions = reconcile(wanted, observed, self.memory, now())
        await self._show(found, statuses, observed, wanted_actors(wanted, observed.nodes))
        for action in actions:
            await self._take(action)
        await self._take_back_orders(wanted, observed)
        self._observed = observed
        if news and self._version >= 0:
            self._news.set()
        self._version = version

    async def _take_back_orders(self, wanted: Desired, observed: Observed) -> None:
        """Cancel what algos left open that have ended and could not do it themselves.

        Such an algo was blocked, killed or crashed too often.  Awaited, so that none of them is started meanwhile.
        """
        alive = {name.id for name in observed.actors if name.kind is Kind.ALGO}
        going_on = {
            algo.id
            for algo in wanted.algos
            if algo.state not in ("stopped", "failed")
            # About to be started, and to take up what it left open.
            or (algo.state == "stopped" and algo.want == "running")
            # Left open as asked, also where its process died before it could stop.
            or (algo.want == "stopped" and algo.stop_orders == "leave")
        }
        users = {account.id: account.user for account in wanted.accounts}
        left = [
            (account, algo)
            for account, algo in await self.journal.algos_with_open_orders()
            if algo not in alive and algo not in going_on and account in users
        ]
        calls = [
            self._peers.setdefault(session, Peer(str(session))).call(
                "cancel_all", account, algo, f"{self.name}: algo {algo} has ended", timeout=2.0
            )
            for account, algo in left
            for session in (ActorName(Kind.SESSION, users[account]),)
        ]
        for (account, algo), outcome in zip(left, await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(outcome, TradeError):
                log.debug("open orders of %s in %s are not cancelled yet: %s", algo, account, outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                log.info("open orders that %s left in %s are being cancelled", algo, account)

    async def _probe(self, name: ActorName) -> Status | None:
        peer = self._peers.setdefault(name, Peer(str(name)))
        if name.kind is Kind.SUPERVISOR:
            return self.status()
        patience = self._within(STILL_SILENT_S) if name in self.memory.silent else ANSWER_S
        try:
            status: Status = await peer.call("status", timeout=patience, group="health")
        except TradeError:
            return None
        return status

    async def _spread_the_word(self) -> None:
        """Tell those who keep a copy of the desired state; they would see it by themselves a little later.

        Beside the rounds: one whose loop is blocked must not hold up what is to be done for others.
        """
        method = {Kind.COORDINATOR: "poke", Kind.SESSION: "refresh", Kind.CONNECTION: "refresh", Kind.RISK: "refresh"}
        while True:
            await self._news.wait()
            self._news.clear()
            actors = self._observed.actors if self._observed is not None else {}
            calls = [
                self._peers.setdefault(name, Peer(str(name))).call(method[name.kind], timeout=5.0)
                for name, seen in actors.items()
                if name.kind in method and seen.state == "ready" and seen.heart_age_s < BLOCKED_S
            ]
            for outcome in await asyncio.gather(*calls, return_exceptions=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, TradeError):
                    raise outcome

    async def _take(self, action: Action) -> None:
        match action:
            case Spawn(spec):
                await self._spawn(spec)
            case StartAlgo(algo, node):
                await self._start_algo(algo.id, node)
            case StopAlgo(name, reason):
                self._end(name, reason, gently=True)
            case Remove(name, reason, False) if name.kind is not Kind.ALGO:
                # At once, so that another of the same name can be created in this very round.
                log.info("removing %s: %s", name, reason)
                await asyncio.to_thread(runtime.kill, name)
                self._peers.pop(name, None)
            case Remove(name, reason, gently):
                self._end(name, reason, gently=gently)
            case Fence(algo, reason):
                epoch = await self.desired.new_algo_epoch(algo.id)
                try:
                    await self.desired.set_algo_state(algo.id, epoch, "waiting", reason)
                except Fenced:
                    self._poked.set()  # as below; it is fenced all the same
            case ShowAlgo(algo, state, reason):
                if (algo.state, algo.reason) != (state, reason):
                    try:
                        await self.desired.set_algo_state(algo.id, algo.epoch, state, reason)
                    except Fenced:
                        self._poked.set()  # it was given a new epoch meanwhile; look again

    async def _spawn(self, spec: ActorSpec) -> None:
        if spec.name in self._stopping:
            return  # it bears the name of one that is being ended, and would be ended in its place
        log.info("creating %s", spec.name)
        try:
            await asyncio.to_thread(runtime.spawn, spec)
        except Conflict:
            log.info("%s exists already", spec.name)
            return  # the next round sees it, or creates it once what bore the name is gone
        self.memory.created[spec.name] = now()

    async def _start_algo(self, algo: AlgoId, node: NodeName) -> None:
        epoch = await self.desired.new_algo_epoch(algo, node)
        await self.desired.set_algo_state(algo, epoch, "starting", f"on node {node}")
        name = ActorName(Kind.ALGO, algo, epoch)
        await self._spawn(ActorSpec(name=name, args=(algo, int(epoch)), node=node))

    def _end(self, name: ActorName, reason: str, *, gently: bool) -> None:
        """Stop and remove an actor in the background; once for each."""
        if name not in self._stopping:
            self._stopping.add(name)
            log.info("removing %s: %s", name, reason)
            self.spawn(self._stop(name, gently), f"stop {name}")

    async def _stop(self, name: ActorName, gently: bool) -> None:
        try:
            if not (gently and await self._asked_to_stop(name)) and name.kind is Kind.ALGO:
                await self._fence(AlgoId(name.id), Epoch(name.number or 0))
            await asyncio.to_thread(runtime.kill, name)
            self._peers.pop(name, None)
            self._poked.set()
        except NotReady as error:
            log.info("%s is removed in a later round: %s", name, error)
        finally:
            self._stopping.discard(name)

    async def _asked_to_stop(self, name: ActorName) -> bool:
        """Whether it has ended in order."""
        try:
            await self._peers.setdefault(name, Peer(str(name))).call("stop", timeout=STOP_S)
        except Unreachable as error:
            log.warning("%s did not stop by itself: %s", name, error)
        except TradeError as error:
            log.info("%s: %s", name, error)
        else:
            return True
        return False

    async def _fence(self, algo: AlgoId, epoch: Epoch) -> None:
        """Before one that has not ended by itself is shown as ended: it may be out of reach, and trade on."""
        while True:
            try:
                await self.desired.fence_algo(algo, epoch)
            except NotReady as error:
                log.info("%s is fenced once the database is back: %s", algo, error)
                await asyncio.sleep(1.0)
            else:
                return

    async def _show(
        self,
        found: set[ActorName],
        statuses: list[Status | None],
        observed: Observed,
        wanted: Iterable[ActorName],
    ) -> None:
        views = [
            ActorView(
                name=str(name),
                answers=status is not None,
                state=status.state if status else "silent",
                reason=status.reason if status else "no answer",
                node=status.node if status else "",
                pid=status.pid if status else 0,
                epoch=status.epoch if status else 0,
                heart_age_s=round(status.heart_age_s, 3) if status else 0.0,
                facts=status.facts if status else {},
            )
            for name, status in zip(found, statuses, strict=True)
        ]
        view = ClusterView(
            at=now(),
            epoch=self.epoch,
            nodes=observed.nodes,
            unfit=observed.unfit,
            actors=tuple(sorted(views, key=lambda v: v.name)),
            missing=tuple(sorted({str(name) for name in wanted} - {v.name for v in views if v.state == "ready"})),
            waiting=dict(sorted((str(name), why) for name, why in self.memory.waiting.items())),
        )
        try:
            await self.hot.put("cluster", view, ttl_s=30)
        except TradeError as error:
            log.debug("the view was not kept: %s", error)

    def facts(self) -> dict[str, Any]:
        return {"stopping": len(self._stopping)}


def _capacities(found: Iterable[ActorName], statuses: Iterable[Status | None]) -> dict[NodeName, Capacity]:
    """What the machines' agents say that there is."""
    return {
        NodeName(name.id): Capacity(cpus=status.facts["cpus"], memory_mb=status.facts["memory_for_algos_mb"])
        for name, status in zip(found, statuses, strict=True)
        if name.kind is Kind.NODE and status is not None and "memory_for_algos_mb" in status.facts
    }


def _seen(name: ActorName, status: Status | None) -> Seen:
    if status is None:
        return Seen(name=name, answers=False)
    return Seen(
        name=name,
        answers=True,
        state=status.state,
        reason=status.reason,
        heart_age_s=status.heart_age_s,
        generation=int(status.facts.get("generation", 0)),
        memory_mb=int(status.facts.get("memory_mb", 0)),
        over_cpu=bool(status.facts.get("over_cpu", False)),
        cpu_share=float(status.facts.get("cpu_share") or 0.0),
        busy=bool(status.facts.get("instruments", 0) or status.facts.get("owed", 0)),
        node=NodeName(status.node),
    )

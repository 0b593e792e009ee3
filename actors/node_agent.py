"""A machine's agent: registers it, tells how it is, keeps a row a minute of that."""

from __future__ import annotations

import asyncio
import platform
from collections import deque
from typing import Any, Final

from actors.egress import EgressWatch
from actors.node_facts import Look
from actors.shell import Shell, patiently
from cluster import names
from cluster.node_facts import ALGO_TITLE, KEPT_S, ClockFacts, NodeFacts, minute_of
from cluster.node_health import told_at
from cluster.process import now
from storage.desired import Desired
from storage.node_history import MINUTE, Minute, NodeHistory
from storage.records import NodeRecord
from trading.ids import Nanos, NodeName

CLOCK_EVERY_S: Final = 10.0
KEEP_EVERY_S: Final = 5.0
#: Minutes that wait while PostgreSQL is away; older ones are lost.
WAITING_MINUTES: Final = 180


class NodeAgent(Shell):
    """Facts about one machine."""

    def __init__(self, node: str) -> None:
        self.node = NodeName(node)
        self._last: NodeFacts | None = None
        super().__init__(names.node(node))
        self.desired = Desired(self.database)
        self.history = NodeHistory(self.database)
        self.egress = EgressWatch(self.deck.egress_services)
        self._look: Look | None = None
        #: Looks of the minute that goes on, and minutes that are to be written.
        self._minute = Nanos(0)
        self._looks: list[NodeFacts] = []
        self._waiting: deque[Minute] = deque(maxlen=WAITING_MINUTES)
        self._began = False

    async def start(self) -> None:
        """Register the machine and begin to tell."""
        await self.database.open()
        found = NodeRecord(name=self.node, labels={"host": platform.node()}, registered_at=now())
        await self.desired.register_node(found, by=self.name)
        if not self._began:
            self._look = Look(self.node, self.deck.home)
            # First, so that what is told has the clock with it from the start.
            await self._measure_clock()
            self._began = True
            self.spawn(patiently("facts", self._tell, every=1.0), "facts")
            self.spawn(patiently("clock", self._measure_clock, every=CLOCK_EVERY_S), "clock")
            self.spawn(patiently("history", self._keep, every=KEEP_EVERY_S), "history")
            self.spawn(self.egress.run(), "egress")

    async def _measure_clock(self) -> None:
        skew = await self.history.skew()
        assert self._look is not None
        self._look.clock = ClockFacts(
            skew_ms=round(skew.ns / 1e6, 3), error_ms=round(skew.error_ns / 1e6, 3), measured_at=now()
        )

    async def _tell(self) -> None:
        assert self._look is not None
        self._look.egress = self.egress.found
        self._last = facts = await asyncio.to_thread(self._look.look)
        self._gather(facts)
        await self.hot.put(f"node:{self.node}", facts, ttl_s=KEPT_S)

    def _gather(self, facts: NodeFacts) -> None:
        at = told_at(facts)
        minute = Nanos(at - at % MINUTE)
        if minute != self._minute and self._looks:
            self._waiting.append(Minute(at=self._minute, metrics=minute_of(self._looks)))
            self._looks = []
        self._minute = minute
        self._looks.append(facts)

    async def _keep(self) -> None:
        waiting = list(self._waiting)
        await self.history.append(self.node, waiting)
        for each in waiting:
            if self._waiting and self._waiting[0] == each:
                self._waiting.popleft()

    def facts(self) -> dict[str, Any]:
        last = self._last
        if last is None:
            return {}
        algos = sum(each.memory_mb for each in last.processes if each.title == ALGO_TITLE)
        return {
            "cpu_percent": last.cpu_percent,
            "processes": len(last.processes),
            "cpus": last.cpus,
            # What algos take is counted by what was promised to them.
            "memory_for_algos_mb": last.memory_total_mb - last.memory_used_mb + int(algos),
            "code": last.code,
            "waiting_minutes": len(self._waiting),
        }

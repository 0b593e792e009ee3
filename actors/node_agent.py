"""A machine's agent: registers it, tells how it is."""

from __future__ import annotations

import asyncio
import platform
import time
from typing import Any

import msgspec
import psutil

from actors.shell import Shell, patiently
from cluster import names
from cluster.process import now
from storage.desired import Desired
from storage.records import NodeRecord
from trading.ids import Nanos, NodeName

#: What Ray calls a process that hosts an algo.
ALGO_TITLE = "AlgoHost"


class ProcessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One of our processes on the machine."""

    pid: int
    title: str
    memory_mb: float
    descriptors: int
    cpu_s: float


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How a machine is."""

    name: str
    at: Nanos
    host: str
    cpus: int
    cpu_percent: float
    load: tuple[float, float, float]
    memory_total_mb: int
    memory_used_mb: int
    disk_free_mb: int
    python: str
    platform: str
    uptime_s: int
    processes: tuple[ProcessFacts, ...]


class NodeAgent(Shell):
    """Facts about one machine."""

    def __init__(self, node: str) -> None:
        self.node = NodeName(node)
        super().__init__(names.node(node))
        self.desired = Desired(self.database)
        self._last: NodeFacts | None = None
        self._began = False

    async def start(self) -> None:
        """Register the machine and begin to tell."""
        await self.database.open()
        found = NodeRecord(name=self.node, labels={"host": platform.node()}, registered_at=now())
        await self.desired.register_node(found, by=self.name)
        if not self._began:
            self._began = True
            psutil.cpu_percent()
            self.spawn(patiently("facts", self._tell, every=1.0), "facts")

    async def _tell(self) -> None:
        self._last = await asyncio.to_thread(self._look)
        await self.hot.put(f"node:{self.node}", self._last, ttl_s=15)

    def _look(self) -> NodeFacts:
        memory = psutil.virtual_memory()
        return NodeFacts(
            name=self.node,
            at=now(),
            host=platform.node(),
            cpus=psutil.cpu_count() or 1,
            cpu_percent=psutil.cpu_percent(),
            load=psutil.getloadavg(),
            memory_total_mb=memory.total >> 20,
            memory_used_mb=(memory.total - memory.available) >> 20,
            disk_free_mb=psutil.disk_usage(str(self.deck.home.anchor)).free >> 20,
            python=platform.python_version(),
            platform=platform.platform(),
            uptime_s=int(time.time() - psutil.boot_time()),
            processes=tuple(self._processes()),
        )

    def _processes(self) -> list[ProcessFacts]:
        """Actors of this node: the children of the raylet that started us."""
        found = []
        raylet = psutil.Process().parent()
        if raylet is None:
            return []
        for process in raylet.children():
            try:
                with process.oneshot():
                    title = " ".join(process.cmdline())[:80]
                    if not title.startswith("ray::"):
                        continue
                    found.append(
                        ProcessFacts(
                            pid=process.pid,
                            title=title[5:].split(".")[0],
                            memory_mb=round(process.memory_info().rss / 2**20, 1),
                            descriptors=process.num_fds(),
                            cpu_s=round(sum(process.cpu_times()[:2]), 2),
                        )
                    )
            except psutil.Error:
                continue  # it ended while we looked
        return found

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
        }

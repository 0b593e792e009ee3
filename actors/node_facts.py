"""Looks at this machine: what the kernel says of it and of our processes on it.

Called on a thread, once a second; what changes seldom (sensors, code) is looked at less often.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import psutil

from cluster.code_version import CodeVersion, installed, version
from cluster.node_facts import ClockFacts, Egress, NetworkFacts, NodeFacts, ProcessFacts, Temperature
from cluster.process import now
from trading.ids import NodeName

#: What must be alike on all machines, or explains why one behaves otherwise.
PACKAGES: Final = (
    "quarterdeck", "ray", "numpy", "msgspec", "psycopg", "redis", "hiredis", "pyarrow", "uvloop", "websockets",
    "httpx", "pydantic", "psutil", "cryptography",
)  # fmt: skip
SELDOM_S: Final = 30.0
#: Programs of Ray and of the deck beside actors: what their command line contains, and what they are shown as.
_PROGRAMS: Final = (
    ("gcs_server", "gcs_server"),
    ("raylet/raylet", "raylet"),
    ("log_monitor.py", "log_monitor"),
    ("dashboard/agent.py", "ray_agent"),
    ("runtime_env/agent", "ray_agent"),
    ("monitor.py", "monitor"),
    ("ray.scripts.scripts", "ray_start"),
    ("-m api", "api"),
    ("-m cluster", "quarterdeck"),
    ("bin/quarterdeck", "quarterdeck"),
)


class Look:
    """What is remembered from one look to the next."""

    def __init__(self, node: NodeName, home: Path) -> None:
        self.node = node
        #: Told by others: found over the network.
        self.clock: ClockFacts | None = None
        self.egress: Egress | None = None
        self._home = home
        self._processes = Processes()
        self._network: tuple[float, Mapping[str, tuple[int, ...]]] = (0.0, {})
        self._packages = installed(PACKAGES)
        self._code = CodeVersion()
        self._seldom_at = float("-inf")
        self._code_now = ""
        self._temperature: Temperature | None = None
        psutil.cpu_percent()

    def look(self) -> NodeFacts:
        """The machine as it is now."""
        if time.monotonic() - self._seldom_at >= SELDOM_S:
            self._seldom_at = time.monotonic()
            self._code_now = self._code.now()
            self._packages["quarterdeck"] = version()
            self._temperature = hottest()
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(str(self._home if self._home.exists() else self._home.anchor))
        descriptors, descriptors_limit = machine_descriptors()
        return NodeFacts(
            name=self.node,
            at=now(),
            host=platform.node(),
            cpus=psutil.cpu_count() or 1,
            cpu_percent=psutil.cpu_percent(),
            load=psutil.getloadavg(),
            memory_total_mb=memory.total >> 20,
            memory_used_mb=(memory.total - memory.available) >> 20,
            swap_used_mb=psutil.swap_memory().used >> 20,
            disk_total_mb=disk.total >> 20,
            disk_free_mb=disk.free >> 20,
            python=platform.python_version(),
            platform=platform.platform(),
            uptime_s=int(time.time() - psutil.boot_time()),
            processes=tuple(self._processes.look()),
            network=self._interfaces(),
            temperature=self._temperature,
            clock=self.clock,
            packages=self._packages,
            code=self._code_now,
            egress=self.egress,
            descriptors=descriptors,
            descriptors_limit=descriptors_limit,
        )

    def _interfaces(self) -> tuple[NetworkFacts, ...]:
        """Interfaces but the loopback that have carried anything."""
        at = time.monotonic()
        counted = {
            name: (each.bytes_recv, each.bytes_sent, each.errin + each.errout, each.dropin + each.dropout)
            for name, each in psutil.net_io_counters(pernic=True).items()
            if name != "lo" and each.bytes_recv + each.bytes_sent
        }
        (last, before), self._network = self._network, (at, counted)
        return tuple(_network(name, now_, before.get(name), at - last) for name, now_ in sorted(counted.items()))


def _network(name: str, counted: tuple[int, ...], before: tuple[int, ...] | None, elapsed: float) -> NetworkFacts:
    # An interface that was made anew counts from nought.
    changes = [max(0, a - b) for a, b in zip(counted, before or counted, strict=True)]
    received, sent, errors, drops = (round(each / elapsed, 1) for each in changes)
    return NetworkFacts(
        name=name, received_bytes_s=received, sent_bytes_s=sent, errors_s=errors, drops_s=drops,
        errors=counted[2], drops=counted[3],
    )  # fmt: skip


def hottest() -> Temperature | None:
    """The hottest sensor; None where there is none (virtual machines, most containers)."""
    # Not on every platform.
    read = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None
    found = [
        Temperature(sensor=f"{chip} {each.label}".strip(), celsius=each.current, high=each.high or 0.0)
        for chip, sensors in read().items()
        for each in sensors
        if each.current is not None
    ]
    return max(found, key=lambda each: each.celsius, default=None)


def machine_descriptors() -> tuple[int, int]:
    """Open file descriptors of the machine, and the most there may be (`man 5 proc`, file-nr); (0, 0) elsewhere."""
    try:
        used, _, most = Path("/proc/sys/fs/file-nr").read_text().split()
    except (OSError, ValueError):
        return 0, 0
    # "As many as you like" is written as the largest number there is.
    return int(used), int(most) if int(most) < 1 << 62 else 0


class Processes:
    """Our processes: the actors of this node's raylet, and what started it or was started with it."""

    def __init__(self) -> None:
        #: pid -> the process, its title, CPU seconds at the look before, and when that was.
        self._known: dict[int, tuple[psutil.Process, str, float, float]] = {}

    def look(self) -> Iterator[ProcessFacts]:
        """Every one that runs now."""
        known, self._known = self._known, {}
        for process in self._ours():
            with contextlib.suppress(psutil.Error):  # it ended while we looked
                yield self._facts(process, known)

    def _ours(self) -> list[psutil.Process]:
        try:
            raylet = psutil.Process().parent()
            if raylet is None:
                return []
            family = [raylet, *raylet.children()]
            # Above it `ray start`, above that the deck (with its servers and API) or `join`, where these are so.
            below, above = raylet, raylet.parent()
            for title in ("ray_start", "quarterdeck"):
                if above is None or title_of(above.cmdline()) != title:
                    break
                family += [above, *(each for each in above.children() if each != below)]
                below, above = above, above.parent()
        except psutil.Error:
            return []
        return family

    def _facts(
        self, process: psutil.Process, known: Mapping[int, tuple[psutil.Process, str, float, float]]
    ) -> ProcessFacts:
        before = known.get(process.pid)
        if before is not None and before[0] == process:
            process = before[0]
        else:
            before = None
        with process.oneshot():
            # A worker in reserve becomes an actor: until then its title is asked for each time.
            title = before[1] if before is not None and before[1] != "IDLE" else title_of(process.cmdline())
            cpu_s = sum(process.cpu_times()[:2])
            memory = process.memory_info().rss
        at = time.monotonic()
        percent = 0.0
        if before is not None and at > before[3]:
            percent = max(0.0, cpu_s - before[2]) / (at - before[3]) * 100
        self._known[process.pid] = (process, title, cpu_s, at)
        return ProcessFacts(
            pid=process.pid,
            title=title,
            memory_mb=round(memory / 2**20, 1),
            descriptors=process.num_fds(),
            cpu_s=round(cpu_s, 2),
            cpu_percent=round(percent, 1),
            descriptors_limit=_limit(process),
        )


def title_of(command: list[str]) -> str:
    """What a process of ours is shown as."""
    line = " ".join(command)
    if line.startswith("ray::"):
        return line[5:80].split(".")[0].split(" ")[0]
    for part, title in _PROGRAMS:
        if part in line:
            return title
    return Path(command[0]).name if command else "(ended)"


def _limit(process: psutil.Process) -> int:
    rlimit = getattr(process, "rlimit", None)
    if rlimit is None:
        return 0
    soft, _ = rlimit(psutil.RLIMIT_NOFILE)
    return int(soft) if soft > 0 else 0

"""What a machine tells of itself, and what of that is kept for a day.

Fields that came later have defaults: a machine with an older release is read too, and judged by what it does not say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from trading.ids import Nanos

#: Facts are told every second; a copy is kept for a day, so that a machine that is gone can still be described.
KEPT_S: Final = 86_400


class ProcessFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One of our processes on the machine."""

    pid: int
    #: The class of an actor (`AlgoHost`), `IDLE` for a worker in reserve, else the program's name.
    title: str
    #: Resident memory, what it shares with others included.
    memory_mb: float
    descriptors: int
    #: Since it started.
    cpu_s: float
    #: Of one core, since the look before.
    cpu_percent: float = 0.0
    #: Most descriptors that it may have (0: not known).
    descriptors_limit: int = 0


class KindFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All processes of one title together."""

    count: int
    memory_mb: float
    descriptors: int
    cpu_percent: float


class NetworkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One network interface; rates are of the last look."""

    name: str
    received_bytes_s: float
    sent_bytes_s: float
    #: Errors and drops both ways, a second, and since the machine started.
    errors_s: float
    drops_s: float
    errors: int
    drops: int


class Temperature(msgspec.Struct, frozen=True, kw_only=True):
    """The hottest sensor, in °C; ``high`` is where its maker begins to worry (0: not said)."""

    sensor: str
    celsius: float
    high: float = 0.0


class ClockFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How far this machine's clock is ahead of the database's, and how far that may be wrong."""

    skew_ms: float
    error_ms: float
    measured_at: Nanos


class Egress(msgspec.Struct, frozen=True, kw_only=True):
    """The address from which the internet sees this machine, as one of the configured services told."""

    address: str
    told_by: str
    at: Nanos


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How a machine is.  ``at`` is its own clock's."""

    name: str
    at: Nanos
    host: str
    cpus: int
    cpu_percent: float
    #: Of 1, 5 and 15 minutes.
    load: tuple[float, float, float]
    memory_total_mb: int
    memory_used_mb: int
    #: Of the file system of the data directory.
    disk_free_mb: int
    python: str
    platform: str
    uptime_s: int
    processes: tuple[ProcessFacts, ...]
    disk_total_mb: int = 0
    swap_used_mb: int = 0
    network: tuple[NetworkFacts, ...] = ()
    temperature: Temperature | None = None
    clock: ClockFacts | None = None
    #: Versions of the packages that matter, by name.
    packages: dict[str, str] = {}
    #: Which code of ours processes started there now would run (`cluster.code_version`).
    code: str = ""
    egress: Egress | None = None
    #: Of the whole machine: open file descriptors, and the most that there may be.
    descriptors: int = 0
    descriptors_limit: int = 0


def by_kind(processes: Iterable[ProcessFacts]) -> dict[str, KindFacts]:
    """Processes by title, each kind summed up."""
    gathered: dict[str, list[ProcessFacts]] = {}
    for process in processes:
        gathered.setdefault(process.title, []).append(process)
    return {
        title: KindFacts(
            count=len(some),
            memory_mb=round(sum(each.memory_mb for each in some), 1),
            descriptors=sum(each.descriptors for each in some),
            cpu_percent=round(sum(each.cpu_percent for each in some), 1),
        )
        for title, some in sorted(gathered.items())
    }


#: What is kept of each minute, and how it is made of its looks.
METRICS: Final[Mapping[str, str]] = {
    "cpu_percent": "all cores, mean",
    "cpu_percent_most": "all cores, the busiest look",
    "load_1": "load of one minute, mean",
    "memory_used_mb": "mean",
    "memory_used_mb_most": "the fullest look",
    "swap_used_mb": "mean",
    "disk_free_mb": "the least",
    "received_bytes_s": "all interfaces, mean",
    "sent_bytes_s": "all interfaces, mean",
    "network_errors_s": "errors of all interfaces, mean",
    "network_drops_s": "drops of all interfaces, mean",
    "temperature_c": "the hottest sensor, the most",
    "clock_skew_ms": "the last measured",
    "processes": "ours, mean",
    "processes_memory_mb": "ours, mean",
    "descriptors": "ours, mean",
    "algos": "processes that host algos, mean",
    "algos_cpu_percent": "of one core, all algos, mean",
    "algos_memory_mb": "all algos, mean",
}

#: What Ray calls a process that hosts an algo.
ALGO_TITLE: Final = "AlgoHost"


def _figures(facts: NodeFacts) -> dict[str, float]:
    algos = [each for each in facts.processes if each.title == ALGO_TITLE]
    found = {
        "cpu_percent": facts.cpu_percent,
        "load_1": facts.load[0],
        "memory_used_mb": float(facts.memory_used_mb),
        "swap_used_mb": float(facts.swap_used_mb),
        "disk_free_mb": float(facts.disk_free_mb),
        "received_bytes_s": sum(each.received_bytes_s for each in facts.network),
        "sent_bytes_s": sum(each.sent_bytes_s for each in facts.network),
        "network_errors_s": sum(each.errors_s for each in facts.network),
        "network_drops_s": sum(each.drops_s for each in facts.network),
        "processes": float(len(facts.processes)),
        "processes_memory_mb": sum(each.memory_mb for each in facts.processes),
        "descriptors": float(sum(each.descriptors for each in facts.processes)),
        "algos": float(len(algos)),
        "algos_cpu_percent": sum(each.cpu_percent for each in algos),
        "algos_memory_mb": sum(each.memory_mb for each in algos),
    }
    if facts.temperature is not None:
        found["temperature_c"] = facts.temperature.celsius
    if facts.clock is not None:
        found["clock_skew_ms"] = facts.clock.skew_ms
    return found


def minute_of(looks: Sequence[NodeFacts]) -> dict[str, float]:
    """One minute's looks (not none) as the row that is kept; what the machine does not have is left out."""
    figures = [_figures(each) for each in looks]
    row: dict[str, float] = {}
    for name in figures[-1].keys() | figures[0].keys():
        values = [each[name] for each in figures if name in each]
        match name:
            case "disk_free_mb":
                row[name] = min(values)
            case "temperature_c":
                row[name] = max(values)
            case "clock_skew_ms":
                row[name] = values[-1]
            case _:
                row[name] = sum(values) / len(values)
    row["cpu_percent_most"] = max(each["cpu_percent"] for each in figures)
    row["memory_used_mb_most"] = max(each["memory_used_mb"] for each in figures)
    return {name: round(row[name], 2) for name in METRICS if name in row}

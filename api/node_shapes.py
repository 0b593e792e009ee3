"""How machines look in answers."""

from __future__ import annotations

from api.formats import Instant, Shown
from cluster.node_facts import METRICS


class ProcessShown(Shown):
    """One of our processes on a machine."""

    pid: int
    #: An actor's class, `IDLE` for a worker in reserve, else the program.
    title: str
    memory_mb: float
    descriptors: int
    #: Most that it may have; 0 where that is not known.
    descriptors_limit: int
    cpu_s: float
    #: Of one core.
    cpu_percent: float


class KindShown(Shown):
    """All of our processes of one title together."""

    count: int
    memory_mb: float
    descriptors: int
    cpu_percent: float


class NetworkShown(Shown):
    """A network interface: rates of the last second, errors and drops since the machine started."""

    name: str
    received_bytes_s: float
    sent_bytes_s: float
    errors_s: float
    drops_s: float
    errors: int
    drops: int


class TemperatureShown(Shown):
    """The hottest sensor; ``high``: where its maker begins to worry (0: not said)."""

    sensor: str
    celsius: float
    high: float


class ClockShown(Shown):
    """How far the machine's clock is ahead of the database's, and how far that may be wrong."""

    skew_ms: float
    error_ms: float
    measured_at: Instant


class EgressShown(Shown):
    """The address from which the internet sees the machine, and who said so."""

    address: str
    told_by: str
    at: Instant


class NodeFacts(Shown):
    """How a machine is, a moment ago."""

    at: Instant
    host: str
    cpus: int
    cpu_percent: float
    #: Of 1, 5 and 15 minutes.
    load: list[float]
    memory_total_mb: int
    memory_used_mb: int
    swap_used_mb: int
    disk_total_mb: int
    disk_free_mb: int
    network: list[NetworkShown]
    #: Null where the machine has no sensor, as virtual ones have not.
    temperature: TemperatureShown | None
    #: Null until it was measured.
    clock: ClockShown | None
    #: Null unless services are configured that tell it.
    egress: EgressShown | None
    python: str
    packages: dict[str, str]
    #: Release and digest of our code there.
    code: str
    platform: str
    uptime_s: int
    descriptors: int
    descriptors_limit: int
    #: Ours, by title.
    kinds: dict[str, KindShown]
    #: For operators; empty for others.
    processes: list[ProcessShown]


class AlgoThere(Shown):
    """An algo on a machine."""

    id: str
    state: str
    reason: str


class NodeShown(Shown):
    """A registered machine."""

    name: str
    labels: dict[str, str]
    cordoned: bool
    draining: bool
    registered_at: Instant
    generation: int
    #: `ok`, `degraded` (something should be looked at), `silent` (its agent does not answer) or `gone` (not part of the
    #: cluster); ``reasons`` say why in words.
    health: str
    reasons: list[str]
    #: Null where nothing has been heard of it lately.
    facts: NodeFacts | None
    algos: list[AlgoThere]


class MinuteShown(Shown):
    """A minute of a machine."""

    at: Instant
    metrics: dict[str, float]


METRIC_NAMES = ", ".join(f"`{name}` ({what})" for name, what in METRICS.items())

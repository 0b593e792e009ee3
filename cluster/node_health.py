"""How a machine is, judged: ok, degraded, silent or gone, with reasons in words.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import msgspec

from cluster.node_facts import NodeFacts
from trading.ids import Nanos, NodeName

_SECOND: Final = 1_000_000_000
#: Clocks further apart than this make ages, leases and bars wrong.
MOST_SKEW_MS: Final = 250.0
#: Facts come every second: older ones mean that the machine's agent is not heard.
SILENT_S: Final = 10.0
#: Less free disk than either is little.
LEAST_DISK_SHARE: Final = 0.05
LEAST_DISK_MB: Final = 1_024
#: Less memory for new processes than either is little.
LEAST_MEMORY_SHARE: Final = 0.05
LEAST_MEMORY_MB: Final = 256
#: Processes that wait for a core (mean of five minutes), for each core.
MOST_LOAD: Final = 2.0
#: Share of the descriptors that a process, or the machine, may have.
MOST_DESCRIPTORS: Final = 0.8
#: Where a sensor does not say what is too hot for it.
MOST_CELSIUS: Final = 90.0
#: Network errors a second.
MOST_NETWORK_ERRORS: Final = 1.0
#: The Supervisor's view of the cluster is not believed when it is older.
VIEW_S: Final = 10.0


class Health(StrEnum):
    """How a machine is."""

    #: It answers, and nothing is wrong with it.
    OK = "ok"
    #: It answers, and something should be looked at.
    DEGRADED = "degraded"
    #: It belongs to the cluster, and its agent does not answer.
    SILENT = "silent"
    #: It is registered, and not part of the cluster.
    GONE = "gone"


class Judgement(msgspec.Struct, frozen=True):
    """A machine's health, and why it is not better."""

    health: Health
    reasons: tuple[str, ...] = ()


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What the head runs."""

    code: str = ""
    ray: str = ""
    python: str = ""


def judge(
    facts: NodeFacts | None, here: bool | None, head: Reference, unfit: str, now: Nanos, silent_s: float = SILENT_S
) -> Judgement:
    """``facts`` as last told, however old.  ``here``: whether Ray lists the machine; None where nobody knows now.

    ``unfit``: why the Supervisor gives it no algos, "" where it does.
    """
    age_s = None if facts is None else max(0.0, (now - told_at(facts)) / _SECOND)
    heard = "it has not been heard of within a day" if facts is None else f"last heard of at {_clock(told_at(facts))}"
    if here is False:
        return Judgement(Health.GONE, (f"it is not part of the cluster; {heard}",))
    if facts is None or age_s is None:
        return Judgement(Health.SILENT, ("its agent has not told anything yet",))
    if age_s > silent_s:
        since = _clock(told_at(facts))
        return Judgement(Health.SILENT, (f"its agent has not answered since {since} ({age_s:.0f} s)",))
    reasons = tuple(dict.fromkeys([*([unfit] if unfit else ()), *_troubles(facts, head)]))
    return Judgement(Health.DEGRADED if reasons else Health.OK, reasons)


def told_at(facts: NodeFacts) -> Nanos:
    """When the facts were told, by the clock that all machines are compared with."""
    skew_ms = 0.0 if facts.clock is None else facts.clock.skew_ms
    return Nanos(facts.at - int(skew_ms * 1_000_000))


def _clock(at: Nanos) -> str:
    return f"{datetime.fromtimestamp(at // _SECOND, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _troubles(facts: NodeFacts, head: Reference) -> Iterator[str]:
    clock = facts.clock
    if clock is not None and abs(clock.skew_ms) - clock.error_ms > MOST_SKEW_MS:
        which = "ahead of" if clock.skew_ms > 0 else "behind"
        yield (
            f"its clock is {abs(clock.skew_ms):.0f} ms {which} the database's (± {clock.error_ms:.0f} ms): let chrony "
            "or systemd-timesyncd set it"
        )
    if differs := difference(facts.code, head.code):
        yield differs
    ray = facts.packages.get("ray", "")
    if head.ray and ray and ray != head.ray:
        yield f"it has Ray {ray}, the head {head.ray}"
    if head.python and facts.python.split(".")[:2] != head.python.split(".")[:2]:
        yield f"it has Python {facts.python}, the head {head.python}"
    if facts.disk_free_mb < LEAST_DISK_MB or facts.disk_free_mb < LEAST_DISK_SHARE * facts.disk_total_mb:
        yield f"{facts.disk_free_mb:,} MiB of its disk are free"
    free = facts.memory_total_mb - facts.memory_used_mb
    if free < LEAST_MEMORY_MB or free < LEAST_MEMORY_SHARE * facts.memory_total_mb:
        yield f"{free:,} of {facts.memory_total_mb:,} MiB of its memory are free"
    if facts.load[1] > MOST_LOAD * facts.cpus:
        yield f"its load has been {facts.load[1]:.1f} for five minutes, on {_cores(facts.cpus)}"
    yield from _descriptors(facts)
    hot = facts.temperature
    if hot is not None and hot.celsius >= (hot.high or MOST_CELSIUS):
        yield f"{hot.sensor} is at {hot.celsius:.0f} °C"
    for interface in facts.network:
        if interface.errors_s > MOST_NETWORK_ERRORS:
            yield f"{interface.name} has {interface.errors_s:.0f} errors a second"


def _descriptors(facts: NodeFacts) -> Iterator[str]:
    for each in facts.processes:
        if each.descriptors_limit and each.descriptors > MOST_DESCRIPTORS * each.descriptors_limit:
            yield (
                f"{each.title} (process {each.pid}) has {each.descriptors:,} of the {each.descriptors_limit:,} file "
                "descriptors that it may have"
            )
    if facts.descriptors_limit and facts.descriptors > MOST_DESCRIPTORS * facts.descriptors_limit:
        yield f"{facts.descriptors:,} of the machine's {facts.descriptors_limit:,} file descriptors are open"


def _cores(count: int) -> str:
    return "one core" if count == 1 else f"{count} cores"


def difference(code: str, head: str) -> str:
    """In what a machine's code differs from the head's, in words; "" where it does not, or nobody knows the head's."""
    if not head or code == head:
        return ""
    if not code:
        return f"it does not say which Quarterdeck it runs, so an older one than the head's {head}: install that"
    release, _, _ = code.partition("+")
    if release == head.partition("+")[0]:
        return f"it runs another build of Quarterdeck {release} than the head ({code}, not {head}): install the same"
    return f"it runs Quarterdeck {code}, the head {head}: install the same"


def unfit(codes: Mapping[NodeName, str | None], head: str, here: Sequence[NodeName]) -> dict[NodeName, str]:
    """Machines that must get no algos, each with the reason.

    ``codes``: what each machine's agent says that is run there ("" by one that does not know the question, None before
    it has answered).  ``here``: names of the machines that Ray lists, one of which may stand there twice.
    """
    found = {}
    for node, count in Counter(here).items():
        if count > 1:
            found[node] = (
                f"{count} machines call themselves {node}: end Ray on those that should not (one that lost its power "
                "and is back counts twice until Ray has noticed, a minute at most)"
            )
        elif (code := codes.get(node)) is None:
            found[node] = "it has not said yet which Quarterdeck it runs"
        elif differs := difference(code, head):
            found[node] = differs
    return found

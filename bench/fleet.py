"""The Supervisor's decisions over a large fleet: ``python -m bench.fleet [--json]``.  Pure, one core.

50 machines and 1,000 algos, half of them tied to a label.  Measured is one pass of `cluster.reconcile`: nothing to do;
all to be started; ten machines gone at once.  The floor is reading the same records over once (a sum of their epochs).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from cluster.names import ActorName, Kind
from cluster.reconcile import Capacity, Desired, Memory, Observed, Seen, StartAlgo, reconcile
from storage.records import AlgoRecord, NodeRecord, Placement
from trading.ids import AccountId, AlgoId, Epoch, FeedId, Nanos, NodeName, UserId

MACHINES = 50
ALGOS = 1_000
GONE = 10
ROUNDS = 15
NOW = Nanos(10**18)


def algo(number: int) -> AlgoRecord:
    """One that waits to be started."""
    return AlgoRecord(
        id=AlgoId(f"algo-{number}"), user=UserId(f"u{number % 20}"), account=AccountId(f"a{number % 40}"),
        strategy="s", parameters={}, instruments=(), feed=FeedId("f"), node=NodeName(""), want="running",
        state="waiting", reason="", epoch=Epoch(1), created_at=NOW, updated_at=NOW,
        placement=Placement(selector="region=eu" if number % 2 else ""),
    )  # fmt: skip


def fleet(
    algos: Sequence[AlgoRecord], alive: Sequence[NodeName], names: Sequence[NodeName]
) -> tuple[Desired, Observed]:
    """The algos, and the machines with what runs on them."""
    nodes = tuple(
        NodeRecord(name=name, labels={"region": "eu" if place % 2 else "us"}, registered_at=NOW)
        for place, name in enumerate(names)
    )
    seen = {
        (key := ActorName(Kind.ALGO, each.id, each.epoch)): Seen(
            name=key, answers=True, state="ready", generation=each.generation, node=each.placed
        )
        for each in algos
        if each.state == "running" and each.placed in set(alive)
    }
    agents = {(key := ActorName(Kind.NODE, n)): Seen(name=key, answers=True, state="ready", node=n) for n in alive}
    capacities = {name: Capacity(cpus=16.0, memory_mb=64_000) for name in alive}
    desired = Desired(accounts=(), feeds=(), algos=tuple(algos), nodes=nodes)
    return desired, Observed(actors={**seen, **agents}, nodes=tuple(alive), capacities=capacities)


def median_ms(work: Callable[[], object]) -> float:
    """Of several runs."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return round(1_000 * statistics.median(times), 3)


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    names = [NodeName(f"n{number:02}") for number in range(MACHINES)]
    waiting = [algo(number) for number in range(ALGOS)]
    to_start = fleet(waiting, names, names)
    starts = {each.algo.id: each.node for each in reconcile(*to_start, Memory(), NOW) if isinstance(each, StartAlgo)}
    assert len(starts) == ALGOS, "not all algos found a machine"
    running = [replace(each, state="running", placed=starts[each.id]) for each in waiting]
    at_rest, lost = fleet(running, names, names), fleet(running, names[GONE:], names)
    moved = sum(isinstance(each, StartAlgo) for each in reconcile(*lost, Memory(), NOW))
    found = {
        "machines": MACHINES,
        "algos": ALGOS,
        "at_rest_ms": median_ms(lambda: reconcile(*at_rest, Memory(), NOW)),
        "start_all_ms": median_ms(lambda: reconcile(*to_start, Memory(), NOW)),
        "machines_gone_ms": median_ms(lambda: reconcile(*lost, Memory(), NOW)),
        "moved": moved,
        "floor_ms": median_ms(lambda: sum(each.epoch for each in running)),
    }
    found["ratio"] = round(found["at_rest_ms"] / found["floor_ms"], 1)
    print(json.dumps(found) if asked.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()

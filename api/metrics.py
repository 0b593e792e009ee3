"""Prometheus metrics: our own requests, and the deck as the stores tell it at the moment of the scrape."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from api.machines import see
from api.services import Services
from cluster.node_facts import NodeFacts, by_kind
from cluster.node_health import Health
from trading.errors import NeedsOperator, NotReady


async def metrics_text(deck: Services) -> str:
    """Everything in Prometheus' text format.  A store that is away leaves its figures out and says so in
    ``quarterdeck_store_up``."""
    registry = CollectorRegistry()
    up = Gauge("quarterdeck_store_up", "Whether the store answers", ["store"], registry=registry)
    clients = Gauge("quarterdeck_stream_clients", "WebSocket clients", registry=registry)
    clients.set(deck.hub.clients.total())
    for store, fill in (("postgres", _from_postgres), ("redis", _from_redis)):
        try:
            await fill(deck, registry)
        except (NotReady, NeedsOperator):
            up.labels(store).set(0)
        else:
            up.labels(store).set(1)
    registries = (deck.traffic.registry, deck.market.registry, registry)
    return b"".join(generate_latest(each) for each in registries).decode()


async def _from_postgres(deck: Services, registry: CollectorRegistry) -> None:
    await _of_nodes(deck, registry)
    algos = Counter(algo.state for algo in await deck.desired.algos())
    breaks = len(await deck.journal.breaks())
    counts = await deck.order_counts()
    by_state = Gauge("quarterdeck_algos", "Algos by state", ["state"], registry=registry)
    for state, count in algos.items():
        by_state.labels(state).set(count)
    Gauge("quarterdeck_open_breaks", "Open reconciliation breaks", registry=registry).set(breaks)
    orders = Gauge("quarterdeck_orders", "Orders by state", ["state"], registry=registry)
    for state, count in counts.items():
        orders.labels(state).set(count)


async def _of_nodes(deck: Services, registry: CollectorRegistry) -> None:
    """Machines: how they are judged, and the figures that this is judged by where they are of now."""
    of_node = {
        name: Gauge(f"quarterdeck_node_{name}", text, ["node"], registry=registry)
        for name, text in _NODE_FIGURES.items()
    }
    health = Gauge("quarterdeck_node_health", "1 for the health that it has", ["node", "health"], registry=registry)
    labels = ["node", "kind"]
    count = Gauge("quarterdeck_node_processes", "Our processes", labels, registry=registry)
    memory = Gauge("quarterdeck_node_processes_memory_bytes", "Resident memory of ours", labels, registry=registry)
    descriptors = Gauge("quarterdeck_node_processes_descriptors", "File descriptors of ours", labels, registry=registry)
    for machine in await see(deck, await deck.desired.nodes()):
        node, facts = machine.record.name, machine.facts
        for each in Health:
            health.labels(node, each.value).set(each is machine.health.health)
        if facts is None or not machine.fresh:
            continue
        for name, value in _node_figures(facts).items():
            of_node[name].labels(node).set(value)
        for kind, those in by_kind(facts.processes).items():
            count.labels(node, kind).set(those.count)
            memory.labels(node, kind).set(those.memory_mb * 2**20)
            descriptors.labels(node, kind).set(those.descriptors)


_NODE_FIGURES: Final = {
    "cpu_percent": "All cores, of the last second",
    "load1": "Load of one minute",
    "memory_used_bytes": "Memory in use",
    "memory_total_bytes": "Memory",
    "disk_free_bytes": "Free on the file system of the data directory",
    "received_bytes_per_second": "All interfaces",
    "sent_bytes_per_second": "All interfaces",
    "network_errors": "All interfaces, since the machine started",
    "clock_skew_seconds": "Ahead of the database's clock",
    "temperature_celsius": "The hottest sensor",
}


def _node_figures(facts: NodeFacts) -> dict[str, float]:
    found = {
        "cpu_percent": facts.cpu_percent,
        "load1": facts.load[0],
        "memory_used_bytes": facts.memory_used_mb * 2**20,
        "memory_total_bytes": facts.memory_total_mb * 2**20,
        "disk_free_bytes": facts.disk_free_mb * 2**20,
        "received_bytes_per_second": sum(each.received_bytes_s for each in facts.network),
        "sent_bytes_per_second": sum(each.sent_bytes_s for each in facts.network),
        "network_errors": sum(each.errors for each in facts.network),
    }
    if facts.clock is not None:
        found["clock_skew_seconds"] = facts.clock.skew_ms / 1e3
    if facts.temperature is not None:
        found["temperature_celsius"] = facts.temperature.celsius
    return found


async def _of_feeds(deck: Services, registry: CollectorRegistry) -> None:
    """What the feeds' coordinators say of themselves."""
    views = await deck.hot.scan("feed:", dict)
    wanted = Gauge("quarterdeck_feed_wanted_instruments", "Instruments that anybody wants", ["feed"], registry=registry)
    spare = Gauge("quarterdeck_feed_spare_instruments", "Instruments that fit besides", ["feed"], registry=registry)
    moves = Gauge("quarterdeck_feed_moves", "Moves done since the coordinator began", ["feed"], registry=registry)
    steps = Gauge("quarterdeck_feed_pending_steps", "Steps still to take", ["feed"], registry=registry)
    unsettled = Gauge(
        "quarterdeck_feed_instruments_not_settled",
        "Instruments moving, uncarried, stranded, or passed over by the provider",
        ["feed", "state"],
        registry=registry,
    )
    gone = Gauge("quarterdeck_feed_workers_gone", "Workers given up", ["feed"], registry=registry)
    for view in views.values():
        feed = view["feed"]
        wanted.labels(feed).set(view.get("wanted", 0))
        spare.labels(feed).set(view.get("spare", 0))
        moves.labels(feed).set(view.get("moves", 0))
        steps.labels(feed).set(view["pending_steps"])
        gone.labels(feed).set(len(view.get("gone", ())))
        for state in ("moving", "uncarried", "stranded", "passed_over"):
            unsettled.labels(feed, state).set(len(view.get(state, ())))


async def _from_redis(deck: Services, registry: CollectorRegistry) -> None:
    await _of_feeds(deck, registry)
    workers = await deck.hot.scan("worker:", dict)
    cluster = await deck.hot.get("cluster", dict)
    labels = ["feed", "shard"]
    ticks = Gauge("quarterdeck_feed_worker_ticks", "Ticks published since it started", labels, registry=registry)
    rate = Gauge("quarterdeck_feed_worker_ticks_per_second", "Ticks per second now", labels, registry=registry)
    carried = Gauge("quarterdeck_feed_worker_instruments", "Instruments carried", labels, registry=registry)
    age = Gauge(
        "quarterdeck_feed_worker_age_seconds", "Age of the newest tick of any instrument", labels, registry=registry
    )
    quality = _FeedQuality(registry)
    for stats in workers.values():
        quality.take(stats)
        of = (stats["feed"], str(stats["shard"]))
        ticks.labels(*of).set(stats["ticks"])
        rate.labels(*of).set(stats["rate"])
        carried.labels(*of).set(len(stats["instruments"]))
        ages = [each["age_s"] for each in stats["instruments"] if each["age_s"] is not None]
        if ages:
            age.labels(*of).set(min(ages) + (time.time_ns() - stats["at"]) / 1e9)
    if cluster is not None:
        actors = Gauge("quarterdeck_actors", "Actors by kind and state", ["kind", "state"], registry=registry)
        counted = Counter((actor["name"].split("/")[0], actor["state"]) for actor in cluster["actors"])
        for (kind, state), count in counted.items():
            actors.labels(kind, state).set(count)
        view = Gauge("quarterdeck_cluster_view_age_seconds", "Age of the Supervisor's view", registry=registry)
        view.set((time.time_ns() - cluster["at"]) / 1e9)


class _FeedQuality:
    """What is wrong with the streams of workers, and what was done about it."""

    _COUNTS: Final = {
        "received": "Ticks received, bad ones among them",
        "quarantined": "Ticks refused as bad",
        "withheld": "Good ticks that are another worker's to publish, or kept back for a move",
        "unpublished": "Ticks, books and bars that could not be published",
        "backfilled": "Trades filled in from history",
        "polled": "Ticks from polls by REST",
        "from_second": "Ticks of second providers that were published",
        "second_switches": "Changes of an instrument from one provider to the other",
        "second_doubles": "Ticks left out that the other provider had sent",
        "second_lost": "Batches of second providers that did not come",
        "garbage": "Frames that make no sense",
        "reconnects": "Connections lost",
        "given_up": "Connections given up for their silence",
        "resubscribed": "Instruments subscribed to again for their silence",
        "gaps": "Times that ticks of an instrument may have been missing",
        "unfilled_gaps": "Gaps that could not be filled",
    }

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["feed", "shard"]
        self._counts = {
            name: Gauge(f"quarterdeck_feed_worker_{name}", f"{text}, since it started", labels, registry=registry)
            for name, text in self._COUNTS.items()
        }
        self._reasons = Gauge(
            "quarterdeck_feed_refused_ticks", "Ticks refused as bad, by reason", [*labels, "reason"], registry=registry
        )
        self._states = Gauge(
            "quarterdeck_feed_instruments", "Instruments carried, by state", [*labels, "state"], registry=registry
        )
        self._skew = Gauge(
            "quarterdeck_feed_worker_skew_seconds",
            "Median of receipt less venue time over the instruments",
            labels,
            registry=registry,
        )
        self._by_second = Gauge(
            "quarterdeck_feed_instruments_by_second",
            "Instruments that come from their second provider now",
            labels,
            registry=registry,
        )
        self._silence = Gauge(
            "quarterdeck_feed_worker_longest_silence_seconds",
            "Age of the last tick of the instrument that is silent longest",
            labels,
            registry=registry,
        )

    def take(self, stats: dict[str, Any]) -> None:
        """Show what one worker says."""
        of = (stats["feed"], str(stats["shard"]))
        for name, gauge in self._counts.items():
            gauge.labels(*of).set(stats.get(name, 0))
        self._by_second.labels(*of).set(stats.get("by_second", 0))
        for reason, count in stats.get("refused_ticks", {}).items():
            self._reasons.labels(*of, reason).set(count)
        for state, count in stats.get("states", {}).items():
            self._states.labels(*of, state).set(count)
        if (skew := stats.get("skew_ms")) is not None:
            self._skew.labels(*of).set(skew / 1e3)
        ages = [each["age_s"] for each in stats["instruments"] if each["age_s"] is not None]
        if ages:
            self._silence.labels(*of).set(max(ages))

"""Prometheus metrics: our own requests, and the deck as the stores tell it at the moment of the scrape."""

from __future__ import annotations

import time
from collections import Counter

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from api.services import Services
from trading.errors import NeedsOperator, NotReady


async def metrics_text(deck: Services) -> str:
    """Everything in Prometheus' text format.  A store that is away leaves its figures out and says so in
    ``quarterdeck_store_up``."""
    registry = CollectorRegistry()
    up = Gauge("quarterdeck_store_up", "Whether the store answers", ["store"], registry=registry)
    clients = Gauge("quarterdeck_stream_clients", "WebSocket clients", registry=registry)
    clients.set(deck.hub.clients)
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


async def _from_redis(deck: Services, registry: CollectorRegistry) -> None:
    workers = await deck.hot.scan("worker:", dict)
    cluster = await deck.hot.get("cluster", dict)
    labels = ["feed", "shard"]
    ticks = Gauge("quarterdeck_feed_worker_ticks", "Ticks published since it started", labels, registry=registry)
    rate = Gauge("quarterdeck_feed_worker_ticks_per_second", "Ticks per second now", labels, registry=registry)
    carried = Gauge("quarterdeck_feed_worker_instruments", "Instruments carried", labels, registry=registry)
    age = Gauge(
        "quarterdeck_feed_worker_age_seconds", "Age of the newest tick of any instrument", labels, registry=registry
    )
    for stats in workers.values():
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

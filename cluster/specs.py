"""What each kind of actor is made of: its class, its restarts, its groups of calls."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cluster.names import ActorName, Kind

#: Label that every node of ours carries; its value is the node's name.
NODE_LABEL: Final = "quarterdeck-node"


class ActorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """How to create one actor.  ``args`` are ids only: Ray stores them in clear."""

    name: ActorName
    args: tuple[Any, ...]
    #: Name of the node it must run on ("" = the head's).
    node: str = ""


#: kind -> ``module:Class``.  Imported when an actor is created, so that `cluster` does not import `actors`.
CLASSES: Final = {
    Kind.SUPERVISOR: "actors.supervisor:Supervisor",
    Kind.RISK: "actors.risk_desk:RiskDesk",
    Kind.SURVEILLANCE: "actors.surveillance:TradeSurveillance",
    Kind.SESSION: "actors.user_session:UserSession",
    Kind.CONNECTION: "actors.broker_connection:BrokerConnection",
    Kind.COORDINATOR: "actors.feed_coordinator:FeedCoordinator",
    Kind.WORKER: "actors.feed_worker:FeedWorker",
    Kind.RECORDER: "actors.feed_recorder:FeedRecorder",
    Kind.ALGO: "actors.algo_host:AlgoHost",
    Kind.NODE: "actors.node_agent:NodeAgent",
}

#: Infrastructure comes back by itself; an algo is started again by the Supervisor under a new epoch.
RESTARTS: Final = {kind: (0 if kind is Kind.ALGO else -1) for kind in Kind}

#: Settings of any account that are the deck's and not its connector's: the feed that prices a paper account, the
#: broker's order rate, how long an order may still show up at the broker after it was handed over, how often the
#: broker's view is compared with ours while nothing is in doubt (all of it, or part by part), and how far cash may be
#: apart.
NUMBER_SETTINGS: Final = (
    "orders_per_s",
    "late_arrival_s",
    "reconcile_every_s",
    "reconcile_orders_s",
    "reconcile_executions_s",
    "reconcile_positions_s",
    "reconcile_cash_s",
    "cash_tolerance",
    "day_starts_at_h",
)
DECK_SETTINGS: Final = frozenset({"feed", *NUMBER_SETTINGS})

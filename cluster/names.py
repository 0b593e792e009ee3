"""Names of actors, built and parsed here and nowhere else.

``<kind>/<id>`` in the cluster's namespace; algos carry their epoch (``algo/momo-17/5``), feed workers their
shard (``worker/crypto/3``).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Kind(StrEnum):
    """Kinds of actors."""

    SUPERVISOR = "supervisor"
    RISK = "risk"
    SURVEILLANCE = "surveillance"
    SESSION = "session"
    CONNECTION = "connection"
    COORDINATOR = "coordinator"
    WORKER = "worker"
    RECORDER = "recorder"
    ALGO = "algo"
    NODE = "node"


class ActorName(msgspec.Struct, frozen=True):
    """A parsed name; ``number`` is an algo's epoch or a worker's shard, else None."""

    kind: Kind
    id: str
    number: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}/{self.id}" + (f"/{self.number}" if self.number is not None else "")


def namespace(cluster: str) -> str:
    """Ray namespace of a cluster."""
    return f"quarterdeck-{cluster}"


def parse(text: str) -> ActorName | None:
    """The name that ``text`` spells, or None where it is not one of ours."""
    parts = text.split("/")
    try:
        kind = Kind(parts[0])
        number = int(parts.pop()) if kind in (Kind.ALGO, Kind.WORKER) else None
        _, id_ = parts
    except ValueError:
        return None
    name = ActorName(kind, id_, number)
    # A number written in another way (`05`, `-0`, `+5`) would be another name for the same actor.
    return name if id_ and str(name) == text else None


def supervisor() -> str:
    """The one Supervisor."""
    return str(ActorName(Kind.SUPERVISOR, "main"))


def risk() -> str:
    """The one RiskDesk."""
    return str(ActorName(Kind.RISK, "main"))


def surveillance() -> str:
    """The one who watches orders for what is unusual."""
    return str(ActorName(Kind.SURVEILLANCE, "main"))


def session(user: str) -> str:
    """A user's session."""
    return str(ActorName(Kind.SESSION, user))


def connection(account: str) -> str:
    """An account's broker connection."""
    return str(ActorName(Kind.CONNECTION, account))


def coordinator(feed: str) -> str:
    """A feed's coordinator."""
    return str(ActorName(Kind.COORDINATOR, feed))


def recorder(feed: str) -> str:
    """The recorder of a feed's ticks and bars."""
    return str(ActorName(Kind.RECORDER, feed))


def worker(feed: str, shard: int) -> str:
    """One shard of a feed."""
    return str(ActorName(Kind.WORKER, feed, shard))


def algo(algo_id: str, epoch: int) -> str:
    """One incarnation of an algo."""
    return str(ActorName(Kind.ALGO, algo_id, epoch))


def node(name: str) -> str:
    """A machine's agent."""
    return str(ActorName(Kind.NODE, name))

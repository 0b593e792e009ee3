"""Ray, wrapped: connect, create, list, kill.  With `cluster.calls` the only code that imports it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Iterator
from typing import Any, Final

from cluster.settings import RAY_FLAGS, DeckSettings, settings

# Ray reads its flags when it is imported.
for _flag, _value in RAY_FLAGS.items():
    os.environ.setdefault(_flag, _value)

import msgspec
import ray
from ray.exceptions import RayError
from ray.util import list_named_actors

from cluster.names import ActorName, namespace, parse
from cluster.specs import CLASSES, NODE_LABEL, RESTARTS, ActorSpec
from trading.errors import Conflict, NotReady


#: Not nothing: for an actor that asks for no resources Ray 2.60 has any machine find it a place, a frozen one too, and
#: then waits for a minute.  One that asks for some is placed by the machine of its creator
#: (``GcsActorScheduler::SelectForwardingNode``).
_SOME_CPU: Final = 0.001


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as Ray sees it."""

    node_id: str
    name: str
    address: str
    alive: bool
    labels: dict[str, str]


def connect(deck: DeckSettings | None = None) -> None:
    """Join this process to the cluster as a driver; a second call changes nothing.

    Raises `NotReady` when the head does not answer.
    """
    if ray.is_initialized():
        return
    deck = deck or settings()
    os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(deck.home / "ray-token"))
    try:
        ray.init(
            address=deck.ray_address,
            namespace=namespace(deck.cluster),
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, OSError) as error:
        raise NotReady(f"the Ray head at {deck.ray_address} does not answer: {error}", 5.0) from error


def disconnect() -> None:
    """Leave the cluster; detached actors live on."""
    ray.shutdown()


def spawn(spec: ActorSpec) -> None:
    """Create a detached actor.  Raises `Conflict` when the name is taken, `NotReady` where it cannot be known.

    Returns before the actor runs: its first answer is the proof.
    """
    module, _, name = CLASSES[spec.name.kind].partition(":")
    cls = getattr(importlib.import_module(module), name)
    options: dict[str, Any] = {
        "name": str(spec.name),
        "namespace": namespace(settings().cluster),
        "lifetime": "detached",
        "num_cpus": _SOME_CPU,
        "max_restarts": RESTARTS[spec.name.kind],
        "max_task_retries": 0,
        "max_concurrency": 1000,
        "concurrency_groups": {"health": 2},
        "enable_task_events": False,
        "label_selector": {NODE_LABEL: spec.node or settings().node},
    }
    try:
        with _store_may_be_away():
            ray.remote(**{k: v for k, v in options.items() if k == "concurrency_groups"})(cls).options(
                **{k: v for k, v in options.items() if k != "concurrency_groups"}
            ).remote(*spec.args)
    except ValueError as error:
        if "already taken" in str(error) or "already exists" in str(error):
            raise Conflict("actor_exists", f"{spec.name} is running already") from error
        raise


def kill(name: ActorName | str) -> bool:
    """End an actor for good, at once; False when there is none.  Raises `NotReady`."""
    try:
        with _store_may_be_away():
            ray.kill(ray.get_actor(str(name), namespace=namespace(settings().cluster)), no_restart=True)
    except ValueError:
        return False
    return True


def running() -> set[ActorName]:
    """Every actor of ours that has a name now (alive, starting or restarting).  Raises `NotReady`."""
    ours = namespace(settings().cluster)
    with _store_may_be_away():
        named = list_named_actors(all_namespaces=True)
    names = (parse(a["name"]) for a in named if a["namespace"] == ours)
    return {name for name in names if name is not None}


@contextlib.contextmanager
def _store_may_be_away() -> Iterator[None]:
    """Ray asks its control store for a minute, and then raises what its layers happen to raise."""
    try:
        yield
    except (RayError, RuntimeError, OSError) as error:
        raise NotReady(f"Ray's control store does not answer: {type(error).__name__} {error}", 1.0) from error


def nodes() -> list[NodeView]:
    """Machines known to Ray, dead ones included.  Raises `NotReady`."""
    with _store_may_be_away():
        found = ray.nodes()  # type: ignore[no-untyped-call]
    return [
        NodeView(
            node_id=n["NodeID"],
            name=n.get("Labels", {}).get(NODE_LABEL, ""),
            address=n["NodeManagerAddress"],
            alive=n["Alive"],
            labels=dict(n.get("Labels", {})),
        )
        for n in found
    ]

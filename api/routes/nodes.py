"""``/v1/nodes`` and ``/v1/cluster``: machines and actors."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from fastapi import APIRouter
from pydantic import ConfigDict, Field

from api.formats import Body, Cursor, Instant, Limit, Page, Shown, page_of
from api.machines import MachineSeen, see
from api.node_shapes import AlgoThere, NodeFacts, NodeShown
from api.security import Caller, Operator, Viewer
from api.services import Deck, Services
from api.shapes import ALIVE
from cluster.names import Kind, parse
from cluster.necessity import needed_by
from cluster.node_facts import by_kind
from cluster.selectors import check_labels
from storage.records import AlgoRecord
from trading.errors import Conflict, NotReady
from trading.ids import NodeName

router = APIRouter(prefix="/v1", tags=["nodes"])

_ATTEMPTS: Final = 20


class NodeChange(Body):
    """What may change of a machine; what is left out stays.  ``labels`` takes the place of all that it has.

    ``cordoned``: no new algos.  ``draining``: its algos go to other machines too, each in order.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [{"labels": {"region": "eu", "ssd": "yes"}}]})

    labels: dict[str, str] | None = None
    cordoned: bool | None = None
    draining: bool | None = None
    generation: int | None = Field(None, ge=1)


class ActorShown(Shown):
    """One actor as the Supervisor last saw it."""

    name: str
    answers: bool
    state: str
    reason: str
    node: str
    pid: int
    epoch: int
    heart_age_s: float
    facts: dict[str, Any]


class ClusterShown(Shown):
    """The cluster as the Supervisor last saw it; ``missing`` are actors that are not ready.

    ``waiting``: those of them for which there is no machine, and why not.
    """

    at: Instant
    age_s: float
    epoch: int
    nodes: list[str]
    actors: list[ActorShown]
    missing: list[str]
    #: Machines that get no algos, each with the reason.
    unfit: dict[str, str] = Field(default_factory=dict)
    #: Of `missing`, the ones for which there is no machine, and why not.
    waiting: dict[str, str] = Field(default_factory=dict)


@router.get("/nodes", response_model=Page[NodeShown])
async def list_nodes(caller: Viewer, deck: Deck, limit: Limit = 100, cursor: Cursor = None) -> dict[str, Any]:
    """Registered machines with their facts and the own algos on them."""
    page = page_of(await deck.desired.nodes(), lambda node: node.name, limit, cursor)
    algos, hot = await deck.desired.algos(), (await deck.look_all("algo:"))[0]
    shown = [_node(caller, machine, algos, hot) for machine in await see(deck, page["items"])]
    return {**page, "items": shown}


@router.get("/nodes/{name}", response_model=NodeShown)
async def get_node(name: str, caller: Viewer, deck: Deck) -> NodeShown:
    """One machine."""
    (machine,) = await see(deck, [await deck.desired.node(NodeName(name))])
    hot, _ = await deck.look_all("algo:")
    return _node(caller, machine, await deck.desired.algos(), hot)


@router.patch("/nodes/{name}", response_model=NodeShown)
async def change_node(name: str, body: NodeChange, caller: Operator, deck: Deck, force: bool = False) -> NodeShown:
    """Label, cordon or empty a machine.

    Emptying the last one that takes an algo that should run is refused unless it is forced: the algo stays there then,
    and says why.
    """
    record = await deck.desired.node(NodeName(name))
    given = body.model_dump(exclude_none=True, exclude={"generation"})
    if body.labels is not None:
        check_labels(body.labels)
    changes = {field: value for field, value in given.items() if getattr(record, field) != value}

    async def carry_out(as_of: int | None) -> None:
        await deck.desired.update_node(record.name, changes, by=caller.user, generation=body.generation, as_of=as_of)

    if changes.get("draining") and not force:
        await _unless_needed(deck, record.name, carry_out)
    elif changes:
        await carry_out(None)
    return await get_node(name, caller, deck)


@router.delete("/nodes/{name}", status_code=204)
async def remove_node(name: str, caller: Operator, deck: Deck, force: bool = False) -> None:
    """Forget a machine; one that joined with a token leaves then.

    Refused where it did not join so and is here, and, unless forced, while algos run on it or could run nowhere else.
    """
    record = await deck.desired.node(NodeName(name))
    here, _ = await _cluster(deck)
    if here and record.name in here and not await deck.join_tokens.has_joined(record.name):
        raise Conflict("node_is_here", f"node {name!r} is part of the cluster: drain it, end Ray on it, then remove it")

    async def carry_out(as_of: int | None) -> None:
        await deck.desired.delete_node(record.name, by=caller.user, as_of=as_of)

    if force:
        await carry_out(None)
    else:
        there = [algo.id for algo in await deck.desired.algos() if algo.placed == record.name and algo.state in ALIVE]
        if there:
            raise Conflict("node_is_in_use", f"{', '.join(there[:10])} run on it: drain it first, or use force")
        await _unless_needed(deck, record.name, carry_out)
    await deck.forget(f"node:{record.name}")


async def _cluster(deck: Services) -> tuple[frozenset[NodeName] | None, dict[NodeName, str]]:
    """Machines that are part of the cluster (None: nobody knows now), and those of them that get no algos."""
    view, _ = await deck.look("cluster")
    if view is None:
        return None, {}
    return frozenset(view["nodes"]), dict(view.get("unfit", {}))


async def _unless_needed(deck: Services, node: NodeName, carry_out: Callable[[int | None], Awaitable[None]]) -> None:
    """Take a machine away if nothing needs it: as of the moment that was looked at, for another may go meanwhile."""
    for _ in range(_ATTEMPTS):
        version = await deck.desired.version()
        await _refuse_if_needed(deck, node)
        try:
            return await carry_out(version)
        except Conflict as error:
            if error.code != "desired_state_moved":
                raise
    raise NotReady("machines and algos keep being changed: ask again", 1.0)


async def _refuse_if_needed(deck: Services, node: NodeName) -> None:
    here, unfit = await _cluster(deck)
    desired = deck.desired
    records, algos = await desired.nodes(), await desired.algos()
    accounts, feeds = await desired.accounts(), await desired.feeds()
    stuck = needed_by(node, records, here or frozenset(), unfit, algos, accounts, feeds)
    if stuck and here is None:
        raise NotReady("which machines are here is not known now: ask again, or use force", 2.0)
    if stuck:
        raise Conflict(
            "node_is_needed",
            f"no other node can take {', '.join(stuck[:10])}"
            + (f" and {len(stuck) - 10} more" if len(stuck) > 10 else "")
            + ": change where they may run, stop them, or use force",
        )


@router.get("/cluster", response_model=ClusterShown)
async def cluster(caller: Viewer, deck: Deck) -> dict[str, Any]:
    """Every actor; those who are not operators do not see other people's."""
    view = await deck.hot.get("cluster", dict[str, Any])
    if view is None:
        raise NotReady("the Supervisor has not shown the cluster lately; GET /readyz says what is missing", 2.0)
    age = round((time.time_ns() - view["at"]) / 1e9, 3)
    if caller.is_operator:
        return {**view, "age_s": age}
    accounts = {account.id for account in await deck.accounts_of(caller)}
    algos = {algo.id for algo in await deck.desired.algos() if caller.sees_algo(algo)}
    users = set() if caller.only_accounts is not None else {str(caller.user)}
    own: dict[Kind, set[str]] = {Kind.SESSION: users, Kind.CONNECTION: {*accounts}, Kind.ALGO: {*algos}}

    def mine(text: str) -> bool:
        name = parse(text)
        return name is not None and (name.kind not in own or name.id in own[name.kind])

    return {
        **view,
        "age_s": age,
        "actors": [actor for actor in view["actors"] if mine(actor["name"])],
        "missing": [name for name in view["missing"] if mine(name)],
        "waiting": {name: why for name, why in view.get("waiting", {}).items() if mine(name)},
    }


def _node(caller: Caller, machine: MachineSeen, algos: list[AlgoRecord], hot: dict[str, dict[str, Any]]) -> NodeShown:
    record, facts = machine.record, machine.facts
    shown = None
    if facts is not None and machine.fresh:
        processes = facts.processes if caller.is_operator else ()
        shown = NodeFacts.model_validate(
            {**msgspec.to_builtins(facts), "kinds": by_kind(facts.processes), "processes": processes}
        )
    return NodeShown(
        name=record.name,
        labels=record.labels,
        cordoned=record.cordoned,
        draining=record.draining,
        registered_at=record.registered_at,
        generation=record.generation,
        health=machine.health.health,
        reasons=list(machine.health.reasons),
        facts=shown,
        algos=[
            AlgoThere(id=algo.id, state=algo.state, reason=algo.reason)
            for algo in algos
            if caller.sees_algo(algo) and _is_on(algo, record.name, hot.get(f"algo:{algo.id}"))
        ],
    )


def _is_on(algo: AlgoRecord, node: str, live: dict[str, Any] | None) -> bool:
    """Whether the present incarnation runs there; before it has told anything, whether it was started there."""
    if algo.state not in ALIVE:
        return False
    if live is not None and live["epoch"] == algo.epoch:
        return bool(live["node"] == node)
    return algo.placed == node

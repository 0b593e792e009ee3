"""Desired against observed: what the Supervisor does next.  Pure: `reconcile(desired, observed, memory, now)`.

Every round compares the whole of what should run with the whole of what runs.  Nothing is remembered but
crashes and what was started so recently that it may not show yet, so a lost action is simply named again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cluster.backoff import Attempts
from cluster.names import ActorName, Kind
from cluster.placement import Machine, choose
from cluster.sites import Site, sites, why_leave
from cluster.specs import ActorSpec
from storage.records import AccountRecord, AlgoRecord, FeedRecord, NodeRecord, OverCpu
from trading.ids import AlgoId, Epoch, Nanos, NodeName

_SECOND = 1_000_000_000
#: States of one that has come up.
_UP = ("running", "paused")
#: A created actor may take this long to show up in Ray's list.
APPEAR_NS = 20 * _SECOND
#: An actor that has not answered for so long is replaced; one that never has may still be starting: on a machine that
#: starts many at once, to end it would only put one more behind them all.
SILENT_NS = 60 * _SECOND
NEVER_HEARD_NS = 240 * _SECOND
#: A machine that has not answered for so long, and so often, is given up: its algos go elsewhere.
GIVEN_UP_NS = 6 * _SECOND
GIVEN_UP_PROBES = 3
#: Main loops that have not come round for so long are shown as blocked.
BLOCKED_S = 2.0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An actor as it was found this round; ``answers`` False: it has a name but gave no status."""

    name: ActorName
    answers: bool
    state: str = ""
    reason: str = ""
    heart_age_s: float = 0.0
    #: The generation of the desired row that it runs (algos).
    generation: int = 0
    #: Something is still carried (feed workers) or moving.
    busy: bool = False
    #: What its process takes, in MiB (algos).
    memory_mb: int = 0
    #: It takes more CPU than it is allowed (algos), and how many cores.
    over_cpu: bool = False
    cpu_share: float = 0.0
    #: Where it runs; "" where that is not known.
    node: NodeName = NodeName("")


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that should be."""

    accounts: tuple[AccountRecord, ...]
    feeds: tuple[FeedRecord, ...]
    algos: tuple[AlgoRecord, ...]
    nodes: tuple[NodeRecord, ...]


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What a machine has for algos: all cores, and what memory is not taken by anything else."""

    cpus: float
    memory_mb: int


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is."""

    actors: dict[ActorName, Seen]
    #: Names of nodes alive now.
    nodes: tuple[NodeName, ...]
    #: The machine of the head.
    head: NodeName = NodeName("")
    #: Of those that have said it.
    capacities: dict[NodeName, Capacity] = msgspec.field(default_factory=dict)
    #: Machines that get no new algos, each with the reason (`cluster.node_health.unfit`).
    unfit: dict[NodeName, str] = msgspec.field(default_factory=dict)
    #: When actors were asked how they are; None: just now.
    asked_at: Nanos | None = None


class Memory(msgspec.Struct):
    """What must be remembered between rounds."""

    #: actor -> when it was created (noted by whoever did it), until it shows.
    created: dict[ActorName, Nanos] = msgspec.field(default_factory=dict)
    crashes: dict[AlgoId, Attempts] = msgspec.field(default_factory=dict)
    #: Actors that have answered.
    heard: set[ActorName] = msgspec.field(default_factory=set)
    #: actor -> since when it has not answered, and how often it was asked meanwhile.
    silent: dict[ActorName, Nanos] = msgspec.field(default_factory=dict)
    unanswered: dict[ActorName, int] = msgspec.field(default_factory=dict)
    #: actor -> the machine that it was last seen on, or sent to; of those that are not bound to the head.
    sites: dict[ActorName, NodeName] = msgspec.field(default_factory=dict)
    #: Why those that should run have no machine.
    waiting: dict[ActorName, str] = msgspec.field(default_factory=dict)
    #: algo -> epoch whose end has been counted, so that one end counts once.
    ended: dict[AlgoId, Epoch] = msgspec.field(default_factory=dict)


class Spawn(msgspec.Struct, frozen=True):
    """Create an actor."""

    spec: ActorSpec


class StartAlgo(msgspec.Struct, frozen=True):
    """Write a new epoch for an algo, then create its actor on ``node``."""

    algo: AlgoRecord
    node: NodeName


class StopAlgo(msgspec.Struct, frozen=True):
    """Ask an incarnation to end in order, then remove it."""

    name: ActorName
    reason: str


class Remove(msgspec.Struct, frozen=True):
    """End an actor that should not run; ``gently``: ask it to stop first."""

    name: ActorName
    reason: str
    gently: bool


class Fence(msgspec.Struct, frozen=True):
    """Number an epoch for an algo that may still run where nobody reaches it, and note that it waits.

    From then on what the old incarnation asks for is refused, and it ends itself once it can read its row.
    """

    algo: AlgoRecord
    reason: str


class ShowAlgo(msgspec.Struct, frozen=True):
    """Note the state of an algo and the reason in words."""

    algo: AlgoRecord
    state: str
    reason: str


Action = Spawn | StartAlgo | StopAlgo | Remove | Fence | ShowAlgo


def wanted_actors(desired: Desired, nodes: Sequence[NodeName]) -> dict[ActorName, ActorSpec]:
    """Every actor that should run, algos aside; those of `cluster.sites` are still to be given a machine."""
    names: list[tuple[ActorName, tuple[object, ...], str]] = [(ActorName(Kind.RISK, "main"), ("main",), "")]
    names += [(ActorName(Kind.NODE, node), (node,), node) for node in nodes]
    enabled = [account for account in desired.accounts if account.enabled]
    names += [(ActorName(Kind.SESSION, user), (user,), "") for user in sorted({a.user for a in enabled})]
    names += [(ActorName(Kind.CONNECTION, account.id), (account.id,), "") for account in enabled]
    if enabled:
        names.append((ActorName(Kind.SURVEILLANCE, "main"), ("main",), ""))
    for feed in desired.feeds:
        if feed.enabled:
            names.append((ActorName(Kind.COORDINATOR, feed.id), (feed.id,), ""))
            names.append((ActorName(Kind.RECORDER, feed.id), (feed.id,), ""))
            names += [(ActorName(Kind.WORKER, feed.id, n), (feed.id, n), "") for n in range(feed.workers)]
    return {name: ActorSpec(name=name, args=args, node=node) for name, args, node in names}


def reconcile(desired: Desired, observed: Observed, memory: Memory, now: Nanos) -> list[Action]:
    """The actions that lead from what is to what should be; ``memory`` is brought up to date."""
    _remember(observed, memory, now)
    actions: list[Action] = []
    wanted = wanted_actors(desired, observed.nodes)
    lost = given_up(observed, memory, now)
    machines = _machines(desired, observed, lost)
    asking = sites(desired.accounts, desired.feeds, desired.nodes, observed.head)
    _keep_sites(asking, observed, memory)
    for name, spec in wanted.items():
        seen, site = observed.actors.get(name), asking.get(name)
        if seen is not None:
            if site is not None and (why := why_leave(site, memory.sites.get(name, NodeName("")), machines, lost)):
                actions.append(Remove(name, f"it goes elsewhere: {why}", gently=seen.answers))
                if not seen.answers and (placed := _placed(spec, site, machines, memory)) is not None:
                    # Everything else waits for it, so not in the next round but in this one.
                    actions.append(Spawn(placed))
        elif name not in memory.created and (placed := _placed(spec, site, machines, memory)) is not None:
            actions.append(Spawn(placed))
    for name, seen in observed.actors.items():
        if name.kind in (Kind.ALGO, Kind.SUPERVISOR) or name in wanted:
            continue
        is_fed = any(f.id == name.id and f.enabled for f in desired.feeds)
        if name.kind is Kind.WORKER and is_fed and (seen.busy or not seen.answers):
            continue  # its instruments are being moved, or may be; it goes when it is empty, or silent for long
        actions.append(Remove(name, "no longer wanted", gently=seen.answers))
    for name, since in memory.silent.items():
        patience = SILENT_NS if name in memory.heard else NEVER_HEARD_NS
        if now - since > patience and name in observed.actors and name.kind is not Kind.SUPERVISOR:
            actions.append(Remove(name, f"it has not answered for {(now - since) // _SECOND} s", gently=False))
    actions += _algos(desired, observed, memory, machines, lost, now)
    return actions


def _keep_sites(asking: Mapping[ActorName, Site], observed: Observed, memory: Memory) -> None:
    memory.waiting.clear()
    for name in [*memory.sites]:
        if name not in asking:
            del memory.sites[name]
    for name in asking:
        seen = observed.actors.get(name)
        if seen is not None and seen.answers and seen.node:
            memory.sites[name] = seen.node


def _placed(
    spec: ActorSpec, site: Site | None, machines: Mapping[NodeName, Machine], memory: Memory
) -> ActorSpec | None:
    """``spec`` with its machine; None where there is none for it now."""
    if site is None:
        return spec
    node, why = site.choose([*machines.values()])
    if node is None:
        memory.waiting[spec.name] = why
        return None
    memory.sites[spec.name] = node
    return msgspec.structs.replace(spec, node=node)


def _remember(observed: Observed, memory: Memory, now: Nanos) -> None:
    for name, created in list(memory.created.items()):
        if name in observed.actors or now - created > APPEAR_NS:
            del memory.created[name]
    memory.heard &= observed.actors.keys()
    for name, seen in observed.actors.items():
        if seen.answers:
            memory.heard.add(name)
            memory.silent.pop(name, None)
            memory.unanswered.pop(name, None)
        else:
            memory.silent.setdefault(name, now if observed.asked_at is None else observed.asked_at)
            memory.unanswered[name] = memory.unanswered.get(name, 0) + 1
    for name in list(memory.silent):
        if name not in observed.actors:
            del memory.silent[name], memory.unanswered[name]


def given_up(observed: Observed, memory: Memory, now: Nanos) -> dict[NodeName, str]:
    """Machines that Ray still lists and that are not to be counted on, each with the reason.

    Its agent has not answered for a while, nor has any algo that was placed there: the machine has no power, or no
    network.  Ray finds that out too, a minute later.
    """
    found = {}
    for node in observed.nodes:
        agent = ActorName(Kind.NODE, node)
        since = memory.silent.get(agent)
        if since is None or now - since < GIVEN_UP_NS or memory.unanswered[agent] < GIVEN_UP_PROBES:
            continue
        if not any(seen.answers and seen.node == node for seen in observed.actors.values()):
            found[node] = f"node {node} has not answered for {(now - since) // _SECOND} s"
    return found


def until_given_up(memory: Memory, now: Nanos) -> int | None:
    """Nanoseconds until the next silent machine can be given up, so that nobody looks again only later; None: none."""
    since = [at for name, at in memory.silent.items() if name.kind is Kind.NODE]
    due = [at + GIVEN_UP_NS - now for at in since if at + GIVEN_UP_NS > now]
    return min(due, default=None)


def _algos(
    desired: Desired,
    observed: Observed,
    memory: Memory,
    machines: Mapping[NodeName, Machine],
    lost: Mapping[NodeName, str],
    now: Nanos,
) -> list[Action]:
    actions: list[Action] = []
    for algo in desired.algos:
        there = machines.get(_where(algo, observed, memory))
        if algo.want == "running" and algo.state != "failed" and there is not None:
            there.take(algo.account, algo.placement)
    records = {algo.id: algo for algo in desired.algos}
    feeds = {feed.id for feed in desired.feeds}
    for name, seen in observed.actors.items():
        if name.kind is not Kind.ALGO:
            continue
        record = records.get(AlgoId(name.id))
        if record is None or record.epoch != name.number:
            actions.append(Remove(name, "a newer incarnation exists", gently=record is None and seen.answers))
    # First those that can go to one machine only.
    for algo in sorted(desired.algos, key=lambda each: not each.node):
        name = ActorName(Kind.ALGO, algo.id, algo.epoch)
        mine = observed.actors.get(name)
        if algo.want == "stopped":
            gone = "" if algo.feed in feeds else f"its feed {algo.feed} was deleted"
            actions += _stop(algo, name, mine, memory, gone)
        elif algo.state != "failed":
            actions += _run(algo, name, mine, memory, machines, lost, now)
        else:
            memory.crashes.pop(algo.id, None)  # whoever starts it again gives it all its tries
            if mine is not None:
                actions.append(Remove(name, "it failed", gently=mine.answers))
    for gone in {*memory.crashes, *memory.ended} - records.keys():
        memory.crashes.pop(gone, None)
        memory.ended.pop(gone, None)
    return actions


def _machines(desired: Desired, observed: Observed, lost: Mapping[NodeName, str]) -> dict[NodeName, Machine]:
    """Every machine that is registered or here."""
    machines = {}
    records = {node.name: node for node in desired.nodes}
    for name in sorted({*records, *observed.nodes}):
        record, capacity = records.get(name), observed.capacities.get(name)
        machines[name] = Machine(
            name=name,
            alive=name in observed.nodes and name not in lost,
            # One that is not registered has just come, or is about to leave.
            cordoned=record is None or record.cordoned or record.draining,
            draining=record is not None and record.draining,
            unfit=observed.unfit.get(name, ""),
            labels={} if record is None else record.labels,
            cpus=None if capacity is None else capacity.cpus,
            memory_mb=None if capacity is None else capacity.memory_mb,
        )
    return machines


def _where(algo: AlgoRecord, observed: Observed, memory: Memory) -> NodeName:
    """The node that carries an algo, or is about to; "" for one that is to be started, or of which it is not known."""
    seen = observed.actors.get(ActorName(Kind.ALGO, algo.id, algo.epoch))
    if seen is not None and seen.node:
        return seen.node
    if seen is None and ActorName(Kind.ALGO, algo.id, algo.epoch) not in memory.created:
        return NodeName("")
    return algo.placed


def _stop(algo: AlgoRecord, name: ActorName, mine: Seen | None, memory: Memory, why: str) -> list[Action]:
    memory.crashes.pop(algo.id, None)
    if mine is not None:
        return [ShowAlgo(algo, "stopping", why or "asked to stop"), StopAlgo(name, why or "asked to stop")]
    if algo.state == "failed":
        return []  # it stays visible as what it was until somebody starts it again
    return [ShowAlgo(algo, "stopped", why)]


def _run(
    algo: AlgoRecord,
    name: ActorName,
    mine: Seen | None,
    memory: Memory,
    machines: Mapping[NodeName, Machine],
    lost: Mapping[NodeName, str],
    now: Nanos,
) -> list[Action]:
    if mine is not None:
        if not mine.answers and algo.placed in lost:
            return _start(algo, lost[algo.placed], machines)
        if not mine.answers:
            return [ShowAlgo(algo, algo.state if algo.state in _UP else "starting", "its process does not answer")]
        if mine.state == "failed":
            return [ShowAlgo(algo, "failed", mine.reason), Remove(name, "it failed", gently=True)]
        if mine.memory_mb > algo.placement.memory_mb:
            reason = f"its process took {mine.memory_mb} MiB, {algo.placement.memory_mb} are allowed it"
            return [ShowAlgo(algo, "failed", reason), Remove(name, reason, gently=False)]
        if mine.over_cpu and algo.placement.over_cpu is OverCpu.END:
            reason = f"its process took {mine.cpu_share:.2f} cores, {algo.placement.cpu_limit:g} are allowed it"
            return [ShowAlgo(algo, "failed", reason), Remove(name, reason, gently=False)]
        if mine.generation and mine.generation < algo.restart_generation:
            return [ShowAlgo(algo, "stopping", "restarting with what was changed"), StopAlgo(name, "changed")]
        up = "paused" if algo.paused_by else "running"
        if mine.heart_age_s > BLOCKED_S:
            return [ShowAlgo(algo, up, f"blocked: its loop has not come round for {mine.heart_age_s:.0f} s")]
        state = up if mine.state == "ready" else "starting"
        there = machines.get(mine.node)
        if there is not None and there.draining:
            other, why = choose(algo.account, algo.node, algo.placement, [*machines.values()])
            if other is None:
                return [ShowAlgo(algo, state, f"node {mine.node} is being emptied, but it cannot go elsewhere: {why}")]
            # Its place is kept while it ends here.
            other.take(algo.account, algo.placement)
            reason = f"moving, for node {mine.node} is being emptied"
            return [ShowAlgo(algo, "stopping", reason), StopAlgo(name, reason)]
        return [ShowAlgo(algo, state, _how(algo, mine))]
    if name in memory.created:
        return []
    if algo.state in ("starting", *_UP) and algo.placed in machines and not machines[algo.placed].alive:
        # Not its own fault, so no crash of its own.
        return _start(algo, lost.get(algo.placed, f"node {algo.placed} is gone"), machines)
    if algo.state in ("starting", *_UP) and algo.epoch:
        attempts = memory.crashes.get(algo.id, Attempts())
        if memory.ended.get(algo.id) != algo.epoch:
            memory.ended[algo.id] = algo.epoch
            attempts = memory.crashes[algo.id] = attempts.ended(now)
        if attempts.is_loop():
            # Whoever starts it again begins with a clean slate.
            memory.crashes.pop(algo.id, None)
            return [ShowAlgo(algo, "failed", f"its process ended {len(attempts.ends)} times in two minutes")]
        return [ShowAlgo(algo, "waiting", "its process ended; it will be started again")]
    attempts = memory.crashes.get(algo.id, Attempts())
    if now < attempts.next_at:
        return []
    return _start(algo, "", machines)


def _how(algo: AlgoRecord, mine: Seen) -> str:
    """Everything that is to be said of one that runs."""
    told = [mine.reason] if mine.reason else []
    if algo.paused_by:
        why = f": {algo.paused_because}" if algo.paused_because else ""
        told.append(f"paused by {algo.paused_by}{why}; only orders that reduce pass")
    if mine.over_cpu:
        told.append(
            f"takes more CPU than the {algo.placement.cpu_limit:g} cores that it is allowed, so others go first"
        )
    return "; ".join(told)


def _start(algo: AlgoRecord, because: str, machines: Mapping[NodeName, Machine]) -> list[Action]:
    """A new incarnation; it fences the one before, which is then removed as any older one."""
    machine, why = choose(algo.account, algo.node, algo.placement, [*machines.values()])
    if machine is None:
        reason = f"{because}; {why}" if because else why
        # One that was up may be up still, cut off from us but not from its session.
        return [Fence(algo, reason) if algo.state in ("starting", *_UP) else ShowAlgo(algo, "waiting", reason)]
    machine.take(algo.account, algo.placement)
    return [StartAlgo(algo, machine.name)]

"""Where sessions, broker connections and feed workers run, and when they go elsewhere.  Pure.

Those for which nothing is said run on the head.  The others stay where they are for as long as that machine is here and
fits; where it is lost, is being emptied or fits no more, they go to another that fits, if there is one.  The lease that
each takes when it starts makes it the only one that acts, whatever still runs on a machine that was given up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from cluster.names import ActorName, Kind
from cluster.placement import Machine, choose
from storage.records import AccountRecord, FeedRecord, NodeRecord, Placement
from trading.ids import AccountId, NodeName

#: Machines with this label and value carry central risk, before the head does: entries need it, also while there is no
#: head.
RISK_LABEL: Final = ("carries", "risk")
#: They are few and always needed: no room is asked for.
_CPUS: Final = 0.0
_MEMORY_MB: Final = 0


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor asks of its machine: labels and to be let these accounts, or one of these machines by name."""

    selector: str = ""
    accounts: tuple[AccountId, ...] = ()
    #: In order of preference; none: by labels.
    nodes: tuple[NodeName, ...] = ()
    #: The last of these only while none of the others is there.
    last_resort: bool = False

    def fits(self, machine: Machine) -> bool:
        """Whether it may go, and stay, there."""
        if self.nodes:
            return machine.name in self.nodes and machine.alive and not machine.cordoned
        return all(choose(each, machine.name, self._placement(), [machine])[0] is not None for each in self.accounts)

    def choose(self, machines: Sequence[Machine]) -> tuple[NodeName | None, str]:
        """The machine to start on; None and why not."""
        fitting = {each.name: each for each in machines if self.fits(each)}
        if self.nodes:
            return next((name for name in self.nodes if name in fitting), None), self._in_words(machines)
        if fitting:
            found, why = choose(self.accounts[0], NodeName(""), self._placement(), [*fitting.values()])
            return None if found is None else found.name, why
        return None, self._in_words(machines)

    def _in_words(self, machines: Sequence[Machine]) -> str:
        if self.nodes:
            return f"none of its nodes is here and takes it: {', '.join(self.nodes)}"
        for account in self.accounts:
            found, why = choose(account, NodeName(""), self._placement(), machines)
            if found is None:
                return why
        return f"no node takes all of {', '.join(self.accounts)}"

    def _placement(self) -> Placement:
        return Placement(selector=self.selector, cpus=_CPUS, memory_mb=_MEMORY_MB)


def sites(
    accounts: Iterable[AccountRecord], feeds: Iterable[FeedRecord], nodes: Iterable[NodeRecord] = (), head: str = ""
) -> dict[ActorName, Site]:
    """What those ask that are not bound to the head.

    A user's session goes with the first of the accounts that ask for a machine.
    """
    found = {}
    label, value = RISK_LABEL
    risky = tuple(sorted(node.name for node in nodes if node.labels.get(label) == value))
    if risky and head:
        found[ActorName(Kind.RISK, "main")] = Site(
            nodes=(*(name for name in risky if name != head), NodeName(head)), last_resort=True
        )
    enabled = sorted((each for each in accounts if each.enabled), key=lambda each: each.id)
    for account in enabled:
        if not account.selector:
            continue
        found[ActorName(Kind.CONNECTION, account.id)] = Site(selector=account.selector, accounts=(account.id,))
        own = tuple(each.id for each in enabled if each.user == account.user)
        found.setdefault(ActorName(Kind.SESSION, account.user), Site(selector=account.selector, accounts=own))
    for feed in feeds:
        for n in range(feed.workers if feed.enabled and feed.nodes else 0):
            first = n % len(feed.nodes)
            # In turn over its machines: where one goes away, the workers of the others carry on.
            found[ActorName(Kind.WORKER, feed.id, n)] = Site(nodes=feed.nodes[first:] + feed.nodes[:first])
    return found


def why_leave(site: Site, here: NodeName, machines: Mapping[NodeName, Machine], lost: Mapping[NodeName, str]) -> str:
    """Why an actor cannot stay where it is; "" where it can, or could go nowhere else."""
    if not here:
        return ""
    machine = machines.get(here)
    if machine is None or not machine.alive:
        why = lost.get(here, f"node {here} is gone")
    elif machine.draining:
        why = f"node {here} is being emptied"
    elif site.last_resort and here == site.nodes[-1]:
        why = "another node is to carry it"
    elif site.fits(msgspec.structs.replace(machine, cordoned=False)):
        return ""
    else:
        why = f"node {here} does not fit any more"
    other, _ = site.choose([each for each in machines.values() if each.name != here])
    return why if other else ""

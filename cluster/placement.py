"""Which machine an algo runs on.  Pure.

A machine is possible where it is alive and takes new work, has the name or the labels that are asked for, may carry
the account, and has room.  Of those that are possible one is chosen: the emptiest (``spread``), the fullest
(``pack``), where asked one without other algos of the account.  Equal ones go by name, so the same question has the
same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from cluster.selectors import Selector, read_selector
from storage.records import Apart, Packing, Placement
from trading.errors import BadInput
from trading.ids import AccountId, NodeName

#: A machine with this label carries algos of the accounts it names only, separated by ``+``: a broker may know its
#: address, or its owner may want nobody else's work.
ACCOUNTS_LABEL: Final = "accounts"


def check_placement(placement: Placement) -> Placement:
    """Return itself.  Raises `BadInput` naming the field."""
    read_selector(placement.selector)
    if not 0 < placement.cpus <= 256:
        raise BadInput("cpus", f"{placement.cpus} is not between 0 and 256 cores")
    if not 64 <= placement.memory_mb <= 1_048_576:
        raise BadInput("memory_mb", f"{placement.memory_mb} is not between 64 and 1048576 MiB")
    if not 0 < placement.cpu_limit <= 256:
        raise BadInput("cpu_limit", f"{placement.cpu_limit} is not between 0 and 256 cores")
    return placement


class Machine(msgspec.Struct, kw_only=True):
    """A registered machine, with what it carries; changed as algos are placed."""

    name: NodeName
    alive: bool
    cordoned: bool = False
    draining: bool = False
    #: Why it takes no algos though nobody has cordoned it, such as another version of the code; "" where it does.
    unfit: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    #: In all, and what is left after everything else that runs there; None where it has not said.
    cpus: float | None = None
    memory_mb: int | None = None
    algos: int = 0
    cpus_taken: float = 0.0
    memory_mb_taken: int = 0
    accounts: dict[AccountId, int] = msgspec.field(default_factory=dict)

    def take(self, account: AccountId, placement: Placement) -> None:
        """An algo is carried there."""
        self.algos += 1
        self.cpus_taken += placement.cpus
        self.memory_mb_taken += placement.memory_mb
        self.accounts[account] = self.accounts.get(account, 0) + 1

    @property
    def share_taken(self) -> float:
        """The fuller of cores and memory, 0 … 1; by count where the machine has not said what it has."""
        cpus = self.cpus_taken / self.cpus if self.cpus else 0.0
        memory = self.memory_mb_taken / self.memory_mb if self.memory_mb else 0.0
        return max(cpus, memory)


def choose(
    account: AccountId, node: NodeName, placement: Placement, machines: Sequence[Machine]
) -> tuple[Machine | None, str]:
    """``(machine, "")`` or ``(None, why not)``.  ``node``: the only one that will do; "" for any."""
    selector = _read(placement.selector)
    if node:
        machines = [each for each in machines if each.name == node]
        if not machines:
            return None, f"no node is named {node}"
    possible = [each for each in machines if _against(account, placement, selector, each) is None]
    if not possible:
        return None, _in_words(account, placement, selector, machines)
    apart = placement.apart is not Apart.NO
    sign = 1 if placement.packing is Packing.SPREAD else -1

    def rank(machine: Machine) -> tuple[int, float, int, str]:
        shared = machine.accounts.get(account, 0) if apart else 0
        return shared, sign * machine.share_taken, sign * machine.algos, machine.name

    return min(possible, key=rank), ""


def _against(
    account: AccountId, placement: Placement, selector: Selector, machine: Machine
) -> Callable[[], str] | None:
    """Why not this machine, in words when asked for them; None where nothing speaks against it."""
    if not machine.alive:
        return lambda: "is not here now"
    if machine.cordoned:
        return lambda: "is cordoned"
    if machine.unfit:
        return lambda: f"is not used: {machine.unfit}"
    if selector.requirements and (failing := selector.failing(machine.labels)) is not None:
        return lambda: f"does not match {failing}"
    only = machine.labels.get(ACCOUNTS_LABEL)
    if only is not None and account not in only.split("+"):
        return lambda: f"is kept for the accounts {only}"
    if placement.apart is Apart.REQUIRE and machine.accounts.get(account):
        return lambda: f"carries another algo of {account}"
    cpus, memory_mb = machine.cpus, machine.memory_mb
    if cpus is not None and machine.cpus_taken + placement.cpus > cpus + 1e-9:
        cpus_left = max(0.0, cpus - machine.cpus_taken)
        return lambda: f"has {cpus_left:g} cores left, {placement.cpus:g} are needed"
    if memory_mb is not None and machine.memory_mb_taken + placement.memory_mb > memory_mb:
        memory_left = max(0, memory_mb - machine.memory_mb_taken)
        return lambda: f"has {memory_left} MiB left, {placement.memory_mb} are needed"
    return None


_read = lru_cache(maxsize=1_000)(read_selector)


def _in_words(account: AccountId, placement: Placement, selector: Selector, machines: Sequence[Machine]) -> str:
    if not machines:
        return "no node is registered"
    told = []
    for machine in machines[:5]:
        why = _against(account, placement, selector, machine)
        assert why is not None
        told.append(f"node {machine.name} {why()}")
    shown = "; ".join(told)
    return shown if len(machines) <= 5 else f"{shown}; and {len(machines) - 5} more that cannot take it"

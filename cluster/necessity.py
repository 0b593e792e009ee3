"""What could run nowhere else if a machine were taken away.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cluster.placement import Machine, choose
from cluster.sites import sites
from storage.records import AccountRecord, AlgoRecord, FeedRecord, NodeRecord
from trading.ids import NodeName


def needed_by(
    node: NodeName,
    records: Iterable[NodeRecord],
    here: frozenset[NodeName],
    unfit: Mapping[NodeName, str],
    algos: Sequence[AlgoRecord],
    accounts: Sequence[AccountRecord] = (),
    feeds: Sequence[FeedRecord] = (),
) -> list[str]:
    """What should run, may run on ``node``, and is taken by no other machine now: ``algo momo``, ``connection p-1`` ….

    ``here``: machines that are part of the cluster.  The machine itself counts as it would be if it were there and took
    algos.  Room is not asked for: an algo waits where there is none.
    """
    this, others = [], []
    for record in records:
        if record.name == node:
            this.append(Machine(name=record.name, alive=True, labels=record.labels))
            continue
        others.append(
            Machine(
                name=record.name,
                alive=record.name in here,
                cordoned=record.cordoned or record.draining,
                unfit=unfit.get(record.name, ""),
                labels=record.labels,
            )
        )
    stuck = {
        f"algo {algo.id}"
        for algo in algos
        if algo.want != "stopped"
        and algo.state != "failed"
        and choose(algo.account, algo.node, algo.placement, this)[0] is not None
        and choose(algo.account, algo.node, algo.placement, others)[0] is None
    }
    stuck |= {
        f"{name.kind} {name.id}"
        for name, site in sites(accounts, feeds).items()
        if site.choose(this)[0] is not None and site.choose(others)[0] is None
    }
    return sorted(stuck)

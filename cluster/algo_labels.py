"""Which algos a selector means: by their own labels, and by what they are.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from cluster.selectors import check_labels, read_selector
from storage.records import AlgoRecord
from trading.errors import BadInput

#: What every algo is labelled with by itself; nobody can give it such a label.
OF_ITSELF: Final = ("id", "user", "account", "strategy", "feed", "node", "want", "state")


def check_algo_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of an algo, if they are such.  Raises `BadInput` naming the label."""
    own = sorted(set(labels) & set(OF_ITSELF))
    if own:
        raise BadInput("labels", f"{own[0]!r} is what an algo is labelled with by itself: choose another name")
    return check_labels(labels)


def labels_of(algo: AlgoRecord) -> dict[str, str]:
    """Everything that a selector can ask of an algo; ``node`` is where it was started last, or is to run."""
    found = {
        "id": algo.id,
        "user": algo.user,
        "account": algo.account,
        "strategy": algo.strategy,
        "feed": algo.feed,
        "node": algo.placed or algo.node,
        "want": algo.want,
        "state": algo.state,
    }
    return {**algo.labels, **{key: value for key, value in found.items() if value}}


def select(algos: Iterable[AlgoRecord], selector: str) -> list[AlgoRecord]:
    """Those that ``selector`` means, by name.  Raises `BadInput` for one that makes no sense, or asks for nothing."""
    if not selector.strip():
        raise BadInput("selector", "it is empty and would mean every algo: say what they have in common")
    wanted = read_selector(selector)
    return sorted((algo for algo in algos if wanted.matches(labels_of(algo))), key=lambda algo: algo.id)

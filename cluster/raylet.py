"""How Ray is started on a machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Final

from cluster.specs import NODE_LABEL

#: What Ray may count on; our actors ask for none of it.
CPUS: Final = 4
OBJECT_STORE_BYTES: Final = 100_000_000


def all_labels(node: str, labels: Mapping[str, str] | None = None) -> dict[str, str]:
    """The labels of the machine ``node``."""
    return {NODE_LABEL: node, **(labels or {})}


def ray_start(node: str, labels: Mapping[str, str] | None = None) -> list[str]:
    """``ray start`` for the machine ``node``, which is to join a head; the options of that are to be added."""
    return [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        f"--num-cpus={CPUS}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--disable-usage-stats",
        # It would read all logs several times a second to send them to drivers, of which none wants them.
        "--include-log-monitor=false",
        "--labels=" + ",".join(f"{k}={v}" for k, v in all_labels(node, labels).items()),
    ]

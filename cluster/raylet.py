"""How Ray is started on a machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from cluster.specs import NODE_LABEL


def ray_start(node: str, labels: Mapping[str, str] | None = None) -> list[str]:
    """``ray start`` for the machine ``node``; options that differ between head and others are to be added."""
    all_labels = {NODE_LABEL: node, **(labels or {})}
    return [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--block",
        "--num-cpus=4",
        "--object-store-memory=100000000",
        "--disable-usage-stats",
        # It would read all logs several times a second to send them to drivers, of which none wants them.
        "--include-log-monitor=false",
        "--labels=" + ",".join(f"{k}={v}" for k, v in all_labels.items()),
    ]

"""Where Ray's control store keeps what it knows, so that a head that died finds its cluster again.

It may be forgotten at any time: what should run is in PostgreSQL.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

_FOLDER = "ray-store"


def store_environment(home: Path) -> dict[str, str]:
    """What a head must find in its environment.  The stores of other releases of Ray are removed: they may differ."""
    folder = home / _FOLDER / version("ray")
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(folder)}


def wipe_store(home: Path) -> bool:
    """Forget all that Ray knows; whether there was anything.  Only while no head runs."""
    folder = home / _FOLDER
    there = folder.exists()
    if there:
        shutil.rmtree(folder)
    return there

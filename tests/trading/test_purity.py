from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMPORT_ALL = """
import importlib, pkgutil, sys
for room in ("trading", "strategies"):
    for module in pkgutil.walk_packages(importlib.import_module(room).__path__, room + "."):
        importlib.import_module(module.name)
print(sorted({"ray", "redis", "psycopg", "pandas", "fastapi"} & set(sys.modules)))
"""


def test_pure_rooms_load_without_ray_or_anything_heavy() -> None:
    """An algo's process pays for what these import."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


IMPORT_TRADING = """
import importlib, pkgutil, sys
before = set(sys.modules)
import msgspec, numpy
before |= set(sys.modules)
for module in pkgutil.walk_packages(importlib.import_module("trading").__path__, "trading."):
    importlib.import_module(module.name)
rooms = {"actors", "api", "cluster", "connectors", "storage", "strategies"}
ours = {name for name in sys.modules if name.split(".")[0] in rooms}
banned = {"asyncio", "socket", "ssl", "subprocess", "sqlite3", "httpx", "websockets", "exchange_calendars", "pydantic"}
print(sorted(ours | (banned & (set(sys.modules) - before))))
"""


def test_trading_loads_no_input_or_output_and_none_of_the_other_rooms() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_TRADING], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"

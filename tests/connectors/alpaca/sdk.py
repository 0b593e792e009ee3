"""The official SDK in an environment of its own, made when first wanted and kept in the user's cache."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Its pins must not meet ours, so it is never installed beside us.
PACKAGE = "alpaca-py==0.44.0"
_MAKE_WITHIN_S = 180


def python_with_sdk() -> Path:
    """The interpreter of that environment; skips the test where it cannot be made."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarterdeck-tests"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        pytest.skip(f"{cache} cannot be made: {error}")
    home = cache / PACKAGE.replace("==", "-")
    with (cache / "lock").open("w") as lock:
        # Workers that want it at once wait for the one that makes it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        python = home / "bin" / "python"
        if not (home / "ready").exists():
            for command in (
                [sys.executable, "-m", "venv", "--clear", str(home)],
                [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE],
            ):
                try:
                    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_MAKE_WITHIN_S)
                except (subprocess.SubprocessError, OSError) as error:
                    said = (getattr(error, "stderr", "") or str(error)).strip()[-300:]
                    pytest.skip(f"{PACKAGE} cannot be installed here: {said}")
            (home / "ready").touch()
    return python

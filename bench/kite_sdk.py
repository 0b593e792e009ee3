"""The official SDK of Kite in an environment of its own, made when first wanted and kept in the user's cache."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

#: Its Twisted and autobahn must not meet our packages.  autobahn 19 asks for setuptools' pkg_resources.
PACKAGES: Final = ("kiteconnect==5.2.2", "setuptools<80")
_MAKE_WITHIN_S: Final = 240


def make_environment() -> Path:
    """The folder of that environment.  Raises RuntimeError where it cannot be made."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarterdeck-tests"
    home = cache / PACKAGES[0].replace("==", "-")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / "lock").open("w") as lock:
            # Those that want it at once wait for the one that makes it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (home / "ready").exists():
                pip = [str(python_of(home)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
                for command in ([sys.executable, "-m", "venv", "--clear", str(home)], [*pip, *PACKAGES]):
                    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_MAKE_WITHIN_S)
                (home / "ready").touch()
    except (subprocess.SubprocessError, OSError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip()[-300:]
        raise RuntimeError(f"{PACKAGES[0]} cannot be installed here: {said}") from error
    return home


def python_of(home: Path) -> Path:
    """The interpreter of an environment."""
    return home / "bin" / "python"


def site_packages(home: Path) -> Path:
    """Where an environment's packages are."""
    return next((home / "lib").glob("python3.*")) / "site-packages"

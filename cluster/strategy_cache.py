"""The versions of strategies that this machine has fetched: ``<data dir>/strategies/<version>/``.

``code/`` holds what was submitted, unpacked; ``packages/`` what its requirements were resolved to.  A folder is made
beside its place and renamed into it, under a lock of the machine, so it is there whole or not at all.  Each load reads
it again: the code must hash to the version itself, the packages to what was installed.  What does not is fetched anew;
the store in PostgreSQL is the only source.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from cluster import requirements
from storage.artefacts import Artefacts
from storage.records import Pin, StrategyVersion
from strategies import archive
from strategies.versions import version_of
from trading.errors import Invariant, NeedsOperator, NotReady

log = logging.getLogger("quarterdeck")

#: Patience for another process of this machine that makes the same folder.
LOCK_S: Final = 180.0
#: Nobody takes so long to fetch a version.
_ABANDONED_S: Final = 3600.0
#: Folders under way: into their place, and out of it.
_NEW: Final = ".new-"
_OLD: Final = ".old-"
_CODE: Final = "code"
_PACKAGES: Final = "packages"
_LISTED: Final = "packages.json"


class _Listed(msgspec.Struct, frozen=True):
    """What was installed: the wheels, and each file that came of them, by digest."""

    wheels: list[str]
    files: dict[str, str]


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version is on this machine; ``packages`` None: it needs none."""

    code: Path
    packages: Path | None


async def fetch(home: Path, version: StrategyVersion, artefacts: Artefacts) -> Cached:
    """A version, from this machine where it is there and sound, else from the store.

    Raises `NotReady` where the store does not answer, `NeedsOperator` where it cannot be put on this machine.
    """
    place = home / "strategies" / version.version
    wrong = await asyncio.to_thread(flaw, place, version)
    if not wrong:
        return _cached(place, version)
    async with _locked(place):
        if not (wrong := await asyncio.to_thread(flaw, place, version)):
            return _cached(place, version)
        if place.exists():
            log.warning("version %s of %s on this machine is fetched anew: %s", place.name, version.strategy, wrong)
        data = await artefacts.get(version.artefact)
        contents = await asyncio.to_thread(archive.read, _file_name(version), data)
        wheels = {pin.sha256: await artefacts.get(pin.sha256) for pin in version.pins}
        async with scratch(home) as folder:
            await unpack(folder / "version", contents.files, version.pins, wheels)
            await asyncio.to_thread(_move, folder / "version", place)
    if wrong := await asyncio.to_thread(flaw, place, version):
        raise Invariant(f"version {version.version} of {version.strategy}, fresh from the store: {wrong}")
    return _cached(place, version)


async def keep(home: Path, version: StrategyVersion, folder: Path) -> None:
    """Take what was unpacked for the check as this machine's copy, unless there is one."""
    place = home / "strategies" / version.version
    async with _locked(place):
        if await asyncio.to_thread(flaw, place, version):
            await asyncio.to_thread(_move, folder, place)


@asynccontextmanager
async def scratch(home: Path) -> AsyncIterator[Path]:
    """A folder to unpack into, from where it can be renamed into its place; gone afterwards."""
    parent = home / "strategies"
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(_sweep, parent)
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=_NEW, dir=parent))
    except OSError as error:
        raise NeedsOperator(f"{parent} cannot be written: {error}", "make it writable, or make room") from error
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def unpack(folder: Path, files: Mapping[str, bytes], pins: Sequence[Pin], wheels: Mapping[str, bytes]) -> Cached:
    """Write code and packages into a folder that is not there yet, as `flaw` looks at them."""
    await asyncio.to_thread(_write, folder / _CODE, files)
    if not pins:
        return Cached(code=folder / _CODE, packages=None)
    await requirements.install(pins, wheels, folder / _PACKAGES)
    listed = await asyncio.to_thread(_digests, folder / _PACKAGES)
    (folder / _LISTED).write_bytes(msgspec.json.encode(_Listed(_wheels(pins), listed)))
    return Cached(code=folder / _CODE, packages=folder / _PACKAGES)


def flaw(place: Path, version: StrategyVersion) -> str:
    """What is wrong with a version's folder, "" where nothing is.  Reads all of it."""
    if not place.is_dir():
        return "it is not there"
    try:
        files = {file.relative_to(place / _CODE).as_posix(): file.read_bytes() for file in _files(place / _CODE)}
        if version_of(files, version.asked_entry, version.requirements) != version.version:
            return "its code is not what was submitted"
        if version.pins:
            listed = msgspec.json.decode((place / _LISTED).read_bytes(), type=_Listed)
            # Deleted and submitted again, a version may have been resolved to others.
            if listed.wheels != _wheels(version.pins):
                return "its packages are those of an earlier submission"
            if _digests(place / _PACKAGES) != listed.files:
                return "its packages are not what was installed"
    except (OSError, msgspec.DecodeError) as error:
        return f"it cannot be read: {error}"
    return ""


def _sweep(parent: Path) -> None:
    """Remove what a process left that was killed while it fetched."""
    for left in (each for each in parent.iterdir() if each.name.startswith((_NEW, _OLD))):
        try:
            is_old = time.time() - left.stat().st_mtime > _ABANDONED_S
        except FileNotFoundError:
            continue  # whose it is removed it
        if is_old:
            shutil.rmtree(left, ignore_errors=True)


def _cached(place: Path, version: StrategyVersion) -> Cached:
    return Cached(code=place / _CODE, packages=place / _PACKAGES if version.pins else None)


def _wheels(pins: Sequence[Pin]) -> list[str]:
    return sorted(pin.sha256 for pin in pins)


def _file_name(version: StrategyVersion) -> str:
    return version.file_name if version.kind != "file" else archive.MODULE


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in _files(folder)
    }


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise NeedsOperator(f"{folder} cannot be written: {error}", "make room on this machine") from error


def _move(folder: Path, place: Path) -> None:
    """Put ``folder`` in its place; what was there is taken aside first, for a rename does not replace a folder."""
    if place.exists():
        aside = Path(tempfile.mkdtemp(prefix=_OLD, dir=place.parent))
        place.rename(aside / "it")
        shutil.rmtree(aside, ignore_errors=True)
    folder.rename(place)


@asynccontextmanager
async def _locked(place: Path) -> AsyncIterator[None]:
    """Alone on this machine with this version.  The lock ends with the process that holds it."""
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(place.parent / f".{place.name}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise NeedsOperator(f"{place.parent} cannot be written: {error}", "make it writable, or make room") from error
    try:
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise NotReady(f"another process has been fetching {place.name} for {LOCK_S:g} s", 5.0) from None
            await asyncio.sleep(0.05)
        yield
    finally:
        os.close(descriptor)

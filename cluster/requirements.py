"""Requirements of a strategy: resolved once, when it is submitted; installed on each node from the wheels in our store.

pip does both, in a child process, from the indexes that this machine is configured for.  It is shown an environment
that holds exactly the deck's own packages, pinned: what they bring is used as it is and never replaced, and a
requirement that contradicts one of them is refused by name.  Only wheels are taken: building one would run foreign
code, and not give the same bytes on every node.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pip
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cluster import limited_child
from cluster.limited_child import Outcome
from storage.records import Pin
from strategies.archive import hidden, top_levels
from trading.errors import BadInput, NeedsOperator, NotReady

MOST_REQUIREMENTS: Final = 50
LONGEST_REQUIREMENT: Final = 200
#: What the wheels of a version may be together, in bytes.
LARGEST_WHEELS: Final = 200_000_000
RESOLVE_S: Final = 120.0
INSTALL_S: Final = 120.0
_DECK: Final = "quarterdeck"
#: pip from the folder that is its first argument, with nothing else but the standard library on its path.
_BOOT: Final = "import sys, runpy; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module('pip', run_name='__main__')"


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """The packages to install besides the deck's own, and their wheels."""

    pins: tuple[Pin, ...] = ()
    wheels: tuple[bytes, ...] = ()


def check_asked(requirements: Sequence[str]) -> tuple[str, ...]:
    """Requirements in their usual form, sorted; raises `BadInput` naming the one that cannot be taken."""
    if len(requirements) > MOST_REQUIREMENTS:
        raise BadInput("requirements", f"{len(requirements)} are too many; at most {MOST_REQUIREMENTS} are taken")
    found: set[str] = set()
    for text in requirements:
        shown = text.strip()[:LONGEST_REQUIREMENT]
        try:
            asked = Requirement(text.strip())
        except InvalidRequirement as error:
            raise BadInput(
                "requirements", f"{shown!r} is no requirement such as 'scipy>=1.14': {str(error).splitlines()[0]}"
            ) from error
        if asked.url:
            raise BadInput(
                "requirements", f"{shown!r} names an address: put the wheel on an index that this machine is set up for"
            )
        if len(text) > LONGEST_REQUIREMENT:
            raise BadInput("requirements", f"{shown!r}… is longer than {LONGEST_REQUIREMENT} characters")
        found.add(str(asked))
    return tuple(sorted(found))


def deck_packages() -> dict[str, str]:
    """Name and version of every package that the deck itself is made of, wherever it runs."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(_DECK, frozenset())]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extras = waiting.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            if name == _DECK:
                raise NeedsOperator(
                    "the deck is not installed as a package, so nobody knows what it needs", "run pip install -e ."
                ) from error
            continue  # a requirement for another system
        found[canonicalize_name(name)] = distribution.version
        for text in distribution.requires or ():
            requirement = Requirement(text)
            for extra in ("", *extras):
                key = (canonicalize_name(requirement.name), f"{sorted(requirement.extras)}")
                applies = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
                if applies and key not in seen:
                    seen.add(key)
                    waiting.append((requirement.name, frozenset(requirement.extras)))
    return found


def deck_modules(deck: Mapping[str, str]) -> set[str]:
    """Names by which the deck's packages are imported."""
    found = importlib.metadata.packages_distributions().items()
    return {top for top, brought_by in found if {canonicalize_name(each) for each in brought_by} & deck.keys()}


async def resolve(requirements: Sequence[str], wheel: tuple[str, bytes] | None = None) -> Resolved:
    """What ``requirements``, and those of a submitted ``wheel`` (name and bytes), come to here and now.

    Raises `BadInput` for ``requirements`` with pip's own words where they cannot be had together with the deck's
    packages or have no wheel; `NotReady` where the index does not answer in time.
    """
    if not requirements and wheel is None:
        return Resolved()
    deck = await asyncio.to_thread(deck_packages)
    with tempfile.TemporaryDirectory(prefix="quarterdeck-resolve-") as scratch:
        folder = Path(scratch)
        environment = folder / "deck"
        await asyncio.to_thread(_show_deck, environment, deck)
        (folder / "asked.txt").write_text("".join(f"{each}\n" for each in requirements))
        (folder / "deck.txt").write_text("".join(f"{name}=={version}\n" for name, version in sorted(deck.items())))
        words = ["install", "--dry-run", "--report", "report.json", "-r", "asked.txt", "-c", "deck.txt"]
        if wheel is not None:
            await asyncio.to_thread((folder / wheel[0]).write_bytes, wheel[1])
            words.append(str(folder / wheel[0]))
        _check(await _pip(environment, words, folder, RESOLVE_S), "resolve")
        wanted = _wanted((folder / "report.json").read_bytes(), "" if wheel is None else wheel[0])
        if not wanted:
            return Resolved()
        lines = [f"{each['name']}=={each['version']} --hash=sha256:{each['sha256']}\n" for each in wanted]
        (folder / "pins.txt").write_text("".join(lines))
        words = ["download", "--no-deps", "--require-hashes", "-r", "pins.txt", "-d", "wheels"]
        _check(await _pip(environment, words, folder, RESOLVE_S), "download")
        return await asyncio.to_thread(_taken, folder / "wheels", wanted, deck)


async def install(pins: Sequence[Pin], wheels: Mapping[str, bytes], target: Path) -> None:
    """Install wheels (by SHA-256, verified by whoever fetched them) into a folder, and nothing else.

    Raises `NeedsOperator` where they do not fit this machine.
    """
    with tempfile.TemporaryDirectory(prefix="quarterdeck-install-") as scratch:
        folder = Path(scratch)
        environment = folder / "deck"
        await asyncio.to_thread(_show_deck, environment, {})
        for pin in pins:
            await asyncio.to_thread((folder / pin.file_name).write_bytes, wheels[pin.sha256])
        words = ["install", "--no-deps", "--no-index", "--target", str(target)]
        outcome = await _pip(environment, [*words, *(str(folder / pin.file_name) for pin in pins)], folder, INSTALL_S)
    if outcome.code or outcome.ended_for:
        raise NeedsOperator(
            f"the requirements cannot be installed on this machine: {_words_of(outcome)}",
            "run the algo on a machine of the kind that the version was submitted on, or submit it there",
        )


def _show_deck(environment: Path, deck: Mapping[str, str]) -> None:
    """A folder that looks to pip like an environment with the deck's packages, and holds pip."""
    environment.mkdir()
    (environment / "pip").symlink_to(Path(pip.__file__).parent)
    for name, version in deck.items():
        folder = environment / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        metadata = importlib.metadata.distribution(name).read_text("METADATA") or ""
        (folder / "METADATA").write_text(metadata)
        (folder / "INSTALLER").write_text("pip\n")


async def _pip(environment: Path, words: Sequence[str], folder: Path, seconds: float) -> Outcome:
    settings = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_") or name.lower() in ("http_proxy", "https_proxy", "no_proxy")
    }
    # Where to install to is said here, whatever the machine's settings of pip are.
    settings |= {"PIP_REQUIRE_VIRTUALENV": "0", "PIP_USER": "0"}
    command, *rest = words
    only_wheels = [] if "--no-index" in words else ["--only-binary", ":all:"]
    quiet = ["--no-input", "--disable-pip-version-check", "--no-color", "--progress-bar", "off"]
    return await limited_child.run(
        [sys.executable, "-I", "-S", "-c", _BOOT, str(environment), command, *quiet, *only_wheels, *rest],
        seconds=seconds,
        folder=folder,
        environment=limited_child.plain_environment(**settings),
        answers=False,
    )


def _check(outcome: Outcome, what: str) -> None:
    if outcome.ended_for == "time":
        raise NotReady(f"the index of packages took longer than {RESOLVE_S:g} s to {what} the requirements", 30.0)
    if outcome.code and "Retrying (Retry(" in outcome.printed:
        raise NotReady("the index of packages that this machine is set up for does not answer", 30.0)
    if outcome.code or outcome.ended_for:
        raise BadInput("requirements", _words_of(outcome))


def _words_of(outcome: Outcome) -> str:
    """What pip said of its failure, on one line."""
    lines = [line.strip() for line in outcome.printed.splitlines()]
    told = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    _, conflict, why = outcome.printed.partition("The conflict is caused by:")
    if conflict:
        why, *_ = why.partition("To fix this")
        told = ["they contradict each other:", "; ".join(line.strip() for line in why.splitlines() if line.strip())]
    text = " ".join(told)[:1500] or f"pip ended with code {outcome.code}: {' '.join(lines)[-500:]}"
    if "No matching distribution" in text:
        text += " (of wheels for this machine; what comes as source only must be built into a wheel first)"
    if "(constraint)" in text:
        text += " (a constraint is what the deck itself runs with, and stays as it is)"
    return text


def _wanted(report: bytes, wheel: str) -> list[dict[str, Any]]:
    """Name, version, digest and file of each wheel to install, by pip's report (format 1)."""
    found = []
    for each in json.loads(report)["install"]:
        source = each["download_info"]
        if wheel and source["url"].endswith("/" + wheel):
            continue  # the submission itself
        found.append(
            {
                "name": canonicalize_name(each["metadata"]["name"]),
                "version": each["metadata"]["version"],
                "sha256": source["archive_info"]["hashes"]["sha256"],
            }
        )
    return sorted(found, key=lambda each: str(each["name"]))


def _taken(folder: Path, wanted: Sequence[dict[str, Any]], deck: Mapping[str, str]) -> Resolved:
    """The wheels that were downloaded; raises `BadInput` where they are too large or would hide what is the deck's."""
    files = {}
    for file in folder.iterdir():
        name, version, *_ = file.name.split("-")
        files[canonicalize_name(name), version] = file
    total = sum(file.stat().st_size for file in files.values())
    if total > LARGEST_WHEELS:
        raise BadInput("requirements", f"their wheels have {total} bytes; at most {LARGEST_WHEELS} are taken")
    ours = deck_modules(deck)
    pins, wheels = [], []
    for each in wanted:
        file = next(
            f for (name, version), f in files.items() if name == each["name"] and _same(version, each["version"])
        )
        with zipfile.ZipFile(file) as archive:
            tops = top_levels(name for name in archive.namelist() if ".dist-info/" not in name and ".data/" not in name)
        if wrong := hidden(tops, ours):
            raise BadInput("requirements", f"{each['name']} brings {', '.join(wrong)}, which would hide the deck's own")
        wheels.append(file.read_bytes())
        pins.append(Pin(**each, file_name=file.name, size=len(wheels[-1])))
    return Resolved(pins=tuple(pins), wheels=tuple(wheels))


def _same(in_name: str, version: str) -> bool:
    return in_name.replace("_", "-") == version.replace("_", "-")

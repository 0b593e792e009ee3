"""A machine's copies of strategies: whole, what the store has, and fetched once."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import requirements, strategy_cache
from cluster.requirements import check_asked, deck_packages
from storage.records import Pin, StrategyVersion
from strategies import archive
from strategies.versions import version_of
from tests.support.wheels import packed, wheel
from trading.errors import BadInput, Invariant, NeedsOperator, NotReady
from trading.ids import Nanos

FILES: dict[str, str | bytes] = {"own/__init__.py": b"", "own/mine.py": b"X = 1\n"}


class Store:
    """Files by digest, as `Artefacts` gives them; counts what is asked."""

    def __init__(self, *files: bytes) -> None:
        self.files = {hashlib.sha256(each).hexdigest(): each for each in files}
        self.asked = 0

    async def get(self, sha256: str) -> bytes:
        self.asked += 1
        await asyncio.sleep(0.05)
        return self.files[sha256]


def version(data: bytes, pins: tuple[Pin, ...] = (), **changes: Any) -> StrategyVersion:
    values: dict[str, Any] = {
        "strategy": "mine",
        "version": version_of(archive.read("mine.zip", data).files),
        "kind": "zip",
        "file_name": "mine.zip",
        "artefact": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "asked_entry": "",
        "entry": "own.mine:Mine",
        "schema": {},
        "requirements": (),
        "pins": pins,
        "checked": {},
        "submitted_by": "asha",
        "submitted_at": Nanos(1),
        **changes,
    }
    return StrategyVersion(**values)


ZIP = packed(FILES)
MINE = version(ZIP)


def left_over(home: Path) -> list[str]:
    return [each.name for each in (home / "strategies").iterdir() if each.name.startswith((".new", ".old"))]


async def test_many_who_want_a_version_at_once_fetch_it_once(tmp_path: Path) -> None:
    store: Any = Store(ZIP)
    found = await asyncio.gather(*(strategy_cache.fetch(tmp_path, MINE, store) for _ in range(8)))
    assert store.asked == 1
    assert len({each.code for each in found}) == 1
    assert (found[0].code / "own" / "mine.py").read_bytes() == b"X = 1\n"
    assert found[0].packages is None
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("damage", ["change", "remove", "add", "empty"])
async def test_a_copy_that_is_not_what_was_submitted_is_fetched_anew(tmp_path: Path, damage: str) -> None:
    store: Any = Store(ZIP)
    code = (await strategy_cache.fetch(tmp_path, MINE, store)).code
    if damage == "change":
        (code / "own" / "mine.py").write_text("X = 2\n")
    elif damage == "remove":
        (code / "own" / "__init__.py").unlink()
    elif damage == "add":
        (code / "numpy.py").write_text("")
    else:
        (code / "own" / "mine.py").write_bytes(b"")
    assert strategy_cache.flaw(code.parent, MINE) == "its code is not what was submitted"
    code = (await strategy_cache.fetch(tmp_path, MINE, store)).code
    assert store.asked == 2
    assert {file.relative_to(code).as_posix() for file in code.rglob("*.py")} == set(FILES)
    assert strategy_cache.flaw(code.parent, MINE) == ""
    assert left_over(tmp_path) == []


async def test_a_store_that_gives_another_file_is_found_out(tmp_path: Path) -> None:
    other = packed({"own/mine.py": b"X = 2\n"})
    store: Any = Store(other)
    store.files[MINE.artefact] = other
    with pytest.raises(Invariant, match="fresh from the store"):
        await strategy_cache.fetch(tmp_path, MINE, store)


async def test_a_fetch_that_fails_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    class Away(Store):
        async def get(self, sha256: str) -> bytes:
            raise NotReady("PostgreSQL is away")

    away: Any = Away()
    with pytest.raises(NotReady):
        await strategy_cache.fetch(tmp_path, MINE, away)
    assert not (tmp_path / "strategies" / MINE.version).exists()
    store: Any = Store(ZIP)
    await strategy_cache.fetch(tmp_path, MINE, store)


async def test_what_a_killed_process_left_is_swept_away_later(tmp_path: Path) -> None:
    for name, age in ((".new-dead", 7200), (".old-dead", 7200), (".new-busy", 60)):
        (tmp_path / "strategies" / name / "code").mkdir(parents=True)
        os.utime(tmp_path / "strategies" / name, (time.time() - age,) * 2)
    store: Any = Store(ZIP)
    await strategy_cache.fetch(tmp_path, MINE, store)
    assert left_over(tmp_path) == [".new-busy"]


async def test_a_machine_that_cannot_keep_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "strategies").write_text("a file is in the way")
    store: Any = Store(ZIP)
    with pytest.raises(NeedsOperator, match="make it writable"):
        await strategy_cache.fetch(tmp_path, MINE, store)


async def test_packages_are_installed_from_the_store_beside_the_code(tmp_path: Path) -> None:
    name, content = wheel("tinylib", "1.2", {"tinylib/__init__.py": "ANSWER = 42\n"})
    sha256 = hashlib.sha256(content).hexdigest()
    pin = Pin(name="tinylib", version="1.2", file_name=name, sha256=sha256, size=len(content))
    mine = version(ZIP, (pin,))
    store: Any = Store(ZIP, content)
    found = await strategy_cache.fetch(tmp_path, mine, store)
    assert found.packages is not None
    assert (found.packages / "tinylib" / "__init__.py").read_text() == "ANSWER = 42\n"
    assert await strategy_cache.fetch(tmp_path, mine, store) == found
    assert store.asked == 2
    (found.packages / "tinylib" / "__init__.py").write_text("ANSWER = 43\n")
    assert strategy_cache.flaw(found.code.parent, mine) == "its packages are not what was installed"
    await strategy_cache.fetch(tmp_path, mine, store)
    assert (found.packages / "tinylib" / "__init__.py").read_text() == "ANSWER = 42\n"


async def test_a_version_that_was_resolved_to_other_wheels_gets_those(tmp_path: Path) -> None:
    wheels = [wheel("tinylib", number, {"tinylib.py": f"NUMBER = {number}\n"}) for number in ("1.0", "2.0")]
    store: Any = Store(ZIP, *(content for _, content in wheels))
    for (name, content), number in zip(wheels, ("1.0", "2.0"), strict=True):
        sha256 = hashlib.sha256(content).hexdigest()
        pin = Pin(name="tinylib", version=number, file_name=name, sha256=sha256, size=len(content))
        found = await strategy_cache.fetch(tmp_path, version(ZIP, (pin,)), store)
        assert found.packages is not None
        assert (found.packages / "tinylib.py").read_text() == f"NUMBER = {number}\n"


async def test_a_wheel_for_another_machine_needs_an_operator(tmp_path: Path) -> None:
    _, content = wheel("tinylib", "1.2", {"tinylib.py": ""})
    pin = Pin(name="tinylib", version="1.2", file_name="tinylib-1.2-cp39-cp39-win_arm64.whl", sha256="x", size=1)
    with pytest.raises(NeedsOperator, match="not a supported wheel"):
        await requirements.install([pin], {"x": content}, tmp_path / "packages")


def test_the_decks_packages_are_what_it_needs_and_no_tools_for_its_development() -> None:
    found = deck_packages()
    assert {"quarterdeck", "ray", "numpy", "pandas", "pydantic-core"} <= found.keys()
    assert found["numpy"] == importlib.metadata.version("numpy")
    assert not {"pytest", "hypothesis", "mypy"} & found.keys()


@settings(deadline=None)
@given(st.lists(st.text("abc-_.=<>~![]@;'\" /\n#", max_size=30), max_size=4))
def test_requirements_are_taken_in_one_form_or_refused_by_field(texts: list[str]) -> None:
    try:
        once = check_asked(texts)
    except BadInput as error:
        assert error.field == "requirements"  # noqa: PT017
        return
    # Nothing that pip would take for an option, an address or another line comes through.
    assert check_asked(once) == once
    assert not any("\n" in each or each.startswith("-") or "@" in each for each in once)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("--index-url https://evil.example", "is no requirement"),
        ("lib @ https://evil.example/lib.whl", "names an address"),
        ("lib\n--index-url https://evil.example", "is no requirement"),
        ("lib" * 100, "longer than 200"),
    ],
)
def test_a_requirement_cannot_steer_pip(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        check_asked([text])
    with pytest.raises(BadInput, match="at most 50"):
        check_asked(["x"] * 51)

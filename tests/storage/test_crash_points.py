"""Crash points: deadly where a test has armed them, inert everywhere else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster.settings import DeckSettings, environment
from storage.crash_points import CONSENT, MUTATION, VARIABLE, CrashPoint

POINT = CrashPoint.SESSION_BEFORE_SEND
PASS_TWICE = f"""
from storage.crash_points import CrashPoint, crash_here, take_up_mutation, trace
take_up_mutation()
crash_here(CrashPoint.SESSION_AFTER_SEND)
crash_here(CrashPoint("{POINT}"))
trace("survived", tags=["t1"])
print("alive", flush=True)
"""


def passing(folder: Path | None) -> subprocess.Popen[str]:
    """A process that comes by the point."""
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if folder is not None:
        env[VARIABLE] = str(folder)
    return subprocess.Popen([sys.executable, "-c", PASS_TWICE], env=env, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / CONSENT).touch()
    (tmp_path / POINT).write_text("kill")
    return tmp_path


def test_an_armed_point_kills_the_first_process_that_comes_by_and_no_other(folder: Path) -> None:
    first = passing(folder)
    assert first.wait(20) == -signal.SIGKILL
    assert [path.name for path in folder.glob(f"{POINT}*")] == [f"{POINT}.{first.pid}"]
    second = passing(folder)
    assert second.communicate(timeout=20)[0] == "alive\n"
    assert '"tags":["t1"]' in (folder / f"trace-{second.pid}.jsonl").read_text()


def test_a_point_can_pause_a_process_until_it_is_continued(folder: Path) -> None:
    (folder / POINT).write_text("pause")
    process = passing(folder)
    deadline = time.monotonic() + 20
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, "it never stopped at the armed point"
        time.sleep(0.02)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=20)[0] == "alive\n"


@pytest.mark.parametrize("missing", ["variable", "consent"])
def test_nothing_happens_without_the_variable_and_the_consent_of_the_folder(folder: Path, missing: str) -> None:
    if missing == "consent":
        (folder / CONSENT).unlink()
    (folder / MUTATION).write_text("no_such_module")
    process = passing(folder if missing == "consent" else None)
    assert process.communicate(timeout=20)[0] == "alive\n"
    assert (folder / POINT).exists()
    assert not list(folder.glob("trace-*"))


def test_a_deck_takes_the_variable_out_of_what_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/somewhere")
    monkeypatch.setenv("QUARTERDECK__CRASH_POINTS", "/somewhere")
    assert VARIABLE not in environment(DeckSettings())
    told = DeckSettings()
    told._crash_points = "/a/folder"
    assert environment(told.model_copy(update={"node": "n2"}))[VARIABLE] == "/a/folder"


def test_every_point_is_somewhere_in_the_code() -> None:
    root = Path(__file__).parents[2]
    code = "".join(path.read_text() for room in ("actors", "storage") for path in (root / room).glob("*.py"))
    unplaced = [point for point in CrashPoint if code.count(f"CrashPoint.{point.name}") != 1]
    assert not unplaced

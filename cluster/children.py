"""Child processes of a deck: started in sessions of their own, ended with all they started."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil


class Child:
    """A process with its own session, so that a terminal's Ctrl-C reaches only the deck, which ends it in order."""

    def __init__(self, title: str, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.title = title
        self.command = list(command)
        self.environment = environment
        self.log = log
        #: UTC seconds; 0.0: never.
        self.started = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output goes to its log file."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.time()
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id (0: never started)."""
        return self._process.pid if self._process is not None else 0

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self, patience_s: float = 10.0) -> None:
        """End it and everything it started: asked first, then killed."""
        if self._process is None:
            return
        end_tree(self._process.pid, patience_s)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=2)

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"


def names(pid: int) -> set[str]:
    """Names of all that a process has started and that lives."""
    try:
        family = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return set()
    found = set()
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.name())
    return found


def end_tree(pid: int, patience_s: float) -> None:
    """End a process and all its descendants, those that have moved to another session included."""
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        root.send_signal(signal.SIGTERM)
    _, left = psutil.wait_procs([root], timeout=patience_s)
    for process in {*family, *left}:
        with contextlib.suppress(psutil.NoSuchProcess):
            family.extend(process.children(recursive=True))
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=5)


def same_process(pid: int, started: float) -> bool:
    """Whether ``pid`` is still the process that was started at ``started`` (ids are used again).

    A zombie is not: in a container nobody may bury it.
    """
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) < 2
    except psutil.NoSuchProcess:
        return False


def started_at(pid: int) -> float:
    """When a process was started, for `same_process`."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def wait_until(what: str, ready: Callable[[], bool], seconds: float, alive: Callable[[], bool] | None = None) -> None:
    """Wait for ``ready()``; TimeoutError naming ``what`` after ``seconds`` or when ``alive()`` turns false."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} was not ready within {seconds:.0f} s")
        if alive is not None and not alive():
            raise TimeoutError(f"{what} ended while starting")
        time.sleep(0.05)

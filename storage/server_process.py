"""A server program that belongs to a data directory: found again, started once, stopped in order.

The program runs in a session of its own, so Ctrl-C in the terminal of its starter does not reach it, and it
outlives its starter unless `stop` is called.  Whoever starts from the same directory next adopts it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import psutil

from storage import ports
from trading.errors import NeedsOperator, NotReady

#: Seconds a start may take: crash recovery included.
START_LIMIT_S = 60.0
STOP_LIMIT_S = 20.0
#: Seconds to wait for the port it had before it takes another.
_PORT_WAIT_S = 5.0


class ServerProcess(ABC):
    """One server under ``data_dir/<folder>``.  The constructor does no IO."""

    folder: ClassVar[str]
    label: ClassVar[str]
    #: Name of the program as the system shows it.
    program: ClassVar[str]

    def __init__(self, data_dir: Path, host: str = "127.0.0.1", port: int | None = None) -> None:
        self.data_dir = Path(data_dir)
        self.host = host
        self.root = self.data_dir / self.folder
        self._given_port = port
        self._child: subprocess.Popen[bytes] | None = None
        self._url = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r}, host={self.host!r}, started={bool(self._url)})"

    @property
    def url(self) -> str:
        """Where clients on this machine connect, password included.  Raises `NotReady` before `start`."""
        if not self._url:
            raise NotReady(f"{self.label} in {self.root} has not been started")
        return self._url

    def url_for(self, host: str) -> str:
        """The URL with ``host`` as address for clients on other machines, when bound beyond loopback."""
        mine, _, rest = self.url.rpartition("@")
        _, _, tail = rest.rpartition(":")
        return f"{mine}@{host}:{tail}"

    def start(self) -> str:
        """Start the server, or adopt it when it already runs; returns its URL.  Blocks until it answers.

        Raises `NeedsOperator` where a person must act (directory, port, program) and `NotReady` where the
        server did not answer in time.
        """
        self._make_root()
        with self._lock():
            running = self._running()
            if running is not None:
                port = self._running_port()
                if self._given_port not in (None, port):
                    raise NeedsOperator(
                        f"{self.label} in {self.root} already runs on port {port}, not on {self._given_port}",
                        "stop it first, or drop the port setting",
                    )
                self._url = self._make_url(port, self._password())
                self._await_ready(time.monotonic() + START_LIMIT_S)
                return self._url
            self._clear_stale()
            port = self._choose_port()
            password = self._password()
            self._prepare(password)
            self._child = self._launch(port, password)
            self._url = self._make_url(port, password)
            try:
                self._await_ready(time.monotonic() + START_LIMIT_S)
            except BaseException:
                self._url = ""
                self._terminate(self._child.pid)
                raise
            self._remember_port(port)
            return self._url

    def stop(self) -> None:
        """Stop the server in order and wait until it is gone; nothing happens when it does not run."""
        if not self.root.is_dir():
            return
        with self._lock():
            running = self._running()
            if running is not None:
                self._terminate(running.pid)
            self._reap()
            self._url = ""

    def alive(self) -> bool:
        """Whether the process runs (not whether it answers)."""
        self._reap()
        return self._running() is not None

    @property
    def pid(self) -> int | None:
        """Process id of the running server, or None."""
        running = self._running()
        return None if running is None else running.pid

    # --- what a kind of server must say ---------------------------------------------------------------

    @abstractmethod
    def _pid_file(self) -> Path: ...

    @abstractmethod
    def _work_dir(self) -> Path:
        """The directory the running server has as its current one; it is how we know it is ours."""

    @abstractmethod
    def _running_port(self) -> int: ...

    @abstractmethod
    def _make_url(self, port: int, password: str) -> str: ...

    @abstractmethod
    def _prepare(self, password: str) -> None:
        """Create what a first start needs."""

    @abstractmethod
    def _launch(self, port: int, password: str) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def _probe(self) -> None:
        """Return when the server answers its URL; raise `NotReady` while it does not."""

    #: The signals of an orderly and of a forced stop.
    stop_signals: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM, signal.SIGKILL)

    # --- the common part ------------------------------------------------------------------------------

    def _make_root(self) -> None:
        try:
            made = not self.data_dir.exists()
            self.root.mkdir(parents=True, exist_ok=True)
            if made:
                self.data_dir.chmod(0o700)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise NeedsOperator(
                f"the data directory {self.data_dir} cannot be written ({error.strerror or error})",
                f"make it writable for user {_user_name()}, or choose another with --data-dir",
            ) from error

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        deadline = time.monotonic() + START_LIMIT_S + STOP_LIMIT_S
        with (self.root / "start.lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise NotReady(
                            f"another process has been starting or stopping {self.label} in {self.root} for too long"
                        ) from None
                    time.sleep(0.05)
            yield

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.name() != self.program:
                return False
            return os.path.samefile(process.cwd(), self._work_dir())
        except (psutil.Error, OSError):
            return False

    def _running(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._pid_file().read_text().split()[0]))
        except (OSError, ValueError, IndexError, psutil.NoSuchProcess):
            return None
        return process if self._is_ours(process) else None

    def _clear_stale(self) -> None:
        """Remove what a killed server left: orphaned workers first, then the pid file that lies."""
        self._reap()
        deadline = time.monotonic() + 10.0
        while orphans := [p for p in psutil.process_iter() if self._is_ours(p)]:
            if time.monotonic() > deadline:
                for orphan in orphans:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        orphan.kill()
                psutil.wait_procs(orphans, timeout=5.0)
                break
            time.sleep(0.05)
        self._pid_file().unlink(missing_ok=True)

    def _reap(self) -> None:
        if self._child is not None and self._child.poll() is not None:
            self._child = None

    def _terminate(self, pid: int) -> None:
        try:
            process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return
        for sign in self.stop_signals:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(sign)
            try:
                if self._child is not None and self._child.pid == pid:
                    self._child.wait(STOP_LIMIT_S)
                else:
                    self._wait_gone(process)
                return
            except (subprocess.TimeoutExpired, TimeoutError):
                continue
        raise NeedsOperator(
            f"{self.label} (process {pid}) in {self.root} cannot be stopped", f"look at process {pid} by hand"
        )

    def _wait_gone(self, process: psutil.Process) -> None:
        """Wait for a process that may be nobody's child; one that nobody buries counts as gone."""
        deadline = time.monotonic() + STOP_LIMIT_S
        while time.monotonic() < deadline:
            try:
                if process.status() == psutil.STATUS_ZOMBIE:
                    return
            except psutil.NoSuchProcess:
                return
            time.sleep(0.02)
        raise TimeoutError

    def _await_ready(self, deadline: float) -> None:
        while True:
            try:
                self._probe()
                return
            except NotReady as error:
                if self._child is not None and self._child.poll() is not None:
                    raise NeedsOperator(
                        f"{self.label} in {self.root} ended at once: {self._last_words()}",
                        f"read {self._log_file()}",
                    ) from error
                if time.monotonic() > deadline:
                    raise NotReady(f"{error.detail}; last words: {self._last_words()}", 5.0) from error
            time.sleep(0.03)

    def _log_file(self) -> Path:
        return self.root / "server.log"

    def _last_words(self) -> str:
        try:
            lines = self._log_file().read_text(errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return " | ".join(lines[-4:]) or "(empty log)"

    def _open_log(self) -> int:
        """The log for appending; begun anew when it has grown large."""
        path = self._log_file()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        if path.exists() and path.stat().st_size > 16 << 20:
            flags |= os.O_TRUNC
        return os.open(path, flags, 0o600)

    def _password(self) -> str:
        path = self.root / "password"
        if path.exists():
            return path.read_text().strip()
        password = secrets.token_urlsafe(24)
        write_private(path, password)
        return password

    def _choose_port(self) -> int:
        if self._given_port is not None:
            if not ports.is_free(self.host, self._given_port):
                raise NeedsOperator(
                    f"port {self._given_port} on {self.host} is in use, so {self.label} cannot listen there",
                    "stop what uses it, or choose another port",
                )
            return self._given_port
        try:
            remembered = int((self.root / "port").read_text())
        except (OSError, ValueError):
            remembered = 0
        # Clients look for the server where it was: somebody's passing use of its port is waited out.
        deadline = time.monotonic() + _PORT_WAIT_S
        while remembered:
            if ports.is_free(self.host, remembered):
                return remembered
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return ports.choose(self.host)

    def _remember_port(self, port: int) -> None:
        (self.root / "port").write_text(f"{port}\n")

    def _client_host(self) -> str:
        return "127.0.0.1" if self.host in ("0.0.0.0", "", "::") else self.host


def write_private(path: Path, text: str) -> None:
    """Write ``text`` to a new file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")


def _user_name() -> str:
    return str(os.geteuid())

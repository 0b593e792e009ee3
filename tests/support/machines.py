"""Machines for a test: each has a network, processes, host name and home of its own, and answers SSH.

They are Linux namespaces on this one.  `MISSING` says why none can be made here, "" where they can.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from tests.support.patience import PATIENCE

SSHD: Final = "/usr/sbin/sshd"

#: What a machine does before it answers SSH.  Its own /etc/passwd gives root the home that all machines call the same.
_BOOT: Final = """set -e
hostname {name}
mkdir -p /run/sshd /tmp/ray
mount -t tmpfs none /tmp/ray
mount --bind {folder}/home {home}
sed 's#^root:.*#root:x:0:0:root:{home}:/bin/bash#' /etc/passwd > {folder}/passwd
mount --bind {folder}/passwd /etc/passwd
exec {sshd} -D -e -f {folder}/sshd_config
"""

_SSHD_CONFIG: Final = """ListenAddress 0.0.0.0
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PidFile none
Subsystem sftp internal-sftp
"""


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def why_not() -> str:
    """Why no machines can be made here; "" where they can."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    for program in ("ip", "unshare", "nsenter", "mount", "ssh", "ssh-keygen", "rsync", SSHD):
        if shutil.which(program) is None:
            return f"there is no {program} (Debian: apt-get install iproute2 openssh-server openssh-client rsync)"
    probe = f"qd{os.getpid():x}p"
    try:
        _run("ip", "netns", "add", probe)
        try:
            _run("ip", "netns", "exec", probe, "unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "true")
            _run("ip", "link", "add", f"{probe}0", "type", "veth", "peer", "name", f"{probe}1", "netns", probe)
        finally:
            _run("ip", "netns", "del", probe)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return f"namespaces cannot be made here: {error}"
    return ""


class Wire:
    """A cable between two machines, or a machine and this one: a network of its own."""

    def __init__(self, number: int, label: str) -> None:
        self.subnet = f"10.{200 + number // 250}.{number % 250 + 1}"
        self.ends = (f"{label}0", f"{label}1")

    def address(self, end: int) -> str:
        """The address at this end."""
        return f"{self.subnet}.{end + 1}"


class Machine:
    """One machine."""

    def __init__(self, name: str, folder: Path, home: Path, key: Path) -> None:
        self.name = name
        self.folder = folder / name
        self.home = self.folder / "home"
        self._namespace = f"qd{os.getpid():x}{name}"
        self._shared_home = home
        #: Of the cables plugged in, in this order.
        self.addresses: list[str] = []
        self.home.mkdir(parents=True)
        home.mkdir(exist_ok=True)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key"))
        shutil.copy(key.with_suffix(".pub"), self.folder / "authorized_keys")
        (self.folder / "sshd_config").write_text(_SSHD_CONFIG.format(folder=self.folder))
        _run("ip", "netns", "add", self._namespace)
        self._process: subprocess.Popen[bytes] | None = None
        self.ip("link", "set", "lo", "up")

    def ip(self, *words: str) -> None:
        """`ip` in its network."""
        _run("ip", "-n", self._namespace, *words)

    def plug(self, wire: Wire, end: int) -> None:
        """Give it one end of a cable (made in this machine's network)."""
        device = wire.ends[end]
        _run("ip", "link", "set", device, "netns", self._namespace)
        self.ip("address", "add", f"{wire.address(end)}/24", "dev", device)
        self.ip("link", "set", device, "up")
        self.addresses.append(wire.address(end))

    def boot(self) -> None:
        """Let it answer SSH."""
        script = _BOOT.format(name=self.name, folder=self.folder, home=self._shared_home, sshd=SSHD)
        with (self.folder / "sshd.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self._namespace, "unshare", "--mount", "--uts", "--pid", "--fork",
                 "--mount-proc", "--kill-child", "bash", "-c", script],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 10 * PATIENCE
        while "Server listening" not in (self.folder / "sshd.log").read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} does not answer SSH: {(self.folder / 'sshd.log').read_text()}")
            time.sleep(0.05)

    def inside(self, *words: str) -> list[str]:
        """The command that runs ``words`` there, as a program of this test."""
        first = next(p for p in self.processes() if p.name() in ("sshd", "bash"))
        return ["nsenter", "--target", str(first.pid), "--net", "--mount", "--uts", "--pid", *words]

    def processes(self) -> list[psutil.Process]:
        """All that runs there."""
        if self._process is None:
            return []
        return psutil.Process(self._process.pid).children(recursive=True)

    def names(self) -> set[str]:
        """What kinds of processes run there."""
        found = set()
        for process in self.processes():
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.add(process.name())
            except psutil.NoSuchProcess:
                continue
        return found

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        """A file in its home."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def end(self) -> None:
        """Pull the plug."""
        if self._process is not None:
            # The first process of the namespace; all others die with it.
            for process in psutil.Process(self._process.pid).children():
                process.kill()
            self._process.wait(timeout=10)
        _run("ip", "netns", "del", self._namespace)


def connect(wire: Wire, ends: Sequence[Machine | None]) -> None:
    """Lay a cable; None: this machine."""
    _run("ip", "link", "add", wire.ends[0], "type", "veth", "peer", "name", wire.ends[1])
    for end, machine in enumerate(ends):
        if machine is not None:
            machine.plug(wire, end)
        else:
            _run("ip", "address", "add", f"{wire.address(end)}/24", "dev", wire.ends[end])
            _run("ip", "link", "set", wire.ends[end], "up")

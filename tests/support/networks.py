"""A second network on this machine: a network namespace at the end of a virtual cable."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO


class OtherNetwork:
    """A network of two addresses: ``ours`` is this machine's end of the cable, ``theirs`` the namespace's."""

    def __init__(self) -> None:
        tag = secrets.token_hex(3)
        self.name = f"qd-{tag}"
        self._cable = f"qdh-{tag}"
        net = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}"
        self.ours, self.theirs = f"{net}.1", f"{net}.2"

    def make(self) -> None:
        """Make namespace and cable.  Raises `subprocess.CalledProcessError` where the kernel will not."""
        far = self._cable.replace("qdh", "qdn")
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", far, "netns", self.name)
        run("ip", "addr", "add", f"{self.ours}/24", "dev", self._cable)
        run("ip", "link", "set", self._cable, "up")
        self.inside("ip", "addr", "add", f"{self.theirs}/24", "dev", far)
        self.inside("ip", "link", "set", far, "up")
        self.inside("ip", "link", "set", "lo", "up")

    def remove(self) -> None:
        """End everything inside, then take namespace and cable away; whatever of them was made."""
        deadline = time.monotonic() + 10
        while (pids := self.pids()) and time.monotonic() < deadline:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        subprocess.run(["ip", "link", "del", self._cable], capture_output=True, timeout=20)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, timeout=20)

    def pids(self) -> list[int]:
        """What runs inside."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, timeout=20)
        return [int(pid) for pid in found.stdout.split()]

    def command(self, *words: str) -> list[str]:
        """A command line that runs ``words`` inside."""
        return ["ip", "netns", "exec", self.name, *words]

    def inside(self, *words: str) -> None:
        """Run a command inside, to its end."""
        run(*self.command(*words))

    def start(self, log: IO[str], *words: str) -> subprocess.Popen[bytes]:
        """Start a command inside."""
        return subprocess.Popen(self.command(*words), stdout=log, stderr=log, start_new_session=True)

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Pull the cable, and put it back."""
        run("ip", "link", "set", self._cable, "down")
        try:
            yield
        finally:
            run("ip", "link", "set", self._cable, "up")


def run(*words: str) -> None:
    """Run a command to its end."""
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=20)


def why_not() -> str:
    """Why there can be no second network here; "" where there can."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    if shutil.which("ip") is None:
        return "there is no `ip` command (iproute2)"
    network = OtherNetwork()
    try:
        network.make()
    except (OSError, subprocess.SubprocessError) as error:
        return f"the kernel makes no network namespace or cable here: {getattr(error, 'stderr', '') or error}"
    finally:
        network.remove()
    return ""

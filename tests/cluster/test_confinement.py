"""What submitted code may not do while it is tried, shown by processes that do it."""

from __future__ import annotations

import errno
import os
import signal
import struct
import sys
import time
from pathlib import Path

import psutil
import pytest

from cluster import limited_child
from cluster.confinement import program
from cluster.limited_child import Outcome, plain_environment, run
from tests.support.patience import PATIENCE

HOME = str(Path(__file__).resolve().parent.parent.parent)


async def tried(
    code: str, tmp_path: Path, *, seconds: float = 30.0 * PATIENCE, confined: bool = True, question: bytes = b""
) -> Outcome:
    """A child that runs ``code``; ``say`` in it answers."""
    head = "import os, sys\ndef say(x):\n    os.write(int(sys.argv[1]), str(x).encode())\n"
    head += "from cluster.confinement import confine\nheld = confine()\n" if confined else ""
    return await run(
        [sys.executable, "-P", "-c", head + code, "{fd}"],
        question,
        seconds=seconds,
        folder=tmp_path,
        environment=plain_environment(PYTHONPATH=HOME),
    )


def judge(code: bytes, machine: int, number: int, argument: int = 0) -> int:
    """What a filter says of a system call: a small interpreter of BPF.  0: allowed, else the error."""
    lines = [struct.unpack("HBBI", code[at : at + 8]) for at in range(0, len(code), 8)]
    data = {0: number, 4: machine, 16: argument}
    at = value = 0
    while True:
        what, yes, no, k = lines[at]
        at += 1
        if what == 0x20:
            value = data[k]
        elif what == 0x06:
            return 0 if k == 0x7FFF0000 else k & 0xFFFF
        else:
            holds = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[what]
            at += yes if holds else no


@pytest.mark.parametrize(
    ("machine", "audit", "clone", "socket", "forks"),
    [("x86_64", 0xC000003E, 56, 41, (57, 58)), ("aarch64", 0xC00000B7, 220, 198, ())],
)
def test_the_filter_lets_threads_through_and_neither_processes_nor_sockets(
    machine: str, audit: int, clone: int, socket: int, forks: tuple[int, ...]
) -> None:
    code = program(machine)
    # What glibc asks for when it starts a thread, and what fork(3) asks for.
    assert judge(code, audit, clone, 0x003D0F00) == 0
    assert judge(code, audit, clone, 0x01200011) == errno.EPERM
    assert [judge(code, audit, number) for number in forks] == [errno.EPERM] * len(forks)
    assert judge(code, audit, socket) == errno.EACCES
    assert [judge(code, audit, number) for number in (435, 425)] == [errno.ENOSYS] * 2
    assert judge(code, audit, 0) == 0
    # Another table of system calls would go by other numbers.
    assert judge(code, 0x40000003, 0) == errno.EPERM
    assert judge(code, audit, 0x40000000 + clone) == errno.EPERM


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is Linux's")
async def test_a_confined_process_starts_threads_but_no_process_and_no_socket(tmp_path: Path) -> None:
    code = """
import subprocess, socket, threading
found = []
for act in (os.fork, lambda: subprocess.run(["true"]), socket.socket, lambda: socket.socket(socket.AF_UNIX)):
    try:
        act()
    except OSError as error:
        found.append(type(error).__name__)
thread = threading.Thread(target=lambda: found.append("thread"))
thread.start(); thread.join()
say(f"{held[-2:]} {found}")
"""
    outcome = await tried(code, tmp_path)
    assert outcome.answer.decode() == f"{['no processes', 'no network']} {['PermissionError'] * 4 + ['thread']}"


async def test_memory_and_files_have_an_end(tmp_path: Path) -> None:
    code = """
try:
    held = [bytearray(1 << 28) for _ in range(64)]
except MemoryError:
    say("memory ")
try:
    with open("big", "wb") as file:
        for _ in range(64):
            file.write(bytes(1 << 20))
except OSError as error:
    say(error.strerror)
"""
    assert (await tried(code, tmp_path)).answer == b"memory File too large"
    assert (tmp_path / "big").stat().st_size <= 16 << 20


async def test_a_busy_loop_ends_by_its_processor_time(tmp_path: Path) -> None:
    busy = "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass\n"
    assert (await tried(busy, tmp_path)).code == -signal.SIGXCPU


async def test_a_gigabyte_of_prints_costs_nobody_memory(tmp_path: Path) -> None:
    before = psutil.Process().memory_info().rss
    outcome = await tried("while True: print('x' * 100_000)", tmp_path)
    assert outcome.ended_for == "output"
    assert len(outcome.printed) < 10_000
    assert "bytes left out" in outcome.printed
    assert psutil.Process().memory_info().rss - before < 50_000_000


async def test_an_answer_without_end_is_cut_off(tmp_path: Path) -> None:
    assert (await tried("while True: say('x' * 65536)", tmp_path)).ended_for == "output"


async def test_time_is_up_for_the_child_and_all_that_it_started(tmp_path: Path) -> None:
    code = """
import subprocess, time
others = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(3)]
say(" ".join(str(each.pid) for each in others))
time.sleep(600)
"""
    began = time.monotonic()
    # Long enough for all of them to have begun, also where others take the cores.
    outcome = await tried(code, tmp_path, seconds=4.0 * PATIENCE, confined=False)
    assert outcome.ended_for == "time"
    assert time.monotonic() - began < 20 * PATIENCE
    pids = [int(pid) for pid in outcome.answer.split()]
    assert len(pids) == 3
    deadline = time.monotonic() + 10 * PATIENCE
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
        assert time.monotonic() < deadline, "what the child started runs on"
        time.sleep(0.05)


async def test_descriptors_are_given_back(tmp_path: Path) -> None:
    await tried("say(1)", tmp_path, confined=False)
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    for _ in range(5):
        assert (await tried("say(sys.stdin.read())", tmp_path, confined=False, question=b"hello")).answer == b"hello"
        assert (await tried("os._exit(3)", tmp_path, confined=False, question=b"x" * 1_000_000)).code == 3
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


def test_children_know_no_address_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "QUARTERDECK_SECRET_KEY", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "secret")
    assert "secret" not in limited_child.plain_environment(MORE="1").values()

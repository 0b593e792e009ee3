"""What a process may not do while it tries code that somebody submitted; called by that process, before it loads any.

Limits of the kernel hold for memory, CPU time, files and descriptors.  Processes cannot be held by a limit where we
are root: ``RLIMIT_NPROC`` counts a user's processes, and root is exempt.  A seccomp filter holds for everybody: it
refuses to make processes (threads stay; memory bounds them) and sockets.  Where there is none (not Linux, another
machine than x86-64 or ARM64), `confine` says so.  This keeps accidents small; it is no wall against an attacker.

seccomp(2), linux/audit.h, linux/filter.h and the system call tables of Linux 6.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from typing import Final

#: Address space, in bytes.
MEMORY: Final = 2 << 30
CPU_S: Final = 20
#: Largest file that may be written, in bytes.
FILE_SIZE: Final = 16 << 20
DESCRIPTORS: Final = 256
#: Where there is no filter: processes of this user, others included.
_PROCESSES: Final = 1024

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_HAS_BITS: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_ALLOW: Final = 0x7FFF0000
_ERRNO: Final = 0x00050000
_CLONE_THREAD: Final = 0x00010000
#: Offsets in `struct seccomp_data`.
_NUMBER_AT, _MACHINE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
#: By machine: its number for audits, seccomp's, clone's and socket's system call, those that only fork.
_MACHINES: Final[dict[str, tuple[int, int, int, int, tuple[int, ...]]]] = {
    "x86_64": (0xC000003E, 317, 56, 41, (57, 58)),
    "aarch64": (0xC00000B7, 277, 220, 198, ()),
}
_CLONE3: Final = 435
_IO_URING_SETUP: Final = 425
#: Numbers from here on are x86-64's second table of calls.
_X32: Final = 0x40000000


def confine() -> list[str]:
    """Confine this process for the rest of its life; what holds, in words, and what does not."""
    said = _limit()
    if sys.platform == "linux":
        # Ends with whoever asked: nobody would be there to end it.
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    os.nice(10)
    trouble = _filter()
    if trouble:
        _lower(resource.RLIMIT_NPROC, _PROCESSES)
        return [*said, f"processes and network are not held back: {trouble}"]
    return [*said, "no processes", "no network"]


def _limit() -> list[str]:
    memory = _lower(resource.RLIMIT_AS, MEMORY)
    # At the first the kernel sends SIGXCPU, which code could ignore; at the second it kills.
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    _lower(resource.RLIMIT_FSIZE, FILE_SIZE)
    _lower(resource.RLIMIT_NOFILE, DESCRIPTORS)
    _lower(resource.RLIMIT_CORE, 0)
    said = f"memory {MEMORY >> 20} MB" if memory else "memory is not limited: this system has no such limit"
    return [said, f"CPU {CPU_S} s", f"files {FILE_SIZE >> 20} MB"]


def _lower(what: int, to: int) -> bool:
    """Whether the system takes this limit."""
    _, hard = resource.getrlimit(what)
    limit = to if hard == resource.RLIM_INFINITY else min(to, hard)
    try:
        resource.setrlimit(what, (limit, limit))
    except (ValueError, OSError):
        return False
    return True


def _filter() -> str:
    """Install the filter in all threads; why not, or ""."""
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.byteorder != "little":
        return f"there is no filter for {sys.platform} on {platform.machine()}"
    libc = ctypes.CDLL(None, use_errno=True)
    code = program(platform.machine())
    text = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(text))
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS
        return os.strerror(ctypes.get_errno())
    # SECCOMP_SET_MODE_FILTER with SECCOMP_FILTER_FLAG_TSYNC.
    if libc.syscall(machine[1], 1, 1, ctypes.create_string_buffer(header, len(header))):
        return os.strerror(ctypes.get_errno())
    return ""


def program(machine: str) -> bytes:
    """The filter for a machine, as BPF: no fork, no clone but of threads, no socket, no io_uring (it makes sockets)."""
    audit, _, clone, socket, forks = _MACHINES[machine]
    refused = [(number, errno.EPERM) for number in forks]
    # As of an old kernel: libraries then take the older call, which is looked at.
    refused += [(socket, errno.EACCES), (_CLONE3, errno.ENOSYS), (_IO_URING_SETUP, errno.ENOSYS)]
    lines = [(_LOAD, 0, 0, _MACHINE_AT), (_EQUAL, 1, 0, audit), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    lines += [(_LOAD, 0, 0, _NUMBER_AT), (_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    for number, error in refused:
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]
    lines += [
        (_EQUAL, 0, 3, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_HAS_BITS, 1, 0, _CLONE_THREAD),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)

"""How much CPU a process takes, over a window; and making it take only what others leave.

A single burst is no trouble; what counts is the share over the last `WINDOW_S` seconds.
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Final

WINDOW_S: Final = 10.0
#: What a process that takes too much is niced to (19 is the most); it cannot go back without rights.
NICE: Final = 10


class CpuShare:
    """Cores taken over the last window.  Pure: it is told times."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window = window_s
        self._seen: deque[tuple[float, float]] = deque()

    def take(self, at: float, cpu_s: float) -> float | None:
        """Cores, on average over the window; None until it is full.  ``at`` and ``cpu_s`` in seconds, both rising."""
        self._seen.append((at, cpu_s))
        while len(self._seen) > 2 and self._seen[1][0] <= at - self._window:
            self._seen.popleft()
        since, before = self._seen[0]
        elapsed = at - since
        return (cpu_s - before) / elapsed if elapsed >= self._window else None


class CpuLimit:
    """Watches this process; while it takes more than it may, it gives way to everything else on its machine."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._share = CpuShare(window_s)
        #: Cores taken over the last window; None until it is full.
        self.share: float | None = None
        self.is_over = False

    def look(self, limit: float) -> None:
        """Measure; ``limit`` in cores.  What is over it is so until it has come down by a tenth."""
        self.share = self._share.take(time.monotonic(), time.process_time())
        if self.share is not None:
            self.is_over = self.share > (limit * 0.9 if self.is_over else limit)
        if self.is_over:
            give_way()


def give_way(nice: int = NICE) -> int:
    """Nice every thread of this process that is not so nice yet; returns of how many.

    Linux keeps a nice value for each thread, and a new thread takes that of the one that made it.
    """
    done = 0
    tasks = Path("/proc/self/task")
    # Elsewhere than on Linux a process has one nice value.
    threads = [int(entry.name) for entry in tasks.iterdir()] if tasks.is_dir() else [os.getpid()]
    for thread in threads:
        try:
            if os.getpriority(os.PRIO_PROCESS, thread) < nice:
                os.setpriority(os.PRIO_PROCESS, thread, nice)
                done += 1
        except ProcessLookupError:
            continue  # it has ended meanwhile
    return done

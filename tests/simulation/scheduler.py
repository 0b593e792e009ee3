"""Simulated time: what happens when, to which process, decided by one seed.

A `Process` that is paused keeps what reaches it until it goes on, one that is dead loses it.  Same seed, same run.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable

from trading.ids import Nanos

Act = Callable[[], None]


class Process:
    """Something that can die or stand still at any instruction."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.backlog: list[tuple[str, Act]] = []

    def __repr__(self) -> str:
        return f"<{self.name}{'' if self.alive else ' dead'}{' paused' if self.paused else ''}>"


class Scheduler:
    """A heap of what is to happen."""

    def __init__(self, seed: int, start: Nanos) -> None:
        self.random = random.Random(seed)
        self.now = start
        self.start = start
        self.steps = 0
        self.trace: deque[str] = deque(maxlen=4_000)
        self._heap: list[tuple[int, int, str, Act, Process | None]] = []
        self._count = 0

    def note(self, text: str) -> None:
        """Add a line to the timeline."""
        self.trace.append(f"{(self.now - self.start) / 1e9:9.4f} {text}")

    def after(self, delay: int, what: str, act: Act, to: Process | None = None) -> None:
        """Let ``act`` happen in ``delay`` nanoseconds, in ``to`` if it lives then."""
        self._count += 1
        heapq.heappush(self._heap, (self.now + delay, self._count, what, act, to))

    def run(self, duration: int) -> None:
        """Let time pass."""
        until = self.now + duration
        while self._heap and self._heap[0][0] <= until:
            at, _, what, act, process = heapq.heappop(self._heap)
            self.now = Nanos(at)
            self.steps += 1
            if process is None:
                act()
            elif process.alive:
                if process.paused:
                    process.backlog.append((what, act))
                else:
                    act()
        self.now = Nanos(until)

    def pause(self, process: Process) -> None:
        """SIGSTOP."""
        self.note(f"{process.name} stands still")
        process.paused = True

    def resume(self, process: Process) -> None:
        """SIGCONT: what has gathered happens now, in order."""
        if not process.paused:
            return
        self.note(f"{process.name} goes on")
        process.paused = False
        backlog, process.backlog = process.backlog, []
        for what, act in backlog:
            self.after(0, what, act, process)

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        self.note(f"{process.name} dies")
        process.alive = False
        process.backlog = []

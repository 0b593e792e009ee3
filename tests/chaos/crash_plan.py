"""Arms crash points, those that were met least first, and counts which were met."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from storage.crash_points import CrashPoint

_NAMES = frozenset(str(point) for point in CrashPoint)


class CrashPlan:
    """The folder of `storage.crash_points`, as the tests see it."""

    def __init__(self, folder: Path, left_out: frozenset[CrashPoint] = frozenset()) -> None:
        self._folder = folder
        self.left_out = left_out
        self.met: Counter[CrashPoint] = Counter()
        self._armed: set[CrashPoint] = set()

    def choose(self, chance: random.Random) -> CrashPoint:
        """One of those met least."""
        points = [p for p in CrashPoint if p not in self.left_out]
        least = min(self.met[p] for p in points)
        return chance.choice([p for p in points if self.met[p] == least])

    def arm(self, point: CrashPoint, action: str = "kill") -> None:
        """Let the first process that comes by end (``kill``) or stop (``pause``)."""
        # In one step: a process must not find a file that is not written yet.
        made = self._folder / f".{point}"
        made.write_text(action)
        made.rename(self._folder / point)
        self._armed.add(point)

    def collect(self) -> list[tuple[CrashPoint, int, str]]:
        """Points that were met since the last time, with the process that met each and what it did."""
        found = []
        for path in self._folder.iterdir():
            name, _, pid = path.name.rpartition(".")
            if pid.isdecimal() and name in _NAMES:
                point = CrashPoint(name)
                action = path.read_text()
                path.unlink()
                self.met[point] += 1
                self._armed.discard(point)
                found.append((point, int(pid), action))
        return found

    def is_armed(self, point: CrashPoint) -> bool:
        """Whether it waits for a process to come by."""
        return point in self._armed

    def disarm(self) -> list[CrashPoint]:
        """Take back what was not met."""
        left = sorted(self._armed)
        for point in left:
            (self._folder / point).unlink(missing_ok=True)
        self._armed.clear()
        return left

    def never_met(self) -> list[CrashPoint]:
        """Points that no process has met yet."""
        return [point for point in CrashPoint if point not in self.left_out and not self.met[point]]

"""A rate budget that keeps something back for exits."""

from __future__ import annotations

from trading.ids import Nanos


class RateBudget:
    """Token bucket: ``per_s`` requests a second on average, ``burst`` at once, ``reserve`` of them for exits only."""

    def __init__(self, per_s: float, burst: int, reserve: int = 0) -> None:
        self.per_s = per_s
        self.burst = burst
        self.reserve = min(reserve, burst - 1)
        self._tokens = float(burst)
        self._at = Nanos(0)

    @property
    def largest(self) -> int:
        """How many requests may go at once at the most, the reserve left alone."""
        return self.burst - self.reserve

    def payable(self, now: Nanos, *, is_exit: bool) -> int:
        """How many requests could go now."""
        self._refill(now)
        return max(0, int(self._tokens - (0 if is_exit else self.reserve)))

    def _refill(self, now: Nanos) -> None:
        if now > self._at:
            if self._at:
                self._tokens = min(float(self.burst), self._tokens + (now - self._at) / 1e9 * self.per_s)
            self._at = now

    def take(self, count: int, now: Nanos, *, is_exit: bool) -> float:
        """Take ``count`` tokens and return 0, or take none and return the seconds until it could be done."""
        self._refill(now)
        floor = 0 if is_exit else self.reserve
        wanted = min(count, self.burst - floor)
        if self._tokens - wanted >= floor:
            self._tokens -= count
            return 0.0
        return (wanted + floor - self._tokens) / self.per_s

"""What all indicators share: plain state that can be kept, and sums that stay exact."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from trading.errors import BadInput

NAN: Final = float("nan")
#: Beyond this shrinking of the squares, what the subtraction left is mostly rounding: sum afresh.
_CANCELLED: Final = 1e-6


class Indicator:
    """Base of indicators: attributes set in the constructor, numbers and Structs, are all their state."""

    @property
    def ready(self) -> bool:
        """Whether enough values have come for the first result."""
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any]:
        """Parameters and state in plain values, for `restore`."""
        return {name: msgspec.to_builtins(part) for name, part in vars(self).items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `snapshot` of the same kind and parameters; raises `BadInput` where it is not one."""
        parts = vars(self)
        if set(state) != set(parts):
            raise BadInput("state", f"not a snapshot of {type(self).__name__}: it has {sorted(state)}")
        try:
            read = {name: msgspec.convert(state[name], type(part)) for name, part in parts.items()}
        except msgspec.ValidationError as error:
            raise BadInput("state", f"not a snapshot of {type(self).__name__}: {error}") from error
        for name, part in read.items():
            same = part == parts[name] if name in ("_period", "_width", "_needed") else True
            for field in ("period", "alpha"):
                same = same and getattr(part, field, None) == getattr(parts[name], field, None)
            if not same:
                raise BadInput("state", f"a snapshot of a {type(self).__name__} with other parameters")
        parts.update(read)


def period_of(count: int, field: str = "period") -> int:
    """``count`` if it can be a number of values, else `BadInput`."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 1_000_000:
        raise BadInput(field, f"{count!r} is not a whole number from 1 to 1000000")
    return count


def finite(value: float, field: str) -> float:
    """``value`` if it is a finite number, else `BadInput`: one NaN would spoil all values after it."""
    if not math.isfinite(value):
        raise BadInput(field, f"{value} is not a finite number; leave it out")
    return value


class Window(msgspec.Struct):
    """The last ``period`` values with their mean and sum of squared distances from it.

    Sliding updates (Welford, "Note on a method for calculating corrected sums of squares", 1962, taken both
    ways); summed afresh once per turn of the ring and whenever a subtraction cancels: errors do not add up.
    """

    period: int
    values: list[float] = []
    #: Where the oldest value stands once the ring is full.
    oldest: int = 0
    mean: float = 0.0
    squares: float = 0.0
    #: The largest ``squares`` since they were summed afresh.
    largest: float = 0.0

    @property
    def full(self) -> bool:
        """Whether ``period`` values have come."""
        return len(self.values) == self.period

    def push(self, value: float) -> None:
        """Take a value in; the oldest leaves once the window is full."""
        if len(self.values) < self.period:
            self.values.append(value)
            change = value - self.mean
            self.mean += change / len(self.values)
            self.squares += change * (value - self.mean)
        else:
            gone = self.values[self.oldest]
            self.values[self.oldest] = value
            self.oldest = (self.oldest + 1) % self.period
            before = self.mean
            self.mean += (value - gone) / self.period
            self.squares += (value - gone) * ((value - self.mean) + (gone - before))
        self.largest = max(self.largest, self.squares)
        if self.oldest == 0 or self.squares < self.largest * _CANCELLED:
            if not self.full:
                return
            self.mean = math.fsum(self.values) / self.period
            self.squares = math.fsum((v - self.mean) ** 2 for v in self.values)
            self.largest = self.squares


class ExactSum(msgspec.Struct):
    """A running sum that carries what rounding drops.

    Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen", 1974.
    """

    total: float = 0.0
    carry: float = 0.0

    @property
    def value(self) -> float:
        """The sum so far."""
        return self.total + self.carry

    def add(self, value: float) -> None:
        """Count ``value`` in."""
        total = self.total + value
        if abs(self.total) >= abs(value):
            self.carry += (self.total - total) + value
        else:
            self.carry += (value - total) + self.total
        self.total = total


class Smoothed(msgspec.Struct):
    """Exponential smoothing ``y += alpha * (x - y)`` from the first value: ``ewm(alpha, adjust=False)``."""

    alpha: float
    count: int = 0
    value: float = NAN

    def push(self, value: float) -> float:
        """Take a value in and return the average."""
        self.value = value if self.count == 0 else self.value + self.alpha * (value - self.value)
        self.count += 1
        return self.value

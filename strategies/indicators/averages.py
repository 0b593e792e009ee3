"""Averages: simple, exponential, MACD and volume-weighted."""

from __future__ import annotations

from typing import NamedTuple

from strategies.indicators.base import NAN, ExactSum, Indicator, Smoothed, Window, finite, period_of
from trading.errors import BadInput


class SMA(Indicator):
    """Simple moving average of the last ``period`` values: ``x.rolling(period).mean()``."""

    def __init__(self, period: int) -> None:
        self._window = Window(period_of(period))

    @property
    def ready(self) -> bool:
        """Whether ``period`` values have come."""
        return self._window.full

    @property
    def value(self) -> float:
        """The average, NaN until ready."""
        return self._window.mean if self._window.full else NAN

    def update(self, value: float) -> float:
        """Take a value in and return the average."""
        self._window.push(finite(value, "value"))
        return self.value


class EMA(Indicator):
    """Exponential moving average with alpha = 2 / (period + 1), seeded with the first value.

    ``x.ewm(span=period, adjust=False, min_periods=period).mean()``.
    """

    def __init__(self, period: int) -> None:
        self._average = Smoothed(alpha=2.0 / (period_of(period) + 1))
        self._period = period

    @property
    def ready(self) -> bool:
        """Whether ``period`` values have come."""
        return self._average.count >= self._period

    @property
    def value(self) -> float:
        """The average, NaN until ready."""
        return self._average.value if self.ready else NAN

    def update(self, value: float) -> float:
        """Take a value in and return the average."""
        self._average.push(finite(value, "value"))
        return self.value


class MACDValue(NamedTuple):
    """Distance of the two averages, its own average, and the distance of these two."""

    line: float
    signal: float
    histogram: float


class MACD(Indicator):
    """Moving average convergence/divergence (G. Appel).

    ``line = x.ewm(span=fast, adjust=False).mean() - x.ewm(span=slow, adjust=False).mean()``,
    ``signal = line.ewm(span=signal, adjust=False).mean()``, ``histogram = line - signal``; all start at the
    first value, and are given out after ``slow + signal - 1`` of them.
    """

    def __init__(self, fast: int = 12, slow: int = 26, signal: int = 9) -> None:
        if period_of(fast, "fast") >= period_of(slow, "slow"):
            raise BadInput("fast", f"{fast} must be below slow, which is {slow}")
        self._fast = Smoothed(alpha=2.0 / (fast + 1))
        self._slow = Smoothed(alpha=2.0 / (slow + 1))
        self._signal = Smoothed(alpha=2.0 / (period_of(signal, "signal") + 1))
        self._needed = slow + signal - 1

    @property
    def ready(self) -> bool:
        """Whether ``slow + signal - 1`` values have come."""
        return self._signal.count >= self._needed

    @property
    def value(self) -> MACDValue:
        """Line, signal and histogram, NaN until ready."""
        if not self.ready:
            return MACDValue(NAN, NAN, NAN)
        line = self._fast.value - self._slow.value
        return MACDValue(line, self._signal.value, line - self._signal.value)

    def update(self, value: float) -> MACDValue:
        """Take a value in and return line, signal and histogram."""
        finite(value, "value")
        self._signal.push(self._fast.push(value) - self._slow.push(value))
        return self.value


class VWAP(Indicator):
    """Volume-weighted average price since the start or the last `reset`, e.g. at each session's open.

    ``(price * volume).cumsum() / volume.cumsum()``.  For bars the price is commonly (high + low + close) / 3.
    """

    def __init__(self) -> None:
        self._value = ExactSum()
        self._volume = ExactSum()

    @property
    def ready(self) -> bool:
        """Whether any volume has come."""
        return self._volume.value > 0

    @property
    def value(self) -> float:
        """The average, NaN until ready."""
        return self._value.value / self._volume.value if self.ready else NAN

    def update(self, price: float, volume: float) -> float:
        """Count ``volume`` at ``price`` in and return the average."""
        if finite(volume, "volume") < 0:
            raise BadInput("volume", f"{volume} is below 0")
        self._value.add(finite(price, "price") * volume)
        self._volume.add(volume)
        return self.value

    def reset(self) -> None:
        """Start afresh."""
        self._value = ExactSum()
        self._volume = ExactSum()

"""Indicators of range and strength: Bollinger bands, RSI and ATR.

Wilder's smoothing (J. W. Wilder, "New Concepts in Technical Trading Systems", 1978) is here
``ewm(alpha=1/period, adjust=False)``.  Wilder, and TA-Lib after him, start it from the simple average of the
first ``period`` values; that difference fades by (1 - 1/period) with each value.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from strategies.indicators.base import NAN, Indicator, Smoothed, Window, finite, period_of
from trading.errors import BadInput


class Bands(NamedTuple):
    """Lower, middle and upper Bollinger band."""

    lower: float
    middle: float
    upper: float


class Bollinger(Indicator):
    """Bollinger bands (J. Bollinger): the mean of a window and ``width`` standard deviations around it.

    ``m = x.rolling(period).mean()``, ``s = x.rolling(period).std(ddof=0)``, bands ``m - width * s`` and
    ``m + width * s``.
    """

    def __init__(self, period: int = 20, width: float = 2.0) -> None:
        if finite(width, "width") <= 0:
            raise BadInput("width", f"{width} must be above 0")
        self._window = Window(period_of(period))
        self._width = float(width)

    @property
    def ready(self) -> bool:
        """Whether ``period`` values have come."""
        return self._window.full

    @property
    def value(self) -> Bands:
        """The bands, NaN until ready."""
        if not self._window.full:
            return Bands(NAN, NAN, NAN)
        middle = self._window.mean
        reach = self._width * self.deviation
        return Bands(middle - reach, middle, middle + reach)

    @property
    def deviation(self) -> float:
        """The population standard deviation of the window, NaN until ready."""
        window = self._window
        return math.sqrt(max(window.squares, 0.0) / window.period) if window.full else NAN

    def update(self, value: float) -> Bands:
        """Take a value in and return the bands."""
        self._window.push(finite(value, "value"))
        return self.value


class RSI(Indicator):
    """Relative strength index (Wilder): share of the gains in all smoothed change, 0 to 100.

    ``d = x.diff(); g, l = (s.ewm(alpha=1/period, adjust=False, min_periods=period).mean() for s in
    (d.clip(lower=0), -d.clip(upper=0))); 100 - 100 / (1 + g / l)``.  NaN while nothing has ever moved.
    """

    def __init__(self, period: int = 14) -> None:
        self._gain = Smoothed(alpha=1.0 / period_of(period))
        self._loss = Smoothed(alpha=1.0 / period)
        self._last = NAN
        self._period = period

    @property
    def ready(self) -> bool:
        """Whether ``period`` changes have come."""
        return self._gain.count >= self._period

    @property
    def value(self) -> float:
        """The index, NaN until ready."""
        moved = self._gain.value + self._loss.value
        return 100.0 * (self._gain.value / moved) if self.ready and moved > 0 else NAN

    def update(self, value: float) -> float:
        """Take a value in and return the index."""
        finite(value, "value")
        if not math.isnan(self._last):
            change = value - self._last
            self._gain.push(max(change, 0.0))
            self._loss.push(max(-change, 0.0))
        self._last = float(value)
        return self.value


class ATR(Indicator):
    """Average true range (Wilder): smoothed ``max(high - low, |high - close'|, |low - close'|)``.

    ``close'`` is the close before; the first true range is ``high - low``.
    ``tr.ewm(alpha=1/period, adjust=False, min_periods=period).mean()``.
    """

    def __init__(self, period: int = 14) -> None:
        self._range = Smoothed(alpha=1.0 / period_of(period))
        self._close = NAN
        self._period = period

    @property
    def ready(self) -> bool:
        """Whether ``period`` bars have come."""
        return self._range.count >= self._period

    @property
    def value(self) -> float:
        """The average range, NaN until ready."""
        return self._range.value if self.ready else NAN

    def update(self, high: float, low: float, close: float) -> float:
        """Take a bar in and return the average range."""
        if finite(high, "high") < finite(low, "low"):
            raise BadInput("high", f"{high} is below the low {low}")
        finite(close, "close")
        true_range = high - low
        if not math.isnan(self._close):
            true_range = max(true_range, abs(high - self._close), abs(low - self._close))
        self._range.push(true_range)
        self._close = float(close)
        return self.value

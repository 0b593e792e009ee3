"""Incremental indicators: one update per value, constant memory, state that can be kept and restored.

Each ``update`` returns the new value, NaN until the indicator is ``ready``.  Each docstring gives the
formula, also as pandas would write it; both agree to 1e-9 and go on agreeing after millions of updates.
"""

from strategies.indicators.averages import EMA, MACD, SMA, VWAP, MACDValue
from strategies.indicators.base import Indicator
from strategies.indicators.ranges import ATR, RSI, Bands, Bollinger

__all__ = ["ATR", "EMA", "MACD", "RSI", "SMA", "VWAP", "Bands", "Bollinger", "Indicator", "MACDValue"]

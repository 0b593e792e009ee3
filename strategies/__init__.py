"""What a strategy author imports.

A strategy is a subclass of `Strategy` in one file.  It runs unchanged in the back-test (`simulate`) and live.
"""

from strategies.base import UPDATABLE, Strategy, StrategyParameters, Tick

__all__ = ["UPDATABLE", "Strategy", "StrategyParameters", "Tick"]

"""Strategies of the feed bench: they count, and say at the end how far they came."""

from __future__ import annotations

from typing import Final

COUNTER = '''
from strategies.base import Strategy


class Counter(Strategy):
    """Counts whole batches, the least a strategy can do."""

    def set_up(self):
        self.count = 0

    def on_ticks(self, ticks):
        self.count += len(ticks)

    def on_stop(self):
        self.log(f"counted {self.count}")
'''

WATCHER = '''
from strategies.base import Strategy


class Watcher(Strategy):
    """Looks at each tick: keeps the last price of each instrument."""

    def set_up(self):
        self.count = 0
        self.last = {}

    def on_tick(self, tick):
        self.count += 1
        self.last[tick.instrument.id] = tick.price if tick.is_trade else tick.bid

    def on_stop(self):
        self.log(f"counted {self.count}")
'''
#: Name -> source, as a user would upload it.
STRATEGIES: Final = {"counter": COUNTER, "watcher": WATCHER}

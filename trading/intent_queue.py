"""What an algo wants and has not been sent yet: in order, in groups, and never stale."""

from __future__ import annotations

from collections import deque
from typing import Final

from trading.ids import Nanos
from trading.orders import CancelOrder, ModifyOrder, PlaceOrder

#: An intent that waited here for so long is not sent any more: the market it was meant for is gone.
STALE_NS: Final = 2_000_000_000
#: At most so many intents wait; of a strategy that floods, the oldest are refused.
MOST_WAITING: Final = 1_000
#: So many go in one call, so that the algos of a session take turns.
GROUP: Final = 50

Intent = PlaceOrder | ModifyOrder | CancelOrder


class IntentQueue:
    """Intents of one algo.  Cancels and changes are never refused here, whatever their age."""

    def __init__(self) -> None:
        self._waiting: deque[Intent] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, intent: Intent) -> None:
        """Put an intent behind the others."""
        self._waiting.append(intent)

    def take_late(self, now: Nanos) -> list[PlaceOrder]:
        """Take out the orders to place that waited too long, and the oldest beyond what may wait."""
        surplus = len(self._waiting) - MOST_WAITING
        oldest = now - STALE_NS
        late: list[PlaceOrder] = []
        kept: deque[Intent] = deque()
        for intent in self._waiting:
            if isinstance(intent, PlaceOrder) and (intent.created_at < oldest or len(late) < surplus):
                late.append(intent)
            else:
                kept.append(intent)
        self._waiting = kept
        return late

    def take_group(self) -> list[Intent]:
        """The next intents of one kind, in order; a change goes alone."""
        group: list[Intent] = []
        while self._waiting and len(group) < GROUP and (not group or type(self._waiting[0]) is type(group[0])):
            group.append(self._waiting.popleft())
            if isinstance(group[0], ModifyOrder):
                break
        return group

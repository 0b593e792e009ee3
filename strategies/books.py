"""What one algo knows of its own orders and positions, kept from what its session tells it.

News may come twice, late or in the wrong order, above all around a restart; the books come out the same.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, TypeVar

import msgspec

from trading.ids import AccountId, ClientOrderId, ExecutionId, InstrumentId
from trading.instruments import Instrument
from trading.orders import ZERO, Fill, Order
from trading.positions import Position

#: Executions, ended orders and filled quantities remembered, oldest forgotten first.
_KEPT: Final = 4096

K = TypeVar("K")
V = TypeVar("V")


class BooksState(msgspec.Struct, kw_only=True):
    """The books in a form that can be written down."""

    positions: list[Position]
    orders: list[Order]
    executions: list[ExecutionId]
    filled: dict[ClientOrderId, Decimal]
    ended: list[ClientOrderId]
    ahead: list[Order]


class Books:
    """Open orders and positions of one algo."""

    def __init__(self, account: AccountId) -> None:
        self.account = account
        #: Orders that may still fill, oldest first.
        self.orders: dict[ClientOrderId, Order] = {}
        self._positions: dict[InstrumentId, Position] = {}
        self._executions: dict[ExecutionId, None] = {}
        #: By order, the quantity of the fills that were told.
        self._filled: dict[ClientOrderId, Decimal] = {}
        self._ended: dict[ClientOrderId, None] = {}
        #: Orders that speak of fills not told yet.
        self._ahead: dict[ClientOrderId, Order] = {}

    def position(self, instrument: Instrument) -> Position:
        """The position that own fills have made."""
        found = self._positions.get(instrument.id)
        if found is None:
            found = self._positions[instrument.id] = Position(
                account=self.account, instrument=instrument.id, multiplier=instrument.multiplier
            )
        return found

    def note_order(self, order: Order) -> bool:
        """Take an order's news in; False where it is to be told later, with its fills, or was overtaken."""
        key = order.client_order_id
        waiting = self._ahead.get(key)
        if order.filled_quantity > self._filled.get(key, ZERO):
            if waiting is None or _progress(order) >= _progress(waiting):
                self._ahead[key] = order
            return False
        if waiting is not None and _progress(order) >= _progress(waiting):
            del self._ahead[key]
        if order.state.is_final:
            self.orders.pop(key, None)
            _remember(self._ended, key, None)
            return True
        known = self.orders.get(key)
        if key in self._ended or (known is not None and _progress(order) < _progress(known)):
            return False
        self.orders[key] = order
        return True

    def knows(self, execution: ExecutionId) -> bool:
        """Whether a fill has been accounted for (of those remembered)."""
        return execution in self._executions

    def note_fill(self, instrument: Instrument, order: Order, fill: Fill) -> bool:
        """Account for a fill; False where it was told before."""
        if fill.execution_id in self._executions:
            return False
        _remember(self._executions, fill.execution_id, None)
        key = order.client_order_id
        filled = self._filled.pop(key, ZERO) + fill.quantity
        _remember(self._filled, key, filled)
        self.position(instrument).apply(order.side, fill)
        if order.filled_quantity <= filled and key not in self._ahead:
            self.note_order(order)
        return True

    def waited(self, key: ClientOrderId) -> Order | None:
        """News of an order that waited for fills which have come now; given once."""
        order = self._ahead.get(key)
        return order if order is not None and self.note_order(order) else None

    def state(self) -> BooksState:
        """All of it, for `restore`."""
        return BooksState(
            positions=list(self._positions.values()),
            orders=list(self.orders.values()),
            executions=list(self._executions),
            filled=self._filled,
            ended=list(self._ended),
            ahead=list(self._ahead.values()),
        )

    def restore(self, state: BooksState) -> None:
        """Take up what `state` gave."""
        self._positions = {p.instrument: p for p in state.positions}
        self.orders = {o.client_order_id: o for o in state.orders}
        self._executions = dict.fromkeys(state.executions)
        self._filled = dict(state.filled)
        self._ended = dict.fromkeys(state.ended)
        self._ahead = {o.client_order_id: o for o in state.ahead}


def _progress(order: Order) -> tuple[bool, Decimal]:
    """How far an order has come: neither an end nor a fill is ever taken back."""
    return (order.state.is_final, order.filled_quantity)


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    memory[key] = value
    if len(memory) > _KEPT:
        del memory[next(iter(memory))]

"""A journal in memory with the rules of the real one: whole batches, in order, one owner, keys only once."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

from trading.ids import AccountId, AlgoId, ClientOrderId, Epoch, ExecutionId, Nanos
from trading.instruments import InstrumentId
from trading.journal import AccountHistory, Break, CashBook, JournalBatch, rising_of
from trading.orders import EventKind, Order, OrderEvent, OrderState
from trading.positions import Position

Key = tuple[AccountId, ClientOrderId]
_LOADED_BACK_NS = 24 * 3600 * 1_000_000_000


class FencedOff(Exception):
    """An owner of an older epoch tried to write."""


class KeysExist(Exception):
    """Some new orders are already there."""

    def __init__(self, known: dict[Key, Order]) -> None:
        super().__init__(known)
        self.known = known


def frozen(batch: JournalBatch) -> JournalBatch:
    """What encoding the batch at this moment would keep."""
    return JournalBatch(
        orders=[copy(o) for o in batch.orders],
        heads=[copy(o) for o in batch.heads],
        events=list(batch.events),
        positions=[copy(p) for p in batch.positions],
        breaks=list(batch.breaks),
        cash=[copy(c) for c in batch.cash],
    )


class FakeJournal:
    """What is in here is durable; nothing else is."""

    def __init__(self) -> None:
        self.orders: dict[Key, Order] = {}
        self.events: list[OrderEvent] = []
        self.executions: dict[tuple[AccountId, ExecutionId], Nanos] = {}
        self.positions: dict[tuple[AccountId, InstrumentId], Position] = {}
        self.algo_positions: dict[tuple[AccountId, AlgoId, InstrumentId], Position] = {}
        self.breaks: dict[str, Break] = {}
        #: Cash as it was based, and how many events there were then.
        self.cash: dict[AccountId, tuple[CashBook, int]] = {}
        self._epoch: dict[str, Epoch] = {}
        self._last: dict[tuple[str, Epoch], int] = {}

    def lease(self, owner: str) -> Epoch:
        self._epoch[owner] = Epoch(self._epoch.get(owner, 0) + 1)
        return self._epoch[owner]

    def epoch_of(self, owner: str) -> Epoch:
        return self._epoch.get(owner, Epoch(0))

    def append(self, owner: str, epoch: Epoch, number: int, batch: JournalBatch) -> None:
        if self._epoch[owner] != epoch:
            raise FencedOff
        last = self._last.get((owner, epoch), 0)
        if number <= last:
            return
        assert number == last + 1, f"batch {number} came after {last}"
        known = {o.key: copy(self.orders[o.key]) for o in batch.orders if o.key in self.orders}
        if known:
            raise KeysExist(known)
        for order in (*batch.orders, *batch.heads):
            self.orders[order.key] = copy(order)
        for event in batch.events:
            key = (event.account, event.client_order_id)
            assert key in self.orders, f"an event of {key}, which was never journaled"
            if event.kind is EventKind.FILLED:
                assert event.fill is not None
                execution = (event.account, event.fill.execution_id)
                assert execution not in self.executions, f"{execution} is journaled twice"
                self.executions[execution] = event.fill.at
            self.events.append(event)
        for position in batch.positions:
            if position.algo is not None:
                self.algo_positions[(position.account, position.algo, position.instrument)] = copy(position)
            else:
                self.positions[(position.account, position.instrument)] = copy(position)
        self.breaks.update({item.id: item for item in batch.breaks})
        self.cash.update({cash.account: (copy(cash), len(self.events)) for cash in batch.cash})
        self._last[(owner, epoch)] = number

    def load(self, account: AccountId, now: Nanos) -> AccountHistory:
        mine = [o for o in self.orders.values() if o.account == account]
        since = Nanos(now - _LOADED_BACK_NS)
        if any(not o.state.is_final for o in mine):
            since = min(since, max(o.updated_at for o in mine))
        orders = [
            copy(o)
            for o in self.orders.values()
            if o.account == account and (not o.state.is_final or o.updated_at >= since)
        ]
        return AccountHistory(
            account=account,
            loaded_at=now,
            since=since,
            orders=orders,
            rising=rising_of(orders, (e for e in self.events if e.account == account)),
            positions=[copy(p) for p in self.positions.values() if p.account == account],
            algo_positions=[copy(p) for p in self.algo_positions.values() if p.account == account],
            executions={e for (a, e), at in self.executions.items() if a == account and at >= since},
            breaks=[b for b in self.breaks.values() if b.account == account and not b.resolved_at],
            tolerated=[b for b in self.breaks.values() if b.account == account and b.tolerated],
            cash=self.cash_of(account),
            adjusted={
                e.client_order_id
                for e in self.events
                if e.account == account and e.fill is not None and e.fill.execution_id.startswith("adjustment:")
            },
        )

    def cash_of(self, account: AccountId) -> CashBook | None:
        """What was based, and every execution since."""
        if account not in self.cash:
            return None
        based, seen = self.cash[account]
        cash = copy(based)
        for event in self.events[seen:]:
            if event.account == account and event.kind is EventKind.FILLED and event.fill is not None:
                order = self.orders[(account, event.client_order_id)]
                multiplier = self.positions[(account, order.instrument)].multiplier
                cash.take(order.side, event.fill, multiplier, "")
        return cash

    def order_of_tag(self, tag: str) -> Order | None:
        return next((o for o in self.orders.values() if o.tag == tag), None)

    def open_breaks(self) -> list[Break]:
        return [b for b in self.breaks.values() if not b.resolved_at]

    def kinds(self, key: str) -> list[str]:
        return [str(e.kind) for e in self.events if e.client_order_id == key]

    def unresolved(self) -> Iterable[Order]:
        return (o for o in self.orders.values() if o.state in (OrderState.PENDING, OrderState.UNKNOWN))

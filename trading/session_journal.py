"""A session's journal gates, and the recording of every change.

Group commit: one append is in flight, what arrives meanwhile goes as the next one.  What must wait for a batch to
be durable (a ticket, a reply, a note) waits at its gate.  Where appends take long, acknowledgements alone wait a little
for other news: under load half the appends would carry nothing else, and new orders would stand behind them.  Every
change of an order goes along the transition table and through here, so orders, positions and exposure never part.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from copy import copy
from decimal import Decimal
from functools import partial
from typing import Any

from msgspec.structs import replace

from trading.account_book import AccountBook
from trading.errors import Invariant
from trading.exposure import ExposureBook, Part
from trading.ids import AccountId, AlgoId, CauseId, ClientOrderId, Epoch, InstrumentId, Nanos, UserId, broker_tag
from trading.instructions import Append, Instruction, Note, Tell, Wake
from trading.instruments import Instrument
from trading.journal import Break, BreakKind, JournalBatch, Settlement
from trading.order_worth import own_price, prices_after
from trading.orders import ZERO, EventKind, Fill, Order, OrderEvent, OrderState, Side, apply, can_apply
from trading.positions import Position

_Gate = Callable[[Nanos], object]

#: Where an append took longer than this, acknowledgements wait so many times as long for company, but never longer
#: than the last: so the wait grows with the load and ends with it.  What is not written when the process dies is read
#: again from the broker.
_QUICK_APPEND_NS = 5_000_000
_WAIT_OF_APPEND = 10
_LONGEST_WAIT_NS = 60_000_000


def _without(batch: JournalBatch, keys: AbstractSet[tuple[AccountId, ClientOrderId]]) -> JournalBatch:
    """What of a batch does not speak of these orders."""
    return JournalBatch(
        orders=[o for o in batch.orders if o.key not in keys],
        heads=[o for o in batch.heads if o.key not in keys],
        events=[e for e in batch.events if (e.account, e.client_order_id) not in keys],
        positions=batch.positions,
        breaks=batch.breaks,
        cash=batch.cash,
    )


class Recorder:
    """The journal's side of a session's core."""

    def __init__(self, user: UserId, epoch: Epoch) -> None:
        self.user = user
        self.epoch = epoch
        self.actor = f"session/{user}"
        self.accounts: dict[AccountId, AccountBook] = {}
        self.instruments: dict[InstrumentId, Instrument] = {}
        self.exposure = ExposureBook()
        #: Set by the shell while appends fail; nothing new is taken meanwhile.
        self.journal_is_away = False
        self.refused_moves = 0
        self.late_arrival_ns: dict[AccountId, int] = {}
        self._out: list[Instruction] = []
        self._batch = JournalBatch()
        self._heads: dict[tuple[AccountId, ClientOrderId], Order] = {}
        self._moved: dict[tuple[AccountId, AlgoId | None, InstrumentId], Position] = {}
        #: Accounts whose cash begins anew from the broker's figure.
        self._rebased: set[AccountId] = set()
        self._notes: list[Note] = []
        #: Number of the batch being filled; ``_committed`` is the last one known to be durable.
        self._filling = 1
        self._committed = 0
        self._appending = 0
        self._append_began = Nanos(0)
        self._append_took = 0
        self._wake_at = Nanos(0)
        self._gates: deque[tuple[int, _Gate]] = deque()
        self._last_batch_of: dict[tuple[AccountId, ClientOrderId], int] = {}
        self._stories: dict[tuple[AccountId, ClientOrderId], deque[tuple[OrderEvent, OrderState]]] = {}
        self._lane_number = 0
        self._forgot_at = Nanos(0)
        self._under_way = JournalBatch()
        #: Keys that turned out to be in the journal although memory had forgotten them.
        self._reused: dict[tuple[AccountId, ClientOrderId], Order] = {}

    # The journal

    def appended(self, number: int, now: Nanos) -> list[Instruction]:
        """Batch ``number`` and all before it are durable: let out what waited for them."""
        if number != self._appending:
            raise Invariant(f"batch {number} was appended, {self._appending or 'none'} was under way")
        self._appending = 0
        self._append_took = now - self._append_began
        self._committed = number
        while self._gates and self._gates[0][0] <= number:
            self._gates.popleft()[1](now)
        return self._drain(now)

    def append_refused(
        self, number: int, known: Mapping[tuple[AccountId, ClientOrderId], Order], now: Nanos
    ) -> list[Instruction]:
        """The journal already has orders under some new keys of batch ``number``: drop those, write the rest.

        Memory forgets ended orders after a while, the journal's constraint never does.
        """
        batch = self._under_way
        for key in [o.key for o in batch.orders if o.key in known]:
            book = self.accounts[key[0]]
            order = book.orders.pop(key[1])
            order.state = OrderState.DENIED
            book.open.pop(key[1], None)
            book.by_tag.pop(order.tag, None)
            self._count(book, order, ZERO)
            self._heads.pop(key, None)
            self._reused[key] = known[key]
        self._under_way = _without(batch, known.keys())
        self._batch = _without(self._batch, known.keys())
        self._out.append(Append(number, self._under_way))
        return self._drain(now)

    def _gate(self, release: _Gate, number: int | None = None) -> None:
        """Run ``release(now)`` once batch ``number`` (default: the one being filled) is durable."""
        wanted = self._filling if number is None else number
        if wanted <= self._committed:
            release(Nanos(0))
            return
        # Gates open in order: one that needs less than the last waits with it, for at most one commit more.
        last = self._gates[-1][0] if self._gates else 0
        self._gates.append((max(wanted, last), release))

    def _gate_of(self, order: Order) -> int:
        return self._last_batch_of.get(order.key, 0)

    def _drain(self, now: Nanos) -> list[Instruction]:
        for book in self.accounts.values():
            self._pump(book, now)
        batch = self._batch
        has_news = batch.events or batch.orders or batch.breaks or self._moved or self._rebased
        if has_news and not self._appending and not self._may_wait(now):
            new = {order.key for order in batch.orders}
            # Copies: a batch says what was when it was closed, also where it has to be written again.
            batch.orders = [copy(order) for order in batch.orders]
            batch.heads = [copy(order) for key, order in self._heads.items() if key not in new]
            batch.positions = [copy(position) for position in self._moved.values()]
            batch.cash = [copy(cash) for account in sorted(self._rebased) if (cash := self.accounts[account].cash_book)]
            number = self._filling
            self._appending = number
            self._append_began = now
            self._under_way = batch
            notes = tuple(self._notes)
            self._out.append(Append(number, batch))
            if notes:
                self._gates.append((number, partial(self._tell, notes)))
            self._batch, self._heads, self._moved, self._notes = JournalBatch(), {}, {}, []
            self._rebased.clear()
            self._filling += 1
            if len(self._last_batch_of) > 2_000:
                self._last_batch_of = {k: n for k, n in self._last_batch_of.items() if n > self._committed}
        out, self._out = self._out, []
        return out

    def _may_wait(self, now: Nanos) -> bool:
        """Whether what there is to write had better go with what comes next."""
        batch = self._batch
        if self._append_took < _QUICK_APPEND_NS or self._gates:
            return False
        if batch.orders or batch.breaks or self._moved or self._rebased:
            return False
        if any(event.kind is not EventKind.SUBMITTED for event in batch.events):
            return False
        until = Nanos(batch.events[0].at + min(_WAIT_OF_APPEND * self._append_took, _LONGEST_WAIT_NS))
        # A clock that was set back must not make it wait for longer.
        if not batch.events[0].at <= now < until:
            return False
        if self._wake_at != until:
            self._wake_at = until
            self._out.append(Wake(until))
        return True

    def wake(self, now: Nanos) -> list[Instruction]:
        """A time that was asked for has come."""
        return self._drain(now)

    def _tell(self, notes: tuple[Note, ...], _now: Nanos) -> None:
        fresh = tuple(note for note in notes if note.order.key not in self._reused)
        if fresh:
            self._out.append(Tell(fresh))

    def _pump(self, book: AccountBook, now: Nanos) -> None:
        """Send what may go now."""
        raise NotImplementedError

    # Recording

    def _open(
        self,
        book: AccountBook,
        order: Order,
        kind: EventKind,
        now: Nanos,
        *,
        cause: CauseId,
        reason: str = "",
    ) -> None:
        """Enter a new order with its first event."""
        book.add(order)
        if not order.state.is_final:
            self._count(book, order, order.open_quantity)
        self._batch.orders.append(order)
        self._note(
            order,
            OrderEvent(
                kind=kind,
                account=order.account,
                client_order_id=order.client_order_id,
                at=now,
                actor=self.actor,
                reason=reason,
                cause=cause,
                broker_order_id=order.broker_order_id,
            ),
        )

    def _record(self, book: AccountBook, order: Order, kind: EventKind, now: Nanos, **more: Any) -> bool:
        """Make one move along the transition table; an illegal one is refused and audited (False)."""
        event = OrderEvent(
            kind=kind,
            account=order.account,
            client_order_id=order.client_order_id,
            at=now,
            actor=self.actor,
            **more,
        )
        if not can_apply(order.state, kind):
            self.refused_moves += 1
            reason = f"{kind} does not follow {order.state}"
            self._note(
                order,
                OrderEvent(
                    kind=EventKind.REFUSED,
                    account=order.account,
                    client_order_id=order.client_order_id,
                    at=now,
                    actor=self.actor,
                    reason=f"{reason}: {event.reason}" if event.reason else reason,
                    raw=event.raw,
                ),
            )
            return False
        before = order.broker_order_id
        apply(order, event)
        if order.broker_order_id is not None and before is None:
            book.by_broker_id[order.broker_order_id] = order
        if kind is EventKind.FILLED and event.fill is not None:
            self._take_fill(book, order, event.fill, now)
        if order.state.is_final:
            book.open.pop(order.client_order_id, None)
        elif kind is EventKind.REVIVED:
            book.open[order.client_order_id] = order
        if kind is EventKind.MODIFIED:
            self._take_modified(book, order)
        if kind is EventKind.MODIFY_REJECTED or order.state.is_final:
            book.rising.pop(order.client_order_id, None)
        self._count_open(book, order)
        self._note(order, event)
        return True

    def _note(self, order: Order, event: OrderEvent) -> None:
        key = order.key
        self._batch.events.append(event)
        self._heads[key] = order
        self._last_batch_of[key] = self._filling
        self._notes.append(Note(copy(order), event))
        story = self._stories.get(key)
        if story is None:
            story = self._stories[key] = deque(maxlen=20)
            if len(self._stories) > 500:
                del self._stories[next(iter(self._stories))]
        story.append((event, order.state))

    def _take_modified(self, book: AccountBook, order: Order) -> None:
        book.modified.add(order.client_order_id)
        self._part(book, order).changed()
        rise = book.rising.get(order.client_order_id)
        own = own_price(order.side, order.limit_price, order.stop_price)
        if rise is not None and order.quantity >= rise.target and own >= rise.price:
            del book.rising[order.client_order_id]

    def _count_open(self, book: AccountBook, order: Order) -> None:
        """Let the exposure count what may still fill, at the larger size and price where such has been asked for."""
        quantity, price = order.open_quantity, ZERO
        rise = book.rising.get(order.client_order_id)
        if rise is not None:
            quantity, price = max(quantity, rise.target - order.filled_quantity), rise.price
        replacement = book.replacing.get(order.client_order_id)
        if replacement is not None:
            target = replacement.change.quantity or order.quantity
            quantity = max(quantity, target - order.filled_quantity)
            price = own_price(order.side, *prices_after(replacement.change, order))
        self._count(book, order, quantity, price)

    def _count(self, book: AccountBook, order: Order, quantity: Decimal, at_least: Decimal = ZERO) -> None:
        """Let the exposure count ``quantity`` as this order's open part; see `ExposureBook.count` for ``at_least``."""
        counted = book.counted.get(order.client_order_id, ZERO)
        if quantity == counted and (not quantity or order.instrument in self.exposure.marks):
            return
        self.exposure.count(self._part(book, order), order, counted, quantity, at_least)
        if quantity:
            book.counted[order.client_order_id] = quantity
        else:
            book.counted.pop(order.client_order_id, None)

    def _part(self, book: AccountBook, order: Order) -> Part:
        known = self.exposure.parts().get((book.account, order.algo, order.instrument))
        if known is not None:
            return known
        return self.exposure.part(book.account, order.algo, order.instrument, self._multiplier(order.instrument))

    def _multiplier(self, instrument: InstrumentId) -> Decimal:
        known = self.instruments.get(instrument)
        return known.multiplier if known is not None else Decimal(1)

    def _take_fill(self, book: AccountBook, order: Order, fill: Fill, now: Nanos) -> None:
        book.executions[fill.execution_id] = now
        multiplier = self._multiplier(order.instrument)
        position = book.positions.get(order.instrument)
        if position is None:
            position = Position(account=book.account, instrument=order.instrument, multiplier=multiplier)
            book.positions[order.instrument] = position
        position.apply(order.side, fill)
        if order.side is Side.BUY:
            book.add_bought(now, fill.quantity * fill.price * multiplier)
        book.moved_at[order.instrument] = now
        # An accepted break may have adjusted at 0 what nobody knew a price of: that is no price.
        if order.instrument not in self.exposure.marks and fill.price > 0:
            self.exposure.set_mark(order.instrument, fill.price)
        self._count_open(book, order)
        part = self._part(book, order)
        self.exposure.set_position(part.line, position.quantity)
        self._moved[(book.account, None, order.instrument)] = position
        if order.algo is not None and part.own is not None:
            own = book.algo_position(order.algo, order.instrument, multiplier)
            own.apply(order.side, fill)
            self.exposure.set_position(part.own, own.quantity)
            self._moved[(book.account, order.algo, order.instrument)] = own
        if order.filled_quantity > order.quantity:
            ours, theirs = str(order.quantity), str(order.filled_quantity)
            self._break(book, order.instrument, BreakKind.OVERFILL, ours, theirs, now, order.client_order_id)
        if book.cash_begun is not None and fill.at < book.cash_begun.based_at + self.late_arrival_ns[book.account]:
            # The broker's figure may have had it in already.
            book.cash_begun = None
        for cash in (book.cash_book, book.cash_begun):
            if cash is not None:
                currency = self.instruments[order.instrument].currency if order.instrument in self.instruments else ""
                cash.take(order.side, fill, multiplier, currency)

    # Breaks

    def _break(
        self,
        book: AccountBook,
        instrument: InstrumentId,
        kind: BreakKind,
        ours: str,
        theirs: str,
        now: Nanos,
        key: ClientOrderId | None = None,
    ) -> None:
        """Open a break, or bring an open one up to date; one that was explained is left alone while it stays the same.

        ``key`` is of the order that it is about.
        """
        known = book.breaks.get((instrument, kind, key))
        if known is not None and (known.ours, known.theirs) == (ours, theirs):
            return
        subject = f"{instrument}/{kind}/{key or ''}/{now}"
        item = Break(
            id=known.id if known is not None else f"brk-{broker_tag(book.account, subject).lower()}",
            account=book.account,
            instrument=instrument,
            kind=kind,
            ours=ours,
            theirs=theirs,
            opened_at=known.opened_at if known is not None else now,
            client_order_id=key,
        )
        tolerated = book.tolerated.get(item.key)
        if tolerated is not None:
            if tolerated.difference == item.difference:
                return
            self._end_tolerance(book, tolerated)
        book.breaks[item.key] = item
        self._batch.breaks.append(item)

    def _end_tolerance(self, book: AccountBook, item: Break) -> None:
        """What was explained has gone or changed: it counts again should it come back."""
        del book.tolerated[item.key]
        self._batch.breaks.append(replace(item, tolerated=False))

    def _resolve_break(self, book: AccountBook, item: Break, resolution: str, now: Nanos) -> None:
        """Close a break whose sides agree again."""
        del book.breaks[item.key]
        closed = replace(item, resolved_at=now, resolution=resolution, settlement=Settlement.AGREED)
        self._batch.breaks.append(closed)

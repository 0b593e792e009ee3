"""The paper venue: tickets and market events in, answers and updates out.  Pure: no clock, no IO, no chance.

Reduce-only orders never make a position larger or turn it: where a fill would, the part that reduces is
filled and the rest of the order is cancelled, whatever else has filled at the same moment.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

import msgspec

from connectors.base import PaperAccount
from connectors.paper.money import CashAccount
from trading.broker import (
    AmendTicket,
    Answer,
    BrokerFill,
    BrokerOrder,
    BrokerPosition,
    BrokerReport,
    BrokerUpdate,
    CancelTicket,
    OrderTicket,
    UpdateKind,
    Verdict,
)
from trading.errors import BadInput, TradeError
from trading.ids import AccountId, BrokerOrderId, Epoch, ExecutionId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.matching import BookOrder, Ended, Execution, MatchingBook, Outcome, Trailed, Triggered
from trading.orders import ZERO, Fill, OrderState, OrderType

_FEE_STEP: Final = Decimal("0.00000001")
#: Ended orders that are remembered, so that a repeated ticket gets its first answer again.
_REMEMBERED: Final = 2_000


class Changes(msgspec.Struct):
    """What the ledger does not know yet, and the cash that goes with it."""

    orders: dict[str, BrokerOrder]
    fills: list[BrokerFill]
    positions: dict[InstrumentId, BrokerPosition]
    cash: Decimal

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to save."""
        return not (self.orders or self.fills or self.positions)


class _Kept(msgspec.Struct):
    """An order the venue has accepted."""

    row: BrokerOrder
    reduce_only: bool
    #: Money held back for what it may open.
    reserved: Decimal = ZERO


class PaperVenue:
    """One account at the paper venue.  ``epoch`` makes the ids of this incarnation unlike any other's."""

    def __init__(
        self,
        account: AccountId,
        settings: PaperAccount,
        instruments: Mapping[InstrumentId, Instrument],
        epoch: Epoch,
    ) -> None:
        self.account = account
        self.settings = settings
        self.money = CashAccount(account, settings, instruments)
        self._instruments = instruments
        self._epoch = epoch
        self._orders: dict[str, _Kept] = {}
        self._ended: OrderedDict[str, Answer] = OrderedDict()
        self._by_tag: dict[str, str] = {}
        self._books: dict[InstrumentId, MatchingBook] = {}
        self._next_order = 1
        self._next_fill = 1
        self._changes = Changes({}, [], {}, ZERO)
        self._updates: list[BrokerUpdate] = []

    def __repr__(self) -> str:
        return f"<PaperVenue {self.account} cash={self.money.cash} open={len(self._orders)} {self.active()}>"

    # State

    def restore(self, report: BrokerReport) -> None:
        """Go on from what the ledger has; open orders stand in the books again, in their old order."""
        if report.currency != self.settings.currency:
            raise BadInput(
                "currency",
                f"the account's book is kept in {report.currency}, its settings say {self.settings.currency}",
            )
        self.money.cash = report.cash
        for held in report.positions:
            position = self.money.position(held.instrument)
            position.quantity, position.average_cost = held.quantity, held.average_price
        for row in sorted(report.orders, key=lambda row: (row.at, row.broker_order_id)):
            self._by_tag[row.tag] = row.broker_order_id
            if row.state.is_final:
                self._remember(row)
                continue
            # The ledger's rows do not say reduce-only; the mark below travels in the id.
            kept = _Kept(row, row.broker_order_id.endswith("R"))
            self._orders[row.broker_order_id] = kept
            self._reserve(kept)
            if row.instrument not in self._instruments:
                self._end(kept, OrderState.CANCELLED, f"{row.instrument} is not listed any more", row.at)
                continue
            outcomes = self._book(row.instrument).place(_book_order(row), row.at)
            self._take(row.instrument, outcomes)

    def active(self) -> list[InstrumentId]:
        """Instruments with open orders: those whose market events matter."""
        return [instrument for instrument, book in self._books.items() if book.has_orders]

    def held(self) -> list[BrokerPosition]:
        """All positions, flat ones too."""
        return [
            BrokerPosition(instrument=i, quantity=p.quantity, average_price=p.average_cost)
            for i, p in self.money.positions.items()
        ]

    def take_changes(self) -> Changes:
        """What changed since the last time."""
        taken, self._changes = self._changes, Changes({}, [], {}, ZERO)
        taken.cash = self.money.cash
        return taken

    @property
    def has_news(self) -> bool:
        """Whether there is something to save or to tell."""
        return bool(self._updates) or not self._changes.is_empty

    def take_updates(self) -> list[BrokerUpdate]:
        """What is to be told since the last time."""
        taken, self._updates = self._updates, []
        return taken

    # Tickets

    def place(self, ticket: OrderTicket, at: Nanos) -> Answer:
        """Take an order in.  A tag that is known gets its first answer again and nothing else happens."""
        known = self._by_tag.get(ticket.tag)
        if known is not None:
            return self._ended.get(known) or _accepted(self._orders[known].row)
        order_id = f"{self._epoch}-{self._next_order}" + ("R" if ticket.reduce_only else "")
        self._next_order += 1
        row = BrokerOrder(
            broker_order_id=BrokerOrderId(order_id),
            tag=ticket.tag,
            instrument=ticket.instrument,
            side=ticket.side,
            type=ticket.type,
            time_in_force=ticket.time_in_force,
            quantity=ticket.quantity,
            filled_quantity=ZERO,
            state=OrderState.SUBMITTED,
            at=at,
            limit_price=ticket.limit_price,
            stop_price=ticket.stop_price,
            trail_price=ticket.trail_price,
            trail_percent=ticket.trail_percent,
        )
        self._by_tag[ticket.tag] = order_id
        try:
            self._check(ticket, row)
            book = self._book(ticket.instrument)
            kept = self._orders[order_id] = _Kept(row, ticket.reduce_only)
            self._reserve(kept)
            outcomes = book.place(_book_order(row), at)
        except TradeError as error:
            dropped = self._orders.pop(order_id, None)
            self.money.reserved -= ZERO if dropped is None else dropped.reserved
            return self._reject(row, str(error))
        self._changes.orders[order_id] = row
        answer = _accepted(kept.row)
        self._take(ticket.instrument, outcomes)
        return answer

    def amend(self, ticket: AmendTicket, at: Nanos) -> Answer:
        """Change an open order."""
        kept = self._find(ticket)
        if isinstance(kept, Answer):
            return kept
        row = kept.row
        changed = msgspec.structs.replace(
            row,
            quantity=row.quantity if ticket.quantity is None else ticket.quantity,
            limit_price=row.limit_price if ticket.limit_price is None else ticket.limit_price,
            stop_price=row.stop_price if ticket.stop_price is None else ticket.stop_price,
            trail_price=row.trail_price if ticket.trail_price is None else ticket.trail_price,
            trail_percent=row.trail_percent if ticket.trail_percent is None else ticket.trail_percent,
            at=at,
        )
        try:
            for field, price in (("limit_price", ticket.limit_price), ("stop_price", ticket.stop_price)):
                if price is not None:
                    self._instruments[row.instrument].check_price(price, field)
            if ticket.quantity is not None:
                self._instruments[row.instrument].check_quantity(ticket.quantity)
            opens = self.money.opening(changed, changed.quantity - changed.filled_quantity)
            if opens > kept.reserved and not kept.reduce_only:
                self.money.need(opens - kept.reserved)
            outcomes = self._book(row.instrument).amend(
                row.broker_order_id,
                ticket.quantity,
                ticket.limit_price,
                ticket.stop_price,
                at,
                trail_price=ticket.trail_price,
                trail_percent=ticket.trail_percent,
            )
        except TradeError as error:
            return _rejected(ticket.tag, str(error), row.broker_order_id)
        kept.row = changed
        self._reserve(kept)
        self._changes.orders[row.broker_order_id] = changed
        self._updates.append(
            BrokerUpdate(
                kind=UpdateKind.MODIFIED,
                tag=row.tag,
                instrument=row.instrument,
                at=at,
                broker_order_id=row.broker_order_id,
                quantity=changed.quantity,
                limit_price=changed.limit_price,
                stop_price=changed.stop_price,
                trail_price=changed.trail_price,
                trail_percent=changed.trail_percent,
            )
        )
        self._take(row.instrument, outcomes)
        return Answer(tag=ticket.tag, verdict=Verdict.ACCEPTED, broker_order_id=row.broker_order_id)

    def cancel(self, ticket: CancelTicket, at: Nanos) -> Answer:
        """Take an open order back."""
        kept = self._find(ticket)
        if isinstance(kept, Answer):
            return kept
        row = kept.row
        self._book(row.instrument).cancel(row.broker_order_id, at)
        self._end(kept, OrderState.CANCELLED, "", at)
        return Answer(tag=ticket.tag, verdict=Verdict.ACCEPTED, broker_order_id=row.broker_order_id)

    # The market

    def quote(
        self,
        instrument: InstrumentId,
        bid: Decimal,
        bid_size: Decimal,
        ask: Decimal,
        ask_size: Decimal,
        at: Nanos,
    ) -> None:
        """The market's best bid and offer are now these."""
        self.money.see_quote(instrument, bid, ask)
        self._take(instrument, self._book(instrument).on_quote(bid, bid_size, ask, ask_size, at))

    def trade(self, instrument: InstrumentId, price: Decimal, size: Decimal, buyer_maker: bool, at: Nanos) -> None:
        """The market has traded; a price that is none (a venue's settlement rows) is passed over."""
        if not price.is_finite() or price <= 0:
            return
        self.money.see_trade(instrument, price)
        self._take(instrument, self._book(instrument).on_trade(price, size, buyer_maker, at))

    def expire_day(self, instruments: Iterable[InstrumentId], at: Nanos) -> None:
        """The session of these has ended: day orders expire."""
        for instrument in instruments:
            book = self._books.get(instrument)
            if book is not None:
                self._take(instrument, book.expire_day(at), at)

    # Checks

    def _check(self, ticket: OrderTicket, row: BrokerOrder) -> None:
        if _share(ticket.tag) < self.settings.reject_ratio:
            raise BadInput("reject_ratio", "rejected by chance, as the account's settings ask for")
        instrument = self._instruments.get(ticket.instrument)
        if instrument is None:
            raise BadInput("instrument", f"{ticket.instrument} is not listed at the paper venue")
        if instrument.currency != self.settings.currency:
            raise BadInput(
                "instrument",
                f"{ticket.instrument} is paid in {instrument.currency}, the account holds {self.settings.currency}",
            )
        instrument.check_quantity(ticket.quantity)
        # Steps and presence of prices are the book's to check; what follows needs them right.
        for field, price in (("limit_price", ticket.limit_price), ("stop_price", ticket.stop_price)):
            if price is not None:
                instrument.check_price(price, field)
        if ticket.type is OrderType.MARKET and not self.money.has_mark(ticket.instrument):
            raise BadInput("instrument", f"no quote of {ticket.instrument} has come yet: try again later")
        price = self.money.price(row)
        notional = ticket.quantity * price * instrument.multiplier
        if ticket.reduce_only:
            held = self.money.position(ticket.instrument).quantity
            if held * ticket.side.sign >= 0:
                raise BadInput("reduce_only", f"there is no position of {ticket.instrument} that it would reduce")
            return
        if notional < instrument.min_notional:
            raise BadInput("quantity", f"its value {notional:f} is below the smallest, {instrument.min_notional:f}")
        self.money.need(self.money.opening(row, ticket.quantity))

    # Bookkeeping

    def _book(self, instrument: InstrumentId) -> MatchingBook:
        book = self._books.get(instrument)
        if book is None:
            book = self._books[instrument] = MatchingBook(
                self._instruments[instrument],
                slippage_ticks=self.settings.slippage_ticks,
                fill_ratio=self.settings.fill_ratio,
            )
        return book

    def _find(self, ticket: AmendTicket | CancelTicket) -> _Kept | Answer:
        order_id = self._by_tag.get(ticket.tag) if ticket.tag else ticket.broker_order_id
        order_id = order_id or ticket.broker_order_id or ""
        kept = self._orders.get(order_id)
        if kept is not None:
            return kept
        ended = self._ended.get(order_id)
        if ended is None:
            return _rejected(ticket.tag, "no such order")
        return _rejected(ticket.tag, "the order has ended already", ended.broker_order_id)

    def _take(self, instrument: InstrumentId, outcomes: list[Outcome], at: Nanos | None = None) -> None:
        for outcome in outcomes:
            kept = self._orders.get(outcome.order_id)
            if kept is None:
                # Cancelled by a reduce-only cut above, in this very list.
                continue
            if isinstance(outcome, Execution):
                self._fill(kept, outcome)
            elif isinstance(outcome, Triggered):
                kept.row = msgspec.structs.replace(kept.row, triggered=True)
                self._changes.orders[outcome.order_id] = kept.row
            elif isinstance(outcome, Trailed):
                kept.row = msgspec.structs.replace(kept.row, high_water=outcome.high_water)
                self._changes.orders[outcome.order_id] = kept.row
            elif isinstance(outcome, Ended):
                self._end(kept, outcome.state, outcome.reason, at or kept.row.at)

    def _fill(self, kept: _Kept, execution: Execution) -> None:
        row = kept.row
        position = self.money.position(row.instrument)
        quantity = execution.quantity
        if kept.reduce_only:
            held = position.quantity
            quantity = min(quantity, abs(held)) if held * row.side.sign < 0 else ZERO
        if quantity > 0:
            instrument = self._instruments[row.instrument]
            notional = quantity * execution.price * instrument.multiplier
            fee = ZERO
            if not execution.maker:
                fee = (notional * self.settings.fee_bps / 10_000).quantize(_FEE_STEP, ROUND_HALF_UP)
            fill = Fill(
                execution_id=ExecutionId(f"{self._epoch}-{self._next_fill}"),
                quantity=quantity,
                price=execution.price,
                at=execution.at,
                fee=fee,
                fee_currency=self.settings.currency if fee else "",
            )
            self._next_fill += 1
            self.money.apply(row.instrument, row.side, fill)
            filled = row.filled_quantity + quantity
            average = (row.average_price * row.filled_quantity + fill.price * quantity) / filled
            kept.row = row = msgspec.structs.replace(
                row,
                filled_quantity=filled,
                average_price=average,
                state=OrderState.FILLED if filled >= row.quantity else OrderState.PARTIALLY_FILLED,
                at=execution.at,
            )
            self._changes.fills.append(
                BrokerFill(
                    broker_order_id=row.broker_order_id,
                    tag=row.tag,
                    instrument=row.instrument,
                    side=row.side,
                    fill=fill,
                )
            )
            self._changes.positions[row.instrument] = BrokerPosition(
                instrument=row.instrument, quantity=position.quantity, average_price=position.average_cost
            )
            self._changes.orders[row.broker_order_id] = row
            self._updates.append(
                BrokerUpdate(
                    kind=UpdateKind.FILLED,
                    tag=row.tag,
                    instrument=row.instrument,
                    at=execution.at,
                    broker_order_id=row.broker_order_id,
                    fill=fill,
                    message_id=fill.execution_id,
                )
            )
            self._reserve(kept)
            if row.state is OrderState.FILLED:
                self._forget(kept)
        if quantity < execution.quantity:
            book = self._book(row.instrument)
            if any(order.id == row.broker_order_id for order in book.orders()):
                book.cancel(row.broker_order_id, execution.at)
            if row.broker_order_id in self._orders:
                reason = "reduce-only: there is no more position to reduce"
                self._end(kept, OrderState.CANCELLED, reason, execution.at)

    def _end(self, kept: _Kept, state: OrderState, reason: str, at: Nanos) -> None:
        kept.row = row = msgspec.structs.replace(kept.row, state=state, reason=reason, at=at)
        self._changes.orders[row.broker_order_id] = row
        self._forget(kept)
        kind = UpdateKind.EXPIRED if state is OrderState.EXPIRED else UpdateKind.CANCELLED
        self._updates.append(
            BrokerUpdate(
                kind=kind,
                tag=row.tag,
                instrument=row.instrument,
                at=at,
                broker_order_id=row.broker_order_id,
                reason=reason,
            )
        )

    def _reject(self, row: BrokerOrder, reason: str) -> Answer:
        row = msgspec.structs.replace(row, state=OrderState.REJECTED, reason=reason)
        self._changes.orders[row.broker_order_id] = row
        self._remember(row)
        return self._ended[row.broker_order_id]

    def _forget(self, kept: _Kept) -> None:
        del self._orders[kept.row.broker_order_id]
        self.money.reserved -= kept.reserved
        self._remember(kept.row)

    def _reserve(self, kept: _Kept) -> None:
        """Hold back what the rest of an order may open."""
        before = kept.reserved
        rest = kept.row.quantity - kept.row.filled_quantity
        kept.reserved = ZERO if kept.reduce_only else self.money.opening(kept.row, rest)
        self.money.reserved += kept.reserved - before

    def _remember(self, row: BrokerOrder) -> None:
        rejected = row.state is OrderState.REJECTED
        self._ended[row.broker_order_id] = (
            _rejected(row.tag, row.reason, row.broker_order_id) if rejected else _accepted(row)
        )
        while len(self._ended) > _REMEMBERED:
            _, oldest = self._ended.popitem(last=False)
            self._by_tag.pop(oldest.tag, None)


def _book_order(row: BrokerOrder) -> BookOrder:
    return BookOrder(
        id=row.broker_order_id,
        side=row.side,
        type=row.type,
        quantity=row.quantity,
        limit_price=row.limit_price,
        stop_price=row.stop_price,
        time_in_force=row.time_in_force,
        remaining=row.quantity - row.filled_quantity,
        triggered=row.triggered,
        arrived=row.at,
        trail_price=row.trail_price,
        trail_percent=row.trail_percent,
        high_water=row.high_water,
    )


def _accepted(row: BrokerOrder) -> Answer:
    return Answer(tag=row.tag, verdict=Verdict.ACCEPTED, broker_order_id=row.broker_order_id)


def _rejected(tag: str, reason: str, order_id: BrokerOrderId | None = None) -> Answer:
    return Answer(tag=tag, verdict=Verdict.REJECTED, reason=reason, broker_order_id=order_id)


def _share(tag: str) -> float:
    """A number in [0, 1) that a tag always has: chance that repeats."""
    digest = hashlib.blake2b(tag.encode(), digest_size=8, person=b"paper-reject").digest()
    return int.from_bytes(digest, "big") / 2**64

"""One account inside a session: its orders, executions, positions, breaks, and what is on its way."""

from __future__ import annotations

from collections import deque
from decimal import Decimal
from typing import Final

import msgspec

from trading.broker import AmendTicket, CancelTicket, Capabilities, OrderTicket
from trading.ids import AccountId, AlgoId, BrokerOrderId, ClientOrderId, ExecutionId, InstrumentId, Nanos
from trading.instructions import Lane, Send
from trading.journal import AccountHistory, Break, BreakKey, CashBook
from trading.orders import ModifyOrder, Order, OrderState
from trading.positions import Position

Ticket = OrderTicket | AmendTicket | CancelTicket
RECONCILE_EVERY_NS: Final = 30_000_000_000


class CashSlack(msgspec.Struct, frozen=True):
    """How far two sums of cash may be apart and still agree: brokers round, and charge trifles in the night."""

    amount: Decimal = Decimal("0.05")
    share: Decimal = Decimal("0.000001")

    def of(self, cash: Decimal) -> Decimal:
        """What may be missing from ``cash``."""
        return self.amount + self.share * abs(cash)


class WantedCheck(msgspec.Struct):
    """Somebody waits for a comparison of everything, and what it has found so far."""

    token: int
    #: Only a report asked for at or after this answers.
    since: Nanos
    reports: int = 0
    made_up: int = 0
    adopted: list[ClientOrderId] = msgspec.field(default_factory=list)


class Rise(msgspec.Struct):
    """A larger quantity, or a dearer price, that the broker has been asked for and has not confirmed yet."""

    target: Decimal
    #: The dearer price, where only the order's own tells what it is worth; 0 elsewhere.
    price: Decimal = Decimal(0)
    #: When the request was answered, however; 0: not yet.
    answered_at: Nanos = Nanos(0)


class Replacement(msgspec.Struct):
    """A change that is made by taking the order back and placing it anew."""

    change: ModifyOrder
    since: Nanos
    #: When the order was seen to have ended; 0: not yet.
    ended_at: Nanos = Nanos(0)


class AccountBook:
    """State of one account.  Plain data with indexes; `trading.session.SessionCore` is its only writer."""

    def __init__(self, account: AccountId) -> None:
        self.account = account
        #: What the account's broker takes; None where everything is offered.
        self.capabilities: Capabilities | None = None
        self.orders: dict[ClientOrderId, Order] = {}
        #: Those of ``orders`` that may still fill.
        self.open: dict[ClientOrderId, Order] = {}
        self.by_tag: dict[str, Order] = {}
        self.by_broker_id: dict[BrokerOrderId, Order] = {}
        #: Executions taken in, and when.
        self.executions: dict[ExecutionId, Nanos] = {}
        self.positions: dict[InstrumentId, Position] = {}
        #: What each algo traded of each instrument.
        self.algo_positions: dict[tuple[AlgoId, InstrumentId], Position] = {}
        #: What was bought since the broker told the cash: when, for how much.
        self.bought: deque[tuple[Nanos, Decimal]] = deque()
        #: Open breaks; their instruments are reduce-only meanwhile.
        self.breaks: dict[BreakKey, Break] = {}
        #: Breaks that were explained, while their difference stays as it was.
        self.tolerated: dict[BreakKey, Break] = {}
        #: Differences seen once; a second sight makes them a break.
        self.suspected: dict[InstrumentId, tuple[Decimal, Decimal]] = {}
        #: The same of cash: theirs less ours.
        self.cash_suspected: Decimal | None = None
        #: Tags absent from one report; a second one settles it.
        self.missed: dict[str, Nanos] = {}
        #: Open quantity of each order that the exposure counts (a modify under way counts at its larger size).
        self.counted: dict[ClientOrderId, Decimal] = {}
        self.modified: set[ClientOrderId] = set()
        self.sent_at: dict[str, Nanos] = {}
        self.moved_at: dict[InstrumentId, Nanos] = {}
        #: The broker's view has been taken in since this incarnation began; before that nothing new is sent.
        self.reconciled = False
        self.connected = False
        #: Somebody has switched it off: what it holds counts on, and nothing is sent to its broker.
        self.disabled = False
        self.report_in_flight = False
        self.report_wanted = ""
        self.reported_at = Nanos(0)
        #: When the report under way was asked for, by our clock, and whether the connection dropped since.
        self.asked_at = Nanos(0)
        self.asked_since = Nanos(0)
        self.is_outdated = False
        #: When the last report that was taken in had been asked for; 0: none yet.
        self.last_report_at = Nanos(0)
        #: How often the broker's view is compared with ours while nothing is in doubt.
        self.reconcile_every_ns = RECONCILE_EVERY_NS
        #: The same of positions and cash alone, 0: with every report; and when they were last compared.
        self.positions_every_ns = 0
        self.cash_every_ns = 0
        self.positions_at = Nanos(0)
        self.cash_at = Nanos(0)
        self.cash_slack = CashSlack()
        #: Who waits for a comparison of everything.
        self.wanted_checks: list[WantedCheck] = []
        #: How far back the journal was read; 0: not said.
        self.history_since = Nanos(0)
        #: Orders that have ended here and stand at the broker: tag -> when the report was asked for that showed it.
        self.undead: dict[str, Nanos] = {}
        #: The broker's figure in its last report, and ours; ours is None until there was one to begin with.
        self.cash: Decimal | None = None
        self.currency = ""
        self.cash_book: CashBook | None = None
        #: What ours may begin with, until a second report bears it out.
        self.cash_begun: CashBook | None = None
        #: Average prices of the broker's positions, and of its orders whose executions are missing (by tag).
        self.their_prices: dict[InstrumentId, Decimal] = {}
        self.their_averages: dict[str, Decimal] = {}
        #: Orders that hold an accepted adjustment in place of executions which may still show up.
        self.adjusted: set[ClientOrderId] = set()
        #: Tickets that wait for their lane to be free, and since when they are wanted.
        self.queued: dict[Lane, deque[tuple[Ticket, Nanos]]] = {lane: deque() for lane in Lane}
        #: Orders that make a position smaller: they go ahead of the others in their lane.
        self.exits: deque[tuple[Ticket, Nanos]] = deque()
        #: Larger sizes asked for: counted as if they stood, until it is known.
        self.rising: dict[ClientOrderId, Rise] = {}
        #: Orders that are taken back to be placed anew: the room they need is kept.
        self.replacing: dict[ClientOrderId, Replacement] = {}
        #: The request each lane has under way.
        self.in_flight: dict[Lane, Send] = {}
        #: Orders whose cancel may or may not have reached the broker.
        self.cancel_again: set[ClientOrderId] = set()
        #: Orders the trade book did not account for: tag -> the broker's filled quantity.
        self.unexplained: dict[str, Decimal] = {}

    def load(self, history: AccountHistory) -> None:
        """Take over what the journal has."""
        self.history_since = history.since
        for order in history.orders:
            self.add(order)
        for position in history.positions:
            self.positions[position.instrument] = position
        for position in history.algo_positions:
            if position.algo is not None:
                self.algo_positions[(position.algo, position.instrument)] = position
        self.executions.update(dict.fromkeys(history.executions, history.loaded_at))
        for key, target in history.rising.items():
            self.rising[key] = Rise(target=target)
        self.cancel_again.update(o.client_order_id for o in self.open.values() if o.cancelling)
        for item in history.breaks:
            self.breaks[item.key] = item
        for item in history.tolerated:
            self.tolerated[item.key] = item
        self.cash_book = history.cash
        self.adjusted.update(history.adjusted)

    def add(self, order: Order) -> None:
        """Index a new order."""
        self.orders[order.client_order_id] = order
        if not order.state.is_final:
            self.open[order.client_order_id] = order
        self.by_tag[order.tag] = order
        if order.broker_order_id is not None:
            self.by_broker_id[order.broker_order_id] = order

    def algo_position(self, algo: AlgoId, instrument: InstrumentId, multiplier: Decimal) -> Position:
        """What an algo traded of an instrument, made when first asked for."""
        position = self.algo_positions.get((algo, instrument))
        if position is None:
            position = Position(account=self.account, instrument=instrument, multiplier=multiplier, algo=algo)
            self.algo_positions[(algo, instrument)] = position
        return position

    def add_bought(self, at: Nanos, cost: Decimal) -> None:
        """Remember what a purchase cost until the broker's cash includes it."""
        while self.bought and self.bought[0][0] < self.last_report_at:
            self.bought.popleft()
        self.bought.append((at, cost))

    def spendable(self) -> Decimal | None:
        """Cash as the broker told it last, less what was bought since; None before it told any."""
        if self.cash is None:
            return None
        return self.cash - sum((cost for at, cost in self.bought if at >= self.last_report_at), Decimal(0))

    def find(self, tag: str, broker_order_id: BrokerOrderId | None) -> Order | None:
        """The order that a broker's message is about."""
        order = self.by_tag.get(tag) if tag else None
        if order is None and broker_order_id is not None:
            order = self.by_broker_id.get(broker_order_id)
        return order

    def is_on_its_way(self, order: Order) -> bool:
        """Whether an order has not left here, or has left and its request has not been answered."""
        if order.state is OrderState.PENDING and order.tag not in self.sent_at:
            return True
        send = self.in_flight.get(Lane.PLACE)
        return send is not None and any(ticket.tag == order.tag for ticket in send.tickets)

    def is_reduce_only(self, instrument: InstrumentId) -> bool:
        """Whether an open break lets this instrument's position only shrink."""
        return any(item.instrument == instrument for item in self.breaks.values())

    def forget_before(self, cutoff: Nanos) -> None:
        """Drop executions and ended orders last changed before ``cutoff`` from memory; the journal keeps them."""
        for order in [o for o in self.orders.values() if o.state.is_final and o.updated_at < cutoff]:
            del self.orders[order.client_order_id]
            self.by_tag.pop(order.tag, None)
            self.sent_at.pop(order.tag, None)
            self.missed.pop(order.tag, None)
            self.undead.pop(order.tag, None)
            self.modified.discard(order.client_order_id)
            self.rising.pop(order.client_order_id, None)
            self.cancel_again.discard(order.client_order_id)
            self.unexplained.pop(order.tag, None)
            self.their_averages.pop(order.tag, None)
            self.adjusted.discard(order.client_order_id)
            if order.broker_order_id is not None:
                self.by_broker_id.pop(order.broker_order_id, None)
        for execution in [e for e, at in self.executions.items() if at < cutoff]:
            del self.executions[execution]

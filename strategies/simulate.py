"""The back-test: one strategy over recorded ticks or bars, through the very `Runner` that runs it live.

Ticks are played one by one in order of arrival.  Each first meets the orders that stand in the book, then
the strategy; what the strategy asks for reaches the book after ``latency_ms``.  Nothing is drawn by chance:
the same input gives the same result.

What it takes for granted: own orders do not move the market; instruments without any quote in the data trade
at the last print without a spread; day orders end at 00:00 UTC; cash may go below zero.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np

from strategies.base import Strategy
from strategies.results import EquityPoint, Result, RoundTrips, summarise
from strategies.runner import LogLine, Output, Runner
from trading.bars import Bar, interval_ns
from trading.errors import BadInput
from trading.ids import AccountId, AlgoId, ClientOrderId, ExecutionId, InstrumentId, Nanos, broker_tag
from trading.instruments import Instrument
from trading.matching import BookOrder, Ended, Execution, MatchingBook, Outcome
from trading.orders import (
    CancelOrder,
    EventKind,
    Fill,
    ModifyOrder,
    Order,
    OrderEvent,
    OrderState,
    PlaceOrder,
    apply,
    order_from,
)
from trading.positions import Position
from trading.ticks import BUYER_MAKER, QUOTE, SNAPSHOT, TRADE, TickArray, TickBuffer, decode

_SECOND: Final = 1_000_000_000
_DAY: Final = 86_400 * _SECOND
#: A strategy that answers every answer at once would never end.
_MOST_AT_ONCE: Final = 10_000
_ENDS: Final = {OrderState.CANCELLED: EventKind.CANCELLED, OrderState.EXPIRED: EventKind.EXPIRED}


class SimulatedAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The account and the venue that the strategy is tried against."""

    cash: Decimal = Decimal(1_000_000)
    #: From the strategy's decision to the book.
    latency_ms: float = 0.0
    #: Fee in basis points of notional, for taking and for resting orders.
    fee_bps: Decimal = Decimal(0)
    maker_fee_bps: Decimal | None = None
    slippage_ticks: int = 0
    fill_ratio: Decimal = Decimal(1)
    #: How often equity is noted, besides at each fill.
    sample: str = "1m"


def simulate(
    strategy_class: type[Strategy[Any]],
    parameters: Mapping[str, Any],
    data: TickArray | Mapping[InstrumentId, Sequence[Bar]],
    instruments: Sequence[Instrument],
    account: SimulatedAccount | None = None,
    *,
    interval: str = "1m",
    history: Mapping[tuple[InstrumentId, str], Sequence[Bar]] | None = None,
) -> Result:
    """Run a strategy over ``data`` and tell how it went.

    ``data`` is ticks, or bars of ``interval`` by instrument; a bar is played as four prints: open, the nearer
    extreme, the other, close.  A callback that raises ends the run: ``Result.failed`` has the traceback.
    Raises `BadInput` for wrong parameters, settings or data.
    """
    settings = account or SimulatedAccount()
    if not (0 <= settings.latency_ms <= 60_000):
        raise BadInput("latency_ms", f"{settings.latency_ms} is not from 0 to 60000")
    currencies = {i.currency for i in instruments}
    if len(currencies) > 1:
        raise BadInput("instruments", f"they trade in {', '.join(sorted(currencies))}; one account has one")
    ticks = ticks_of_bars(data, instruments, interval) if isinstance(data, Mapping) else data
    run = _Run(Runner(strategy_class, parameters, AlgoId("sim"), AccountId("sim"), instruments), settings)
    return run.play(ticks, history)


def ticks_of_bars(
    data: Mapping[InstrumentId, Sequence[Bar]], instruments: Sequence[Instrument], interval: str
) -> TickArray:
    """Prints that make these bars again, in order of time: four per bar, the volume shared equally."""
    length = interval_ns(interval)
    numbers = {i.id: i.number for i in instruments}
    buffer = TickBuffer()
    for instrument, bars in data.items():
        if instrument not in numbers:
            raise BadInput("data", f"bars of {instrument}, which is not among the instruments")
        for bar in bars:
            low_first = bar.open - bar.low < bar.high - bar.open
            path = (bar.open, *((bar.low, bar.high) if low_first else (bar.high, bar.low)), bar.close)
            for step, price in enumerate(path):
                at = bar.opened_at + step * (length // 4)
                buffer.trade(numbers[instrument], price, bar.volume / 4, 0, at, at, 0)
    ticks = decode(buffer.take())
    return ticks[np.argsort(ticks["received_at"], kind="stable")]


class _Venue:
    """One instrument's book, brought up to date with the market only when an order needs it."""

    def __init__(self, instrument: Instrument, settings: SimulatedAccount, has_quotes: bool) -> None:
        self.book = MatchingBook(instrument, slippage_ticks=settings.slippage_ticks, fill_ratio=settings.fill_ratio)
        self.instrument = instrument
        self.has_quotes = has_quotes
        self.mark: float | None = None
        self._quote: tuple[float, float, float, float] | None = None
        self._print: tuple[float, float, bool] | None = None

    def see(self, row: tuple[Any, ...], at: Nanos) -> list[Outcome]:
        """Take a tick in."""
        _, flags, price, size, bid, bid_size, ask, ask_size, *_ = row
        out: list[Outcome] = []
        if flags & QUOTE:
            self._quote = (bid, bid_size, ask, ask_size)
            if bid > 0 and ask > 0:
                self.mark = (bid + ask) / 2
            if self.book.has_orders:
                out += self._show_quote(at)
        if flags & TRADE and not flags & SNAPSHOT and price > 0:
            self._print = (price, size, bool(flags & BUYER_MAKER))
            if not self.has_quotes:
                self.mark = price
                self._quote = (price, size, price, size)
            if self.book.has_orders:
                out += self._show_print(at)
                if not self.has_quotes:
                    out += self._show_quote(at)
        return out

    def catch_up(self, at: Nanos) -> None:
        """Tell an empty book how the market stands, before an order goes in."""
        if not self.book.has_orders:
            if self._print is not None:
                self._show_print(at)
            if self._quote is not None:
                self._show_quote(at)

    def _show_quote(self, at: Nanos) -> list[Outcome]:
        if self._quote is None:
            return []
        bid, bid_size, ask, ask_size = (Decimal(repr(x)) for x in self._quote)
        return self.book.on_quote(bid, bid_size, ask, ask_size, at)

    def _show_print(self, at: Nanos) -> list[Outcome]:
        if self._print is None:
            return []
        price, size, sold = self._print
        return self.book.on_trade(Decimal(repr(price)), Decimal(repr(size)), sold, at)


class _Run:
    def __init__(self, runner: Runner, settings: SimulatedAccount) -> None:
        self.runner = runner
        self.settings = settings
        self.now = Nanos(0)
        self.cash = settings.cash
        self.orders: dict[ClientOrderId, Order] = {}
        self.fills: list[tuple[ClientOrderId, Fill]] = []
        self.positions: dict[InstrumentId, Position] = {}
        self.trips = RoundTrips()
        self.equity: list[EquityPoint] = []
        self.log: list[LogLine] = []
        self.venues: dict[InstrumentId, _Venue] = {}
        self._by_number: dict[int, _Venue] = {}
        self._due: list[tuple[int, int, Output]] = []
        self._sent = 0
        self._arriving = False
        self._latency = int(settings.latency_ms * 1e6)

    def play(self, ticks: TickArray, history: Mapping[tuple[InstrumentId, str], Sequence[Bar]] | None) -> Result:
        numbers = [i.number for i in self.runner.instruments]
        ticks = ticks[np.isin(ticks["instrument"], numbers)]
        times = np.where(ticks["received_at"] > 0, ticks["received_at"], ticks["exchange_at"])
        if len(ticks) and (np.diff(times) < 0).any():
            raise BadInput("data", "ticks go back in time; sort them by the time they were received")
        quoted = set(np.unique(ticks["instrument"][(ticks["flags"] & QUOTE) != 0]).tolist())
        for instrument in self.runner.instruments:
            venue = _Venue(instrument, self.settings, instrument.number in quoted)
            self.venues[instrument.id] = self._by_number[instrument.number] = venue
            self.positions[instrument.id] = Position(
                account=self.runner.account, instrument=instrument.id, multiplier=instrument.multiplier
            )
        sample = interval_ns(self.settings.sample, "sample")
        at = times.tolist()
        self.now = Nanos(at[0] if at else 0)
        self._send(self.runner.start(self.now, history))
        self._note_equity()
        for i, row in enumerate(ticks.tolist()):
            before, now = self.now, Nanos(at[i])
            self._arrive(now)
            self.now = now
            if now // _DAY > before // _DAY:
                for venue in self.venues.values():
                    self._settle(venue, venue.book.expire_day(now))
            if now // _SECOND > before // _SECOND:
                self._send(self.runner.clock(now))
            if now // sample > before // sample:
                self._note_equity()
            venue = self._by_number[row[0]]
            self._settle(venue, venue.see(row, now))
            self._send(self.runner.ticks(ticks[i : i + 1], now))
            if self.runner.failed is not None:
                break
        self._send(self.runner.stop(self.now))
        self._arrive(Nanos(self.now + self._latency))
        self._note_equity()
        return self._result()

    def _send(self, outputs: Sequence[Output]) -> None:
        """Put what the strategy asked for on its way; without latency it arrives at once."""
        for output in outputs:
            if isinstance(output, LogLine):
                self.log.append(output)
            else:
                self._sent += 1
                heapq.heappush(self._due, (self.now + self._latency, self._sent, output))
        if outputs and not self._latency:
            self._arrive(self.now)

    def _arrive(self, until: Nanos) -> None:
        """Let the book have what is due; its answers may make the strategy ask for more."""
        if self._arriving:
            return
        self._arriving = True
        here = 0
        while self._due and self._due[0][0] <= until:
            due, _, output = heapq.heappop(self._due)
            here = 0 if due > self.now else here + 1
            if here > _MOST_AT_ONCE:
                raise BadInput("strategy", f"it asks without end at {self.now}: over {_MOST_AT_ONCE} times at once")
            self.now = Nanos(max(self.now, due))
            match output:
                case PlaceOrder():
                    self._place(output)
                case ModifyOrder():
                    self._modify(output)
                case CancelOrder():
                    self._cancel(output)
        self._arriving = False

    def _place(self, intent: PlaceOrder) -> None:
        order = order_from(intent, broker_tag(intent.account, intent.client_order_id), self.now)
        self.orders[order.client_order_id] = order
        venue = self.venues[intent.instrument]
        held = self.positions[intent.instrument].quantity
        if intent.reduce_only and (held * order.side.sign >= 0 or order.quantity > abs(held)):
            self._change(order, EventKind.REJECTED, reason=f"reduce-only, but the position is {held}")
            return
        venue.catch_up(self.now)
        placed = BookOrder(
            id=order.client_order_id,
            side=order.side,
            type=order.type,
            quantity=order.quantity,
            remaining=order.quantity,
            limit_price=order.limit_price,
            stop_price=order.stop_price,
            trail_price=order.trail_price,
            trail_percent=order.trail_percent,
            time_in_force=order.time_in_force,
        )
        try:
            outcomes = venue.book.place(placed, self.now)
        except BadInput as refused:
            self._change(order, EventKind.REJECTED, reason=str(refused))
            return
        self._change(order, EventKind.SUBMITTED)
        self._settle(venue, outcomes)

    def _modify(self, change: ModifyOrder) -> None:
        order = self.orders[change.client_order_id]
        if order.state.is_final:
            self._change(order, EventKind.MODIFY_REJECTED, reason=f"the order is {order.state}")
            return
        venue = self.venues[order.instrument]
        try:
            outcomes = venue.book.amend(
                order.client_order_id,
                change.quantity,
                change.limit_price,
                change.stop_price,
                self.now,
                trail_price=change.trail_price,
                trail_percent=change.trail_percent,
            )
        except BadInput as refused:
            self._change(order, EventKind.MODIFY_REJECTED, reason=str(refused))
            return
        self._change(
            order,
            EventKind.MODIFIED,
            quantity=change.quantity,
            limit_price=change.limit_price,
            stop_price=change.stop_price,
            trail_price=change.trail_price,
            trail_percent=change.trail_percent,
        )
        self._settle(venue, outcomes)

    def _cancel(self, cancel: CancelOrder) -> None:
        order = self.orders[cancel.client_order_id]
        if order.state.is_final:
            self._change(order, EventKind.CANCEL_REJECTED, reason=f"the order is {order.state}")
            return
        venue = self.venues[order.instrument]
        self._settle(venue, venue.book.cancel(order.client_order_id, self.now))

    def _settle(self, venue: _Venue, outcomes: Sequence[Outcome]) -> None:
        """Book all that the venue did, then tell the strategy: its answers meet finished books."""
        told: list[Callable[[], list[Output]]] = []
        for outcome in outcomes:
            if isinstance(outcome, Execution):
                told += self._book_fill(venue, outcome)
            elif isinstance(outcome, Ended):
                order = self.orders[ClientOrderId(outcome.order_id)]
                told.append(self._apply(order, _ENDS[outcome.state], reason=outcome.reason))
        outputs = [output for tell in told for output in tell()]
        self._send(outputs)

    def _book_fill(self, venue: _Venue, execution: Execution) -> list[Callable[[], list[Output]]]:
        order = self.orders[ClientOrderId(execution.order_id)]
        notional = venue.instrument.notional(execution.quantity, execution.price)
        maker_bps = self.settings.maker_fee_bps
        bps = maker_bps if execution.maker and maker_bps is not None else self.settings.fee_bps
        fill = Fill(
            execution_id=ExecutionId(f"sim-{len(self.fills) + 1}"),
            quantity=execution.quantity,
            price=execution.price,
            at=execution.at,
            fee=notional * bps / 10_000,
            fee_currency=venue.instrument.currency,
        )
        self.fills.append((order.client_order_id, fill))
        position = self.positions[order.instrument]
        self.trips.before(position)
        position.apply(order.side, fill)
        self.trips.after(position, fill.at)
        self.cash -= order.side.sign * notional + fill.fee
        tell_order = self._apply(order, EventKind.FILLED, fill=fill)
        copy = msgspec.structs.replace(order)
        self._note_equity()
        return [lambda: self.runner.fill(copy, fill, self.now), tell_order]

    def _change(self, order: Order, kind: EventKind, **fields: Any) -> None:
        self._send(self._apply(order, kind, **fields)())

    def _apply(self, order: Order, kind: EventKind, **fields: Any) -> Callable[[], list[Output]]:
        apply(
            order,
            OrderEvent(
                kind=kind,
                account=order.account,
                client_order_id=order.client_order_id,
                at=self.now,
                actor="simulation",
                **fields,
            ),
        )
        copy = msgspec.structs.replace(order)
        return lambda: self.runner.order(copy, self.now)

    def _note_equity(self) -> None:
        worth = self.cash
        for instrument, position in self.positions.items():
            mark = self.venues[instrument].mark
            if position.quantity and mark is not None:
                worth += position.exposure(Decimal(repr(mark)))
        self.equity.append(EquityPoint(at=self.now, equity=worth))

    def _result(self) -> Result:
        return Result(
            started_cash=self.settings.cash,
            cash=self.cash,
            orders=list(self.orders.values()),
            fills=self.fills,
            positions=[p for p in self.positions.values() if p.traded],
            equity=self.equity,
            trips=self.trips.done,
            log=[(line.at, line.level, line.text) for line in self.log],
            failed="" if self.runner.failed is None else self.runner.failed.traceback_text,
            summary=summarise(self.settings.cash, self.equity, self.trips.done, self.positions.values()),
        )


__all__ = ["Result", "SimulatedAccount", "simulate", "ticks_of_bars"]

"""The trading floor of the simulated Alpaca: books, fills, legs of advanced orders, sessions.  Pure.

Prices come from outside; an account's own orders never meet each other.  While the market is closed orders are kept
as ``accepted`` and go to the floor when it opens; ``opg`` orders meet the market at that moment only, ``cls`` orders
when the session closes.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from connectors.alpaca.venue_checks import NOT_FOUND, Refusal
from connectors.alpaca.venue_hours import AlwaysOpen, Hours, Trading
from connectors.alpaca.venue_ledger import Held, Ledger, VenueFill, VenueOrder
from connectors.alpaca.wire import AssetRow, as_json, plain, rfc3339
from trading.errors import UnknownThing
from trading.ids import InstrumentId, Nanos
from trading.instruments import Instrument
from trading.matching import BookOrder, Ended, Execution, MatchingBook, Outcome, Trailed, Triggered, stop_of
from trading.orders import ZERO, OrderType, Side, TimeInForce

_NEW_YORK: Final = ZoneInfo("America/New_York")
_SECOND: Final = 1_000_000_000
_STEP: Final = Decimal("0.000000001")
_AT_ONCE: Final = (TimeInForce.IOC, TimeInForce.FOK, TimeInForce.AT_OPEN, TimeInForce.AT_CLOSE)

Quote = tuple[Decimal, Decimal, Decimal, Decimal]


class Floor:
    """Orders at work, and what happens to them."""

    def __init__(self, ledger: Ledger, assets: Iterable[AssetRow], hours: Hours | None, fill_ratio: Decimal) -> None:
        self.ledger = ledger
        self.hours = hours or AlwaysOpen()
        self.assets = {asset.symbol: asset for asset in assets}
        self.frames: list[bytes] = []
        #: Nothing that happens now is pushed.
        self.silent = False
        self._by_asset_id = {asset.id: asset for asset in self.assets.values()}
        self._fill_ratio = fill_ratio
        self._books: dict[str, MatchingBook] = {}
        self._quotes: dict[str, Quote] = {}
        self._prints: dict[str, Decimal] = {}
        #: Stop-loss legs beside a take-profit: watched here, for only one of the two may ever reach a book.
        self._watched: dict[str, list[str]] = {}
        #: Orders that wait for the session's open, and for its close.
        self._for_open: list[str] = []
        self._for_close: list[str] = []
        #: Orders that were put into a book and have not ended.
        self._entered: set[str] = set()
        self._due: list[tuple[Nanos, int, Callable[[Nanos], None]]] = []
        self._dues = 0
        self._session: Trading | None = None
        self.is_open = False

    # The market

    def quote(self, symbol: str, bid: Decimal, bid_size: Decimal, ask: Decimal, ask_size: Decimal, now: Nanos) -> None:
        """The best bid and offer of a symbol are now these."""
        self._quotes[symbol] = (bid, bid_size, ask, ask_size)
        if self.is_open:
            self._take(self._book(symbol).on_quote(bid, bid_size, ask, ask_size, now), now)
            self._watch(symbol, now)

    def trade(self, symbol: str, price: Decimal, size: Decimal, buyer_maker: bool, now: Nanos) -> None:
        """Others have traded."""
        self._prints[symbol] = price
        if self.is_open:
            self._take(self._book(symbol).on_trade(price, size, buyer_maker, now), now)
            self._watch(symbol, now)

    def mark(self, symbol: str) -> Decimal | None:
        """What a symbol is valued at: its last print, else the middle of its quote."""
        last = self._prints.get(symbol)
        if last is not None:
            return last
        bid, ask = self._sides(symbol)
        return (bid + ask) / 2 if bid is not None and ask is not None else bid or ask

    def price_to_pay(self, symbol: str, side: Side) -> Decimal | None:
        """What an order at market would trade at."""
        bid, ask = self._sides(symbol)
        return (ask if side is Side.BUY else bid) or self.mark(symbol)

    def asset(self, symbol_or_id: str) -> AssetRow:
        """An asset by symbol or id.  Raises `Refusal`."""
        found = self.assets.get(symbol_or_id) or self._by_asset_id.get(symbol_or_id)
        if found is None:
            raise Refusal(404, NOT_FOUND, f"asset not found for {symbol_or_id}")
        return found

    def held(self) -> list[tuple[str, Held]]:
        """Positions that are not flat."""
        return [(symbol, held) for symbol, held in self.ledger.positions.items() if held.qty]

    def _sides(self, symbol: str) -> tuple[Decimal | None, Decimal | None]:
        bid, bid_size, ask, ask_size = self._quotes.get(symbol, (ZERO, ZERO, ZERO, ZERO))
        there = [p if p.is_finite() and p > 0 and s > 0 else None for p, s in ((bid, bid_size), (ask, ask_size))]
        return there[0], there[1]

    # Time

    def pass_time(self, now: Nanos) -> None:
        """Carry out everything that is due by ``now``, in the order of its time."""
        if self._session is None:
            self._session = self.hours.at(now)
            self.is_open = self._session.opens <= now
        while True:
            boundary = self._session.closes if self.is_open else self._session.opens
            if self._due and self._due[0][0] <= min(now, boundary):
                at, _, act = heapq.heappop(self._due)
                act(at)
            elif boundary > now:
                return
            elif self.is_open:
                self._close(boundary)
            else:
                self._open(boundary)

    def later(self, at: Nanos, act: Callable[[Nanos], None]) -> None:
        """Have ``act`` done when its time has come."""
        self._dues += 1
        heapq.heappush(self._due, (at, self._dues, act))

    def _open(self, at: Nanos) -> None:
        self.is_open = True
        for symbol, (bid, bid_size, ask, ask_size) in list(self._quotes.items()):
            self._take(self._book(symbol).on_quote(bid, bid_size, ask, ask_size, at), at)
        waiting, self._for_open = self._for_open, []
        for order_id in waiting:
            self.enter(self.ledger.orders[order_id], at)

    def _close(self, at: Nanos) -> None:
        waiting, self._for_close = self._for_close, []
        for order_id in waiting:
            self.enter(self.ledger.orders[order_id], at)
        self.is_open = False
        self._session = self.hours.at(at)
        for order in self.ledger.open_orders():
            if order.time_in_force is TimeInForce.DAY and order.id not in self._for_open and order.status != "held":
                self.end(order, "expired", at)

    # Orders

    def submit(self, order: VenueOrder, now: Nanos) -> None:
        """Take a new order to the floor, or keep it until the floor takes it."""
        if order.time_in_force is TimeInForce.AT_CLOSE:
            self._keep(order, self._for_close, now)
        elif order.time_in_force is TimeInForce.AT_OPEN or not self.is_open:
            self._keep(order, self._for_open, now)
        else:
            self.tell("pending_new", order, now)
            self.enter(order, now)

    def enter(self, order: VenueOrder, now: Nanos, *, kind: OrderType | None = None) -> None:
        """Put an order into its book; ``kind``: as what, where a stop has been set off."""
        if order.is_ended:
            return
        order.status = "partially_filled" if order.filled_qty else "new"
        self.tell("new", order, now)
        at_market = order.time_in_force in _AT_ONCE
        tif = order.time_in_force if order.time_in_force is not TimeInForce.AT_OPEN else TimeInForce.IOC
        tif = TimeInForce.IOC if tif is TimeInForce.AT_CLOSE else tif
        works_as = kind or order.type
        self._entered.add(order.id)
        entry = BookOrder(
            id=order.id,
            side=order.side,
            type=works_as,
            quantity=order.qty,
            remaining=order.qty - order.filled_qty,
            limit_price=order.limit_price if "limit" in works_as else None,
            stop_price=order.stop_price if works_as in (OrderType.STOP, OrderType.STOP_LIMIT) else None,
            time_in_force=tif if at_market else TimeInForce.GTC,
            trail_price=order.trail_price,
            trail_percent=order.trail_percent,
            high_water=order.hwm,
        )
        self._take(self._book(order.symbol).place(entry, now), now)

    def watch(self, order: VenueOrder, now: Nanos) -> None:
        """Hold a stop-loss leg back until its price is reached."""
        order.status = "held"
        self.ledger.note(order, now)
        self._watched.setdefault(order.symbol, []).append(order.id)

    def withdraw(self, order: VenueOrder, now: Nanos) -> None:
        """Take an order off the floor; what becomes of it is the caller's to say."""
        book = self._books.get(order.symbol)
        if book is not None and order.id in self._entered:
            with contextlib.suppress(UnknownThing):
                # It may have left by itself in this very moment.
                book.cancel(order.id, now)
            self._entered.discard(order.id)
        for waiting in (self._for_open, self._for_close, self._watched.get(order.symbol, [])):
            if order.id in waiting:
                waiting.remove(order.id)

    def end(self, order: VenueOrder, status: str, now: Nanos) -> None:
        """End an order that has not filled, and what hangs on it."""
        if order.is_ended:
            return
        self.withdraw(order, now)
        order.status = status
        order.reserved = ZERO
        if status == "canceled":
            order.canceled_at = now
        elif status == "expired":
            order.expired_at = now
        else:
            order.failed_at = now
        self.tell(status, order, now)
        self._after_end(order, status, now)

    def tell(self, event: str, order: VenueOrder, now: Nanos, **more: str) -> None:
        """Note how an order looks now and push an event about it."""
        row = self.ledger.note(order, now)
        if self.silent:
            return
        data: dict[str, Any] = {"event": event, "timestamp": rfc3339(now), "order": row, **more}
        self.frames.append(as_json({"stream": "trade_updates", "data": data}))

    def group(self, order: VenueOrder) -> list[VenueOrder]:
        """The orders of which one cancels the others: legs, or an OCO with its leg."""
        orders = self.ledger.orders
        if order.order_class == "oco" and order.parent is None:
            return [order, *(orders[leg] for leg in order.legs)]
        if order.parent is None:
            return [order]
        parent = orders[order.parent]
        legs = [orders[leg] for leg in parent.legs]
        return [parent, *legs] if parent.order_class == "oco" else legs

    def activate_legs(self, parent: VenueOrder, now: Nanos) -> None:
        """The entry has filled: its legs go to work, for as much as it got."""
        for leg_id in parent.legs:
            leg = self.ledger.orders[leg_id]
            if leg.is_ended:
                continue
            leg.qty = parent.filled_qty
            if "stop" in leg.type and len(parent.legs) > 1:
                self.watch(leg, now)
            else:
                self.enter(leg, now)

    # Inside

    def _keep(self, order: VenueOrder, where: list[str], now: Nanos) -> None:
        order.status = "accepted"
        where.append(order.id)
        self.tell("accepted", order, now)

    def _book(self, symbol: str) -> MatchingBook:
        book = self._books.get(symbol)
        if book is None:
            asset = self.assets[symbol]
            tick = _STEP if asset.asset_class == "crypto" else Decimal("0.0001")
            listed = Instrument(
                id=InstrumentId(f"ALPACA:{symbol}"),
                provider_symbol=symbol,
                provider="alpaca",
                tick_size=tick,
                lot_size=_STEP,
                currency="USD",
            )
            book = self._books[symbol] = MatchingBook(listed, fill_ratio=self._fill_ratio)
            if symbol in self._quotes and self.is_open:
                book.on_quote(*self._quotes[symbol], Nanos(0))
            if symbol in self._prints:
                book.on_trade(self._prints[symbol], ZERO, False, Nanos(0))
        return book

    def _take(self, outcomes: list[Outcome], now: Nanos) -> None:
        for outcome in outcomes:
            order = self.ledger.orders[outcome.order_id]
            if isinstance(outcome, Execution):
                self._fill(order, outcome, now)
            elif isinstance(outcome, Trailed):
                self._trail(order, outcome, now)
            elif isinstance(outcome, Triggered):
                self.ledger.note(order, now)
            elif isinstance(outcome, Ended):
                self.end(order, "canceled", now)

    def _trail(self, order: VenueOrder, trailed: Trailed, now: Nanos) -> None:
        order.hwm = trailed.high_water
        entry = BookOrder(
            id=order.id,
            side=order.side,
            type=order.type,
            quantity=order.qty,
            remaining=order.qty,
            trail_price=order.trail_price,
            trail_percent=order.trail_percent,
            high_water=order.hwm,
        )
        order.stop_price = stop_of(entry, self._book(order.symbol).instrument)
        self.ledger.note(order, now)

    def _fill(self, order: VenueOrder, execution: Execution, now: Nanos) -> None:
        qty, price = execution.quantity, execution.price
        before = order.left
        order.filled_qty += qty
        order.filled_value += qty * price
        done = order.filled_qty >= order.qty
        if done:
            self._entered.discard(order.id)
        order.status = "filled" if done else "partially_filled"
        order.filled_at = now if done else order.filled_at
        order.reserved = order.reserved * (before - qty) / before if before > 0 else ZERO
        held = self.ledger.held(order.symbol)
        held.apply(order.side, qty, price)
        self.ledger.cash -= order.side.sign * qty * price
        made = self.ledger.new_id()
        stamp = datetime.fromtimestamp(now // _SECOND, UTC).astimezone(_NEW_YORK).strftime("%Y%m%d%H%M%S")
        fill = VenueFill(
            id=made,
            activity_id=f"{stamp}{now % _SECOND // 1_000_000:03d}::{made}",
            order_id=order.id,
            symbol=order.symbol,
            side=order.side,
            qty=qty,
            price=price,
            at=now,
            cum_qty=order.filled_qty,
            leaves_qty=order.qty - order.filled_qty,
        )
        self.ledger.executions.append(fill)
        self.tell(
            "fill" if done else "partial_fill",
            order,
            now,
            execution_id=made,
            price=plain(price),
            qty=plain(qty),
            position_qty=plain(held.qty),
        )
        self._after_fill(order, qty, now)

    def _after_fill(self, order: VenueOrder, qty: Decimal, now: Nanos) -> None:
        if order.order_class != "oco" and order.parent is None:
            if order.status == "filled":
                self.activate_legs(order, now)
            return
        for sibling in self.group(order):
            if sibling is order or sibling.is_ended:
                continue
            if order.status == "filled":
                self.end(sibling, "canceled", now)
            else:
                sibling.qty = max(sibling.qty - qty, sibling.filled_qty)
                self.ledger.note(sibling, now)

    def _after_end(self, order: VenueOrder, status: str, now: Nanos) -> None:
        if status == "rejected" and order.replaces is not None:
            return
        if order.parent is None and order.order_class in ("bracket", "oto") and order.filled_qty:
            self.activate_legs(order, now)
            return
        ends = [self.ledger.orders[leg] for leg in order.legs]
        ends += [sibling for sibling in self.group(order) if sibling is not order]
        for other in ends:
            self.end(other, status, now)

    def _watch(self, symbol: str, now: Nanos) -> None:
        for order_id in list(self._watched.get(symbol, ())):
            order = self.ledger.orders[order_id]
            bid, ask = self._sides(symbol)
            seen = self._prints.get(symbol) or (ask if order.side is Side.BUY else bid)
            if order.is_ended or seen is None or order.stop_price is None:
                continue
            if (seen - order.stop_price) * order.side.sign < 0:
                continue
            self._watched[symbol].remove(order_id)
            for sibling in self.group(order):
                if sibling is not order and not sibling.is_ended:
                    self._withdraw_sibling(sibling, now)
            self.enter(order, now, kind=OrderType.LIMIT if order.limit_price is not None else OrderType.MARKET)

    def _withdraw_sibling(self, order: VenueOrder, now: Nanos) -> None:
        """Cancel one of a group without the rest of it."""
        self.withdraw(order, now)
        order.status, order.canceled_at, order.reserved = "canceled", now, ZERO
        self.tell("canceled", order, now)

"""Instruments, markets and small strategies for the tests of this room."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from strategies.runner import Runner
from trading.ids import AccountId, AlgoId, ExecutionId, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.orders import EventKind, Fill, Order, OrderEvent, PlaceOrder, apply, order_from
from trading.ticks import BUYER_MAKER, TickArray, TickBuffer, decode

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


def instrument(number: int = 1, symbol: str = "AAA", tick: str = "0.01", lot: str = "0.001") -> Instrument:
    return Instrument(
        id=InstrumentId(f"TEST:{symbol}"),
        provider_symbol=symbol,
        provider="test",
        tick_size=Decimal(tick),
        lot_size=Decimal(lot),
        currency="USD",
        number=number,
    )


A = instrument(1, "AAA")
B = instrument(2, "BBB")


def market(seconds: int = 60, per_second: int = 10, numbers: tuple[int, ...] = (1,), seed: int = 5) -> TickArray:
    """A random walk of about 100 with a spread of 2 ticks, quotes and trades taking turns."""
    random = np.random.default_rng(seed)
    buffer = TickBuffer()
    middles = dict.fromkeys(numbers, 100.0)
    for i in range(seconds * per_second):
        for n in numbers:
            at = START + i * SECOND // per_second + n
            middles[n] *= 1 + random.normal(0, 3e-4)
            bid, ask = round(middles[n], 2) - 0.01, round(middles[n], 2) + 0.01
            size = float(random.integers(1, 50))
            if i % 2:
                sold = bool(random.integers(0, 2))
                buffer.trade(n, round(bid if sold else ask, 2), size, BUYER_MAKER * sold, at, at, i)
            else:
                buffer.quote(n, round(bid, 2), size, round(ask, 2), size + 1, 0, at, at, i)
    return decode(buffer.take())


def quotes(*prices: tuple[float, float], number: int = 1, every: int = SECOND, size: float = 100.0) -> TickArray:
    buffer = TickBuffer()
    for i, (bid, ask) in enumerate(prices):
        at = START + i * every
        buffer.quote(number, bid, size, ask, size, 0, at, at, i)
    return decode(buffer.take())


def prints(*prices: float, number: int = 1, every: int = SECOND, start: int = START) -> TickArray:
    buffer = TickBuffer()
    for i, price in enumerate(prices):
        at = start + i * every
        buffer.trade(number, price, 100.0, 0, at, at, i)
    return decode(buffer.take())


def runner(strategy: Any, parameters: dict[str, Any] | None = None, *instruments: Instrument) -> Runner:
    return Runner(strategy, parameters or {}, AlgoId("algo-1"), AccountId("acc"), instruments or (A,))


def journaled(intent: PlaceOrder, *kinds: EventKind) -> Order:
    """The order of an intent after some events."""
    order = order_from(intent, "tag", Nanos(START))
    for kind in kinds:
        apply(order, event(order, kind))
    return order


def event(order: Order, kind: EventKind, **fields: Any) -> OrderEvent:
    return OrderEvent(
        kind=kind,
        account=order.account,
        client_order_id=order.client_order_id,
        at=Nanos(START),
        actor="test",
        **fields,
    )


def fill(id: str, quantity: str, price: str = "100") -> Fill:
    return Fill(execution_id=ExecutionId(id), quantity=Decimal(quantity), price=Decimal(price), at=Nanos(START))

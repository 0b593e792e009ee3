"""A ledger in memory that behaves as the durable one: whole saves, fenced by epoch, repeatable."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import numpy as np

from connectors.base import PaperAccount
from connectors.paper.broker import PaperBroker
from tests.connectors.support import instrument
from trading.broker import BrokerFill, BrokerOrder, BrokerPosition, BrokerReport, OrderTicket
from trading.errors import Fenced
from trading.ids import AccountId, Epoch, InstrumentId, Nanos
from trading.instruments import Instrument
from trading.orders import OrderType, Side, TimeInForce
from trading.ticks import TickArray, TickBuffer, decode

ACCOUNT = AccountId("alice")
BTC = instrument("BTCUSDT", 1)
ETH = instrument("ETHUSDT", 2)
INSTRUMENTS: dict[InstrumentId, Instrument] = {BTC.id: BTC, ETH.id: ETH}


class MemoryLedger:
    def __init__(self) -> None:
        self.orders: dict[str, BrokerOrder] = {}
        self.fills: dict[str, BrokerFill] = {}
        self.positions: dict[InstrumentId, BrokerPosition] = {}
        self.cash: Decimal | None = None
        self.currency = ""
        self.epoch = 0
        self.saves = 0
        self.at_once = 0
        self.most_at_once = 0
        self.delay = 0.0
        self.failing: Exception | None = None

    async def load(self, account: AccountId, since: Nanos | None = None) -> BrokerReport | None:
        if self.cash is None:
            return None
        return BrokerReport(
            account=account,
            requested_at=Nanos(0),
            received_at=Nanos(0),
            orders=tuple(self.orders.values()),
            fills=tuple(self.fills.values()),
            positions=tuple(one for one in self.positions.values() if one.quantity),
            cash=self.cash,
            currency=self.currency,
        )

    async def save(
        self,
        account: AccountId,
        epoch: Epoch,
        orders: Sequence[BrokerOrder],
        fills: Sequence[BrokerFill],
        positions: Sequence[BrokerPosition],
        cash: Decimal,
        currency: str,
    ) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay)
            if self.failing is not None:
                raise self.failing
            if epoch < self.epoch:
                raise Fenced(f"connection/{account}", epoch, self.epoch)
            self.epoch = epoch
            self.saves += 1
            self.orders |= {one.broker_order_id: one for one in orders}
            for fill in fills:
                self.fills.setdefault(fill.fill.execution_id, fill)
            self.positions |= {one.instrument: one for one in positions}
            self.cash, self.currency = cash, currency
        finally:
            self.at_once -= 1


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000_000

    def __call__(self) -> Nanos:
        self.now += 1
        return Nanos(self.now)


def quote(bid: float, ask: float, number: int = 1, size: float = 1.0, at: int = 0) -> TickArray:
    buffer = TickBuffer()
    buffer.quote(number, bid, size, ask, size, 0, at, at, 1)
    return decode(buffer.take())


def trade(price: float, size: float, number: int = 1, flags: int = 0, at: int = 0) -> TickArray:
    buffer = TickBuffer()
    buffer.trade(number, price, size, flags, at, at, 1)
    return decode(buffer.take())


def batch(*ticks: TickArray) -> TickArray:
    return np.concatenate(ticks)


_tags = iter(range(10**9))


def ticket(
    side: Side = Side.BUY,
    quantity: str = "0.5",
    limit: str | None = None,
    *,
    stop: str | None = None,
    trail: str | None = None,
    tag: str | None = None,
    tif: TimeInForce = TimeInForce.GTC,
    reduce_only: bool = False,
    on: Instrument = BTC,
) -> OrderTicket:
    if trail is not None:
        kind = OrderType.TRAILING_STOP
    elif stop is not None:
        kind = OrderType.STOP_LIMIT if limit is not None else OrderType.STOP
    else:
        kind = OrderType.LIMIT if limit is not None else OrderType.MARKET
    return OrderTicket(
        tag=tag or f"TAG{next(_tags)}",
        instrument=on.id,
        side=side,
        type=kind,
        quantity=Decimal(quantity),
        limit_price=None if limit is None else Decimal(limit),
        stop_price=None if stop is None else Decimal(stop),
        trail_price=None if trail is None else Decimal(trail),
        time_in_force=tif,
        reduce_only=reduce_only,
    )


async def broker(
    ledger: MemoryLedger | None = None,
    epoch: int = 1,
    clock: Time | None = None,
    **settings: object,
) -> PaperBroker:
    made = PaperBroker(
        ACCOUNT,
        PaperAccount(**settings),  # type: ignore[arg-type]
        INSTRUMENTS,
        ledger or MemoryLedger(),
        Epoch(epoch),
        clock or Time(),
    )
    await made.connect()
    return made

"""The load: random orders, changes and cancels of several users, through both doors, with every bad habit of callers.

Same intent twice at once, again after an error, long after it has ended, or its key with other content: all of that
must act once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from msgspec.structs import replace

from tests.chaos.callers import ApiCaller, Caller, DirectCaller
from tests.chaos.told import Record
from tests.support.three_books import Outcome
from trading.errors import TradeError
from trading.ids import AccountId, ClientOrderId, InstrumentId, Nanos
from trading.orders import CancelOrder, ModifyOrder, OrderType, PlaceOrder, Side, TimeInForce

D = Decimal


@dataclass(frozen=True, slots=True)
class Tradable:
    """What the driver may trade: its steps, and sizes around what limits allow."""

    instrument: InstrumentId
    tick: Decimal
    lot: Decimal
    most_lots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """An account that the driver trades."""

    user: str
    account: AccountId
    tradables: tuple[Tradable, ...]
    types: tuple[OrderType, ...]
    times_in_force: tuple[TimeInForce, ...] = (TimeInForce.DAY, TimeInForce.GTC)
    #: Whether the size of an order may be changed (else its price only).
    resizes: bool = True


class Driver:
    """Trades for some seconds; what came of it is in its record."""

    def __init__(
        self,
        desks: Sequence[Desk],
        api: ApiCaller,
        direct: DirectCaller,
        price: Callable[[InstrumentId], Decimal],
        record: Record,
        say: Callable[[str], None],
    ) -> None:
        self.desks = desks
        self.api, self.direct = api, direct
        self.price = price
        self.record = record
        self.say = say
        self._number = 0

    async def run(self, name: str, seed: int, seconds: float, pause_s: float = 0.06) -> None:
        """Trade all desks at once; ``name`` goes into the keys."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            for desk in self.desks:
                for n in range(2):
                    chance = random.Random(f"{seed}/{desk.account}/{n}")
                    tasks.create_task(self._trade(desk, name, chance, until, pause_s))

    async def _trade(self, desk: Desk, name: str, chance: random.Random, until: float, pause_s: float) -> None:
        acts = [
            (60, self._place),
            (14, self._cancel),
            (14, self._modify),
            (1, self._cancel_all),
            (6, self._repeat),
            (3, self._misuse_key),
        ]
        async with asyncio.TaskGroup() as tasks:
            while time.monotonic() < until:
                (act,) = chance.choices([a for _, a in acts], [w for w, _ in acts])
                # Not awaited: a caller that gets no answer must not silence the others.
                tasks.create_task(act(desk, name, random.Random(chance.random())))
                await asyncio.sleep(chance.expovariate(1 / pause_s))

    def _door(self, chance: random.Random) -> Caller:
        return self.api if chance.random() < 0.5 else self.direct

    # What callers do

    async def _place(self, desk: Desk, name: str, chance: random.Random) -> None:
        intents = [self._intent(desk, name, chance) for _ in range(1 if chance.random() < 0.8 else 4)]
        for intent in intents:
            self.record.asked(intent)
        doors = [self._door(chance)]
        if chance.random() < 0.15:
            doors.append(self._door(chance))  # the same, twice at once
        await asyncio.gather(*(self._send(door, desk, intents, chance) for door in doors))

    async def _send(
        self, door: Caller, desk: Desk, intents: Sequence[PlaceOrder], chance: random.Random, tries: int = 3
    ) -> None:
        """Send until it is clear, as a caller that keeps its keys may, or give up."""
        if chance.random() < 0.05:
            # A caller who is told nothing, for the request is cut off.
            with_limit = asyncio.wait_for(door.place(desk.user, intents), 0.02)
            answers = await asyncio.gather(with_limit, return_exceptions=True)
            if isinstance(answers[0], BaseException):
                self.record.counts["given up by the caller"] += 1
                for intent in intents:
                    self.record.left(intent)
                return
            found = answers[0]
        else:
            found = await door.place(desk.user, intents)
        unclear = []
        for intent, answer in zip(intents, found, strict=True):
            if not isinstance(answer, TradeError):
                self.record.acknowledged(intent, answer)
            elif self.record.failed(intent, answer) is Outcome.UNKNOWN or chance.random() < 0.5:
                unclear.append(intent)
        if unclear and tries > 1 and chance.random() < 0.7:
            await asyncio.sleep(chance.uniform(0.0, 0.5))
            self.record.counts["sent again"] += len(unclear)
            await self._send(self._door(chance), desk, unclear, chance, tries - 1)

    async def _repeat(self, desk: Desk, name: str, chance: random.Random) -> None:
        intent = self.record.any(desk.account, chance)
        if intent is not None:
            self.record.counts["repeated later"] += 1
            await self._send(self._door(chance), desk, [intent], chance, 1)

    async def _misuse_key(self, desk: Desk, name: str, chance: random.Random) -> None:
        """A key with other content is refused; were it taken, its order would not be what was acknowledged."""
        intent = self.record.any(desk.account, chance)
        if intent is None or not self.record.is_acknowledged(intent):
            return
        other = Side.SELL if intent.side is Side.BUY else Side.BUY
        self.record.counts["keys misused"] += 1
        (answer,) = await self._door(chance).place(desk.user, [replace(intent, side=other)])
        if not isinstance(answer, TradeError):
            self.record.acknowledged(replace(intent, side=other), answer)

    async def _cancel(self, desk: Desk, name: str, chance: random.Random) -> None:
        intent = self.record.pick(desk.account, chance)
        if intent is not None:
            self.record.counts["cancels"] += 1
            wish = CancelOrder(account=desk.account, client_order_id=intent.client_order_id)
            self._note("cancel", intent, await self._door(chance).cancel(desk.user, wish))

    async def _modify(self, desk: Desk, name: str, chance: random.Random) -> None:
        intent = self.record.pick(desk.account, chance)
        if intent is None or intent.limit_price is None:
            return
        tradable = next(t for t in desk.tradables if t.instrument == intent.instrument)
        price = self._near(tradable, chance, 40)
        bigger = desk.resizes and chance.random() < 0.5
        quantity = tradable.lot * chance.randint(1, tradable.most_lots) if bigger else None
        change = ModifyOrder(
            account=desk.account,
            client_order_id=intent.client_order_id,
            limit_price=None if bigger and chance.random() < 0.5 else price,
            quantity=quantity,
        )
        self.record.counts["modifies"] += 1
        self._note("modify", intent, await self._door(chance).modify(desk.user, change))

    async def _cancel_all(self, desk: Desk, name: str, chance: random.Random) -> None:
        self.record.counts["cancel-alls"] += 1
        await self._door(chance).cancel_all(desk.user, desk.account)

    def _note(self, what: str, intent: PlaceOrder, answer: str | TradeError) -> None:
        if isinstance(answer, TradeError):
            self.record.counts[f"{what}s refused or unclear"] += 1

    # Making intents

    def _intent(self, desk: Desk, name: str, chance: random.Random) -> PlaceOrder:
        self._number += 1
        tradable = chance.choice(desk.tradables)
        kind = chance.choice(desk.types)
        side = chance.choice(list(Side))
        limit = stop = trail = None
        if kind in (OrderType.LIMIT, OrderType.STOP_LIMIT):
            limit = self._near(tradable, chance, 60)
        if kind in (OrderType.STOP, OrderType.STOP_LIMIT):
            away = chance.randint(2, 60) * side.sign
            stop = self._rounded(tradable, self.price(tradable.instrument)) + away * tradable.tick
        if kind is OrderType.TRAILING_STOP:
            trail = tradable.tick * chance.randint(5, 80)
        return PlaceOrder(
            account=desk.account,
            client_order_id=ClientOrderId(f"{name}-{self._number}"),
            instrument=tradable.instrument,
            side=side,
            type=kind,
            quantity=tradable.lot * chance.randint(1, tradable.most_lots),
            limit_price=limit,
            stop_price=stop,
            trail_price=trail,
            time_in_force=chance.choice(desk.times_in_force),
            reduce_only=kind is OrderType.MARKET and chance.random() < 0.1,
            created_at=Nanos(time.time_ns()),
        )

    def _near(self, tradable: Tradable, chance: random.Random, ticks: int) -> Decimal:
        """A price on either side of the market: some trade at once, some rest."""
        return self._rounded(tradable, self.price(tradable.instrument)) + tradable.tick * chance.randint(-ticks, ticks)

    @staticmethod
    def _rounded(tradable: Tradable, price: Decimal) -> Decimal:
        return (price / tradable.tick).to_integral_value() * tradable.tick

"""One run: a few seconds of orders, market and faults; then all faults end, and everything must come to agree."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import msgspec

from connectors.alpaca.wire import Request, as_json
from tests.simulation.connection import MS, SECOND, SimConnection
from tests.simulation.judge import judge
from tests.simulation.killer import KILLED, Killer
from tests.simulation.operator import OPERATED, Operator
from tests.simulation.session import SimSession
from tests.simulation.world import SYMBOLS, D, World
from trading.ids import AccountId, ClientOrderId, InstrumentId
from trading.orders import CancelOrder, ModifyOrder, OrderType, PlaceOrder, Side, TimeInForce

#: A silent process gets no successor sooner.
SILENCE_NS = 1_600 * MS
#: A run that does not come to agree this long after the last fault is wrong.
PATIENCE_NS = 150 * SECOND


class Cut(msgspec.Struct, frozen=True):
    """Which acts of the player a run has: the first ``acts``, ``without`` some.

    ``chances`` are the states of the seed's chances before each act of the whole run, and when it was: with them an act
    that stays does what it did there.
    """

    acts: int = 1_000
    without: frozenset[int] = frozenset()
    chances: tuple[Any, ...] = ()


WHOLE = Cut()


class Result(msgspec.Struct):
    """How a run went."""

    seed: int
    acts: int
    violations: list[str]
    trace: list[str]
    faults: dict[str, int]
    orders: int
    fills: int
    steps: int


def play(seed: int, cut: Cut = WHOLE, chances: list[Any] | None = None) -> Result:
    """Play one seed and judge it.  An assertion or a bug that raises in the middle of it is a violation too.

    ``chances`` is filled with what a `Cut` needs.
    """
    world = World(seed)
    player = Player(world)
    try:
        player.play(cut, chances)
        found = settle(world, player.operator, player.killer)
    except Exception as error:  # noqa: BLE001  a run may fail in any way; the seed and the timeline say how
        where = traceback.extract_tb(error.__traceback__)[-1]
        found = [f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"]
    return Result(
        seed=seed,
        acts=player.acts,
        violations=found,
        trace=list(world.trace),
        faults=dict(world.counts),
        orders=sum(len(v.ledger.orders) for v in world.venues.values()),
        fills=sum(len(v.ledger.executions) for v in world.venues.values()),
        steps=world.steps,
    )


def settle(world: World, operator: Operator | None = None, killer: Killer | None = None) -> list[str]:
    """End all faults and wait until nothing is wrong any more; what still is after a long time is returned."""
    world.faulty, world.journal_away = False, False
    world.note("-- all faults end")
    for venue in world.venues.values():
        venue.list_lag = venue.lookup_lag = venue.replace_takes = venue.cancel_takes = 0
    for process in (*world.sessions.values(), *world.connections.values(), world.desk):
        world.resume(process)
    if killer is not None and killer.kill is None:
        killer.throw()
    until = world.now + PATIENCE_NS
    found: list[str] = []
    world.run(2 * SECOND)
    while world.now < until:
        world.tick()
        if killer is not None:
            killer.market()
        world.run(4 * SECOND)
        if operator is not None and operator.settle_all():
            continue
        found = judge(world) if at_rest(world) else ["it does not come to rest"]
        found += killer.wrong() if killer is not None else ()
        if not found or world.wrong:
            break
    return found


def at_rest(world: World) -> bool:
    """Whether every session is up, has taken its brokers' view in and is in doubt about nothing."""
    for session in world.sessions.values():
        if not session.alive or session.paused:
            return False
        for book in session.core.accounts.values():
            doubt = (
                book.missed
                or book.rising
                or book.undead
                or book.replacing
                or any(o.state == "unknown" for o in book.open.values())
            )
            if doubt or not book.reconciled:
                return False
    return True


class Player:
    """Chooses what happens, by the world's seed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self.number = 0
        self.acts = 0
        self.intents: dict[AccountId, list[PlaceOrder]] = {account: [] for account in world.venues}
        #: Some runs have few faults, so that much gets traded.
        self.calm = self.random.choice((0.0, 0.03, 0.06))
        self.by_hand = self.random.random() < 0.15
        self.operator = Operator(world) if world.seed % 32 == OPERATED else None
        self.killer = Killer(world) if world.seed % 32 in KILLED else None
        world.crash_chance = self.random.choice((0.0, 0.0, 0.002, 0.01, 0.03))
        for venue in world.venues.values():
            if self.random.random() < 0.2:
                venue.list_lag = self.random.randint(1, 900) * MS
            if self.random.random() < 0.2:
                venue.replace_takes = self.random.randint(1, 900) * MS
            if self.random.random() < 0.2:
                venue.cancel_takes = self.random.randint(1, 900) * MS

    def play(self, cut: Cut = WHOLE, chances: list[Any] | None = None) -> None:
        """A few seconds."""
        world, rnd = self.world, self.random
        world.run(rnd.randint(5, 300) * MS)
        if self.operator is not None:
            self.operator.begin()
        for act in range(min(rnd.choice((20, 40, 60, 90)), cut.acts)):
            self.acts = act + 1
            if chances is not None:
                chances.append((rnd.getstate(), world.now))
            if cut.chances:
                state, at = cut.chances[act]
                world.run(max(0, at - world.now))
                rnd.setstate(state)
            account = rnd.choice(list(world.venues))
            session = world.sessions[world.user_of[account]]
            roll = rnd.random()
            intents = self._intents(account) if roll < 0.45 else []
            if self.killer is not None:
                self.killer.act(act)
            if act in cut.without:
                # The intents are known all the same: later acts choose among them.
                continue
            if intents and self.killer is not None:
                # After a kill nobody trades by hand here, so that all must end flat.
                intents = self.killer.in_names(intents) if self.killer.kill is None else []
            if intents:
                self._place(session, intents)
            elif roll < 0.54:
                self._cancel(account, session)
            elif roll < (0.63 if world.capabilities.native_modify else 0.73):
                self._modify(account, session)
            elif roll < 0.82:
                self._market()
            elif roll < 0.90 - self.calm:
                self._fault(account, session)
            elif self.by_hand and roll < 0.92:
                self._hand(account)
            if self.operator is not None:
                self.operator.act(account, session)
            world.run(rnd.choice((1, 3, 10, 40, 120, 400)) * MS)
            world.tick()

    def _intents(self, account: AccountId) -> list[PlaceOrder]:
        """New ones, or one that was there before."""
        rnd = self.random
        known = self.intents[account]
        if known and rnd.random() < 0.2:
            intents = [rnd.choice(known)]
            if rnd.random() < 0.2:
                intents = [msgspec.structs.replace(intents[0], quantity=intents[0].quantity + 1)]
            self.world.count("intent repeated")
        else:
            intents = [self._intent(account) for _ in range(rnd.choice((1, 1, 1, 2, 3)))]
            known += intents
        return intents

    def _place(self, session: SimSession, intents: list[PlaceOrder]) -> None:
        if session.alive and not session.paused:
            session.command(lambda token: session.core.place(token, intents, self.world.now), intents)

    def _intent(self, account: AccountId) -> PlaceOrder:
        rnd = self.random
        self.number += 1
        kind = rnd.choice((OrderType.LIMIT,) * 6 + (OrderType.MARKET,) * 3 + tuple(OrderType))
        side = rnd.choice((Side.BUY, Side.SELL))
        instrument = rnd.choice(self.world.instruments).id
        near = self.world.prices[instrument] + D(rnd.randint(-8, 8)) / 20
        has_limit = kind in (OrderType.LIMIT, OrderType.STOP_LIMIT)
        has_stop = kind in (OrderType.STOP, OrderType.STOP_LIMIT)
        at_once = kind in (OrderType.LIMIT, OrderType.MARKET)
        forces = (TimeInForce.DAY, TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK) if at_once else (TimeInForce.GTC,)
        return PlaceOrder(
            account=account,
            client_order_id=ClientOrderId(f"k{self.number}"),
            instrument=instrument,
            side=side,
            type=kind,
            quantity=D(rnd.randint(1, 9)),
            limit_price=near if has_limit else None,
            stop_price=near + side.sign if has_stop else None,
            trail_price=D("0.5") if kind is OrderType.TRAILING_STOP else None,
            time_in_force=rnd.choice(forces),
            created_at=self.world.now,
        )

    def _cancel(self, account: AccountId, session: SimSession) -> None:
        if not self.intents[account] or not session.alive or session.paused:
            return
        if self.random.random() < 0.1:
            session.command(lambda token: session.core.cancel_all(token, account, self.world.now))
            return
        key = self.random.choice(self.intents[account][-6:]).client_order_id
        cancel = CancelOrder(account=account, client_order_id=key)
        session.command(lambda token: session.core.cancel(token, [cancel], self.world.now))

    def _modify(self, account: AccountId, session: SimSession) -> None:
        if not self.intents[account] or not session.alive or session.paused:
            return
        intent = self.random.choice(self.intents[account][-5:])
        if not self.world.capabilities.native_modify:
            # What may still be changed: each change is an order of its own here, so let there be many.
            book = session.core.accounts[account]
            working = [i for i in self.intents[account] if i.client_order_id in book.open]
            intent = self.random.choice(working or [intent])
        prices = intent.limit_price is not None and self.random.random() < 0.6
        change = ModifyOrder(
            account=account,
            client_order_id=intent.client_order_id,
            quantity=D(self.random.randint(1, 12)) if not prices or self.random.random() < 0.5 else None,
            limit_price=intent.limit_price + D(self.random.randint(-4, 4)) / 20
            if prices and intent.limit_price
            else None,
        )
        session.command(lambda token: session.core.modify(token, change, self.world.now))

    def _market(self) -> None:
        symbol = self.random.choice(SYMBOLS)
        instrument = InstrumentId(f"ALPACA:{symbol}")
        price = self.world.prices[instrument] + D(self.random.randint(-6, 6)) / 20
        self.world.prices[instrument] = price
        if self.random.random() < 0.6:
            self.world.quote(symbol, price)
        else:
            self.world.trade(symbol, price)

    def _hand(self, account: AccountId) -> None:
        self.world.count("by hand")
        body = {
            "symbol": self.random.choice(SYMBOLS),
            "qty": str(self.random.randint(1, 5)),
            "side": self.random.choice(("buy", "sell")),
            "type": "market",
            "time_in_force": "day",
        }
        self.world.at_broker(account, Request("POST", "/v2/orders", body=as_json(body)))

    def _fault(self, account: AccountId, session: SimSession) -> None:
        world, rnd = self.world, self.random
        connection = world.connections[account]
        roll = rnd.random()
        if roll < 0.15:
            world.crash(session)
        elif roll < 0.30:
            world.crash(connection)
        elif roll < 0.36:
            world.crash(world.desk)
        elif roll < 0.56:
            world.count("stream cut")
            connection.cut()
        elif roll < 0.66:
            world.count("journal away")
            world.journal_away = True
            world.after(rnd.randint(50, 3_000) * MS, "the journal is back", self._journal_back)
        else:
            self._pause(rnd.choice((session, session, connection, world.desk)))

    def _journal_back(self) -> None:
        self.world.journal_away = False

    def _pause(self, process: object) -> None:
        """SIGSTOP, for a moment or for longer than a lease; perhaps a second copy is started meanwhile."""
        world, rnd = self.world, self.random
        assert isinstance(process, SimSession | SimConnection | type(world.desk))
        if not process.alive or process.paused:
            return
        long = rnd.random() < 0.3
        world.count("paused across a lease" if long else "paused")
        world.pause(process)
        duration = rnd.randint(10_000, 16_000) * MS if long else rnd.randint(20, 5_000) * MS
        if duration > SILENCE_NS and rnd.random() < 0.7:
            world.count("second copy")
            world.after(rnd.randint(SILENCE_NS, duration), "a second copy", lambda: world.replace(process))
        world.after(duration, "goes on", lambda: world.resume(process))

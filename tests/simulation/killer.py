"""The kill switch in the simulated world: thrown at any moment, heard by every session again and again, closing all."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from random import Random

from msgspec.structs import replace

from tests.simulation.connection import MS
from tests.simulation.session import SimSession
from tests.simulation.world import SYMBOLS, D, World
from trading.account_book import AccountBook
from trading.ids import AccountId, AlgoId, InstrumentId, Nanos
from trading.kill_switch import WHOLE, CancelPace, Kill, to_cancel, to_close
from trading.limits import CLUSTER
from trading.orders import EventKind, ModifyOrder, Order, PlaceOrder

#: Worlds whose seed leaves one of these by 32 have a kill; the others play as ever.  In the second orders are replaced.
KILLED = (21, 22)
HEED_EVERY_NS = 300 * MS
ALGOS = (None, AlgoId("a0"), AlgoId("a1"), AlgoId("a2"))


class Killer:
    """Acts by a chance of its own, so that everything else in the world is decided as without it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = Random(f"kill {world.seed}")
        self.kill: Kill | None = None
        #: By session's copy.
        self._pace: dict[str, CancelPace] = {}
        self._at = self.random.randint(5, 60)

    def in_names(self, intents: list[PlaceOrder]) -> list[PlaceOrder]:
        """The same intents, some of them of algos."""
        return [replace(intent, algo=self._whose(intent)) for intent in intents]

    def _whose(self, intent: PlaceOrder) -> AlgoId | None:
        # By the key: an intent that is repeated is the same one's.
        return ALGOS[int(intent.client_order_id[1:]) % len(ALGOS)]

    def act(self, number: int) -> None:
        """Throw the kill, once."""
        if self.kill is None and number >= self._at:
            self.throw()

    def throw(self) -> None:
        """From now on every session hears of it, whichever copy of it is there."""
        now = Nanos(self.world.now)
        self.kill = Kill(id="kill-51b0c0de", scope=CLUSTER, flatten=True, reason="", at=now, by="op", halted_at=now)
        self.world.note("the kill is thrown")
        self.world.count("kill")
        self._heed()

    def _heed(self) -> None:
        for session in self.world.sessions.values():
            if session.alive and not session.paused:
                self._carry_out(session)
        self.world.after(HEED_EVERY_NS, "kill", self._heed)

    def _carry_out(self, session: SimSession) -> None:
        """As `UserSession` does."""
        assert self.kill is not None
        core, now = session.core, self.world.now
        core.halt(self.kill.scope, self.kill.halted_at)
        for book in list(core.accounts.values()):
            self._tempt(session, book)
            if cancels := self._pace.setdefault(session.name, CancelPace()).due(to_cancel(self.kill, book), now):
                session.command(partial(core.cancel, cancels=cancels, now=now))
            if closing := to_close(self.kill, book, now, core.instruments, core.exposure.marks):
                self.world.count("closing orders sent" if len(closing) == 1 else "closing orders sent together")
                session.command(partial(core.place, intents=closing, now=now), closing)
            if not session.alive:
                return

    def _tempt(self, session: SimSession, book: AccountBook) -> None:
        """Somebody moves what rests there towards the market: what could open or turn a position must stay."""
        for order in list(book.open.values()):
            if order.limit_price is None or not _enters(book, order):
                continue
            self.world.count("tempted after the kill")
            dearer = order.limit_price + order.side.sign
            change = ModifyOrder(account=book.account, client_order_id=order.client_order_id, limit_price=dearer)
            before = _asked_for(session, order)
            session.command(partial(session.core.modify, change=change, now=self.world.now))
            if not session.alive:
                return
            if _asked_for(session, order) > before:
                self.world.wrong.append(f"after the kill {order.client_order_id} was moved towards the market")

    def market(self) -> None:
        """Somebody is there to trade with."""
        for symbol in SYMBOLS:
            self.world.quote(symbol, self.world.prices[InstrumentId(f"ALPACA:{symbol}")])

    def wrong(self) -> Iterator[str]:
        """What a kill has left that it should not have."""
        assert self.kill is not None
        for session in self.world.sessions.values():
            for account, book in session.core.accounts.items():
                if book.open:
                    yield f"{account}: after the kill {list(book.open)} are open"
                for position in book.positions.values():
                    if position.quantity:
                        yield f"{account}: after the kill it holds {position.quantity} of {position.instrument}"
        yield from self._turned_around()

    def _turned_around(self) -> Iterator[str]:
        """Closing orders that took whoever's they are through zero, and not the account: others held it."""
        assert self.kill is not None
        journal = self.world.journal
        whole: dict[tuple[AccountId, InstrumentId], Decimal] = {}
        shares: dict[tuple[AccountId, AlgoId | None, InstrumentId], Decimal] = {}
        for event in journal.events:
            if event.kind is not EventKind.FILLED or event.fill is None:
                continue
            order = journal.orders[event.account, event.client_order_id]
            change = order.side.sign * event.fill.quantity
            at, mine = (event.account, order.instrument), (event.account, order.algo, order.instrument)
            whole[at] = whole.get(at, D(0)) + change
            shares[mine] = shares.get(mine, D(0)) + change
            closes = order.client_order_id.startswith(self.kill.id)
            # After many attempts in vain names may have to be given up.
            in_one = order.client_order_id.endswith(WHOLE)
            if closes and not in_one and shares[mine] * change > 0 >= whole[at] * change:
                yield f"{event.account}: {order.client_order_id} closed more than {order.algo or 'nobody'} held"
        for (account, algo, instrument), quantity in shares.items():
            if algo is not None and journal.algo_positions[account, algo, instrument].quantity != quantity:
                yield f"{account}: what {algo} holds of {instrument} is not the sum of its executions, {quantity}"


def _enters(book: AccountBook, order: Order) -> bool:
    """Whether an order, after all others of its side, could open or turn a position."""
    held = book.positions[order.instrument].quantity if order.instrument in book.positions else D(0)
    same = (o for o in book.open.values() if (o.instrument, o.side) == (order.instrument, order.side))
    return held * order.side.sign >= 0 or sum((o.open_quantity for o in same), D(0)) > abs(held)


def _asked_for(session: SimSession, order: Order) -> int:
    """How many changes of an order its session remembers to have been asked for."""
    story = session.core.story(order.account, order.client_order_id)
    return sum(f" {EventKind.MODIFY_REQUESTED} -> " in line for line in story)

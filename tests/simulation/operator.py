"""A person in the simulated world: moves shares and money at the broker, and settles the breaks that follow."""

from __future__ import annotations

from random import Random

from tests.simulation.connection import SECOND
from tests.simulation.session import SimSession
from tests.simulation.world import SYMBOLS, D, World
from trading.ids import AccountId
from trading.journal import Break, BreakKind, Settlement
from trading.orders import Side

#: Worlds whose seed leaves this remainder by 32 have an operator; the others play as ever.
OPERATED = 13


class Operator:
    """Acts by a chance of its own, so that everything else in the world is decided as without it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = Random(f"operator {world.seed}")

    def begin(self) -> None:
        """Wait until cash is reckoned: two comparisons some seconds apart."""
        for _ in range(2):
            self.world.run(5 * SECOND)
            self.compare()
        self.world.run(1 * SECOND)

    def compare(self) -> None:
        """Have everything compared now."""
        for session in self.world.sessions.values():
            for account in list(session.core.accounts) if session.alive and not session.paused else []:
                session.do(session.core.reconcile(session.next_token(), account, self.world.now))

    def act(self, account: AccountId, session: SimSession) -> None:
        """Perhaps do something."""
        roll = self.random.random()
        if roll < 0.04:
            self._transfer(account)
        elif roll < 0.10:
            self.compare()
        elif roll < 0.30 and session.alive and not session.paused:
            book = session.core.accounts.get(account)
            if book is not None and book.breaks:
                item = self.random.choice(list(book.breaks.values()))
                self._settle(session, item, self._choice(item))

    def settle_all(self) -> bool:
        """Settle every break there is; whether there was one."""
        found = False
        for session in self.world.sessions.values():
            for book in list(session.core.accounts.values()) if session.alive and not session.paused else []:
                for item in list(book.breaks.values()):
                    found = True
                    self._settle(session, item, self._choice(item))
        return found

    def _choice(self, item: Break) -> Settlement:
        """What is explained stays as it is: an order that is nowhere, or an execution, must not."""
        if item.kind in (BreakKind.POSITION, BreakKind.CASH) and self.random.random() < 0.4:
            return Settlement.EXPLAINED
        return Settlement.ACCEPTED

    def _transfer(self, account: AccountId) -> None:
        self.world.count("transfer")
        ledger, quantity = self.world.venues[account].ledger, D(self.random.randint(1, 5))
        if self.random.random() < 0.3:
            ledger.cash += self.random.choice((-1, 1)) * 100 * quantity
            return
        side = self.random.choice((Side.BUY, Side.SELL))
        ledger.held(self.random.choice(SYMBOLS)).apply(side, quantity, D(100))
        if self.random.random() < 0.5:
            ledger.cash -= side.sign * 100 * quantity

    def _settle(self, session: SimSession, item: Break, how: Settlement) -> None:
        self.world.count(f"break of {item.kind} {how}")
        core, now = session.core, self.world.now
        token, seen = session.next_token(), (item.ours, item.theirs)
        session.do(core.settle_break(token, item.account, item.id, how, "operator", "as it is", seen, now))

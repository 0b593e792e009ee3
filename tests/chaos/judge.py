"""Waits until a healed deck has come to rest, then compares the three books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from decimal import Decimal
from typing import Any

import psycopg

from storage.audit import verify
from tests.chaos import our_books
from tests.chaos.callers import DirectCaller
from tests.chaos.processes import Processes
from tests.chaos.told import Record
from tests.chaos.truth import acts_of
from tests.chaos.world import World
from tests.support.invariants import violations
from tests.support.patience import PATIENCE
from tests.support.three_books import Book, Run
from trading.errors import TradeError

#: A healed deck must have come to rest within this: a new head, a lease that runs out and two reconciliations, on a
#: machine that has more to do.
REST_S = 90.0 * PATIENCE
_UNSETTLED = """
    SELECT count(*) FROM orders WHERE account = ANY(%(accounts)s)
    AND (state IN ('pending', 'unknown') OR cancelling AND state IN ('submitted', 'partially_filled'))
"""


class Judge:
    """Says what is wrong, and whether it will stay so."""

    def __init__(
        self,
        world: World,
        processes: Processes,
        direct: DirectCaller,
        record: Record,
        say: Callable[[str], None],
    ) -> None:
        self._world = world
        self._processes = processes
        self._direct = direct
        self._record = record
        self._say = say
        self._since = world.began_at
        self._opening: dict[tuple[str, str], Decimal] = {}
        self._views: dict[str, dict[str, Any]] = {}

    async def verdict(self) -> list[str]:
        """The violations once all has come to rest; [] is what we want."""
        deadline = time.monotonic() + REST_S
        agreed, noted = 0, ""
        while True:
            trouble = await self._trouble()
            found = [] if trouble else await asyncio.to_thread(self._compare, self._views)
            what = trouble or (f"{len(found)} violations, such as {found[0]}" if found else "at rest")
            if what != noted:
                noted = what
                self._say(what)
            if not trouble and not found:
                # Seen twice, a moment apart: nothing is on its way any more.
                agreed += 1
                if agreed == 2:
                    return await asyncio.to_thread(self._audit)
            else:
                agreed = 0
            if time.monotonic() > deadline:
                return [f"not at rest after {REST_S:g} s: {trouble}"] if trouble else found
            await asyncio.sleep(0.15)

    async def sees(self, words: str, before: Collection[str], seconds: float) -> list[str]:
        """Violations with these words that were not there ``before``, waiting for the first; [] when none comes."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = await asyncio.to_thread(lambda: violations(self.run()))
            except psycopg.Error as error:
                self._say(f"the journal cannot be read now: {error}")
                found = []
            new = [each for each in found if words in each and each not in before]
            if new or time.monotonic() > deadline:
                return new
            await asyncio.sleep(0.2)

    async def _trouble(self) -> str:
        """What is not at rest yet."""
        if self._world.keeper.trouble:
            return self._world.keeper.trouble
        said = await asyncio.to_thread(self._processes.trouble)
        if said:
            return said
        try:
            waiting = await asyncio.to_thread(self._world.deck.rows, _UNSETTLED, {"accounts": self._world.accounts})
        except psycopg.Error as error:
            return f"PostgreSQL: {error}"
        if waiting != [(0,)]:
            return f"{waiting[0][0]} orders are pending, unknown or being cancelled"
        self._views = {}
        for account, user in self._world.users.items():
            try:
                view = await self._direct.memory(user, account)
            except TradeError as error:
                return f"session of {user}: {error}"
            if not (view["connected"] and view["reconciled"]) or view["unsettled"] or view["breaks"]:
                facts = {name: view[name] for name in ("connected", "reconciled", "unsettled", "breaks")}
                return f"{account}: {facts}"
            self._views[account] = view
        return ""

    def _audit(self) -> list[str]:
        """Whether everything that was ever written still is what was written."""
        found = verify(self._world.deck.deck.settings.database_url)
        return [f"audit: {finding.text}" for finding in found.findings]

    def _compare(self, views: dict[str, dict[str, Any]]) -> list[str]:
        return violations(self.run(views))

    def turn_page(self) -> None:
        """What has been judged is put away: with nothing open, what comes is judged from here."""
        self._opening = dict(self.run().ledger.positions)
        self._record.turn_page()
        self._since = time.time_ns()

    def whole(self) -> list[str]:
        """The violations of all chapters together."""
        self._record.turn_page()
        self._since, self._opening = self._world.began_at, {}
        self._record.told, self._record.intents = self._record.earlier_told, self._record.earlier_intents
        return violations(self.run(self._views))

    def run(self, views: dict[str, dict[str, Any]] | None = None) -> Run:
        """Everything that is known, as the invariants want it."""
        world, since = self._world, self._since
        ledger, movements = Book(orders=[], fills=[], positions={}, cash={}), []
        for truth in world.truths:
            mine = truth.ledger(since)
            ledger.orders = [*ledger.orders, *mine.book.orders]
            ledger.fills = [*(ledger.fills or ()), *(mine.book.fills or ())]
            ledger.positions = {**ledger.positions, **mine.book.positions}
            ledger.cash = {**ledger.cash, **mine.book.cash}
            movements += mine.movements
        users = sorted(set(world.users.values()))
        acts = [*acts_of(world.traces.since(since), world.users), *our_books.writers(world.deck, users)]
        return Run(
            ledger=ledger,
            journal=our_books.journal(world.deck, world.accounts, since),
            memory=our_books.memory(views, since) if views is not None else None,
            told=self._record.told,
            intents=self._record.intents.keys(),
            movements=sorted(movements, key=lambda movement: movement.at),
            limits=world.limits,
            acts=acts,
            users=world.users,
            opening=self._opening,
        )

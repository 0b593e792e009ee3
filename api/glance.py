"""The deck at a glance: what it takes is read once a second for all who look, and shown to each as far as they may see.

One reader's question costs the same whether one panel asks or two hundred.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from decimal import Decimal
from typing import Any, Final, Protocol

import msgspec

from api.machines import Hearsay, MachineSeen, see
from storage.currencies import currencies_by_scope
from storage.database import Database
from storage.desired import Desired
from storage.hot import Hot
from storage.kills import Kills
from storage.open_counts import OpenCount, open_by_account
from storage.records import AccountRecord, AlgoRecord, FeedRecord, KillRecord, LimitRecord
from trading.errors import NeedsOperator, NotReady
from trading.heat import RiskCell
from trading.ids import AccountId, Nanos
from trading.levels import LevelUse
from trading.limits import GROSS_EXPOSURE, account_scope
from trading.orders import ZERO

#: What is shown is at most so many seconds older than what it was read from.
FRESH_S: Final = 0.8
#: In which currencies accounts and algos trade is looked at so often.
CURRENCIES_S: Final = 3.0
#: What a session, or central risk, told longer ago is not known any more: they tell every two seconds.
QUIET_NS: Final = 10_000_000_000
#: A price that the market has not told anew for so long is old.
OLD_MARK_NS: Final = 60_000_000_000
_MOST_REMEMBERED: Final = 1_000


class AccountTold(msgspec.Struct, frozen=True, kw_only=True):
    """What a session told of an account."""

    account: AccountId
    connected: bool
    reconciled: bool
    cash: Decimal | None
    currency: str
    profit: Decimal
    gross_exposure: Decimal
    open_orders: int
    open_breaks: int


class HeldTold(msgspec.Struct, frozen=True, kw_only=True):
    """What a session told of a position; signed value at the mark."""

    account: AccountId
    quantity: Decimal
    mark: Decimal | None
    exposure: Decimal
    mark_at: Nanos = Nanos(0)


class PortfolioTold(msgspec.Struct, frozen=True, kw_only=True):
    """As `trading.portfolio.Portfolio`, with what is shown here."""

    user: str
    at: Nanos
    accounts: tuple[AccountTold, ...]
    positions: tuple[HeldTold, ...]


class RiskTold(msgspec.Struct, frozen=True, kw_only=True):
    """As `actors.risk_desk.RiskView`, with what is shown here."""

    at: Nanos
    levels: tuple[LevelUse, ...] = ()
    limits: tuple[dict[str, Any], ...] = ()


class WorkerTold(msgspec.Struct, frozen=True, kw_only=True):
    """What a feed worker told: its place, whether its stream stands, and instruments by state."""

    feed: str = ""
    shard: int
    connected: bool
    at: Nanos
    reason: str = ""
    states: dict[str, int] = {}


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a glance shows, of everybody, as of one moment."""

    at: Nanos
    accounts: list[AccountRecord]
    algos: list[AlgoRecord]
    feeds: list[FeedRecord]
    machines: list[MachineSeen]
    kills: list[KillRecord]
    limits: list[LimitRecord]
    portfolios: dict[str, PortfolioTold]
    #: By user.
    cells: dict[str, tuple[RiskCell, ...]]
    #: None where central risk has not told anything lately.
    risk: RiskTold | None
    #: By feed.
    workers: dict[str, list[WorkerTold]]
    #: Of the journal, by account.
    open: dict[AccountId, OpenCount]
    #: Of accounts, algos and instruments, by scope (`storage.currencies`).
    currencies: dict[str, frozenset[str]]
    #: What could not be read, in words; "" when all could.
    trouble: str

    def told_of(self, account: AccountRecord) -> AccountTold | None:
        """What the account's session told of it."""
        view = self.portfolios.get(account.user)
        return next((each for each in view.accounts if each.account == account.id), None) if view is not None else None

    def told_at(self, account: AccountRecord) -> Nanos:
        """When the account's session told last; 0 where it has not."""
        view = self.portfolios.get(account.user)
        return view.at if view is not None and self.told_of(account) is not None else Nanos(0)

    def is_quiet(self, account: AccountRecord) -> bool:
        """Whether the account's session has told nothing for so long that what it said is not known any more."""
        return self.at - self.told_at(account) > QUIET_NS

    def is_missed(self, account: AccountRecord) -> bool:
        """Whether the account belongs in the sums and its figures are not known: also where it is switched off, if it
        holds something still."""
        count = self.open.get(account.id)
        return (account.enabled or (count is not None and count.is_exposed)) and self.use_of(account) is None

    def use_of(self, account: AccountRecord) -> LevelUse | None:
        """What is in use of the account's level; None where it is not known now."""
        told = self.told_of(account)
        if told is None or self.is_quiet(account) or self.risk is None or self.at - self.risk.at > QUIET_NS:
            return None
        scope = account_scope(account.id)
        if (use := self.uses().get(scope)) is not None:
            return use
        # Of an account in which nothing has happened central risk says nothing.
        nothing = not (told.profit or told.gross_exposure or told.open_orders)
        return LevelUse(scope=scope, gross=ZERO, net=ZERO, profit=ZERO) if nothing else None

    def equity_of(self, account: AccountRecord) -> Decimal | None:
        """Cash and what is held at its marks; None where the cash is not known, or the mark of something held."""
        told, view = self.told_of(account), self.portfolios.get(account.user)
        if told is None or told.cash is None or view is None or self.is_quiet(account):
            return None
        mine = [held for held in view.positions if held.account == account.id and held.quantity]
        if any(held.mark is None for held in mine):
            return None
        return told.cash + sum((held.exposure for held in mine), ZERO)

    def old_marks(self, account: AccountRecord) -> int:
        """Of how many instruments that it holds the market has told no price for `OLD_MARK_NS`."""
        view = self.portfolios.get(account.user)
        held = [each for each in view.positions if each.account == account.id and each.quantity] if view else []
        return sum(1 for each in held if self.at - each.mark_at > OLD_MARK_NS)

    def uses(self) -> dict[str, LevelUse]:
        """Use of whole levels, by scope."""
        if self.risk is None:
            return {}
        return {use.scope: use for use in self.risk.levels if not use.instrument}

    def gross_limits(self) -> dict[str, Decimal]:
        """The limits of gross exposure that are in force, by scope."""
        return {
            each.scope: each.value
            for each in self.limits
            if each.kind == GROSS_EXPOSURE and not each.instrument and each.value is not None
        }


class Sources(Hearsay, Protocol):
    """Where it is read."""

    database: Database
    desired: Desired
    kills: Kills
    hot: Hot


class Glance:
    """Reads it when somebody looks and the last reading is not fresh any more."""

    def __init__(self, deck: Sources) -> None:
        self._deck = deck
        self._seen: tuple[float, Seen] | None = None
        self._reading: asyncio.Task[Seen] | None = None
        self._currencies: tuple[float, dict[str, frozenset[str]]] | None = None

    async def seen(self) -> Seen:
        """The present reading; all who ask meanwhile wait for the same one.  `NotReady` without PostgreSQL."""
        if self._seen is not None and time.monotonic() - self._seen[0] < FRESH_S:
            return self._seen[1]
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read(), name="glance")
        # One asker's end must not end the reading of the others.
        return await asyncio.shield(self._reading)

    async def close(self) -> None:
        """End what is under way."""
        if self._reading is not None and not self._reading.done():
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def _read(self) -> Seen:
        deck = self._deck
        began, at = time.monotonic(), Nanos(time.time_ns())
        hot = await self._hot(at)
        nodes = await deck.desired.nodes()
        counts = await open_by_account(deck.database)
        seen = Seen(
            at=at,
            accounts=await deck.desired.accounts(),
            algos=await deck.desired.algos(),
            feeds=await deck.desired.feeds(),
            machines=await see(deck, nodes) if nodes else [],
            kills=[kill for kill in await deck.kills.in_force() if not kill.of_stop],
            limits=await deck.desired.limits(),
            open=counts,
            currencies=await self._currencies_now(began),
            **hot,
        )
        self._seen = (began, seen)
        return seen

    async def _currencies_now(self, now: float) -> dict[str, frozenset[str]]:
        if self._currencies is None or now - self._currencies[0] >= CURRENCIES_S:
            self._currencies = (now, await currencies_by_scope(self._deck.database))
        return self._currencies[1]

    async def _hot(self, at: Nanos) -> dict[str, Any]:
        """What lies in Redis; without it the rest is shown, and the trouble."""
        hot = self._deck.hot
        try:
            portfolios = await hot.scan("portfolio:", PortfolioTold)
            heat = await hot.scan("heat:", tuple[RiskCell, ...])
            workers = await hot.scan("worker:", WorkerTold)
            risk = await hot.get("risk", RiskTold)
        except (NotReady, NeedsOperator) as error:
            return {"portfolios": {}, "cells": {}, "workers": {}, "risk": None, "trouble": str(error)}
        by_feed: dict[str, list[WorkerTold]] = {}
        for key, worker in workers.items():
            by_feed.setdefault(key.split(":", 2)[1], []).append(worker)
        return {
            "portfolios": {view.user: view for view in portfolios.values()},
            "cells": {key.partition(":")[2]: cells for key, cells in heat.items()},
            "workers": by_feed,
            "risk": risk,
            "trouble": "" if risk is not None and at - risk.at <= QUIET_NS else "central risk has told nothing lately",
        }


class Answers:
    """Answers made from one reading, by who asked: a panel that asks again meanwhile costs nothing."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[object, ...], tuple[int, bytes]] = OrderedDict()

    def get(self, who: tuple[object, ...], at: int) -> bytes | None:
        """The answer that was made from the reading of ``at``."""
        made = self._made.get(who)
        return made[1] if made is not None and made[0] == at else None

    def keep(self, who: tuple[object, ...], at: int, answer: bytes) -> None:
        """Remember one, in place of the oldest where there are many."""
        self._made.pop(who, None)
        while len(self._made) >= _MOST_REMEMBERED:
            self._made.popitem(last=False)
        self._made[who] = (at, answer)


def share(used: Decimal | None, of: Decimal | None) -> float | None:
    """``used`` as a part of ``of``; None where one is not known or there is nothing to be a part of."""
    return None if used is None or of is None or of <= 0 else round(float(used / of), 6)

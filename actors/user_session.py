"""A user's session: the shell around `trading.session.SessionCore`.

It decides nothing.  It loads the journal, takes an epoch, feeds events and the clock into the core and carries
out what the core says: append, send, report, ask for budget, reply, tell.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from actors.day_reports import DayReports
from actors.hours import sessions_of
from actors.incarnations import Incarnations
from actors.notes import NotePage, NoteRings
from actors.session_kills import SessionKills
from actors.session_memory import Memory, memory_of
from actors.shell import patiently
from cluster import names
from cluster.calls import Peer, pack
from cluster.process import now
from cluster.specs import DECK_SETTINGS
from connectors.registry import capabilities
from storage.crash_points import CrashPoint, crash_here
from storage.days import Days
from storage.desired import Desired
from storage.instruments import Instruments
from storage.leases import Leases
from storage.open_counts import exposed_among
from storage.reconciliations import Reconciliations
from storage.records import AccountRecord, OrderFilter
from trading.account_book import AccountBook, CashSlack
from trading.account_check import AccountCheck
from trading.errors import Fenced, Refused, TradeError, UnknownThing
from trading.ids import AccountId, AlgoId, Epoch, Nanos
from trading.journal import Break, Settlement
from trading.limits import MARKET_HOURS, account_scope, algo_scope, user_scope
from trading.orders import CancelOrder, ModifyOrder, Order, PlaceOrder
from trading.session import SessionCore

log = logging.getLogger("quarterdeck")

LEASE_S = 10.0
#: Orders that ended this long ago are read back at the start, for de-duplication and late messages.
HISTORY_NS = 24 * 3600 * 1_000_000_000
#: The day's profits are written this often.
DAYS_EVERY_NS = 5_000_000_000


class UserSession(SessionKills):
    """All trading of one user."""

    def __init__(self, user: str) -> None:
        super().__init__(user)
        self.leases = Leases(self.database)
        self.desired = Desired(self.database)
        self.instruments = Instruments(self.database)
        self.days = Days(self.database)
        self.day_reports = DayReports(self.journal, Reconciliations(self.database), self.name)
        self._incarnations = Incarnations()
        self._pollers: dict[AccountId, asyncio.Task[None]] = {}
        self._blocked: dict[str, int] = {}
        self._days_saved_at = Nanos(0)
        self._began = False

    # Life

    async def start(self) -> None:
        """Take an epoch, load every account, begin to beat."""
        await self.database.open()
        epoch = await self.leases.take(self.name, self.deck.node, LEASE_S)
        crash_here(CrashPoint.SESSION_EPOCH_TAKEN)
        core = SessionCore(self.user, epoch)
        self.epoch, self.notes = epoch, NoteRings(epoch)
        core.days.restore(await self.days.load([user_scope(self.user)]))
        await self._hear_epochs()
        self.core = core
        for poller in self._pollers.values():
            poller.cancel()
        await self._take_accounts()
        # Before anything new is taken: a kill that was thrown while no session ran holds too.
        await self._heed_kills()
        if not self._began:
            self._began = True
            self.spawn(self._clock(), "clock")
            self.spawn(self._renew(), "lease")
            self.spawn(self._read_marks(), "marks")
            self.spawn(patiently("days", self._save_days, every=1.0), "days")
            self.spawn(patiently("kills", self._heed_kills, every=2.0), "kills")
            self.spawn(patiently("epochs", self._hear_epochs, every=2.0), "epochs")
            self.spawn(patiently("hours", self._read_hours, every=2.0), "hours")
            self.spawn(patiently("portfolio", self._publish_portfolio, every=0.5), "portfolio")
            self.spawn(patiently("day reports", self._report_days, every=20.0), "day reports")

    async def _hear_epochs(self) -> None:
        """Which incarnations are the newest, also where none of them will begin: an algo was fenced and waits."""
        self._incarnations.know(await self.desired.algo_epochs(self.user))

    async def refresh(self) -> None:
        """Accounts or instruments changed: take up what is new, and what was switched on or off."""
        self.require_ready()
        await self._take_accounts()

    async def _take_accounts(self) -> None:
        core = self._core()
        instruments = await self.instruments.all()
        core.instruments.update({i.id: i for i in instruments})
        self.marks.know(instruments)
        mine = [account for account in await self.desired.accounts() if account.user == self.user]
        off = [account.id for account in mine if not account.enabled and account.id not in core.accounts]
        # What is held is at risk whether its account may trade or not.
        exposed = await exposed_among(self.database, off) if off else set[AccountId]()
        for account in mine:
            if account.id not in core.accounts and (account.enabled or account.id in exposed):
                await self._take_account(core, account)
        enabled = {account.id for account in mine if account.enabled}
        for known in list(core.accounts.values()):
            if known.disabled != (known.account not in enabled):
                self._do(core.switch(known.account, known.account in enabled, now()))

    async def _take_account(self, core: SessionCore, account: AccountRecord) -> None:
        own = {k: v for k, v in account.settings.items() if k not in DECK_SETTINGS}
        try:
            can = capabilities(account.connector, own)
        except Refused as error:
            # Its settings were good for another release; the user's other accounts must not wait for it.
            log.error("account %s cannot be taken up: %s", account.id, error)
            return
        history = await self.journal.load(account.id, Nanos(now() - HISTORY_NS))
        algos = {position.algo for position in history.algo_positions if position.algo is not None}
        scopes = [account_scope(account.id), *(algo_scope(algo) for algo in algos)]
        core.days.restore(await self.days.load(scopes))
        late = int(float(account.settings.get("late_arrival_s", can.late_arrival_s)) * 1e9)
        self.connections[account.id] = Peer(names.connection(account.id))
        self._do(core.add_account(history, late, now(), can))
        _set_pace(core.accounts[account.id], account.settings)
        self.day_reports.accounts[account.id] = (account.created_at, float(account.settings.get("day_starts_at_h", 0)))
        self._pollers[account.id] = self.spawn(self._poll(account.id), f"updates of {account.id}")

    async def _save_days(self) -> None:
        """Keep the day's profits, so that a restart forgets no loss; what is newly blocked at once."""
        core = self._core()
        blocked = {scope: len(found) for scope, found in core.blocked.items()}
        if blocked == self._blocked and now() - self._days_saved_at < DAYS_EVERY_NS:
            return
        changed = core.days.take_unsaved()
        if changed:
            try:
                await self.days.save(self.name, self.epoch, changed)
            except TradeError:
                core.days.not_saved(changed)
                raise
        self._blocked, self._days_saved_at = blocked, now()

    async def _read_hours(self) -> None:
        """Get the opening hours that limits ask for."""
        core = self._core()
        if not any(limit.kind == MARKET_HOURS for limit in core.purse.limits.all()):
            return
        for calendar in sorted({each.calendar for each in core.instruments.values()} - {"24x7"}):
            known = core.calendars.get(calendar)
            if known is None or not known.covers(now()):
                core.calendars[calendar] = await sessions_of(calendar)

    async def _renew(self) -> None:
        """Renew the lease; what cannot be renewed must go quiet before it ends."""
        last = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(LEASE_S / 5)
            try:
                await self.leases.renew(self.name, Epoch(self.epoch), LEASE_S)
                last = asyncio.get_running_loop().time()
            except Fenced:
                raise
            except TradeError as error:
                # Without the journal nothing new is sent anyhow; exits still may, so the process stays.
                if asyncio.get_running_loop().time() - last > LEASE_S:
                    log.warning("the lease could not be renewed: %s", error)

    async def _clock(self) -> None:
        while True:
            core = self._core()
            core_marks = self.marks.changes({instrument for _, instrument in core.exposure.lines()})
            if core_marks:
                self._do(core.set_marks(core_marks, now(), self.marks.heard(core_marks)))
            self._do(core.clock(now()))
            await asyncio.sleep(0.1)

    def facts(self) -> dict[str, Any]:
        core = self.core
        if core is None:
            return {}
        return {
            "accounts": {
                book.account: {
                    "connected": book.connected,
                    "reconciled": book.reconciled,
                    "open_orders": len(book.open),
                    "breaks": len(book.breaks),
                }
                for book in list(core.accounts.values())
            },
            "journal_is_away": core.journal_is_away,
            "refused_moves": core.refused_moves,
        }

    # What others call

    async def place(self, intents: Sequence[PlaceOrder], epoch: int | None = None) -> tuple[Order | TradeError, ...]:
        """Take intents; the answer comes once each is journaled (or refused).

        ``epoch``: of the algo's incarnation that asks; `Fenced` where a newer one has begun.  None: a person asks.
        """
        core = self._ready_core()
        if epoch is not None:
            self._incarnations.check((intent.algo for intent in intents), epoch)
        for intent in intents:
            if intent.instrument not in core.exposure.quoted and (price := self.marks.price(intent.instrument)):
                self._do(core.set_marks({intent.instrument: price}, now(), self.marks.heard([intent.instrument])))
        return pack(await self._command(lambda token: core.place(token, intents, now())))

    async def modify(self, change: ModifyOrder, epoch: int | None = None, algo: str = "") -> Order | TradeError:
        """Change an open order; ``epoch`` as for `place`, of ``algo``."""
        core = self._ready_core()
        if epoch is not None:
            self._incarnations.check([AlgoId(algo)], epoch)
        return (await self._command(lambda token: core.modify(token, change, now())))[0]

    async def cancel(
        self, cancels: Sequence[CancelOrder], epoch: int | None = None, algo: str = ""
    ) -> tuple[Order | TradeError, ...]:
        """Take open orders back; ``epoch`` as for `place`, of ``algo``."""
        core = self._ready_core()
        if epoch is not None:
            self._incarnations.check([AlgoId(algo)], epoch)
        return pack(await self._command(lambda token: core.cancel(token, cancels, now())))

    async def cancel_all(self, account: str, algo: str | None, cause: str) -> tuple[Order | TradeError, ...]:
        """Cancel every open order of an account, or of one algo in it."""
        core = self._ready_core()
        return await self._command(
            lambda token: core.cancel_all(token, AccountId(account), now(), algo=algo, cause=cause)
        )

    async def settle_break(
        self, account: str, break_id: str, how: str, by: str, note: str, seen: tuple[str, str]
    ) -> Break:
        """Accept or explain a break (see `SessionCore.settle_break`); answers once it is journaled."""
        core = self._ready_core()
        result: Break | TradeError = await self._answer_to(
            lambda token: core.settle_break(
                token, AccountId(account), break_id, Settlement(how), by, note, (seen[0], seen[1]), now()
            )
        )
        if isinstance(result, TradeError):
            raise result
        return result

    async def reconcile(self, account: str) -> AccountCheck:
        """Compare an account with its broker now."""
        core = self._ready_core()
        result: AccountCheck | TradeError = await self._answer_to(
            lambda token: core.reconcile(token, AccountId(account), now())
        )
        if isinstance(result, TradeError):
            raise result
        return result

    async def read_notes(self, account: str, algo: str, epoch: int, cursor: int, wait_s: float) -> NotePage:
        """Changes of an algo's orders after ``cursor``; waits for the first."""
        core = self._ready_core()
        book = core.accounts.get(AccountId(account))
        mine = tuple(o for o in book.open.values() if o.algo == algo) if book is not None else ()
        return await self.notes.read(AlgoId(algo), Epoch(epoch), cursor, mine, wait_s)

    async def memory(self, account: str) -> Memory:
        """What the session holds of an account: for looking into a session from outside.  Raises `UnknownThing`."""
        core = self._ready_core()
        book = core.accounts.get(AccountId(account))
        if book is None:
            raise UnknownThing("account", account, f"of user {self.user}")
        return memory_of(book, self.epoch, now())

    async def begin_algo(self, account: str, algo: str, epoch: int) -> int:
        """An incarnation of an algo begins; what those before it ask for is refused from now on.

        Returns the highest n of the keys ``<algo>-<n>`` that this algo ever used (0: none): those in the journal, and
        those on their way there, which the incarnation before asked for a moment ago.
        """
        core = self._ready_core()
        self._incarnations.begin(AlgoId(algo), epoch)
        newest, _ = await self.journal.orders(OrderFilter(account=AccountId(account), algo=AlgoId(algo)), limit=200)
        keys = [order.client_order_id for order in newest] + core.keys_of(AccountId(account), AlgoId(algo))
        prefix = f"{algo}-"
        numbers = [key[len(prefix) :] for key in keys if key.startswith(prefix)]
        return max((int(n) for n in numbers if n.isdecimal()), default=0)

    async def _report_days(self) -> None:
        await self.day_reports.make_due(self._core(), self.epoch, self.connections)


def _set_pace(book: AccountBook, settings: Mapping[str, Any]) -> None:
    """How often which part of an account is compared, and how far cash may be apart."""

    def nanos(*names: str) -> int:
        given = [float(settings[name]) for name in names if settings.get(name)]
        return int(min(given) * 1e9) if given else 0

    # An order's state and its executions mean nothing without each other: both are compared at the shorter interval.
    every = nanos("reconcile_orders_s", "reconcile_executions_s") or nanos("reconcile_every_s")
    book.reconcile_every_ns = every or book.reconcile_every_ns
    book.positions_every_ns = nanos("reconcile_positions_s")
    book.cash_every_ns = nanos("reconcile_cash_s")
    if (slack := settings.get("cash_tolerance")) is not None:
        book.cash_slack = CashSlack(amount=Decimal(str(slack)))

"""One account's connection to its broker: the shell around `trading.connection.ConnectionCore`.

Log-in, order stream, rate budget, fencing of sessions.  It keeps no orders: the session does, and the broker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from actors.shell import Shell, listen
from cluster import names, streams
from cluster.calls import pack
from cluster.process import end, now
from cluster.specs import DECK_SETTINGS
from connectors.base import Broker
from connectors.paper.broker import PaperBroker
from connectors.registry import broker, secrets_of
from storage.bus import Bus
from storage.crash_points import CrashPoint, crash_here, trace
from storage.desired import Desired
from storage.instruments import Instruments
from storage.journal import Journal
from storage.leases import Leases
from storage.paper_ledger import PaperLedger
from storage.records import AccountRecord, OrderFilter
from storage.secrets import Secrets, load_key
from trading.broker import AmendTicket, Answer, BrokerReport, BrokerUpdate, CancelTicket, OrderTicket, Verdict
from trading.connection import ConnectionCore, UpdatePage
from trading.errors import Fenced, NotReady, TradeError
from trading.histogram import Histogram
from trading.ids import AccountId, Epoch, InstrumentId, Nanos
from trading.instructions import Lane
from trading.instruments import Instrument
from trading.orders import OrderState
from trading.throttle import RateBudget
from trading.ticks import QUOTE, Senders, decode, unpack_batch

log = logging.getLogger("quarterdeck")

_OPEN = tuple(state for state in OrderState if not state.is_final)
LEASE_S = 10.0
#: An order that would have to wait longer than this for its turn is not sent.
MAX_WAIT_S = 2.0
_POINTS = {
    Lane.PLACE: (CrashPoint.CONNECTION_BEFORE_PLACE, CrashPoint.CONNECTION_AFTER_PLACE),
    Lane.MODIFY: (CrashPoint.CONNECTION_BEFORE_MODIFY, CrashPoint.CONNECTION_AFTER_MODIFY),
    Lane.CANCEL: (CrashPoint.CONNECTION_BEFORE_CANCEL, CrashPoint.CONNECTION_AFTER_CANCEL),
}


class BrokerConnection(Shell):
    """The one authenticated connection of an account."""

    def __init__(self, account: str) -> None:
        self.account = AccountId(account)
        self.core: ConnectionCore | None = None
        self.broker: Broker | None = None
        super().__init__(names.connection(account))
        self.bus = Bus(self.deck.redis_url)
        self.leases = Leases(self.database)
        self.desired = Desired(self.database)
        self.instruments = Instruments(self.database)
        self._listed: dict[InstrumentId, Instrument] = {}
        self._logged_in_with: dict[str, str] = {}
        self._news = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []
        self.sent = 0
        #: How often the order stream was lost.
        self.losses = 0
        #: From an author's decision to the moment the broker's wire is written (clocks of two machines may differ).
        self.intent_to_wire = Histogram()

    async def start(self) -> None:
        """Take an epoch, log in, open the order stream."""
        await self.database.open()
        account = await self.desired.account(self.account)
        asked_at = time.monotonic_ns()
        self.epoch = await self.leases.take(self.name, self.deck.node, LEASE_S)
        crash_here(CrashPoint.CONNECTION_EPOCH_TAKEN)
        session_epoch = await self.leases.current(names.session(account.user))
        await self._learn()
        self._logged_in_with = await self._credentials(account)
        made = broker(
            account.connector,
            account.id,
            {k: v for k, v in account.settings.items() if k not in DECK_SETTINGS},
            self._listed,
            PaperLedger(self.database),
            Epoch(self.epoch),
            now,
            self._logged_in_with,
        )
        core = ConnectionCore(Epoch(self.epoch), session_epoch, _budget(account, made))
        core.owned(asked_at, asked_at + int(LEASE_S * 1e9))
        made.expect(await self._open_tags())
        await made.connect()
        crash_here(CrashPoint.CONNECTION_LOGGED_IN)
        self.core, self.broker = core, made
        core.connected = True
        for task in self._running:
            task.cancel()
        self._running = [self.spawn(self._read(made, core), "updates"), self.spawn(self._renew(core), "lease")]
        self._running.append(self.spawn(self._beat_core(core), "stalls"))
        if isinstance(made, PaperBroker):
            feeds = [str(account.settings["feed"])] if account.settings.get("feed") else []
            self._running.append(self.spawn(self._price(made, feeds), "prices"))

    async def _credentials(self, account: AccountRecord) -> dict[str, str]:
        if not secrets_of(account.connector):
            return {}
        return await Secrets(self.database, load_key(self.deck.home)).log_in(account.id)

    async def _open_tags(self) -> list[str]:
        """Tags of the orders that the journal has as open: what became of them must show in the first report."""
        journal, tags, cursor = Journal(self.database), list[str](), None
        filters = OrderFilter(account=self.account, states=_OPEN)
        while True:
            page, cursor = await journal.orders(filters, cursor, 1000)
            tags += [order.tag for order in page]
            if cursor is None:
                return tags

    async def finish(self) -> None:
        """Close the sockets; open orders stay at the broker."""
        if self.broker is not None:
            await self.broker.close()

    async def _renew(self, core: ConnectionCore) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 5)
            await self._renew_once(core)

    async def _renew_once(self, core: ConnectionCore) -> None:
        asked_at = time.monotonic_ns()
        try:
            await self.leases.renew(self.name, Epoch(self.epoch), LEASE_S)
        except Fenced:
            raise
        except TradeError as error:
            core.unowned()
            log.info("the lease could not be renewed: %s", error)
        else:
            # Counted from the question: the database may have answered it long before we hear it.
            core.owned(asked_at, asked_at + int(LEASE_S * 1e9))

    async def _beat_core(self, core: ConnectionCore) -> None:
        while True:
            core.beat(time.monotonic_ns())
            await asyncio.sleep(0.25)

    async def refresh(self) -> None:
        """Instruments or credentials changed: learn the new ones."""
        self.require_ready()
        await self._learn()
        account = await self.desired.account(self.account)
        if await self._credentials(account) != self._logged_in_with:
            end("the account's credentials have changed; logging in with the new ones", 1)

    async def _learn(self) -> None:
        # Updated in place: the broker holds this very mapping.
        self._listed.update({i.id: i for i in await self.instruments.all()})

    # What the session calls

    async def send(
        self, session_epoch: int, lane: str, tickets: Sequence[OrderTicket | AmendTicket | CancelTicket], until: int
    ) -> list[Answer]:
        """Hand tickets to the broker; raises `Fenced` to an old session, `NotReady` while not logged in.

        Entries that have not gone out by ``until`` (UTC ns) are refused: their session has given them up.
        """
        core, made = self._ready()
        kind = Lane(lane)
        before, after = _POINTS[kind]
        answers: list[Answer] = []
        last_start = asyncio.get_running_loop().time() + MAX_WAIT_S
        # In pieces that the rate budget can pay at once, so that exits find something left between them, and what can
        # go does not wait for what cannot.
        start = 0
        while start < len(tickets):
            piece = tickets[start : start + core.budget.largest]
            piece = piece[: max(1, core.payable(kind, now(), reduces=_only_reduce(piece)))]
            wait = await self._take_turn(core, kind, piece, last_start)
            crash_here(before)
            if core.must_ask(time.monotonic_ns()):
                try:
                    await self._renew_once(core)
                except Fenced as error:
                    # It is this copy that is old, not the session that asks.
                    end(str(error))
            # Again after the wait: another session, or another copy of this, may have taken over meanwhile.
            core.admit(Epoch(session_epoch))
            reason = core.why_not_send(kind, time.monotonic_ns(), Nanos(until), now())
            if wait:
                reason = f"not sent: the broker's rate limit for {self.account} is used up for {wait:.1f} s"
            if reason:
                # A cancel is not given up: without a clear answer its session repeats it.
                verdict = Verdict.UNKNOWN if kind is Lane.CANCEL else Verdict.REJECTED
                answers += [Answer(tag=t.tag, verdict=verdict, reason=reason) for t in tickets[start:]]
                break
            answers += await self._hand_over(made, session_epoch, kind, piece)
            start += len(piece)
            crash_here(after)
        return pack(answers)

    async def _take_turn(
        self,
        core: ConnectionCore,
        kind: Lane,
        tickets: Sequence[OrderTicket | AmendTicket | CancelTicket],
        last_start: float,
    ) -> float:
        """Wait for the rate budget; returns 0, or the seconds still to wait where that is too long for an entry."""
        while wait := core.pace(kind, len(tickets), now(), reduces=_only_reduce(tickets)):
            if kind is not Lane.CANCEL and asyncio.get_running_loop().time() + wait > last_start:
                return wait
            await asyncio.sleep(wait)
        return 0.0

    async def _hand_over(
        self,
        made: Broker,
        session_epoch: int,
        kind: Lane,
        tickets: Sequence[OrderTicket | AmendTicket | CancelTicket],
    ) -> list[Answer]:
        self.sent += len(tickets)
        trace(
            "broker_call",
            account=self.account,
            lane=kind,
            session_epoch=session_epoch,
            connection_epoch=self.epoch,
            tickets=tickets,
        )
        match kind:
            case Lane.PLACE:
                orders = [t for t in tickets if isinstance(t, OrderTicket)]
                at = now()
                for order in orders:
                    if order.created_at:
                        self.intent_to_wire.add(at - order.created_at)
                return await made.place(orders)
            case Lane.MODIFY:
                return await made.modify([t for t in tickets if isinstance(t, AmendTicket)])
            case Lane.CANCEL:
                return await made.cancel([t for t in tickets if isinstance(t, CancelTicket)])

    async def report(self, session_epoch: int, since: int) -> BrokerReport:
        """The broker's whole view; ended orders and executions before ``since`` are left out.

        Raises `Fenced` to an old session: what the view lacks must not be on its way from there any more.
        """
        core, made = self._ready()
        core.admit(Epoch(session_epoch))
        report = await made.report(Nanos(since))
        crash_here(CrashPoint.CONNECTION_REPORT_RECEIVED)
        return msgspec.structs.replace(
            report,
            orders=tuple(o for o in report.orders if not o.state.is_final or o.at >= since),
            fills=tuple(f for f in report.fills if f.fill.at >= since),
        )

    async def report_day(self, session_epoch: int, since: int) -> BrokerReport:
        """As `report`, for a look that the session's books do not take in.

        What has ended and the journal still has as open must show in the next report all the same.
        """
        open_here = set(await self._open_tags())
        report = await self.report(session_epoch, since)
        _, made = self._ready()
        made.expect([order.tag for order in report.orders if order.state.is_final and order.tag in open_here])
        return report

    async def updates(self, session_epoch: int, epoch: int, cursor: int, wait_s: float) -> UpdatePage:
        """Updates after a cursor, waiting up to ``wait_s`` for the first."""
        core, _ = self._ready()
        core.admit(Epoch(session_epoch))
        if epoch == core.epoch and cursor == core.cursor and core.connected:
            self._news.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                pass
        page = core.read(Epoch(epoch), cursor)
        if page.updates:
            crash_here(CrashPoint.CONNECTION_BEFORE_UPDATES)
        return page

    def _ready(self) -> tuple[ConnectionCore, Broker]:
        self.require_ready()
        if self.core is None or self.broker is None:
            raise NotReady(f"{self.name} is not logged in", 1.0)
        return self.core, self.broker

    # What the broker says

    async def _read(self, made: Broker, core: ConnectionCore) -> None:
        async for heard in made.updates():
            if isinstance(heard, BrokerUpdate):
                core.take((heard,))
                crash_here(CrashPoint.CONNECTION_UPDATE_RECEIVED)
            elif heard.is_up:
                core.connected = True
            else:
                core.lost()
                self.losses += 1
            self._news.set()

    async def _price(self, made: PaperBroker, feeds: list[str]) -> None:
        """Give a paper broker its market: the ticks of its feed."""
        patterns = [] if feeds else [streams.ticks("*")]
        subscription = await listen(self.bus, [streams.ticks(feed) for feed in feeds], patterns)
        await self._show_last_quotes(made, feeds)
        senders: dict[str, Senders] = {}
        async for channel, raw in subscription:
            if not channel:
                continue
            epoch, sequence, shard, ticks = unpack_batch(raw)
            # A second copy of a worker would print every trade twice.
            if senders.setdefault(channel, Senders()).missed(epoch, sequence, shard) is not None:
                made.on_ticks(ticks)

    async def _show_last_quotes(self, made: PaperBroker, feeds: list[str]) -> None:
        """Where the market stood before the first tick comes; quotes only, for a last trade is no new print."""
        for feed in feeds or [""]:
            try:
                known = await self.hot.scan(streams.last(feed), bytes)
            except NotReady as error:
                log.info("no last quotes: %s", error)
                return
            for raw in known.values():
                rows = decode(raw).copy()
                rows["flags"] &= QUOTE
                made.on_ticks(rows[rows["flags"] != 0])

    def facts(self) -> dict[str, Any]:
        core = self.core
        if core is None:
            return {}
        return {
            "connected": core.connected,
            "updates": core.cursor,
            "sent": self.sent,
            "losses": self.losses,
            "fenced": core.fenced,
            "intent_to_wire": self.intent_to_wire.counts(),
        }


def _budget(account: AccountRecord, made: Broker) -> RateBudget:
    """The order rate of the account's settings, else of its broker; a fifth of it is kept for exits."""
    given = account.settings.get("orders_per_s")
    if given is not None:
        per_s = float(given)
        return RateBudget(per_s, burst=max(10, int(per_s)), reserve=max(1, int(per_s // 5)))
    can = made.capabilities
    return RateBudget(can.orders_per_s, burst=can.order_burst, reserve=max(1, can.order_burst // 5))


def _only_reduce(tickets: Sequence[OrderTicket | AmendTicket | CancelTicket]) -> bool:
    """Whether they can only make positions smaller."""
    return all(isinstance(ticket, OrderTicket) and ticket.reduce_only for ticket in tickets)

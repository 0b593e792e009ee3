"""What a session's core says, carried out: append, send, report, ask for budget, answer, tell; and what comes in.

It decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from actors.marks import Marks
from actors.notes import NoteRings
from actors.shell import Shell, listen
from cluster import names, streams
from cluster.calls import Peer
from cluster.process import end, now
from storage.bus import Bus
from storage.crash_points import CrashPoint, crash_here
from storage.journal import Journal, PreparedBatch
from trading.broker import Answer, BrokerReport, Verdict
from trading.connection import UpdatePage
from trading.errors import Conflict, Fenced, NotReady, TradeError, Unreachable
from trading.heat import cells_of
from trading.ids import AccountId, ClientOrderId, Epoch, Nanos, UserId
from trading.instructions import (
    Append,
    AskBudget,
    AskReport,
    Checked,
    Instruction,
    Note,
    Reply,
    Send,
    Settled,
    Tell,
    Wake,
)
from trading.orders import Order
from trading.portfolio import Portfolio, portfolio
from trading.session import SessionCore
from trading.ticks import decode

log = logging.getLogger("quarterdeck")

SEND_TIMEOUT_S = 10.0
#: The panel hears of an order's changes so much later.
PUBLISH_AFTER_S = 0.02
#: A portfolio that has not changed is told again after so long.
TELL_EVERY_NS = 2_000_000_000


class SessionIO(Shell):
    """A session towards the world: the journal, the connections, central risk, the bus."""

    def __init__(self, user: str) -> None:
        self.user = UserId(user)
        self.core: SessionCore | None = None
        super().__init__(names.session(user))
        self.bus = Bus(self.deck.redis_url)
        self.journal = Journal(self.database)
        self.marks = Marks()
        self.notes = NoteRings(Epoch(0))
        self.risk = Peer(names.risk())
        self.connections: dict[AccountId, Peer] = {}
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._token = 0
        self._told: Portfolio | None = None
        self._untold: list[Note] = []

    # Carrying out

    def _core(self) -> SessionCore:
        if self.core is None:
            raise NotReady(f"{self.name} is loading the journal", 1.0)
        return self.core

    def _ready_core(self) -> SessionCore:
        self.require_ready()
        return self._core()

    async def _command(self, act: Callable[[int], list[Instruction]]) -> tuple[Order | TradeError, ...]:
        results: tuple[Order | TradeError, ...] = await self._answer_to(act)
        return results

    async def _answer_to(self, act: Callable[[int], list[Instruction]]) -> Any:
        """Give the core a command and wait for what it answers to its token."""
        self._token += 1
        token = self._token
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._replies[token] = reply
        try:
            self._do(act(token))
            results = await reply
            crash_here(CrashPoint.SESSION_BEFORE_REPLY)
            return results
        finally:
            del self._replies[token]

    def _do(self, instructions: Sequence[Instruction]) -> None:
        # What the broker or the journal waits for goes before what only has to be told.
        for instruction in sorted(instructions, key=lambda each: not isinstance(each, Send | Append)):
            match instruction:
                case Send():
                    self.spawn(self._send(instruction), "send")
                case Append(number, batch):
                    self.spawn(self._append(number, self.journal.prepare(batch)), "append")
                case Wake(at):
                    self.spawn(self._wake(at), "wake")
                case Reply(token, result) | Settled(token, result) | Checked(token, result):
                    reply = self._replies.get(token)
                    if reply is not None and not reply.done():
                        reply.set_result(result)
                case Tell(notes):
                    self.notes.add(notes)
                    if not self._untold:
                        self.spawn(self._publish_soon(), "publish")
                    self._untold += notes
                case AskBudget():
                    self.spawn(self._ask_budget(instruction), "budget")
                case AskReport():
                    self.spawn(self._report(instruction), "report")

    async def _append(self, number: int, batch: PreparedBatch) -> None:
        core = self._core()
        while True:
            crash_here(CrashPoint.SESSION_BEFORE_APPEND)
            try:
                await self.journal.append(self.name, self.epoch, number, batch)
            except (NotReady, Unreachable) as error:
                if not core.journal_is_away:
                    log.warning("the journal is away: %s", error)
                    core.journal_is_away = True
                await asyncio.sleep(0.3)
            except Conflict as error:
                if error.code != "order_exists":
                    end(f"the journal refuses batch {number}: {error}; reading it again", 1)
                known = await self._known_orders(batch)
                self._do(core.append_refused(number, known, now()))
                return
            else:
                break
        crash_here(CrashPoint.SESSION_AFTER_APPEND)
        if core.journal_is_away:
            log.info("the journal is back")
            core.journal_is_away = False
        self._do(core.appended(number, now()))

    async def _wake(self, at: Nanos) -> None:
        core = self._core()
        await asyncio.sleep((at - now()) / 1e9)
        self._do(core.wake(now()))

    async def _known_orders(self, batch: PreparedBatch) -> dict[tuple[AccountId, ClientOrderId], Order]:
        known = {}
        for account, key in batch.new_keys:
            order = await self.journal.order(account, key)
            if order is not None:
                known[(account, key)] = order
        return known

    async def _send(self, send: Send) -> None:
        answers: Sequence[Answer]
        lost = False
        crash_here(CrashPoint.SESSION_BEFORE_SEND)
        try:
            answers = await self.connections[send.account].call(
                "send", self.epoch, str(send.lane), send.tickets, send.until, timeout=SEND_TIMEOUT_S
            )
        except Fenced as error:
            end(str(error))
        except NotReady as error:
            answers = _all(send, Verdict.REJECTED, f"not sent: {error}")
        except TradeError as error:
            answers, lost = _all(send, Verdict.UNKNOWN, str(error)), True
        crash_here(CrashPoint.SESSION_AFTER_SEND)
        self._do(self._core().answered(send.account, send.lane, send.number, answers, now(), lost=lost))

    async def _report(self, ask: AskReport) -> None:
        report: BrokerReport | None
        crash_here(CrashPoint.SESSION_BEFORE_REPORT)
        try:
            report = await self.connections[ask.account].call("report", self.epoch, ask.since, timeout=30.0)
        except Fenced as error:
            end(str(error))
        except TradeError as error:
            log.info("no report of %s (%s): %s", ask.account, ask.why, error)
            report = None
        crash_here(CrashPoint.SESSION_REPORT_RECEIVED)
        self._do(self._core().reported(ask.account, report, now()))
        crash_here(CrashPoint.SESSION_REPORT_TAKEN)

    async def _ask_budget(self, ask: AskBudget) -> None:
        core = self._core()
        crash_here(CrashPoint.SESSION_BEFORE_BUDGET)
        try:
            grant = await self.risk.call("report", ask.report, timeout=1.5)
        except Fenced as error:
            end(str(error))
        except TradeError:
            # The core refuses what it has no budget for, with the reason; nothing more to say here.
            self._do(core.budget_failed(now()))
        else:
            crash_here(CrashPoint.SESSION_BUDGET_RECEIVED)
            self._do(core.granted(grant, now()))

    # What comes in

    async def _poll(self, account: AccountId) -> None:
        """Read the connection's updates by cursor, for ever."""
        epoch, cursor, up = 0, 0, False
        while True:
            book = self._core().accounts[account]
            # It may have been switched off, and on again, since.
            up = up and book.connected
            if book.disabled:
                await asyncio.sleep(0.5)
                continue
            try:
                page: UpdatePage = await self.connections[account].call(
                    # While the broker is away its return is what we wait for, and that is no update.
                    *("updates", self.epoch, epoch, cursor, 10.0 if up else 0.0),
                    timeout=15.0,
                )
            except Fenced as error:
                end(str(error))
            except TradeError:
                if up:
                    up = False
                    self._do(self._core().connection(account, False, now()))
                await asyncio.sleep(0.25)
                continue
            if page.gap or not page.connected:
                up = False
                self._do(self._core().connection(account, False, now()))
            if page.updates:
                crash_here(CrashPoint.SESSION_UPDATES_RECEIVED)
                self._do(self._core().updated(account, page.updates, now()))
                crash_here(CrashPoint.SESSION_UPDATES_TAKEN)
            epoch, cursor = page.epoch, page.cursor
            if page.connected and not up:
                up = True
                self._do(self._core().connection(account, True, now()))
            elif not page.connected:
                await asyncio.sleep(0.1)

    async def _read_marks(self) -> None:
        subscription = await listen(self.bus, [], [streams.LAST_OF_ALL])
        try:
            for raw in (await self.hot.scan("last:", bytes)).values():
                self.marks.take(decode(raw))
        except NotReady as error:
            log.info("no last prices to begin with: %s", error)
        async for channel, raw in subscription:
            if channel:
                self.marks.take(decode(raw))

    # What goes out

    async def _publish_soon(self) -> None:
        # The order itself goes first, and what follows at once goes in the same message.
        await asyncio.sleep(PUBLISH_AFTER_S)
        notes, self._untold = self._untold, []
        changes = [
            streams.Change(
                topic="orders",
                key=f"{note.order.account}/{note.order.client_order_id}",
                user=self.user,
                at=note.event.at,
                body={"order": note.order, "event": note.event},
            )
            for note in notes
        ]
        await self._tell_panel(changes)

    async def _publish_portfolio(self) -> None:
        core = self._core()
        view = portfolio(self.user, core.accounts.values(), core.exposure, now(), core.instruments)
        told = self._told
        if told is not None and view.at - told.at < TELL_EVERY_NS and msgspec.structs.replace(view, at=told.at) == told:
            return
        told_now = {f"portfolio:{self.user}": view, f"heat:{self.user}": cells_of(core.exposure)}
        await self.hot.put_many(told_now, ttl_s=3600)
        self._told = view
        await self._tell_panel(
            [streams.Change(topic="portfolio", key=self.user, user=self.user, at=view.at, body=view)]
        )

    async def _tell_panel(self, changes: list[streams.Change]) -> None:
        try:
            await self.bus.publish(streams.CHANGES, streams.encode_changes(changes))
        except NotReady:
            # Without Redis nobody is listening; the journal has it all.
            return


def _all(send: Send, verdict: Verdict, reason: str) -> list[Answer]:
    return [Answer(tag=ticket.tag, verdict=verdict, reason=reason) for ticket in send.tickets]

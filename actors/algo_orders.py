"""An algo's orders: its intents on their way to the user's session, and what comes of them.

Intents go to the user's session under keys that the session de-duplicates, so after an unclear call the same
intent is simply sent again.  One that has stayed unclear too long is not: its market is gone, so its key is
cancelled instead.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from actors.notes import NotePage
from actors.shell import Shell
from cluster import names
from cluster.calls import Peer
from cluster.process import end, now
from storage.crash_points import CrashPoint, crash_here
from storage.journal import Journal
from storage.records import AlgoRecord, FillRecord, OrderFilter
from strategies.runner import LogLine, Output, Runner
from trading.errors import Conflict, Fenced, NotReady, TradeError, UnknownThing, Unreachable
from trading.histogram import Histogram
from trading.ids import AlgoId, ClientOrderId, Nanos
from trading.intent_queue import Intent, IntentQueue
from trading.orders import CancelOrder, EventKind, Order, OrderState, PlaceOrder, order_from

log = logging.getLogger("quarterdeck")

#: An intent without a clear answer for so long is cancelled instead of sent again.
UNCLEAR_NS = 3_000_000_000
#: Pages of fills read back when the session is another incarnation.
MOST_PAGES = 50


class AlgoOrders(Shell):
    """A running algo towards its user's session."""

    def __init__(self, algo: str, epoch: int) -> None:
        self.algo = AlgoId(algo)
        self.record: AlgoRecord | None = None
        self.runner: Runner | None = None
        super().__init__(names.algo(algo, epoch))
        self.epoch = epoch
        self.journal = Journal(self.database)
        self.session = Peer("")
        self._intents = IntentQueue()
        self._has_intents = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lines: deque[LogLine] = deque(maxlen=5_000)
        self._ack_latency = Histogram()
        self._asked_at: dict[ClientOrderId, Nanos] = {}
        self._sent = self._acked = self._fills = self._denied = 0
        self._stopped = False

    async def _fail(self, reason: str, details: str = "") -> None:
        """The strategy is at fault."""
        raise NotImplementedError

    def _runner(self) -> Runner:
        if self.runner is None:
            raise NotReady(f"{self.name} is loading", 1.0)
        return self.runner

    # Intents

    def _send_out(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if isinstance(output, LogLine):
                self._lines.append(output)
                continue
            self._intents.add(output)
            if isinstance(output, PlaceOrder):
                self._asked_at[output.client_order_id] = output.created_at
        if self._intents:
            self._idle.clear()
            self._has_intents.set()
        runner = self.runner
        if runner is not None and runner.failed is not None and self.state != "failed":
            self.state, self.reason = "failed", str(runner.failed)
            self._stopped = True
            self.spawn(self._fail(str(runner.failed), runner.failed.traceback_text), "fail")

    async def _send(self) -> None:
        """Send intents in order; what gathers while a call is under way goes as one."""
        while True:
            await self._has_intents.wait()
            self._has_intents.clear()
            while self._intents:
                if late := self._intents.take_late(now()):
                    error = NotReady(f"not sent: it waited too long behind {len(self._intents)} others")
                    self._refuse(late, [error] * len(late))
                    await asyncio.sleep(0.05)  # a strategy that answers a refusal with an intent must not spin
                    continue
                group = self._intents.take_group()
                await self._send_group(group)
            self._idle.set()

    async def _send_group(self, group: Sequence[Intent]) -> None:
        places = [i for i in group if isinstance(i, PlaceOrder)]
        cancels = [i for i in group if isinstance(i, CancelOrder)]
        self._sent += len(places)
        if places:
            await self._place(places)
        elif cancels:
            await self._try("cancel", cancels)
        else:
            await self._try("modify", group[0])

    async def _try(self, method: str, argument: Any) -> None:
        """A cancel or modify: its outcome shows in the order's own changes; a failed one is logged."""
        try:
            results = await self.session.call(method, argument, self.epoch, self.algo, timeout=5.0)
        except Fenced as error:
            end(str(error))
        except (Unreachable, NotReady) as error:
            results = (error,)
            if method == "cancel":
                self.spawn(self._insist(argument), "cancels")
        except TradeError as error:
            results = (error,)
        for result in results if isinstance(results, tuple) else (results,):
            if isinstance(result, TradeError):
                self._lines.append(LogLine(at=now(), level="warning", text=f"{method}: {result}"))

    async def _insist(self, cancels: Sequence[CancelOrder]) -> None:
        """Ask for the same cancels until the session answers: the strategy takes it that they are on their way."""
        while True:
            await asyncio.sleep(0.5)
            mine = {order.client_order_id for order in self._runner().open_orders()}
            cancels = [cancel for cancel in cancels if cancel.client_order_id in mine]
            if not cancels:
                return
            try:
                await self.session.call("cancel", cancels, self.epoch, self.algo, timeout=5.0)
            except Fenced as error:
                end(str(error))
            except (Unreachable, NotReady):
                continue
            except TradeError as error:
                self._lines.append(LogLine(at=now(), level="warning", text=f"cancel: {error}"))
            return

    async def _place(self, intents: list[PlaceOrder]) -> None:
        began = now()
        is_unclear = False
        while True:
            crash_here(CrashPoint.ALGO_BEFORE_PLACE)
            try:
                results = await self.session.call("place", intents, self.epoch, timeout=5.0)
            except Fenced as error:
                end(str(error))
            except TradeError as error:
                # Once one call's outcome is not known the session may have these, whatever the next call meets: a
                # session that is loading, or is nowhere for the moment, has refused nothing.
                is_unclear = is_unclear or isinstance(error, Unreachable)
                if not is_unclear:
                    self._refuse(intents, [error] * len(intents))
                    return
                if now() - began > UNCLEAR_NS:
                    await self._give_up(intents, str(error))
                    return
                await asyncio.sleep(0.2)  # the same keys again: what arrived is only looked up
            else:
                crash_here(CrashPoint.ALGO_AFTER_PLACE)
                self._refuse(intents, results)
                return

    async def _give_up(self, intents: list[PlaceOrder], why: str) -> None:
        """Too late to place: make sure that none of these keys acts any more.

        Only a key that the session does not know was refused.  An order that it has tells of itself, in its own
        changes or through the journal, even where it was filled or ended before it could be taken back.
        """
        left = intents
        while left:
            cancels = [CancelOrder(account=i.account, client_order_id=i.client_order_id) for i in left]
            try:
                results = await self.session.call("cancel", cancels, self.epoch, self.algo, timeout=5.0)
            except Fenced as error:
                end(str(error))
            except TradeError:
                await asyncio.sleep(1.0)
                continue
            again: list[PlaceOrder] = []
            for intent, result in zip(left, results, strict=True):
                if isinstance(result, UnknownThing):
                    self._refuse([intent], [result], why)
                elif isinstance(result, TradeError) and not is_final(result):
                    again.append(intent)
            left = again
            if left:
                await asyncio.sleep(1.0)

    def _refuse(self, intents: Sequence[PlaceOrder], results: Sequence[Order | TradeError], why: str = "") -> None:
        """Tell the strategy of intents that did not become orders (orders tell of themselves)."""
        for intent, result in zip(intents, results, strict=True):
            if isinstance(result, TradeError):
                self._denied += 1
                order = order_from(intent, "", now())
                order.state, order.reason = OrderState.DENIED, why or str(result)
                self._asked_at.pop(intent.client_order_id, None)
                self._lines.append(LogLine(at=now(), level="warning", text=f"{intent.client_order_id}: {result}"))
                self._send_out(self._runner().order(order, now()))

    # Order changes

    async def _read_notes(self, record: AlgoRecord) -> None:
        epoch = cursor = 0
        while True:
            try:
                page: NotePage = await self.session.call(
                    "read_notes", record.account, record.id, epoch, cursor, 10.0, timeout=15.0
                )
                if page.reset:
                    await self._catch_up(record, page)
            except TradeError as error:
                log.debug("no order changes now: %s", error)
                await asyncio.sleep(0.25)
                continue
            for note in page.notes:
                self._take_change(note.order, note.event.kind, note.event.at)
                fill = note.event.fill
                if note.event.kind is EventKind.FILLED and fill is not None:
                    self._fills += 1
                    self._send_out(self._runner().fill(note.order, fill, now()))
                self._send_out(self._runner().order(note.order, now()))
            epoch, cursor = page.epoch, page.cursor

    def _take_change(self, order: Order, kind: EventKind, at: Nanos) -> None:
        if kind is EventKind.DENIED:
            self._denied += 1
            self._asked_at.pop(order.client_order_id, None)
        elif kind in (EventKind.SUBMITTED, EventKind.REJECTED):
            asked = self._asked_at.pop(order.client_order_id, None)
            if asked is not None and kind is EventKind.SUBMITTED:
                self._acked += 1
                self._ack_latency.add(at - asked)
        elif order.state.is_final:
            self._asked_at.pop(order.client_order_id, None)

    async def _catch_up(self, record: AlgoRecord, page: NotePage) -> None:
        """The session is another incarnation: read from the journal what happened meanwhile."""
        runner = self._runner()
        filters = OrderFilter(account=record.account, algo=record.id)
        fills: list[FillRecord] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page_of_fills, cursor = await self.journal.fills(filters, cursor, limit=200)
            fresh = [item for item in page_of_fills if not runner.knows(item.fill.execution_id)]
            fills += fresh
            if cursor is None or len(fresh) < len(page_of_fills):
                break
        for item in reversed(fills):
            order = await self.journal.order(record.account, item.client_order_id)
            if order is not None:
                self._send_out(runner.fill(order, item.fill, now()))
        still_open = {order.client_order_id: order for order in page.open_orders}
        for mine in runner.open_orders():
            order = still_open.get(mine.client_order_id)
            if order is None:
                order = await self.journal.order(record.account, mine.client_order_id)
            if order is None and mine.client_order_id not in self._asked_at:
                # Asked for by an incarnation that ended before the session heard of it.
                order = msgspec.structs.replace(mine, state=OrderState.DENIED, reason="it never reached the session")
            if order is not None:
                self._send_out(runner.order(order, now()))


def is_final(error: TradeError) -> bool:
    """Whether a cancel came after the order's end."""
    return isinstance(error, Conflict) and error.code == "order_is_final"

"""A simulated broker connection: the connection's core and Alpaca's codec, over a network that cannot be trusted.

It does what the real shell and connector do, in the same order; every step of it can be its last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from connectors.alpaca.chains import Chains
from connectors.alpaca.codec import (
    cancel_answer,
    cancel_request,
    lookup_answer,
    lookup_request,
    order_in,
    order_request,
    place_answer,
    place_request,
    replace_answer,
    replace_request,
)
from connectors.alpaca.report import (
    account_request,
    fills_request,
    open_orders_request,
    orders_request,
    positions_request,
    report_of,
    rows_in,
)
from connectors.alpaca.updates import Control, UpdateReader
from connectors.alpaca.wire import AccountRow, FillActivity, OrderRow, PositionRow, Request, Response
from tests.simulation.scheduler import Process
from trading.broker import AmendTicket, Answer, BrokerReport, CancelTicket, OrderTicket, Verdict
from trading.connection import ConnectionCore, UpdatePage
from trading.errors import BadInput, Fenced, Unreachable
from trading.ids import AccountId, Epoch, Nanos
from trading.instructions import Lane, Send
from trading.throttle import RateBudget

if TYPE_CHECKING:
    from tests.simulation.world import World

MS = 1_000_000
SECOND = 1_000 * MS
LEASE_NS = 10 * SECOND
#: The connector gives a request up after this long.
HTTP_NS = 2 * SECOND
#: A reader without news is answered after this long.
POLL_NS = 10 * SECOND
T = TypeVar("T")


class SimConnection(Process):
    """One copy of an account's connection."""

    def __init__(self, world: World, account: AccountId) -> None:
        self.world = world
        self.account = account
        owner = f"connection/{account}"
        self.epoch = world.journal.lease(owner)
        super().__init__(f"{owner}#{self.epoch}")
        self.owner = owner
        session_epoch = world.journal.epoch_of(f"session/{world.user_of[account]}")
        self.core = ConnectionCore(self.epoch, session_epoch, RateBudget(1e6, 1_000_000))
        self.core.owned(world.now, world.now + LEASE_NS)
        self.chains = Chains()
        self.reader = UpdateReader(self.chains)
        self.socket_number = 0
        self._waiting: list[tuple[int, Callable[[UpdatePage], None]]] = []
        world.after(2 * SECOND, "renew", self._renew, self)
        self._beat()
        self._open_socket()

    # Life

    def _renew(self) -> None:
        if self.world.journal_away:
            self.core.unowned()
        elif self.world.journal.epoch_of(self.owner) != self.epoch:
            self.world.crash(self)
            return
        else:
            self.core.owned(self.world.now, self.world.now + LEASE_NS)
        self.world.after(2 * SECOND, "renew", self._renew, self)

    def _beat(self) -> None:
        self.core.beat(self.world.now)
        self.world.after(400 * MS, "beat", self._beat, self)

    def _open_socket(self) -> None:
        def opened() -> None:
            self.socket_number += 1
            self.world.sockets[self.account][self] = self.world.now
            self.core.connected = True
            self._wake()

        self.world.after(self.world.latency(), "socket opens", opened, self)

    def cut(self) -> None:
        """The stream is cut; it reconnects after a while."""
        if self.world.sockets[self.account].pop(self, None) is not None:
            self.core.lost()
            self._wake()
            self.world.after(self.world.random.randint(20, 800) * MS, "reconnect", self._open_socket, self)

    # The stream

    def frame(self, raw: bytes) -> None:
        """One frame of the stream has come."""
        try:
            updates = self.reader.read(raw)
        except BadInput:
            # What it said is lost: the session must fetch the whole view.
            self.core.lost()
            self.core.connected = True
            self._wake()
            return
        if not isinstance(updates, Control) and updates:
            self.core.take(updates)
            self._wake()

    def updates(
        self,
        session_epoch: Epoch,
        epoch: Epoch,
        cursor: int,
        reply: Callable[[UpdatePage], None],
        fenced: Callable[[], None],
    ) -> None:
        """The session reads; an answer waits for news."""
        try:
            self.core.admit(session_epoch)
        except Fenced:
            fenced()
            return
        if epoch == self.core.epoch and cursor == self.core.cursor and self.core.connected:
            waiting = (cursor, reply)
            self._waiting.append(waiting)
            self.world.after(POLL_NS, "no news", lambda: self._no_news(waiting), self)
        else:
            reply(self.core.read(epoch, cursor))

    def _no_news(self, waiting: tuple[int, Callable[[UpdatePage], None]]) -> None:
        if waiting in self._waiting:
            self._waiting.remove(waiting)
            waiting[1](self.core.read(self.core.epoch, waiting[0]))

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for cursor, reply in waiting:
            reply(self.core.read(self.core.epoch, cursor))

    # Requests

    def send(
        self, session_epoch: Epoch, send: Send, reply: Callable[[Sequence[Answer]], None], fenced: Callable[[], None]
    ) -> None:
        """Hand tickets to the broker, each by a request of its own, all at once."""
        world = self.world
        try:
            self.core.admit(session_epoch)
        except Fenced:
            fenced()
            return
        refusal = self.core.why_not_send(send.lane, world.now, send.until, world.now)
        if refusal:
            verdict = Verdict.UNKNOWN if send.lane is Lane.CANCEL else Verdict.REJECTED
            reply([Answer(tag=t.tag, verdict=verdict, reason=refusal) for t in send.tickets])
            return
        answers: list[Answer] = []

        def one(answer: Answer) -> None:
            answers.append(answer)
            if len(answers) == len(send.tickets):
                reply(answers)

        for ticket in send.tickets:
            world.acted(self, session_epoch, f"{send.lane} {ticket.tag[:5]}")
            match ticket:
                case OrderTicket():
                    world.check_sent(ticket)
                    self._http(place_request(ticket), lambda r, t=ticket: one(place_answer(t, r, self.chains)))
                case AmendTicket():
                    self._amend(ticket, one)
                case CancelTicket():
                    self._cancel(ticket, one)

    def _amend(self, ticket: AmendTicket, then: Callable[[Answer], None]) -> None:
        if ticket.broker_order_id is None:
            self._look_up(ticket.tag, then, lambda id_: self._amend_at(ticket, id_, then))
        else:
            self._amend_at(ticket, self.chains.head_of(ticket.broker_order_id), then)

    def _amend_at(self, ticket: AmendTicket, order_id: str, then: Callable[[Answer], None]) -> None:
        self._http(replace_request(ticket, order_id), lambda r: then(replace_answer(ticket, r, self.chains)))

    def _cancel(self, ticket: CancelTicket, then: Callable[[Answer], None]) -> None:
        def at(order_id: str) -> None:
            self._http(cancel_request(order_id), lambda r: then(cancel_answer(ticket, r)))

        if ticket.broker_order_id is None:
            self._look_up(ticket.tag, then, at)
            return
        head = self.chains.head_of(ticket.broker_order_id)
        row = self.chains.row(head)
        if row is not None and row.status != "replaced":
            at(head)
            return

        def known(response: Response | None) -> None:
            found = order_in(response) if response is not None and response.is_success else None
            if found is not None:
                self.chains.learn(found)
            at(self.chains.head_of(head))

        self._http(order_request(head), known)

    def _look_up(self, tag: str, then: Callable[[Answer], None], go_on: Callable[[str], None]) -> None:
        def found(response: Response | None) -> None:
            answer = lookup_answer(tag, response, self.chains)
            if answer.broker_order_id is None:
                then(answer)
            else:
                go_on(self.chains.head_of(answer.broker_order_id))

        self._http(lookup_request(tag), found)

    def report(
        self,
        session_epoch: Epoch,
        since: Nanos,
        reply: Callable[[BrokerReport | None], None],
        fenced: Callable[[], None],
    ) -> None:
        """The whole view, by one request after another."""
        try:
            self.core.admit(session_epoch)
        except Fenced:
            fenced()
            return
        asked_at = self.world.now
        orders: list[OrderRow] = []
        fills: list[FillActivity] = []
        positions: list[PositionRow] = []

        def rows(kind: type[T], then: Callable[[T], None]) -> Callable[[Response | None], None]:
            def take(response: Response | None) -> None:
                try:
                    found = rows_in(response, kind, "report")
                except Unreachable:
                    reply(None)
                else:
                    then(found)

            return take

        def take_fills(page: list[FillActivity]) -> None:
            fills.extend(page)
            if len(page) >= 100:
                self._http(fills_request(since, page[-1].id), rows(list[FillActivity], take_fills))
            else:
                self._http(open_orders_request(), rows(list[OrderRow], take_open))

        def take_open(page: list[OrderRow]) -> None:
            orders.extend(page)
            self._http(orders_request(Nanos(since - 1)), rows(list[OrderRow], take_recent))

        def take_recent(page: list[OrderRow]) -> None:
            orders.extend(page)
            for row in orders:
                self.chains.learn(row)
            take_missing()

        def take_missing(tries: int = 0) -> None:
            wanted = [f.order_id for f in fills if self.chains.row(f.order_id) is None]
            missing = [*self.chains.missing(), *wanted]
            if not missing or tries > 20:
                self._http(positions_request(), rows(list[PositionRow], take_positions))
                return

            def seen(row: OrderRow) -> None:
                self.chains.learn(row)
                orders.append(row)
                take_missing(tries + 1)

            self._http(order_request(missing[0]), rows(OrderRow, seen))

        def take_positions(page: list[PositionRow]) -> None:
            positions.extend(page)
            self._http(account_request(), rows(AccountRow, finish))

        def finish(funds: AccountRow) -> None:
            whole = report_of(self.account, orders, fills, positions, funds, self.chains, asked_at, self.world.now)
            reply(whole)

        self._http(fills_request(Nanos(since - 1)), rows(list[FillActivity], take_fills))

    # The network

    def _http(self, request: Request, then: Callable[[Response | None], None]) -> None:
        """Ask the broker; ``then`` gets the response, or None when none came in time."""
        world = self.world
        done = False

        def finish(response: Response | None) -> None:
            nonlocal done
            if not done:
                done = True
                then(response)

        plan = world.plan_of(request)
        if plan.lost:
            world.count("request lost")
        else:

            def arrive() -> None:
                response = world.at_broker(self.account, request, plan.habit)
                if plan.answer_lost:
                    world.count("answer lost")
                else:
                    world.after(world.latency(), "response", lambda: finish(response), self)

            world.after(plan.delay, "request arrives", arrive)
            if plan.again:
                world.count("request doubled")
                world.after(
                    plan.delay + plan.again, "request arrives again", lambda: world.at_broker(self.account, request)
                )
        world.after(HTTP_NS, "time is up", lambda: finish(None), self)

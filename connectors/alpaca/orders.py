"""`AlpacaBroker`: one account at Alpaca as a `connectors.base.Broker`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from connectors.alpaca.capabilities import account_settings, capabilities
from connectors.alpaca.chains import Chains
from connectors.alpaca.client import AlpacaClient, NotSent
from connectors.alpaca.codec import (
    cancel_answer,
    cancel_request,
    is_duplicate,
    lookup_answer,
    lookup_request,
    order_in,
    order_request,
    place_answer,
    place_request,
    replace_answer,
    replace_request,
)
from connectors.alpaca.order_stream import OrderStream
from connectors.alpaca.portfolio import AccountView
from connectors.alpaca.report import account_request, rows_in
from connectors.alpaca.updates import UpdateReader
from connectors.alpaca.wire import AccountRow, OrderRow, Request, Response, tag_of
from connectors.base import Clock
from trading.broker import (
    AmendTicket,
    Answer,
    BrokerReport,
    BrokerUpdate,
    CancelTicket,
    OrderTicket,
    StreamChange,
    Verdict,
)
from trading.errors import NeedsOperator, NotReady, TradeError
from trading.ids import AccountId, Nanos

log = logging.getLogger(__name__)

_DAY_NS: Final = 86_400_000_000_000
#: Requests under way at once; those about one instrument go one after the other, in their order.
_AT_ONCE: Final = 8
#: Links of a chain that are followed for one request.
_LONGEST_CHAIN: Final = 50
_Ticket = TypeVar("_Ticket", OrderTicket, AmendTicket, CancelTicket)


class AlpacaBroker:
    """One account.  The constructor does no IO; `connect` logs in."""

    def __init__(
        self, account: AccountId, settings: Mapping[str, Any], credentials: Mapping[str, str], clock: Clock
    ) -> None:
        chosen = account_settings(settings)
        self.capabilities = capabilities(settings)
        self._account = account
        self._clock = clock
        self._chains = Chains()
        self._reader = UpdateReader(self._chains)
        self._client = AlpacaClient(chosen.host, credentials, chosen.timeout_s)
        self._view = AccountView(account, self._client, self._chains, clock)
        self._credentials = credentials
        self._stream = OrderStream(chosen.stream_url, credentials, self._reader, self._follow_links)
        self._following: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<AlpacaBroker {self._account} {self._stream} {self._client}>"

    async def connect(self) -> None:
        """Log in and open the order stream.  Raises `NeedsOperator`, `NotReady` or `Unreachable`."""
        response = await self._client.read(account_request())
        if response is not None and response.status in (401, 403):
            raise NeedsOperator(
                f"Alpaca refuses the key of {self._account}: {response.raw[:200]}",
                "check the environment (paper or live) and give the key anew: PUT /v1/accounts/{id}/credentials",
            )
        funds = rows_in(response, AccountRow, "the account")
        if funds.account_blocked or funds.trading_blocked or funds.trade_suspended_by_user:
            log.warning("%s: Alpaca says that trading is blocked", self._account)
        await self._stream.open()

    async def close(self) -> None:
        """Close the sockets; open orders stay at Alpaca."""
        for task in list(self._tasks):
            task.cancel()
        await self._stream.close()
        await self._client.close()

    # Orders

    async def place(self, tickets: Sequence[OrderTicket]) -> list[Answer]:
        """Send orders, those of one instrument in their order."""
        self._view.expect(ticket.tag for ticket in tickets)
        return await self._each(tickets, self._place)

    async def modify(self, tickets: Sequence[AmendTicket]) -> list[Answer]:
        """Replace orders; what is replaced stays one order to the caller."""
        return await self._each(tickets, self._modify)

    async def cancel(self, tickets: Sequence[CancelTicket]) -> list[Answer]:
        """Ask for orders to be taken back."""
        return await self._each(tickets, self._cancel)

    async def _each(self, tickets: Sequence[_Ticket], one: Callable[[_Ticket], Awaitable[Answer]]) -> list[Answer]:
        queues: dict[str, list[int]] = {}
        for index, ticket in enumerate(tickets):
            queues.setdefault(ticket.instrument, []).append(index)
        slots = asyncio.Semaphore(_AT_ONCE)
        answers: dict[int, Answer] = {}

        async def work(indexes: list[int]) -> None:
            for index in indexes:
                async with slots:
                    answers[index] = await self._answered(tickets[index], one)

        await asyncio.gather(*(work(indexes) for indexes in queues.values()))
        return [answers[index] for index in range(len(tickets))]

    async def _answered(self, ticket: _Ticket, one: Callable[[_Ticket], Awaitable[Answer]]) -> Answer:
        try:
            answer = await one(ticket)
        except NotSent as error:
            answer = Answer(tag=ticket.tag, verdict=Verdict.REJECTED, reason=f"not sent: {error}")
        except TradeError as error:
            # Raised before an order was sent: a bad instrument, no credentials, no room.  A change or a cancel may
            # have been sent before a look-up failed.
            verdict = Verdict.REJECTED if isinstance(ticket, OrderTicket) else Verdict.UNKNOWN
            answer = Answer(tag=ticket.tag, verdict=verdict, reason=str(error))
        if isinstance(ticket, OrderTicket) and answer.verdict is Verdict.REJECTED:
            self._view.dismiss(ticket.tag)
        return answer

    async def _place(self, ticket: OrderTicket) -> Answer:
        if wait := self._client.room_in():
            raise NotReady(f"Alpaca's rate limit is used up for {wait:.1f} s", wait)
        response = await self._client.act(place_request(ticket))
        answer = place_answer(ticket, response, self._chains)
        if not is_duplicate(response):
            return answer
        try:
            return lookup_answer(ticket.tag, await self._client.read(lookup_request(ticket.tag)), self._chains)
        except TradeError:
            return answer

    async def _modify(self, ticket: AmendTicket) -> Answer:
        head = await self._head(ticket)
        if isinstance(head, Answer):
            return head
        return replace_answer(ticket, await self._client.act(replace_request(ticket, head)), self._chains)

    async def _cancel(self, ticket: CancelTicket) -> Answer:
        head = await self._head(ticket)
        if isinstance(head, Answer):
            return head
        response = await self._client.act(cancel_request(head))
        answer = cancel_answer(ticket, response)
        if answer.verdict is Verdict.REJECTED:
            # It may have been replaced on the way: then another id is the one to take back.
            after = await self._fresh_head(head)
            if after is not None and after != head:
                answer = cancel_answer(ticket, await self._client.act(cancel_request(after)))
        return answer

    # Which order stands

    async def _head(self, ticket: AmendTicket | CancelTicket) -> str | Answer:
        """Alpaca's id of the order that works now; an answer where that cannot be known."""
        order_id = ticket.broker_order_id
        if order_id is not None and self._chains.row(order_id) is not None:
            return self._chains.head_of(order_id)
        row = await self._look_up(ticket.tag, order_id)
        if row is None:
            return Answer(tag=ticket.tag, verdict=Verdict.UNKNOWN, reason="Alpaca does not show the order (yet)")
        return await self._fresh_head(row.id) or row.id

    async def _look_up(self, tag: str, order_id: str | None) -> OrderRow | None:
        requests = [lookup_request(tag)] if tag_of(tag) else []
        requests += [order_request(order_id)] if order_id is not None else []
        for request in requests:
            if (row := await self._row(request)) is not None:
                return row
        return None

    async def _row(self, request: Request) -> OrderRow | None:
        response: Response | None = await self._client.read(request)
        row = order_in(response) if response is not None and response.is_success else None
        if row is not None:
            self._chains.learn(row)
        return row

    async def _fresh_head(self, order_id: str) -> str | None:
        """The head of a chain as Alpaca shows it now; None where it does not."""
        for _ in range(_LONGEST_CHAIN):
            row = await self._row(order_request(order_id))
            if row is None:
                return None
            if row.status != "replaced" or row.replaced_by is None:
                return row.id
            order_id = row.replaced_by
        return order_id

    # What Alpaca says

    async def report(self, since: Nanos | None = None) -> BrokerReport:
        """The whole account by REST.  Raises `Unreachable` or `NotReady`."""
        report = await self._view.report(Nanos(self._clock() - _DAY_NS) if since is None else since)
        if self._view.skipped:
            log.info("%s: %d orders left out, e.g. %s", self._account, len(self._view.skipped), self._view.skipped[0])
        return report

    def updates(self) -> AsyncIterator[BrokerUpdate | StreamChange]:
        """What the order stream tells; each loss and return of it among them."""
        return self._stream.updates()

    def expect(self, tags: Iterable[str]) -> None:
        """Orders that were open when last heard of: reports say what has become of them."""
        self._view.expect(tags)

    def _follow_links(self) -> None:
        """Fetch replacements that the stream named and did not show."""
        for order_id in self._chains.missing():
            if order_id not in self._following:
                self._following.add(order_id)
                task = asyncio.get_running_loop().create_task(self._follow(order_id))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _follow(self, order_id: str) -> None:
        try:
            row = await self._row(order_request(order_id))
        except TradeError as error:
            # The next report follows the same link.
            log.info("%s: order %s could not be fetched: %s", self._account, order_id, error)
            self._following.discard(order_id)
            return
        if row is not None:
            self._following.discard(order_id)
            for update in self._reader.learned(row):
                self._stream.tell(update)

"""The whole account by REST: orders, positions, cash and executions, fetched in an order that loses nothing.

Orders first and executions last: an execution that happens in between is then in the trade book of the same report.
Alpaca's list of closed orders goes by the time of submission, so an order of an earlier day that has ended since is
looked up by its tag: `AccountView` knows which ones it still expects an end of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from connectors.alpaca.chains import Chains
from connectors.alpaca.client import AlpacaClient
from connectors.alpaca.codec import lookup_request, order_in, order_request
from connectors.alpaca.report import (
    ACTIVITY_PAGE,
    ORDER_PAGE,
    account_request,
    fills_request,
    open_orders_request,
    orders_request,
    positions_request,
    report_of,
    rows_in,
)
from connectors.alpaca.wire import AccountRow, FillActivity, OrderRow, PositionRow, Request, nanos, rfc3339, tag_of
from connectors.base import Clock
from trading.broker import BrokerReport
from trading.errors import Unreachable
from trading.ids import AccountId, Nanos

_MOST_PAGES: Final = 400
_AT_ONCE: Final = 8
_OVERLAP_NS: Final = 1_000_000
#: An expected order that so many look-ups did not find is not looked up any more.
_MOST_MISSES: Final = 6


class AccountView:
    """Fetches the account; remembers which orders of ours are still open."""

    def __init__(self, account: AccountId, client: AlpacaClient, chains: Chains, clock: Clock) -> None:
        self._account = account
        self._clock = clock
        self._client = client
        self._chains = chains
        #: Tag -> how often it was looked up in vain.
        self._expected: dict[str, int] = {}
        #: Orders left out of the last report, with the reason.
        self.skipped: list[str] = []

    def expect(self, tags: Iterable[str]) -> None:
        """Orders that may be open at Alpaca: reports say what has become of them."""
        self._expected.update((tag, 0) for tag in tags if tag_of(tag))

    def dismiss(self, tag: str) -> None:
        """An order that surely is not there."""
        self._expected.pop(tag, None)

    async def report(self, since: Nanos) -> BrokerReport:
        """The account as Alpaca shows it.  Raises `Unreachable` or `NotReady` where any part cannot be had."""
        requested_at = self._clock()
        rows = {row.id: row for row in await self._orders(open_orders_request(), "open orders")}
        rows.update((row.id, row) for row in await self._orders(orders_request(since), "orders"))
        for row in rows.values():
            self._chains.learn(row)
        positions = rows_in(await self._client.read(positions_request()), list[PositionRow], "positions")
        funds = rows_in(await self._client.read(account_request()), AccountRow, "the account")
        fills = await self._fills_since(since)
        await self._add_missing(rows, fills)
        skipped: list[str] = []
        report = report_of(
            self._account,
            rows.values(),
            fills,
            positions,
            funds,
            self._chains,
            requested_at,
            self._clock(),
            skipped,
        )
        self.skipped = skipped
        for order in report.orders:
            if order.tag and order.state.is_final:
                self._expected.pop(order.tag, None)
            elif order.tag:
                self._expected[order.tag] = 0
        return report

    async def _orders(self, request: Request, what: str) -> list[OrderRow]:
        """All pages of a list of orders, oldest first."""
        found: dict[str, OrderRow] = {}
        query = request.query
        for _ in range(_MOST_PAGES):
            asked = Request(request.method, request.path, query)
            page = rows_in(await self._client.read(asked), list[OrderRow], what)
            known = len(found)
            found.update((row.id, row) for row in page)
            if len(page) < ORDER_PAGE or len(found) == known or page[-1].submitted_at is None:
                return list(found.values())
            # A little back, for several may have been submitted at the time of the last.
            after = rfc3339(nanos(page[-1].submitted_at) - _OVERLAP_NS)
            query = (*((name, value) for name, value in request.query if name != "after"), ("after", after))
        raise Unreachable("alpaca", f"{what}: more than {_MOST_PAGES * ORDER_PAGE}")

    async def _fills_since(self, since: Nanos) -> list[FillActivity]:
        found: list[FillActivity] = []
        for _ in range(_MOST_PAGES):
            token = found[-1].id if found else ""
            page = rows_in(await self._client.read(fills_request(since, token)), list[FillActivity], "fills")
            found += page
            if len(page) < ACTIVITY_PAGE:
                return found
        raise Unreachable("alpaca", f"more than {_MOST_PAGES * ACTIVITY_PAGE} fills since the last report")

    async def _add_missing(self, rows: dict[str, OrderRow], fills: Iterable[FillActivity]) -> None:
        """Fetch orders that the lists leave out: expected ones, those of fills, and the links of chains."""
        seen = {self._chains.tag_of(order_id) for order_id in rows}
        unseen = sorted(self._expected.keys() - seen)
        for tag in unseen:
            self._expected[tag] += 1
            if self._expected[tag] > _MOST_MISSES:
                del self._expected[tag]
        asked = [lookup_request(tag) for tag in unseen]
        asked += [order_request(order_id) for order_id in sorted({fill.order_id for fill in fills} - rows.keys())]
        tried: set[str] = set()
        while True:
            for row in await self._fetch(asked):
                self._chains.learn(row)
                rows[row.id] = row
            links = [order_id for order_id in self._chains.missing() if order_id not in tried]
            if not links:
                return
            tried.update(links)
            asked = [order_request(order_id) for order_id in links]

    async def _fetch(self, requests: Sequence[Request]) -> list[OrderRow]:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(request: Request) -> OrderRow | None:
            async with slots:
                response = await self._client.read(request)
            if response is not None and response.status == 404:
                return None
            row = order_in(response) if response is not None and response.is_success else None
            if row is None:
                raise Unreachable(
                    "alpaca", f"{request.path}: {'no answer' if response is None else response.raw[:200]}"
                )
            return row

        return [row for row in await asyncio.gather(*map(one, requests)) if row is not None]

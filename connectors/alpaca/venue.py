"""The simulated Alpaca's core: requests in, responses and ``trade_updates`` frames out.  Pure.

`AlpacaVenue` is one account.  It has no clock, no IO and no chance: every call brings the time, ids count up, and
misbehaviour (`Habit`) is asked for by the caller, request by request.  Orders meet the market that `on_quote` and
`on_trade` show, through `trading.matching`.  Its `ledger` is open to read and never forgets.

Orders at work: `connectors.alpaca.venue_desk`; lists and views: `connectors.alpaca.venue_views`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final

import msgspec

from connectors.alpaca.venue_checks import NOT_FOUND, Refusal, answer
from connectors.alpaca.venue_desk import Desk
from connectors.alpaca.venue_hours import Hours
from connectors.alpaca.venue_ledger import Ledger
from connectors.alpaca.venue_views import Views
from connectors.alpaca.wire import AssetRow, Request, Response
from trading.ids import Nanos

_MINUTE: Final = 60_000_000_000
_GATEWAY: Final = {"content-type": "text/html"}


class Habit(msgspec.Struct, frozen=True, kw_only=True):
    """How one request is misbehaved to.  The default is to behave."""

    #: Answer with this status, and a gateway's body, …
    status: int | None = None
    #: … with the request carried out all the same, or not.
    effect: bool = True
    #: Answer with this body in place of the true one.
    body: bytes | None = None
    #: Cut the body after so many bytes.
    cut: int | None = None
    #: Push none of the frames that the request causes: only REST shows what happened.
    silent: bool = False
    #: Accept an order and reject it right afterwards.
    rejects: bool = False


BEHAVE: Final = Habit()


class AlpacaVenue:
    """One account at the simulated Alpaca."""

    def __init__(
        self,
        account: str = "PA0000001",
        *,
        assets: Iterable[AssetRow],
        cash: Decimal = Decimal(100_000),
        multiplier: Decimal = Decimal(2),
        hours: Hours | None = None,
        requests_per_minute: int | None = None,
        fill_ratio: Decimal = Decimal(1),
        lenient: bool = False,
    ) -> None:
        self.ledger = Ledger(account, cash)
        self.desk = Desk(self.ledger, assets, multiplier, hours, fill_ratio, lenient)
        self.views = Views(self.desk)
        #: None: no limit.
        self.requests_per_minute = requests_per_minute
        self._minute = 0
        self._requests = 0

    def __repr__(self) -> str:
        return f"<AlpacaVenue {self.ledger} open={len(self.ledger.open_orders())}>"

    # Habits that last

    @property
    def list_lag(self) -> int:
        """Lists (orders, activities, positions) show what was so many nanoseconds ago."""
        return self.views.list_lag

    @list_lag.setter
    def list_lag(self, lag: int) -> None:
        self.views.list_lag = lag

    @property
    def lookup_lag(self) -> int:
        """Single orders, by id and by client id, are shown as they were so many nanoseconds ago."""
        return self.views.lookup_lag

    @lookup_lag.setter
    def lookup_lag(self, lag: int) -> None:
        self.views.lookup_lag = lag

    @property
    def replace_takes(self) -> int:
        """Nanoseconds between the answer to a replace and the replacement (0: at once)."""
        return self.desk.replace_takes

    @replace_takes.setter
    def replace_takes(self, duration: int) -> None:
        self.desk.replace_takes = duration

    @property
    def cancel_takes(self) -> int:
        """Nanoseconds between the answer to a cancel and the end of the order (0: at once)."""
        return self.desk.cancel_takes

    @cancel_takes.setter
    def cancel_takes(self, duration: int) -> None:
        self.desk.cancel_takes = duration

    # The wire

    def handle(self, request: Request, now: Nanos, habit: Habit = BEHAVE) -> Response:
        """Carry out a request and answer it.  Never raises for what a client can send."""
        self.tick(now)
        self.desk.silent, self.desk.rejects_next = habit.silent, habit.rejects
        try:
            response = self._limited(now) or (self._route(request, now) if habit.effect else answer(200))
        except Refusal as refusal:
            response = refusal.response
        finally:
            self.desk.silent = self.desk.rejects_next = False
        if habit.status is not None:
            gateway = f"<html><body>{habit.status}</body></html>".encode()
            response = Response(habit.status, _GATEWAY, gateway)
        if habit.body is not None:
            response = msgspec.structs.replace(response, body=habit.body)
        if habit.cut is not None:
            response = msgspec.structs.replace(response, body=response.body[: habit.cut])
        return self._with_limits(response, now)

    def take_frames(self) -> list[bytes]:
        """The ``trade_updates`` messages since the last time, in order."""
        taken, self.desk.frames = self.desk.frames, []
        return taken

    # The market

    def on_quote(
        self,
        symbol: str,
        bid: Decimal,
        bid_size: Decimal,
        ask: Decimal,
        ask_size: Decimal,
        now: Nanos,
        *,
        silent: bool = False,
    ) -> None:
        """The best bid and offer of a symbol are now these; ``silent``: what it fills only REST shows."""
        self._in_time(now, silent, lambda: self.desk.quote(symbol, bid, bid_size, ask, ask_size, now))

    def on_trade(
        self, symbol: str, price: Decimal, size: Decimal, now: Nanos, *, buyer_maker: bool = False, silent: bool = False
    ) -> None:
        """Others have traded ``size`` at ``price``."""
        self._in_time(now, silent, lambda: self.desk.trade(symbol, price, size, buyer_maker, now))

    def tick(self, now: Nanos, *, silent: bool = False) -> None:
        """Time passes: sessions open and close, day orders expire, requests under way are done."""
        self.desk.silent = silent
        try:
            self.desk.pass_time(now)
        finally:
            self.desk.silent = False

    def _in_time(self, now: Nanos, silent: bool, act: Callable[[], None]) -> None:
        self.tick(now, silent=silent)
        self.desk.silent = silent
        try:
            act()
        finally:
            self.desk.silent = False

    # Routes

    def _route(self, request: Request, now: Nanos) -> Response:
        desk, views = self.desk, self.views
        match (request.method, *request.path.strip("/").split("/")):
            case ("POST", "v2", "orders"):
                return answer(200, desk.place(request.body, now))
            case ("GET", "v2", "orders"):
                return answer(200, views.orders(request, now))
            case ("DELETE", "v2", "orders"):
                return answer(207, desk.cancel_all(now))
            case ("GET", "v2", "orders:by_client_order_id"):
                return answer(200, views.order_by_client_id(request.value("client_order_id") or "", request, now))
            case ("GET", "v2", "orders", order_id):
                return answer(200, views.order(order_id, request, now))
            case ("PATCH", "v2", "orders", order_id):
                return answer(200, desk.replace(order_id, request.body, now))
            case ("DELETE", "v2", "orders", order_id):
                desk.cancel(order_id, now)
                return answer(204)
            case ("GET", "v2", "positions"):
                return answer(200, views.positions(now))
            case ("DELETE", "v2", "positions"):
                cancels = request.flag("cancel_orders")
                return answer(207, desk.close_all(cancels, now))
            case ("GET", "v2", "positions", *symbol):
                return answer(200, views.position("/".join(symbol), now))
            case ("DELETE", "v2", "positions", *symbol):
                qty, percentage = request.value("qty"), request.value("percentage")
                return answer(200, desk.close("/".join(symbol), qty, percentage, now))
            case ("GET", "v2", "account"):
                return answer(200, views.account(now))
            case ("GET", "v2", "account", "configurations"):
                return answer(200, views.configurations())
            case ("GET", "v2", "account", "activities", *kinds):
                return answer(200, views.activities(kinds, request, now))
            case ("GET", "v2", "assets"):
                return answer(200, views.assets(request))
            case ("GET", "v2", "assets", *symbol):
                return answer(200, views.asset("/".join(symbol)))
            case ("GET", "v2", "clock"):
                return answer(200, views.clock(now))
            case ("GET", "v2", "calendar"):
                return answer(200, views.calendar(request, now))
        raise Refusal(404, NOT_FOUND, "endpoint not found")

    def _limited(self, now: Nanos) -> Response | None:
        if self.requests_per_minute is None:
            return None
        minute = now // _MINUTE
        if minute != self._minute:
            self._minute, self._requests = minute, 0
        if self._requests >= self.requests_per_minute:
            return answer(429, {"code": 42910000, "message": "rate limit exceeded"})
        self._requests += 1
        return None

    def _with_limits(self, response: Response, now: Nanos) -> Response:
        if self.requests_per_minute is None:
            return response
        headers = {
            **response.headers,
            "x-ratelimit-limit": str(self.requests_per_minute),
            "x-ratelimit-remaining": str(max(self.requests_per_minute - self._requests, 0)),
            "x-ratelimit-reset": str((now // _MINUTE + 1) * 60),
        }
        return msgspec.structs.replace(response, headers=headers)

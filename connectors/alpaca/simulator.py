"""A server of Alpaca's wire on one port: trading API v2, ``trade_updates``, market data v2, and its own controls.

Several accounts, each an `AlpacaVenue`, meet one market: seeded synthetic prices, or those that the controls give.  It
is Alpaca with its bad habits on demand.  Beside Alpaca's resources it answers ``GET /simulator/ledger`` (the truth, per
account), ``GET /simulator/stats``, and takes ``POST /simulator/<command>`` (see `simulated_controls`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec

from connectors.alpaca.simulated_controls import Controls
from connectors.alpaca.simulated_data import FEEDS, DataRest, DataStream, quote_row, trade_row
from connectors.alpaca.simulated_faults import FrameFaulter, Rules
from connectors.alpaca.simulated_market import Listing, QuoteTick, SimulatedMarket, TradeTick
from connectors.alpaca.simulated_orders import OrderStream
from connectors.alpaca.simulated_wire import CONTROLS, Line, Reply
from connectors.alpaca.venue import BEHAVE, AlpacaVenue
from connectors.alpaca.venue_checks import UNAUTHORIZED, Refusal, answer
from connectors.alpaca.venue_hours import Hours
from connectors.alpaca.wire import Request, Response
from trading.errors import BadInput
from trading.ids import Nanos

_SECOND: Final = 1_000_000_000
_TICK_S: Final = 0.02


class SimulatedAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account of the simulator and how it logs in."""

    key: str = "PKSIMULATED"
    secret: str = "simulated-secret"
    number: str = "PA0000001"
    cash: Decimal = Decimal(100_000)
    #: 1: a cash account; 2: margin; 4: day trading.
    multiplier: Decimal = Decimal(2)


class AlpacaSimulator:
    """The simulator; `start` it, then `url` is where it is reached."""

    def __init__(
        self,
        accounts: Sequence[SimulatedAccount] = (SimulatedAccount(),),
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        symbols: int = 5,
        seed: int = 1,
        ticks_per_s: float = 50.0,
        hold: bool = False,
        hours: Hours | None = None,
        requests_per_minute: int | None = 200,
        data_connections: int | None = 1,
        symbol_limit: int | None = None,
        binary_frames: bool = True,
        fill_ratio: Decimal = Decimal(1),
        lenient: bool = False,
    ) -> None:
        """``hold``: prices stand still until ``start``.  ``binary_frames``: as paper's order stream has them.

        ``hours`` None: the market never closes and its days end at midnight UTC.  ``lenient``: see
        `connectors.alpaca.venue_means`.
        """
        if not accounts:
            raise BadInput("accounts", "there is none: give at least one")
        if not 0 <= port <= 65535:
            raise BadInput("port", f"{port}: use 1 to 65535, or 0 for any free one")
        if not 1 <= symbols <= 5_000:
            raise BadInput("symbols", f"{symbols}: use 1 to 5000")
        self._host = host
        self._port = port
        self._rate = ticks_per_s
        self.prices_go = asyncio.Event()
        if not hold:
            self.prices_go.set()
        self._data_connections = data_connections
        self._symbol_limit = symbol_limit
        self._binary = binary_frames
        now = wall_clock()
        self.market = SimulatedMarket(symbols, seed, now)
        self.accounts = {account.key: account for account in accounts}
        self.venues = {
            account.key: AlpacaVenue(
                account.number,
                assets=self.market.assets,
                cash=account.cash,
                multiplier=account.multiplier,
                hours=hours,
                requests_per_minute=requests_per_minute,
                fill_ratio=fill_ratio,
                lenient=lenient,
            )
            for account in accounts
        }
        self._data = DataRest(self.market)
        self.rules = Rules()
        self.frames = FrameFaulter(lambda delay, act: asyncio.get_running_loop().call_later(delay, act))
        self.is_deaf = False
        self._controls = Controls(self)
        self.lines: set[Line] = set()
        self.order_streams: dict[Line, OrderStream] = {}
        self.data_streams: dict[Line, DataStream] = {}
        self._counts: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._walk: asyncio.Task[None] | None = None
        self._minute = 0

    def __repr__(self) -> str:
        return f"<AlpacaSimulator {self._host}:{self._port} {len(self.venues)} accounts {len(self.lines)} lines>"

    @property
    def url(self) -> str:
        """``http://host:port``, for a connector's ``base_url``."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listen.  Raises `BadInput` where the port cannot be had."""
        loop = asyncio.get_running_loop()
        now = wall_clock()
        for listing, quote in self.market.opening(now):
            self.show(listing, quote, now, False)
        try:
            self._server = await loop.create_server(lambda: Line(self), self._host, self._port)
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise BadInput("port", f"cannot listen on {self._host}:{self._port}: {reason}; use another") from problem
        self._port = self._server.sockets[0].getsockname()[1]
        self._walk = loop.create_task(self._walk_prices())

    async def stop(self) -> None:
        """Close everything; idempotent."""
        if self._walk is not None:
            self._walk.cancel()
            await asyncio.gather(self._walk, return_exceptions=True)
            self._walk = None
        if self._server is not None:
            self._server.close()
            for line in list(self.lines):
                line.close(1001, "server stops")
            await asyncio.sleep(0)
            for line in list(self.lines):
                line.abort()
            await self._server.wait_closed()
            self._server = None

    # The market

    async def _walk_prices(self) -> None:
        owed = 0.0
        each_s = len(self.market.listings) / self._rate if self._rate > 0 else 1.0
        while True:
            await asyncio.sleep(_TICK_S)
            now = wall_clock()
            for venue in self.venues.values():
                venue.tick(now)
            if self.prices_go.is_set() and self._rate > 0:
                owed += self._rate * _TICK_S
                while owed >= 1.0:
                    owed -= 1.0
                    listing, tick = self.market.step(now, each_s)
                    self.show(listing, tick, now, False)
            self._send_bars(now)
            self.push()

    def show(self, listing: Listing, tick: QuoteTick | TradeTick, now: Nanos, silent: bool) -> None:
        """The market has moved: tell the venues and those who watch."""
        symbol = listing.asset.symbol
        buyer_maker = False
        if isinstance(tick, TradeTick) and listing.last_quote is not None:
            buyer_maker = tick.price <= listing.last_quote.bid
        for venue in self.venues.values():
            if isinstance(tick, QuoteTick):
                venue.on_quote(symbol, tick.bid, tick.bid_size, tick.ask, tick.ask_size, now, silent=silent)
            else:
                venue.on_trade(symbol, tick.price, tick.size, now, buyer_maker=buyer_maker, silent=silent)
        channel, kind, row = (
            ("quotes", "q", quote_row(tick)) if isinstance(tick, QuoteTick) else ("trades", "t", trade_row(tick))
        )
        self._publish(channel, symbol, {"T": kind, "S": symbol, **row})

    def _publish(self, channel: str, symbol: str, message: dict[str, Any]) -> None:
        for stream in self.data_streams.values():
            if stream.is_authenticated and stream.wants(channel, symbol):
                stream.send([message])
                self._counts[channel] += 1

    def _send_bars(self, now: Nanos) -> None:
        minute = now // (60 * _SECOND)
        if minute == self._minute:
            return
        closed, self._minute = self._minute * 60 * _SECOND, minute
        if not closed:
            return
        for symbol, listing in self.market.listings.items():
            bar = next((bar for bar in reversed(listing.bars) if bar.opened == closed), None)
            if bar is not None:
                self._publish("bars", symbol, {"T": "b", "S": symbol, **bar.row})

    def push(self) -> None:
        """Send the venues' frames to those who listen."""
        loop = asyncio.get_running_loop()
        for key, venue in self.venues.items():
            for frame in venue.take_frames():
                self._counts["frames"] += 1

                def send(sent: bytes, key: str = key) -> None:
                    for stream in self.order_streams.values():
                        if stream.key == key:
                            stream.push(sent)

                self.frames.pass_on(frame, send, loop.time())

    # simulated_wire.Service

    def arrived(self, line: Line) -> None:
        """A connection was made."""
        self.lines.add(line)
        self._counts["connected"] += 1

    def left(self, line: Line) -> None:
        """A connection is gone."""
        self.lines.discard(line)
        self.order_streams.pop(line, None)
        self.data_streams.pop(line, None)

    def upgraded(self, line: Line, path: str, headers: Mapping[str, str]) -> bool:
        """A WebSocket: the order stream, or market data."""
        packed = "msgpack" in headers.get("content-type", "")
        parts = path.strip("/").split("/")
        if parts == ["stream"]:
            self.order_streams[line] = OrderStream(line, self._log_in, binary=self._binary, packed=packed)
            return True
        if len(parts) == 2 and parts[0] == "v2" and parts[1] in FEEDS:
            asyncio.get_running_loop().call_soon(self._open_data, line, packed)
            return True
        return False

    def _open_data(self, line: Line, packed: bool) -> None:
        stream = DataStream(line, packed, self._log_in_data)
        stream.symbol_limit = self._symbol_limit
        self.data_streams[line] = stream

    def message(self, line: Line, data: bytes) -> None:
        """A WebSocket message."""
        orders, market = self.order_streams.get(line), self.data_streams.get(line)
        if orders is not None:
            orders.message(data)
        elif market is not None:
            market.message(data)

    def http(self, request: Request, headers: Mapping[str, str]) -> Reply:
        """An HTTP request."""
        if request.path.startswith(CONTROLS):
            return Reply(self._controls.answer(request))
        self._counts["requests"] += 1
        key = self._key_of(headers)
        if key is None:
            said = {"code": UNAUTHORIZED, "message": "request is not authorized"}
            return Reply(answer(401, said))
        rule = self.rules.match(request)
        now = wall_clock()
        path = request.path.strip("/").split("/")
        if path[:2] == ["v2", "stocks"]:
            response = self._data_response(tuple(path[2:]), request, now)
        else:
            response = self.venues[key].handle(request, now, BEHAVE if rule is None else rule.habit)
            self.push()
        if rule is None:
            return Reply(response)
        if rule.no_answer or rule.reset:
            return Reply(None, cut=rule.reset)
        return Reply(response, after_s=rule.delay_s)

    def _data_response(self, path: tuple[str, ...], request: Request, now: Nanos) -> Response:
        try:
            if request.method != "GET":
                raise Refusal(405, 40510000, "method not allowed")
            return answer(200, self._data.get(path, request, now))
        except Refusal as refusal:
            return refusal.response

    # Logging in

    def _key_of(self, headers: Mapping[str, str]) -> str | None:
        """The account of a request: by Alpaca's two headers, by Basic, or by Bearer."""
        key, secret = headers.get("apca-api-key-id", ""), headers.get("apca-api-secret-key", "")
        kind, _, credentials = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            try:
                key, _, secret = base64.b64decode(credentials, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return None
        elif kind.lower() == "bearer":
            # An OAuth token stands for key and secret; the simulator's is the secret itself.
            return next((a.key for a in self.accounts.values() if a.secret == credentials), None)
        return key if self._knows(key, secret) else None

    def _knows(self, key: str, secret: str) -> bool:
        account = self.accounts.get(key)
        return account is not None and account.secret == secret

    def _log_in(self, key: str, secret: str) -> str | None:
        if key == "oauth":
            return next((a.key for a in self.accounts.values() if a.secret == secret), None)
        return key if self._knows(key, secret) else None

    def _log_in_data(self, key: str, secret: str) -> str:
        if self._log_in(key, secret) is None:
            return "402 auth failed"
        # Of dropped connections the server may not know yet; those that are there count.
        there = sum(stream.is_authenticated for stream in self.data_streams.values())
        if self._data_connections is not None and there >= self._data_connections:
            return "406 connection limit exceeded"
        return ""

    # Controls

    def stats(self) -> dict[str, Any]:
        """What ``GET /simulator/stats`` answers."""
        return {
            "accounts": {
                self.accounts[key].number: {
                    "orders": len(venue.ledger.orders),
                    "open": len(venue.ledger.open_orders()),
                    "executions": len(venue.ledger.executions),
                }
                for key, venue in self.venues.items()
            },
            "order_streams": sum(stream.is_listening for stream in self.order_streams.values()),
            "data_streams": sum(stream.is_authenticated for stream in self.data_streams.values()),
            "counts": dict(sorted(self._counts.items())),
            "rules": len(self.rules),
            "misbehaved": self.rules.used,
            "frame_faults": self.frames.counts,
        }

    def ledger(self, since: int) -> dict[str, Any]:
        """What ``GET /simulator/ledger?since=`` (UTC ns) answers: account number -> everything of it."""
        return {self.accounts[key].number: venue.ledger.dump(since) for key, venue in self.venues.items()}


def wall_clock() -> Nanos:
    """This machine's time."""
    return Nanos(time.time_ns())

"""A server of Kite Connect v3's market data wire on one port: log-in, REST, the ticker, and its own controls.

Several apps (API keys) see one market: seeded synthetic prices, or those that the controls give.  Limits are those of
the broker: three tickers to a key (the next is answered with 429), 3,000 tokens to a ticker (more are answered with an
error message, the connection goes on), requests a second by kind, instruments a request, days of candles a request.
Tokens that it does not know, and tokens that are no numbers, are passed over in silence, as Kite does.

Beside Kite's resources it answers ``GET /connect/login`` as if a person had logged in, ``GET /simulator/stats``, and
takes ``POST /simulator/<command>`` (see `simulated_controls`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from connectors.kite.codec import MODES
from connectors.kite.simulated_controls import Controls
from connectors.kite.simulated_login import App, LogIn, Refusal
from connectors.kite.simulated_market import MOST_DAYS, Listing, SimulatedMarket, frame
from connectors.kite.simulated_wire import Line, Request, Response
from connectors.kite.symbols import EXCHANGES
from connectors.kite.wire import DAY_NS, ist_day, nanos
from trading.errors import BadInput
from trading.ids import Nanos

_TICK_S: Final = 0.02
_HEARTBEAT: Final = b"\x00"
MOST_TOKENS: Final = 3_000
MOST_LINES: Final = 3
_MOST_QUOTES: Final = 500
_MOST_PRICES: Final = 1_000


class _Control(msgspec.Struct):
    a: str = ""
    v: Any = None


_control = msgspec.json.Decoder(_Control).decode


class Ticker:
    """One WebSocket: its tokens and their modes, and what has changed since the last frame."""

    def __init__(self, line: Line, key: str) -> None:
        self.line = line
        self.key = key
        self.modes: dict[int, str] = {}
        self.changed: dict[int, None] = {}

    def __repr__(self) -> str:
        return f"<Ticker {self.key} {len(self.modes)} tokens>"


class KiteSimulator:
    """The simulator; `start` it, then `url` is where it is reached."""

    def __init__(
        self,
        apps: Sequence[App] = (App(),),
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        shares: int = 5,
        seed: int = 1,
        ticks_per_s: float = 50.0,
        frames_per_s: float = 5.0,
        heartbeat_s: float = 1.0,
        hold: bool = False,
        limits: bool = True,
        clock: Callable[[], Nanos] | None = None,
    ) -> None:
        """``hold``: prices stand still until ``start``.  ``limits``: refuse what comes faster than allowed."""
        if not apps:
            raise BadInput("apps", "there is none: give at least one")
        if not 0 <= port <= 65535:
            raise BadInput("port", f"{port}: use 1 to 65535, or 0 for any free one")
        if not 1 <= shares <= 20_000:
            raise BadInput("shares", f"{shares}: use 1 to 20000")
        if not 0 < frames_per_s <= 1_000 or not 0.01 <= heartbeat_s <= 60 or not 0 <= ticks_per_s <= 1e6:
            raise BadInput("rate", "use frames from 0 to 1000 a second and a heartbeat of 0.01 to 60 s")
        self._host = host
        self._port = port
        self._rate = ticks_per_s
        self._frame_s = 1.0 / frames_per_s
        self._heartbeat_s = heartbeat_s
        self._limits = limits
        self._clock = clock or wall_clock
        now = self.clock()
        self._controls = Controls(self)
        self.market = SimulatedMarket(shares, seed, now, ist_day(now))
        self.log_ins = {app.api_key: LogIn(app) for app in apps}
        self.tickers: dict[Line, Ticker] = {}
        self.is_moving = not hold
        self._knocked: dict[Line, str] = {}
        self._lines: set[Line] = set()
        self.counts: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<KiteSimulator {self._host}:{self._port} {len(self.log_ins)} apps {len(self.tickers)} tickers>"

    @property
    def url(self) -> str:
        """``http://host:port``, for a connector's ``base_url``."""
        return f"http://{self._host}:{self._port}"

    def credentials(self, key: str = "") -> dict[str, str]:
        """What logs in to an app now (the first, where none is named), with a fresh access token."""
        log_in = self.log_ins[key] if key else next(iter(self.log_ins.values()))
        app = log_in.app
        token = log_in.give(self.clock())
        return {"api_key": app.api_key, "api_secret": app.api_secret, "access_token": token}

    def clock(self) -> Nanos:
        """The time, by which tokens end and candles close."""
        return self._clock()

    async def start(self) -> None:
        """Listen.  Raises `BadInput` where the port cannot be had."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Line(self), self._host, self._port)
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise BadInput("port", f"cannot listen on {self._host}:{self._port}: {reason}; use another") from problem
        self._port = self._server.sockets[0].getsockname()[1]
        self._tasks = [loop.create_task(self._walk()), loop.create_task(self._beat())]

    async def stop(self) -> None:
        """Close everything; idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._server is not None:
            self._server.close()
            for line in list(self.tickers):
                line.close(1001, "server stops")
            await asyncio.sleep(0)
            for line in list(self._lines):
                line.abort()
            await self._server.wait_closed()
            self._server = None

    # The market

    async def _walk(self) -> None:
        pause = min(_TICK_S, self._frame_s)
        seen_at = framed_at = time.monotonic()
        owed = 0.0
        while True:
            await asyncio.sleep(pause)
            now = time.monotonic()
            if self.is_moving and self._rate > 0:
                # By the clock, for a busy machine wakes us late; but what cannot be caught up is let go.
                owed += self._rate * min(now - seen_at, 10 * pause)
                for _ in range(int(owed)):
                    self.changed(self.market.step(self.clock()))
                owed %= 1.0
            seen_at = now
            if now >= framed_at + self._frame_s - pause / 2:
                framed_at = max(framed_at + self._frame_s, now - self._frame_s)
                self.push()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            for ticker in list(self.tickers.values()):
                ticker.line.send(_HEARTBEAT)

    def changed(self, listing: Listing) -> None:
        """An instrument has changed: those that watch it see it in their next frame."""
        for ticker in self.tickers.values():
            if listing.token in ticker.modes:
                ticker.changed[listing.token] = None

    def push(self) -> None:
        """Send each ticker what has changed, in one frame."""
        for ticker in list(self.tickers.values()):
            if ticker.changed:
                self._send(ticker, list(ticker.changed))
                ticker.changed.clear()

    def _send(self, ticker: Ticker, tokens: Sequence[int]) -> None:
        listed = [(self.market.listings.get(token), ticker.modes[token]) for token in tokens]
        packets = [listing.packet(mode) for listing, mode in listed if listing is not None]
        if packets:
            ticker.line.send(frame(packets))
            self.counts["packets"] += len(packets)
            self.counts["frames"] += 1

    # simulated_wire.Service: the ticker

    def arrived(self, line: Line) -> None:
        """A connection was made."""
        self._lines.add(line)

    def knocked(self, line: Line, request: Request) -> Response | None:
        """A ticker wants in."""
        key = request.value("api_key")
        log_in = self.log_ins.get(key)
        if request.path != "/":
            return Response(404, b"not found", "text/plain")
        if log_in is None or not log_in.knows(request.value("access_token"), self.clock()):
            self.counts["refused_403"] += 1
            return Response(403, b"Forbidden", "text/plain")
        if sum(ticker.key == key for ticker in self.tickers.values()) >= MOST_LINES:
            self.counts["refused_429"] += 1
            return Response(429, b"Too Many Requests", "text/plain")
        self._knocked[line] = key
        return None

    def opened(self, line: Line) -> None:
        """A ticker is in."""
        self.tickers[line] = Ticker(line, self._knocked.pop(line))
        self.counts["tickers"] += 1
        self.text(line, "message", "welcome to the simulator")

    def left(self, line: Line) -> None:
        """A connection is gone."""
        self._lines.discard(line)
        self._knocked.pop(line, None)
        self.tickers.pop(line, None)

    def message(self, line: Line, data: bytes) -> None:
        """A control message."""
        ticker = self.tickers.get(line)
        if ticker is None:
            return
        try:
            said = _control(data)
        except msgspec.MsgspecError:
            self.text(line, "error", "Invalid JSON")
            return
        mode, tokens = "quote", said.v
        if said.a == "mode":
            if not isinstance(said.v, list) or len(said.v) != 2 or said.v[0] not in MODES:
                self.text(line, "error", "Invalid mode")
                return
            mode, tokens = said.v
        if said.a not in ("subscribe", "unsubscribe", "mode") or not isinstance(tokens, list):
            self.text(line, "error", "Invalid action")
            return
        # Tokens that are texts, and tokens that are nobody's, are answered by nothing at all.
        self._act(ticker, said.a, mode, [token for token in tokens if isinstance(token, int)])

    def _act(self, ticker: Ticker, action: str, mode: str, tokens: list[int]) -> None:
        if action == "unsubscribe":
            for token in tokens:
                ticker.modes.pop(token, None)
                ticker.changed.pop(token, None)
            return
        if action == "subscribe":
            fresh = [token for token in dict.fromkeys(tokens) if token not in ticker.modes]
            if len(ticker.modes) + len(fresh) > MOST_TOKENS:
                self.text(ticker.line, "error", f"Can't subscribe to more than {MOST_TOKENS} instruments.")
                return
            ticker.modes.update(dict.fromkeys(fresh, mode))
        else:
            fresh = [token for token in dict.fromkeys(tokens) if token in ticker.modes]
            ticker.modes.update(dict.fromkeys(fresh, mode))
        self._send(ticker, fresh)

    def text(self, line: Line, kind: str, data: Any) -> None:
        """Send a text message."""
        line.send(msgspec.json.encode({"type": kind, "data": data}), binary=False)

    # simulated_wire.Service: REST

    def http(self, request: Request) -> Response:
        """An HTTP request."""
        self.counts["requests"] += 1
        try:
            if request.path.startswith("/simulator/"):
                return _answer(self._controls.answer(request))
            return self._resource(request)
        except Refusal as refusal:
            self.counts[f"refused_{refusal.response.status}"] += 1
            return refusal.response

    def _resource(self, request: Request) -> Response:
        now = self.clock()
        path = request.path.strip("/").split("/")
        match (request.method, *path):
            case ("GET", "connect", "login"):
                log_in = self.log_ins.get(request.value("api_key"))
                if log_in is None:
                    raise Refusal(400, "InputException", "Invalid `api_key`.")
                where = f"{self.url}/done?action=login&status=success&request_token={log_in.request_token(now)}"
                return Response(302, b"", "text/plain", {"location": where})
            case ("POST", "session", "token"):
                form = request.form()
                log_in = self.log_ins.get(form.get("api_key", ""))
                if log_in is None:
                    raise Refusal(403, "TokenException", "Invalid `api_key`.")
                return _answer(log_in.session(form, now))
        log_in = self._logged_in(request, now)
        match (request.method, *path):
            case ("DELETE", "session", "token"):
                log_in.end()
                return _answer(True)
            case ("GET", "user", "profile"):
                return _answer({"user_id": log_in.app.user_id, "user_type": "individual", "broker": "ZERODHA"})
            case ("GET", "instruments", "historical", token, interval):
                self._count(log_in, "historical", now)
                return _answer({"candles": self._candles(token, interval, request, now)})
            case ("GET", "instruments", *exchanges) if len(exchanges) <= 1:
                self._count(log_in, "other", now)
                return self._instruments(exchanges, now)
            case ("GET", "quote", *kinds) if kinds in ([], ["ohlc"], ["ltp"]):
                self._count(log_in, "quote", now)
                return _answer(self._quotes("".join(kinds), request))
            case (_, "session" | "instruments" | "quote" | "user", *_):
                raise Refusal(405, "GeneralException", "The method is not allowed for the requested URL.")
        raise Refusal(404, "GeneralException", "Route not found")

    def _logged_in(self, request: Request, now: Nanos) -> LogIn:
        kind, _, pair = request.headers.get("authorization", "").partition(" ")
        key, _, token = pair.partition(":")
        log_in = self.log_ins.get(key)
        if kind != "token" or log_in is None or not log_in.knows(token, now):
            raise Refusal(403, "TokenException", "Incorrect `api_key` or `access_token`.")
        return log_in

    def _count(self, log_in: LogIn, kind: str, now: Nanos) -> None:
        if self._limits:
            log_in.count(kind, now)

    def _instruments(self, exchanges: Sequence[str], now: Nanos) -> Response:
        if exchanges and exchanges[0] not in EXCHANGES:
            raise Refusal(400, "InputException", "Invalid `exchange`.")
        # The old contract stays in the list for a while, as it did at Kite on the morning after.
        listed = [each for each in self.market.by_id.values() if not exchanges or each.exchange == exchanges[0]]
        return Response(200, self.market.csv(listed), "text/csv")

    def _quotes(self, kind: str, request: Request) -> dict[str, Any]:
        asked = [value for name, value in request.query if name == "i"]
        most = _MOST_PRICES if kind else _MOST_QUOTES
        if not asked:
            raise Refusal(400, "InputException", "Missing or empty field `i`")
        if len(asked) > most:
            raise Refusal(400, "InputException", f"Too many tokens requested. Max permitted is {most}.")
        today = ist_day(self.clock())
        live = {each.id: each for each in self.market.live(today)}
        live |= {str(each.token): each for each in live.values()}
        found = {name: live[name] for name in asked if name in live}
        return {name: getattr(each, kind or "quote")() for name, each in found.items()}

    def _candles(self, token: str, interval: str, request: Request, now: Nanos) -> list[list[Any]]:
        listing = self.market.listings.get(int(token)) if token.isdecimal() else None
        if listing is None:
            raise Refusal(400, "InputException", "invalid token")
        if interval not in MOST_DAYS:
            raise Refusal(400, "InputException", "invalid interval")
        try:
            start, end = nanos(request.value("from")), nanos(request.value("to"))
        except ValueError:
            raise Refusal(400, "InputException", "invalid from or to date") from None
        if end < start:
            raise Refusal(400, "InputException", "from date cannot be after to date")
        most = MOST_DAYS[interval]
        if end - start > most * DAY_NS:
            raise Refusal(400, "InputException", f"interval exceeds max limit: {most} days")
        return listing.candles(interval, start, end, now, request.value("oi") == "1")


def _answer(data: Any) -> Response:
    return Response(200, msgspec.json.encode({"status": "success", "data": data}))


def wall_clock() -> Nanos:
    """This machine's time."""
    return Nanos(time.time_ns())

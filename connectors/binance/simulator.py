"""A server of Binance's market data wire, on one port: streams, REST, and its own controls.

It replays a `Source`: a recording at real pace, N times that or as fast as it can, or a synthetic market.  A
message is framed once and written to each subscriber in one write per pacing slice.  What is sent is counted
exactly, per stream: ``messages`` are those that had a subscriber, ``sent`` counts a copy for each of them.

Beside Binance's resources it answers ``GET /simulator/stats`` and takes ``POST /simulator/<command>`` with a
JSON body: ``start``, ``hold`` (stop the clock until ``start``), ``rate`` {"speed": 2.0 or null}, ``drop``
{"connections": n}, ``garbage`` {"text": …}, ``pause`` and ``resume`` {"stream": …}, ``ignore``
{"streams": […]} (from now on, accept subscriptions to these and send nothing; connections that have them keep them),
``shutdown`` {"after_s": 1}, ``limit`` {"requests": 1, "status": 429, "retry_after": 1}.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from connectors.binance.kline_streams import KlineStreams
from connectors.binance.product import Product
from connectors.binance.simulated_client import SimulatedClient, frame
from connectors.binance.simulated_market import SimulatedMarket
from connectors.binance.simulated_rest import Answer, SimulatedRest, error
from connectors.binance.source import Event, Source, restamped
from trading.errors import BadInput, NotReady

log = logging.getLogger(__name__)

_SLICE_S: Final = 0.002
_EVENTS_PER_SLICE: Final = 1000
#: When running as fast as it can, it waits for clients that have more than this unsent.
_ENOUGH_UNSENT: Final = 1024 * 1024
_SLOWEST_S: Final = 10.0


class BinanceSimulator:
    """The simulator; `start` it, then `url` is where it is reached."""

    def __init__(
        self,
        source: Source,
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float | None = 1.0,
        wait_for_first_subscriber: bool = True,
        *,
        hold: bool = False,
        restamp: bool = False,
        streams_per_connection: int | None = None,
        messages_per_s: int | None = None,
        weight_per_minute: int | None = None,
        ping_every_s: float | None = None,
        pong_within_s: float | None = None,
        disconnect_after_s: float = 24 * 3600.0,
        write_limit: int = 16 * 1024 * 1024,
    ) -> None:
        """``hold``: nothing is sent before the command ``start``.  ``speed`` None is as fast as it can; limits
        left None are the product's own.

        ``restamp`` moves event and trade times so that the replay seems to happen now.
        """
        _check_speed(speed)
        if not 0 <= port <= 65535:
            raise BadInput("port", f"{port}: use 1 to 65535, or 0 for any free one")
        self._source = source
        self._host = host
        self._port = port
        self._speed = speed
        self._wait = wait_for_first_subscriber and not hold
        self._hold = hold
        self._restamp = restamp
        self._limits = (streams_per_connection, messages_per_s, ping_every_s, pong_within_s)
        self._weight = weight_per_minute
        self._disconnect_after = disconnect_after_s
        self._write_limit = write_limit
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._go = asyncio.Event()
        self._clients: set[SimulatedClient] = set()
        self._subscribers: dict[str, dict[SimulatedClient, None]] = {}
        self._paused: set[str] = set()
        self._ignored: frozenset[str] = frozenset()
        self._counters: Counter[str] = Counter()
        self._messages: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        self._first_line = 0
        self._last_line = 0
        self._finished = False
        self._failure = ""
        self._anchor = (0.0, 0)
        self._shift_ms = 0
        self._ready = False

    def __repr__(self) -> str:
        state = "finished" if self._finished else "replaying" if self._go.is_set() else "waiting"
        return f"<BinanceSimulator {self._host}:{self._port} {state} line {self._last_line}>"

    @property
    def url(self) -> str:
        """``http://host:port``, for a provider's ``base_url``."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Prepare the source and listen.

        Raises `BadInput` (port in use or not to be had, nothing usable in a recording).
        """
        specs = await asyncio.to_thread(self._source.prepare, time.time_ns())
        self.product: Product = self._source.product
        streams, messages, ping, pong = self._limits
        self.streams_per_connection = streams or self.product.streams_per_connection
        self.messages_per_s = messages or self.product.messages_per_s
        self._ping = (ping or self.product.ping_every_s, pong or self.product.pong_within_s)
        self._market = SimulatedMarket(self._source, specs)
        if not self._restamp:
            # Until the first message is due, the market's clock stands at its start.
            self._market.at = await asyncio.to_thread(lambda: next((e.due for e in self._source.events()), 0))
        self._rest = SimulatedRest(self._market, self._weight)
        self._klines = KlineStreams(self._market)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: SimulatedClient(self), self._host, self._port)
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise BadInput("port", f"cannot listen on {self._host}:{self._port}: {reason}; use another") from problem
        self._port = self._server.sockets[0].getsockname()[1]
        self._ready = True
        if not self._wait and not self._hold:
            self._go.set()
        self._tasks = [loop.create_task(self._replay()), loop.create_task(self._tend())]

    async def stop(self) -> None:
        """Close everything; idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self._server is not None:
            self._server.close()
            for client in list(self._clients):
                client.close(1001, "server stops")
            await asyncio.sleep(0)
            for client in list(self._clients):
                client.abort()
            await self._server.wait_closed()
            self._server = None

    async def finished(self) -> None:
        """Wait until the source has ended; raises `NotReady` where the simulator was not started."""
        if not self._tasks:
            raise NotReady("the simulator is not running")
        await asyncio.shield(self._tasks[0])

    def stats(self) -> dict[str, Any]:
        """What ``GET /simulator/stats`` answers."""
        streams = {
            stream: {"messages": self._messages[stream], "sent": self._sent[stream]} for stream in sorted(self._sent)
        }
        return {
            "source": self._source.describe(),
            "product": self.product.provider,
            "speed": self._speed,
            "replay": {
                "started": self._go.is_set(),
                "finished": self._finished,
                "failure": self._failure,
                "first_line": self._first_line,
                "last_line": self._last_line,
                "market_time": self._market.at,
                "behind_ms": round(self._behind() * 1000.0, 3),
            },
            "streams": streams,
            "messages": sum(self._messages.values()),
            "sent": sum(self._sent.values()),
            "subscribed": len(self._subscribers),
            "requests": dict(self._rest.requests),
            "connections": sum(client.is_stream for client in self._clients),
            "connected": self._counters["connected"],
            "events": {name: count for name, count in sorted(self._counters.items()) if name != "connected"},
        }

    # The replay

    def _events(self) -> Iterator[Event]:
        for event in self._source.events():
            if self._restamp:
                if not self._shift_ms:
                    self._shift_ms = (time.time_ns() - event.due) // 1_000_000
                shift = self._shift_ms
                yield event._replace(due=event.due + shift * 1_000_000, payload=restamped(event.payload, shift))
            else:
                yield event

    async def _replay(self) -> None:
        await self._go.wait()
        self._source.begin(time.time_ns())
        try:
            await self._run()
        except Exception as problem:
            # Whatever it is (a source that breaks, say), the clients must see an end and the operator a
            # reason.
            self._failure = f"{type(problem).__name__}: {problem}"
            log.exception("the replay failed")
        finally:
            self._finished = True

    async def _run(self) -> None:
        events = self._events()
        event = next(events, None)
        if event is None:
            return
        self._first_line = event.line
        self._anchor = (time.monotonic(), event.due)
        while event is not None:
            if not self._go.is_set():
                await self._go.wait()
                self._anchor = (time.monotonic(), event.due)
            until = self._now_due()
            count = 0
            while event is not None and count < _EVENTS_PER_SLICE and (until is None or event.due <= until):
                self._put(event)
                count += 1
                event = next(events, None)
            self._put_klines()
            await self._write(count)
            if event is None:
                break
            if until is None or count == _EVENTS_PER_SLICE:
                await asyncio.sleep(0)
            else:
                assert self._speed is not None
                wait = (event.due - until) / 1e9 / self._speed
                await asyncio.sleep(min(max(wait, 0.0), 0.1) if wait > _SLICE_S else _SLICE_S / 2)

    def _now_due(self) -> int | None:
        """The market time until which messages are due; None for all."""
        if self._speed is None:
            return None
        began, market = self._anchor
        return market + int((time.monotonic() - began) * 1e9 * self._speed)

    def _behind(self) -> float:
        """Seconds that the replay is late."""
        until = self._now_due()
        if until is None or self._finished or not self._market.at:
            return 0.0
        assert self._speed is not None
        return max(0.0, (until - self._market.at) / 1e9 / self._speed)

    def _put(self, event: Event) -> None:
        self._last_line = event.line
        self._market.apply(event)
        self._fan_out(event.stream, event.payload)

    def _fan_out(self, stream: str, payload: bytes) -> None:
        subscribers = self._subscribers.get(stream)
        if not subscribers:
            return
        if stream in self._paused:
            self._counters["withheld"] += 1
            return
        whole = frame(payload)
        bare = b""
        for client in subscribers:
            if client.combined:
                client.out.append(whole)
            else:
                if not bare:
                    # What stands between `"data":` and the envelope's last brace.
                    bare = frame(payload[payload.index(b'"data":') + 7 : payload.rindex(b"}")])
                client.out.append(bare)
        self._messages[stream] += 1
        self._sent[stream] += len(subscribers)

    def _put_klines(self) -> None:
        for stream, payload in self._klines.due(self._subscribers):
            self._fan_out(stream, payload)

    async def _write(self, count: int) -> None:
        unsent = 0
        for client in list(self._clients):
            waiting = client.write_out()
            if waiting > self._write_limit:
                self._counters["closed_for_slowness"] += 1
                client.abort()
            else:
                unsent = max(unsent, waiting)
        if self._speed is not None or unsent < _ENOUGH_UNSENT:
            return
        give_up = time.monotonic() + _SLOWEST_S
        while unsent > _ENOUGH_UNSENT // 4 and time.monotonic() < give_up:
            await asyncio.sleep(0.0005)
            unsent = max((client.write_out() for client in self._clients), default=0)
        for client in list(self._clients):
            if client.write_out() > _ENOUGH_UNSENT:
                self._counters["closed_for_slowness"] += 1
                client.abort()

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(min(0.25, self._ping[0] / 2, self._disconnect_after / 4))
            for client in list(self._clients):
                client.tend(*self._ping, self._disconnect_after)

    # What clients call

    def arrived(self, client: SimulatedClient) -> None:
        """A connection was made."""
        self._clients.add(client)
        self._counters["connected"] += 1

    def left(self, client: SimulatedClient) -> None:
        """A connection is gone."""
        self._clients.discard(client)
        self.unsubscribe(client, list(client.streams))

    def count(self, what: str) -> None:
        """Count something worth knowing."""
        self._counters[what] += 1

    def subscribe(self, client: SimulatedClient, streams: Iterable[str]) -> None:
        """Send ``streams`` to ``client`` from the next message on.

        As with the real one, a stream that does not exist, or that another route serves, is accepted and
        silent; a connection without a route gets what ``public`` serves.
        """
        for stream in streams:
            client.streams[stream] = None
            if stream in self._ignored:
                self._counters["ignored"] += 1
                continue
            route = self.product.route(stream)
            if not route or route == (client.route or "public"):
                self._subscribers.setdefault(stream, {})[client] = None
                if self._wait:
                    self._wait = False
                    self._go.set()
            else:
                self._counters["wrong_route"] += 1

    def unsubscribe(self, client: SimulatedClient, streams: Iterable[str]) -> None:
        """Send ``streams`` no more."""
        for stream in streams:
            client.streams.pop(stream, None)
            subscribers = self._subscribers.get(stream)
            if subscribers is not None:
                subscribers.pop(client, None)
                if not subscribers:
                    del self._subscribers[stream]

    def http(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> Answer:
        """Answer an HTTP request."""
        if path == "/simulator/stats" and method == "GET":
            return Answer(200, msgspec.json.encode(self.stats()))
        if path.startswith("/simulator/") and method == "POST":
            return self._command(path.removeprefix("/simulator/"), body)
        if method != "GET":
            return error(-5000, f"Path {path}, Method {method} is invalid", 405)
        now = self._market.at or time.time_ns()
        return self._rest.get(path, query, now // 1_000_000, time.time_ns() // 1_000_000)

    # Controls

    def _command(self, name: str, body: bytes) -> Answer:
        commands: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "start": self._start_replay,
            "hold": self._hold_replay,
            "rate": self._change_rate,
            "drop": self._drop,
            "garbage": self._send_garbage,
            "pause": self._pause,
            "resume": self._resume,
            "ignore": self._ignore,
            "shutdown": self._announce_shutdown,
            "limit": self._limit_rest,
        }
        command = commands.get(name)
        if command is None:
            return error(-1, f"no command {name!r}: use {', '.join(commands)}", 404)
        try:
            wish = msgspec.json.decode(body or b"{}", type=dict[str, Any])
            return Answer(200, msgspec.json.encode(command(wish)))
        except (msgspec.DecodeError, BadInput, KeyError, TypeError, ValueError) as problem:
            return error(-1, f"{name}: {type(problem).__name__} {problem}")

    def _start_replay(self, wish: dict[str, Any]) -> dict[str, Any]:
        self._go.set()
        return {"started": True}

    def _hold_replay(self, wish: dict[str, Any]) -> dict[str, Any]:
        # Held means held: whoever subscribes from now on does not start it.
        self._wait = False
        self._go.clear()
        return {"held": True}

    def _change_rate(self, wish: dict[str, Any]) -> dict[str, Any]:
        speed = None if wish["speed"] is None else float(wish["speed"])
        _check_speed(speed)
        self._anchor = (time.monotonic(), self._market.at or self._anchor[1])
        self._speed = speed
        return {"speed": speed}

    def _drop(self, wish: dict[str, Any]) -> dict[str, Any]:
        streams = [client for client in self._clients if client.is_stream]
        chosen = streams[: int(wish.get("connections", len(streams)))]
        for client in chosen:
            client.abort()
        return {"dropped": len(chosen)}

    def _send_garbage(self, wish: dict[str, Any]) -> dict[str, Any]:
        text = str(wish.get("text", "{not json")).encode()
        chosen = [client for client in self._clients if client.is_stream]
        for client in chosen:
            client.send(text)
        return {"sent": len(chosen)}

    def _pause(self, wish: dict[str, Any]) -> dict[str, Any]:
        self._paused.add(str(wish["stream"]))
        return {"paused": sorted(self._paused)}

    def _resume(self, wish: dict[str, Any]) -> dict[str, Any]:
        self._paused.discard(str(wish["stream"]))
        return {"paused": sorted(self._paused)}

    def _ignore(self, wish: dict[str, Any]) -> dict[str, Any]:
        self._ignored = frozenset(str(stream) for stream in wish["streams"])
        return {"ignored": sorted(self._ignored)}

    def _announce_shutdown(self, wish: dict[str, Any]) -> dict[str, Any]:
        after = float(wish.get("after_s", 600.0))
        chosen = [client for client in self._clients if client.is_stream]
        notice = b'{"e":"serverShutdown","E":%d}' % (time.time_ns() // 1_000_000)
        loop = asyncio.get_running_loop()
        for client in chosen:
            client.send(notice)
            loop.call_later(after, client.close, 1001, "server shutdown")
        return {"told": len(chosen)}

    def _limit_rest(self, wish: dict[str, Any]) -> dict[str, Any]:
        self._rest.limited = int(wish.get("requests", 1))
        self._rest.limit_status = int(wish.get("status", 429))
        self._rest.retry_after = int(wish.get("retry_after", 1))
        return {"requests": self._rest.limited}


def _check_speed(speed: float | None) -> None:
    if speed is not None and not 0 < speed <= 10_000:
        raise BadInput("speed", f"{speed:g}: use a number above 0, up to 10000, or none for as fast as it can")

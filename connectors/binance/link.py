"""One of Binance's stream connections, kept alive: subscriptions paced and checked, reconnects, replacements.

A `Link` carries the streams of one route.  It holds the set that is wanted; whatever socket it has is brought
to that set by SUBSCRIBE and UNSUBSCRIBE messages within the venue's limits, and every reply is checked.
Before the venue's 24 hours are over, or when it announces a shutdown, a second socket takes over: both are
subscribed for a moment, the old one's messages are used, the new one's kept aside; then the old one is closed
and what it had not delivered yet is taken from the new.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from connectors import transport
from connectors.base import Clock, FeedSink
from connectors.binance.codec import Codec, Reply, Shutdown, subscribe, unsubscribe
from trading.errors import NotReady, TradeError
from trading.ids import InstrumentId, Nanos

log = logging.getLogger(__name__)

_STREAMS_PER_MESSAGE: Final = 200


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """Times of a link, in seconds."""

    #: A new socket takes over after this long; the venue cuts at 24 h.
    replace_after: float = 23 * 3600.0
    #: How long old and new socket run side by side.
    overlap: float = 1.0
    connect_within: float = 10.0
    #: A reply to a control message must come within this time.
    reply_within: float = 10.0
    #: Without any byte for this long we ping; twice as long is a dead line.
    silence: float = 60.0
    first_backoff: float = 0.5
    longest_backoff: float = 30.0


class _Socket:
    """One WebSocket and what has been asked of it."""

    def __init__(self) -> None:
        self.web: transport.WebSocket | None = None
        self.asked: set[str] = set()
        #: Request number -> (subscribing, streams, loop time it was sent).
        self.waiting: dict[int, tuple[bool, list[str], float]] = {}
        #: Set while no reply is awaited, and for good once lost.
        self.answered = asyncio.Event()
        self.answered.set()
        self.next_request = 1
        self.next_send_at = 0.0
        self.lost = asyncio.Event()
        self.reason = ""
        self.leaving = asyncio.Event()
        #: Messages kept aside while this socket waits to take over; None when it is in charge.
        self.aside: deque[tuple[Nanos, bytes]] | None = None

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.lost.set()
        self.answered.set()


class Link:
    """The connection of one route.  `run` it; `want` and `unwant` streams at any time."""

    def __init__(
        self,
        url: str,
        sink: FeedSink,
        clock: Clock,
        tuning: Tuning,
        *,
        messages_per_s: int,
        on_open: Callable[[], None],
        on_closed: Callable[[str], None],
        on_refused: Callable[[InstrumentId, str], None],
        tap: Callable[[Nanos, bytes], None] | None = None,
    ) -> None:
        self.url = url
        self._codec = Codec()
        self._sink = sink
        self._clock = clock
        self._tuning = tuning
        # One message of each second is left for pongs.
        self._pace = 1.0 / max(1, messages_per_s - 1)
        self._on_open = on_open
        self._on_closed = on_closed
        self._on_refused = on_refused
        #: Sees every stream message as it came.
        self._tap = tap
        #: Wanted stream -> (instrument number, instrument).
        self.wanted: dict[str, tuple[int, InstrumentId]] = {}
        #: Streams of chunks that were refused: asked again one by one, so that the bad one is found.
        self._alone: set[str] = set()
        #: Streams to be ended and begun again.
        self._renewed: set[str] = set()
        self._current: _Socket | None = None
        self._syncing = asyncio.Lock()
        self._something = asyncio.Event()
        self.reconnects = 0
        self.replacements = 0
        self.is_open = False

    def __repr__(self) -> str:
        return f"<Link {self.url} {'open' if self.is_open else 'down'} {len(self.wanted)} streams>"

    @property
    def codec(self) -> Codec:
        """The decoder, for its counts."""
        return self._codec

    def want(self, stream: str, number: int, instrument: InstrumentId) -> None:
        """Add a stream; `settle` asks for it."""
        self.wanted[stream] = (number, instrument)
        self._codec.add(stream, number)
        self._something.set()

    def unwant(self, stream: str) -> None:
        """Take a stream out; `settle` says so to the venue."""
        if self.wanted.pop(stream, None) is None:
            return
        self._alone.discard(stream)
        self._renewed.discard(stream)
        if self._current is None or stream not in self._current.asked:
            self._codec.remove(stream)

    def renew(self, stream: str) -> None:
        """End a stream and begin it again; `settle` does so."""
        if self._current is not None and stream in self._current.asked:
            self._renewed.add(stream)

    def give_up(self, reason: str) -> None:
        """Let the connection go; `run` opens another."""
        if self._current is not None and self._current.web is not None:
            self._current.web.abort(reason)

    async def settle(self) -> None:
        """Ask for what is wanted and not asked yet, at the venue's pace; does nothing while disconnected."""
        socket = self._current
        if socket is not None and self.is_open:
            try:
                await self._sync(socket)
            except OSError as error:
                # `run` sees the same and asks for everything again on the next connection.
                log.debug("%s: lost while asking for streams: %s", self.url, error)

    async def run(self) -> None:
        """Keep connected while anything is wanted; ends only by cancellation."""
        failures = 0
        retry_after = 0.0
        while True:
            await self._something.wait()
            if not self.wanted:
                self._something.clear()
                continue
            socket = _Socket()
            opened_at = 0.0
            loop = asyncio.get_running_loop()
            try:
                await self._open(socket)
                self._current = socket
                await self._sync(socket)
                if not socket.lost.is_set():
                    opened_at = loop.time()
                    self.is_open = True
                    self._on_open()
                    socket = await self._stay(socket)
                reason = socket.reason
            except NotReady as error:
                reason, retry_after = str(error), error.retry_after
            except (TradeError, OSError) as error:
                reason = str(error)
            finally:
                was_open, self.is_open = self.is_open, False
                self._current = None
                if socket.web is not None:
                    socket.web.abort("closed by us: the link ends")
            if was_open:
                self._on_closed(reason)
            if not self.wanted:
                continue
            lived = loop.time() - opened_at if opened_at else 0.0
            failures = 0 if lived > self._tuning.longest_backoff else failures + 1
            pause = min(self._tuning.longest_backoff, self._tuning.first_backoff * 2 ** min(failures - 1, 10))
            # Full jitter, so that many workers do not come back in step; the first retry is near at once.
            pause = max(retry_after, pause * random.random())
            retry_after = 0.0
            if was_open or failures == 1:
                log.warning("%s: %s; connecting again in %.1f s", self.url, reason, pause)
            self.reconnects += 1
            await asyncio.sleep(pause)

    # Sockets

    async def _open(self, socket: _Socket) -> None:
        def receive(payloads: list[bytes]) -> None:
            self._received(socket, payloads)

        socket.web = await transport.connect(self.url, receive, socket.end, within=self._tuning.connect_within)

    async def _stay(self, socket: _Socket) -> _Socket:
        """Live until the socket in charge is lost; return the one that was lost."""
        loop = asyncio.get_running_loop()
        tuning = self._tuning
        # Jitter, so that workers started together do not all reconnect together.
        replace_at = loop.time() + tuning.replace_after * random.uniform(0.9, 1.0)
        pinged_at = 0.0
        tick = min(0.5, tuning.silence / 4, max(0.01, tuning.replace_after / 10))
        while not socket.lost.is_set():
            try:
                async with asyncio.timeout(tick):
                    await socket.lost.wait()
            except TimeoutError:
                pass
            else:
                break
            if not self.wanted:
                assert socket.web is not None
                await socket.web.close()
                socket.end("nothing is wanted any more")
                break
            now = loop.time()
            assert socket.web is not None
            if any(now - sent_at > tuning.reply_within for _, _, sent_at in socket.waiting.values()):
                socket.web.abort(f"no reply to a subscription within {tuning.reply_within:g} s")
            silent = now - socket.web.heard_at
            if silent > 2 * tuning.silence:
                socket.web.abort(f"silent for {silent:.0f} s")
            elif silent > tuning.silence and now - pinged_at > tuning.silence:
                pinged_at = now
                socket.web.ping()
            if not socket.lost.is_set() and (now >= replace_at or socket.leaving.is_set()):
                replacement = await self._replace(socket)
                if replacement is not None:
                    socket = replacement
                    self.replacements += 1
                    replace_at = loop.time() + tuning.replace_after * random.uniform(0.9, 1.0)
                else:
                    socket.leaving.clear()
                    replace_at = loop.time() + tuning.longest_backoff * random.uniform(0.5, 1.0)
        return socket

    async def _replace(self, old: _Socket) -> _Socket | None:
        """Let a new socket take over without losing or repeating a message; None if it cannot."""
        new = _Socket()
        new.aside = deque()
        self._codec.forget_sequences()
        self._codec.watch = "note"
        try:
            await self._open(new)
            await self._sync(new)
            async with asyncio.timeout(self._tuning.reply_within):
                await new.answered.wait()
            if new.lost.is_set():
                raise ConnectionResetError(new.reason)
            # Side by side until the old one has surely delivered what it had when the new one began.
            try:
                async with asyncio.timeout(self._tuning.overlap):
                    await old.lost.wait()
            except TimeoutError:
                pass
        except (TradeError, OSError) as error:
            # A TimeoutError is an OSError: the replies did not come.
            log.warning("%s: the next connection failed: %s", self.url, error or "no reply")
            if new.web is not None:
                new.web.abort("closed by us: not needed")
            self._codec.watch = ""
            return None
        self._current = new
        self._codec.watch = "skip"
        kept, new.aside = new.aside, None
        for received_at, payload in kept:
            self._decode(new, payload, received_at)
        if kept and len(self._sink.ticks):
            self._sink.wake()
        # A later want or unwant may have reached only the old socket.
        asked_of_old, old.asked = old.asked, set()
        assert old.web is not None
        await old.web.close()
        for stream in asked_of_old - new.asked:
            if stream not in self.wanted:
                self._codec.remove(stream)
        await self._sync(new)
        asyncio.get_running_loop().call_later(self._tuning.overlap, self._stop_watching)
        return new

    def _stop_watching(self) -> None:
        if self._codec.watch == "skip":
            self._codec.watch = ""

    # Subscriptions

    async def _sync(self, socket: _Socket) -> None:
        """Bring ``socket`` to the wanted set, a message at a time."""
        async with self._syncing:
            while not socket.lost.is_set() and socket.web is not None:
                surplus = [s for s in socket.asked if s not in self.wanted or s in self._renewed]
                missing = [stream for stream in self.wanted if stream not in socket.asked]
                if not surplus and not missing:
                    return
                loop = asyncio.get_running_loop()
                if (wait := socket.next_send_at - loop.time()) > 0:
                    await asyncio.sleep(wait)
                    # What is wanted may have changed meanwhile.
                    continue
                chunk = (surplus or missing)[:_STREAMS_PER_MESSAGE]
                if not surplus:
                    alone = [stream for stream in missing if stream in self._alone]
                    chunk = alone[:1] or chunk
                request = socket.next_request
                socket.next_request += 1
                message = unsubscribe(chunk, request) if surplus else subscribe(chunk, request)
                socket.web.send(message)
                socket.next_send_at = loop.time() + self._pace
                socket.answered.clear()
                socket.waiting[request] = (not surplus, chunk, loop.time())
                if surplus:
                    self._renewed.difference_update(chunk)
                    socket.asked.difference_update(chunk)
                else:
                    socket.asked.update(chunk)

    def _replied(self, socket: _Socket, reply: Reply) -> None:
        asked = socket.waiting.pop(reply.id, None) if isinstance(reply.id, int) else None
        if not socket.waiting:
            socket.answered.set()
        if asked is None:
            if reply.error:
                log.warning("%s: the venue complains: %s", self.url, reply.error)
            return
        subscribing, streams, _ = asked
        if not reply.error:
            for stream in streams:
                if not subscribing and stream not in self.wanted:
                    self._codec.remove(stream)
                self._alone.discard(stream)
            return
        if not subscribing:
            log.warning("%s: UNSUBSCRIBE of %d streams refused: %s", self.url, len(streams), reply.error)
            return
        socket.asked.difference_update(streams)
        if len(streams) > 1:
            self._alone.update(stream for stream in streams if stream in self.wanted)
        else:
            self._alone.discard(streams[0])
            refused = self.wanted.pop(streams[0], None)
            self._codec.remove(streams[0])
            if refused is not None:
                self._on_refused(refused[1], reply.error)
        self._resync(socket)

    def _resync(self, socket: _Socket) -> None:
        task = asyncio.get_running_loop().create_task(self._sync(socket))

        def done(finished: asyncio.Task[None]) -> None:
            if not finished.cancelled() and (error := finished.exception()) is not None:
                socket.end(str(error))

        task.add_done_callback(done)

    # Messages

    def _received(self, socket: _Socket, payloads: list[bytes]) -> None:
        now = self._clock()
        if socket.aside is not None:
            for payload in payloads:
                if payload.startswith(b'{"stream":"'):
                    socket.aside.append((now, payload))
                else:
                    self._decode(socket, payload, now)
            return
        if socket is not self._current:
            # Its place has been taken, and whoever took it delivers these too.
            return
        sink = self._sink
        before = len(sink.ticks)
        if self._tap is None:
            decode = self._codec.decode
            for payload in payloads:
                try:
                    special = decode(payload, now, sink)
                except ValueError as error:
                    sink.garbage(payload, str(error))
                    continue
                if special is not None:
                    self._act(socket, special)
        else:
            for payload in payloads:
                self._decode(socket, payload, now)
        if len(sink.ticks) != before:
            sink.wake()

    def _decode(self, socket: _Socket, payload: bytes, received_at: Nanos) -> None:
        repeated = self._codec.repeated
        try:
            special = self._codec.decode(payload, received_at, self._sink)
        except ValueError as error:
            self._sink.garbage(payload, str(error))
            return
        if self._tap is not None and payload.startswith(b'{"stream":"') and repeated == self._codec.repeated:
            self._tap(received_at, payload)
        if special is not None:
            self._act(socket, special)

    def _act(self, socket: _Socket, special: Reply | Shutdown) -> None:
        if isinstance(special, Shutdown):
            log.info("%s: the server announces its shutdown", self.url)
            socket.leaving.set()
        else:
            self._replied(socket, special)

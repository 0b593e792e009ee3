"""The data plane: batches of bytes from publishers to whoever subscribes now.

Redis pub/sub keeps nothing: what is published while a reader is away is gone.  A reader that was cut off gets
`LOST` after its reconnection and must expect a gap.  A reader that is too slow loses the oldest messages.

Nothing holds a publisher back.  What a slow reader has not taken waits first in its own queue (bounded by
messages and bytes, see `Bus.subscribe`), and while its event loop is blocked in Redis, which cuts the reader off
above its ``client-output-buffer-limit pubsub``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import hiredis

from storage.database import address_of
from storage.hot import PREFIX
from storage.resp import Wire, command, connect, refused
from trading.errors import NeedsOperator, NotReady

#: Seconds after which an unanswered publish means that Redis is away.
ANSWER_S: Final = 3.0
#: After a failed connection, publishing fails at once for so many seconds.
_PAUSE_S: Final = 0.2
#: A subscription that has heard nothing asks after so many seconds, and gives up after thrice as many.
_QUIET_S: Final = 4.0

#: Bytes that may wait for a reader: some 800,000 ticks.
WAITING_BYTES: Final = 64 << 20

#: Yielded by a subscription after a reconnection: messages may be missing before it.  Compare with ``is``.
LOST: Final[tuple[str, bytes]] = ("", b"")


class Bus:
    """Publishes on one connection, which is made on first use.  The constructor does no IO."""

    def __init__(self, redis_url: str) -> None:
        self._url = redis_url
        self._address = address_of(redis_url)
        self._publisher: _Publisher | None = None
        self._connecting = asyncio.Lock()
        self._failed_at = 0.0
        self._failure = ""
        self._heads: dict[str, bytes] = {}
        #: How often the publishing connection was lost, and when the server was last heard before that (monotonic
        #: seconds): what it took shortly before may not have reached those who listened.
        self.losses = 0
        self.lost_at = 0.0

    def __repr__(self) -> str:
        state = "open" if self._publisher is not None and self._publisher.open else "closed"
        return f"Bus({self._address}, {state})"

    async def publish(self, channel: str, payload: bytes) -> int:
        """Send to whoever listens now; returns how many did.

        Raises `NotReady` when Redis is away; the message may have been delivered none the less.
        """
        answer: int = await self._send(self._command(channel, payload), 0)
        return answer

    async def publish_noted(self, channel: str, payload: bytes, key: str, note: bytes) -> tuple[int, int]:
        """As `publish`, and in the same instant put a note at the end of the list at ``key`` (`storage.hot`).

        Redis does both or neither (but publishes all the same where something else than a list is at ``key``, which is
        a bug).  Returns how many listened, and how many notes there are.
        """
        words = (b"*1\r\n$5\r\nMULTI\r\n", self._command(channel, payload))
        pushed = command(b"RPUSH", (PREFIX + key).encode(), note)
        listeners, notes = await self._send(b"".join((*words, pushed, b"*1\r\n$4\r\nEXEC\r\n")), 3)
        if isinstance(notes, hiredis.ReplyError):
            raise refused(self._address, str(notes))
        return int(listeners), int(notes)

    def _command(self, channel: str, payload: bytes) -> bytes:
        head = self._heads.get(channel)
        if head is None:
            head = self._head(channel)
        return b"%b%d\r\n%b\r\n" % (head, len(payload), payload)

    async def _send(self, data: bytes, before: int) -> Any:
        """Send commands and return the last one's reply, which comes after so many others."""
        publisher = self._publisher
        if publisher is None or not publisher.open:
            publisher = await self._connect()
        if publisher.full:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await publisher.drained()
            except TimeoutError:
                publisher.abort()
                raise NotReady(f"Redis at {self._address} has not read for {ANSWER_S:g} s") from None
        return await publisher.ask(data, before)

    async def subscribe(
        self,
        channels: Iterable[str] = (),
        patterns: Iterable[str] = (),
        *,
        size: int = 1024,
        most_bytes: int = WAITING_BYTES,
    ) -> Subscription:
        """Listen on a connection of its own; returns once Redis has confirmed.

        ``patterns`` are Redis globs; a message that matches several comes several times.  At most ``size``
        messages of ``most_bytes`` together wait (the newest one does, whatever its size).  Raises `NotReady`
        when Redis is away.
        """
        subscription = Subscription(self._url, size, most_bytes)
        try:
            await subscription.start(channels, patterns)
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def close(self) -> None:
        """Close the publishing connection; subscriptions are closed by their owners."""
        if self._publisher is not None:
            self._publisher.abort()
            self._publisher = None

    async def _connect(self) -> _Publisher:
        async with self._connecting:
            if self._publisher is not None and self._publisher.open:
                return self._publisher
            if time.monotonic() - self._failed_at < _PAUSE_S:
                raise NotReady(self._failure)
            try:
                self._publisher = await connect(self._url, lambda: _Publisher(self._address, self._lost))
            except (NotReady, NeedsOperator) as error:
                self._failed_at, self._failure = time.monotonic(), error.detail
                raise
            return self._publisher

    def _lost(self, heard_at: float) -> None:
        self.losses += 1
        self.lost_at = heard_at

    def _head(self, channel: str) -> bytes:
        if len(self._heads) > 10_000:
            self._heads.clear()
        name = channel.encode()
        head = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$" % (len(name), name)
        self._heads[channel] = head
        return head


class _Publisher(Wire):
    """Sends commands and matches replies, which come in the order of the commands."""

    def __init__(self, address: str, tell_loss: Callable[[float], None]) -> None:
        super().__init__()
        self._address = address
        self._tell_loss = tell_loss
        #: Who waits for a reply, since when, and how many replies come before that one.
        self._waiting: deque[tuple[asyncio.Future[Any], float, int]] = deque()
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.TimerHandle | None = None

    def ask(self, data: bytes, before: int) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((answer, self._loop.time(), before))
        if self._watch is None:
            # One timer watches the oldest; a timeout for each message would cost more than the message.
            self._watch = self._loop.call_later(ANSWER_S, self._check)
        self.send(data)
        return answer

    def on_reply(self, reply: Any) -> None:
        if not self._waiting:
            # An answer to nothing: whoever this is, it does not keep the protocol.
            self.abort()
            return
        answer, since, before = self._waiting[0]
        if before:
            # Of a transaction: what was refused in it makes its last reply an error.
            self._waiting[0] = (answer, since, before - 1)
            return
        self._waiting.popleft()
        if answer.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            answer.set_exception(refused(self._address, str(reply)))
        else:
            answer.set_result(reply)

    def on_lost(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._tell_loss(self.heard_at)
        waiting, self._waiting = self._waiting, deque()
        for answer, _, _ in waiting:
            if not answer.done():
                answer.set_exception(NotReady(f"Redis at {self._address} went away"))

    def _check(self) -> None:
        self._watch = None
        if not self._waiting:
            return
        left = self._waiting[0][1] + ANSWER_S - self._loop.time()
        if left <= 0:
            self.abort()
        else:
            self._watch = self._loop.call_later(left, self._check)


class Subscription:
    """An async iterator of ``(channel, payload)`` that keeps itself connected.  For one reader.

    ``dropped`` counts messages that were pushed out by newer ones because the reader was too slow, ``losses``
    the reconnections.
    """

    def __init__(self, url: str, size: int, most_bytes: int = WAITING_BYTES) -> None:
        self._url = url
        self._address = address_of(url)
        self._size = max(2, size)
        self._most_bytes = most_bytes
        self._bytes = 0
        self._queue: deque[tuple[str, bytes]] = deque()
        self._channels: set[str] = set()
        self._patterns: set[str] = set()
        self._reader: asyncio.Future[None] | None = None
        self._wire: _Subscriber | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self.dropped = 0
        self.losses = 0

    def __repr__(self) -> str:
        return (
            f"Subscription({self._address}, connected={self.connected}, waiting={len(self._queue)}, "
            f"dropped={self.dropped}, losses={self.losses})"
        )

    @property
    def connected(self) -> bool:
        """Whether messages can come now."""
        return self._wire is not None and self._wire.open

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> tuple[str, bytes]:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        item = self._queue.popleft()
        self._bytes -= len(item[1])
        return item

    def waiting(self) -> list[tuple[str, bytes]]:
        """Take all that waits now, without waiting for more."""
        taken = list(self._queue)
        self._queue.clear()
        self._bytes = 0
        return taken

    async def start(self, channels: Iterable[str], patterns: Iterable[str]) -> None:
        """Connect for the first time; `Bus.subscribe` calls this."""
        self._channels.update(channels)
        self._patterns.update(patterns)
        self._wire = await self._open()
        self._task = asyncio.create_task(self._keep(self._wire), name=f"subscription {self._address}")

    async def add(self, channels: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        """Listen to more; returns once Redis has confirmed.

        Raises `NotReady` when it did not; they are taken with the next reconnection all the same.
        """
        fresh = (set(channels) - self._channels, set(patterns) - self._patterns)
        self._channels |= fresh[0]
        self._patterns |= fresh[1]
        await self._tell((b"SUBSCRIBE", b"PSUBSCRIBE"), fresh)

    async def remove(self, channels: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        """Listen to less; what waits in the queue still comes.  `NotReady` as in `add`."""
        gone = (set(channels) & self._channels, set(patterns) & self._patterns)
        self._channels -= gone[0]
        self._patterns -= gone[1]
        await self._tell((b"UNSUBSCRIBE", b"PUNSUBSCRIBE"), gone)

    async def close(self) -> None:
        """Stop listening; the iterator ends after what waits in the queue."""
        self._closed = True
        self._wake()
        if self._task is not None:
            self._task.cancel()
            # Not awaited directly: our own cancellation must not look like the task's.
            await asyncio.wait([self._task], timeout=ANSWER_S)
        if self._wire is not None:
            self._wire.abort()
            await asyncio.wait([self._wire.lost], timeout=ANSWER_S)

    async def _tell(self, verbs: tuple[bytes, bytes], names: tuple[set[str], set[str]]) -> None:
        wire = self._wire
        if not (names[0] or names[1]):
            return
        if wire is None or not wire.open:
            raise NotReady(f"Redis at {self._address} is away; the subscription is made on its return")
        await wire.tell(verbs, names)

    async def _open(self) -> _Subscriber:
        wire = await connect(self._url, lambda: _Subscriber(self._address, self._take, self._wake))
        try:
            await wire.tell((b"SUBSCRIBE", b"PSUBSCRIBE"), (self._channels, self._patterns))
        except BaseException:
            wire.abort()
            raise
        return wire

    async def _keep(self, wire: _Subscriber) -> None:
        while True:
            await self._watch(wire)
            delay = 0.05
            while True:
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                try:
                    wire = self._wire = await self._open()
                    break
                except (NotReady, NeedsOperator):
                    # A wrong password can be put right at the server; until then this is only slow.
                    delay = min(delay * 2, 1.0)
            self.losses += 1
            self._put(LOST)
            self._wake()

    async def _watch(self, wire: _Subscriber) -> None:
        """Return when the connection is gone, having seen to it that a dead one goes."""
        while not wire.lost.done():
            await asyncio.wait([wire.lost], timeout=_QUIET_S)
            quiet = time.monotonic() - wire.heard_at
            if quiet > 3 * _QUIET_S:
                wire.abort()
            elif quiet > _QUIET_S / 2:
                wire.send(command(b"PING", b"alive"))

    def _take(self, channel: str, payload: bytes) -> None:
        self._put((channel, payload))

    def _put(self, item: tuple[str, bytes]) -> None:
        queue = self._queue
        queue.append(item)
        self._bytes += len(item[1])
        while len(queue) > self._size or self._bytes > self._most_bytes:
            # The marker outlives the messages that it speaks of.
            oldest = 1 if queue[0] is LOST else 0
            if oldest >= len(queue) - 1:
                return
            self._bytes -= len(queue[oldest][1])
            del queue[oldest]
            self.dropped += 1

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done() and (self._queue or self._closed):
            self._reader.set_result(None)


class _Subscriber(Wire):
    """A connection in subscribed mode: acknowledgements and messages come mixed."""

    def __init__(self, address: str, take: Callable[[str, bytes], None], wake: Callable[[], None]) -> None:
        super().__init__()
        self._address = address
        self._take = take
        self._wake = wake
        self._names: dict[bytes, str] = {}
        self._barriers: dict[bytes, asyncio.Future[None]] = {}
        self._next = 0

    async def tell(self, verbs: tuple[bytes, bytes], names: tuple[set[str], set[str]]) -> None:
        """Send the commands and wait until Redis has done them: a PING behind them comes back last."""
        self._next += 1
        token = b"%d" % self._next
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._barriers[token] = done
        for verb, chosen in zip(verbs, names, strict=True):
            if chosen:
                self.send(command(verb, *(name.encode() for name in sorted(chosen))))
        self.send(command(b"PING", token))
        try:
            async with asyncio.timeout(ANSWER_S):
                await done
        except TimeoutError:
            raise NotReady(f"Redis at {self._address} did not confirm within {ANSWER_S:g} s") from None
        finally:
            self._barriers.pop(token, None)

    def on_reply(self, reply: Any) -> None:
        if type(reply) is list:
            kind = reply[0]
            if kind == b"message":
                self._take(self._name(reply[1]), reply[2])
            elif kind == b"pmessage":
                self._take(self._name(reply[2]), reply[3])
            elif kind == b"pong":
                self._pass(reply[1])
        elif type(reply) is bytes:
            # PING while nothing is subscribed answers with a plain string.
            self._pass(reply)
        elif isinstance(reply, hiredis.ReplyError):
            self._fail(refused(self._address, str(reply)))

    def on_read(self) -> None:
        self._wake()

    def on_lost(self) -> None:
        self._fail(NotReady(f"Redis at {self._address} went away"))

    def _name(self, raw: bytes) -> str:
        name = self._names.get(raw)
        if name is None:
            if len(self._names) > 10_000:
                self._names.clear()
            name = self._names[raw] = raw.decode(errors="replace")
        return name

    def _pass(self, token: bytes) -> None:
        barrier = self._barriers.get(token)
        if barrier is not None and not barrier.done():
            barrier.set_result(None)

    def _fail(self, error: Exception) -> None:
        for barrier in self._barriers.values():
            if not barrier.done():
                barrier.set_exception(error)

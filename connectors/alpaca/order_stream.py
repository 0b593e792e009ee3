"""The order stream kept alive: connect, log in, listen, and come back after every loss.

Alpaca replays nothing.  Each loss and each return is told in the stream of updates, so that the session compares books
after it; a frame that cannot be read is treated as a loss, for it may have been an execution.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import msgspec

from connectors import transport
from connectors.alpaca.updates import Control, UpdateReader
from trading.broker import BrokerUpdate, StreamChange
from trading.errors import BadInput, NeedsOperator, NotReady, TradeError, Unreachable

log = logging.getLogger(__name__)

_LOG_IN_WITHIN_S: Final = 10.0
_FIRST_BACKOFF_S: Final = 0.2
_LONGEST_BACKOFF_S: Final = 15.0
_PING_EVERY_S: Final = 10.0
_SILENT_FOR_S: Final = 30.0

Heard = BrokerUpdate | StreamChange


class OrderStream:
    """One account's ``trade_updates``.  `open` it once; then it stays open until `close`."""

    def __init__(
        self, url: str, credentials: Mapping[str, str], reader: UpdateReader, on_frame: Callable[[], None]
    ) -> None:
        self._url = url
        self._credentials = credentials
        self._reader = reader
        #: Called after frames have been read.
        self._on_frame = on_frame
        self._socket: transport.WebSocket | None = None
        self._controls: asyncio.Queue[Control] = asyncio.Queue()
        self._lost = asyncio.Event()
        self._reason = ""
        self._told: deque[Heard] = deque()
        self._news = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False
        self.is_up = False
        self.reconnects = 0

    def __repr__(self) -> str:
        return f"<OrderStream {self._url} {'up' if self.is_up else 'down'} reconnects={self.reconnects}>"

    async def open(self) -> None:
        """Connect and listen.  Raises `NeedsOperator` (refused), `NotReady` or `Unreachable`."""
        await self._connect()
        self.is_up = True
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """End it; `updates` ends too."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()
        self._news.set()

    def tell(self, heard: Heard) -> None:
        """Put something into the stream of updates."""
        self._told.append(heard)
        self._news.set()

    async def updates(self) -> AsyncIterator[Heard]:
        """Everything told, in order; ends with `close`."""
        while True:
            while self._told:
                yield self._told.popleft()
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()

    # Inside

    async def _connect(self) -> None:
        self._lost.clear()
        self._reason = ""
        self._controls = asyncio.Queue()
        socket = await transport.connect(self._url, self._receive, self._on_lost, within=_LOG_IN_WITHIN_S)
        self._socket = socket
        try:
            self._say({"action": "auth", "key": self._credentials["key"], "secret": self._credentials["secret"]})
            answer = await self._answer("authorization")
            if answer.data.get("status") != "authorized":
                raise NeedsOperator(
                    f"Alpaca refuses the key at {self._url}",
                    "check the environment (paper or live) and give the key anew: PUT /v1/accounts/{id}/credentials",
                )
            self._say({"action": "listen", "data": {"streams": ["trade_updates"]}})
            answer = await self._answer("listening")
            if "trade_updates" not in answer.data.get("streams", ()):
                raise Unreachable(self._url, f"it does not give trade_updates: {answer.data}")
        except BaseException:
            socket.abort("closed by us: not logged in")
            raise

    def _say(self, message: dict[str, object]) -> None:
        assert self._socket is not None
        try:
            self._socket.send(msgspec.json.encode(message))
        except ConnectionError as error:
            raise Unreachable(self._url, str(error)) from error

    async def _answer(self, stream: str) -> Control:
        """The next control message of this kind."""
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            async with asyncio.timeout(_LOG_IN_WITHIN_S):
                while True:
                    heard = asyncio.ensure_future(self._controls.get())
                    await asyncio.wait({heard, lost}, return_when=asyncio.FIRST_COMPLETED)
                    if not heard.done():
                        heard.cancel()
                        raise Unreachable(self._url, self._reason or "the connection was lost")
                    control = heard.result()
                    if control.stream == stream:
                        return control
                    if control.stream == "error":
                        raise Unreachable(self._url, str(control.data.get("error_message", control.data)))
        except TimeoutError as error:
            raise Unreachable(self._url, f"no {stream} within {_LOG_IN_WITHIN_S:g} s") from error
        finally:
            lost.cancel()

    async def _keep(self) -> None:
        while True:
            await self._live()
            self.is_up = False
            log.warning("the order stream is lost: %s", self._reason)
            self.tell(StreamChange(is_up=False, reason=self._reason))
            await self._come_back()
            self.is_up = True
            self.reconnects += 1
            log.info("the order stream is back")
            self.tell(StreamChange(is_up=True))

    async def _live(self) -> None:
        """Until the connection is lost, or silent for too long."""
        loop = asyncio.get_running_loop()
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(_PING_EVERY_S):
                    await self._lost.wait()
            except TimeoutError:
                assert self._socket is not None
                if loop.time() - self._socket.heard_at > _SILENT_FOR_S:
                    self._socket.abort(f"silent for {_SILENT_FOR_S:g} s")
                else:
                    self._socket.ping()

    async def _come_back(self) -> None:
        pause = _FIRST_BACKOFF_S
        said = ""
        while True:
            # The first retry is near at once; full jitter, so that many do not come back in step.
            await asyncio.sleep(pause * random.random())
            pause = min(_LONGEST_BACKOFF_S, pause * 2)
            try:
                await self._connect()
            except NotReady as error:
                pause = max(pause, min(error.retry_after, _LONGEST_BACKOFF_S))
                reason = str(error)
            except TradeError as error:
                reason = str(error)
            else:
                return
            if reason != said:
                log.warning("the order stream does not come back: %s", reason)
                said = reason

    def _on_lost(self, reason: str) -> None:
        self._reason = reason
        self._lost.set()

    def _receive(self, frames: list[bytes]) -> None:
        for frame in frames:
            try:
                heard = self._reader.read(frame)
            except BadInput as error:
                log.warning("a frame of the order stream cannot be read: %s", error)
                self.tell(StreamChange(is_up=False, reason=f"a frame cannot be read: {error}"))
                if self.is_up:
                    self.tell(StreamChange(is_up=True))
                continue
            if isinstance(heard, Control):
                self._controls.put_nowait(heard)
            else:
                for update in heard:
                    self.tell(update)
        self._on_frame()

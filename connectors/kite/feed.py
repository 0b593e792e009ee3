"""The ticker as a `connectors.base.FeedConnection`: one WebSocket, its tokens and their modes.

Source: "WebSocket streaming" of the Kite Connect v3 documentation.  Key and token go with the address; 403 to the
handshake means that the session has ended, 429 that the key has its three connections (staff in the developers' forum).
The server confirms no subscription and says nothing of a token that it does not know, so what is wanted is looked up by
its symbol first (`symbol_check`).  A token above the 3,000 of a connection is answered with an error message; the
connection goes on.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlencode

import msgspec

from connectors import transport
from connectors.base import Clock, FeedSink
from connectors.kite.client import token_missing
from connectors.kite.codec import Codec, Listed
from connectors.kite.messages import Failure, Notice, OrderUpdate, read_text, set_mode, subscribe, unsubscribe
from connectors.kite.symbol_check import LookUp, SymbolCheck
from connectors.kite.symbols import token_of
from connectors.kite.wire import VERSION
from trading.errors import BadInput, NeedsOperator, NotReady, TradeError
from trading.ids import InstrumentId
from trading.instruments import Instrument

log = logging.getLogger(__name__)

CHANNELS: Final = ("trade", "quote", "depth")
#: What one connection carries, and how many a key may have.
MOST_TOKENS: Final = 3_000
MOST_CONNECTIONS: Final = 3
_TOKENS_PER_MESSAGE: Final = 500
#: Messages begin with "{" when they are text.  A binary frame would have to hold 31,488 packets to do so.
_BRACE: Final = 0x7B
#: A server that has no place for us knows more in a while.
_FULL_HOUSE_S: Final = 5.0


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """Times of a connection, in seconds."""

    connect_within: float = 10.0
    #: Heartbeats come each second; the official SDKs, too, take this long a silence for a dead line.
    silence: float = 5.0
    first_backoff: float = 0.5
    longest_backoff: float = 30.0
    #: How often a token that was refused is tried again though it has not changed.
    refused_for: float = 60.0
    #: Between control messages.
    pace: float = 0.1
    #: A look-up of symbols that failed is tried again after this.
    look_up_again: float = 30.0


class _Wanted(msgspec.Struct):
    instrument: Instrument
    channels: set[str]


class KiteFeed:
    """One worker's streaming connection."""

    def __init__(
        self,
        url: str,
        credentials: Mapping[str, str],
        sink: FeedSink,
        clock: Clock,
        look_up: LookUp,
        mode: str = "",
        tuning: Tuning | None = None,
        on_order: Callable[[bytes], None] | None = None,
    ) -> None:
        """``credentials`` are read anew for each connection.  ``on_order`` gets the JSON of order updates."""
        self._url = url
        self._credentials = credentials
        self._sink = sink
        self._clock = clock
        self._mode = mode
        self._tuning = tuning or Tuning()
        self._on_order = on_order
        self._codec = Codec()
        self._wanted: dict[int, _Wanted] = {}
        self._symbols = SymbolCheck(look_up, clock)
        #: Token -> mode, as asked of this connection.
        self._asked: dict[int, str] = {}
        self._last_asked: list[int] = []
        #: Tokens to be ended and begun again.
        self._renewed: set[int] = set()
        self._socket: transport.WebSocket | None = None
        self._lost = asyncio.Event()
        self._reason = ""
        self._something = asyncio.Event()
        self._unchecked = asyncio.Event()
        self._settling = asyncio.Lock()
        self.is_open = False
        self.reconnects = 0
        #: Error messages of the server, and order updates.
        self.complaints = 0
        self.order_updates = 0

    def __repr__(self) -> str:
        return f"<KiteFeed {self._url} {'open' if self.is_open else 'down'} {len(self._wanted)} instruments>"

    @property
    def codec(self) -> Codec:
        """The decoder, for its counts."""
        return self._codec

    # connectors.base.FeedConnection

    async def run(self) -> None:
        """Connect and stream until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._check_symbols())
                tasks.create_task(self._stream())
        finally:
            self._drop("closed by us")

    async def subscribe(self, instruments: Sequence[Instrument], channels: Sequence[str]) -> None:
        """Add instruments; those that are there get the channels they lack.

        Raises `BadInput` before anything is changed: an unknown channel, one that the set mode does not show, an
        instrument of another provider or without a number, or more than a connection carries.
        """
        for channel in channels:
            check_channel(channel, self._mode)
        tokens: dict[int, Instrument] = {}
        clashes: dict[InstrumentId, InstrumentId] = {}
        for instrument in instruments:
            if instrument.number <= 0:
                raise BadInput("instruments", f"{instrument.id} has no number: register it first")
            token = token_of(instrument)
            holder = tokens.get(token) or (self._wanted[token].instrument if token in self._wanted else instrument)
            if holder.id == instrument.id:
                tokens[token] = instrument
            else:
                clashes[instrument.id] = holder.id
        count = len(self._wanted.keys() | tokens.keys())
        if count > MOST_TOKENS:
            raise BadInput("instruments", f"{count} on one connection, Kite carries {MOST_TOKENS}")
        for refused, holder_id in clashes.items():
            # One of the two has expired, and the look-up will tell if it is the other one.
            self._sink.refused(refused, f"its token is that of {holder_id}, which is streamed: list it anew")
        for token, instrument in tokens.items():
            known = self._wanted.setdefault(token, _Wanted(instrument, set()))
            known.channels.update(channels)
            known.instrument = instrument
        self._codec.put(
            (token, Listed(instrument.number, frozenset(self._wanted[token].channels)))
            for token, instrument in tokens.items()
        )
        if self._wanted:
            self._something.set()
            self._unchecked.set()
        await self._settle()

    async def unsubscribe(self, instruments: Sequence[Instrument], channels: Sequence[str] | None = None) -> None:
        """Remove instruments, or these channels of them; those that are not there are passed over."""
        pairs = [(token_of(instrument), instrument.id) for instrument in instruments]
        tokens = [t for t, id_ in pairs if t in self._wanted and self._wanted[t].instrument.id == id_]
        for token in tokens:
            self._wanted[token].channels.difference_update(
                self._wanted[token].channels if channels is None else channels
            )
        kept = [(token, self._wanted[token]) for token in tokens if self._wanted[token].channels]
        self._codec.put((token, Listed(wanted.instrument.number, frozenset(wanted.channels))) for token, wanted in kept)
        self._forget([token for token in tokens if not self._wanted[token].channels])
        await self._settle()

    async def resubscribe(self, instruments: Sequence[Instrument]) -> None:
        """End the subscription of instruments and begin it again, in their modes."""
        self._renewed.update(token for token in map(token_of, instruments) if token in self._asked)
        await self._settle()

    def reconnect(self, reason: str) -> None:
        """Give the connection up and open another."""
        if self.is_open:
            self._end(reason)

    def wanted(self) -> frozenset[InstrumentId]:
        """What it carries or is asking for."""
        return frozenset(each.instrument.id for each in self._wanted.values())

    # Connection

    async def _stream(self) -> None:
        loop = asyncio.get_running_loop()
        tuning = self._tuning
        failures = 0
        said = ""
        while True:
            await self._something.wait()
            if not self._wanted:
                self._something.clear()
                continue
            opened_at = least = 0.0
            used = self._log_in()
            try:
                await self._open(used)
                opened_at = loop.time()
                await self._settle()
                self._sink.opened()
                said = ""
                await self._live(used)
                reason = self._reason
            except NeedsOperator as error:
                reason, least = str(error), tuning.refused_for
            except NotReady as error:
                reason, least = str(error), min(error.retry_after, tuning.longest_backoff)
            except (TradeError, OSError) as error:
                reason = str(error)
            finally:
                self._drop("closed by us: the link ends")
            if not self._wanted:
                continue
            if reason != said:
                # Also where it never opened: what a person must do has to be seen.
                self._sink.closed(reason)
                log.warning("%s: %s", self._url, reason)
                said = reason
            lived = loop.time() - opened_at if opened_at else 0.0
            failures = 0 if lived > tuning.longest_backoff else failures + 1
            pause = min(tuning.longest_backoff, tuning.first_backoff * 2 ** min(max(failures - 1, 0), 10))
            self.reconnects += 1
            # Jitter, so that many workers do not come back in step.
            await self._pause(max(least, pause * random.random()), used)

    def _log_in(self) -> tuple[str, str]:
        return self._credentials.get("api_key", ""), self._credentials.get("access_token", "")

    async def _pause(self, seconds: float, used: tuple[str, str]) -> None:
        """Wait, but not longer than until there is another token than the one that was used."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        # The credentials are a mapping that others change: nobody tells when.
        while (left := until - loop.time()) > 0 and self._log_in() == used:  # noqa: ASYNC110
            await asyncio.sleep(min(0.25, left))

    async def _open(self, used: tuple[str, str]) -> None:
        missing = [name for name, value in zip(("api_key", "access_token"), used, strict=True) if not value]
        if missing:
            raise token_missing(self._credentials, f"there is no {' and no '.join(missing)} for Kite's ticker")
        # Of this connection alone: the one before may tell late that it is gone.
        lost = self._lost = asyncio.Event()
        self._reason = ""
        self._asked.clear()
        self._renewed.clear()
        self._codec.forget()

        def on_lost(reason: str) -> None:
            if lost is self._lost:
                self._reason = self._reason or reason
            lost.set()

        address = f"{self._url}/?{urlencode({'api_key': used[0], 'access_token': used[1]})}"
        try:
            self._socket = await transport.connect(
                address, self._receive, on_lost, within=self._tuning.connect_within, headers=VERSION
            )
        except transport.HandshakeRefused as error:
            if error.status == 403:
                raise token_missing(self._credentials, "Kite's ticker refuses the access token (HTTP 403)") from error
            if error.status == 429:
                raise NotReady(
                    f"Kite's ticker is full: a key has {MOST_CONNECTIONS} connections (HTTP 429)", _FULL_HOUSE_S
                ) from error
            raise
        self.is_open = True

    async def _live(self, used: tuple[str, str]) -> None:
        """Until the connection is lost, silent, not wanted any more, or there is a new token."""
        loop = asyncio.get_running_loop()
        silence = self._tuning.silence
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(min(0.5, silence / 4)):
                    await self._lost.wait()
            except TimeoutError:
                assert self._socket is not None
                silent = loop.time() - self._socket.heard_at
                if silent > silence:
                    self._end(f"silent for {silent:.1f} s, heartbeats come each second")
                elif self._log_in() != used:
                    self._end("there is a new access token")
                elif not self._wanted:
                    self._end("nothing is wanted any more")

    def _end(self, reason: str) -> None:
        self._reason = reason
        self._drop(reason)
        self._lost.set()

    def _drop(self, reason: str) -> None:
        self.is_open = False
        if self._socket is not None:
            self._socket.abort(reason)
            self._socket = None

    # Subscriptions

    def _mode_of(self, wanted: _Wanted) -> str:
        return self._mode or ("full" if wanted.channels & {"quote", "depth"} else "quote")

    def _forget(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._wanted.pop(token, None)
        self._symbols.forget(tokens)
        self._codec.remove(tokens)

    async def _settle(self) -> None:
        """Bring the connection to what is wanted, a message at a time; nothing while disconnected."""
        async with self._settling:
            while self.is_open and not self._lost.is_set():
                surplus = [t for t in self._asked if t not in self._wanted or t in self._renewed]
                missing: dict[str, list[int]] = {}
                for token, wanted in self._wanted.items():
                    mode = self._mode_of(wanted)
                    if self._asked.get(token) != mode and self._symbols.lets_in(token):
                        missing.setdefault(mode, []).append(token)
                if surplus:
                    chunk = surplus[:_TOKENS_PER_MESSAGE]
                    sent = self._say(unsubscribe(chunk))
                    self._renewed.difference_update(chunk)
                    for token in chunk:
                        self._asked.pop(token, None)
                elif missing:
                    mode, tokens = next(iter(missing.items()))
                    chunk = tokens[:_TOKENS_PER_MESSAGE]
                    self._last_asked = [token for token in chunk if token not in self._asked]
                    # A token is not subscribed by its mode alone.
                    sent = self._say(subscribe(chunk)) and self._say(set_mode(mode, chunk))
                    self._asked.update(dict.fromkeys(chunk, mode))
                else:
                    return
                if not sent:
                    return
                await asyncio.sleep(self._tuning.pace)

    def _say(self, message: bytes) -> bool:
        if self._socket is None:
            return False
        try:
            self._socket.send(message)
        except ConnectionError as error:
            # `run` sees the same and asks for everything again on the next connection.
            log.debug("%s: lost while asking: %s", self._url, error)
            return False
        return True

    async def _check_symbols(self) -> None:
        """Keep asking whether what is wanted is still there under its token."""
        said = ""
        while True:
            await self._something.wait()
            used = self._log_in()
            self._unchecked.clear()
            try:
                self._refuse(await self._symbols.look({t: w.instrument.id for t, w in self._wanted.items()}))
                said = ""
            except TradeError as error:
                if type(error).__name__ != said:
                    log.warning("%s: instruments could not be looked up: %s", self._url, error)
                    said = type(error).__name__
            await self._settle()
            await self._until_unchecked(used)

    async def _until_unchecked(self, used: tuple[str, str]) -> None:
        """Until there is something new to look up, another token to do it with, or time has passed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._tuning.look_up_again
        while (left := until - loop.time()) > 0 and self._log_in() == used:
            try:
                async with asyncio.timeout(min(0.25, left)):
                    await self._unchecked.wait()
                    return
            except TimeoutError:
                continue

    def _refuse(self, refused: Mapping[int, str]) -> None:
        gone = {self._wanted[token].instrument.id: why for token, why in refused.items() if token in self._wanted}
        self._forget(list(refused))
        for instrument, reason in gone.items():
            self._sink.refused(instrument, reason)

    # Messages

    def _receive(self, payloads: list[bytes]) -> None:
        now = self._clock()
        sink = self._sink
        before = len(sink.ticks)
        for payload in payloads:
            if payload[:1] and payload[0] == _BRACE:
                self._hear(payload)
            elif wrong := self._codec.decode(payload, now, sink):
                sink.garbage(payload, wrong)
        if len(sink.ticks) != before:
            sink.wake()

    def _hear(self, payload: bytes) -> None:
        try:
            said = read_text(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._sink.garbage(payload, str(error))
            return
        match said:
            case OrderUpdate():
                self.order_updates += 1
                if self._on_order is not None:
                    self._on_order(said.data)
            case Failure():
                self.complaints += 1
                log.warning("%s: Kite complains: %s", self._url, said.reason)
                if "subscribe" in said.reason.lower():
                    self._refuse_last(said.reason)
            case Notice():
                log.info("%s: Kite says (%s): %s", self._url, said.kind, said.text[:200])

    def _refuse_last(self, reason: str) -> None:
        """The server takes no more: what was asked for last and has not come is refused."""
        tokens = [token for token in self._last_asked if token in self._wanted and not self._codec.has_heard(token)]
        self._last_asked = []
        for token in tokens:
            self._asked.pop(token, None)
        self._refuse(dict.fromkeys(tokens, f"Kite: {reason}"))


def check_channel(channel: str, mode: str) -> None:
    """Raise `BadInput` unless a channel is there, and shown by ``mode`` ("": whichever it needs)."""
    if channel not in CHANNELS:
        raise BadInput("channels", f"{channel[:20]!r} is unknown: use {', '.join(CHANNELS)}")
    if channel in ("quote", "depth") and mode not in ("", "full"):
        raise BadInput("channels", f"mode {mode} has no {channel}s: use mode full, or leave it out")

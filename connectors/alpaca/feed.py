"""Market data v2 as a `connectors.base.FeedConnection`: trades, quotes and minute bars of shares.

Source: "Real-time Stock Data" of Alpaca's documentation.  Messages are JSON arrays; after each change the server tells
the whole of what is subscribed, which is compared with what is wanted.  A plan allows one connection, so a feed has one
worker; the symbols of a plan are counted over all channels.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from connectors import transport
from connectors.alpaca.history import BarRow
from connectors.alpaca.wire import nanos
from connectors.base import Clock, FeedSink
from trading.bars import Bar
from trading.errors import BadInput, NeedsOperator, NotReady, TradeError, Unreachable
from trading.ids import InstrumentId, Nanos
from trading.instruments import Instrument

log = logging.getLogger(__name__)

#: Our channel -> Alpaca's.
CHANNELS: Final = {"trade": "trades", "quote": "quotes", "bar": "bars"}
_WITHIN_S: Final = 10.0
_FIRST_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 30.0
_SILENCE_S: Final = 20.0
_SYMBOLS_PER_MESSAGE: Final = 200
#: Errors that only a person can mend, and those that heal.
_OURS: Final = {402: "the key is refused", 409: "the plan does not include this feed"}
_LATER: Final = {404: "the log-in took too long", 406: "another connection uses this key", 407: "we were too slow"}


class _Trade(msgspec.Struct, tag_field="T", tag="t", gc=False):
    S: str
    p: float
    s: float
    t: str
    i: int = 0


class _Quote(msgspec.Struct, tag_field="T", tag="q", gc=False):
    S: str
    bp: float
    bs: float
    ap: float
    as_: float = msgspec.field(name="as")
    t: str = ""


class _Bar(BarRow, tag_field="T", tag="b", gc=False, kw_only=True):
    S: str


class _Success(msgspec.Struct, tag_field="T", tag="success"):
    msg: str = ""


class _Failure(msgspec.Struct, tag_field="T", tag="error"):
    code: int = 0
    msg: str = ""


class _Subscribed(msgspec.Struct, tag_field="T", tag="subscription"):
    trades: list[str] = []
    quotes: list[str] = []
    bars: list[str] = []


_Message = _Trade | _Quote | _Bar | _Success | _Failure | _Subscribed
_messages = msgspec.json.Decoder(list[_Message])
_any = msgspec.json.Decoder(list[dict[str, Any]])
#: Documented messages that are not asked for, or say nothing to us.
_PASSING: Final = frozenset({"u", "d", "s", "l", "c", "x", "n", "o"})


class AlpacaFeed:
    """One worker's streaming connection."""

    def __init__(self, url: str, credentials: Mapping[str, str], sink: FeedSink, clock: Clock, symbols: int) -> None:
        self._url = url
        self._credentials = credentials
        self._sink = sink
        self._clock = clock
        self._most_symbols = symbols
        self._wanted: dict[InstrumentId, tuple[Instrument, set[str]]] = {}
        self._numbers: dict[str, int] = {}
        self._socket: transport.WebSocket | None = None
        self._lost = asyncio.Event()
        self._reason = ""
        self._controls: asyncio.Queue[_Success | _Failure] = asyncio.Queue()
        self._something = asyncio.Event()
        #: What the server says it sends: channel -> symbols.
        self._told: dict[str, set[str]] = {channel: set() for channel in CHANNELS.values()}
        self._asking = asyncio.Lock()
        self.is_open = False
        self.reconnects = 0

    def __repr__(self) -> str:
        return f"<AlpacaFeed {self._url} {'open' if self.is_open else 'down'} {len(self._wanted)} instruments>"

    # connectors.base.FeedConnection

    async def run(self) -> None:
        """Connect and stream until cancelled."""
        pause = _FIRST_BACKOFF_S
        said = ""
        while True:
            await self._something.wait()
            loop = asyncio.get_running_loop()
            opened_at = 0.0
            least = 0.0
            try:
                await self._log_in()
                await self._ask_for(self._by_channel(), "subscribe")
                self.is_open = True
                opened_at = loop.time()
                self._sink.opened()
                await self._live()
                reason = self._reason
            except NeedsOperator as error:
                # Nothing heals by itself here, but a person may have mended it meanwhile.
                reason, least = str(error), _LONGEST_BACKOFF_S / 2
            except NotReady as error:
                reason, least = str(error), min(error.retry_after, _LONGEST_BACKOFF_S)
            except (TradeError, OSError) as error:
                reason = str(error)
            finally:
                was_open, self.is_open = self.is_open, False
                if self._socket is not None:
                    self._socket.abort("closed by us: the link ends")
            if was_open:
                self._sink.closed(reason)
                if loop.time() - opened_at > _LONGEST_BACKOFF_S:
                    pause = _FIRST_BACKOFF_S
            if reason != said or was_open:
                log.warning("%s: %s; connecting again", self._url, reason)
                said = reason
            self.reconnects += 1
            await asyncio.sleep(max(least, pause * random.random()))
            pause = min(_LONGEST_BACKOFF_S, pause * 2)

    async def subscribe(self, instruments: Sequence[Instrument], channels: Sequence[str]) -> None:
        """Add instruments.  Raises `BadInput` before anything is changed."""
        for channel in channels:
            if channel not in CHANNELS:
                raise BadInput("channels", f"{channel[:20]!r} is unknown: use {', '.join(CHANNELS)}")
        for instrument in instruments:
            if instrument.number <= 0:
                raise BadInput("instruments", f"{instrument.id} has no number: register it first")
        count = len(self._wanted.keys() | {instrument.id for instrument in instruments})
        if count > self._most_symbols:
            raise BadInput("instruments", f"{count} symbols on one connection, the plan allows {self._most_symbols}")
        for instrument in instruments:
            known = self._wanted.setdefault(instrument.id, (instrument, set()))
            known[1].update(channels)
            self._numbers[instrument.provider_symbol] = instrument.number
        if self._wanted:
            self._something.set()
        await self._settle()

    async def unsubscribe(self, instruments: Sequence[Instrument], channels: Sequence[str] | None = None) -> None:
        """Remove instruments, or these channels of them; those that are not there are passed over."""
        gone: dict[str, list[str]] = {}
        for instrument in instruments:
            known = self._wanted.get(instrument.id)
            if known is not None:
                ended = known[1] if channels is None else known[1].intersection(channels)
                for channel in sorted(ended):
                    gone.setdefault(CHANNELS[channel], []).append(instrument.provider_symbol)
                    # Whoever asks for it again before the answer has come must ask the provider too.
                    self._told[CHANNELS[channel]].discard(instrument.provider_symbol)
                known[1].difference_update(tuple(ended))
                if not known[1]:
                    del self._wanted[instrument.id]
        if self.is_open and gone:
            await self._ask_for(gone, "unsubscribe")

    async def resubscribe(self, instruments: Sequence[Instrument]) -> None:
        """End the subscription of instruments and begin it again."""
        again: dict[str, list[str]] = {}
        for instrument in instruments:
            for channel in self._wanted.get(instrument.id, (instrument, set()))[1]:
                again.setdefault(CHANNELS[channel], []).append(instrument.provider_symbol)
        if self.is_open and again:
            await self._ask_for(again, "unsubscribe")
            await self._ask_for(again, "subscribe")

    def reconnect(self, reason: str) -> None:
        """Give the connection up and open another."""
        if self.is_open and self._socket is not None:
            self._socket.abort(reason)

    def wanted(self) -> frozenset[InstrumentId]:
        """What it carries or is asking for."""
        return frozenset(self._wanted)

    # Connection

    async def _log_in(self) -> None:
        missing = [name for name in ("key", "secret") if not self._credentials.get(name)]
        if missing:
            raise NeedsOperator(
                f"there is no {' and no '.join(missing)} for Alpaca's market data",
                'name an account with credentials in the feed\'s settings: {"account": …}',
            )
        self._lost.clear()
        self._reason = ""
        self._controls = asyncio.Queue()
        for symbols in self._told.values():
            symbols.clear()
        self._socket = await transport.connect(self._url, self._receive, self._on_lost, within=_WITHIN_S)
        await self._expect("connected")
        self._say({"action": "auth", "key": self._credentials["key"], "secret": self._credentials["secret"]})
        await self._expect("authenticated")

    async def _expect(self, message: str) -> None:
        """Wait for a success; raises what the error that comes in its place means."""
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            async with asyncio.timeout(_WITHIN_S):
                while True:
                    heard = asyncio.ensure_future(self._controls.get())
                    await asyncio.wait({heard, lost}, return_when=asyncio.FIRST_COMPLETED)
                    if not heard.done():
                        heard.cancel()
                        raise Unreachable(self._url, self._reason or "the connection was lost")
                    control = heard.result()
                    if isinstance(control, _Failure):
                        raise self._error(control)
                    if control.msg == message:
                        return
        except TimeoutError as error:
            raise Unreachable(self._url, f"no {message!r} within {_WITHIN_S:g} s") from error
        finally:
            lost.cancel()

    def _error(self, failure: _Failure) -> TradeError:
        said = f"{self._url}: {failure.msg} (code {failure.code})"
        if failure.code in _OURS:
            return NeedsOperator(said, _OURS[failure.code])
        if failure.code in _LATER:
            return NotReady(f"{said}: {_LATER[failure.code]}", 5.0)
        return Unreachable(self._url, said)

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        pinged = False
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(_SILENCE_S / 2):
                    await self._lost.wait()
            except TimeoutError:
                assert self._socket is not None
                silent = loop.time() - self._socket.heard_at
                if silent < _SILENCE_S / 2:
                    pinged = False
                elif pinged and silent > _SILENCE_S:
                    self._socket.abort(f"silent for {silent:.0f} s")
                else:
                    pinged = True
                    self._socket.ping()

    # Subscriptions

    def _by_channel(self) -> dict[str, list[str]]:
        wanted: dict[str, list[str]] = {}
        for instrument, channels in self._wanted.values():
            for channel in channels:
                wanted.setdefault(CHANNELS[channel], []).append(instrument.provider_symbol)
        return wanted

    async def _settle(self) -> None:
        """Ask for what is wanted and has not been confirmed; nothing while disconnected."""
        if not self.is_open:
            return
        missing = {
            channel: [symbol for symbol in symbols if symbol not in self._told[channel]]
            for channel, symbols in self._by_channel().items()
        }
        await self._ask_for({channel: symbols for channel, symbols in missing.items() if symbols}, "subscribe")

    async def _ask_for(self, symbols: Mapping[str, Sequence[str]], action: str) -> None:
        async with self._asking:
            for channel, listed in symbols.items():
                for first in range(0, len(listed), _SYMBOLS_PER_MESSAGE):
                    self._say({"action": action, channel: list(listed[first : first + _SYMBOLS_PER_MESSAGE])})

    def _say(self, message: dict[str, object]) -> None:
        assert self._socket is not None
        try:
            self._socket.send(msgspec.json.encode(message))
        except ConnectionError as error:
            # `run` sees the same and asks for everything again on the next connection.
            log.debug("%s: lost while asking: %s", self._url, error)

    # Messages

    def _on_lost(self, reason: str) -> None:
        self._reason = reason
        self._lost.set()

    def _receive(self, payloads: list[bytes]) -> None:
        now = self._clock()
        before = len(self._sink.ticks)
        for payload in payloads:
            try:
                self._take(_messages.decode(payload), now)
            except (msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
                self._take_one_by_one(payload, now, str(error))
        if len(self._sink.ticks) != before:
            self._sink.wake()

    def _take_one_by_one(self, payload: bytes, now: Nanos, reason: str) -> None:
        """A batch that has something unknown in it: take what can be read, report what cannot."""
        try:
            messages = _any.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._sink.garbage(payload, reason)
            return
        for message in messages:
            try:
                self._take([msgspec.convert(message, _Message)], now)
            except (msgspec.ValidationError, ValueError) as error:
                if message.get("T") not in _PASSING:
                    self._sink.garbage(msgspec.json.encode(message), str(error))

    def _take(self, messages: Sequence[_Message], now: Nanos) -> None:
        ticks = self._sink.ticks
        for message in messages:
            match message:
                case _Quote():
                    if number := self._numbers.get(message.S):
                        at = nanos(message.t)
                        ticks.quote(number, message.bp, message.bs, message.ap, message.as_, 0, at, now, 0)
                case _Trade():
                    if number := self._numbers.get(message.S):
                        ticks.trade(number, message.p, message.s, 0, nanos(message.t), now, 0)
                case _Bar():
                    if number := self._numbers.get(message.S):
                        self._sink.bar(number, _bar(message), True)
                case _Subscribed():
                    self._told.update(trades=set(message.trades), quotes=set(message.quotes), bars=set(message.bars))
                case _Failure() if self.is_open:
                    self._refused(message)
                case _Failure() | _Success():
                    self._controls.put_nowait(message)

    def _refused(self, failure: _Failure) -> None:
        """An error while streaming: a subscription too many, or the end of the connection."""
        if failure.code == 405:
            for instrument, channels in list(self._wanted.values()):
                known = [self._told[CHANNELS[channel]] for channel in channels]
                if not any(instrument.provider_symbol in symbols for symbols in known):
                    del self._wanted[instrument.id]
                    self._sink.refused(instrument.id, f"Alpaca: {failure.msg}")
        elif self._socket is not None:
            self._socket.abort(f"{failure.msg} (code {failure.code})")


def _bar(row: BarRow) -> Bar:
    return Bar(opened_at=nanos(row.t), open=row.o, high=row.h, low=row.l, close=row.c, volume=row.v, trades=row.n)

"""Binance's market streams, decoded: bytes in, ticks, bars and book changes out.

Wire: JSON text, ``{"stream":"btcusdt@trade","data":{…}}`` on combined connections, the bare ``data`` on raw
ones. Prices and sizes are strings, times milliseconds.  Sources: "WebSocket Streams" (spot) and "Websocket
Market Streams" (USD-M) of Binance's documentation; field names below are the wire's.

The stream's name, read from its fixed place in the bytes, picks the typed decoder and the instrument at once,
so envelope and payload are decoded in one pass and no symbol is looked up twice.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from connectors.base import BookDelta, FeedSink
from trading.bars import Bar
from trading.ids import Nanos
from trading.ticks import BUYER_MAKER

_MS: Final = 1_000_000
_PREFIX: Final = b'{"stream":"'
_START: Final = len(_PREFIX)

#: How a message is decoded.
TRADE, QUOTE, DEPTH, PARTIAL_DEPTH, KLINE, AGG_TRADE = range(6)
KINDS: Final = ("trade", "bookTicker", "depth", "partialDepth", "kline", "aggTrade")


class _Trade(msgspec.Struct, gc=False):
    t: int
    p: float
    q: float
    T: int
    m: bool


class _AggTrade(msgspec.Struct, gc=False):
    a: int
    p: float
    q: float
    T: int
    m: bool


class _BookTicker(msgspec.Struct, gc=False):
    u: int
    b: float
    B: float
    a: float
    A: float
    #: Spot sends no times.
    T: int = 0


class _Depth(msgspec.Struct):
    E: int
    U: int
    u: int
    b: tuple[tuple[float, float], ...]
    a: tuple[tuple[float, float], ...]
    T: int = 0
    #: Last id of the message before; USD-M only.
    pu: int | None = None


class _PartialDepth(msgspec.Struct, rename={"last": "lastUpdateId"}):
    last: int
    bids: tuple[tuple[float, float], ...]
    asks: tuple[tuple[float, float], ...]


class _KlineBody(msgspec.Struct, gc=False):
    t: int
    o: float
    h: float
    l: float  # noqa: E741 - the wire's name
    c: float
    v: float
    n: int
    x: bool


class _Kline(msgspec.Struct):
    k: _KlineBody


class _InTrade(msgspec.Struct):
    data: _Trade


class _InAggTrade(msgspec.Struct):
    data: _AggTrade


class _InBookTicker(msgspec.Struct):
    data: _BookTicker


class _InDepth(msgspec.Struct):
    data: _Depth


class _InPartialDepth(msgspec.Struct):
    data: _PartialDepth


class _InKline(msgspec.Struct):
    data: _Kline


class _Envelope(msgspec.Struct):
    stream: str
    data: msgspec.Raw


class _Fault(msgspec.Struct):
    code: int = 0
    msg: str = ""


class _Other(msgspec.Struct):
    """Anything that is not a combined stream event: a raw event, a reply, an error, a notice."""

    e: str = ""
    s: str = ""
    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: _Fault | None = None
    code: int | None = None
    msg: str = ""
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    k: msgspec.Raw = msgspec.Raw()


class Reply(msgspec.Struct, frozen=True):
    """The server's answer to a control message.  ``error`` "" means it was accepted."""

    id: int | str | None
    error: str
    streams: tuple[str, ...] = ()


class Shutdown(msgspec.Struct, frozen=True):
    """The server is about to close the connection."""


class Route(msgspec.Struct):
    """Where the messages of one stream go."""

    kind: int
    instrument: int
    #: Sequence of the last message while `Codec.watch` is set, else stale.
    last: int = 0
    count: int = 0


_trade = msgspec.json.Decoder(_InTrade, strict=False).decode
_agg_trade = msgspec.json.Decoder(_InAggTrade, strict=False).decode
_book_ticker = msgspec.json.Decoder(_InBookTicker, strict=False).decode
_depth = msgspec.json.Decoder(_InDepth, strict=False).decode
_partial = msgspec.json.Decoder(_InPartialDepth, strict=False).decode
_kline = msgspec.json.Decoder(_InKline, strict=False).decode
_other = msgspec.json.Decoder(_Other).decode
_envelope = msgspec.json.Decoder(_Envelope).decode
_strings = msgspec.json.Decoder(list[str]).decode


def kind_of(stream: str) -> int | None:
    """How messages of ``stream`` are decoded; None for kinds that are not."""
    kind = stream.partition("@")[2]
    if kind == "trade":
        return TRADE
    if kind == "bookTicker":
        return QUOTE
    if kind == "aggTrade":
        return AGG_TRADE
    if kind == "depth" or kind.startswith("depth@"):
        return DEPTH
    if kind.startswith("depth"):
        return PARTIAL_DEPTH
    if kind.startswith("kline_"):
        return KLINE
    return None


class Codec:
    """Decodes the messages of the streams it was told of, into a sink.

    ``watch`` follows sequences while one connection takes over from another: ``"note"`` remembers the last
    one of each stream, ``"skip"`` drops what is not newer than that.  "" (usual) does neither.
    """

    def __init__(self) -> None:
        self._routes: dict[bytes, Route] = {}
        self.watch: Literal["", "note", "skip"] = ""
        #: Messages of streams nobody asked for (any more), and of kinds not known.
        self.unknown = 0
        #: Messages dropped because the connection before had delivered them.
        self.repeated = 0

    def add(self, stream: str, instrument: int) -> None:
        """Decode ``stream`` as that instrument; ValueError for a kind not known."""
        kind = kind_of(stream)
        if kind is None:
            raise ValueError(f"{stream} is not a stream this codec decodes")
        self._routes[stream.encode()] = Route(kind, instrument)

    def remove(self, stream: str) -> None:
        """Stop decoding ``stream``."""
        self._routes.pop(stream.encode(), None)

    def counts(self) -> dict[str, int]:
        """Messages decoded per stream."""
        return {stream.decode(): route.count for stream, route in self._routes.items()}

    def forget_sequences(self) -> None:
        """Start a new watch: no sequence has been seen."""
        for route in self._routes.values():
            route.last = -1

    def decode(self, payload: bytes, received_at: Nanos, sink: FeedSink) -> Reply | Shutdown | None:
        """Put one message into ``sink``; the server's own words (replies, notices) are returned.

        Raises ValueError (msgspec's errors are some) for bytes that are none of it.
        """
        if payload.startswith(_PREFIX):
            route = self._routes.get(payload[_START : payload.find(b'"', _START)])
            if route is None:
                return self._unrouted(payload)
            self._put(route, payload, received_at, sink)
            return None
        return self._uncombined(payload, received_at, sink)

    def _put(self, route: Route, payload: bytes, received_at: int, sink: FeedSink) -> None:
        kind = route.kind
        if kind == QUOTE:
            q = _book_ticker(payload).data
            if self.watch and self._is_old(route, q.u):
                return
            sink.ticks.quote(route.instrument, q.b, q.B, q.a, q.A, 0, q.T * _MS, received_at, q.u)
        elif kind == TRADE:
            t = _trade(payload).data
            if self.watch and self._is_old(route, t.t):
                return
            flags = BUYER_MAKER if t.m else 0
            sink.ticks.trade(route.instrument, t.p, t.q, flags, t.T * _MS, received_at, t.t)
        elif kind == DEPTH:
            d = _depth(payload).data
            if self.watch and self._is_old(route, d.u):
                return
            sink.book(_delta(route.instrument, d, received_at))
        elif kind == KLINE:
            k = _kline(payload).data.k
            sink.bar(route.instrument, _bar(k), k.x)
        elif kind == AGG_TRADE:
            g = _agg_trade(payload).data
            if self.watch and self._is_old(route, g.a):
                return
            flags = BUYER_MAKER if g.m else 0
            sink.ticks.trade(route.instrument, g.p, g.q, flags, g.T * _MS, received_at, g.a)
        else:
            p = _partial(payload).data
            if self.watch and self._is_old(route, p.last):
                return
            sink.book(
                BookDelta(
                    instrument=route.instrument,
                    exchange_at=Nanos(0),
                    received_at=Nanos(received_at),
                    first_sequence=p.last,
                    last_sequence=p.last,
                    previous_sequence=None,
                    bids=p.bids,
                    asks=p.asks,
                )
            )
        route.count += 1

    def _is_old(self, route: Route, sequence: int) -> bool:
        if self.watch == "skip" and sequence <= route.last:
            self.repeated += 1
            return True
        route.last = max(route.last, sequence)
        return False

    def _unrouted(self, payload: bytes) -> Shutdown | None:
        data = _envelope(payload).data
        # Streams of all symbols at once send arrays.
        if not bytes(data).startswith(b"[") and _other(data).e == "serverShutdown":
            return Shutdown()
        self.unknown += 1
        return None

    def _uncombined(self, payload: bytes, received_at: Nanos, sink: FeedSink) -> Reply | Shutdown | None:
        """Everything that is not ``{"stream":…`` at its first byte; rare, so cost does not matter."""
        other = _other(payload)
        if other.stream and bytes(other.data):
            # The same envelope with other spacing or order of keys.
            inner = b'{"stream":"%b","data":%b}' % (other.stream.encode(), bytes(other.data))
            return self.decode(inner, received_at, sink)
        if other.e == "serverShutdown":
            return Shutdown()
        if other.error is not None:
            return Reply(other.id, f"{other.error.msg} (code {other.error.code})")
        if other.code is not None:
            return Reply(other.id, f"{other.msg} (code {other.code})")
        raw = bytes(other.result)
        if raw:
            return Reply(other.id, "", tuple(_strings(raw)) if raw.startswith(b"[") else ())
        stream = _stream_of(other)
        if stream is None:
            self.unknown += 1
            return None
        inner = b'{"stream":"%b","data":%b}' % (stream, payload)
        for name, route in self._routes.items():
            # Raw depth and kline events do not say their speed or interval in one word: match the start.
            if name == stream or name.startswith(stream + b"@"):
                self._put(route, inner, received_at, sink)
                return None
        self.unknown += 1
        return None


def _stream_of(other: _Other) -> bytes | None:
    symbol = other.s.lower().encode()
    if other.e in ("trade", "aggTrade", "bookTicker"):
        return symbol + b"@" + other.e.encode()
    if other.e == "depthUpdate":
        return symbol + b"@depth"
    if other.e == "kline" and bytes(other.k):
        interval = msgspec.json.decode(other.k, type=dict[str, msgspec.Raw]).get("i")
        if interval is not None:
            return symbol + b"@kline_" + bytes(interval).strip(b'"')
    if not other.e and symbol:
        # Spot's bookTicker is the one event that does not name itself.
        return symbol + b"@bookTicker"
    return None


def _delta(instrument: int, d: _Depth, received_at: int) -> BookDelta:
    return BookDelta(
        instrument=instrument,
        exchange_at=Nanos((d.T or d.E) * _MS),
        received_at=Nanos(received_at),
        first_sequence=d.U,
        last_sequence=d.u,
        previous_sequence=d.pu,
        bids=d.b,
        asks=d.a,
    )


def _bar(k: _KlineBody) -> Bar:
    return Bar(opened_at=Nanos(k.t * _MS), open=k.o, high=k.h, low=k.l, close=k.c, volume=k.v, trades=k.n)


def subscribe(streams: list[str], request: int) -> bytes:
    """The control message that adds ``streams``."""
    return msgspec.json.encode({"method": "SUBSCRIBE", "params": streams, "id": request})


def unsubscribe(streams: list[str], request: int) -> bytes:
    """The control message that removes ``streams``."""
    return msgspec.json.encode({"method": "UNSUBSCRIBE", "params": streams, "id": request})

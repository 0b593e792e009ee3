"""Kite's ticker, decoded: a frame of packets in, a batch of ticks and one of depths out, by numpy in one pass.

Wire: ``u16 count``, then for each packet ``u16 length`` and its bytes, all big-endian.  The length says what it is: 8
LTP, 28 and 32 an index (quote, full), 44 quote, 184 full with five levels a side.  Prices are integers: divided by
10^7 for currencies at NSE (cds), by 10^4 for those at BSE (bcd) and NSE's commodities (nco), else by 100; the segment
is the lowest byte of the token.  Sources: "WebSocket streaming" of the Kite Connect v3 documentation, and the official
SDK (kiteconnect 5.2.2, ``KiteTicker._parse_binary``) for what the documentation leaves out.

A packet tells a state, not an event.  It becomes a trade where the day's traded volume has changed since the packet
before: its size is what was traded between the two, its sequence the volume, which only grows within a day.  What is
first known of an instrument after connecting, or comes with a smaller volume than before, is marked SNAPSHOT, for
nobody can tell how much of it is new.  Packets without a volume (LTP, indices) are trades of size 0.  A full packet is
also a quote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import compress
from operator import itemgetter
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from connectors.base import FeedSink
from trading.depth import DEPTH
from trading.ids import Nanos
from trading.ticks import QUOTE, SNAPSHOT, TICK, TRADE

#: Names of the segments by the lowest byte of a token.
SEGMENTS: Final = {
    1: "nse",
    2: "nfo",
    3: "cds",
    4: "bse",
    5: "bfo",
    6: "bcd",
    7: "mcx",
    8: "mcxsx",
    9: "indices",
    12: "nco",
}
LTP, INDEX_QUOTE, INDEX_FULL, QUOTES, FULL = 8, 28, 32, 44, 184
SIZES: Final = (LTP, INDEX_QUOTE, INDEX_FULL, QUOTES, FULL)
MODES: Final = ("ltp", "quote", "full")

_SECOND: Final = np.int64(1_000_000_000)
_U32: Final = np.uint32
#: Runs of whole packets of one known size: cuts a frame of mixed sizes without a step of ours for each packet.
_RUNS: Final = re.compile(
    rb"(?:\x00\xb8.{184})+|(?:\x00\x2c.{44})+|(?:\x00\x08.{8})+|(?:\x00\x20.{32})+|(?:\x00\x1c.{28})+", re.DOTALL
)
_SIZE_OF: Final = itemgetter(1)
_LAYOUTS: Final = {size: np.dtype([("size", ">u2"), ("words", ">u4", (size // 4,))]) for size in SIZES}
#: Words of a full packet before its levels; other packets have fewer.
_HEAD_WORDS: Final = 16
#: No token is this large, for tokens have 32 bits.
_NO_TOKEN: Final = 1 << 32
#: Instead of a volume: nothing has come yet; only packets without a volume have.  Above any volume, so that what comes
#: next is a fall, as it is at the start of a day.
_UNKNOWN: Final = 1 << 62
_WITHOUT: Final = _UNKNOWN + 1
#: Entries of a table of slots; larger ones are slower than a search, for they do not fit the processor's cache.
_LARGEST_TABLE: Final = 1 << 20
_TRADES, _QUOTES, _DEPTHS = 1, 2, 4
_CHANNELS: Final = {"trade": _TRADES, "quote": _QUOTES, "depth": _DEPTHS}
#: Of a TICK row as ten 8-byte words: number and flags, then price, size, bid, bid size, ask, ask size, times, sequence.
_HEAD, _PRICE, _SIZE, _BID, _BID_SIZE, _ASK, _ASK_SIZE, _EXCHANGE_AT, _RECEIVED_AT, _SEQUENCE = range(10)
_WORDS_OF_TICK: Final = TICK.itemsize // 8
_WORDS_OF_DEPTH: Final = DEPTH.itemsize // 8

#: The upper half of a row's first word.
_TRADE_HEAD: Final = TRADE << 32
_QUOTE_HEAD: Final = QUOTE << 32
_SNAPSHOT_HEAD: Final = SNAPSHOT << 32
_USUAL_SCALE_HEAD: Final = 100 << 32

Words = npt.NDArray[np.uint32]
Whole = npt.NDArray[np.int64]
Slots = npt.NDArray[np.intp]


def scale_of(token: int) -> int:
    """What the integer prices of an instrument are divided by."""
    segment = token & 0xFF
    return 10_000_000 if segment == 3 else 10_000 if segment in (6, 12) else 100


class Listed(msgspec.Struct, frozen=True):
    """An instrument to decode: its number in tick arrays and the channels (``trade``, ``quote``, ``depth``) of it."""

    number: int
    channels: frozenset[str]


class _Rows:
    """TICK rows that are written over with each frame; what all rows of a kind have alike is written once."""

    def __init__(self) -> None:
        self._make(0)

    def _make(self, count: int) -> None:
        self.ticks = np.zeros(count, dtype=TICK)
        self._floats = self.ticks.view(np.float64).reshape(count, _WORDS_OF_TICK)
        self._floats[:, _PRICE:_EXCHANGE_AT] = np.nan
        self._whole = self.ticks.view(np.int64).reshape(count, _WORDS_OF_TICK)

    def room(self, count: int) -> tuple[npt.NDArray[np.float64], Whole]:
        """So many rows as floats and as integers, ten to a row; what is not written to is NaN or 0."""
        if count > len(self.ticks):
            self._make(2 * count)
        return self._floats[:count], self._whole[:count]


class Codec:
    """Decodes frames of the tokens it was told of, into a sink."""

    def __init__(self) -> None:
        self._listed: dict[int, Listed] = {}
        self._tokens: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        #: Volume of the day so far by slot; `_UNKNOWN` or `_WITHOUT` where there is none.
        self._volumes: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._trade_rows, self._quote_rows = _Rows(), _Rows()
        self._order = np.arange(0)
        self._build({})
        #: Packets decoded; of tokens nobody asked for (any more); of sizes that are not known.
        self.packets = 0
        self.unasked = 0
        self.strange = 0

    def __repr__(self) -> str:
        return f"<Codec {len(self._listed)} tokens {self.packets} packets>"

    def put(self, listed: Iterable[tuple[int, Listed]]) -> None:
        """Decode these tokens from now on, in this way."""
        self._listed.update(listed)
        self._build(self._known_volumes())

    def remove(self, tokens: Iterable[int]) -> None:
        """Stop decoding tokens."""
        for token in tokens:
            self._listed.pop(token, None)
        self._build(self._known_volumes())

    def forget(self) -> None:
        """A new connection: what comes first of each instrument is a snapshot."""
        self._volumes[:] = _UNKNOWN

    def has_heard(self, token: int) -> bool:
        """Whether a packet of the token has come since `forget`."""
        slot = int(self._tokens.searchsorted(token))
        return bool(self._tokens[slot] == token and self._volumes[slot] != _UNKNOWN)

    def _known_volumes(self) -> dict[int, int]:
        return dict(zip(self._tokens.tolist(), self._volumes.tolist(), strict=True))

    def _build(self, volumes: dict[int, int]) -> None:
        tokens = sorted(self._listed)
        listed = [self._listed[token] for token in tokens]
        # One slot more, so that every search ends at a slot.
        self._tokens = np.array([*tokens, _NO_TOKEN], dtype=np.int64)
        self._table = _table_of(self._tokens[:-1])
        self._numbers = np.array([each.number for each in listed] + [0], dtype=np.int64)
        scales = np.array([scale_of(token) for token in tokens] + [100], dtype=np.int64)
        self._divisors = scales.astype(np.float64)
        self._one_divisor = 100.0 if (scales == 100).all() else None
        self._scale_heads = scales << 32
        self._volumes = np.array([volumes.get(token, _UNKNOWN) for token in tokens] + [_UNKNOWN], dtype=np.int64)
        self._stamps = np.zeros(len(tokens) + 1, dtype=np.intp)
        channels = [sum(_CHANNELS[channel] for channel in each.channels) for each in listed]
        self._channels = np.array([*channels, 0], dtype=np.int64)
        #: Channels that some token has, and that all have: usually the same, and then nothing is to be picked out.
        self._some = int(np.bitwise_or.reduce(self._channels))
        self._every = int(np.bitwise_and.reduce(self._channels[:-1])) if channels else 0

    # Frames

    def decode(self, frame: bytes, received_at: Nanos, sink: FeedSink) -> str:
        """Put one binary frame into ``sink``; returns what is wrong with it, "" if nothing.

        A frame that does not add up to the byte is not used at all.  Of one that does, packets of unknown sizes are
        passed over and the rest is used.
        """
        if len(frame) < 2:
            return ""  # a heartbeat
        count = (frame[0] << 8) | frame[1]
        if count == 0:
            return "" if len(frame) == 2 else f"no packets in {len(frame)} bytes"
        if len(frame) < 4:
            return f"{count} packets in {len(frame)} bytes"
        size = (frame[2] << 8) | frame[3]
        layout = _LAYOUTS.get(size)
        if layout is not None and len(frame) == 2 + count * layout.itemsize:
            rows = np.frombuffer(frame, layout, offset=2)
            if np.count_nonzero(rows["size"] == size) == count:
                self._take(size, rows["words"], received_at, sink)
                return ""
        return self._mixed(frame, count, received_at, sink)

    def _mixed(self, frame: bytes, count: int, received_at: Nanos, sink: FeedSink) -> str:
        runs = _RUNS.findall(frame, 2)
        wrong = ""
        # All sizes are below 256, so the second byte of a run is its size.
        sizes = np.fromiter(map(_SIZE_OF, runs), dtype=np.intp, count=len(runs))
        lengths = np.fromiter(map(len, runs), dtype=np.intp, count=len(runs))
        if lengths.sum() != len(frame) - 2 or (lengths // (sizes + 2)).sum() != count:
            runs, wrong = self._walk(frame, count)
            sizes = np.fromiter(map(_SIZE_OF, runs), dtype=np.intp, count=len(runs))
        for size in SIZES:
            mine = sizes == size
            if np.count_nonzero(mine):
                rows = np.frombuffer(b"".join(compress(runs, mine.tolist())), _LAYOUTS[size])
                self._take(size, rows["words"], received_at, sink)
        return wrong

    def _walk(self, frame: bytes, count: int) -> tuple[list[bytes], str]:
        """The known packets of a frame that has others in it, or that does not add up; rare, so it may be slow."""
        found: list[bytes] = []
        strange: list[int] = []
        start = 2
        for _ in range(count):
            size = int.from_bytes(frame[start : start + 2], "big")
            end = start + 2 + size
            # The shortest packet has a token and a price.
            if end > len(frame) or size < LTP:
                return [], f"{count} packets do not fit in {len(frame)} bytes"
            if size in _LAYOUTS:
                found.append(frame[start:end])
            else:
                strange.append(size)
            start = end
        if start != len(frame):
            return [], f"{len(frame) - start} bytes after {count} packets"
        self.strange += len(strange)
        return found, f"packets of unknown sizes: {', '.join(map(str, strange[:5]))}"

    def _take(self, size: int, wire: Words, received_at: Nanos, sink: FeedSink) -> None:
        """Packets of one size, each a row of 32-bit words as they came (big-endian)."""
        tokens = wire[:, 0].astype(np.int64)
        table = self._table
        # What is beyond the table ends at its last entry, which is nobody's.
        slots = self._tokens.searchsorted(tokens) if table is None else table.take(tokens >> 8, mode="clip")
        known = self._tokens.take(slots) == tokens
        count = int(np.count_nonzero(known))
        if count != len(known):
            self.unasked += len(known) - count
            wire, slots = wire[known], slots[known]
        if count > len(self._order):
            self._order = np.arange(2 * count)
        order = self._order[:count]
        self._stamps[slots] = order
        if np.count_nonzero(self._stamps.take(slots) == order) != count:
            # An instrument comes more than once: each volume must meet the one before.
            firsts = np.zeros(count, dtype=np.bool_)
            firsts[np.unique(slots, return_index=True)[1]] = True
            self._take(size, wire[firsts], received_at, sink)
            self._take(size, wire[~firsts], received_at, sink)
            return
        self.packets += count
        if count == 0:
            return
        head = wire[:, :_HEAD_WORDS].astype(_U32)
        numbers = self._numbers.take(slots)
        if size == FULL:
            self._traded(head, numbers, slots, received_at, sink, is_full=True)
            if self._some & (_QUOTES | _DEPTHS):
                self._booked(head, wire[:, _HEAD_WORDS:], numbers, slots, received_at, sink)
        elif size == QUOTES:
            self._traded(head, numbers, slots, received_at, sink, is_full=False)
        else:
            self._priced(head, numbers, slots, received_at, sink, is_full=size == INDEX_FULL)

    def _having(self, channel: int, slots: Slots) -> npt.NDArray[np.bool_] | None:
        """Which of them a channel is asked of; None for all."""
        return None if self._every & channel else (self._channels[slots] & channel) != 0

    # Packets of one size, no instrument twice

    def _traded(
        self, words: Words, numbers: Whole, slots: Slots, received_at: int, sink: FeedSink, *, is_full: bool
    ) -> None:
        volumes = words[:, 4].astype(np.int64)
        sizes = volumes - self._volumes.take(slots)
        self._volumes[slots] = volumes
        asked = self._having(_TRADES, slots)
        if asked is not None or np.count_nonzero(sizes <= 0):
            moved = sizes != 0
            is_odd = sizes < 0
            numbers = np.where(is_odd, numbers | _SNAPSHOT_HEAD, numbers)
            sizes[is_odd] = words[is_odd, 2]
            if asked is not None:
                moved &= asked
            words, slots, numbers = words[moved], slots[moved], numbers[moved]
            sizes, volumes = sizes[moved], volumes[moved]
        if not len(words):
            return
        floats, whole = self._trade_rows.room(len(words))
        np.add(numbers, _TRADE_HEAD, out=whole[:, _HEAD])
        np.divide(words[:, 1], self._divisors_of(slots), out=floats[:, _PRICE])
        floats[:, _SIZE] = sizes
        if is_full:
            np.multiply(words[:, 11], _SECOND, out=whole[:, _EXCHANGE_AT])
        else:
            whole[:, _EXCHANGE_AT] = 0
        whole[:, _RECEIVED_AT] = received_at
        whole[:, _SEQUENCE] = volumes
        sink.ticks.extend(self._trade_rows.ticks[: len(words)])

    def _priced(
        self, words: Words, numbers: Whole, slots: Slots, received_at: int, sink: FeedSink, *, is_full: bool
    ) -> None:
        """As `_traded`, of packets that have a last price and no volume."""
        asked = self._having(_TRADES, slots)
        if asked is not None:
            words, slots, numbers = words[asked], slots[asked], numbers[asked]
        if not len(words):
            return
        numbers[self._volumes.take(slots) == _UNKNOWN] |= _SNAPSHOT_HEAD
        self._volumes[slots] = _WITHOUT
        floats, whole = self._trade_rows.room(len(words))
        np.add(numbers, _TRADE_HEAD, out=whole[:, _HEAD])
        np.divide(words[:, 1], self._divisors_of(slots), out=floats[:, _PRICE])
        floats[:, _SIZE] = 0.0
        if is_full:
            np.multiply(words[:, 7], _SECOND, out=whole[:, _EXCHANGE_AT])
        else:
            whole[:, _EXCHANGE_AT] = 0
        whole[:, _RECEIVED_AT] = received_at
        whole[:, _SEQUENCE] = 0
        sink.ticks.extend(self._trade_rows.ticks[: len(words)])

    def _booked(
        self, words: Words, levels: Words, numbers: Whole, slots: Slots, received_at: int, sink: FeedSink
    ) -> None:
        """Best prices as quotes, all levels as depths; ``levels`` as they came."""
        count = len(words)
        books = np.empty(count, dtype=DEPTH)
        whole = books.view(np.int64).reshape(count, _WORDS_OF_DEPTH)
        scales = self._scale_heads.take(slots) if self._one_divisor is None else _USUAL_SCALE_HEAD
        np.add(numbers, scales, out=whole[:, 0])
        np.multiply(words[:, 15], _SECOND, out=whole[:, 1])
        whole[:, 2] = received_at
        # A level's third word has the orders in its upper half, which is where LEVEL has them; its lower half, the
        # places of LEVEL, is padding of zeros.
        laid = whole.view(_U32)[:, 6:]
        laid[:] = levels
        if self._some & _QUOTES:
            asked = self._having(_QUOTES, slots)
            if asked is None:
                self._quoted(whole[:, 1], laid, numbers, slots, received_at, sink)
            else:
                self._quoted(whole[asked, 1], laid[asked], numbers[asked], slots[asked], received_at, sink)
        if self._some & _DEPTHS:
            asked = self._having(_DEPTHS, slots)
            if asked is not None:
                books = books[asked]
            if len(books):
                sink.depth(books)

    def _quoted(self, at: Whole, levels: Words, numbers: Whole, slots: Slots, received_at: int, sink: FeedSink) -> None:
        count = len(slots)
        if not count:
            return
        floats, whole = self._quote_rows.room(count)
        divisors = self._divisors_of(slots)
        np.add(numbers, _QUOTE_HEAD, out=whole[:, _HEAD])
        for price, size, first in ((_BID, _BID_SIZE, 0), (_ASK, _ASK_SIZE, 15)):
            np.divide(levels[:, first + 1], divisors, out=floats[:, price])
            floats[:, size] = levels[:, first]
            if np.count_nonzero(levels[:, first + 1]) != count:
                floats[levels[:, first + 1] == 0, price] = np.nan
        whole[:, _EXCHANGE_AT] = at
        whole[:, _RECEIVED_AT] = received_at
        sink.ticks.extend(self._quote_rows.ticks[:count])

    def _divisors_of(self, slots: Slots) -> npt.NDArray[np.float64] | float:
        return self._divisors.take(slots) if self._one_divisor is None else self._one_divisor


def _table_of(tokens: Whole) -> npt.NDArray[np.intp] | None:
    """Slots by the exchange's own number in the token; None where that does not tell tokens apart, or is large."""
    numbers = tokens >> 8
    if not len(tokens) or len(np.unique(numbers)) != len(tokens) or int(numbers.max()) >= _LARGEST_TABLE:
        return None
    table = np.full(int(numbers.max()) + 2, len(tokens), dtype=np.intp)
    table[numbers] = np.arange(len(tokens))
    return table

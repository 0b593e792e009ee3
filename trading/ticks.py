"""Ticks: one fixed-size record per market event, batches of them as numpy arrays.

A record says what happened (``flags``) and holds both sides of what is known: a trade fills ``price`` and
``size``, a quote fills ``bid`` … ``ask_size``.  Fields that do not apply are NaN.  Times are UTC nanoseconds:
``exchange_at`` by the venue's clock (0 where it sends none), ``received_at`` when the bytes arrived here.
``sequence`` is the venue's own counter for that instrument and kind (0 where it has none).
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

TRADE: Final = 1
QUOTE: Final = 2
#: The buyer was the passive side, i.e. the trade was a sell.
BUYER_MAKER: Final = 4
#: First values after a (re)subscription, not an event of its own.
SNAPSHOT: Final = 8
#: Filled in from history after a gap.
BACKFILLED: Final = 16
#: From the instrument's second provider (`trading.arbitration`): its ``sequence`` is 0, for it is another's.
SECOND: Final = 32

TICK: Final = np.dtype(
    [
        ("instrument", "<i4"),
        ("flags", "<u4"),
        ("price", "<f8"),
        ("size", "<f8"),
        ("bid", "<f8"),
        ("bid_size", "<f8"),
        ("ask", "<f8"),
        ("ask_size", "<f8"),
        ("exchange_at", "<i8"),
        ("received_at", "<i8"),
        ("sequence", "<i8"),
    ]
)

_ROW = struct.Struct("<iI6d3q")
assert _ROW.size == TICK.itemsize
_NAN = float("nan")

TickArray = npt.NDArray[np.void]


class TickBuffer:
    """Collects ticks one by one and gives them out as one array.

    Packing into bytes costs half of what building a structured array from tuples does.  Not thread-safe.
    """

    __slots__ = ("_more", "_rows")

    def __init__(self) -> None:
        #: Bytes of one tick each, or of several that came together.
        self._rows: list[bytes] = []
        #: Ticks beyond one in the pieces of several.
        self._more = 0

    def __len__(self) -> int:
        return len(self._rows) + self._more

    def trade(
        self,
        instrument: int,
        price: float,
        size: float,
        flags: int,
        exchange_at: int,
        received_at: int,
        sequence: int,
    ) -> None:
        """Append a trade; ``flags`` may add BUYER_MAKER, SNAPSHOT or BACKFILLED."""
        self._rows.append(
            _ROW.pack(
                instrument,
                TRADE | flags,
                price,
                size,
                _NAN,
                _NAN,
                _NAN,
                _NAN,
                exchange_at,
                received_at,
                sequence,
            )
        )

    def quote(
        self,
        instrument: int,
        bid: float,
        bid_size: float,
        ask: float,
        ask_size: float,
        flags: int,
        exchange_at: int,
        received_at: int,
        sequence: int,
    ) -> None:
        """Append a best bid and offer."""
        self._rows.append(
            _ROW.pack(
                instrument,
                QUOTE | flags,
                _NAN,
                _NAN,
                bid,
                bid_size,
                ask,
                ask_size,
                exchange_at,
                received_at,
                sequence,
            )
        )

    def extend(self, ticks: TickArray) -> None:
        """Append a whole array, in one piece."""
        if len(ticks):
            self._rows.append(ticks.tobytes())
            self._more += len(ticks) - 1

    def take(self) -> bytes:
        """All ticks so far as the bytes of a TICK array; the buffer is empty afterwards."""
        rows, self._rows = self._rows, []
        self._more = 0
        return b"".join(rows)


def decode(raw: bytes | memoryview) -> TickArray:
    """The (read-only) array whose bytes `TickBuffer.take` gave."""
    return np.frombuffer(raw, dtype=TICK)


def live(ticks: TickArray) -> TickArray:
    """Those that were not filled in from history; no copy where none was."""
    is_old = (ticks["flags"] & np.uint32(BACKFILLED)) != 0
    return ticks[~is_old] if is_old.any() else ticks


def empty() -> TickArray:
    """An array of no ticks."""
    return np.empty(0, dtype=TICK)


# A batch on the bus: who sent it and its number in that sender's stream, so that a reader sees a loss.
_HEADER = struct.Struct("<qqiI")


def pack_batch(epoch: int, sequence: int, shard: int, ticks: bytes) -> bytes:
    """Frame ``ticks`` for the bus: epoch of the worker, number of the batch from 1, shard, count, ticks."""
    return _HEADER.pack(epoch, sequence, shard, len(ticks) // TICK.itemsize) + ticks


def unpack_batch(raw: bytes) -> tuple[int, int, int, TickArray]:
    """``(epoch, sequence, shard, ticks)`` of a framed batch; ValueError where it is not one."""
    if len(raw) < _HEADER.size:
        raise ValueError(f"a tick batch of {len(raw)} bytes is shorter than its header")
    epoch, sequence, shard, count = _HEADER.unpack_from(raw)
    if len(raw) != _HEADER.size + count * TICK.itemsize:
        raise ValueError(f"a tick batch says {count} ticks but has {len(raw) - _HEADER.size} bytes of them")
    return epoch, sequence, shard, np.frombuffer(raw, dtype=TICK, offset=_HEADER.size)


class Senders:
    """A reader's view of a feed's workers: what was missed, and what must not be used."""

    def __init__(self) -> None:
        #: Shard -> (epoch, number of its last batch).
        self._last: dict[int, tuple[int, int]] = {}

    def missed(self, epoch: int, sequence: int, shard: int) -> int | None:
        """Take note of a batch; returns how many are missing before it.

        None: do not use it, for it is of an incarnation that was replaced, or came before.  What was sent
        before the first batch of a shard was not for this reader.  What an incarnation sent last, before it
        was replaced, cannot be known to be missing.
        """
        known = self._last.get(shard)
        if known is None:
            self._last[shard] = (epoch, sequence)
            return 0
        if epoch < known[0] or (epoch == known[0] and sequence <= known[1]):
            return None
        self._last[shard] = (epoch, sequence)
        return sequence - 1 - (known[1] if epoch == known[0] else 0)

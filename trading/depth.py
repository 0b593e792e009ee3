"""Market depth: five levels a side of one instrument as one fixed-size record, batches of them as numpy arrays.

A record is the whole book that a venue shows, not a change of it: the last one of an instrument is all there is to
know.  Prices and sizes are integers: ``price / scale`` is the price in the instrument's currency, ``size / 10 **
places`` the size.  A level whose ``size`` and ``price`` are 0 is not there.  Times are UTC nanoseconds, as in
`trading.ticks`.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import numpy.typing as npt

#: Levels a side.
LEVELS: Final = 5

LEVEL: Final = np.dtype(
    [
        ("size", "<u4"),
        ("price", "<u4"),
        #: Digits of ``size`` behind the point; 0 where sizes are whole.
        ("places", "<u2"),
        ("orders", "<u2"),
    ]
)

DEPTH: Final = np.dtype(
    [
        ("instrument", "<i4"),
        ("scale", "<u4"),
        ("exchange_at", "<i8"),
        ("received_at", "<i8"),
        #: Best first.
        ("bids", LEVEL, (LEVELS,)),
        ("asks", LEVEL, (LEVELS,)),
    ]
)

DepthArray = npt.NDArray[np.void]

#: Epoch of the sender, number of the batch in its stream, shard, count.
_HEADER: Final = struct.Struct("<qqiI")


def prices(books: DepthArray, side: str) -> npt.NDArray[np.float64]:
    """Prices of ``bids`` or ``asks``, one row of five for each record, best first; NaN where there is no level."""
    found: npt.NDArray[np.float64] = books[side]["price"] / books["scale"][:, None].astype(np.float64)
    found[books[side]["price"] == 0] = np.nan
    return found


def sizes(books: DepthArray, side: str) -> npt.NDArray[np.float64]:
    """Sizes of ``bids`` or ``asks``, as in `prices`; 0 where there is no level."""
    found: npt.NDArray[np.float64] = books[side]["size"] / np.power(10.0, books[side]["places"])
    return found


def pack_depth(epoch: int, sequence: int, shard: int, books: DepthArray) -> bytes:
    """Frame ``books`` for the bus: epoch of the worker, number of the batch from 1, shard, count, records."""
    return _HEADER.pack(epoch, sequence, shard, len(books)) + books.tobytes()


def unpack_depth(raw: bytes) -> tuple[int, int, int, DepthArray]:
    """``(epoch, sequence, shard, books)`` of a framed batch; ValueError where it is not one."""
    if len(raw) < _HEADER.size:
        raise ValueError(f"a depth batch of {len(raw)} bytes is shorter than its header")
    epoch, sequence, shard, count = _HEADER.unpack_from(raw)
    if len(raw) != _HEADER.size + count * DEPTH.itemsize:
        raise ValueError(f"a depth batch says {count} records but has {len(raw) - _HEADER.size} bytes of them")
    return epoch, sequence, shard, np.frombuffer(raw, dtype=DEPTH, offset=_HEADER.size)

"""Closed bars from ``/instruments/historical``, in pieces of as many days as Kite gives at once.

Source: "Historical candle data" of the Kite Connect v3 documentation: ``from`` and ``to`` are India's time and both
inclusive; a candle is named by its opening.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from connectors.kite.client import KiteClient
from connectors.kite.symbols import token_of
from connectors.kite.wire import DAY_NS, candles_in, interval_of, ist
from trading.bars import Bar, interval_ns
from trading.errors import BadInput
from trading.ids import Nanos
from trading.instruments import Instrument

_SECOND: Final = 1_000_000_000
#: At three requests a second this is a minute of asking.
_MOST_REQUESTS: Final = 180


async def bars(
    client: KiteClient, instrument: Instrument, interval: str, start: Nanos, end: Nanos, now: Nanos
) -> Sequence[Bar]:
    """Closed bars with ``start <= opened_at < end``, oldest first.

    Raises `BadInput` for an interval Kite has not, a span that ends before it starts or one that is too long, and what
    `KiteClient.read` raises.
    """
    kind, length, token = interval_of(interval), interval_ns(interval), token_of(instrument)
    if end <= start:
        raise BadInput("end", "it must be later than start")
    # What is not closed yet is of no use, and the future is refused.
    end = Nanos(min(end, now))
    # Inclusive bounds of whole seconds: a piece is a second shorter than what is allowed.
    step = kind.most_days * DAY_NS
    if (end - start) // step >= _MOST_REQUESTS:
        most = _MOST_REQUESTS * kind.most_days
        raise BadInput("start", f"more than {most} days of {interval}: ask for a shorter span")
    found: list[Bar] = []
    piece = -(-start // _SECOND) * _SECOND
    while piece < end:
        last = min(piece + step, -(-end // _SECOND) * _SECOND) - _SECOND
        query = (("from", ist(piece)), ("to", ist(max(last, piece))), ("continuous", "0"), ("oi", "0"))
        body = await client.read(f"/instruments/historical/{token}/{kind.word}", query, "historical")
        for bar in candles_in(body):
            fresh = not found or bar.opened_at > found[-1].opened_at
            if fresh and start <= bar.opened_at < end and bar.opened_at + length <= now:
                found.append(bar)
        piece += step
    return found

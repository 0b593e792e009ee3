"""Books kept from recorded changes, against the best prices that the venue told at the same update."""

from __future__ import annotations

from bisect import bisect_right

import pytest

from connectors.binance.codec import Codec
from connectors.recordings import Problems, read
from tests.connectors.support import Sink, data_file
from trading.ids import Nanos
from trading.order_book import BookChange, OrderBook
from trading.ticks import QUOTE, decode

#: Until then the levels around the price have been told, for the recording has no snapshot.
WARM_UP_NS = 60_000_000_000


@pytest.mark.parametrize(
    ("file", "stream"),
    [
        ("examples_spot_btcusdt_20240808.gz", "btcusdt@depth@100ms"),
        ("examples_usdm_btcusdt_20240808.gz", "btcusdt@depth@0ms"),
    ],
    ids=["spot", "usd-m"],
)
def test_a_book_kept_from_recorded_changes_has_the_best_prices_that_the_venue_told(file: str, stream: str) -> None:
    sink, codec = Sink(), Codec()
    codec.add(stream, 1)
    codec.add("btcusdt@bookTicker", 1)
    problems = Problems()
    for line in read(data_file(f"market/crypto_binance_raw_ws/{file}"), problems):
        if line.stream in (stream, "btcusdt@bookTicker"):
            codec.decode(line.payload, line.received_at, sink)
    quotes = decode(sink.ticks.take())
    quotes = quotes[quotes["flags"] & QUOTE > 0]
    numbers = quotes["sequence"].tolist()
    book = OrderBook()
    first = sink.books[0]
    start = first.first_sequence - 1 if first.previous_sequence is None else first.previous_sequence
    compared = same = 0
    for delta in sink.books:
        change = BookChange(
            first=delta.first_sequence, last=delta.last_sequence, previous=delta.previous_sequence, bids=delta.bids,
            asks=delta.asks,
        )  # fmt: skip
        book.change(change, delta.received_at)
        if not book.good and not book.resyncs:
            assert book.snapshot(start, (), (), Nanos(delta.received_at))
        assert book.good, book.reason
        row = bisect_right(numbers, book.last) - 1
        if delta.received_at - first.received_at < WARM_UP_NS or row < 0:
            continue
        # The last best prices told up to this update: none has changed since.
        told = quotes[row]
        compared += 1
        right = ([(told["bid"], told["bid_size"])], [(told["ask"], told["ask_size"])])
        same += (book.bids(1), book.asks(1)) == right
    assert (book.resyncs, book.crossings) == (0, 0)
    assert compared > 1_000
    # Quotes may leave out states of a moment: one of 2,852 differs on spot, none of 5,403 on USD-M.
    assert same >= compared * 0.999

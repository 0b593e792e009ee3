"""Channel ``book`` against the simulator: real sockets, real snapshots, changes withheld."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from connectors.base import BookDelta
from connectors.binance.books import Books
from connectors.binance.codec import Codec
from connectors.binance.market import BinanceMarket
from connectors.binance.product import SPOT, USDM
from connectors.binance.rest import Rest
from tests.connectors.binance.test_feed import Setting, setting, synthetic
from tests.connectors.support import Sink, instrument, until
from trading.depth import prices, sizes
from trading.errors import BadInput
from trading.ids import Nanos


def newest(sink: Sink, number: int) -> np.void | None:
    """The last depth of an instrument."""
    for books in reversed(sink.depths):
        for row in books[::-1]:
            if row["instrument"] == number:
                found: np.void = row
                return found
    return None


def levels(row: np.void, side: str) -> list[list[str]]:
    """As the venue writes them."""
    book = np.array([row])
    return [
        [f"{price:.12g}", f"{size:.12g}"]
        for price, size in zip(prices(book, side)[0], sizes(book, side)[0], strict=True)
        if price == price
    ]


def told(simulated: list[tuple[str, str]]) -> list[list[str]]:
    return [[f"{float(price):.12g}", f"{float(size):.12g}"] for price, size in simulated]


async def agree(it: Setting, number: int, symbol: str) -> None:
    """Hold the market and compare the feed's book with the venue's own."""
    await it.command("hold")
    books = it.feed.books
    assert books is not None
    _, bids, asks = it.simulator._market.book(symbol).snapshot(5)

    def same() -> bool:
        row = newest(it.sink, number)
        return row is not None and levels(row, "bids") == told(bids) and levels(row, "asks") == told(asks)

    await until(same)
    assert len(bids) == len(asks) == 5
    await it.command("start")


@pytest.mark.parametrize("futures", [False, True], ids=["spot", "usd-m"])
async def test_a_book_is_the_venues_and_is_again_after_changes_were_lost(futures: bool) -> None:
    async with setting(synthetic(symbols=2, ticks_per_s=400, futures=futures)) as it:
        one, two = it.listed
        await it.feed.subscribe([one, two], ["book"])
        books = it.feed.books
        assert books is not None
        await until(lambda: all(newest(it.sink, each.number) is not None for each in (one, two)))
        assert it.simulator.stats()["requests"]["/depth"] == 2
        for each in (one, two):
            await agree(it, each.number, each.provider_symbol)
        assert it.sink.books == []
        stream = f"{one.provider_symbol.lower()}@depth@100ms"
        await it.command("pause", stream=stream)
        await until(lambda: it.simulator.stats()["events"].get("withheld", 0) > 1)
        await it.command("resume", stream=stream)
        await until(lambda: books.resyncs == 1)
        await agree(it, one.number, one.provider_symbol)
        # While it was not known it was shown without levels.
        every = [row for rows in it.sink.depths for row in rows if row["instrument"] == one.number]
        assert any(not row["bids"]["price"].any() for row in every)
        assert it.simulator.stats()["requests"]["/depth"] <= 5
        assert books.crossings == 0


async def test_after_a_lost_connection_every_book_is_fetched_again() -> None:
    async with setting(synthetic(symbols=2, ticks_per_s=400)) as it:
        one = it.listed[0]
        await it.feed.subscribe([one], ["book", "depth"])
        await until(lambda: newest(it.sink, one.number) is not None)
        assert it.sink.books, "the changes were asked for too"
        await it.command("drop")
        await until(lambda: it.sink.closes != [] and it.feed.books is not None and it.feed.books.resyncs >= 1)
        await until(lambda: it.simulator.stats()["requests"]["/depth"] >= 2)
        await agree(it, one.number, one.provider_symbol)


async def test_a_venue_that_refuses_snapshots_is_asked_ever_more_seldom() -> None:
    async with setting(synthetic(symbols=1, ticks_per_s=400, futures=False)) as it:
        one = it.listed[0]
        await it.command("limit", requests=2, status=429, retry_after=1)
        await it.feed.subscribe([one], ["book"])
        await until(lambda: newest(it.sink, one.number) is not None)
        assert it.simulator.stats()["requests"]["/depth"] == 3
        await agree(it, one.number, one.provider_symbol)


async def test_no_book_is_made_of_partial_depth() -> None:
    market = BinanceMarket(SPOT, {"depth_stream": "depth5@100ms"})
    feed = market.feed(Sink())
    one = msgspec.structs.replace(instrument("BTCUSDT"), number=1, provider="binance-spot")
    with pytest.raises(BadInput, match="'depth' is depth5@100ms"):
        await feed.subscribe([one], ["book", "depth"])
    await feed.subscribe([one], ["book"])
    assert feed.counts() == {"btcusdt@depth@100ms": 0}
    await market.close()
    assert "book" in BinanceMarket(USDM, {}).limits.channels


async def test_sizes_and_prices_beyond_32_bits_are_rounded_and_never_wrong_in_the_first_digits() -> None:
    sink = Sink()
    books = Books(sink, Rest(SPOT, "http://127.0.0.1:1"), lambda: Nanos(5))
    one = msgspec.structs.replace(
        instrument("BTCUSDT"), number=3, tick_size=Decimal("0.00000001"), lot_size=Decimal("0.00000001")
    )
    books.want(one, ["book"])

    def delta(n: int, bids: Any, asks: Any) -> BookDelta:
        return BookDelta(
            instrument=3, exchange_at=Nanos(1), received_at=Nanos(2), first_sequence=n, last_sequence=n,
            previous_sequence=None, bids=bids, asks=asks,
        )  # fmt: skip

    books.book(delta(1, (), ()))
    books._kept[3].book.snapshot(1, [], [], Nanos(2))
    books.book(delta(2, ((61_234.56789012, 123_456_789.125), (0.00000001, 1.0)), ((61_235.0, 0.00000001),)))
    await asyncio.sleep(0)
    (row,) = sink.depths[-1]
    book = np.array([row])
    assert prices(book, "bids")[0, 0] == pytest.approx(61_234.56789012, rel=1e-8)
    assert sizes(book, "bids")[0, 0] == pytest.approx(123_456_789.125, rel=1e-8)
    assert sizes(book, "asks")[0, 0] == 0.00000001
    assert (row["exchange_at"], row["received_at"]) == (1, 2)


def test_recorded_changes_decode_into_what_a_book_takes() -> None:
    """The wire as documented: pairs of strings, ``pu`` on USD-M only."""
    sink = Sink()
    codec = Codec()
    codec.add("btcusdt@depth@100ms", 1)
    for extra in ("", '"pu":9,'):
        codec.decode(
            b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":5,"s":"BTCUSDT","U":10,"u":12,%s'
            b'"b":[["100.50","0.00000000"]],"a":[["101","2.5"]]}}' % extra.encode(), Nanos(1), sink,
        )  # fmt: skip
    spot, futures = sink.books
    assert (spot.first_sequence, spot.last_sequence, spot.previous_sequence) == (10, 12, None)
    assert futures.previous_sequence == 9
    assert (spot.bids, spot.asks) == (((100.5, 0.0),), ((101.0, 2.5),))

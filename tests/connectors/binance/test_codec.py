from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.binance.codec import Codec, Reply, Shutdown, kind_of
from connectors.recordings import Problems, read
from tests.connectors.support import Sink, data_file, is_nan
from trading.ids import Nanos
from trading.ticks import BUYER_MAKER, QUOTE, TRADE

NOW = Nanos(1_700_000_000_000_000_000)
FIXTURES = "fixtures/binance/futures/market_data_json"


def codec(*streams: str) -> Codec:
    made = Codec()
    for number, stream in enumerate(streams, 1):
        made.add(stream, number)
    return made


def fixture(name: str, stream: str, combined: bool) -> tuple[Sink, bytes]:
    raw = json.dumps(json.loads(data_file(f"{FIXTURES}/{name}.json").read_text()), separators=(",", ":")).encode()
    payload = b'{"stream":"%b","data":%b}' % (stream.encode(), raw) if combined else raw
    sink = Sink()
    assert codec(stream).decode(payload, NOW, sink) is None
    return sink, payload


@pytest.mark.parametrize("combined", [True, False])
def test_recorded_trade_decodes_field_by_field(combined: bool) -> None:
    sink, _ = fixture("trade_stream", "btcusdt@trade", combined)
    (tick,) = sink.all()
    assert tick["instrument"] == 1
    assert tick["flags"] == TRADE | BUYER_MAKER
    assert (tick["price"], tick["size"]) == (0.001, 100.0)
    assert is_nan(tick["bid"])
    assert is_nan(tick["ask_size"])
    assert tick["exchange_at"] == 123456785 * 1_000_000
    assert tick["received_at"] == NOW
    assert tick["sequence"] == 5933014


@pytest.mark.parametrize("combined", [True, False])
def test_recorded_book_ticker_decodes_field_by_field(combined: bool) -> None:
    sink, _ = fixture("book_ticker_stream", "bnbusdt@bookTicker", combined)
    (tick,) = sink.all()
    assert tick["flags"] == QUOTE
    assert (tick["bid"], tick["bid_size"], tick["ask"], tick["ask_size"]) == (25.3519, 31.21, 25.3652, 40.66)
    assert is_nan(tick["price"])
    assert tick["exchange_at"] == 1568014460891 * 1_000_000
    assert tick["sequence"] == 400900217


@pytest.mark.parametrize("combined", [True, False])
def test_recorded_depth_update_decodes_field_by_field(combined: bool) -> None:
    sink, _ = fixture("depth_update_stream", "btcusdt@depth@100ms", combined)
    (delta,) = sink.books
    assert (delta.first_sequence, delta.last_sequence, delta.previous_sequence) == (157, 160, 149)
    assert delta.bids == ((0.0024, 10.0),)
    assert delta.asks == ((0.0026, 100.0),)
    assert delta.exchange_at == 123456788 * 1_000_000


@pytest.mark.parametrize("combined", [True, False])
@pytest.mark.parametrize(("name", "final", "low"), [("closed", True, 0.001), ("open", False, 0.0015)])
def test_recorded_kline_decodes_field_by_field(combined: bool, name: str, final: bool, low: float) -> None:
    sink, _ = fixture(f"kline_stream_{name}", "btcusdt@kline_1m", combined)
    ((number, bar, is_final),) = sink.bars
    assert (number, is_final) == (1, final)
    assert bar.opened_at == 1638747660000 * 1_000_000
    assert (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.trades) == (
        0.001,
        0.0025,
        low,
        0.002,
        1000.0,
        100,
    )


def test_recorded_aggregate_trade_is_a_trade() -> None:
    sink, _ = fixture("agg_trade_stream", "btcusdt@aggTrade", True)
    (tick,) = sink.all()
    assert tick["flags"] == TRADE | BUYER_MAKER
    assert tick["sequence"] == 5933014


def test_spot_book_ticker_has_no_time_and_is_known_by_its_fields() -> None:
    raw = b'{"u":400900217,"s":"BNBUSDT","b":"25.35","B":"31.2","a":"25.36","A":"40.6"}'
    sink = Sink()
    codec("bnbusdt@bookTicker").decode(raw, NOW, sink)
    (tick,) = sink.all()
    assert (tick["bid"], tick["exchange_at"]) == (25.35, 0)


def test_partial_depth_is_a_book_of_its_own() -> None:
    raw = b'{"stream":"x@depth5","data":{"lastUpdateId":160,"bids":[["0.02","10"]],"asks":[["0.0026","100"]]}}'
    sink = Sink()
    codec("x@depth5").decode(raw, NOW, sink)
    assert sink.books[0].last_sequence == 160
    assert sink.books[0].asks == ((0.0026, 100.0),)


def test_envelope_with_other_spacing_and_order_is_the_same_message() -> None:
    raw = b'{ "data": {"t":7,"p":"1.5","q":"2","T":5,"m":false}, "stream": "x@trade" }'
    sink = Sink()
    codec("x@trade").decode(raw, NOW, sink)
    (tick,) = sink.all()
    assert (tick["sequence"], tick["price"]) == (7, 1.5)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"result":null,"id":3}', Reply(3, "")),
        (b'{"result":["a@trade","b@trade"],"id":4}', Reply(4, "", ("a@trade", "b@trade"))),
        (b'{"code":2,"msg":"Invalid request: x","id":5}', Reply(5, "Invalid request: x (code 2)")),
        (b'{"error":{"code":3,"msg":"Invalid JSON"}}', Reply(None, "Invalid JSON (code 3)")),
        (b'{"e":"serverShutdown","E":1770123456789}', Shutdown()),
        (b'{"stream":"x","data":{"e":"serverShutdown","E":1}}', Shutdown()),
    ],
)
def test_the_servers_own_words_are_returned(raw: bytes, expected: object) -> None:
    assert codec("a@trade").decode(raw, NOW, Sink()) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b'{"stream":"!ticker@arr","data":[{"e":"24hrTicker","s":"X"}]}',
        b'{"stream":"other@trade","data":{"t":7,"p":"1.5","q":"2","T":5,"m":false}}',
        b'{"e":"24hrTicker","s":"BTCUSDT"}',
    ],
)
def test_messages_nobody_asked_for_are_counted_and_harmless(raw: bytes) -> None:
    made, sink = codec("x@trade"), Sink()
    assert made.decode(raw, NOW, sink) is None
    assert made.unknown == 1
    assert len(sink.all()) == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{not json",
        b"[]",
        b"\xff\xfe",
        b'{"stream":"x@trade","data":{"t":7,"p":"abc","q":"2","T":5,"m":false}}',
        b'{"stream":"x@trade","data":{"p":"1","q":"2","T":5,"m":false}}',
        b'{"stream":"x@trade","data":{"t":7,"p":"1","q":"2","T":5,"m":false}',
    ],
)
def test_garbage_raises_and_leaves_nothing(raw: bytes) -> None:
    sink = Sink()
    with pytest.raises(ValueError):  # noqa: PT011 - msgspec's errors differ, all of them are ValueErrors
        codec("x@trade").decode(raw, NOW, sink)
    assert len(sink.all()) == 0


def test_a_kind_it_does_not_decode_cannot_be_added() -> None:
    assert kind_of("x@markPrice") is None
    with pytest.raises(ValueError, match="not a stream"):
        Codec().add("x@markPrice", 1)


def test_watching_drops_exactly_what_the_connection_before_delivered() -> None:
    def trade(number: int) -> bytes:
        return b'{"stream":"x@trade","data":{"t":%d,"p":"1","q":"2","T":5,"m":false}}' % number

    made, sink = codec("x@trade"), Sink()
    made.forget_sequences()
    made.watch = "note"
    for number in (5, 6, 7):
        made.decode(trade(number), NOW, sink)
    made.watch = "skip"
    for number in (6, 7, 8, 9):
        made.decode(trade(number), NOW, sink)
    assert sink.all()["sequence"].tolist() == [5, 6, 7, 8, 9]
    assert made.repeated == 2


@pytest.mark.parametrize(
    ("name", "trades", "quotes", "depths"),
    [("usdm", 21313, 66089, 6551), ("spot", 9757, 28040, 3451)],
)
def test_whole_recordings_decode_with_nothing_lost(name: str, trades: int, quotes: int, depths: int) -> None:
    path: Path = data_file(f"market/crypto_binance_raw_ws/examples_{name}_btcusdt_20240808.gz")
    made, sink = Codec(), Sink()
    known: set[str] = set()
    for line in read(path, Problems()):
        if line.stream not in known:
            known.add(line.stream)
            made.add(line.stream, 1)
        made.decode(line.payload, line.received_at, sink)
    ticks = sink.all()
    assert int(((ticks["flags"] & TRADE) != 0).sum()) == trades
    assert int(((ticks["flags"] & QUOTE) != 0).sum()) == quotes
    assert len(sink.books) == depths
    assert made.unknown == 0
    kept = ticks[(ticks["flags"] & QUOTE) != 0]
    assert (kept["ask"] >= kept["bid"]).all()
    assert (kept["sequence"][1:] > kept["sequence"][:-1]).all()

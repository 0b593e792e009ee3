from __future__ import annotations

import random
import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.kite.codec import Codec, Listed, scale_of
from connectors.kite.messages import Failure, Notice, OrderUpdate, read_text, set_mode, subscribe, unsubscribe
from tests.connectors.kite.making import INFY, NIFTY, USDINR, frame, full, index, ltp, quote
from tests.connectors.support import Sink
from trading.depth import DEPTH, LEVELS, pack_depth, prices, unpack_depth
from trading.ids import Nanos
from trading.ticks import QUOTE, SNAPSHOT, TRADE

ALL = frozenset({"trade", "quote", "depth"})
NOW = Nanos(1_700_000_000_123_456_789)
SECOND = 1_000_000_000


def codec(*tokens: int, channels: frozenset[str] = ALL) -> Codec:
    made = Codec()
    made.put((token, Listed(n, channels)) for n, token in enumerate(tokens or (INFY, NIFTY, USDINR), 1))
    return made


def decoded(made: Codec, *packets: bytes) -> Sink:
    sink = Sink()
    assert made.decode(frame(*packets), NOW, sink) == ""
    return sink


def rows(sink: Sink) -> list[dict[str, Any]]:
    ticks = sink.all()
    return [dict(zip(ticks.dtype.names or (), row.tolist(), strict=True)) for row in ticks]


def test_a_full_packet_is_a_trade_a_quote_and_a_depth() -> None:
    made = codec()
    decoded(made, full(volume=990))
    sink = decoded(made, full(volume=1000))
    trade, quoted = rows(sink)
    nothing = pytest.approx(float("nan"), nan_ok=True)
    assert trade == {
        "instrument": 1,
        "flags": TRADE,
        "price": 1573.7,
        "size": 10.0,
        "bid": nothing,
        "bid_size": nothing,
        "ask": nothing,
        "ask_size": nothing,
        "exchange_at": 1625461887 * SECOND,
        "received_at": NOW,
        "sequence": 1000,
    }
    assert quoted == {
        "instrument": 1,
        "flags": QUOTE,
        "price": nothing,
        "size": nothing,
        "bid": 1573.4,
        "bid_size": 5.0,
        "ask": 1573.7,
        "ask_size": 172.0,
        "exchange_at": 1625461888 * SECOND,
        "received_at": NOW,
        "sequence": 0,
    }
    (books,) = sink.depths
    assert (books["instrument"][0], books["scale"][0], books["received_at"][0]) == (1, 100, NOW)
    assert books["exchange_at"][0] == 1625461888 * SECOND
    assert prices(books, "bids")[0].tolist() == pytest.approx([1573.4, 1573.0, *[float("nan")] * 3], nan_ok=True)
    assert books["bids"]["size"][0].tolist() == [5, 140, 0, 0, 0]
    assert books["bids"]["orders"][0].tolist() == [1, 2, 0, 0, 0]
    assert prices(books, "asks")[0, 0] == 1573.7
    assert (books["asks"]["size"][0, 0], books["asks"]["orders"][0, 0]) == (172, 3)


def test_the_first_packet_after_connecting_is_a_snapshot_with_the_last_quantity() -> None:
    made = codec()
    first = rows(decoded(made, full(last=7, volume=1000)))[0]
    assert (first["flags"], first["size"], first["sequence"]) == (TRADE | SNAPSHOT, 7.0, 1000)
    assert rows(decoded(made, full(last=3, volume=1003)))[0]["flags"] == TRADE
    made.forget()
    again = rows(decoded(made, full(last=2, volume=1100)))[0]
    assert (again["flags"], again["size"]) == (TRADE | SNAPSHOT, 2.0), "what was missed is not one big trade"


def test_without_a_new_trade_there_is_only_the_quote() -> None:
    made = codec()
    decoded(made, full(volume=1000))
    assert [row["flags"] for row in rows(decoded(made, full(volume=1000)))] == [QUOTE]
    assert rows(decoded(made, quote(volume=1000))) == []


def test_a_volume_that_falls_is_a_new_day_and_no_trade_of_the_difference() -> None:
    made = codec()
    decoded(made, quote(volume=1_000_000))
    new_day = rows(decoded(made, quote(volume=12, last=5)))[0]
    assert (new_day["flags"], new_day["size"]) == (TRADE | SNAPSHOT, 5.0)
    assert rows(decoded(made, quote(volume=20)))[0]["size"] == 8.0


def test_an_instrument_that_comes_twice_in_one_frame_counts_each_volume_once() -> None:
    made = codec()
    decoded(made, full(volume=100))
    sink = decoded(made, full(volume=110), full(volume=130), full(volume=130))
    assert [row["size"] for row in rows(sink) if row["flags"] & TRADE] == [10.0, 20.0]
    assert made.packets == 4


def test_indices_and_last_prices_are_trades_of_no_size() -> None:
    made = codec()
    sink = decoded(made, index(at=1625461887), ltp(INFY, 5), index(), ltp(NIFTY, 7))
    assert [(r["instrument"], r["flags"], r["price"], r["size"]) for r in rows(sink)] == [
        (1, TRADE | SNAPSHOT, 0.05, 0.0),
        (2, TRADE | SNAPSHOT, 0.07, 0.0),
        (2, TRADE, 24000.0, 0.0),
        (2, TRADE, 24000.0, 0.0),
    ]
    assert [r["exchange_at"] for r in rows(decoded(made, index(at=1625461999)))] == [1625461999 * SECOND]
    assert rows(decoded(made, quote(INFY, volume=50)))[0]["flags"] == TRADE | SNAPSHOT, "no volume was known before"


@pytest.mark.parametrize(
    ("token", "scale"),
    [(INFY, 100), (NIFTY, 100), (USDINR, 10_000_000), (6, 10_000), (12, 10_000), (7, 100), (4, 100)],
)
def test_prices_are_divided_as_their_segment_asks(token: int, scale: int) -> None:
    assert scale_of(token) == scale
    made = codec(token)
    sink = decoded(made, full(token, price=832_512_345, bids=((832_510_000, 3, 1),)))
    trade, quoted = rows(sink)
    assert trade["price"] == 832_512_345 / scale
    assert sink.depths[0]["scale"][0] == scale
    assert prices(sink.depths[0], "bids")[0, 0] == quoted["bid"] == 832_510_000 / scale


def test_a_side_without_orders_has_no_price() -> None:
    sink = decoded(codec(), full(bids=(), asks=((157370, 172, 3),)))
    quoted = rows(sink)[1]
    assert np.isnan(quoted["bid"])
    assert (quoted["bid_size"], quoted["ask"]) == (0.0, 1573.7)


def test_heartbeats_and_empty_frames_are_nothing() -> None:
    made, sink = codec(), Sink()
    assert [made.decode(raw, NOW, sink) for raw in (b"", b"\x00", b"\x00\x00")] == ["", "", ""]
    assert len(sink.all()) == 0


@pytest.mark.parametrize(
    "raw",
    [
        frame(full())[:-1],
        frame(full(), quote())[:-1],
        frame(full(), quote()) + b"\x00",
        frame(full()) + frame(full()),
        b"\x00\x01",
        b"\x00\x00\x00",
        b"\x00\x02\x00\xb8" + full(),
        b"\x00\x01\x00\x00",
        b"\xff" * 1000,
        struct.pack(">HH", 3, 8) + ltp() * 3,
    ],
)
def test_frames_that_do_not_add_up_are_not_used_at_all(raw: bytes) -> None:
    made, sink = codec(), Sink()
    assert made.decode(raw, NOW, sink) != ""
    assert len(sink.all()) == 0
    assert sink.depths == []
    assert made.decode(frame(full()), NOW, sink) == "", "the next one is"
    assert len(sink.all()) == 2


def test_packets_of_unknown_sizes_are_named_and_the_others_used() -> None:
    made, sink = codec(), Sink()
    wrong = made.decode(frame(ltp(), b"x" * 164, quote()), NOW, sink)
    assert "164" in wrong
    assert made.strange == 1
    assert len(sink.all()) == 2


def test_tokens_nobody_asked_for_are_passed_over() -> None:
    made = codec(INFY)
    sink = decoded(made, full(999 << 8 | 1), full(INFY), full(0xFFFFFFFF))
    assert {row["instrument"] for row in rows(sink)} == {1}
    assert len(sink.depths[0]) == 1
    assert made.unasked == 2
    made.remove([INFY])
    assert rows(decoded(made, full(INFY))) == []


@pytest.mark.parametrize("others", [(), (1594 << 8 | 2,), (0xFFFFFF << 8 | 4,), tuple(n << 8 | 4 for n in range(50))])
def test_tokens_are_found_whatever_their_numbers(others: tuple[int, ...]) -> None:
    """408065 is 1594 at NSE; the same number at another exchange, and very large ones, must not be mistaken for it."""
    made = codec(INFY, *others)
    strangers = [1594 << 8 | 3, 0xFFFFFE << 8 | 4, 0xFFFFFFFF, 0, 256]
    sink = decoded(made, *(ltp(token) for token in (*strangers, *others, INFY)))
    assert sorted(row["instrument"] for row in rows(sink)) == list(range(1, len(others) + 2))
    assert made.unasked == len(strangers)


def test_volumes_outlive_changes_of_what_is_wanted() -> None:
    made = codec(INFY)
    decoded(made, quote(volume=100))
    made.put([(NIFTY, Listed(2, ALL)), (1, Listed(3, ALL))])
    assert rows(decoded(made, quote(volume=110)))[0]["size"] == 10.0
    assert made.has_heard(INFY)
    assert not made.has_heard(NIFTY)
    assert not made.has_heard(5)


def test_each_instrument_gets_its_own_channels() -> None:
    made = Codec()
    other, third = 777 << 8 | 1, 778 << 8 | 1
    made.put(
        [
            (INFY, Listed(1, frozenset({"trade"}))),
            (other, Listed(2, frozenset({"quote"}))),
            (third, Listed(3, frozenset({"depth"}))),
        ]
    )
    sink = decoded(made, full(INFY), full(other), full(third), ltp(NIFTY))
    assert [(r["instrument"], r["flags"]) for r in rows(sink)] == [(1, TRADE | SNAPSHOT), (2, QUOTE)]
    assert sink.depths[0]["instrument"].tolist() == [3]
    assert rows(decoded(made, ltp(other))) == []


def test_text_messages_are_told_apart() -> None:
    assert read_text(b'{"type":"order","data":{"order_id":"1"}}') == OrderUpdate(b'{"order_id":"1"}')
    assert read_text(b'{"type":"error","data":"no"}') == Failure("no")
    assert read_text(b'{"type":"message","data":{"a":1}}') == Notice("message", '{"a":1}')
    assert read_text(b'{"type":"instruments_meta"}') == Notice("instruments_meta", "null")
    for raw in (b"{", b'{"data":1}', b"\xff"):
        with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
            read_text(raw)


def test_control_messages_are_the_documented_json_with_numbers() -> None:
    assert msgspec.json.decode(subscribe([408065])) == {"a": "subscribe", "v": [408065]}
    assert msgspec.json.decode(unsubscribe([1])) == {"a": "unsubscribe", "v": [1]}
    assert msgspec.json.decode(set_mode("full", [1, 2])) == {"a": "mode", "v": ["full", [1, 2]]}


def test_depth_is_framed_for_the_bus() -> None:
    books = decoded(codec(), full(), full(USDINR)).depths[0]
    assert books.dtype == DEPTH
    assert books["bids"].shape == (2, LEVELS)
    raw = pack_depth(3, 8, 1, books)
    epoch, sequence, shard, back = unpack_depth(raw)
    assert (epoch, sequence, shard) == (3, 8, 1)
    assert back.tobytes() == books.tobytes()
    for torn in (raw[:-1], raw[:5], b""):
        with pytest.raises(ValueError, match="depth batch"):
            unpack_depth(torn)


# Properties

_levels = st.lists(
    st.tuples(st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1), st.integers(0, 2**16 - 1)), max_size=5
)
_tokens = st.sampled_from([INFY, NIFTY, USDINR, 5 << 8 | 4, 9 << 8 | 12])
_u32 = st.integers(0, 2**32 - 1)
_packets = st.one_of(
    st.builds(ltp, _tokens, _u32),
    st.builds(index, _tokens, st.integers(900, 2**31), st.none() | st.integers(0, 2**31)),
    st.builds(quote, _tokens, _u32, _u32, _u32),
    st.builds(full, _tokens, _u32, _u32, _u32, _u32, _u32, _levels, _levels),
)


def one_by_one(packets: list[bytes]) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], dict[int, int]]:
    """The plain reading of packets in their order: (number, price, size, is snapshot) of trades, quotes, volumes."""
    numbers = {INFY: 1, NIFTY: 2, USDINR: 3, 5 << 8 | 4: 4, 9 << 8 | 12: 5}
    volumes: dict[int, int] = {}
    trades, quotes = [], []
    for packet in packets:
        token, last = struct.unpack_from(">II", packet)
        price = last / scale_of(token)
        known = volumes.get(token)
        if len(packet) < 44:
            trades.append((numbers[token], price, 0.0, known is None))
            volumes[token] = -1
            continue
        last_size, volume = struct.unpack_from(">I4xI", packet, 8)
        if known is None or known < 0 or volume < known:
            trades.append((numbers[token], price, float(last_size), True))
        elif volume > known:
            trades.append((numbers[token], price, float(volume - known), False))
        volumes[token] = volume
        if len(packet) == 184:
            bid, ask = struct.unpack_from(">II", packet, 64), struct.unpack_from(">II", packet, 124)
            quotes.append((numbers[token], bid[1] / scale_of(token), bid[0], ask[1] / scale_of(token), ask[0]))
    return trades, quotes, volumes


@settings(max_examples=150, deadline=None)
@given(st.lists(_packets, min_size=1, max_size=30))
def test_any_frame_reads_as_its_packets_do_one_by_one(packets: list[bytes]) -> None:
    made, sink = codec(INFY, NIFTY, USDINR, 5 << 8 | 4, 9 << 8 | 12), Sink()
    # Sizes are taken one after another, so a frame is the same as its packets only if they are in that order.
    packets.sort(key=len)
    assert made.decode(frame(*packets), NOW, sink) == ""
    ticks = sink.all()
    trades, quotes, _ = one_by_one(packets)
    got = ticks[(ticks["flags"] & TRADE) != 0]
    # Repeats of an instrument go in turns, so the order of different instruments may change; each one's own does not.
    seen = list(
        zip(
            got["instrument"].tolist(),
            got["price"].tolist(),
            got["size"].tolist(),
            ((got["flags"] & SNAPSHOT) != 0).tolist(),
            strict=True,
        )
    )
    for number in range(1, 6):
        assert [t for t in seen if t[0] == number] == [t for t in trades if t[0] == number]
    shown = ticks[(ticks["flags"] & QUOTE) != 0]
    columns = [np.nan_to_num(shown[name]).tolist() for name in ("bid", "bid_size", "ask", "ask_size")]
    found = list(zip(shown["instrument"].tolist(), *columns, strict=True))
    for number in range(1, 6):
        assert [q for q in found if q[0] == number] == [q for q in quotes if q[0] == number]
    assert sum(map(len, sink.depths)) == len(quotes)
    assert made.packets == len(packets)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600), st.integers(0, 3))
def test_no_bytes_whatever_break_the_codec(raw: bytes, head: int) -> None:
    made, sink = codec(), Sink()
    made.decode(raw, NOW, sink)
    made.decode(bytes([0, head]) + raw, NOW, sink)
    assert made.decode(frame(ltp()), NOW, sink) == ""


@settings(max_examples=100, deadline=None)
@given(st.lists(_packets, min_size=1, max_size=10), st.data())
def test_a_torn_frame_puts_nothing_in(packets: list[bytes], data: st.DataObject) -> None:
    whole = frame(*packets)
    cut = data.draw(st.integers(2, len(whole) - 1))
    made, sink = codec(), Sink()
    assert made.decode(whole[:cut], NOW, sink) != ""
    assert len(sink.all()) == 0
    assert made.packets == 0


def test_a_large_mixed_frame_is_read_like_single_frames() -> None:
    chance = random.Random(3)
    tokens = [n << 8 | 1 for n in range(1, 501)]
    packets = []
    for token in tokens:
        make = chance.choice([ltp, quote, full, index])
        packets.append(make(token, chance.randrange(1_000, 10**6)))
    one, many = codec(*tokens), codec(*tokens)
    together, apart = Sink(), Sink()
    assert one.decode(frame(*packets), NOW, together) == ""
    for packet in packets:
        assert many.decode(frame(packet), NOW, apart) == ""
    by = ["instrument", "flags"]
    assert np.sort(together.all(), order=by).tobytes() == np.sort(apart.all(), order=by).tobytes()
    books = np.concatenate(apart.depths)
    assert np.sort(together.depths[0], order="instrument").tobytes() == np.sort(books, order="instrument").tobytes()

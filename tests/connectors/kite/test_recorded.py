"""Kite's recorded packets and documented answers, read by the connector field by field."""

from __future__ import annotations

import base64
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from connectors.kite.codec import Codec, Listed
from connectors.kite.messages import OrderUpdate, read_text
from connectors.kite.symbols import parse_instruments
from connectors.kite.wire import LastPrice, Ohlc, Quote, Session, candles_in, data_in, ist_iso, nanos
from tests.connectors.kite.making import frame
from tests.connectors.support import Sink
from tests.support.data import DATA, needs
from trading.depth import prices
from trading.ids import Nanos
from trading.ticks import QUOTE, SNAPSHOT, TRADE

HOME = DATA / "fixtures" / "zerodha"
SECOND = 1_000_000_000


def raw(name: str) -> bytes:
    return needs(HOME / name).read_bytes()


def said(name: str) -> Any:
    return msgspec.json.decode(raw(name))


def decoded(name: str) -> Sink:
    packet = base64.b64decode(raw(name))
    codec, sink = Codec(), Sink()
    codec.put([(408065, Listed(9, frozenset({"trade", "quote", "depth"})))])
    assert codec.decode(frame(packet), Nanos(77), sink) == ""
    return sink


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND


def test_the_recorded_full_packet_says_what_kite_says_it_says() -> None:
    want, sink = said("ticker_full.json"), decoded("ticker_full.packet")
    trade, quote = sink.all()
    assert (trade["instrument"], trade["flags"], trade["received_at"]) == (9, TRADE | SNAPSHOT, 77)
    assert trade["price"] == want["last_price"]
    assert trade["size"] == want["last_quantity"]
    assert trade["sequence"] == want["volume"]
    assert trade["exchange_at"] == instant(want["last_trade_time"])
    best = [want["depth"][side][0] for side in ("buy", "sell")]
    assert quote["flags"] == QUOTE
    assert [quote["bid"], quote["ask"]] == [level["price"] for level in best]
    assert [quote["bid_size"], quote["ask_size"]] == [level["quantity"] for level in best]
    assert quote["exchange_at"] == instant(want["timestamp"])
    (books,) = sink.depths
    assert books["exchange_at"].tolist() == [instant(want["timestamp"])]
    for ours, theirs in (("bids", "buy"), ("asks", "sell")):
        levels = want["depth"][theirs]
        assert prices(books, ours)[0].tolist() == [level["price"] for level in levels]
        assert books[ours]["size"][0].tolist() == [level["quantity"] for level in levels]
        assert books[ours]["orders"][0].tolist() == [level["orders"] for level in levels]
        assert not books[ours]["places"].any()


def test_the_recorded_quote_packet_says_what_kite_says_it_says() -> None:
    want, sink = said("ticker_quote.json"), decoded("ticker_quote.packet")
    (trade,) = sink.all()
    assert (trade["price"], trade["size"]) == (want["last_price"], want["last_quantity"])
    assert (trade["sequence"], trade["exchange_at"]) == (want["volume"], 0)
    assert np.isnan(trade["bid"])
    assert sink.depths == []


@pytest.mark.parametrize("name", ["historical_minute.json", "historical_oi.json"])
def test_candles(name: str) -> None:
    rows, bars = said(name)["data"]["candles"], candles_in(raw(name))
    assert len(bars) == len(rows) > 5
    for row, bar in zip(rows, bars, strict=True):
        assert bar.opened_at == int(datetime.strptime(row[0], "%Y-%m-%dT%H:%M:%S%z").timestamp()) * SECOND
        assert [bar.open, bar.high, bar.low, bar.close, bar.volume] == row[1:6]
        assert ist_iso(bar.opened_at) == row[0]


def test_quotes() -> None:
    found: Quote = data_in(raw("quote.json"), dict[str, Quote], "quotes")["NSE:INFY"]
    want = said("quote.json")["data"]["NSE:INFY"]
    assert msgspec.json.decode(msgspec.json.encode(found)) == want
    assert found.timestamp is not None
    assert nanos(found.timestamp) == instant("2021-06-08T15:45:56+05:30")
    last: LastPrice = data_in(raw("ltp.json"), dict[str, LastPrice], "prices")["NSE:INFY"]
    assert (last.instrument_token, last.last_price) == (408065, 1074.35)
    day = said("ohlc.json")["data"]["NSE:INFY"]["ohlc"]
    assert msgspec.to_builtins(msgspec.convert(day, Ohlc)) == day


def test_the_session_of_a_log_in() -> None:
    session: Session = data_in(raw("generate_session.json"), Session, "the session")
    assert session == Session(
        access_token="XXXXXX", user_id="XX0000", api_key="XXXXXX", login_time="2021-01-01 16:15:14"
    )


def test_an_order_update_on_the_ticker_is_kept_whole() -> None:
    postback = said("postback.json")
    update = read_text(msgspec.json.encode({"type": "order", "data": postback}))
    assert isinstance(update, OrderUpdate)
    assert msgspec.json.decode(update.data) == postback


@pytest.mark.parametrize("name", ["instruments_all.csv", "instruments_nse.csv"])
def test_the_list_of_instruments(name: str) -> None:
    rows = [line.split(",") for line in raw(name).decode().strip().splitlines()[1:]]
    listing = parse_instruments(raw(name), date(2017, 12, 15))
    assert len(listing.instruments) + len(listing.skipped) == len(rows)
    by_id = {each.id: each for each in listing.instruments}
    assert len(by_id) > 50
    for row in rows:
        token, _, symbol, _, _, expiry, strike, tick, lot, kind, _, exchange = row
        if symbol in ("", "TEST"):
            continue
        found = by_id.get(f"{exchange}:{symbol}")  # type: ignore[call-overload]
        if found is None:
            assert any(text.startswith(f"{exchange}:{symbol}:") for text in listing.skipped)
            continue
        assert found.provider_symbol == token
        assert (found.tick_size, found.lot_size) == (Decimal(tick), Decimal(lot))
        assert (found.currency, found.calendar, found.provider) == ("INR", "XBOM", "kite")
        assert expiry in found.description
        if kind in ("CE", "PE"):
            assert f"{Decimal(strike):g}" in found.description or strike.removesuffix(".0") in found.description


def test_expired_contracts_are_left_out_of_the_list() -> None:
    before = parse_instruments(raw("instruments_all.csv"), date(2017, 12, 15)).instruments
    after = parse_instruments(raw("instruments_all.csv"), date(2018, 6, 1))
    gone = {each.id for each in before} - {each.id for each in after.instruments}
    assert any("BANKNIFTY18JAN" in id_ for id_ in gone)
    assert any("expired on 2018-01-25" in text for text in after.skipped)

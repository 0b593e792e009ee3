"""The shapes of Kite Connect v3's REST wire: envelopes, candles, times, the log-in.  Pure.

Sources: "Response structure", "Exceptions and errors", "User" (login flow), "Market quotes and instruments" and
"Historical candle data" of the Kite Connect v3 documentation.  Answers are ``{"status": "success", "data": …}`` or
``{"status": "error", "error_type": …, "message": …}``; lists of instruments are CSV.  Times are India's, with or
without saying so.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from connectors.base import LastValue
from trading.bars import Bar
from trading.errors import BadInput, Unreachable
from trading.ids import InstrumentId, Nanos

#: The version of the API, said in each request.
VERSION: Final = {"X-Kite-Version": "3"}
#: India's time, which has no summer time.
IST: Final = timezone(timedelta(hours=5, minutes=30))
DAY_NS: Final = 86_400_000_000_000
_SECOND: Final = 1_000_000_000
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([+-]\d\d:?\d\d)?")


class Interval(msgspec.Struct, frozen=True):
    """A length of candles: the wire's word, and how many days one request may span."""

    word: str
    most_days: int


#: Source of the days: the staff's answer in the developers' forum ("maximum candle cap for each request").
INTERVALS: Final = {
    "1m": Interval("minute", 60),
    "3m": Interval("3minute", 100),
    "5m": Interval("5minute", 100),
    "10m": Interval("10minute", 100),
    "15m": Interval("15minute", 200),
    "30m": Interval("30minute", 200),
    "60m": Interval("60minute", 400),
    "1h": Interval("60minute", 400),
    "1d": Interval("day", 2000),
}


class ErrorBody(msgspec.Struct):
    """An error of the API."""

    message: str = ""
    error_type: str = "GeneralException"


class LastPrice(msgspec.Struct):
    """A row of ``/quote/ltp``."""

    instrument_token: int
    last_price: float


class Ohlc(msgspec.Struct):
    """The day's prices; ``close`` is that of the day before."""

    open: float
    high: float
    low: float
    close: float


class QuoteLevel(msgspec.Struct):
    """A level of a book."""

    price: float
    quantity: int
    orders: int


class QuoteDepth(msgspec.Struct):
    """Five levels a side, best first; those that are not there are 0."""

    buy: tuple[QuoteLevel, ...]
    sell: tuple[QuoteLevel, ...]


class Quote(msgspec.Struct):
    """A row of ``/quote``: the whole state of one instrument.  Times are India's, as the wire has them."""

    instrument_token: int
    last_price: float
    ohlc: Ohlc
    timestamp: str | None = None
    last_trade_time: str | None = None
    last_quantity: int = 0
    buy_quantity: int = 0
    sell_quantity: int = 0
    volume: int = 0
    average_price: float = 0.0
    oi: int = 0
    oi_day_high: int = 0
    oi_day_low: int = 0
    net_change: float = 0.0
    lower_circuit_limit: float = 0.0
    upper_circuit_limit: float = 0.0
    #: Indices have none.
    depth: QuoteDepth | None = None


class Session(msgspec.Struct):
    """What ``/session/token`` gives, as far as it is used."""

    access_token: str
    user_id: str = ""
    api_key: str = ""
    login_time: str = ""


class _Envelope(msgspec.Struct):
    data: msgspec.Raw
    status: str = ""


class _Candles(msgspec.Struct):
    candles: list[list[Any]]


_envelope = msgspec.json.Decoder(_Envelope).decode
_error = msgspec.json.Decoder(ErrorBody).decode


def data_in(body: bytes, kind: Any, what: str) -> Any:
    """The data of a successful answer.  Raises `Unreachable` where it is not what is documented."""
    try:
        return msgspec.json.decode(_envelope(body).data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # An answer to a log-in bears the token.
        shown = "" if kind is Session else f": {body[:200]!r}"
        raise Unreachable("kite", f"{what}: the answer cannot be read ({error}){shown}") from None


def error_in(body: bytes) -> ErrorBody:
    """The error of an answer that is none of 200; an unclassified one where it does not say."""
    try:
        return _error(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ErrorBody(message=body[:200].decode("utf-8", "replace"))


def candles_in(body: bytes) -> list[Bar]:
    """Candles ``[time, open, high, low, close, volume(, open interest)]`` as bars, in their order."""
    try:
        return [
            Bar(
                opened_at=nanos(row[0]),
                open=float(row[1]),
                high=float(row[2]),
                low=float(row[3]),
                close=float(row[4]),
                volume=float(row[5]),
            )
            for row in data_in(body, _Candles, "candles").candles
        ]
    except (IndexError, TypeError, ValueError) as error:
        raise Unreachable("kite", f"candles: not what Kite documents: {error}") from error


def interval_of(interval: str) -> Interval:
    """Kite's candles of an interval.  Raises `BadInput` for one it has not."""
    found = INTERVALS.get(interval)
    if found is None:
        raise BadInput("interval", f"{interval[:20]!r} is not offered by Kite: use {', '.join(INTERVALS)}")
    return found


def last_value(instrument: InstrumentId, quote: Quote) -> LastValue:
    """A row of ``/quote`` as a last value.  Indices are not traded: their figure has the time of the row."""
    bid, ask = (
        (side[0] if side else None for side in (quote.depth.buy, quote.depth.sell)) if quote.depth else (None,) * 2
    )
    changed_at = nanos(quote.timestamp) if quote.timestamp else Nanos(0)
    traded_at = nanos(quote.last_trade_time) if quote.last_trade_time else Nanos(0)
    value = LastValue(
        instrument=instrument,
        price=quote.last_price,
        size=float(quote.last_quantity),
        traded_at=changed_at if quote.depth is None else traded_at,
        quoted_at=Nanos(0) if quote.depth is None else changed_at,
    )
    # A side without orders is 0 on the wire.
    if bid is not None and bid.price:
        value = msgspec.structs.replace(value, bid=bid.price, bid_size=float(bid.quantity))
    if ask is not None and ask.price:
        value = msgspec.structs.replace(value, ask=ask.price, ask_size=float(ask.quantity))
    return value


# Times


def nanos(text: str) -> Nanos:
    """``2017-12-15T09:15:00+0530`` or ``2021-06-08 15:45:56`` (India's time) as UTC ns.  Raises ValueError."""
    if not _TIME.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a time of Kite's")
    at = datetime.fromisoformat(text)
    return Nanos(int((at if at.tzinfo else at.replace(tzinfo=IST)).timestamp()) * _SECOND)


def ist(at: int) -> str:
    """UTC ns as ``yyyy-mm-dd hh:mm:ss`` of India's time."""
    return _ist(at).strftime("%Y-%m-%d %H:%M:%S")


def ist_iso(at: int) -> str:
    """UTC ns as candles have it: ``yyyy-mm-ddThh:mm:ss+0530``."""
    return _ist(at).strftime("%Y-%m-%dT%H:%M:%S%z")


def ist_day(at: int) -> date:
    """The day in India."""
    return _ist(at).date()


def _ist(at: int) -> datetime:
    return datetime.fromtimestamp(at // _SECOND, UTC).astimezone(IST)


# Logging in


def login_url(api_key: str, host: str = "https://kite.zerodha.com") -> str:
    """Where a person logs in; Kite then sends the browser on with a ``request_token``."""
    return f"{host}/connect/login?{urlencode({'api_key': api_key, 'v': '3'})}"


def checksum(api_key: str, request_token: str, api_secret: str) -> str:
    """What proves that the exchange of a ``request_token`` is ours."""
    return hashlib.sha256(f"{api_key}{request_token}{api_secret}".encode()).hexdigest()

"""Log-in, lists, quotes and candles of the connector against the simulator, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.kite.market import KiteMarket
from connectors.kite.simulated_login import Refusal
from connectors.kite.simulated_wire import Request
from connectors.kite.simulator import KiteSimulator
from connectors.kite.wire import DAY_NS, IST, candles_in, checksum, ist, ist_day, ist_iso, login_url, nanos
from tests.connectors.kite.making import instrument
from tests.support.patience import PATIENCE
from trading.errors import BadInput, NeedsOperator, NotReady, Unreachable
from trading.ids import InstrumentId, Nanos

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
INFY = InstrumentId("NSE:INFY")


def at(text: str) -> Nanos:
    return Nanos(int(datetime.fromisoformat(text).timestamp()) * SECOND)


#: A Friday afternoon in Mumbai, after the close.
NOW = at("2026-11-20T17:00:00+05:30")


class Clock:
    def __init__(self, now: Nanos) -> None:
        self.now = now

    def __call__(self) -> Nanos:
        return self.now


@asynccontextmanager
async def market(
    settings: dict[str, Any] | None = None, now: Nanos | None = NOW, **of: Any
) -> AsyncIterator[tuple[KiteSimulator, KiteMarket, dict[str, str]]]:
    clock = Clock(now) if now is not None else None
    simulator = KiteSimulator(**{"hold": True, "limits": False, "clock": clock} | of)
    await simulator.start()
    credentials = simulator.credentials()
    extra: dict[str, Any] = {} if clock is None else {"clock": clock}
    made = KiteMarket({"base_url": simulator.url} | (settings or {}), credentials, **extra)
    try:
        yield simulator, made, credentials
    finally:
        await made.close()
        await simulator.stop()


def asked(simulator: KiteSimulator) -> list[Request]:
    """Every request from now on."""
    seen: list[Request] = []
    answer = simulator._resource

    def note(request: Request) -> Any:
        seen.append(request)
        return answer(request)

    simulator._resource = note  # type: ignore[method-assign]
    return seen


# Instruments and quotes


async def test_instruments_are_listed_by_exchange_without_the_expired() -> None:
    async with market() as (simulator, made, _):
        by_id = {each.id: each for each in await made.instruments()}
        assert by_id[INFY].provider_symbol == "408065"
        assert {str(id_).partition(":")[0] for id_ in by_id} == {"NSE", "BSE", "NFO", "CDS"}
        assert "NFO:NIFTYOLDFUT" not in by_id
        future = next(each for id_, each in by_id.items() if id_.startswith("NFO:NIFTY"))
        assert future.lot_size == 75
        assert "future expires 2026-11-29" in future.description
        assert str(next(each.tick_size for id_, each in by_id.items() if id_.startswith("CDS:"))) == "0.0025"
        only = KiteMarket({"base_url": simulator.url, "exchanges": ["BSE", "CDS"]}, simulator.credentials())
        assert {each.id.partition(":")[0] for each in await only.instruments()} == {"BSE", "CDS"}
        await only.close()


async def test_quotes_show_the_whole_state_and_leave_out_what_is_unknown() -> None:
    async with market() as (_, made, _):
        found = await made.quotes([INFY, InstrumentId("NSE:NOSUCH"), InstrumentId("NSE:NIFTY 50")])
        assert set(found) == {"NSE:INFY", "NSE:NIFTY 50"}
        infy = found[INFY]
        assert infy.instrument_token == 408065
        assert infy.timestamp == "2026-11-20 17:00:00"
        assert infy.depth is not None
        assert len(infy.depth.buy) == len(infy.depth.sell) == 5
        assert infy.depth.buy[0].price < infy.last_price < infy.depth.sell[0].price
        assert found[InstrumentId("NSE:NIFTY 50")].depth is None
        assert await made.tokens([INFY]) == {INFY: 408065}


async def test_many_quotes_are_asked_for_in_pieces_that_kite_takes() -> None:
    async with market(shares=1_200) as (simulator, made, _):
        ids = [each.id for each in await made.instruments() if each.id.startswith("NSE:SHARE")]
        seen = asked(simulator)
        assert len(await made.tokens(ids)) == len(ids) == 1_198
        assert [len(request.query) for request in seen] == [1_000, 198]
        assert len(await made.quotes(ids[:600])) == 600
        assert [len(request.query) for request in seen[2:]] == [500, 100]


# Candles


async def test_history_is_asked_for_in_pieces_of_the_days_allowed() -> None:
    async with market() as (simulator, made, _):
        seen = asked(simulator)
        start, end = at("2026-06-01T09:15:00+05:30"), NOW
        bars = await made.history(instrument(), "1m", start, end)
        spans = [(request.value("from"), request.value("to")) for request in seen]
        assert spans == [
            ("2026-06-01 09:15:00", "2026-07-31 09:14:59"),
            ("2026-07-31 09:15:00", "2026-09-29 09:14:59"),
            ("2026-09-29 09:15:00", "2026-11-20 16:59:59"),
        ]
        # 125 working days from the 1st of June to the 20th of November, 375 minutes each.
        assert len(bars) == 125 * 375
        opened = [bar.opened_at for bar in bars]
        assert opened == sorted(set(opened))
        assert (opened[0], opened[-1]) == (start, at("2026-11-20T15:29:00+05:30"))
        want = simulator.market.by_id["NSE:INFY"].candles("minute", opened[7], opened[7], NOW, False)[0]
        assert [bars[7].open, bars[7].high, bars[7].low, bars[7].close, bars[7].volume] == want[1:]


@pytest.mark.parametrize(
    ("interval", "days", "requests"),
    [
        ("3m", 100, 1),
        ("5m", 101, 2),
        ("10m", 200, 2),
        ("15m", 200, 1),
        ("30m", 201, 2),
        ("1h", 800, 2),
        ("1d", 2001, 2),
    ],
)
async def test_each_interval_has_its_own_limit_and_is_never_above_it(interval: str, days: int, requests: int) -> None:
    async with market() as (simulator, made, _):
        seen = asked(simulator)
        bars = await made.history(instrument(), interval, Nanos(NOW - days * DAY_NS), NOW)
        assert len(seen) == requests
        assert bars
        assert all(bar.opened_at + 60 * MINUTE <= NOW for bar in bars if interval == "1h")


async def test_bars_that_are_not_closed_are_left_out() -> None:
    now = at("2026-11-20T09:17:30+05:30")
    async with market(now=now) as (_, made, _):
        start = at("2026-11-20T09:15:00+05:30")
        bars = await made.history(instrument(), "1m", start, Nanos(now + DAY_NS))
        assert [bar.opened_at for bar in bars] == [start, start + MINUTE]
        assert await made.history(instrument(), "1d", Nanos(start - DAY_NS // 2), Nanos(now + DAY_NS)) == []
        assert await made.history(instrument(), "1m", Nanos(now + DAY_NS), Nanos(now + 2 * DAY_NS)) == []


async def test_wrong_questions_about_history_are_refused() -> None:
    async with market() as (_, made, _):
        with pytest.raises(BadInput, match="use 1m, 3m, 5m"):
            await made.history(instrument(), "7m", Nanos(0), NOW)
        with pytest.raises(BadInput, match="later than start"):
            await made.history(instrument(), "1m", NOW, NOW)
        with pytest.raises(BadInput, match="shorter span"):
            await made.history(instrument(), "1m", Nanos(0), NOW)
        with pytest.raises(BadInput, match="invalid token"):
            await made.history(instrument("NSE:NOSUCH", 999 << 8 | 1), "1m", Nanos(NOW - DAY_NS), NOW)


# Limits and errors


async def test_requests_keep_the_pace_that_kite_asks_for() -> None:
    async with market(now=None, limits=True) as (simulator, made, _):
        now = Nanos(time.time_ns())
        began = time.monotonic()
        await asyncio.gather(
            *(made.history(instrument(), "1d", Nanos(now - 9 * DAY_NS), now) for _ in range(5)),
            made.quotes([INFY]),
            made.quotes([INFY]),
        )
        # Four pauses of a third of a second, and one of a second beside them.
        took = time.monotonic() - began
        print(f"{took:.1f} s for seven requests")
        assert 1.3 < took < 8.0 * PATIENCE
        assert simulator.counts["refused_429"] <= 1, "a busy machine may bring two together"


async def test_too_many_requests_are_tried_again_and_then_told() -> None:
    async with market(now=None, limits=True) as (simulator, made, _):
        log_in = simulator.log_ins["simulatedkey"]
        # Somebody else uses the key: this second's quote is gone.
        log_in.count("quote", simulator.clock())
        assert set(await made.quotes([INFY])) == {INFY}
        assert simulator.counts["refused_429"] >= 1
        log_in.count = _always_full  # type: ignore[method-assign]
        with pytest.raises(NotReady, match="Too many requests"):
            await made.quotes([INFY])


def _always_full(kind: str, now: Nanos) -> None:
    raise Refusal(429, "NetworkException", "Too many requests")


async def test_a_server_that_is_away_is_unreachable() -> None:
    made = KiteMarket({"base_url": "http://127.0.0.1:1"}, {"api_key": "k", "access_token": "t"})
    with pytest.raises(Unreachable, match="127"):
        await made.instruments()
    await made.close()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b'{"status":"success"}', b'{"data":{"candles":[[1]]}}', b'{"data":{"candles":[["x",1]]}}']
)
def test_answers_that_are_not_what_is_documented_are_told(body: bytes) -> None:
    with pytest.raises(Unreachable):
        candles_in(body)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"mode": "all"}, "mode"),
        ({"base_url": "ws://x"}, "base_url"),
        ({"exchanges": ["NYSE"]}, "exchanges"),
        ({"feed": "iex"}, "settings"),
    ],
)
def test_wrong_settings_name_the_field(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as caught:
        KiteMarket(settings, {})
    assert caught.value.field == field


# Logging in


def test_the_log_in_is_the_documented_one() -> None:
    assert login_url("abc") == "https://kite.zerodha.com/connect/login?api_key=abc&v=3"
    assert checksum("a", "b", "c") == hashlib.sha256(b"abc").hexdigest()


async def request_token(simulator: KiteSimulator) -> str:
    """What a person's browser is sent on with."""
    async with httpx.AsyncClient() as browser:
        answer = await browser.get(login_url("simulatedkey", simulator.url))
    assert answer.status_code == 302
    return parse_qs(urlsplit(answer.headers["location"]).query)["request_token"][0]


async def test_a_request_token_is_exchanged_once_and_ends_the_session_before() -> None:
    async with market() as (simulator, made, credentials):
        before = credentials["access_token"]
        token = await request_token(simulator)
        session = await made.exchange(token)
        assert (session.api_key, session.user_id) == ("simulatedkey", "AB1234")
        with pytest.raises(NeedsOperator, match="connect/login"):
            await made.tokens([INFY])
        credentials["access_token"] = session.access_token
        assert await made.tokens([INFY]) == {INFY: 408065}, "the new one is used without a new connector"
        assert session.access_token != before
        with pytest.raises(NeedsOperator, match="invalid or has expired"):
            await made.exchange(token)


async def test_a_request_token_is_not_exchanged_by_the_wrong_secret_nor_too_late() -> None:
    async with market() as (simulator, made, credentials):
        token = await request_token(simulator)
        credentials["api_secret"] = "wrong"
        with pytest.raises(NeedsOperator, match="checksum"):
            await made.exchange(token)
        credentials["api_secret"] = "simulatedsecret"
        clock = simulator._clock
        assert isinstance(clock, Clock)
        clock.now = Nanos(NOW + 301 * SECOND)
        with pytest.raises(NeedsOperator, match="expired"):
            await made.exchange(token)
        credentials.pop("api_secret")
        with pytest.raises(NeedsOperator, match="api_secret"):
            await made.exchange(token)


async def test_an_access_token_ends_at_six_in_the_morning_and_the_remedy_is_named() -> None:
    async with market() as (simulator, made, credentials):
        clock = simulator._clock
        assert isinstance(clock, Clock)
        clock.now = at("2026-11-21T05:59:59+05:30")
        assert await made.tokens([INFY])
        clock.now = at("2026-11-21T06:00:00+05:30")
        with pytest.raises(NeedsOperator) as caught:
            await made.tokens([INFY])
        assert "TokenException" in str(caught.value)
        assert "PUT /v1/accounts/{id}/credentials" in caught.value.action
        assert "connect/login?api_key=simulatedkey" in caught.value.action
        assert credentials["access_token"] not in str(caught.value)
        assert credentials["api_secret"] not in str(caught.value)
        credentials.update(simulator.credentials())
        assert await made.tokens([INFY]) == {INFY: 408065}


async def test_without_credentials_there_is_no_market_and_the_remedy_is_named() -> None:
    made = KiteMarket({"base_url": "http://127.0.0.1:1"}, {})
    with pytest.raises(NeedsOperator, match="account"):
        await made.instruments()
    await made.close()


# Times


@given(st.integers(0, 4_000_000_000))
def test_indian_times_go_there_and_back(seconds: int) -> None:
    instant = Nanos(seconds * SECOND)
    assert nanos(ist(instant)) == nanos(ist_iso(instant)) == instant
    assert ist_day(instant) == datetime.fromtimestamp(seconds, UTC).astimezone(IST).date()


@pytest.mark.parametrize("text", ["", "now", "2026-11-20", "20-11-2026 10:00:00", "2026-11-20 10:00"])
def test_other_texts_are_no_times(text: str) -> None:
    with pytest.raises(ValueError, match="time of Kite"):
        nanos(text)

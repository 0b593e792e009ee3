"""History is fetched once, whoever asks how often; what is absent is told from what nobody has looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import pytest

from cluster import history as module
from cluster.history import Gap, History
from cluster.session_days import SessionDays
from storage.bars import DAY, Bars, Cover, Source, StoredBar
from storage.database import Database
from trading.bar_deriving import MINUTE, SECOND
from trading.bars import Bar
from trading.errors import BadInput, NotReady, TradeError, Unreachable
from trading.ids import InstrumentId, Nanos
from trading.instruments import Instrument
from trading.spans import Span

START = 20_000 * DAY
NOW = START + 3 * DAY + 30 * SECOND
BTC = Instrument(
    id=InstrumentId("BINANCE:BTCUSDT"), provider_symbol="BTCUSDT", provider="binance-spot", tick_size=Decimal("0.1"),
    lot_size=Decimal("0.001"), currency="USDT", number=7,
)  # fmt: skip


def traded(at: int) -> bool:
    """Nothing is traded in every seventh minute."""
    return (at // MINUTE) % 7 != 3


def bar(at: int) -> Bar:
    price = 100.0 + (at // MINUTE) % 13
    return Bar(opened_at=Nanos(at), open=price, high=price + 1, low=price - 1, close=price, volume=2.0, trades=1)


class Provider:
    """A provider of minutes that counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[Span] = []
        self.raises: list[TradeError] = []
        self.takes_s = 0.0
        self.now = NOW

    async def history(self, instrument: Instrument, interval: str, start: Nanos, end: Nanos) -> Sequence[Bar]:
        if interval != "1m":
            raise BadInput("interval", f"{interval} is not offered here")
        if self.raises:
            raise self.raises.pop()
        self.asked.append(Span(start, end))
        await asyncio.sleep(self.takes_s)
        return [bar(at) for at in range(start, end, MINUTE) if traded(at) and at + MINUTE <= self.now]

    def times(self) -> list[int]:
        return [at for span in self.asked for at in range(span.start, span.end, MINUTE)]


def made(db: Database, provider: Provider) -> History:
    return History(Bars(db), provider.history, SessionDays().within, lambda: Nanos(provider.now))


def minutes(first: int, last: int) -> list[Bar]:
    return [bar(START + n * MINUTE) for n in range(first, last) if traded(START + n * MINUTE)]


async def test_a_span_is_fetched_once_also_where_nothing_was_traded(db: Database) -> None:
    provider = Provider()
    history = made(db, provider)
    page = await history.page(BTC, "1m", Nanos(START), Nanos(START + 60 * MINUTE))
    assert (page.bars, page.gaps, page.next, page.until) == (minutes(0, 60), [], None, START + 60 * MINUTE)
    # Another process asks for more: only what is missing is fetched.
    page = await made(db, provider).page(BTC, "1m", Nanos(START - 5 * MINUTE), Nanos(START + 90 * MINUTE))
    assert page.bars == minutes(-5, 90)
    assert await history.closed(BTC, "1m", Nanos(START + 3 * MINUTE), Nanos(START + 4 * MINUTE)) == minutes(3, 4)
    assert provider.asked == [
        Span(START, START + 60 * MINUTE),
        Span(START - 5 * MINUTE, START),
        Span(START + 60 * MINUTE, START + 90 * MINUTE),
    ]


async def test_who_asks_at_once_waits_for_the_one_that_fetches(db: Database) -> None:
    provider = Provider()
    provider.takes_s = 0.3
    asked = [(START + n * 10 * MINUTE, START + (n * 10 + 60) * MINUTE) for n in range(4)] * 2
    pages = await asyncio.gather(*(made(db, provider).page(BTC, "1m", Nanos(a), Nanos(b)) for a, b in asked))
    for (a, b), page in zip(asked, pages, strict=True):
        assert page.bars == minutes((a - START) // MINUTE, (b - START) // MINUTE)
        assert page.gaps == []
    times = provider.times()
    assert sorted(times) == sorted(set(times))


async def test_pages_follow_each_other_without_a_seam_whatever_the_interval(db: Database) -> None:
    provider = Provider()
    history = made(db, provider)
    for interval, factor in (("1m", 1), ("5m", 5), ("1h", 60), ("4h", 240)):
        whole = (await history.page(BTC, interval, Nanos(START), Nanos(START + DAY), 10_000)).bars
        assert len(whole) == (len(minutes(0, 1440)) if factor == 1 else 1440 // factor)
        parts: list[Bar] = []
        at: Nanos | None = Nanos(START)
        while at is not None:
            page = await history.page(BTC, interval, at, Nanos(START + DAY), 5)
            assert len(page.bars) <= 5
            parts += page.bars
            at = page.next
        assert parts == whole
    (day,) = await history.closed(BTC, "1d", Nanos(START), Nanos(START + DAY))
    assert (day.opened_at, day.trades, day.high) == (START, len(minutes(0, 1440)), 113.0)


async def test_what_is_young_is_given_but_not_taken_for_final(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = Provider()
    history = made(db, provider)
    last = NOW - NOW % MINUTE
    page = await history.page(BTC, "1m", Nanos(last - 10 * MINUTE), Nanos(NOW + DAY))
    # The bar under way is not among them; live bars go on with it.
    assert page.until == last
    assert page.bars == [bar(at) for at in range(last - 10 * MINUTE, last, MINUTE) if traded(at)]
    (gap,) = page.gaps
    assert (gap.start, gap.end) == (last - MINUTE, last)
    assert "not final" in gap.reason
    await history.page(BTC, "1m", Nanos(last - 10 * MINUTE), Nanos(NOW + DAY))
    assert len(provider.asked) == 1
    provider.now += 2 * MINUTE
    page = await history.page(BTC, "1m", Nanos(last - 10 * MINUTE), Nanos(NOW + DAY))
    assert provider.asked[1:] == [Span(last - MINUTE, last + 2 * MINUTE)]
    assert page.until == last + 2 * MINUTE


async def test_what_was_seen_live_is_not_fetched_and_joins_what_was(db: Database) -> None:
    provider = Provider()
    live = [bar(START + n * MINUTE) for n in range(10, 20)]
    await Bars(db).save(
        [StoredBar(instrument=7, width=MINUTE, bar=each, source=Source.BUILT) for each in live],
        [Cover(instrument=7, width=MINUTE, span=Span(START + 10 * MINUTE, START + 20 * MINUTE))],
    )
    page = await made(db, provider).page(BTC, "1m", Nanos(START), Nanos(START + 30 * MINUTE))
    assert page.bars == minutes(0, 10) + live + minutes(20, 30)
    assert provider.asked == [Span(START, START + 10 * MINUTE), Span(START + 20 * MINUTE, START + 30 * MINUTE)]


async def test_what_a_provider_has_not_is_a_gap_and_no_silence(db: Database) -> None:
    provider = Provider()
    seen = Span(START + 2 * SECOND, START + 4 * SECOND)
    await Bars(db).save([], [Cover(instrument=7, width=SECOND, span=seen)])
    page = await made(db, provider).page(BTC, "1s", Nanos(START), Nanos(START + 5 * SECOND))
    reason = "the provider cannot say: 1s is not offered here"
    assert page.gaps == [
        Gap(start=Nanos(START), end=Nanos(seen.start), reason=reason),
        Gap(start=Nanos(seen.end), end=Nanos(START + 5 * SECOND), reason=reason),
    ]
    assert page.bars == []


async def test_a_provider_that_fails_half_way_is_asked_only_for_the_rest(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 20)
    provider = Provider()

    async def failing(instrument: Instrument, interval: str, start: Nanos, end: Nanos) -> Sequence[Bar]:
        if len(provider.asked) == 2:
            provider.raises = [Unreachable("klines", "it went away")]
        return await provider.history(instrument, interval, start, end)

    history = History(Bars(db), failing, SessionDays().within, lambda: Nanos(NOW))
    with pytest.raises(NotReady, match="it went away"):
        await history.page(BTC, "1m", Nanos(START), Nanos(START + 60 * MINUTE))
    page = await made(db, provider).page(BTC, "1m", Nanos(START), Nanos(START + 60 * MINUTE))
    assert page.bars == minutes(0, 60)
    assert provider.asked == [Span(START + n * MINUTE, START + (n + 20) * MINUTE) for n in (0, 20, 40)]


async def test_one_who_takes_too_long_leaves_the_claim_to_others(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FETCH_S", 0.2)
    provider = Provider()
    provider.takes_s = 5.0
    with pytest.raises(NotReady, match="ask again"):
        await made(db, provider).page(BTC, "1m", Nanos(START), Nanos(START + MINUTE))
    provider.takes_s = 0.0
    page = await made(db, provider).page(BTC, "1m", Nanos(START), Nanos(START + MINUTE))
    assert page.bars == minutes(0, 1)


async def test_days_are_those_of_the_calendar(db: Database) -> None:
    """New York, 2024-11-27 to 29: the 28th is a holiday, the 29th ends at 13:00."""
    calendar, hour = "XNYS", 3600 * SECOND
    wednesday, friday = 1_732_665_600 * SECOND, 1_732_838_400 * SECOND
    provider = Provider()
    provider.now = friday + 5 * DAY
    spy = Instrument(
        id=InstrumentId("XNYS:SPY"), provider_symbol="SPY", provider="alpaca", tick_size=Decimal("0.01"),
        lot_size=Decimal(1), currency="USD", number=8, calendar=calendar,
    )  # fmt: skip
    history = made(db, provider)
    page = await history.page(spy, "1d", Nanos(wednesday), Nanos(friday + DAY))
    opens = [wednesday + 14 * hour + 30 * MINUTE, friday + 14 * hour + 30 * MINUTE]
    assert [each.opened_at for each in page.bars] == opens
    lengths = [
        sum(traded(opened + n * MINUTE) for n in range(count)) for opened, count in zip(opens, (390, 210), strict=True)
    ]
    assert [each.trades for each in page.bars] == lengths
    one = await history.page(spy, "1d", Nanos(wednesday), Nanos(friday + DAY), 1)
    assert (one.bars, one.next, one.until) == (page.bars[:1], opens[1], opens[1])
    with pytest.raises(NotReady, match="NOPE"):
        await SessionDays().within("NOPE", Span(wednesday, friday))


@pytest.mark.parametrize(
    ("interval", "start", "end", "limit", "field"),
    [("1w", 0, 1, 1, "interval"), ("1m", 5, 5, 1, "end"), ("1m", 0, 5, 0, "limit"), ("1m", -1, 5, 1, "end")],
)
async def test_a_senseless_question_is_refused(
    db: Database, interval: str, start: int, end: int, limit: int, field: str
) -> None:
    with pytest.raises(BadInput, match=field):
        await made(db, Provider()).page(BTC, interval, Nanos(start), Nanos(end), limit)

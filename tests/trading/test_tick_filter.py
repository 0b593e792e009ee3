"""Bad ticks are found, good ones are not, and it does not matter how ticks are batched."""

from __future__ import annotations

import zipfile
from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.binance.codec import Codec
from connectors.recordings import Problems, read
from tests.support.data import DATA, USDM_RECORDING, needs
from trading.errors import BadInput
from trading.quarantine import FilterSettings, Quarantine, Reason, good
from trading.tick_filter import SMALL, TickFilter
from trading.tick_judgement import WARM_UP
from trading.ticks import BACKFILLED, QUOTE, SNAPSHOT, TICK, TRADE, TickArray, TickBuffer, decode

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
INF, NAN = float("inf"), float("nan")


def trade(price: float, size: float = 1.0, at: int = 0, received: int | None = None, flags: int = 0) -> TickArray:
    buffer = TickBuffer()
    when = START + at if received is None else START + received
    buffer.trade(1, price, size, flags, START + at, when, 0)
    return decode(buffer.take())


def quote(bid: float, ask: float, at: int = 0, bid_size: float = 1.0, ask_size: float = 1.0) -> TickArray:
    buffer = TickBuffer()
    buffer.quote(1, bid, bid_size, ask, ask_size, 0, START + at, START + at, 0)
    return decode(buffer.take())


def usual(count: int, instruments: int = 1, seed: int = 1, step: float = 1e-4) -> TickArray:
    """A calm market: a tick each millisecond, two quotes to a trade."""
    random = np.random.default_rng(seed)
    ticks = np.zeros(count, dtype=TICK)
    ticks["instrument"] = random.integers(1, instruments + 1, count)
    is_quote = random.random(count) < 0.66
    ticks["flags"] = np.where(is_quote, QUOTE, TRADE)
    price = 100.0 * np.exp(np.cumsum(random.normal(0, step, count)))
    for field in ("price", "size", "bid", "bid_size", "ask", "ask_size"):
        ticks[field] = NAN
    ticks["price"][~is_quote] = price[~is_quote]
    ticks["size"][~is_quote] = 1.0 + random.exponential(1.0, int((~is_quote).sum()))
    ticks["bid"][is_quote], ticks["ask"][is_quote] = price[is_quote] - 0.01, price[is_quote] + 0.01
    ticks["bid_size"][is_quote] = ticks["ask_size"][is_quote] = 5.0
    ticks["exchange_at"] = START + np.arange(count) * SECOND // 1000
    ticks["received_at"] = ticks["exchange_at"] + random.integers(0, 3_000_000, count)
    return ticks


def warm(filter_: TickFilter, price: float = 100.0, until: int = 0) -> TickFilter:
    """Trades and quotes around ``price`` up to a nanosecond before ``until``."""
    for n in range(2 * WARM_UP, 0, -1):
        at = until - n * SECOND // 100
        assert filter_.judge(trade(price + 0.01 * (n % 2), at=at)).tolist() == [0]
        assert filter_.judge(quote(price - 0.01, price + 0.01 * (1 + n % 2), at=at)).tolist() == [0]
    return filter_


@pytest.mark.parametrize(
    ("tick", "reason"),
    [
        (trade(100.2), Reason.GOOD),
        (trade(NAN), Reason.NOT_A_NUMBER),
        (trade(INF), Reason.NOT_A_NUMBER),
        (trade(100.0, INF), Reason.NOT_A_NUMBER),
        (trade(0.0), Reason.NOT_POSITIVE),
        (trade(-100.0), Reason.NOT_POSITIVE),
        (trade(100.0, -1.0), Reason.NEGATIVE_SIZE),
        (trade(100.0, 0.0), Reason.GOOD),
        (trade(100.0, NAN), Reason.GOOD),
        (trade(100.0, 1e9), Reason.HUGE_SIZE),
        (trade(100.0, 5_000.0), Reason.GOOD),
        (trade(112.0), Reason.OUT_OF_BAND),
        (trade(1.0), Reason.OUT_OF_BAND),
        (trade(10_000.0), Reason.OUT_OF_BAND),
        (trade(100.0, at=-2 * SECOND), Reason.BACKWARDS),
        (trade(100.0, at=-SECOND // 2), Reason.GOOD),
        (trade(100.0, at=-2 * SECOND, flags=SNAPSHOT), Reason.GOOD),
        (trade(112.0, at=-900 * SECOND, flags=BACKFILLED), Reason.GOOD),
        (trade(0.0, at=-900 * SECOND, flags=BACKFILLED), Reason.NOT_POSITIVE),
        (trade(100.0, at=9 * SECOND, received=SECOND), Reason.AHEAD),
        (trade(100.0, at=4 * SECOND, received=SECOND), Reason.GOOD),
        (quote(99.99, 100.0), Reason.GOOD),
        (quote(100.0, 100.0), Reason.GOOD),
        (quote(100.01, 100.0), Reason.CROSSED),
        (quote(0.0, 100.0), Reason.NOT_POSITIVE),
        (quote(99.9, -1.0), Reason.NOT_POSITIVE),
        (quote(NAN, NAN), Reason.NOT_A_NUMBER),
        (quote(NAN, 100.0), Reason.GOOD),
        (quote(99.9, NAN), Reason.GOOD),
        (quote(99.9, INF), Reason.NOT_A_NUMBER),
        (quote(99.9, 100.0, bid_size=-1.0), Reason.NEGATIVE_SIZE),
        (quote(99.9, 100.0, ask_size=1e9), Reason.HUGE_SIZE),
        (quote(99.9, 180.0), Reason.OUT_OF_BAND),
    ],
)
def test_verdict(tick: TickArray, reason: Reason) -> None:
    filter_ = warm(TickFilter())
    assert Reason(int(filter_.judge(tick)[0])) is reason
    counted = {} if reason is Reason.GOOD else {reason.word: 1}
    assert filter_.quarantine.counts() == filter_.quarantine.counts(1) == counted
    if reason:
        (held,) = filter_.quarantine.of(1)
        assert (held.reason, held.flags, held.received_at) == (
            reason.word,
            int(tick["flags"][0]),
            int(tick["received_at"][0]),
        )


def test_a_tick_that_is_neither_trade_nor_quote_is_refused_in_small_and_large_batches() -> None:
    ticks = usual(SMALL * 2)
    ticks["flags"][7] = 0
    assert np.flatnonzero(TickFilter().judge(ticks)).tolist() == [7]
    assert np.flatnonzero(TickFilter().judge(ticks[:10])).tolist() == [7]


def test_what_a_refused_tick_was_compared_with_is_shown() -> None:
    filter_ = warm(TickFilter())
    filter_.judge(trade(150.0))
    (held,) = filter_.quarantine.of(1)
    assert held.price == 150.0
    assert held.reference == pytest.approx(100.01)
    assert 0.5 <= held.width <= 0.51
    assert msgspec.json.decode(msgspec.json.encode(held))["bid"] is None


def test_quarantine_keeps_the_last_ones_and_counts_all() -> None:
    filter_ = TickFilter(keep=3)
    for n in range(10):
        filter_.judge(trade(-1.0 - n))
    assert [held.price for held in filter_.quarantine.of(1)] == [-8.0, -9.0, -10.0]
    assert filter_.quarantine.counts() == {"not_positive": 10}
    filter_.quarantine.clear(1)
    assert filter_.quarantine.of(1) == []
    assert filter_.quarantine.counts() == {}


def level(filter_: TickFilter, price: float, count: int, apart: int, begin: int = SECOND) -> list[int]:
    return [int(filter_.judge(trade(price, at=begin + n * apart))[0]) for n in range(count)]


def test_price_that_has_really_moved_is_taken_after_some_ticks_that_agree() -> None:
    filter_ = warm(TickFilter())
    assert level(filter_, 120.0, 6, SECOND // 10) == [Reason.OUT_OF_BAND] * 4 + [0, 0]
    assert filter_.shifts == 1
    assert filter_.judge(trade(100.0, at=3 * SECOND)).tolist() == [Reason.OUT_OF_BAND]


def test_burst_that_agrees_within_an_instant_is_not_believed_yet() -> None:
    filter_ = warm(TickFilter())
    assert level(filter_, 120.0, 20, 1000) == [Reason.OUT_OF_BAND] * 20
    assert level(filter_, 120.0, 1, 1, 2 * SECOND) == [0]


def test_bad_ticks_between_good_ones_never_become_the_truth() -> None:
    filter_ = warm(TickFilter())
    for n in range(50):
        assert level(filter_, 120.0, 1, 0, n * SECOND // 10) == [Reason.OUT_OF_BAND]
        assert level(filter_, 100.0, 1, 0, n * SECOND // 10) == [0]


def test_good_ticks_in_a_large_batch_end_a_candidate_too() -> None:
    filter_ = warm(TickFilter())
    assert level(filter_, 120.0, 4, SECOND // 10) == [Reason.OUT_OF_BAND] * 4
    assert not filter_.judge(np.concatenate([trade(100.0, at=2 * SECOND)] * SMALL * 2)).any()
    assert level(filter_, 120.0, 4, SECOND // 10, 3 * SECOND) == [Reason.OUT_OF_BAND] * 4


def test_bad_ticks_that_disagree_never_become_the_truth() -> None:
    filter_ = warm(TickFilter())
    for n in range(50):
        assert level(filter_, 150.0 + 20 * n, 1, 0, n * SECOND // 10) == [Reason.OUT_OF_BAND]


def test_band_is_wider_after_a_long_silence() -> None:
    night = 16 * 3600 * SECOND
    assert level(warm(TickFilter()), 108.0, 1, 0, 2 * SECOND) == [Reason.OUT_OF_BAND]
    assert level(warm(TickFilter()), 108.0, 1, 0, night) == [0]
    assert level(warm(TickFilter()), 200.0, 1, 0, night) == [Reason.OUT_OF_BAND]


def test_wrong_first_tick_does_not_lock_out_the_right_ones() -> None:
    filter_ = TickFilter()
    assert level(filter_, 5.0, 1, 0) == [0]
    assert level(filter_, 100.0, 6, SECOND // 10, 2 * SECOND)[-2:] == [0, 0]


def test_seed_catches_a_wrong_first_tick_and_changes_nothing_later() -> None:
    filter_ = TickFilter()
    filter_.seed(1, 100.0)
    assert level(filter_, 5.0, 1, 0) == [Reason.OUT_OF_BAND]
    assert level(filter_, 101.0, 1, 0) == [0]
    filter_.seed(1, 5.0)
    assert level(filter_, 101.0, 1, 0) == [0]


def test_price_ticks_keep_the_band_open_for_cheap_instruments() -> None:
    filter_ = TickFilter()
    warm(filter_, 2.0)
    assert level(filter_, 2.14, 1, 0) == [Reason.OUT_OF_BAND]
    filter_.know(1, 0.05)
    assert level(filter_, 2.14, 1, 0) == [0]


def test_venue_clock_that_stays_ahead_is_taken_as_it_is_after_a_while() -> None:
    filter_ = warm(TickFilter())
    verdicts = [int(filter_.judge(trade(100.0, at=SECOND * (n + 8), received=SECOND * n))[0]) for n in range(1, 60)]
    assert set(verdicts[:30]) == {Reason.AHEAD}
    assert set(verdicts[31:]) == {0}
    assert filter_.judge(trade(100.0, at=SECOND * 100, received=SECOND * 61)).tolist() == [Reason.AHEAD]


def test_replayed_stretch_is_refused_until_it_has_caught_up() -> None:
    filter_ = warm(TickFilter())
    verdicts = [int(filter_.judge(trade(100.0, at=-10 * SECOND + n * SECOND, received=n * 1000))[0]) for n in range(12)]
    assert verdicts == [Reason.BACKWARDS] * 9 + [0] * 3


def test_venue_clock_that_was_set_back_is_taken_as_it_is_after_a_while() -> None:
    filter_ = warm(TickFilter())
    hour = 3600 * SECOND
    verdicts = [int(filter_.judge(trade(100.0, at=n * SECOND - hour, received=n * SECOND))[0]) for n in range(1, 60)]
    assert set(verdicts[:30]) == {Reason.BACKWARDS}
    assert set(verdicts[31:]) == {0}


def test_clock_being_settled_lets_no_wrong_price_through() -> None:
    filter_ = warm(TickFilter())
    for n in range(1, 31):
        filter_.judge(trade(100.0, at=SECOND * (n + 8), received=SECOND * n))
    assert filter_.judge(trade(500.0, at=SECOND * 60, received=SECOND * 52)).tolist() == [Reason.AHEAD]
    assert filter_.judge(trade(100.0, at=SECOND * 61, received=SECOND * 53)).tolist() == [0]


def test_sizes_that_stay_large_are_the_new_usual() -> None:
    filter_ = warm(TickFilter())
    verdicts = [int(filter_.judge(trade(100.0, 1e6, at=SECOND * n))[0]) for n in range(1, 8)]
    assert verdicts == [Reason.HUGE_SIZE] * 4 + [0] * 3


def test_hundreds_of_instruments_are_judged_each_for_itself() -> None:
    filter_ = TickFilter()
    for number in range(0, 300, 7):
        filter_.know(number, 0.5)
        filter_.seed(number, 100.0 + number)
    ticks = np.concatenate([trade(100.0 + number) for number in range(300)])
    ticks["instrument"] = np.arange(300)
    assert not filter_.judge(ticks).any()
    ticks["price"] = 50.0
    refused = np.flatnonzero(filter_.judge(ticks)).tolist()
    assert refused == list(range(300))
    assert filter_.quarantine.numbers() == list(range(300))
    assert [held.reference for held in filter_.quarantine.of(299)] == [399.0]


def test_settings_of_one_instrument_leave_the_others_alone() -> None:
    filter_ = TickFilter()
    filter_.tune_one(1, FilterSettings(off=("crossed",), size_limit=10.0))
    assert filter_.judge(quote(101.0, 100.0)).tolist() == [0]
    assert filter_.judge(trade(100.0, 11.0)).tolist() == [Reason.HUGE_SIZE]
    other = quote(101.0, 100.0).copy()
    other["instrument"] = 2
    assert filter_.judge(other).tolist() == [Reason.CROSSED]
    filter_.tune(FilterSettings(off=("crossed",)))
    assert filter_.judge(other).tolist() == [0]
    filter_.tune_one(1, None)
    assert filter_.settings_of(1) == filter_.settings


@pytest.mark.parametrize("word", [reason.word for reason in Reason if reason not in (0, Reason.NOT_A_NUMBER)])
def test_each_check_can_be_turned_off(word: str) -> None:
    filter_ = TickFilter(FilterSettings(off=tuple(r.word for r in Reason if r)))
    warm(filter_)
    strict = warm(TickFilter(FilterSettings(off=tuple(r.word for r in Reason if r and r.word != word))))
    bad = {
        "not_positive": trade(-5.0),
        "negative_size": trade(100.0, -3.0),
        "crossed": quote(100.02, 100.0),
        "backwards": trade(100.0, at=-60 * SECOND),
        "ahead": trade(100.0, at=60 * SECOND, received=0),
        "huge_size": trade(100.0, 1e12),
        "out_of_band": trade(900.0),
    }[word]
    assert filter_.judge(bad).tolist() == [0]
    assert strict.judge(bad).tolist() == [Reason[word.upper()]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"off": ("nonsense",)}, "off"),
        ({"band_floor": 0.0}, "band_floor"),
        ({"band_steps": -1.0}, "band_steps"),
        ({"ahead_s": NAN}, "ahead_s"),
        ({"shift_ticks": 0}, "shift_ticks"),
        ({"widen_s": INF}, "widen_s"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput, match=field):
        TickFilter().tune(FilterSettings(**change))
    with pytest.raises(BadInput, match=field):
        TickFilter().tune_one(1, FilterSettings(**change))


@pytest.mark.parametrize("size", [1, SMALL, SMALL * 4])
def test_skew_is_a_running_quantile(size: int) -> None:
    filter_ = TickFilter()
    ticks = usual(SMALL * 40)
    for start in range(0, len(ticks), size):
        filter_.judge(ticks[start : start + size])
    skew = (ticks["received_at"] - ticks["exchange_at"]).astype(float)
    for q in (0.5, 0.99):
        assert filter_.skew(1, q) == pytest.approx(np.quantile(skew, q), rel=0.13)
    assert filter_.skew(2, 0.5) is None


def test_what_is_not_carried_any_more_is_forgotten() -> None:
    filter_ = warm(TickFilter())
    filter_.forget(1)
    assert level(filter_, 5.0, 1, 0) == [0]
    assert filter_.skew(1, 0.5) is not None
    filter_.forget(1)
    assert filter_.skew(1, 0.5) is None


def test_impossible_number_is_an_error_and_not_gigabytes() -> None:
    for count in (1, SMALL * 2):
        ticks = usual(count)
        ticks["instrument"] = 2**30
        with pytest.raises(ValueError, match="cannot be the number"):
            TickFilter().judge(ticks)


def spoiled(seed: int, count: int, instruments: int, rate: float) -> tuple[TickArray, np.ndarray[Any, Any]]:
    """A calm market in which some ticks are spoiled in one of many ways; and which."""
    ticks = usual(count, instruments, seed)
    random = np.random.default_rng(seed)
    is_bad = random.random(count) < rate
    for row in np.flatnonzero(is_bad):
        tick = ticks[row : row + 1]
        roll = int(random.integers(0, 9))
        if roll == 0:
            tick["price"] = tick["bid"] = tick["ask"] = 0.0
        elif roll == 1:
            tick["price"] *= 1.5
            tick["bid"] *= 1.5
            tick["ask"] *= 1.5
        elif roll == 2:
            tick["exchange_at"] -= 100 * SECOND
        elif roll == 3:
            tick["exchange_at"] += 100 * SECOND
        elif roll == 4:
            tick["size"] = tick["bid_size"] = -1.0
        elif roll == 5:
            tick["size"] = tick["ask_size"] = 1e9
        elif roll == 6:
            tick["price"] = NAN
            tick["bid"] = tick["ask"] + 1.0
        elif roll == 7:
            tick["flags"] = TRADE | QUOTE
            tick["price"] = INF
        else:
            tick["flags"] = 0
    return ticks, is_bad


def through(filter_: TickFilter, batches: list[TickArray]) -> TickArray:
    """What goes on to readers, in their order."""
    passed = []
    for batch in batches:
        fine = good(batch, filter_.judge(batch))
        passed += [filter_.returned(), fine]
    return np.concatenate(passed)


def passed_by_kind(ticks: TickArray) -> dict[tuple[int, int], list[bytes]]:
    """Each instrument's trades, and its quotes, in their order; those of the past, which wait for nothing, apart."""
    found: dict[tuple[int, int], list[bytes]] = {}
    for tick in ticks:
        found.setdefault((int(tick["instrument"]), int(tick["flags"]) & (TRADE | QUOTE | BACKFILLED)), []).append(
            tick.tobytes()
        )
    return found


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    instruments=st.integers(1, 6),
    rate=st.sampled_from([0.0, 0.002, 0.05, 0.4]),
    strange=st.sampled_from(
        ["", "no sizes", "some sizes", "both kinds", "no venue time", "snapshots", "jumps", "late sizes"]
    ),
    cuts=st.lists(st.integers(1, 899), max_size=8),
)
def test_verdicts_and_memory_do_not_depend_on_how_ticks_are_batched(
    seed: int, instruments: int, rate: float, strange: str, cuts: list[int]
) -> None:
    ticks, _ = spoiled(seed, 900, instruments, rate)
    if strange == "no sizes":
        ticks["size"] = ticks["bid_size"] = ticks["ask_size"] = NAN
    elif strange == "some sizes":
        ticks["size"][::3] = NAN
        ticks["bid_size"][::5] = NAN
    elif strange == "both kinds":
        both = ticks["flags"] == QUOTE
        ticks["flags"][both] = TRADE | QUOTE
        ticks["price"][both], ticks["size"][both] = ticks["bid"][both], 1.0
    elif strange == "no venue time":
        ticks["exchange_at"][seed % 600 :] = 0
    elif strange == "snapshots":
        ticks["flags"][::7] |= SNAPSHOT
        ticks["flags"][::11] |= BACKFILLED
    elif strange == "jumps":
        for field in ("price", "bid", "ask"):
            ticks[field][500:] *= 1.2
    elif strange == "late sizes":
        for field in ("size", "bid_size", "ask_size"):
            ticks[field][:500] *= 0.0
    whole, single, cut = TickFilter(keep=2_000), TickFilter(keep=2_000), TickFilter(keep=2_000)
    edges = sorted({0, *cuts, len(ticks)})
    passed = through(whole, [ticks])
    assert passed_by_kind(through(single, [ticks[n : n + 1] for n in range(len(ticks))])) == passed_by_kind(passed)
    assert passed_by_kind(through(cut, [ticks[a:b] for a, b in pairwise(edges)])) == passed_by_kind(passed)
    assert len(passed) + sum(whole.quarantine.counts().values()) == len(ticks)
    for other in (single, cut):
        assert other.quarantine.counts() == whole.quarantine.counts()
        assert other.shifts == whole.shifts
        for number in range(1, instruments + 1):
            # NaN is unlike itself: as bytes.
            assert msgspec.json.encode(other.quarantine.of(number)) == msgspec.json.encode(whole.quarantine.of(number))
            assert other.skew(number, 0.9) == whole.skew(number, 0.9)
        for filter_ in (whole, other):
            filter_._cool()
        slots = [f._slots.get(n) for n in range(1, instruments + 1) for f in (whole, other)]
        for mine, theirs in zip(slots[::2], slots[1::2], strict=True):
            if mine is not None and theirs is not None:
                a, b = slice(2 * mine, 2 * mine + 2), slice(2 * theirs, 2 * theirs + 2)
                np.testing.assert_allclose(whole._floats[a], other._floats[b], rtol=1e-9)
                np.testing.assert_array_equal(whole._ints[a], other._ints[b])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 400))
def test_spoiled_ticks_are_found_and_only_they(seed: int, size: int) -> None:
    ticks, is_bad = spoiled(seed, 2000, 2, 0.01)
    is_bad[: 8 * WARM_UP] = False
    ticks[: 8 * WARM_UP] = usual(2000, 2, seed)[: 8 * WARM_UP]
    filter_ = TickFilter()
    verdicts = np.concatenate([filter_.judge(ticks[n : n + size]) for n in range(0, len(ticks), size)])
    assert np.flatnonzero(verdicts).tolist() == np.flatnonzero(is_bad).tolist()
    assert sum(filter_.quarantine.counts().values()) == int(is_bad.sum())
    assert len(good(ticks, verdicts)) == 2000 - int(is_bad.sum())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0.05, 20.0).filter(lambda f: not 0.8 < f < 1.25))
def test_level_shift_costs_no_tick_only_the_time_to_confirm_it(seed: int, factor: float) -> None:
    ticks = usual(1200, 1, seed)
    for field in ("price", "bid", "ask"):
        ticks[field][600:] *= factor
    if factor < 1:
        ticks["ask"] = np.maximum(ticks["bid"], ticks["ask"])
    whole, single = TickFilter(), TickFilter()
    assert not whole.judge(ticks).any()
    assert whole.shifts == 2  # of the trades and of the quotes
    verdicts, returned = [], []
    for n in range(len(ticks)):
        verdicts.append(int(single.judge(ticks[n : n + 1])[0]))
        returned += [n] * len(single.returned())
    assert set(verdicts[600:]) == {0, Reason.OUT_OF_BAND}
    assert not any(verdicts[:600])
    # 50 ms and five ticks of each kind, whichever is later.
    assert not any(verdicts[700:])
    assert len(returned) == sum(verdict > 0 for verdict in verdicts)
    assert single.quarantine.counts() == whole.quarantine.counts() == {}


def test_bad_ticks_among_those_that_confirm_a_move_are_not_given_back() -> None:
    filter_ = warm(TickFilter())
    for n, price in enumerate((150.0, 150.0, -1.0, 150.0, 150.0)):
        assert filter_.judge(trade(price, at=SECOND + n * SECOND // 50)).tolist() != [0]
    assert len(filter_.returned()) == 0
    assert filter_.judge(trade(150.0, at=SECOND + 5 * SECOND // 50)).tolist() == [0]
    assert filter_.returned()["price"].tolist() == [150.0] * 4
    assert len(filter_.returned()) == 0
    assert filter_.quarantine.counts() == {"not_positive": 1}
    assert [held.price for held in filter_.quarantine.of(1)] == [-1.0]


def test_bad_ticks_that_disagree_are_not_given_back_with_those_that_agree() -> None:
    filter_ = warm(TickFilter())
    for n, price in enumerate((1.0, 400.0, 150.0, 150.0, 150.0, 150.0)):
        filter_.judge(trade(price, at=SECOND + n * SECOND // 50))
    assert filter_.judge(trade(150.0, at=SECOND + 6 * SECOND // 50)).tolist() == [0]
    assert filter_.returned()["price"].tolist() == [150.0] * 4
    assert filter_.quarantine.counts() == {"out_of_band": 2}


class Sink:
    def __init__(self) -> None:
        self.ticks = TickBuffer()

    def book(self, delta: object) -> None:
        pass


def recorded() -> TickArray:
    codec, sink = Codec(), Sink()
    for stream in ("btcusdt@trade", "btcusdt@bookTicker"):
        codec.add(stream, 1)
    for line in read(needs(USDM_RECORDING), Problems()):
        codec.decode(line.payload, line.received_at, sink)  # type: ignore[arg-type]
    return decode(sink.ticks.take())


def test_nothing_is_wrong_with_a_recorded_day_of_bitcoin() -> None:
    ticks = recorded()
    assert len(ticks) > 10_000
    filter_ = TickFilter()
    for start in range(0, len(ticks), 200):
        filter_.judge(ticks[start : start + 200])
    assert filter_.quarantine.counts() == {}


def us_trades(name: str) -> tuple[TickArray, np.ndarray[Any, Any]]:
    """A day's trades of a US share, and which of them its vendor calls suspicious."""
    path = needs(DATA / "market" / "us_equities_ticks" / name)
    with zipfile.ZipFile(path) as packed:
        text = packed.read(packed.namelist()[0]).decode()
    rows = [line.split(",") for line in text.splitlines()]
    ticks = np.zeros(len(rows), dtype=TICK)
    ticks["instrument"], ticks["flags"] = 1, TRADE
    ticks["price"] = [float(row[1]) / 1e4 for row in rows]
    ticks["size"] = [float(row[2]) for row in rows]
    ticks["exchange_at"] = [START + int(row[0]) * 1_000_000 for row in rows]
    ticks["received_at"] = ticks["exchange_at"] + 1_000_000
    return ticks, np.array([row[-1].strip() in ("1", "True") for row in rows])


@pytest.mark.parametrize("name", ["spy_20131007_trade.zip", "aig_20131008_trade.zip"])
def test_a_day_of_us_trades_loses_next_to_nothing(name: str) -> None:
    ticks, _ = us_trades(name)
    filter_ = TickFilter()
    verdicts = np.concatenate([filter_.judge(ticks[n : n + 500]) for n in range(0, len(ticks), 500)])
    assert np.count_nonzero(verdicts) / len(ticks) < 1e-4, Counter(verdicts.tolist())


def test_quarantine_lists_what_it_holds() -> None:
    held = Quarantine(keep=2)
    tick = trade(-1.0).tolist()[0]
    held.put(tick, Reason.NOT_POSITIVE, NAN, NAN)
    assert held.numbers() == [1]
    assert held.counts(2) == {}

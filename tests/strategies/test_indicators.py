from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.indicators import ATR, EMA, MACD, RSI, SMA, VWAP, Bollinger
from trading.errors import BadInput

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "market" / "misc"


def walk(count: int, seed: int = 3) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.002, count)))
    spread = np.abs(random.normal(0, 0.2, (2, count)))
    return pd.DataFrame(
        {
            "close": close,
            "high": close + spread[0],
            "low": close - spread[1],
            "volume": random.integers(0, 50, count).astype(float),
        }
    )


def recorded() -> pd.DataFrame:
    files = sorted(DATA.glob("btc-perp-*_1m.csv"))
    if not files:
        pytest.skip("the recorded one-minute bars of ../shared/data are not here")
    return pd.read_csv(files[0]).rename(columns=str.lower)[["close", "high", "low", "volume"]].head(8000)


@pytest.fixture(params=["walk", "recorded"])
def frame(request: pytest.FixtureRequest) -> pd.DataFrame:
    return walk(4000) if request.param == "walk" else recorded()


def same(ours: list[Any], theirs: pd.Series | np.ndarray) -> None:
    a, b = np.array(ours, dtype=float), np.asarray(theirs, dtype=float)
    assert np.isfinite(b).sum() > len(b) // 2
    assert np.array_equal(np.isnan(a), np.isnan(b)), "ready at another value"
    ok = ~np.isnan(b)
    assert np.allclose(a[ok], b[ok], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("period", [1, 2, 20, 97])
def test_sma_is_the_rolling_mean(frame: pd.DataFrame, period: int) -> None:
    sma = SMA(period)
    same([sma.update(x) for x in frame["close"]], frame["close"].rolling(period).mean())


@pytest.mark.parametrize("period", [1, 2, 20, 97])
def test_ema_is_the_span_average(frame: pd.DataFrame, period: int) -> None:
    ema = EMA(period)
    pandas = frame["close"].ewm(span=period, adjust=False, min_periods=period).mean()
    same([ema.update(x) for x in frame["close"]], pandas)


def test_rsi_is_wilders(frame: pd.DataFrame) -> None:
    rsi = RSI(14)
    change = frame["close"].diff()
    gain, loss = (
        s.ewm(alpha=1 / 14, adjust=False, min_periods=14).mean() for s in (change.clip(lower=0), -change.clip(upper=0))
    )
    same([rsi.update(x) for x in frame["close"]], 100 - 100 / (1 + gain / loss))


def test_macd_is_the_difference_of_averages(frame: pd.DataFrame) -> None:
    macd = MACD(12, 26, 9)
    values = [macd.update(x) for x in frame["close"]]
    line = frame["close"].ewm(span=12, adjust=False).mean() - frame["close"].ewm(span=26, adjust=False).mean()
    signal = line.ewm(span=9, adjust=False).mean()
    for ours, theirs in zip(zip(*values, strict=True), (line, signal, line - signal), strict=True):
        same(list(ours), theirs.where(np.arange(len(line)) >= 26 + 9 - 2))


@pytest.mark.parametrize("period", [2, 20, 97])
def test_bollinger_uses_the_population_deviation(frame: pd.DataFrame, period: int) -> None:
    bands = Bollinger(period, 2.5)
    values = [bands.update(x) for x in frame["close"]]
    mean = frame["close"].rolling(period).mean()
    reach = 2.5 * frame["close"].rolling(period).std(ddof=0)
    for ours, theirs in zip(zip(*values, strict=True), (mean - reach, mean, mean + reach), strict=True):
        same(list(ours), theirs)


def test_atr_is_wilders(frame: pd.DataFrame) -> None:
    atr = ATR(14)
    before = frame["close"].shift()
    ranges = pd.concat(
        [frame["high"] - frame["low"], (frame["high"] - before).abs(), (frame["low"] - before).abs()], axis=1
    )
    pandas = ranges.max(axis=1).ewm(alpha=1 / 14, adjust=False, min_periods=14).mean()
    ours = [atr.update(h, low, c) for h, low, c in frame[["high", "low", "close"]].itertuples(index=False)]
    same(ours, pandas)


def test_vwap_is_the_running_ratio(frame: pd.DataFrame) -> None:
    vwap = VWAP()
    pandas = (frame["close"] * frame["volume"]).cumsum() / frame["volume"].cumsum()
    same([vwap.update(p, v) for p, v in frame[["close", "volume"]].itertuples(index=False)], pandas)
    vwap.reset()
    assert not vwap.ready
    assert vwap.update(7.0, 2.0) == 7.0


def test_window_forgets_a_huge_value_at_once_when_it_leaves() -> None:
    sma, bands = SMA(5), Bollinger(5)
    for x in [1e15, 1.0, 2.0, 3.0, 4.0, 5.0]:
        sma.update(x)
        bands.update(x)
    assert sma.value == pytest.approx(3.0, rel=1e-9)
    assert bands.deviation == pytest.approx(math.sqrt(2), rel=1e-9)


def test_half_a_million_updates_leave_no_drift() -> None:
    random = np.random.default_rng(11)
    values = (1e6 + random.normal(0, 1e-2, 500_000)).tolist()
    bands, vwap = Bollinger(50), VWAP()
    for x in values:
        bands.update(x)
        vwap.update(x, 1.0)
    last = np.array(values[-50:])
    assert bands.value.middle == pytest.approx(last.mean(), rel=1e-14)
    assert bands.deviation == pytest.approx(last.std(), rel=1e-7), "a deviation of 1e-8 of the value"
    assert vwap.value == pytest.approx(math.fsum(values) / len(values), rel=1e-14)


def test_rsi_of_one_direction_is_at_its_end_and_of_no_movement_is_unknown() -> None:
    up, flat = RSI(3), RSI(3)
    for x in range(9):
        up.update(float(x))
        flat.update(1.0)
    assert up.value == 100.0
    assert math.isnan(flat.value)


KINDS: list[tuple[Callable[[], Any], Callable[[Any, float], Any]]] = [
    (lambda: SMA(4), lambda i, x: i.update(x)),
    (lambda: EMA(4), lambda i, x: i.update(x)),
    (lambda: RSI(4), lambda i, x: i.update(x)),
    (lambda: MACD(2, 4, 3), lambda i, x: i.update(x)),
    (lambda: Bollinger(4, 2), lambda i, x: i.update(x)),
    (lambda: ATR(4), lambda i, x: i.update(x + 1, x - 1, x)),
    (lambda: VWAP(), lambda i, x: i.update(x, 2.0)),
]
values = st.lists(st.floats(0.5, 1e6), max_size=15)


@pytest.mark.parametrize(("make", "update"), KINDS)
@given(first=values, rest=values)
def test_restored_indicator_gives_the_very_same_values(
    make: Callable[[], Any], update: Callable[[Any, float], Any], first: list[float], rest: list[float]
) -> None:
    whole, half, other = make(), make(), make()
    for x in first:
        update(whole, x)
        update(half, x)
    other.restore(half.snapshot())
    assert repr([update(other, x) for x in rest]) == repr([update(whole, x) for x in rest])
    assert repr(other.snapshot()) == repr(whole.snapshot())


@pytest.mark.parametrize(("make", "update"), KINDS)
def test_not_a_number_is_refused_before_it_spoils_the_rest(
    make: Callable[[], Any], update: Callable[[Any, float], Any]
) -> None:
    one = make()
    update(one, 1.0)
    before = json.dumps(one.snapshot())
    with pytest.raises(BadInput):
        update(one, math.nan)
    assert json.dumps(one.snapshot()) == before


def test_snapshot_of_another_indicator_is_refused() -> None:
    with pytest.raises(BadInput, match="other parameters"):
        SMA(3).restore(SMA(4).snapshot())
    with pytest.raises(BadInput, match="other parameters"):
        Bollinger(3, 2.0).restore(Bollinger(3, 3.0).snapshot())
    with pytest.raises(BadInput, match="not a snapshot of ATR"):
        ATR(3).restore(SMA(4).snapshot())


@pytest.mark.parametrize(
    "make", [lambda: SMA(0), lambda: EMA(-1), lambda: RSI(2.5), lambda: MACD(9, 9), lambda: Bollinger(5, 0)]
)  # type: ignore[arg-type]
def test_senseless_parameter_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(BadInput):
        make()
